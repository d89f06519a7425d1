"""What every label source offers: energy and forces of one structure, and what else it knows, as plain arrays
in the package's units.

A label is a pure function of the structure and the settings: an oracle keeps nothing from one call to the
next, so that labels do not depend on the order in which they are asked for. A calculation that does not
converge is a value, `Failed`, and never a number.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, NamedTuple, Self

import numpy as np

from sapis_lab.config import KindConfig


class Labels(NamedTuple):
    """What an oracle found of one structure; None for what it does not give."""

    energy: float
    """Total energy, eV."""
    forces: np.ndarray
    """(n_atoms, 3), eV/Å."""
    stress: np.ndarray | None = None
    """(3, 3), eV/Å³, positive is tension."""
    charges: np.ndarray | None = None
    """(n_atoms,), partial charges, e."""
    dipole: np.ndarray | None = None
    """(3,), e Å, about the origin of the positions."""


class Failed(NamedTuple):
    """A structure that could not be labelled."""

    reason: str


class OracleConfig(KindConfig):
    """Settings of a label source; subclasses are the oracle kinds."""

    gives: ClassVar[frozenset[str]] = frozenset()
    """What its labels hold besides energy and forces: of stress, charges, dipole."""
    periodic: ClassVar[bool] = False
    """Whether it can label structures with periodic boundaries."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Packages on whose versions its labels depend; recorded with the frames."""

    @abstractmethod
    def label(
        self,
        species: np.ndarray,
        positions: np.ndarray,
        *,
        cell: np.ndarray | None = None,
        pbc: np.ndarray | None = None,
    ) -> Labels | Failed:
        """The labels of one structure.

        Args:
            species: (n_atoms,) atomic numbers.   positions: (n_atoms, 3), Å.
            cell: (3, 3), Å, rows are lattice vectors.   pbc: (3,) bool; all False when not given.

        Raises:
            ImportError: the package that computes is not installed; the message names the extra.
            ValueError: the settings cannot label such a structure (elements, periodic boundaries, charge).
        """

    @abstractmethod
    def seconds(self, n_atoms: int) -> float:
        """Expected CPU time of one label of `n_atoms` atoms, s; an estimate for plans."""

    @abstractmethod
    def level(self) -> str:
        """Level of theory and the program, as metadata name it: 'GFN2-xTB, tblite, accuracy 0.01'."""

    def files(self) -> tuple[str, ...]:
        """Files under $SAPIS_DATA on which its labels depend; recorded with the frames."""
        return ()

    def for_dynamics(self) -> Self:
        """The same surface at the accuracy that moving on it needs; forces along a trajectory may be coarser
        than its labels."""
        return self

    def refuse_periodic(self, pbc: np.ndarray | None) -> None:
        """Raise ValueError where the structure is periodic and this kind cannot label such."""
        if pbc is not None and np.any(pbc) and not type(self).periodic:
            raise ValueError(
                f"oracle {self.kind!r} labels molecules only, got pbc={np.asarray(pbc).tolist()}"
            )
