"""An Allegro-like potential: strictly local, equivariant features of pairs (Musaelian et al.,
arXiv:2204.05249, section "Methods").

Every directed pair ij carries scalars x_ij and tensors V_ij, products of Y(r_ij) at first, which see only the
neighbours of i:

    Gamma_i^l = 1/sqrt(n) sum_j (W x_ij)^l Y^l(r_ij)                       environment of the centre i,
    V_ij <- sum_paths w_path (V_ij^l1 (x) Gamma_i^l2)^l3,                  tensor track, channel by channel,
    x_ij <- [ x_ij + f(r_ij) MLP(x_ij, scalars of the products) ] / sqrt2  scalar track,
    E = sum_i sum_j e(x_ij),

with the envelope f, so that pairs leave smoothly at the cutoff. Nothing is passed from atom to atom: the
energy of an atom depends on what lies within one cutoff of it.

Gamma_i is shared by all pairs of a centre. So w_path and the Clebsch-Gordan tensors are contracted with Gamma
once an atom, which leaves a small matrix (component out, component in) per atom and channel, and the tensor
product at the pairs is one batched matrix product. This is exact. As in newer Allegro code the tensor track
mixes paths but not channels, which meet in the perceptrons. Layout: features first, (F, pairs); tensors (C n,
M, K) with n centres, K slots, M components.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from sapis_lab.atoms import AtomsBatch
from sapis_lab.geometry.harmonics import n_components
from sapis_lab.graphs import PairGraph
from sapis_lab.models._base import MOST_LAYERS, MOST_RADIAL, MOST_WIDTH, Flops, Model, ModelConfig
from sapis_lab.models._layers import Fixed, block, coupling, paths, silu, unit_normal
from sapis_lab.models._pair_features import PairFeatures


class AllegroConfig(ModelConfig):
    """Settings of the Allegro-like model."""

    kind: Literal["allegro"] = "allegro"
    lmax: int = Field(default=2, ge=0, le=4)
    """Largest degree of the tensors and spherical harmonics."""
    layers: int = Field(default=2, ge=1, le=MOST_LAYERS)
    """Tensor products, which is the number of neighbours beyond the pair itself whose positions enter one
    product."""
    channels: int = Field(default=64, ge=1, le=MOST_WIDTH)
    """Scalars of every pair, and hidden width of the perceptrons."""
    tensor_channels: int = Field(default=8, ge=1, le=MOST_WIDTH)
    """Tensors of every pair and degree."""
    n_radial: int = Field(default=8, ge=1, le=MOST_RADIAL)
    """Number of Bessel functions of the distance."""

    def _build(self, species: tuple[int, ...], mean_neighbors: float) -> Allegro:
        return Allegro(self, species=species, mean_neighbors=mean_neighbors)

    def resized(self, channels: int, secondary: float) -> Self:
        """Scalars as asked; one tensor channel for eight of them, four at least."""
        return self.model_copy(
            update={"channels": channels, "tensor_channels": max(4, round(secondary * channels / 8))}
        )

    @property
    def _n_paths(self) -> int:
        degrees = range(self.lmax + 1)
        return len(paths(degrees, degrees, degrees))

    def n_params(self, *, n_species: int) -> int:
        """Exact number of trainable parameters, in closed form."""
        f, c, degrees = self.channels, self.tensor_channels, self.lmax + 1
        pair = (self.n_radial + 2 * n_species) * f + f * f + f * c * degrees
        layer = f * c * degrees + (f + c * degrees) * f + f * f
        return pair + self.layers * layer + (self.layers - 1) * c * self._n_paths + f * f + f

    def flops(self, *, n_atoms: int, n_pairs: int, n_species: int) -> Flops:
        """Operations of one forward pass."""
        f, c, degrees, m = self.channels, self.tensor_channels, self.lmax + 1, n_components(self.lmax)
        matmul = (
            2 * n_pairs * ((self.n_radial + 2 * n_species) * f + f * f + f * c * degrees + f * f)
            + 2 * n_atoms * f
        )
        elementwise = n_pairs * (20 * self.n_radial + 4 * m + 10 * f + 2 * c * m)
        for layer in range(self.layers):
            last = layer == self.layers - 1
            rows = degrees + (0 if last else m)
            matmul += 2 * n_pairs * (f * c * degrees + (f + c * degrees) * f + f * f)
            matmul += 2 * n_pairs * c * (degrees * m + rows * m) + 2 * n_atoms * c * degrees * m * rows * m
            matmul += 0 if last else 2 * c * self._n_paths * degrees * m * rows * m
            elementwise += n_pairs * (10 * f + c * (3 * degrees + rows))
        return Flops(matmul, elementwise)


class Product(nn.Module):
    """One layer: environment, tensor product, and the update of the scalars."""

    def __init__(self, config: AllegroConfig, *, last: bool, mean_neighbors: float) -> None:
        super().__init__()
        f, c, degrees, m = config.channels, config.tensor_channels, config.lmax + 1, n_components(config.lmax)
        self.degrees, self.last = degrees, last
        self.n_rows = degrees + (0 if last else m)
        self.norm = mean_neighbors**-0.5
        # Tables (path, degree of the weight of Gamma, component of Gamma, row out, component in). The first
        # rows out are the scalars V^l . Gamma^l of every degree, for the perceptron; then come the mixed
        # tensors of the next layer.
        members = paths(range(degrees), range(degrees), range(degrees))
        shape = (degrees, m, self.n_rows, m)
        scalars = torch.zeros(*shape, dtype=torch.float64, device="cpu")
        for path in members:
            if path.l3 == 0:
                scalars[path.l2, block(path.l2), path.l1, block(path.l1)] = coupling(path)[..., 0].T
        self.scalars = Fixed(scalars.reshape(1, -1))
        if not last:
            mixed = torch.zeros(len(members), *shape, dtype=torch.float64, device="cpu")
            for p, path in enumerate(members):
                n_same = sum(other.l3 == path.l3 for other in members)
                rows = slice(degrees + path.l3**2, degrees + (path.l3 + 1) ** 2)
                mixed[p, path.l2, block(path.l2), rows, block(path.l1)] = (
                    coupling(path).permute(1, 2, 0) * n_same**-0.5
                )
            self.mixed = Fixed(mixed.reshape(len(members), -1))
            self.path_weight = unit_normal(c, len(members))
        self.environment = unit_normal(c * degrees, f)
        self.latent_0, self.latent_1 = unit_normal(f, f + c * degrees), unit_normal(f, f)

    def forward(
        self, x_FP: Tensor, tensors: Tensor, *, harmonics_nKM: Tensor, envelope: Tensor
    ) -> tuple[Tensor, Tensor]:
        """New scalars (F, P) and tensors (C n, M, K); envelope (P,)."""
        n, k, m = harmonics_nKM.shape
        degrees = self.degrees
        weight = (self.environment * len(x_FP) ** -0.5 @ x_FP).view(-1, n, k).transpose(0, 1)
        gamma = torch.bmm(weight * self.norm, harmonics_nKM).view(n, -1, degrees * m).transpose(0, 1)
        c = gamma.shape[0]
        table = (
            self.scalars(x_FP).expand(c, -1)
            if self.last
            else torch.addmm(self.scalars(x_FP), self.path_weight, self.mixed(x_FP))
        )
        matrices = torch.bmm(gamma, table.view(c, degrees * m, -1)).view(c * n, self.n_rows, m)
        products = torch.bmm(matrices, tensors)
        scalars, tensors = products.split([degrees, self.n_rows - degrees], 1)
        scalars = scalars.view(c, n, degrees, k).transpose(1, 2).reshape(c * degrees, n * k)
        hidden = self.latent_0 * self.latent_0.shape[1] ** -0.5 @ torch.cat([x_FP, scalars])
        update = self.latent_1 * (0.5 / len(x_FP)) ** 0.5 @ silu(hidden)
        return torch.addcmul(x_FP * 0.5**0.5, update, envelope), tensors


class Allegro(Model):
    """Allegro-like model."""

    symmetry = "O(3)"
    layout = "pairs"

    def __init__(self, config: AllegroConfig, *, species: tuple[int, ...], mean_neighbors: float) -> None:
        super().__init__(species=species, cutoff=config.cutoff)
        f, c, degrees = config.channels, config.tensor_channels, config.lmax + 1
        self.pair_features = PairFeatures(config.cutoff, config.n_radial, lmax=config.lmax, envelope="value")
        self.lmax, self.norm, self.n_features = config.lmax, mean_neighbors**-0.5, f
        self.pair_0, self.pair_1 = unit_normal(f, config.n_radial + 2 * len(species)), unit_normal(f, f)
        self.tensor_weight = unit_normal(c * degrees, f)
        self.products = nn.ModuleList(
            Product(config, last=i == config.layers - 1, mean_neighbors=mean_neighbors)
            for i in range(config.layers)
        )
        self.readout_0, self.readout_1 = unit_normal(f, f), unit_normal(1, f)

    def features(self, vectors: Tensor, batch: AtomsBatch) -> tuple[Tensor, ...]:
        """Radial functions, spherical harmonics and envelope, (F, G, I, K)."""
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
        """Energies per atom (sums over its pairs), sums of the hidden readout over the pairs, no extras."""
        graph = batch.graph
        assert isinstance(graph, PairGraph)
        k, n = graph.dims[2], graph.n_nodes
        radial, harmonics, envelope = features[0].flatten(1).split(self.pair_features.sizes)
        x = self.pair_0 * self.pair_0.shape[1] ** -0.5 @ torch.cat([radial, self._pair_species(batch, graph)])
        x = (self.pair_1 * len(x) ** -0.5 @ silu(x)) * envelope
        weight = (self.tensor_weight * len(x) ** -0.5 @ x).view(-1, self.lmax + 1, 1, n * k)
        tensors = torch.cat([weight[:, l] * harmonics[block(l)] for l in range(self.lmax + 1)], 1)
        tensors = tensors.view(-1, len(harmonics), n, k).transpose(1, 2).reshape(-1, len(harmonics), k)
        harmonics_nKM = harmonics.view(-1, n, k).permute(1, 2, 0).contiguous()
        for product in self.products:
            x, tensors = product(x, tensors, harmonics_nKM=harmonics_nKM, envelope=envelope)
        hidden = silu(self.readout_0 * len(x) ** -0.5 @ x).view(-1, n, k).sum(2) * self.norm
        energy = self.readout_1 * len(hidden) ** -0.5 @ hidden
        return graph.unpad(energy.squeeze(0)), graph.unpad(hidden.T), {}

    def _pair_species(self, batch: AtomsBatch, graph: PairGraph) -> Tensor:
        """One-hot species of centre and neighbour, (2 S, P)."""
        g, i, k = graph.dims
        one_hot = graph.pad(self.one_hot(batch.species))
        center = one_hot.view(g, i, 1, -1).expand(g, i, k, -1)
        neighbor = graph.neighbors_of(one_hot.unsqueeze(0)).view(g, 1, k, -1).expand(g, i, k, -1)
        return torch.cat([center, neighbor], 3).flatten(0, 2).T

    def energy_parameters(self) -> Iterator[str]:
        return iter(("readout_1",))

    def equivariant_parameters(self) -> Iterator[str]:
        """Weights of the tensors, the environments and the paths; nothing without degrees above 0."""
        if self.lmax:
            for name, _ in self.named_parameters():
                if name.endswith(("tensor_weight", "environment", "path_weight")):
                    yield name
