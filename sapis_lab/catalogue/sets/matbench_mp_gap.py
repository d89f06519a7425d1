"""Matbench, band gaps of the Materials Project."""

from sapis_lab.catalogue._base import Label, OfficialFile, PublicSet
from sapis_lab.catalogue.sets._papers import DUNN_2020, JAIN_2013

SET = PublicSet(
    title="Matbench, band gaps of the Materials Project",
    holds="106,113 crystals as pymatgen structures",
    labels=(Label(name="gap", unit="eV", key="gap pbe"),),
    level="PBE and PBE+U (VASP, Materials Project)",
    licence="CC-BY 4.0",
    citations=(DUNN_2020, JAIN_2013),
    homepage="https://matbench.materialsproject.org",
    files=(
        OfficialFile(
            part="matbench_mp_gap.json.gz",
            url="https://ml.materialsproject.org/projects/matbench_mp_gap.json.gz",
            path="matbench_mp_gap.json.gz",
            sha256="58b65746bd88329986ed",
        ),
    ),
    notes=("there are no forces: all structures are relaxed", "the file stays compressed"),
    sources=("matminer and matbench (address, sha256, counts)",),
)
