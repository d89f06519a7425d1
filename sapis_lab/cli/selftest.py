"""sapis selftest: what is promised, measured on this machine."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sapis_lab.cli.common import HELP, Json, keeper, stdout_console
from sapis_lab.config import ConfigError

app = typer.Typer(
    help="Measure what is promised, on this machine.\n\nExample: `sapis selftest contracts`", **HELP
)


@app.command("contracts")
def contracts() -> None:
    """Measure every model's equivariance, smoothness, derivatives and counts, in float32 and float64.

    Example: `sapis selftest contracts`
    """
    import torch

    from sapis_lab.selftest.contracts import table

    torch.set_num_threads(1)
    print(table())


@app.command("coverage")
def coverage(
    quick: Annotated[bool, typer.Option("--quick", help="Two cells, few data sets: seconds.")] = False,
    n_sets: Annotated[int, typer.Option("--data-sets", min=20, help="Data sets of each cell.")] = 1000,
    simulations: Annotated[
        int, typer.Option("--simulations", min=0, help="Behind each critical value; 0: only F's.")
    ] = 99,
    robust: Annotated[
        str, typer.Option("--robust", help="Estimators: `none` (least squares), `auto` (Huber).")
    ] = "none,auto",
    seed: Annotated[int, typer.Option("--seed", help="Of the data sets.")] = 0,
    json_file: Json = None,
) -> None:
    """Count how often 95 % intervals hold the true exponents, over laws, lattices, noises and estimators.
    About an hour of CPU time.

    Exit status: 1 if alpha or beta of an identifiable cell is covered outside 93-97 % by more than two
    standard errors of the count.

    Example: `sapis selftest coverage --quick`
    """
    from sapis_lab.analysis.coverage import cells, quick_cells
    from sapis_lab.selftest.coverage import run_coverage

    save = keeper(json_file, "coverage")
    estimators: list[Any] = robust.split(",")
    if not set(estimators) <= {"none", "auto"}:
        raise ConfigError(f"--robust {robust!r}: wanted none, auto or both with a comma between them")
    designs = list(quick_cells() if quick else cells(robust=estimators))
    n_sets, simulations = (min(n_sets, 200), min(simulations, 39)) if quick else (n_sets, simulations)
    raise typer.Exit(
        run_coverage(
            designs, n_sets=n_sets, n_simulations=simulations, seed=seed, console=stdout_console(), save=save
        )
    )


@app.command("ranks")
def ranks(
    n_ranks: Annotated[int, typer.Option("--ranks", min=2, help="Processes that train together.")] = 2,
) -> None:
    """Train 50 steps with one process and with several on frames of unequal size, and print how far the
    parameters are apart.

    Example: `sapis selftest ranks`
    """
    from sapis_lab.selftest.ranks import rank_table

    print(rank_table(n_ranks=n_ranks))


@app.command("kill")
def kill(
    n_kills: Annotated[int, typer.Option("--kills", min=1, help="SIGKILLs at random moments.")] = 50,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="Of the lattice, 8 points of some seconds each.")
    ] = 6,
    seed: Annotated[int, typer.Option("--seed", help="Of the moments and the targets.")] = 0,
) -> None:
    """Kill a study again and again, its engine, launcher and points, and compare what it ends in with the
    undisturbed one. Minutes.

    Exit status: 1 if a point is lost or doubled, or any number or weight differs.

    Example: `sapis selftest kill --kills 10 --seeds 2`
    """
    from sapis_lab.selftest.kill import Plan, run_kill

    raise typer.Exit(
        run_kill(Plan(kills=n_kills, seeds=seeds, seed=seed), say=lambda line: print(line, flush=True))
    )


@app.command("power")
def power(
    copies: Annotated[
        int, typer.Option("--copies", min=1, help="Power cuts at random moments of the run.")
    ] = 24,
    continued: Annotated[
        int, typer.Option("--continue", min=0, help="Of them: how many are continued to the end.")
    ] = 3,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="Of the lattice, 8 points of some seconds each.")
    ] = 2,
    seed: Annotated[int, typer.Option("--seed", help="Of the moments.")] = 0,
) -> None:
    """Cut the power of a study at random moments, and look at what its disk holds then. Linux, as root;
    minutes.

    The study runs on an ext4 image file that is copied without flushing it; every copy is mounted and
    examined, some are continued.

    Exit status: 1 if a finished point or an answer is lost, empty or different; 2 where mounting is not
    permitted.

    Example: `sudo sapis selftest power --copies 40`
    """
    from sapis_lab.selftest.power import Plan, run_power

    plan = Plan(copies=copies, continued=continued, seeds=seeds, seed=seed)
    raise typer.Exit(run_power(plan, say=lambda line: print(line, flush=True)))


@app.command("renames")
def renames(
    kinds: Annotated[
        str, typer.Option("--kinds", help="Kinds of files as globs, with commas between them.")
    ] = "*",
    each: Annotated[
        bool, typer.Option("--each", help="At every rename of a kind, not at the first alone. Long.")
    ] = False,
) -> None:
    """Kill a study before and after the first rename of every kind of file, and compare what it ends in. Ten
    minutes or so.

    Exit status: 1 if a point is lost or doubled, any number or weight differs, or a half-written file is
    left.

    Example: `sapis selftest renames --kinds 'points/*,runs.*'`
    """
    from sapis_lab.selftest.renames import Plan, run_renames

    raise typer.Exit(
        run_renames(Plan(tuple(kinds.split(",")), each), say=lambda line: print(line, flush=True))
    )
