"""GEAT on CUDA devices, made of Triton kernels where PyTorch takes many small steps: energies with dE/dv by
autograd, differentiable in the parameters.

The equations are those of `models.geat`. What runs over pairs or on the grid are the operations of
`_triton_forms`: representation, inner products of queries and keys, edge network's hidden layer, softmax with
its filters, both parts of the message, Gaunt product. What is a matrix product of atoms' features stays one
of PyTorch. No bf16 or TF32 is used in the kernels; sums have a fixed order. All shapes follow from those of
the batch and nothing is read back from the device, so that a step can be captured as a CUDA graph.

On a GPU nothing of this has been measured yet: `SAPIS_KERNELS=require` asks for it, otherwise PyTorch does
the work. `sapis selftest triton` compares both.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sapis_lab.geometry.couplings import quadrature, spread
from sapis_lab.geometry.pair_features import RadialFunctions, pair_features
from sapis_lab.graphs import EdgeGraph, PairGraph
from sapis_lab.kernels import Kernel, Refusal
from sapis_lab.kernels.libraries import mode
from sapis_lab.kernels.shapes import GeatShape

# Shape legend: M components, L degrees (lmax + 1), N nodes, C channels, H heads, G groups, I centres and K
# slots of a group (see PairGraph), P pairs (G I K), Q invariants, D key width, B radial functions, S species,
# W coupling channels.


class GeatTriton(Kernel):
    """What is needed to know of one model, and the call."""

    shape: ClassVar[type] = GeatShape
    device: ClassVar[str] = "cuda"
    name: ClassVar[str] = "Triton"
    traceable: ClassVar[bool] = True

    @classmethod
    def made(
        cls, shape: GeatShape, *, multipliers: Mapping[str, float], dtype: torch.dtype
    ) -> GeatTriton | Refusal:
        if mode() != "require":
            off = "off by $SAPIS_KERNELS"
            return Refusal(
                off if mode() == "off" else "Triton is not yet measured: SAPIS_KERNELS=require takes it"
            )
        if dtype not in (torch.float32, torch.float64):
            return Refusal(f"{str(dtype).removeprefix('torch.')}: wanted float32 or float64")
        if importlib.util.find_spec("triton") is None:
            raise RuntimeError(
                "SAPIS_KERNELS=require wants Triton on CUDA, which is not installed: the extra `gpu`"
            )
        return cls(shape, multipliers, dtype)

    def __init__(self, shape: GeatShape, multipliers: Mapping[str, float], dtype: torch.dtype) -> None:
        self.sizes, self.multipliers, self.dtype = shape, dict(multipliers), dtype
        self._on: dict[torch.device, _Constants] = {}

    def __call__(
        self,
        vectors: Tensor,
        *,
        graph: EdgeGraph | PairGraph,
        n_atoms: Tensor,
        species: Tensor,
        parameters: Mapping[str, Tensor],
        energy_scale: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As of `Kernel`; v (3, G, I, K), features (A, C).

        Raises:
            ValueError: gradients in `vectors` are asked for, which are not there; another type.
        """
        from sapis_lab.kernels import _triton_forms as forms

        assert isinstance(graph, PairGraph)
        differentiable = torch.is_grad_enabled()
        if vectors.requires_grad and differentiable:
            raise ValueError(
                "the GEAT kernel gives gradients in the parameters, not in the displacements (for forces of "
                "a readout of the features): call model(batch), which is differentiable in the positions"
            )
        if mixed := {t.dtype for t in (vectors, *parameters.values())} - {self.dtype}:
            raise ValueError(f"the GEAT kernel is built for {self.dtype}, got {mixed} among its inputs")
        if not differentiable:
            parameters = {name: p.detach() for name, p in parameters.items()}
        k = self._constants(vectors.device)
        with torch.no_grad():
            found = pair_features(
                vectors,
                graph,
                lmax=self.sizes.lmax,
                cutoff=self.sizes.cutoff,
                radial=k.radial,
                jacobian=True,
            )
            node_species = graph.pad(species, -1)
            at = forms.neighbors(graph)
            kind = node_species.index_select(0, at.of_slot)
        leaves = [t.detach().requires_grad_(True) for t in (found.harmonics, found.radial, found.log_f)]
        with torch.enable_grad():
            m, (_, _, slots), n = leaves[0].shape[0], graph.dims, graph.n_nodes
            pairs = _Pairs(at, kind, leaves[0].view(m, -1), leaves[1], leaves[2].view(n, slots))
            energy, features = _Energy(forms, self.sizes, self.multipliers, parameters, k).of(
                pairs, node_species
            )
            energy = graph.unpad(energy) * energy_scale
            along = torch.autograd.grad(energy.sum(), leaves, create_graph=differentiable)
        features = graph.unpad(features)
        if not differentiable:
            energy, features = energy.detach(), features.detach()
        return energy, found.pullback(*along), features

    def _constants(self, device: torch.device) -> _Constants:
        """Cast from float64, once a device."""
        if device not in self._on:
            s = spread(self.sizes.lmax)
            counts = s.sum(0)
            centers, widths = (
                torch.tensor(t, dtype=torch.float64, device="cpu").view(-1, 1)
                for t in (self.sizes.centers, self.sizes.widths)
            )
            to_grid, from_grid = quadrature(self.sizes.lmax)

            def cast(t: Tensor) -> Tensor:
                return t.to(device, self.dtype).contiguous()

            self._on[device] = _Constants(
                spread=cast(s),
                mean=cast((s / counts) @ s.T),
                norm=cast((s / counts.sqrt()).T),
                grid=(cast(to_grid), cast(from_grid)),
                kappa=cast(torch.tensor(self.sizes.norm_edge, dtype=torch.float64, device="cpu")),
                radial=RadialFunctions(
                    *map(cast, RadialFunctions.of(centers, widths, cutoff=self.sizes.cutoff))
                ),
                species=torch.arange(self.sizes.n_species, device=device),
            )
        return self._on[device]


class _Constants(NamedTuple):
    """On one device."""

    spread: Tensor
    """(M, L) repeats a value per degree over its components"""
    mean: Tensor
    """(M, M) averages over the components of a degree and repeats the result"""
    norm: Tensor
    """(L, M) sums the components of a degree over sqrt(2l+1)"""
    grid: tuple[Tensor, Tensor]
    """to it (points, M) and from it (M, points)"""
    kappa: Tensor
    """(), of the soft norm of the edge networks"""
    radial: RadialFunctions
    species: Tensor
    """(S,) 0, 1, ..."""


class _Pairs(NamedTuple):
    """What the layers know of the pairs."""

    at: Any
    """`_triton_forms.Neighbors`"""
    kind: Tensor
    """(P,), row of the neighbour's species, -1 for padding"""
    harmonics: Tensor
    """(M, P)"""
    radial: Tensor
    """(B, P)"""
    log_f: Tensor
    """(N, K)"""


class _Energy:
    """Energies of atoms as a function of features of the pairs and of the parameters."""

    def __init__(
        self,
        forms: Any,
        shape: GeatShape,
        multipliers: Mapping[str, float],
        parameters: Mapping[str, Tensor],
        k: _Constants,
    ) -> None:
        self.forms, self.shape, self.k = forms, shape, k
        self.multipliers, self.parameters = multipliers, parameters

    def of(self, pairs: _Pairs, species: Tensor) -> tuple[Tensor, Tensor]:
        """Energies (N,) and features (N, C)."""
        x = self._representation(pairs, species)
        for i in range(self.shape.layers):
            x = x + self._attention(f"layers.{i}.", x, pairs)
            x = self._update(f"layers.{i}.", x, last=i == self.shape.layers - 1)
        xn = x
        if self.shape.norm_readout:
            xn = x * torch.rsqrt(1 + self.shape.norm_readout * x.square().sum(1, keepdim=True))
        hidden = F.silu(self._dense("readout_in", xn))
        skip = xn @ self.parameters["readout_skip"]
        energy = torch.add(self._dense("readout_out", hidden), skip, alpha=self.multipliers["readout_skip"])
        return energy.squeeze(-1), x

    # ---- the three parts; see the equations (i) to (iii) of models.geat

    def _representation(self, pairs: _Pairs, species: Tensor) -> Tensor:
        """Psi, (M, N, C)."""
        basis = self.forms.radial_sum(
            pairs.harmonics,
            pairs.radial,
            pairs.kind,
            n_nodes=len(species),
            n_species=self.shape.n_species,
        )
        x = torch.bmm(basis, self._map("represent", self.shape.sum_scale))
        one_hot = (species.unsqueeze(1) == self.k.species).to(x.dtype)
        return self._on_scalars(x, one_hot @ self.parameters["embedding"])

    def _attention(self, layer: str, x: Tensor, pairs: _Pairs) -> Tensor:
        """m, (M, N, C)."""
        forms, shape = self.forms, self.shape
        xn = self._soft_norm(x, shape.norm_attention)
        bias = (self.k.spread[:, :1] @ self.parameters[layer + "project_bias"]).unsqueeze(1)
        projected = torch.baddbmm(bias, xn, self._map(layer + "project"))
        width = shape.invariants * shape.key_width
        query, key, value = projected.split([width, width, shape.channels], -1)
        invariants = forms.inner_products(query, key, pairs.at, n_products=shape.invariants)
        hidden = self._edge(layer + "edge_radial", layer + "edge_bias", pairs.radial)
        hidden = torch.addmm(
            hidden,
            self.parameters[layer + "edge_invariant"],
            invariants,
            alpha=self.multipliers[layer + "edge_invariant"],
        )
        hidden = forms.hidden(hidden, self.k.kappa, born=shape.born_hidden)
        out = self._edge(layer + "edge_out", layer + "edge_out_bias", hidden)
        if shape.softmax:
            on_y, on_x = forms.attention(out, pairs.log_f, degrees=shape.lmax + 1)
        else:
            envelope = pairs.log_f.exp().view(1, -1) * shape.uniform
            filters = (out * envelope).view(shape.lmax + 2, shape.heads, -1)
            on_y, on_x = filters[:-1], filters[-1]
        scalar = self.multipliers[layer + "scalar_value"] * self.parameters[layer + "scalar_value"]
        message = forms.harmonic_sum(on_y, pairs.harmonics, xn[0] @ scalar, pairs.at)
        message = message + forms.weighted_sum(on_x, value, pairs.at)
        return torch.bmm(message, self._map(layer + "merge"))

    def _update(self, layer: str, x: Tensor, *, last: bool) -> Tensor:
        """x + the gated product, (M, N, C); in the last layer the scalars only, (N, C)."""
        (m, n, c), l, w = x.shape, self.shape.lmax + 1, self.shape.coupling_channels
        xn = self._soft_norm(x, self.shape.norm_update)
        a, b = torch.bmm(xn, self._map(layer + "factors")).split(w, -1)
        invariants = (self.k.norm @ (a * b).view(m, -1)).view(l, n, w).transpose(0, 1).reshape(n, l * w)
        hidden = F.silu(self._dense(layer + "node_in", torch.cat([xn[0], invariants], -1)))
        out = self._dense(layer + "node_out", hidden)
        if last:
            return x[0] + out
        scalars, gates = out.split([c, l * w], -1)
        product = self.forms.gaunt(a, b, self.k.grid) if self.shape.gaunt else a
        gates = (self.k.spread @ gates.reshape(n, l, w).transpose(0, 1).reshape(l, -1)).view(m, n, w)
        return self._on_scalars(x + torch.bmm(product * gates, self._map(layer + "couple")), scalars)

    # ---- pieces

    def _map(self, name: str, scale: float = 1.0) -> Tensor:
        """The weight of a map per degree, (L, C, C') repeated over the components, (M, C, C')."""
        weight = self.parameters[name]
        per_degree = weight.view(weight.shape[0], -1) * (scale * self.multipliers[name])
        return (self.k.spread @ per_degree).view(-1, *weight.shape[1:])

    def _dense(self, name: str, x: Tensor) -> Tensor:
        weight, bias = name + ".weight", name + ".bias"
        return torch.addmm(
            self.parameters[bias],
            x,
            self.parameters[weight],
            alpha=self.multipliers[weight],
            beta=self.multipliers[bias],
        )

    def _edge(self, weight: str, bias: str, x: Tensor) -> Tensor:
        """A layer of the edge network, columns are pairs."""
        return torch.addmm(
            self.parameters[bias],
            self.parameters[weight],
            x,
            alpha=self.multipliers[weight],
            beta=self.multipliers[bias],
        )

    def _soft_norm(self, x: Tensor, strength: float) -> Tensor:
        """x / sqrt(1 + strength * sum over channels of the component mean of x^2), per atom and degree."""
        return x * torch.rsqrt(1 + strength * (self.k.mean @ x.square().sum(-1))).unsqueeze(-1)

    def _on_scalars(self, x: Tensor, scalars: Tensor) -> Tensor:
        """x with `scalars` (N, C) added to its degree 0."""
        return x + (self.k.spread[:, :1] @ scalars.reshape(1, -1)).view_as(x)
