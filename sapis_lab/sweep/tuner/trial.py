"""One trial seen from its folder: what to run, and what it reports on the way. The files are the truth;
storages are told."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sapis_lab.config import ConfigError, dump_yaml
from sapis_lab.files import plain_rows, read_lossy, write_text
from sapis_lab.records import FAILURE, RECORD
from sapis_lab.sweep.engine import SCIENCE
from sapis_lab.sweep.tuner import tickets
from sapis_lab.sweep.tuner.options import TuneOptions
from sapis_lab.sweep.tuner.outcome import PRUNED, Outcome, outcome
from sapis_lab.sweep.tuner.space import Cell

if TYPE_CHECKING:
    from optuna.trial import Trial

    from sapis_lab.training import PointConfig

CURVE = "metrics.csv"


@dataclass
class Running:
    """A trial that has its values, and whose point is ready to run or runs."""

    trial: Trial
    folder: Path
    key: str
    """The validation error that is reported along the way; empty where none is."""
    steps: int
    """Of the whole training."""
    n_reports: int
    """Validations of the whole training; the k-th is reported as step k."""
    n_seen: int = 0
    """Reports that the storage has."""
    pruned: tuple[int, float] | None = None
    """The report after which it was told to end."""

    def follow(self) -> bool:
        """Tell the storage which validations are new; True once, when the trial should end early."""
        if self.pruned is not None or not self.key:
            return False
        for step, value in list(_rows(self.folder / CURVE, self.key))[self.n_seen :]:
            self.n_seen += 1
            k = max(1, round(step * self.n_reports / self.steps))
            with warnings.catch_warnings():  # a trial that goes on has reported some of them before
                warnings.filterwarnings("ignore", message=".*already reported")
                self.trial.report(value, k)
            # After the last validation the point only writes its record: stopping it then would save nothing.
            if k < self.n_reports and self.trial.should_prune():
                self.pruned = (k, value)
                return True
        return False


def begin(
    trial: Trial, cell: Cell, tune: TuneOptions, *, folder: Path, keys: Sequence[str]
) -> Running | Outcome:
    """Choose the trial's values and write what its point's process reads; its outcome instead, where it has
    one or no point can be made.

    Args:
        folder: of all trials.   keys: the objectives.
    """
    place = folder / trial.user_attrs[tickets.FOLDER]
    values = tickets.choose(trial, cell, tune)
    if (ended := outcome(place, keys)) is not None:
        return ended
    try:
        point = cell.point(values, id=place.name, number=tickets.number_of(place.name))
    except ConfigError as error:
        return Outcome("failed", reason=" ".join(str(error).split()))
    prepare(place, point)
    # Optuna takes no reports for several objectives
    key = keys[0] if len(keys) == 1 and keys[0].startswith("val_") else ""
    return Running(trial, place, key, point.train.steps_for(point.n_frames), point.train.validations)


def prepare(folder: Path, point: PointConfig) -> None:
    """Write what a point's process reads."""
    (folder / FAILURE).unlink(missing_ok=True)
    write_text(folder / "config.yaml", dump_yaml(point))
    write_text(folder / SCIENCE, json.dumps(point.science(), indent=1) + "\n")


def note_pruned(running: Running) -> None:
    """Write `pruned.json`, unless the point has finished meanwhile."""
    assert running.pruned is not None
    report, value = running.pruned
    if not (running.folder / RECORD).exists():
        (running.folder / FAILURE).unlink(missing_ok=True)
        said = {"validation": report, "of": running.n_reports, running.key: value}
        write_text(running.folder / PRUNED, json.dumps(said) + "\n")


def tidy(folder: Path) -> None:
    """Remove the checkpoints of a trial that has ended: nothing continues it."""
    for path in folder.glob("*.ckpt"):
        path.unlink(missing_ok=True)


def _rows(path: Path, key: str) -> Iterator[tuple[int, float]]:
    """(step, value) of every complete row that has the quantity."""
    try:
        text = read_lossy(path)
    except FileNotFoundError:
        return
    whole = text[: text.rfind("\n") + 1]  # the last line may be half written
    for row in plain_rows(whole):
        with suppress(ValueError, LookupError):  # a damaged row says nothing
            if row.get(key):
                yield int(row["step"]), float(row[key])
