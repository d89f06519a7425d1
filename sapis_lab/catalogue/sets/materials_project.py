"""The Materials Project by its own interface."""

from sapis_lab.catalogue._base import Label, PublicSet
from sapis_lab.catalogue.sets._papers import JAIN_2013

SET = PublicSet(
    title="Materials Project",
    holds="relaxed inorganic crystals, more than 150,000, with computed properties",
    labels=(
        Label(name="formation energy", unit="eV/atom", key="formation_energy_per_atom", note="per atom"),
        Label(
            name="energy per atom",
            unit="eV/atom",
            key="energy_per_atom",
            note="per atom, with MP's corrections",
        ),
        Label(name="gap", unit="eV", key="band_gap"),
    ),
    brief="E, gap",
    level="PBE, PBE+U and r2SCAN (VASP)",
    licence="CC-BY 4.0",
    citations=(JAIN_2013,),
    homepage="https://materialsproject.org",
    not_fetched=(
        "the Materials Project is asked by its own interface with a key of your own (free, after "
        "registration on its "
        "homepage); sets made from it that need none: matbench_mp_e_form, matbench_mp_gap, mptrj"
    ),
    also=("*.json",),
    sources=("the homepage",),
)
