"""Displacements along the normal modes of a minimum of the oracle's surface.

The mass-weighted Hessian, by central differences of forces, has eigenvalues λ_i = ω_i² and eigenvectors e_i;
translations (and rotations of what is not periodic) are projected out. A structure is

    x = x₀ + M^(-1/2) Σ_i Q_i e_i

`ani` (Smith, Isayev & Roitberg, Chem. Sci. 8, 3192, 2017): Q_i = ± sqrt(3 c_i n kT / λ_i) with n the number
of atoms and random c_i ≥ 0, Σ c_i ≤ 1: all modes together have at most the energy 3/2 n kT. The paper
leaves open how c_i are drawn: here their sum is uniform in [0, 1] and their shares uniform.
`thermal`: Q_i ~ N(0, kT/λ_i), the classical canonical distribution of the harmonic surface.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from sapis_lab import units
from sapis_lab.generators._base import Configuration, GeneratorConfig, Start, Surface


class NormalModesConfig(GeneratorConfig):
    """Displacements along normal modes."""

    kind: Literal["normal_modes"] = "normal_modes"
    temperature: float = Field(default=500.0, gt=0, le=1e5)
    """K."""
    distribution: Literal["ani", "thermal"] = "thermal"
    """How much every mode is displaced."""
    relax: bool = True
    """Whether the start is relaxed to a minimum first; otherwise it has to be one."""
    max_force: float = Field(default=1e-3, gt=0, le=10)
    """Largest component of a force at the minimum, eV/Å."""
    step: float = Field(default=0.01, gt=0, le=0.5)
    """Of the central differences, Å."""

    def generate(
        self, start: Start, surface: Surface, *, n: int, generator: np.random.Generator
    ) -> list[Configuration]:
        if self.relax:
            start = start._replace(positions=relaxed(start, surface, max_force=self.max_force))
        largest = float(np.abs(surface(start.positions)[1]).max())
        if largest > self.max_force:
            raise ValueError(
                f"generator 'normal_modes': the largest force of the start is {largest:.3g} eV/Å, wanted at "
                f"most max_force={self.max_force:g}; set relax: true, or raise max_force"
            )
        modes = normal_modes(start, surface, step=self.step)
        if len(modes.curvature) and modes.curvature.min() <= 0:
            raise ValueError(
                f"generator 'normal_modes': the start is no minimum, {int((modes.curvature <= 0).sum())} of "
                f"its {len(modes.curvature)} modes fall away; start from another structure"
            )
        kT = units.KB * self.temperature

        def draw() -> Configuration:
            if self.distribution == "thermal":
                q = generator.standard_normal(len(modes.curvature)) * np.sqrt(kT / modes.curvature)
            else:
                c = generator.dirichlet(np.ones(len(modes.curvature))) * generator.random()
                q = generator.choice([-1.0, 1.0], len(c)) * np.sqrt(
                    3 * c * len(start.species) * kT / modes.curvature
                )
            return Configuration(start.positions + np.tensordot(q, modes.displacement, 1), start.cell)

        return self.drawn(draw, start, n=n, what="temperature")


class Modes(NamedTuple):
    """Normal modes of a minimum."""

    curvature: np.ndarray
    """(n_modes,) eV/Å²/amu, λ_i, ascending."""
    displacement: np.ndarray
    """(n_modes, n_atoms, 3) 1/√amu, M^(-1/2) e_i: displacement for Q = 1 Å √amu."""


def normal_modes(start: Start, surface: Surface, *, step: float) -> Modes:
    """All modes but translations, and rotations of what is not periodic, by 6 n_atoms forces."""
    x, m = start.positions, np.repeat(start.masses, 3)
    hessian = np.empty((x.size, x.size))
    for k in range(x.size):
        moved = np.zeros(x.size)
        moved[k] = step
        up, down = (surface(x + sign * moved.reshape(x.shape))[1].reshape(-1) for sign in (1, -1))
        hessian[k] = -(up - down) / (2 * step)
    weighted = (hessian + hessian.T) / 2 / np.sqrt(np.outer(m, m))
    free = _free(start, m)
    n_free = free.shape[1]
    # within the space that is left, where translations and rotations cannot mix into soft modes
    inside = np.linalg.svd(free, full_matrices=True)[0][:, n_free:]
    curvature, vectors = np.linalg.eigh(inside.T @ weighted @ inside)
    modes = (inside @ vectors).T / np.sqrt(m)
    return Modes(curvature, modes.reshape(-1, *x.shape))


def _free(start: Start, masses: np.ndarray) -> np.ndarray:
    """Mass-weighted translations and rotations, orthonormal columns, (3 n_atoms, 3, 5 or 6)."""
    x = start.positions - start.masses @ start.positions / start.masses.sum()
    moves = [np.tile(axis, (len(x), 1)) for axis in np.eye(3)]
    if not any(start.pbc):
        moves += [np.cross(axis, x) for axis in np.eye(3)]
    columns = np.stack([move.reshape(-1) for move in moves], 1) * np.sqrt(masses)[:, None]
    u, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(u[:, sizes > 1e-6 * sizes.max()])


def relaxed(start: Start, surface: Surface, *, max_force: float) -> np.ndarray:
    """Positions (n_atoms, 3) of a minimum near the start, its cell as it is; L-BFGS."""
    from scipy.optimize import minimize

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        energy, forces = surface(flat.reshape(start.positions.shape))
        return energy, -forces.reshape(-1)

    found = minimize(
        value,
        start.positions.reshape(-1),
        jac=True,
        method="L-BFGS-B",
        options={"gtol": max_force / 2, "ftol": 0.0, "maxiter": 2000, "maxfun": 20_000},
    )
    return np.asarray(found.x.reshape(start.positions.shape))
