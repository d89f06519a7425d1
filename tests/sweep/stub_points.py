"""Points that only pretend to train, for the tests of the engine; and, as a script, an engine that runs some
of them.

python stub_points.py FOLDER WORKERS WORK...      # exit status 0, or 75 when stopped
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import warnings
from pathlib import Path

from sapis_lab.config import Config, dump, fingerprint, load, read_yaml
from sapis_lab.errors import Notice
from sapis_lab.files import write_text
from sapis_lab.jobs.executor import Task
from sapis_lab.records import Record, write_record

STEPS = 40


class StubPoint(Config):
    """A point whose `work` says how it ends: ok, slow, stubborn, lasting, warn, raise, kill, exit,
    nothing."""

    id: str
    work: str = "ok"
    value: float = 1.0

    def science(self) -> dict:
        return {k: v for k, v in dump(self).items() if k != "id"}

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.science())


def run_point(folder: Path, *, cache: str, device: str) -> None:
    """Count to STEPS with a checkpoint at every step; the sum of what was done exactly once is the result."""
    point = load(StubPoint, read_yaml(folder / "config.yaml"), source=str(folder))
    (folder / "pid").write_text(str(os.getpid()))
    with (folder / "sessions").open("a") as f:
        f.write("session\n")
    print(f"{point.id} works on {device}", flush=True)
    if point.work == "warn":
        warnings.warn("a library is missing:\nthis takes longer", Notice, stacklevel=1)
        warnings.warn("of no interest to people", RuntimeWarning, stacklevel=1)
    if point.work == "raise":
        raise ValueError("the loss became NaN at step 3")
    if point.work == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if point.work == "exit":
        sys.exit(3)
    if point.work == "nothing":
        return
    if point.work == "stubborn":  # it takes longer to save than anyone waits
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    done = int((folder / "last.ckpt").read_text()) if (folder / "last.ckpt").exists() else 0
    for step in range(done, STEPS):
        time.sleep({"slow": 0.1, "stubborn": 0.1, "lasting": 2.5}.get(point.work, 0.0))
        with (folder / "trace").open("a") as f:
            f.write(f"{step}\n")
        # whole or not at all: points are killed at any moment
        write_text(folder / "last.ckpt", str(step + 1))
    write_record(folder, record(point))


MEASURE = Task("stub_points:measure", arguments={"factor": 2.0}, preload=("stub_points",), answer="done.json")
"""Jobs that are no points: numbers to be doubled."""


def write_job(folder: Path, work: str = "ok", value: float = 1.0) -> Path:
    """A folder in which `measure` can work, as `work` says: ok, slow, raise, kill, nothing."""
    write_text(folder / "asked.json", json.dumps({"work": work, "value": value}))
    return folder


def measure(folder: Path, *, device: str, factor: float) -> None:
    """Answer with a multiple of what was asked."""
    asked = json.loads((folder / "asked.json").read_text())
    (folder / "pid").write_text(str(os.getpid()))
    print(f"{folder.name} is measured on {device}", flush=True)
    if asked["work"] == "raise":
        raise ValueError("no model to measure")
    if asked["work"] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if asked["work"] == "slow":
        time.sleep(60)
    if asked["work"] != "nothing":
        write_text(folder / "done.json", json.dumps({"value": factor * asked["value"]}))


def record(point: StubPoint) -> Record:
    """A record with made-up numbers that follow from the settings."""
    return Record(
        id=point.id,
        fingerprint=point.fingerprint,
        science=point.science(),
        model="stub",
        family="stub",
        symmetry="none",
        lmax=None,
        seed=0,
        n_params_target=100,
        n_params=101,
        n_params_equivariant=1,
        n_params_scalar=100,
        n_frames=10,
        steps=STEPS,
        epochs=4.0,
        samples=40,
        batch_size=1,
        learning_rate=0.1,
        flops_per_step=1e3,
        flops_elementwise_per_step=1e2,
        flops_train=1e3 * STEPS,
        flops_inference_per_frame=300.0,
        seconds_train=time.time(),
        cpu_seconds_train=0.1,
        seconds_total=0.2,
        device="cpu",
        host="h",
        metrics={"val_force_rmse": 0.1 * point.value},
        versions={},
        commit=os.environ.get("SAPIS_COMMIT"),
        dirty={"0": False, "1": True}.get(os.environ.get("SAPIS_DIRTY", "")),
    )


def main(folder: Path, workers: int, works: list[str]) -> int:
    from sapis_lab.sweep.engine import Stopped, run

    points = [StubPoint(id=f"p{k}-{work}", work=work) for k, work in enumerate(works)]
    try:
        run(
            points,
            folder=folder,
            cache=folder,
            workers=workers,
            target="stub_points:run_point",
            preload=["stub_points"],
        )
    except Stopped:
        return 75
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
