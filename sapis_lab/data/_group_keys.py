"""Which frames of files belong together, by a key that they carry: a trajectory, a molecule, a system."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import BeforeValidator

from sapis_lab.data._groups import Groups, SplitBy, named_split
from sapis_lab.formats import Block, spelled

KNOWN = ("group", "trajectory", "traj", "traj_id", "molecule", "mol_id", "system", "system_id", "sid")
"""Keys (in any case) that say what frames belong to."""

_MOST_BYTES = 1 << 26
"""Of names of groups, one for every frame."""

FilesSplitBy = Annotated[
    SplitBy | Literal["auto"] | None,
    BeforeValidator(lambda value: value if value == "auto" else named_split(value)),
]
"""The setting `split_by` of files; auto goes by the first of KNOWN that all frames carry."""


class GroupKeys:
    """Collects what the frames that are kept say of a key, block by block."""

    def __init__(self, split_by: SplitBy | str | None) -> None:
        self._name = split_by.key if isinstance(split_by, SplitBy) else None
        self._auto, self._begun = split_by == "auto", False
        self._codes: list[np.ndarray] = []
        self._known: dict[str, int] = {}

    @property
    def wanted(self) -> bool:
        """Whether anything is collected."""
        return self._auto or self._name is not None

    @property
    def name(self) -> str | None:
        """The key, once it is known; None where frames are not grouped by one."""
        return self._name

    def add(self, block: Block, keep: np.ndarray, place: str) -> None:
        """The frames `keep`, (n_frames,) bool, of a block.

        Raises:
            ValueError: frames lack a key that the settings name.
        """
        if not self.wanted:
            return
        if self._auto and not self._begun:
            self._name = next((k for name in KNOWN if (k := spelled(block.frame_labels, name, place))), None)
            self._auto = self._name is not None
        self._begun = True
        if self._name is None:
            return
        key = spelled(block.frame_labels, self._name, place)
        if key is None and self._auto:
            self._auto, self._name = False, None
            return
        if key is None:
            raise ValueError(
                f"{place}: no key {self._name!r} to split by; it has "
                f"{', '.join(block.frame_labels) or 'none'}"
            )
        values = block.frame_labels[key]
        texts = [str(value) for value in values.reshape(len(values), -1)[keep][:, 0]]
        codes = [self._known.setdefault(text, len(self._known)) for text in texts]
        self._codes.append(np.array(codes, dtype=np.int32))

    def groups(self, ids: np.ndarray, *, n_atoms: np.ndarray | None = None) -> Groups | None:
        """The groups of the frames `ids` (n,), numbered in the order in which they were added; None where
        they have none.

        Args:
            n_atoms: (n,) where the largest frames are for testing.
        """
        if self._name is None or not self._codes:
            return None
        labels, names = np.concatenate(self._codes)[ids], np.array(list(self._known))
        if len(names) and names.dtype.itemsize * len(labels) < _MOST_BYTES:
            labels = names[labels]  # which messages name
        return Groups(labels, n_atoms)
