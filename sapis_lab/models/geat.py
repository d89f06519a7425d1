"""GEAT, the Group-Equivariant Attention Transformer: O(3)-equivariant features, attention from invariants,
node-wise tensor products.

Atom features Psi_i^l, l = 0..L, of natural parity (-1)^l, are laid out components first, x (M, N, C) with M =
(L+1)^2, so that a map per degree is one batched matrix product.  The energy is a sum over atoms, E = sum_i
MLP(Psi_i^0) + linear.

(i) Representation:  Psi_i^l = W^l [ sum_j R_k(r_ij) delta(s, Z_j) Y^l(r_ij) ]_(k,s), scalars += Emb[Z_i],
    with R_k 32 exponential-normal functions times the envelope f.  The species one-hot multiplies Y (few
    rows), not R (many).
(ii) Attention:  12 invariants <q_i, k_j>, summed over degrees, and R(r_ij) feed one edge network; it gives
    per head a logit e_ij, a filter g_l for Y^l (x) Psi_j^0 and one filter h for Psi_j^l:
        alpha_ij = softmax_j( e_ij + log f(r_ij) ),
        m_i^l = sum_j alpha_ij [ g_l Y^l(r_ij) V0 Psi_j^0 + h V^l Psi_j^l ].
    The pair (i, i) is a slot with f = 1 and no radial features: it is the sink without which a softmax is
    discontinuous where the only neighbour crosses the cutoff.
(iii) Update:  a, b = W Psi;  the invariants <a, b>_l and the scalars feed a node network that writes scalars
    and gates the exact Gaunt product a (x) b (all couplings with l1 + l2 + l3 even, on a Lebedev grid).  The
    last layer writes scalars only.

Before (ii) and (iii) features pass a soft norm x / sqrt(1 + mean x^2 / tau) per atom and degree: the identity
for small features, a bound for large ones.  An RMS norm cost more accuracy than any other choice (force error
55 against 36 meV/Å at equal CPU time): it removes the size of the features, which carries density and
distortion, and amplifies degrees that vanish by symmetry.

Two more soft norms, looser, bound what can run away: of the hidden layer of the edge networks, and of the
scalars before the readout. The energy is a polynomial of degree 7 or so in the size of a layer's features; at
a rate too high, <q, k>, the filters, the gates and the product grow in turn and the readout passes it on.
With these norms such a run trains badly instead of ending in NaN.

Weights are W = m p with Adam acting on p, which makes m a multiplier of the learning rate: 1 for equivariant
maps, 0.5 for edge and node networks, 0.3 for the readout, times 40 / channels where the fan-in is the
channels and 2 / layers within more than two layers, so that one rate serves all sizes
(`GeatConfig.width_factor`, `depth_factor`).

What was tried, what failed and what earns its place: docs/geat.md.

A model can grow without changing its function (`_geat_growth`, `sapis_lab.growth`): the soft norms then keep
the channels of their birth in the mean, and the radial functions their centres and widths, which `born`
records.

The geometry features (Y, R, log f) do not depend on parameters, so forces use their analytic Jacobian
(`features_and_pullback`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from sapis_lab.atoms import AtomsBatch, Layout
from sapis_lab.config import Added, Config
from sapis_lab.geometry.couplings import quadrature, spread
from sapis_lab.geometry.harmonics import n_components
from sapis_lab.geometry.pair_features import PairFeatures, RadialFunctions, pair_features
from sapis_lab.geometry.radial import exp_normal_centers
from sapis_lab.graphs import PairGraph
from sapis_lab.kernels.shapes import GeatShape
from sapis_lab.models import _geat_growth
from sapis_lab.models._base import MOST_LAYERS, MOST_RADIAL, MOST_WIDTH, Flops, Growth, Model, ModelConfig

# Shape legend: M components, L degrees (lmax + 1), N nodes, C channels, H heads, c channels of a head, G
# groups, I centres and K slots of a group (see PairGraph), P pairs (G I K), Q invariants, D key width, B
# radial functions, S species, W coupling channels.

MAP, REPRESENT, EDGE, NODE, READOUT = 1.0, 1.0, 0.5, 0.5, 0.3
"""Learning-rate multipliers of the equivariant maps, the representation, the edge networks, the node networks
and the readout."""
REFERENCE_WIDTH = 40
"""Channels at which these hold; weights whose fan-in is the channels have them times
`GeatConfig.width_factor`."""

_GROWING = {
    "lmax": "lmax",
    "layers": "layers",
    "channels": "channels",
    "heads": "heads",
    "invariants": "invariants",
    "key_width": "key_width",
    "n_radial": "n_radial",
    "edge_hidden": "edge_hidden",
    "coupling": "coupling_channels",
    "node_hidden": "node_width",
}
"""Sizes that may grow, by the setting that gives them."""
_FREE = {"kind", "name", "born", "fixed", *_GROWING}
"""Settings that may differ; all others are part of the function."""


class Born(Config):
    """What a grown model keeps of the sizes it had."""

    channels: int = Field(ge=1, le=MOST_WIDTH)
    """Channels at birth, over which the soft norms of features average."""
    edge_hidden: int = Field(ge=1, le=MOST_WIDTH)
    """Hidden width of the edge networks at birth, over which their soft norm averages."""
    n_radial: tuple[Annotated[int, Field(ge=1, le=MOST_RADIAL)], ...] = Field(
        min_length=1, max_length=MOST_RADIAL
    )
    """Radial functions at birth and after every earlier growth of them, ascending: each growth appended
    functions of their own width."""


class GeatConfig(ModelConfig):
    """Settings of GEAT; the defaults are the measured optimum near 10^5 parameters."""

    kind: Literal["geat"] = "geat"
    version: ClassVar[int] = 2
    channel_step: ClassVar[int] = 4

    lmax: int = Field(default=2, ge=0, le=6)
    """Largest degree of the features."""
    layers: int = Field(default=2, ge=1, le=MOST_LAYERS)
    """Attention layers."""
    channels: int = Field(default=40, ge=1, le=MOST_WIDTH)
    """Channels of every degree."""
    heads: int = Field(default=4, ge=1, le=MOST_WIDTH)
    """Attention heads; divides `channels`."""
    invariants: int = Field(default=12, ge=1, le=MOST_WIDTH)
    """Inner products <q_i, k_j> of every pair."""
    key_width: int = Field(default=4, ge=1, le=MOST_WIDTH)
    """Channels of each query and key."""
    n_radial: int = Field(default=32, ge=2, le=MOST_RADIAL)
    """Radial functions."""
    edge_hidden: int = Field(default=48, ge=1, le=MOST_WIDTH)
    """Hidden width of the edge networks."""
    coupling: float = Field(default=0.5, ge=1e-6, le=1000)
    """Channels of the tensor product over `channels`."""
    node_hidden: float = Field(default=2.0, ge=1e-6, le=1000)
    """Hidden width of the node networks over `channels`."""
    soft_norm: float = Field(default=4.0, ge=1e-6, le=1e6)
    """tau of the soft norm before the update."""
    edge_norm: float | None = Field(default=1.0, ge=1e-6, le=1e6)
    """tau of the soft norm of the edge networks' hidden layer; null: none."""
    readout_norm: float | None = Field(default=10.0, ge=1e-6, le=1e6)
    """tau of the soft norm of the scalars before the readout; null: none."""
    attention: Literal["softmax", "uniform"] = "softmax"
    """Weights of the neighbours: softmax_j(e_ij + log f), or f / mean_neighbors, without logits."""
    product: Literal["gaunt", "none"] = "gaunt"
    """What the gates of the update act on: the Gaunt product a (x) b, or a alone."""
    fixed: Annotated[
        tuple[Literal["heads", "invariants", "key_width", "n_radial", "edge_hidden"], ...], Added(before=())
    ] = ()
    """Sizes that stay as they are stated when `at_size` chooses the channels for a number of parameters; the
    others follow the channels. `lmax`, `layers`, `coupling` and `node_hidden` stay always."""
    born: Born | None = None
    """What a grown model keeps of its birth, written by `sapis_lab.growth`; null: born at its present
    size."""

    @model_validator(mode="after")
    def _heads_divide(self) -> GeatConfig:
        if self.channels % self.heads:
            raise ValueError(f"heads={self.heads} does not divide channels={self.channels}")
        return self

    @model_validator(mode="after")
    def _born_smaller(self) -> GeatConfig:
        if self.born is None:
            return self
        sizes = (*self.born.n_radial, self.n_radial)
        if (
            self.born.channels > self.channels
            or self.born.edge_hidden > self.edge_hidden
            or list(sizes) != sorted(sizes)
        ):
            own = f"channels={self.channels}, edge_hidden={self.edge_hidden} or n_radial={self.n_radial}"
            raise ValueError(f"{self.born!r} exceeds {own}, or is not ascending")
        return self

    def _build(self, species: tuple[int, ...], mean_neighbors: float) -> Geat:
        return Geat(self, species=species, mean_neighbors=mean_neighbors)

    def resized(self, channels: int, secondary: float) -> Self:
        grow = secondary * math.sqrt(channels / 40)
        shrink = min(1.0, grow)
        follow = {
            "heads": 4 if channels >= 16 else 2 if channels >= 8 else 1,
            "invariants": max(2, round(12 * shrink)),
            "key_width": 4 if channels >= 24 else 2,
            "n_radial": max(8, round(32 * shrink)),
            "edge_hidden": max(8, round(48 * grow)),
        }
        stay = {size: getattr(self, size) for size in self.fixed}
        return self.model_copy(update={"channels": channels, "born": None} | follow | stay)

    def widened(self, equivariant: float, scalar: float) -> Self:
        """Equivariant: `channels` (to the nearest multiple of `heads`), the coupling channels, which follow
        by their ratio, and `key_width`. Scalar: `edge_hidden`, `invariants` (the inputs of the edge network)
        and the node width, for which `node_hidden` is set. The hidden width of the readout is `channels` and
        grows with them; heads, degrees, layers and radial functions stay."""
        channels = max(self.channels, self.heads * round(self.channels * equivariant / self.heads))
        node = max(self.node_width, round(self.node_width * scalar))
        ratio = node / channels
        changes = {
            "channels": channels,
            "key_width": max(self.key_width, round(self.key_width * equivariant)),
            "invariants": max(self.invariants, round(self.invariants * scalar)),
            "edge_hidden": max(self.edge_hidden, round(self.edge_hidden * scalar)),
            "node_hidden": ratio if int(ratio * channels) == node else math.nextafter(ratio, math.inf),
        }
        return self.model_copy(update=changes)

    def grown(self, to: ModelConfig) -> GeatConfig:
        """`to` with what a model grown from these settings must remember of its birth.

        Raises:
            ValueError: another kind, cutoff, norm or birth, or a size that shrinks; names field, got and
                wanted.
        """
        if not isinstance(to, type(self)):
            raise ValueError(f"kind: got {to.kind!r}, wanted {self.kind!r}: a model grows within its kind")
        for field in type(self).model_fields:
            if field not in _FREE and getattr(to, field) != getattr(self, field):
                raise ValueError(
                    f"{field}: got {getattr(to, field)}, wanted {getattr(self, field)}: another value is "
                    f"another function"
                )
        for field, size in _GROWING.items():
            got, had = getattr(to, size), getattr(self, size)
            if got < had:
                via = "" if size == field else f" {size}"
                raise ValueError(f"{field}: got {got}{via}, wanted at least {had}: a model does not shrink")
        past = () if self.born is None else self.born.n_radial
        first, hidden = self.born_widths
        sizes = past if past and to.n_radial == self.n_radial else (*past, self.n_radial)
        same = (first, hidden) == (to.channels, to.edge_hidden) and set(sizes) == {to.n_radial}
        born = None if same else {"channels": first, "edge_hidden": hidden, "n_radial": sizes}
        if to.born is not None and to.born != self.born and to.born.model_dump() != born:
            raise ValueError(f"born: got {to.born!r}, wanted null, from which it follows as {born}")
        return type(self).model_validate({**to.model_dump(), "born": born})

    @property
    def born_widths(self) -> tuple[int, int]:
        """Channels and hidden width of the edge networks at birth, which soft norms keep when the model
        grows."""
        return (
            (self.channels, self.edge_hidden)
            if self.born is None
            else (self.born.channels, self.born.edge_hidden)
        )

    @property
    def width_factor(self) -> float:
        """Of the multipliers of weights with `channels` inputs: a step of Adam then moves what they compute
        equally at all widths (Yang et al., arXiv:2203.03466). Narrow models stop at twice the rate, where
        sweeps at C = 4 and 20 have their optimum."""
        return min(2.0, REFERENCE_WIDTH / self.channels)

    @property
    def depth_factor(self) -> float:
        """Of the multipliers within layers: more than two layers share the step of two."""
        return min(1.0, 2.0 / self.layers)

    @property
    def head_rows(self) -> int:
        """Outputs of the edge network: per head a logit, lmax + 1 filters of Y and one of Psi_j."""
        return self.heads * (self.lmax + (3 if self.attention == "softmax" else 2))

    @property
    def coupling_channels(self) -> int:
        """W, channels of the tensor product."""
        return max(1, int(self.coupling * self.channels))

    @property
    def node_width(self) -> int:
        """Hidden width of the node networks."""
        return max(1, int(self.node_hidden * self.channels))

    def radial_functions(self) -> tuple[Tensor, Tensor]:
        """Centres and widths of the radial functions, (B, 1) float64; those that a growth appends lie evenly
        between the ends and are as narrow as in a model born with as many."""
        sizes = (self.n_radial,) if self.born is None else (*self.born.n_radial, self.n_radial)
        centers, width = exp_normal_centers(sizes[0])
        parts, widths = [centers], [torch.full_like(centers, width)]
        for before, after in zip(sizes[:-1], sizes[1:], strict=True):
            low, high = centers[0], centers[-1]
            # midpoints of the old centres where their number nearly doubles
            between = (torch.arange(after - before, dtype=torch.float64) + 0.5) / max(after - before, 1)
            parts.append(low + (high - low) * between)
            widths.append(torch.full_like(between, exp_normal_centers(after)[1]))
        return torch.cat(parts).view(-1, 1), torch.cat(widths).view(-1, 1)

    def shape(self, *, n_species: int, mean_neighbors: float) -> GeatShape:
        """What growth and compiled forms must know of a model with these settings."""
        born_channels, born_hidden = self.born_widths
        with torch.device("cpu"):  # also where a model is built without storage
            centers, widths = self.radial_functions()
        return GeatShape(
            lmax=self.lmax,
            layers=self.layers,
            channels=self.channels,
            heads=self.heads,
            invariants=self.invariants,
            key_width=self.key_width,
            n_radial=self.n_radial,
            edge_hidden=self.edge_hidden,
            coupling_channels=self.coupling_channels,
            node_width=self.node_width,
            n_species=n_species,
            born_channels=born_channels,
            born_hidden=born_hidden,
            softmax=self.attention == "softmax",
            gaunt=self.product == "gaunt",
            cutoff=float(self.cutoff),
            sum_scale=2.0 / math.sqrt(mean_neighbors),
            uniform=1.0 / mean_neighbors,
            norm_attention=1.0 / born_channels,
            norm_update=1.0 / (self.soft_norm * born_channels),
            norm_edge=1.0 / (self.edge_norm * born_hidden) if self.edge_norm else 0.0,
            norm_readout=1.0 / (self.readout_norm * born_channels) if self.readout_norm else 0.0,
            centers=tuple(centers.view(-1).tolist()),
            widths=tuple(widths.view(-1).tolist()),
        )

    def n_params(self, *, n_species: int) -> int:
        """Exact number of trainable parameters, in closed form."""
        l, c, q, b = self.lmax + 1, self.channels, self.invariants, self.n_radial
        keys, hid, w, node = (
            2 * q * self.key_width + c,
            self.edge_hidden,
            self.coupling_channels,
            self.node_width,
        )
        attention = (l * c + 1) * keys + c * c + hid * (b + q + 1) + self.head_rows * (hid + 1) + l * c * c
        update = 2 * l * c * w + (c + l * w + 1) * node + (node + 1) * c
        product = l * w * c + (node + 1) * l * w
        ends = l * b * n_species * c + n_species * c + c * c + 3 * c + 1
        return ends + self.layers * (attention + update) + (self.layers - 1) * product

    def flops(self, *, n_atoms: int, n_pairs: int, n_species: int) -> Flops:
        """Operations of one forward pass."""
        m, l, c, q, d = n_components(self.lmax), self.lmax + 1, self.channels, self.invariants, self.key_width
        b, h, hid, w, node = (
            self.n_radial,
            self.heads,
            self.edge_hidden,
            self.coupling_channels,
            self.node_width,
        )
        grid = quadrature(self.lmax)[0].shape[0]

        # the map itself, and repeating its weight inside a degree
        def per_degree(fan_in: int, fan_out: int) -> int:
            return n_atoms * m * fan_in * fan_out + m * l * fan_in * fan_out

        matmul = n_pairs * m * n_species * b + per_degree(b * n_species, c) + n_atoms * c * (n_species + m)
        keys = 2 * q * d + c
        attention = n_pairs * (q * m * d + hid * (b + q + self.head_rows) + h * m * l + 2 * m * c)
        attention += per_degree(c, keys) + m * keys + per_degree(c, c) + n_atoms * c * c + n_atoms * m * m
        update = n_atoms * (m * m + m * l * w + (c + l * w) * node + node * c) + per_degree(c, 2 * w)
        product = n_atoms * (3 * grid * m * w + m * l * w + node * l * w + m * c) + per_degree(w, c)
        matmul += self.layers * (attention + update) + (self.layers - 1) * product + n_atoms * (c * c + 2 * c)
        elementwise = n_pairs * (
            8 * b + m * (n_species + 3) + self.layers * (6 * hid + (3 * l + 8) * h + 3 * h * m + q)
        )
        elementwise += self.layers * n_atoms * (14 * m * c + 6 * m * w + 2 * grid * w + 5 * node)
        return Flops(2 * matmul, elementwise)


# ----------------------------------------------------------------------------------------------------- pieces


def _random(*shape: int, fan: int, gain: float = 1.0, multiplier: float = 1.0) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape) * (gain / (multiplier * math.sqrt(fan))))


def _zeros(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(*shape))


class _Dense(nn.Module):
    """A scalar layer m x W + m' b, rows first."""

    def __init__(
        self, fan_in: int, fan_out: int, *, multiplier: float, of_bias: float, gain: float = 0.58
    ) -> None:
        super().__init__()
        self.multiplier, self.of_bias = multiplier, of_bias
        self.weight = _random(fan_in, fan_out, fan=fan_in, gain=gain, multiplier=multiplier)
        self.bias = _zeros(fan_out)

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, self.weight, alpha=self.multiplier, beta=self.of_bias)


class _Constants(NamedTuple):
    """0/1 and quadrature matrices, cast from float64."""

    spread: Tensor
    """(M, L) repeats a value per degree over its components"""
    mean: Tensor
    """(M, M) averages over the components of a degree and repeats the result"""
    norm: Tensor
    """(L, M) sums the components of a degree over sqrt(2l+1)"""
    to_grid: Tensor
    from_grid: Tensor
    radial: RadialFunctions


class _Edges(NamedTuple):
    """What the layers know of the pairs."""

    graph: PairGraph
    harmonics: Tensor
    """(G, M, I K)"""
    radial: Tensor
    """(B, P)"""
    log_f: Tensor
    """(G, I, K)"""


def _per_degree(x: Tensor, weight: Tensor, spread_: Tensor) -> Tensor:
    """(M, N, C) and (L, C, C') -> (M, N, C'), the weight shared inside a degree: one batched product, no
    index_select."""
    return torch.bmm(
        x, (spread_ @ weight.view(weight.shape[0], -1)).view(-1, weight.shape[1], weight.shape[2])
    )


def _soft_norm(x: Tensor, k: _Constants, strength: float) -> Tensor:
    """x / sqrt(1 + strength * sum over channels of the component mean of x^2), per atom and degree."""
    return x * torch.rsqrt(
        torch.addmm(k.mean.new_ones(()), k.mean, x.square().sum(-1), alpha=strength)
    ).unsqueeze(-1)


class _Layer(nn.Module):
    """Attention (ii) and update (iii)."""

    def __init__(self, config: GeatConfig, shape: GeatShape, *, last: bool) -> None:
        super().__init__()
        l, c, q, d = config.lmax + 1, config.channels, config.invariants, config.key_width
        w, hid, node = config.coupling_channels, config.edge_hidden, config.node_width
        self.config, self.shape, self.last = config, shape, last
        wide, deep = config.width_factor, config.depth_factor
        self.map, self.edge, self.node = MAP * wide * deep, EDGE * deep, NODE * wide * deep
        keys = 2 * q * d
        self.project = _random(l, c, keys + c, fan=c, multiplier=self.map)  # queries, keys, values
        # of l = 0: lets <q, k> hold terms linear in the scalars of i and of j
        self.project_bias = _zeros(1, keys + c)
        with torch.no_grad():
            self.project_bias[0, :keys].view(2, q, d)[:, :, 0] = 0.5
        self.scalar_value = _random(c, c, fan=c, multiplier=self.map)  # V0, multiplied by Y
        self.edge_radial = _random(hid, config.n_radial, fan=config.n_radial, multiplier=self.edge)
        self.edge_invariant = _random(hid, q, fan=q, gain=0.5, multiplier=self.edge)
        self.edge_bias = _zeros(hid, 1)
        # per head: logit, L filters of Y, one of Psi_j
        self.edge_out = _random(config.head_rows, hid, fan=hid, multiplier=self.edge)
        self.edge_out_bias = _zeros(config.head_rows, 1)
        self.merge = _random(l, c, c, fan=c, gain=0.5, multiplier=self.map)
        self.factors = _random(l, c, 2 * w, fan=c, multiplier=self.map)  # a and b
        self.node_in = _Dense(c + l * w, node, multiplier=self.node, of_bias=NODE * deep)
        self.node_out = _Dense(node, c if last else c + l * w, multiplier=self.node, of_bias=NODE * deep)
        if not last:
            self.couple = _random(l, w, c, fan=w, gain=0.5, multiplier=self.map)
            with torch.no_grad():
                self.node_out.bias[c:] = 1.0 / self.node_out.of_bias  # gates start open

    def forward(self, x: Tensor, edges: _Edges, k: _Constants) -> Tensor:
        return self.update(x + self.attend(x, edges, k), k)

    def attend(self, x: Tensor, edges: _Edges, k: _Constants) -> Tensor:
        """m, (M, N, C)."""
        graph, config = edges.graph, self.config
        (g, i, slots), (m, n, c) = graph.dims, x.shape
        q, d, h, l = config.invariants, config.key_width, config.heads, config.lmax + 1
        xn = _soft_norm(x, k, self.shape.norm_attention)
        weight = (k.spread @ (self.map * self.project).view(l, -1)).view(m, c, -1)
        projected = torch.baddbmm((k.spread[:, :1] @ self.project_bias).unsqueeze(1), xn, weight)
        query_key, value = projected.split([2 * q * d, c], -1)
        query, key = query_key.view(m, n, 2, q, d).permute(2, 3, 1, 0, 4).reshape(2, q, n, m * d).unbind(0)
        invariants = torch.bmm(graph.centers_of(query), graph.neighbors_of(key).transpose(1, 2)).view(q, -1)
        hidden = torch.addmm(self.edge_bias, self.edge_radial, edges.radial, alpha=self.edge, beta=self.edge)
        hidden = F.silu(torch.addmm(hidden, self.edge_invariant, invariants, alpha=self.edge))
        if config.edge_norm is not None:  # over the units of birth: those of growth are not zero
            size = hidden[: self.shape.born_hidden].square().sum(0, keepdim=True)
            hidden = hidden * torch.rsqrt(1 + size / (config.edge_norm * self.shape.born_hidden))
        out = torch.addmm(self.edge_out_bias, self.edge_out, hidden, alpha=self.edge, beta=self.edge)
        if config.attention == "softmax":
            logits, filters = out.split([h, h * (l + 1)], 0)
            attention = torch.softmax(logits.view(h, g, i, slots) + edges.log_f, -1)
        else:
            filters, attention = out, edges.log_f.exp() * self.shape.uniform
        on_y, on_x = (filters.view(l + 1, h, g, i, slots) * attention).split([l, 1], 0)

        def heads(t: Tensor) -> Tensor:  # (F, N, C) -> (H, N, F c)
            return t.view(-1, n, h, c // h).permute(2, 1, 0, 3).reshape(h, n, -1)

        on_y = torch.matmul(k.spread, on_y.permute(1, 2, 0, 3, 4).reshape(h * g, l, i * slots)).view(
            h, g, m, i * slots
        )
        on_y = (on_y * edges.harmonics).view(h * g, m * i, slots)
        from_scalars = torch.bmm(on_y, graph.neighbors_of(heads(xn[0] @ (self.map * self.scalar_value))))
        from_values = torch.bmm(on_x.view(h * g, i, slots), graph.neighbors_of(heads(value)))
        message = from_scalars.view(h, g, m, i, c // h).permute(2, 1, 3, 0, 4).reshape(m, n, c)
        message = message + from_values.view(h, g, i, m, c // h).permute(3, 1, 2, 0, 4).reshape(m, n, c)
        return _per_degree(message, self.map * self.merge, k.spread)

    def update(self, x: Tensor, k: _Constants) -> Tensor:
        """x + the gated product, (M, N, C); in the last layer the scalars only, (N, C)."""
        m, n, c = x.shape
        l, w = self.config.lmax + 1, self.config.coupling_channels
        xn = _soft_norm(x, k, self.shape.norm_update)
        a, b = _per_degree(xn, self.map * self.factors, k.spread).split(w, -1)
        invariants = (k.norm @ (a * b).view(m, -1)).view(l, n, w).transpose(0, 1).reshape(n, l * w)
        out = self.node_out(F.silu(self.node_in(torch.cat([xn[0], invariants], -1))))
        if self.last:
            return x[0] + out
        scalars, gates = out.split([c, l * w], -1)
        product = a
        if self.config.product == "gaunt":
            product = (k.from_grid @ ((k.to_grid @ a.reshape(m, -1)) * (k.to_grid @ b.reshape(m, -1)))).view(
                m, n, w
            )
        gates = (k.spread @ gates.reshape(n, l, w).transpose(0, 1).reshape(l, -1)).view(m, n, w)
        x = x + _per_degree(product * gates, self.map * self.couple, k.spread)
        return x + (k.spread[:, :1] @ scalars.reshape(1, -1)).view(m, n, c)


# ------------------------------------------------------------------------------------------------------ model


class Geat(Model):
    """The model; see the page's first lines for the equations."""

    symmetry: ClassVar[Literal["O(3)", "none"]] = "O(3)"
    layout: ClassVar[Layout] = "pairs"

    def __init__(self, config: GeatConfig, *, species: tuple[int, ...], mean_neighbors: float) -> None:
        super().__init__(species=species, cutoff=config.cutoff)
        l, c, rows = config.lmax + 1, config.channels, config.n_radial * len(species)
        self.config, self.mean_neighbors, self.n_features = config, mean_neighbors, c
        self.shape = config.shape(n_species=len(species), mean_neighbors=mean_neighbors)
        self.represent = _random(l, rows, c, fan=rows, multiplier=REPRESENT)
        self.embedding = nn.Parameter(torch.randn(len(species), c))
        self.layers = nn.ModuleList(
            _Layer(config, self.shape, last=i == config.layers - 1) for i in range(config.layers)
        )
        self.readout = READOUT * config.width_factor
        self.readout_in = _Dense(c, c, multiplier=self.readout, of_bias=READOUT)
        self.readout_out = _Dense(c, 1, multiplier=self.readout, of_bias=READOUT)
        self.readout_skip = _zeros(c, 1)  # linear skip of the readout: no dead start
        self._make_constants()

    def energy_parameters(self) -> Iterator[str]:
        return (name for name, _ in self.named_parameters() if name.startswith("readout_"))

    def equivariant_parameters(self) -> Iterator[str]:
        maps = ("project", "scalar_value", "merge", "factors", "couple", "represent")
        return (name for name, _ in self.named_parameters() if name.split(".")[-1] in maps)

    def multipliers(self) -> dict[str, float]:
        wide, deep = self.config.width_factor, self.config.depth_factor
        plain = {"edge": EDGE * deep, "node": NODE * deep, "readout": READOUT, "represent": REPRESENT}
        maps = {"project", "scalar_value", "merge", "factors", "couple"}

        def of(name: str) -> float:
            owner, own = (
                name.split(".")[-2:] if name.endswith((".weight", ".bias")) else (name.split(".")[-1],) * 2
            )
            if own in maps:
                return MAP * wide * deep
            multiplier = plain.get(owner.split("_")[0], 1.0)
            return multiplier * wide if own == "weight" or own == "readout_skip" else multiplier

        return {n: 1.0 if n.startswith("heads.") else of(n) for n, _ in self.named_parameters()}

    def growth(self, to: ModelConfig) -> Growth:
        config = self.config.grown(to)
        shape = config.shape(n_species=self.n_species, mean_neighbors=self.mean_neighbors)
        return Growth(config, self.mean_neighbors, _geat_growth.origins(self.shape, shape))

    def _make_constants(self) -> None:
        """Cast from float64 whenever the model changes type or device, so that float64 is exact."""
        s = spread(self.config.lmax)
        counts = s.sum(0)
        centers, widths = self.config.radial_functions()
        to_grid, from_grid = quadrature(self.config.lmax)
        radial = RadialFunctions.of(centers, widths, cutoff=self.cutoff)

        def cast(t: Tensor) -> Tensor:
            return t.to(self.energy_scale).contiguous()

        self._k = _Constants(
            spread=cast(s),
            mean=cast((s / counts) @ s.T),
            norm=cast((s / counts.sqrt()).T),
            to_grid=cast(to_grid),
            from_grid=cast(from_grid),
            radial=RadialFunctions(*map(cast, radial)),
        )

    def _apply(self, fn: Callable, recurse: bool = True) -> Self:  # type: ignore[override]
        super()._apply(fn, recurse)
        self._make_constants()
        return self

    # ---- geometry

    def features(self, vectors: Tensor, batch: AtomsBatch) -> tuple[Tensor, ...]:
        return self._layouts(self._geometry(vectors, batch, jacobian=False))

    def features_and_pullback(
        self, vectors: Tensor, batch: AtomsBatch
    ) -> tuple[tuple[Tensor, ...], Callable[..., Tensor]]:
        found = self._geometry(vectors, batch, jacobian=True)
        m, g, i, slots = found.harmonics.shape

        def pullback(
            grad_group: Tensor,
            grad_node: Tensor,
            grad_radial: Tensor,
            grad_radial_node: Tensor,
            grad_log_f: Tensor,
        ) -> Tensor:
            """dE/dv (3, G, I, K)."""
            along_y = grad_group.view(g, m, i, slots).transpose(0, 1) + grad_node.view(
                g, i, m, slots
            ).permute(2, 0, 1, 3)
            along_r = grad_radial + grad_radial_node.permute(2, 0, 1).reshape(found.radial.shape)
            return found.pullback(along_y, along_r, grad_log_f)

        return self._layouts(found), pullback

    def _geometry(self, vectors: Tensor, batch: AtomsBatch, *, jacobian: bool) -> PairFeatures:
        assert isinstance(batch.graph, PairGraph)
        return pair_features(
            vectors,
            batch.graph,
            lmax=self.config.lmax,
            cutoff=self.cutoff,
            radial=self._k.radial,
            jacobian=jacobian,
        )

    @staticmethod
    def _layouts(found: PairFeatures) -> tuple[Tensor, ...]:
        """Y per group (G, M, I K) and per node (N, M, K), R (B, P) and per node (N, K, B), log f: each as its
        products want it."""
        harmonics, radial = found.harmonics, found.radial
        m, g, i, slots = harmonics.shape
        return (
            harmonics.transpose(0, 1).reshape(g, m, i * slots).contiguous(),
            harmonics.permute(1, 2, 0, 3).reshape(g * i, m, slots).contiguous(),
            radial,
            radial.view(-1, g * i, slots).permute(1, 2, 0).contiguous(),
            found.log_f,
        )

    def kernel_shape(self) -> GeatShape:
        return self.shape

    # ---- energies

    def atomic_energy(
        self, features: tuple[Tensor, ...], batch: AtomsBatch
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        harmonics, harmonics_node, radial, radial_node, log_f = features
        graph, k = batch.graph, self._k
        assert isinstance(graph, PairGraph)
        one_hot = self.one_hot(graph.pad(batch.species))
        x = self._representation(harmonics_node, radial_node, one_hot, graph)
        edges = _Edges(graph, harmonics, radial, log_f)
        for layer in self.layers:
            x = layer(x, edges, k)
        xn = x
        if self.config.readout_norm is not None:
            xn = x * torch.rsqrt(
                1 + x.square().sum(1, keepdim=True) / (self.config.readout_norm * self.shape.born_channels)
            )
        hidden = self.readout_out(F.silu(self.readout_in(xn)))
        energy = torch.addmm(hidden, xn, self.readout_skip, alpha=self.readout)
        return graph.unpad(energy.squeeze(-1)), graph.unpad(x), {}

    def _representation(self, harmonics: Tensor, radial: Tensor, one_hot: Tensor, graph: PairGraph) -> Tensor:
        """Psi (M, N, C) from Y (N, M, K), R (N, K, B) and the species."""
        (g, i, slots), n = graph.dims, graph.n_nodes
        if graph.block is not None:
            kind = one_hot.view(g, 1, slots, -1).expand(g, i, slots, self.n_species).reshape(n, 1, slots, -1)
        else:
            assert graph.neighbor is not None
            kind = one_hot.index_select(0, graph.neighbor.reshape(-1)).view(n, 1, slots, -1)
        by_species = (harmonics.unsqueeze(2) * kind.transpose(2, 3).contiguous()).view(n, -1, slots)
        basis = torch.bmm(by_species, radial).view(n, harmonics.shape[1], -1).transpose(0, 1)
        x = _per_degree(basis * (self.shape.sum_scale * REPRESENT), self.represent, self._k.spread)
        return x + (self._k.spread[:, :1] @ (one_hot @ self.embedding).view(1, -1)).view_as(x)
