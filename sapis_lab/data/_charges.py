"""Total charges and spins of frames, which decide energies as positions do."""

from __future__ import annotations

import numpy as np

from sapis_lab.data._store import FrameStore

_CHARGES = ("total_charge", "multiplicity")


def refuse_mixed_charges(store: FrameStore) -> None:
    """ValueError where the frames of the splits are of several charges or spins: no model of this package
    takes them as an input, and would learn the mean of several energies of the same positions."""
    for name in _CHARGES:
        if name not in store.properties:
            continue
        ids = np.sort(np.concatenate([np.asarray(part) for part in store.splits.values()]))
        values = np.asarray(store.label_column(name))[ids]
        found = np.unique(values[np.isfinite(values)])
        if len(found) > 1:
            told = ", ".join(f"{value:g}" for value in found[:5])
            raise ValueError(
                f"{store.folder}: frames have the {name.replace('_', ' ')} {told}, and no model takes it as "
                f"an input; choose one in the data set with where: {{KEY: {found[0]:g}}}"
            )
