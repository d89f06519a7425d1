"""`sapis bench step`: its inputs are what they say, its numbers are those of the workers, and what fails is
told."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import torch

from sapis_lab import cli
from sapis_lab.bench import measure
from sapis_lab.bench.inputs import CUTOFF, INPUTS, make_input, pair_repulsion
from sapis_lab.bench.measure import Entry, Settings, quartiles
from sapis_lab.bench.step import StepJob, model_config, sized_model, sizes_of
from sapis_lab.bench.worker import answer
from sapis_lab.config import ConfigError, dump
from sapis_lab.derivatives import predict
from sapis_lab.neighbors import neighbor_list
from sapis_lab.tasks import energy_loss
from sapis_lab.training import LossConfig

ROW = {
    "input",
    "model",
    "size",
    "error",
    "count_error",
    "n_params",
    "n_atoms",
    "n_frames",
    "n_pairs",
    "note",
    "torch",
    "start_bytes",
    "train",
    "infer",
}
ACTION = {
    "n",
    "seconds",
    "seconds_q25",
    "seconds_q75",
    "ratio",
    "wall_seconds",
    "atoms_per_second",
    "flops",
    "gemm_share",
    "batched_gemm_share",
    "operations",
    "page_faults",
    "peak_bytes",
}
FILE = {
    "format",
    "what",
    "started",
    "commit",
    "dirty",
    "host",
    "device",
    "device_name",
    "python",
    "torch",
    "clock",
    "threads",
    "environment",
    "rounds",
    "visit_seconds",
    "reference",
    "gemm",
    "rows",
}

STUB = """
import json, sys
what, seconds, dies_at = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
actions = ["large", "batched"] if what == "gemm" else ["infer", "train"]
facts = {"device_name": "stub", "torch": "0", "start_bytes": 1, "n_params": 9, "n_atoms": 100}
facts |= {"large": "1x1", "batched": "2x1"}
print(json.dumps({"ok": True, "facts": facts | {"flops": {"large": 8e9, "batched": 4e9}}}), flush=True)
for k, line in enumerate(sys.stdin):
    if k == dies_at:
        sys.exit("MemoryError: no room for 7 GB")
    r = json.loads(line)
    if r["do"] == "time":
        told = {"seconds": [seconds] * r["n"], "wall": [seconds] * r["n"]}
        told |= {"page_faults": 2.0, "peak_bytes": 5}
    elif r["do"] == "flops" and what == "uncounted":
        print(json.dumps({"ok": False, "error": "RuntimeError: cannot be counted"}), flush=True)
        continue
    else:
        told = {r["do"]: dict.fromkeys(actions, 10**9)}
    print(json.dumps({"ok": True, **told}), flush=True)
"""


@pytest.fixture
def sapis(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., CompletedProcess[str]]:
    """Runs `sapis bench` in this process, which has imported everything already."""

    def run(*arguments: str) -> CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["sapis", "bench", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as exit:
            code = int(exit.code or 0)
        out = capsys.readouterr()
        return CompletedProcess(arguments, code, out.out, out.err)

    return run


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replaces workers by stubs: of models by their channels, (kind of stub, seconds of a call, request at
    which it dies)."""

    def use(**of_model: tuple[str, float, int]) -> None:
        def command(environment: str, module: str, target: str, arguments: str, **_: object) -> list[str]:
            name = json.loads(arguments).get("model", {}).get("name")
            stub = of_model[name] if name else ("gemm", 0.5, -1)
            return [sys.executable, "-c", STUB, *map(str, stub)]

        monkeypatch.setattr(measure, "command", command)

    return use


# ----------------------------------------------------------------------------------------------------- inputs


@pytest.mark.parametrize(
    ("name", "n_atoms", "n_frames", "neighbors", "nearest"),
    [
        ("eth16", 144, 16, (8, 8), 0.85),
        ("mol27x8", 216, 8, (16.5, 18.5), 0.85),
        ("mol27x16", 432, 16, (16.5, 18.5), 0.85),
        ("water192", 192, 1, (50, 57), 0.8),
    ],
)
def test_inputs_are_what_they_say(name, n_atoms, n_frames, neighbors, nearest):
    data = make_input(name)
    assert (len(data.species), len(data.n_atoms)) == (n_atoms, n_frames)
    assert neighbors[0] <= data.mean_neighbors <= neighbors[1]
    distances, starts = [], np.cumsum([0, *data.n_atoms])
    for k, edges in enumerate(data.edges):
        x = data.positions[starts[k] : starts[k + 1]]
        distances.append(
            np.linalg.norm(x[edges.neighbor] + edges.shift @ data.cell[k] - x[edges.center], axis=1)
        )
    assert nearest < np.concatenate(distances).min() < 1.0, "the shortest bond holds a hydrogen"
    assert np.concatenate(distances).max() < CUTOFF
    assert np.isfinite(data.energy).all() and data.forces.std() > 0.1


def test_inputs_are_the_same_every_time():
    for name in INPUTS:
        first, second = make_input(name).arrays(), make_input(name).arrays()
        assert all(np.array_equal(first[key], second[key]) for key in first)


def test_water_has_its_density_and_no_overlap():
    data = make_input("water192")
    grams = 64 * 18.01528 / 6.02214076e23
    assert grams / (np.linalg.det(data.cell[0]) * 1e-24) == pytest.approx(1.0, rel=1e-6)
    edges = data.edges[0]
    apart = edges.center // 3 != edges.neighbor // 3
    v = data.positions[edges.neighbor] + edges.shift @ data.cell[0] - data.positions[edges.center]
    assert np.linalg.norm(v[apart], axis=1).min() > 1.4


def test_target_forces_are_minus_the_gradient_of_the_target_energies():
    rng, cell, h = np.random.default_rng(0), np.zeros((3, 3)), 1e-5
    x = rng.uniform(-2, 2, (6, 3))
    _, forces = pair_repulsion(x, cell, neighbor_list(x, cell, False, CUTOFF))
    for k in range(3):
        step = np.zeros_like(x)
        step[2, k] = h
        high, low = (
            pair_repulsion(y, cell, neighbor_list(y, cell, False, CUTOFF))[0] for y in (x + step, x - step)
        )
        assert forces[2, k] == pytest.approx(-(high - low) / (2 * h), rel=1e-6)


# --------------------------------------------------------------------------------------------------- one step


def test_a_step_minimises_the_loss_of_the_package_and_counts_the_same_twice():
    config = model_config("geat-l1").at_size(2e3, n_species=3)
    job = StepJob(model=dump(config), input="eth16", device="cpu")
    wanted = energy_loss(
        predict(job.model, job.batch, differentiable=True),
        job.batch,
        scale=job.model.energy_scale,
        config=LossConfig(),
    )
    assert job.loss().item() == pytest.approx(wanted.item(), rel=1e-5)
    before = [p.detach().clone() for p in job.parameters]
    infer, train = (answer(job, {"do": "time", "action": action, "n": 2}) for action in ("infer", "train"))
    assert all(len(told["seconds"]) == 2 and told["peak_bytes"] > 0 for told in (infer, train))
    moved = [not torch.equal(p, q) for p, q in zip(job.parameters, before, strict=True)]
    assert all(moved), "a training step moves every parameter"
    for what in ("operations", "flops"):
        once, twice = (answer(job, {"do": what})[what] for _ in range(2))
        assert once == twice and 0 < once["infer"] < once["train"]


def test_a_step_that_is_not_finite_is_an_error():
    job = StepJob(model=dump(model_config("geat-l1").at_size(2e3, n_species=3)), input="eth16", device="cpu")
    job.batch.forces[0, 0] = torch.nan
    with pytest.raises(ValueError, match="the last step gave nan"):
        answer(job, {"do": "time", "action": "train", "n": 1})


def test_models_are_named_by_kind_degree_and_options():
    assert model_config("geat-l1") == model_config("geat:lmax=1")
    assert model_config("geat-l3:layers=1").layers == 1  # type: ignore[attr-defined]


def test_degrees_can_be_compared_at_equal_channels():
    (size,) = sizes_of("own", own=True)
    two, three = (sized_model(name, model_config(name), size, (1, 6, 8)) for name in ("geat", "geat:lmax=3"))
    assert two["channels"] == three["channels"] == model_config("geat").channels  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="wanted numbers such as"):
        sizes_of("own")  # peers have no widths of their own


# ------------------------------------------------------------------------------------------------- many steps


def entries(*names: str) -> list[Entry]:
    return [Entry(name, 1e3, "eth16", "x:Y", {"model": {"name": name}}) for name in names]


def test_numbers_of_a_table_follow_from_those_of_the_workers(stubs):
    stubs(a=("model", 2.0, -1), b=("model", 3.0, -1))
    result = measure.measure(entries("a", "b"), Settings(rounds=2, visit_seconds=8.0, reference="a"))
    assert (
        result.gemm["large"]["flops_per_second"] == 16e9 and result.gemm["batched"]["flops_per_second"] == 8e9
    )
    a, b = result.rows
    assert set(a) == ROW and set(a["train"]) == set(a["infer"]) == ACTION
    assert (a["train"]["ratio"], b["train"]["ratio"], b["infer"]["ratio"]) == (1.0, 1.5, 1.5)
    assert (a["train"]["n"], b["train"]["n"]) == (8, 6), (
        "a visit lasts equally long: 2 rounds of 4 and of 3 calls"
    )
    assert a["train"]["atoms_per_second"] == 50 and a["train"]["gemm_share"] == 1e9 / 2 / 16e9
    assert (
        a["train"]["batched_gemm_share"] == 1e9 / 2 / 8e9
        and a["train"]["page_faults"] == 2
        and a["train"]["peak_bytes"] == 5
    )


@pytest.mark.parametrize("dies_at", [0, 3, 8])
def test_a_worker_that_dies_is_reported_with_its_last_words_and_stops_no_other(stubs, dies_at):
    stubs(a=("model", 1.0, dies_at), b=("model", 1.0, -1))
    dead, alive = measure.measure(
        entries("a", "b"), Settings(rounds=2, visit_seconds=0.0, reference="a")
    ).rows
    assert "ended with status 1" in dead["error"] and "MemoryError: no room for 7 GB" in dead["error"]
    assert dead["train"] is None and dead["infer"] is None
    assert alive["error"] is None and alive["train"]["ratio"] is None, "there is nothing to compare with"


def test_a_model_that_cannot_be_counted_is_timed(stubs):
    stubs(a=("uncounted", 1.0, -1))
    (row,) = measure.measure(entries("a"), Settings(rounds=1, visit_seconds=0.0, reference="a")).rows
    assert (
        row["count_error"] == "RuntimeError: cannot be counted"
        and row["train"]["flops"] is None
        and row["train"]["ratio"] == 1.0
    )


def test_quartiles_of_one_and_of_many():
    assert quartiles([3.0]) == (3.0, 3.0, 3.0)
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 3.0, 4.0)


# ------------------------------------------------------------------------------------------------ the command


def test_a_run_prints_a_table_and_writes_all_numbers(sapis, tmp_path):
    path = tmp_path / "step.json"
    done = sapis(
        "step",
        "--models",
        "geat:lmax=1",
        "--sizes",
        "3e3",
        "--inputs",
        "eth16",
        "--rounds",
        "2",
        "--visit",
        "0",
        "--json",
        str(path),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("geat:lmax=1", "train ms", "of GEMM", "faults", "16 x 9 atoms", "GFLOP/s"):
        assert word in done.stdout
    written = json.loads(path.read_text())
    assert (
        set(written) == FILE
        and written["what"] == "step"
        and written["clock"] == "cpu"
        and written["reference"] == "geat:lmax=1"
    )
    assert written["device_name"] and written["torch"] == torch.__version__
    assert written["gemm"]["eth16"]["large"]["flops_per_second"] > 0
    assert [row["model"] for row in written["rows"]] == ["geat:lmax=1"]
    for row in written["rows"]:
        assert (
            set(row) == ROW
            and row["error"] is None
            and row["n_atoms"] == 144
            and abs(row["n_params"] / 3e3 - 1) < 0.25
        )
        for action in ("train", "infer"):
            assert set(row[action]) == ACTION and all(v is not None and v >= 0 for v in row[action].values())
            assert row[action]["seconds_q25"] <= row[action]["seconds"] <= row[action]["seconds_q75"]
    assert written["rows"][0]["train"]["ratio"] == 1.0


def test_a_failed_worker_makes_the_command_fail(sapis, stubs, monkeypatch, tmp_path):
    stubs()
    real = measure.command
    monkeypatch.setattr(
        measure,
        "command",
        lambda *a, **k: (
            [sys.executable, "-c", "raise SystemExit('no more')"] if "StepJob" in a[2] else real(*a, **k)
        ),
    )
    done = sapis("step", "--sizes", "3e3", "--inputs", "eth16", "--json", str(tmp_path / "x.json"))
    assert (
        done.returncode == 1
        and "failed  geat at 3000: its process ended with status 1: no more" in done.stdout
    )
    assert "no more" in json.loads((tmp_path / "x.json").read_text())["rows"][0]["error"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--models", "gaet"), ("no 'gaet'", "did you mean 'geat'?")),
        (("--models", "geat:lmx=1"), ("unknown key 'lmx'", "did you mean 'lmax'?")),
        (("--models", "geat:lmax"), ("wanted options such as", "got 'lmax'")),
        (("--models", "geat:cutoff=4"), ("within 5 Å", "cutoff=4")),
        (("--inputs", "eth17"), ("no input 'eth17'", "eth16, mol15x5")),
        (("--sizes", "many"), ("wanted numbers such as", "'many'")),
        (("--sizes", "20"), ("n_params=20 cannot be met",)),
        (("--device", "gpu"), ("'gpu'", "wanted cpu, cuda")),
        (("--device", "cuda:99"), ("CUDA devices", "--device cpu")),
        (("--reference", "nequip"), ("'nequip' is not measured", "geat")),
        (("--json", "/nowhere/x.json"), ("there is no folder /nowhere",)),
    ],
)
def test_what_is_typed_wrongly_is_told_before_anything_runs(sapis, stubs, arguments, words):
    stubs()
    done = sapis("step", *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("error: ") and all(word in done.stderr for word in words), done.stderr
