"""Whether frames are put into the right order: Kendall's tau-b of predictions and labels in every test set
(Kendall, Biometrika 33, 239, 1945), 1 for the same order, 0 for none, -1 for the reverse.

An order can be right where the scale is not, as between assays of one target; and one scalar of a frame may
give as good an order as a model. `beside` names such scalars, and their tau stands beside, with its sign: a
larger one means a larger label. A tau that is undefined, since all frames have the same value, is left out.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from sapis_lab.evaluation import Evaluation, Measured, Subject
from sapis_lab.measures import Quantity
from sapis_lab.targets import PropertyName


class RankingConfig(Evaluation):
    """Kendall's tau of predictions and labels, on every test set."""

    kind: Literal["ranking"] = "ranking"
    of: PropertyName | None = None
    """The target whose order is looked at, a scalar per frame; by default the first that a head has learnt,
    or else the energy."""
    beside: tuple[PropertyName, ...] = Field(default=(), max_length=100)
    """Scalars of the frames in the data whose order is looked at as well, such as molecular_weight."""

    @classmethod
    def quantities(cls) -> tuple[Quantity, ...]:
        return (
            Quantity("{split}_tau", "{split} Kendall tau", "", better="higher"),
            Quantity("{split}_tau_of_{other}", "{split} Kendall tau of {other}", "", better="higher"),
        )

    def _key(self, subject: Subject) -> str:
        learnt = subject.potential.heads
        known = [key for key, one in learnt.items() if one.target.per == "frame" and not one.target.rank]
        known += ["energy"] if subject.potential.model.gives_energy else []
        if not known or self.of not in (None, *known):
            raise ValueError(
                f"evaluate: ranking: wanted a scalar per frame that the potential predicts, got "
                f"{self.of or 'none'}; it predicts {', '.join(known) or ', '.join(learnt)}"
            )
        return self.of or known[0]

    def parts(self, subject: Subject) -> tuple[str, ...]:
        """The test sets."""
        self._key(subject)
        subject.test_frames(1)  # there are some
        unknown = [name for name in self.beside if name not in subject.store.properties]
        if unknown:
            raise ValueError(
                f"evaluate: ranking: beside names {unknown[0]!r}, and the frames have "
                f"{', '.join(subject.store.properties) or 'no scalars beside their labels'}"
            )
        return subject.test_splits

    def measure(self, subject: Subject, part: str) -> dict[str, np.ndarray]:
        """Labels, predictions and further scalars, (n,) each, of the frames of a test set that have a
        label."""
        key, ids = self._key(subject), np.asarray(subject.store.splits[part])
        ids = ids[~np.isnan(subject.store.label_column(key)[ids])]
        if len(ids) < 2:
            raise ValueError(f"{part} has {len(ids)} frames with a label of {key}, wanted two to be in order")
        found = subject.potential.predict(subject.structures(ids))
        return {
            "label": subject.store.label_column(key)[ids],
            "predicted": found.energy if key == "energy" else found.properties[key],
            **{f"of_{name}": subject.store.label_column(name)[ids] for name in self.beside},
        }

    def score(self, measured: Measured) -> dict[str, float]:
        scores = {}
        for split, arrays in measured.items():
            for name, values in arrays.items():
                if name == "label":
                    continue
                tau = kendall(values, arrays["label"])
                if tau is not None:
                    scores[f"{split}_tau" + ("" if name == "predicted" else f"_{name}")] = tau
        return scores


def kendall(a: np.ndarray, b: np.ndarray) -> float | None:
    """Kendall's tau-b of two rows of numbers (n,): pairs in the same order minus pairs in the other, over the
    geometric mean of the pairs that are no ties in a and in b; None where all are ties."""
    i, j = np.triu_indices(len(a), 1)
    of_a, of_b = np.sign(a[i] - a[j]), np.sign(b[i] - b[j])
    n = np.sqrt(float(np.count_nonzero(of_a)) * float(np.count_nonzero(of_b)))
    return float((of_a * of_b).sum() / n) if n else None
