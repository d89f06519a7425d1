"""The search space of a study, checked before anything starts, and the point that a trial's values make.

A *cell* is one (model, N, D) of the lattice. Names are those of a point's config.yaml. Values of the model
are set before it is sized, so that it meets its N with them, and again on the sized model where sizing has
changed them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import ValidationError

from sapis_lab.config import ConfigError, dump, load
from sapis_lab.data import DatasetInfo
from sapis_lab.models import ModelConfig
from sapis_lab.records import Planned
from sapis_lab.sweep.points import Point, points
from sapis_lab.sweep.study import Lattice, Study
from sapis_lab.sweep.tuner.options import Axis, TuneOptions
from sapis_lab.training import PointConfig, TrainConfig

_SIZE, _FRAMES = "n_params_target", "n_frames"
_TOLERANCE, _TOLERANCE_SMALL = 0.10, 0.25
"""How far N may lie from what was asked for, as in `at_size`: above and below 10^4 parameters."""


@dataclass(frozen=True)
class Cell:
    """One (model, N, D) at which to tune."""

    id: str
    """`geat-l2-n1.0e4-d150`; what is searched over is left out."""
    family: ModelConfig
    """The model as the study names it, before it is sized."""
    base: Point
    """The point of the lattice, which trials vary."""
    n_species: int
    seeds: tuple[int, ...]
    """Seeds of the trials' points, in turn."""

    def point(self, values: Mapping[str, Any], *, id: str, number: int) -> PointConfig:
        """The point of a trial: the base point with `values` by dotted name.

        Args:
            id: of the point.   number: of the trial within the cell, which chooses the seed.

        Raises:
            ConfigError: a setting refuses its value, or the model cannot have its size with it.
        """
        base = self.base.config
        target = values.get(_SIZE, base.n_params_target)
        if isinstance(target, bool) or not isinstance(target, int | float) or not 1 <= target < math.inf:
            raise ConfigError(f"{_SIZE}: wanted a number of parameters, got {target!r}")
        try:
            model = self._model(
                {k.removeprefix("model."): v for k, v in values.items() if k.startswith("model.")}, target
            )
        except ValueError as error:  # a ConfigError, or a size that cannot be reached
            raise ConfigError(str(error)) from None
        train = load(TrainConfig, _with(dump(base.train), _below(values, "train.")), source="train")
        settings = {
            **dict(base),
            "id": id,
            "model": model,
            "train": train,
            "n_params": model.n_params(n_species=self.n_species),
            "n_params_target": target,
            "n_frames": values.get(_FRAMES, base.n_frames),
            "seed": self.seeds[number % len(self.seeds)],
        }
        return load(PointConfig, settings, source=id)

    def _model(self, values: Mapping[str, Any], target: float) -> ModelConfig:
        if not values and target == self.base.config.n_params_target:
            return self.base.config.model
        cls = type(self.family)
        wanted = load(cls, _with(dump(self.family), values), source="model")
        sized = wanted.at_size(target, n_species=self.n_species)
        kept = load(cls, _with(dump(sized), values), source="model")
        counted = kept.n_params(n_species=self.n_species)
        allowed = _TOLERANCE if target >= 1e4 else _TOLERANCE_SMALL
        if abs(counted / target - 1) > allowed:
            said = ", ".join(f"{k}={v}" for k, v in values.items())
            raise ConfigError(
                f"model: {said} gives {counted} parameters where {target:g} are wanted; tune {_SIZE} instead "
                f"of a width"
            )
        return kept


def cells(study: Study, tune: TuneOptions, info: DatasetInfo) -> list[Cell]:
    """Where to tune: every model, N and D of `tune`, or of the lattice, that is not itself searched over.

    Raises:
        ConfigError: one line for every problem of the space and of the points.
    """
    lattice = study.lattice
    sizes = (lattice.n_params[-1],) if _SIZE in tune.space else tune.n_params or lattice.n_params
    frames = (lattice.n_frames[-1],) if _FRAMES in tune.space else tune.n_frames or lattice.n_frames
    reduced = Lattice(n_params=tuple(sorted(sizes)), n_frames=tuple(sorted(frames)), seeds=lattice.seeds[:1])
    families = {model.label: model for model in study.models}
    found = [
        Cell(_cell_id(p.planned, tune), families[p.planned.model], p, len(info.species), lattice.seeds)
        for p in points(study.model_copy(update={"lattice": reduced}), info)
    ]
    problems = list(dict.fromkeys(_problems(found, tune, info)))
    if problems:
        raise ConfigError("\n".join(f"studies/{study.name}.yaml: tune.space.{p}" for p in problems))
    return found


def _cell_id(planned: Planned, tune: TuneOptions) -> str:
    text = planned.id.rsplit("-s", 1)[0]  # without the seed
    head, frames = text.rsplit("-d", 1)
    head, size = head.rsplit("-n", 1)
    return (
        head + ("" if _SIZE in tune.space else f"-n{size}") + ("" if _FRAMES in tune.space else f"-d{frames}")
    )


# ----------------------------------------------------------------------------------------------------- checks


def _problems(found: list[Cell], tune: TuneOptions, info: DatasetInfo) -> Iterator[str]:
    for name, axis in tune.space.items():
        for cell in found:
            known = _names(cell)
            if name not in known:
                near = get_close_matches(name, known, n=1, cutoff=0.5)
                hint = f"; did you mean {near[0]!r}?" if near else ";"
                yield (
                    f"{name}: no number or choice in the config of a {cell.family.kind} point{hint} known: "
                    f"{', '.join(known)}"
                )
            else:
                yield from _refused(cell, name, axis, info)


def _names(cell: Cell) -> list[str]:
    """Dotted names of all settings of a point that may be tuned."""
    plain = {"model": dump(cell.family), "train": dump(cell.base.config.train)}
    for key in ("kind", "name", "born"):
        plain["model"].pop(key, None)
    numbers = {name for name, info in TrainConfig.model_fields.items() if _takes_a_number(info.annotation)}
    forms = [f"train.{name}" for name in plain["train"] if name in numbers]  # now a mapping, or a number
    return [*dict.fromkeys([*_leaves(plain), *forms]), _SIZE, _FRAMES]


def _takes_a_number(annotation: Any) -> bool:
    return annotation is float or any(_takes_a_number(a) for a in get_args(annotation))


def _leaves(node: Any, prefix: str = "") -> Iterator[str]:
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else None
    if pairs is None:
        yield prefix
        return
    for key, value in pairs:
        yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))


def _refused(cell: Cell, name: str, axis: Axis, info: DatasetInfo) -> Iterator[str]:
    most = max((v for v in axis.bounds or axis.choice or () if isinstance(v, int | float)), default=0)
    if name == _FRAMES and most > info.n_train:
        there = f"the {info.n_train} labelled training frames of {cell.base.config.data.kind!r}"
        yield f"{name}: the largest value {most:g} exceeds {there}"
        return
    for word, value in _ends(cell, name, axis):
        try:
            cell.point({name: value}, id="check", number=0)
        except ConfigError as error:
            yield f"{name}: {word} {value!r} is refused: {_plain(str(error))}"


def _plain(message: str) -> str:
    return "; ".join(line.strip() for line in message.splitlines())


def _ends(cell: Cell, name: str, axis: Axis) -> list[tuple[str, Any]]:
    if axis.choice is not None:
        return [("the choice", value) for value in axis.choice]
    assert axis.bounds is not None
    low, high = axis.bounds
    if is_whole(cell, name):
        if low != int(low) or high != int(high) or (axis.step or 1) != int(axis.step or 1):
            return [
                ("the fraction", next(v for v in (low, high, axis.step) if v is not None and v != int(v)))
            ]
        low, high = int(low), int(high)
    return [("the smallest value", low), ("the largest value", high)]


def is_whole(cell: Cell, name: str) -> bool:
    """Whether a setting takes whole numbers only."""
    if name in (_SIZE, _FRAMES):
        return name == _FRAMES
    root, _, rest = name.partition(".")
    cls: type[Any] = type(cell.family) if root == "model" else TrainConfig
    plain = dump(cell.family) if root == "model" else dump(cell.base.config.train)
    try:
        cls.model_validate(_with(plain, {rest: 1.5}))
    except ValueError as error:
        return isinstance(error, ValidationError) and any(
            p["type"] == "int_from_float" for p in error.errors()
        )
    return False


# --------------------------------------------------------------------------------------------- plain settings


def _below(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}


def _with(plain: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`plain`, which is the caller's own copy, with values at dotted names; list items are reached by
    number."""
    for name, value in values.items():
        *path, last = name.split(".")
        node: Any = plain
        for key in path:
            node = node[int(key)] if isinstance(node, list) else node[key]
        node[int(last) if isinstance(node, list) else last] = value
    return plain


def study_settings(study: Study, cell: Cell, values: Mapping[str, Any]) -> list[str]:
    """The values as overrides of the study, ready for `--set`: `train.learning_rate=0.01`,
    `models.0.heads=2`, `lattice.n_params=[3e3]`."""
    place = [m.label for m in study.models].index(cell.family.label)
    lattice = {_SIZE: "lattice.n_params", _FRAMES: "lattice.n_frames"}
    words = []
    for name, value in values.items():
        text = (
            {True: "true", False: "false", None: "null"}.get(value, str(value))
            if isinstance(value, bool | None)
            else f"{value}"
        )
        if name in lattice:
            words.append(f"{lattice[name]}=[{text}]")
        else:
            in_family = name.startswith("model.")
            words.append(f"models.{place}.{name[len('model.') :]}={text}" if in_family else f"{name}={text}")
    return words
