"""sapis tune, scale, dashboard: what decides by itself which points to run."""

from __future__ import annotations

from typing import Annotated

import typer

from sapis_lab.cli.common import As, Name, Set, Workers, numbers, stdout_console
from sapis_lab.config import ConfigError

app = typer.Typer()


def _refuse_early(name: str, settings: list[str] | None, called: str | None) -> None:
    """Refuse a study that another process works on before anything heavy is imported to understand it.

    Where `run.storage` names a database, workers share the study without a lock.
    """
    from sapis_lab.sweep.files import checked_name, raw_study
    from sapis_lab.sweep.folder import results_folder
    from sapis_lab.sweep.lock import refuse_if_running

    run = raw_study(name, settings or (), called=called).get("run")
    if not (isinstance(run, dict) and run.get("storage")):
        refuse_if_running(results_folder(checked_name(called or name)))


@app.command("tune")
def tune(
    name: Name,
    settings: Set = None,
    called: As = None,
    workers: Workers = None,
    worker: Annotated[
        bool, typer.Option("--worker", help="Be one worker on the database of `run.storage`, on any host.")
    ] = False,
    status: Annotated[
        bool,
        typer.Option("--status", help="Print the best trials so far, or the Pareto front, and run nothing."),
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run trials again that failed in an earlier run.")
    ] = False,
) -> None:
    """Search for good settings at every (model, N, D) of a study, as its `tune:` section says, or go on with
    it.

    Each trial is one point, which continues from its checkpoint whatever was killed. Where the learning rate
    or the batch size is tuned, the rule by which it moves with N and D is fitted to results/NAME/regime.json;
    `regime: NAME` in another study uses it. Exit status: 0 all trials ended, 1 some failed, 2 bad settings,
    74 a disk that is full or broken, 75 stopped.

    Example: `sapis tune rate-rule --workers 2`
    """
    if not (status or worker):
        _refuse_early(name, settings, called)
    from sapis_lab.sweep.tuner.request import TuneRequest
    from sapis_lab.sweep.tuner.run_tune import run_tune
    from sapis_lab.sweep.tuner.run_worker import run_worker
    from sapis_lab.sweep.tuner.status import print_status

    request = TuneRequest(name, tuple(settings or ()), called, workers, retry_failed)
    if status:
        print_status(request, stdout_console())
        return
    raise typer.Exit((run_worker if worker else run_tune)(request, stdout_console()))


@app.command("scale")
def scale(
    name: Name,
    settings: Set = None,
    called: As = None,
    workers: Workers = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run points again that failed in an earlier run.")
    ] = False,
    replay: Annotated[
        bool, typer.Option("--replay", help="Only decide the recorded history again, and compare.")
    ] = False,
    design: Annotated[
        bool, typer.Option("--design", help="Only print which run would teach most per FLOP about N*.")
    ] = False,
    target: Annotated[
        str | None, typer.Option("--target", help="With --design: about L at `N,D`.", show_default=False)
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against", help="Only compare with the best run of results; may be repeated.", metavar="NAME"
        ),
    ] = None,
) -> None:
    """Scale a model by itself, or go on: from the study's lattice it decides, runs, measures and decides
    again, until a budget or a rule.

    The section `scale:` of the study file says how. Every decision and its reasons stand in
    results/NAME/scale/. Exit status: 0 ended by its budget or a rule, 1 a run failed (or, with --replay, a
    decision differs), 75 stopped: the same command goes on.

    Example: `sapis scale quickstart-scale`
    """
    if target is not None and not design:
        raise ConfigError("--target goes with --design")
    if not (design or replay or against):
        _refuse_early(name, settings, called)
    from sapis_lab.scaling.answers import print_comparison, print_design, print_replay
    from sapis_lab.scaling.session import run_scale

    if design:
        place = numbers(target, "--target") if target else None
        if place is not None and (len(place) != 2 or min(place) <= 0):
            raise ConfigError(f"--target {target!r}: wanted N,D such as 1e5,4000")
        print_design(called or name, stdout_console(), target=(place[0], place[1]) if place else None)
        return
    if against:
        print_comparison(called or name, against, stdout_console())
        return
    if replay:
        raise typer.Exit(print_replay(called or name, stdout_console()))
    status = run_scale(
        name,
        stdout_console(),
        settings=settings or (),
        called=called,
        workers=workers,
        retry_failed=retry_failed,
    )
    raise typer.Exit(status)


@app.command("dashboard")
def dashboard(
    name: Name,
    settings: Set = None,
    called: As = None,
    port: Annotated[int, typer.Option("--port", help="Port on this host.")] = 8080,
) -> None:
    """Look at the trials of `sapis tune NAME` in a browser, with optuna-dashboard (the extra `dash`), on a
    copy of their file or on the database.

    Example: `sapis dashboard rate-rule --port 8081`
    """
    from sapis_lab.sweep.tuner.request import TuneRequest
    from sapis_lab.sweep.tuner.status import run_dashboard

    raise typer.Exit(
        run_dashboard(TuneRequest(name, tuple(settings or ()), called), port=port, console=stdout_console())
    )
