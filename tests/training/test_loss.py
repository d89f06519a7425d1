"""The loss is the formula of its docstring, whatever the sizes of the frames."""

import math

import numpy as np
import pytest
import torch

from sapis_lab.atoms import collate, make_graph
from sapis_lab.derivatives import Prediction
from sapis_lab.models.geat import GeatConfig
from sapis_lab.tasks import energy_loss
from sapis_lab.training import LossConfig, TrainConfig
from sapis_lab.training.module import rate_factor


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    n_atoms = np.array([2, 3])
    graph = make_graph(layout="pairs", n_atoms=n_atoms, edges=None, periodic=False, cutoff=5.0)
    arrays = {
        "positions": rng.normal(size=(5, 3)),
        "forces": rng.normal(size=(5, 3)),
        "energy": rng.normal(size=2),
    }
    return collate(
        n_atoms=n_atoms,
        species=np.array([1, 8, 1, 6, 8]),
        cell=np.zeros((2, 3, 3)),
        graph=graph,
        dtype=torch.float64,
        **arrays,
    )


@pytest.mark.parametrize("energy_error", ["per_atom", "total"])
def test_loss_is_weighted_mse_of_energies_plus_mean_squared_force_error(batch, energy_error):
    energy, forces, scale = (
        torch.tensor([0.3, -0.2]).double(),
        torch.ones(5, 3).double(),
        torch.tensor(2.0).double(),
    )
    config = LossConfig(energy_weight=7.0, force_weight=3.0, energy_error=energy_error)
    prediction = Prediction(energy, forces, None, forces, forces[:, 0], forces)
    got = energy_loss(prediction, batch, scale=scale, config=config)
    de = (energy - batch.energy).numpy() / 2.0 / (np.array([2, 3]) if energy_error == "per_atom" else 1)
    df = (forces - batch.forces).numpy() / 2.0
    assert float(got) == pytest.approx(7 * np.mean(de**2) + 3 * np.sum(df**2) / 5, rel=1e-12)


def test_pseudo_huber_is_the_square_of_small_errors_and_the_length_of_large_ones(batch):
    config = LossConfig(energy_weight=0.0, force_huber=0.02)
    scale = torch.tensor(2.0).double()

    def loss(size):
        error = torch.zeros(5, 3).double()
        error[2] = size * torch.tensor([2.0, -1.0, 2.0]).double() / 3
        forces = (batch.forces + error).requires_grad_()
        prediction = Prediction(batch.energy, forces, None, forces, forces[:, 0], forces)
        got = energy_loss(prediction, batch, scale=scale, config=config)
        return float(got.detach()), torch.autograd.grad(got, forces)[0]

    for size in (0.0, 1e-7, 0.01, 0.02, 3.0):
        wanted = 2 * 0.02**2 * (math.sqrt(1 + (size / 0.02) ** 2) - 1) / 4 / 5
        got, gradient = loss(size)
        assert got == pytest.approx(wanted, rel=1e-3 if size == 1e-7 else 1e-12)
        slope = 2 * size / math.sqrt(1 + (size / 0.02) ** 2) / 4 / 5
        assert float(gradient.norm()) == pytest.approx(slope, rel=1e-6)
    assert loss(1e-7)[0] == pytest.approx(1e-14 / 4 / 5, rel=1e-9)  # digits are kept
    assert loss(3.0)[0] == pytest.approx(2 * 0.02 * 3.0 / 4 / 5, rel=0.01)


@pytest.mark.parametrize("schedule", ["cosine", "wsd"])
def test_rate_rises_to_its_peak_and_ends_near_zero(schedule):
    config = TrainConfig(steps=1000, schedule=schedule, warmup=0.1, decay=0.3)
    rate = np.array([rate_factor(s, steps=1000, config=config) for s in range(1000)])
    assert rate[0] < 0.02 and rate[-1] < 0.01 and rate.max() == pytest.approx(1.0, abs=0.011)
    assert (np.diff(rate[:100]) > 0).all() and (np.diff(rate[100:]) <= 0).all()
    if schedule == "wsd":
        assert (rate[101:700] == 1.0).all()


def test_exactly_one_budget_is_wanted():
    for budget in ({}, {"steps": 5, "epochs": 1.0}):
        with pytest.raises(ValueError, match="exactly one of steps and epochs"):
            TrainConfig(**budget)


def test_a_rate_is_found_by_label_then_kind_then_default():
    train = TrainConfig(steps=5, learning_rate={"default": 0.1, "geat": 0.2, "geat-l1": 0.3})
    assert train.rate_of(GeatConfig(lmax=1), 1e5) == 0.3
    assert train.rate_of(GeatConfig(), 1e5) == 0.2
    assert TrainConfig(steps=5, learning_rate={"default": 0.1}).rate_of(GeatConfig(), 1e5) == 0.1
    with pytest.raises(ValueError, match="names nequip, but not 'geat-l2' or its kind 'geat'"):
        TrainConfig(steps=5, learning_rate={"nequip": 0.1}).rate_of(GeatConfig(), 1e5)


def test_a_rate_may_rise_towards_small_models():
    rate = {"rate": 0.01, "below": 1e4, "power": 0.5}
    train = TrainConfig(steps=5, learning_rate={"geat": rate, "default": 0.3})
    assert [train.rate_of(GeatConfig(), n) for n in (2500, 3000, 1e4, 1e6)] == [0.02, 0.0183, 0.01, 0.01]


def test_epochs_become_steps_of_the_batch_in_force():
    train = TrainConfig(epochs=10, batch_size=16)
    assert train.steps_for(160) == 100
    assert train.steps_for(8) == 10  # the batch shrinks to the 8 frames
