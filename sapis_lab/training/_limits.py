"""What stops a point that nothing is wrong with: another record in its place, want of memory, a full disk."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from sapis_lab.config import differing_keys
from sapis_lab.errors import disk_error
from sapis_lab.files import TEMPORARY
from sapis_lab.records import RECORD, read_raw
from sapis_lab.training._callbacks import PointFailed
from sapis_lab.training._config import PointConfig


def refuse_other_record(point: PointConfig, folder: Path) -> None:
    """A finished point is not trained over under other settings."""
    if (folder / RECORD).exists() and (recorded := read_raw(folder / RECORD)).get(
        "fingerprint"
    ) != point.fingerprint:
        keys = differing_keys(recorded.get("science"), json.loads(json.dumps(point.science())))
        raise ValueError(
            f"{folder / RECORD} was made from other settings than config.yaml has now; they differ in "
            f"{', '.join(keys[:8])}. "
            "Give the changed point a folder of its own, or remove that record with its checkpoints"
        )


def remove_temporaries(folder: Path) -> None:
    """What a killed process or a full disk left half written."""
    for path in folder.glob(f".*{TEMPORARY}"):
        path.unlink(missing_ok=True)


@contextmanager
def limits_explained(point: PointConfig, folder: Path, devices: int) -> Iterator[None]:
    """Want of memory or of disk becomes a PointFailed that says what to do."""
    try:
        yield
    except OSError as error:
        message = disk_error(error, about=folder, then="and run the point again to continue")
        if message is None:
            raise
        if not devices > 1 or os.environ.get("RANK", os.environ.get("SLURM_PROCID")) == "0":
            remove_temporaries(folder)
        raise PointFailed(str(message)) from error
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        where = "GPU" if isinstance(error, torch.OutOfMemoryError) else "host"
        n = f"{point.n_params or point.n_params_target:.3g}"
        batch = min(point.train.batch_size, point.n_frames)
        on = f" on {devices} devices" if devices > 1 else ""
        text = f"out of memory ({where}) with N = {n} parameters and {batch} frames a step{on}"
        traceback.clear_frames(error.__traceback__)  # they hold the tensors that filled it
        raise PointFailed(
            f"{text}; lower train.batch_size (now {point.train.batch_size}) or the model's size, spread the "
            f"batch over more devices, or set train.micro_batch, the frames that go through the model at a "
            f"time"
        ) from error


def _is_out_of_memory(error: BaseException) -> bool:
    """Torch's CPU allocator has no exception of its own."""
    words = ("can't allocate memory", "not enough memory", "std::bad_alloc", "Cannot allocate memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(w in str(error) for w in words)
