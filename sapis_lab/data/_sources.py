"""Where public data files lie on this machine, and the record of which ones a store was made from.

Files are named relative to one folder, SAPIS_DATA or `root`, and names do not lead out of it: a config may
come from elsewhere, and messages end up in logs and reports. Links in that folder are its owner's and are
followed, since data often lie on another disk; but of a file that lies outside nothing is quoted.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sapis_lab.catalogue import fetching_advice

DATA_VARIABLE = "SAPIS_DATA"
"""Environment variable that names the folder of datasets."""


class MissingData(ValueError):
    """Files of a data set that are not there.

    Args:
        wanted: paths that would have done, by which the catalogue of public sets may know what downloads
        them.
    """

    def __init__(self, message: str, wanted: Sequence[Path] = ()) -> None:
        super().__init__(message)
        self.wanted = tuple(wanted)


@contextmanager
def with_fetching_advice(catalogue: str | None) -> Iterator[None]:
    """Files that are missing are told with the command that downloads them, where they are of a public set:
    of the one named, or one that the catalogue knows their names from."""
    try:
        yield
    except MissingData as error:
        advice = fetching_advice(error.wanted, name=catalogue)
        if not advice:
            raise
        raise MissingData(f"{error}; {advice}", error.wanted) from None


def data_root(root: Path | None) -> Path:
    """`root`, else $SAPIS_DATA; ValueError says what to set when neither is given or the folder is
    missing."""
    named = f"root={root}" if root is not None else f"${DATA_VARIABLE}"
    if root is None:
        if not os.environ.get(DATA_VARIABLE):
            raise MissingData(
                "this dataset reads files and does not know where they are: "
                f"set {DATA_VARIABLE} to the folder of datasets, or `root` in the config"
            )
        root = Path(os.environ[DATA_VARIABLE])
    if not root.is_dir():
        raise ValueError(
            f"{named} names the folder {root}, which does not exist; set it to the folder that holds the "
            f"datasets"
        )
    return root


def known_root(root: Path | None) -> Path | None:
    """`root`, else $SAPIS_DATA, else None; without demands."""
    return (
        root
        if root is not None
        else Path(os.environ[DATA_VARIABLE])
        if os.environ.get(DATA_VARIABLE)
        else None
    )


def need_file(root: Path, *names: str) -> Path:
    """The first of `names` that is a file under `root`.

    Raises:
        ValueError: none is there (all places looked at are listed); a folder, a pipe or a device is; a name
            leads out of `root`.
    """
    for name in names:
        path = root / name
        _refuse_outside(root, name)
        if path.is_file():
            return path
        if path.exists():
            raise ValueError(
                f"{path}: wanted a file, got "
                f"{'a folder' if path.is_dir() else 'a pipe, a socket or a device'}"
            )
    looked = " or ".join(str(root / name) for name in names)
    raise MissingData(
        f"missing file: wanted {looked}; put it there, or point {DATA_VARIABLE} (or `root` in the config) to "
        f"its folder",
        [root / name for name in names],
    )


def need_folder(root: Path, name: str) -> Path:
    """The folder `name` under `root`.

    Raises:
        ValueError: it is not there, or is something else, or the name leads out of `root`.
    """
    _refuse_outside(root, name)
    path = root / name
    if not path.is_dir():
        raise MissingData(
            f"{path}: wanted a folder, got {'a file' if path.exists() else 'nothing'}; put it there, or "
            f"point {DATA_VARIABLE} (or `root` in the config) to the folder that holds it",
            [path],
        )
    return path


def _refuse_outside(root: Path, name: str) -> None:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(
            f"{name!r} leads out of the folder of data, {root}; wanted a name relative to it and without "
            f"'..': "
            f"put the file (or a link to it) there, or point {DATA_VARIABLE} to its folder"
        )


@contextmanager
def reading(root: Path, *paths: Path) -> Iterator[None]:
    """While `paths` are read: what is wrong with them is said without quoting, where a link led out of
    `root`."""
    try:
        yield
    except ValueError as error:
        outside = [path for path in paths if not path.resolve().is_relative_to(root.resolve())]
        if not outside:
            raise
        names = "|".join(re.escape(str(path)) for path in paths)
        place = re.match(rf"(?:{names})(?:, frame \d+)?", str(error))
        raise ValueError(
            f"{place[0] if place else outside[0]}: cannot be read as the data that the config says; what is "
            f"wrong is not shown, "
            f"because a link leads to a file outside {root}: put a copy there to see it"
        ) from None


def source_record(root: Path, files: list[Path]) -> dict[str, dict[str, Any]]:
    """Size and sha256 of each file, by its path relative to `root`."""
    return {
        file.relative_to(root).as_posix(): {"bytes": file.stat().st_size, "sha256": sha256(file)}
        for file in sorted(set(files))
    }


def sha256(path: Path) -> str:
    """sha256 of a file, hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
