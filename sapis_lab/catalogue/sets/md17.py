"""MD17, the original labels."""

from sapis_lab.catalogue._base import Label, OfficialFile, PublicSet
from sapis_lab.catalogue.sets._papers import CHMIELA_2017

_ADDRESS = "http://www.quantum-machine.org/gdml/data/npz"
_FILES = {
    "aspirin": ("md17_aspirin.npz", 211_762),
    "azobenzene": ("azobenzene_dft.npz", 99_999),
    "benzene2017": ("md17_benzene2017.npz", 627_983),
    "ethanol": ("md17_ethanol.npz", 555_092),
    "malonaldehyde": ("md17_malonaldehyde.npz", 993_237),
    "naphthalene": ("md17_naphthalene.npz", 326_250),
    "paracetamol": ("paracetamol_dft.npz", 106_490),
    "salicylic": ("md17_salicylic.npz", 320_231),
    "toluene": ("md17_toluene.npz", 442_790),
    "uracil": ("md17_uracil.npz", 133_770),
}

SET = PublicSet(
    title="MD17",
    holds=(
        "molecular dynamics of ten molecules of 9 to 24 atoms (H, C, N, O) at 500 K, 10^5 to 10^6 frames each"
    ),
    labels=(
        Label(name="energy", unit="kcal/mol", key="E", note="total"),
        Label(name="forces", unit="kcal/mol/Å", key="F"),
        Label(name="positions", unit="Å", key="R"),
    ),
    level="PBE+vdW-TS",
    licence="not stated",
    citations=(CHMIELA_2017,),
    homepage="http://www.sgdml.org",
    files=tuple(
        OfficialFile(part=name, url=f"{_ADDRESS}/{path}", path=path, about=f"{n_frames:,} frames", asked=True)
        for name, (path, n_frames) in _FILES.items()
    ),
    notes=("the labels are noisy; rmd17 has the same structures, computed anew",),
    sources=("the homepage", "the loaders of torch_geometric and torchmd-net (addresses)"),
)
