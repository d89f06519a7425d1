"""The points of a study: every combination of model, N, D, learning rate and seed, in that order, each with
its final settings."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from sapis_lab.analysis.regime import Regime, read_regime
from sapis_lab.config import ConfigError, home, load, read_yaml
from sapis_lab.data import DatasetInfo
from sapis_lab.elements import SYMBOLS
from sapis_lab.files import digest
from sapis_lab.models import ModelConfig
from sapis_lab.quantities import quantity
from sapis_lab.records import RECORD, Planned, read_record
from sapis_lab.sweep.folder import results_folder
from sapis_lab.sweep.keep import SETTINGS, WEIGHTS, kept_folder
from sapis_lab.sweep.study import Study
from sapis_lab.training import PointConfig, TrainConfig


class Point(NamedTuple):
    """A point: what it will be trained from, and what is known of it beforehand."""

    config: PointConfig
    planned: Planned


def points(study: Study, info: DatasetInfo) -> list[Point]:
    """All points of `study`, in the order of the lattice.

    Raises:
        ConfigError: one line for every problem: more frames than there are, a size that a model cannot have,
            an error on frames that the data lack.
    """
    study, started = _from_start(study, info)
    problems = _too_many_frames(study, info) + _unlabelled(study, info) + _unmeasured(study, info)
    sized: dict[tuple[str, float], tuple[ModelConfig, int]] = {}
    for model in study.models:
        for target in study.lattice.n_params:
            try:
                sized[model.label, target] = started or _at_size(
                    model, target, len(info.species), study.train
                )
            except ValueError as error:
                problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(f"studies/{study.name}.yaml: {p}" for p in problems))
    _refuse_equal_names(study)
    lattice, regime = (
        study.lattice,
        None if study.regime is None else read_regime(results_folder(study.regime)),
    )
    return [
        _point(
            study,
            model,
            *sized[model.label, n],
            target=n,
            n_frames=d,
            factor=factor,
            seed=seed,
            regime=regime,
        )
        for model in study.models
        for n in lattice.n_params
        for d in lattice.n_frames
        for factor in lattice.rate_factors
        for seed in lattice.seeds
    ]


def _from_start(study: Study, info: DatasetInfo) -> tuple[Study, tuple[ModelConfig, int] | None]:
    """The study with the weights of the point that its trainings start from, and the model and N of that
    point; as it is where they start from random weights.

    Raises:
        ConfigError: there is no such potential, or it is none of the study's model and size.
    """
    start = study.train.start
    if start is None:
        return study, None
    where, folder = f"studies/{study.name}.yaml: train.start.point", home() / start.point
    place = folder if (folder / RECORD).exists() else kept_folder(folder.parent.parent, folder.name)
    if not (place / RECORD).exists():
        raise ConfigError(f"{where}: {start.point} is no finished point; run the study of it first")
    source = str(place / SETTINGS)
    born: PointConfig = load(PointConfig, read_yaml(place / SETTINGS), source=source, recorded=True)
    record = read_record(place)
    n_params = record.n_params
    (model, *others), sizes = study.models, study.lattice.n_params
    if others or model.kind != born.model.kind:
        raise ConfigError(
            f"{where}: a {born.model.kind} of N = {n_params:,}; wanted models: [{born.model.kind}], got "
            f"{', '.join(m.label for m in study.models)}"
        )
    if len(sizes) != 1 or not 0.9 < sizes[0] / n_params < 1.1:
        raise ConfigError(
            f"{where}: it has N = {n_params:,}, which is the size of all points; wanted lattice.n_params: "
            f"[{n_params:.2g}], got {', '.join(f'{n:g}' for n in sizes)}"
        )
    description = folder / "model.yaml"
    species = read_yaml(description)["species"] if description.exists() else info.species
    if unknown := sorted(set(info.species) - set(species)):
        raise ConfigError(
            f"{where}: it knows the elements {', '.join(SYMBOLS[z] for z in species)}, the data have "
            f"{', '.join(SYMBOLS[z] for z in unknown)} as well"
        )
    known = start.model_copy(update={"weights": record.weights or digest(folder / WEIGHTS)})
    train = study.train.model_copy(update={"start": known})
    return study.model_copy(update={"train": train}), (born.model, n_params)


def _too_many_frames(study: Study, info: DatasetInfo) -> list[str]:
    return [
        f"lattice.n_frames: n_frames={d} exceeds the {info.n_train} labelled training frames of "
        f"{study.data.kind!r}; "
        "lower lattice.n_frames or label more"
        for d in study.lattice.n_frames
        if d > info.n_train
    ]


def _refuse_equal_names(study: Study) -> None:
    """Names of points hold sizes and factors with a few digits: values that differ less would share a
    folder."""
    lattice = study.lattice
    for key, values in (("n_params", lattice.n_params), ("rate_factors", lattice.rate_factors)):
        names: dict[str, float] = {}
        for value in values:
            text = _scientific(value) if key == "n_params" else f"{value:g}"
            if text in names:
                raise ConfigError(
                    f"studies/{study.name}.yaml: lattice.{key}: {names[text]!r} and {value!r} are both "
                    f"{text} in the names of points; "
                    "leave one of them out"
                )
            names[text] = value


def _unlabelled(study: Study, info: DatasetInfo) -> list[str]:
    """The data must have labels of what is to be learnt."""
    return [
        f"train.targets: {target.key!r} is to be learnt, but {study.data.kind!r} has no such labels; it has "
        f"{', '.join(info.labels)}; name them in the settings of the data"
        for target in study.train.task.targets(study.train)
        if info.labels is not None and target.key not in info.labels
    ]


def _unmeasured(study: Study, info: DatasetInfo) -> list[str]:
    """The law's error must be measured on a split that the data have."""
    sizes = {"val": info.n_validation, **info.n_test}
    key = study.law.quantity
    measured = quantity(key)
    split = measured.split
    if not split:
        return []
    learnt = {m.key for target in study.train.task.targets(study.train) for m in target.measures()}
    if measured.measure not in learnt:
        return [
            f"law.quantity: {key!r} is no error of what this study learns; measured are "
            f"{', '.join(sorted(learnt))}"
        ]
    if split == "train" or sizes.get(split):
        return []
    there = ", ".join(name for name, n in sizes.items() if n)
    return [
        f"law.quantity: {key!r} needs the frames of {split!r}, which these data do not have; they have "
        f"{there}"
    ]


def _at_size(
    model: ModelConfig, n_params: float, n_species: int, train: TrainConfig
) -> tuple[ModelConfig, int]:
    """The trunk with about `n_params` parameters, and N, which counts its heads as well."""
    sized, n_trunk = _trunk(model, n_params, n_species)
    if not train.heads:
        return sized, n_trunk
    return sized, train.task.n_params(sized, train, n_species=n_species)


@cache
def _trunk(model: ModelConfig, n_params: float, n_species: int) -> tuple[ModelConfig, int]:
    sized = model.at_size(n_params, n_species=n_species)
    return sized, sized.n_params(n_species=n_species)


def _point(
    study: Study,
    family: ModelConfig,
    model: ModelConfig,
    n_params: int,
    *,
    target: float,
    n_frames: int,
    factor: float,
    seed: int,
    regime: Regime | None,
) -> Point:
    rule = regime and regime.rule_for(family.label, family.kind)
    rate = (rule and rule.learning_rate(n_params, n_frames)) or study.train.rate_of(family, n_params)
    batch = (rule and rule.batch_size(n_params, n_frames)) or study.train.batch_size
    rate *= factor
    id = point_id(family.label, target, n_frames, seed, factor)
    where = f"studies/{study.name}.yaml: {id}"
    train = load(
        TrainConfig, {**study.train.model_dump(), "learning_rate": rate, "batch_size": batch}, source=where
    )
    settings = {
        "id": id,
        "data": study.data,
        "model": model,
        "n_params_target": target,
        "n_params": n_params,
        "n_frames": n_frames,
        "seed": seed,
        "train": train,
    }
    config = load(PointConfig, settings, source=where)
    planned = Planned(
        id=config.id,
        fingerprint=config.fingerprint,
        model=family.label,
        family=model.kind,
        symmetry=type(model).symmetry,
        lmax=getattr(model, "lmax", None),
        seed=seed,
        n_params_target=target,
        n_params=n_params,
        n_frames=n_frames,
        steps=train.steps_for(n_frames),
        batch_size=min(train.batch_size, n_frames),
        learning_rate=rate,
    )
    return Point(config, planned)


def point_id(label: str, n_params: float, n_frames: int, seed: int, factor: float = 1.0) -> str:
    """`geat-l2-n1.0e5-d512-s0`, with `-r0.5` where the learning rate is multiplied."""
    rate = "" if factor == 1.0 else f"-r{factor:g}"
    return f"{label}-n{_scientific(n_params)}-d{n_frames}-s{seed}{rate}"


def _scientific(value: float) -> str:
    """1e5 -> '1.0e5', 12345 -> '1.2345e4': one digit after the point, or as many as the value needs."""
    text = next((t for d in range(1, 8) if float(t := f"{value:.{d}e}") == value), f"{value:.8e}")
    mantissa, exponent = text.split("e")
    return f"{mantissa}e{int(exponent)}"


# -------------------------------------------------------------------------------------------------- selection


def select(planned: Sequence[Planned], only: Sequence[str]) -> list[Planned]:
    """The points named by `only`: ids, globs (`geat-*`), or values (`n_frames=50,seed=0`); all of them when
    `only` is empty.

    Several entries add up. ConfigError when an entry names no point.
    """
    chosen: set[str] = set()
    for entry in only:
        found = {p.id for p in planned if _matches(p, entry)}
        if not found:
            raise ConfigError(f"--only {entry!r} names no point; {_known(planned, entry)}")
        chosen |= found
    return [p for p in planned if not only or p.id in chosen]


_KEYS = ("model", "family", "n_params_target", "n_frames", "seed", "learning_rate", "lmax", "n_params")


def _matches(point: Planned, entry: str) -> bool:
    if "=" not in entry:
        return fnmatch.fnmatchcase(point.id, entry)
    return all(_equal(point, condition) for condition in entry.split(","))


def _equal(point: Planned, condition: str) -> bool:
    key, sep, text = condition.strip().partition("=")
    if key not in _KEYS or not sep:
        raise ConfigError(
            f"--only {condition!r}: wanted an id, a glob such as 'geat-*', or key=value with a key of "
            f"{', '.join(_KEYS)}"
        )
    value: Any = getattr(point, key)
    if isinstance(value, str) or value is None:
        return fnmatch.fnmatchcase(str(value).lower(), text.lower())
    try:
        return float(text) in (float(value), point.n_params_target if key == "n_params" else float(value))
    except ValueError:
        raise ConfigError(f"--only {condition!r}: wanted a number for {key}") from None


def _known(planned: Sequence[Planned], entry: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(entry, [p.id for p in planned], n=1, cutoff=0.3)
    return f"the nearest is {near[0]!r}" if near else f"the first is {planned[0].id!r}"
