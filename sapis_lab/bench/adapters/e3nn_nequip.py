"""A plain NequIP-like potential written with e3nn alone (Geiger & Smidt, arXiv:2207.09453), as one would from
the paper's equations (Batzner et al., arXiv:2101.03164, eqs 3-8): what the generic tensor product of the
library costs, beside codes that specialise it.

    e3nn-nequip     options: lmax (2), layers (3), hidden (64, width of the radial networks), n_radial (8)

    x_i <- gate[ W_2 ( n^-1/2 sum_j (W_1 x_j) (x)_R(r_ij) Y(r_ij) ) + W_Z x_i ],    "uvu" paths into every
    degree up to lmax.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from e3nn import o3
from e3nn.nn import FullyConnectedNet, Gate
from torch import Tensor, nn
from torch.nn.functional import one_hot, silu

from sapis_lab.bench.peer import EnergyForces, Info, Peer, Spec, Task, make_sized


class Convolution(nn.Module):
    """One convolution, self-connection and gate."""

    def __init__(
        self,
        irreps_in: o3.Irreps,
        irreps_out: o3.Irreps,
        harmonics: o3.Irreps,
        info: Info,
        shape: dict[str, Any],
    ) -> None:
        super().__init__()
        scalars = o3.Irreps([(n, ir) for n, ir in irreps_out if ir.l == 0])
        gated = o3.Irreps([(n, ir) for n, ir in irreps_out if ir.l > 0])
        gate = Gate(scalars, [silu], f"{gated.num_irreps}x0e", [torch.sigmoid], gated) if len(gated) else None
        self.activation = gate or nn.SiLU()
        before = scalars if gate is None else gate.irreps_in
        paths = [
            (i, k, n, out)
            for i, (n, ir) in enumerate(irreps_in)
            for k, (_, y) in enumerate(harmonics)
            for out in ir * y
            if out in before
        ]
        middle, order, _ = o3.Irreps([(n, out) for *_, n, out in paths]).sort()
        self.product = o3.TensorProduct(
            irreps_in,
            harmonics,
            middle,
            [(i, k, order[place], "uvu", True) for place, (i, k, _, _) in enumerate(paths)],
            shared_weights=False,
            internal_weights=False,
        )
        self.radial = FullyConnectedNet(
            [shape["n_radial"], shape["hidden"], shape["hidden"], self.product.weight_numel], silu
        )
        self.mix_in, self.mix_out = o3.Linear(irreps_in, irreps_in), o3.Linear(middle.simplify(), before)
        self.self_connection = o3.FullyConnectedTensorProduct(irreps_in, f"{len(info.elements)}x0e", before)
        self.norm = max(info.mean_neighbors, 1.0) ** -0.5

    def forward(
        self, x: Tensor, species: Tensor, center: Tensor, neighbor: Tensor, harmonics: Tensor, radial: Tensor
    ) -> Tensor:
        messages = self.product(self.mix_in(x).index_select(0, neighbor), harmonics, self.radial(radial))
        sums = messages.new_zeros(len(x), messages.shape[1]).index_add(0, center, messages) * self.norm
        return self.activation(self.mix_out(sums) + self.self_connection(x, species))


class Potential(nn.Module):
    """Energies of atoms from edge vectors."""

    row: Tensor

    def __init__(self, channels: int, info: Info, shape: dict[str, Any]) -> None:
        super().__init__()
        self.cutoff, self.n_elements = info.cutoff, len(info.elements)
        lookup = torch.zeros(119, dtype=torch.int64)
        lookup[torch.tensor(info.elements)] = torch.arange(len(info.elements))
        self.register_buffer("row", lookup)
        self.register_buffer("frequency", torch.arange(1, shape["n_radial"] + 1) * math.pi / info.cutoff)
        degrees = range(shape["lmax"] + 1)
        harmonics = o3.Irreps([(1, (l, (-1) ** l)) for l in degrees])
        scalars, hidden = (
            o3.Irreps(f"{channels}x0e"),
            o3.Irreps([(channels, (l, (-1) ** l)) for l in degrees]),
        )
        steps = [scalars, *[hidden] * (shape["layers"] - 1), scalars]
        self.harmonics = o3.SphericalHarmonics(harmonics, normalize=True, normalization="component")
        self.embedding = o3.Linear(f"{len(info.elements)}x0e", scalars)
        self.layers = nn.ModuleList(
            Convolution(a, b, harmonics, info, shape) for a, b in zip(steps[:-1], steps[1:], strict=True)
        )
        self.readout = nn.Sequential(nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, 1))

    def forward(self, vectors: Tensor, center: Tensor, neighbor: Tensor, species: Tensor) -> Tensor:
        r = vectors.norm(dim=-1, keepdim=True)
        radial = math.sqrt(2 / self.cutoff) * torch.sin(self.frequency * r) / r * envelope(r / self.cutoff)
        kinds = one_hot(self.row.index_select(0, species), self.n_elements).to(vectors.dtype)
        x, angular = self.embedding(kinds), self.harmonics(vectors)
        for layer in self.layers:
            x = layer(x, kinds, center, neighbor, angular, radial)
        return self.readout(x).squeeze(-1)


def envelope(x: Tensor, p: int = 6) -> Tensor:
    """1 - (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) - p(p+1)/2 x^(p+2) below 1, zero beyond (Gasteiger et al.,
    arXiv:2003.03123, eq. 8)."""
    inner = 1 - (p + 1) * (p + 2) / 2 * x**p + p * (p + 2) * x ** (p + 1) - p * (p + 1) / 2 * x ** (p + 2)
    return torch.where(x < 1, inner, torch.zeros_like(inner))


class E3nnNequip(Peer):
    """The potential with forces by a second backward pass through everything."""

    def __init__(self, module: nn.Module, width: int) -> None:
        self.module, self.width = module, width

    def prepare(self, task: Task) -> Task:
        return task

    def ef(self, inputs: Task, train: bool) -> EnergyForces:
        positions = inputs.positions.detach().clone().requires_grad_(True)
        vectors = positions.index_select(0, inputs.neighbor) - positions.index_select(0, inputs.center)
        if inputs.periodic:
            vectors = vectors + inputs.translation
        atomic = self.module(vectors, inputs.center, inputs.neighbor, inputs.species)
        energy = atomic.new_zeros(inputs.n_frames).index_add(0, inputs.frame, atomic)
        (gradient,) = torch.autograd.grad(energy.sum(), positions, create_graph=train)
        return EnergyForces(energy, -gradient)


def build(model: str, n_params: float, info: Info) -> Peer:
    """The model with about `n_params` parameters."""
    spec = Spec.parse(model)
    if spec.name != "e3nn-nequip":
        raise ValueError(f"model {spec.name!r} of e3nn_nequip: wanted e3nn-nequip")
    shape = spec.take(lmax=2, layers=3, hidden=64, n_radial=8)
    key = f"{model}:{len(info.elements)}"
    return E3nnNequip(
        *make_sized(lambda w: Potential(w, info, shape), n_params, range(4, 260, 2), key=key, seed=info.seed)
    )
