"""MD17 by coupled cluster."""

from sapis_lab.catalogue._base import Citation, Label, OfficialFile, PublicSet

_ADDRESS = "http://www.quantum-machine.org/gdml/data/npz"
_FILES = {
    "aspirin": ("aspirin_ccsd", "CCSD/cc-pVDZ, 1,000 + 500 frames"),
    "benzene": ("benzene_ccsd_t", "CCSD(T)/cc-pVDZ, 1,000 + 500 frames"),
    "ethanol": ("ethanol_ccsd_t", "CCSD(T)/cc-pVTZ, 1,000 + 1,000 frames"),
    "malonaldehyde": ("malonaldehyde_ccsd_t", "CCSD(T)/cc-pVDZ, 1,000 + 500 frames"),
    "toluene": ("toluene_ccsd_t", "CCSD(T)/cc-pVDZ, 1,000 + 501 frames"),
}

SET = PublicSet(
    title="MD17 by coupled cluster",
    holds="1,000 training and 500 to 1,000 test frames each of five molecules of 9 to 21 atoms (H, C, O)",
    labels=(
        Label(name="energy", unit="kcal/mol", key="E", note="total"),
        Label(name="forces", unit="kcal/mol/Å", key="F"),
        Label(name="positions", unit="Å", key="R"),
    ),
    level=(
        "CCSD(T)/cc-pVTZ (ethanol), CCSD(T)/cc-pVDZ (benzene, malonaldehyde, toluene), CCSD/cc-pVDZ (aspirin)"
    ),
    licence="not stated",
    citations=(
        Citation(
            key="chmiela2018towards",
            authors=(
                "Chmiela, Stefan",
                "Sauceda, Huziel E.",
                "Müller, Klaus-Robert",
                "Tkatchenko, Alexandre",
            ),
            title="Towards exact molecular dynamics simulations with machine-learned force fields",
            journal="Nature Communications",
            volume="9",
            pages="3887",
            year=2018,
            doi="10.1038/s41467-018-06169-2",
            arxiv="1802.09238",
        ),
    ),
    homepage="http://www.sgdml.org",
    files=tuple(
        OfficialFile(
            part=name,
            url=f"{_ADDRESS}/{stem}.zip",
            path=f"{stem}.zip",
            unpack=True,
            gives=(f"{stem}-train.npz", f"{stem}-test.npz"),
            about=about,
        )
        for name, (stem, about) in _FILES.items()
    ),
    also=("*_ccsd_t-train.npz",),
    notes=("the order of the atoms differs from that of rmd17",),
    sources=("the homepage and the paper", "the loaders of torch_geometric and nequip (addresses)"),
)
