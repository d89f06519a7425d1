"""The C++ form of GEAT gives the numbers of the PyTorch form, and PyTorch does its work wherever it cannot be
built."""

from __future__ import annotations

import contextlib
import copy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sapis_lab import kernels
from sapis_lab.atoms import AtomsBatch
from sapis_lab.derivatives import predict
from sapis_lab.growth import grow
from sapis_lab.kernels import Refusal, libraries
from sapis_lab.models.geat import Geat, GeatConfig
from sapis_lab.selftest import SPECIES, Frame, batch_of, random_crystal, random_molecule
from sapis_lab.tasks import energy_loss
from sapis_lab.training import LossConfig

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="no C++ compiler"
)
AGREE = {torch.float32: 1e-4, torch.float64: 1e-12}
"""Largest difference over the largest entry of a parameter's gradient."""

CASES: dict[str, dict[str, object]] = {
    "default": {},
    "lmax-0": {"lmax": 0},
    "lmax-1": {"lmax": 1, "channels": 16},
    "lmax-3": {"lmax": 3, "channels": 12, "heads": 2},
    "odd-widths": {
        "channels": 20,
        "heads": 2,
        "invariants": 7,
        "key_width": 2,
        "n_radial": 13,
        "edge_hidden": 19,
        "layers": 3,
    },
    "one-head-one-layer": {"channels": 9, "heads": 1, "layers": 1, "node_hidden": 1.3},
    "eight-heads-no-attention": {"channels": 24, "heads": 8, "attention": "uniform"},
    "more-coupling-channels": {"channels": 12, "heads": 4, "coupling": 2.0, "invariants": 4, "n_radial": 12},
    "no-product": {"channels": 16, "product": "none"},
}


def built(settings: dict[str, object], dtype: torch.dtype = torch.float64) -> Geat:
    """A model whose every parameter, zero at birth or not, is random."""
    model = (
        GeatConfig.model_validate({"cutoff": 4.0, **settings})
        .build(species=SPECIES, mean_neighbors=6.0, seed=1)
        .to(dtype)
    )
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=dtype))
        model.energy_scale.fill_(1.3)
    assert isinstance(model, Geat)
    return model


def frames(structure: str) -> list[Frame]:
    rng = np.random.default_rng(3)
    if structure == "crystals":
        return [random_crystal(rng), random_crystal(rng)]
    return [random_molecule(n, rng) for n in ((7, 7, 7) if structure == "molecules" else (5, 8, 1, 30, 7))]


def batch(structure: str, dtype: torch.dtype = torch.float64) -> AtomsBatch:
    made = batch_of(frames(structure), layout="pairs", cutoff=4.0, dtype=dtype)
    generator = torch.Generator().manual_seed(4)
    made.energy = torch.randn(made.n_frames, generator=generator, dtype=dtype)
    made.forces = torch.randn(made.num_nodes, 3, generator=generator, dtype=dtype)
    return made


def gradients(model: Geat, made: AtomsBatch) -> dict[str, Tensor]:
    result = predict(model, made, differentiable=True)
    value = energy_loss(result, made, scale=model.energy_scale, config=LossConfig())
    found = torch.autograd.grad(value, list(model.parameters()))
    names = [name for name, _ in model.named_parameters()]
    return {
        "energy": result.energy.detach(),
        "forces": result.forces.detach(),
        **dict(zip(names, found, strict=True)),
    }


def apart(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return max(((a[name] - b[name]).abs().max() / b[name].abs().max().clamp_min(1e-3)).item() for name in b)


@needs_compiler
@pytest.mark.parametrize("structure", ["molecules", "uneven", "crystals"])
@pytest.mark.parametrize("case", CASES)
def test_energies_forces_and_parameter_gradients_are_those_of_pytorch(case: str, structure: str) -> None:
    model, made = built(CASES[case]), batch(structure)
    assert model.kernel(torch.device("cpu")) == "C++"
    with kernels.reference_forms():
        wanted = gradients(model, made)
    assert apart(gradients(model, made), wanted) < AGREE[torch.float64]


@needs_compiler
@pytest.mark.parametrize("structure", ["molecules", "crystals"])
def test_float32_agrees_to_its_precision(structure: str) -> None:
    model, made = built({}, torch.float32), batch(structure, torch.float32)
    with kernels.reference_forms():
        wanted = gradients(model, made)
    assert apart(gradients(model, made), wanted) < AGREE[torch.float32]


def head_gradients(model: Geat, made: AtomsBatch, *, parts: str) -> dict[str, Tensor]:
    """Gradients of a loss of the features (through a head that is not linear) and, where `parts` names them,
    of energies and forces."""
    generator = torch.Generator().manual_seed(5)
    head = torch.randn(model.config.channels, generator=generator, dtype=made.positions.dtype)
    result = predict(model, made, differentiable=True)
    value = (result.node_features @ head).tanh().square().sum()
    if "energies" in parts:
        value = value + energy_loss(result, made, scale=model.energy_scale, config=LossConfig())
    found = torch.autograd.grad(value, list(model.parameters()), allow_unused=True, materialize_grads=True)
    names = [name for name, _ in model.named_parameters()]
    return {"forces": result.forces.detach(), **dict(zip(names, found, strict=True))}


@needs_compiler
@pytest.mark.parametrize("structure", ["molecules", "uneven", "crystals"])
@pytest.mark.parametrize("case", [*(f"lmax-{l}" for l in (0, 1, 3)), "default", "odd-widths", "no-product"])
@pytest.mark.parametrize("parts", ["features", "features, energies and forces"])
def test_gradients_of_a_head_on_the_features_are_those_of_pytorch(
    case: str, structure: str, parts: str
) -> None:
    model, made = built(CASES[case]), batch(structure)
    with kernels.reference_forms():
        wanted = head_gradients(model, made, parts=parts)
    found = head_gradients(model, made, parts=parts)
    assert apart(found, wanted) < 1e-10
    assert found["embedding"].abs().max() > 0 and found["layers.0.project"].abs().max() > 0
    # the readout does not lie beneath the features
    assert ("energies" in parts) == (found["readout_skip"].abs().max() > 0)


@needs_compiler
def test_a_head_on_the_features_of_padded_molecules_reaches_the_right_atoms() -> None:
    made = batch_of(
        [random_molecule(n, np.random.default_rng(6)) for n in (6, 7, 5)],
        layout="pairs",
        cutoff=4.0,
        dtype=torch.float64,
    )
    assert made.graph.slot is not None
    model = built({})

    def gradient(atom: int) -> Tensor:
        return torch.autograd.grad(
            predict(model, made, differentiable=True).node_features[atom].sum(), model.embedding
        )[0]

    for atom in (0, 5, 6, 12, 13, 17):
        found = gradient(atom)
        with kernels.reference_forms():
            assert (found - gradient(atom)).abs().max() < 1e-10 * found.abs().max()


@needs_compiler
def test_gradients_in_the_displacements_are_refused_rather_than_left_out() -> None:
    model, made = built({}), batch("molecules")
    vectors = made.graph.vectors(made.positions, made.cell).requires_grad_(True)
    with pytest.raises(
        ValueError,
        match=r"gives gradients in the parameters, not in the displacements .* call model\(batch\)",
    ):
        model.energy_and_gradient(vectors, made)
    made.positions.requires_grad_(True)
    for form in (contextlib.nullcontext(), kernels.reference_forms()):
        with form, pytest.raises(ValueError, match=r"not in positions or cell .* call model\(batch\)"):
            predict(model, made, differentiable=True)
    assert predict(model, made).forces.isfinite().all()
    features = model(made).node_features
    assert torch.autograd.grad(features.sum(), made.positions)[0].abs().max() > 0


@needs_compiler
def test_a_grown_model_keeps_its_function_in_both_forms() -> None:
    model, made = built({"channels": 8, "n_radial": 8}), batch("molecules")
    larger = grow(model, GeatConfig(cutoff=4.0, channels=16, n_radial=13, edge_hidden=60), seed=5).model
    before, after = predict(model, made), predict(larger, made)
    with kernels.reference_forms():
        reference = predict(larger, made)
    for other in (before, reference):
        assert (after.forces - other.forces).abs().max() < 1e-12 * other.forces.abs().max()


@needs_compiler
def test_gradients_can_be_taken_twice_and_after_another_batch() -> None:
    model, made = built({}), batch("molecules")
    result = predict(model, made, differentiable=True)
    value = energy_loss(result, made, scale=model.energy_scale, config=LossConfig())
    first = torch.autograd.grad(value, list(model.parameters()), retain_graph=True)
    gradients(model, batch("crystals"))
    again = torch.autograd.grad(value, list(model.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@needs_compiler
def test_inference_keeps_no_graph_and_gives_the_same_numbers() -> None:
    model, made = built({}), batch("crystals")
    plain, trained = predict(model, made, stress=True), predict(model, made, stress=True, differentiable=True)
    assert not plain.energy.requires_grad and not plain.forces.requires_grad
    assert torch.equal(plain.forces, trained.forces) and torch.equal(plain.stress, trained.stress)


@needs_compiler
def test_copies_and_other_precisions_compute_with_their_own_parameters() -> None:
    model, made = built({}, torch.float32), batch("molecules", torch.float32)
    before = predict(model, made).energy
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.readout_skip.add_(1.0)
    assert torch.equal(predict(model, made).energy, before)
    assert not torch.equal(predict(twin, made).energy, before)
    double = predict(copy.deepcopy(model).double(), batch("molecules")).energy
    assert (double.float() - before).abs().max() < 1e-4 * before.abs().max()


@needs_compiler
def test_a_position_that_is_not_a_number_shows() -> None:
    model, made = built({}), batch("molecules")
    made.positions[0, 0] = float("nan")
    result = predict(model, made)
    assert result.energy[0].isnan() and result.energy[1:].isfinite().all()
    assert result.forces[0].isnan().any()


def test_sizes_that_the_kernel_does_not_know_are_computed_by_pytorch() -> None:
    model = built({"channels": 12, "heads": 3})
    assert isinstance(kernels.find(model, torch.device("cpu")), Refusal)
    assert predict(model, batch("molecules")).forces.isfinite().all()


def fresh(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `code` in a new interpreter, which has loaded no kernel yet."""
    source = f"import numpy as np, torch\nfrom sapis_lab.kernels import libraries\n{code}"
    path = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **environment}
    return subprocess.run([sys.executable, "-c", source], env=path, capture_output=True, text=True)


def test_without_a_compiler_there_is_a_warning_and_no_kernel(tmp_path: Path) -> None:
    done = fresh("print(libraries.library('geat'))", PATH=str(tmp_path), SAPIS_KERNEL_CACHE=str(tmp_path))
    assert done.stdout.startswith("Refusal(reason='no C++ compiler found: ")
    assert "no C++ compiler found" in done.stderr and "PyTorch does its work" in done.stderr


def test_a_required_kernel_that_cannot_be_built_is_an_error(tmp_path: Path) -> None:
    compiler = tmp_path / "cxx"
    compiler.write_text("#!/bin/sh\necho no such thing >&2\nexit 1\n")
    compiler.chmod(0o755)
    done = fresh(
        "libraries.library('geat')",
        CXX=str(compiler),
        SAPIS_KERNELS="require",
        SAPIS_KERNEL_CACHE=str(tmp_path),
    )
    assert done.returncode and "could not build geat.cpp: no such thing" in done.stderr


def test_kernels_can_be_turned_off(tmp_path: Path) -> None:
    done = fresh("print(libraries.library('geat'))", SAPIS_KERNELS="off", SAPIS_KERNEL_CACHE=str(tmp_path))
    assert done.stdout == "Refusal(reason='off by $SAPIS_KERNELS')\n"
    assert not done.stderr and not list(tmp_path.iterdir())


def test_an_unknown_mode_names_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAPIS_KERNELS", "fast")
    with pytest.raises(ValueError, match="'fast', wanted auto, off or require"):
        libraries.mode()
