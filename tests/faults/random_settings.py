"""Settings drawn at random from the ranges that the fields themselves state, their edges included."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from sapis_lab.config import KindConfig

TINY = 1e-300
"""Just above zero; processes that train flush what is denormal to zero."""

MOST = {
    "channels": 12,
    "tensor_channels": 8,
    "heads": 4,
    "invariants": 16,
    "key_width": 8,
    "edge_hidden": 24,
    "node_hidden": 24.0,
    "radial_hidden": 24,
    "layers": 3,
    "n_radial": 64,
    "coupling": 4.0,
}
"""What a small machine can hold, where a range goes beyond."""


def edges(field: FieldInfo) -> tuple[float, float, bool, bool]:
    """Smallest and largest value that a number may have, and whether each is itself allowed."""
    return _edges([*field.metadata, *_inner(field.annotation)])


def _inner(annotation: Any) -> list[Any]:
    """The bounds that stand within an annotation."""
    if get_origin(annotation) is Annotated:
        return [
            m
            for part in get_args(annotation)[1:]
            for m in (part.metadata if isinstance(part, FieldInfo) else [part])
        ]
    return [m for part in get_args(annotation) if part is not type(None) for m in _inner(part)]


def _edges(metadata: list[Any]) -> tuple[float, float, bool, bool]:
    low, high, low_in, high_in = -math.inf, math.inf, False, False
    for m in metadata:
        if isinstance(m, Ge | Gt):
            low, low_in = float(m.ge if isinstance(m, Ge) else m.gt), isinstance(m, Ge)  # type: ignore[arg-type]
        if isinstance(m, Le | Lt):
            high, high_in = float(m.le if isinstance(m, Le) else m.lt), isinstance(m, Le)  # type: ignore[arg-type]
    return low, high, low_in, high_in


def drawn(
    cls: type[BaseModel], rng: np.random.Generator, *, most: Mapping[str, float] = MOST
) -> dict[str, Any]:
    """Settings of `cls` as plain data, without `name` and `kind`: every field its default, an edge of its
    range, or a value between."""
    return {
        name: value
        for name, field in cls.model_fields.items()
        if name not in ("kind", "name", "born")
        and rng.random() < 0.6
        and (value := _value(field, rng, most.get(name))) is not ...
    }


def _value(field: FieldInfo, rng: np.random.Generator, most: float | None) -> Any:
    annotation = field.annotation
    options = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    if type(None) in options and rng.random() < 0.2:
        return None
    kinds = [o for o in options if o is not type(None)]
    kind = kinds[0]
    if get_origin(kind) is Literal:
        return get_args(kind)[rng.integers(len(get_args(kind)))]
    if kind is bool:
        return bool(rng.integers(2))
    if isinstance(kind, type) and issubclass(kind, KindConfig):  # whose settings follow from a name
        return ...
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return drawn(kind, rng)
    if get_origin(kind) is tuple:
        if get_args(get_args(kind)[0])[0] not in (int, float):  # targets, of which the data have none
            return ...
        return [
            _number(get_args(part)[0], _edges(_inner(part)), rng, most)
            for part in get_args(kind)
            if part is not ...
        ]
    base = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    return _number(base, edges(field), rng, most) if base in (int, float) else ...


def _number(
    kind: type, bounds: tuple[float, float, bool, bool], rng: np.random.Generator, most: float | None
) -> float:
    low, high, low_in, high_in = bounds
    if most is not None and most < high:
        high, high_in = most, True
    if kind is int:
        low, high = math.ceil(low), min(int(high), 2**63 - 1)
    draw = rng.random()
    if draw < 0.15:
        value = low if low_in else low + TINY
    elif draw < 0.3:
        value = high if high_in else math.nextafter(high, -math.inf)
    elif low > 0 or (low == 0 and high > 1):
        value = math.exp(rng.uniform(math.log(max(low, 1e-6 if kind is float else 1)), math.log(high)))
    else:
        value = rng.uniform(low, high)
    return int(value) if kind is int else float(value)
