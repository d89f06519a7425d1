"""Settings and parameters survive writing, copying and precision; equal seeds give equal models."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
import torch
import yaml
from contract_cases import KINDS, small
from tolerances import EXACT

from sapis_lab.config import dump_yaml, home, kind_class, load, read_yaml
from sapis_lab.derivatives import predict
from sapis_lab.models import Model, ModelConfig
from sapis_lab.selftest import SPECIES, batch_of, random_molecule


def parameters(model: Model) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def test_equal_seeds_give_equal_parameters_and_others_do_not(config: ModelConfig) -> None:
    a, b, c = (parameters(config.build(species=SPECIES, mean_neighbors=8.0, seed=s)) for s in (3, 3, 4))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_building_leaves_the_global_random_state_alone(config: ModelConfig) -> None:
    before = torch.random.get_rng_state()
    config.build(species=SPECIES, mean_neighbors=8.0, seed=0)
    assert torch.equal(before, torch.random.get_rng_state())


def test_settings_written_as_yaml_load_back_equal(config: ModelConfig) -> None:
    assert load(type(config), yaml.safe_load(dump_yaml(config)), source="dump") == config


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_file_of_settings_that_is_its_default(kind: str) -> None:
    path = home() / "configs" / "models" / f"{kind}.yaml"
    assert load(kind_class("models", kind), read_yaml(path), source=str(path)) == kind_class("models", kind)()


def test_parameters_saved_without_pickle_load_strictly(
    model: Model, config: ModelConfig, dtype: torch.dtype
) -> None:
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    other = config.build(species=SPECIES, mean_neighbors=8.0, seed=99).to(dtype)
    other.load_state_dict(torch.load(buffer, weights_only=True), strict=True)
    batch = batch_of(
        [random_molecule(6, np.random.default_rng(0))], layout=model.layout, cutoff=model.cutoff, dtype=dtype
    )
    assert torch.equal(predict(model, batch).forces, predict(other, batch).forces)


def test_a_deep_copy_predicts_the_same_and_is_independent(model: Model, dtype: torch.dtype) -> None:
    batch = batch_of(
        [random_molecule(6, np.random.default_rng(0))], layout=model.layout, cutoff=model.cutoff, dtype=dtype
    )
    wanted = predict(model, batch).forces
    other = copy.deepcopy(model)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert torch.equal(predict(other, batch).forces, wanted)


def test_predictions_repeat_bit_for_bit(model: Model, dtype: torch.dtype) -> None:
    frames = [random_molecule(9, np.random.default_rng(i)) for i in range(3)]
    batch = batch_of(frames, layout=model.layout, cutoff=model.cutoff, dtype=dtype)

    def gradients() -> torch.Tensor:
        loss = predict(model, batch, differentiable=True).forces.square().sum()
        found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        return torch.cat([g.reshape(-1) for g in found if g is not None])

    assert torch.equal(gradients(), gradients())


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision_agrees_with_double(kind: str) -> None:
    model = small(kind).build(species=SPECIES, mean_neighbors=8.0, seed=0)
    frames = [random_molecule(9, np.random.default_rng(0))]
    single = predict(model, batch_of(frames, layout=model.layout, cutoff=model.cutoff, dtype=torch.float32))
    double = predict(
        model.double(), batch_of(frames, layout=model.layout, cutoff=model.cutoff, dtype=torch.float64)
    )
    assert (single.forces - double.forces).abs().max() < 5 * EXACT[torch.float32] * double.forces.abs().max()
