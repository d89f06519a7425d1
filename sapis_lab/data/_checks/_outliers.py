"""Frames that are far from all others: energies per atom beside what their composition explains, and forces
of a size that no simulation meets.

The composition's energies are fitted to a sample by least absolute deviations (iteratively reweighted), so a
few wild frames do not move them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sapis_lab.data._arrays import segments
from sapis_lab.data._checks._finding import Finding, Subject, chunks
from sapis_lab.data._store import FrameStore

NAME = "outliers"
_SIGMAS, _LEAST = 30.0, 0.5
"""An energy is far off beyond both, in robust standard deviations and in eV per atom. In 28 sets without
outliers the largest are 24 standard deviations and 0.9 eV."""
_FORCE, _HIGH_FORCE, _RATIO = 100.0, 50.0, 100.0
"""eV/Å, eV/Å, and times the median over frames of their largest force."""
_SAMPLE, _SHOWN = 5_000, 5


def outliers(subject: Subject) -> Iterator[Finding]:
    """The frames by name, and the settings that leave them out."""
    store = subject.store
    with_energy, with_forces = subject.only("energy"), subject.only("forces")
    numbers, said, frames = dict[str, float | int | str](), [], dict[int, str]()
    if with_energy:
        ids = np.sort(np.concatenate(list(with_energy.values())))
        left, sigma = energies_off(store, ids)
        numbers |= {"largest energy, eV/atom": float(np.abs(left).max()), "sigma, eV/atom": sigma}
        far = np.nonzero(np.abs(left) > max(_SIGMAS * sigma, _LEAST))[0]
        for k in far[np.argsort(-np.abs(left[far]))]:
            frames[int(ids[k])] = f"energy {left[k]:+.4g} eV/atom off"
        if len(far):
            said.append(f"energy_window (energies are within {_rounded(_usual(left, sigma))} eV/atom)")
    if with_forces:
        ids = np.sort(np.concatenate(list(with_forces.values())))
        largest = largest_forces(store, ids)
        middle = float(np.median(largest))
        numbers |= {"largest force, eV/Å": float(largest.max()), "median of largest forces, eV/Å": middle}
        far = np.nonzero((largest > _FORCE) | ((largest > _HIGH_FORCE) & (largest > _RATIO * middle)))[0]
        for k in far[np.argsort(-largest[far])]:
            text = f"a force of {largest[k]:.4g} eV/Å"
            frames[int(ids[k])] = f"{frames[int(ids[k])]}, {text}" if int(ids[k]) in frames else text
        if 2 * len(far) > len(largest):
            text = f"{len(far)} of {len(largest)} frames have a force beyond {_HIGH_FORCE:g} eV/Å; "
            text += f"their median is {middle:.3g} eV/Å: that is a unit rather than single frames"
            yield Finding(NAME, "suspect", text, numbers | {"frames": len(far)})
            return
        if len(far):
            usual = max(10.0, 3 * float(np.quantile(np.delete(largest, far), 0.99)))
            said.append(f"max_force: {_rounded(min(usual, 0.9 * float(largest[far].min())))}")
    if not numbers:
        yield Finding(NAME, "not checked", "because no frame has an energy or forces")
        return
    if not frames:
        shown = ", ".join(f"{k} {float(v):.3g}" for k, v in numbers.items())
        yield Finding(NAME, "passed", shown, numbers)
        return
    names = "; ".join(f"{subject.where(k)}: {text}" for k, text in list(frames.items())[:_SHOWN])
    more = f" and {len(frames) - _SHOWN} more" if len(frames) > _SHOWN else ""
    yield Finding(
        NAME,
        "suspect",
        f"{len(frames)} of {store.n_frames} frames are far from all others: {names}{more}; leave them out "
        f"with {' and '.join(said)}, or relabel them",
        numbers | {"frames": len(frames)},
    )


def _usual(left: np.ndarray, sigma: float) -> float:
    usual = np.abs(left[np.abs(left) <= max(_SIGMAS * sigma, _LEAST)])
    return 1.5 * float(usual.max(initial=sigma))


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")


def energies_off(store: FrameStore, ids: np.ndarray) -> tuple[np.ndarray, float]:
    """Energies per atom of the frames `ids` (n,) less what the composition explains and less their median,
    (n,) eV, and their robust standard deviation, eV."""
    present = np.zeros(256, dtype=bool)
    for part in chunks(store, ids):
        present[store.species[segments(store.offsets, part)[0]]] = True
    elements = np.nonzero(present)[0]

    def shares(part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows, n_atoms = segments(store.offsets, part)
        frame = np.repeat(np.arange(len(part)), n_atoms)
        column = np.searchsorted(elements, store.species[rows])
        n = len(elements)
        counts = np.bincount(frame * n + column, minlength=len(part) * n).reshape(len(part), n)
        return counts / n_atoms[:, None], store.energy[part] / n_atoms

    some = ids[np.unique(np.linspace(0, len(ids) - 1, min(len(ids), _SAMPLE)).astype(int))]
    x, y = shares(some)
    weight = np.ones(len(some))
    for _ in range(30):
        c = np.linalg.lstsq(x * weight[:, None], y * weight, rcond=None)[0]
        off = np.abs(y - x @ c)
        weight = 1 / np.sqrt(np.maximum(off, 1e-3 * np.median(off) + 1e-9))
    left = np.concatenate([e - s @ c for s, e in (shares(part) for part in chunks(store, ids))])
    left = left - np.median(left)
    return left, 1.4826 * float(np.median(np.abs(left)))


def largest_forces(store: FrameStore, ids: np.ndarray) -> np.ndarray:
    """The largest force on an atom of each of the frames `ids` (n,), (n,) eV/Å."""
    found = [np.zeros(0)]
    for part in chunks(store, ids):
        rows, n_atoms = segments(store.offsets, part)
        size = np.linalg.norm(store.forces[rows].astype(np.float64), axis=1)
        found.append(np.maximum.reduceat(size, np.cumsum(n_atoms) - n_atoms))
    return np.concatenate(found)
