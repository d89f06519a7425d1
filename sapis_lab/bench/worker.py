"""The measured side: one model on one input in one process, which answers one line of JSON for every line it
is asked.

    {"do": "time", "action": "train", "n": 5}   ->  {"ok": true, "seconds": [...], "wall": [...],
    "page_faults": 0.0, "peak_bytes": ...} {"do": "operations"}                        ->  {"ok": true,
    "operations": {"infer": ..., "train": ...}} {"do": "flops"}                             ->  {"ok": true,
    "flops": {"infer": ..., "train": ...}}

The first line says what was built, {"ok": true, "facts": {...}}; a fault is {"ok": false, "error": ...}. The
process ends with its input. FLOPs are counted apart from what is timed, since a compiled kernel may be
counted through another form of the same sums.

Imports torch and numpy alone, since peers' environments have no more; `sapis_lab.bench.peer` and
`sapis_lab.accounting` are all that it reads of this package.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import platform
import resource
import sys
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sapis_lab.accounting import counted_flops
from sapis_lab.bench.peer import Info, Task, build

LEARNING_RATE = 1e-4
"""Small: the same batch is trained on for hundreds of steps, and the numbers shall stay as they are at the
start."""


class Job(ABC):
    """What a worker measures."""

    facts: dict[str, Any]
    """What a reader of the table should know of it."""
    actions: dict[str, Callable[[], object]]
    """What can be timed, by name."""
    device = torch.device("cpu")

    @abstractmethod
    def enter(self, action: str) -> None:
        """Get ready for `action`; not timed."""

    @abstractmethod
    def check(self) -> None:
        """Raise ValueError where what was computed is not finite; not timed."""


class TrainingJob(Job, ABC):
    """Training steps and inference of a model: `train` is forward, forces, loss, backward, clipping and
    AdamW; `infer` energies and forces.

    Args:
        module: the model.   clip: largest norm of the gradient, none to leave it.   betas, weight_decay: of
            AdamW.
    """

    def __init__(
        self, module: nn.Module, *, clip: float | None, betas: tuple[float, float], weight_decay: float
    ) -> None:
        self.module, self.clip = module, clip
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            self.parameters, lr=LEARNING_RATE, betas=betas, weight_decay=weight_decay, fused=True
        )
        self.last: Tensor = torch.zeros(())
        self.actions = {"infer": self.infer, "train": self.train}

    @abstractmethod
    def loss(self) -> Tensor:
        """The loss of the batch, differentiable in the parameters."""

    @abstractmethod
    def energies_and_forces(self) -> tuple[Tensor, Tensor]:
        """Energies and forces without a graph."""

    @abstractmethod
    def set_train(self, train: bool) -> None:
        """Training or evaluation mode of the model."""

    def train(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss()
        loss.backward()
        if self.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.clip, foreach=True)
        self.optimizer.step()
        self.last = loss.detach()

    def infer(self) -> None:
        _, forces = self.energies_and_forces()
        self.last = forces.detach()

    def enter(self, action: str) -> None:
        for p in self.parameters:
            p.requires_grad_(action == "train")
        self.set_train(action == "train")

    def check(self) -> None:
        if not bool(torch.isfinite(self.last).all()):
            raise ValueError(f"the last step gave {self.last.flatten()[0].item()}, wanted finite numbers")


class PeerJob(TrainingJob):
    """A code behind an adapter; the loss weighs energies per atom and forces as the package does by default,
    without its scale.

    Args:
        adapter, model, n_params: as `peer.build` takes them.   arrays: path of the batch file.
    """

    def __init__(self, *, adapter: str, model: str, n_params: float, arrays: str) -> None:
        with np.load(arrays) as file:
            contents = dict(file)
        self.task = Task(contents)
        torch.manual_seed(0)
        self.peer = build(adapter, model, n_params, Info.of(contents))
        self.inputs = self.peer.prepare(self.task)
        super().__init__(self.peer.module, clip=30.0, betas=(0.9, 0.999), weight_decay=0.0)
        self.facts = {
            "n_params": sum(p.numel() for p in self.parameters),
            "n_atoms": len(self.task.species),
            "n_frames": self.task.n_frames,
            "n_pairs": self.task.n_edges,
            "width": self.peer.width,
            "note": self.peer.note,
        }

    def loss(self) -> Tensor:
        energy, forces = self.peer.ef(self.inputs, True)
        energy_error = (energy.reshape(-1) - self.task.energy) / self.task.n_atoms
        return 30.0 * energy_error.square().mean() + (forces - self.task.forces).square().sum(1).mean()

    def energies_and_forces(self) -> tuple[Tensor, Tensor]:
        energy, forces = self.peer.ef(self.inputs, False)
        return energy, forces

    def set_train(self, train: bool) -> None:
        self.peer.set_train(train)


class GemmJob(Job):
    """Matrix products in float32, the yardstick of this process environment: a large one, and a batch as long
    and thin as models have."""

    def __init__(self, *, device: str = "cpu") -> None:
        self.device = torch.device(device)
        large, batched = (
            ((8192, 8192, 8192), (64, 4096, 128, 128))
            if self.device.type == "cuda"
            else ((1024,) * 3, (9, 432, 64, 64))
        )
        m, k, n = large
        a, b = torch.ones(m, k, device=self.device), torch.ones(k, n, device=self.device)
        batch, rows, inner, columns = batched
        x, y = (
            torch.ones(batch, rows, inner, device=self.device),
            torch.ones(batch, inner, columns, device=self.device),
        )
        self.out = (
            torch.empty(m, n, device=self.device),
            torch.empty(batch, rows, columns, device=self.device),
        )
        self.actions = {
            "large": lambda: torch.mm(a, b, out=self.out[0]),
            "batched": lambda: torch.bmm(x, y, out=self.out[1]),
        }
        self.facts = {
            "large": "x".join(map(str, large)),
            "batched": "x".join(map(str, batched)),
            "flops": {"large": 2 * m * k * n, "batched": 2 * batch * rows * inner * columns},
        }

    def enter(self, action: str) -> None:
        return

    def check(self) -> None:
        return


# -------------------------------------------------------------------------------------------------- measuring


def timed(job: Job, action: str, n: int) -> dict[str, Any]:
    """`n` calls of an action: seconds of each, its page faults, and the peak memory of the process so far.

    Seconds are those of the processor on a CPU, so that another job on the machine does not tilt a ratio; on
    a GPU they are wall time from idle to idle.
    """
    job.enter(action)
    run, cuda = job.actions[action], job.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(job.device)
    walls, cpus = [], []
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(n):
        if cuda:
            torch.cuda.synchronize(job.device)
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        if cuda:
            torch.cuda.synchronize(job.device)
        cpus.append(time.process_time() - cpu)
        walls.append(time.perf_counter() - wall)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    peak = torch.cuda.max_memory_allocated(job.device) if cuda else peak_bytes()
    job.check()
    return {"seconds": walls if cuda else cpus, "wall": walls, "page_faults": faults / n, "peak_bytes": peak}


def peak_bytes() -> int:
    """Largest resident memory of this process so far.

    From VmHWM where there is one: getrusage also counts what the parent had resident when it started this
    process.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class _Count(TorchDispatchMode):
    """Counts what the dispatcher is asked to do."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.n += 1
        return function(*args, **(kwargs or {}))


def n_operations(job: Job, action: str) -> int:
    """Operations that one call of an action dispatches: forward, backward and optimiser."""
    job.enter(action)
    return dispatched(job.actions[action])


def dispatched(function: Callable[[], object]) -> int:
    """Operations that `function()` dispatches."""
    with _Count() as count:
        function()
    return count.n


def n_flops(job: Job, action: str) -> int:
    """FLOPs of the matrix products of one call of an action."""
    job.enter(action)
    return counted_flops(job.actions[action])


def device_name(device: torch.device) -> str:
    """The processor's or the GPU's own name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


# ---------------------------------------------------------------------------------------------------- serving


def answer(job: Job, request: dict[str, Any]) -> dict[str, Any]:
    """What a request gives."""
    match request["do"]:
        case "time":
            return timed(job, request["action"], request["n"])
        case "operations":
            return {"operations": {action: n_operations(job, action) for action in job.actions}}
        case "flops":
            return {"flops": {action: n_flops(job, action) for action in job.actions}}
        case unknown:
            raise ValueError(f"no request {unknown!r}; there are time, operations, flops")


def make_job(target: str, arguments: dict[str, Any]) -> Job:
    """The job of `module:class` with these arguments."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)(**arguments)


def main(arguments: Sequence[str]) -> int:
    """Serve the job in `arguments`, a class as `module:class` and its arguments as JSON, until the input
    closes."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints must not get between the answers

    def guarded(function: Callable[[], dict[str, Any]]) -> bool:
        try:
            message = {"ok": True, **function()}
        except Exception as error:
            traceback.print_exc()
            message = {"ok": False, "error": f"{type(error).__name__}: {error}"}
        out.write(json.dumps(message) + "\n")
        return bool(message["ok"])

    torch.set_num_threads(1)
    # before any other thread: codes with them run up to 2.6 times slower on some processors
    torch.set_flush_denormal(True)
    job: Job

    def begin() -> dict[str, Any]:
        nonlocal job
        job = make_job(arguments[0], json.loads(arguments[1]))
        about = {"device_name": device_name(job.device), "torch": torch.__version__, "start_bytes": start}
        return {"facts": {**job.facts, **about}}

    start = peak_bytes()
    if not guarded(begin):
        return 1
    for line in sys.stdin:
        request = json.loads(line)
        guarded(lambda request=request: answer(job, request))  # type: ignore[misc]
    return 0
