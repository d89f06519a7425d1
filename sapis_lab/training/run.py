"""Run one point: data, model, training with resume, scores, and as the last act its record."""

from __future__ import annotations

import logging
import math
import os
import platform
import sys
import time
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from sapis_lab.accounting import STEP_FACTOR, counted_flops
from sapis_lab.atoms import AtomsBatch
from sapis_lab.config import load, read_yaml
from sapis_lab.data import FrameStore, fit_references, prepare
from sapis_lab.derivatives import predict
from sapis_lab.models import Model
from sapis_lab.potential import Potential, save_potential
from sapis_lab.records import Record, write_record
from sapis_lab.training._batches import BatchMaker, FixedBatches, TrainingStream
from sapis_lab.training._callbacks import CHECKPOINT, CURVE, Clock, Curve, PointFailed, checkpoint_step, cut_rows, show
from sapis_lab.training._compiled import StepChoice, chosen_form, make_step
from sapis_lab.training._config import PointConfig
from sapis_lab.training._loss import loss
from sapis_lab.training._module import TrainingModule
from sapis_lab.training._score import score

__all__ = ["PointFailed", "run_point"]

HOPELESS = 10.0
"""A validation force RMSE above this multiple of the training force RMS counts as diverged: predicting zero forces gives 1."""
SCORING_BATCH = 32
PACKAGES = ("sapis-lab", "torch", "lightning", "torch-geometric", "e3nn", "numpy")


def run_point(
    folder: Path, *, cache: Path, device: str = "cpu", threads: int = 1, checkpoint_seconds: float = 20.0, step: StepChoice = "auto"
) -> None:
    """Train, score and record the point whose settings are in `folder/config.yaml`; continues from `last.ckpt` where there is one.

    Args:
        cache: folder of frame stores.   device: 'cpu', 'cuda' or 'cuda:K'.   threads: of the CPU; small models run best with one.
        checkpoint_seconds: wall time between checkpoints, s.   step: the form of the training step, see `_compiled`.

    Raises:
        PointFailed: the training diverged. ValueError: the settings do not fit the data, or the form of the step not the device. Nothing
            is recorded then.
    """
    began = time.perf_counter()
    _set_up_process(threads)
    point: PointConfig = load(PointConfig, read_yaml(folder / "config.yaml"), source=str(folder / "config.yaml"))
    setup = _prepare(point, cache)
    form = chosen_form(step, device=torch.device(device))
    module = TrainingModule(
        setup.model,
        point.train,
        steps=point.train.steps_for(point.n_frames),
        learning_rate=point.train.rate_of(point.model),
        mean_loss=make_step(setup.model, point.train.loss, form=form, required=step != "auto"),
    )
    clock, follow = _train(module, setup, point, folder=folder, device=device, checkpoint_seconds=checkpoint_seconds)
    metrics = _scores(module, setup, device=device)
    _refuse_divergence(metrics, setup.force_rms)
    with module.averaged():
        save_potential(folder, _potential(setup, point))
    record = _record(point, setup, module, metrics, clock=clock, seconds_total=time.perf_counter() - began, device=device)
    show(folder, step=module.steps, steps=module.steps, loss=_last(module), val=follow.last_validation, seconds=clock.wall)
    write_record(folder, record)


def _set_up_process(threads: int) -> None:
    """Denormals flushed (several models run 1.5 to 2.6 times slower with them on some processors), full precision, quiet libraries."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    # No TF32: forces are small differences of large terms, of which its 10 bits leave nothing near a minimum.
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
    warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores .* available but not enabled")


# ------------------------------------------------------------------------------------------------------------- setup


@dataclass
class _Setup:
    """What a point trains on and with."""

    store: FrameStore
    train_ids: np.ndarray
    make: BatchMaker
    model: Model
    references: np.ndarray
    mean_neighbors: float
    force_rms: float
    batch_size: int


def _prepare(point: PointConfig, cache: Path) -> _Setup:
    store = prepare(point.data, cache=cache)
    pool = store.splits["train"]
    if point.n_frames > len(pool):
        raise ValueError(
            f"n_frames={point.n_frames} exceeds the {len(pool)} labelled training frames of {store.folder}; lower lattice.n_frames"
        )
    ids = np.asarray(pool[: point.n_frames])
    frames = store.frames(ids)
    references = _references(point, store, ids)
    table = store.neighbors(point.model.cutoff)
    mean_neighbors = float(table.edges(ids).n_edges.sum() / frames.n_atoms.sum())
    model = point.model.build(species=store.elements, mean_neighbors=mean_neighbors, seed=point.seed)
    counted = sum(model.count().values())
    if point.n_params not in (None, counted):
        raise ValueError(
            f"{point.id} was planned with n_params={point.n_params}, but its model for the elements {list(store.elements)} has {counted}; "
            "plan again now that the data are there: run the study again"
        )
    dtype = getattr(torch, point.train.precision)
    model = model.to(dtype)
    force_rms = float(np.sqrt(np.mean(frames.forces.astype(np.float64) ** 2)))
    model.energy_scale.fill_(force_rms)
    make = BatchMaker(store, references, layout=model.layout, cutoff=point.model.cutoff, dtype=dtype)
    return _Setup(store, ids, make, model, references, mean_neighbors, force_rms, min(point.train.batch_size, point.n_frames))


def _references(point: PointConfig, store: FrameStore, ids: np.ndarray) -> np.ndarray:
    """Reference energies (n_species,) eV, from the D frames alone unless the isolated atoms are asked for.

    Isolated atoms leave a constant, which the mean energy of the D frames sets: it is spread evenly over the atoms.
    """
    counts, energies = store.composition(ids), store.energy[ids]
    if point.train.references == "ridge":
        present = counts.sum(0) > 0
        fitted = np.full(counts.shape[1], energies.sum() / counts.sum())
        fitted[present] = fit_references(counts[:, present], energies)
        return fitted
    isolated = store.isolated_atoms
    if isolated is None:
        raise ValueError(f"train.references=isolated, but {store.folder} has no isolated-atom energies; use train.references=ridge")
    atoms = np.array([isolated[z] for z in store.elements])
    return atoms + (energies - counts @ atoms).sum() / counts.sum()


# ------------------------------------------------------------------------------------------------------------- train


def _train(
    module: TrainingModule, setup: _Setup, point: PointConfig, *, folder: Path, device: str, checkpoint_seconds: float
) -> tuple[Clock, Curve]:
    resume_from = folder / CHECKPOINT
    start = checkpoint_step(resume_from)
    cut_rows(folder / CURVE, last_step=start or 0)
    validation = FixedBatches(setup.make, np.asarray(setup.store.splits["validation"]), batch_size=SCORING_BATCH)
    where = torch.device(device)

    def validate() -> dict[str, float]:
        with module.averaged() as model:
            return score(model, validation, device=where)

    clock = Clock()
    follow = Curve(
        folder,
        steps=module.steps,
        validate=validate,
        validations=point.train.validations,
        clock=clock,
        checkpoint_seconds=checkpoint_seconds,
    )
    trainer = L.Trainer(
        max_steps=module.steps,
        accelerator="gpu" if where.type == "cuda" else "cpu",
        devices=[where.index or 0] if where.type == "cuda" else 1,
        gradient_clip_val=point.train.clip,
        logger=TensorBoardLogger(folder, name="", version="tensorboard", purge_step=(start or 0) + 1),
        callbacks=[clock, follow],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        log_every_n_steps=module.steps + 1,
    )
    stream = TrainingStream(
        setup.make,
        setup.train_ids,
        batch_size=setup.batch_size,
        seed=point.seed,
        augment=point.train.augment and setup.model.symmetry == "none",
        first_step=lambda: trainer.global_step,
        rank=trainer.global_rank,
        world=trainer.world_size,
    )
    print(f"point {point.id}: step {start or 0} of {module.steps}", flush=True)
    trainer.fit(module, DataLoader(stream, batch_size=None), ckpt_path=None if start is None else str(resume_from), weights_only=True)
    if trainer.global_step < module.steps:
        raise PointFailed(f"interrupted at step {trainer.global_step} of {module.steps}; run the study again to continue")
    return clock, follow


# ------------------------------------------------------------------------------------------------------ score, record


def _scores(module: TrainingModule, setup: _Setup, *, device: str) -> dict[str, float]:
    """Errors on the validation and every test split, with the averaged weights: `val_force_rmse`, `test_force_rmse`, ..."""
    metrics: dict[str, float] = {}
    module.to(device)
    with module.averaged() as model:
        for split, ids in setup.store.splits.items():
            if split == "train" or not len(ids):
                continue
            errors = score(model, FixedBatches(setup.make, np.asarray(ids), batch_size=SCORING_BATCH), device=torch.device(device))
            prefix = "val" if split == "validation" else split
            metrics |= {f"{prefix}_{key}": value for key, value in errors.items()}
    return metrics


def _refuse_divergence(metrics: dict[str, float], force_rms: float) -> None:
    bad = [k for k, v in metrics.items() if not math.isfinite(v)]
    if bad:
        raise PointFailed(f"diverged: {bad[0]} is {metrics[bad[0]]} at the end of the training")
    error = metrics["val_force_rmse"]
    if error > HOPELESS * force_rms:
        times = error / force_rms
        raise PointFailed(f"diverged: validation force RMSE {error:.3g} eV/Å at the end, {times:.0f} times the force RMS of the data")


def _potential(setup: _Setup, point: PointConfig) -> Potential:
    references = dict(zip(setup.store.elements, (float(e) for e in setup.references), strict=True))
    origin = {"id": point.id, "fingerprint": point.fingerprint, "n_frames": point.n_frames, "data": setup.store.folder.name}
    return Potential(setup.model, point.model, references, setup.mean_neighbors, origin)


def _last(module: TrainingModule) -> float | None:
    return None if module.last_loss is None else float(module.last_loss)


def _flops(module: TrainingModule, setup: _Setup, point: PointConfig) -> dict[str, int]:
    """FLOPs of one training step and of one frame's inference, counted on the frames of step 0."""
    stream = TrainingStream(
        setup.make, setup.train_ids, batch_size=setup.batch_size, seed=point.seed, augment=False, first_step=lambda: 0, rank=0, world=1
    )
    batch: AtomsBatch = stream.batch(0).to(module.device)
    model = module.model

    def step() -> None:
        result = predict(model, batch, differentiable=True)
        loss(result, batch, scale=model.energy_scale, config=point.train.loss).backward()

    train, inference = counted_flops(step), counted_flops(lambda: predict(model, batch))
    model.zero_grad(set_to_none=True)
    forward = point.model.flops(n_atoms=batch.graph.n_nodes, n_pairs=batch.graph.n_pairs, n_species=model.n_species)
    return {
        "flops_per_step": train,
        "flops_elementwise_per_step": STEP_FACTOR * forward.elementwise,
        "flops_inference_per_frame": inference // batch.n_frames,
    }


def _record(
    point: PointConfig, setup: _Setup, module: TrainingModule, metrics: dict[str, float], *, clock: Clock, seconds_total: float, device: str
) -> Record:
    counts = module.model.count()
    flops = _flops(module, setup, point)
    samples = module.steps * setup.batch_size
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
        batch_size=setup.batch_size,
        learning_rate=module.learning_rate,
        **flops,
        flops_train=flops["flops_per_step"] * module.steps,
        seconds_train=clock.wall,
        cpu_seconds_train=clock.cpu,
        seconds_total=seconds_total,
        device=torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor() or platform.machine(),
        host=platform.node(),
        metrics=metrics,
        commit=os.environ.get("SAPIS_COMMIT") or None,
        dirty={"0": False, "1": True}.get(os.environ.get("SAPIS_DIRTY", "")),
        versions={"python": sys.version.split()[0], **{p: version(p) for p in PACKAGES}},
    )
