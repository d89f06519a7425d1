"""What a finished point leaves: its potential, and its record with what the training cost."""

from __future__ import annotations

import os
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from sapis_lab.accounting import STEP_FACTOR, FlopCounter
from sapis_lab.atoms import AtomsBatch
from sapis_lab.config import home
from sapis_lab.kernels import reference_forms
from sapis_lab.models import Model
from sapis_lab.packages import OF_A_POINT, versions
from sapis_lab.potential import Learnt, Potential, load_potential
from sapis_lab.records import Record
from sapis_lab.tasks import Task, mean_loss
from sapis_lab.training._callbacks import Clock
from sapis_lab.training._config import PointConfig
from sapis_lab.training._ranks import Ranks
from sapis_lab.training._signals import StopSignals
from sapis_lab.training.module import TrainingModule
from sapis_lab.training.step_forms import StepForm

FORM_NAMES = {"compiled": "PyTorch compiled", "graph": "CUDA graph"}
"""Forms of the step in records; of the eager step the model says what computes it."""
VERSIONS = {"python": sys.version.split()[0], **versions(OF_A_POINT)}


@dataclass(frozen=True)
class Session:
    """Where and how a point is computed, none of which changes its numbers."""

    cache: Path
    device: torch.device
    ranks: Ranks
    stop: StopSignals
    checkpoint_seconds: float
    form: StepForm
    required: bool
    """The form of the step was asked for by name."""
    began: float


def potential_of(task: Task, point: PointConfig) -> Potential:
    references = dict(zip(task.store.elements, (float(e) for e in task.references), strict=True))
    if point.train.start is not None:  # elements that the new data lack keep their energies
        references = {**load_potential(home() / point.train.start.point).references, **references}
    origin = {
        "id": point.id,
        "fingerprint": point.fingerprint,
        "n_frames": point.n_frames,
        "data": task.store.folder.name,
    }
    heads = {
        target.key: Learnt(target=target, head=point.train.heads[target.key])
        for target in task.objective.targets
        if not target.from_energy
    }
    return Potential(
        task.model, point.model, references, task.mean_neighbors, origin, task.references_from, heads
    )


def _flops(module: TrainingModule, task: Task, point: PointConfig, ranks: Ranks) -> dict[str, int]:
    """FLOPs of one training step and of one frame's inference, counted on the frames of step 0, whatever the
    number of ranks."""
    stream = task.stream(seed=point.seed, micro_batch=point.train.micro_batch)
    # the global batch of several ranks may be more than one device holds
    model = module.model if ranks.size == 1 else module.model.cpu()
    step = inference = elementwise = 0
    for part in stream.share(0).batches:
        batch: AtomsBatch = part.to(next(model.parameters()).device)
        with FlopCounter() as counter, reference_forms():
            found = task.objective.found(batch, differentiable=True)
            inference += counter.total
            mean_loss(task.objective.targets, found, batch, scale=model.energy_scale).backward()
        model.zero_grad(set_to_none=True)
        step += counter.total
        elementwise += point.model.flops(
            n_atoms=batch.graph.n_nodes, n_pairs=batch.graph.n_pairs, n_species=model.n_species
        ).elementwise
    return {
        "flops_per_step": step,
        "flops_elementwise_per_step": STEP_FACTOR * elementwise,
        "flops_inference_per_frame": inference // task.batch_size,
    }


def record_of(
    point: PointConfig,
    task: Task,
    module: TrainingModule,
    metrics: dict[str, float],
    *,
    clock: Clock,
    run: Session,
    kernel: str,
    weights: str,
) -> Record:
    counts = module.model.count()
    flops = _flops(module, task, point, run.ranks)
    samples = module.steps * task.batch_size
    return Record(
        id=point.id,
        fingerprint=point.fingerprint,
        science=point.science(),
        model=point.model.label,
        family=point.model.kind,
        symmetry=module.model.symmetry,
        lmax=getattr(point.model, "lmax", None),
        seed=point.seed,
        n_params_target=point.n_params_target,
        n_params=sum(counts.values()),
        n_params_equivariant=counts["equivariant"],
        n_params_scalar=counts["scalar"],
        n_frames=point.n_frames,
        steps=module.steps,
        epochs=samples / point.n_frames,
        samples=samples,
        batch_size=task.batch_size,
        learning_rate=module.learning_rate,
        **flops,
        flops_train=flops["flops_per_step"] * module.steps,
        seconds_train=clock.wall,
        cpu_seconds_train=clock.cpu,
        seconds_total=time.perf_counter() - run.began,
        device=device_name(run),
        host=platform.node(),
        kernel=kernel,
        weights=weights,
        metrics=metrics,
        commit=os.environ.get("SAPIS_COMMIT") or None,
        dirty={"0": False, "1": True}.get(os.environ.get("SAPIS_DIRTY", "")),
        versions=dict(VERSIONS),
    )


def kernel_name(model: Model, run: Session) -> str:
    """What computes the training step, for the record: 'C++', 'PyTorch', 'PyTorch compiled', 'PyTorch on
    cuda', 'CUDA graph'."""
    name = model.kernel(run.device) if run.form == "eager" else FORM_NAMES[run.form]
    return name if run.device.type == "cpu" or run.form == "graph" else f"{name} on {run.device.type}"


def device_name(run: Session) -> str:
    """`AMD EPYC`, or `4 x NVIDIA H200` where four ranks had one each."""
    name = (
        torch.cuda.get_device_name(run.device)
        if run.device.type == "cuda"
        else platform.processor() or platform.machine()
    )
    return name if run.ranks.size == 1 else f"{run.ranks.size} x {name}"
