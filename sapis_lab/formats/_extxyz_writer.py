"""Writing extended XYZ. Numbers are written as the shortest text that reads back as the same float64; of an
array the numbers are kept and not the shape. Text stays text only where it is no number."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from sapis_lab.elements import SYMBOLS
from sapis_lab.formats._base import COMPRESSED, Block, Written
from sapis_lab.formats._writing import OneFrame, frames_of

_PLAIN = re.compile(r"[^\s\"'={}\[\]]+")
_OWN = ("lattice", "properties", "pbc", "species", "pos", "z", "numbers")


def write_extxyz(path: Path, blocks: Iterable[Block], *, name: Path) -> Written:
    """Write the frames to `path`, compressed where the ending of `name` says so."""
    n = 0
    module: Any = COMPRESSED.get(name.suffix.lower())
    with (
        path.open("w", encoding="utf-8") if module is None else module.open(path, "wt", encoding="utf-8") as f
    ):
        for block in blocks:
            for frame in frames_of(block):
                f.write(_text(frame, n))
                n += 1
    return Written(n)


def _text(frame: OneFrame, n: int) -> str:
    words, columns = [], [[SYMBOLS[z] for z in frame.species.tolist()]]
    properties = "species:S:1:pos:R:3"
    columns += [list(map(repr, axis)) for axis in frame.positions.astype(np.float64).T.tolist()]
    for key, value in frame.columns.items():
        _check_key(key, n)
        flat = value.reshape(len(value), -1)
        kind = {"f": "R", "i": "I", "u": "I", "b": "L"}.get(flat.dtype.kind, "S")
        properties += f":{key}:{kind}:{flat.shape[1]}"
        columns += [[_number(v) for v in axis] for axis in flat.T.tolist()]
    if frame.cell.any():
        words.append(f'Lattice="{_numbers(frame.cell)}"')
    words += [f"Properties={properties}", f'pbc="{" ".join("T" if p else "F" for p in frame.pbc)}"']
    for key, label in frame.info.items():
        _check_key(key, n)
        words.append(f"{key}={_value(label, key, n)}")
    rows = [" ".join(row) for row in zip(*columns, strict=True)]
    return "\n".join([str(len(rows)), " ".join(words), *rows, ""])


def _check_key(key: str, n: int) -> None:
    if not _PLAIN.fullmatch(key) or key.casefold() in _OWN or ":" in key:
        raise ValueError(
            f"frame {n}: a label is called {key[:40]!r}, which extended XYZ cannot hold; rename it"
        )


def _value(label: object, key: str, n: int) -> str:
    if isinstance(label, str):
        if _PLAIN.fullmatch(label):
            return label
        mark = '"' if '"' not in label else "'"
        if mark in label or "\n" in label or label.endswith("\\"):
            raise ValueError(f"frame {n}: {key} holds a text that extended XYZ cannot quote; leave it out")
        return f"{mark}{label}{mark}"
    text = _numbers(np.asarray(label))
    return f'"{text}"' if " " in text else text


def _numbers(values: np.ndarray) -> str:
    if values.dtype.kind == "f":
        values = values.astype(np.float64)
    return " ".join(_number(v) for v in values.reshape(-1).tolist())


def _number(value: object) -> str:
    return (
        ("T" if value else "F")
        if isinstance(value, bool)
        else repr(value)
        if not isinstance(value, str)
        else value
    )
