"""What every kind of evaluation is: settings that measure a trained potential, and score what was
measured."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from sapis_lab.config import KindConfig, fingerprint, identity
from sapis_lab.measures import Quantity

if TYPE_CHECKING:
    from sapis_lab.data import FrameStore
    from sapis_lab.potential import Potential
    from sapis_lab.structures import Structure

Measured = Mapping[str, Mapping[str, np.ndarray]]
"""Raw arrays by name, of every part of a measurement by its name."""


@dataclass(frozen=True)
class Subject:
    """What is evaluated: a trained potential, and the frames of its study."""

    potential: Potential
    store: FrameStore
    """All labelled frames, those that the point was not trained on too."""
    device: str
    """'cpu', 'cuda' or 'cuda:K'; the potential is there."""

    @property
    def test_splits(self) -> tuple[str, ...]:
        """Names of the test sets that have frames."""
        return tuple(name for name, ids in self.store.splits.items() if name.startswith("test") and len(ids))

    def test_frames(self, most: int | None = None) -> np.ndarray:
        """Ids (n,) of the frames of the first test set, at most `most` from its start.

        Raises:
            ValueError: there are none.
        """
        if not self.test_splits:
            raise ValueError(f"{self.store.folder.name} has no test frames; wanted some to evaluate on")
        return np.asarray(self.store.splits[self.test_splits[0]])[:most]

    def want_energies(self) -> None:
        """ValueError where the potential learnt properties alone."""
        if not self.potential.model.gives_energy:
            raise ValueError(
                f"the potential learnt {', '.join(self.potential.heads)} and no energies; this evaluation "
                "wants energies and forces"
            )

    def structures(self, ids: np.ndarray) -> list[Structure]:
        """The frames `ids` (n,) of the store, without their labels."""
        from sapis_lab.structures import Structure

        frames = self.store.frames(ids)
        ends = np.cumsum(frames.n_atoms)
        return [
            Structure(frames.species[end - n : end], frames.positions[end - n : end], cell, pbc)
            for n, end, cell, pbc in zip(frames.n_atoms, ends, frames.cell, frames.pbc, strict=True)
        ]


class Evaluation(KindConfig):
    """Settings of a kind of evaluation; subclasses are the kinds."""

    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9.]*$", max_length=40)
    """Tells evaluations of one kind apart, where a study has several; part of the names of their columns."""

    @property
    def label(self) -> str:
        """What its file is called, and what its columns begin with: the kind, and the name if it has one."""
        return self.kind if self.name is None else f"{self.kind}-{self.name}"

    @classmethod
    @abstractmethod
    def quantities(cls) -> tuple[Quantity, ...]:
        """What `score` gives, by the keys that it gives. A key and its label may have places for words, as in
        '{split}_force_mae_{element}' (`Quantity.filled`)."""

    @abstractmethod
    def parts(self, subject: Subject) -> tuple[str, ...]:
        """Names of the parts in which it is measured. Each is written to the disk when it is there, so that
        an interrupted measurement goes on with the next."""

    @abstractmethod
    def measure(self, subject: Subject, part: str) -> dict[str, np.ndarray]:
        """Raw arrays of one part, expensive: what scores are computed from, not the scores."""

    @abstractmethod
    def score(self, measured: Measured) -> dict[str, float]:
        """The numbers, from the arrays of all parts alone: cheap, the same every time, and without torch."""

    def identity(self) -> dict[str, Any]:
        """What the numbers of this evaluation depend on: its settings but its name, and the kind's
        version."""
        return {**{k: v for k, v in identity(self).items() if k != "name"}, "version": type(self).version}

    def fingerprint(self, *, weights: str, data: Mapping[str, Any]) -> str:
        """sha256 of all that its numbers depend on.

        Args:
            weights: sha256 of the file of weights.   data: identity of the frames, with the version of their
                kind.
        """
        return fingerprint({"evaluation": self.identity(), "weights": weights, "data": dict(data)})

    def checked(self, scores: Mapping[str, float]) -> dict[str, float]:
        """`scores`, which are finite numbers of quantities that the kind has.

        Raises:
            ValueError: they are not; the message names one.
        """
        known = type(self).quantities()
        for key, value in scores.items():
            if not np.isfinite(value):
                raise ValueError(f"{key} is {value}")
            if not any(q.filled(key) for q in known):
                raise ValueError(
                    f"{key!r} is scored, but the quantities of {self.kind!r} are "
                    f"{', '.join(q.key for q in known)}"
                )
        return {key: float(value) for key, value in scores.items()}
