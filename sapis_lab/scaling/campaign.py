"""A campaign: a study that scales itself, with what it starts from, checked before anything is spent.

Points lie where those of any study do, `results/NAME/points/`, so that table, laws, figures and report hold
them all. The history and the decisions stand in `results/NAME/scale/` (see `scaling.history`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sapis_lab.config import ConfigError, load, plainly, read_yaml
from sapis_lab.data import DatasetInfo
from sapis_lab.sweep.plan import infos, planned_flops
from sapis_lab.sweep.points import Point, points
from sapis_lab.sweep.scale_options import ScaleOptions
from sapis_lab.sweep.study import Lattice, Study, load_study

FOLDER = "scale"
"""Of history and decisions, in that of the results."""


@dataclass(frozen=True)
class Campaign:
    """A study that scales itself, resolved."""

    study: Study
    options: ScaleOptions
    known: dict[float, DatasetInfo]
    seeds: tuple[Point, ...]
    """The lattice."""

    @property
    def info(self) -> DatasetInfo:
        return next(iter(self.known.values()))

    @property
    def loss_key(self) -> str:
        return self.study.law.quantity

    def point(self, n_params: float, n_frames: int, seed: int) -> Point:
        """The point of the study at N and D, aside from its lattice. ConfigError for a size that the family
        cannot have."""
        return single_point(self.study, self.info, n_params=n_params, n_frames=n_frames, seed=seed)


def resolve(name: str, settings: Sequence[str] = (), *, called: str | None = None) -> Campaign:
    """The study with its lattice and limits, checked. ConfigError names what cannot be."""
    study = load_study(name, settings, called=called)
    if study.scale is None:
        raise ConfigError(f"studies/{name}.yaml has no scale: section; see `sapis scale --help`")
    if study.scale.label_more and "n_more" not in type(study.data).model_fields:
        kind = study.data.kind
        raise ConfigError(
            f"studies/{name}.yaml: scale.label_more: data of kind {kind!r} cannot make more frames; wanted "
            f"kind xtb, or 0"
        )
    known = plainly(lambda: infos(study), about=f"data {study.data.kind!r}")
    campaign = Campaign(study, study.scale, known, tuple(points(study, next(iter(known.values())))))
    lattice = study.lattice
    if len(lattice.n_params) < 2 or len(lattice.n_frames) < 2 or len(campaign.seeds) < 6:
        raise ConfigError(
            f"studies/{name}.yaml: lattice: scaling starts from at least 6 points with two sizes and two "
            f"amounts of data, "
            f"got {len(campaign.seeds)} points"
        )
    cost = sum(planned_flops(p, known) for p in campaign.seeds)
    if cost >= study.scale.budget:
        raise ConfigError(
            f"studies/{name}.yaml: scale.budget: {study.scale.budget:.3g} FLOPs do not cover the lattice, "
            f"which costs {cost:.3g}"
        )
    return campaign


def recorded_study(folder: Path) -> Study:
    """The study as the results in `folder` were made with it; a folder of kinds that it names is known
    then."""
    path = folder / "study.yaml"
    study: Study = load(Study, read_yaml(path), source=str(path), recorded=True)
    return study


def single_point(study: Study, info: DatasetInfo, *, n_params: float, n_frames: int, seed: int) -> Point:
    """The point of a lattice of one. ConfigError for a size that no lattice, or no model of the family, may
    have."""
    settings = {"n_params": [n_params], "n_frames": [n_frames], "seeds": [seed]}
    lattice: Lattice = load(Lattice, settings, source="scale")
    return points(study.model_copy(update={"lattice": lattice}), info)[0]
