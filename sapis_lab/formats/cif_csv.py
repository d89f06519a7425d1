"""Tables (.csv) with a crystal in each row as CIF text, in a column `cif`, such as those of CDVAE
(carbon_24, perov_5, mp_20; Xie et al., arXiv:2110.06197). The other columns are labels, numbers or text;
lengths are Å."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sapis_lab.formats._base import BROKEN, Block, Reading, Single, joined, open_text, picked
from sapis_lab.formats.ase_files import single_of

ENDINGS = (".csv",)
FIXED = {"length_unit": "Angstrom"}


def count(path: Path) -> int:
    """Rows of the table."""
    return sum(1 for _ in _rows(path))


def blocks(path: Path, reading: Reading) -> Iterator[Block]:
    """The rows as frames."""
    wanted = picked(_rows(path), reading, path, lambda: count(path))
    return joined(_single(row, k, path, labels=reading.labels) for k, row in wanted)


def _rows(path: Path) -> Iterator[dict[str, str]]:
    n = 0
    with open_text(path) as file:
        try:
            table = csv.DictReader(file, strict=True)
            if "cif" not in (table.fieldnames or ()):
                raise ValueError(
                    f"{path}: wanted a table with a column cif of crystals, got the columns "
                    f"{', '.join(map(str, table.fieldnames or ()))[:80] or 'none'}"
                )
            for row in table:
                yield row
                n += 1
        except (csv.Error, *BROKEN) as error:
            raise ValueError(f"{path}, frame {n}: the table is cut off or damaged here ({error})") from None


def _single(row: dict[str, Any], number: int, path: Path, *, labels: bool) -> Single:
    place = f"{path}, frame {number}"
    text = row["cif"]
    if None in row or any(value is None for value in row.values()) or not text:
        raise ValueError(f"{place}: a row with more or fewer columns than the first line names")
    from ase.io.cif import read_cif

    try:
        atoms = next(iter(read_cif(io.BytesIO(text.encode()), index=slice(0, 1))))
    except Exception as error:  # readers of ASE raise whatever a line that they do not expect leads to
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise ValueError(f"{place}: the column cif cannot be read as CIF by ASE ({said})") from None
    found = single_of(atoms, number, path, labels=labels)
    info: dict[str, Any] = {key or "row": _value(value) for key, value in row.items() if key != "cif"}
    return found._replace(info=info)


def _value(text: str) -> str | np.ndarray:
    try:
        return np.array(float(text))
    except ValueError:
        return text
