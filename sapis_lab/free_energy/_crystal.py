"""Free energies of crystals by the way of Frenkel & Ladd (J. Chem. Phys. 81, 3188, 1984): from an Einstein
crystal, whose free energy is known, to the real one.

Here atom i is bound to its site by m_i ω² d_i² / 2, where d_i is its way from the site seen from the centre
of mass of all. The springs then leave the centre of mass alone, which drifts as it likes, and the 3N - 3
other modes all have the frequency ω, whatever the masses:

    F = 3 (N - 1) kT ln(ħω/kT)  +  (F_crystal - F_Einstein, `SwitchedSurface`)  -  kT ln(V / (N_cells Λ³))

with Λ = h / sqrt(2π M kT) of the whole mass M: the centre of mass is free within one of the N_cells primitive
cells, for a shift to the next one exchanges atoms that cannot be told apart (Polson, Trizac, Pronk & Frenkel,
J. Chem. Phys. 112, 5339, 2000). All is classical.
"""

from __future__ import annotations

import numpy as np

from sapis_lab import units
from sapis_lab.simulation import Found, Replicas, Surface


class EinsteinSurface(Surface):
    """Springs from atoms to sites.

    Args:
        sites: (n_atoms, 3) Å, the same in all replicas.   frequency: ω, rad/fs.   energy: eV, at the sites.
    """

    def __init__(self, sites: np.ndarray, *, frequency: float, energy: float = 0.0) -> None:
        self.sites, self.frequency, self.energy = np.asarray(sites, dtype=np.float64), frequency, energy

    def __call__(self, state: Replicas, *, stress: bool = False) -> Found:
        if stress:
            raise ValueError("an Einstein crystal is bound to its sites and has no stress; keep the volume")
        if (state.n_atoms != len(self.sites)).any():
            raise ValueError(
                f"replicas have {state.n_atoms.tolist()} atoms, wanted {len(self.sites)} as sites"
            )
        way = state.positions - np.tile(self.sites, (len(state), 1))
        mass = state.masses[:, None]
        mean = state.per_replica(mass * way) / state.per_replica(mass)
        way = way - np.repeat(mean, state.n_atoms, axis=0)
        spring = mass * self.frequency**2 / units.ACCELERATION
        energy = self.energy + 0.5 * state.per_replica((spring * way**2).sum(1))
        return Found(energy, -spring * way)


def einstein_free_energy(n_atoms: int, *, frequency: float, kT: float) -> float:
    """eV, of the 3 (N - 1) modes of an `EinsteinSurface` of energy zero.   frequency: rad/fs; kT: eV."""
    return 3 * (n_atoms - 1) * kT * float(np.log(units.HBAR * frequency / kT))


def center_of_mass_free_energy(mass: float, *, volume: float, kT: float) -> float:
    """eV: a particle of `mass` (amu) in `volume` (Å³), that of one primitive cell."""
    squared = 2 * np.pi * units.HBAR**2 * units.ACCELERATION / (mass * kT)  # Λ², Å²
    return -kT * float(np.log(volume / squared**1.5))


def harmonic_free_energy(hessian: np.ndarray, masses: np.ndarray, *, kT: float) -> float:
    """eV: classical free energy of the 3 (N - 1) modes of a crystal with this Hessian, (3N, 3N) eV/Å², whose
    rows add up to zero.

    Raises:
        ValueError: a mode is unstable.
    """
    root = np.repeat(np.sqrt(masses), 3)
    squared = np.sort(np.linalg.eigvalsh(hessian / np.outer(root, root)))[3:] * units.ACCELERATION
    if squared[0] <= 0:
        raise ValueError(
            f"the crystal has a mode with the squared frequency {squared[0]:.2e} fs⁻², wanted > 0"
        )
    return 0.5 * kT * float(np.log(units.HBAR**2 * squared / kT**2).sum())
