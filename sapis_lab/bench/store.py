"""What a store of very many frames costs: room, time and memory of filling, sealing, opening and reading it
(`sapis bench store`).

The frames are ethanol, 9 atoms, displaced at random; one block of them is made and appended again and again
with other energies, so that making them is not in the times. Every part is a process of its own: its memory
begins anew, and is looked at from outside every few milliseconds. Two sorts of memory are told apart:

    own      anonymous pages (RssAnon of /proc/PID/status) above those after the imports: what a process
             really takes; the largest that was seen
    mapped   pages of mapped files (RssFile): the system shares them between processes, and takes them back
             when it wants room

CPU time stands beside wall time, since other programs disturb the latter. Bytes that were just written lie in
the system's memory, and every reader reads for a while before it is timed: its rate is that of a warm store.
"""

from __future__ import annotations

import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.text import Text

from sapis_lab.config import ConfigError
from sapis_lab.data import Frames, FrameStore
from sapis_lab.screen import new_table

BLOCK = 100_000
"""Frames of an append."""
SMALL = 100
"""Frames of a small append, as conversions of many small files make them."""
N_SMALL = 100
BATCH = 32
READ_SECONDS = 2.0
"""CPU time of reading. Pages that are touched for the first time are mapped within the first of them."""
SAMPLE_SECONDS = 0.005
BYTES_PER_FRAME = 600
"""A little more than such a frame takes with its share of a short neighbour table; to refuse a disk that is
too small."""


class Plan(NamedTuple):
    """What is measured."""

    n_frames: int
    cutoff: float
    """of the neighbour table, Å"""
    n_readers: int
    workers: tuple[int, ...]
    """processes that make the neighbour table, one measurement each"""


class Part(NamedTuple):
    """One process: what it returned, and the memory that was seen of it."""

    facts: dict[str, float]
    own: float
    """bytes"""
    mapped: float
    """bytes"""


def ethanol(n_frames: int, *, seed: int = 0) -> Frames:
    """`n_frames` of displaced ethanol, with labels of the right shapes and no meaning."""
    from sapis_lab.bench.inputs import thermal_ethanol  # needs torch, which readers of a store do not

    generator = np.random.default_rng(seed)
    species, positions = thermal_ethanol(n_frames, generator)
    n = len(species)
    return Frames(
        n_atoms=np.full(n_frames, n),
        species=np.tile(species, n_frames),
        positions=positions.reshape(-1, 3),
        cell=np.zeros((n_frames, 3, 3)),
        pbc=np.zeros((n_frames, 3), bool),
        energy=generator.normal(-4209.0, 0.2, n_frames),
        forces=generator.normal(size=(n_frames * n, 3)).astype(np.float32),
    )


# ------------------------------------------------------------------------------------- parts, each a process


def fill(folder: Path, n_frames: int) -> dict[str, float]:
    """Append all frames in blocks."""
    block = ethanol(min(BLOCK, n_frames))
    store = FrameStore.create(folder)
    wall, cpu = time.perf_counter(), time.process_time()
    for first in range(0, n_frames, BLOCK):
        n = min(BLOCK, n_frames - first)
        block.energy[:] += 1e-3
        store.append(block if n == BLOCK else _first(block, n))
    return _took(wall, cpu)


def _first(block: Frames, n: int) -> Frames:
    per_atom = {name: getattr(block, name)[: 9 * n] for name in ("species", "positions", "forces")}
    per_frame = {name: getattr(block, name)[:n] for name in ("n_atoms", "cell", "pbc", "energy")}
    return Frames(**per_atom, **per_frame)


def small_appends(folder: Path, gathered: bool) -> dict[str, float]:
    """Many small appends, each brought to the disk by itself, or gathered."""
    from contextlib import nullcontext

    block = ethanol(SMALL)
    store = FrameStore.create(folder)
    wall, cpu = time.perf_counter(), time.process_time()
    with store.gathered() if gathered else nullcontext():
        for _ in range(N_SMALL):
            store.append(block)
    return _took(wall, cpu)


def seal(folder: Path) -> dict[str, float]:
    """Write splits that name every frame."""
    from sapis_lab.data import nested_order

    store = FrameStore.open(folder, writable=True)
    n = store.n_frames
    few = max(1, n // 100)
    begin, cpu = time.perf_counter(), time.process_time()
    order = nested_order(n, seed=0)
    ordered = time.perf_counter() - begin
    wall, cpu = time.perf_counter(), time.process_time()
    store.seal(
        splits={"train": order[2 * few :], "validation": order[:few], "test": order[few : 2 * few]},
        metadata={},
    )
    return {**_took(wall, cpu), "order": ordered}


def open_store(folder: Path) -> dict[str, float]:
    """Open a sealed store, its splits, and one frame."""
    wall, cpu = time.perf_counter(), time.process_time()
    store = FrameStore.open(folder)
    train = store.splits["train"]
    store.frames(train[:1])
    return _took(wall, cpu)


def read(folder: Path) -> dict[str, float]:
    """Frames of random batches, joined."""
    store = FrameStore.open(folder)
    generator = np.random.default_rng(1)

    def fifty() -> int:
        for ids in generator.integers(0, store.n_frames, (50, BATCH)):
            store.frames(ids)
        return 50 * BATCH

    return _repeated(fifty)


def _repeated(work: Callable[[], int]) -> dict[str, float]:
    """Times of `work`, which says how many frames it read, over `READ_SECONDS` after as many that do not
    count."""
    for _ in range(2):
        wall, cpu, n = time.perf_counter(), time.process_time(), 0
        while time.process_time() - cpu < READ_SECONDS:
            n += work()
    return {**_took(wall, cpu), "frames": n}


def table(folder: Path, cutoff: float, n_workers: int) -> dict[str, float]:
    """Make the neighbour table."""
    store = FrameStore.open(folder)
    wall, cpu = time.perf_counter(), time.process_time()
    store.neighbors(cutoff, n_workers=n_workers)
    return _took(wall, cpu)


def train(folder: Path, cutoff: float) -> dict[str, float]:
    """Batches of training, as a step gets them: a model's batch maker and the order of an epoch."""
    from sapis_lab.batches import BatchMaker, TrainingStream

    store = FrameStore.open(folder)
    wall, cpu = time.perf_counter(), time.process_time()
    make = BatchMaker(store, np.zeros(len(store.elements)), layout="edges", cutoff=cutoff)
    stream = TrainingStream(
        make,
        store.splits["train"],
        batch_size=BATCH,
        seed=0,
        augment=False,
        first_step=lambda: 0,
        rank=0,
        world=1,
    )
    stream.share(0)
    first = {"first": time.perf_counter() - wall, "first_cpu": time.process_time() - cpu}
    step = iter(range(1, 10**9))
    return {**_repeated(lambda: len(stream.share(next(step)).batches[0].n_atoms)), **first}


def check(folder: Path) -> dict[str, float]:
    """Compare everything with its checksums."""
    store = FrameStore.open(folder)
    wall, cpu = time.perf_counter(), time.process_time()
    problems = store.problems()
    return {**_took(wall, cpu), "problems": len(problems)}


_WITH_TORCH = (fill, small_appends, train)


def _took(wall: float, cpu: float) -> dict[str, float]:
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


# ----------------------------------------------------------------------------------------------- measurement


def _child(part: Callable[..., dict[str, float]], arguments: Sequence[Any], pipe: Any) -> None:
    if part in _WITH_TORCH:  # before the memory is looked at: what is imported is no part of it
        import torch

        import sapis_lab.batches
        import sapis_lab.bench.inputs  # noqa: F401

        torch.set_num_threads(1)
    pipe.send("ready")
    pipe.recv()
    try:
        pipe.send(part(*arguments))
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")
    pipe.recv()


def memory_of(pid: int) -> tuple[int, int]:
    """Anonymous and mapped pages of a process, bytes."""
    facts = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("RssAnon", "RssFile"):
            facts[name] = 1024 * int(value.split()[0])
    return facts["RssAnon"], facts["RssFile"]


def measure(part: Callable[..., dict[str, float]], *arguments: Any, n: int = 1) -> list[Part]:
    """Run `part` in `n` processes at a time, and watch their memory.

    Raises:
        ConfigError: one of them failed.
    """
    context = multiprocessing.get_context("spawn")
    running = []
    for _ in range(n):
        here, there = context.Pipe()
        process = context.Process(target=_child, args=(part, arguments, there), daemon=True)
        process.start()
        running.append((process, here))
    for _, here in running:
        assert here.recv() == "ready"
    begin = [memory_of(process.pid or 0) for process, _ in running]
    most = [(0, 0)] * n
    for _, here in running:
        here.send("go")
    answers: dict[int, Any] = {}
    while len(answers) < n:
        time.sleep(SAMPLE_SECONDS)
        for k, (process, here) in enumerate(running):
            if k in answers:
                continue
            own, mapped = memory_of(process.pid or 0)
            most[k] = (max(most[k][0], own - begin[k][0]), max(most[k][1], mapped - begin[k][1]))
            if here.poll():
                answers[k] = here.recv()
    for process, here in running:
        here.send("end")
        process.join()
    if failed := [answer for answer in answers.values() if isinstance(answer, str)]:
        raise ConfigError(f"{part.__name__} of the store failed: {failed[0]}")
    return [Part(answers[k], *most[k]) for k in range(n)]


def run_store(
    plan: Plan, *, folder: Path | None, save: Callable[[dict[str, Any]], None], console: Console
) -> int:
    """Measure a store in a folder of its own, which is removed, and print the table; the exit status.

    Raises:
        ConfigError: there is no room for it, or a part failed.
    """
    place = Path(tempfile.mkdtemp(prefix="sapis-store-", dir=folder))
    try:
        if shutil.disk_usage(place).free < BYTES_PER_FRAME * plan.n_frames:
            raise ConfigError(
                f"{place.parent}: {shutil.disk_usage(place).free / 1e9:.1f} GB are free, {plan.n_frames:,} "
                f"frames want {BYTES_PER_FRAME * plan.n_frames / 1e9:.1f}; lower --frames, or name another "
                "--folder"
            )
        rows = _rows(plan, place)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    save({"plan": plan._asdict(), "rows": rows})
    _print(plan, rows, console)
    return 0


def _rows(plan: Plan, place: Path) -> list[dict[str, Any]]:
    store, n = place / "store", plan.n_frames
    rows: list[dict[str, Any]] = []

    def row(what: str, part: Part, *, note: str = "") -> None:
        rows.append({"what": what, **part.facts, "own": part.own, "mapped": part.mapped, "note": note})

    part = measure(fill, store, n)[0]
    size = sum(f.stat().st_size for f in store.glob("*.npy"))
    row(
        f"append, {BLOCK:,} frames at a time",
        part,
        note=f"{size / n:.0f} bytes a frame; {n / part.facts['wall']:,.0f} frames/s",
    )
    for gathered in (False, True) if hasattr(FrameStore, "gathered") else (False,):
        part = measure(small_appends, place / f"small-{gathered}", gathered)[0]
        each = part.facts["wall"] / N_SMALL
        row(
            f"{N_SMALL} appends of {SMALL} frames{', gathered' if gathered else ''}",
            part,
            note=f"{1e3 * each:.2f} ms each; {SMALL / each:,.0f} frames/s",
        )
    part = measure(seal, store)[0]
    row("seal", part, note=f"and {part.facts['order']:.2f} s for the order of the training frames")
    parts = [measure(open_store, store)[0] for _ in range(3)]
    parts.sort(key=lambda part: part.facts["wall"])
    row("open, with splits and one frame", parts[1], note="median of 3")
    row("read, random batches of 32", part := measure(read, store)[0], note=_rate(part))
    for n_workers in plan.workers:
        for old in store.glob("neighbors-*"):
            shutil.rmtree(old)
        part = measure(table, store, plan.cutoff, n_workers)[0]
        row(
            f"neighbour table of {plan.cutoff:g} Å, {n_workers} process{'es' if n_workers > 1 else ''}",
            part,
            note=f"{1e6 * part.facts['wall'] / n:.1f} µs a frame"
            f"{'; CPU and memory are those of the process that writes' if n_workers > 1 else ''}",
        )
    for k, part in enumerate(measure(train, store, plan.cutoff, n=plan.n_readers)):
        row(
            f"training batches, reader {k + 1} of {plan.n_readers}",
            part,
            note=f"first after {part.facts['first_cpu']:.2f} s of CPU; {_rate(part)}",
        )
    row("compare everything with its checksums", part := measure(check, store)[0], note=_found(part.facts))
    return rows


def _found(facts: Mapping[str, float]) -> str:
    return f"{facts['problems']:.0f} problems"


def _rate(part: Part) -> str:
    return (
        f"{part.facts['frames'] / part.facts['wall']:,.0f} frames/s; "
        f"{1e6 * part.facts['cpu'] / part.facts['frames']:.2f} µs CPU a frame"
    )


def _print(plan: Plan, rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    console.print(
        Text(
            f"a store of {plan.n_frames:,} frames of 9 atoms; memory above that of the interpreter, own: "
            "anonymous pages, mapped: pages of files, which processes share"
        ),
        soft_wrap=True,
    )
    columns = ("wall s", "CPU s", "own MB", "mapped MB", "")
    table = new_table("part", *columns, left=["part", ""])
    for row in rows:
        numbers = [f"{row['wall']:.3f}", f"{row['cpu']:.3f}"]
        memory = [f"{row[key] / 1e6:,.0f}" for key in ("own", "mapped")]
        table.add_row(row["what"], *numbers, *memory, row["note"])
    console.print(table)
