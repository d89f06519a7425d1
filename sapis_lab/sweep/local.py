"""Points on this machine: a pool of workers that a launcher forks, one process (or `devices` ranks) per
point.

The launcher (`sapis_lab.sweep.launcher`) has imported everything once, so a point starts in a tenth of a
second. Nothing outlives the pool: the launcher ends when the pool's process does, however it ends, and the
system kills every point when the launcher ends.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from sapis_lab.sweep.executor import Ended
from sapis_lab.sweep.provenance import current_commit

TARGET = "sapis_lab.training.run:run_point"
PRELOAD = (
    "torch",
    "lightning.pytorch",
    "torch.utils.tensorboard",
    "torch.utils.flop_counter",
    "sapis_lab.training.run",
)
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # Memory is kept instead of being returned and faulted in again at every step: 52.9 -> 44.3 ms a step of
    # GEAT on 16 molecules.
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TOP_PAD_": "100000000",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # reproducible sums on GPUs
}


class LauncherDied(RuntimeError):
    """The launcher ended by itself."""


class LocalPool:
    """Runs up to `workers` points at a time in processes of their own.

    Args:
        log: file for what the launcher itself says.   cache: folder of the frame stores.
        workers: points at a time.   device: 'cpu', 'cuda' or 'cuda:K'; with 'cuda' the points take the GPUs
        in turn. devices: of every point; with more than one the launcher starts that many ranks, which train
        together. arguments: further ones of the target.   target: the function that trains a point,
        `module:function`, called as
            `function(folder, cache=..., device=..., **arguments)`, with `devices=` where a point has several.
        preload: modules to import before the first point: a file that is edited meanwhile must not reach the
        points that start later. give_up: asked while the launcher starts; when it says yes, the pool closes
        itself and raises KeyboardInterrupt.

    Raises:
        LauncherDied: the launcher ended by itself, here or in any later call; points go on from their
        checkpoints when started again.
    """

    def __init__(
        self,
        log: Path,
        *,
        cache: Path,
        workers: int = 1,
        device: str = "cpu",
        devices: int = 1,
        arguments: Mapping[str, Any] | None = None,
        target: str = TARGET,
        preload: Sequence[str] = PRELOAD,
        give_up: Callable[[], bool] = lambda: False,
    ) -> None:
        self.device, self.devices, self.target = device, devices, target
        self.arguments = {
            "cache": str(cache),
            **(arguments or {}),
            **({"devices": devices} if devices > 1 else {}),
        }
        self._idle = list(range(workers))
        self._slots: dict[str, int] = {}
        began = time.monotonic()
        self._launcher = _Launcher(log, preload, give_up)
        self.seconds_to_start = time.monotonic() - began
        """How long the launcher took to import everything, s."""

    @property
    def n_free(self) -> int:
        """Workers without a point."""
        return len(self._idle)

    @property
    def running(self) -> tuple[str, ...]:
        """Ids of the points that run."""
        return tuple(self._slots)

    def start(self, *folders: Path) -> None:
        """Start the points whose `config.yaml` lies in `folders`, at most `n_free`; the name of the folder is
        the point's id."""
        for folder in folders:
            assert self._idle, "no worker is free"
            slot = self._idle.pop(0)
            self._slots[folder.name] = slot
            self._launcher.ask(
                start=folder.name,
                folder=str(folder),
                target=self.target,
                arguments={**self.arguments, "device": self._device(slot)},
                **({"ranks": self.devices} if self.devices > 1 else {}),
            )

    def _device(self, slot: int) -> str:
        """With several devices a point, the first of them."""
        return self.device if self.device != "cuda" else f"cuda:{slot * self.devices % max(1, _n_gpus())}"

    def stop(self, *ids: str, number: int = signal.SIGTERM) -> None:
        """Send a signal to running points: SIGTERM lets them save and end with status 75, SIGKILL ends them
        at once."""
        for id in ids:
            self._launcher.ask(stop=id, signal=int(number))

    def poll(self, timeout: float) -> list[Ended]:
        """The points that have ended since, waiting at most `timeout` seconds for one."""
        ended = []
        for answer in self._launcher.answers(timeout):
            if "ended" in answer:
                slot = self._slots.pop(answer["ended"])
                self._idle = sorted([*self._idle, slot])
                ended.append(Ended(answer["ended"], int(answer["status"])))
        return ended

    def close(self) -> None:
        """End the launcher, and with it every point that still runs."""
        self._launcher.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Launcher:
    """The process that forks the points, seen from this side."""

    def __init__(self, log: Path, preload: Sequence[str], give_up: Callable[[], bool]) -> None:
        self.log = log
        # What Slurm has set is left out: Lightning would take the job for one of its own.
        own = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("SLURM_", "SLURMD_", "SBATCH_", "SRUN_"))
        }
        with log.open("ab") as file:
            # A session of its own: Ctrl-C reaches the parent alone, which then stops the points in order.
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sapis_lab.sweep.launcher", *preload],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                start_new_session=True,
                bufsize=0,
                env={**own, **worker_environment()},
            )
        self.pending = b""
        self.selector = selectors.DefaultSelector()
        assert self.process.stdout is not None
        self.selector.register(self.process.stdout, selectors.EVENT_READ)
        try:
            while not any("ready" in answer for answer in self.answers(timeout=0.2)):
                if give_up():
                    raise KeyboardInterrupt
        except BaseException:
            self.process.kill()  # it has no points yet, and would go on importing
            self.close()
            raise

    def answers(self, timeout: float) -> list[dict[str, Any]]:
        """What the launcher has said since, waiting at most `timeout` seconds for it."""
        assert self.process.stdout is not None
        if not self.selector.select(timeout):
            return []
        data = os.read(self.process.stdout.fileno(), 65536)
        if not data:
            code = self.process.wait()
            tail = "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:])
            raise LauncherDied(
                f"the launcher of the points ended with status {code}, see {self.log}; start again to "
                f"continue\n{tail}"
            )
        *lines, self.pending = (self.pending + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def ask(self, **request: Any) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            raise LauncherDied(
                f"the launcher of the points is gone, see {self.log}; start again to continue"
            ) from None

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.selector.close()


def worker_environment() -> dict[str, str]:
    """What is set for points: one thread, and the commit of the program, for points to note in their records:
    SAPIS_COMMIT and SAPIS_DIRTY (0 or 1), empty outside of git."""
    commit, dirty = current_commit()
    return {
        **WORKER_ENVIRONMENT,
        "SAPIS_COMMIT": commit or "",
        "SAPIS_DIRTY": "" if dirty is None else str(int(dirty)),
    }


def _n_gpus() -> int:
    import torch

    return torch.cuda.device_count()
