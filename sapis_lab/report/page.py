"""`report.html`: the study's question, verdict, laws, figures, comparisons, costs, failures, points and
provenance on one page.

Everything is read from files of the results folder and inlined: no network, no external font, script or
style. All values pass through Jinja's escaping, since ids, failure texts and provenance come from outside;
what would turn the direction of text is written out.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from sapis_lab.analysis.identify import interval_text
from sapis_lab.analysis.laws import SYMBOLS, law_named
from sapis_lab.config import read_yaml
from sapis_lab.files import read_json, read_lossy, write_text
from sapis_lab.quantities import Quantity, quantity
from sapis_lab.records import read_table
from sapis_lab.report.baselines import baseline_rows
from sapis_lab.report.evaluated import evaluated_rows
from sapis_lab.report.published import published_rows
from sapis_lab.report.verdict import read_fit, verdict
from sapis_lab.text import visible

FIGURE_ORDER = [
    "loss_vs_size",
    "loss_vs_data",
    "loss_vs_labels",
    "model_comparison",
    "equal_error",
    "accuracy_per_flop",
]
FIGURE_ORDER += [
    "accuracy_per_cost",
    "isoflop",
    "compute_frontier",
    "loss_contours",
    "limiting_term",
    "exponents",
    "exponent_differences",
]
FIGURE_ORDER += ["evaluated", "profiles", "parity", "residuals", "adaptive_history"]
NARROW = 100.0
"""A figure narrower than this, in mm, is one column wide and is not stretched."""
COST_NAMES = {
    "flops_train": "training FLOPs",
    "cpu_seconds_train": "training CPU time",
    "flops_inference_per_frame": "inference FLOPs",
    "n_frames": "labels",
}
RUN_COLUMNS = ["id", "status", "model", "seed", "n_params", "n_frames", "steps", "epochs", "learning_rate"]
RUN_COLUMNS += ["flops_train", "cpu_seconds_train"]
TEST_OVER_TRAIN = "test/training error"
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def write_report(folder: Path) -> Path:
    """Write `report.html` of a results folder from runs.parquet, fit.json, figures/ and, where present,
    study.yaml, provenance.json."""
    folder = Path(folder)
    runs = read_table(folder)
    if not (folder / "fit.json").exists():
        raise ValueError(
            f"{folder / 'fit.json'}: no such file; run `sapis fit {folder.resolve().name}` first"
        )
    fits = read_fit(folder)
    study = read_yaml(folder / "study.yaml") if (folder / "study.yaml").exists() else {}
    source = folder / "provenance.json"
    provenance = read_json(source, then="run the study again to write it anew") if source.exists() else {}
    measured = quantity(fits["quantity"])
    page = (
        environment()
        .get_template("template.html.j2")
        .render(
            name=study.get("name", folder.resolve().name),
            question=study.get("question", ""),
            verdict=verdict(fits, runs, measured),
            n_planned=n_planned(study),
            budget=budget_rule(study.get("train") or {}, runs),
            quantity=measured,
            unit=measured.display_unit or measured.unit,
            fits=fits,
            laws=law_rows(fits, measured),
            forecasts=forecast_rows(fits, measured),
            optima=optimum_rows(fits, measured),
            equal_error=equal_error_rows(fits),
            published=published_rows(study, runs, measured),
            baselines=baseline_rows(runs, measured),
            evaluated=evaluated_rows(runs, measured),
            figures=figures(folder / "figures"),
            not_drawn=not_drawn(folder / "figures"),
            runs=run_rows(runs, measured),
            symbols=SYMBOLS,
            provenance=flat(provenance) + commits(runs) + kernels(runs),
        )
    )
    path = folder / "report.html"
    write_text(path, page)
    return path


def n_planned(study: Mapping[str, Any]) -> int | None:
    """How many points the lattice has; points that still run are in no runs table. None for a study that
    scales by itself, whose lattice is where it starts."""
    lattice = study.get("lattice")
    if not lattice or not study.get("models") or study.get("scale"):
        return None
    axes = (
        lattice["n_params"],
        lattice["n_frames"],
        lattice.get("seeds", [0]),
        lattice.get("rate_factors", [1.0]),
    )
    if not all(isinstance(axis, list) for axis in axes):
        return None
    return len(study["models"]) * math.prod(len(axis) for axis in axes)


def budget_rule(train: Mapping[str, Any], runs: pd.DataFrame) -> str:
    """What the training budget means for reading the law."""
    if train.get("steps") is not None:
        text = (
            f"Every point makes {train['steps']} steps: every point is equally trained, training cost "
            f"depends on N alone."
        )
        if runs["batch_size"].nunique() > 1:
            text = (
                text[:-1]
                + f" (a batch holds at most D frames, so below D = {runs['batch_size'].max()} also on D)."
            )
        return text
    if train.get("epochs") is not None:
        return f"Every point passes {train['epochs']} times over its own frames: training cost grows as N·D."
    return ""


def law_rows(fits: Mapping[str, Any], measured: Quantity) -> list[dict[str, Any]]:
    """One row a model and law, its cells as text; a parameter that is not identified never shows a value."""
    rows = []
    for name, model in fits["models"].items():
        for law, result in model["laws"].items():
            row = {
                "model": name,
                "law": law,
                "selected": law == model["selected"],
                "why_not": result.get("why_not"),
            }
            if row["why_not"] is None:
                row |= {
                    "fit": result,
                    "cells": {p: _cell(law, p, result, measured) for p in ("alpha", "beta", "gamma", "E")},
                }
            rows.append(row)
    return rows


def _cell(law: str, parameter: str, result: Mapping[str, Any], measured: Quantity) -> dict[str, Any]:
    term = next((t for t in law_named(law).terms if parameter in (t.exponent, t.amplitude)), None)
    if term is None:
        return {"text": "–", "identified": True}
    # exponents are of order one and read best with two decimals; a floor is an error and is shown as errors
    # are
    factor, digits = (measured.display_factor, ".3g") if parameter == "E" else (1.0, ".2f")
    limits = (result["intervals"] or {}).get(parameter)
    if limits is None or not result["identified"][term.name]:
        interval = f": {_interval(limits, parameter, factor, '.2g')}" if limits else ""
        return {"text": f"not identified{interval}", "identified": False}
    return {
        "text": f"{factor * result['params'][parameter]:{digits}} "
        f"{_interval(limits, parameter, factor, digits)}",
        "identified": True,
    }


def forecast_rows(fits: Mapping[str, Any], measured: Quantity) -> list[dict[str, Any]]:
    """A run at twice the largest N and D of each model: by the chosen law and averaged over the laws, with
    intervals, beside the band of the law and, where a floor is open, the wider one; or why there is none."""
    return [_forecast_row(name, model, measured) for name, model in fits["models"].items()]


def _forecast_row(name: str, model: Mapping[str, Any], measured: Quantity) -> dict[str, Any]:
    # a fit.json from before runs were forecast has bands alone
    run, found = (
        model.get("run_forecast") or {"why_not": "this fit is older than forecasts"},
        model["forecast"],
    )
    if "why_not" in run:
        return {"model": name, "why_not": run["why_not"]}
    law, wide = model["selected"], found["interval_with_floor"] if found else None
    one, others = run["laws"].get(law), sorted(run["laws"].items(), key=lambda pair: -pair[1]["weight"])
    return {
        "model": name,
        "why_not": None,
        "where": f"N = {rounded(run['n'])}, D = {rounded(run['d'])}",
        "law": law,
        "by_law": f"{_error(one['value'], measured)} {_errors((one['low'], one['high']), measured)}"
        if one
        else "–",
        "average": f"{_error(run['value'], measured)} {_errors((run['low'], run['high']), measured)}",
        "weights": ", ".join(f"{n} {f['weight']:.2f}" for n, f in others if f["weight"] >= 0.005),
        "band": _errors(found["interval"], measured) if found else "–",
        "wide": _errors(wide, measured) if wide else "–",
    }


def optimum_rows(fits: Mapping[str, Any], measured: Quantity) -> list[dict[str, Any]]:
    """The best split of two budgets for each model, or why there is none."""
    rows = []
    for name, model in fits["models"].items():
        found = model["optimum"]
        for budget in found.get("budgets", []):
            rows.append(
                {
                    "model": name,
                    "why_not": None,
                    "budget": number(budget["budget"]),
                    "beyond": budget["budget"] > 1.001 * found["largest_measured"],
                    "n_params": (
                        f"{rounded(budget['n_params'])} "
                        f"[{', '.join(map(rounded, budget['n_params_interval']))}]"
                    ),
                    "n_frames": (
                        f"{rounded(budget['n_frames'])} "
                        f"[{', '.join(map(rounded, budget['n_frames_interval']))}]"
                    ),
                    "loss": f"{_error(budget['loss'], measured)} "
                    f"{_errors(budget['loss_interval'], measured)}",
                    "waste": f"{100 * budget['waste']:.2g} %",
                }
            )
        if "why_not" in found:
            rows.append({"model": name, "why_not": found["why_not"]})
    return _merged(rows, "model", "all models", by=())


def equal_error_rows(fits: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each model must spend to reach the error in the middle of the common range, over what the
    reference must."""
    rows = []
    for found in fits["equal_error"]:
        error = quantity(found["quantity"])
        about = {
            "model": found["model"],
            "cost": COST_NAMES[found["cost"]],
            "error": error.label,
            "why_not": found["why_not"],
        }
        if found["why_not"] is None and found["middle"] is None:
            about["why_not"] = (
                "the smallest size or data of the lattice decides at every error that both reach"
            )
        if about["why_not"] is None:
            at, ratio, low, high = found["middle"]
            high = math.inf if high is None else high
            inner = [r for r, edge in zip(found["ratio"], found["at_edge"], strict=True) if not edge]
            about |= {"at": f"{error.display_factor * at:.3g} {error.display_unit or error.unit}"}
            about |= {"ratio": f"{ratio:.2f} [{low:.2f}, {'∞' if math.isinf(high) else f'{high:.2f}'}]"}
            about |= {"range": f"{min(inner):.2f} to {max(inner):.2f}"}
        rows.append(about)
    return _merged(rows, "cost", "any cost", by=("model", "error"))


def _merged(
    rows: list[dict[str, Any]], column: str, word: str, *, by: tuple[str, ...]
) -> list[dict[str, Any]]:
    """One row with `word` in `column` for all rows of a group that have the same reason for no statement."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[k] for k in by), []).append(row)
    result = []
    for group in groups.values():
        same = (
            len(group) > 1 and group[0]["why_not"] is not None and len({row["why_not"] for row in group}) == 1
        )
        result += [group[0] | {column: word}] if same else group
    return result


def not_drawn(folder: Path) -> dict[str, str]:
    """Kinds of figures that the points do not support, with the reasons."""
    path = folder / "not_drawn.json"
    return (
        read_json(path, then=f"draw again: sapis study figures {folder.resolve().parent.name}")
        if path.exists()
        else {}
    )


def _error(value: float, measured: Quantity) -> str:
    return f"{measured.display_factor * value:.3g}"


def _errors(limits: Sequence[float], measured: Quantity) -> str:
    return f"[{', '.join(_error(v, measured) for v in limits)}]"


def rounded(value: float) -> str:
    """A size with two digits: more would be none of the law's."""
    return number(float(f"{value:.1e}"))


def _interval(limits: list[float], parameter: str, factor: float, digits: str) -> str:
    if parameter == "E":
        return f"[{factor * limits[0]:{digits}}, {factor * limits[1]:{digits}}]"
    return interval_text((limits[0], limits[1]), digits=digits)


def figures(folder: Path) -> list[dict[str, Any]]:
    """Every figure of the folder as a data URI with its caption, the story's order first."""
    found = {path.stem: path for path in sorted(folder.glob("*.png"))}
    names = [n for n in FIGURE_ORDER if n in found] + [n for n in found if n not in FIGURE_ORDER]
    result = []
    for name in names:
        caption = found[name].with_suffix(".txt")
        image = base64.b64encode(found[name].read_bytes()).decode()
        text = " ".join(read_lossy(caption).split()) if caption.exists() else name
        result.append(
            {
                "name": name,
                "uri": f"data:image/png;base64,{image}",
                "caption": text,
                "narrow": _width_mm(found[name]) < NARROW,
            }
        )
    return result


def _width_mm(png: Path) -> float:
    """The width of a 300 dpi PNG: its header holds the pixels at bytes 16 to 19."""
    return int.from_bytes(png.read_bytes()[16:20], "big") / 300 * 25.4


def run_rows(runs: pd.DataFrame, measured: Quantity) -> dict[str, Any]:
    """The points as a table: heads and rows of (text, sort key)."""
    losses = [k for k in dict.fromkeys([measured.key, measured.on_test]) if k in runs]
    ratio = test_over_train(runs, measured)
    columns = [c for c in RUN_COLUMNS if c in runs]
    shown = {key: quantity(key) for key in losses}
    heads = [c.replace("_", " ") for c in columns] + [q.axis for q in shown.values()]
    heads += [] if ratio is None else [TEST_OVER_TRAIN]
    rows = []
    for k, run in runs.iterrows():
        cells = [(number(run[c]), _sort_key(run[c])) for c in columns]
        cells += [(number(_scaled(run[c], q.display_factor)), _sort_key(run[c])) for c, q in shown.items()]
        cells += [] if ratio is None else [(number(ratio[k]), _sort_key(ratio[k]))]
        rows.append({"status": run["status"], "cells": cells})
    return {"heads": heads, "rows": rows}


def test_over_train(runs: pd.DataFrame, measured: Quantity) -> pd.Series | None:
    """(n_runs,) the error on test frames over that on training frames, 1 where nothing is learnt by heart;
    None where no point has both."""
    if (train := f"train_{measured.measure}") not in runs or (test := f"test_{measured.measure}") not in runs:
        return None
    ratio = runs[test].astype(float) / runs[train].astype(float).where(runs[train] > 0)
    return ratio if ratio.notna().any() else None


def commits(runs: pd.DataFrame) -> list[tuple[str, str]]:
    """The commits that made the points, as a line of the provenance, where they are not all of one."""
    if "commit" not in runs:
        return []
    done = runs[(runs["status"] == "done") & runs["commit"].notna()]
    changed = (
        done["dirty"].fillna(False).astype(bool) if "dirty" in done else pd.Series(False, index=done.index)
    )
    names = done["commit"].astype(str) + changed.map({True: " with uncommitted changes", False: ""})
    if names.nunique() < 2:
        return []
    return [
        (
            "commits of the points",
            ", ".join(f"{name} ({n})" for name, n in names.value_counts(sort=False).items()),
        )
    ]


def kernels(runs: pd.DataFrame) -> list[tuple[str, str]]:
    """What computed the training steps of each model, as lines of the provenance."""
    if "kernel" not in runs:
        return []
    done = runs[(runs["status"] == "done") & runs["kernel"].notna()]
    by_model = {model: k.value_counts(sort=False) for model, k in done.groupby("model", sort=False)["kernel"]}
    return [
        (f"training steps of {m}", ", ".join(f"{name} ({n} points)" for name, n in k.items()))
        for m, k in by_model.items()
    ]


def flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested provenance as dotted keys and texts."""
    if isinstance(value, Mapping):
        return [
            pair
            for key, item in value.items()
            for pair in flat(item, f"{prefix}.{key}" if prefix else str(key))
        ]
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    return [(prefix, str(value))]


# ---------------------------------------------------------------------------------------------------- numbers


def number(value: Any) -> str:
    """A number as people read it: 3 significant digits, integers whole, powers of ten from 10⁶; texts as they
    are."""
    if value is None or value is pd.NA or isinstance(value, float) and math.isnan(value):
        return "–"
    if isinstance(value, str):
        return value
    value = float(value)
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e6:
        return f"{value:.0f}" if value == int(value) or abs(value) >= 1e3 else f"{value:.3g}"
    mantissa, power = f"{value:.2e}".split("e")
    return f"{mantissa}×10{str(int(power)).translate(SUPERSCRIPT)}"


def duration(seconds: float) -> str:
    """Seconds as s, min or h, whichever keeps the number small."""
    for limit, unit, name in ((120.0, 1.0, "s"), (7200.0, 60.0, "min"), (float("inf"), 3600.0, "h")):
        if seconds < limit:
            return f"{seconds / unit:.3g} {name}"
    return "–"


def _scaled(value: Any, factor: float) -> float:
    return float("nan") if pd.isna(value) else factor * float(value)


def _sort_key(value: Any) -> str:
    return "" if pd.isna(value) else str(value)


def environment() -> Environment:
    # the template's suffix is .j2, which jinja2's own suffix rule would not escape
    environment = Environment(
        loader=PackageLoader("sapis_lab.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: (
            visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
        ),
    )
    environment.filters |= {"number": number, "duration": duration}
    return environment
