"""What the user asked of a tuning, and the tuning that it stands for: cells, objectives, tuned settings."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sapis_lab.config import ConfigError, plainly, read_yaml
from sapis_lab.sweep.engine import TARGET
from sapis_lab.sweep.files import checked_name
from sapis_lab.sweep.folder import results_folder
from sapis_lab.text import without_password

if TYPE_CHECKING:
    from sapis_lab.sweep.study import Study
    from sapis_lab.sweep.tuner.options import TuneOptions
    from sapis_lab.sweep.tuner.space import Cell


@dataclass(frozen=True)
class TuneRequest:
    """What the user asked for."""

    name: str
    settings: tuple[str, ...] = ()
    """Overrides, `key=value`."""
    called: str | None = None
    """Another name for the results."""
    workers: int | None = None
    retry_failed: bool = False
    target: str = TARGET
    """The function that trains a point."""
    preload: tuple[str, ...] | None = None
    """Modules that are imported before the first point; all that points need when not given."""

    @property
    def folder(self) -> Path:
        """`results/NAME/tune`."""
        return results_folder(checked_name(self.called or self.name)) / "tune"

    @property
    def flags(self) -> list[str]:
        """The options that name the study, as they were given."""
        return [word for s in self.settings for word in ("--set", s)] + (
            ["--as", self.called] if self.called else []
        )

    @property
    def command(self) -> list[str]:
        """The command that continues it, without a password."""
        return ["sapis", "tune", self.name, *(shlex.quote(without_password(word)) for word in self.flags)]


@dataclass(frozen=True)
class Tuning:
    """A study's tuning, resolved."""

    study: Study
    tune: TuneOptions
    cells: list[Cell]
    keys: tuple[str, ...]
    """The objectives."""

    @property
    def names(self) -> list[str]:
        """The tuned settings."""
        return list(self.tune.space)


def resolve(request: TuneRequest) -> Tuning:
    """The study with its search space, checked. ConfigError names what cannot be."""
    from sapis_lab.sweep.plan import infos
    from sapis_lab.sweep.study import load_study
    from sapis_lab.sweep.tuner.space import cells

    study = load_study(request.name, request.settings, called=request.called)
    if study.tune is None:
        raise ConfigError(f"studies/{request.name}.yaml has no tune: section; see `sapis tune --help`")
    known = plainly(lambda: infos(study), about=f"data {study.data.kind!r}")
    keys = study.tune.objectives_of(study.law.quantity)
    return Tuning(study, study.tune, cells(study, study.tune, next(iter(known.values()))), keys)


def recorded(folder: Path) -> Tuning:
    """The tuning as it was last started."""
    from sapis_lab.config import load
    from sapis_lab.sweep.plan import infos
    from sapis_lab.sweep.study import Study
    from sapis_lab.sweep.tuner.space import cells

    study = load(Study, read_yaml(folder / "study.yaml"), source=str(folder / "study.yaml"), recorded=True)
    assert study.tune is not None
    known = plainly(lambda: infos(study), about=f"data {study.data.kind!r}")
    keys = study.tune.objectives_of(study.law.quantity)
    return Tuning(study, study.tune, cells(study, study.tune, next(iter(known.values()))), keys)
