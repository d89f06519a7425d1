"""The potential of Stillinger and Weber for tetrahedral solids, of one element, periodic.

    E = Σ_{i<j} ε A (B s^-p - s^-q) exp(1/(s - a))
        + Σ_i Σ_{j<k} ε λ (cos θ_jik - cos θ₀)² exp(γ/(s_ij - a) + γ/(s_ik - a)),      s = r/σ < a

Stillinger & Weber, Phys. Rev. B 31, 5262 (1985), eqs 2.1 to 2.7; the defaults are those for silicon of its
section II. Its ε, 50 kcal/mol, makes the energy of the diamond lattice at 5.431 Å -2 ε = -4.3364 eV an atom.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from sapis_lab import units
from sapis_lab.oracles._base import Failed, Labels, OracleConfig
from sapis_lab.oracles._neighborhood import NUMBERS, Neighborhood, differentiated, known_elements

if TYPE_CHECKING:
    from torch import Tensor


class StillingerWeberConfig(OracleConfig):
    """The potential of Stillinger and Weber; the defaults are silicon's."""

    version: ClassVar[int] = 1
    gives: ClassVar[frozenset[str]] = frozenset({"stress"})
    periodic: ClassVar[bool] = True

    kind: Literal["stillinger_weber"] = "stillinger_weber"
    element: str = "Si"
    """The element that the parameters belong to."""
    epsilon: float = Field(default=50 * units.KCAL_PER_MOL_TO_EV, gt=0, le=1e3)
    """Unit of energy, eV; the paper's 50 kcal/mol."""
    sigma: float = Field(default=2.0951, gt=0.01, le=100)
    """Unit of length, Å."""
    a: float = Field(default=1.80, gt=0.1, le=10)
    """Cutoff, in units of sigma."""
    strength: float = Field(default=21.0, ge=0, le=1e4)
    """λ, weight of the angles."""
    gamma: float = Field(default=1.20, gt=0, le=100)
    """γ, decay of the angular part towards the cutoff."""
    A: float = Field(default=7.049556277, ge=0, le=1e6)
    """A of the pair energy."""
    B: float = Field(default=0.6022245584, ge=0, le=1e6)
    """B of the pair energy."""
    p: float = Field(default=4.0, ge=0, le=24)
    """Exponent of the repulsion."""
    q: float = Field(default=0.0, ge=0, le=24)
    """Exponent of the attraction."""
    cos_theta: float = Field(default=-1 / 3, ge=-1, le=1)
    """cos θ₀, of the angle that costs nothing."""

    @field_validator("element")
    @classmethod
    def _is_an_element(cls, value: str) -> str:
        if value not in NUMBERS:
            raise ValueError(f"element is {value!r}, wanted a chemical symbol such as Si")
        return value

    @property
    def cutoff(self) -> float:
        """Å."""
        return self.a * self.sigma

    def label(
        self,
        species: np.ndarray,
        positions: np.ndarray,
        *,
        cell: np.ndarray | None = None,
        pbc: np.ndarray | None = None,
    ) -> Labels | Failed:
        kind = known_elements((self.element,), species, oracle=self.kind)
        return differentiated(self._energy, kind, positions, cell=cell, pbc=pbc, cutoff=self.cutoff)

    def _energy(self, found: Neighborhood) -> Tensor:
        import torch

        r = torch.linalg.vector_norm(found.vectors, dim=1)
        s = r / self.sigma
        # strictly below a for every pair; in the last bits before it the exponential is zero anyway
        inverse = 1 / (s - self.a).clamp(max=-1e-6)
        two = self.A * (self.B * s**-self.p - s**-self.q) * torch.exp(inverse)
        one, other = found.triplets()
        unit = found.vectors / r[:, None]
        cos = (unit[one] * unit[other]).sum(1)
        decay = torch.exp(self.gamma * (inverse[one] + inverse[other]))
        three = self.strength * (cos - self.cos_theta) ** 2 * decay
        return self.epsilon * 0.5 * (two.sum() + three.sum())

    def seconds(self, n_atoms: int) -> float:
        """A fixed part and the triplets of a solid."""
        return 2e-3 + 3e-5 * n_atoms

    def level(self) -> str:
        return f"Stillinger-Weber ({self.element}, epsilon {self.epsilon:.5g} eV, sigma {self.sigma:g} Å)"
