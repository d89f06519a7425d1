"""sapis data validate and info: every check is listed past a failure, and what a set holds is said."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from sapis_lab.cli import app
from sapis_lab.config import ConfigError

REST = np.array([[0.0, 0, 0], [1.2, 0, 0], [-0.4, 1.0, 0]])
UNITS = ("--set", "energy_unit=eV", "--set", "length_unit=Angstrom", "--set", "n_test=5")


@pytest.fixture
def file(tmp_path, monkeypatch):
    """60 molecules on springs, as extended XYZ in an empty project."""
    monkeypatch.setenv("SAPIS_HOME", str(tmp_path))
    generator = np.random.default_rng(0)
    lines = []
    for x in REST + 0.1 * generator.normal(size=(60, 3, 3)):
        energy, forces = -1500.0, np.zeros((3, 3))
        for i, j in ((0, 1), (0, 2), (1, 2)):
            v = x[j] - x[i]
            r = np.linalg.norm(v)
            stretch = r - np.linalg.norm(REST[j] - REST[i])
            energy += 5 * stretch**2
            forces[i] += 10 * stretch * v / r
            forces[j] -= 10 * stretch * v / r
        lines += ["3", f"Properties=species:S:1:pos:R:3:forces:R:3 energy={energy:.10f}"]
        lines += [
            " ".join([s, *(f"{c:.9f}" for c in (*a, *f))]) for s, a, f in zip("OHH", x, forces, strict=True)
        ]
    path = tmp_path / "made.xyz"
    path.write_text("\n".join(lines) + "\n")
    return path


def run(*words):
    done = CliRunner().invoke(app, ["data", *map(str, words)])
    if isinstance(done.exception, Exception):
        raise done.exception
    return done


def test_every_check_is_listed_and_a_sound_file_passes(file, tmp_path):
    done = run("validate", file, *UNITS, "--json", tmp_path / "v.json")
    assert done.exit_code == 0, done.output
    found = {f["check"]: f for f in json.loads((tmp_path / "v.json").read_text())["findings"]}
    assert found["energies against forces"]["outcome"] == "passed"
    assert abs(found["energies against forces"]["numbers"]["slope"] - 1) < 0.05
    for check in ("files are read", "length unit", "copies", "outliers", "energy unit"):
        assert check in done.output and found[check]["outcome"] == "passed"
    assert not list((tmp_path / ".sapis" / "data").glob(".validate*"))


def test_a_failure_ends_neither_the_list_nor_is_it_hidden(file, tmp_path):
    done = run("validate", file, *UNITS, "--set", "forces_are=gradient", "--json", tmp_path / "v.json")
    found = {f["check"]: f["outcome"] for f in json.loads((tmp_path / "v.json").read_text())["findings"]}
    assert done.exit_code == 1 and "1 failed" in done.output
    assert found["energies against forces"] == "failed" and found["outliers"] == "passed"


def test_a_file_that_is_cut_off_fails_by_its_frame(file):
    text = file.read_text()
    file.write_text(text[: int(0.61 * len(text))])
    done = run("validate", file, *UNITS)
    assert done.exit_code == 1 and "files are read" in done.output and "made.xyz, frame" in done.output


def test_units_that_are_not_given_are_asked_for(file):
    done = run("validate", file)
    assert done.exit_code == 1 and "set energy_unit to one of" in " ".join(done.output.split())
    with pytest.raises(ConfigError, match="there is no such file in .* and no data set of that name"):
        run("validate", "nothing.xyz")


def test_what_a_set_holds_is_said_and_drawn(file, tmp_path):
    done = run("info", file, *UNITS, "--out", tmp_path / "figures", "--json", tmp_path / "i.json")
    assert done.exit_code == 0
    for words in (
        "54 train, 1 validation, 5 test",
        "H2O (60)",
        "energy (100 %), forces (100 %)",
        "within 5 Å",
    ):
        assert words in done.output, done.output
    found = json.loads((tmp_path / "i.json").read_text())
    assert found["elements"] == ["H", "O"] and found["neighbors"] == 2.0
    assert {p.name for p in (tmp_path / "figures").iterdir()} >= {"data.pdf", "data.png", "data.csv"}
