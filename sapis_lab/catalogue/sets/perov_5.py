"""Perov-5 of CDVAE."""

from sapis_lab.catalogue._base import Citation, Label, OfficialFile, PublicSet, github, github_files

REPOSITORY, COMMIT = "txie-93/cdvae", "f857f598d6f6cca5dc1ea0582d228f12dcc2c2ea"

SET = PublicSet(
    title="Perov-5, perovskites (of CDVAE)",
    holds="cells ABX3 of five atoms, 56 elements, relaxed; official training, validation and test files",
    labels=(
        Label(
            name="formation energy", unit="eV", key="heat_all", note="CDVAE says eV/atom, matminer eV a cell"
        ),
        Label(name="gap", unit="eV", key="dir_gap, ind_gap"),
    ),
    level="RPBE (GPAW)",
    licence="MIT (of the repository)",
    citations=(
        Citation(
            key="castelli2012new",
            authors=("Castelli, Ivano E.", "Landis, David D.", "Thygesen, Kristian S.", "others"),
            title="New cubic perovskites for one- and two-photon water splitting using the computational "
            "materials repository",
            journal="Energy & Environmental Science",
            volume="5",
            pages="9034–9043",
            year=2012,
            doi="10.1039/C2EE22341D",
        ),
        Citation(
            key="xie2022crystal",
            authors=(
                "Xie, Tian",
                "Fu, Xiang",
                "Ganea, Octavian-Eugen",
                "Barzilay, Regina",
                "Jaakkola, Tommi",
            ),
            title="Crystal Diffusion Variational Autoencoder for Periodic Material Generation",
            year=2022,
            arxiv="2110.06197",
        ),
    ),
    homepage="https://github.com/txie-93/cdvae",
    files=(
        *github_files(
            REPOSITORY,
            COMMIT,
            """
val.csv 3673814 326f401219901270374b71e2faff63df3a29a99fd26f469993b9f476b693daf2
""",
            below="data/perov_5",
        ),
        *(
            OfficialFile(
                part=name, url=github(REPOSITORY, COMMIT, f"data/perov_5/{name}"), path=name, asked=True
            )
            for name in ("train.csv", "test.csv")
        ),
    ),
    notes=("there are no forces: all structures are relaxed",),
    sources=("the repository at this commit",),
)
