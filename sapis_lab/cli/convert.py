"""sapis data convert: labelled frames from one format to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sapis_lab.cli.common import Set, dataset_config, source_path, stdout_console
from sapis_lab.config import ConfigError, home, plainly


def data_convert(
    source: Annotated[
        str,
        typer.Argument(
            help="A file or folder, the folder of a frame store, or the name of a file in configs/data/.",
            show_default=False,
        ),
    ],
    target: Annotated[
        Path,
        typer.Argument(
            help="File or folder to write; its ending says the format (.xyz, .xyz.xz, .npz, .db, .aselmdb, "
            "none for DeePMD).",
            show_default=False,
        ),
    ],
    to: Annotated[
        str | None,
        typer.Option("--to", help="Format of the target where its ending does not say it; `store` for ours."),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Only the frames of this split of a data set or store.")
    ] = None,
    settings: Set = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of the frame stores; `.sapis/data` of the project by default.")
    ] = None,
) -> None:
    """Convert labelled frames between extended XYZ, ASE databases, DeePMD, .npz and frame stores.

    Targets are in eV and Å, forces -dE/dx, positive stress is tension. Of a file, `--set` says what its
    format leaves open: `energy_unit`, `length_unit`, `energy_key`, `forces_are`, and all that `sapis kinds
    data files` lists.

    Example: `sapis data convert water.xyz water.db --set energy_unit=Hartree --set length_unit=Bohr`
    """
    from sapis_lab.data import convert, target_format
    from sapis_lab.sweep.board import DataBoard

    name = target_format(target, to)
    if not target.parent.is_dir():
        raise ConfigError(f"{target}: there is no folder {target.parent}; make it, or name another target")
    with DataBoard(stdout_console()) as board:

        def run() -> Any:
            found = _source(source, settings or [], split, cache, board)
            return found, convert(found, target, name, progress=board)

        found, done = plainly(run)
    console = stdout_console()
    console.print(f"{target}: {done.n_frames} frames in the format {name}", soft_wrap=True, markup=False)
    for note in dict.fromkeys((*found.notes, *done.notes)):
        console.print(f"note: {note}", soft_wrap=True, markup=False)


def _source(source: str, settings: list[str], split: str | None, cache: Path | None, board: Any) -> Any:
    from sapis_lab.config import override
    from sapis_lab.data import FrameStore, from_file, from_store, is_sealed, prepare

    path = source_path(source) or Path(source)
    if is_sealed(path):
        if settings:
            raise ConfigError("--set: a frame store has no settings; leave it out")
        return from_store(FrameStore.open(path), split=split)
    if path.exists():
        if split is not None:
            raise ConfigError(f"--split {split}: a file has no splits; leave it out")
        return from_file(path.resolve(), override({}, settings))
    if not (home() / "configs" / "data" / f"{source}.yaml").is_file():
        raise ConfigError(
            f"{source}: no such file or folder in {Path.cwd()} or $SAPIS_DATA, and no data set of that name "
            "in configs/data/; see `sapis data list` (of part of a file, make a data set with a slice)"
        )
    folder = cache or home() / ".sapis" / "data"
    return from_store(prepare(dataset_config(source, settings), cache=folder, progress=board), split=split)
