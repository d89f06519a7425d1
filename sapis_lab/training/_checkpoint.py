"""Checkpoint files of a point: the last one and the one before, so that one damaged file costs one interval
and no more.

`last.ckpt` is replaced in one step and its predecessor kept as `previous.ckpt`: two files bound the disk that
a point needs, three while one is written. Tensors and plain Python only: loading runs no code.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO

from sapis_lab.config import differing_keys, fingerprint
from sapis_lab.files import flush, replacing
from sapis_lab.records import CHECKPOINT

PREVIOUS = "previous.ckpt"
SCIENCE = "science"
"""Where the state of a callback holds the settings that the point is made from."""


class CheckpointFiles(CheckpointIO):
    """How Lightning writes and reads them. (Its own way writes to the system's temporary folder first.)"""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Make `checkpoint` the file `path` and the file that was there `previous.ckpt`.

        Raises:
            OSError: with the path in it; both files are then as they were.
        """
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        path = Path(path)
        with replacing(path) as temporary:
            temporary.write_bytes(buffer.getbuffer())
            if path.exists():
                flush(temporary)  # before the old one loses its name
                path.replace(path.with_name(PREVIOUS))

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        return dict(torch.load(path, map_location="cpu", weights_only=True))

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def usable_checkpoint(folder: Path, *, science: dict[str, Any] | None = None) -> int | None:
    """The step of the checkpoint to continue from, which is `last.ckpt` afterwards; None: there is none.

    A file that cannot be read, or whose checksums are wrong, gives way to `previous.ckpt`, and both to a
    start from step 0; a line of output says so. One that this user may not read is an error instead.

    Args:
        science: the settings of the point; a checkpoint that was made from others is refused (those of older
            versions do not say).

    Raises:
        ValueError: the checkpoint was made from other settings; the message names them.
    """
    faults = {}
    for name in (CHECKPOINT, PREVIOUS):
        path = folder / name
        try:
            step, made_from = _step_of(path)
        except FileNotFoundError:
            faults[name] = "is missing"
        except (OSError, MemoryError):
            raise
        except Exception as error:
            first = (str(error).strip() or "no reason").splitlines()[0]
            faults[name] = f"of {path.stat().st_size} bytes cannot be read ({type(error).__name__}: {first})"
        else:
            _refuse_other_settings(path, made_from, science)
            if name == PREVIOUS:
                print(
                    f"{CHECKPOINT} {faults[CHECKPOINT]}: continuing from {PREVIOUS}, step {step}", flush=True
                )
                path.replace(folder / CHECKPOINT)
            return step
    if set(faults.values()) != {"is missing"}:
        print(
            f"{' and '.join(f'{name} {fault}' for name, fault in faults.items())}: starting from step 0",
            flush=True,
        )
        for name in faults:  # or the next checkpoint would be followed by a damaged one
            (folder / name).unlink(missing_ok=True)
    return None


def _refuse_other_settings(path: Path, made_from: Any, science: dict[str, Any] | None) -> None:
    if made_from is None or science is None or fingerprint(made_from) == fingerprint(science):
        return
    keys = differing_keys(json.loads(json.dumps(made_from)), json.loads(json.dumps(science)))
    raise ValueError(
        f"{path} was made from other settings than config.yaml has now; they differ in "
        f"{', '.join(keys[:8])}. "
        f"Put those back to continue, or remove {CHECKPOINT} and {PREVIOUS} to train this point from the "
        f"start"
    )


def _step_of(path: Path) -> tuple[int, Any]:
    """The step of the checkpoint `path`, all of which is read, and what it was made from; torch.load does not
    look at the checksums."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"wrong checksum of {damaged}")
    held = torch.load(path, map_location="cpu", weights_only=True)
    states = [state for state in held.get("callbacks", {}).values() if isinstance(state, dict)]
    return int(held["global_step"]), next((state[SCIENCE] for state in states if SCIENCE in state), None)
