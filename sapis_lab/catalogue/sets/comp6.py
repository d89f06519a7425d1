"""COMP6v1."""

from sapis_lab.catalogue._base import Label, PublicSet, github_files
from sapis_lab.catalogue.sets._papers import SMITH_2018

SET = PublicSet(
    title="COMP6v1, S66x8",
    holds=(
        "66 dimers at 8 distances, 528 frames of 6 to 34 atoms (H, C, N, O); the other parts of COMP6 "
        "are not listed"
    ),
    labels=(
        Label(name="energy", unit="Hartree", key="energies", note="total"),
        Label(
            name="gradient",
            unit="Hartree/Å",
            key="forces",
            note=(
                "the array called forces is the gradient, of the opposite sign (checked by its level of "
                "theory)"
            ),
        ),
        Label(name="charges", unit="e", key="cm5, hirshfeld"),
    ),
    brief="E, gradient",
    level="ωB97X/6-31G(d)",
    licence="MIT",
    citations=(SMITH_2018,),
    homepage="https://github.com/isayev/COMP6",
    folder="comp6_s66x8",
    files=github_files(
        "isayev/COMP6",
        "79f41c156f8e19506fe951b5513b98e7c534a503",
        """
s66x8_wb97x6-31gd.h5 2297079 c4708b2659cc3608e231ce8d1810f8407011f94bf98739a5e427c8723b19c778
""",
        below="COMP6v1/s66x8",
    ),
    notes=("ANI-MD, DrugBank, GDB07to13 and tripeptides are in the same repository",),
    sources=("the repository at this commit",),
)
