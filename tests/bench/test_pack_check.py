"""`sapis bench pack`: packed models have the losses, gradients and clipped steps of single ones, and the
table follows from the times."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from sapis_lab import cli
from sapis_lab.bench import pack
from sapis_lab.bench.pack import TOLERANCE, PackJob, _summary
from sapis_lab.bench.step import model_config
from sapis_lab.bench.worker import answer, make_job
from sapis_lab.config import dump
from sapis_lab.kernels import reference_forms

MODEL = dump(model_config("geat").at_size(2e3, n_species=3))


def job(model: dict[str, Any] = MODEL, *, n_models: int = 3, precision: str = "float64") -> PackJob:
    torch.set_num_threads(1)
    return PackJob(model=model, n_models=n_models, precision=precision)


class Here:
    """A worker in this process, which has imported everything already."""

    def __init__(self, line: list[str], **_: object) -> None:
        self.job = make_job(line[-2], json.loads(line[-1]))

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *exception: object) -> None:
        return

    def read(self) -> dict[str, Any]:
        return {"facts": json.loads(json.dumps(self.job.facts))}

    def ask(self, **request: Any) -> dict[str, Any]:
        return answer(self.job, request)


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, ["bench", "pack", *arguments])


@pytest.mark.parametrize("precision", TOLERANCE)
def test_packed_gradients_are_those_of_single_models(precision: str) -> None:
    facts = job(precision=precision).facts
    assert "pytorch" in facts["gradient_differences"]
    assert 0 < max(facts["gradient_differences"].values()) <= facts["tolerance"] == TOLERANCE[precision]


def test_packed_gradients_of_a_model_without_symmetry_agree_too() -> None:
    model = dump(model_config("transformer").at_size(3e3, n_species=3))
    assert job(model, n_models=2).facts["gradient_differences"]["pytorch"] <= TOLERANCE["float64"]


def test_models_differ_and_a_gradient_that_is_not_theirs_is_seen() -> None:
    packed = job()
    with reference_forms():
        singles = torch.stack(
            [packed._single_loss(m, b) for m, b in zip(packed.models, packed.batches, strict=True)]
        )
    torch.testing.assert_close(packed.pack.losses(), singles, rtol=1e-12, atol=0)
    assert len({round(value, 6) for value in singles.tolist()}) == 3
    with torch.no_grad():
        packed.pack.weights["model.embedding"][1] += 1e-3
    assert packed.gradient_differences()["pytorch"] > 1e-6


def test_every_model_is_clipped_by_its_own_norm() -> None:
    packed = job()
    packed.gradient_differences()  # leaves both gradients
    largest = min(
        p.grad.norm().item()
        for p in packed.models[0].parameters()
        if p.grad is not None and p.grad.norm() > 0
    )
    packed.pack.clip(largest)
    for k, model in enumerate(packed.models):
        torch.nn.utils.clip_grad_norm_(model.parameters(), largest)
        for name, p in model.named_parameters():
            assert p.grad is not None
            torch.testing.assert_close(packed.pack.gradient(k, name), p.grad, rtol=1e-9, atol=1e-14)


def test_a_packed_step_moves_the_weights_as_single_steps_do() -> None:
    packed = job()
    for _ in range(2):
        packed.packed()
        packed.pytorch()
    packed.check()
    for k, model in enumerate(packed.models):
        for name, p in model.named_parameters():
            torch.testing.assert_close(packed.pack.weights[f"model.{name}"][k], p, rtol=0, atol=1e-7)


def test_a_step_that_is_not_finite_is_an_error() -> None:
    packed = job(n_models=1)
    packed.last = torch.tensor([1.0, torch.nan])
    with pytest.raises(ValueError, match="wanted finite numbers"):
        packed.check()


def test_gains_are_times_of_single_steps_over_the_packed_one() -> None:
    found = _summary({"packed": [2.0, 4.0, 6.0], "pytorch": [8.0, 8.0, 8.0], "compiled": [1.0, 2.0, 3.0]}, 4)
    assert found["gains"] == {"pytorch": 2.0, "compiled": 0.5}
    assert found["times"]["packed"]["seconds"] == 1.0 and found["times"]["pytorch"]["n"] == 3


def test_a_run_prints_a_table_and_writes_all_numbers(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "Worker", Here)
    path = tmp_path / "pack.json"
    done = invoke("--sizes", "2e3", "-k", "2", "--rounds", "1", "--visit", "0", "--json", str(path))
    assert done.exit_code == 0, done.output
    for word in (
        "packed",
        "PyTorch",
        "C++",
        "gain",
        "16 x 9 atoms",
        "packed gradients equal to the single ones, tolerance 1e-05",
    ):
        assert word in done.output
    written = json.loads(path.read_text())
    assert written["what"] == "pack" and written["clock"] == "cpu"
    (row,) = written["rows"]
    assert row["gradients_agree"] and row["error"] is None and (row["n_params"], row["n_models"]) == (2081, 2)
    assert set(row["gains"]) == set(row["gradient_differences"]) <= {"pytorch", "compiled"}
    assert all(time["seconds"] > 0 for time in row["times"].values())


def test_a_worker_that_dies_fails_the_command(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "command", lambda *a: [sys.executable, "-c", "raise SystemExit('no more')"])
    done = invoke("--sizes", "2e3", "-k", "1")
    assert (
        done.exit_code == 1 and "failed  2000, k = 1: its process ended with status 1: no more" in done.output
    )


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("-k", "1.5"), "whole numbers"),
        (("-k", "0"), "above 0"),
        (("--device", "gpu"), "wanted cpu"),
        (("--sizes", "20"), "n_params=20"),
    ],
)
def test_what_is_typed_wrongly_is_told(project: Path, arguments: tuple[str, ...], word: str) -> None:
    done = invoke(*arguments)
    assert done.exit_code != 0 and word in str(done.exception)
