"""One training run within a given CPU time, the same loop for every code; runs in the code's own environment
(torch and numpy only).

    loss = 10 mean((dE / n_atoms)^2) + mean(dF^2),    E and F divided by the training force RMS, which
    multiplies the output outside; Adam or SOAP, gradient norm clipped, rate = peak x min(1, t / 0.05 T) until
    t = 0.05 T, then peak x (1 + cos(pi (t - 0.05 T) / 0.95 T)) / 2,

t the CPU time used so far and T the budget, so that every code completes its schedule. The clock is the
process's CPU time around forward, backward and optimiser. Making the batch, evaluation, and one step that is
thrown away (in which kernels may be compiled) are outside it. Denormal numbers are flushed: with them some
codes take twice as long on some processors.

A shared machine does less work in the same CPU time, so every record carries a yardstick: the CPU time of a
fixed piece of work, taken on the way and off the clock. Runs whose yardsticks differ had unequal means.

A run is `diverged` when its loss or an error is not finite, when its forces end no better than none
(validation RMSE not below the RMS of the forces it was trained on), or when its force error ends above twice
the least of its own curve; then it has a reason and no errors.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sapis_lab.bench.peer import Info, Peer, Task, build, flat_matrices
from sapis_lab.soap import Soap

WARM_UP = 0.05
CLIP = 10.0
OPTIMIZERS = ("adamw", "soap")
"""Kinds of this package that need torch alone."""
ENERGY_WEIGHT = 10.0
CURVE_POINTS = 10
CURVE_FRAMES = 25
EVALUATION_BATCH = 25
"""Frames whose errors are taken at once, fewer where they have more than 2100 atoms together."""
EVALUATION_ATOMS = 2100
TRAIN_FRAMES = 200
"""At most so many training frames, evenly spread, have errors of their own."""
REGRESSED = 2.0
"""How much worse than the best of its curve a run may end; the schedule ends at rate zero, where errors are
at their least."""


@dataclass(frozen=True)
class Settings:
    """What determines a run."""

    adapter: str
    model: str
    data: str
    """path of the batch file"""
    n_params: float
    rate: float
    """peak learning rate"""
    seconds: float
    """CPU time"""
    seed: int
    batch_size: int
    rotate: bool
    """every training frame batch is rotated at random"""
    distribution: str
    """package whose version is recorded"""
    amsgrad: bool = False
    """Adam with the largest second moment so far"""
    optimizer: dict[str, Any] = field(default_factory=lambda: {"kind": "adamw"})
    """kind, and all of its settings"""


class Diverged(Exception):
    """The run has no result; the message says why."""


def main(arguments: Sequence[str]) -> int:
    """`main([settings as JSON, output file])`: runs and writes the record."""
    settings = Settings(**json.loads(arguments[0]))
    record = run(settings)
    out = Path(arguments[1])
    out.with_suffix(".part").write_text(json.dumps(record))
    out.with_suffix(".part").replace(out)
    return 0


def run(settings: Settings) -> dict[str, Any]:
    """The record of a run: `status`, sizes, times, and errors in eV and Å."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    with np.load(settings.data) as archive:
        arrays = dict(archive)
    peer = build(settings.adapter, settings.model, settings.n_params, Info.of(arrays, seed=settings.seed))
    record: dict[str, Any] = {
        "version": importlib.metadata.version(settings.distribution),
        "torch": torch.__version__,
        "params": peer.n_params(),
        "width": peer.width,
    }
    training = Training(peer, arrays, settings)
    started = time.perf_counter()
    try:
        training.run()
        record |= {"status": "done", **training.scores()}
    except Diverged as reason:
        record |= {"status": "diverged", "reason": str(reason)}
    steps = max(training.step, 1)
    return record | {
        "steps": training.step,
        "ms_per_step": 1e3 * training.used / steps,
        "epochs": training.step * settings.batch_size / len(arrays["split_train"]),
        "first_step_s": training.first,
        "wall_s": time.perf_counter() - started,
        "yardstick_ms": sorted(training.yardsticks)[len(training.yardsticks) // 2],
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "curve": training.curve,
    }


class Matrices:
    """Parameters as an optimiser of matrices wants them: flat ones cut into the matrices that they hold,
    which share their memory.

    Args:
        flat: shapes by parameter, as `peer.flat_matrices` gives them.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], flat: Mapping[nn.Parameter, Sequence[tuple[int, int]]]
    ) -> None:
        self._cut = [(p, [m * n for m, n in flat[p]], flat[p]) for p in parameters if p in flat]
        self._parts = [
            [nn.Parameter(x.view(shape)) for x, shape in zip(p.detach().split(sizes), shapes, strict=True)]
            for p, sizes, shapes in self._cut
        ]
        self.parameters = [p for p in parameters if p not in flat] + [p for some in self._parts for p in some]

    def take_gradients(self) -> None:
        """Hand the gradients of flat parameters on to their matrices."""
        for (p, sizes, shapes), parts in zip(self._cut, self._parts, strict=True):
            gradients = [None] * len(parts) if p.grad is None else p.grad.split(sizes)
            for part, gradient, shape in zip(parts, gradients, shapes, strict=True):
                part.grad = None if gradient is None else gradient.view(shape)


class Training:
    """A run in progress."""

    def __init__(self, peer: Peer, arrays: dict[str, np.ndarray], settings: Settings) -> None:
        self.peer, self.arrays, self.settings = peer, arrays, settings
        self.train: np.ndarray = arrays["split_train"]
        self.validation: np.ndarray = arrays["split_validation"]
        atoms = np.concatenate([np.arange(arrays["ptr"][k], arrays["ptr"][k + 1]) for k in self.train])
        self.scale = float(np.sqrt((arrays["F"][atoms] ** 2).mean()))
        """RMS of the training forces, eV/Å"""
        self.parameters = peer.params()
        by_number = settings.optimizer["kind"] == "adamw"
        self.matrices = Matrices(self.parameters, {} if by_number else flat_matrices(peer.module))
        self.optimizer = make_optimizer(
            self.matrices.parameters,
            settings.optimizer,
            rate=settings.rate,
            amsgrad=settings.amsgrad,
        )
        self.used, self.step, self.first = 0.0, 0, 0.0
        self.curve: list[dict[str, float]] = []
        """CPU seconds, steps and force error (eV/Å) on some validation frames, on the way"""
        self.yardsticks: list[float] = []
        """ms, one more than points of the curve"""

    def run(self) -> None:
        """Train until the budget is used."""
        budget = self.settings.seconds
        self.peer.set_train(True)
        self._throw_away_a_step()
        self.yardsticks.append(yardstick())
        marks = [budget * (k + 1) / CURVE_POINTS for k in range(CURVE_POINTS - 1)]
        tasks = self._tasks()
        while self.used < budget:
            task = next(tasks)
            inputs = self.peer.prepare(task)
            rate = self.settings.rate * schedule(self.used / budget)
            clock = time.process_time()
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            for p in self.parameters:
                p.grad = None
            loss = self._loss(inputs, task)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, CLIP)
            self.matrices.take_gradients()
            self.optimizer.step()
            self.used += time.process_time() - clock
            self.step += 1
            if not math.isfinite(loss.item()):
                raise Diverged(f"the loss is not finite at step {self.step}, {self.used:.1f} s")
            if marks and self.used > marks[0]:
                marks = [m for m in marks if m > self.used]
                error = self.errors(self.validation[:CURVE_FRAMES])["force_mae"]
                self.curve.append({"seconds": round(self.used, 2), "steps": self.step, "force_mae": error})
                self.yardsticks.append(yardstick())

    def scores(self) -> dict[str, dict[str, float]]:
        """Errors on the validation frames, the tests, and some of the training frames.

        Raises:
            Diverged: they say that the run did not fit.
        """
        names = [
            n.removeprefix("split_") for n in self.arrays if n.startswith("split_") and n != "split_train"
        ]
        scores = {name: self.errors(self.arrays[f"split_{name}"]) for name in names}
        validation = scores["validation"]
        if validation["force_rmse"] >= self.scale:
            raise Diverged(
                f"validation force RMSE {validation['force_rmse']:.3g} eV/Å, forces themselves "
                f"{self.scale:.3g}"
            )
        least = min((point["force_mae"] for point in self.curve), default=math.inf)
        if validation["force_mae"] > REGRESSED * least:
            raise Diverged(
                f"validation force MAE ends at {validation['force_mae']:.3g} eV/Å, after {least:.3g} on the "
                f"way"
            )
        every = -(-len(self.train) // TRAIN_FRAMES)
        return {"train": self.errors(self.train[::every]), **scores}

    def errors(self, frames: np.ndarray) -> dict[str, float]:
        """Errors on some frames: `force_mae`, `force_rmse` (eV/Å), `energy_mae`, `energy_rmse` (eV per
        frame).

        Raises:
            Diverged: a prediction is not finite.
        """
        self.peer.set_train(False)
        energy, forces = [], []
        largest = int(np.diff(self.arrays["ptr"])[frames].max())
        size = max(1, min(EVALUATION_BATCH, EVALUATION_ATOMS // largest))
        for k in range(0, len(frames), size):
            task = Task(self.arrays, frames[k : k + size])
            predicted = self.peer.ef(self.peer.prepare(task), False)
            energy.append((predicted.energy.detach().reshape(-1) * self.scale - task.energy).double())
            forces.append((predicted.forces.detach() * self.scale - task.forces).double().reshape(-1))
        self.peer.set_train(True)
        errors = {}
        for name, parts in (("force", forces), ("energy", energy)):
            difference = torch.cat(parts)
            errors[f"{name}_mae"] = difference.abs().mean().item()
            errors[f"{name}_rmse"] = difference.square().mean().sqrt().item()
        if not all(math.isfinite(e) for e in errors.values()):
            raise Diverged(f"predictions are not finite at step {self.step}, {self.used:.1f} s")
        return errors

    def _loss(self, inputs: Any, task: Task) -> Tensor:
        energy, forces = self.peer.ef(inputs, True)
        per_atom = (energy.reshape(-1) - task.energy / self.scale) / task.n_atoms
        return ENERGY_WEIGHT * per_atom.square().mean() + (forces - task.forces / self.scale).square().mean()

    def _throw_away_a_step(self) -> None:
        task = Task(self.arrays, self.train[: self.settings.batch_size])
        inputs = self.peer.prepare(task)
        clock = time.process_time()
        (0 * self._loss(inputs, task)).backward()
        self.first = time.process_time() - clock

    def _tasks(self) -> Iterator[Task]:
        """Batches without replacement, one permutation an epoch whose rest is dropped; the same for every
        code."""
        rng = np.random.default_rng(self.settings.seed)
        size = self.settings.batch_size
        while True:
            order = rng.permutation(self.train)
            for k in range(0, len(order) - size + 1, size):
                task = Task(self.arrays, order[k : k + size])
                if self.settings.rotate:
                    task.rotate(_rotation(rng))
                yield task


def make_optimizer(
    parameters: Sequence[Tensor], settings: Mapping[str, Any], *, rate: float, amsgrad: bool = False
) -> torch.optim.Optimizer:
    """Adam (AdamW without decay) or SOAP, whose vectors decay as its matrices do, at a peak rate.

    Args:
        settings: the kind and the settings of `sapis_lab/optimizers/<kind>.py`, which needs more than torch.

    Raises:
        ValueError: another kind, or AMSGrad without Adam.
    """
    kind, others = settings["kind"], {k: v for k, v in settings.items() if k != "kind"}
    if kind == "adamw":
        return torch.optim.Adam(parameters, lr=rate, amsgrad=amsgrad, **others)
    if kind != "soap":
        raise ValueError(f"optimizer {kind!r}: wanted {' or '.join(OPTIMIZERS)}")
    if amsgrad:
        raise ValueError("amsgrad is a setting of adamw, not of soap")
    return Soap(parameters, lr=rate, vector_betas=others["betas"], **others)


def schedule(fraction: float) -> float:
    """The learning rate as a part of its peak when `fraction` of the budget is used; starts at 0.001, not
    zero."""
    if fraction < WARM_UP:
        return min(1.0, fraction / WARM_UP + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (fraction - WARM_UP) / (1 - WARM_UP))))


def yardstick() -> float:
    """ms of CPU time of a fixed mixture of small products and elementwise work, the median of 15."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(1024, 64, generator=generator, dtype=torch.float32)
    b = torch.randn(64, 64, generator=generator, dtype=torch.float32)
    times = []
    with torch.no_grad():
        for _ in range(15):
            clock = time.process_time()
            for _ in range(8):
                torch.nn.functional.silu(a @ b).mul(a).sum(0)
            times.append(time.process_time() - clock)
    return 1e3 * sorted(times)[7]


def _rotation(rng: np.random.Generator) -> Tensor:
    """Uniform on SO(3): QR of a Gaussian matrix with a positive diagonal of R, its third column turned where
    that is a reflection."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    q[:, 2] *= np.linalg.det(q)
    return torch.tensor(q, dtype=torch.float32)
