"""Small batch files for the tests of the bench: frames with all their edges and made-up labels."""

from __future__ import annotations

import numpy as np

from sapis_lab.neighbors import neighbor_list

CUTOFF = 5.0


def batch_file(frames: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
    """The batch file of frames (species (n,), positions (n, 3), cell (3, 3), zero for a molecule), labelled
    by pairs of springs."""
    pairs = [neighbor_list(x, cell, bool(cell.any()), CUTOFF) for _, x, cell in frames]
    energy, forces = [], []
    for (_, x, cell), (i, j, shift) in zip(frames, pairs, strict=True):
        v = x[j] + shift @ cell - x[i]
        r = np.linalg.norm(v, axis=1, keepdims=True)
        energy.append(0.5 * ((r - 1.5) ** 2 * np.exp(-r)).sum())
        slope = (2 * (r - 1.5) - (r - 1.5) ** 2) * np.exp(-r) * v / r
        f = np.zeros_like(x)
        np.add.at(f, i, 0.5 * slope)
        np.add.at(f, j, -0.5 * slope)
        forces.append(f)
    offsets = np.concatenate([[0], np.cumsum([len(z) for z, *_ in frames])])
    return {
        "z": np.concatenate([z for z, *_ in frames]),
        "pos": np.concatenate([x for _, x, _ in frames]),
        "F": np.concatenate(forces),
        "E": np.array(energy),
        "cell": np.array([cell for *_, cell in frames]),
        "pbc": np.array([[bool(cell.any())] * 3 for *_, cell in frames]),
        "ptr": offsets,
        "i": np.concatenate([p.center + start for p, start in zip(pairs, offsets, strict=False)]),
        "j": np.concatenate([p.neighbor + start for p, start in zip(pairs, offsets, strict=False)]),
        "S": np.concatenate([p.shift for p in pairs]),
        "eptr": np.concatenate([[0], np.cumsum([len(p.center) for p in pairs])]),
        "cutoff": np.array(CUTOFF),
    }


def molecules(n_frames: int, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Frames of one molecule of six atoms, shaken."""
    rng = np.random.default_rng(seed)
    rest = np.array(
        [[0, 0, 0], [1.4, 0.1, 0], [2.0, 1.3, 0.2], [-0.6, 0.9, 0.1], [-0.5, -0.6, 0.8], [1.8, -0.5, -0.9]]
    )
    species = np.array([6, 6, 8, 1, 1, 1])
    return batch_file(
        [(species, rest + 0.1 * rng.normal(size=rest.shape), np.zeros((3, 3))) for _ in range(n_frames)]
    )


def crystals(n_frames: int = 2, *, seed: int = 1) -> dict[str, np.ndarray]:
    """Cells of one shape, narrower than the cutoff, so that atoms see their own images."""
    rng = np.random.default_rng(seed)
    cell = np.array([[4.2, 0, 0], [0.4, 4.4, 0], [0, -0.3, 4.6]])
    rest = np.array([[0.1, 0.1, 0.1], [0.5, 0.52, 0.1], [0.5, 0.1, 0.55], [0.1, 0.5, 0.5]])
    species = np.array([1, 8, 6, 8])
    return batch_file(
        [(species, (rest + 0.02 * rng.normal(size=rest.shape)) @ cell, cell) for _ in range(n_frames)]
    )
