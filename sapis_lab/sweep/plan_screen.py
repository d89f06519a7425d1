"""The plan of a study on the screen: every point with what it will cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from sapis_lab.screen import new_table
from sapis_lab.sweep.words import duration, size

if TYPE_CHECKING:
    from sapis_lab.sweep.plan import Plan, PointCost


def print_plan(plan: Plan, console: Console, *, states: Mapping[str, str] | None = None) -> None:
    """The plan screen."""
    study, info, states = plan.study, plan.info, states or {}
    console.print(Text(f"{study.name}: {study.question}"), soft_wrap=True)
    tests = ", ".join(f"{n} {name}" for name, n in info.n_test.items())
    console.print(
        f"data   {info.n_train} training frames, {info.n_validation} validation, {tests}; "
        f"{info.mean_atoms:.3g} atoms and "
        f"{info.mean_pairs:.3g} pairs a frame; {size(info.bytes_estimate)}",
        soft_wrap=True,
        highlight=False,
    )
    columns: dict[str, Callable[[PointCost], str]] = {
        "point": lambda c: c.planned.id,
        "N": lambda c: f"{c.planned.n_params:,}",
        "D": lambda c: f"{c.planned.n_frames:,}",
        "steps": lambda c: f"{c.planned.steps:,}",
        "batch": lambda c: str(c.planned.batch_size),
        "rate": lambda c: f"{c.planned.learning_rate:.3g}",
        "FLOPs": lambda c: f"{c.flops_train:.1e}",
        "FLOPs/frame": lambda c: f"{c.flops_inference:.1e}",
        "time": lambda c: duration(c.seconds),
        "disk": lambda c: size(c.disk),
    }
    if states:
        columns["state"] = lambda c: states.get(c.planned.id, "")
    if console.width < 100:  # a narrow terminal keeps what was promised: N, D, FLOPs, time and disk
        for name in ("batch", "rate", "FLOPs/frame"):
            del columns[name]
    table = new_table(*columns, left=("point", "state"))
    for cost in plan.costs:
        table.add_row(*(text(cost) for text in columns.values()))
    console.print(table)
    _print_totals(plan, console)


def _print_totals(plan: Plan, console: Console) -> None:
    study, total = plan.study, sum(c.seconds for c in plan.costs)
    console.print(
        f"total  {len(plan.costs)} points, {sum(c.flops_train for c in plan.costs):.2e} FLOPs, "
        f"{duration(total)} of work; "
        f"{plan.workers} workers -> {duration(plan.seconds)}; disk {size(sum(c.disk for c in plan.costs))}",
        soft_wrap=True,
        highlight=False,
    )
    if study.evaluate:
        labels = ", ".join(e.label for e in study.evaluate)
        text = f"then every point is evaluated: {labels}; their time is not in the total"
        console.print(Text(text), soft_wrap=True)
    families = sorted({c.planned.family for c in plan.costs})
    guessed = [f for f in families if f not in plan.measured]
    known = [f for f in families if f in plan.measured]
    parts = [f"from earlier records on this host for {', '.join(known)}"] if known else []
    parts += [f"a rough estimate (within a factor of three) for {', '.join(guessed)}"] if guessed else []
    console.print(Text(f"times are {' and '.join(parts)}", style="dim"), soft_wrap=True)
    meaning = (
        "FLOPs: matrix products of the training, six forward passes a step; FLOPs/frame: energy and forces "
        "of one frame"
    )
    console.print(Text(meaning, style="dim"), soft_wrap=True)
