"""A training step in a process group: one rank, and two where there are two devices.

Each rank takes its share of the frames, and the gradients are added up as one flat vector, as in training
(`run.devices`). NCCL on GPUs, where it wants a device for every rank; gloo on CPUs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from sapis_lab.bench.device.forms import flat_gradient, gradient_error, trained
from sapis_lab.bench.device.part import TIME_UP, Asked
from sapis_lab.bench.device.station import Station
from sapis_lab.bench.device.worker import synchronise
from sapis_lab.bench.inputs import BenchInput, make_input
from sapis_lab.bench.measure import WorkerFailed
from sapis_lab.bench.step import model_config, sized_model

MODEL, INPUT = "geat", "mol27x8"
_TIMEOUT = 30.0
"""After which a rank gives up waiting, s."""


def measure(asked: Asked) -> Iterator[dict[str, Any]]:
    """One rank, then two."""
    name, size, n = ("eth16", 3e3, 2) if asked.rehearsal else (INPUT, 1e5, 20)
    model = sized_model(MODEL, model_config(MODEL), size, make_input(name).elements)
    for world in (1, 2):
        row: dict[str, Any] = {"n_ranks": world, "backend": "nccl" if asked.device != "cpu" else "gloo"}
        row |= {"input": name, "size": size}
        n_devices = torch.cuda.device_count() if asked.device != "cpu" else world
        if n_devices < world:
            yield row | {"absent": f"NCCL wants a device for every rank, there is {n_devices}"}
        elif asked.left() < 3:
            yield row | {"skipped": TIME_UP}
        else:
            yield row | _met(asked, world, {"model": model, "input": name, "device": asked.device, "n": n})


def _met(asked: Asked, world: int, arguments: dict[str, Any]) -> dict[str, Any]:
    """What the ranks say: the slowest time, the largest difference."""
    store = str(Path(asked.folder) / f"ranks{world}")
    with ExitStack() as stack:
        stations = [stack.enter_context(Station(f"rank{k}of{world}", asked)) for k in range(world)]
        try:
            for k, station in enumerate(stations):
                whole = {**arguments, "rank": k, "world": world, "store": store}
                station.send(do="call", target=f"{__name__}:rank_step", arguments=whole)
            found = [station.read(60.0) for station in stations]
        except WorkerFailed as failure:
            return {"error": str(failure)}
    largest = {key: max(f[key] for f in found) for key in ("seconds", "sum_seconds", "gradient_difference")}
    return {**found[0], **largest}


def rank_step(
    *, model: dict[str, Any], input: str, device: str, n: int, rank: int, world: int, store: str
) -> dict[str, Any]:
    """Median times of a step and of the sum of the gradients, s, and how far the summed gradient is from that
    of all frames in one process."""
    place, backend = torch.device("cpu"), "gloo"
    if device != "cpu":
        place = torch.device("cuda", (torch.device(device).index or 0) + rank)
        torch.cuda.set_device(place)
        backend = "nccl"
    meeting = dist.FileStore(store, world)
    dist.init_process_group(
        backend, store=meeting, rank=rank, world_size=world, timeout=timedelta(seconds=_TIMEOUT)
    )
    whole = make_input(input)
    alone = trained(model, whole, device=place)
    alone.objective(alone.batch, alone.counts).backward()
    wanted = flat_gradient(alone.model)
    ready = trained(model, share_of(whole, rank, world), device=place, whole=whole)
    parameters = list(ready.model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    flat = torch.zeros(len(wanted), device=place)

    def gradient() -> None:
        optimizer.zero_grad(set_to_none=True)
        ready.objective(ready.batch, ready.counts).backward()
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        torch.cat([part.reshape(-1) for part in parts], out=flat)
        dist.all_reduce(flat)
        pieces: tuple[Tensor, ...] = flat.split([p.numel() for p in parameters])
        for p, piece in zip(parameters, pieces, strict=True):
            p.grad = piece.view_as(p)

    def step() -> None:
        gradient()
        torch.nn.utils.clip_grad_norm_(parameters, 30.0, foreach=True)
        optimizer.step()

    gradient()
    difference = gradient_error(flat.cpu().numpy(), wanted)
    seconds, sums = _median(step, n, place), _median(lambda: dist.all_reduce(flat), n, place)
    dist.destroy_process_group()
    return {
        "n_params": len(wanted),
        "seconds": seconds,
        "sum_seconds": sums,
        "sum_bytes": 4 * len(wanted),
        "gradient_difference": difference,
    }


def share_of(data: BenchInput, rank: int, world: int) -> BenchInput:
    """Every `world`-th frame from `rank` on."""
    frames = np.arange(len(data.n_atoms))[rank::world]
    frame_of = np.repeat(np.arange(len(data.n_atoms)), data.n_atoms)
    atoms = np.isin(frame_of, frames)
    return data._replace(
        n_atoms=data.n_atoms[frames],
        species=data.species[atoms],
        positions=data.positions[atoms],
        cell=data.cell[frames],
        edges=[data.edges[k] for k in frames],
        energy=data.energy[frames],
        forces=data.forces[atoms],
    )


def _median(function: Callable[[], object], n: int, device: torch.device) -> float:
    seconds = []
    for _ in range(n + 2):
        synchronise(device)
        begin = time.perf_counter()
        function()
        synchronise(device)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[2:])
