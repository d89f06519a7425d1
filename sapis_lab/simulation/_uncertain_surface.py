"""Dynamics that stop where the forces are no longer known."""

from __future__ import annotations

import numpy as np

from sapis_lab.simulation._replicas import Replicas
from sapis_lab.simulation._surface import Found, Surface
from sapis_lab.uncertainty import Uncertainty, refuse_uncertain


class WatchedSurface(Surface):
    """Another surface, with a look at the uncertainty of the forces every few steps.

    Args:
        surface: what moves the replicas.   uncertainty: of the potential behind it.   stop_above: eV/Å;
            `TooUncertain` is raised where the force on an atom has a larger standard deviation, with replica,
            atom and step in its message. What was written of the simulation until then stays.
        every: steps between two looks; one may cost as much as several steps.
    """

    def __init__(
        self, surface: Surface, uncertainty: Uncertainty, *, stop_above: float, every: int = 10
    ) -> None:
        if not stop_above > 0 or every < 1:
            raise ValueError(f"stop_above={stop_above:g} eV/Å, every={every}: wanted above 0, and 1 or more")
        self.surface, self.uncertainty = surface, uncertainty
        self.stop_above, self.every = stop_above, every

    def forget(self) -> None:
        self.surface.forget()

    def __call__(self, state: Replicas, *, stress: bool = False) -> Found:
        found = self.surface(state, stress=stress)
        if state.step % self.every == 0 and np.isfinite(found.forces).all():
            for k, structure in enumerate(state.structures()):
                refuse_uncertain(
                    self.uncertainty.judge(structure),
                    np.asarray(structure.species),
                    stop_above=self.stop_above,
                    where=f"step {state.step}, replica {k}",
                )
        return found
