r"""LaTeX tables of a study for a paper: `\input` them. They need booktabs, the table of points also
longtable; no other package.

    points.tex       every finished point         laws.tex        every law of every model with intervals
    comparison.tex   models at equal N and D      equal_error.tex what equal error costs
    optimum.tex      where a budget is best spent   published.tex    published errors and ours
    baselines.tex    models beside predictions that see no geometry

A parameter that the points do not identify prints as "not identified" with its interval, never as a number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sapis_lab.files import make_folder, write_text
from sapis_lab.quantities import Quantity, quantity
from sapis_lab.report.baselines import baseline_rows
from sapis_lab.report.page import (
    TEST_OVER_TRAIN,
    equal_error_rows,
    law_rows,
    number,
    optimum_rows,
    test_over_train,
)
from sapis_lab.report.published import published_rows
from sapis_lab.text import visible

SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
}
SIGNS = {
    "Å": r"\AA{}",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "∞": r"$\infty$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "−": "$-$",
    "–": "--",
    "·": r"$\cdot$",
    "×": r"$\times$",
}
RAISED = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


def write_tables(
    fits: Mapping[str, Any], runs: pd.DataFrame, folder: Path, *, study: Mapping[str, Any] | None = None
) -> list[Path]:
    """Write every table that the study can fill into `folder`; the paths. Tables that it cannot fill are
    removed.

    Args:
        study: its settings, of which published errors are read.
    """
    measured = quantity(fits["quantity"])
    texts = {
        "points": points_table(runs, measured),
        "laws": laws_table(fits, measured),
        "comparison": comparison_table(fits),
        "equal_error": equal_error_table(fits),
        "optimum": optimum_table(fits, measured),
        "published": published_table(study or {}, runs, measured),
        "baselines": baselines_table(runs, measured),
    }
    make_folder(folder)
    paths = []
    for name, text in texts.items():
        path = folder / f"{name}.tex"
        if text is None:
            path.unlink(missing_ok=True)
            continue
        write_text(path, text)
        paths.append(path)
    return paths


def points_table(runs: pd.DataFrame, measured: Quantity) -> str | None:
    """Finished points with N, D, seed, steps, training FLOPs and CPU time, and the loss beside its test value
    and, where points have both, the ratio of test to training error."""
    done = runs[runs["status"] == "done"]
    if done.empty:
        return None
    losses = [quantity(k) for k in dict.fromkeys([measured.key, measured.on_test]) if k in done]
    ratio = test_over_train(done, measured)
    columns = ["model", "n_params", "n_frames", "seed", "steps", "flops_train", "cpu_seconds_train"]
    heads = [
        "model",
        "$N$",
        "$D$",
        "seed",
        "steps",
        "$C$ (FLOP)",
        "CPU time (s)",
        *(latex(q.axis) for q in losses),
        *([] if ratio is None else [TEST_OVER_TRAIN]),
    ]
    rows = [
        [latex(number(run[c])) for c in columns]
        + [latex(number(q.display_factor * float(run[q.key]))) for q in losses]
        + ([] if ratio is None else [latex(number(ratio[k]))])
        for k, run in done.iterrows()
    ]
    return tabular(heads, rows, "l" + "r" * (len(heads) - 1), long=True)


def laws_table(fits: Mapping[str, Any], measured: Quantity) -> str | None:
    """Every law with the 95 % intervals of exponents and floor, scatter and AICc; an asterisk marks the
    chosen one."""
    rows = []
    for row in law_rows(fits, measured):
        name = [latex(row["model"]), latex(row["law"]) + ("*" if row["selected"] else "")]
        if row["why_not"] is not None:
            rows.append([*name, r"\multicolumn{6}{l}{" + latex(row["why_not"]) + "}"])
            continue
        fit = row["fit"]
        scatter = "--" if fit["residual_sd_log"] is None else rf"{100 * fit['residual_sd_log']:.1f}\,\%"
        score = "--" if fit["aicc"] is None else f"${fit['aicc']:.1f}$"
        rows.append([*name, *(latex(cell["text"]) for cell in row["cells"].values()), scatter, score])
    if not rows:
        return None
    unit = measured.display_unit or measured.unit
    heads = ["model", "law", r"$\alpha$", r"$\beta$", r"$\gamma$", f"$E$ ({latex(unit)})", "scatter", "AICc"]
    return tabular(heads, rows, "llllllrr")


def comparison_table(fits: Mapping[str, Any]) -> str | None:
    """Ratios to the reference at equal N, D and seed: geometric mean with range."""
    keys = ["loss", "cpu_seconds_train", "accuracy_per_flop_train", "accuracy_per_flop_inference"]
    rows = [
        [latex(c["model"]), str(c["loss"]["n_cells"])]
        + [
            "--"
            if c[k] is None
            else f"{c[k]['geometric_mean']:.2f} [{c[k]['range'][0]:.2f}, {c[k]['range'][1]:.2f}]"
            for k in keys
        ]
        for c in fits["comparisons"]
    ]
    if not rows:
        return None
    heads = [
        f"relative to {latex(fits['reference'])}",
        "cells",
        "error",
        "CPU time",
        "accuracy/training FLOP",
        "accuracy/inference FLOP",
    ]
    return tabular(heads, rows, "lrllll")


def equal_error_table(fits: Mapping[str, Any]) -> str | None:
    """Cost over that of the reference at equal error, with 95 % interval and range."""
    rows = []
    for row in equal_error_rows(fits):
        cells = [latex(row[k]) for k in ("model", "error", "cost")]
        if row["why_not"] is not None:
            rows.append([*cells, r"\multicolumn{3}{l}{" + latex(row["why_not"]) + "}"])
        else:
            rows.append([*cells, latex(row["at"]), latex(row["ratio"]), latex(row["range"])])
    if not rows:
        return None
    return tabular(
        [f"relative to {latex(fits['reference'])}", "error", "cost", "at", "ratio", "over the range"],
        rows,
        "llllll",
    )


def optimum_table(fits: Mapping[str, Any], measured: Quantity) -> str | None:
    """The best split of the largest measured budget and of ten times that."""
    found = [row for row in optimum_rows(fits, measured) if row["why_not"] is None]
    if not found:
        return None
    rows = [
        [latex(r["model"]), latex(r["budget"]) + (r"\rlap{$^\dagger$}" if r["beyond"] else "")]
        + [latex(r[k]) for k in ("n_params", "n_frames", "loss", "waste")]
        for r in found
    ]
    unit = measured.display_unit or measured.unit
    heads = [
        "model",
        "$C$ (FLOP)",
        "best $N$",
        "best $D$",
        f"{latex(measured.label)} ({latex(unit)})",
        "waste",
    ]
    return tabular(heads, rows, "llllll", note=r"$^\dagger$ beyond the largest measured budget")


def published_table(study: Mapping[str, Any], runs: pd.DataFrame, measured: Quantity) -> str | None:
    """Published errors, then the study's own at the same D with their ratio to the least published one."""
    found = published_rows(study, runs, measured)
    if found is None:
        return None
    rows = [
        [str(row["n_frames"]), latex(row["model"]), latex(row["size"]), *map(latex, row["cells"])]
        + [latex(row["source"]) or f"this study, {row['seeds']} seed{'' if row['seeds'] == 1 else 's'}"]
        for row in found["rows"]
    ]
    heads = ["$D$", "model", "$N$", *map(latex, found["heads"]), "source"]
    return tabular(heads, rows, "rlr" + "r" * len(found["heads"]) + "l")


def baselines_table(runs: pd.DataFrame, measured: Quantity) -> str | None:
    """Baselines, then the study's own models at the same D, with their ratio to the least baseline."""
    found = baseline_rows(runs, measured)
    if found is None:
        return None
    rows = [
        [
            str(row["n_frames"]),
            latex(row["name"]),
            latex(row["size"]),
            latex(row["text"]),
            latex(row["ratio"]),
        ]
        for row in found["rows"]
    ]
    return tabular(["$D$", "by", "$N$", latex(found["head"]), "over the least baseline"], rows, "rlrrr")


def latex(text: Any) -> str:
    """Any text as LaTeX that prints it: 1.2×10⁻³ becomes mathematics, special characters are escaped."""
    # an empty line would end the table
    result = "".join(SPECIAL.get(c, c) for c in visible(" ".join(str(text).split())))
    result = re.sub(
        r"([\d.]+)×10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)", lambda m: rf"${m[1]}\times10^{{{m[2].translate(RAISED)}}}$", result
    )
    return "".join(SIGNS.get(c, c) for c in result)


def tabular(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    columns: str,
    *,
    long: bool = False,
    note: str | None = None,
) -> str:
    kind = "longtable" if long else "tabular"
    lines = [
        f"% \\usepackage{{booktabs{',longtable' if long else ''}}}",
        f"\\begin{{{kind}}}{{{columns}}}",
        r"\toprule",
    ]
    lines += [
        " & ".join(heads) + r" \\",
        r"\midrule",
        *([r"\endhead", r"\bottomrule", r"\endfoot"] if long else []),
    ]
    lines += [" & ".join(row) + r" \\" for row in rows]
    lines += [] if long else [r"\bottomrule"]
    lines += [rf"\multicolumn{{{len(columns)}}}{{l}}{{{note}}} \\"] if note else []
    return "\n".join([*lines, f"\\end{{{kind}}}"]) + "\n"
