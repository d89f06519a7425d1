"""The Triton form of GEAT gives the numbers of the PyTorch form, can be traced, and compiles for GPUs that
are not here."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
import torch

from sapis_lab import kernels
from sapis_lab.kernels import Refusal, reference_forms, traceable_forms
from sapis_lab.kernels.geat_triton import GeatTriton
from sapis_lab.models.geat import Geat, GeatConfig
from sapis_lab.selftest import SPECIES, batch_of
from sapis_lab.selftest.triton_form import SMALL, Differences, differences, random_model, structures
from sapis_lab.tasks.energies import EnergyObjective
from sapis_lab.training import LossConfig, step_forms
from sapis_lab.training.step_forms import TracedStep

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
FORMS = {
    "uniform attention": {"attention": "uniform"},
    "no product": {"product": "none"},
    "no norms": {"edge_norm": None, "readout_norm": None},
    "three layers": {"layers": 3},
    "one layer, one head": {"layers": 1, "heads": 1, "channels": 3},
    "grown": {"born": {"channels": 4, "edge_hidden": 4, "n_radial": [3]}},
}


def compared(
    lmax: int,
    layout: str,
    dtype: torch.dtype,
    settings: dict[str, Any],
    n_atoms: Sequence[int] = (3, 2),
) -> Differences:
    """Differences of the two forms of a small model, where kernels are interpreted."""
    torch.set_num_threads(1)
    assert os.environ["TRITON_INTERPRET"] == "1"
    chosen = {**SMALL, **settings}
    return differences(lmax, layout, dtype=dtype, device=CPU, settings=chosen, n_atoms=n_atoms)


@pytest.mark.parametrize("layout", ["block", "table"])
@pytest.mark.parametrize("lmax", [1, *(pytest.param(l, marks=pytest.mark.long) for l in (0, 2, 3))])
def test_energies_forces_and_parameter_gradients_are_those_of_pytorch(
    interpreter: ProcessPoolExecutor, lmax: int, layout: str
) -> None:
    assert max(interpreter.submit(compared, lmax, layout, torch.float64, {}).result()) < 1e-10


@pytest.mark.long
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_model_is_that_of_pytorch(interpreter: ProcessPoolExecutor, form: str) -> None:
    assert max(interpreter.submit(compared, 1, "block", torch.float64, FORMS[form]).result()) < 1e-10


def test_a_lone_atom_and_a_lone_pair_are_those_of_pytorch(interpreter: ProcessPoolExecutor) -> None:
    for n_atoms in ((1,), (2,)):
        assert max(interpreter.submit(compared, 1, "block", torch.float64, {}, n_atoms).result()) < 1e-10


@pytest.mark.long
def test_float32_agrees_to_its_precision(interpreter: ProcessPoolExecutor) -> None:
    assert max(interpreter.submit(compared, 1, "table", torch.float32, {}).result()) < 1e-3


def test_the_structures_have_slots_without_a_pair() -> None:
    for layout in ("block", "table"):
        frames, cutoff = structures(layout, n_atoms=(3, 2))
        made = batch_of(frames, layout="pairs", cutoff=cutoff, dtype=torch.float64, block=layout == "block")
        graph = made.graph
        assert (graph.block is not None) == (layout == "block")
        v = graph.vectors(made.positions, made.cell)
        near = graph.is_pair() & (v.square().sum(0).sqrt() < cutoff)
        assert near.any() and not (near | graph.is_self()).all()


def traced() -> tuple[set[str], float]:
    """Operations of ours in a step that is traced as for a CUDA graph, and the largest relative difference of
    its results to the eager step by PyTorch."""
    torch.set_num_threads(1)
    frames, cutoff = structures("block", n_atoms=(3,))
    batch = batch_of(frames, layout="pairs", cutoff=cutoff, dtype=torch.float64)
    generator = torch.Generator().manual_seed(4)
    batch.energy = torch.randn(batch.n_frames, generator=generator, dtype=torch.float64)
    batch.forces = torch.randn(batch.num_nodes, 3, generator=generator, dtype=torch.float64)
    model = random_model(cutoff, settings={**SMALL, "lmax": 1}, dtype=torch.float64)
    kernel = GeatTriton(model.kernel_shape(), model.multipliers(), torch.float64)  # type: ignore[arg-type]
    kernels._FOUND[model] = {("cpu", torch.float64): kernel}
    objective, counts = EnergyObjective(model, LossConfig().targets()), torch.tensor([3.0, 7.0]).double()
    parameters = list(model.parameters())
    with reference_forms():
        loss = objective(batch, counts)
        wanted = [loss.detach(), *torch.autograd.grad(loss, parameters)]
    step = TracedStep(objective, form="graph")
    parts = step_forms._taken_apart(batch)
    made = step_forms.trace(objective, parts, counts, "graph")
    state = step._state()
    found = made.graph(*state, *parts.tensors, counts)
    for p in parameters:  # nothing of the first call is left in the graph
        p.data.mul_(1.1)
    with reference_forms():
        loss = objective(batch, counts)
        wanted += [loss.detach(), *torch.autograd.grad(loss, parameters)]
    found += made.graph(*step._state(), *parts.tensors, counts)
    names = {str(n.target) for n in made.graph.graph.nodes if "sapis_lab" in str(n.target)}
    apart = [((a - b).abs().max() / b.abs().max()).item() for a, b in zip(found, wanted, strict=True)]
    return names, max(apart)


def test_a_step_can_be_traced_with_its_kernels_in_it(interpreter: ProcessPoolExecutor) -> None:
    names, apart = interpreter.submit(traced).result()
    assert {"sapis_lab.harmonic_pair.default", "sapis_lab.attention_second.default"} <= names
    assert apart < 1e-10


def compiled(
    lmax: int,
    dtype: torch.dtype,
    capabilities: Sequence[int],
    settings: dict[str, Any],
    n_atoms: Sequence[int] = (9, 5),
) -> dict[tuple[Any, ...], str]:
    """PTX of every kernel of a step with both derivatives, by name, capability and types."""
    from sapis_lab.kernels._triton_launch import compiling

    torch.set_num_threads(1)
    frames, cutoff = structures("block", n_atoms=n_atoms)
    batch = batch_of(frames, layout="pairs", cutoff=cutoff, dtype=dtype, block=True)
    model = random_model(cutoff, settings={**settings, "lmax": lmax}, dtype=dtype)
    kernel = GeatTriton(model.kernel_shape(), model.multipliers(), dtype)  # type: ignore[arg-type]
    with compiling(capabilities) as made:
        energy, gradient, _ = kernel(
            batch.graph.vectors(batch.positions, batch.cell),
            graph=batch.graph,
            n_atoms=batch.n_atoms,
            species=model.species_row.index_select(0, batch.species),
            parameters=dict(model.named_parameters()),
            energy_scale=model.energy_scale,
        )
        torch.autograd.grad(energy.sum() + gradient.square().sum(), list(model.parameters()))
    return made


KERNELS = {
    *(f"_harmonic_{to}" for to in ("center", "neighbor", "pair")),
    *(f"_weighted_{to}" for to in ("center", "neighbor", "pair")),
    *("_radial_center", "_radial_pair", "_gaunt"),
    *("_attention", "_attention_first", "_attention_second"),
    *("_hidden", "_hidden_first", "_hidden_second"),
}


@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("lmax", [1, 2, 3])
def test_every_kernel_compiles_for_gpus(compiler: ProcessPoolExecutor, lmax: int, dtype: torch.dtype) -> None:
    made = compiler.submit(compiled, lmax, dtype, (80, 90), {}).result()
    for capability in (80, 90):
        assert {key[0] for key in made if key[1] == capability} == KERNELS
        assert all(f".target sm_{capability}" in ptx for key, ptx in made.items() if key[1] == capability)
    assert not any("tf32" in ptx or "bf16" in ptx for ptx in made.values())


@pytest.mark.long
def test_wide_models_compile(compiler: ProcessPoolExecutor) -> None:
    made = compiler.submit(compiled, 2, torch.float32, (90,), {"channels": 320, "edge_hidden": 160}).result()
    assert {key[0] for key in made} == KERNELS


@pytest.mark.long
def test_what_a_lone_atom_takes_compiles(compiler: ProcessPoolExecutor) -> None:
    made = compiler.submit(compiled, 1, torch.float32, (90,), {"heads": 1}, (1,)).result()
    assert {key[0] for key in made} == KERNELS


def test_a_small_model_compiles_for_a_gpu(compiler: ProcessPoolExecutor) -> None:
    made = compiler.submit(compiled, 1, torch.float32, (90,), SMALL).result()
    assert {key[0] for key in made} == KERNELS


def model() -> Geat:
    made = GeatConfig.model_validate(SMALL).build(species=SPECIES, mean_neighbors=6.0, seed=0)
    assert isinstance(made, Geat)
    return made


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("auto", "Triton is not yet measured: SAPIS_KERNELS=require takes it"),
        ("off", "off by $SAPIS_KERNELS"),
    ],
)
def test_only_who_asks_gets_it(mode: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAPIS_KERNELS", mode)
    assert model().why_no_kernel(CUDA) == reason and model().kernel(CUDA) == "PyTorch"


def test_it_is_found_on_cuda_or_its_absence_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAPIS_KERNELS", "require")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    made = model()
    assert made.kernel(CUDA) == "Triton"
    assert kernels.find(made.half(), CUDA) == Refusal("float16: wanted float32 or float64")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="not installed: the extra `gpu`"):
        model().kernel(CUDA)


def test_tracers_see_kernels_that_can_be_traced_only() -> None:
    made = model()
    triton = GeatTriton(made.kernel_shape(), made.multipliers(), torch.float32)

    class Opaque(GeatTriton):
        name, traceable = "opaque", False

    kernels._FOUND[made] = {
        ("cuda", torch.float32): triton,
        ("cpu", torch.float32): Opaque(made.kernel_shape(), made.multipliers(), torch.float32),
    }
    with traceable_forms():
        assert kernels.find(made, CUDA) is triton
        assert made.why_no_kernel(CPU) == "off by traceable_forms: opaque cannot be traced"
        with reference_forms():
            assert made.kernel(CUDA) == "PyTorch"
    assert made.kernel(CPU) == "opaque"


def test_gradients_in_the_displacements_and_other_types_are_refused() -> None:
    pytest.importorskip("triton", reason="Triton is not installed: the extra `gpu`")
    made = model()
    frames, cutoff = structures("block", n_atoms=(3, 2))
    batch = batch_of(frames, layout="pairs", cutoff=cutoff, dtype=torch.float32)
    vectors = batch.graph.vectors(batch.positions, batch.cell)
    kernel = GeatTriton(made.kernel_shape(), made.multipliers(), torch.float32)
    rest: dict[str, Any] = {
        "graph": batch.graph,
        "n_atoms": batch.n_atoms,
        "species": made.species_row.index_select(0, batch.species),
        "parameters": dict(made.named_parameters()),
        "energy_scale": made.energy_scale,
    }
    with pytest.raises(ValueError, match=r"not in the displacements .* call model\(batch\)"):
        kernel(vectors.clone().requires_grad_(True), **rest)
    with pytest.raises(ValueError, match="built for torch.float32"):
        kernel(vectors.double(), **rest)


# ----------------------------------------------------------------------------------------------- on a device

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available() or importlib.util.find_spec("triton") is None,
    reason="no CUDA device, or Triton is not installed",
)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("layout", ["block", "table"])
@pytest.mark.parametrize("lmax", [1, 2, 3])
def test_on_a_device_the_numbers_are_those_of_pytorch(lmax: int, layout: str, dtype: torch.dtype) -> None:
    found = differences(lmax, layout, dtype=dtype, device=CUDA, settings={}, n_atoms=(21, 9, 15))
    assert max(found) < {torch.float64: 1e-10, torch.float32: 1e-3}[dtype]


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("layout", ["block", "table"])
def test_a_replay_on_a_device_has_the_gradients_of_the_eager_step(
    layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAPIS_KERNELS", "require")
    frames, cutoff = structures(layout, n_atoms=(9, 5))
    batch = batch_of(frames, layout="pairs", cutoff=cutoff, dtype=torch.float64, block=layout == "block")
    batch.energy = torch.randn(batch.n_frames, dtype=torch.float64)
    batch.forces = torch.randn(batch.num_nodes, 3, dtype=torch.float64)
    batch, made = batch.to(CUDA), random_model(cutoff, settings={}, dtype=torch.float64).to(CUDA)
    assert made.kernel(CUDA) == "Triton"
    objective, counts = EnergyObjective(made, LossConfig().targets()), torch.ones(2).double().to(CUDA)
    step = TracedStep(objective, form="graph")
    for _ in range(3):
        found = torch.autograd.grad(step(batch, counts), list(made.parameters()))
        with reference_forms():
            wanted = torch.autograd.grad(objective(batch, counts), list(made.parameters()))
        for a, b in zip(found, wanted, strict=True):
            assert (a - b).abs().max() < 1e-10 * b.abs().max()
        with torch.no_grad():
            for p in made.parameters():
                p.mul_(1.05)
