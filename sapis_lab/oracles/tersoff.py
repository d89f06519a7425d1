"""The bond-order potential of Tersoff for carbon, silicon, germanium and their mixtures, periodic.

    E = ½ Σ_{i≠j} f_ij [A_ij exp(-λ_ij r) - b_ij B_ij exp(-μ_ij r)]
    b_ij = χ_ij (1 + β_i^n_i ζ_ij^n_i)^(-1/2n_i),      ζ_ij = Σ_{k≠i,j} f_ik g_i(θ_jik)
    g_i(θ) = 1 + c_i²/d_i² - c_i²/[d_i² + (h_i - cos θ)²]
    f: 1 up to R_ij, ½ + ½ cos(π (r - R_ij)/(S_ij - R_ij)), 0 from S_ij on

Tersoff, Phys. Rev. B 39, 5566 (1989), eqs 1 and 2 and table I (erratum ibid. 41, 3248, 1990): A, B, R and S
of unlike atoms are geometric means, λ and μ arithmetic ones. Carbon is that of Phys. Rev. Lett. 61, 2879
(1988). Forces are continuous, their slopes are not, where f begins and ends.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from sapis_lab.config import Config
from sapis_lab.oracles._base import Failed, Labels, OracleConfig
from sapis_lab.oracles._neighborhood import NUMBERS, Neighborhood, differentiated, known_elements

if TYPE_CHECKING:
    from torch import Tensor


class TersoffAtom(Config):
    """Parameters of one element, by the paper's names."""

    A: float = Field(ge=0, le=1e6)
    """Repulsion, eV."""
    B: float = Field(ge=0, le=1e6)
    """Attraction, eV."""
    lam: float = Field(gt=0, le=100)
    """λ, decay of the repulsion, 1/Å."""
    mu: float = Field(gt=0, le=100)
    """μ, decay of the attraction, 1/Å."""
    beta: float = Field(gt=0, le=1e3)
    """β, weight of the bond order."""
    n: float = Field(gt=0, le=100)
    """Exponent of the bond order."""
    c: float = Field(ge=0, le=1e8)
    """Strength of the angular part."""
    d: float = Field(gt=0, le=1e6)
    """Sharpness of the angular part."""
    h: float = Field(ge=-10, le=10)
    """cos θ of the optimal angle."""
    R: float = Field(gt=0, le=100)
    """Where the cutoff begins, Å."""
    S: float = Field(gt=0, le=100)
    """Where it ends, Å."""


class TersoffMixing(Config):
    """χ of two elements."""

    elements: tuple[str, str]
    """Their symbols."""
    chi: float = Field(gt=0, le=10)
    """Strengthens (above 1) or weakens their bonds."""


CARBON = TersoffAtom(
    A=1393.6, B=346.74, lam=3.4879, mu=2.2119, beta=1.5724e-7, n=0.72751,
    c=3.8049e4, d=4.3484, h=-0.57058, R=1.8, S=2.1,
)  # fmt: skip
SILICON = TersoffAtom(
    A=1830.8, B=471.18, lam=2.4799, mu=1.7322, beta=1.1000e-6, n=0.78734,
    c=1.0039e5, d=16.217, h=-0.59825, R=2.7, S=3.0,
)  # fmt: skip
GERMANIUM = TersoffAtom(
    A=1769.0, B=419.23, lam=2.4451, mu=1.7047, beta=9.0166e-7, n=0.75627,
    c=1.0643e5, d=15.652, h=-0.43884, R=2.8, S=3.1,
)  # fmt: skip
MIXING = (
    TersoffMixing(elements=("C", "Si"), chi=0.9776),
    TersoffMixing(elements=("Si", "Ge"), chi=1.00061),
)


class TersoffConfig(OracleConfig):
    """The potential of Tersoff; the defaults are the paper's for C, Si and Ge."""

    version: ClassVar[int] = 1
    gives: ClassVar[frozenset[str]] = frozenset({"stress"})
    periodic: ClassVar[bool] = True

    kind: Literal["tersoff"] = "tersoff"
    atoms: dict[str, TersoffAtom] = {"C": CARBON, "Si": SILICON, "Ge": GERMANIUM}
    """Parameters by element."""
    mixing: tuple[TersoffMixing, ...] = MIXING
    """χ of unlike elements; structures with two elements that are not named here are refused."""

    @model_validator(mode="after")
    def _consistent(self) -> TersoffConfig:
        if not self.atoms:
            raise ValueError("atoms is empty; give the parameters of at least one element")
        for symbol, atom in self.atoms.items():
            if symbol not in NUMBERS:
                raise ValueError(f"atoms has {symbol!r}, wanted chemical symbols such as Si")
            if not atom.R < atom.S:
                raise ValueError(f"atoms.{symbol}: R={atom.R} is not below S={atom.S} Å")
        pairs = [frozenset(m.elements) for m in self.mixing]
        if len(set(pairs)) < len(pairs) or any(len(pair) < 2 for pair in pairs):
            raise ValueError("mixing names a pair of elements twice, or an element with itself")
        return self

    def label(
        self,
        species: np.ndarray,
        positions: np.ndarray,
        *,
        cell: np.ndarray | None = None,
        pbc: np.ndarray | None = None,
    ) -> Labels | Failed:
        symbols = tuple(self.atoms)
        kind = known_elements(symbols, species, oracle=self.kind)
        chi = self._chi(symbols)
        here = np.unique(kind)
        if np.isnan(chi[np.ix_(here, here)]).any():
            raise ValueError(
                f"oracle 'tersoff' knows no chi of {', '.join(symbols[k] for k in here)} together; name it "
                f"in mixing"
            )
        cutoff = max(self.atoms[symbols[k]].S for k in here)
        return differentiated(self._energy, kind, positions, cell=cell, pbc=pbc, cutoff=cutoff)

    def _chi(self, symbols: tuple[str, ...]) -> np.ndarray:
        """χ of all pairs of elements, (n_elements, n_elements); NaN where it is not known."""
        chi = np.where(np.eye(len(symbols)) > 0, 1.0, np.nan)
        for mix in self.mixing:
            if set(mix.elements) <= set(symbols):
                a, b = (symbols.index(symbol) for symbol in mix.elements)
                chi[a, b] = chi[b, a] = mix.chi
        return chi

    def _energy(self, found: Neighborhood) -> Tensor:
        import torch

        def of(name: str) -> Tensor:
            return torch.tensor([getattr(atom, name) for atom in self.atoms.values()], dtype=torch.float64)

        i, j = found.kind[found.center], found.kind[found.neighbor]
        r = torch.linalg.vector_norm(found.vectors, dim=1)
        begin, end = (torch.sqrt(of(name)[i] * of(name)[j]) for name in ("R", "S"))
        f = 0.5 + 0.5 * torch.cos(math.pi * ((r - begin) / (end - begin)).clamp(0.0, 1.0))
        one, other = found.triplets()
        unit = found.vectors / r[:, None]
        cos = (unit[one] * unit[other]).sum(1)
        c2, d2, h = of("c")[i[one]] ** 2, of("d")[i[one]] ** 2, of("h")[i[one]]
        g = 1 + c2 / d2 - c2 / (d2 + (h - cos) ** 2)
        zeta = torch.zeros_like(r).index_add(0, one, f[other] * g)
        n, beta = of("n")[i], of("beta")[i]
        # ζ^n has no slope at zero: where no third atom is near, the bond order is 1 whatever moves
        lonely = zeta <= 0
        order = (beta * torch.where(lonely, torch.ones_like(zeta), zeta)) ** n
        chi = torch.from_numpy(self._chi(tuple(self.atoms)))[i, j]
        b = chi * torch.where(lonely, torch.ones_like(order), (1 + order) ** (-0.5 / n))
        strength_a, strength_b = (torch.sqrt(of(name)[i] * of(name)[j]) for name in ("A", "B"))
        lam, mu = ((of(name)[i] + of(name)[j]) / 2 for name in ("lam", "mu"))
        pair = f * (strength_a * torch.exp(-lam * r) - b * strength_b * torch.exp(-mu * r))
        return 0.5 * pair.sum()

    def seconds(self, n_atoms: int) -> float:
        """A fixed part and the triplets of a solid."""
        return 3e-3 + 4e-5 * n_atoms

    def level(self) -> str:
        return f"Tersoff (Phys. Rev. B 39, 5566), {', '.join(self.atoms)}"
