"""A study with all that is known before anything is spent: its lattice, its costs, and what it runs on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sapis_lab.config import plainly
from sapis_lab.records import Planned
from sapis_lab.sweep.request import Request
from sapis_lab.sweep.resources import Resources, resources

if TYPE_CHECKING:
    from sapis_lab.sweep.plan import Plan
    from sapis_lab.sweep.points import Point
    from sapis_lab.sweep.study import Study
    from sapis_lab.training import PointConfig


@dataclass(frozen=True)
class PlannedStudy:
    """A study with its lattice and its costs."""

    study: Study
    points: list[Point]
    """The whole lattice."""
    chosen: list[Planned]
    """The points asked for."""
    plan: Plan
    """Costs of the whole lattice."""
    use: Resources

    def longest_first(self) -> list[PointConfig]:
        """The points asked for, the longest first, so that the last one to end is a short one."""
        chosen = {p.id for p in self.chosen}
        cost = self.plan.expected_seconds
        return sorted((p.config for p in self.points if p.planned.id in chosen), key=lambda c: -cost[c.id])


def plan_study(request: Request) -> PlannedStudy:
    """Everything that is known before anything is spent. ConfigError when the study cannot be run."""
    from sapis_lab.sweep.plan import infos, plan
    from sapis_lab.sweep.points import points, select
    from sapis_lab.sweep.study import load_study

    study = load_study(request.name, request.settings, called=request.called)
    known = plainly(lambda: infos(study), about=f"data {study.data.kind!r}")
    lattice = points(study, next(iter(known.values())))
    chosen = select([p.planned for p in lattice], request.only)
    use = resources(study.run, workers=request.workers, where=request.executor, n_points=len(chosen))
    costs = plan(study, lattice, known, workers=use.workers, device=use.device)
    return PlannedStudy(study, lattice, chosen, costs, use)
