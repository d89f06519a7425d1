"""The compute-optimal regime: how the best learning rate and batch size move with N and D, fitted from tuning
at several of them.

    rate = kappa N^lambda D^mu,   batch = kappa N^lambda D^mu        (as in Bi et al., arXiv:2401.02954,
    section 3, there in C alone)

First the optimum of every cell (one model, N and D) by skewed bowls fitted to the trials of all cells of a
model together (`sapis_lab.analysis.bowl`), then the power law through the optima by weighted least squares
in logarithms, with the covariance of the optima and a scatter beyond it (`sapis_lab.analysis.weighted`).
Intervals are 95 %.

An exponent of a size that did not vary is 0 and called not identified. No torch here: the analysis side and
the lattice both read the rule.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from sapis_lab.analysis.bowl import CLIFF, Bowl, Bowls, Sweep, fit_bowls
from sapis_lab.analysis.weighted import WeightedFit, weighted_fit
from sapis_lab.config import ConfigError, read_yaml
from sapis_lab.files import read_json, write_text
from sapis_lab.records import read_csv

if TYPE_CHECKING:
    from pandas import DataFrame

FILE = "regime.json"
FORMAT = 1
TUNABLE = {"learning_rate": "train.learning_rate", "batch_size": "train.batch_size"}
"""What a rule can be fitted for, and its dotted name."""
UNCERTAIN = 0.5
"""An optimum whose standard deviation exceeds this share of the range that was tried is none: the best trial
stands for it."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Optimum:
    """The best value of one setting in one cell."""

    n_params: int
    """N, counted."""
    n_frames: int
    """D."""
    value: float
    low: float
    high: float
    """95 % interval of the value; for `best trial` the neighbouring trials."""
    sigma: float
    """Standard deviation of ln value."""
    method: Literal["paraboloid", "best trial"]
    """How it was found: as the minimum of a (skewed) paraboloid, or as the best trial where there are too few
    for one, or its minimum lies far outside of them or is uncertain."""
    n_trials: int
    """Finished trials of the cell."""
    loss: float
    """Lowest error of the trials."""
    note: str = ""
    """Why it is no minimum of a paraboloid, or that it lies at the edge of the search."""
    n_used: int = 0
    """Trials in the paraboloid."""


@dataclass(frozen=True)
class PowerRule:
    """value = kappa N^n_exponent D^d_exponent, with 95 % intervals."""

    kappa: float
    n_exponent: float
    d_exponent: float
    intervals: dict[str, tuple[float, float] | None]
    """By name; None where it is not identified."""
    scatter: float
    """tau: standard deviation of the optima about the rule in ln value, beyond their own uncertainties."""
    optima: tuple[Optimum, ...]

    def at(self, n_params: float, n_frames: float) -> float:
        """The value at N and D."""
        return self.kappa * n_params**self.n_exponent * n_frames**self.d_exponent


@dataclass(frozen=True)
class ModelRule:
    """The rules of one model."""

    model: str
    family: str
    rules: dict[str, PowerRule]
    """By setting: learning_rate, batch_size."""

    def learning_rate(self, n_params: int, n_frames: int) -> float | None:
        """The rate of the rule; None where it was not tuned."""
        rule = self.rules.get("learning_rate")
        return None if rule is None else rule.at(n_params, n_frames)

    def batch_size(self, n_params: int, n_frames: int) -> int | None:
        """The batch size of the rule, at most D; None where it was not tuned."""
        rule = self.rules.get("batch_size")
        return None if rule is None else max(1, min(n_frames, round(rule.at(n_params, n_frames))))


@dataclass(frozen=True)
class Regime:
    """The rules of all models of a tuned study."""

    study: str
    quantity: str
    """The error that was made small."""
    models: dict[str, ModelRule]
    """By label."""

    def rule_for(self, label: str, family: str) -> ModelRule | None:
        """The rule of a model by its label, or else of the one tuned model of its family."""
        if label in self.models:
            return self.models[label]
        same = [m for m in self.models.values() if m.family == family]
        return same[0] if len(same) == 1 else None

    def text(self) -> str:
        """The rules, their intervals, and the optima behind them, for people."""
        lines = []
        for model in self.models.values():
            for name, rule in model.rules.items():
                lines += _lines(model.model, name, rule)
        return "\n".join(lines)


# -------------------------------------------------------------------------------------------------- the cells


@dataclass(frozen=True)
class Found:
    """The optima of all cells of one model."""

    optima: tuple[tuple[Optimum, ...], ...]
    """By setting, then by cell."""
    bowls: Bowls | None
    """None where there are no bowls."""

    def rule(self, k: int, *, generator: np.random.Generator) -> tuple[PowerRule, WeightedFit]:
        """The power law of setting k, and the fit that it comes from."""
        if self.bowls is None or all(o.method == "best trial" for o in self.optima[k]):
            return fitted_rule(self.optima[k], generator=generator)
        d = self.bowls.working.shape[1]
        working = self.bowls.working[:, k], self.bowls.working_covariance[k::d, k::d]
        return fitted_rule(self.optima[k], generator=generator, working=working)


def find_optima(sweeps: Sequence[Sweep]) -> Found:
    """The best value of every setting in every cell."""
    bowls = fit_bowls(sweeps)
    if isinstance(bowls, str):
        cells = [_best_trials(sweep, bowls, np.zeros(sweep.x.shape[1])) for sweep in sweeps]
        return Found(tuple(zip(*cells, strict=True)), None)
    cells = [_of_cell(sweep, bowls, i) for i, sweep in enumerate(sweeps)]
    return Found(tuple(zip(*cells, strict=True)), bowls)


def optima(x: Array, loss: Array, *, n_params: int, n_frames: int) -> list[Optimum]:
    """The best value of every tuned setting in one cell alone, in the order of the columns of `x`.

    Args:
        x: ln of the settings of every finished trial, (n, d), d = 1 or 2.   loss: their errors, (n,),
            positive.
    """
    found = find_optima([Sweep(n_params, n_frames, x, loss, np.empty((0, x.shape[1])))])
    return [of_setting[0] for of_setting in found.optima]


def _of_cell(sweep: Sweep, bowls: Bowls, i: int) -> list[Optimum]:
    bowl, d = bowls.bowls[i], sweep.x.shape[1]
    sd = np.array([bowls.sd(k)[i] for k in range(d)])
    low, high = sweep.x.min(0), sweep.x.max(0)
    if bowl.clipped:
        return _best_trials(sweep, "the minimum lies outside of what was tried", sd)
    if (sd > UNCERTAIN * np.maximum(high - low, 1e-9)).any():
        worst = int(np.argmax(sd / np.maximum(high - low, 1e-9)))
        factor = math.exp(min(1.96 * sd[worst], 20.0))
        return _best_trials(sweep, f"its minimum is uncertain by a factor of {factor:.2g}", sd)
    found, too_high = [], _breaks_down(sweep, bowl, bowls.noise)
    for k in range(d):
        x, z = float(bowl.optimum[k]), 1.959964
        top = max(x, too_high) if k == 0 else math.inf
        edge = "beyond the edge of what was tried" if not low[k] <= x <= high[k] else ""
        found.append(
            Optimum(
                value=math.exp(x),
                low=math.exp(x - z * sd[k]),
                high=math.exp(min(x + z * sd[k], top)),
                sigma=float(sd[k]),
                method="paraboloid",
                note=edge,
                n_used=int(bowl.used.sum()),
                **_about(sweep),
            )
        )
    return found


def _breaks_down(sweep: Sweep, bowl: Bowl, noise: float) -> float:
    """ln of the lowest rate from which on every trial diverged or lies on a cliff; inf where none does."""
    above = np.log(sweep.loss) - bowl.log_loss(sweep.x)
    good = bowl.used | (above < CLIFF * noise) | (np.log(sweep.loss) - bowl.bottom < math.log(2))
    rates, fine = np.r_[sweep.x[:, 0], sweep.failed[:, 0]], np.r_[good, np.zeros(len(sweep.failed), bool)]
    last = rates[fine].max() if fine.any() else -math.inf
    return float(min(rates[rates > last], default=math.inf))


def _about(sweep: Sweep) -> dict[str, Any]:
    return {
        "n_params": int(round(sweep.n_params)),
        "n_frames": int(round(sweep.n_frames)),
        "n_trials": len(sweep.loss),
        "loss": float(sweep.loss.min()),
    }


def _best_trials(sweep: Sweep, why: str, sd: Array) -> list[Optimum]:
    """The best trial's values, between their neighbours."""
    return [_best_trial(sweep, k, why, float(sd[k])) for k in range(sweep.x.shape[1])]


def _best_trial(sweep: Sweep, k: int, why: str, sd: float) -> Optimum:
    x, best = sweep.x[:, k], int(np.argmin(sweep.loss))
    values = np.unique(x)
    at = int(np.searchsorted(values, x[best]))
    low, high = values[max(at - 1, 0)], values[min(at + 1, len(values) - 1)]
    edge = "; the best value lies at the edge of what was tried" if at in (0, len(values) - 1) else ""
    # one value says nothing: a factor of e either way
    sigma = max(float(high - low), float(values[-1] - values[0]) / 4) / 2 or 1.0
    return Optimum(
        value=math.exp(x[best]),
        low=math.exp(low),
        high=math.exp(high),
        sigma=max(sigma, sd),
        method="best trial",
        note=why + edge,
        **_about(sweep),
    )


# --------------------------------------------------------------------------------------------------- the rule


def power_rule(found: Sequence[Optimum], *, generator: np.random.Generator) -> PowerRule:
    """The power law through the optima of one setting, each with an error of its own.

    Raises:
        ValueError: there is none.
    """
    return fitted_rule(found, generator=generator)[0]


def contrasts(n_params: Array, n_frames: Array) -> tuple[dict[str, float], Array]:
    """The middle of what varied of ln N and ln D, by exponent, and the columns of the design about it.

    About the middle of the cells kappa and the exponents are not all but collinear.
    """
    columns = {"n_exponent": np.log(n_params), "d_exponent": np.log(n_frames)}
    middle = {k: float(np.mean(c)) for k, c in columns.items() if np.ptp(c) > 0.1}
    return middle, np.column_stack([np.ones(len(n_params)), *(columns[k] - m for k, m in middle.items())])


def fitted_rule(
    found: Sequence[Optimum],
    *,
    generator: np.random.Generator,
    working: tuple[Array, Array] | None = None,
) -> tuple[PowerRule, WeightedFit]:
    """The power law, and the fit that it comes from, in the columns of `contrasts`.

    Args:
        working: ln optima (n_cells,) and their covariance (n_cells, n_cells) to fit instead of those of
            `found`.

    Raises:
        ValueError: there is none.
    """
    if not found:
        raise ValueError("a rule needs an optimum at one (N, D) at least")
    middle, design = contrasts(
        *(np.array(v, float) for v in zip(*((o.n_params, o.n_frames) for o in found), strict=True))
    )
    spread = np.linalg.svd(design[:, 1:], compute_uv=False)
    together = len(middle) == 2 and spread.min() < 1e-3 * spread.max()  # N are counted, and not quite even
    if together or np.linalg.matrix_rank(design) < design.shape[1]:
        raise ValueError("N and D of the cells move together; tune at N and D that vary independently")
    if working is None:
        working = np.log([o.value for o in found]), np.diag([o.sigma**2 for o in found])
    fit = weighted_fit(design, *working, generator=generator)
    rows = {"kappa": np.array([1.0, *(-m for m in middle.values())])}
    rows |= {name: np.eye(len(middle) + 1)[j] for j, name in enumerate(middle, start=1)}
    value: dict[str, float] = {"n_exponent": 0.0, "d_exponent": 0.0}
    intervals: dict[str, tuple[float, float] | None] = dict.fromkeys(("kappa", "n_exponent", "d_exponent"))
    for name, row in rows.items():
        value[name], intervals[name] = fit.value(row), fit.interval(row)
    value["kappa"] = _exp(value["kappa"])
    if (log := intervals["kappa"]) is not None:
        intervals["kappa"] = (_exp(log[0]), _exp(log[1]))
    return PowerRule(**value, intervals=intervals, scatter=fit.tau, optima=tuple(found)), fit


def _exp(x: float) -> float:
    return math.exp(min(max(x, -700.0), 700.0))


# ---------------------------------------------------------------------------------------------------- a study


def fit_regime(trials: DataFrame, *, study: str, quantity: str, seed: int = 0) -> Regime | None:
    """The rules of all models from a table of trials; None where neither rate nor batch size was tuned.

    Args:
        trials: one row per trial with the columns model, family, state, n_params, n_frames, the tuned
            settings and `quantity`.
    """
    tuned = [name for name, column in TUNABLE.items() if column in trials]
    done = trials[(trials["state"] == "done") & trials[quantity].gt(0)]
    if not tuned or done.empty:
        return None
    generator = np.random.default_rng(seed)
    models = {}
    for (label, family), rows in trials.groupby(["model", "family"], sort=False):
        sweeps = []
        for _, cell in rows.groupby(["n_params_target", "n_frames"]):
            ended = cell[(cell["state"] == "done") & cell[quantity].gt(0)]
            if ended.empty:
                continue
            diverged = cell[cell["state"] == "diverged"]
            x, failed = (
                np.log(part[[TUNABLE[name] for name in tuned]].to_numpy(float)) for part in (ended, diverged)
            )
            n_params, n_frames = round(ended["n_params"].median()), int(ended["n_frames"].iloc[0])
            sweeps.append(Sweep(n_params, n_frames, x, ended[quantity].to_numpy(float), failed))
        if sweeps:
            found = find_optima(sweeps)
            rules = {name: found.rule(k, generator=generator)[0] for k, name in enumerate(tuned)}
            models[str(label)] = ModelRule(str(label), str(family), rules)
    return Regime(study, quantity, models)


def fit_folder(folder: Path) -> Regime | None:
    """Fit the rules of `results/NAME` from its trials.csv, and write regime.json and regime.txt; None where
    there is no rule to fit.

    There is none with several objectives, nor where N or D were themselves searched over.
    """
    settings = read_yaml(folder / "tune" / "study.yaml")
    tune, law = settings.get("tune") or {}, settings.get("law") or {}
    objectives = tune.get("objectives") or [law.get("quantity")]
    if len(objectives) > 1 or {"n_params_target", "n_frames"} & set(tune.get("space", {})):
        return None
    columns = ["model", "family", "state", "n_params", "n_frames", objectives[0]]
    table = read_csv(
        folder / "tune" / "trials.csv", columns=columns, then=f"write it anew with: sapis tune {folder.name}"
    )
    regime = fit_regime(table, study=str(settings["name"]), quantity=objectives[0])
    if regime is not None:
        write_regime(regime, folder, train=settings["train"])
    return regime


def write_regime(regime: Regime, folder: Path, *, train: dict[str, Any]) -> None:
    """Write regime.json, with the budget and schedule at which the rules hold, and regime.txt."""
    plain = {
        "format": FORMAT,
        **asdict(regime),
        "train": {k: v for k, v in train.items() if k not in TUNABLE},
    }
    write_text(folder / FILE, json.dumps(plain, indent=1, ensure_ascii=False) + "\n")
    write_text(folder / "regime.txt", regime.text() + "\n")


def read_regime(folder: Path) -> Regime:
    """The rules of a results folder. ConfigError when there are none, or the file is damaged."""
    path, anew = folder / FILE, f"write it anew with: sapis tune {folder.name}"
    try:
        raw = read_json(path, then=anew)
        if raw["format"] > FORMAT:
            raise ConfigError(
                f"{path} has format {raw['format']}, this program reads up to {FORMAT}; update sapis_lab to "
                f"read it"
            )
        models = {
            label: ModelRule(
                m["model"], m["family"], {name: _read_rule(rule) for name, rule in m["rules"].items()}
            )
            for label, m in raw["models"].items()
        }
        return Regime(raw["study"], raw["quantity"], models)
    except FileNotFoundError:
        raise ConfigError(
            f"regime: {path} is not there; tune that study first: sapis tune {folder.name}"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: cannot be read ({error!r}); {anew}") from None


def _read_rule(raw: dict[str, Any]) -> PowerRule:
    intervals = {
        name: None if interval is None else tuple(interval) for name, interval in raw["intervals"].items()
    }
    return PowerRule(**{**raw, "intervals": intervals, "optima": tuple(Optimum(**o) for o in raw["optima"])})


# ------------------------------------------------------------------------------------------------------ words


def _lines(model: str, name: str, rule: PowerRule) -> list[str]:
    word = name.replace("_", " ")
    parts = [f"{rule.kappa:.3g}"]
    parts += [
        f"{size}^{value:.3f}" for size, value in (("N", rule.n_exponent), ("D", rule.d_exponent)) if value
    ]
    lines = [
        f"{model}: {word} = {' '.join(parts)}   (scatter {100 * rule.scatter:.0f} % beyond the optima's own "
        f"uncertainty)"
    ]
    for key, symbol in (("kappa", "kappa"), ("n_exponent", "exponent of N"), ("d_exponent", "exponent of D")):
        lines.append(f"  {symbol:<14} {_interval(getattr(rule, key), rule.intervals[key])}")
    rows = [("N", "D", f"best {word}", "95 %", "rule", "trials", "how")]
    for o in rule.optima:
        how = o.method + (f" ({o.note})" if o.note else "")
        rule_value = f"{rule.at(o.n_params, o.n_frames):.3g}"
        rows.append(
            (
                f"{o.n_params}",
                f"{o.n_frames}",
                f"{o.value:.3g}",
                f"{o.low:.3g} to {o.high:.3g}",
                rule_value,
                f"{o.n_trials}",
                how,
            )
        )
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]) - 1)]
    lines += [
        "  " + "  ".join([*(text.rjust(w) for text, w in zip(row, widths, strict=False)), row[-1]])
        for row in rows
    ]
    return lines


def _interval(value: float, interval: tuple[float, float] | None) -> str:
    if interval is None:
        return f"{value:.3g}, not identified" if value else "not identified: it did not vary"
    low, high = interval
    return f"{value:.3g}   95 % {low:.3g} to {high:.3g}"
