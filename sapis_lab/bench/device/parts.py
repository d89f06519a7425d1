"""The parts of the measurement, most valuable first, and how their rows are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich.console import RenderableType

from sapis_lab.screen import new_table

Row = Mapping[str, Any]
REASONS = ("error", "absent", "skipped")
"""Keys of a row without numbers that say why: it failed, there is nothing of the kind here, no time was
left."""


class Column(NamedTuple):
    """A column of a table."""

    heading: str
    cell: Callable[[Row], str]
    of_words: bool = False


@dataclass(frozen=True)
class Part:
    """What one process measures."""

    name: str
    title: str
    target: str
    """The generator function, module:function (see `part`)."""
    share: float
    """Of the time that this part and those behind it have."""
    keys: tuple[Column, ...]
    """What a row is about."""
    values: tuple[Column, ...]
    """Its numbers."""

    @property
    def headings(self) -> list[str]:
        return [column.heading for column in (*self.keys, *self.values)]

    def cells(self, row: Row) -> list[str]:
        """The row as text; without its numbers where it has none."""
        keys = [column.cell(row) for column in self.keys]
        word = {"error": "failed", "absent": "none", "skipped": "no time"}
        for reason in REASONS:
            if row.get(reason) and not self._has_numbers(row):
                return [*keys, word[reason], *[""] * (len(self.values) - 1)]
        return [*keys, *(column.cell(row) for column in self.values)]

    def _has_numbers(self, row: Row) -> bool:
        return "n_tests" in row  # a file of tests has counts, whatever failed in it

    def table(self, rows: Sequence[Row]) -> RenderableType:
        """For a terminal."""
        words = [c.heading for c in (*self.keys, *self.values) if c.of_words]
        table = new_table(*self.headings, left=words)
        for row in rows:
            table.add_row(*self.cells(row))
        return table

    def markdown(self, rows: Sequence[Row]) -> str:
        """For a file."""
        columns = (*self.keys, *self.values)
        lines = [self.headings, ["---" if c.of_words else "---:" for c in columns]]
        lines += [self.cells(row) for row in rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def remarks(self, rows: Sequence[Row]) -> list[str]:
        """Why rows have no numbers, each reason once with the rows that have it."""
        found: dict[tuple[str, str], list[str]] = {}
        for row in rows:
            cells = _shown_keys(self.keys, row)
            about = " ".join(text for text in cells if text not in ("", "-"))
            for key, word in (("error", "failed"), ("absent", "none"), ("note", "note")):
                if row.get(key):
                    found.setdefault((word, str(row[key])), []).append(about)
        return [f"{word} ({_some(rows)}): {text}" for (word, text), rows in found.items()]


def _shown_keys(keys: Sequence[Column], row: Row) -> list[str]:
    try:
        return [column.cell(row) for column in keys]
    except (KeyError, TypeError, ValueError):  # the table says so
        return []


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}".strip()


# ---------------------------------------------------------------------------------------------------- columns


def number(key: str, pattern: str, factor: float = 1.0) -> Callable[[Row], str]:
    """The value of a key times a factor, as a format says; a dash where there is none."""

    def cell(row: Row) -> str:
        value = row.get(key)
        return "-" if value is None else format(value if factor == 1 else factor * value, pattern)

    return cell


def milliseconds(key: str) -> Callable[[Row], str]:
    """A time in ms with three figures."""

    def cell(row: Row) -> str:
        value = row.get(key)
        if value is None:
            return "-"
        return f"{1e3 * value:.3g}" if value < 1 else f"{1e3 * value:,.0f}"

    return cell


def word(key: str) -> Callable[[Row], str]:
    """A text; a dash where there is none."""
    return lambda row: str(row.get(key) or "-")


def _size(row: Row) -> str:
    return f"{row['n_params']:,}" if row.get("n_params") else f"~{row['size']:,.0f}"


def _short_size(row: Row) -> str:
    """The number of parameters with three figures: 2.78k, 100k, 10.0M."""
    value = row.get("n_params") or row["size"]
    for unit, factor in (("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * factor:
            return f"{value / factor:#.3g}".rstrip(".") + unit
    return f"{value:.0f}"


def _form(row: Row) -> str:
    """The name of the kernel where one computes."""
    kernel = row.get("kernel")
    if not kernel or kernel == "PyTorch":
        return str(row["form"])
    return f"{kernel} graph" if row["form"] == "replay" else str(kernel)


def _gigabytes(row: Row) -> str:
    value = row.get("reserved_bytes") or row.get("peak_bytes")
    return "-" if value is None else f"{value / 1e9:.3g}"


def _beside(row: Row) -> str:
    return str(row["n_models"] or "-")


_INPUT, _N = Column("input", word("input"), True), Column("N", _size)
_STEPS = {
    "keys": (_INPUT, Column("N", _short_size), Column("form", _form, True)),
    "values": (
        Column("ms", milliseconds("seconds")),
        Column("atoms/s", number("atoms_per_second", ",.0f")),
        Column("GB", _gigabytes),
        Column("peak", number("peak_share", ".1%")),
        Column("forces", number("force_error", ".0e")),
        Column("grads", number("gradient_error", ".0e")),
    ),
}
_HERE = "sapis_lab.bench.device"

PARTS = (
    Part("steps", "Training steps", f"{_HERE}.steps:measure", 0.38, **_STEPS),  # type: ignore[arg-type]
    Part(
        "dynamics",
        "Dynamics of silicon",
        f"{_HERE}.dynamics:measure",
        0.12,
        (Column("atoms", number("n_atoms", ",d")), _N, Column("by", word("by"), True)),
        (
            Column("ms/step", milliseconds("seconds")),
            Column("median", milliseconds("seconds_median")),
            Column("list", milliseconds("list_seconds")),
            Column("model", milliseconds("model_seconds")),
            Column("ns/day", number("ns_per_day", ".3g")),
            Column("published", number("published_ms", ".1f")),
        ),
    ),
    Part(
        "suite",
        "Tests that need a GPU",
        f"{_HERE}.suite:measure",
        0.18,
        (Column("file", word("file"), True),),
        (
            Column("tests", number("n_tests", "d")),
            Column("passed", number("passed", "d")),
            Column("failed", number("failed", "d")),
            Column("skipped", number("skipped", "d")),
            Column("not reached", number("not_reached", "d")),
        ),
    ),
    Part(
        "precision",
        "Precision of the matrix products",
        f"{_HERE}.precision:measure",
        0.1,
        (_INPUT, _N, Column("by", word("by"), True), Column("setting", word("setting"), True)),
        (
            Column("forces", number("force_error", ".1e")),
            Column("eV/Å", number("largest_force_error", ".1e")),
            Column("gradient", number("gradient_error", ".1e")),
            Column("ms", milliseconds("seconds")),
        ),
    ),
    Part(
        "sharing",
        "Several models on one device",
        f"{_HERE}.sharing:measure",
        0.14,
        (_N, Column("form", _form, True), Column("models", _beside)),
        (
            Column("steps/s", number("steps_per_second", ",.1f")),
            Column("gain", number("gain", ".2f")),
        ),
    ),
    Part(
        "ranks",
        "Ranks of a process group",
        f"{_HERE}.ranks:measure",
        0.06,
        (
            Column("ranks", number("n_ranks", "d")),
            Column("by", word("backend"), True),
            _INPUT,
            _N,
        ),
        (
            Column("ms/step", milliseconds("seconds")),
            Column("sum ms", milliseconds("sum_seconds")),
            Column("MB", number("sum_bytes", ".2f", 1e-6)),
            Column("gradient", number("gradient_difference", ".0e")),
        ),
    ),
    Part(
        "compiled",
        "A step through inductor",
        f"{_HERE}.steps:measure_compiled",
        0.1,
        **_STEPS,  # type: ignore[arg-type]
    ),
)
