"""sapis selftest: what is promised, measured on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from sapis_lab.cli.common import (
    HELP,
    Again,
    Json,
    counts,
    dataset_config,
    keeper,
    positive_numbers,
    stdout_console,
)
from sapis_lab.config import ConfigError, plainly

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


@app.command("oracles")
def oracles(
    parts: Annotated[
        str, typer.Option("--parts", help="Of lennard_jones, stillinger_weber, tersoff, pyscf.")
    ] = "lennard_jones,stillinger_weber,tersoff,pyscf",
    n_frames: Annotated[
        int, typer.Option("--frames", min=1, max=1000, help="Frames of rMD17 that PySCF labels.")
    ] = 20,
    json_file: Json = None,
) -> None:
    """Compare labels with what was published: PBE/def2-SVP by PySCF with rMD17, our own potentials with their
    papers and NIST. Two minutes.

    rMD17 is looked for in `$SAPIS_DATA/rmd17`, NIST's configuration in `$SAPIS_DATA/lennard_jones`. Exit
    status: 1 if a value is farther from the published one than its bound.

    Example: `SAPIS_DATA=/path/to/data sapis selftest oracles --json oracles.json`
    """
    save = keeper(json_file, "oracles")
    from sapis_lab.bench.step import words_of
    from sapis_lab.selftest.oracles import run_oracles

    data = Path(os.environ["SAPIS_DATA"]) if "SAPIS_DATA" in os.environ else None
    names = words_of(parts, option="--parts")
    raise typer.Exit(
        plainly(lambda: run_oracles(names, n_frames=n_frames, data=data, console=stdout_console(), save=save))
    )


@app.command("physics")
def physics(
    parts: Annotated[
        str, typer.Option("--parts", help="Of static, fluid, gas, timestep, silicon, diffusion.")
    ] = "static,fluid,gas,timestep,silicon,diffusion",
    n_steps: Annotated[
        int, typer.Option("--steps", min=600, max=10**7, help="Of every Lennard-Jones fluid.")
    ] = 10_000,
    seed: Annotated[int, typer.Option("--seed", help="Of momenta and noise.")] = 0,
    json_file: Json = None,
) -> None:
    """Compare dynamics and observables with what is known: Lennard-Jones fluids with NIST, a perfect gas, the
    order of the integrators, silicon's elastic constants, Brownian paths. Two minutes.

    NIST's configuration is looked for in `$SAPIS_DATA/lennard_jones`. Exit status: 1 if a value is farther
    from the known one than its bound.

    Example: `SAPIS_DATA=/path/to/data sapis selftest physics --json physics.json`
    """
    save = keeper(json_file, "physics")
    from sapis_lab.bench.step import words_of
    from sapis_lab.selftest.physics import Plan, run_physics

    data = Path(os.environ["SAPIS_DATA"]) if "SAPIS_DATA" in os.environ else None
    names = words_of(parts, option="--parts")
    plan = Plan(n_steps=n_steps, seed=seed)
    raise typer.Exit(
        plainly(lambda: run_physics(names, plan, data=data, console=stdout_console(), save=save))
    )


@app.command("free-energy")
def free_energy(
    samples: Annotated[
        Path, typer.Option("--samples", help="Folder of samples; walks that are there are not done again.")
    ],
    protocols: Annotated[
        str, typer.Option("--protocols", help="Of long, fine, soft, phi; soft shows what goes wrong.")
    ] = "long",
    walks: Annotated[
        str, typer.Option("--walks", help="Directions around φ with seeds.")
    ] = "up-0,down-0,up-1,down-1",
    json_file: Json = None,
) -> None:
    """Make a reference for the free energies of alanine dipeptide: umbrella windows in OpenMM, walked through
    in both directions, with several seeds, weighed by two solvers. An hour of CPU time.

    The molecule is `$SAPIS_DATA/alanine_dipeptide/ala2.pdb`. Exit status: 1 if walks, solvers or plain
    dynamics differ by more than their bounds.

    Example: `SAPIS_DATA=/path/to/data sapis selftest free-energy --samples samples --json reference.json`
    """
    save = keeper(json_file, "free-energy")
    from sapis_lab.bench.step import words_of
    from sapis_lab.selftest.free_energy import run_free_energy

    names = words_of(protocols, option="--protocols")
    raise typer.Exit(
        plainly(
            lambda: run_free_energy(
                names,
                walks=words_of(walks, option="--walks"),
                folder=samples,
                console=stdout_console(),
                save=save,
            )
        )
    )


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


@app.command("rules")
def rules(
    quick: Annotated[
        bool, typer.Option("--quick", help="Two designs, 40 data sets: under a minute.")
    ] = False,
    n_sets: Annotated[int, typer.Option("--data-sets", min=20, help="Data sets of each design.")] = 200,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the data sets.")] = 0,
    json_file: Json = None,
) -> None:
    """Count how often 95 % intervals of rules of the best rate and batch size hold the true exponents, in
    simulated sweeps with floors, cliffs and diverged runs. Half an hour of CPU time.

    Exit status: 1 if an exponent that a design identifies is covered outside 93-97 % by more than two
    standard errors of the count.

    Example: `sapis selftest rules --quick`
    """
    from sapis_lab.analysis.rule_coverage import quick_worlds, worlds
    from sapis_lab.selftest.rules import run_rules

    save = keeper(json_file, "rules")
    designs = list(quick_worlds() if quick else worlds())
    n_sets = min(n_sets, 40) if quick else n_sets
    raise typer.Exit(run_rules(designs, n_sets=n_sets, seed=seed, console=stdout_console(), save=save))


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


@app.command("growth")
def growth(
    data: Annotated[
        str, typer.Option("--data", help="Name of a file in configs/data/, without `.yaml`.")
    ] = "acac-300K",
    model: Annotated[
        str, typer.Option("--model", help="A model that grows, with options: `geat:lmax=1`.")
    ] = "geat",
    small: Annotated[float, typer.Option("--small", help="Number of parameters before growth.")] = 6e4,
    large: Annotated[float, typer.Option("--large", help="Number of parameters after growth.")] = 2.4e5,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps before growth.")] = 1000,
    more: Annotated[int, typer.Option("--more", min=5, help="Steps after growth.")] = 500,
    rewarm: Annotated[
        int,
        typer.Option("--rewarm", min=0, help="Steps of the warm-up after growth; at most a fifth of --more."),
    ] = 100,
    rate: Annotated[
        float, typer.Option("--rate", min=0, help="Peak learning rate after growth over the default.")
    ] = 0.3,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Frames of a step.")] = 5,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many seeds, from 0 on.")] = 3,
    json_file: Json = None,
) -> None:
    """Grow a trained model and go on, against the larger model trained from scratch for the same training
    FLOPs.

    Prints what growth changes of energies and forces, and the validation errors of both. Every training has a
    complete schedule of its own. Exit status: 1 if a training diverged or growth changed more than rounding.

    Example: `SAPIS_DATA=/path/to/data sapis selftest growth --steps 1000 --more 500 --seeds 3 --json
    growth.json`
    """
    save = keeper(json_file, "growth")
    from sapis_lab.selftest.growth import Plan, run_growth

    plan = Plan(
        dataset_config(data, []),
        model=model,
        small=small,
        large=large,
        steps=steps,
        more=more,
        rewarm=rewarm,
        rate=rate,
        batch_size=batch,
        n_seeds=seeds,
    )
    raise typer.Exit(run_growth(plan, cache=None, save=save, console=stdout_console()))


@app.command("stability")
def stability(
    model: Annotated[
        str, typer.Option("--model", help="A model of this package, with options: `geat:lmax=1`.")
    ] = "geat",
    data: Annotated[
        str, typer.Option("--data", help="`acac` (configs/data/acac-300K), `ethanol`, or a batch file.")
    ] = "acac",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many seeds, from 0 on.")] = 20,
    factors: Annotated[
        str, typer.Option("--factors", help="Learning rates over the model's default.")
    ] = "0.5,1,2",
    seconds: Annotated[float, typer.Option("--seconds", min=0, help="CPU time of every run, s.")] = 30.0,
    n_params: Annotated[float, typer.Option("--size", help="Number of parameters.")] = 1e5,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Runs at a time, one thread each.")] = 2,
    runs: Annotated[
        Path | None,
        typer.Option(
            "--runs",
            help="JSON-lines file of the finished runs.",
            show_default="results/stability/runs.jsonl",
        ),
    ] = None,
    again: Again = False,
    json_file: Json = None,
) -> None:
    """Count how often training diverges, at the default learning rate of a model and at multiples of it.

    Every finished run is kept in --runs and not done again. Exit status: 1 if a run diverged or failed.

    Example: `SAPIS_DATA=/path/to/data sapis selftest stability --seeds 20 --factors 0.5,1,2 --seconds 30
    --workers 2`
    """
    save = keeper(json_file, "stability")
    from sapis_lab.selftest.stability import Plan, run_stability

    plan = Plan(
        model=model,
        data=data,
        n_seeds=seeds,
        factors=positive_numbers(factors, "--factors"),
        seconds=seconds,
        n_params=n_params,
        workers=workers,
        again=again,
    )
    raise typer.Exit(
        plainly(lambda: run_stability(plan, file=runs, cache=None, save=save, console=stdout_console()))
    )


@app.command("triton")
def triton(
    degrees: Annotated[
        str, typer.Option("--lmax", help="Degrees of the models, with commas between them.")
    ] = "1,2,3",
    precisions: Annotated[str, typer.Option("--precision", help="float64, float32 or both.")] = "float64",
    json_file: Json = None,
) -> None:
    """Compare GEAT's Triton form with the PyTorch form: energies, forces and parameter gradients of a loss of
    forces, in both layouts of pairs.

    Needs the extra `gpu` and a CUDA device, or TRITON_INTERPRET=1, under which the kernels are interpreted
    on the CPU (minutes); the output says which. Exit status: 1 if anything differs by more than rounding.

    Example: `TRITON_INTERPRET=1 sapis selftest triton --lmax 1,2`
    """
    save = keeper(json_file, "triton")
    from sapis_lab.bench.step import words_of
    from sapis_lab.selftest.triton_form import run_triton

    chosen = [round(n) for n in positive_numbers(degrees, "--lmax")]
    names = words_of(precisions, option="--precision")
    raise typer.Exit(plainly(lambda: run_triton(chosen, names, save=save, console=stdout_console())))


@app.command("scaler")
def scaler(
    policies: Annotated[
        str,
        typer.Option(
            "--policies",
            help="Of null, greedy, jump, trigger, posterior, and `posterior without measurements`.",
        ),
    ] = "null,greedy,jump,trigger,posterior,posterior without measurements",
    worlds: Annotated[
        str, typer.Option("--worlds", help="Of the six; all when not given.", show_default=False)
    ] = "",
    n_worlds: Annotated[
        int, typer.Option("--campaigns", min=2, help="Campaigns in each world, of each policy.")
    ] = 32,
    json_file: Json = None,
) -> None:
    """Measure what policies of scaling waste on six synthetic worlds, with the seeds on which nothing was
    tuned.

    Exit status: 1 if the posterior policy wastes more than 6 % on a world, or 3 points more than the best
    fixed policy there.

    Example: `sapis selftest scaler --campaigns 32 --json results/scaler-worlds/scaler.json`
    """
    save = keeper(json_file, "scaler")
    from sapis_lab.bench.step import words_of
    from sapis_lab.scaling.worlds import SHARES
    from sapis_lab.selftest.scaler import run_scaler

    chosen = words_of(worlds, option="--worlds") if worlds else list(SHARES)
    names = words_of(policies, option="--policies")
    raise typer.Exit(
        plainly(lambda: run_scaler(names, chosen, n_worlds=n_worlds, console=stdout_console(), save=save))
    )


@app.command("forecasts")
def forecasts(
    n_sets: Annotated[int, typer.Option("--sets", min=2, help="Data sets of each truth.")] = 400,
    worlds: Annotated[
        str,
        typer.Option(
            "--worlds", help="Numbers of the truths, from 1; all when not given.", show_default=False
        ),
    ] = "",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the simulation.")] = 0,
    json_file: Json = None,
) -> None:
    """Measure how laws are chosen and what forecasts are worth, on simulated truths and published tables.

    Published tables are looked for in `$SAPIS_DATA/scaling`. Exit status: 1 if intervals of the average cover
    outside of 93-97 % where the truth is among the laws.

    Example: `sapis selftest forecasts --sets 40 --worlds 1,3`
    """
    from sapis_lab.analysis.forecast_check import WORLDS
    from sapis_lab.selftest.forecasts import run_forecasts

    save = keeper(json_file, "forecasts")
    data = Path(os.environ["SAPIS_DATA"]) if "SAPIS_DATA" in os.environ else None
    chosen = counts(worlds, "--worlds") if worlds else range(1, len(WORLDS) + 1)
    unknown = [k for k in chosen if k > len(WORLDS)]
    if unknown:
        raise ConfigError(f"--worlds: got {unknown[0]}, wanted numbers from 1 to {len(WORLDS)}")
    status = plainly(
        lambda: run_forecasts(
            [WORLDS[k - 1] for k in chosen],
            n_sets=n_sets,
            seed=seed,
            data=data,
            console=stdout_console(),
            save=save,
        )
    )
    raise typer.Exit(status)


@app.command("fits")
def fits(
    parts: Annotated[
        str, typer.Option("--parts", help="Of recovery, lattices, speed, published, forms.")
    ] = "recovery,lattices,speed,published,forms",
    n_lattices: Annotated[int, typer.Option("--lattices", min=1, help="Synthetic lattices.")] = 500,
    n_starts: Annotated[
        int, typer.Option("--starts", min=1, max=24, help="Starts of the loop with numerical gradients.")
    ] = 12,
    json_file: Json = None,
) -> None:
    """Examine the fits of laws: exact recovery, start-dependent misses, speed against loops of scalar fits,
    published tables.

    Published tables are looked for in `$SAPIS_DATA/scaling`. Exit status: 1 if any optimum was missed.

    Example: `SAPIS_DATA=/path/to/data sapis selftest fits --json fits.json`
    """
    save = keeper(json_file, "fits")
    from sapis_lab.bench.step import words_of
    from sapis_lab.selftest.fits import run_fits

    data = Path(os.environ["SAPIS_DATA"]) if "SAPIS_DATA" in os.environ else None
    status = plainly(
        lambda: run_fits(
            words_of(parts, option="--parts"),
            n_lattices=n_lattices,
            n_starts=n_starts,
            data=data,
            console=stdout_console(),
            save=save,
        )
    )
    raise typer.Exit(status)


@app.command("design")
def design(
    tables: Annotated[
        str, typer.Option("--tables", help="Of farseer, kyo_takano_llm, optimetal_2b.")
    ] = "farseer,kyo_takano_llm,optimetal_2b",
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Campaigns of each method.")] = 10,
    json_file: Json = None,
) -> None:
    """Replay tables whose losses are known: what the runs that `sapis design` buys forecast, against random
    and cheapest runs for the same price, and against published methods. Minutes.

    Tables are looked for in `$SAPIS_DATA/scaling`.

    Example: `SAPIS_DATA=/path/to/data sapis selftest design --json design.json`
    """
    save = keeper(json_file, "design")
    from sapis_lab.bench.step import words_of
    from sapis_lab.selftest.design import run_design

    if "SAPIS_DATA" not in os.environ:
        raise ConfigError("SAPIS_DATA is not set; wanted the folder that holds scaling/farseer/train.csv")
    data, names = Path(os.environ["SAPIS_DATA"]), words_of(tables, option="--tables")
    raise typer.Exit(
        plainly(lambda: run_design(names, n_repeats=repeats, data=data, console=stdout_console(), save=save))
    )


@app.command("faults")
def faults(
    sets: Annotated[
        str,
        typer.Option("--sets", help="Sets to plant faults in; six when not given.", show_default=False),
    ] = "",
    parts: Annotated[
        str, typer.Option("--parts", help="Of planted, published (all public sets as they are).")
    ] = "planted,published",
    before: Annotated[
        str | None,
        typer.Option("--before", help="A commit whose checks are asked too.", show_default=False),
    ] = None,
    json_file: Json = None,
) -> None:
    """Plant twelve faults (units, signs, copies, outliers) in six public data sets, and list which the checks
    of data see; then examine all public sets for false alarms. Minutes.

    Exit status: 1 if a fault is silent or an alarm is false.

    Example: `SAPIS_DATA=/path/to/data sapis selftest faults --json faults.json`
    """
    save = keeper(json_file, "faults")
    from sapis_lab.bench.step import words_of
    from sapis_lab.selftest.faults import SETS, run_faults

    if "SAPIS_DATA" not in os.environ:
        raise ConfigError("SAPIS_DATA is not set; wanted the folder that holds rmd17, acac, mlearn, ...")
    chosen = words_of(sets, option="--sets") if sets else SETS
    wanted = words_of(parts, option="--parts")
    if unknown := [part for part in wanted if part not in ("planted", "published")]:
        raise ConfigError(f"--parts: got {unknown[0]}, wanted planted, published or both")
    status = plainly(
        lambda: run_faults(
            chosen if "planted" in wanted else (),
            published="published" in wanted,
            before=before,
            data=Path(os.environ["SAPIS_DATA"]),
            console=stdout_console(),
            save=save,
        )
    )
    raise typer.Exit(status)
