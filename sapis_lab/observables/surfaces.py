"""Energies, forces and stress of anything as one function: `potential.predict` of a trained potential is one,
`of_oracle(oracle)` makes one of a source of labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from sapis_lab.oracles import Failed, OracleConfig
from sapis_lab.structures import Structure


class Found(NamedTuple):
    """What is known of B structures with A atoms in all."""

    energy: np.ndarray
    """(B,) eV."""
    forces: np.ndarray
    """(A, 3) eV/Å."""
    stress: np.ndarray | None = None
    """(B, 3, 3) eV/Å³, positive is tension; where it was asked for."""


class Predict(Protocol):
    """From structures to what has `energy`, `forces` and `stress` as `Found`."""

    def __call__(self, structures: Sequence[Structure], /, *, stress: bool = False) -> Any:
        """What the surface is at the structures."""


def of_oracle(oracle: OracleConfig) -> Predict:
    """The surface of a source of labels.

    Raises (when it is called):
        ValueError: a structure could not be labelled, or there is no stress.
    """

    def predict(structures: Sequence[Structure], /, *, stress: bool = False) -> Found:
        labels = []
        for k, s in enumerate(structures):
            found = oracle.label(s.species, s.positions, cell=s.cell, pbc=s.pbc)
            if isinstance(found, Failed):
                raise ValueError(f"oracle {oracle.kind!r} failed at structure {k}: {found.reason}")
            if stress and found.stress is None:
                raise ValueError(f"oracle {oracle.kind!r} gives no stress, which this observable needs")
            labels.append(found)
        return Found(
            np.array([one.energy for one in labels]),
            np.concatenate([one.forces for one in labels]),
            np.array([one.stress for one in labels]) if stress else None,
        )

    return predict


class Whole(NamedTuple):
    """A structure with arrays of their types, a cell of zeros where there is none, and pbc."""

    species: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray

    @property
    def structure(self) -> Structure:
        """What is predicted."""
        return Structure(self.species, self.positions, self.cell, self.pbc)

    @property
    def volume(self) -> float:
        """Å³."""
        return abs(float(np.linalg.det(self.cell)))

    def at(self, positions: np.ndarray) -> Structure:
        """With other positions."""
        return self.structure._replace(positions=positions)

    def turned(self, turn: np.ndarray) -> Whole:
        """With cell and positions multiplied by `turn` (3, 3) from the right."""
        return self._replace(cell=self.cell @ turn, positions=self.positions @ turn)


def whole(structure: Structure) -> Whole:
    """`structure` with nothing left open."""
    return Whole(
        np.asarray(structure.species, dtype=int),
        np.asarray(structure.positions, dtype=float),
        np.zeros((3, 3)) if structure.cell is None else np.asarray(structure.cell, dtype=float),
        np.zeros(3, dtype=bool) if structure.pbc is None else np.asarray(structure.pbc, dtype=bool),
    )
