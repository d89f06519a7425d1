"""Rows of ASE databases: from SQLite, LMDB (compressed JSON) and JSON to frames, without objects of ASE."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from sapis_lab.errors import ConfigError
from sapis_lab.files import check_plain
from sapis_lab.formats._base import Single, check_n_atoms
from sapis_lab.formats._values import sorted_labels

_RESULTS = ("energy", "free_energy", "stress", "dipole", "magmom")
_OF_ATOMS = ("forces", "charges", "magmoms", "initial_charges", "initial_magmoms", "tags", "momenta")


def row_frame(row: Mapping[str, Any], number: int, place: str, *, labels: bool) -> Single:
    """One row as a frame, in eV and Å. Its labels: results of the calculator, then key-value pairs, then what
    stands in its data, unless another has that name.

    Raises:
        ValueError: an array is missing or of another shape.
    """
    z = _numbers(row, "numbers", place).reshape(-1).astype(np.int64)
    n = check_n_atoms(len(z), place)
    x = _shaped(row, "positions", (n, 3), place)
    cell = row.get("cell")
    if isinstance(cell, Mapping):
        cell = cell.get("array")
    cell = np.zeros((3, 3)) if cell is None else _shaped({"cell": cell}, "cell", (3, 3), place)
    pbc = np.zeros(3) if row.get("pbc") is None else _shaped(row, "pbc", (3,), place)
    further: dict[str, Any] = {}
    for name in ("data", "key_value_pairs"):
        inner = row.get(name)
        further |= inner if isinstance(inner, Mapping) else {}
    info, columns = sorted_labels(further, n)
    for name in _RESULTS:
        if row.get(name) is not None:
            info[name] = _numbers(row, name, place)
            columns.pop(name, None)
    for name in _OF_ATOMS:
        if row.get(name) is not None:
            value = _numbers(row, name, place)
            columns[name] = value.reshape(n, -1) if value.size == 3 * n else value.reshape(-1)
            info.pop(name, None)
            if len(columns[name]) != n:
                raise ValueError(f"{place}: {name} holds {value.size} numbers, wanted those of {n} atoms")
    return Single(number, z, x, cell, pbc.astype(bool), info, columns if labels else {})


def _numbers(row: Mapping[str, Any], name: str, place: str) -> np.ndarray:
    try:
        found = np.asarray(row[name])
    except KeyError:
        raise ValueError(f"{place}: has no {name}, wanted a row as ASE writes it") from None
    except ValueError:  # rows of different lengths
        found = np.array(None)
    if found.dtype.kind not in "biuf":
        raise ValueError(f"{place}: {name} is of type {found.dtype}, wanted numbers")
    return found


def _shaped(row: Mapping[str, Any], name: str, shape: tuple[int, ...], place: str) -> np.ndarray:
    found = _numbers(row, name, place)
    if found.size != int(np.prod(shape)):
        raise ValueError(f"{place}: {name} has shape {found.shape}, wanted {shape}")
    return found.reshape(shape).astype(np.float64)


def plain_value(value: Any, place: str) -> Any:
    """JSON of ASE with its arrays, `{__ndarray__: [shape, dtype, numbers]}`, as arrays; what else it
    describes
    as an object stays a mapping."""
    if isinstance(value, list):
        return [plain_value(v, place) if isinstance(v, list | dict) else v for v in value]
    if not isinstance(value, dict):
        return value
    if "__ndarray__" in value:
        return _array(value["__ndarray__"], place)
    if "__complex__" in value:
        return None
    return {key: plain_value(v, place) if isinstance(v, list | dict) else v for key, v in value.items()}


def _array(said: Any, place: str) -> np.ndarray:
    try:
        shape, kind, numbers = said
        n, dtype = int(np.prod([int(k) for k in shape], dtype=object)), np.dtype(str(kind))
        if n != len(numbers) or dtype.kind not in "biufU":
            raise ValueError
        return np.array(numbers, dtype=dtype).reshape([int(k) for k in shape])
    except (TypeError, ValueError):
        told = str(said[:2])[:60] if isinstance(said, list) else "none"
        raise ValueError(
            f"{place}: an array described as {told} does not hold these numbers; is the file damaged?"
        ) from None


def parsed(text: str | bytes, place: str) -> Any:
    """JSON text of a row. ValueError where it is none."""
    try:
        value = json.loads(text)
        check_plain(value, source=place)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place}: not valid JSON ({error}); is the file damaged?") from None
    return plain_value(value, place)


def blob_array(value: Any, kind: str, place: str) -> np.ndarray:
    """The numbers of a blob of SQLite."""
    dtype = np.dtype(kind)
    if not isinstance(value, bytes) or len(value) % dtype.itemsize:
        n = f"{len(value)} bytes" if isinstance(value, bytes) else type(value).__name__
        raise ValueError(f"{place}: got {n}, wanted a blob of {kind}; is the file damaged?")
    return np.frombuffer(value, dtype)


def unpacked(blob: bytes, place: str) -> Any:
    """What ase.db packs in a blob: the offset of JSON text, arrays, and the text, in which arrays are
    `{__ndarray__: [shape, dtype, offset]}`."""
    try:
        offset = int(np.frombuffer(blob[:8], "<i8")[0])
        if not 8 <= offset <= len(blob):
            raise ValueError
        value = json.loads(blob[offset:])
        check_plain(value, source=place)
    except (ValueError, IndexError, RecursionError):
        raise ValueError(f"{place}: data cannot be read; is the file damaged?") from None
    return _with_arrays(value, blob[:offset], place)


def _with_arrays(value: Any, blob: bytes, place: str) -> Any:
    if isinstance(value, list):
        return [_with_arrays(v, blob, place) for v in value]
    if not isinstance(value, dict):
        return value
    if "__ndarray__" not in value:
        return {key: _with_arrays(v, blob, place) for key, v in value.items() if key != "__complex__"}
    try:
        shape, kind, at = value["__ndarray__"]
        dtype = np.dtype(str(kind))
        shape = [int(n) for n in shape]
        size = dtype.itemsize * int(np.prod(shape, dtype=object))
        if dtype.kind not in "biufU" or min([*shape, 0]) < 0 or not 0 <= at <= at + size <= len(blob):
            raise ValueError
        return np.frombuffer(blob[at : at + size], dtype).reshape(shape)
    except (TypeError, ValueError):
        raise ValueError(f"{place}: data hold an array that is cut off; is the file damaged?") from None
