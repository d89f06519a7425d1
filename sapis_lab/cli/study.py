"""sapis study: run and inspect studies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.text import Text

from sapis_lab.cli.common import HELP, As, Name, Only, Set, Workers, broken_cell, stdout_console
from sapis_lab.config import ConfigError, home
from sapis_lab.screen import new_table

if TYPE_CHECKING:
    from sapis_lab.sweep.manifest import Manifest

app = typer.Typer(
    help="Run and inspect studies, the files in studies/.\n\nExample: `sapis study plan quickstart`", **HELP
)


@app.command("run")
def study_run(
    name: Name,
    settings: Set = None,
    called: As = None,
    only: Only = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run points again that failed in an earlier run.")
    ] = False,
    workers: Workers = None,
    executor: Annotated[
        Literal["local", "slurm"] | None,
        typer.Option("--executor", help="Where points run; the study's `run.executor` by default."),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="With Slurm: follow the jobs to their end, then collect.")
    ] = False,
) -> None:
    """Run a study to its report, or continue it where it was interrupted.

    Ctrl-C stops it after the running steps, twice at once; running it again continues. With --executor slurm
    the points are submitted as job arrays, and the command returns. Exit status: 0 all points done (or
    submitted), 1 some failed, 2 bad settings, 74 a disk that is full, read-only or broken, 75 stopped; with
    --only the selected points decide, whatever became of the others.

    Example: `sapis study run quickstart --set train.steps=200 --as quick200`
    """
    from sapis_lab.sweep.request import Request
    from sapis_lab.sweep.run_study import run_study

    request = Request(
        name, tuple(settings or ()), called, tuple(only or ()), retry_failed, workers, executor, wait
    )
    raise typer.Exit(run_study(request, stdout_console()))


@app.command("collect")
def study_collect(
    name: Annotated[str, typer.Argument(help="Name of a folder in results/.", show_default=False)],
    resubmit: Annotated[
        bool, typer.Option("--resubmit", help="Submit points again whose jobs are gone without a result.")
    ] = False,
) -> None:
    """Gather what Slurm jobs have found so far: table, laws, figures, report. Jobs that still run go on.

    Exit status: 0 all points done, 1 some failed, 75 some have not ended.

    Example: `sapis study collect rmd17-ethanol --resubmit`
    """
    from sapis_lab.sweep.submission import collect_study

    raise typer.Exit(collect_study(name, stdout_console(), resubmit=resubmit))


@app.command("plan")
def study_plan(
    name: Name, settings: Set = None, called: As = None, only: Only = None, workers: Workers = None
) -> None:
    """Print every point with its exact N, D, FLOPs, time and disk; nothing is generated, trained or written.

    Example: `sapis study plan quickstart --only 'geat-*'`
    """
    from sapis_lab.jobs.folder import state
    from sapis_lab.sweep.folder import point_folder
    from sapis_lab.sweep.plan_screen import print_plan
    from sapis_lab.sweep.planned_study import plan_study
    from sapis_lab.sweep.request import Request

    request = Request(name, tuple(settings or ()), called, tuple(only or ()), workers=workers)
    job = plan_study(request)
    states = (
        {p.id: state(point_folder(request.folder, p.id)) for p in job.chosen}
        if request.folder.exists()
        else None
    )
    print_plan(job.plan.only(p.id for p in job.chosen), stdout_console(), states=states)


@app.command("status")
def study_status(
    name: Name,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Print it again every few seconds until nothing runs or waits any more."
        ),
    ] = False,
    every: Annotated[
        float, typer.Option("--every", min=0.2, max=86_400, help="With --watch: seconds between two looks.")
    ] = 2.0,
) -> None:
    """Print the state of a study from its files alone: counts, running points, time left, failures. It may
    run elsewhere meanwhile.

    Example: `sapis study status quickstart --watch`
    """
    from sapis_lab.sweep.files import checked_name
    from sapis_lab.sweep.folder import results_folder
    from sapis_lab.sweep.manifest import read_manifest
    from sapis_lab.sweep.status import print_status, watch_status

    folder = results_folder(checked_name(name))
    if not (folder / "points.json").exists():
        from sapis_lab.sweep.files import raw_study

        raw_study(name)  # an unknown name is told apart from a study that was not started
        stdout_console().print(
            f"{name} has not been started; start it with: sapis study run {name}", soft_wrap=True
        )
        return
    from sapis_lab.executors.slurm import queue_of

    def show(console: Console) -> bool:
        manifest: Manifest = read_manifest(folder)
        return print_status(manifest, folder, console, queue=queue_of(folder))

    if watch:
        watch_status(show, stdout_console(), every=every)
    else:
        show(stdout_console())


@app.command("clean")
def study_clean(
    name: Annotated[str, typer.Argument(help="Name of a folder in results/.", show_default=False)],
    also: Annotated[
        list[str] | None,
        typer.Option(
            "--also",
            help="What else: arrays, orphans, failed, curves or models; may be repeated.",
            show_default=False,
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it, only say what would go.")] = False,
) -> None:
    """Delete what nothing needs any more: checkpoints of points that are done, and files that a kill left
    half written.

    With --also: points no longer in the lattice (orphans), failed points, TensorBoard events (curves),
    trained potentials (models), raw arrays of evaluations that are scored (arrays).

    Example: `sapis study clean quickstart --also orphans --yes`
    """
    from sapis_lab.sweep import clean
    from sapis_lab.sweep.files import checked_name
    from sapis_lab.sweep.folder import results_folder
    from sapis_lab.sweep.words import size

    folder, known = results_folder(checked_name(name)), sorted(set(clean.MEANING) - set(clean.ALWAYS))
    for what in also or ():
        if what not in known:
            raise ConfigError(f"--also {what}: wanted one of {', '.join(known)}")
    waste = (clean.clean if yes else clean.find_waste)(folder, also or ())  # type: ignore[operator, arg-type]
    for what, meaning in clean.MEANING.items():
        if found := [w.n_bytes for w in waste if w.what == what]:
            stdout_console().print(f"{size(sum(found)):>9}  {len(found):5}  {meaning}", soft_wrap=True)
    total = size(sum(w.n_bytes for w in waste))
    words = (
        "nothing to delete"
        if not waste
        else f"{total} deleted"
        if yes
        else f"{total} can go; add --yes to delete them"
    )
    stdout_console().print(f"{name}: {words}", soft_wrap=True)


@app.command("verify")
def study_verify(
    name: Annotated[str, typer.Argument(help="Name of a folder in results/.", show_default=False)],
) -> None:
    """Read everything of a study and compare it with its checksums: records, weights, checkpoints, answers,
    frames. Changes nothing.

    Exit status: 0 all is whole, 1 something is damaged, missing or was changed; a line says what, and what to
    do.

    Example: `sapis study verify quickstart`
    """
    from sapis_lab.sweep.files import checked_name
    from sapis_lab.sweep.folder import results_folder
    from sapis_lab.sweep.whole import store_problems, verify

    folder = results_folder(checked_name(name))
    found, stores = verify(folder), store_problems(folder)
    for problem in [*found.problems, *stores.problems]:
        stdout_console().print(Text(problem, style="red"), soft_wrap=True)
    without = f" ({found.n_without_weights} without weights here)" if found.n_without_weights else ""
    looked_at = (
        f"{found.n_points} finished points{without}, {found.n_checkpoints} checkpoints, {found.n_answers} "
        f"answers"
    )
    looked_at += f", {stores.n_frames} frames"
    n = len(found.problems) + len(stores.problems)
    stdout_console().print(
        f"{name}: {looked_at} read; {'all is whole' if not n else f'{n} not whole'}", soft_wrap=True
    )
    raise typer.Exit(int(n > 0))


@app.command("export")
def study_export(
    name: Annotated[str, typer.Argument(help="Name of a folder in results/.", show_default=False)],
    to: Annotated[
        Path | None, typer.Option("--to", help="The archive, a .zip.", show_default="NAME.zip")
    ] = None,
    models: Annotated[bool, typer.Option("--models", help="With the trained potentials.")] = False,
) -> None:
    """Pack what a paper needs into one archive: settings, records, table, laws, figures and report, with
    their checksums.

    Example: `sapis study export rmd17-ethanol --to ethanol.zip`
    """
    from sapis_lab.sweep.export import export
    from sapis_lab.sweep.files import checked_name
    from sapis_lab.sweep.folder import results_folder
    from sapis_lab.sweep.words import size

    target = to or Path(f"{name}.zip")
    names = export(results_folder(checked_name(name)), target, models=models)
    stdout_console().print(f"{target}: {len(names)} files, {size(target.stat().st_size)}", soft_wrap=True)


@app.command("list")
def study_list() -> None:
    """List the studies with their questions and states.

    Example: `sapis study list`
    """
    from sapis_lab.config import read_yaml
    from sapis_lab.sweep.files import study_names
    from sapis_lab.sweep.status import known_studies

    table = new_table("study", "state", "question", left="all", wrapped=["question"])
    for study, word in known_studies(study_names()):
        question: str | Text
        try:
            question = str(read_yaml(home() / "studies" / f"{study}.yaml").get("question", ""))
        except ConfigError as error:
            question = broken_cell(error)
        table.add_row(study, word, question)
    stdout_console().print(table)
