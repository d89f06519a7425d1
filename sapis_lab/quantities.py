"""Every quantity that is known: those of a record, the errors of every target, and what was declared besides.

Errors follow from the targets (`sapis_lab.targets`). Those of a property that a study declares are known once
its settings, or a table with them, were read. Quantities of evaluations are said by their kinds
(`sapis_lab.evaluation`), which are asked for a key that is none of the others: it is that of the column,
`KIND_...`, or `KIND-NAME_...` where the evaluation has a name. No torch here: the analysis side reads this
file too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Any

from sapis_lab import outside
from sapis_lab.config import kind_class, kinds
from sapis_lab.measures import Measure, Quantity
from sapis_lab.targets import Target

__all__ = [
    "Measure",
    "Quantity",
    "declare",
    "declared",
    "came_later",
    "evaluated_quantities",
    "is_time",
    "kind_measuring",
    "known",
    "of_evaluations",
    "quantity",
    "standard_targets",
]

_OF_A_RECORD = (
    Quantity("n_params", "trainable parameters N", ""),
    Quantity("n_params_equivariant", "equivariant parameters", ""),
    Quantity("n_params_scalar", "scalar parameters", ""),
    Quantity("n_params_target", "requested parameters", ""),
    Quantity("n_frames", "labelled training frames D", ""),
    Quantity("steps", "optimiser steps", ""),
    Quantity("epochs", "passes over the training frames", ""),
    Quantity("samples", "frames seen in training", ""),
    Quantity("batch_size", "frames per step", ""),
    Quantity("learning_rate", "peak learning rate", ""),
    Quantity("flops_per_step", "training FLOPs per step", "FLOP"),
    Quantity("flops_elementwise_per_step", "elementwise and scatter operations per step", "FLOP"),
    Quantity("flops_train", "training FLOPs C", "FLOP"),
    Quantity("flops_inference_per_frame", "inference FLOPs per frame", "FLOP"),
    Quantity("validation_rise", "last over least validation RMSE", ""),
    Quantity("seconds_train", "training time", "s", is_time=True),
    Quantity("cpu_seconds_train", "training CPU time", "s", is_time=True),
    Quantity("seconds_total", "time of the point", "s", is_time=True),
)
_SPLITS = ("val", "test", "train")

_measures: dict[str, Measure] = {}
_quantities: dict[str, Quantity] = {}


def declare(*what: Measure | Quantity) -> None:
    """Make further quantities known to this process; a key that is declared again takes the new meaning."""
    for one in what:
        if isinstance(one, Measure):
            _measures[one.key] = one
        else:
            _quantities[one.key] = one


def declared(keys: Iterable[str]) -> list[Quantity]:
    """Of these quantities, those that are known only because they were declared: what a table must carry
    along."""
    found = [q for key in keys if key not in _standard(outside.folders()) and (q := _find(key)) is not None]
    return [q for q in found if q.measure not in _measures_of_kinds(outside.folders())]


def known() -> dict[str, Quantity]:
    """All quantities by key, in the order of tables."""
    of_declared = [m.quantity(split) for split in _SPLITS for m in _measures.values()]
    return _standard(outside.folders()) | {q.key: q for q in of_declared} | _quantities


def standard_targets() -> tuple[Target, ...]:
    """One target of every kind that needs no settings, in the order of tables."""
    return _standard_targets(outside.folders())


@cache
def _standard_targets(folders: tuple[object, ...]) -> tuple[Target, ...]:
    classes = {kind: kind_class("targets", kind) for kind in kinds("targets")}
    plain = [
        c(kind=kind)
        for kind, c in classes.items()
        if not any(f.is_required() for f in c.model_fields.values())
    ]
    return tuple(sorted((t for t in plain if isinstance(t, Target)), key=lambda target: target.place))


@cache
def _measures_of_kinds(folders: tuple[object, ...]) -> dict[str, Measure]:
    return {m.key: m for target in _standard_targets(folders) for m in target.measures()}


def kind_measuring(measure: str) -> str | None:
    """The kind of targets that has the error `measure` (`charge_rmse`) without any settings; None where none
    has."""
    for target in standard_targets():
        if any(m.key == measure for m in target.measures()):
            return target.kind
    return None


@cache
def _standard(folders: tuple[object, ...]) -> dict[str, Quantity]:
    errors = [m.quantity(split) for split in _SPLITS for m in _measures_of_kinds(folders).values()]
    return {q.key: q for q in (*errors, *_OF_A_RECORD)}


def _find(key: str) -> Quantity | None:
    if (found := known().get(key)) is not None:
        return found
    named = re.fullmatch(r"(test_[A-Za-z0-9]+?)_(\w+)", key)  # further test sets, as in test_600K_force_mae
    measure = named and ({**_measures_of_kinds(outside.folders()), **_measures}).get(named[2])
    return measure.quantity(named[1]) if named and measure else _evaluated(key)


def of_evaluations() -> dict[str, tuple[Quantity, ...]]:
    """What every known kind of evaluation measures, by the kind; keys may have places for words."""
    return _of_evaluations(outside.folders())


@cache
def _of_evaluations(folders: tuple[object, ...]) -> dict[str, tuple[Quantity, ...]]:
    classes: dict[str, Any] = {kind: kind_class("evaluation", kind) for kind in kinds("evaluation")}
    return {kind: c.quantities() for kind, c in classes.items()}


def _evaluated(key: str) -> Quantity | None:
    """The quantity of an evaluation, from the kind that opens its key."""
    for kind, quantities in of_evaluations().items():
        match = re.fullmatch(rf"(?P<of>{kind}(?:-(?P<name>[A-Za-z0-9.]+))?)_(?P<rest>\w+)", key)
        for template in quantities if match else ():
            assert match is not None
            found = template.filled(match["rest"])
            if found is not None:
                label = f"{found.label} ({match['name']})" if match["name"] else found.label
                if found.unit_of and (like := _find(found.unit_of)) is not None:
                    found = replace(
                        found,
                        unit=like.unit,
                        display_unit=like.display_unit,
                        display_factor=like.display_factor,
                    )
                return replace(found, key=key, label=label, evaluation=match["of"])
    return None


def evaluated_quantities(columns: Iterable[str]) -> list[Quantity]:
    """Those of `columns` that evaluations measured, times that depend on the machine left out."""
    found = [f for c in columns if (f := _find(c)) is not None]
    return [f for f in found if f.evaluation and not f.is_time]


def is_time(key: str) -> bool:
    """Whether a column of that name may differ between identical runs; not one that nobody knows."""
    found = _find(key)
    return found is not None and found.is_time


def came_later(key: str) -> bool:
    """Whether a column of that name is one that older records lack: errors on training frames, and how far
    training rose above its best."""
    found = _find(key)
    return found is not None and (found.split == "train" or found.key == "validation_rise")


def quantity(key: str) -> Quantity:
    """The quantity called `key`; ValueError with the nearest known key otherwise."""
    if (found := _find(key)) is not None:
        return found
    from difflib import get_close_matches

    evaluated = (f"{kind}_{q.key}" for kind, quantities in of_evaluations().items() for q in quantities)
    near = get_close_matches(key, [*known(), *evaluated], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown quantity {key!r}{hint} known: {', '.join(known())}")
