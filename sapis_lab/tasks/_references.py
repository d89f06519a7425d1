"""Reference energies of a point: before its training, and once more after it."""

from __future__ import annotations

import numpy as np

from sapis_lab.data import FrameStore, fit_references
from sapis_lab.tasks._base import PointSettings, Task


def references_of(point: PointSettings, store: FrameStore, ids: np.ndarray) -> np.ndarray:
    """Reference energies (n_species,) eV, from the D frames alone unless the isolated atoms are asked for.

    Isolated atoms leave a constant, which the mean energy of the D frames sets: it is spread evenly over the
    atoms.
    """
    counts, energies = store.composition(ids), store.energy[ids]
    if "energy" in store.incomplete:
        labelled = ~np.isnan(energies)
        if not labelled.any():
            raise ValueError(
                f"{store.folder}: no training frame has an energy; wanted some, or train.task=properties"
            )
        counts, energies = counts[labelled], energies[labelled]
    if point.train.references == "ridge":
        return _by_ridge(counts, energies)
    isolated = store.isolated_atoms
    if isolated is None:
        raise ValueError(
            f"train.references=isolated, but {store.folder} has no isolated-atom energies; use "
            f"train.references=ridge"
        )
    atoms = np.array([isolated[z] for z in store.elements])
    return atoms + _per_atom(counts, energies - counts @ atoms)


def refitted_references(task: Task, residuals: np.ndarray, *, kind: str) -> np.ndarray:
    """Reference energies (n_species,) eV, fitted to what a trained model leaves of energies, as they were
    fitted to energies before the training.

    Args:
        residuals: (n,) eV, label minus prediction, of the first n training frames; NaN where a frame has no
            label.
        kind: `train.references`, 'ridge' or 'isolated'.
    """
    there = ~np.isnan(residuals)
    if not there.any():
        return task.references
    counts, left = task.store.composition(task.train_ids[: len(residuals)])[there], residuals[there]
    return task.references + (_by_ridge(counts, left) if kind == "ridge" else _per_atom(counts, left))


def _by_ridge(counts: np.ndarray, energies: np.ndarray) -> np.ndarray:
    """(n_species,) eV; an element without an atom in any frame gets the mean energy of an atom."""
    present = counts.sum(0) > 0
    fitted = np.full(counts.shape[1], _per_atom(counts, energies))
    fitted[present] = fit_references(counts[:, present], energies)
    return fitted


def _per_atom(counts: np.ndarray, energies: np.ndarray) -> float:
    """The mean energy of an atom, eV."""
    return float(energies.sum() / counts.sum())
