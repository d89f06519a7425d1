"""Energies, forces and stress of any model: the one place where derivatives are taken.

The energy is differentiated with respect to the model's geometry features, once; the model's pullback turns that into
dE/dv for every displacement v_ij = r_j + image - r_i, and the graph turns dE/dv into

    F_i = -dE/dr_i = sum_j dE/dv_ij - sum_j dE/dv_ji,        stress = (1/V) sum_ij v_ij (x) dE/dv_ij  (tension positive).

Geometry does not depend on the parameters, so no graph is kept through it: the second backward pass of a force loss stops at the features.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

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
    """(A, F)"""


def predict(model: Model, batch: AtomsBatch, *, stress: bool = False, differentiable: bool = False) -> Prediction:
    """Energies, forces and, on request, stress of a batch.

    Args:
        differentiable: keep the graph, so that a loss of forces can be differentiated in the parameters.
        stress: needs a cell of non-zero volume in every frame.
    """
    graph = batch.graph
    with torch.no_grad():
        vectors = graph.vectors(batch.positions, batch.cell)
        features, pullback = model.features_and_pullback(vectors, batch)
    with torch.enable_grad():
        leaves = tuple(f.detach().requires_grad_(True) for f in features)
        output = model.evaluate(leaves, batch)
        gradients = torch.autograd.grad(output.energy.sum(), leaves, create_graph=differentiable)
        with torch.set_grad_enabled(differentiable):
            gradient = pullback(*gradients)
            forces = graph.forces(gradient)
            tension = None
            if stress:
                volume = torch.linalg.det(batch.cell).abs()
                if bool((volume == 0).any()):
                    raise ValueError("stress needs a cell of non-zero volume in every frame")
                tension = graph.strain_gradient(vectors, gradient) / volume.view(-1, 1, 1)
    energy = output.energy if differentiable else output.energy.detach()
    return Prediction(energy, forces, tension, output.node_features)
