"""Free energies: umbrella windows with MBAR, thermodynamic integration between surfaces, crystals.

Everything is in eV, Å, fs and rad. Estimates come twice, from pymbar and from a solver that shares no code
with it; errors know that samples of dynamics are correlated.
"""

from sapis_lab.free_energy._crystal import (
    EinsteinSurface,
    center_of_mass_free_energy,
    einstein_free_energy,
    harmonic_free_energy,
)
from sapis_lab.free_energy._mbar import Mbar, mbar
from sapis_lab.free_energy._solve import Solved, overlap, overlap_gap, self_consistent
from sapis_lab.free_energy._statistics import statistical_inefficiency
from sapis_lab.free_energy._switch import (
    Switched,
    SwitchedSurface,
    estimate_switch,
    lobatto,
    sample_switch,
)
from sapis_lab.free_energy._umbrella import Umbrella, within
from sapis_lab.free_energy._windows import BiasedSurface, Windows, circle, sample_windows

__all__ = [
    "BiasedSurface",
    "EinsteinSurface",
    "Mbar",
    "Solved",
    "Switched",
    "SwitchedSurface",
    "Umbrella",
    "Windows",
    "center_of_mass_free_energy",
    "circle",
    "einstein_free_energy",
    "estimate_switch",
    "harmonic_free_energy",
    "lobatto",
    "mbar",
    "overlap",
    "overlap_gap",
    "sample_switch",
    "sample_windows",
    "self_consistent",
    "statistical_inefficiency",
    "within",
]
