"""Generating labelled trajectories in atomic blocks, by worker processes, so that an interruption at any moment changes nothing.

A trajectory is a chain of blocks. A block is one .npz file, written aside and moved into place; it holds its frames and the state it
ends in. Block b starts from the end of block b - 1 with random numbers from the seed (seed, trajectory, b), and every force is computed
cold (see `oracles.xtb.label`), so its bytes follow from the settings alone, whichever process makes it and however often it was killed
before. (On one kind of processor: another may round differently, and after a picosecond of dynamics the frames are other ones.)

One process makes one trajectory: `python -m sapis_lab.data._generation` with the task as JSON on its standard input. A fresh interpreter
rather than multiprocessing: it works from notebooks and from standard input, inherits no threads, has OMP_NUM_THREADS=1 before tblite is
loaded, and (on Linux) asks the kernel to be killed with its parent.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from sapis_lab.config import Config
from sapis_lab.data._base import Progress
from sapis_lab.errors import DiskError, disk_error
from sapis_lab.files import make_folder, replacing
from sapis_lab.oracles._langevin import State, baoab, thermal_momenta
from sapis_lab.oracles.xtb import Method, label

_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.05
_DISK = 74
"""Exit status of a worker whose disk did not take a block; the last line of its errors says so."""


class TrajectoryTask(Config):
    """All that determines one trajectory, and where its blocks go."""

    folder: Path
    """Where the blocks are written."""
    species: tuple[int, ...]
    """Atomic numbers."""
    positions: tuple[tuple[float, float, float], ...]
    """Starting geometry, Å."""
    masses: tuple[float, ...]
    """amu."""
    method: Method
    """xTB parametrisation."""
    temperature: float
    """K."""
    timestep: float
    """fs."""
    friction: float
    """1/fs."""
    n_equilibration_steps: int
    """Steps before the first block, after momenta were drawn."""
    n_interval_steps: int
    """Steps between frames."""
    n_frames: int
    """Frames of this trajectory."""
    block_frames: int
    """Frames per block."""
    seed: int
    """Of the dataset."""
    trajectory: int
    """Number of this trajectory, part of its seed."""

    @property
    def n_blocks(self) -> int:
        return -(-self.n_frames // self.block_frames)

    def block_file(self, block: int) -> Path:
        return self.folder / f"trajectory-{self.trajectory:03d}-block-{block:04d}.npz"


class Block(NamedTuple):
    """Labelled frames of one molecule, and the state they end in."""

    positions: np.ndarray
    """(n_frames, n_atoms, 3) Å, centre of mass at the origin."""
    velocities: np.ndarray
    """(n_frames, n_atoms, 3) Å/fs."""
    energy: np.ndarray
    """(n_frames,) eV."""
    forces: np.ndarray
    """(n_frames, n_atoms, 3) eV/Å."""
    time: np.ndarray
    """(n_frames,) fs since the end of equilibration."""
    end_positions: np.ndarray
    """(n_atoms, 3) Å, where the next block starts."""
    end_momenta: np.ndarray
    """(n_atoms, 3) amu Å/fs."""


MD_ACCURACY = 1.0
"""tblite's accuracy along the trajectory: total energy in NVE then fluctuates by 1.7 meV at 1 fs and drifts by 0.01 meV/ps (ethanol)."""
LABEL_ACCURACY = 0.01
"""tblite's accuracy of the stored labels."""


def make_block(task: TrajectoryTask, block: int) -> Block:
    """Block number `block` of the trajectory; the previous block must exist."""
    species, masses = np.array(task.species), np.array(task.masses)
    generator = np.random.default_rng([task.seed, task.trajectory, block])

    def force(x: np.ndarray) -> np.ndarray:
        return label(species, x, method=task.method, accuracy=MD_ACCURACY).forces

    def advance(state: State, n_steps: int) -> State:
        return baoab(
            state, force, masses=masses, temperature=task.temperature, friction=task.friction, timestep=task.timestep, n_steps=n_steps,
            generator=generator,
        )  # fmt: skip

    if block == 0:
        start = State(np.array(task.positions), thermal_momenta(masses, temperature=task.temperature, generator=generator))
        state = advance(start, task.n_equilibration_steps)
    else:
        before = read_block(task.block_file(block - 1))
        state = State(before.end_positions, before.end_momenta)
    first = block * task.block_frames
    numbers = range(first, min(first + task.block_frames, task.n_frames))
    frames = []
    for _ in numbers:
        state = advance(state, task.n_interval_steps)
        x = state.positions - masses @ state.positions / masses.sum()
        frames.append((x, state.momenta / masses[:, None], *label(species, x, method=task.method, accuracy=LABEL_ACCURACY)))
    x, v, e, f = (np.array(column) for column in zip(*frames, strict=True))
    times = (np.array(numbers) + 1.0) * task.n_interval_steps * task.timestep
    return Block(x, v, e, f, times, state.positions, state.momenta)


def write_block(path: Path, block: Block) -> None:
    """Write a block in one step."""
    with replacing(path) as temporary, temporary.open("wb") as f:
        np.savez(f, **block._asdict())


def read_block(path: Path) -> Block:
    """The block at `path`."""
    with np.load(path, allow_pickle=False) as archive:
        return Block(*(archive[name] for name in Block._fields))


def generate(tasks: Sequence[TrajectoryTask], *, n_workers: int, progress: Progress, what: str) -> None:
    """Make all blocks that are missing, with up to `n_workers` trajectories at a time. RuntimeError carries what a failed worker wrote,
    DiskError what the disk did not take."""
    done: dict[int, int] = dict.fromkeys(range(len(tasks)), 0)
    waiting = [k for k in range(len(tasks)) if _frames_done(tasks[k], done, k) < tasks[k].n_frames]
    running: dict[int, tuple[subprocess.Popen[bytes], IO[bytes]]] = {}
    total = sum(t.n_frames for t in tasks)
    reported = -1
    try:
        while waiting or running:
            while waiting and len(running) < max(1, n_workers):
                k = waiting.pop(0)
                running[k] = _start(tasks[k])
            time.sleep(_POLL_SECONDS)
            for k, (process, errors) in list(running.items()):
                if process.poll() is not None:
                    del running[k]
                    _raise_if_failed(tasks[k], process, errors)
            n_done = sum(_frames_done(tasks[k], done, k) for k in range(len(tasks)))
            if n_done != reported:
                progress(what, n_done, total)
                reported = n_done
    finally:
        for process, errors in running.values():
            process.kill()
            process.wait()
            errors.close()


def _frames_done(task: TrajectoryTask, done: dict[int, int], k: int) -> int:
    # Blocks appear in order, so only the next one is looked for: one stat per trajectory and poll.
    while done[k] < task.n_blocks and task.block_file(done[k]).exists():
        done[k] += 1
    return min(done[k] * task.block_frames, task.n_frames)


def _start(task: TrajectoryTask) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    package_home = str(Path(__file__).resolve().parent.parent.parent)
    path = os.pathsep.join(p for p in (package_home, os.environ.get("PYTHONPATH")) if p)
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed by the caller; a pipe could fill up and stall the worker)
    process = subprocess.Popen(
        [sys.executable, "-m", "sapis_lab.data._generation", str(os.getpid())],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors, env={**os.environ, **one_thread, "PYTHONPATH": path},
    )  # fmt: skip
    assert process.stdin is not None
    try:
        process.stdin.write(task.model_dump_json().encode())
        process.stdin.close()
    except BrokenPipeError:
        pass  # It died at once; its exit status and what it wrote are reported by the caller.
    return process, errors


def _raise_if_failed(task: TrajectoryTask, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
    errors.seek(0)
    text = errors.read().decode(errors="replace").strip()
    errors.close()
    if process.returncode == _DISK and text:
        raise DiskError(text.splitlines()[-1])
    if process.returncode:
        raise RuntimeError(f"generating trajectory {task.trajectory} in {task.folder} failed with exit status {process.returncode}; "
                           f"finished blocks are kept, start again to continue. The worker wrote:\n{text[-3000:]}")  # fmt: skip


def die_with_parent(parent: int) -> None:
    """Ask Linux to kill this process when its parent ends; exits at once if process `parent` is already gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(f"process {parent}, which asked for this work, is gone")


def main() -> None:
    """Make the missing blocks of the one trajectory described on standard input."""
    die_with_parent(int(sys.argv[1]))
    task = TrajectoryTask.model_validate_json(sys.stdin.buffer.read())
    try:
        make_folder(task.folder)
        for block in range(task.n_blocks):
            if not task.block_file(block).exists():
                write_block(task.block_file(block), make_block(task, block))
    except OSError as error:
        told = disk_error(error, about=task.folder)
        if told is None:
            raise
        print(told, file=sys.stderr)
        sys.exit(_DISK)


if __name__ == "__main__":
    main()
