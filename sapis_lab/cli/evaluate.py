"""sapis evaluate: what else there is to measure of finished points."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from sapis_lab.cli.common import Only, Workers, stdout_console

app = typer.Typer()


@app.command("evaluate")
def evaluate(
    name: Annotated[str, typer.Argument(help="Name of a folder in results/.", show_default=False)],
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            help="What to measure: a name from configs/evaluation/, or a kind; may be repeated.",
            show_default="the study's `evaluate:`",
        ),
    ] = None,
    only: Only = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Evaluate points again where that failed earlier.")
    ] = False,
    workers: Workers = None,
    executor: Annotated[
        Literal["local", "slurm"] | None,
        typer.Option("--executor", help="Where points are evaluated; the study's `run.executor` by default."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="With Slurm: follow the jobs to their end.")] = False,
) -> None:
    """Measure more of a study's finished points: errors by element, smoothness, cost, kinds of your own.

    What is scored is left as it is. Scores join the table, and laws, figures and report are made again. Exit
    status: 0 all points evaluated (or submitted), 1 some could not be, 2 bad settings, 74 a disk that is full
    or broken, 75 stopped: the same command goes on.

    Example: `sapis evaluate rmd17-ethanol --kind errors --kind smoothness`
    """
    from sapis_lab.sweep.files import checked_name
    from sapis_lab.sweep.folder import results_folder
    from sapis_lab.sweep.lock import refuse_if_running

    refuse_if_running(results_folder(checked_name(name)))  # a refusal does not wait for torch
    from sapis_lab.sweep.evaluate import EvaluateRequest, evaluate_study

    request = EvaluateRequest(
        name, tuple(kind or ()), tuple(only or ()), executor, workers, retry_failed, wait
    )
    raise typer.Exit(evaluate_study(request, stdout_console()))
