"""The data of a study, made before any of its points needs them: for `study run`, `tune` and `scale`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from sapis_lab.config import ConfigError, fingerprint, plainly
from sapis_lab.sweep.board import DataBoard
from sapis_lab.sweep.words import shown

if TYPE_CHECKING:
    from sapis_lab.data import FrameStore
    from sapis_lab.sweep.study import Study


def data_identity(study: Study) -> dict[str, Any]:
    """What names the data of a study in its provenance."""
    identity = study.data.identity()
    return {"kind": study.data.kind, "fingerprint": fingerprint(identity)}


def prepare_data(study: Study, *, cores: int, console: Console) -> FrameStore:
    """The frame store and the neighbour tables of all cutoffs, made once and before any point needs them.

    Args:
        cores: of this machine, to work on.

    Raises:
        ConfigError: the data cannot be made, or lack what the training of the study wants of them.
    """
    from sapis_lab.data import prepare

    with DataBoard(console) as board:
        about = f"data {study.data.kind!r}"
        store = plainly(
            lambda: prepare(study.data, cache=study.run.cache_folder, n_workers=cores, progress=board),
            about=about,
        )
        if study.train.references == "isolated" and store.isolated_atoms is None:
            raise ConfigError(
                f"train.references: 'isolated' is wanted, but {about} have no energies of isolated atoms; "
                f"use ridge"
            )
        for cutoff in sorted({m.cutoff for m in study.models}):
            make = partial(store.neighbors, cutoff, n_workers=cores, progress=board)
            plainly(make, about=about)
    sizes = {name: len(ids) for name, ids in store.splits.items()}
    console.print(
        Text(
            f"data ready: {', '.join(f'{n} {name}' for name, n in sizes.items())} frames in "
            f"{shown(store.folder)}"
        ),
        soft_wrap=True,
    )
    return store
