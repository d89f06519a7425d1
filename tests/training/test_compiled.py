"""Every form of the training step has the loss and the parameter gradients of the eager one, with the force
term in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from ase import Atoms
from ase.calculators.emt import EMT
from ase.io import write
from safetensors.torch import load_file
from torch import Tensor, nn

from sapis_lab.atoms import AtomsBatch
from sapis_lab.config import ConfigError, dump, dump_yaml, kind_class, kinds, load
from sapis_lab.files import write_text
from sapis_lab.models import Model
from sapis_lab.records import read_record
from sapis_lab.selftest import SPECIES, Frame, batch_of, build, random_crystal, random_molecule
from sapis_lab.sweep import engine
from sapis_lab.sweep.resources import point_arguments
from sapis_lab.sweep.study import load_study
from sapis_lab.tasks.energies import EnergyObjective
from sapis_lab.training import LossConfig, PointConfig
from sapis_lab.training import step_forms as _compiled
from sapis_lab.training.run import run_point
from sapis_lab.training.step_forms import TracedStep, chosen_form, make_step

KINDS = kinds("models")
FEW = [k if k == "geat" else pytest.param(k, marks=pytest.mark.long) for k in KINDS]
"""One kind in every run of the tests, all in the long ones."""
EXACT = {torch.float32: 2e-5, torch.float64: 1e-11}
"""Gradients by two ways, over the largest of them."""
FORCES_SHOW = 1e-2
"""What the force term must at least change in the gradients, or a test of it would prove nothing."""
LOSS = LossConfig(energy_weight=5.0, force_weight=1.0)


def eager_step(model: Model, loss: LossConfig = LOSS) -> EnergyObjective:
    return EnergyObjective(model, loss.targets())


COUNTS = torch.tensor([3.0, 17.0], dtype=torch.float64)
STRUCTURES: dict[str, Callable[[], list[Frame]]] = {
    "equal molecules": lambda: [random_molecule(6, np.random.default_rng(k)) for k in range(3)],
    "mixed molecules": lambda: [random_molecule(n, np.random.default_rng(n)) for n in (4, 7, 6)],
    "crystals": lambda: [random_crystal(np.random.default_rng(k)) for k in range(2)],
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def traced_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """`compiled` runs the traced graph as it is: inductor takes minutes."""
    monkeypatch.setattr(_compiled, "BACKEND", "eager")


def model_of(kind: str, dtype: torch.dtype = torch.float64, **settings: object) -> Model:
    settings = {"layers": 2, **settings}
    return build(
        kind_class("models", kind)(cutoff=4.0, **settings).at_size(3e3, n_species=len(SPECIES)),
        dtype=dtype,
        seed=0,
    )


def batch_for(model: Model, structure: str, dtype: torch.dtype = torch.float64) -> AtomsBatch:
    batch = batch_of(STRUCTURES[structure](), layout=model.layout, cutoff=model.cutoff, dtype=dtype)
    return moved(batch, seed=0)


def moved(batch: AtomsBatch, *, seed: int) -> AtomsBatch:
    """Other positions and targets on the same graph."""
    generator, new = torch.Generator().manual_seed(seed), batch.clone()

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(batch.positions)

    new.positions = batch.positions + 0.02 * noise(batch.num_nodes, 3)
    new.energy, new.forces = noise(batch.n_frames), noise(batch.num_nodes, 3)
    return new


def gradients(loss: Tensor, model: Model) -> list[Tensor]:
    """Loss and gradients as a trainer takes them, by `backward`."""
    for p in model.parameters():
        p.grad = None
    loss.backward()
    found = [loss.detach(), *(torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters())]
    for p in model.parameters():
        p.grad = None
    return found


def change(model: Model) -> None:
    """What an optimiser does: new values in the same place."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p))


def difference(found: list[Tensor], wanted: list[Tensor]) -> float:
    """Largest error of loss and gradients, each over its size."""
    largest = max(w.abs().max().item() for w in wanted[1:])
    of_gradients = (
        max((a - b).abs().max().item() for a, b in zip(found[1:], wanted[1:], strict=True)) / largest
    )
    return max(of_gradients, abs(1 - found[0].item() / wanted[0].item()))


# --------------------------------------------------------------------------------------------------- compiled


# equal molecules are in the tests of replays and of whole points
@pytest.mark.parametrize("structure", ["mixed molecules", "crystals"])
@pytest.mark.parametrize("kind", FEW)
def test_a_traced_step_has_the_gradients_of_the_eager_one(
    kind: str, structure: str, traced_only: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = traces(monkeypatch)
    model = model_of(kind)
    batch = batch_for(model, structure)
    eager, step = eager_step(model), TracedStep(eager_step(model), form="compiled")
    step(batch, COUNTS)
    # what was traced is used with other values than it was traced with
    change(model)
    other, counts = moved(batch, seed=1), COUNTS + torch.tensor([1.0, 5.0], dtype=torch.float64)
    found, wanted = gradients(2.5 * step(other, counts), model), gradients(2.5 * eager(other, counts), model)
    assert difference(found, wanted) < EXACT[torch.float64]
    # and the force term is in it: gradients of the energies alone, which a compiled energy would give, are
    # others
    alone = gradients(
        2.5 * eager_step(model, LOSS.model_copy(update={"force_weight": 0.0}))(other, counts), model
    )
    assert difference(alone, wanted) > FORCES_SHOW
    # nothing that a CUDA graph could not capture or repeat: no work in place, no constants from the host, no
    # values asked back
    (traced,) = made
    assert not any(_compiled._in_place(node) for node in traced.graph.graph.nodes)
    names = {node.target._schema.name for node in traced.graph.graph.nodes if hasattr(node.target, "_schema")}
    assert not names & {
        "aten::_local_scalar_dense",
        "aten::nonzero",
        "aten::lift_fresh_copy",
        "aten::detach",
        "aten::eye",
    }


def traces(monkeypatch: pytest.MonkeyPatch) -> list[_compiled.Traced]:
    """The list to which every graph is added that is traced from now on."""
    made, honest = [], _compiled.trace

    def noted(*arguments: object) -> _compiled.Traced:
        made.append(honest(*arguments))
        return made[-1]

    monkeypatch.setattr(_compiled, "trace", noted)
    return made


def test_a_step_without_the_force_term_is_refused(monkeypatch: pytest.MonkeyPatch, traced_only: None) -> None:
    honest, model = _compiled.trace, model_of("transformer", layers=1)
    energies_alone = eager_step(model, LOSS.model_copy(update={"force_weight": 0.0}))
    monkeypatch.setattr(_compiled, "trace", lambda step, *rest: honest(energies_alone, *rest))
    with pytest.raises(
        ValueError, match="run.step=compiled: its loss differs by .* from that of the eager step"
    ):
        TracedStep(eager_step(model), form="compiled")(batch_for(model, "equal molecules"), COUNTS)

    def only_gradients(step: EnergyObjective, *rest: object) -> _compiled.Traced:
        """As pytorch issue 181581: the loss is right, the gradients are those of the energies."""
        right, wrong = honest(step, *rest), honest(energies_alone, *rest)
        return _compiled.Traced(lambda *flat: [right.graph(*flat)[0], *wrong.graph(*flat)[1:]], wrong.used)

    monkeypatch.setattr(_compiled, "trace", only_gradients)
    with pytest.raises(
        ValueError, match="run.step=compiled: its gradient differs by .* from that of the eager step"
    ):
        TracedStep(eager_step(model), form="compiled")(batch_for(model, "equal molecules"), COUNTS)


def test_beyond_a_few_shapes_the_eager_step_is_taken_with_one_warning(
    traced_only: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_compiled, "LIMIT", 2)
    model = model_of("transformer", layers=1)
    step, eager = TracedStep(eager_step(model), form="compiled"), eager_step(model)
    sizes = range(3, 3 + _compiled.LIMIT + 2)
    frames = [[random_molecule(n, np.random.default_rng(n))] for n in sizes]
    batches = [moved(batch_of(f, layout="pairs", cutoff=4.0, dtype=torch.float64), seed=0) for f in frames]
    for batch in batches[: _compiled.LIMIT]:
        step(batch, COUNTS)
    with pytest.warns(
        RuntimeWarning, match="more than 2 shapes of batches: run.step=compiled serves the first of them"
    ) as told:
        losses = [step(batch, COUNTS) for batch in batches]
    assert len(told) == 1 and len(step.buckets) == _compiled.LIMIT
    assert [loss.item() for loss in losses] == pytest.approx(
        [eager(batch, COUNTS).item() for batch in batches], rel=1e-12
    )


def test_a_form_is_no_part_of_a_checkpoint() -> None:
    from sapis_lab.training import TrainConfig
    from sapis_lab.training.module import TrainingModule

    model = model_of("transformer")
    plain, traced = (
        TrainingModule(model, TrainConfig(steps=1), steps=1, learning_rate=0.1, mean_loss=step)
        for step in (eager_step(model), TracedStep(eager_step(model), form="compiled"))
    )
    assert list(plain.state_dict()) == list(traced.state_dict())


@pytest.mark.long
def test_a_backend_of_torch_compile_has_the_gradients_of_the_eager_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_compiled, "BACKEND", "aot_eager")
    assert difference(*_compiled_and_eager()) < EXACT[torch.float64]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_inductor_has_the_gradients_of_the_eager_step(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    assert difference(*_compiled_and_eager()) < EXACT[torch.float64]


def _compiled_and_eager() -> tuple[list[Tensor], list[Tensor]]:
    model = model_of("transformer", layers=1)
    batch, step = batch_for(model, "equal molecules"), TracedStep(eager_step(model), form="compiled")
    step(batch, COUNTS)
    change(model)
    other = moved(batch, seed=1)
    return gradients(step(other, COUNTS), model), gradients(eager_step(model)(other, COUNTS), model)


# ------------------------------------------------------------------------------------------------------ ranks


class Wrapped(nn.Module):
    """What a process wraps for data parallelism."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.model = model_of("transformer", layers=1)
        self.step = make_step(eager_step(self.model), form=form)

    def forward(self, batch: AtomsBatch) -> Tensor:
        return self.step(batch, COUNTS)


def test_data_parallelism_sees_the_gradients_of_the_traced_step(tmp_path: Path, traced_only: None) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        found = []
        for form in ("compiled", "eager"):
            wrapped = nn.parallel.DistributedDataParallel(Wrapped(form))
            # what runs over ranks before the optimiser sees a gradient
            wrapped.register_comm_hook(None, doubled)
            wrapped(batch_for(wrapped.module.model, "equal molecules")).backward()
            found.append([torch.ones(()), *(p.grad for p in wrapped.parameters())])
        alone = Wrapped("eager")
        wanted = gradients(2 * alone(batch_for(alone.model, "equal molecules")), alone.model)
    finally:
        dist.destroy_process_group()
    assert difference(*found) < EXACT[torch.float64]
    assert difference([torch.ones(()), *found[0][1:]], [torch.ones(()), *wanted[1:]]) < EXACT[torch.float64]


def doubled(state, bucket):  # unannotated: DDP compares annotations with types, and here they are text
    done: torch.futures.Future[Tensor] = torch.futures.Future()
    done.set_result(2 * bucket.buffer())
    return done


# ----------------------------------------------------------------------------------------------- whole points


def clusters(folder: Path, sizes: tuple[int, ...]) -> Path:
    """Copper-gold clusters labelled by effective-medium theory, as an extended-XYZ file."""
    rng, made = np.random.default_rng(0), []
    corners = 2.6 * np.array(
        [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1]]
    )
    for k in range(18):
        n = sizes[k % len(sizes)]
        positions = corners[:n] + rng.normal(scale=0.12, size=(n, 3))
        atoms = Atoms(["Cu", "Au", "Cu", "Cu", "Au", "Cu", "Au", "Cu"][:n], positions, calculator=EMT())
        atoms.get_forces()
        made.append(atoms)
    write(folder / "clusters.xyz", made, format="extxyz")
    return folder


def point(folder: Path, data: Path, kind: str, **train: object) -> PointConfig:
    settings = {
        "steps": 6,
        "batch_size": 4,
        "learning_rate": 0.01,
        "validations": 2,
        "precision": "float64",
        "clip": 1.0,
        **train,
    }
    source = {
        "kind": "extxyz",
        "train": "clusters.xyz",
        "n_validation": 4,
        "n_test": 4,
        "energy_unit": "eV",
        "length_unit": "Angstrom",
    }
    model = dump(kind_class("models", kind)(layers=2).at_size(3e3, n_species=2))
    raw = {
        "id": folder.name,
        "data": {**source, "root": str(data)},
        "model": model,
        "n_params_target": 3000,
        "n_frames": 10,
        "seed": 0,
    }
    config = load(PointConfig, {**raw, "train": settings}, source="test")
    write_text(folder / "config.yaml", dump_yaml(config))
    return config


def weights(folder: Path) -> Tensor:
    return torch.cat(
        [
            t.flatten()
            for _, t in sorted(load_file(folder / "model.safetensors").items())
            if t.is_floating_point()
        ]
    )


def trained(tmp_path: Path, data: Path, kind: str, form: str, *, device: str = "cpu") -> Path:
    point(tmp_path / form, data, kind)
    run_point(tmp_path / form, cache=tmp_path / "cache", step=form, device=device)
    return tmp_path / form


@pytest.mark.parametrize("kind", FEW)
def test_a_point_trained_with_the_compiled_step_ends_as_the_eager_one(
    kind: str, tmp_path: Path, traced_only: None, capsys: pytest.CaptureFixture[str]
) -> None:
    data = clusters(tmp_path, (5,))
    eager, compiled = (trained(tmp_path, data, kind, form) for form in ("eager", "compiled"))
    assert capsys.readouterr().out.count("training step compiled for 4 frames made in") == 1
    assert torch.allclose(
        weights(compiled), weights(eager), rtol=0, atol=1e-6 * weights(eager).abs().max().item()
    )
    a, b = read_record(compiled), read_record(eager)
    assert a.metrics == pytest.approx(b.metrics, rel=1e-8)
    assert a.fingerprint == b.fingerprint, "how it is computed is no part of a result"


@pytest.mark.long
def test_micro_batches_go_through_the_compiled_step_one_by_one(
    tmp_path: Path, traced_only: None, capsys: pytest.CaptureFixture[str]
) -> None:
    data = clusters(tmp_path, (5,))
    for form, micro in (("eager", None), ("compiled", 2)):
        point(tmp_path / form, data, "geat", micro_batch=micro)
        run_point(tmp_path / form, cache=tmp_path / "cache", step=form)
    assert capsys.readouterr().out.count("training step compiled for 2 frames made in") == 1
    eager, compiled = weights(tmp_path / "eager"), weights(tmp_path / "compiled")
    assert torch.allclose(compiled, eager, rtol=0, atol=1e-6 * eager.abs().max().item())


def test_a_point_with_batches_of_many_shapes_trains_all_the_same(
    tmp_path: Path, traced_only: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = clusters(tmp_path, (4, 6, 8, 5, 7))
    monkeypatch.setattr(_compiled, "LIMIT", 1)
    eager = trained(tmp_path, data, "transformer", "eager")
    with pytest.warns(RuntimeWarning, match="more than 1 shapes of batches"):
        compiled = trained(tmp_path, data, "transformer", "compiled")
    assert torch.allclose(
        weights(compiled), weights(eager), rtol=0, atol=1e-6 * weights(eager).abs().max().item()
    )


# ---------------------------------------------------------------------------------------------------- choices


@pytest.mark.parametrize(
    ("step", "device", "form"),
    [
        ("auto", "cpu", "eager"),
        ("auto", "cuda", "eager"),
        ("compiled", "cpu", "compiled"),
        ("graph", "cuda:1", "graph"),
    ],
)
def test_forms_other_than_the_eager_one_are_for_who_asks(step: str, device: str, form: str) -> None:
    assert chosen_form(step, device=torch.device(device)) == form


def test_a_replay_is_refused_without_cuda(tmp_path: Path, project: Path) -> None:
    wanted = "'graph' replays CUDA graphs and wants CUDA, got device"
    point(tmp_path / "p", clusters(tmp_path, (5,)), "transformer")
    with pytest.raises(ValueError, match=f"run.step: {wanted} cpu; use auto, eager or compiled"):
        run_point(tmp_path / "p", cache=tmp_path / "cache", step="graph")
    with pytest.raises(ConfigError, match=f"run: step: {wanted}='cpu'"):
        load_study("quickstart", ["run.step=graph", "run.device=cpu"])
    with pytest.raises(ConfigError, match=f"run.step: {wanted} cpu"):
        point_arguments(load_study("quickstart", ["run.step=graph"]).run, "cpu")


@pytest.mark.parametrize("step", ["auto", "compiled"])
def test_the_step_of_a_study_reaches_its_points(
    step: str, tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import sys\ndef run_point(folder, *, cache, device, step='auto'):\n    (folder / "
        "'told').write_text(step)\n    sys.exit(3)\n"
    )
    write_text(tmp_path / "tells.py", code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    config = point(tmp_path / "p", tmp_path, "transformer")
    arguments = point_arguments(load_study("quickstart", [f"run.step={step}"]).run, "cpu")
    how = {"arguments": arguments, "target": "tells:run_point", "preload": ["tells"]}
    engine.run([config], folder=tmp_path / "r", cache=tmp_path, **how)
    assert (tmp_path / "r" / "points" / "p" / "told").read_text() == step


# ----------------------------------------------------------------------------------------------------- replay


def held(function: Callable[[], list[Tensor]]) -> tuple[list[Tensor], Callable[[], None]]:
    """What a CUDA graph does, on a CPU: outputs at fixed addresses, computed anew from the present inputs."""
    outputs = [t.clone() for t in function()]

    def replay() -> None:
        for own, new in zip(outputs, function(), strict=True):
            own.copy_(new)

    return outputs, replay


@pytest.mark.parametrize("kind", FEW)
def test_a_replay_reads_new_inputs_and_parameters_from_the_old_addresses(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_compiled, "captured", held)
    model = model_of(kind)
    batch = batch_for(model, "equal molecules")
    step, eager = TracedStep(eager_step(model), form="graph"), eager_step(model)
    first = step(batch, COUNTS)
    kept, value = gradients(eager(batch, COUNTS), model), first.item()
    other = moved(batch, seed=1)
    second = step(other, COUNTS)
    assert first.item() == value, "a replay leaves the results of earlier ones"
    assert difference(gradients(first, model), kept) < EXACT[torch.float64]
    assert difference(gradients(second, model), gradients(eager(other, COUNTS), model)) < EXACT[torch.float64]
    change(model)
    assert (
        difference(gradients(step(other, COUNTS), model), gradients(eager(other, COUNTS), model))
        < EXACT[torch.float64]
    )
    assert len(step.buckets) == 1


def test_parameters_that_moved_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compiled, "captured", held)
    model = model_of("transformer", layers=1)
    batch, step = batch_for(model, "equal molecules"), TracedStep(eager_step(model), form="graph")
    step(batch, COUNTS)
    some = next(iter(model.parameters()))
    some.data = some.data.clone()
    with pytest.raises(
        RuntimeError, match="the parameters have moved in memory since the training step was captured"
    ):
        step(batch, COUNTS)


def test_a_failed_capture_stops_who_asked_for_it_and_is_told_to_who_did_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuses(function: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(_compiled, "captured", refuses)
    model = model_of("transformer", layers=1)
    batch = batch_for(model, "equal molecules")
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        make_step(eager_step(model), form="graph")(batch, COUNTS)
    step = make_step(eager_step(model), form="graph", required=False)
    with pytest.warns(
        RuntimeWarning, match="the eager step is taken: operation not permitted when stream is capturing$"
    ):
        loss = step(batch, COUNTS)
    assert loss.item() == eager_step(model)(batch, COUNTS).item() == step(batch, COUNTS).item()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_replay_on_a_gpu_has_the_gradients_of_the_eager_step(
    kind: str, structure: str, dtype: torch.dtype
) -> None:
    model = model_of(kind, dtype).to("cuda")
    batch, counts = batch_for(model, structure, dtype).to("cuda"), COUNTS.to("cuda", dtype)
    step, eager = TracedStep(eager_step(model), form="graph"), eager_step(model)
    step(batch, counts)
    change(model)
    for seed in (1, 2):
        other = moved(batch.to("cpu"), seed=seed).to("cuda")
        assert (
            difference(gradients(step(other, counts), model), gradients(eager(other, counts), model))
            < EXACT[dtype]
        )


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_a_point_trained_by_replays_ends_as_the_eager_one(kind: str, tmp_path: Path) -> None:
    data = clusters(tmp_path, (5,))
    eager, graph = (trained(tmp_path, data, kind, form, device="cuda") for form in ("eager", "graph"))
    assert torch.allclose(
        weights(graph), weights(eager), rtol=0, atol=1e-7 * weights(eager).abs().max().item()
    )
