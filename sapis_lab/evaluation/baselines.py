"""What predictors that see no geometry reach on the same labels: the errors that a model has to beat.

They are fitted to the D frames that the point was trained on, and scored on every test set as the point is:

    of_mean           the mean label of the D frames, or of their atoms; vectors, forces among them: zero
    of_composition    ridge regression on how many atoms of each element a frame has
    of_descriptors    ridge regression on these and on further scalars of the frames, `descriptors`

Columns are centred and divided by their spread over the D frames, the intercept is free, and the strength of
the ridge is that with the least exact leave-one-out error on the D frames. Energies: the mean is that of an
atom times their number, and the composition has no intercept, as reference energies have none.

Regressions are of scalars per frame alone, and matrices have no baseline. The columns are called after the
error, `baselines_test_gap_rmse_of_mean`; the report shows them beside the errors of the models.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from sapis_lab.evaluation import Evaluation, Measured, Subject
from sapis_lab.measures import Quantity
from sapis_lab.targets import PropertyName

_STRENGTHS = np.logspace(-6, 4, 21)
"""Of the ridge, per row of columns with unit spread."""
_WORDS = {
    "mean": "the mean of the training labels",
    "composition": "a ridge regression on the composition",
    "descriptors": "a ridge regression on composition and descriptors",
}


class BaselinesConfig(Evaluation):
    """Errors of the mean and of ridge regressions without geometry, on every test set."""

    kind: Literal["baselines"] = "baselines"
    composition: Literal["counts", "fractions"] = "counts"
    """Atoms of every element, or their share in the frame, for labels that do not grow with it."""
    descriptors: tuple[PropertyName, ...] = Field(default=(), max_length=100)
    """Scalars of the frames in the data, beside their labels, that one more regression sees."""

    @classmethod
    def quantities(cls) -> tuple[Quantity, ...]:
        return tuple(
            Quantity(f"{{error}}_of_{name}", f"{{error}} of {words}", "", better="lower", unit_of="{error}")
            for name, words in _WORDS.items()
        )

    def parts(self, subject: Subject) -> tuple[str, ...]:
        """The test sets."""
        subject.test_frames(1)  # there are some
        _trained_on(subject)
        if not _keys(subject) and not subject.potential.model.gives_energy:
            raise ValueError(
                f"the potential learnt {', '.join(subject.potential.heads)}, and baselines are of scalars, "
                "vectors, energies and forces; wanted one of these"
            )
        return subject.test_splits

    def measure(self, subject: Subject, part: str) -> dict[str, np.ndarray]:
        """Labels and predictions of every baseline, (n,) each, of the frames of a test set that have a
        label."""
        train, test = _trained_on(subject), np.asarray(subject.store.splits[part])
        found: dict[str, np.ndarray] = {}
        for key in _keys(subject):
            labels = {"train": _labels(subject, key, train), "test": _labels(subject, key, test)}
            if not len(labels["train"]) or not len(labels["test"]):
                continue
            mean = labels["train"].mean() if labels["test"].ndim == 1 else 0.0
            found[f"{key}.label"] = labels["test"]
            found[f"{key}.mean"] = np.full_like(labels["test"], mean)
            if subject.store.is_per_atom(key) or labels["test"].ndim > 1:
                continue
            rows = {"train": _labelled(subject, key, train), "test": _labelled(subject, key, test)}
            x = {which: self._columns(subject, ids) for which, ids in rows.items()}
            found[f"{key}.composition"] = ridge(x["train"], labels["train"], x["test"])
            if self.descriptors:
                x = {which: self._columns(subject, ids, described=True) for which, ids in rows.items()}
                found[f"{key}.descriptors"] = ridge(x["train"], labels["train"], x["test"])
        if subject.potential.model.gives_energy:
            found |= _energies(subject, train, test)
        return found

    def _columns(self, subject: Subject, ids: np.ndarray, *, described: bool = False) -> np.ndarray:
        """(n, n_columns) what a regression sees of the frames `ids`."""
        counts = subject.store.composition(ids).astype(np.float64)
        if self.composition == "fractions":
            counts = counts / counts.sum(1, keepdims=True)
        more = [_descriptor(subject, name, ids) for name in self.descriptors if described]
        return np.column_stack([counts, *more])

    def score(self, measured: Measured) -> dict[str, float]:
        scores: dict[str, float] = {}
        for split, arrays in measured.items():
            for name, predicted in arrays.items():
                key, _, baseline = name.partition(".")
                if baseline not in _WORDS:
                    continue
                error = predicted - arrays[f"{key}.label"]
                measure = {"forces": "force"}.get(key, key)
                scores[f"{split}_{measure}_rmse_of_{baseline}"] = float(np.sqrt(np.square(error).mean()))
                scores[f"{split}_{measure}_mae_of_{baseline}"] = float(np.abs(error).mean())
                if key == "energy":
                    each = np.abs(error) / arrays["energy.n_atoms"]
                    scores[f"{split}_energy_mae_per_atom_of_{baseline}"] = float(each.mean())
        return scores


def _trained_on(subject: Subject) -> np.ndarray:
    """Ids (D,) of the frames that the point was trained on."""
    n = subject.potential.origin.get("n_frames")
    if not isinstance(n, int) or n < 1:
        raise ValueError(
            "the potential does not say how many frames it was trained on, to which baselines are fitted; "
            "wanted one that this version has trained"
        )
    return np.asarray(subject.store.splits["train"][:n])


def _keys(subject: Subject) -> list[str]:
    """Keys of the scalars and vectors that a head has learnt."""
    return [key for key, learnt in subject.potential.heads.items() if learnt.target.rank < 2]


def _labels(subject: Subject, key: str, ids: np.ndarray) -> np.ndarray:
    """(n, ...) float64: the labels that the frames `ids`, or their atoms, have."""
    labels = subject.store.frames(ids).label(key).astype(np.float64)
    return np.asarray(labels[~np.isnan(labels.reshape(len(labels), -1)).any(1)])


def _labelled(subject: Subject, key: str, ids: np.ndarray) -> np.ndarray:
    return ids[~np.isnan(subject.store.label_column(key)[ids])]


def _descriptor(subject: Subject, name: str, ids: np.ndarray) -> np.ndarray:
    declared = subject.store.properties
    scalars = [key for key, kind in declared.items() if kind.per == "frame" and not kind.rank]
    if name not in scalars:
        raise ValueError(
            f"evaluate: baselines: descriptors names {name!r}, and the frames have "
            f"{', '.join(scalars) or 'no scalars beside their labels'}"
        )
    if name in subject.potential.heads:
        raise ValueError(f"evaluate: baselines: {name!r} is what is learnt, and no descriptor of it")
    values = np.asarray(subject.store.label_column(name)[ids])
    if np.isnan(values).any():
        raise ValueError(f"evaluate: baselines: some frames lack the descriptor {name!r}; leave it out")
    return values


def _energies(subject: Subject, train: np.ndarray, test: np.ndarray) -> dict[str, np.ndarray]:
    """The same of energies and forces."""
    from sapis_lab.data import fit_references

    store = subject.store
    train, test = _labelled(subject, "energy", train), _labelled(subject, "energy", test)
    forces = store.frames(np.asarray(test)).forces.astype(np.float64) if len(test) else np.zeros((0, 3))
    forces = forces[~np.isnan(forces).any(1)]
    found = {}
    if len(train) and len(test):
        counts, n_atoms = store.composition(train), np.diff(store.offsets)
        present = counts.sum(0) > 0
        of_atom = float(store.energy[train].sum() / n_atoms[train].sum())
        references = np.full(counts.shape[1], of_atom)
        references[present] = fit_references(counts[:, present], store.energy[train])
        found = {
            "energy.label": store.energy[test],
            "energy.n_atoms": n_atoms[test],
            "energy.mean": of_atom * n_atoms[test],
            "energy.composition": store.composition(test) @ references,
        }
    if len(forces):
        found |= {"forces.label": forces, "forces.mean": np.zeros_like(forces)}
    return found


def ridge(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(m,) predictions at the rows `at` (m, p) of a ridge regression of y (n,) on the columns of x (n, p).

    Of the strengths, the one with the least sum of squared leave-one-out residuals r_i / (1 - h_i), with h
    the leverage of the centred columns and 1/n of the intercept (Allen, Technometrics 16, 125, 1974). Columns
    that are the same in all rows of x are not looked at.
    """
    n, spread = len(y), x.std(0)
    some = spread > 1e-12 * (1 + np.abs(x).max(0, initial=0.0))
    if n < 3 or not some.any():
        return np.full(len(at), y.mean())
    center = x[:, some].mean(0)
    z, z_at = (x[:, some] - center) / spread[some], (at[:, some] - center) / spread[some]
    u, s, vt = np.linalg.svd(z, full_matrices=False)
    of_y = u.T @ (y - y.mean())
    best: tuple[float, np.ndarray] | None = None
    for strength in n * _STRENGTHS:
        shrink = s**2 / (s**2 + strength)
        leverage = np.minimum(np.square(u) @ shrink + 1 / n, 1 - 1e-9)
        left = y - y.mean() - u @ (shrink * of_y)
        loss = float(np.square(left / (1 - leverage)).sum())
        if best is None or loss < best[0]:
            best = loss, vt.T @ (s / (s**2 + strength) * of_y)
    assert best is not None
    return np.asarray(y.mean() + z_at @ best[1])
