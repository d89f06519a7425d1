"""Energies, forces and stress of any model: the one place where derivatives are taken.

The energy is differentiated with respect to the model's geometry features, once; the model's pullback turns
that into dE/dv for every displacement v_ij = r_j + image - r_i, and the graph turns dE/dv into

    F_i = -dE/dr_i = sum_j dE/dv_ij - sum_j dE/dv_ji,        stress = (1/V) sum_ij v_ij (x) dE/dv_ij  (tension
    positive).

Geometry does not depend on the parameters, so no graph is kept through it: the second backward pass of a
force loss stops at the features. A model with a compiled form (`Model.energy_and_gradient`) gives dE/dv
itself; the rest is the same.

Training computes in the precision of the model throughout (`predict`). Where a trained model is used, only
the model itself does (`predict_in_double`): displacements are differences of positions that may be far from
the origin, and the energy of many atoms is a long sum; both lose in float32 what the model has learnt.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

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
    """(A, F), differentiable in the parameters"""
    atomic_energy: Tensor
    """(A,) eV, which add up to the energies of the frames"""
    pair_gradient: Tensor
    """dE/dv_ij, eV/Å, in the layout of `graph.vectors`; zero where the graph has a slot without a pair"""


def predict(
    model: Model,
    batch: AtomsBatch,
    *,
    stress: bool | Literal["where periodic"] = False,
    differentiable: bool = False,
) -> Prediction:
    """Energies, forces and, on request, stress of a batch.

    Args:
        differentiable: keep the graph, so that a loss of forces (and of node features) can be differentiated
            in the parameters. In the positions nothing is: forces of a further readout come from
            `model(batch)`.
        stress: needs a cell of non-zero volume in every frame; "where periodic": of frames without one it is
            what the derivative in a strain is, eV, as if the volume were 1 Å³.

    Raises:
        ValueError: gradients in positions or cell are wanted, or stress without a volume.
    """
    graph = batch.graph
    if differentiable and (batch.positions.requires_grad or batch.cell.requires_grad):
        raise ValueError(
            "predict gives gradients in the parameters, not in positions or cell (for forces of a readout of "
            "node_features): "
            "call model(batch), whose energies and features are differentiable in them"
        )
    with torch.no_grad():
        vectors = graph.vectors(batch.positions, batch.cell)
    found = _compiled(model, vectors, batch, differentiable)
    energy, atomic, gradient, node_features = found or _by_autograd(model, vectors, batch, differentiable)
    with torch.set_grad_enabled(differentiable):
        forces = graph.forces(gradient)
        tension = None
        if stress:
            volume = _volume(batch, zero_is_one=stress == "where periodic")
            tension = graph.strain_gradient(vectors, gradient) / volume.view(-1, 1, 1)
    if not differentiable:
        energy, atomic = energy.detach(), atomic.detach()
    return Prediction(energy, forces, tension, node_features, atomic, gradient)


def predict_in_double(model: Model, batch: AtomsBatch, *, stress: bool = False) -> Prediction:
    """As `predict` without a graph, with displacements and the sums over atoms and pairs in float64; for
    using a model.

    A crystal of 120 atoms at -3 eV each, repeated to 41,160: GEAT's energy is that of the cell, times 343, to
    0.2 meV, and by `predict` to 7.3 eV; the transformer's to 4 meV and 0.7 eV, its forces to 9e-6 and 6e-5
    eV/Å (in a box of 52 x 78 x 130 Å).

    Args:
        batch: with positions and cell in float64.   stress: needs a cell of non-zero volume in every frame.
    """
    graph, dtype = batch.graph, model.energy_scale.dtype
    with torch.no_grad():
        vectors = graph.vectors(batch.positions, batch.cell)
        rounded = vectors.to(dtype)
    _, atomic, gradient, node_features = _compiled(model, rounded, batch, False) or _by_autograd(
        model, rounded, batch, False
    )
    with torch.no_grad():
        atomic, gradient = atomic.detach().to(vectors.dtype), gradient.to(vectors.dtype)
        energy = vectors.new_zeros(batch.n_frames).index_add(0, batch.batch, atomic)
        tension = graph.strain_gradient(vectors, gradient) / _volume(batch).view(-1, 1, 1) if stress else None
        return Prediction(energy, graph.forces(gradient), tension, node_features.detach(), atomic, gradient)


def node_features(model: Model, batch: AtomsBatch, *, differentiable: bool = False) -> Tensor:
    """The invariant features of the atoms, (A, F), with `differentiable` as a function of the parameters; by
    the compiled form of the model where there is one."""
    with torch.no_grad():
        vectors = batch.graph.vectors(batch.positions, batch.cell).to(model.energy_scale.dtype)
    with torch.set_grad_enabled(differentiable):
        found = model.energy_and_gradient(vectors, batch)
        if found is not None:
            return found[2]
        with torch.no_grad():
            features = model.features(vectors, batch)
        return model.evaluate(features, batch).node_features


def along_features(model: Model, batch: AtomsBatch, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Linear functions of the invariant features, summed over the atoms of every frame, and minus their
    slopes in the positions: what energy and forces would be if the readout were these functions.

    Args:
        batch: with positions and cell in float64.   directions: (F, M) coefficients of M functions.

    Returns:
        (B, M), and (M, A, 3) per Å; float64. It costs M backward passes.
    """
    graph, dtype = batch.graph, model.energy_scale.dtype
    with torch.no_grad():
        vectors = graph.vectors(batch.positions, batch.cell)
        features, pullback = model.features_and_pullback(vectors.to(dtype), batch)
    with torch.enable_grad():
        leaves = tuple(f.detach().requires_grad_(True) for f in features)
        atoms = model.evaluate(leaves, batch).node_features
        # in float64: directions that training frames say little of are long, and amplify rounding
        values = atoms.double() @ directions.to(atoms.device, torch.float64)
        slopes = []
        for m in range(values.shape[1]):
            gradients = torch.autograd.grad(
                values[:, m].sum(), leaves, retain_graph=True, materialize_grads=True
            )
            with torch.no_grad():
                slopes.append(graph.forces(pullback(*gradients).double()))
    with torch.no_grad():
        sums = values.new_zeros(batch.n_frames, values.shape[1])
        sums = sums.index_add(0, batch.batch, values.detach())
    return sums, torch.stack(slopes)


def _volume(batch: AtomsBatch, *, zero_is_one: bool = False) -> Tensor:
    """(B,) Å^3; where one is zero ValueError, or 1."""
    volume = torch.linalg.det(batch.cell).abs()
    if zero_is_one:
        return torch.where(volume == 0, torch.ones_like(volume), volume)
    if bool((volume == 0).any()):
        raise ValueError("stress needs a cell of non-zero volume in every frame")
    return volume


def _compiled(
    model: Model, vectors: Tensor, batch: AtomsBatch, differentiable: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    with torch.set_grad_enabled(differentiable):
        found = model.energy_and_gradient(vectors, batch)
        if found is None:
            return None
        atomic, gradient, node_features = found
        energy = atomic.new_zeros(batch.n_frames).index_add(0, batch.batch, atomic)
        return energy, atomic, gradient, node_features


def _by_autograd(
    model: Model, vectors: Tensor, batch: AtomsBatch, differentiable: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Energies of frames and atoms, dE/dv and node features."""
    with torch.no_grad():
        features, pullback = model.features_and_pullback(vectors, batch)
    with torch.enable_grad():
        leaves = tuple(f.detach().requires_grad_(True) for f in features)
        output = model.evaluate(leaves, batch)
        if output.energy is None or output.atomic_energy is None:
            raise ValueError("this model has learnt no energies, and so has no forces; see node_features")
        gradients = torch.autograd.grad(output.energy.sum(), leaves, create_graph=differentiable)
    with torch.set_grad_enabled(differentiable):
        return output.energy, output.atomic_energy, pullback(*gradients), output.node_features
