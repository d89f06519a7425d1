"""Where public data files lie on this machine, and the record of which ones a store was made from."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

DATA_VARIABLE = "SAPIS_DATA"
"""Environment variable that names the folder of datasets."""


def data_root(root: Path | None) -> Path:
    """`root`, else $SAPIS_DATA; ValueError says what to set when neither is given or the folder is missing."""
    named = f"root={root}" if root is not None else f"${DATA_VARIABLE}"
    if root is None:
        if not os.environ.get(DATA_VARIABLE):
            raise ValueError("this dataset reads files and does not know where they are: "
                             f"set {DATA_VARIABLE} to the folder of datasets, or `root` in the config")  # fmt: skip
        root = Path(os.environ[DATA_VARIABLE])
    if not root.is_dir():
        raise ValueError(f"{named} names the folder {root}, which does not exist; set it to the folder that holds the datasets")
    return root


def known_root(root: Path | None) -> Path | None:
    """`root`, else $SAPIS_DATA, else None; without demands."""
    return root if root is not None else Path(os.environ[DATA_VARIABLE]) if os.environ.get(DATA_VARIABLE) else None


def need_file(root: Path, *names: str) -> Path:
    """The first of `names` that exists under `root`; ValueError lists all places looked at."""
    for name in names:
        if (root / name).is_file():
            return root / name
    looked = " or ".join(str(root / name) for name in names)
    raise ValueError(f"missing file: wanted {looked}; put it there, or point {DATA_VARIABLE} (or `root` in the config) to its folder")


def source_record(root: Path, files: list[Path]) -> dict[str, dict[str, Any]]:
    """Size and sha256 of each file, by its path relative to `root`."""
    return {file.relative_to(root).as_posix(): {"bytes": file.stat().st_size, "sha256": sha256(file)} for file in sorted(set(files))}


def sha256(path: Path) -> str:
    """sha256 of a file, hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
