"""Energies, forces and stress of any model: the one place where derivatives are taken.

The energy is differentiated with respect to the model's geometry features, once; the model's pullback turns that into
dE/dv for every displacement v_ij = r_j + image - r_i, and the graph turns dE/dv into

    F_i = -dE/dr_i = sum_j dE/dv_ij - sum_j dE/dv_ji,        stress = (1/V) sum_ij v_ij (x) dE/dv_ij  (tension positive).

Geometry does not depend on the parameters, so no graph is kept through it: the second backward pass of a force loss stops at the features.
A model with a compiled form (`Model.energy_and_gradient`) gives dE/dv itself; the rest is the same.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sapis_lab import kernels
from sapis_lab.atoms import AtomsBatch
from sapis_lab.models import Model


class Prediction(NamedTuple):
    """What `predict` returns; energies exclude reference energies."""

    energy: Tensor
    """(B,) eV"""
    forces: Tensor
    """(A, 3) eV/Å"""
    stress: Tensor | None
    """(B, 3, 3) eV/Å^3, on request"""
    node_features: Tensor
    """(A, F); without a graph where a compiled form computed them"""


def predict(model: Model, batch: AtomsBatch, *, stress: bool = False, differentiable: bool = False) -> Prediction:
    """Energies, forces and, on request, stress of a batch.

    Args:
        differentiable: keep the graph, so that a loss of forces can be differentiated in the parameters.
        stress: needs a cell of non-zero volume in every frame.
    """
    graph = batch.graph
    with torch.no_grad():
        vectors = graph.vectors(batch.positions, batch.cell)
    found = _compiled(model, vectors, batch, differentiable)
    energy, gradient, node_features = found or _by_autograd(model, vectors, batch, differentiable)
    with torch.set_grad_enabled(differentiable):
        forces = graph.forces(gradient)
        tension = None
        if stress:
            volume = torch.linalg.det(batch.cell).abs()
            if bool((volume == 0).any()):
                raise ValueError("stress needs a cell of non-zero volume in every frame")
            tension = graph.strain_gradient(vectors, gradient) / volume.view(-1, 1, 1)
    return Prediction(energy if differentiable else energy.detach(), forces, tension, node_features)


def _compiled(model: Model, vectors: Tensor, batch: AtomsBatch, differentiable: bool) -> tuple[Tensor, Tensor, Tensor] | None:
    if not kernels.in_use():
        return None
    with torch.set_grad_enabled(differentiable):
        found = model.energy_and_gradient(vectors, batch)
        if found is None:
            return None
        atomic, gradient, node_features = found
        return atomic.new_zeros(batch.n_frames).index_add(0, batch.batch, atomic), gradient, node_features


def _by_autograd(model: Model, vectors: Tensor, batch: AtomsBatch, differentiable: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Energies of the frames, dE/dv and node features."""
    with torch.no_grad():
        features, pullback = model.features_and_pullback(vectors, batch)
    with torch.enable_grad():
        leaves = tuple(f.detach().requires_grad_(True) for f in features)
        output = model.evaluate(leaves, batch)
        gradients = torch.autograd.grad(output.energy.sum(), leaves, create_graph=differentiable)
    with torch.set_grad_enabled(differentiable):
        return output.energy, pullback(*gradients), output.node_features
