"""Tables of force error at equal CPU time, from the lines of the runs alone: text, markdown, JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from sapis_lab.bench.accuracy_log import (
    TRAIN,
    Job,
    Record,
    complete,
    is_spoiled,
    optimizer_name,
    scored,
    validation_error,
)
from sapis_lab.files import write_text

REFERENCE = "geat"
_USUAL_BATCH = 5
"""Frames a step that titles do not name."""
_TABLE = ("data", "seconds", "n_params", "batch_size", "processor", "amsgrad", "optimizer")
_SAME = (*_TABLE, "data_fingerprint")
_GROUP = (*_SAME, "code")
"""What the rows of a table, those that are compared, and the runs of a row have in common."""


def summarize(records: Iterable[Record], *, reference: str = REFERENCE) -> list[Record]:
    """One row per data set, budget, size, processor, optimiser and code, errors (eV/Å, eV per frame) averaged
    over seeds, best first.

    The rate is the one whose run with the lowest seed has the least validation force error at that budget, of
    those that spoil no other seed, if there are any. `ratio` is the reference's mean force error over the
    code's, below 1 where the reference is better, on the first test. `train_errors` are those on training
    frames, where all runs of a row know them.
    """
    groups: dict[tuple[Any, ...], list[Record]] = {}
    finished = [complete(r) for r in records if r["status"] != "failed"]
    finished = [{**r, "optimizer": optimizer_name(r["optimizer"])} for r in finished]
    latest = {tuple(r.get(n) for n in Job.__dataclass_fields__): r for r in finished}
    for record in latest.values():
        groups.setdefault(tuple(record.get(n) for n in _GROUP), []).append(record)
    rows = [row for key, members in groups.items() if (row := _row(key, members)) is not None]
    for row in rows:
        base = next((r for r in rows if r["code"] == reference and all(r[n] == row[n] for n in _SAME)), None)
        row["ratio"] = (
            None if base is None else base["errors"]["test"]["mean"] / row["errors"]["test"]["mean"]
        )
    return sorted(rows, key=lambda r: (*(r[n] for n in _TABLE), r["errors"]["test"]["mean"]))


def _row(key: tuple[Any, ...], members: list[Record]) -> Record | None:
    group = dict(zip(_GROUP, key, strict=True))
    done = [r for r in members if r["status"] == "done"]
    if not done:
        return None
    first = min(r["seed"] for r in done)
    candidates = sorted((r for r in done if r["seed"] == first), key=validation_error)
    steady = [
        c
        for c in candidates
        if not any(r["rate"] == c["rate"] and is_spoiled(r, validation_error(c)) for r in members)
    ]
    rate = (steady or candidates)[0]["rate"]
    chosen = sorted((r for r in done if r["rate"] == rate), key=lambda r: r["seed"])
    known = [r[TRAIN] for r in chosen if TRAIN in r]
    trained = {
        f"{quantity}_mae": _spread([errors[f"{quantity}_mae"] for errors in known])
        for quantity in ("force", "energy")
        if len(known) == len(chosen)
    }
    return {
        **{name: group[name] for name in ("data", "seconds", "code")},
        "rate": rate,
        "rates_tried": sorted({r["rate"] for r in members}),
        "rates_diverged": sorted({r["rate"] for r in members if r["status"] == "diverged"}),
        "seeds": [r["seed"] for r in chosen],
        "params": chosen[0]["params"],
        "version": chosen[-1]["version"],
        "ms_per_step": mean(r["ms_per_step"] for r in chosen),
        "yardstick_ms": mean(r["yardstick_ms"] for r in chosen),
        "steps": mean(r["steps"] for r in chosen),
        "errors": {name: _spread([r[name]["force_mae"] for r in chosen]) for name in scored(chosen[0])},
        "energy_errors": {
            name: _spread([r[name]["energy_mae"] for r in chosen]) for name in scored(chosen[0])
        },
        "train_errors": trained or None,
        **{name: group[name] for name in ("n_params", "batch_size", "data_fingerprint")},
        "processor": group["processor"] or "an unknown processor",
        "amsgrad": group["amsgrad"],
        "optimizer": group["optimizer"],
    }


def _spread(values: list[float]) -> dict[str, Any]:
    return {
        "mean": mean(values),
        "median": median(values),
        "sd": stdev(values) if len(values) > 1 else None,
        "values": values,
    }


_COLUMNS = ("code", "parameters", "rate", "ms/step", "yardstick", "steps", "seeds")


def format_tables(rows: Sequence[Record], *, reference: str = REFERENCE, markdown: bool = False) -> str:
    """The rows as text or markdown, one table for each data set and budget; errors in meV/Å and meV per
    frame."""
    parts = []
    for key in dict.fromkeys(tuple(r[n] for n in _TABLE) for r in rows):
        data, seconds, n_params, batch_size, processor, amsgrad, optimizer = key
        members = [r for r in rows if tuple(r[n] for n in _TABLE) == key]
        tests = [name for name in members[0]["errors"] if name != "validation"]
        train = any(r["train_errors"] for r in members)
        columns = [
            *_COLUMNS,
            *(["F train"] if train else []),
            "F validation",
            *(f"F {t}" for t in tests),
            f"{reference} ÷ code",
            *(["E train"] if train else []),
            *(f"E {t}" for t in tests),
        ]
        cells = [columns, *([*_cells(r, tests, train=train)] for r in members)]
        method = ", AMSGrad" if amsgrad else "" if optimizer == "adamw" else f", {_shown(optimizer)}"
        title = (
            f"{data}, {seconds:g} CPU s of one thread of {processor}{method}{_steps_of(batch_size)}, about "
            f"{n_params:g} parameters: MAE, forces in meV/Å, energies in meV per frame"
        )
        parts.append(f"### {title}\n\n{_markdown(cells)}\n" if markdown else f"{title}\n{_text(cells)}\n")
    return "\n".join(parts)


def _steps_of(batch_size: int) -> str:
    """The frames of a step, where they are not as many as everywhere else."""
    return "" if batch_size == _USUAL_BATCH else f", {batch_size} frame{'s' * (batch_size > 1)} a step"


def _shown(optimizer: str) -> str:
    kind, _, settings = optimizer.partition(",")
    return kind.upper() + (f" with {settings}" if settings else "")


def _cells(row: Record, tests: Sequence[str], *, train: bool) -> list[str]:
    def error(value: Mapping[str, Any]) -> str:
        return f"{1e3 * value['mean']:.1f}" + ("" if value["sd"] is None else f" ± {1e3 * value['sd']:.1f}")

    def trained(name: str) -> list[str]:
        errors = row["train_errors"]
        return [error(errors[name]) if errors else "–"] if train else []

    return [
        row["code"],
        f"{row['params']:,}",
        f"{row['rate']:g}",
        f"{row['ms_per_step']:.1f}",
        f"{row['yardstick_ms']:.2f}",
        f"{row['steps']:,.0f}",
        str(len(row["seeds"])),
        *trained("force_mae"),
        error(row["errors"]["validation"]),
        *(error(row["errors"][t]) for t in tests),
        "–" if row["ratio"] is None else f"{row['ratio']:.2f}",
        *trained("energy_mae"),
        *(error(row["energy_errors"][t]) for t in tests),
    ]


def _text(cells: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[k]) for line in cells) for k in range(len(cells[0]))]
    padded = [[c.rjust(w) for c, w in zip(line, widths, strict=True)] for line in cells]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *right[1:]]) for line, right in zip(cells, padded, strict=True)
    )


def _markdown(cells: Sequence[Sequence[str]]) -> str:
    head, *body = ["| " + " | ".join(line) + " |" for line in cells]
    return "\n".join([head, "|" + "---|" * len(cells[0]), *body])


def write_tables(records: Iterable[Record], folder: Path, *, reference: str = REFERENCE) -> str:
    """`table.json`, `table.md` and `table.txt` in `folder`; returns the text."""
    rows = summarize(records, reference=reference)
    text = format_tables(rows, reference=reference)
    write_text(folder / "table.json", json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    write_text(folder / "table.md", format_tables(rows, reference=reference, markdown=True))
    write_text(folder / "table.txt", text)
    return text
