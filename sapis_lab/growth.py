"""Growing a trained model: more parameters, the same energies and forces, and an optimiser that goes on where
it was.

A larger model computes the same function when every value that its old units read is what it was: old entries
of a parameter keep their weights, entries through which new units write start at zero, entries through which
they read at random (Net2Net, Chen, Goodfellow & Shlens, arXiv:1511.05641, without copies of units; GradMax,
Evci et al., arXiv:2201.05125, has the same zeros).  Which entries are which, a model family says in
`Model.growth`; here is what all families share.

Weights are W = m p with a constant m per parameter (`Model.multipliers`).  Growth keeps W where m changes
    with the size, p' = p m/m',      dE/dp' = (m'/m) dE/dp,
so that Adam's first and second moments scale by m'/m and (m'/m)^2.  First moments of new entries are zero;
their second moments are the mean of the old entries' of the same parameter.  Zeros would be wrong there: Adam
counts steps per parameter, not per entry, so that new entries would take steps of up to 6.6 times the
learning rate (with 0.9 and 0.999).  Warm up for a hundred steps or so after growth.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from sapis_lab.models import Model, ModelConfig, Origin

Settings = TypeVar("Settings", bound=ModelConfig)

_MOMENTS = {"exp_avg": 1, "exp_avg_sq": 2, "max_exp_avg_sq": 2}
"""Adam's state by the power with which it scales with the gradient."""


class Grown(NamedTuple):
    """What `grow` returns."""

    model: Model
    """the larger model, ready to train; precision and device are those of the old one"""
    optimizer_state: dict[str, Any] | None
    """state_dict for an AdamW of `model.parameters()`, if one was given"""
    average: list[Tensor] | None
    """running average of the weights, in the order of `model.parameters()`, if one was given"""
    config: ModelConfig
    """settings of the larger model: `to`, with what it must remember of its birth to be built again"""


def grow(
    model: Model,
    to: ModelConfig,
    *,
    seed: int,
    optimizer_state: Mapping[str, Any] | None = None,
    average: list[Tensor] | None = None,
) -> Grown:
    """A model with the sizes of `to` that computes the energies and forces of `model`, to rounding.

    Args:
        to: settings of the same kind and cutoff, no size smaller; species are those of `model`.   seed: draws
        the new reads. optimizer_state: state_dict of an AdamW of `model.parameters()`.   average: averaged
        weights, in the order of the parameters.

    Raises:
        ValueError: `to` shrinks a size or is another function; the family does not grow; state or average do
        not fit the model.
    """
    if model.heads:
        raise ValueError("the model has heads, whose growth is not known; wanted one of energies alone")
    plan = model.growth(to)
    grown = plan.config.build(species=model.species, mean_neighbors=plan.mean_neighbors, seed=seed).to(
        model.energy_scale
    )
    old, new = dict(model.named_parameters()), dict(grown.named_parameters())
    assert set(plan.origins) == set(new), f"no origin for {sorted(set(new) ^ set(plan.origins))}"
    before, after = model.multipliers(), grown.multipliers()
    ratio = {
        name: after[name] / (after[name] if o.name is None else before[o.name])
        for name, o in plan.origins.items()
    }

    def enlarged(values: Mapping[str, Tensor], name: str) -> Tensor:
        origin = plan.origins[name]
        start = torch.where(origin.zero.to(drawn[name].device), 0, drawn[name])
        return start if origin.name is None else _laid(values[origin.name] / ratio[name], start, origin)

    with torch.no_grad():
        drawn = {name: p.detach().clone() for name, p in new.items()}
        for name, p in new.items():
            p.copy_(enlarged(old, name))
        buffers = dict(model.named_buffers())
        for name, buffer in grown.named_buffers():
            buffer.copy_(buffers[name])
        if average is not None:
            _same_shapes(average, old)
            averaged = dict(zip(old, average, strict=True))
            average = [enlarged(averaged, name).to(averaged[next(iter(old))].device) for name in new]
        state = (
            None if optimizer_state is None else _grown_state(optimizer_state, old, new, plan.origins, ratio)
        )
    return Grown(grown, state, average, plan.config)


def _laid(old: Tensor, start: Tensor, origin: Origin) -> Tensor:
    """`start` with the old values laid in their new places."""
    known = torch.ones((), dtype=torch.bool, device=start.device)
    value = old.detach().to(start.device)
    for axis, source in enumerate(origin.axes):
        source = source.to(start.device)
        value = value.index_select(axis, source.clamp_min(0))
        known = known & (source >= 0).view([-1 if a == axis else 1 for a in range(start.dim())])
    return torch.where(known, value, start)


def _grown_state(
    state: Mapping[str, Any],
    old: Mapping[str, Tensor],
    new: Mapping[str, Tensor],
    origins: Mapping[str, Origin],
    ratio: Mapping[str, float],
) -> dict[str, Any]:
    """The state_dict of AdamW for the new parameters, its moments in the old places."""
    groups = state["param_groups"]
    if len(groups) != 1 or list(groups[0]["params"]) != list(range(len(old))):
        raise ValueError(
            f"optimizer_state has {len(groups)} groups of {[len(g['params']) for g in groups]} parameters; "
            f"wanted one group with the {len(old)} of the model in their order"
        )
    moments = dict(zip(old, (state["state"].get(i) for i in range(len(old))), strict=True))
    known = next((m for m in moments.values() if m is not None), None)
    grown = {}
    for i, (name, parameter) in enumerate(new.items()):
        origin = origins[name]
        past = known if origin.name is None else moments[origin.name]
        if past is None:  # not a step taken yet
            continue
        unknown = set(past) - set(_MOMENTS) - {"step"}
        if unknown:
            raise ValueError(
                f"optimizer_state holds {sorted(unknown)}, wanted Adam's {', '.join(_MOMENTS)} and step"
            )
        entry: dict[str, Any] = {}
        for key, value in past.items():
            if key == "step":
                step = value.clone() if isinstance(value, Tensor) else value
                entry[key] = step * 0 if origin.name is None else step
                continue
            entry[key] = torch.zeros_like(
                parameter, dtype=value.dtype, memory_format=torch.contiguous_format
            ).detach()
            if origin.name is not None:
                _same_shapes([value], {origin.name: old[origin.name]})
                scaled = value * ratio[name] ** _MOMENTS[key]
                if _MOMENTS[key] == 2:
                    entry[key] += scaled.mean().to(entry[key].device)
                entry[key] = _laid(scaled, entry[key], origin)
        grown[i] = entry
    return {"state": grown, "param_groups": [{**groups[0], "params": list(range(len(new)))}]}


def _same_shapes(values: list[Tensor], parameters: Mapping[str, Tensor]) -> None:
    got, wanted = [tuple(v.shape) for v in values], [tuple(p.shape) for p in parameters.values()]
    if got != wanted:
        differing = next(
            (n for n, g, w in zip(parameters, got, wanted, strict=False) if g != w), "their number"
        )
        raise ValueError(
            f"average or optimizer_state is of another model: {len(got)} tensors for {len(wanted)}, "
            f"differing in {differing}"
        )


def expanded(config: Settings, factor: float, *, eta: float) -> Settings:
    """Settings for selective parameter expansion: widths of equivariant maps times `factor`, of scalar
    networks times 1 + eta (factor - 1).

    With eta = 1 all widths grow alike, with eta = 0 only the equivariant ones. What counts as which, a family
    says in `ModelConfig.widened`.

    Raises:
        ValueError: a factor below 1, an eta outside [0, 1], or a family that does not say.
    """
    if factor < 1:
        raise ValueError(f"factor: got {factor:g}, wanted at least 1: widths only grow")
    if not 0 <= eta <= 1:
        raise ValueError(f"eta: got {eta:g}, wanted a number from 0 to 1")
    return config.widened(factor, 1 + eta * (factor - 1))
