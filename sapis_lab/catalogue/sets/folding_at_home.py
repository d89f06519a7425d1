"""Folding@home."""

from sapis_lab.catalogue._base import Citation, Label, PublicSet

SET = PublicSet(
    title="Folding@home, proteins of SARS-CoV-2",
    holds="trajectories of proteins, milliseconds in all",
    labels=(Label(name="positions", unit="nm (XTC) or Å (DCD, PDB)", note="no energies, no forces"),),
    level="classical force fields",
    licence="not known",
    citations=(
        Citation(
            key="zimmerman2021sars",
            authors=("Zimmerman, Maxwell I.", "Porter, Justin R.", "Ward, Michael D.", "others"),
            title=(
                "SARS-CoV-2 simulations go exascale to predict dramatic spike opening and cryptic "
                "pockets across the "
                "proteome"
            ),
            journal="Nature Chemistry",
            volume="13",
            pages="651–659",
            year=2021,
            doi="10.1038/s41557-021-00707-0",
        ),
    ),
    homepage="https://registry.opendata.aws/foldingathome-covid19/",
    not_fetched=(
        "the buckets hold terabytes and no list of their files is known here; choose files on the "
        "homepage and put them "
        "into $SAPIS_DATA/folding_at_home/"
    ),
    sources=("the homepage",),
)
