"""`sapis selftest stability`: divergence is seen and counted, runs are made once, and the table follows from
them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_frames import molecules
from typer.testing import CliRunner

from sapis_lab import cli
from sapis_lab.bench import accuracy, accuracy_log, accuracy_run
from sapis_lab.bench.adapters import Code
from sapis_lab.config import expand_use
from sapis_lab.selftest.stability import code_of, default_rate, summary

ABSURD = 1e8


@pytest.fixture
def data(project: Path) -> Path:
    arrays = molecules(60)
    arrays["E"] = arrays["E"] - arrays["E"][:40].mean()
    splits = {
        "split_train": np.arange(40),
        "split_validation": np.arange(40, 50),
        "split_test": np.arange(50, 60),
    }
    np.savez(project / "shaken.npz", **arrays, **splits)  # type: ignore[arg-type]
    return project / "shaken.npz"


def invoke(data: Path, *arguments: str) -> Any:
    where = (
        "--data",
        str(data),
        "--runs",
        str(data.with_name("runs.jsonl")),
        "--json",
        str(data.with_name("stability.json")),
    )
    return CliRunner().invoke(cli.app, ["selftest", "stability", *where, "--size", "3e3", *arguments])


def here(bench: accuracy.Bench, code: Code, job: accuracy_log.Job, path: Path) -> dict[str, Any]:
    """A run in this process, which has imported everything already."""
    settings = accuracy_run.Settings(
        adapter=code.adapter,
        model=code.model,
        data=str(path),
        n_params=job.n_params,
        rate=job.rate,
        seconds=job.seconds,
        seed=job.seed,
        batch_size=job.batch_size,
        rotate=code.rotate,
        distribution=code.distribution,
    )
    return accuracy_run.run(settings)


def stub(status: str, seed_offset: float = 0.0) -> Any:
    def run(bench: Any, code: Any, job: accuracy_log.Job, path: Path) -> dict[str, Any]:
        error = 0.01 * (1 + job.seed) + seed_offset
        scores = {"force_mae": error, "force_rmse": error}
        about = {"params": 3000, "ms_per_step": 1.0, "steps": 10, "status": status}
        return (
            {**about, "validation": scores}
            if status == "done"
            else {**about, "reason": "the loss is not finite"}
        )

    return run


def test_an_absurd_rate_is_seen_to_diverge_and_the_default_is_not(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracy.Bench, "_in_child", here)
    done = invoke(data, "--seeds", "1", "--factors", f"1,{ABSURD:g}", "--seconds", "1", "--workers", "1")
    assert done.exit_code == 1, done.output
    written = json.loads(data.with_name("stability.json").read_text())
    normal, absurd = written["rows"]
    assert (normal["runs"], normal["diverged"], normal["failed"]) == (1, 0, 0)
    assert (
        normal["rate"] == written["default_rate"]
        and normal["median_force_mae"] == normal["worst_force_mae"] > 0
    )
    assert (
        absurd["diverged"],
        absurd["median_force_mae"],
        absurd["worst_force_mae"],
        absurd["diverged_seeds"],
    ) == (1, None, None, [0])
    assert absurd["rate"] == pytest.approx(ABSURD * normal["rate"])
    assert "diverged  rate" in done.output and "median" in done.output

    monkeypatch.setattr(
        accuracy.Bench, "_in_child", lambda *a: pytest.fail("a run that is there was started again")
    )
    again = invoke(data, "--seeds", "1", "--factors", f"1,{ABSURD:g}", "--seconds", "1", "--workers", "1")
    assert again.exit_code == 1 and len(data.with_name("runs.jsonl").read_text().splitlines()) == 2


def test_an_interrupted_check_makes_the_runs_that_lack(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy.Bench, "_in_child", stub("done"))
    assert invoke(data, "--seeds", "2", "--factors", "1").exit_code == 0
    started: list[tuple[int, float]] = []

    def counting(bench: Any, code: Any, job: accuracy_log.Job, path: Path) -> dict[str, Any]:
        started.append((job.seed, job.rate))
        return stub("done")(bench, code, job, path)

    monkeypatch.setattr(accuracy.Bench, "_in_child", counting)
    rate = default_rate("geat", 3e3)
    assert invoke(data, "--seeds", "3", "--factors", "0.5,1", "--workers", "1").exit_code == 0
    assert started == [(0, 0.5 * rate), (1, 0.5 * rate), (2, 0.5 * rate), (2, rate)]
    assert invoke(data, "--seeds", "1", "--factors", "1", "--again").exit_code == 0 and started[-1] == (
        0,
        rate,
    )


def test_a_failed_process_fails_the_command_and_is_no_divergence(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracy.Bench, "_in_child", lambda *a: {"status": "failed", "reason": "no memory"})
    done = invoke(data, "--seeds", "1", "--factors", "1")
    assert done.exit_code == 1 and "failed  rate" in done.output and "no memory" in done.output
    (row,) = json.loads(data.with_name("stability.json").read_text())["rows"]
    assert (row["diverged"], row["failed"], row["median_force_mae"]) == (0, 1, None)


def test_diverged_runs_count_as_infinite_in_the_median() -> None:
    def runs(errors: list[float | None]) -> list[dict[str, Any]]:
        return [
            {"seed": k, "status": "diverged"}
            if e is None
            else {"seed": k, "status": "done", "steps": 5, "validation": {"force_mae": e}}
            for k, e in enumerate(errors)
        ]

    one = summary(runs([1.0, None, 3.0, 2.0, 4.0]), factor=1.0, rate=0.1)
    assert (one["runs"], one["diverged"], one["median_force_mae"], one["worst_force_mae"]) == (5, 1, 3.0, 4.0)
    most = summary(runs([1.0, None, None]), factor=1.0, rate=0.1)
    assert (most["diverged"], most["median_force_mae"], most["worst_force_mae"], most["diverged_seeds"]) == (
        2,
        None,
        1.0,
        [1, 2],
    )


def test_the_default_rate_is_that_of_the_training_settings_and_models_are_ours(project: Path) -> None:
    rates = expand_use("default", "train")["learning_rate"]
    small = rates["geat"]
    assert default_rate("geat", 1e5) == default_rate("geat:lmax=1", 1e5) == small["rate"]
    wanted = small["rate"] * (small["below"] / 1e3) ** small["power"]
    assert default_rate("geat", 1e3) == pytest.approx(wanted, rel=5e-3)
    assert default_rate("nequip", 1e5) == default_rate("nequip", 1e3) == rates["nequip"]
    assert (code_of("nequip").name, code_of("nequip").adapter) == ("sapis-nequip", "sapis")
    assert code_of("geat:lmax=1").name == "geat,lmax=1" and code_of("transformer").rotate


@pytest.mark.parametrize("factors", ["0,1", "-1", "inf", "one"])
def test_factors_that_are_no_positive_numbers_are_refused(data: Path, factors: str) -> None:
    done = invoke(data, "--factors", factors)
    assert done.exit_code != 0 and "--factors" in str(done.exception)
