"""Copper of the ACE papers."""

from sapis_lab.catalogue._base import Citation, Label, PublicSet, github_files

SET = PublicSet(
    title="Copper, the training subset of PACE",
    holds="1,000 clusters and crystals of 1 to 125 copper atoms",
    labels=(
        Label(name="energy", unit="eV", key="energy", note="total, corrected: about -3.3 eV an atom"),
        Label(name="forces", unit="eV/Å", key="forces"),
    ),
    level="PBE (FHI-aims)",
    licence="not stated",
    citations=(
        Citation(
            key="lysogorskiy2021performant",
            authors=("Lysogorskiy, Yury", "van der Oord, Cas", "Bochkarev, Anton", "others"),
            title=(
                "Performant implementation of the atomic cluster expansion (PACE) and application to "
                "copper and silicon"
            ),
            journal="npj Computational Materials",
            volume="7",
            pages="97",
            year=2021,
            doi="10.1038/s41524-021-00559-9",
        ),
    ),
    homepage="https://github.com/jla-gardner/load-atoms",
    files=github_files(
        "jla-gardner/load-atoms",
        "6e646abfd20a3c9220d0d602b7c0bba21c2fc3a9",
        """
Cu_df2_1k.extxyz 1377849 ef653dec4d4c1daefb31ce0831d6ae6b38f4593689ec649577b7c5fcceb516b0
""",
        below="database/Cu-ACE-21",
    ),
    kinds=("extxyz",),
    sources=("the repository of load-atoms at this commit",),
)
