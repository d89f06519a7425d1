"""Points that only pretend to train, for the tests of tuning: their error has its minimum at a learning rate
of 0.01."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from pathlib import Path
from typing import Any

from sapis_lab.config import fingerprint, read_yaml
from sapis_lab.jobs.folder import write_failure
from sapis_lab.records import Record, write_record


def error(rate: float, width: int = 0) -> float:
    """What the point reports at its end, eV/Å."""
    return 0.05 * math.exp(0.3 * math.log(rate / 0.01) ** 2) * (1.0 + 0.01 * width)


def run_point(folder: Path, *, cache: str, device: str) -> None:
    """Count to `train.steps`, with a checkpoint at each step and a validation at each tenth part; `trace`
    says which steps were done."""
    point = read_yaml(folder / "config.yaml")
    (folder / "pid").write_text(str(os.getpid()))
    steps, rate = point["train"]["steps"], point["train"]["learning_rate"]
    seconds = float(os.environ.get("TUNED_SECONDS", "0")) / steps
    done = int((folder / "last.ckpt").read_text()) if (folder / "last.ckpt").exists() else 0
    if os.environ.get("TUNED_DIES") == folder.name:
        os.kill(os.getpid(), signal.SIGKILL)
    if os.environ.get("TUNED_FAILS") == folder.name:
        raise ValueError("no such luck")
    if rate > float(os.environ.get("TUNED_DIVERGES", "inf")):
        write_failure(folder, "diverged: the loss is nan at step 3", "")
        return
    every = max(1, steps // point["train"]["validations"])
    for step in range(done, steps):
        time.sleep(seconds)
        with (folder / "trace").open("a") as f:
            f.write(f"{step}\n")
        if (step + 1) % every == 0:
            with (folder / "metrics.csv").open("a") as f:
                f.write("" if f.tell() else "step,loss,val_force_rmse\n")
                f.write(f"{step + 1},,{error(rate) * (2 - (step + 1) / steps)!r}\n")
        temporary = folder / ".last.tmp"
        temporary.write_text(str(step + 1))
        temporary.replace(folder / "last.ckpt")
    write_record(folder, record(folder, point))


def record(folder: Path, point: dict[str, Any]) -> Record:
    """Made-up numbers that follow from the settings."""
    science = json.loads((folder / "science.json").read_text())
    train, n = point["train"], point["n_params"]
    return Record(
        id=point["id"],
        fingerprint=fingerprint(science),
        science=science,
        model="geat-l2",
        family="geat",
        symmetry="O(3)",
        lmax=2,
        seed=point["seed"],
        n_params_target=point["n_params_target"],
        n_params=n,
        n_params_equivariant=0,
        n_params_scalar=n,
        n_frames=point["n_frames"],
        steps=train["steps"],
        epochs=1.0,
        samples=train["steps"],
        batch_size=train["batch_size"],
        learning_rate=train["learning_rate"],
        flops_per_step=10.0 * n,
        flops_elementwise_per_step=0.0,
        flops_train=10.0 * n * train["steps"],
        flops_inference_per_frame=1.0,
        seconds_train=0.1,
        cpu_seconds_train=0.1,
        seconds_total=0.1,
        device="cpu",
        host="h",
        metrics={"val_force_rmse": error(train["learning_rate"], point["model"]["heads"])},
        versions={},
    )
