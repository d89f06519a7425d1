"""sapis bench: speed and accuracy, of our models and of peer codes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from sapis_lab.cli.common import (
    HELP,
    Again,
    Json,
    Root,
    counts,
    keeper,
    numbers,
    stdout_console,
    to_stderr,
)
from sapis_lab.config import ConfigError, home, plainly

app = typer.Typer(
    help=(
        "Measure speed and accuracy, of our models and of peer codes.\n\nExample: `sapis bench step --models "
        "geat,nequip`"
    ),
    **HELP,
)

Sizes = Annotated[str, typer.Option("--sizes", help="Numbers of parameters, as in `6e4,3e5,1e6`.")]
Inputs = Annotated[
    str, typer.Option("--inputs", help="Of `eth16`, `mol15x5`, `mol27x8`, `mol27x16`, `water192`.")
]
Rounds = Annotated[
    int, typer.Option("--rounds", min=1, help="Visits to every model; each lasts about --visit.")
]
Visit = Annotated[float, typer.Option("--visit", min=0, help="Length of a visit, s; at least one step.")]
Reference = Annotated[
    str, typer.Option("--reference", help="Model whose time is 1 in the ratios.", show_default=False)
]


@app.command("step")
def bench_step(
    models: Annotated[
        str,
        typer.Option(
            "--models", help="Models, with degree and options: `geat,geat-l1,geat:lmax=3:layers=1`."
        ),
    ] = "geat",
    sizes: Annotated[
        str,
        typer.Option(
            "--sizes", help="Numbers of parameters, as in `6e4,3e5,1e6`; `own`: the models' own widths."
        ),
    ] = "1e5",
    inputs: Inputs = "eth16,mol27x16,water192",
    reference: Reference = "",
    rounds: Rounds = 7,
    visit: Visit = 0.3,
    device: Annotated[str, typer.Option("--device", help="`cpu`, `cuda` or `cuda:K`.")] = "cpu",
    json_file: Json = None,
) -> None:
    """Time training steps and inference of this package's models, side by side in interleaved rounds.

    Every model has a process of its own with one thread; on a CPU its CPU time is taken, on a GPU
    synchronised wall time. FLOPs, operations, page faults, memory and the speed of matrix products in the
    same minutes stand beside it. Exit status: 1 if a model failed.

    Example: `sapis bench step --models geat,geat-l1,nequip --sizes 6e4,3e5 --inputs mol27x16 --json
    step.json`
    """
    from sapis_lab.bench.measure import Settings
    from sapis_lab.bench.step import run_step, sizes_of, words_of

    settings = Settings(rounds=rounds, visit_seconds=visit, reference=reference, device=device)
    status = run_step(
        models=words_of(models, option="--models"),
        sizes=sizes_of(sizes, own=True),
        inputs=words_of(inputs, option="--inputs"),
        settings=settings,
        json_file=json_file,
        console=stdout_console(),
    )
    raise typer.Exit(status)


@app.command("peers")
def bench_peers(
    models: Annotated[
        str,
        typer.Option(
            "--models",
            help="Peers, our models, and options: `geat,nequip,mace:layers=1`.",
            show_default=False,
        ),
    ] = "",
    sizes: Sizes = "1e5",
    inputs: Inputs = "eth16,mol27x16,water192",
    reference: Reference = "",
    rounds: Rounds = 7,
    visit: Visit = 0.3,
    installed: Annotated[
        bool, typer.Option("--installed", help="Leave out peers whose environment is missing, and say which.")
    ] = False,
    root: Root = None,
    json_file: Json = None,
) -> None:
    """Time peer codes beside our models in one interleaved run, all on the same frames and edges with the
    same loss.

    Without --models: geat, transformer and every peer. Ratios are against geat where it is measured. A model
    of this package that has a peer's name is called `sapis-NAME`. Exit status: 1 if a model failed.

    Example: `sapis bench peers --models geat,geat-l1,nequip,painn --sizes 1e5 --inputs mol27x16`
    """
    from sapis_lab.bench.measure import Settings
    from sapis_lab.bench.peers import PEERS, run_peers
    from sapis_lab.bench.step import sizes_of, words_of

    status = run_peers(
        models=words_of(models, option="--models") if models else ["geat", "transformer", *PEERS],
        sizes=sizes_of(sizes),
        inputs=words_of(inputs, option="--inputs"),
        installed=installed,
        json_file=json_file,
        console=stdout_console(),
        settings=Settings(rounds=rounds, visit_seconds=visit, reference=reference, root=root),
    )
    raise typer.Exit(status)


@app.command("environments")
def bench_environments(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Environments to make; all when none is given.", show_default=False),
    ] = None,
    root: Root = None,
    torch: Annotated[
        str | None,
        typer.Option("--torch", help="Requirement of torch, for another build.", show_default=False),
    ] = None,
) -> None:
    """Make the virtual environments of the peer codes; complete ones are left alone.

    Example: `sapis bench environments nequip mace`
    """
    import subprocess

    from sapis_lab.bench.environments import ENVIRONMENTS, make_environments

    wanted, options = names or list(ENVIRONMENTS), {"torch": torch} if torch else {}
    try:
        plainly(lambda: make_environments(wanted, root, **options))
    except subprocess.CalledProcessError as error:
        command = " ".join(map(str, error.cmd))
        to_stderr(
            f"error: {command} ended with status {error.returncode}; see install.log in the environment's "
            f"folder"
        )
        raise typer.Exit(1) from None


@app.command("accuracy")
def bench_accuracy(
    codes: Annotated[
        list[str] | None,
        typer.Argument(
            help=(
                "Peers and our models, with options: `geat geat:lmax=1 painn`; none to print the tables of "
                "what is there."
            )
        ),
    ] = None,
    data: Annotated[
        str,
        typer.Option(
            "--data",
            help=(
                "Of `acac`, `ethanol`, `3bpa`, `lips`, `water`, `mlearn-si`, `mlearn-ge`, or paths of batch "
                "files."
            ),
        ),
    ] = "acac,ethanol",
    seconds: Annotated[
        str, typer.Option("--seconds", help="Long budgets of CPU time, s; `none` to choose the rates only.")
    ] = "300",
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds at the long budgets, as in `0,1,2`.")] = "0",
    tune_seconds: Annotated[
        float, typer.Option("--tune-seconds", help="CPU time at which learning rates are compared, s.")
    ] = 60.0,
    rates: Annotated[
        str | None, typer.Option("--rates", help="First rates to try, for all codes.", show_default=False)
    ] = None,
    halvings: Annotated[
        int,
        typer.Option("--halvings", min=0, help="How often a long budget may halve the rate it starts from."),
    ] = 2,
    n_params: Annotated[float, typer.Option("--size", help="Number of parameters.")] = 1e5,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Runs at a time, one thread each.")] = 1,
    amsgrad: Annotated[
        bool, typer.Option("--amsgrad", help="AMSGrad instead of Adam, for all codes.")
    ] = False,
    optimizer: Annotated[
        str,
        typer.Option(
            "--optimizer",
            help="Of all codes: `adamw` or `soap`, with settings as in `soap:every=20`.",
        ),
    ] = "adamw",
    again: Again = False,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", help="Of the results.", show_default="results/accuracy-at-equal-time"),
    ] = None,
    root: Root = None,
) -> None:
    """Train peer codes and our models for the same CPU time on the same frames, and compare their force
    errors.

    Every finished run is kept in `runs.jsonl` of the folder and not done again.

    Example: `SAPIS_DATA=/path/to/data sapis bench accuracy geat painn --data acac --seconds 300 --seeds
    0,1,2`
    """
    from sapis_lab.bench.accuracy import FOLDER, RUNS, run_accuracy
    from sapis_lab.bench.accuracy_log import RunLog
    from sapis_lab.bench.accuracy_table import write_tables
    from sapis_lab.bench.step import words_of

    names, place = [code.replace(":", ",") for code in codes or []], folder or home() / FOLDER
    first = numbers(rates, "--rates") if rates else None
    if names:
        plainly(
            lambda: run_accuracy(
                names,
                data=words_of(data, option="--data"),
                seconds=[] if seconds == "none" else numbers(seconds, "--seconds"),
                seeds=[int(seed) for seed in numbers(seeds, "--seeds")],
                tune_seconds=tune_seconds,
                rates=dict.fromkeys(names, first) if first else None,
                halvings=halvings,
                n_params=n_params,
                workers=workers,
                folder=place,
                root=root,
                again=again,
                amsgrad=amsgrad,
                optimizer=optimizer.replace(":", ","),
            )
        )
    elif not (place / RUNS).is_file():
        raise ConfigError(
            f"{place / RUNS} is not there: nothing has been measured; name codes, as in: sapis bench "
            f"accuracy geat painn"
        )
    stdout_console().print(
        Text(plainly(lambda: write_tables(RunLog(place / RUNS).read(), place))), soft_wrap=True
    )


@app.command("engine")
def bench_engine(
    n_points: Annotated[int, typer.Option("--points", min=2, help="Points of the lattice.")] = 40,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="Training time of a point, s.")] = 2.0,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Points at a time.")] = 2,
    model: Annotated[
        str, typer.Option("--model", help="Name of a file in configs/models/, without `.yaml`.")
    ] = "geat",
    json_file: Json = None,
) -> None:
    """Time a lattice of short points against the sum of their training times, the start of the workers apart.

    The data and the training are those of the study quickstart. Exit status: 1 if a point failed.

    Example: `sapis bench engine --points 40 --seconds 2 --workers 2`
    """
    save = keeper(json_file, "engine")
    from sapis_lab.bench.engine import Plan, run_engine

    plan = Plan(model=model, n_points=n_points, seconds=seconds, workers=workers)
    raise typer.Exit(run_engine(plan, cache=None, save=save, console=stdout_console()))


@app.command("optimizers")
def bench_optimizers(
    model: Annotated[
        str, typer.Option("--model", help="A model of this package, with options: `geat:lmax=1`.")
    ] = "geat",
    sizes: Sizes = "3e3,1e5,1e6",
    inputs: Inputs = "mol15x5,eth16",
    rounds: Rounds = 9,
    visit: Visit = 0.5,
    json_file: Json = None,
) -> None:
    """Time the share that each optimiser has of a training step, in interleaved rounds.

    Every optimiser trains a copy of the model; what is timed is the CPU time of one thread, of whole steps
    and of the optimiser within them. Exit status: 1 if a measurement failed.

    Example: `sapis bench optimizers --sizes 3e3,1e5,1e6 --inputs mol15x5,eth16 --json shares.json`
    """
    save = keeper(json_file, "optimizers")
    from sapis_lab.bench.measure import Settings
    from sapis_lab.bench.optimizers import run_optimizers
    from sapis_lab.bench.step import sizes_of, words_of

    status = run_optimizers(
        model=model,
        sizes=sizes_of(sizes),
        inputs=words_of(inputs, option="--inputs"),
        settings=Settings(rounds=rounds, visit_seconds=visit),
        save=save,
        console=stdout_console(),
    )
    raise typer.Exit(status)


@app.command("pack")
def bench_pack(
    model: Annotated[
        str, typer.Option("--model", help="A model of this package, with options: `geat:lmax=1`.")
    ] = "geat",
    sizes: Sizes = "3e3,1e4,1e5",
    models_at_once: Annotated[
        str, typer.Option("--models-at-once", "-k", help="Numbers of models k that are trained as one.")
    ] = "1,4,8",
    rounds: Rounds = 5,
    visit: Visit = 0.5,
    device: Annotated[str, typer.Option("--device", help="`cpu`, `cuda` or `cuda:K`.")] = "cpu",
    json_file: Json = None,
) -> None:
    """Time training steps of k small models packed into one batched model, against k single steps.

    Single steps are taken in PyTorch alone and with the C++ kernel; on a CPU its CPU time is taken, on a GPU
    synchronised wall time. Exit status: 1 if a measurement failed or packed gradients are not the single
    ones.

    Example: `sapis bench pack --sizes 3e3,1e4,1e5 -k 1,4,8 --json pack.json`
    """
    save = keeper(json_file, "pack")
    from sapis_lab.bench.measure import Settings
    from sapis_lab.bench.pack import run_pack
    from sapis_lab.bench.step import sizes_of

    settings = Settings(rounds=rounds, visit_seconds=visit, device=device)
    status = run_pack(
        model=model,
        sizes=sizes_of(sizes),
        n_models=counts(models_at_once, "--models-at-once"),
        settings=settings,
        save=save,
        console=stdout_console(),
    )
    raise typer.Exit(status)


@app.command("loader")
def bench_loader(
    loaders: Annotated[
        str,
        typer.Option("--loaders", help="Of `sapis`, `pyg`, `lmdb`, `zarr`; times are those of the first."),
    ] = "sapis,pyg,lmdb,zarr",
    frames: Annotated[float, typer.Option("--frames", min=100, help="Frames of the training set.")] = 2e4,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Frames of a batch.")] = 32,
    rounds: Rounds = 9,
    visit: Annotated[
        float, typer.Option("--visit", min=0, help="Length of a visit, s of CPU; at least one batch.")
    ] = 0.5,
    json_file: Json = None,
) -> None:
    """Time the batches of this package's loader, of PyTorch Geometric, of LMDB and of Zarr, in interleaved
    rounds.

    All give the same of the same frames, in one process. Loaders whose package is not installed are left
    out. Exit status: 1 if one gave another batch.

    Example: `sapis bench loader --json loader.json`
    """
    save = keeper(json_file, "loader")
    from sapis_lab.bench.loader import Plan, run_loader
    from sapis_lab.bench.step import words_of

    plan = Plan(
        loaders=tuple(words_of(loaders, option="--loaders")),
        n_frames=int(frames),
        batch_size=batch_size,
        rounds=rounds,
        visit_seconds=visit,
    )
    if batch_size > plan.n_frames - 2:
        raise ConfigError(f"--batch-size {batch_size}: wanted at most --frames less 2, {plan.n_frames - 2}")
    raise typer.Exit(run_loader(plan, save=save, console=stdout_console()))


@app.command("store")
def bench_store(
    frames: Annotated[float, typer.Option("--frames", min=100, help="Frames of 9 atoms.")] = 1e6,
    cutoff: Annotated[float, typer.Option("--cutoff", min=0.5, help="Of the neighbour table, Å.")] = 1.6,
    readers: Annotated[
        int, typer.Option("--readers", min=1, help="Processes that read batches at a time.")
    ] = 4,
    workers: Annotated[
        str, typer.Option("--workers", help="Processes that make the neighbour table, as in `1,2`.")
    ] = "1,2",
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder", help="Where the store is made, and removed.", show_default="of temporary files"
        ),
    ] = None,
    json_file: Json = None,
) -> None:
    """Measure a store of very many frames: bytes, appending, sealing, opening, reading, time and memory.

    Every part is a process of its own, whose memory is watched. 10⁷ frames take 7 GB of disk and some
    minutes.

    Example: `sapis bench store --frames 1e7 --json store.json`
    """
    save = keeper(json_file, "store")
    from sapis_lab.bench.store import Plan, run_store

    if folder is not None and not folder.is_dir():
        raise ConfigError(f"--folder {folder}: there is no such folder")
    plan = Plan(int(frames), cutoff, readers, tuple(counts(workers, "--workers")))
    raise typer.Exit(run_store(plan, folder=folder, save=save, console=stdout_console()))


@app.command("lammps")
def bench_lammps(
    model: Annotated[
        str, typer.Option("--model", help="A GEAT of this package, with options: `geat:lmax=1`.")
    ] = "geat",
    size: Annotated[float, typer.Option("--size", help="Number of parameters.")] = 1e5,
    atoms: Annotated[
        str, typer.Option("--atoms", help="Numbers of silicon atoms, each met from above by whole cells.")
    ] = "100,1000,10000",
    ways: Annotated[
        str, typer.Option("--ways", help="MPI ranks x threads of each, as in `1x1,2x1,1x2`.")
    ] = "1x1,2x1,1x2",
    precision: Annotated[str, typer.Option("--precision", help="`double` or `single`.")] = "double",
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Runs of every measurement.")] = 3,
    visit: Annotated[
        float, typer.Option("--visit", min=0, help="Length of a run, s; at least one step.")
    ] = 2.0,
    json_file: Json = None,
) -> None:
    """Time dynamics of silicon under a GEAT in LAMMPS, by numbers of atoms, MPI ranks and threads.

    The plugin of `sapis export --to lammps` is built for the `lammps` package of this Python; the weights are
    not trained. Wall time, and memory of the largest process. Exit status: 1 if a run failed.

    Example: `sapis bench lammps --atoms 100,1000,10000,100000 --ways 1x1,2x1 --json lammps.json`
    """
    save = keeper(json_file, "lammps")
    from sapis_lab.bench.lammps import Plan, run_lammps, ways_of

    plan = Plan(
        model=model,
        size=size,
        n_atoms=tuple(counts(atoms, "--atoms")),
        ways=ways_of(ways),
        precision=precision,
        rounds=rounds,
        visit_seconds=visit,
    )
    raise typer.Exit(run_lammps(plan, save=save, console=stdout_console()))


@app.command("device")
def bench_device(
    name: Annotated[
        str | None,
        typer.Option("--name", help="Of the results; by default that of the device.", show_default=False),
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=10, help="Time that all parts may take.")
    ] = 480.0,
    parts: Annotated[
        str,
        typer.Option(
            "--parts",
            help="Of `steps`, `dynamics`, `suite`, `precision`, `sharing`, `ranks`, `compiled`; or all.",
            show_default=False,
        ),
    ] = "",
    device: Annotated[
        str, typer.Option("--device", help="`auto`, `cuda`, `cuda:K`, or `cpu` for a rehearsal.")
    ] = "auto",
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the results.", show_default="results/device/NAME"),
    ] = None,
) -> None:
    """Measure GEAT on the CUDA device of this machine, within --seconds.

    Training steps by form (eager, CUDA graph, compiled kernel), size and input; dynamics of silicon as
    fairchem times it; the tests that need a GPU; what TF32 and bfloat16 cost; several models on one device;
    process groups; inductor. Every part has a process and a share of the time of its own. Without a device
    all of it is rehearsed on the CPU with tiny sizes, and written to a temporary folder. Exit status: 1 if
    anything failed.

    Example: `sapis bench device --seconds 480`
    """
    from sapis_lab.bench.device.run import chosen, run_device
    from sapis_lab.bench.step import words_of

    status = run_device(
        name=name,
        seconds=seconds,
        out=out,
        device=device,
        parts=chosen(words_of(parts, option="--parts") if parts else []),
        console=stdout_console(),
    )
    raise typer.Exit(status)
