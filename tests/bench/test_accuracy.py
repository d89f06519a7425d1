"""Force error at equal time: one loop that ends on time, runs that are done once, divergence told and never
turned into a number."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bench_frames import molecules
from e3nn import o3
from torch import nn

from sapis_lab.bench import accuracy
from sapis_lab.bench.accuracy import RUNS, optimizer_settings, run_accuracy
from sapis_lab.bench.accuracy_data import DEFAULT_BATCH, fingerprint, prepare_data
from sapis_lab.bench.accuracy_log import Job, NoResult, RunLog, optimizer_name, scored
from sapis_lab.bench.accuracy_run import OPTIMIZERS, WARM_UP, Matrices, make_optimizer, schedule
from sapis_lab.bench.accuracy_table import _USUAL_BATCH, format_tables, summarize, write_tables
from sapis_lab.bench.peer import flat_matrices
from sapis_lab.config import ConfigError, kind_class
from sapis_lab.optimizers import OptimizerConfig
from sapis_lab.training import TrainConfig


def data_file(folder: Path) -> Path:
    arrays = molecules(60)
    arrays["E"] = arrays["E"] - arrays["E"][:40].mean()
    splits = {
        "split_train": np.arange(40),
        "split_validation": np.arange(40, 50),
        "split_test": np.arange(50, 60),
    }
    np.savez(folder / "shaken.npz", **arrays, **splits)  # type: ignore[arg-type]
    return folder / "shaken.npz"


@pytest.mark.long
def test_runs_end_on_time_are_done_once_and_divergence_is_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> list[dict[str, Any]]:
        return run_accuracy(
            ["transformer"],
            data=[str(data_file(tmp_path))],
            seconds=(),
            tune_seconds=2.0,
            rates={"transformer": (0.01, 1e6)},
            extensions=0,
            n_params=3e3,
            folder=tmp_path / "results",
            cache=tmp_path / "cache",
        )

    done, diverged = run()
    assert done["status"] == "done" and done["data"] == "shaken" and done["rotate"]
    step = done["ms_per_step"] / 1e3
    assert 2.0 <= step * done["steps"] < 2.0 + 20 * step
    assert done["validation"]["force_rmse"] < float(np.sqrt((molecules(60)["F"] ** 2).mean()))
    assert set(done["train"]) == set(done["test"]) and scored(done) == ["validation", "test"]
    assert [p["seconds"] for p in done["curve"]] == pytest.approx(np.arange(1, 10) / 5, abs=0.1 + 20 * step)
    assert diverged["status"] == "diverged" and diverged["rate"] == 1e6 and diverged["reason"]
    assert "validation" not in diverged and "test" not in diverged

    lines = (tmp_path / "results" / RUNS).read_text()
    assert [json.loads(line) for line in lines.splitlines()] == [done, diverged]
    monkeypatch.setattr(
        accuracy.subprocess, "run", lambda *a, **k: pytest.fail("a run that is there was started again")
    )
    assert run() == [done, diverged]
    assert (tmp_path / "results" / RUNS).read_text() == lines


@pytest.mark.long
def test_soap_trains_in_the_same_loop(tmp_path: Path) -> None:
    (done,) = run_accuracy(
        ["transformer"],
        data=[str(data_file(tmp_path))],
        seconds=(),
        tune_seconds=2.0,
        rates={"transformer": (0.01,)},
        extensions=0,
        n_params=3e3,
        folder=tmp_path / "results",
        cache=tmp_path / "cache",
        optimizer="soap,every=20",
    )
    assert done["status"] == "done" and done["optimizer"]["kind"] == "soap"
    assert done["optimizer"]["every"] == 20 and optimizer_name(done["optimizer"]) == "soap,every=20"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimiser_of_the_loop_takes_the_steps_of_its_kind(name: str) -> None:
    def steps(built: Callable[[list[torch.Tensor]], torch.optim.Optimizer]) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        parameters = [torch.randn(*shape, generator=generator) for shape in ((7, 5), (5,), (3, 4, 6))]
        optimizer = built([p.requires_grad_(True) for p in parameters])
        for _ in range(12):
            optimizer.zero_grad()
            sum((p - 0.3).square().mean() + p.sin().sum() for p in parameters).backward()
            optimizer.step()
        return [p.detach() for p in parameters]

    config = kind_class("optimizers", name, OptimizerConfig).model_validate({"kind": name})
    train = TrainConfig(steps=1, weight_decay=0.0, betas=(0.9, 0.999) if name == "adamw" else (0.95, 0.95))
    ours = steps(lambda p: config.build(p, learning_rate=0.01, train=train))
    theirs = steps(lambda p: make_optimizer(p, optimizer_settings(name), rate=0.01))
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-6)


def test_flat_weights_are_matrices_for_soap() -> None:
    torch.manual_seed(3)
    linear = o3.Linear("7x0e + 5x1o", "6x0e + 4x1o")
    product = o3.FullyConnectedTensorProduct("5x0e", "3x0e", "4x0e")
    module = nn.ModuleList([linear, product, nn.Linear(3, 2)])
    flat = flat_matrices(module)
    assert flat == {linear.weight: [(7, 6), (5, 4)], product.weight: [(15, 4)]}

    def soap(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return make_optimizer(parameters, optimizer_settings("soap"), rate=0.01)

    plain = nn.Parameter(linear.weight.detach()[42:].view(5, 4).clone())
    matrices, alone = Matrices(list(module.parameters()), flat), soap([plain])
    together = soap(matrices.parameters)
    for k in range(12):
        for p in (*module.parameters(), plain):
            p.grad = torch.full_like(p, 0.1 * k) + p.detach().sin()
        matrices.take_gradients()
        together.step()
        alone.step()
    torch.testing.assert_close(linear.weight.detach()[42:].view(5, 4), plain.detach())
    assert sum(p.numel() for p in matrices.parameters) == sum(p.numel() for p in module.parameters())
    linear.weight.grad = None
    matrices.take_gradients()
    assert [p.grad is None for p in matrices.parameters] == [False, False, True, True, False]


def test_an_optimiser_that_peers_lack_and_amsgrad_of_another_are_refused() -> None:
    assert optimizer_settings("adamw") == {"kind": "adamw"}
    for text, message in (
        ("muon", "wanted adamw or soap"),
        ("soap,evry=3", "every"),
        ("soap,every", "key=value"),
    ):
        with pytest.raises(ConfigError, match=message):
            optimizer_settings(text)
    with pytest.raises(ConfigError, match="--amsgrad is a setting of adamw"):
        optimizer_settings("soap", amsgrad=True)


class Stub:
    """Stands for the child processes: errors by rate, divergence above a limit that falls with the budget."""

    def __init__(self, best: float, stable: dict[float, float], best_long: float | None = None) -> None:
        self.best, self.stable, self.best_long = best, stable, best_long or best
        self.started: list[tuple[str, float, float, int]] = []

    def __call__(self, bench: Any, code: Any, job: Job, path: Path) -> dict[str, Any]:
        self.started.append((job.code, job.rate, job.seconds, job.seed))
        about = {"params": 3000, "version": "0", "ms_per_step": 1.0, "yardstick_ms": 1.0, "steps": 10}
        if job.rate > self.stable[job.seconds]:
            return {**about, "status": "diverged", "reason": "the loss is not finite"}
        best = self.best_long if job.seconds > 60 else self.best
        error = 0.01 * (1 + abs(np.log(job.rate / best))) + 1e-4 * job.seed
        scores = {"force_mae": error, "force_rmse": error, "energy_mae": error, "energy_rmse": error}
        return {**about, "status": "done", "validation": scores, "test": scores}


def stubbed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stub: Stub, **settings: Any
) -> list[dict[str, Any]]:
    monkeypatch.setattr(accuracy.Bench, "_in_child", lambda *a: stub(*a))
    return run_accuracy(
        ["geat"],
        data=[str(data_file(tmp_path))],
        folder=tmp_path / "results",
        cache=tmp_path / "cache",
        **settings,
    )


def test_a_grid_of_rates_grows_until_its_best_is_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = Stub(best=0.04, stable={60.0: 1.0, 300.0: 1.0})
    stubbed(monkeypatch, tmp_path, stub, rates={"geat": (0.01, 0.02)}, seconds=(300.0,), seeds=(0, 1))
    assert [rate for _, rate, seconds, _ in stub.started if seconds == 60] == [0.01, 0.02, 0.04, 0.08]
    assert [(rate, seed) for _, rate, seconds, seed in stub.started if seconds == 300] == [
        (0.04, 0),
        (0.02, 0),
        (0.04, 1),
    ]


@pytest.mark.parametrize(
    ("best", "tried", "taken"), [(0.02, [0.04, 0.02, 0.01], 0.02), (1e-3, [0.04, 0.02, 0.01], 0.01)]
)
def test_a_longer_budget_halves_the_rate_while_that_is_better(
    best: float, tried: list[float], taken: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = Stub(best=0.04, stable={60.0: 1.0, 300.0: 1.0}, best_long=best)
    records = stubbed(
        monkeypatch, tmp_path, stub, rates={"geat": (0.04,)}, extensions=0, seconds=(300.0,), seeds=(0, 1)
    )
    long = [(rate, seed) for _, rate, seconds, seed in stub.started if seconds == 300]
    assert long == [*((rate, 0) for rate in tried), (taken, 1)]
    (row,) = [row for row in summarize(records) if row["seconds"] == 300]
    assert (row["rate"], row["seeds"]) == (taken, [0, 1])


def test_the_longest_budget_starts_from_the_best_rate_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = Stub(best=0.04, stable={60.0: 1.0, 300.0: 1.0, 1200.0: 1.0}, best_long=0.01)
    stubbed(monkeypatch, tmp_path, stub, rates={"geat": (0.04,)}, extensions=0, seconds=(300.0,))
    stubbed(monkeypatch, tmp_path, stub, rates={"geat": (0.04,)}, extensions=0, seconds=(1200.0,), halvings=0)
    assert [rate for _, rate, seconds, _ in stub.started if seconds == 1200] == [0.01]


@pytest.mark.parametrize(("here", "started"), [((0.02,), 0.02), ((), 0.005)])
def test_a_budget_that_ran_on_another_processor_only_stands_in_for_one_of_this(
    here: tuple[float, ...], started: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = Stub(best=0.04, stable={60.0: 1.0, 300.0: 1.0, 1200.0: 1.0}, best_long=0.005)
    settings: dict[str, Any] = {"extensions": 0, "halvings": 0}
    monkeypatch.setattr(accuracy, "_processor", lambda: "there")
    for rate in (0.005, 0.02):
        stubbed(monkeypatch, tmp_path, stub, rates={"geat": (rate,)}, seconds=(300.0,), **settings)
    monkeypatch.setattr(accuracy, "_processor", lambda: "here")
    for rate in here:
        stubbed(monkeypatch, tmp_path, stub, rates={"geat": (rate,)}, seconds=(300.0,), **settings)
    stubbed(monkeypatch, tmp_path, stub, rates={"geat": (0.04,)}, seconds=(1200.0,), **settings)
    assert [rate for _, rate, seconds, _ in stub.started if seconds == 1200] == [started]


def test_a_rate_that_diverges_at_the_long_budget_gives_way_to_the_next_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = Stub(best=0.02, stable={60.0: 0.03, 300.0: 0.015})
    records = stubbed(
        monkeypatch, tmp_path, stub, rates={"geat": (0.01, 0.02)}, seconds=(300.0,), seeds=(0, 1)
    )
    long = [(r["rate"], r["seed"], r["status"]) for r in records if r["seconds"] == 300]
    assert long == [(0.02, 0, "diverged"), (0.01, 0, "done"), (0.005, 0, "done"), (0.01, 1, "done")]
    row = next(r for r in summarize(records) if r["seconds"] == 300)
    assert (row["rate"], row["rates_diverged"], row["seeds"]) == (0.01, [0.02], [0, 1])


def test_a_failed_run_is_recorded_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy.Bench, "_in_child", lambda *a: {"status": "failed", "reason": "no memory"})
    data = [str(data_file(tmp_path))]
    with pytest.raises(NoResult, match="geat failed on shaken: no memory; transformer failed"):
        run_accuracy(
            ["geat", "transformer"], data=data, folder=tmp_path / "results", cache=tmp_path / "cache"
        )
    assert [r["status"] for r in RunLog(tmp_path / "results" / RUNS).read()] == ["failed"] * 4
    stub = Stub(best=0.01, stable={60.0: 1.0})
    stubbed(monkeypatch, tmp_path, stub, rates={"geat": (0.005, 0.01, 0.02)}, seconds=())
    assert len(stub.started) == 3


def test_a_run_is_made_again_on_request_and_its_last_line_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {
        "rates": {"geat": (0.01, 0.02)},
        "extensions": 0,
        "seconds": (60.0,),
        "seeds": (0,),
    }
    stubbed(monkeypatch, tmp_path, Stub(best=0.01, stable={60.0: 1.0}), **settings)
    newer = Stub(best=0.02, stable={60.0: 1.0})
    records = stubbed(monkeypatch, tmp_path, newer, **settings, again=True)
    assert len(newer.started) == 2 and len(records) == 4
    assert [row["rate"] for row in summarize(records)] == [0.02]


def test_a_line_that_a_kill_cut_off_is_dropped(tmp_path: Path) -> None:
    log = RunLog(tmp_path / RUNS)
    log.append({"a": 1})
    with log.path.open("a") as file:
        file.write('{"a": 2, "b')
    assert log.read() == [{"a": 1}]
    log.append({"a": 3})
    assert log.read() == [{"a": 1}, {"a": 3}]


def record(
    code: str,
    *,
    error: float,
    rate: float = 0.01,
    seed: int = 0,
    status: str = "done",
    processor: str = "fast",
) -> dict[str, Any]:
    job = Job(code, "acac", rate, 60.0, seed, 1e5, 5, "f", processor)
    scores = {"force_mae": error, "energy_mae": error}
    about = {
        "status": status,
        "params": 1,
        "version": "1",
        "ms_per_step": 1.0,
        "yardstick_ms": 1.0,
        "steps": 1,
    }
    return {
        **vars(job),
        **about,
        **({"validation": scores, "test": scores} if status == "done" else {"reason": "inf"}),
    }


def test_the_table_takes_the_best_rate_by_validation_and_all_its_seeds(tmp_path: Path) -> None:
    records = [
        record("geat", error=0.010),
        record("geat", error=0.012, seed=1),
        record("painn", error=0.020, rate=0.01),
        record("painn", error=0.022, rate=0.02),
        record("painn", error=0.001, rate=0.02, seed=1),
        record("painn", error=0.0, rate=0.04, status="diverged"),
    ]
    geat, painn = summarize(records)
    assert (painn["rate"], painn["rates_tried"], painn["rates_diverged"]) == (
        0.01,
        [0.01, 0.02, 0.04],
        [0.04],
    )
    assert geat["errors"]["test"] == {
        "mean": 0.011,
        "median": 0.011,
        "sd": pytest.approx(2**0.5 * 1e-3),
        "values": [0.010, 0.012],
    }
    assert painn["ratio"] == pytest.approx(0.55) and geat["ratio"] == 1.0
    assert "11.0 ± 1.4" in write_tables(records, tmp_path)
    assert json.loads((tmp_path / "table.json").read_text())[1]["code"] == "painn"
    assert "| painn |" in format_tables(summarize(records), markdown=True)


def test_processors_have_tables_of_their_own_and_are_not_mixed_in_a_row() -> None:
    records = [
        record("geat", error=0.010),
        record("painn", error=0.020),
        record("painn", error=0.040, seed=1, processor="slow"),
        record("geat", error=0.030, processor="slow"),
    ]
    rows = summarize(records)
    assert [(r["processor"], r["code"], r["seeds"], r["ratio"]) for r in rows] == [
        ("fast", "geat", [0], 1.0),
        ("fast", "painn", [0], 0.5),
        ("slow", "geat", [0], 1.0),
        ("slow", "painn", [1], 0.75),
    ]
    assert format_tables(rows).count("CPU s of one thread of") == 2


def test_amsgrad_is_another_run_with_a_table_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {
        "rates": {"geat": (0.01,)},
        "extensions": 0,
        "seconds": (60.0,),
        "seeds": (0,),
    }
    stub = Stub(best=0.01, stable={60.0: 1.0})
    stubbed(monkeypatch, tmp_path, stub, **settings)
    records = stubbed(monkeypatch, tmp_path, stub, **settings, amsgrad=True)
    assert len(stub.started) == 2 and [r["amsgrad"] for r in records] == [False, True]
    del records[0]["amsgrad"]  # as in lines from before there was a choice
    assert [r["amsgrad"] for r in summarize(records)] == [False, True]
    assert format_tables(summarize(records)).count(", AMSGrad, about") == 1


def test_another_optimiser_is_another_run_with_rates_and_a_table_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"rates": {"geat": (0.01, 0.02)}, "extensions": 0, "seconds": (300.0,)}
    stub = Stub(best=0.02, stable={60.0: 1.0, 300.0: 1.0})
    stubbed(monkeypatch, tmp_path, stub, **settings, halvings=0)
    lines = (tmp_path / "results" / RUNS).read_text().splitlines()
    old = [{k: v for k, v in json.loads(line).items() if k != "optimizer"} for line in lines]
    # as in lines from before there was a choice
    (tmp_path / "results" / RUNS).write_text("".join(json.dumps(line) + "\n" for line in old))
    other = Stub(best=0.01, stable={60.0: 1.0, 300.0: 1.0})
    assert len(stubbed(monkeypatch, tmp_path, other, **settings, halvings=0)) == 3 and not other.started
    records = stubbed(monkeypatch, tmp_path, other, **settings, halvings=0, optimizer="soap")
    assert [(rate, seconds) for _, rate, seconds, _ in other.started] == [(0.01, 60), (0.02, 60), (0.01, 300)]
    stubbed(monkeypatch, tmp_path, other, **settings, halvings=0, optimizer="soap,block=32")
    assert len(other.started) == 6
    rows = [row for row in summarize(records) if row["seconds"] == 300]
    assert [(row["optimizer"], row["rate"], row["ratio"]) for row in rows] == [
        ("adamw", 0.02, 1.0),
        ("soap", 0.01, 1.0),
    ]
    everything = format_tables(summarize(RunLog(tmp_path / "results" / RUNS).read()))
    assert everything.count(", SOAP, about") == 2 and everything.count(", SOAP with block=32, about") == 2
    assert everything.count("1e+05") == 0 and everything.count("CPU s of one thread") == 6


def test_training_errors_stand_beside_the_others_where_they_are_known() -> None:
    errors = {"force_mae": 0.004, "energy_mae": 0.0005}
    old, new = record("geat", error=0.010), {**record("painn", error=0.020), "train": errors}
    assert "train" not in format_tables(summarize([old]))
    lines = format_tables(summarize([old, new]), markdown=True).splitlines()
    head, geat, painn = (
        [cell.strip() for cell in lines[k].strip("|").split("|")] for k in range(len(lines)) if k in (2, 4, 5)
    )
    columns = [head.index(name) for name in ("F train", "F validation", "F test", "E train", "E test")]
    assert [geat[k] for k in columns] == ["–", "10.0", "10.0", "–", "10.0"]
    assert [painn[k] for k in columns] == ["4.0", "20.0", "20.0", "0.5", "20.0"]
    (row,) = summarize([new, record("painn", error=0.022, seed=1)])
    assert row["train_errors"] is None and row["seeds"] == [0, 1]


def test_a_rate_that_spoils_another_seed_gives_way_to_the_next_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fragile(Stub):
        def __call__(self, bench: Any, code: Any, job: Job, path: Path) -> dict[str, Any]:
            found = super().__call__(bench, code, job, path)
            if job.rate > 0.01 and job.seed == 1:
                found["validation"] = found["test"] = {
                    key: 3 * value for key, value in found["validation"].items()
                }
            return found

    stub = Fragile(best=0.02, stable={60.0: 1.0, 120.0: 1.0})
    records = stubbed(
        monkeypatch, tmp_path, stub, rates={"geat": (0.01, 0.02, 0.04)}, seconds=(60.0,), seeds=(0, 1, 2)
    )
    assert {(r["rate"], r["seed"]) for r in records} == {
        (0.01, 0),
        (0.02, 0),
        (0.04, 0),
        (0.02, 1),
        (0.02, 2),
        (0.01, 1),
        (0.01, 2),
    }
    (row,) = summarize(records)
    assert (row["rate"], row["seeds"]) == (0.01, [0, 1, 2])


def test_large_frames_come_in_smaller_batches_alike_for_all_codes_and_the_table_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = Stub(best=0.01, stable={60.0: 1.0})
    monkeypatch.setattr(accuracy.Bench, "_in_child", lambda *a: stub(*a))
    monkeypatch.setattr(accuracy, "prepare_data", lambda name, cache: data_file(tmp_path))
    records = run_accuracy(
        ["geat", "sapis-nequip"],
        data=["water", "mlearn-si", "acac"],
        folder=tmp_path / "results",
        cache=tmp_path / "cache",
        rates={"geat": (0.01,), "sapis-nequip": (0.01,)},
        extensions=0,
        seconds=(),
    )
    assert {(r["data"], r["code"]): r["batch_size"] for r in records} == {
        (data, code): size
        for data, size in (("water", 1), ("mlearn-si", 4), ("acac", 5))
        for code in ("geat", "sapis-nequip")
    }
    text = format_tables(summarize(records))
    assert text.count(", 1 frame a step, about") == text.count(", 4 frames a step, about") == 1
    assert text.count("a step, about") == 2


def test_the_usual_frames_a_step_are_those_that_titles_leave_out() -> None:
    assert _USUAL_BATCH == DEFAULT_BATCH


@pytest.mark.skipif("SAPIS_DATA" not in os.environ, reason="SAPIS_DATA is not set: no crystals to read")
def test_a_batch_file_of_crystals_has_images_and_both_tests(tmp_path: Path) -> None:
    with np.load(prepare_data("mlearn-si", tmp_path)) as archive:
        arrays = dict(archive)
    sizes = {n.removeprefix("split_"): len(v) for n, v in arrays.items() if n.startswith("split_")}
    assert sizes == {"train": 194, "validation": 20, "test": 25, "test_distinct": 22}
    assert arrays["pbc"].all() and set(arrays["z"].tolist()) == {14}
    frame = np.repeat(np.arange(len(arrays["cell"])), np.diff(arrays["eptr"]))
    r = arrays["pos"][arrays["j"]] - arrays["pos"][arrays["i"]]
    r += np.einsum("pk,pkc->pc", arrays["S"], arrays["cell"][frame])
    assert (np.linalg.norm(r, axis=1) < 5.0).all()
    per_atom = (arrays["E"] / np.diff(arrays["ptr"]))[arrays["split_train"]]
    assert abs(per_atom.mean()) < 1e-9


def test_the_schedule_warms_up_and_ends_at_zero() -> None:
    rates = np.array([schedule(f) for f in np.linspace(0, 1, 2001)])
    assert (
        rates[0] == pytest.approx(1e-3) and rates.max() <= 1.0 and rates[-1] == pytest.approx(0.0, abs=1e-12)
    )
    peak = int(np.argmax(rates))
    assert peak / 2000 == pytest.approx(WARM_UP, abs=1e-3)
    assert (np.diff(rates[: peak + 1]) >= 0).all() and (np.diff(rates[peak:]) <= 0).all()


def test_a_batch_file_is_known_by_its_contents() -> None:
    one, other = molecules(2), molecules(2)
    assert fingerprint(one) == fingerprint(other)
    other["F"][0, 0] += 1e-9
    assert fingerprint(one) != fingerprint(other)
