"""Frames of files as blocks: which file, of which format, which frames of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sapis_lab.data._changes import AsItIs, Change
from sapis_lab.data._file_filters import is_isolated, kept, values_met
from sapis_lab.data._file_labels import refuse_other_units
from sapis_lab.data._file_slices import split_slice
from sapis_lab.data._sources import need_file, need_folder, reading
from sapis_lab.formats import Block, Format, Reading, format_of

if TYPE_CHECKING:
    from sapis_lab.data._file_settings import FileSettings


class Source(NamedTuple):
    """One file, or folder, with its slice."""

    path: Path
    wanted: slice
    name: str
    format: Format
    files: list[Path]
    """What is read of it."""


def sources_of(config: FileSettings, root: Path, name: str) -> list[Source]:
    relative, wanted = split_slice(name)
    path = root / relative
    is_folder = path.is_dir()
    path = need_folder(root, relative) if is_folder else need_file(root, relative)
    with reading(root, path):
        used = format_of(path, config.format)
    if str(config.kind) == "extxyz" and used.name not in ("extxyz", "npz"):
        raise ValueError(
            f"{path}: is of the format {used.name} by its name, and the kind extxyz reads extended XYZ and "
            ".npz; set kind: files, or format: extxyz"
        )
    files = sorted(f for f in path.rglob("*") if f.is_file()) if is_folder else [path]
    return [Source(path, wanted, name, used, files)]


def file_source(config: FileSettings, root: Path, name: str) -> Source:
    """The one file, or folder, `name` under `root`."""
    return sources_of(config, root, name)[0]


def file_blocks(config: FileSettings, root: Path, source: Source) -> Iterator[Block]:
    """The frames of a file with all labels, as it has them."""
    told = source.format.units_told(source.path, reading_of(config, root, source, labels=True))
    refuse_other_units(told, config, source.format.fixed, source.path)
    return (block for block, _ in blocks_of(config, root, source, AsItIs(), labels=True, every=True))


def reading_of(
    config: FileSettings, root: Path, source: Source, *, labels: bool, every: bool = False
) -> Reading:
    names: dict[str, str | None] = dict(config.npz_keys)  # type: ignore[arg-type]
    for label in config.unlabelled:
        names[label] = None
    keys = tuple(dict.fromkeys((*(config.keys if labels else ()), *config.where, *config.without)))
    return Reading(
        wanted=source.wanted,
        labels=labels,
        names=names,
        keys=keys,
        energy=config.energy_key,
        forces=config.forces_key,
        every=every,
        may_lack=config.may_lack,
        topology=None if config.topology is None else need_file(root, config.topology),
    )


def blocks_of(
    config: FileSettings,
    root: Path,
    source: Source,
    change: Change,
    *,
    labels: bool,
    every: bool = False,
    skip: int = 0,
    met: set[tuple[str, str, str]] | None = None,
) -> Iterator[tuple[Block, int]]:
    """The frames of a file that the keys choose, changed, with how many of the file have been read; isolated
    atoms are among them. The first `skip` frames are not read."""
    read = reading_of(config, root, source, labels=labels, every=every)._replace(skip=skip)
    n_frames = skip
    with reading(root, *source.files):
        for block in source.format.blocks(source.path, read):
            n_frames += len(block)
            place = f"{source.path}, frame {block.numbers[0]}"
            if met is not None:
                met |= values_met(block, config.where, config.without, place)
            found = change(block.chosen(kept(block, config.where, config.without, place)))
            if config.isolated_frames == "take" and not labels:
                found = found.chosen(~is_isolated(found))
            if len(found):
                yield found, n_frames
    if not n_frames:
        part = f" in {source.name}" if source.name.endswith("]") else ""
        raise ValueError(f"{source.path}: no frames{part}")
