"""A policy of one's own is one file: it decides campaigns, stands in studies and histories, and is listed."""

from pathlib import Path

import numpy as np
import pytest

from sapis_lab import outside
from sapis_lab.config import ConfigError, dump, fingerprint
from sapis_lab.policies import PolicyConfig, Prices, Rules, policy, written
from sapis_lab.scaling.history import Basis, Entry, Row, decide_next, read_decisions, write_decisions
from sapis_lab.scaling.worlds import World, campaign
from sapis_lab.sweep.schema import study_schema
from sapis_lab.sweep.study import Study, load_study

MODEL_FIRST = '''
from typing import Literal

from sapis_lab.policies import PolicyConfig, move


class ModelFirstConfig(PolicyConfig):
    """The whole cost into N, but for a part."""

    kind: Literal["model_first"] = "model_first"
    data_share: float = 0.25
    """Of ln of the growth that goes into D."""

    def decide(self, runs, prices, *, next_cost, horizon, rules):
        was, last = float(runs.n_params[runs.last]), float(runs.cost[runs.last])
        target = was * (next_cost / last) ** (1 - self.data_share)
        return move(runs, prices, target, next_cost, rules, "the model first")
'''


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "mine" / "policies"
    place.mkdir(parents=True)
    (place / "model_first.py").write_text(MODEL_FIRST)
    monkeypatch.setenv(outside.VARIABLE, str(tmp_path / "mine"))
    yield tmp_path / "mine"
    monkeypatch.undo()
    outside.refresh()


def test_it_decides_a_campaign_in_a_simulated_world(mine):
    steps = campaign(World.named("plain"), policy("model_first"), seed=0, steps=3)
    assert [s.decision.reason for s in steps] == ["the model first"] * 3
    n, d = (np.array([getattr(s.decision, k) for s in steps]) for k in ("n_params", "n_frames"))
    assert n[1:] / n[:-1] == pytest.approx(2**0.75, rel=1e-6)
    assert d[1:] / d[:-1] == pytest.approx(2**0.25, rel=1e-6)
    other = policy({"kind": "model_first", "data_share": 0.5})
    assert campaign(World.named("plain"), other, seed=0, steps=1)[0].decision.n_params < n[0]


def test_a_study_names_it_and_is_written_as_it_was_read(mine, project):
    study = load_study("quickstart-scale", ["scale.policy={kind: model_first, data_share: 0.4}"])
    assert study.scale.policy.data_share == 0.4
    plain = dump(study)
    assert plain["scale"]["policy"] == {"kind": "model_first", "data_share": 0.4}
    assert Study.model_validate(plain) == study
    assert load_study("quickstart-scale", ["scale.policy=model_first"]).scale.policy.data_share == 0.25


def test_policies_of_the_package_are_written_by_their_names(project):
    plain = dump(load_study("quickstart-scale"))["scale"]
    assert plain["policy"] == "posterior"
    # the section as it was written when the policies were a list of names
    assert fingerprint(plain) == "a9dec150848024b9f97fc432e63d304d24213142a1f992b16cb44c40bf074947"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("greedi", r"scale\.policy: no policies kind 'greedi'; did you mean 'greedy'.*known: greedy, jump"),
        ("{kind: null_}", r"no policies kind 'null_'; did you mean 'null'"),
        ("{kind: greedy, axis: n}", r"unknown key 'axis'"),
        ("3", r"wanted the name of a kind, one of greedy, jump, null, posterior, trigger, or a mapping"),
    ],
)
def test_a_policy_that_is_none_is_refused_with_the_nearest(project, given, words):
    with pytest.raises(ConfigError, match=words):
        load_study("quickstart-scale", [f"scale.policy={given}"])


def test_its_decisions_are_made_again_from_the_files(mine, tmp_path, monkeypatch):
    rows = [
        Row(0, "seed", n, d, 0, 6 * n * d, 0.0, *(np.nan,) * 3, (n * d) ** -0.2, "seed lattice")
        for n in (3e3, 1e4, 3e4)
        for d in (1e2, 3e2, 1e3)
    ]
    chosen = policy({"kind": "model_first", "data_share": 0.1})
    basis = Basis(chosen, 1e10, Prices(6.0), Rules())
    decision = decide_next(rows, basis)
    write_decisions(tmp_path, [Entry(1, "a-point", decision, basis)])
    (entry,) = read_decisions(tmp_path)
    assert entry.basis == basis and decide_next(rows, entry.basis) == decision
    assert written(entry.basis.policy) == {"kind": "model_first", "data_share": 0.1}
    monkeypatch.setenv(outside.VARIABLE, "")
    with pytest.raises(ConfigError, match=r"decisions\.jsonl, line 1: policy: no policies kind"):
        read_decisions(tmp_path)


def test_kinds_lists_it_with_its_settings(mine, sapis):
    listed = sapis("kinds", "policies").stdout
    for name in ("greedy", "jump", "null", "posterior", "trigger"):
        assert name in listed
    (line,) = [line for line in listed.splitlines() if "model_first" in line]
    assert "data_share" in line
    assert {"model_first", "trigger"} <= {
        name.removeprefix("policies-") for name in study_schema()["$defs"] if name.startswith("policies-")
    }
    assert issubclass(type(policy("model_first")), PolicyConfig)
