"""Energies and forces transform as the model declares."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from contract_cases import KINDS, small
from tolerances import BROKEN, EXACT

from sapis_lab.config import kind_class
from sapis_lab.derivatives import predict
from sapis_lab.models import Model
from sapis_lab.selftest import (
    Frame,
    batch_of,
    equivariance_errors,
    random_crystal,
    random_molecule,
    random_rotation,
)


def cases() -> list[tuple[str, int | None]]:
    """Every kind, at degrees 1, 2 and 3 where it has degrees."""
    with_degrees = {k: "lmax" in kind_class("models", k).model_fields for k in KINDS}
    return [(k, lmax) for k in KINDS for lmax in ((1, 2, 3) if with_degrees[k] else (None,))]


@pytest.mark.parametrize(("kind", "lmax"), cases())
def test_energies_and_forces_follow_every_declared_operation(
    kind: str, lmax: int | None, dtype: torch.dtype
) -> None:
    config = small(kind, **({} if lmax is None else {"lmax": lmax}))
    errors = equivariance_errors(config, dtype, seed=1)
    assert errors["translation"] < EXACT[dtype]
    assert errors["permutation"] < EXACT[dtype]
    for operation in ("rotation", "reflection"):
        if config.symmetry == "O(3)":
            assert errors[operation] < EXACT[dtype], operation
        else:
            assert errors[operation] > BROKEN, f"declared without symmetry, yet invariant under {operation}"


def test_a_config_declares_the_symmetry_of_its_model(double: Model, config: object) -> None:
    assert double.symmetry == config.symmetry  # type: ignore[attr-defined]


def test_a_rotated_crystal_keeps_its_energy(double: Model) -> None:
    rng = np.random.default_rng(3)
    crystal, rotation = random_crystal(rng), random_rotation(rng)
    turned = Frame(crystal.positions @ rotation.T, crystal.species, crystal.cell @ rotation.T)
    batches = [
        batch_of([f], layout=double.layout, cutoff=double.cutoff, dtype=torch.float64)
        for f in (crystal, turned)
    ]
    a, b = (predict(double, batch, stress=True) for batch in batches)
    r = torch.from_numpy(rotation)
    same = torch.allclose(b.forces, a.forces @ r.T, rtol=0, atol=1e-11 * a.forces.abs().max().item())
    same = same and torch.allclose(
        b.stress[0], r @ a.stress[0] @ r.T, rtol=0, atol=1e-11 * a.stress.abs().max().item()
    )
    assert same if double.symmetry == "O(3)" else not same


def test_two_far_copies_have_twice_the_energy(model: Model, dtype: torch.dtype) -> None:
    molecule = random_molecule(8, np.random.default_rng(4))
    far = molecule.positions + np.array([40.0, 0, 0])
    pair = Frame(np.concatenate([molecule.positions, far]), np.tile(molecule.species, 2))
    one, two = (
        predict(model, batch_of([f], layout=model.layout, cutoff=model.cutoff, dtype=dtype))
        for f in (molecule, pair)
    )
    assert abs(two.energy - 2 * one.energy).item() < 2 * EXACT[dtype] * max(1.0, one.energy.abs().item())
    assert (two.forces - one.forces.repeat(2, 1)).abs().max() < 2 * EXACT[dtype] * one.forces.abs().max()


def test_forces_sum_to_zero(double: Model) -> None:
    molecule = random_molecule(9, np.random.default_rng(5))
    forces = predict(
        double, batch_of([molecule], layout=double.layout, cutoff=double.cutoff, dtype=torch.float64)
    ).forces
    assert forces.sum(0).abs().max() < 1e-12 * forces.abs().max()
