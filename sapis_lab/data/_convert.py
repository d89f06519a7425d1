"""Conversion of labelled frames between file formats and frame stores, in a stream.

A source is a store or a file (or folder) of any known format, whose units, signs and keys are settings of the
kind `files`; its frames are brought to eV and Å, with forces as forces and stress as tension, as in the
making of a store. Other labels travel under their own names as they are. What is named after a physical
quantity and has no known unit is left out, and said.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sapis_lab.data._base import Progress
from sapis_lab.data._file_blocks import file_blocks, file_source
from sapis_lab.data._file_labels import labelled, scales
from sapis_lab.data._store import LABELS, Frames, FrameStore, Property
from sapis_lab.data.files import FilesConfig
from sapis_lab.errors import ConfigError
from sapis_lab.files import flush_folder, replacing, temporary_of
from sapis_lab.formats import BLOCK_ATOMS, Block, Format, Written, format_of, known

STORE = "store"
"""What a frame store is called among the formats of targets."""
_OWN = ("energy", "forces", "stress", "virial", "dipole", "charges")
_PHYSICAL = (*_OWN, "free_energy", "energies", "atomic_energy", "magmom", "magmoms", "momenta", "velocities")
"""Labels whose unit matters."""
_WHOLE = re.compile(r"[+-]?\d{1,15}")
_SPLIT, _ORDER = "split", "split_order"


class Source(NamedTuple):
    """Frames that can be converted."""

    blocks: Iterator[Block]
    """In eV and Å, with the names of `sapis_lab.formats._writing`."""
    n_frames: int
    notes: list[str]
    """What is left out; it grows while the blocks are read."""


def from_store(store: FrameStore, *, split: str | None = None) -> Source:
    """The frames of a store in their stored order, with their split and place in it as labels; or those of
    one split, in its order.

    Raises:
        ValueError: it has no such split.
    """
    if split is not None and split not in store.splits:
        raise ValueError(f"{store.folder} has no split {split!r}; it has {', '.join(store.splits)}")
    ids = np.arange(store.n_frames) if split is None else np.asarray(store.splits[split])
    return Source(_of_store(store, ids, whole=split is None), len(ids), [])


def _of_store(store: FrameStore, ids: np.ndarray, *, whole: bool) -> Iterator[Block]:
    step = max(1, BLOCK_ATOMS * store.n_frames // max(1, len(store.species)))
    names, places = np.full(store.n_frames, "", dtype=object), np.zeros(store.n_frames)
    for name, members in store.splits.items() if whole else ():
        names[members], places[members] = name, np.arange(len(members))
    for start in range(0, len(ids), step):
        some = ids[start : start + step]
        block = block_of(store.frames(some), np.arange(start, start + len(some)), store.properties)
        if whole and store.splits:
            block.frame_labels.update({_SPLIT: names[some], _ORDER: places[some]})  # type: ignore[attr-defined]
        yield block


def block_of(frames: Frames, numbers: np.ndarray, declared: Mapping[str, Property]) -> Block:
    """Frames of a store as a block; labels that all of them lack are left out."""
    of_frames: dict[str, np.ndarray | None] = {
        name: getattr(frames, name) for name in ("energy", "stress", "dipole", "time", "oracle", "round")
    }
    of_atoms: dict[str, np.ndarray | None] = {
        name: getattr(frames, name) for name in ("forces", "charges", "velocities")
    }
    for name, value in frames.properties.items():
        (of_frames if declared[name].per == "frame" else of_atoms)[name] = value
    return Block(
        numbers=numbers,
        n_atoms=frames.n_atoms,
        species=frames.species,
        positions=frames.positions,
        cell=frames.cell,
        pbc=frames.pbc,
        frame_labels={k: v for k, v in of_frames.items() if v is not None and not _all_lack(v)},
        atom_labels={k: v for k, v in of_atoms.items() if v is not None and not _all_lack(v)},
    )


def _all_lack(value: np.ndarray) -> bool:
    return value.dtype.kind == "f" and bool(np.isnan(value).all())


def from_file(path: Path, settings: Mapping[str, Any]) -> Source:
    """The frames of a file, or folder, of any known format.

    Args:
        settings: of the kind `files`, such as energy_unit, energy_key, format; keys of labels that the format
            fixes need not be given.

    Raises:
        ValueError: a setting is wrong or missing, or the file cannot be read.
    """
    used = format_of(path, str(settings.get("format", "auto")))
    usual = {"stress_key": "stress"} if "stress_unit" in used.fixed else {}
    usual |= {"virial_key": "virial"} if used.name == "deepmd" else {}
    if "energy_unit" in used.fixed:
        usual |= {"charges_key": "charges"} | ({"dipole_key": "dipole"} if used.name != "runner" else {})
    if "stress_key" in settings or "virial_key" in settings:
        usual = {k: v for k, v in usual.items() if k not in ("stress_key", "virial_key")}
    given = {"missing": "mask", **usual, **settings, "kind": "files", "root": str(path.parent)}
    from sapis_lab.config import load

    config = load(
        FilesConfig, {**given, "train": path.name, "n_validation": 1, "n_test": 1}, source=str(path)
    )
    notes: list[str] = []
    return Source(_of_file(config, path, used, notes), used.count(path), notes)


def _of_file(config: FilesConfig, path: Path, used: Format, notes: list[str]) -> Iterator[Block]:
    to = scales(config, used.fixed, path)
    declared = {name: label.stored for name, label in config.further_labels().items() if name not in LABELS}
    source = file_source(config, path.parent, path.name)
    read = {config.energy_key, config.forces_key, *config.keys}
    found_energy, kept = False, dict[str, None]()
    for block in file_blocks(config, path.parent, source):

        def place(k: int, numbers: np.ndarray = block.numbers) -> str:
            return f"{path}, frame {numbers[k]}"

        made = block_of(labelled(config, block, place, to), block.numbers, declared)
        found_energy |= "energy" in made.frame_labels
        if not found_energy and config.energy_key is not None:
            _note(
                notes,
                f"no energy is read: there is no {config.energy_key!r} among "
                f"{', '.join((*block.frame_labels, *block.unread)) or 'no labels'}; set energy_key",
            )
        fixed = used.fixed.get("energy_unit") == "eV"
        for mine, theirs in (
            (made.frame_labels, block.frame_labels),
            (made.atom_labels, block.atom_labels),
        ):
            for key, value in theirs.items():
                if key in read or key in mine or _all_lack(value):
                    continue
                if theirs is block.frame_labels and key in block.atom_labels:
                    continue  # numbers of as many components as there are atoms: formats offer both
                if key.casefold() in _PHYSICAL and not (fixed and key not in _OWN):
                    _note(notes, f"{key} is left out, because its unit is not known; set {_setting(key)}")
                    continue
                mine[key] = _as_numbers(value)  # type: ignore[index]
                if mine[key].dtype.kind == "f":
                    kept[key] = None
        if kept and (to.energy != 1 or to.length != 1):
            text = f"kept as they stand, in the units of the file: {', '.join(kept)}"
            notes[:] = [note for note in notes if not note.startswith("kept as they stand")] + [text]
        yield made


def _setting(key: str) -> str:
    name = key.casefold()
    return f"{name}_key" if name in _OWN else "properties with its factor"


def _note(notes: list[str], text: str) -> None:
    if text not in notes:
        notes.append(text)


def _as_numbers(value: np.ndarray) -> np.ndarray:
    """Text of numbers as numbers, where all of a block is; else as it is."""
    if value.dtype.kind not in "OU":
        return value
    try:
        rows = [[float(word) for word in str(text).split()] for text in value]
        numbers = np.array(rows)
        if all(_WHOLE.fullmatch(word) for text in value for word in str(text).split()):
            numbers = numbers.astype(np.int64)  # exact below 2**53
    except ValueError:
        return value
    if numbers.ndim != 2 or not numbers.shape[1]:
        return value
    return numbers[:, 0] if numbers.shape[1] == 1 else numbers


# ------------------------------------------------------------------------------------------------- targets


def target_format(target: Path, to: str | None) -> str:
    """The format that `target` is to be of: `to`, or what its ending says.

    Raises:
        ConfigError: it cannot be written.
    """
    can = {name: f for name, f in known().items() if f.can_write}
    choices = ", ".join([*can, STORE])
    if to is not None:
        if to not in (*can, STORE):
            raise ConfigError(f"--to {to}: wanted one of {choices}")
        return to
    try:
        name = format_of(target).name if target.suffix and not target.is_dir() else "deepmd"
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if name not in can:
        raise ConfigError(f"{target}: the format {name} is read and not written; give --to one of {choices}")
    if name == "extxyz" and not any(end in target.name.lower() for end in can[name].endings):
        raise ConfigError(f"{target}: its ending does not say a format; give --to one of {choices}")
    return name


def convert(source: Source, target: Path, name: str, *, progress: Progress) -> Written:
    """Write the frames of `source` to `target` in the format `name`; it takes its name in one step, when all
    are written.

    Raises:
        ConfigError: the target is there.   ValueError: what the source has cannot be read, or not be written
            in this format.
    """
    if target.exists():
        raise ConfigError(f"{target}: is there already; remove it, or choose another name")
    blocks = _followed(source, progress)
    if name not in ("deepmd", STORE):
        with replacing(target) as temporary:
            return _checked(known()[name].write(temporary, blocks, name=target), target)
    temporary = temporary_of(target)
    try:
        if name == STORE:
            done = _write_store(temporary, blocks, source)
        else:
            done = known()[name].write(temporary, blocks, name=target)
        _checked(done, target)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    flush_folder(target.parent)
    return done


def _checked(done: Written, target: Path) -> Written:
    if not done.n_frames:
        raise ValueError(f"{target}: no frames to write")
    return done


def _followed(source: Source, progress: Progress) -> Iterator[Block]:
    n = 0
    for block in source.blocks:
        yield block
        n += len(block)
        progress("converting frames", n, max(n, source.n_frames))


_COLUMNS = ("stress", "dipole", "charges", "velocities", "time")


def _write_store(folder: Path, blocks: Iterator[Block], source: Source) -> Written:
    """A sealed store; its splits are those of the labels `split` and `split_order` where the frames have
    them,
    or else all frames are for training. Forces become float32."""
    store: FrameStore | None = None
    names: list[np.ndarray] = []
    places: list[np.ndarray] = []
    declared: dict[str, Property] = {}
    notes = {"forces are kept as float32 in a store": None}
    for block in blocks:
        labels = dict(block.frame_labels)
        if _SPLIT in labels and _ORDER in labels:
            names.append(labels.pop(_SPLIT))
            places.append(labels.pop(_ORDER))
        if store is None:
            declared = _declared(labels, block.atom_labels)
            columns = tuple(c for c in _COLUMNS if c in labels or c in block.atom_labels)
            store = FrameStore.create(folder, columns=columns, properties=declared)
        for key in {*labels, *block.atom_labels} - {"energy", "forces", *store.columns, *declared}:
            notes[f"{key} is left out: text, a shape or a label that the first frames do not have"] = None
        store.append(_frames(block, labels, store, declared))
    if store is None:
        raise ValueError("no frames to write")
    n = store.n_frames
    splits = {"train": np.arange(n), "validation": np.zeros(0, int), "test": np.zeros(0, int)}
    if names and sum(map(len, names)) == n:
        splits = _splits(np.concatenate(names), np.concatenate(places)) or splits
    units = {"energy": "eV", "length": "Angstrom", "force": "eV/Angstrom", "stress": "eV/Angstrom^3"}
    store.seal(splits=splits, metadata={"origin": "converted", "units": units})
    return Written(n, tuple(notes))


def _declared(labels: Mapping[str, np.ndarray], columns: Mapping[str, np.ndarray]) -> dict[str, Property]:
    ranks = {(): 0, (3,): 1, (3, 3): 2}
    found = {}
    for per, of in (("frame", labels), ("atom", columns)):
        for key, value in of.items():
            if (
                value.dtype.kind in "biuf"
                and value.shape[1:] in ranks
                and key not in ("energy", "forces", *_COLUMNS)
            ):
                found[key] = Property(per, ranks[value.shape[1:]])  # type: ignore[arg-type]
    return found


def _frames(
    block: Block, labels: Mapping[str, np.ndarray], store: FrameStore, declared: Mapping[str, Property]
) -> Frames:
    def rows(key: str, per_atom: bool, row: tuple[int, ...]) -> np.ndarray:
        value = (block.atom_labels if per_atom else labels).get(key)
        n = len(block.species) if per_atom else len(block)
        if value is None or value.dtype.kind not in "biuf" or value.shape[1:] != row:
            return np.full((n, *row), np.nan)
        return value

    shapes = {"stress": (3, 3), "dipole": (3,), "velocities": (3,), "charges": (), "time": ()}
    return Frames(
        n_atoms=block.n_atoms,
        species=block.species,
        positions=block.positions,
        cell=block.cell,
        pbc=block.pbc,
        energy=rows("energy", False, ()),
        forces=rows("forces", True, (3,)),
        properties={k: rows(k, p.per == "atom", (3,) * p.rank) for k, p in declared.items()},
        **{k: rows(k, store.is_per_atom(k), shapes[k]) for k in store.columns},  # type: ignore[arg-type]
    )


def _splits(names: np.ndarray, places: np.ndarray) -> dict[str, np.ndarray]:
    found = {}
    for name in dict.fromkeys(map(str, names)):
        ids = np.nonzero(names == name)[0]
        if name:
            found[name] = ids[np.argsort(places[ids], kind="stable")]
    return found if {"train", "validation"} <= set(found) else {}
