"""From one surface to another: thermodynamic integration (Kirkwood, J. Chem. Phys. 3, 300, 1935), and MBAR on
the same samples.

    U_λ = (1 - λ) U_a + λ (U_b - offset),        F_b - F_a = ∫_0^1 <U_b - U_a>_λ dλ + offset

λ are the nodes of Gauss-Lobatto quadrature on [0, 1], both ends among them: n nodes are exact for an
integrand that is a polynomial of degree 2n - 3. Energies at all λ follow from U_a and U_b, so that MBAR and
BAR cost nothing more. Samples that began on surface a and others that began on surface b tell whether the
replicas forgot where they came from (hysteresis).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sapis_lab.free_energy._mbar import mbar
from sapis_lab.free_energy._solve import self_consistent
from sapis_lab.free_energy._statistics import statistical_inefficiency
from sapis_lab.simulation import EnsembleConfig, Found, Replicas, Surface


class SwitchedSurface(Surface):
    """A surface between two others.

    Args:
        coupling: (R,) λ of every replica.   offset: eV, taken from the energy of surface b, so that numbers
        stay small; forces do not depend on it.
    """

    def __init__(self, a: Surface, b: Surface, *, coupling: np.ndarray, offset: float = 0.0) -> None:
        self.a, self.b, self.offset = a, b, offset
        self.coupling = np.asarray(coupling, dtype=np.float64)

    def forget(self) -> None:
        self.a.forget()
        self.b.forget()

    def ends(self, state: Replicas, *, stress: bool = False) -> tuple[Found, Found]:
        """What surfaces a and b are, b without its offset."""
        found = self.b(state, stress=stress)
        return self.a(state, stress=stress), found._replace(energy=found.energy - self.offset)

    def __call__(self, state: Replicas, *, stress: bool = False) -> Found:
        if len(self.coupling) != len(state):
            raise ValueError(f"{len(self.coupling)} couplings for {len(state)} replicas; wanted one for each")
        a, b = self.ends(state, stress=stress)
        share = self.coupling
        of_atoms = np.repeat(share, state.n_atoms)[:, None]
        tension = None
        if a.stress is not None and b.stress is not None:
            tension = (1 - share)[:, None, None] * a.stress + share[:, None, None] * b.stress
        return Found(
            (1 - share) * a.energy + share * b.energy,
            (1 - of_atoms) * a.forces + of_atoms * b.forces,
            tension,
        )


def lobatto(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes (n,) on [0, 1], ascending, both ends among them, and weights (n,) of Gauss-Lobatto quadrature."""
    if n < 2:
        raise ValueError(f"{n} couplings; wanted at least the two ends")
    legendre = np.polynomial.legendre.Legendre.basis(n - 1)
    x = np.concatenate([[-1.0], np.sort(legendre.deriv().roots().real), [1.0]])
    weights = 2 / (n * (n - 1) * legendre(x) ** 2)
    return 0.5 * (x + 1), 0.5 * weights


def sample_switch(
    state: Replicas,
    ensemble: EnsembleConfig,
    surface: SwitchedSurface,
    *,
    n_equilibrate: int,
    n_steps: int,
    every: int,
) -> tuple[np.ndarray, Replicas]:
    """Energies (n_samples, R, 2) of surfaces a and b, eV, and the last state. Momenta are those of `state`.

    Raises:
        ValueError: an energy is not finite.
    """
    found = surface(state, stress=ensemble.wants_stress)
    seen = []
    for k in range(1, n_equilibrate + n_steps + 1):
        state, found = ensemble.step(state, found, surface)
        if k > n_equilibrate and (k - n_equilibrate) % every == 0:
            a, b = surface.ends(state)
            seen.append(np.stack([a.energy, b.energy], 1))
            if not np.isfinite(seen[-1]).all():
                bad = int(np.argmax(~np.isfinite(seen[-1]).all(1)))
                raise ValueError(
                    f"at coupling {surface.coupling[bad]:.3f} an energy is not finite after {k} steps: a "
                    "surface fails where the other leads; a shorter timestep may help"
                )
    return np.array(seen).reshape(-1, len(state), 2), state


class Switched(NamedTuple):
    """Free energy of surface b minus that of a, eV, without the offset."""

    integration: float
    integration_error: float
    mbar: float
    mbar_error: float
    own: float
    """By the solver of this package."""
    bar: float
    """Sum of BAR between neighbouring couplings."""
    slope: np.ndarray
    """(R,) <U_b - U_a> at every coupling, eV."""


def estimate_switch(
    energies: np.ndarray, *, coupling: np.ndarray, weights: np.ndarray, kT: float
) -> Switched:
    """From samples of `sample_switch` at the nodes of `lobatto`.

    Args:
        energies: (n_samples, R, 2) eV.   coupling, weights: (R,).   kT: eV.
    """
    n, n_couplings, _ = energies.shape
    slope = energies[..., 1] - energies[..., 0]
    g = np.array([statistical_inefficiency(column) for column in slope.T])
    error = slope.std(0, ddof=1) * np.sqrt(g / n)
    flat = energies.swapaxes(0, 1).reshape(-1, 2)
    u = ((1 - coupling)[:, None] * flat[:, 0] + coupling[:, None] * flat[:, 1]) / kT
    n_samples = np.full(n_couplings, n)
    own = self_consistent(u, n_samples).f
    steps = [
        self_consistent(u[k : k + 2, k * n : (k + 2) * n], n_samples[k : k + 2]).f[1]
        for k in range(n_couplings - 1)
    ]
    kept = [np.arange(k * n, (k + 1) * n, int(np.ceil(gk))) for k, gk in enumerate(g)]
    of_independent = mbar(u[:, np.concatenate(kept)], np.array([len(k) for k in kept]))
    return Switched(
        integration=float(weights @ slope.mean(0)),
        integration_error=float(np.sqrt(weights**2 @ error**2)),
        mbar=float(mbar(u, n_samples).f[-1] * kT),
        mbar_error=float(of_independent.error[-1] * kT),
        own=float(own[-1] * kT),
        bar=float(np.sum(steps) * kT),
        slope=slope.mean(0),
    )
