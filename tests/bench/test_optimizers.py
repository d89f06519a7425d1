"""`sapis bench optimizers` times every kind within the steps of one model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from sapis_lab.bench.optimizers import OptimizedJob
from sapis_lab.bench.step import model_config, sized_model
from sapis_lab.cli import app
from sapis_lab.config import kinds


def test_every_kind_has_a_share_of_its_step(tmp_path: Path) -> None:
    out = tmp_path / "shares.json"
    arguments = ["--sizes", "3e3", "--inputs", "mol15x5", "--rounds", "2", "--visit", "0.02"]
    done = CliRunner().invoke(app, ["bench", "optimizers", *arguments, "--json", str(out)])
    assert done.exit_code == 0, done.output
    rows = json.loads(out.read_text())["rows"]
    assert [row["optimizer"] for row in rows] == list(kinds("optimizers"))
    for row in rows:
        assert 0 < row["share"] < 1 and len(row["shares"]) == 2 and row["n_params"] == 2779
        assert 0 < row["optimizer_ms"] < row["step_ms"]
    assert all(kind in done.output for kind in kinds("optimizers"))


def test_the_optimiser_steps_and_leaves_the_weights(tmp_path: Path) -> None:
    plain = sized_model("geat", model_config("geat"), 3e3, (1, 6, 8))
    job = OptimizedJob("soap", model=plain, input="mol15x5")
    before = [p.detach().clone() for p in job.parameters]
    job.visit(0.0)
    job.visit(0.0)
    assert job.own > 0
    assert all(int(job.optimizer.state[p]["step"]) == 2 for p in job.parameters)
    assert all(torch.equal(a, b) for a, b in zip(before, job.parameters, strict=True))


@pytest.mark.parametrize("arguments", [["--inputs", "eth17"], ["--model", "get"], ["--sizes", "10"]])
def test_what_is_not_known_is_refused(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, ["bench", "optimizers", *arguments])
    assert done.exit_code != 0
