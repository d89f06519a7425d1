"""Archives of numpy arrays (.npz): those of sGDML (R, z, E, F), rMD17 (coords, nuclear_charges, ...), or with
arrays of any name.

Frames of different sizes are arrays filled up with atoms of number 0 (or empty symbols), or atoms of all
frames joined with their sizes in an array n_atoms.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sapis_lab.formats._base import BLOCK_ATOMS, Block, Reading, taken
from sapis_lab.formats._npz_arrays import npz_arrays
from sapis_lab.formats._npz_writer import write_npz

ENDINGS = (".npz",)
write = write_npz


def count(path: Path) -> int:
    """Frames in the archive."""
    return len(npz_arrays(path, {"energy": None, "forces": None})["pbc"])


def blocks(path: Path, reading: Reading) -> Iterator[Block]:
    """The frames; energy and forces are called so, other labels have the names of their arrays."""
    unread = {} if reading.labels else {"forces": None}
    arrays = npz_arrays(
        path, {**reading.names, **unread}, keys=reading.keys, every=reading.every, may_lack=reading.may_lack
    )
    n_frames = len(arrays["pbc"])
    numbers = taken(n_frames, reading.wanted, path, skip=reading.skip)
    sizes, joined = _sizes(arrays, n_frames), "n_atoms" in arrays
    starts = np.cumsum(sizes) - sizes
    widest = int(sizes.max(initial=1)) if joined else arrays["species"].shape[-1]
    step = max(1, BLOCK_ATOMS // widest)
    for k in range(0, len(numbers), step):
        ids = np.array(numbers[k : k + step])
        if joined:
            rows = np.concatenate([np.arange(starts[i], starts[i] + sizes[i]) for i in ids])
            yield _block(arrays, ids, sizes, path, rows=rows)
        else:
            yield _block(arrays, ids, sizes, path, rows=None)


def _sizes(arrays: dict[str, np.ndarray], n_frames: int) -> np.ndarray:
    if "n_atoms" in arrays:
        return arrays["n_atoms"].astype(np.int64)
    z = arrays["species"]
    filled = (z != 0).sum(-1) if z.ndim == 2 else np.array(len(z))
    return np.broadcast_to(filled, (n_frames,))


_OF_FRAMES = ("species", "positions", "cell", "pbc", "n_atoms")


def _block(
    arrays: dict[str, np.ndarray], ids: np.ndarray, sizes: np.ndarray, path: Path, *, rows: np.ndarray | None
) -> Block:
    """The frames `ids`; `rows` are their atoms where those of all frames are joined."""
    n_frames, n, z = len(arrays["pbc"]), sizes[ids], arrays["species"]
    if rows is None:
        z = np.broadcast_to(z, (n_frames, z.shape[-1]))[ids]
        # a row alone, or all of one size: 0 is then no filling but a mistake, for whoever checks elements
        is_atom = z != 0 if (n < z.shape[-1]).any() and arrays["species"].ndim == 2 else np.ones_like(z, bool)
        n = is_atom.sum(1)
    labels = {name: value for name, value in arrays.items() if name not in _OF_FRAMES}
    per_frame, per_atom = {}, {}
    for name, value in labels.items():
        if value.dtype.kind == "U":
            per_frame[name] = value[ids].astype(object)
        elif rows is not None and len(value) == int(sizes.sum()) and len(value) != n_frames:
            per_atom[name] = value[rows]
        elif len(value) != n_frames:
            raise ValueError(f"{path}: {name} has shape {value.shape}, wanted {n_frames} rows, one a frame")
        elif rows is None and value.shape[1:2] == z.shape[1:2] and (name == "forces" or value.ndim > 1):
            per_atom[name] = value[ids][is_atom]
            per_frame[name] = value[ids]
        else:
            per_frame[name] = value[ids]
    x = arrays["positions"][rows] if rows is not None else arrays["positions"][ids][is_atom]
    cell = np.zeros((len(ids), 3, 3))
    if "cell" in arrays:
        cell = np.broadcast_to(arrays["cell"].reshape(-1, 3, 3), (n_frames, 3, 3))[ids].astype(np.float64)
    return Block(
        numbers=ids,
        n_atoms=n,
        species=z[rows] if rows is not None else z[is_atom],
        positions=x.astype(np.float64),
        cell=cell,
        pbc=arrays["pbc"][ids],
        frame_labels=per_frame,
        atom_labels=per_atom,
    )
