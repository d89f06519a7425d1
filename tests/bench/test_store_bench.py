"""`sapis bench store` measures every part of a store in a process of its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from sapis_lab.bench import store as bench
from sapis_lab.cli import app
from sapis_lab.config import ConfigError


def allocate(n_bytes: int) -> dict[str, float]:
    return {"sum": float(np.ones(n_bytes // 8).sum())}


def fail() -> dict[str, float]:
    raise ValueError("no such luck")


def test_own_memory_is_what_a_process_allocates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "SAMPLE_SECONDS", 0.001)
    small, large = bench.measure(allocate, 8_000)[0], bench.measure(allocate, 400_000_000)[0]
    assert large.facts == {"sum": 5e7}
    assert small.own < 50e6 and 200e6 < large.own < 500e6


def test_a_part_that_fails_is_an_error_with_its_words() -> None:
    with pytest.raises(ConfigError, match="fail of the store failed: ValueError: no such luck"):
        bench.measure(fail)


def test_the_parts_of_a_small_store_are_measured_and_it_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # in this process: starting nine takes half a minute
    monkeypatch.setattr(bench, "READ_SECONDS", 1e-3)
    monkeypatch.setattr(bench, "N_SMALL", 2)
    monkeypatch.setattr(
        bench, "measure", lambda part, *arguments, n=1: [bench.Part(part(*arguments), 1e6, 2e6)] * n
    )
    out = tmp_path / "out.json"
    arguments = ["--frames", "300", "--readers", "2", "--folder", str(tmp_path), "--json", str(out)]
    done = CliRunner().invoke(app, ["bench", "store", *arguments])
    assert done.exit_code == 0, done.output
    rows = json.loads(out.read_text())["rows"]
    assert [row["what"] for row in rows] == [
        "append, 100,000 frames at a time",
        "2 appends of 100 frames",
        "2 appends of 100 frames, gathered",
        "seal",
        "open, with splits and one frame",
        "read, random batches of 32",
        "neighbour table of 1.6 Å, 1 process",
        "neighbour table of 1.6 Å, 2 processes",
        "training batches, reader 1 of 2",
        "training batches, reader 2 of 2",
        "compare everything with its checksums",
    ]
    assert "0 problems" in done.output and "bytes a frame" in done.output
    assert list(tmp_path.iterdir()) == [out]


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["bench", "store", "--frames", "1e15", "--folder", str(tmp_path)])
    assert done.exit_code != 0 and "GB are free" in str(done.output) + str(done.exception)
    assert list(tmp_path.iterdir()) == []


def test_parts_of_a_block_are_frames() -> None:
    block = bench.ethanol(5)
    first = bench._first(block, 2)
    assert len(first) == 2 and len(first.species) == len(first.forces) == 18 and len(first.cell) == 2
