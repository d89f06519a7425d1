"""Forces, stress and parameter gradients are the derivatives they claim to be, and continuous at the
cutoff."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from tolerances import DIFFERENCES, EXACT, JUMP_RATIO, PARAMETER_DIFFERENCES
from torch import Tensor

from sapis_lab.atoms import AtomsBatch
from sapis_lab.derivatives import predict
from sapis_lab.models import Model
from sapis_lab.selftest import Frame, batch_of, random_crystal, random_molecule

FRAMES: dict[str, Callable[[np.random.Generator], Frame]] = {
    "molecule": lambda rng: random_molecule(7, rng),
    "crystal": random_crystal,
}


def make(model: Model, frames: list[Frame], dtype: torch.dtype = torch.float64) -> AtomsBatch:
    return batch_of(frames, layout=model.layout, cutoff=model.cutoff, dtype=dtype)


def energy(model: Model, frame: Frame) -> float:
    with torch.no_grad():
        return model(make(model, [frame])).energy.item()


@pytest.mark.parametrize("structure", FRAMES)
def test_forces_are_minus_the_central_differences_of_the_energy(double: Model, structure: str) -> None:
    frame, step = FRAMES[structure](np.random.default_rng(0)), 1e-4
    forces = predict(double, make(double, [frame])).forces.numpy()
    for atom, axis in ((0, 0), (1, 1), (2, 2), (3, 0)):
        move = np.zeros_like(frame.positions)
        move[atom, axis] = step
        plus, minus = (energy(double, frame._replace(positions=frame.positions + s * move)) for s in (1, -1))
        assert abs(forces[atom, axis] + (plus - minus) / (2 * step)) < DIFFERENCES * max(
            1.0, np.abs(forces).max()
        )


@pytest.mark.parametrize("structure", FRAMES)
def test_predicted_forces_are_minus_the_gradient_of_forward(
    model: Model, dtype: torch.dtype, structure: str
) -> None:
    batch = make(model, [FRAMES[structure](np.random.default_rng(1))], dtype)
    predicted = predict(model, batch)
    batch.positions = batch.positions.requires_grad_(True)
    output = model(batch)
    (gradient,) = torch.autograd.grad(output.energy.sum(), batch.positions)
    assert (predicted.forces + gradient).abs().max() < EXACT[dtype] * max(1.0, gradient.abs().max().item())
    assert (predicted.energy - output.energy).abs().max() < EXACT[dtype] * max(
        1.0, output.energy.abs().max().item()
    )


def test_stress_is_the_strain_derivative_of_the_energy_over_the_volume(double: Model) -> None:
    frame, step = random_crystal(np.random.default_rng(2)), 1e-4
    stress = predict(double, make(double, [frame]), stress=True).stress[0].numpy()
    assert np.allclose(stress, stress.T)
    for a, b in ((0, 0), (1, 1), (0, 1), (1, 2)):
        strain = np.zeros((3, 3))
        strain[a, b] += step / 2
        strain[b, a] += step / 2
        plus, minus = (
            energy(
                double,
                Frame(
                    frame.positions @ (np.eye(3) + s * strain),
                    frame.species,
                    frame.cell @ (np.eye(3) + s * strain),
                ),
            )
            for s in (1, -1)
        )
        wanted = (plus - minus) / (2 * step) / abs(np.linalg.det(frame.cell))
        assert abs(stress[a, b] - wanted) < DIFFERENCES * max(1.0, np.abs(stress).max())


def crossing(model: Model, others: list[list[float]], distance: float) -> tuple[float, np.ndarray]:
    """Energy and forces with an atom at (0, 0, distance)."""
    frame = Frame(np.array([*others, [0.0, 0.0, distance]]), np.array([6, 8, 1][: len(others) + 1]))
    p = predict(model, make(model, [frame]))
    return p.energy.item(), p.forces.numpy()


@pytest.mark.parametrize(
    "others",
    [[[0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0], [1.1, 0.0, -0.4]]],
    ids=["the only neighbour", "one of two"],
)
def test_energy_and_forces_are_smooth_at_the_cutoff(double: Model, others: list[list[float]]) -> None:
    jumps = []
    for h in (1e-2, 1e-3):
        (e_in, f_in), (e_out, f_out) = (crossing(double, others, double.cutoff + s * h) for s in (-1, 1))
        base = crossing(double, others, double.cutoff + 1.0)[0]
        # Beyond the cutoff the energy may still change through the other neighbours' positions, which do not
        # move here.
        assert abs(e_out - base) < 1e-12 * max(1.0, abs(base))
        jumps.append((abs(e_in - e_out), np.abs(f_in - f_out).max()))
    (e_far, f_far), (e_near, f_near) = jumps
    assert f_far < 0.1, "forces 0.01 Å inside the cutoff, eV/Å"
    assert f_near <= JUMP_RATIO * f_far + 1e-13, "the jump of the forces decays quadratically"
    assert e_near <= 0.1 * JUMP_RATIO * e_far + 1e-13, "the jump of the energy decays cubically"


def test_force_loss_gradients_equal_those_of_the_plain_autograd_path(double: Model) -> None:
    batch = make(double, [random_molecule(n, np.random.default_rng(n)) for n in (5, 7)])
    names = [n for n, _ in double.named_parameters()]
    target = torch.randn(
        batch.positions.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )

    def loss_of(energies: Tensor, forces: Tensor) -> Tensor:
        return energies.square().mean() + (forces - target).square().mean()

    p = predict(double, batch, differentiable=True)
    fast = torch.autograd.grad(loss_of(p.energy, p.forces), list(double.parameters()))
    batch.positions = batch.positions.requires_grad_(True)
    energies = double(batch).energy
    forces = -torch.autograd.grad(energies.sum(), batch.positions, create_graph=True)[0]
    plain = torch.autograd.grad(loss_of(energies, forces), list(double.parameters()))
    largest = max(g.abs().max().item() for g in plain)
    for name, a, b in zip(names, fast, plain, strict=True):
        assert (a - b).abs().max().item() < 1e-11 * largest, name
        assert b.abs().max().item() > 0, f"{name} has no gradient"


def test_force_loss_gradients_agree_with_central_differences(double: Model) -> None:
    batch = make(double, [random_molecule(6, np.random.default_rng(8))])
    generator = torch.Generator().manual_seed(1)
    directions = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in double.parameters()]

    def loss() -> Tensor:
        return predict(double, batch, differentiable=True).forces.square().mean()

    value = loss()
    gradients = torch.autograd.grad(value, list(double.parameters()), allow_unused=True)
    slope = sum((g * d).sum().item() for g, d in zip(gradients, directions, strict=True) if g is not None)
    step, values = 1e-6, []
    for s in (1, -2):
        with torch.no_grad():
            for p, d in zip(double.parameters(), directions, strict=True):
                p += s * step * d
        values.append(loss().item())
    scale = max(abs(slope), value.item())
    assert abs(slope - (values[0] - values[1]) / (2 * step)) < PARAMETER_DIFFERENCES * scale
