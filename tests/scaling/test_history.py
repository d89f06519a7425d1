"""The history of a campaign: its files hold what they were given, and its decisions can be made again from
them."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_policies import LAW, law

from sapis_lab.config import ConfigError, kinds
from sapis_lab.policies import Prices, Rules, policy
from sapis_lab.scaling.history import (
    COLUMNS,
    Basis,
    Entry,
    Row,
    decide_next,
    read_decisions,
    read_history,
    replayed,
    same,
    write_decisions,
    write_history,
)

PRICES = Prices(40.0, 0.85, 0.0, 2000.0)
RULES = Rules(most_frames=2000)


def row(step, action, n, d, seed, total, *, predicted=(math.nan,) * 3, reason="", generator=None, truth=None):
    noise = 1.0 if generator is None else math.exp(generator.normal(0, 0.03))
    loss = float(LAW.predict(truth or law(A=0.7, B=0.3), n, d)) * noise
    flops = float(PRICES.of(n, d))
    return Row(step, action, float(n), float(d), seed, flops, total + flops, *predicted, loss, reason)


def campaign(kind, *, budget=3e9, truth=None, seed=0):
    """Rows and entries of a campaign in a synthetic world."""
    generator = np.random.default_rng(seed)
    rows: list[Row] = []
    for n in (3e3, 1e4, 3e4):
        for d in (100, 300, 1000):
            total = rows[-1].flops_total if rows else 0.0
            rows.append(
                row(0, "seed", n, d, 0, total, generator=generator, truth=truth, reason="seed lattice")
            )
    basis, entries = Basis(policy(kind), budget, PRICES, RULES), []
    for step in range(1, 60):
        decision = decide_next(rows, basis)
        entries.append(Entry(step, None if decision.action == "stop" else f"point-{step}", decision, basis))
        if decision.action == "stop":
            break
        rows.append(
            row(
                step,
                decision.action,
                round(decision.n_params),
                round(decision.n_frames),
                decision.seed,
                rows[-1].flops_total,
                predicted=decision.predicted,
                reason=decision.reason,
                generator=generator,
                truth=truth,
            )
        )
    return rows, entries


@pytest.fixture(scope="module")
def posterior_campaign():
    return campaign("posterior")


def test_files_hold_what_they_were_given(tmp_path, posterior_campaign):
    rows, entries = posterior_campaign
    write_history(tmp_path, rows)
    write_decisions(tmp_path, entries)
    assert [tuple(map(str, vars(r).values())) for r in read_history(tmp_path)] == [
        tuple(map(str, vars(r).values())) for r in rows
    ]
    for got, wanted in zip(read_decisions(tmp_path), entries, strict=True):
        assert (got.step, got.id, got.basis) == (wanted.step, wanted.id, wanted.basis)
        assert same(got.decision, wanted.decision) and got.decision.numbers == wanted.decision.numbers
    assert tuple(pd.read_csv(tmp_path / "history.csv").columns) == COLUMNS


@pytest.mark.parametrize("kind", kinds("policies"))
def test_the_whole_history_is_decided_again_from_its_table(tmp_path, kind, posterior_campaign):
    rows, entries = posterior_campaign if kind == "posterior" else campaign(kind)
    write_history(tmp_path, rows)
    write_decisions(tmp_path, entries)
    pairs = replayed(tmp_path)
    assert len(pairs) == len(entries) > 2
    assert all(
        same(entry.decision, again) and entry.decision.reason == again.reason for entry, again in pairs
    )


def test_the_published_campaign_is_decided_again_as_it_was():
    pairs = replayed(Path(__file__).parents[2] / "results" / "quickstart-scale" / "scale")
    assert len(pairs) == 5
    for entry, again in pairs:
        assert same(entry.decision, again) and entry.decision.reason == again.reason


def test_a_changed_measurement_changes_what_is_decided_after_it_and_nothing_before(
    tmp_path, posterior_campaign
):
    rows, entries = posterior_campaign
    k = len(rows) - 2
    changed = [replace(r, measured=0.2 * r.measured) if i == k else r for i, r in enumerate(rows)]
    write_history(tmp_path, changed)
    write_decisions(tmp_path, entries)
    verdicts = [same(entry.decision, again) for entry, again in replayed(tmp_path)]
    assert all(verdicts[: rows[k].step]) and not all(verdicts)


def test_the_budget_is_kept_and_used(posterior_campaign):
    rows, entries = posterior_campaign
    assert entries[-1].decision.action == "stop" and "FLOPs are left" in entries[-1].decision.reason
    assert rows[-1].flops_total <= 3e9 * (1 + 1e-3)
    assert rows[-1].flops_total > 0.9 * 3e9  # the last run takes what is left


def test_two_surprises_end_a_campaign(posterior_campaign):
    rows, _ = posterior_campaign
    path = [i for i, r in enumerate(rows) if r.step and r.action not in ("repeat", "measure")]
    assert len(path) >= 2
    upto = rows[: path[1] + 1]
    broken = [
        replace(r, predicted=0.1, predicted_low=0.09, predicted_high=0.11) if i in path else r
        for i, r in enumerate(upto)
    ]
    decision = decide_next(broken, Basis(policy("posterior"), 1e12, PRICES, RULES))
    assert decision.action == "stop" and "the law does not hold here" in decision.reason


def test_every_run_has_a_prediction_whatever_the_policy():
    rows, entries = campaign("null")
    assert all(math.isfinite(v) for e in entries[:-1] for v in e.decision.predicted)


def test_files_of_another_form_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="nothing has been scaled there"):
        read_history(tmp_path)
    (tmp_path / "history.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="got the columns a, b; wanted step, action"):
        read_history(tmp_path)
    (tmp_path / "decisions.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(ConfigError, match=r"decisions\.jsonl, line 1: cannot be read"):
        read_decisions(tmp_path)
