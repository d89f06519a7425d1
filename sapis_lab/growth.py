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
learning rate (with 0.9 and 0.999).  Warm up for a hundred steps or so after growth.  What SOAP has of
matrices grows as `soap_growth` says, and what it has of vectors as Adam's moments do; but SOAP counts the
steps of all vectors together, so that those of an inserted layer have the mean of all second moments.

Points that start from a parent begin with a new optimiser, whichever it is. AdamW's second moments remember
the small gradients of the end of a schedule for a thousand steps, in which a schedule that starts anew takes
steps that are too long; those of SOAP forget within twenty.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from sapis_lab.models import Model, ModelConfig, Origin
from sapis_lab.soap import is_matrix, state_shapes
from sapis_lab.soap_growth import grown_matrices

Settings = TypeVar("Settings", bound=ModelConfig)

_MOMENTS = {"exp_avg": 1, "exp_avg_sq": 2, "max_exp_avg_sq": 2}
"""Adam's state by the power with which it scales with the gradient."""


class Grown(NamedTuple):
    """What `grow` returns."""

    model: Model
    """the larger model, ready to train; precision and device are those of the old one"""
    optimizer_state: dict[str, Any] | None
    """state_dict for the same optimiser of `model.parameters()`, if one was given"""
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
        the new reads. optimizer_state: state_dict of an AdamW or a Soap of `model.parameters()`.   average:
        averaged weights, in the order of the parameters.

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
    """The state_dict of AdamW or SOAP for the new parameters, its moments in the old places."""
    groups = state["param_groups"]
    if len(groups) != 1 or list(groups[0]["params"]) != list(range(len(old))):
        raise ValueError(
            f"optimizer_state has {len(groups)} groups of {[len(g['params']) for g in groups]} parameters; "
            f"wanted one group with the {len(old)} of the model in their order"
        )
    moments = dict(zip(old, (state["state"].get(i) for i in range(len(old))), strict=True))
    if "block" in groups[0]:
        grown = _grown_soap(moments, old, new, origins, ratio, block=groups[0]["block"])
    else:
        grown = _grown_adam(moments, old, new, origins, ratio)
    return {"state": grown, "param_groups": [{**groups[0], "params": list(range(len(new)))}]}


def _grown_adam(
    moments: Mapping[str, Mapping[str, Any] | None],
    old: Mapping[str, Tensor],
    new: Mapping[str, Tensor],
    origins: Mapping[str, Origin],
    ratio: Mapping[str, float],
) -> dict[int, dict[str, Any]]:
    """Of AdamW, by the places of the parameters."""
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
            entry[key] = _empty(parameter, value)
            if origin.name is not None:
                _same_shapes([value], {origin.name: old[origin.name]})
                entry[key] = _laid_moment(key, value, parameter, origin, ratio[name])
        grown[i] = entry
    return grown


def _empty(parameter: Tensor, value: Tensor) -> Tensor:
    """Zeros of the shape of a parameter and of the type of its state."""
    return torch.zeros_like(parameter, dtype=value.dtype, memory_format=torch.contiguous_format).detach()


def _laid_moment(key: str, value: Tensor, parameter: Tensor, origin: Origin, ratio: float) -> Tensor:
    """A moment of Adam in its new places; the second ones of new entries are the mean of the old ones."""
    scaled, start = value * ratio ** _MOMENTS[key], _empty(parameter, value)
    if _MOMENTS[key] == 2:
        start += scaled.mean().to(start.device)
    return _laid(scaled, start, origin)


def _grown_soap(
    moments: Mapping[str, Mapping[str, Any] | None],
    old: Mapping[str, Tensor],
    new: Mapping[str, Tensor],
    origins: Mapping[str, Origin],
    ratio: Mapping[str, float],
    *,
    block: int,
) -> dict[int, dict[str, Any]]:
    """Of SOAP, by the places of the parameters."""
    held = {name: entry for name, entry in moments.items() if entry is not None}
    if not held:  # not a step taken yet
        return {}
    for name, entry in held.items():
        _refuse_other_shapes(entry, name, tuple(old[name].shape), block=block)
    squares = [entry["exp_avg_sq"].flatten() for entry in held.values() if set(entry) == _OF_VECTORS]
    typical = float(torch.cat(squares).mean()) if squares else 0.0
    step = max(entry["step"] for entry in held.values())
    grown: dict[int, dict[str, Any]] = {}
    for i, (name, parameter) in enumerate(new.items()):
        origin = origins[name]
        past = None if origin.name is None else held.get(origin.name)
        if is_matrix(tuple(parameter.shape)):
            entry = grown_matrices(
                past,
                tuple(parameter.shape),
                old_shape=() if origin.name is None else tuple(old[origin.name].shape),
                axes=origin.axes,
                scale=ratio[name],
                block=block,
            )
        elif past is None:
            entry = {
                "exp_avg": torch.zeros(parameter.shape),
                "exp_avg_sq": torch.full(parameter.shape, typical),
            }
        else:
            entry = {
                key: _laid_moment(key, past[key], parameter, origin, ratio[name])
                for key in ("exp_avg", "exp_avg_sq")
            }
        grown[i] = {"step": step.clone(), **{key: value.to(parameter) for key, value in entry.items()}}
    return grown


_OF_VECTORS = {"step", "exp_avg", "exp_avg_sq"}


def _refuse_other_shapes(entry: Mapping[str, Any], name: str, shape: tuple[int, ...], *, block: int) -> None:
    """ValueError unless SOAP has this state of a parameter of this shape."""
    wanted = state_shapes(shape, block)
    got = {key: tuple(value.shape) for key, value in entry.items() if key != "step"}
    if got != wanted:
        raise ValueError(f"optimizer_state is of another model, differing in {name}: {got}, wanted {wanted}")


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
