"""What every generator offers: structures near, or about, one that is given, whose random numbers come from
the caller alone. Unlike a sampler's, they are no chain: none follows from another.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from pydantic import Field

from sapis_lab.config import KindConfig
from sapis_lab.neighbors import closest, neighbor_list

TRIES = 1000
"""How often a random structure whose atoms come too close is drawn again."""


class Start(NamedTuple):
    """The structure that others are made from."""

    species: np.ndarray
    """(n_atoms,) atomic numbers."""
    positions: np.ndarray
    """(n_atoms, 3), Å."""
    masses: np.ndarray
    """(n_atoms,), amu."""
    cell: np.ndarray | None = None
    """(3, 3), Å, rows are lattice vectors; None without periodicity."""
    pbc: tuple[bool, bool, bool] = (False, False, False)


class Configuration(NamedTuple):
    """What a generator makes; elements and periodicity are those of the start."""

    positions: np.ndarray
    """(n_atoms, 3), Å."""
    cell: np.ndarray | None = None
    """(3, 3), Å."""


Surface = Callable[[np.ndarray], tuple[float, np.ndarray]]
"""Positions (n_atoms, 3) in Å, in the cell of the start, to energy in eV and forces (n_atoms, 3) in eV/Å."""


class GeneratorConfig(KindConfig):
    """Settings of a generator; subclasses are the generator kinds."""

    min_distance: float = Field(default=0.6, ge=0.3, le=10)
    """Å; random structures with atoms that are closer are drawn again, others are refused."""

    @abstractmethod
    def generate(
        self, start: Start, surface: Surface, *, n: int, generator: np.random.Generator
    ) -> list[Configuration]:
        """`n` structures.

        Args:
            surface: of the oracle that labels; for kinds that look at energies or forces.

        Raises:
            ValueError: the start is not what the kind needs.
        """

    def too_close(self, start: Start, made: Configuration) -> str | None:
        """Which atoms are closer than `min_distance`, in words; None where none are."""
        pairs = neighbor_list(made.positions, made.cell, np.array(start.pbc), self.min_distance)
        found = closest(made.positions, made.cell, pairs)
        return None if found is None else str(found)

    def drawn(
        self, draw: Callable[[], Configuration], start: Start, *, n: int, what: str
    ) -> list[Configuration]:
        """`n` structures by `draw`, each drawn again while atoms come too close.

        Raises:
            ValueError: no structure is found within `TRIES` draws.
        """
        made: list[Configuration] = []
        while len(made) < n:
            for _ in range(TRIES):
                one = draw()
                why = self.too_close(start, one)
                if why is None:
                    made.append(one)
                    break
            else:
                raise ValueError(
                    f"generator {self.kind!r}: in each of {TRIES} draws {why}, closer than min_distance="
                    f"{self.min_distance} Å; lower {what} or min_distance"
                )
        return made
