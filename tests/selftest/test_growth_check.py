"""`sapis selftest growth`: growth changes nothing to rounding, the comparison is at equal FLOPs, and the
optimiser goes on where it was."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bench_frames import molecules
from rich.console import Console
from typer.testing import CliRunner

from sapis_lab import cli
from sapis_lab.data import DatasetConfig
from sapis_lab.data.extxyz import ExtxyzConfig
from sapis_lab.growth import grow
from sapis_lab.models.geat import GeatConfig
from sapis_lab.selftest import growth
from sapis_lab.selftest.growth import Plan, function_change, run_growth
from sapis_lab.training import TrainConfig

N_FRAMES, N_ATOMS = 30, 6
SMALL, LARGE = GeatConfig().at_size(2e3, n_species=3), GeatConfig().at_size(8e3, n_species=3)


@pytest.fixture
def data(project: Path, monkeypatch: pytest.MonkeyPatch) -> DatasetConfig:
    """Shaken molecules as the data set `shaken` of the project."""
    arrays = molecules(N_FRAMES)
    shape = (N_FRAMES, N_ATOMS, 3)
    np.savez(
        project / "shaken.npz",
        z=arrays["z"][:N_ATOMS],
        R=arrays["pos"].reshape(shape),
        F=arrays["F"].reshape(shape),
        E=arrays["E"],
    )
    text = (
        "kind: extxyz\ntrain: shaken.npz\nn_train: 20\nn_validation: 8\nn_test: 2\nenergy_unit: "
        "eV\nlength_unit: Angstrom\n"
    )
    (project / "configs" / "data" / "shaken.yaml").write_text(text)
    monkeypatch.setenv("SAPIS_DATA", str(project))
    return ExtxyzConfig(
        train=("shaken.npz",), n_train=20, n_validation=8, n_test=2, energy_unit="eV", length_unit="Angstrom"
    )


def comparison(data: DatasetConfig, cache: Path, **train: Any) -> growth._Comparison:
    plan = Plan(data, small=2e3, large=8e3, steps=3, more=10, batch_size=4)
    config = TrainConfig(steps=3, batch_size=4, **train)
    return growth._Comparison(plan, config, SMALL, LARGE, rewarm=4, seed=0, cache=cache)


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, ["selftest", "growth", *arguments])


def test_a_run_compares_growth_with_scratch_at_equal_flops_and_tells_all(
    data: DatasetConfig, tmp_path: Path
) -> None:
    path = tmp_path / "growth.json"
    sizes = ("--data", "shaken", "--small", "2e3", "--large", "8e3")
    done = invoke(
        *sizes, "--steps", "12", "--more", "10", "--batch", "4", "--seeds", "2", "--json", str(path)
    )
    assert done.exit_code == 0, done.output
    written = json.loads(path.read_text())
    assert written["what"] == "growth" and [row["seed"] for row in written["rows"]] == [0, 1]
    for row in written["rows"]:
        assert (
            row["growth"]["is_rounding"]
            and row["growth"]["max_energy_change"] < 1e-5 < row["growth"]["sum_atomic_energies"]
        )
        assert row["n_params"] == {"small": 2081, "grown": 8053, "scratch": 8053}
        steps, flops, per_step = row["steps"], row["flops"], row["flops_per_step"]
        assert flops["grown"] == 12 * per_step["small"] + 10 * per_step["large"]
        assert flops["scratch"] == steps["scratch"] * per_step["large"]
        assert abs(flops["grown"] - flops["scratch"]) <= 0.5 * per_step["large"]
        assert 10 < steps["scratch"] < 22, "the steps before growth are cheaper"
        errors = row["validation"]
        assert row["rmse_ratio"] == pytest.approx(
            errors["grown"]["force_rmse"] / errors["scratch"]["force_rmse"]
        )
    ratios = [row["rmse_ratio"] for row in written["rows"]]
    assert written["mean"]["rmse_ratio"] == pytest.approx(np.mean(ratios))
    for word in (
        "max |dE|",
        "max |dF|",
        "F grown",
        "F scratch",
        "ratio",
        "mean",
        "2,081 parameters",
        "linear warm-up over 2 steps",
    ):
        assert word in done.output


def test_moments_average_and_frames_go_on_after_growth(data: DatasetConfig, tmp_path: Path) -> None:
    compared = comparison(data, tmp_path)
    before = compared.module(compared.small.model, steps=3, learning_rate=0.01)
    optimizer = compared._fit(before, first=0, n=3, factor=lambda step: 1.0)
    grown = grow(before.model, LARGE, seed=0, optimizer_state=optimizer.state_dict(), average=before.average)
    after = compared.module(grown.model, steps=10, learning_rate=0.02)
    assert grown.average is not None
    after.average = grown.average
    seen: list[float] = []
    first = next(iter(after.model.parameters())).detach().clone()
    resumed = compared._fit(
        after, first=3, n=2, factor=lambda step: seen.append(step) or 0.5, state=grown.optimizer_state
    )  # type: ignore[func-returns-value]
    assert seen == [0, 1] and resumed.param_groups[0]["lr"] == 0.01
    assert {float(state["step"]) for state in resumed.state.values()} == {5.0}
    moved = next(iter(after.model.parameters()))
    assert 0 < (moved - first).abs().max() < 0.1 and after.average[0].shape == moved.shape


def test_the_rate_after_growth_warms_up_and_ends_at_zero(data: DatasetConfig, tmp_path: Path) -> None:
    compared = comparison(data, tmp_path)
    rates = [compared._rewarmed(step) for step in range(11)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0]) and rates[10] == pytest.approx(0.0)
    assert all(a > b for a, b in zip(rates[4:], rates[5:], strict=False))


def test_a_change_of_the_function_is_not_taken_for_rounding(data: DatasetConfig, tmp_path: Path) -> None:
    compared = comparison(data, tmp_path)
    model = compared.small.model
    same = function_change(model, grow(model, LARGE, seed=0).model, compared.validation)
    other = grow(model, LARGE, seed=0).model
    with torch.no_grad():
        other.readout_out.bias += 1e-2  # type: ignore[union-attr, operator]
    changed = function_change(model, other, compared.validation)
    assert same["is_rounding"] and not changed["is_rounding"]
    shift = N_ATOMS * float(model.energy_scale) * 1e-2 * 0.3
    assert changed["max_energy_change"] == pytest.approx(shift, rel=1e-2), (
        "0.3 is the multiplier of that bias"
    )


def test_a_training_that_diverges_has_no_number_and_fails_the_command(
    data: DatasetConfig, project: Path, tmp_path: Path
) -> None:
    (project / "configs" / "train" / "default.yaml").write_text("learning_rate: 1.0e+3\n")
    kept: list[dict[str, Any]] = []
    out = StringIO()
    plan = Plan(data, small=2e3, large=8e3, steps=20, more=10, batch_size=4, n_seeds=1)
    status = run_growth(plan, cache=tmp_path, save=kept.append, console=Console(file=out, width=160))
    assert status == 1 and "diverged" in out.getvalue()
    (row,) = kept[-1]["rows"]
    assert row["error"].startswith("diverged") and "rmse_ratio" not in row and kept[-1]["mean"] is None


def test_a_size_that_shrinks_is_told_before_anything_is_trained(data: DatasetConfig) -> None:
    done = invoke("--data", "shaken", "--small", "8e3", "--large", "2e3")
    assert (
        done.exit_code != 0
        and "geat does not grow" in str(done.exception)
        and "does not shrink" in str(done.exception)
    )
