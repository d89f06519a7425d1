"""ANI-1x."""

from sapis_lab.catalogue._base import Label, PublicSet
from sapis_lab.catalogue.sets._ani1x_file import ANI1X_FILE
from sapis_lab.catalogue.sets._papers import SMITH_2018, SMITH_2020

SET = PublicSet(
    title="ANI-1x",
    holds="4,956,005 conformers of organic molecules (H, C, N, O), chosen by active learning",
    labels=(
        Label(name="energy", unit="Hartree", key="wb97x_dz.energy", note="total; wb97x_tz.energy for some"),
        Label(name="forces", unit="Hartree/Å", key="wb97x_dz.forces", note="wb97x_tz.forces for some"),
        Label(name="positions", unit="Å", key="coordinates"),
    ),
    level="ωB97X/6-31G(d), for some also ωB97X/def2-TZVPP",
    licence="CC0 1.0",
    citations=(SMITH_2020, SMITH_2018),
    homepage="https://github.com/aiqm/ANI1x_datasets",
    data_doi="10.6084/m9.figshare.c.4712477",
    files=(ANI1X_FILE,),
    notes=("labels that were not computed are NaN",),
    sources=("the deposit (size, md5)", "load-atoms (sha256)"),
)
