"""100 small carbon crystals."""

from sapis_lab.catalogue._base import Citation, Label, PublicSet, github_files

SET = PublicSet(
    title="Carbon, 100 small crystals",
    holds="100 cells of 4 carbon atoms, periodic",
    labels=(
        Label(name="energy", unit="eV", key="energy", note="total"),
        Label(name="forces", unit="eV/Å", key="force"),
        Label(name="virial", unit="eV", key="virial", note="3 x 3"),
    ),
    level="LDA (CASTEP)",
    licence="BSD-3 (of the repository)",
    citations=(
        Citation(
            key="deringer2017machine",
            authors=("Deringer, Volker L.", "Csányi, Gábor"),
            title="Machine learning based interatomic potential for amorphous carbon",
            journal="Physical Review B",
            volume="95",
            pages="094203",
            year=2017,
            doi="10.1103/PhysRevB.95.094203",
            arxiv="1611.03277",
        ),
    ),
    homepage="https://github.com/lab-cosmo/metatrain",
    files=github_files(
        "lab-cosmo/metatrain",
        "cc84568c57a1abb0200abdd01a7a0b8ae280d402",
        """
carbon_reduced_100.xyz 140000 4a7f64baa946695565299dee2ab139037c93d0ff9c5b33629d792145d0ea4a8b
""",
        below="tests/resources",
    ),
    kinds=("extxyz",),
    notes=("its origin is not stated; level and keys are those of the paper",),
    sources=("the repository of metatrain at this commit",),
)
