"""`sapis selftest oracles`: potentials of our own are within their bounds, and what is not is said."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from sapis_lab.config import ConfigError
from sapis_lab.oracles.stillinger_weber import StillingerWeberConfig
from sapis_lab.selftest.oracles import run_oracles

OWN = ("lennard_jones", "stillinger_weber", "tersoff")


def run(parts, **more):
    kept: list[dict] = []
    text = io.StringIO()
    status = run_oracles(
        parts,
        n_frames=1,
        data=None,
        console=Console(file=text, width=200),
        save=lambda found: kept.append(found),
        **more,
    )
    return status, text.getvalue(), kept


def test_potentials_of_our_own_have_their_published_values():
    status, text, kept = run(OWN)
    assert status == 0 and "within their bounds" in text and set(kept[-1]["cpu_seconds"]) == set(OWN)
    assert all(check["good"] for check in kept[-1]["checks"]) and len(kept[-1]["checks"]) >= 15


def test_a_wrong_value_is_said_and_ends_with_status_1(monkeypatch):
    field = StillingerWeberConfig.model_fields["strength"]
    monkeypatch.setattr(field, "default", 20.0)
    StillingerWeberConfig.model_rebuild(force=True)
    try:
        status, text, _ = run(["stillinger_weber"])
    finally:
        monkeypatch.undo()
        StillingerWeberConfig.model_rebuild(force=True)
    assert status == 1 and "2 of 4 within their bounds" in text


def test_an_unknown_part_and_missing_data_are_refused():
    with pytest.raises(ConfigError, match="--parts: got 'tersof', wanted some of lennard_jones"):
        run(["tersof"])
    with pytest.raises(ConfigError, match="SAPIS_DATA is not set"):
        run(["pyscf"])
