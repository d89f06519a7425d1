"""`sapis bench loader` times loaders that give the same batches."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from sapis_lab.bench import loader as bench
from sapis_lab.cli import app


@pytest.mark.parametrize("name", list(bench.LOADERS))
def test_every_loader_gives_the_frames_of_the_store(name: str, tmp_path: Path) -> None:
    make, package = bench.LOADERS[name]
    if package:
        pytest.importorskip(package, reason=f"measuring {name} needs {package}")
    store = bench.make_store(tmp_path / "store", 100)
    made = make(store, tmp_path, 8)
    assert bench._difference(made, store, 8) == ""
    steps = made.steps()
    for _ in range(15):  # more than an epoch
        next(steps)
    batch = made.batch(np.array([3, 1]))
    assert batch["batch"].tolist() == [0] * 9 + [1] * 9 and batch["edge_index"].max() == 17
    whole = made.batch
    made.batch = lambda ids: {**whole(ids), "forces": torch.zeros(72, 3)}  # type: ignore[method-assign]
    assert bench._difference(made, store, 8) == "other forces"


def test_loaders_are_compared_and_those_that_are_absent_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "find_spec", lambda package: None if package == "lmdb" else object())
    out = tmp_path / "out.json"
    arguments = ["--loaders", "sapis,pyg,lmdb", "--frames", "100", "--rounds", "2", "--visit", "0"]
    done = CliRunner().invoke(app, ["bench", "loader", *arguments, "--json", str(out)])
    assert done.exit_code == 0, done.output
    results = json.loads(out.read_text())
    assert [row["loader"] for row in results["rows"]] == ["sapis", "pyg"]
    assert results["rows"][0]["ratio"] == 1 and all(len(r["visits_us"]) == 2 for r in results["rows"])
    assert "not measured: lmdb is not installed" in done.output


@pytest.mark.parametrize("arguments", [["--loaders", "dali"], ["--frames", "100", "--batch-size", "99"]])
def test_what_cannot_be_measured_is_refused(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, ["bench", "loader", *arguments]).exit_code != 0
