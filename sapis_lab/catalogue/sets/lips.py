"""LiPS."""

from sapis_lab.catalogue._base import Citation, Label, PublicSet

SET = PublicSet(
    title="LiPS, the superionic conductor Li6.75P3S11",
    holds="25,001 frames of 83 atoms in a periodic cell at 520 K",
    labels=(
        Label(name="energy", unit="eV", note="total"),
        Label(name="forces", unit="eV/Å"),
    ),
    level="PBE (VASP)",
    licence="CC-BY 4.0",
    citations=(
        Citation(
            key="batzner2022e3",
            authors=(
                "Batzner, Simon",
                "Musaelian, Albert",
                "Sun, Lixin",
                "Geiger, Mario",
                "Mailoa, Jonathan P.",
                "Kornbluth, Mordechai",
                "Molinari, Nicola",
                "Smidt, Tess E.",
                "Kozinsky, Boris",
            ),
            title=(
                "E(3)-equivariant graph neural networks for data-efficient and accurate interatomic "
                "potentials"
            ),
            journal="Nature Communications",
            volume="13",
            pages="2453",
            year=2022,
            doi="10.1038/s41467-022-29939-5",
            arxiv="2101.03164",
        ),
    ),
    homepage="https://doi.org/10.24435/materialscloud:s0-5n",
    data_doi="10.24435/materialscloud:s0-5n",
    not_fetched=(
        "the address of its file is not known here; download it from the homepage into $SAPIS_DATA/lips/"
    ),
    also=("*.npz", "*.xyz"),
    kinds=("extxyz",),
    notes=("configs/data/lips-200.yaml reads a random sample of 200 frames, lips/lips_200.npz",),
    sources=("the paper and the deposit",),
)
