"""Revised MD17."""

from sapis_lab.catalogue._base import Citation, Label, OfficialFile, PublicSet
from sapis_lab.catalogue.sets._papers import CHMIELA_2017

SET = PublicSet(
    title="Revised MD17",
    holds=(
        "100,000 frames each of ten molecules of 9 to 24 atoms (H, C, N, O), at 500 K; five official splits"
    ),
    labels=(
        Label(name="energy", unit="kcal/mol", key="energies", note="total"),
        Label(name="forces", unit="kcal/mol/Å", key="forces"),
    ),
    level="PBE/def2-SVP (ORCA)",
    licence="CC0 1.0",
    citations=(
        Citation(
            key="christensen2020role",
            authors=("Christensen, Anders S.", "von Lilienfeld, O. Anatole"),
            title="On the role of gradients for machine learning of molecular energies and forces",
            journal="Machine Learning: Science and Technology",
            volume="1",
            pages="045018",
            year=2020,
            doi="10.1088/2632-2153/abba6f",
            arxiv="2007.09593",
        ),
        CHMIELA_2017,
    ),
    homepage="https://doi.org/10.6084/m9.figshare.12672038",
    data_doi="10.6084/m9.figshare.12672038",
    files=(
        OfficialFile(
            part="rmd17.tar.bz2",
            url="https://figshare.com/ndownloader/files/23950376",
            path="rmd17.tar.bz2",
            n_bytes=1_066_301_513,
            md5="cb1a927628d96f2e966025da4fb63d18",
            sha256="cddeea2ec2c4b22a9de16a9a65a3eeedac5b29da9c99c20bbff0153912bf922b",
            unpack=True,
            drop="rmd17",
            gives=("npz_data/rmd17_*.npz", "splits/index_train_0?.csv", "splits/index_test_0?.csv"),
            about="all molecules and splits",
        ),
    ),
    also=("rmd17_*_train_0?.npz",),
    notes=(
        "the authors ask not to train on more than the 1,000 frames of one split: neighbours in time "
        "are nearly equal",
        "different splits share frames: never train on one and test on another",
    ),
    sources=("the deposit", "its loaders in schnetpack and load-atoms (address, checksums)"),
)
