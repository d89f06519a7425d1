"""A transformer without rotational symmetry: attention over neighbours with Cartesian displacements among the
edge features.

    a_ij = softmax_j( q_i . k_j / sqrt(d) + b(h_ij) + log f(r_ij) ),      m_i = sum_j a_ij v_j * g(h_ij),
    h_ij = silu( W [R(r_ij), R(r_ij) u_ij, species of j] + W' x_i + W'' x_j ),      u = v / r,

per head, with a bias b and a filter g from the edge network, then a two-layer perceptron at the atom, both
residual after an RMS norm: the family of PET (Pozdnyakov & Ceriotti, arXiv:2305.19302) and EScAIP (Qu &
Krishnapriyan, arXiv:2410.24169). Energies are invariant under translation and permutation, and smooth: the
envelope f enters the softmax as a logarithm (as in PET), and the pair (i, i), with f = 1, is the sink without
which an atom whose only neighbour leaves would keep a weight of one up to the cutoff. Rotations are learned
from augmented data.

The softmax is written out, since fused attention has no second derivative.
Layout: features first, (F, pairs) at the edges, (F, n) at the atoms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from sapis_lab.atoms import AtomsBatch
from sapis_lab.graphs import PairGraph
from sapis_lab.models._base import MOST_LAYERS, MOST_RADIAL, MOST_WIDTH, Flops, Model, ModelConfig
from sapis_lab.models._layers import silu, unit_normal
from sapis_lab.models._pair_features import PairFeatures

EPSILON = 1e-3
"""Added to the mean square in the norms: their slope at zero is 1/sqrt(EPSILON), not infinite."""


class TransformerConfig(ModelConfig):
    """Settings of the non-equivariant transformer."""

    kind: Literal["transformer"] = "transformer"
    symmetry: ClassVar[Literal["O(3)", "none"]] = "none"
    channel_step: ClassVar[int] = 4

    layers: int = Field(default=3, ge=1, le=MOST_LAYERS)
    """Attention layers."""
    channels: int = Field(default=48, ge=1, le=MOST_WIDTH)
    """Features of an atom."""
    heads: int = Field(default=4, ge=1, le=MOST_WIDTH)
    """Attention heads; divides `channels`."""
    edge_hidden: int = Field(default=48, ge=1, le=MOST_WIDTH)
    """Hidden width of the edge networks."""
    node_hidden: int = Field(default=96, ge=1, le=MOST_WIDTH)
    """Hidden width of the perceptrons at the atoms."""
    n_radial: int = Field(default=8, ge=1, le=MOST_RADIAL)
    """Number of Bessel functions of the distance, alone and times the Cartesian unit vector."""

    @model_validator(mode="after")
    def _heads_divide_channels(self) -> Self:
        if self.channels % self.heads:
            raise ValueError(
                f"channels={self.channels} is no multiple of heads={self.heads}; change one of them"
            )
        return self

    def _build(self, species: tuple[int, ...], mean_neighbors: float) -> Transformer:
        return Transformer(self, species=species)

    def resized(self, channels: int, secondary: float) -> Self:
        """Channels as asked, in four heads, eight from 64 channels on; edge networks as wide as the channels,
        those at the atoms twice."""
        heads = 8 if channels >= 64 and channels % 8 == 0 else 4
        hidden = {
            "edge_hidden": max(4, round(secondary * channels)),
            "node_hidden": max(4, round(2 * secondary * channels)),
        }
        return self.model_copy(update={"channels": channels, "heads": heads, **hidden})

    def _n_edge(self, n_species: int) -> int:
        return 4 * self.n_radial + n_species

    def n_params(self, *, n_species: int) -> int:
        """Exact number of trainable parameters, in closed form."""
        c, e, f = self.channels, self.edge_hidden, self.node_hidden
        edge = (self._n_edge(n_species) + 1) * e + 2 * e * c + (self.heads + c) * (e + 1)
        layer = 2 * c + 3 * c * c + edge + c * c + 2 * f * c + f + c
        return n_species * c + self.layers * layer + c * c + 2 * c + 1

    def flops(self, *, n_atoms: int, n_pairs: int, n_species: int) -> Flops:
        """Operations of one forward pass."""
        c, e, f = self.channels, self.edge_hidden, self.node_hidden
        edge = self._n_edge(n_species) * e + e * (self.heads + c) + c
        layer = 2 * n_pairs * edge + 2 * n_atoms * (4 * c * c + 2 * e * c + 2 * c * f)
        matmul = self.layers * layer + 2 * n_atoms * (n_species * c + c * c + c)
        elementwise = (
            self.layers * (n_pairs * (8 * e + 4 * c + 8 * self.heads) + n_atoms * (10 * c + 6 * f))
            + 30 * n_pairs * self.n_radial
        )
        return Flops(matmul, elementwise)


def rms_norm(x_CN: Tensor, weight: Tensor) -> Tensor:
    """x / sqrt(mean over channels of x^2 + EPSILON), times a weight per channel."""
    return x_CN * torch.rsqrt(x_CN.square().mean(0, keepdim=True) + EPSILON) * weight.unsqueeze(1)


def linear(weight: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """W x / sqrt(fan-in) + b for (features, rows)."""
    weight = weight * weight.shape[1] ** -0.5
    return weight @ x if bias is None else torch.addmm(bias.unsqueeze(1), weight, x)


class Layer(nn.Module):
    """Attention over the neighbours and a perceptron, both residual."""

    def __init__(self, config: TransformerConfig, *, n_edge: int) -> None:
        super().__init__()
        c, e, f, self.heads = config.channels, config.edge_hidden, config.node_hidden, config.heads
        self.norm_0, self.norm_1 = nn.Parameter(torch.ones(c)), nn.Parameter(torch.ones(c))
        self.query_key_value, self.out = unit_normal(3 * c, c), unit_normal(c, c)
        self.edge_0, self.edge_bias_0 = unit_normal(e, n_edge), nn.Parameter(torch.zeros(e))
        self.edge_atoms = unit_normal(2 * e, c)
        self.edge_1, self.edge_bias_1 = (
            unit_normal(self.heads + c, e),
            nn.Parameter(torch.zeros(self.heads + c)),
        )
        self.node_0, self.node_bias_0 = unit_normal(f, c), nn.Parameter(torch.zeros(f))
        self.node_1, self.node_bias_1 = unit_normal(c, f), nn.Parameter(torch.zeros(c))

    def forward(
        self, x_CN: Tensor, edges_FP: Tensor, log_envelope: Tensor, graph: PairGraph
    ) -> tuple[Tensor, Tensor]:
        """New features (C, n) and the attention weights (H, G, I, K); log_envelope (G, I, K)."""
        g, i, k = graph.dims
        c, heads, e = len(x_CN), self.heads, len(self.edge_bias_0)
        normed = rms_norm(x_CN, self.norm_0)
        query, key, value = linear(self.query_key_value, normed).split(c)
        query, key = (t.view(heads, c // heads, -1).transpose(1, 2) for t in (query, key))
        logits = torch.bmm(graph.centers_of(query), graph.neighbors_of(key).transpose(1, 2)).view(
            heads, g, i, k
        )
        of_center, of_neighbor = linear(self.edge_atoms, normed).split(e)
        hidden = linear(self.edge_0, edges_FP, self.edge_bias_0).view(e, g, i, k) + of_center.view(e, g, i, 1)
        hidden = silu(hidden + graph.neighbors_of(of_neighbor.unsqueeze(2)).view(e, g, 1, k))
        bias, filters = linear(self.edge_1, hidden.view(e, -1), self.edge_bias_1).split([heads, c])
        attention = torch.softmax(logits * (c // heads) ** -0.5 + bias.view(heads, g, i, k) + log_envelope, 3)
        values = graph.neighbors_of(value.unsqueeze(2)).view(heads, -1, g, 1, k)
        message = (filters.view(heads, -1, g, i, k) * attention.unsqueeze(1) * values).sum(4).view(c, -1)
        x_CN = x_CN + linear(self.out, message)
        hidden = silu(linear(self.node_0, rms_norm(x_CN, self.norm_1), self.node_bias_0))
        return x_CN + linear(self.node_1, hidden, self.node_bias_1), attention


class Transformer(Model):
    """Non-equivariant transformer."""

    symmetry = "none"
    layout = "pairs"

    def __init__(self, config: TransformerConfig, *, species: tuple[int, ...]) -> None:
        super().__init__(species=species, cutoff=config.cutoff)
        c, n_edge = config.channels, config._n_edge(len(species))
        self.pair_features = PairFeatures(
            config.cutoff, config.n_radial, n_directed=config.n_radial, envelope="log"
        )
        self.n_features = c
        self.embedding = unit_normal(c, len(species))
        self.layers = nn.ModuleList(Layer(config, n_edge=n_edge) for _ in range(config.layers))
        self.readout_0, self.readout_bias_0 = unit_normal(c, c), nn.Parameter(torch.zeros(c))
        self.readout_1, self.readout_bias_1 = unit_normal(1, c), nn.Parameter(torch.zeros(1))

    def features(self, vectors: Tensor, batch: AtomsBatch) -> tuple[Tensor, ...]:
        """Radial functions, their products with the Cartesian unit vector, and log f, (F, G, I, K)."""
        return (self.pair_features.rows(vectors),)

    def features_and_pullback(
        self, vectors: Tensor, batch: AtomsBatch
    ) -> tuple[tuple[Tensor, ...], Callable[..., Tensor]]:
        """The same, and the map from dE/dfeatures to dE/dvectors."""
        rows, pullback = self.pair_features.rows_and_pullback(vectors)
        return (rows,), pullback

    def atomic_energy(
        self, features: tuple[Tensor, ...], batch: AtomsBatch
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Energies per atom, the features of the last layer, and the attention weights of the last layer, (H,
        G, I, K)."""
        graph = batch.graph
        assert isinstance(graph, PairGraph)
        g, i, k = graph.dims
        rows, log_envelope = features[0][:-1].flatten(1), features[0][-1]
        log_envelope = torch.where(graph.is_self(), torch.zeros_like(log_envelope), log_envelope)
        one_hot = graph.pad(self.one_hot(batch.species))
        neighbor = graph.neighbors_of(one_hot.unsqueeze(0)).view(g, 1, k, -1).expand(g, i, k, -1)
        edges = torch.cat([rows, neighbor.flatten(0, 2).T])
        x = self.embedding @ one_hot.T
        for layer in self.layers:
            x, attention = layer(x, edges, log_envelope, graph)
        energy = linear(
            self.readout_1, silu(linear(self.readout_0, x, self.readout_bias_0)), self.readout_bias_1
        )
        return graph.unpad(energy.squeeze(0)), graph.unpad(x.T), {"attention": attention}

    def energy_parameters(self) -> Iterator[str]:
        return iter(("readout_0", "readout_1", "readout_bias_0", "readout_bias_1"))

    def equivariant_parameters(self) -> Iterator[str]:
        """None: nothing here transforms under rotations."""
        return iter(())
