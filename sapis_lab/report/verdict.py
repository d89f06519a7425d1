"""The study's verdict: sentences computed from `fit.json`, the first thing a reader sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sapis_lab.errors import ConfigError
from sapis_lab.files import read_json
from sapis_lab.quantities import Quantity, quantity


def read_fit(folder: Path) -> dict[str, Any]:
    """The laws of a results folder. ConfigError when there are none, or the file is damaged."""
    path, anew = folder / "fit.json", f"write it anew with: sapis fit {folder.resolve().name}"
    fits = read_json(path, then=anew, keys=["quantity", "reference", "models", "comparisons", "equal_error"])
    try:
        quantity(str(fits["quantity"]))
    except ValueError as error:
        raise ConfigError(f"{path}: quantity: {error}; {anew}") from None
    return fits


def verdict(fits: Mapping[str, Any], runs: pd.DataFrame, measured: Quantity) -> list[str]:
    """How the models compare, what equal error costs, which law the reference follows and how it splits a
    budget; less when the points cannot tell."""
    sentences = [
        comparison_sentence(fits, measured),
        equal_error_sentence(fits),
        law_sentence(fits),
        optimum_sentence(fits, measured),
    ]
    found = [s for s in sentences if s] or ["No point has finished yet, so there is nothing to conclude."]
    return found + mixture_sentences(runs)


def mixture_sentences(runs: pd.DataFrame) -> list[str]:
    """One sentence for every model whose points were not all trained by the same form of the training
    step."""
    if "kernel" not in runs:
        return []
    done, sentences = runs[(runs["status"] == "done") & runs["kernel"].notna()], []
    for model, kernels in done.groupby("model", sort=False)["kernel"]:
        forms = {form for text in kernels for form in str(text).split(", ")}
        if len(forms) > 1:
            counts = ", ".join(
                f"{n} by {name.replace(', ', ' and ')}"
                for name, n in kernels.value_counts(sort=False).items()
            )
            sentences.append(
                f"The points of {model} were trained by different forms of the training step ({counts}), "
                f"which agree to rounding alone: "
                "trained again in one form, their errors may differ from those here as those of another seed "
                "do."
            )
    return sentences


def comparison_sentence(fits: Mapping[str, Any], measured: Quantity) -> str:
    """Error of the other models relative to the reference, worst first; the best point where there is nothing
    to compare."""
    found = sorted(fits["comparisons"], key=lambda c: -c["loss"]["geometric_mean"])
    if not found:
        return _best_sentence(fits, measured)
    ratios = [
        f"that of {c['model']} is {c['loss']['geometric_mean']:.2f} times as large "
        f"({c['loss']['range'][0]:.2f} to {c['loss']['range'][1]:.2f}, {c['loss']['n_cells']} cells)"
        for c in found
    ]
    return (
        f"At equal N, D and seed, compared with the {measured.label} of {fits['reference']}, "
        f"{', '.join(ratios)}."
    )


def equal_error_sentence(fits: Mapping[str, Any]) -> str:
    """Training FLOPs and CPU time of each other model for the error of the reference, in the middle of the
    range that both reach."""
    costs, parts = {"flops_train": "the training FLOPs", "cpu_seconds_train": "the CPU time"}, []
    for model in dict.fromkeys(e["model"] for e in fits["equal_error"]):
        mine = {
            e["cost"]: e
            for e in fits["equal_error"]
            if e["model"] == model and e["quantity"] == fits["quantity"] and e["middle"]
        }
        said = [
            f"{_ratio(mine[cost]['middle'])} times {name}" for cost, name in costs.items() if cost in mine
        ]
        parts += [f"{model} needs {' and '.join(said)}"] if said else []
    return f"To the same error as {fits['reference']}, {', '.join(parts)} (95 % intervals)." if parts else ""


def _ratio(middle: Sequence[float | None]) -> str:
    _, ratio, low, high = middle
    return f"{ratio:.2g} [{low:.2g}, {'∞' if high is None else f'{high:.2g}'}]"


def optimum_sentence(fits: Mapping[str, Any], measured: Quantity) -> str:
    """Where the reference's law would spend ten times the largest measured budget."""
    model = fits["models"].get(fits["reference"])
    budgets = model["optimum"].get("budgets") if model else None
    if not budgets:
        return ""
    best = budgets[-1]
    n, d = (
        f"{_size(best[k])} [{', '.join(map(_size, best[f'{k}_interval']))}]" for k in ("n_params", "n_frames")
    )
    low, high = (measured.display_factor * v for v in best["loss_interval"])
    unit = measured.display_unit or measured.unit
    return (
        f"Ten times the largest measured budget is best spent on N = {n} and D = {d}, for {low:.3g} to "
        f"{high:.3g} {unit}."
    )


def _size(value: float) -> str:
    return f"{float(f'{value:.1e}'):,.0f}"


def law_sentence(fits: Mapping[str, Any]) -> str:
    """The reference's chosen law with what it identifies, and what a larger law would leave open."""
    model = fits["models"].get(fits["reference"])
    if model is None or model["selected"] is None:
        return (
            ""
            if model is None
            else f"No law could be fitted to {fits['reference']}: too few finished points."
        )
    name, chosen = model["selected"], model["laws"][model["selected"]]
    terms = ", ".join(_short(note) for note in chosen["notes"])
    if not all(chosen["identified"].values()):
        # what a larger law leaves open is no news when the smallest one is open already
        return f"For {fits['reference']} the points choose the law {name} but do not pin it down: {terms}."
    beyond = [
        f"{_short(note)} in {law}"
        for law, result in model["laws"].items()
        if law != name and "notes" in result
        for note in result["notes"]
        if "not identified" in note
    ]
    return (
        f"For {fits['reference']} the points choose the law {name}: "
        f"{terms}{'; ' if beyond else ''}{', '.join(beyond)}."
    )


def _best_sentence(fits: Mapping[str, Any], measured: Quantity) -> str:
    if not fits["costs"]:
        return ""
    best = min(fits["costs"], key=lambda row: row["best_loss"])
    unit = measured.display_unit or measured.unit
    return (
        f"The lowest {measured.label} is {measured.display_factor * best['best_loss']:.3g} {unit} "
        f"({best['best_id']})."
    )


def _short(note: str) -> str:
    """A note without its reasons in brackets, which the laws section prints in full."""
    return note.split(" (")[0]
