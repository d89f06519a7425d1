"""Lennard-Jones atoms, also mixtures and periodic.

    u(r) = 4 ε [(σ/r)¹² - (σ/r)⁶],      E = Σ over pairs of u(r), as it is, shifted or switched at the cutoff

Defaults are those of argon: ε/k = 119.8 K, σ = 3.405 Å (Michels, Wijker & Wijker, Physica 15, 627, 1949, as
used by Rowley, Nicholson & Parsonage, J. Comput. Phys. 17, 401, 1975). Unlike atoms: σ the arithmetic and ε
the geometric mean (Lorentz, Berthelot). The switch is the polynomial of OpenMM, 1 - 10 s³ + 15 s⁴ - 6 s⁵ with
s from 0 at `switch_start` to 1 at the cutoff: energies and forces are smooth. The tail is the energy that
atoms beyond the cutoff would add in a uniform fluid (Allen & Tildesley, Computer Simulation of Liquids, eq.
2.144); for ε = σ = 1 it is the one of NIST's reference values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from sapis_lab import units
from sapis_lab.config import Config
from sapis_lab.oracles._base import Failed, Labels, OracleConfig
from sapis_lab.oracles._neighborhood import NUMBERS, Neighborhood, differentiated, known_elements

if TYPE_CHECKING:
    from torch import Tensor

Truncation = Literal["switched", "shifted", "cut"]


class LennardJonesAtom(Config):
    """Parameters of one element."""

    epsilon: float = Field(gt=0, le=1e3)
    """Depth of the minimum, eV."""
    sigma: Annotated[float, Field(gt=0.01, le=100)]
    """Distance at which the energy is zero, Å."""


ARGON = LennardJonesAtom(epsilon=119.8 * units.KB, sigma=3.405)


class LennardJonesConfig(OracleConfig):
    """Lennard-Jones atoms."""

    version: ClassVar[int] = 1
    gives: ClassVar[frozenset[str]] = frozenset({"stress"})
    periodic: ClassVar[bool] = True

    kind: Literal["lennard_jones"] = "lennard_jones"
    atoms: dict[str, LennardJonesAtom] = {"Ar": ARGON}
    """Parameters by element."""
    cutoff: float = Field(default=10.2, gt=0, le=1000)
    """Å; the default is 3 σ of argon."""
    truncation: Truncation = "switched"
    """At the cutoff: switched to zero smoothly, shifted to zero with a step in the force, or cut."""
    switch_start: float = Field(default=9.0, ge=0, le=1000)
    """Where switching begins, Å; used by `truncation: switched` alone."""
    tail: bool = False
    """Adds the energy beyond the cutoff as of a uniform fluid; periodic in three directions and `cut`
    only."""

    @model_validator(mode="after")
    def _consistent(self) -> LennardJonesConfig:
        for symbol in self.atoms:
            if symbol not in NUMBERS:
                raise ValueError(f"atoms has {symbol!r}, wanted chemical symbols such as Ar")
        if not self.atoms:
            raise ValueError("atoms is empty; give the parameters of at least one element")
        if self.truncation == "switched" and not self.switch_start < self.cutoff:
            raise ValueError(
                f"switch_start={self.switch_start} is not below cutoff={self.cutoff} Å; lower it, or choose "
                f"truncation: shifted"
            )
        if self.tail and self.truncation != "cut":
            raise ValueError(f"tail belongs to truncation: cut, got {self.truncation}")
        return self

    def label(
        self,
        species: np.ndarray,
        positions: np.ndarray,
        *,
        cell: np.ndarray | None = None,
        pbc: np.ndarray | None = None,
    ) -> Labels | Failed:
        kind = known_elements(tuple(self.atoms), species, oracle=self.kind)
        if self.tail and (pbc is None or not np.all(pbc)):
            raise ValueError("oracle 'lennard_jones' with tail wants three periodic directions")
        found = differentiated(self._energy, kind, positions, cell=cell, pbc=pbc, cutoff=self.cutoff)
        if not self.tail or isinstance(found, Failed):
            return found
        assert cell is not None and found.stress is not None
        volume = abs(np.linalg.det(cell))
        more = self.tail_energy(kind, float(volume))
        # E_tail = c/V, so dE/dstrain = -E_tail along every axis
        return found._replace(energy=found.energy + more, stress=found.stress - np.eye(3) * more / volume)

    def _energy(self, found: Neighborhood) -> Tensor:
        import torch

        epsilon, sigma = (torch.from_numpy(p) for p in self._mixed())
        a, b = found.kind[found.center], found.kind[found.neighbor]
        r = torch.linalg.vector_norm(found.vectors, dim=1)
        six = (sigma[a, b] / r) ** 6
        u = 4 * epsilon[a, b] * (six * six - six)
        if self.truncation == "shifted":
            at_cutoff = (sigma[a, b] / self.cutoff) ** 6
            u = u - 4 * epsilon[a, b] * (at_cutoff * at_cutoff - at_cutoff)
        if self.truncation == "switched":
            s = ((r - self.switch_start) / (self.cutoff - self.switch_start)).clamp(min=0.0)
            u = u * (1 - s**3 * (10 - 15 * s + 6 * s * s))
        return 0.5 * u.sum()

    def kinds(self, species: np.ndarray) -> np.ndarray:
        """(n_atoms,) the place of every atom's element among `atoms`. ValueError where one is not there."""
        return known_elements(tuple(self.atoms), species, oracle=self.kind)

    def pair(self, r: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """u(r), eV, and du/dr, eV/Å, of pairs (n,) within the cutoff, of elements a and b (n,), see
        `kinds`."""
        of_epsilon, of_sigma = self._mixed()
        epsilon, sigma = of_epsilon[a, b], of_sigma[a, b]
        six = (sigma / r) ** 6
        u = 4 * epsilon * six * (six - 1)
        slope = -24 * epsilon * six * (2 * six - 1) / r
        if self.truncation == "shifted":
            six = (sigma / self.cutoff) ** 6
            u = u - 4 * epsilon * six * (six - 1)
        if self.truncation == "switched":
            width = self.cutoff - self.switch_start
            s = np.maximum((r - self.switch_start) / width, 0.0)
            switch = 1 - s**3 * (10 - 15 * s + 6 * s * s)
            slope = slope * switch - u * 30 * (s * (1 - s)) ** 2 / width
            u = u * switch
        return u, slope

    def _mixed(self) -> tuple[np.ndarray, np.ndarray]:
        """ε and σ of all pairs of elements, each (n_elements, n_elements)."""
        epsilon = np.array([atom.epsilon for atom in self.atoms.values()])
        sigma = np.array([atom.sigma for atom in self.atoms.values()])
        return np.sqrt(np.outer(epsilon, epsilon)), (sigma[:, None] + sigma) / 2

    def tail_energy(self, kind: np.ndarray, volume: float) -> float:
        """(2π/V) Σ_ij ∫ u_ij(r) r² dr from the cutoff on, eV.

        Args:
            kind: (n_atoms,), see `kinds`.   volume: Å³.
        """
        epsilon, sigma = self._mixed()
        three = (sigma / self.cutoff) ** 3
        integral = 4 * epsilon * sigma**3 * (three**3 / 9 - three / 3)
        n = np.bincount(kind, minlength=len(self.atoms)).astype(float)
        return float(2 * np.pi / volume * n @ integral @ n)

    def seconds(self, n_atoms: int) -> float:
        """A fixed part and the pairs of a liquid."""
        return 1e-3 + 4e-5 * n_atoms

    def level(self) -> str:
        atoms = ", ".join(f"{s} {p.epsilon:g} eV {p.sigma:g} Å" for s, p in self.atoms.items())
        return f"Lennard-Jones ({atoms}), {self.truncation} at {self.cutoff:g} Å"
