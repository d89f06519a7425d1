"""What less precise matrix products cost: errors of forces and gradients against float64, by setting.

    float32    plain                                  tf32   `torch.set_float32_matmul_precision("high")`
    bf16x      the same with "medium"                 bf16   autocast to bfloat16

The model is first trained for some steps on the batch in plain float32, since at birth its forces are small
sums of large numbers or the reverse, by chance. On a CPU some of the settings may change nothing.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch

from sapis_lab.bench.device.forms import (
    Trained,
    flat_gradient,
    force_error,
    forces_and_gradient,
    gradient_error,
    trained,
)
from sapis_lab.bench.device.part import SAY, TIME_UP, Asked
from sapis_lab.bench.device.station import Station
from sapis_lab.bench.device.worker import synchronise
from sapis_lab.bench.inputs import make_input
from sapis_lab.bench.measure import WorkerFailed
from sapis_lab.bench.step import model_config, sized_model
from sapis_lab.derivatives import predict
from sapis_lab.jobs.host import n_cores
from sapis_lab.kernels import reference_forms

MODEL = "geat"
RATE = 2e-3
SETTINGS = ("float32", "tf32", "bf16x", "bf16")


def measure(asked: Asked) -> Iterator[dict[str, Any]]:
    """Every setting on two inputs and at two sizes, by PyTorch and by what training takes here."""
    steps = 3 if asked.rehearsal else 200
    cells: list[tuple[float, str]] = [
        (1e5, "mol27x8"),
        (1e6, "water192"),
        (1e6, "mol27x8"),
        (1e5, "water192"),
    ]
    if asked.rehearsal:
        cells = [(3e3, "eth16")]
    yield {
        SAY: f"weights after {steps} steps on the batch; forces: RMS of the difference to float64 over their "
        f"RMS, and its largest, eV/Å; gradient: largest difference over the largest entry",
        "steps": steps,
    }
    longest = 0.0
    with Station("precision", asked) as station:
        for size, name in cells:
            row: dict[str, Any] = {"input": name, "size": size}
            before = asked.left()
            if before < 1.2 * longest:
                yield row | {"setting": "all", "skipped": TIME_UP}
                continue
            arguments = {
                "model": sized_model(MODEL, model_config(MODEL), size, make_input(name).elements),
                "input": name,
                "device": asked.device,
                "steps": steps,
                "repeats": 1 if asked.rehearsal else 10,
                "threads": 1 if asked.rehearsal else max(1, n_cores() // 2),
            }
            target = f"{__name__}:errors"
            try:
                found = station.ask(within=60.0, do="call", target=target, arguments=arguments)["rows"]
            except WorkerFailed as failure:
                found = [{"setting": "all", "error": str(failure)}]
            for one in found:
                yield row | one
            longest = max(longest, before - asked.left())


def errors(
    *, model: dict[str, Any], input: str, device: str, steps: int, repeats: int, threads: int
) -> dict[str, Any]:
    """A row for every setting, by PyTorch and, where there is one, by the kernel."""
    place = torch.device(device)
    ready = trained(model, make_input(input), device=place)
    first, last = _train(ready, steps)
    wanted = _in_double(
        ready, make_input(input).batch(layout=ready.model.layout, dtype=torch.float64), threads
    )
    names = ["PyTorch"]
    if (kernel := ready.model.kernel(place)) != "PyTorch":
        names.append(kernel)
    rows = []
    for by in names:
        for setting in SETTINGS:
            row: dict[str, Any] = {"by": by, "setting": setting}
            row |= {"n_params": sum(ready.model.count().values()), "loss_start": first, "loss_end": last}
            try:
                row |= _errors(ready, wanted, by=by, setting=setting, repeats=repeats)
            except (RuntimeError, ValueError, TypeError) as error:
                synchronise(place)  # raises where the device is lost
                row["error"] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            rows.append(row)
    return {"rows": rows}


def _train(ready: Trained, steps: int) -> tuple[float, float]:
    """Losses before and after so many steps on the batch."""
    optimizer = torch.optim.AdamW(ready.model.parameters(), lr=RATE)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        loss = ready.objective(ready.batch, ready.counts)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(ready.model.parameters(), 30.0)
        optimizer.step()
        losses.append(loss.detach())
    return float(losses[0]), float(losses[-1])


def _in_double(ready: Trained, batch: Any, threads: int) -> tuple[np.ndarray, np.ndarray]:
    """Forces and gradient of the same weights in float64 on the CPU."""
    double = copy.deepcopy(ready.model).to("cpu", torch.float64)
    objective = type(ready.objective)(double, ready.objective.targets)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return forces_and_gradient(Trained(double, batch, objective, ready.counts.to("cpu", torch.float64)))
    finally:
        torch.set_num_threads(before)


def _errors(
    ready: Trained, wanted: tuple[np.ndarray, np.ndarray], *, by: str, setting: str, repeats: int
) -> dict[str, Any]:
    with _precision(setting, ready.batch.positions.device), _form(by):
        ready.model.zero_grad(set_to_none=True)
        forces = predict(ready.model, ready.batch).forces.float().cpu().numpy()
        ready.objective(ready.batch, ready.counts).backward()
        gradient = flat_gradient(ready.model)
        seconds = _timed(lambda: ready.objective(ready.batch, ready.counts).backward(), ready, repeats)
    return {
        "force_error": force_error(forces, wanted[0]),
        "largest_force_error": float(np.abs(forces - wanted[0]).max()),
        "gradient_error": gradient_error(gradient, wanted[1]),
        "seconds": seconds,
    }


def _timed(function: Callable[[], object], ready: Trained, repeats: int) -> float:
    """Median wall time of loss and gradients, s, from idle to idle."""
    seconds = []
    for _ in range(repeats):
        ready.model.zero_grad(set_to_none=True)
        synchronise(ready.batch.positions.device)
        begin = time.perf_counter()
        function()
        synchronise(ready.batch.positions.device)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


@contextmanager
def _precision(setting: str, device: torch.device) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision({"tf32": "high", "bf16x": "medium"}.get(setting, "highest"))
    try:
        with torch.autocast(device.type, torch.bfloat16) if setting == "bf16" else nullcontext():
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _form(by: str) -> Any:
    return reference_forms() if by == "PyTorch" else nullcontext()
