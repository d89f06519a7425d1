"""The history of a campaign: a tidy table, the decisions behind it, and deciding all of it again.

results/NAME/scale/
  history.csv       one row a run, in the order of the campaign; step 0 is the seed lattice, step k the run of
                    decision k
  decisions.jsonl   one line a decision: what it was decided from, what was decided, numbers and reason

Both are written in one step each, the decision before its run starts: a campaign that is killed goes on with
the run that it had chosen. A decision depends on the rows before it and on what its own line says of prices
and rules, and on nothing else, so that `replayed` can make it again from the files.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sapis_lab.config import Config, ConfigError, load
from sapis_lab.files import parse_json, read_text, write_text
from sapis_lab.policies import (
    Decision,
    PolicyChoice,
    PolicyConfig,
    Prices,
    Rules,
    Runs,
    posterior_of,
    written,
)

HISTORY, DECISIONS = "history.csv", "decisions.jsonl"
COLUMNS = (
    "step",
    "action",
    "n_params",
    "n_frames",
    "seed",
    "flops",
    "flops_total",
    "predicted",
    "predicted_low",
    "predicted_high",
    "measured",
    "reason",
)
SURPRISES = 2
"""So many runs of the path outside their predicted interval, one after the other, and the law is not believed
any more."""
ASIDE = ("repeat", "measure")


@dataclass(frozen=True)
class Row:
    """One run of the history, `measured` after it ended; in the order of `COLUMNS`."""

    step: int
    action: str
    n_params: float
    n_frames: float
    seed: int
    flops: float
    """Training, and labels that were made for it."""
    flops_total: float
    """Of the campaign so far, this run included."""
    predicted: float
    predicted_low: float
    predicted_high: float
    measured: float
    reason: str

    @property
    def surprised(self) -> bool:
        """The loss fell outside of what was predicted."""
        return bool(self.measured < self.predicted_low or self.measured > self.predicted_high)


@dataclass(frozen=True)
class Basis:
    """What a decision rests on besides the rows before it."""

    policy: PolicyConfig
    budget: float
    """Of the whole campaign, FLOPs."""
    prices: Prices
    rules: Rules


@dataclass(frozen=True)
class Entry:
    """One line of decisions.jsonl."""

    step: int
    id: str | None
    """Of the point that runs it; none where the decision is to stop."""
    decision: Decision
    basis: Basis


def runs_of(rows: Sequence[Row]) -> Runs:
    """The table that policies see."""
    n, d, loss, cost = (
        np.array([getattr(r, name) for r in rows], float)
        for name in ("n_params", "n_frames", "measured", "flops")
    )
    return Runs(
        n,
        d,
        loss,
        cost,
        np.array([r.seed for r in rows], int),
        np.array([r.action in ASIDE for r in rows], bool),
    )


def decide_next(rows: Sequence[Row], basis: Basis) -> Decision:
    """The next decision of a campaign, from its rows so far; a pure function.

    The next run costs `ratio` times the last one, or all that is left where a further step would not fit into
    it.
    """
    runs, rules = runs_of(rows), basis.rules
    left = basis.budget - float(runs.cost.sum())
    last = float(runs.cost[runs.last])
    if left < last:
        message = f"{max(left, 0.0):.3g} of {basis.budget:.3g} FLOPs are left"
        return Decision("stop", reason=f"{message}, less than the last run cost ({last:.3g})")
    path = [r for r in rows if r.step > 0 and r.action not in ASIDE]
    if len(path) >= SURPRISES and all(r.surprised for r in path[-SURPRISES:]):
        return Decision(
            "stop",
            reason=f"the last {SURPRISES} runs fell outside of their predicted intervals: "
            "the law does not hold here; measure a new lattice around the last run, and look for a break",
        )
    cost = rules.growth * last
    cost = left if left < cost * (1 + rules.growth) else cost
    decision = basis.policy.decide(runs, basis.prices, next_cost=cost, horizon=left, rules=rules)
    if decision.action != "stop" and math.isnan(decision.predicted[0]):
        predicted = posterior_of(runs).predict(decision.n_params, decision.n_frames)
        decision = replace(decision, predicted=predicted)
    return decision


# -------------------------------------------------------------------------------------------------- files


def write_history(folder: Path, rows: Sequence[Row]) -> None:
    """Write history.csv in one step; floats with all their digits, nothing where a number is not known."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(row).items()}
        for row in rows
    )
    write_text(folder / HISTORY, text.getvalue())


def read_history(folder: Path) -> list[Row]:
    """The rows of history.csv. ConfigError where it is not there or of another form."""
    path = folder / HISTORY
    if not path.exists():
        raise ConfigError(f"{path}: no such file; nothing has been scaled there")
    rows = csv.DictReader(io.StringIO(read_text(path)))
    try:
        if tuple(rows.fieldnames or ()) != COLUMNS:
            got = ", ".join(rows.fieldnames or ())[:200]
            raise ConfigError(f"{path}: got the columns {got}; wanted {', '.join(COLUMNS)}")
        return [Row(**{k: _READ.get(k, _number)(v) for k, v in row.items()}) for row in rows]
    except (ValueError, TypeError, csv.Error) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}, line {rows.line_num}: cannot be read ({error})") from None


def _number(text: str) -> float:
    return float(text) if text else math.nan


_READ: dict[str, Any] = {"step": int, "seed": int, "action": str, "reason": str}


def write_decisions(folder: Path, entries: Sequence[Entry]) -> None:
    """Write decisions.jsonl in one step."""
    write_text(
        folder / DECISIONS,
        "".join(json.dumps(_plain(asdict(e)), ensure_ascii=False, allow_nan=False) + "\n" for e in entries),
    )


def read_decisions(folder: Path) -> list[Entry]:
    """The decisions so far; none where there is no file."""
    path = folder / DECISIONS
    if not path.exists():
        return []
    entries = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        try:
            raw = _restored(parse_json(line, source="not an entry"))
            decision = Decision(**{**raw["decision"], "predicted": tuple(raw["decision"]["predicted"])})
            basis, step, id = raw["basis"], raw["step"], raw["id"]
            policy, budget = basis["policy"], basis["budget"]
            prices, rules = Prices(**basis["prices"]), Rules(**basis["rules"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{path}, line {number}: cannot be read ({error}); it was not written by this program"
            ) from None
        chosen = load(_Recorded, {"policy": policy}, source=f"{path}, line {number}", recorded=True).policy
        entries.append(Entry(step, id, decision, Basis(chosen, budget, prices, rules)))
    return entries


class _Recorded(Config):
    """A policy with the settings that it had then."""

    policy: PolicyChoice


_WORDS = {"inf": math.inf, "nan": math.nan}


def _plain(value: Any) -> Any:
    """JSON has no infinity and no NaN: words stand for them; a policy is written as a study names it."""
    if isinstance(value, PolicyConfig):
        return written(value)
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"number": "nan" if math.isnan(value) else "inf"}
    return value


def _restored(value: Any) -> Any:
    if isinstance(value, dict):
        return (
            _WORDS[value["number"]]
            if set(value) == {"number"}
            else {k: _restored(v) for k, v in value.items()}
        )
    return [_restored(v) for v in value] if isinstance(value, list) else value


# ------------------------------------------------------------------------------------------------- replay


def replayed(folder: Path) -> list[tuple[Entry, Decision]]:
    """Every recorded decision beside the one that the rows before it give now."""
    rows = read_history(folder)
    return [
        (entry, decide_next([r for r in rows if r.step < entry.step], entry.basis))
        for entry in read_decisions(folder)
    ]


def same(recorded: Decision, again: Decision) -> bool:
    """Two decisions ask for the same run: action, seed, and N and D to a part in a million."""
    if (recorded.action, recorded.seed) != (again.action, again.seed):
        return False
    return recorded.action == "stop" or bool(
        np.allclose([recorded.n_params, recorded.n_frames], [again.n_params, again.n_frames], rtol=1e-6)
    )
