"""Files become frames of a store, in a stream that goes on where it was interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sapis_lab.data._changes import Change
from sapis_lab.data._file_blocks import Source, blocks_of, reading_of
from sapis_lab.data._file_filters import is_isolated
from sapis_lab.data._file_found import Found
from sapis_lab.data._file_labels import (
    Scales,
    charges_of,
    complete,
    labelled,
    level_of,
    refuse_other_units,
    scales,
)
from sapis_lab.data._group_keys import GroupKeys
from sapis_lab.data._places import Places
from sapis_lab.data._sources import reading
from sapis_lab.data._store import Frames, FrameStore, Property
from sapis_lab.formats import Block

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sapis_lab.data._file_settings import FileSettings

_APPEND_ATOMS = 200_000
"""Atoms that are gathered before they are appended to a store: about 10 MB."""
_PROGRESS = "files"


def begun(
    config: FileSettings,
    folder: Path,
    columns: tuple[str, ...],
    properties: Mapping[str, Property],
    change: Change,
    looks: dict[str, list[int]],
) -> tuple[FrameStore, Places, Found]:
    """The store that an interrupted conversion of these files left, with what it knew then, or an empty one.
    One that groups frames by a key begins again: which group a frame belongs to is not kept."""
    store = FrameStore.resume(folder, columns=columns, properties=properties)
    state = store.progress.get(_PROGRESS)
    if state is None or state["found"]["looks"] != looks or (config.split_by is not None and state["keyed"]):
        store = FrameStore.create(folder, columns=columns, properties=properties)
        return store, Places(), Found(keys=GroupKeys(config.split_by), looks=looks)
    change.left_out |= state["left_out"]
    found = Found.from_plain(state["found"])
    found.keys = GroupKeys(config.split_by)
    return store, Places.from_plain(state["places"]), found


def looks_of(files: list[Path]) -> dict[str, list[int]]:
    """Size, times of the last changes and number on the disk of files, by their path: what tells that they
    are what they were."""
    found = {str(file): file.stat() for file in files}
    return {n: [s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for n, s in found.items()}


def convert_file(
    config: FileSettings,
    root: Path,
    source: Source,
    store: FrameStore,
    places: Places,
    found: Found,
    change: Change,
) -> None:
    """Append the frames of one file to the store; with what was read of it until an interruption, the
    others."""
    mark = (store.progress.get(_PROGRESS) or {}).get("read", {})
    skip = int(mark.get(source.name, 0))
    to = scales(config, source.format.fixed, source.path)
    held: list[Frames] = []
    with reading(root, *source.files):
        told = source.format.units_told(source.path, reading_of(config, root, source, labels=True))
        refuse_other_units(told, config, source.format.fixed, source.path)
        for block, n_read in blocks_of(config, root, source, change, labels=True, skip=skip, met=found.met):

            def place(k: int, numbers: np.ndarray = block.numbers) -> str:
                return f"{source.path}, frame {numbers[k]}"

            frames = labelled(config, block, place, to)
            alone = is_isolated(block) if config.isolated_frames == "take" else np.zeros(len(block), bool)
            for one in np.nonzero(alone)[0].tolist():
                z = int(block.species[np.cumsum(block.n_atoms)[one] - 1])
                found.isolated.setdefault(z, {})[place(one)] = float(frames.energy[one])
            found.count("isolated_atoms", int(alone.sum()))
            for key, values in level_of(block).items():
                if not {key, key.casefold()} & set(config.where):
                    for k, value in enumerate(values):
                        found.levels.setdefault(key, {}).setdefault(str(value), place(k))
            for where, values in charges_of(config, block).items():
                if not {where[1], where[1].casefold()} & set(config.where):
                    for k, value in enumerate(values):
                        if not alone[k]:
                            found.charges.setdefault(where, {}).setdefault(_plain(value), place(k))
            found.compare_energies(_energy_gap(config, block, to))
            keep = ~alone
            if config.missing == "drop":
                whole = complete(config, frames)
                found.count("missing_labels", int((keep & ~whole).sum()))
                keep &= whole
            if not keep.all():
                frames = _chosen(frames, keep)
            places.add(source.path, block.numbers[keep])
            found.keys.add(block, keep, place(0))
            held.append(frames)
            if sum(int(part.n_atoms.sum()) for part in held) > _APPEND_ATOMS:
                append(store, held, _state(source.name, n_read, places, found, change))
                held = []
        append(store, held, _state(source.name, 10**15, places, found, change))


def _plain(value: Any) -> str:
    """A value as text; 1, 1.0 and "1.0" are the same."""
    try:
        return f"{float(value):g}"
    except ValueError:
        return str(value)


def _energy_gap(config: FileSettings, block: Block, to: Scales) -> float:
    """Largest difference between energy and free energy of the frames, eV, where the energy is read."""
    values = [block.frame_labels.get(key) for key in ("energy", "free_energy")]
    if config.energy_key != "energy" or any(value is None for value in values):
        return 0.0
    try:
        energy, free = (np.array(value, dtype=np.float64) for value in values)
        gap = np.abs(energy - free)
    except ValueError:
        return 0.0
    return float(np.max(gap[np.isfinite(gap)], initial=0.0)) * to.energy


def append(store: FrameStore, held: list[Frames], state: dict[str, Any]) -> None:
    before = store.progress.get(_PROGRESS) or {}
    done = {_PROGRESS: {**before, **state, "read": {**before.get("read", {}), **state["read"]}}}
    parts = [part for part in held if len(part)]
    if parts:
        store.append(_together(parts), done=done)


def _state(name: str, n_read: int, places: Places, found: Found, change: Change) -> dict[str, Any]:
    """What an interrupted conversion needs to go on, as JSON."""
    return {
        "read": {name: n_read},
        "places": places.plain(),
        "found": found.plain(),
        "left_out": dict(change.left_out),
        "keyed": found.keys.name is not None,
    }


def _together(parts: list[Frames]) -> Frames:
    if len(parts) == 1:
        return parts[0]
    names = [name for name, value in vars(parts[0]).items() if value is not None and name != "properties"]
    return Frames(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names},
        properties={
            name: np.concatenate([part.properties[name] for part in parts]) for name in parts[0].properties
        },
    )


def _chosen(frames: Frames, keep: np.ndarray) -> Frames:
    """The frames `keep`, (n_frames,) bool."""
    atoms = np.repeat(keep, frames.n_atoms)

    def rows(value: np.ndarray) -> np.ndarray:
        return value[atoms] if len(value) == len(atoms) and len(value) != len(keep) else value[keep]

    # of one atom a frame the two masks are the same
    given = {
        name: value for name, value in vars(frames).items() if value is not None and name != "properties"
    }
    return Frames(
        **{name: rows(value) for name, value in given.items()},
        properties={name: rows(value) for name, value in frames.properties.items()},
    )
