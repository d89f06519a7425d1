"""Ranks: the processes that train one point together, each on its share of every global batch.

Each rank is a plain one-device trainer; after the backward pass the gradients of all ranks are added up as
one flat vector. Lightning's strategies and DistributedDataParallel are left out on purpose:
  - the loss of a share is divided by the frames and atoms of the global batch, so the gradient of the global
    batch is the plain *sum* over ranks, whatever the distribution of atoms; DDP takes means, which have to be
    undone;
  - a rank without a frame adds zero, where DDP would wait for its backward pass;
  - models need no wrapping, so that compiled kernels, traced steps and second derivatives stay as they are on
  one rank; - models here have 1e3 to 1e7 parameters: one vector, one call, nothing to overlap with.
Clipping and the optimiser come after the sum and see the global gradient on every rank; the weights stay
equal bit by bit.

What the ranks tell each other about the run (votes, which parameters have a gradient) goes over gloo between
hosts' memories, so that no GPU has to be waited for.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from sapis_lab.files import read_json, write_text

TIMEOUT = "SAPIS_RANK_TIMEOUT"
"""Environment variable: seconds after which a rank gives up waiting for the others; half an hour by
default."""
LISTENER = "SAPIS_RANK_LISTENER"
"""Environment variable, set by our launcher: the file descriptor of the socket that it has bound to
MASTER_PORT for rank 0; else empty."""
_MEETING = ".rendezvous.json"


class PeerLost(RuntimeError):
    """Another rank of the point has gone, or has not answered in time."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that train the point; the default is a process alone, for which nothing here
    does anything."""

    rank: int = 0
    size: int = 1
    local: int = 0
    """rank within its node"""

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def add(self, tensor: Tensor) -> None:
        """Replace `tensor` by its sum over all ranks, the same bits on each.

        Raises:
            PeerLost: another rank is gone.
        """
        if self.size == 1:
            return
        try:
            dist.all_reduce(tensor)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise PeerLost(f"rank {self.rank} of {self.size} lost another one: {first}") from error

    def from_first(self, value: int) -> int:
        """The value that rank 0 has."""
        message = torch.tensor([value if self.is_first else 0])
        self.add(message)
        return int(message)

    def wait(self) -> None:
        """Return when all ranks have come here."""
        self.add(torch.zeros(1))

    def refuse_different(self, parameters: Sequence[Tensor]) -> None:
        """RuntimeError unless all ranks start from the same weights, as they do where all see the same
        files."""
        table = torch.zeros(self.size, dtype=torch.float64)
        table[self.rank] = sum(float(p.detach().double().abs().sum()) for p in parameters)
        self.add(table)
        if not bool((table == table[0]).all() | table.isnan().all()):
            raise RuntimeError(
                f"the ranks start from different weights (sums {table.tolist()}); do all nodes see the same "
                f"files?"
            )

    def sum_gradients(self, parameters: Sequence[Tensor], *, loss: Tensor, stop: bool) -> tuple[Tensor, bool]:
        """Replace all gradients by their sums over ranks; returns the sum of `loss`, (), and whether any rank
        wants to stop.

        A parameter that no rank has a gradient for keeps none, as on one rank.
        """
        if self.size == 1:
            return loss, stop
        message = torch.tensor([stop, *(p.grad is not None for p in parameters)], dtype=torch.int32)
        self.add(message)
        stop, *used = (bool(n) for n in message.tolist())
        trained = [p for p, there in zip(parameters, used, strict=True) if there]
        flat = torch.cat(
            [
                loss.reshape(1),
                *(p.new_zeros(p.numel()) if p.grad is None else p.grad.reshape(-1) for p in trained),
            ]
        )
        self.add(flat)
        total, *sums = flat.split([1, *(p.numel() for p in trained)])
        for p, gradient in zip(trained, sums, strict=True):
            p.grad = gradient.view_as(p)
        return total[0], stop

    def leave(self) -> None:
        """Close the connections, at the end of a run that went well."""
        if self.size > 1:
            dist.destroy_process_group()


ALONE = Ranks()


# ---------------------------------------------------------------------------------------------------- meeting


def join(devices: int, *, device: torch.device, folder: Path) -> Ranks:
    """This process's place among the `devices` ranks of the point in `folder`, connected with the others.

    Rank and size come from RANK, WORLD_SIZE and LOCAL_RANK (our launcher, torchrun) or from SLURM_PROCID,
    SLURM_NTASKS and SLURM_LOCALID (srun); the ranks meet at MASTER_ADDR and MASTER_PORT or, under srun
    without them, where rank 0 says so in the point's folder.

    Raises:
        ValueError: there is no such environment, or it is that of another number of ranks.
    """
    if devices == 1:
        return ALONE
    ranks = _place(devices)
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    timeout = timedelta(seconds=float(os.environ.get(TIMEOUT, 1800)))
    store = _store(ranks, folder, timeout)
    meet = {"init_method": "env://"} if store is None else {"store": store}
    try:
        dist.init_process_group(backend, rank=ranks.rank, world_size=ranks.size, timeout=timeout, **meet)
    except RuntimeError as error:
        raise PeerLost(
            f"rank {ranks.rank} of {ranks.size} did not meet the others: {str(error).splitlines()[0]}"
        ) from error
    ranks.wait()
    if ranks.is_first:
        (folder / _MEETING).unlink(missing_ok=True)
    return ranks


def device_of(device: str, devices: int) -> torch.device:
    """The device of this rank: of the GPUs from `device` on, the one with the number of its place in the
    node."""
    named = torch.device(device)
    if devices == 1 or named.type != "cuda":
        return named
    return torch.device(
        "cuda", ((named.index or 0) + _place(devices).local) % max(1, torch.cuda.device_count())
    )


def _place(devices: int) -> Ranks:
    for names in (("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")):
        if all(name in os.environ for name in names[:2]):
            rank, size, local = (int(os.environ.get(name, 0)) for name in names)
            if size != devices:
                raise ValueError(
                    f"devices={devices}, but {names[1]}={size}: start as many processes as the point has "
                    f"devices"
                )
            return Ranks(rank, size, local)
    raise ValueError(
        f"devices={devices} wants {devices} processes, and neither RANK and WORLD_SIZE nor SLURM_PROCID and "
        f"SLURM_NTASKS are set; "
        "start the point by `python -m sapis_lab.sweep.run_ranks`, alone or through torchrun or srun"
    )


def _store(ranks: Ranks, folder: Path, timeout: timedelta) -> dist.Store | None:
    """Where the ranks meet; None: as MASTER_ADDR and MASTER_PORT say."""
    if LISTENER in os.environ:
        held = int(os.environ[LISTENER]) if ranks.is_first else None
        where = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        return dist.TCPStore(*where, ranks.size, ranks.is_first, timeout, master_listen_fd=held)
    if "MASTER_PORT" in os.environ:
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        return None
    # A port that is derived from the job's number may be taken: rank 0 takes a free one and tells it.
    run = [os.environ.get(name, "") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")]
    if ranks.is_first:
        listener = socket.create_server(("", 0))
        port = listener.getsockname()[1]
        write_text(folder / _MEETING, json.dumps({"run": run, "host": socket.gethostname(), "port": port}))
        return dist.TCPStore("localhost", port, ranks.size, True, timeout, master_listen_fd=listener.detach())
    deadline = time.monotonic() + timeout.total_seconds()
    while time.monotonic() < deadline:
        with suppress(FileNotFoundError, ValueError):
            message = read_json(folder / _MEETING, keys=["run", "host", "port"])
            if message["run"] == run:
                return dist.TCPStore(message["host"], message["port"], ranks.size, False, timeout)
        time.sleep(0.1)
    raise PeerLost(f"rank {ranks.rank} of {ranks.size} found no word of rank 0 in {folder / _MEETING}")
