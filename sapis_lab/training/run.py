"""Run one point: data, model, training with resume, scores, and as the last act its record.

One process, or several ranks that train the point together (`_ranks`); only the first of them writes files.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import lightning as L
import numpy as np
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.utils.data import DataLoader

from sapis_lab.augmentation import augmentation
from sapis_lab.batches import FixedBatches
from sapis_lab.config import load, read_yaml
from sapis_lab.data import prepare, refuse_mixed_charges
from sapis_lab.potential import save_potential
from sapis_lab.records import CHECKPOINT, Record, write_record
from sapis_lab.tasks import Task, refitted_references
from sapis_lab.training._callbacks import CURVE, Clock, Curve, PointFailed, cut_rows, show
from sapis_lab.training._checkpoint import PREVIOUS, CheckpointFiles, usable_checkpoint
from sapis_lab.training._config import PointConfig, StepChoice
from sapis_lab.training._limits import limits_explained, refuse_other_record, remove_temporaries
from sapis_lab.training._ranks import PeerLost, device_of, join
from sapis_lab.training._record import Session, kernel_name, potential_of, record_of
from sapis_lab.training._signals import STOPPED, Stopped, StopSignals
from sapis_lab.training.module import TrainingModule
from sapis_lab.training.process import set_up_torch
from sapis_lab.training.scoring import energy_residuals, score
from sapis_lab.training.step_forms import chosen_form, make_step

__all__ = ["STOPPED", "PeerLost", "PointFailed", "Stopped", "run_point"]

SCORING_BATCH = 32
"""Frames that are scored at a time; `train.micro_batch` may allow less."""
SCORED_TRAINING_FRAMES = 200
"""Most frames that errors on training frames are measured on: the first of the D in the training order, so
that points of different D share them."""

REFERENCE_FRAMES = 5000
"""Most training frames that reference energies are fitted to once more: a constant per element needs no
more."""


def run_point(
    folder: Path,
    *,
    cache: Path,
    device: str = "cpu",
    threads: int = 1,
    checkpoint_seconds: float = 20.0,
    step: StepChoice = "auto",
    devices: int = 1,
) -> None:
    """Train, score and record the point whose settings are in `folder/config.yaml`; continues from
    `last.ckpt` where there is one.

    Args:
        cache: folder of frame stores.   device: 'cpu', 'cuda' or 'cuda:K'.   threads: of the CPU; small
        models run best with one. checkpoint_seconds: wall time between checkpoints, s.   step: the form of
        the training step, see `step_forms`. devices: processes that train the point together, this one
        included; each calls this function, and its environment says which it
            is (`_ranks.join`). On GPUs the ranks of a node take the GPUs from `device` on.

    Raises:
        PointFailed: the training diverged, or memory or disk did not suffice. Nothing is recorded then.
        ValueError: the settings do not fit the data, or the form of the step not the device. Nothing is
        recorded then. Stopped: a signal asked for it (`_signals`); the checkpoint holds what was done.
        PeerLost: another rank is gone.
    """
    began = time.perf_counter()
    set_up_process(threads)
    folder, cache = Path(folder), Path(cache)
    point: PointConfig = load(
        PointConfig, read_yaml(folder / "config.yaml"), source=str(folder / "config.yaml"), recorded=True
    )
    with StopSignals() as stop, limits_explained(point, folder, devices):
        where = device_of(device, devices)
        form = chosen_form(step, device=where)
        ranks = join(devices, device=where, folder=folder)
        try:
            _run(
                point,
                folder,
                Session(cache, where, ranks, stop, checkpoint_seconds, form, step != "auto", began),
            )
        except (SIGTERMException, PeerLost) as error:
            if isinstance(error, PeerLost) and not stop.asked:
                raise
            raise Stopped(
                f"stopped; what was done since the last checkpoint is done again: {error}"
            ) from error
        ranks.leave()


def _run(point: PointConfig, folder: Path, run: Session) -> None:
    if run.ranks.is_first:
        remove_temporaries(folder)
        refuse_other_record(point, folder)
    task = prepare_task(point, run.cache, siblings=folder.parent)
    if point.train.start is not None and point.train.start.references == "refit":
        task = _refer_to_the_started(task, point, run)
    module = TrainingModule(
        task.model,
        point.train,
        steps=point.train.steps_for(point.n_frames),
        learning_rate=point.train.rate_of(point.model, point.n_params_target),
        mean_loss=make_step(task.objective, form=run.form, required=run.required),
        seed=point.seed,
        ranks=run.ranks,
        wants_stop=lambda: run.stop.asked > 0,
    )
    trainer, clock, follow = _train(module, task, point, folder=folder, run=run)

    def stop_if_asked() -> None:
        if run.stop.asked:
            follow.save(trainer)
            raise Stopped(
                f"stopped between training and record, with step {module.steps} of {module.steps} in "
                f"{CHECKPOINT}"
            )

    validated = follow.last_validation
    if task.learns_energies and point.train.refit_references:
        task, validated = _refer_to_the_trained(module, task, point, run, stop_if_asked)
    metrics = {f"val_{key}": value for key, value in validated.items()}
    metrics |= _scores_at_the_end(module, task, point, run, stop_if_asked)
    metrics["validation_rise"] = follow.rise()
    if why := task.divergence(metrics):
        raise PointFailed(why)
    if not run.ranks.is_first:
        return
    with module.averaged():
        weights = save_potential(folder, potential_of(task, point))
    record = record_of(
        point, task, module, metrics, clock=clock, run=run, kernel=", ".join(follow.kernels), weights=weights
    )
    _log_settings(trainer, record)
    show(
        folder,
        step=module.steps,
        steps=module.steps,
        loss=_last(module),
        val=validated,
        seconds=clock.wall,
    )
    write_record(folder, record)
    (folder / PREVIOUS).unlink(missing_ok=True)


def _log_settings(trainer: L.Trainer, record: Record) -> None:
    """Settings and final errors, for TensorBoard's page of hyperparameters: `tensorboard --logdir
    results/NAME/points`."""
    names = ("model", "lmax", "n_params", "n_frames", "seed", "learning_rate", "batch_size", "steps")
    settings = {name: "none" if (value := getattr(record, name)) is None else value for name in names}
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(settings, {f"final/{key}": value for key, value in record.metrics.items()})
            logger.finalize("success")


def set_up_process(threads: int) -> None:
    """`set_up_torch`, and quiet libraries."""
    set_up_torch(threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
    warnings.filterwarnings(
        "ignore", message="The `srun` command is available on your system but is not used"
    )
    warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores .* available but not enabled")


# ------------------------------------------------------------------------------------------------------ task


def prepare_task(point: PointConfig, cache: Path, *, siblings: Path | None = None) -> Task:
    """What a point trains on and with.

    Args:
        cache: folder of frame stores.   siblings: the folder of the points, where one that names a parent
        finds it.

    Raises:
        ValueError: the settings do not fit the data.
    """
    store = prepare(point.data, cache=cache)
    refuse_mixed_charges(store)
    pool = store.splits["train"]
    if point.n_frames > len(pool):
        raise ValueError(
            f"n_frames={point.n_frames} exceeds the {len(pool)} labelled training frames of {store.folder}; "
            f"lower lattice.n_frames"
        )
    task = point.train.task.prepare(point, store, np.asarray(pool[: point.n_frames]), siblings=siblings)
    counted = sum(task.model.count().values())
    if point.n_params not in (None, counted):
        raise ValueError(
            f"{point.id} was planned with n_params={point.n_params}, but its model for the elements "
            f"{list(store.elements)} has {counted}; "
            "plan again now that the data are there: run the study again"
        )
    if augmentation(point.train.augment).noise:
        _refuse_noise_without_forces(task)
    return task


def _refuse_noise_without_forces(task: Task) -> None:
    """ValueError where energies cannot follow the atoms that `train.augment.noise` moves."""
    if not task.learns_energies:
        raise ValueError("train.augment.noise wants energies and forces to learn; set it to 0")
    n = int(task.make.n_atoms[task.train_ids].sum())
    lacking = n - task.make.n_labelled("forces", "atom", task.train_ids)
    if lacking:
        raise ValueError(
            f"train.augment.noise wants forces, with which energies follow the atoms; {lacking} of the {n} "
            f"atoms of the training frames of {task.store.folder} lack them; set it to 0, or leave out these "
            f"frames"
        )


# ------------------------------------------------------------------------------------------------------ train


def _train(
    module: TrainingModule, task: Task, point: PointConfig, *, folder: Path, run: Session
) -> tuple[L.Trainer, Clock, Curve]:
    ranks = run.ranks
    start = ranks.from_first(_first_step(folder, point) if ranks.is_first else 0)
    validation = _scoring_batches(task, task.store.splits["validation"], point)

    def validate() -> dict[str, float]:
        with module.averaged():
            return score(task.objective, validation, device=run.device, ranks=ranks)

    clock = Clock(n_ranks=ranks.size)
    follow = Curve(
        folder,
        steps=module.steps,
        validate=validate,
        validations=point.train.validations,
        clock=clock,
        checkpoint_seconds=run.checkpoint_seconds,
        stop=run.stop,
        science=point.science(),
        kernel=kernel_name(task.model, run),
        measured=task.objective.measured,
    )
    trainer = L.Trainer(
        max_steps=module.steps,
        accelerator="gpu" if run.device.type == "cuda" else "cpu",
        devices=[run.device.index or 0] if run.device.type == "cuda" else 1,
        # every rank is a trainer of its own, whatever Slurm or torchrun has set
        plugins=[LightningEnvironment(), CheckpointFiles()],
        default_root_dir=folder,
        gradient_clip_val=point.train.clip,
        logger=TensorBoardLogger(folder, name="", version="tensorboard", purge_step=start + 1)
        if ranks.is_first
        else False,
        callbacks=[clock, follow],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        log_every_n_steps=module.steps + 1,
    )
    stream = task.stream(
        seed=point.seed,
        augment=augmentation(point.train.augment).of(symmetry=task.model.symmetry),
        first_step=lambda: trainer.global_step,
        rank=ranks.rank,
        world=ranks.size,
        micro_batch=point.train.micro_batch,
    )
    together = f", rank {ranks.rank} of {ranks.size}" if ranks.size > 1 else ""
    print(f"point {point.id}: step {start} of {module.steps}{together}", flush=True)
    if run.form == "eager" and (reason := task.model.why_no_kernel(run.device)) is not None:
        print(f"point {point.id}: PyTorch computes the steps, not a compiled kernel: {reason}", flush=True)
    trainer.fit(
        module,
        DataLoader(stream, batch_size=None),
        ckpt_path=str(folder / CHECKPOINT) if start else None,
        weights_only=True,
    )
    if trainer.global_step < module.steps:
        raise PointFailed(
            f"interrupted at step {trainer.global_step} of {module.steps}; run the study again to continue"
        )
    return trainer, clock, follow


def _first_step(folder: Path, point: PointConfig) -> int:
    """The step to continue from, 0 without a checkpoint; the curve ends there."""
    start = usable_checkpoint(folder, science=point.science()) or 0
    cut_rows(folder / CURVE, last_step=start)
    return start


# ---------------------------------------------------------------------------------------------- score, record


def _scores_at_the_end(
    module: TrainingModule, task: Task, point: PointConfig, run: Session, stop_if_asked: Callable[[], None]
) -> dict[str, float]:
    """Errors on every test split and on training frames, none of them turned, with the averaged weights:
    `test_force_rmse`, `train_force_rmse`, ... The last step has been validated."""
    metrics: dict[str, float] = {}
    scored = {split: ids for split, ids in task.store.splits.items() if split not in ("train", "validation")}
    scored["train"] = task.train_ids[:SCORED_TRAINING_FRAMES]
    module.to(run.device)
    with module.averaged():
        for split, ids in scored.items():
            if not len(ids):
                continue
            batches = _scoring_batches(task, ids, point)
            errors = score(task.objective, batches, device=run.device, ranks=run.ranks, between=stop_if_asked)
            metrics |= {f"{split}_{key}": value for key, value in errors.items()}
    return metrics


def _refer_to_the_trained(
    module: TrainingModule, task: Task, point: PointConfig, run: Session, stop_if_asked: Callable[[], None]
) -> tuple[Task, dict[str, float]]:
    """The task with reference energies fitted to what the averaged weights leave, and its errors of
    validation."""
    module.to(run.device)
    with module.averaged():
        left = energy_residuals(
            task.objective,
            _scoring_batches(task, task.train_ids[:REFERENCE_FRAMES], point),
            device=run.device,
            ranks=run.ranks,
            between=stop_if_asked,
        )
        task = task.refer_to(refitted_references(task, left, kind=point.train.references))
        validation = _scoring_batches(task, task.store.splits["validation"], point)
        return task, score(
            task.objective, validation, device=run.device, ranks=run.ranks, between=stop_if_asked
        )


def _refer_to_the_started(task: Task, point: PointConfig, run: Session) -> Task:
    """The task with reference energies fitted to what the model that training starts from leaves."""
    task.model.to(run.device)
    batches = _scoring_batches(task, task.train_ids[:REFERENCE_FRAMES], point)
    left = energy_residuals(task.objective, batches, device=run.device, ranks=run.ranks)
    counts = task.store.composition(task.train_ids[: len(left)])
    for _ in range(3):  # of energies of thousands of eV the ridge keeps a millionth back
        found = refitted_references(task, left, kind=point.train.references)
        left = left - counts @ (found - task.references)
        task = task.refer_to(found)
    return task


def _scoring_batches(task: Task, ids: np.ndarray, point: PointConfig) -> FixedBatches:
    """The frames `ids` as they are scored."""
    most = point.train.micro_batch or SCORING_BATCH
    return FixedBatches(task.make, np.asarray(ids), batch_size=min(SCORING_BATCH, most))


def _last(module: TrainingModule) -> float | None:
    return None if module.last_loss is None else float(module.last_loss)
