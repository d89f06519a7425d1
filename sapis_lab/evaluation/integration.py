"""The free energy of switching a known surface into the potential, by thermodynamic integration and by MBAR
on the same samples (`free_energy.estimate_switch`).

    U_λ = (1 - λ) U_oracle + λ (U_model - offset)

with an offset that makes both energies equal at the frame where replicas begin, the labelled test frame of
least energy. One replica for each λ; in the part `up` all come from dynamics on the oracle's surface, in
`down` from dynamics on the potential.

    integration, mbar, bar          F of the potential minus F of the oracle, of both parts together
    integration_error, mbar_error   standard errors
    difference                      size of integration - mbar
    solver_difference               between pymbar and the own solver
    hysteresis                      size of the difference of mbar between up and down
    slope_spread                    standard deviation over λ of <U_model - U_oracle>
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
from pydantic import Field

from sapis_lab import units
from sapis_lab.config import composed_kind
from sapis_lab.evaluation import Evaluation, Measured, Subject
from sapis_lab.evaluation.umbrella import alike_test_frames
from sapis_lab.free_energy import SwitchedSurface, estimate_switch, lobatto, sample_switch
from sapis_lab.measures import Quantity
from sapis_lab.oracles import OracleConfig
from sapis_lab.simulation import OracleSurface, advance, replicas_of
from sapis_lab.simulation.langevin import LangevinConfig


class IntegrationConfig(Evaluation):
    """From an oracle's surface to the potential: thermodynamic integration beside MBAR."""

    kind: Literal["integration"] = "integration"
    oracle: composed_kind("oracles", OracleConfig)  # type: ignore[valid-type]
    """The surface that is switched off: a classical force field, or the one that the potential learnt."""
    n_couplings: int = Field(default=7, ge=2, le=100)
    """λ, the nodes of Gauss-Lobatto quadrature."""
    ensemble: composed_kind("simulation", LangevinConfig) = LangevinConfig()  # type: ignore[valid-type]
    """How the replicas move, with temperature and timestep."""
    equilibration: float = Field(default=2.0, ge=0, le=1e6)
    """On the surface where replicas begin, and again at their λ, ps."""
    time: float = Field(default=20.0, gt=0, le=1e6)
    """Sampled at every λ of one part, ps."""
    every: float = Field(default=20.0, gt=0, le=1e6)
    """Between samples, fs."""
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """Of momenta and thermostats."""

    @classmethod
    def quantities(cls) -> tuple[Quantity, ...]:
        def energy(key: str, label: str, better: Any = "none") -> Quantity:
            factor = 1 / units.KJ_PER_MOL_TO_EV
            return Quantity(key, label, "eV", better=better, display_unit="kJ/mol", display_factor=factor)

        return (
            energy("integration", "free energy of switching, by integration"),
            energy("integration_error", "standard error of the integration", "lower"),
            energy("mbar", "free energy of switching, by MBAR"),
            energy("mbar_error", "standard error of MBAR", "lower"),
            energy("bar", "free energy of switching, by BAR"),
            energy("difference", "difference between integration and MBAR", "lower"),
            energy("solver_difference", "difference between two solvers", "lower"),
            energy("hysteresis", "difference of the free energy between directions", "lower"),
            energy("slope_spread", "spread of the integrand", "lower"),
        )

    def parts(self, subject: Subject) -> tuple[str, ...]:
        subject.want_energies()
        subject.test_frames(1)
        return ("up", "down")

    def measure(self, subject: Subject, part: str) -> dict[str, np.ndarray]:
        """energies (n_samples, R, 2) eV of oracle and potential; coupling, weights (R,); offset () eV."""
        from ase.data import atomic_masses

        from sapis_lab.simulation import PotentialSurface

        frames, energy = alike_test_frames(subject)
        frame = frames[int(np.argmin(energy))]
        masses, n = atomic_masses[np.asarray(frame.species, dtype=int)], self.n_couplings
        seed = self.seed + 100_003 * (part == "down")
        state = self.ensemble.start(replicas_of([frame] * n, masses=[masses] * n, seed=seed))
        oracle, model = OracleSurface(self.oracle), PotentialSurface(subject.potential)
        offset = float(model(state).energy[0] - oracle(state).energy[0])
        if not np.isfinite(offset):
            raise ValueError(f"oracle {self.oracle.kind!r} cannot label the frame where dynamics begin")
        n_before = round(1e3 * self.equilibration / self.ensemble.timestep)
        state, _ = advance(state, self.ensemble, oracle if part == "up" else model, n_steps=n_before)
        coupling, weights = lobatto(n)
        energies, _ = sample_switch(
            replace(state, step=0),
            self.ensemble,
            SwitchedSurface(oracle, model, coupling=coupling, offset=offset),
            n_equilibrate=n_before,
            n_steps=max(1, round(1e3 * self.time / self.ensemble.timestep)),
            every=max(1, round(self.every / self.ensemble.timestep)),
        )
        return {"energies": energies, "coupling": coupling, "weights": weights, "offset": np.array(offset)}

    def score(self, measured: Measured) -> dict[str, float]:
        kT = units.KB * self.ensemble.temperature
        ends = {name: measured["up"][name] for name in ("coupling", "weights")}
        parts = [measured[part]["energies"].copy() for part in ("up", "down")]
        # offsets are those of one frame, but numbers of another device may differ in their last digits
        parts[1][..., 1] += measured["down"]["offset"] - measured["up"]["offset"]
        both = estimate_switch(np.concatenate(parts), **ends, kT=kT)
        up, down = (estimate_switch(part, **ends, kT=kT) for part in parts)
        return {
            "integration": both.integration,
            "integration_error": both.integration_error,
            "mbar": both.mbar,
            "mbar_error": both.mbar_error,
            "bar": both.bar,
            "difference": abs(both.integration - both.mbar),
            "solver_difference": abs(both.own - both.mbar),
            "hysteresis": abs(up.mbar - down.mbar),
            "slope_spread": float(both.slope.std()),
        }
