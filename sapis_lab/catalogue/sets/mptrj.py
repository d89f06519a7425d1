"""MPtrj."""

from sapis_lab.catalogue._base import Citation, Label, OfficialFile, PublicSet
from sapis_lab.catalogue.sets._papers import JAIN_2013

SET = PublicSet(
    title="Materials Project Trajectory Dataset (MPtrj)",
    holds="1,580,395 frames of relaxations of 145,923 crystals; 89 elements",
    labels=(
        Label(
            name="energy",
            unit="eV",
            key="uncorrected_total_energy",
            note="corrected_total_energy has MP's corrections",
        ),
        Label(name="energy per atom", unit="eV/atom", key="energy_per_atom", note="per atom"),
        Label(name="forces", unit="eV/Å", key="force"),
        Label(
            name="stress",
            unit="kB",
            key="stress",
            note="VASP's sign: the opposite of tension; 10 kB are 1 GPa",
        ),
        Label(name="magnetic moments", unit="μB", key="magmom", note="missing for some frames"),
    ),
    brief="E, F, stress, magnetic moments",
    level="PBE and PBE+U (VASP, Materials Project)",
    licence="MIT",
    citations=(
        Citation(
            key="deng2023chgnet",
            authors=(
                "Deng, Bowen",
                "Zhong, Peichen",
                "Jun, KyuJung",
                "Riebesell, Janosh",
                "Han, Kevin",
                "Bartel, Christopher J.",
                "Ceder, Gerbrand",
            ),
            title=(
                "CHGNet as a pretrained universal neural network potential for charge-informed "
                "atomistic modelling"
            ),
            journal="Nature Machine Intelligence",
            volume="5",
            pages="1031–1041",
            year=2023,
            doi="10.1038/s42256-023-00716-3",
            arxiv="2302.14231",
        ),
        JAIN_2013,
    ),
    homepage="https://figshare.com/articles/dataset/23713842",
    files=(
        OfficialFile(
            part="MPtrj_2022.9_full.json",
            url="https://figshare.com/ndownloader/files/41619375",
            path="MPtrj_2022.9_full.json",
            about_bytes=11.3e9,
            asked=True,
        ),
    ),
    notes=("one JSON object of 11 GB: a reader has to stream it",),
    sources=("matbench-discovery (address, size)", "a loader with its licence and counts"),
)
