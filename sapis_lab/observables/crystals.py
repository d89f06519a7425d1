"""Equations of state and elastic constants of crystals; eV, Å, GPa."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sapis_lab.observables.minima import VOIGT, relaxed
from sapis_lab.observables.surfaces import Predict, whole
from sapis_lab.structures import Structure
from sapis_lab.units import EV_PER_A3_TO_GPA


class EquationOfState(NamedTuple):
    """Birch and Murnaghan's."""

    volume: float
    """Of the minimum, Å³."""
    energy: float
    """eV."""
    bulk_modulus: float
    """GPa."""
    derivative: float
    """dB/dP."""
    residual: float
    """Root mean square of what the fit leaves, eV."""


def birch_murnaghan(volume: np.ndarray, energy: np.ndarray) -> EquationOfState:
    """The equation of state of third order (Birch, Phys. Rev. 71, 809, 1947),

        E = E₀ + (9 V₀ B₀/16) {(x - 1)³ B₀' + (x - 1)² (6 - 4x)},      x = (V₀/V)^(2/3),

    which is a cubic in V^(-2/3), and so fitted by linear least squares.

    Args:
        volume: (n,) Å³, four or more.   energy: (n,) eV, of the same cells.

    Raises:
        ValueError: fewer points, or no minimum within their span.
    """
    v, e = np.asarray(volume, dtype=float), np.asarray(energy, dtype=float)
    if len(v) < 4:
        raise ValueError(f"{len(v)} volumes, wanted at least 4 for the four constants")
    scale = np.median(v)
    x = (scale / v) ** (2 / 3)
    cubic = np.polynomial.Polynomial.fit(x, e, 3).convert()
    slope, bend = cubic.deriv(1), cubic.deriv(2)
    roots = slope.roots()
    real = roots[np.isreal(roots)].real
    minima = real[(bend(real) > 0) & (real >= x.min()) & (real <= x.max())]
    if not len(minima):
        raise ValueError(
            f"energies have no minimum between {v.min():.4g} and {v.max():.4g} Å³; wanted volumes around it"
        )
    at = float(minima[0])
    v0 = scale * at**-1.5
    # x = (s/V)^(2/3): dx/dV = -(2/3) x/V, so that at the minimum V² E'' = (4/9) x² d²E/dx²
    curvature = 4 / 9 * at * at * bend(at)
    third = cubic.deriv(3)(at)
    # -V³ E''' from the same substitution, dE/dx = 0
    cube = (8 / 27) * at**3 * third + (4 / 9) * (2 + 2 + 1) * at * at * bend(at)
    b0 = curvature / v0
    return EquationOfState(
        float(v0),
        float(cubic(at)),
        float(b0 * EV_PER_A3_TO_GPA),
        float(cube / curvature - 1),
        float(np.sqrt(np.square(cubic(x) - e).mean())),
    )


def energies_of_volumes(
    predict: Predict,
    structure: Structure,
    *,
    scales: Sequence[float],
    relax: bool = True,
    max_force: float = 1e-4,
    most_steps: int = 500,
) -> tuple[np.ndarray, np.ndarray]:
    """(n,) volumes, Å³, and energies, eV, of a crystal whose volume is scaled, positions relaxed at each."""
    at = whole(structure)
    volume, energy = [], []
    for scale in scales:
        some = at.turned(scale ** (1 / 3) * np.eye(3))
        if relax:
            found = relaxed(predict, some.structure, max_force=max_force, most_steps=most_steps).energy
        else:
            found = float(predict([some.structure]).energy[0])
        volume.append(some.volume)
        energy.append(found)
    return np.array(volume), np.array(energy)


class Elasticity(NamedTuple):
    """Second-order elastic constants."""

    constants: np.ndarray
    """(6, 6) GPa, Voigt's order, symmetric."""
    asymmetry: float
    """Largest |C_ij - C_ji| before, GPa."""
    stress: float
    """Largest component at no strain, GPa: constants are those of a crystal at rest only where it is
    small."""

    @property
    def bulk_modulus(self) -> float:
        """Voigt's and Reuss's mean (Hill, Proc. Phys. Soc. A 65, 349, 1952), GPa."""
        c, s = self.constants, np.linalg.inv(self.constants)
        return float((c[:3, :3].sum() / 9 + 1 / s[:3, :3].sum()) / 2)

    @property
    def shear_modulus(self) -> float:
        """Voigt's and Reuss's mean, GPa."""
        c, s = self.constants, np.linalg.inv(self.constants)

        def mixed(m: np.ndarray) -> float:
            return float(3 * np.trace(m[:3, :3]) - m[:3, :3].sum()) / 2

        voigt = (mixed(c) + 3 * np.trace(c[3:, 3:])) / 15
        reuss = 15 / (4 * mixed(s) + 3 * np.trace(s[3:, 3:]))
        return float((voigt + reuss) / 2)

    @property
    def stable(self) -> bool:
        """Born's criterion: all eigenvalues are positive (Mouhat & Coudert, Phys. Rev. B 90, 224104,
        2014)."""
        return bool(np.linalg.eigvalsh(self.constants)[0] > 0)

    @property
    def cubic(self) -> tuple[float, float, float]:
        """C11, C12 and C44 as means over the axes of a cubic crystal, which lie along x, y and z."""
        c = self.constants
        return (
            float(np.diag(c)[:3].mean()),
            float((c[0, 1] + c[0, 2] + c[1, 2]) / 3),
            float(np.diag(c)[3:].mean()),
        )


def elastic_constants(
    predict: Predict,
    structure: Structure,
    *,
    step: float = 2e-3,
    relax: bool = True,
    max_force: float = 2e-5,
    most_steps: int = 500,
) -> Elasticity:
    """Elastic constants by central differences of the stress in six strains,

        C_ij = (σ_i(h) - σ_i(-h)) / 2h,       cell and positions going to x (1 + e), e_j = h (shears 2 e_yz =
        h),

    positions relaxed at every strain; without that, those of clamped ions.

    Args:
        structure: a crystal at rest (`minima.relaxed_crystal`).   step: h.
    """
    at = whole(structure)
    columns = []
    for i, j in VOIGT:
        ends = []
        for sign in (1, -1):
            e = np.zeros((3, 3))
            e[i, j] = e[j, i] = sign * step * (1.0 if i == j else 0.5)
            some = at.turned(np.eye(3) + e).structure
            if relax:
                some = relaxed(predict, some, max_force=max_force, most_steps=most_steps).structure
            ends.append(_voigt(predict([some], stress=True).stress[0]))
        columns.append((ends[0] - ends[1]) / (2 * step))
    c = np.stack(columns, axis=1) * EV_PER_A3_TO_GPA
    rest = np.abs(_voigt(predict([at.structure], stress=True).stress[0])).max() * EV_PER_A3_TO_GPA
    return Elasticity((c + c.T) / 2, float(np.abs(c - c.T).max()), float(rest))


def _voigt(stress: np.ndarray) -> np.ndarray:
    return np.array([stress[i, j] for i, j in VOIGT], dtype=float)
