"""All that the checks find in a data set, and what it holds, for people."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sapis_lab.data._arrays import segments
from sapis_lab.data._base import DatasetConfig, Progress, mean_pairs, prepare
from sapis_lab.data._checks import Finding, collecting
from sapis_lab.data._store import FrameStore
from sapis_lab.elements import SYMBOLS
from sapis_lab.files import make_folder

FILES = "files are read"
_CHUNK = 100_000
_PAIRS_FRAMES, _HISTOGRAM_FRAMES = 50, 20_000
_MOST_COMPOSITIONS = 12


def examine(config: DatasetConfig, *, cache: Path, n_workers: int, progress: Progress) -> list[Finding]:
    """Every finding on a data set; a failure does not end it. Files are read anew, into a temporary store
    under `cache`; of generated data the recorded findings are taken."""
    if config.source_root() is None:
        return recorded(prepare(config, cache=cache, n_workers=n_workers, progress=progress))
    make_folder(cache)
    folder = Path(tempfile.mkdtemp(prefix=".validate-", dir=cache))
    try:
        with collecting() as found:
            try:
                config.build_store(folder / "store", n_workers=n_workers, progress=progress)
            except (ValueError, OSError, ImportError) as error:
                found.append(Finding(FILES, "failed", str(error) or type(error).__name__))
            else:
                found.insert(0, Finding(FILES, "passed", "all of them"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return found


def recorded(store: FrameStore) -> list[Finding]:
    """What was found when the store was made. ValueError where nothing was recorded."""
    known = store.metadata.get("checks")
    if known is None:
        raise ValueError(
            f"{store.folder} was made before findings were recorded; remove it to have it made again"
        )
    return [Finding(**finding) for finding in known["findings"]]


class Summary(NamedTuple):
    """What a store holds."""

    sizes: Mapping[str, int]
    """Frames by split."""
    elements: tuple[str, ...]
    compositions: Mapping[str, int]
    """Frames by formula, the most common first."""
    n_compositions: int
    atoms: tuple[int, float, int]
    """Per frame: least, mean, most."""
    periodicity: Mapping[str, int]
    """Frames by periodic directions, such as TTT."""
    energy: tuple[float, float, float, float] | None
    """eV per atom: least, mean, most, standard deviation."""
    force: tuple[float, float] | None
    """eV/Å: RMS of a component, largest component."""
    neighbors: float
    """Per atom, within the cutoff; of some frames."""
    labels: Mapping[str, float]
    """Share of the frames or atoms that have one, by label."""
    metadata: Mapping[str, Any]
    energies: np.ndarray
    """(n,) eV per atom, of some frames."""
    forces: np.ndarray
    """(n,) eV/Å, sizes of the force on an atom, of some frames."""


def summary(store: FrameStore, *, cutoff: float) -> Summary:
    """What a sealed store holds, read in chunks. `cutoff` in Å."""
    ids = np.concatenate(list(store.splits.values()))
    n_atoms = np.diff(store.offsets)[ids]
    some = ids[np.unique(np.linspace(0, len(ids) - 1, _PAIRS_FRAMES).astype(int))]
    sample = store.frames(some)
    pairs = mean_pairs(sample.positions, sample.n_atoms, sample.cell, sample.pbc, cutoff)
    shown = store.frames(ids[np.unique(np.linspace(0, len(ids) - 1, _HISTOGRAM_FRAMES).astype(int))])
    energies = shown.energy / shown.n_atoms
    forces = np.linalg.norm(shown.forces.astype(np.float64), axis=1)
    compositions = _compositions(store, ids)
    most = sorted(compositions.items(), key=lambda pair: (-pair[1], pair[0]))
    directions: dict[str, int] = {}
    for pbc, n in zip(*np.unique(store.pbc[ids], axis=0, return_counts=True), strict=True):
        directions["".join("FT"[int(p)] for p in pbc)] = int(n)
    return Summary(
        {name: len(part) for name, part in store.splits.items()},
        tuple(SYMBOLS[z] for z in store.elements),
        dict(most[:_MOST_COMPOSITIONS]),
        len(most),
        (int(n_atoms.min()), float(n_atoms.mean()), int(n_atoms.max())),
        directions,
        _energy(store.energy[ids] / n_atoms),
        _force(store, ids),
        pairs / float(sample.n_atoms.mean()),
        {key: _share(store.label_column(key)) for key in store.labels},
        {k: v for k, v in store.metadata.items() if k not in ("sources", "config", "checks")},
        energies[np.isfinite(energies)],
        forces[np.isfinite(forces)],
    )


def _compositions(store: FrameStore, ids: np.ndarray) -> dict[str, int]:
    symbols, found = np.array(SYMBOLS), dict[str, int]()
    for start in range(0, len(ids), _CHUNK):
        counts = store.composition(ids[start : start + _CHUNK])
        rows, n = np.unique(counts, axis=0, return_counts=True)
        for row, times in zip(rows, n, strict=True):
            text = "".join(
                f"{symbols[z]}{k if k > 1 else ''}" for z, k in zip(store.elements, row, strict=True) if k
            )
            found[text] = found.get(text, 0) + int(times)
    return found


def _energy(per_atom: np.ndarray) -> tuple[float, float, float, float] | None:
    e = per_atom[np.isfinite(per_atom)]
    return (float(e.min()), float(e.mean()), float(e.max()), float(e.std())) if len(e) else None


def _force(store: FrameStore, ids: np.ndarray) -> tuple[float, float] | None:
    squares, n, largest = 0.0, 0, 0.0
    for start in range(0, len(ids), _CHUNK):
        f = store.forces[segments(store.offsets, ids[start : start + _CHUNK])[0]].astype(np.float64)
        f = f[np.isfinite(f)]
        squares, n = squares + float(np.sum(f * f)), n + f.size
        largest = max(largest, float(np.abs(f).max(initial=0.0)))
    return (float(np.sqrt(squares / n)), largest) if n else None


def _share(labels: np.ndarray) -> float:
    n = sum(
        int(np.isfinite(labels[k : k + _CHUNK].reshape(len(labels[k : k + _CHUNK]), -1)).all(1).sum())
        for k in range(0, len(labels), _CHUNK)
    )
    return n / max(1, len(labels))
