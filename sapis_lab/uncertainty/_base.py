"""What every estimate of an uncertainty is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from sapis_lab.elements import SYMBOLS
from sapis_lab.potential import Predictions
from sapis_lab.structures import AtomsLike, Structure

Structures = Structure | AtomsLike | Iterable[Structure | AtomsLike]


class Judged(NamedTuple):
    """Predictions of B structures with A atoms in all, and their standard deviations."""

    predictions: Predictions
    """Of an ensemble the mean over its members."""
    energy_std: np.ndarray
    """(B,) eV, of the total energies"""
    forces_std: np.ndarray
    """(A, 3) eV/Å, of every component"""

    @property
    def atoms_std(self) -> np.ndarray:
        """(A,) eV/Å, sqrt of the sum of the variances of the three components of a force."""
        return np.asarray(np.sqrt(np.square(self.forces_std).sum(1)))


class Uncertainty(ABC):
    """A trained potential, or several, with an estimate of their errors."""

    @abstractmethod
    def judge(self, structures: Structures, *, stress: bool = False) -> Judged:
        """Energies, forces and, on request, stress of one or several structures, with standard deviations;
        errors as those of `Potential.predict`."""


class TooUncertain(RuntimeError):
    """A force whose standard deviation is beyond what was allowed: a simulation should not go on from
    there."""


def refuse_uncertain(
    judged: Judged, species: np.ndarray, *, stop_above: float, where: str = "this structure"
) -> None:
    """TooUncertain where the force on an atom has a standard deviation above `stop_above` (eV/Å); the message
    names the atom, of several the one with the largest.

    Args:
        species: (A,) atomic numbers.   where: which structure or step it is, in words.
    """
    std = judged.atoms_std
    worst = int(np.argmax(std))
    if std[worst] > stop_above:
        raise TooUncertain(
            f"{where}: the force on atom {worst} ({SYMBOLS[int(species[worst])]}) has a standard "
            f"deviation of {std[worst]:.3g} eV/Å, above stop_above={stop_above:g}: the training data say "
            "little of such a structure; label it and train on it, or raise stop_above"
        )
