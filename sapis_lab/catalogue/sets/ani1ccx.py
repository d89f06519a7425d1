"""ANI-1ccx."""

from sapis_lab.catalogue._base import Label, PublicSet
from sapis_lab.catalogue.sets._ani1x_file import ANI1X_FILE
from sapis_lab.catalogue.sets._papers import SMITH_2020

SET = PublicSet(
    title="ANI-1ccx",
    holds="about 500,000 conformers of ANI-1x by coupled cluster (H, C, N, O)",
    labels=(
        Label(name="energy", unit="Hartree", key="ccsd(t)_cbs.energy", note="total"),
        Label(name="positions", unit="Å", key="coordinates"),
    ),
    level="CCSD(T)*/CBS",
    licence="CC0 1.0",
    citations=(SMITH_2020,),
    homepage="https://github.com/aiqm/ANI1x_datasets",
    data_doi="10.6084/m9.figshare.c.4712477",
    folder="ani1x",
    kinds=("ani1x",),
    files=(ANI1X_FILE,),
    notes=("conformers of ANI-1x that were not computed have NaN", "there are no forces at this level"),
    sources=("the deposit (size, md5)", "load-atoms (sha256)"),
)
