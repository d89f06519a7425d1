"""A step of two data-parallel processes equals the step of one on the whole batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tolerances import RANKS
from torch import Tensor, nn

from sapis_lab.config import kind_class, kinds
from sapis_lab.derivatives import predict
from sapis_lab.models import Model
from sapis_lab.selftest import SPECIES, batch_of, build, random_molecule


class Loss(nn.Module):
    """Loss of energies and forces of some frames: what a process wraps for data parallelism."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, which: tuple[int, ...]) -> Tensor:
        frames = [random_molecule(7, np.random.default_rng(i)) for i in which]
        batch = batch_of(frames, layout=self.model.layout, cutoff=self.model.cutoff, dtype=torch.float32)
        p = predict(self.model, batch, differentiable=True)
        return p.energy.square().mean() + p.forces.square().mean()


def small_model(kind: str) -> Model:
    return build(
        kind_class("models", kind)(cutoff=4.0).at_size(5e3, n_species=len(SPECIES)),
        dtype=torch.float32,
        seed=0,
    )


def gradients(loss: nn.Module, which: tuple[int, ...]) -> list[Tensor]:
    loss(which).backward()
    return [p.grad for p in loss.parameters()]


def one_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    for kind in kinds("models"):
        found = gradients(
            nn.parallel.DistributedDataParallel(Loss(small_model(kind))), ((0, 1), (2, 3))[rank]
        )
        if rank == 0:
            torch.save(found, f"{folder}/{kind}.pt")
    dist.destroy_process_group()


def test_the_gradient_averaged_over_two_ranks_equals_that_of_one(tmp_path: Path) -> None:
    mp.spawn(one_rank, args=(str(tmp_path),), nprocs=2)
    for kind in kinds("models"):
        wanted = gradients(Loss(small_model(kind)), (0, 1, 2, 3))
        found = torch.load(tmp_path / f"{kind}.pt", weights_only=True)
        largest = max(w.abs().max().item() for w in wanted)
        for a, b in zip(found, wanted, strict=True):
            assert (a - b).abs().max().item() < RANKS * largest, kind
