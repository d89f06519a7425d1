"""What Optuna's storage holds of a tuning, and why no trial is lost and none counted twice.

Each cell has one Optuna study. Its trials are queued beforehand as *tickets*: waiting trials without values,
each with the name of the folder in which its point will run. A worker takes a ticket, which only one can, and
values are chosen then. A ticket whose worker died is failed without a reason and queued again with the values
and the folder it had, so that its point goes on from its checkpoint. What is counted are folders, never
trials: there are as many as the study asked for, from the start.

Queueing needs one writer: on one host the parent, on many the holder of a lock in the database. On one host
nothing is queued twice: the parent is alone, so what it finds running it goes on with.

Optuna's own retry (RetryHeartbeatStaleTrialCallback) queues again in a second step after failing, so that a
worker that is killed between the two loses the trial; and its stop after a number of trials
(MaxTrialsCallback) overshoots when several workers end at once.
"""

from __future__ import annotations

import errno
import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sapis_lab.config import ConfigError, differing_keys, dump
from sapis_lab.errors import disk_error
from sapis_lab.files import make_folder
from sapis_lab.jobs.run import KILLS
from sapis_lab.quantities import quantity
from sapis_lab.sweep.engine import Refused
from sapis_lab.sweep.tuner.options import Axis, TuneOptions
from sapis_lab.sweep.tuner.outcome import Outcome
from sapis_lab.sweep.tuner.space import Cell, is_whole

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial, Trial

FOLDER, REASON, DEATHS, SETTINGS = "folder", "reason", "deaths", "settings"
"""User attributes: of a trial the folder of its point, why it failed, how often its process died; of a study
what it was made from."""
REDUCTION = 3
"""ASHA and Hyperband keep one trial in this many at each rung."""


def quiet() -> None:
    """Optuna's log says what our own lines say, and some of what it is asked for here it calls
    experimental."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def sqlite_storage(path: Path) -> BaseStorage:
    """The storage of one host: a file with one writer."""
    from optuna.storages import RDBStorage

    quiet()
    make_folder(path.parent)
    return RDBStorage(f"sqlite:///{path}")


@contextmanager
def disk_told(path: Path) -> Iterator[None]:
    """What SQLite says about the disk below its file `path` becomes a DiskError."""
    import sqlite3

    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, sqlite3.Error):
            cause = cause.__cause__ or cause.__context__
        number = _SQLITE_ERRORS.get(getattr(cause, "sqlite_errorcode", 0) & 0xFF)
        # "unable to open database file": its journal, say, for which there is no room
        if number == errno.EACCES:
            facts = os.statvfs(path.parent)
            number = (
                errno.EROFS
                if facts.f_flag & os.ST_RDONLY
                else number
                if facts.f_favail and facts.f_bavail
                else errno.ENOSPC
            )
        message = None if number is None else disk_error(OSError(number, os.strerror(number), str(path)))
        if message is None:
            raise
        raise message from error


_SQLITE_ERRORS = {8: errno.EROFS, 10: errno.EIO, 13: errno.ENOSPC, 14: errno.EACCES}
"""SQLITE_READONLY, SQLITE_IOERR, SQLITE_FULL and SQLITE_CANTOPEN."""


def open_study(
    name: str, cell: Cell, tune: TuneOptions, *, keys: Sequence[str], storage: BaseStorage
) -> OptunaStudy:
    """The Optuna study of a cell, made where there is none.

    Raises:
        Refused: it was made from other settings; the message names what differs.
    """
    import optuna

    study = optuna.create_study(
        storage=storage,
        study_name=f"{name}/{cell.id}",
        directions=["minimize"] * len(keys),
        load_if_exists=True,
        sampler=sampler(tune, seed=tune.seed),
        pruner=pruner(tune, n_reports=cell.base.config.train.validations),
    )
    new = settings(cell, tune, keys)
    old = study.user_attrs.get(SETTINGS)
    if old is None:
        study.set_user_attr(SETTINGS, new)
    elif old != new:
        changed = ", ".join(differing_keys(old, new)[:8])
        raise Refused(
            f"results/{name}/tune holds trials of {cell.id} that were made from other settings ({changed}); "
            f"give the changed study a name "
            f"of its own (--as NAME), or remove results/{name}/tune to tune again"
        )
    return study


def settings(cell: Cell, tune: TuneOptions, keys: Sequence[str]) -> dict[str, Any]:
    """What the trials of a cell depend on. Sampler, pruner and number of trials may change on the way."""
    plain = {
        "base": cell.base.config.science(),
        "space": dump(tune)["space"],
        "objectives": list(keys),
        "seeds": list(cell.seeds),
    }
    return json.loads(json.dumps(plain))


def sampler(tune: TuneOptions, *, seed: int | None) -> BaseSampler:
    """The sampler that a study asks for. ConfigError when a package is missing."""
    from optuna.samplers import CmaEsSampler, GPSampler, TPESampler

    startup = max(4, min(10, tune.trials // 3))
    if tune.sampler == "gp":
        return GPSampler(seed=seed, n_startup_trials=startup)
    if tune.sampler == "cmaes":
        try:
            import cmaes  # noqa: F401
        except ImportError:
            raise ConfigError(
                "tune.sampler: 'cmaes' needs the package cmaes; install it with: pip install "
                "'sapis-lab[cmaes]'"
            ) from None
        return CmaEsSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
    return TPESampler(seed=seed, n_startup_trials=startup)


def pruner(tune: TuneOptions, *, n_reports: int) -> BasePruner:
    """The pruner that a study asks for. A trial reports its k-th validation error as step k = 1 ..
    n_reports."""
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner

    if tune.pruner == "median":
        return MedianPruner(n_startup_trials=4, n_warmup_steps=max(1, n_reports // 5))
    if tune.pruner == "asha":
        return SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION)
    if tune.pruner == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=n_reports, reduction_factor=REDUCTION)
    return NopPruner()


def _distribution(
    axis: Axis, *, whole: bool
) -> CategoricalDistribution | FloatDistribution | IntDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if axis.choice is not None:
        return CategoricalDistribution(axis.choice)
    assert axis.bounds is not None
    low, high = axis.bounds
    if whole:
        step = int(axis.step or 1)
        return IntDistribution(
            int(low), int(high) - (int(high) - int(low)) % step, log=axis.log is not None, step=step
        )
    return FloatDistribution(low, high, log=axis.log is not None, step=axis.step)


def choose(trial: Trial, cell: Cell, tune: TuneOptions) -> dict[str, Any]:
    """The values of a trial, by dotted name; those that were fixed when it was queued stay."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    values: dict[str, Any] = {}
    for name, axis in tune.space.items():
        d = _distribution(axis, whole=is_whole(cell, name))
        if isinstance(d, CategoricalDistribution):
            values[name] = trial.suggest_categorical(name, d.choices)
        elif isinstance(d, FloatDistribution):
            values[name] = trial.suggest_float(name, d.low, d.high, step=d.step, log=d.log)
        else:
            values[name] = trial.suggest_int(name, d.low, d.high, step=d.step, log=d.log)
    return values


# ---------------------------------------------------------------------------------------------------- tickets


def attempts(study: OptunaStudy) -> dict[str, list[FrozenTrial]]:
    """The trials of every folder, in the order in which they were queued; the last one of a folder is what
    counts."""
    found: dict[str, list[FrozenTrial]] = {}
    for trial in study.get_trials(deepcopy=False):
        if FOLDER in trial.user_attrs:
            found.setdefault(trial.user_attrs[FOLDER], []).append(trial)
    return found


def top_up(study: OptunaStudy, cell: Cell, n_trials: int) -> None:
    """Queue the tickets that are not there yet. For one writer."""
    there = attempts(study)
    for k in range(n_trials):
        if (folder := f"{cell.id}-t{k:04d}") not in there:
            study.enqueue_trial({}, user_attrs={FOLDER: folder})


def put_back(study: OptunaStudy, *, is_dead: Callable[[FrozenTrial], bool]) -> list[str]:
    """Queue again every ticket whose worker is gone; the folders. For one writer.

    Args:
        is_dead: whether nobody works on this running trial any more.
    """
    from optuna.trial import TrialState

    back = []
    for folder, trials in attempts(study).items():
        last = trials[-1]
        if last.state == TrialState.RUNNING and is_dead(last):
            fail(study, last)
        elif last.state != TrialState.FAIL or REASON in last.user_attrs:
            continue
        back.append(folder)
        _queue_again(study, last)
    return back


def running(study: OptunaStudy) -> list[Trial]:
    """The trials that run, to be gone on with by a parent that knows that nobody else does."""
    from optuna.trial import Trial, TrialState

    return [
        Trial(study, trial._trial_id)
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    ]


def retry_failed(study: OptunaStudy) -> list[str]:
    """Queue again every ticket that failed, with a clean slate; the folders. For one writer."""
    from optuna.trial import TrialState

    back = []
    for folder, trials in attempts(study).items():
        if trials[-1].state == TrialState.FAIL:
            back.append(folder)
            _queue_again(study, trials[-1], without=(REASON, DEATHS))
    return back


def _queue_again(study: OptunaStudy, trial: FrozenTrial, *, without: Sequence[str] = (REASON,)) -> None:
    """A waiting copy, with the values chosen before, if any were, and all attributes but some."""
    import optuna

    chosen = {
        **trial.system_attrs,
        "fixed_params": {**trial.system_attrs.get("fixed_params", {}), **trial.params},
    }
    kept = {k: v for k, v in trial.user_attrs.items() if k not in without}
    study.add_trial(
        optuna.create_trial(state=optuna.trial.TrialState.WAITING, user_attrs=kept, system_attrs=chosen)
    )


def fail(study: OptunaStudy, trial: FrozenTrial) -> None:
    """Fail a trial without a reason, which means: to be put back. Another process may have done so."""
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.trial import TrialState

    try:
        study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
    except UpdateFinishedTrialError:
        return


def tell(study: OptunaStudy, trial: Trial, ended: Outcome) -> None:
    """How a trial ended. One that diverged counts as pruned, the worst there is, and not as failed, of which
    samplers learn nothing."""
    from optuna.trial import TrialState

    if ended.reason:
        trial.set_user_attr(REASON, ended.reason)
    if ended.state == "done":
        study.tell(trial, ended.values)
    else:
        study.tell(trial, state=TrialState.FAIL if ended.state == "failed" else TrialState.PRUNED)


def died(trial: Trial, how: str) -> Outcome | None:
    """Count that the process of a trial ended without a result, as `how` says; its outcome when that was once
    too often: a point that exceeds the memory would be run for ever."""
    deaths = trial.user_attrs.get(DEATHS, 0) + 1
    trial.set_user_attr(DEATHS, deaths)
    if deaths < KILLS:
        return None
    return Outcome("failed", reason=f"ended {deaths} times without a result, the last time {how}")


def n_waiting(study: OptunaStudy) -> int:
    """Tickets that nobody has taken."""
    from optuna.trial import TrialState

    return len(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))


def n_unfinished(study: OptunaStudy) -> int:
    """Tickets that wait or run."""
    return sum(not trials[-1].state.is_finished() for trials in attempts(study).values())


def number_of(folder: str) -> int:
    """The number of a ticket within its cell."""
    return int(folder.rsplit("-t", 1)[1])


def seed_of(tune: TuneOptions, cell_number: int, folder: str) -> int:
    """The sampler's seed for a ticket: the same whenever it is taken, so that a restart draws the values that
    it would have drawn."""
    import numpy as np

    return int(np.random.SeedSequence([tune.seed, cell_number, number_of(folder)]).generate_state(1)[0])


# ------------------------------------------------------------------------------------------------ small words


def shown(value: Any) -> str:
    """A value as people read it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def shown_objective(key: str, value: float) -> str:
    """An objective with its unit: 'val_force_rmse 38.1 meV/Å'."""
    q = quantity(key)
    unit = q.display_unit or q.unit
    return f"{key} {value * q.display_factor:.4g}{' ' + unit if unit else ''}"
