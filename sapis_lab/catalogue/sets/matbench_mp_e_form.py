"""Matbench, formation energies of the Materials Project."""

from sapis_lab.catalogue._base import Label, OfficialFile, PublicSet
from sapis_lab.catalogue.sets._papers import DUNN_2020, JAIN_2013

SET = PublicSet(
    title="Matbench, formation energies of the Materials Project",
    holds="132,752 crystals as pymatgen structures",
    labels=(Label(name="formation energy", unit="eV/atom", key="e_form", note="per atom"),),
    brief="E",
    level="PBE and PBE+U (VASP, Materials Project)",
    licence="CC-BY 4.0",
    citations=(DUNN_2020, JAIN_2013),
    homepage="https://matbench.materialsproject.org",
    files=(
        OfficialFile(
            part="matbench_mp_e_form.json.gz",
            url="https://ml.materialsproject.org/projects/matbench_mp_e_form.json.gz",
            path="matbench_mp_e_form.json.gz",
            sha256="dedcb1d4ba2e3e50dbdd45ba5bc647a00e9c2bcf8f8bf556dc8e92caa39eb21f",
        ),
    ),
    notes=("there are no forces: all structures are relaxed", "the file stays compressed"),
    sources=("matminer and matbench (address, sha256, counts)",),
)
