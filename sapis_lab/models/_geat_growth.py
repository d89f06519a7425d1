"""How the parameters of GEAT grow without changing its energies: what an old entry becomes, and what a new
one starts from.

Reads of new units are random and writes of new units zero, never both, so that the function stays and the
first gradient of the writes is not zero (Net2Net, arXiv:1511.05641, without its copies). What is new, and
what is zero for it:

    channels        whatever writes them into Psi (represent, embedding, merge, couple, node_out): Psi and its
    norm stay value channels, heads        their rows of merge, which hold no old value
    invariants, edge_hidden, n_radial      what old hidden units (edge_radial, edge_invariant) or old rows of
    edge_out read of them key_width       keys; queries are random
    coupling        their rows of couple; what old hidden units of the node network read of their invariants
    node_hidden     their rows of node_out, except into gates of new channels or degrees, which nothing old
    reads degree l        Psi^l is random from the first step on, since the norm is per degree and nothing old
    reads it: keys of l are zero, so
                    is b^l of the old coupling channels, and a^l too where a^l (x) b^l'' reaches an old degree
                    (l <= 2 lmax)
    layers          what they write into old degrees of Psi (merge, couple, scalars of node_out): an exact
    identity, before the last

Heads hold c = C/H value channels each, head by head.  Where the heads of the larger model hold fewer than c,
an old head becomes several that attend alike, on disjoint channels; their moments are copies too, though each
has a share of the gradient.

Legend as in `geat`: L degrees, C channels, H heads, c channels of a head, Q invariants, D key width, B radial
functions, S species, W coupling channels.  An axis is given as the old position of every new one, -1 where
there was none.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sapis_lab.kernels.shapes import GeatShape
from sapis_lab.models._base import Origin

_YES, _NO = torch.tensor(True), torch.tensor(False)
"""Zero masks of whole parameters."""


def origins(old: GeatShape, new: GeatShape) -> dict[str, Origin]:
    """Where every parameter of a model of shape `new` comes from."""
    radial, channels = _appended(old.n_radial, new.n_radial), _appended(old.channels, new.channels)
    degrees = _appended(old.lmax + 1, new.lmax + 1)
    species, one = torch.arange(old.n_species), torch.arange(1)
    old_degree = (degrees >= 0).view(-1, 1, 1)
    found = {
        "represent": Origin(
            "represent", (degrees, _pairs(species, radial, old.n_radial), channels), old_degree
        ),
        "embedding": Origin("embedding", (species, channels), _YES),
        "readout_in.weight": Origin("readout_in.weight", (channels, channels), _NO),
        "readout_in.bias": Origin("readout_in.bias", (channels,), _NO),
        "readout_out.weight": Origin("readout_out.weight", (channels, one), _YES),
        "readout_out.bias": Origin("readout_out.bias", (one,), _NO),
        "readout_skip": Origin("readout_skip", (channels, one), _NO),
    }
    for i in range(new.layers):
        last = i == new.layers - 1
        was = old.layers - 1 if last else i if i < old.layers - 1 else None
        layer = _inserted(old, new) if was is None else _kept(old, new, last=last)
        for name, (own, axes, zero) in layer.items():
            found[f"layers.{i}.{name}"] = Origin(None if was is None else f"layers.{was}.{own}", axes, zero)
    return found


def _kept(old: GeatShape, new: GeatShape, *, last: bool) -> dict[str, Origin]:
    """Of the parameters of a layer that the old model has."""
    l, c, q, d, w = old.lmax + 1, old.channels, old.invariants, old.key_width, old.coupling_channels
    degrees, channels = _appended(l, new.lmax + 1), _appended(c, new.channels)
    invariants, width = _appended(q, new.invariants), _appended(d, new.key_width)
    coupled, node = _appended(w, new.coupling_channels), _appended(old.node_width, new.node_width)
    radial, hidden, one = (
        _appended(old.n_radial, new.n_radial),
        _appended(old.edge_hidden, new.edge_hidden),
        torch.arange(1),
    )
    heads, values = _heads(old, new)

    keys = _pairs(invariants, width, d)
    projected = _joined((keys, q * d), (keys, q * d), (values, c))
    filters = torch.cat([degrees, torch.tensor([l])])  # of Y per degree, then of Psi_j
    logits = [(heads, old.heads)] if old.softmax else []
    edge_rows = _joined(*logits, (_pairs(filters, heads, old.heads), (l + 1) * old.heads))
    per_coupling = _pairs(degrees, coupled, w)
    node_rows = _joined((channels, c), (per_coupling, l * w))
    node_columns = channels if last else node_rows

    new_degree = degrees < 0
    other = new_degree.view(-1, 1, 1) | (width < 0)  # (L, 1, d): reads that would add to an old invariant
    key_zero = ((invariants >= 0).view(1, -1, 1) & other).reshape(len(degrees), -1)
    key_zero = torch.cat(
        [torch.zeros_like(key_zero), key_zero, torch.zeros(len(degrees), len(values), dtype=torch.bool)], 1
    )
    reached = new_degree & torch.tensor([not last and at <= 2 * old.lmax for at in range(len(degrees))])
    factor_zero = torch.cat([t.view(-1, 1) & (coupled >= 0) for t in (reached, new_degree)], 1)
    # not zero, and not of old
    alien = torch.cat([torch.zeros(len(channels), dtype=torch.bool), (coupled < 0).repeat(len(degrees))])
    written = torch.ones(len(channels), dtype=torch.bool)
    if not last:
        written = torch.cat([written, per_coupling >= 0])
    old_degree = ~new_degree.view(-1, 1, 1)
    found = {
        "project": Origin("project", (degrees, channels, projected), key_zero.unsqueeze(1)),
        "project_bias": Origin("project_bias", (one, projected), key_zero[:1]),
        "scalar_value": Origin("scalar_value", (channels, values), _NO),
        "edge_radial": Origin("edge_radial", (hidden, radial), (hidden >= 0).view(-1, 1)),
        "edge_invariant": Origin("edge_invariant", (hidden, invariants), (hidden >= 0).view(-1, 1)),
        "edge_bias": Origin("edge_bias", (hidden, one), _NO),
        "edge_out": Origin("edge_out", (edge_rows, hidden), (edge_rows >= 0).view(-1, 1)),
        "edge_out_bias": Origin("edge_out_bias", (edge_rows, one), _NO),
        "merge": Origin("merge", (degrees, values, channels), old_degree),
        "factors": Origin(
            "factors", (degrees, channels, _joined((coupled, w), (coupled, w))), factor_zero.unsqueeze(1)
        ),
        "node_in.weight": Origin("node_in.weight", (node_rows, node), alien.view(-1, 1) & (node >= 0)),
        "node_in.bias": Origin("node_in.bias", (node,), _NO),
        "node_out.weight": Origin("node_out.weight", (node, node_columns), written),
        "node_out.bias": Origin("node_out.bias", (node_columns,), written),
    }
    if not last:
        found["couple"] = Origin("couple", (degrees, coupled, channels), old_degree)
    return found


def _inserted(old: GeatShape, new: GeatShape) -> dict[str, Origin]:
    """Of the parameters of a new layer, as drawn except for what it writes into degrees that something
    reads."""
    old_degree = (torch.arange(new.lmax + 1) <= old.lmax).view(-1, 1, 1)
    scalars = torch.arange(new.channels + (new.lmax + 1) * new.coupling_channels) < new.channels
    names = [
        "project",
        "project_bias",
        "scalar_value",
        "edge_radial",
        "edge_invariant",
        "edge_bias",
        "edge_out",
        "edge_out_bias",
    ]
    names += ["factors", "node_in.weight", "node_in.bias"]
    writes = {"merge": old_degree, "couple": old_degree, "node_out.weight": scalars, "node_out.bias": scalars}
    return {name: Origin(None, (), zero) for name, zero in {**dict.fromkeys(names, _NO), **writes}.items()}


# ------------------------------------------------------------------------------------------------------- axes


def _appended(n_old: int, n_new: int) -> Tensor:
    """An axis with new positions at its end, (n_new,)."""
    index = torch.arange(n_new)
    return torch.where(index < n_old, index, -1)


def _pairs(first: Tensor, second: Tensor, n_second: int) -> Tensor:
    """The axis of pairs (i, j), i slowest, where j had `n_second` positions."""
    outer, inner = first.view(-1, 1), second.view(1, -1)
    return torch.where((outer >= 0) & (inner >= 0), outer * n_second + inner, -1).reshape(-1)


def _joined(*parts: tuple[Tensor, int]) -> Tensor:
    """Axes one after the other, each given with its old length."""
    joined, start = [], 0
    for axis, n_old in parts:
        joined.append(torch.where(axis >= 0, axis + start, -1))
        start += n_old
    return torch.cat(joined)


def _heads(old: GeatShape, new: GeatShape) -> tuple[Tensor, Tensor]:
    """The axes of heads (H,) and of value channels (C,), head by head; an old head becomes as many as its
    channels need."""
    c, wide = old.channels // old.heads, new.channels // new.heads
    parts = -(-c // wide)
    if old.heads * parts > new.heads:
        raise ValueError(
            f"heads: got {new.heads} of {wide} channels, which do not hold the {old.heads} heads of {c} "
            f"channels; "
            f"wanted at least {c} channels a head, or {old.heads * parts} heads"
        )
    head, channel = torch.arange(new.heads).view(-1, 1), torch.arange(wide).view(1, -1)
    source = torch.where(head < old.heads * parts, head // parts, -1)
    within = (head % parts) * wide + channel
    values = torch.where((source >= 0) & (within < c), source * c + within, -1)
    return source.view(-1), values.reshape(-1)
