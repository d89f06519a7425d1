"""What happens around the steps of a point: checkpoints, validation, curves, progress, clocks, and noticing
divergence."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L

from sapis_lab.files import plain_rows, read_lossy, write_text
from sapis_lab.records import CHECKPOINT
from sapis_lab.training._checkpoint import SCIENCE
from sapis_lab.training._signals import Stopped, StopSignals
from sapis_lab.training.module import TrainingModule

CURVE = "metrics.csv"
PROGRESS = "progress.json"


class PointFailed(RuntimeError):
    """A point that gives no number, with its reason."""


class Clock(L.Callback):
    """Wall and CPU seconds spent in training steps, summed over interruptions; validation and checkpoints
    stand outside.

    The ranks of a point work in step: the CPU time is that of this process times their number.
    """

    def __init__(self, *, n_ranks: int = 1) -> None:
        self.wall = self.cpu = 0.0
        self._n_ranks = n_ranks
        self._since: tuple[float, float] | None = None

    def start(self) -> None:
        """Run the clock."""
        self._since = (time.perf_counter(), time.process_time())

    def stop(self) -> None:
        """Stop the clock and keep what it measured."""
        if self._since is not None:
            self.wall += time.perf_counter() - self._since[0]
            self.cpu += (time.process_time() - self._since[1]) * self._n_ranks
            self._since = None

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.start()

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.stop()

    def state_dict(self) -> dict[str, Any]:
        return {"wall": self.wall, "cpu": self.cpu}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.wall, self.cpu = state["wall"], state["cpu"]


class Curve(L.Callback):
    """Follows a point: curve rows, progress for people, checkpoints for resuming, and the end of a run that
    diverges or has to stop.

    With several ranks all validate, and the first one writes. Checkpoints hold `science`, what the point's
    numbers depend on, and the forms of the training step (`kernel`) of all sessions so far.
    """

    def __init__(
        self,
        folder: Path,
        *,
        steps: int,
        validate: Callable[[], dict[str, float]],
        validations: int,
        clock: Clock,
        checkpoint_seconds: float,
        stop: StopSignals,
        science: dict[str, Any] | None = None,
        kernel: str = "PyTorch",
        measured: Sequence[str] = (),
    ) -> None:
        self.folder, self.steps, self.validate, self.clock, self.checkpoint_seconds = (
            folder,
            steps,
            validate,
            clock,
            checkpoint_seconds,
        )
        self.stop = stop
        self.science, self.kernel = science, kernel
        self.expected = [f"val_{key}" for key in measured]
        """Quantities that validations give."""
        self.kernels = [kernel]
        """Forms of the training step over all sessions."""
        self.validation_steps = {round(steps * (k + 1) / validations) for k in range(validations)}
        self.log_every = max(1, steps // 100)
        self.last_validation: dict[str, float] = {}
        self.least_validation: dict[str, float] = {}
        """Of every error, the least so far."""
        self._saved = self._shown = time.monotonic()

    # ---- steps

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, TrainingModule)
        # Lightning has just set its own handlers, which would end the run between any two lines of Python
        self.stop.hold()
        module.ranks.refuse_different([*module.model.parameters(), *module.average])

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(module, TrainingModule) and module.last_loss is not None
        done = trainer.global_step
        module.update_average(done)
        if done % self.log_every == 0 or done in self.validation_steps:
            self._follow(trainer, module, done)
        elif module.last_loss.device.type == "cpu":
            self._finite(module, done)
        stopping = module.stop_agreed and done < self.steps
        now = time.monotonic()
        if stopping or (now - self._saved > self.checkpoint_seconds and done < self.steps):
            self.clock.stop()
            self.save(trainer)
            self._saved = time.monotonic()
            self.clock.start()
        if stopping:
            module.ranks.wait()  # nobody ends, and takes the others along, before the checkpoint is there
            raise Stopped(f"stopped at step {done} of {self.steps}, which {CHECKPOINT} holds")
        if now - self._shown > 1.0:
            self._show(module, done)
            self._shown = now

    def _finite(self, module: TrainingModule, done: int) -> float:
        """The loss of the step, which is asked back from a GPU only where it is needed anyway."""
        assert module.last_loss is not None
        loss = float(module.last_loss)
        if not math.isfinite(loss):
            raise PointFailed(f"diverged: the loss is {loss} at step {done} of {self.steps}")
        return loss

    def _follow(self, trainer: L.Trainer, module: TrainingModule, done: int) -> None:
        row = {
            "loss": self._finite(module, done),
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
        }
        if done in self.validation_steps:
            self.clock.stop()
            self.last_validation = self.validate()
            self.clock.start()
            self.least_validation = {
                key: min(value, self.least_validation.get(key, value))
                for key, value in self.last_validation.items()
            }
            row |= {f"val_{k}": v for k, v in self.last_validation.items()}
        if module.ranks.is_first:
            append_row(self.folder / CURVE, {"step": done, **row}, expected=self.expected)
            for logger in trainer.loggers:
                logger.log_metrics(row, step=done)

    def save(self, trainer: L.Trainer) -> None:
        """Replace last.ckpt in one step, the curve up to there being on the disk before."""
        module = trainer.lightning_module
        assert isinstance(module, TrainingModule)
        if not module.ranks.is_first:
            return
        self._finite(module, trainer.global_step)
        if (curve := self.folder / CURVE).exists():
            with curve.open("ab") as f:
                os.fsync(f.fileno())
        trainer.save_checkpoint(self.folder / CHECKPOINT)

    def _show(self, module: TrainingModule, done: int) -> None:
        assert module.last_loss is not None
        if module.ranks.is_first:
            show(
                self.folder,
                step=done,
                steps=self.steps,
                loss=float(module.last_loss),
                val=self.last_validation,
                seconds=self.clock_now(),
            )

    def clock_now(self) -> float:
        """Seconds of training so far, the running interval included."""
        self.clock.stop()
        self.clock.start()
        return self.clock.wall

    def rise(self) -> float:
        """How many times the least validation RMSE on the way the last one is, the most over all targets; 1
        where training ended at its best."""
        least = self.least_validation
        ratios = [
            v / least[k] for k, v in self.last_validation.items() if k.endswith("rmse") and least[k] > 0
        ]
        return max(ratios, default=1.0)

    def state_dict(self) -> dict[str, Any]:
        return {
            "last_validation": self.last_validation,
            "least_validation": self.least_validation,
            SCIENCE: self.science,
            "kernels": self.kernels,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.last_validation = state["last_validation"]
        self.least_validation = state.get("least_validation", self.last_validation)
        self.kernels = list(dict.fromkeys([*state.get("kernels", []), self.kernel]))


def show(
    folder: Path, *, step: int, steps: int, loss: float | None, val: dict[str, float], seconds: float
) -> None:
    """Write progress.json, which `sapis study status` and the progress display read."""
    finite = loss if loss is not None and math.isfinite(loss) else None
    said = {"step": step, "steps": steps, "loss": finite, "val": val or None, "seconds": seconds}
    write_text(folder / PROGRESS, json.dumps(said), durable=False)


COLUMNS = ["step", "loss", "learning_rate"]
"""What every curve begins with."""


def append_row(path: Path, row: dict[str, float], *, expected: Sequence[str] = ()) -> None:
    """Add a row to metrics.csv, with its header where the file is new, and with columns for what was not
    measured before; a new file has columns for the quantities `expected` from the start.

    A wider header means a new file, in one step: a kill leaves the old one or the new one, and a row less at
    most, which is cut anyway.
    """
    columns = _columns(path, expected)
    if columns is None or not set(row) <= set(columns):
        wider = list(dict.fromkeys([*(columns or (*COLUMNS, *expected)), *row]))
        _rewrite(path, wider, _rows(path))
        columns = wider
    with path.open("a", newline="") as f:
        csv.DictWriter(f, columns, lineterminator="\n").writerow(row)


def _is_step(text: str, last: int) -> bool:
    return re.fullmatch("[0-9]{1,18}", text) is not None and int(text) <= last


def cut_rows(path: Path, *, last_step: int) -> None:
    """Drop the rows after `last_step`, which a resumed run will write again."""
    if path.exists():
        rows = [r for r in _rows(path) if _is_step(r.get("step") or "", last_step)]
        _rewrite(path, _columns(path) or COLUMNS, rows)


def _columns(path: Path, expected: Sequence[str] = ()) -> list[str] | None:
    """The columns of a curve; None where there is none, or not even its whole header."""
    if not path.exists():
        return None
    with path.open(newline="", encoding="utf-8", errors="replace") as f:
        header = f.readline()
    names, first = header.rstrip("\n").split(","), [*COLUMNS, *expected]
    return names if header.endswith("\n") and names[: len(first)] == first else None


def _rows(path: Path) -> list[dict[str, str]]:
    """The rows of a curve but for a last one that was cut off: of step 12 it may say 1."""
    text = read_lossy(path) if path.exists() else ""
    return list(plain_rows(text[: text.rfind("\n") + 1]))


def _rewrite(path: Path, columns: list[str], rows: list[dict[str, str]]) -> None:
    lines = [",".join(columns), *(",".join(r.get(c) or "" for c in columns) for r in rows)]
    write_text(path, "\n".join(lines) + "\n")
