"""What the reference energies of a potential were made from, and which energies they therefore leave without
a meaning.

Fitted on molecules of one composition only their sum over that composition is determined: with ethanol alone
every element gets the mean energy per atom, and a lone H would have -468 eV. In general Σ_s n_s e_s is
determined for compositions n in the span of the training compositions. Energies of others have an arbitrary
offset; forces, and differences between structures of one composition, have none.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field

from sapis_lab.config import Config
from sapis_lab.data import SYMBOLS

_OUTSIDE = 1e-6
"""Part of a composition outside the span, by length, beyond which it is outside; they are small whole
numbers."""


class UndeterminedEnergy(UserWarning):
    """The energy of a structure has an offset that the training data do not determine."""


class ReferencesFrom(Config):
    """Record of what reference energies were made from."""

    kind: Literal["ridge", "isolated"]
    """`ridge`: fitted on the training frames; `isolated`: isolated atoms and one constant per atom."""
    compositions: tuple[dict[Annotated[int, Field(ge=1, le=118)], Annotated[int, Field(ge=1)]], ...]
    """Compositions of training frames (number of atoms by atomic number) that span all of them; the smallest,
    so that a lone atom is among them if training frames had one."""

    @classmethod
    def of_frames(
        cls, counts: np.ndarray, elements: tuple[int, ...], *, kind: Literal["ridge", "isolated"]
    ) -> Self:
        """The record for training frames.

        Args:
            counts: (n_frames, n_elements), atoms of each element in each frame.   elements: their atomic
                numbers.
        """
        chosen: list[np.ndarray] = []
        basis = np.zeros((0, len(elements)))
        distinct = np.unique(counts, axis=0)
        for row in distinct[np.argsort(distinct.sum(1), kind="stable")]:
            rest = _beyond(row, basis)
            if np.linalg.norm(rest) > _OUTSIDE * np.linalg.norm(row):
                chosen.append(row)
                basis = np.vstack([basis, rest / np.linalg.norm(rest)])
            if len(chosen) == len(elements):
                break
        named = tuple({int(z): int(n) for z, n in zip(elements, row, strict=True) if n} for row in chosen)
        return cls(kind=kind, compositions=named)

    def plain(self) -> dict[str, object]:
        """This record for YAML."""
        return {"kind": self.kind, "compositions": [dict(composition) for composition in self.compositions]}

    def doubt(self, species: np.ndarray, *, lone: bool) -> str | None:
        """What is wrong with the energy of a structure, in words, where the references leave it undetermined.

        Args:
            species: (n_atoms,) atomic numbers.   lone: it is one atom without neighbours.

        Raises:
            ValueError: a lone atom, which fitted references say nothing of, even where its energy in a
            crystal is known.
        """
        elements, counts = np.unique(species, return_counts=True)
        composition = {int(z): int(n) for z, n in zip(elements, counts, strict=True)}
        if lone and composition not in self.compositions:
            return self._doubt_lone(_formula(composition))
        if self.determine(composition):
            return None
        return (
            f"the energy of {_formula(composition)} has an arbitrary offset: the reference energies were "
            f"fitted on "
            f"{self.names()} and are determined for combinations of these alone; forces are not concerned, "
            f"nor energy "
            "differences at one composition"
        )

    def _doubt_lone(self, symbol: str) -> str:
        if self.kind == "ridge":
            raise ValueError(
                f"a lone {symbol} atom: its energy, and atomisation energies with it, would have no meaning, "
                f"since the reference "
                f"energies were fitted on training frames ({self.names()}) without lone atoms; take the "
                f"isolated atom from the "
                "method of the labels"
            )
        return (
            f"a lone {symbol} atom: training showed none, so its energy is not that of the isolated atom: it "
            f"is off by a constant "
            "per atom and by what the model makes of no neighbours; for atomisation energies take the "
            "isolated atom itself"
        )

    def names(self) -> str:
        """The compositions as formulas."""
        return ", ".join(_formula(composition) for composition in self.compositions)

    def determine(self, composition: dict[int, int]) -> bool:
        """Whether the sum of the reference energies over `composition` is determined."""
        if self.kind == "isolated":
            return True
        elements = sorted({*composition, *(z for known in self.compositions for z in known)})
        known, row = (
            np.array([[c.get(z, 0) for z in elements] for c in some], dtype=float)
            for some in (self.compositions, [composition])
        )
        # rows of the span are orthonormal in the transposed Q; the compositions are independent
        basis = np.linalg.qr(known.T)[0].T
        return bool(np.linalg.norm(_beyond(row[0], basis)) <= _OUTSIDE * np.linalg.norm(row))


def _beyond(row: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """The part of `row` (n,) outside the span of the orthonormal rows `basis` (k, n); projected twice,
    against rounding."""
    for _ in range(2):
        row = row - (row @ basis.T) @ basis
    return row


def _formula(composition: dict[int, int]) -> str:
    symbols = sorted((SYMBOLS[z], n) for z, n in composition.items())
    return "".join(f"{symbol}{n if n > 1 else ''}" for symbol, n in symbols)
