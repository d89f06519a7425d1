"""The point that runs a decision: sizes as the model can have them, D as the cost then allows, and the model
of the run before grown where the campaign starts warm."""

from __future__ import annotations

import math
from collections.abc import Callable

from sapis_lab.config import ConfigError
from sapis_lab.data import DatasetConfig
from sapis_lab.growth import expanded
from sapis_lab.models import ModelConfig
from sapis_lab.policies import Decision, Prices
from sapis_lab.scaling.campaign import Campaign, single_point
from sapis_lab.scaling.history import ASIDE
from sapis_lab.scaling.ledger import Ledger
from sapis_lab.sweep.plan import infos
from sapis_lab.sweep.points import Point, point_id
from sapis_lab.sweep.study import Study
from sapis_lab.training import Parent

Make = Callable[[float, int, int], Point]
"""The point of a target N, D and a seed."""


def point_of(decision: Decision, ledger: Ledger) -> Point:
    """The point that runs a decision: sizes as the model can have them, D as the cost then allows."""
    campaign = ledger.campaign
    study = campaign.study
    if decision.action in ASIDE:
        like = next(p.planned for p in ledger.points if p.planned.n_params == decision.n_params)
        target, n_frames = like.n_params_target, round(decision.n_frames)
    else:
        target, n_frames = float(f"{decision.n_params:.3g}"), round(decision.n_frames)
    study = _with_labels(campaign, study, n_frames)
    make = _maker(campaign, study)
    if decision.action not in ASIDE:
        n_frames = _frames(make(target, study.lattice.n_frames[-1], 0), decision, ledger)
        if n_frames == ledger.basis().rules.most_frames:
            make = _maker(campaign, _with_labels(campaign, campaign.study, n_frames))
            target = _filled(make, target, n_frames, decision, ledger)
            n_frames = _frames(make(target, n_frames, 0), decision, ledger)
        make = _maker(campaign, _with_labels(campaign, campaign.study, n_frames))
    taken = {p.planned.id for p in ledger.points}
    label = campaign.study.models[0].label
    seed = next(s for s in range(decision.seed, 10_000) if point_id(label, target, n_frames, s) not in taken)
    point = make(target, n_frames, seed)
    if campaign.options.warm_start and decision.action not in ASIDE:
        point = _warm(point, ledger)
    return point


def _maker(campaign: Campaign, study: Study) -> Make:
    """Makes points of the study, whose pool may be larger than the campaign's."""
    known = campaign.known if study.data == campaign.study.data else infos(study)
    info = next(iter(known.values()))

    def make(target: float, n_frames: int, seed: int) -> Point:
        return single_point(study, info, n_params=target, n_frames=n_frames, seed=seed)

    return make


def _frames(point: Point, decision: Decision, ledger: Ledger) -> int:
    """D at which the model as it is costs what the decision allows; its exact size differs from what was
    asked for."""
    prices = Prices(
        ledger.planned(point) / point.planned.n_frames / point.planned.n_params,
        label=ledger.campaign.options.label_cost,
        labelled=ledger.labelled,
    )
    wanted = float(prices.frames(point.planned.n_params, decision.cost))
    return max(1, int(min(wanted, ledger.basis().rules.most_frames)))


def _filled(make: Make, target: float, n_frames: int, decision: Decision, ledger: Ledger) -> float:
    """About the N at which a run on all frames costs what the decision allows. Elsewhere D makes up for
    the error of the prices, a smooth power of N through models whose widths are whole numbers; here only
    N can. Where the cost leaps past what is allowed, D comes down to meet it."""
    allowed = decision.cost - ledger.campaign.options.label_cost * max(n_frames - ledger.labelled, 0)
    power, most = ledger.prices().power, ledger.campaign.options.most_params or math.inf
    found = target
    for _ in range(4):
        try:
            ratio = allowed / ledger.planned(make(target, n_frames, 0))
        except ConfigError:
            break  # a size that the family cannot have
        found, target = target, float(f"{target * ratio ** (1 / power):.3g}")
        if abs(ratio - 1) < 0.02 or target > most:
            break
    return found


def _with_labels(campaign: Campaign, study: Study, n_frames: int) -> Study:
    """The study with a pool of at least `n_frames`."""
    more = n_frames - campaign.info.n_train
    if more <= 0:
        return study
    return study.model_copy(update={"data": _with_more(study.data, more)})


def _warm(point: Point, ledger: Ledger) -> Point:
    """The point, starting from the last one of the path: its model, widened until it has about as many
    parameters."""
    aside = {e.id for e in ledger.entries if e.decision.action in ASIDE}
    path = [p for p in ledger.points if p.planned.id not in aside]
    parent = (
        path[-1]
        if len(path) > len(ledger.campaign.seeds)
        else max(path, key=lambda p: p.planned.n_params * p.planned.n_frames)
    )
    old, wanted, n_species = parent.config.model, point.planned.n_params, len(ledger.campaign.info.species)
    if wanted < 0.98 * parent.planned.n_params:
        return point  # a model does not shrink: this one starts anew
    model = _widened(old, wanted, n_species=n_species, eta=ledger.campaign.options.eta)
    config = point.config.model_copy(
        update={
            "id": f"{point.config.id}-warm",
            "model": model,
            "n_params": model.n_params(n_species=n_species),
            "parent": Parent(id=parent.config.id, fingerprint=parent.config.fingerprint),
        }
    )
    planned = point.planned.model_copy(
        update={"id": config.id, "fingerprint": config.fingerprint, "n_params": config.n_params}
    )
    return Point(config, planned)


def _with_more(data: DatasetConfig, n_frames: int) -> DatasetConfig:
    """The data set with at least `n_frames` more than its pool."""
    whole = getattr(data, "trajectory_frames", 1)
    return data.model_copy(update={"n_more": -(-n_frames // whole) * whole})


def _widened(old: ModelConfig, n_params: int, *, n_species: int, eta: float) -> ModelConfig:
    """The settings of `old`, grown selectively to about `n_params` parameters, with what they must remember
    of their birth."""
    model = old.without_storage(n_species)

    def grown(factor: float) -> ModelConfig:
        return model.growth(expanded(old, factor, eta=eta)).config

    if n_params <= old.n_params(n_species=n_species):
        return grown(1.0)
    low, high = 1.0, 2.0
    while grown(high).n_params(n_species=n_species) < n_params:
        low, high = high, 2 * high
    for _ in range(20):
        middle = math.sqrt(low * high)
        low, high = (
            (middle, high) if grown(middle).n_params(n_species=n_species) < n_params else (low, middle)
        )
    return min((grown(low), grown(high)), key=lambda m: abs(m.n_params(n_species=n_species) - n_params))
