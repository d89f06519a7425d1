"""What a study found, from the records of its points: table, laws, figures, report, and the last words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from sapis_lab.config import plainly
from sapis_lab.jobs.folder import LOG, failure_reason, state
from sapis_lab.records import RECORD, runs_table, write_table
from sapis_lab.sweep.evaluations import not_evaluated, wanted_evaluations
from sapis_lab.sweep.folder import point_folder
from sapis_lab.sweep.keep import KEPT, keep, restore
from sapis_lab.sweep.manifest import read_manifest, refuse_other_study_file
from sapis_lab.sweep.request import COMPLETE, SOME_FAILED, STOPPED
from sapis_lab.sweep.whole import note_answers, records_digest
from sapis_lab.sweep.words import duration, shown


def conclude(
    folder: Path, again: Callable[..., str], console: Console, *, chosen: Sequence[str], seconds: float
) -> int:
    """Table, laws, figures, report, and the last words; the exit status says what became of the chosen
    points."""
    manifest = read_manifest(folder)
    states = {p.id: state(point_folder(folder, p.id)) for p in manifest.points}
    failed = [id for id, s in states.items() if s == "failed"]
    n_done = list(states.values()).count("done")
    with noting_answers(folder):
        rebuild_table(folder)
        if n_done:
            console.print(Text("laws, figures and report ..."))
            plainly(lambda: analyse(folder), about="the points are kept, but their analysis failed")
    n_open = len(states) - n_done - len(failed)
    left = f", {n_open} not run yet" if n_open else ""
    console.print(
        Text(
            f"\n{n_done} of {len(states)} points done, {len(failed)} failed{left}; this session took "
            f"{duration(seconds)}",
            style="bold",
        )
    )
    for id in failed:
        place = point_folder(folder, id)
        console.print(
            Text(f"  failed  {id}: {failure_reason(place)}   log {shown(place / LOG)}", style="red"),
            soft_wrap=True,
        )
    if failed:
        console.print(Text(f"  run them again: {again(retry=True)}"), soft_wrap=True)
    if n_done:
        print_answers(folder, console)
    if rest := not_evaluated(folder, manifest.points, wanted_evaluations(folder)):
        text = f"{len(rest)} points are not evaluated as the study wants: sapis evaluate {folder.name}"
        console.print(Text(text), soft_wrap=True)
    if set(failed) & set(chosen):
        return SOME_FAILED
    if any(states[id] != "done" for id in chosen):
        console.print(
            Text(f"some points have not ended; continue with: {again(retry=False)}", style="yellow"),
            soft_wrap=True,
        )
        return STOPPED
    return COMPLETE


@contextmanager
def noting_answers(folder: Path) -> Iterator[None]:
    """While the block makes table and answers: afterwards `answers.json` says from which records. Published
    results without records have none to name."""
    records = None
    if _has_records(folder):
        manifest = read_manifest(folder)
        refuse_other_study_file(folder, manifest)
        restore(folder, manifest.points)
        records = records_digest(folder, manifest)
    yield
    if records is not None:
        note_answers(folder, records)


def _has_records(folder: Path) -> bool:
    return (folder / "points").is_dir() or (folder / KEPT).is_dir()


def rebuild_table(folder: Path) -> None:
    """runs.parquet and runs.csv from the records, where those are still there; older published results come
    without them."""
    if _has_records(folder):
        points = read_manifest(folder).points
        restore(folder, points)
        table = runs_table(folder / "points", points)  # first: what is damaged must not replace a kept copy
        for point in points:
            if (point_folder(folder, point.id) / RECORD).exists():
                keep(folder, point.id)
        write_table(table, folder)


def analyse(folder: Path) -> Any:
    """fit.json, figures/ and report.html from the table."""
    from sapis_lab.report import analyse_folder

    return analyse_folder(folder)


def print_answers(folder: Path, console: Console) -> None:
    """What the study found, and where it is written."""
    for sentence in verdict_sentences(folder):
        console.print(Text(sentence), soft_wrap=True)
    n_figures = len(list((folder / "figures").glob("*.pdf")))
    console.print(Text(f"report  {shown(folder / 'report.html')}"), soft_wrap=True)
    console.print(Text(f"figures {shown(folder / 'figures')}/ ({n_figures})"), soft_wrap=True)
    console.print(Text(f"table   {shown(folder / 'runs.csv')}"), soft_wrap=True)


def verdict_sentences(folder: Path) -> list[str]:
    """The report's verdict on the study."""
    from sapis_lab.quantities import quantity
    from sapis_lab.records import read_table
    from sapis_lab.report.verdict import read_fit, verdict

    fits = read_fit(folder)
    return verdict(fits, read_table(folder), quantity(fits["quantity"]))
