"""MD22."""

from sapis_lab.catalogue._base import Citation, Label, OfficialFile, PublicSet

_ADDRESS = "http://www.quantum-machine.org/gdml/repo/datasets"
_FILES = {
    "Ac-Ala3-NHMe": (42, 85_109, 6_000),
    "DHA": (56, 69_753, 8_000),
    "stachyose": (87, 27_272, 8_000),
    "AT-AT": (60, 20_001, 3_000),
    "AT-AT-CG-CG": (118, 10_153, 2_000),
    "buckyball-catcher": (148, 6_102, 600),
    "double-walled_nanotube": (370, 5_032, 800),
}

SET = PublicSet(
    title="MD22",
    holds="molecular dynamics of seven molecules of 42 to 370 atoms (H, C, N, O) at 400 to 500 K",
    labels=(
        Label(name="energy", unit="kcal/mol", key="E", note="total"),
        Label(name="forces", unit="kcal/mol/Å", key="F"),
        Label(name="positions", unit="Å", key="R"),
    ),
    level="PBE+MBD",
    licence="not stated",
    citations=(
        Citation(
            key="chmiela2023accurate",
            authors=(
                "Chmiela, Stefan",
                "Vassilev-Galindo, Valentin",
                "Unke, Oliver T.",
                "Kabylda, Adil",
                "Sauceda, Huziel E.",
                "Tkatchenko, Alexandre",
                "Müller, Klaus-Robert",
            ),
            title="Accurate global machine learning force fields for molecules with hundreds of atoms",
            journal="Science Advances",
            volume="9",
            pages="eadf0873",
            year=2023,
            doi="10.1126/sciadv.adf0873",
            arxiv="2209.14865",
        ),
    ),
    homepage="http://www.sgdml.org",
    files=tuple(
        OfficialFile(
            part=name,
            url=f"{_ADDRESS}/md22_{name}.npz",
            path=f"md22_{name}.npz",
            about=f"{n_atoms} atoms, {n_frames:,} frames, {n_train:,} of them for training in the paper",
            asked=True,
        )
        for name, (n_atoms, n_frames, n_train) in _FILES.items()
    ),
    sources=("the homepage", "the loaders of schnetpack and nequip (addresses, training sizes)"),
)
