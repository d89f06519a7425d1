"""`sapis selftest physics`: what is known is met, and what is not is said."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from sapis_lab.config import ConfigError
from sapis_lab.oracles.stillinger_weber import StillingerWeberConfig
from sapis_lab.selftest.physics import Plan, run_physics


def run(parts, n_steps: int = 600, data: Path | None = None):
    kept: list[dict] = []
    text = io.StringIO()
    console = Console(file=text, width=200)
    status = run_physics(parts, Plan(n_steps=n_steps), data=data, console=console, save=kept.append)
    return status, text.getvalue(), kept


def test_what_takes_seconds_is_within_its_bounds():
    status, text, kept = run(["silicon", "timestep", "diffusion"])
    assert status == 0 and "12 of 12 within their bounds" in text, text
    assert all(check["good"] for check in kept[-1]["checks"])


def test_the_volume_of_a_perfect_gas_is_within_three_standard_errors():
    status, text, _ = run(["gas"], n_steps=3000)
    assert status == 0 and "2 of 2 within" in text, text


@pytest.mark.long
def test_lennard_jones_fluids_are_those_of_nist():
    status, text, _ = run(["fluid"], n_steps=10_000)
    assert status == 0, text


def test_a_wrong_value_is_said_and_ends_with_status_1(monkeypatch):
    field = StillingerWeberConfig.model_fields["strength"]
    monkeypatch.setattr(field, "default", 20.0)
    StillingerWeberConfig.model_rebuild(force=True)
    try:
        status, text, _ = run(["silicon"])
    finally:
        monkeypatch.undo()
        StillingerWeberConfig.model_rebuild(force=True)
    assert status == 1 and " no " in text


def test_an_unknown_part_is_refused():
    with pytest.raises(ConfigError, match="--parts: got 'liquid', wanted some of static, fluid"):
        run(["liquid"])
