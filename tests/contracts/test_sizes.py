"""Models meet the sizes asked of them, and count parameters and FLOPs exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from contract_cases import KINDS
from tolerances import FLOPS
from torch.utils.flop_counter import FlopCounterMode

from sapis_lab.accounting import FlopCounter, counted_flops
from sapis_lab.config import kind_class
from sapis_lab.derivatives import predict
from sapis_lab.graphs import PairGraph
from sapis_lab.kernels import reference_forms
from sapis_lab.models import TOLERANCE, TOLERANCE_SMALL, Model, ModelConfig
from sapis_lab.selftest import Frame, batch_of, build, random_crystal, random_molecule

SIZES = (3e3, 1e4, 3e4, 1e5, 3e5, 1e6, 3e6)


@pytest.mark.parametrize("n_species", [3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_every_size_of_the_lattice_is_met(kind: str, n_species: int) -> None:
    for n in SIZES:
        found = kind_class("models", kind)().at_size(n, n_species=n_species)
        assert abs(found.n_params(n_species=n_species) / n - 1) <= (
            TOLERANCE_SMALL if n < 1e4 else TOLERANCE
        ), f"{found} for {n:g}"


@pytest.mark.parametrize("n_params", [3e3, 1e4, 1e5])
@pytest.mark.parametrize("kind", KINDS)
def test_the_number_of_parameters_is_exact(kind: str, n_params: float) -> None:
    for n_species in (1, 3, 4):
        config = kind_class("models", kind)().at_size(n_params, n_species=n_species)
        model = config.build(species=tuple(range(1, n_species + 1)), mean_neighbors=8.0, seed=0)
        assert config.n_params(n_species=n_species) == sum(
            p.numel() for p in model.parameters() if p.requires_grad
        )


@pytest.mark.parametrize("kind", KINDS)
def test_the_number_of_parameters_is_exact_at_other_degrees_and_depths(kind: str) -> None:
    cls = kind_class("models", kind)
    changes = [{"layers": n} for n in (2, 4) if "layers" in cls.model_fields]
    changes += [{"lmax": n} for n in (0, 1, 3) if "lmax" in cls.model_fields]
    for change in changes:
        config = cls(**change).resized(8, 1.0)
        model = config.build(species=(1, 8), mean_neighbors=8.0, seed=0)
        assert config.n_params(n_species=2) == sum(
            p.numel() for p in model.parameters() if p.requires_grad
        ), change


def test_groups_of_parameters_add_up(double: Model, config: ModelConfig) -> None:
    counts = double.count()
    assert sum(counts.values()) == config.n_params(n_species=double.n_species)
    # an invariant family may compute with distances alone, and then has no such parameters; one with features
    # of degree 1 must have some
    if config.symmetry == "none":
        assert counts["equivariant"] == 0
    if getattr(config, "lmax", 0):
        assert counts["equivariant"] > 0
    assert counts["scalar"] > 0


@pytest.mark.parametrize("structure", ["molecules", "crystals", "mixed"])
def test_analytic_flops_agree_with_the_counter(config: ModelConfig, structure: str) -> None:
    rng = np.random.default_rng(0)
    frames: list[Frame] = {
        "molecules": lambda: [random_molecule(9, rng) for _ in range(4)],
        "crystals": lambda: [random_crystal(rng) for _ in range(2)],
        "mixed": lambda: [random_molecule(n, rng) for n in (3, 12)],
    }[structure]()
    model = build(config, dtype=torch.float32, seed=0)
    batch = batch_of(frames, layout=model.layout, cutoff=model.cutoff, dtype=torch.float32)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(batch)
    rows = batch.graph.n_nodes if isinstance(batch.graph, PairGraph) else batch.num_nodes
    flops = config.flops(n_atoms=rows, n_pairs=batch.graph.n_pairs, n_species=model.n_species)
    assert abs(flops.matmul / counter.get_total_flops() - 1) < FLOPS
    assert flops.elementwise > 0


def test_the_step_counter_agrees_with_torchs_and_finds_inference_inside_a_step(config: ModelConfig) -> None:
    rng = np.random.default_rng(0)
    model = build(config, dtype=torch.float32, seed=0)
    batch = batch_of(
        [random_molecule(n, rng) for n in (3, 9)],
        layout=model.layout,
        cutoff=model.cutoff,
        dtype=torch.float32,
    )
    with FlopCounterMode(display=False) as theirs, torch.no_grad(), reference_forms():
        model(batch)
    with torch.no_grad():
        assert counted_flops(lambda: model(batch)) == theirs.get_total_flops()
    with torch.inference_mode():
        # operations come undivided there
        assert counted_flops(lambda: model(batch)) == theirs.get_total_flops()
    with FlopCounter() as step, reference_forms():
        found = predict(model, batch, differentiable=True)
        inside = step.total
        (found.energy.square().sum() + found.forces.square().sum()).backward()
    assert counted_flops(lambda: predict(model, batch)) == inside
    assert 4 * theirs.get_total_flops() < step.total < 8 * theirs.get_total_flops()


def test_energies_of_new_models_are_of_order_one(config: ModelConfig) -> None:
    frames = [random_molecule(9, np.random.default_rng(i)) for i in range(4)]
    sizes = []
    for seed in range(4):
        model = config.build(species=(1, 6, 8), mean_neighbors=8.0, seed=seed)
        batch = batch_of(frames, layout=model.layout, cutoff=model.cutoff, dtype=torch.float32)
        with torch.no_grad():
            features = model.features(batch.graph.vectors(batch.positions, batch.cell), batch)
            sizes.append(model.atomic_energy(features, batch)[0].square().mean().sqrt().item())
    assert np.median(sizes) < 10, f"root mean square energies per atom {sizes}, in units of energy_scale"
