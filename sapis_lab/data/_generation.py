"""Generating labelled trajectories in atomic blocks, by worker processes, so that an interruption at any
moment changes nothing.

A trajectory is a chain of blocks. A block is one .npz file, written aside and moved into place; it holds its
frames and the state it ends in. Block b starts from the end of block b - 1 with random numbers from the seed
(seed, trajectory, b), and every label is a function of its geometry alone (see `oracles`), so its bytes
follow from the settings, whichever process makes it and however often it was killed before. (On one kind of
processor: another may round differently, and after a picosecond of dynamics the frames are other ones.)

One process makes one trajectory: `python -m sapis_lab.data._generation` with the task as JSON on its standard
input. A fresh interpreter rather than multiprocessing: it works from notebooks and from standard input,
inherits no threads, has OMP_NUM_THREADS=1 before tblite is loaded, and (on Linux) asks the kernel to be
killed with its parent.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from sapis_lab.config import Config, composed_kind
from sapis_lab.data._base import Progress
from sapis_lab.errors import ConfigError, DiskError, disk_error
from sapis_lab.files import make_folder, read_bytes, replacing
from sapis_lab.integrators.langevin import State
from sapis_lab.jobs.processes import die_with
from sapis_lab.oracles import Failed, Labels, OracleConfig
from sapis_lab.samplers import SamplerConfig

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
    cell: tuple[tuple[float, float, float], ...] | None = None
    """Lattice vectors, Å; none for a molecule."""
    pbc: tuple[bool, bool, bool] = (False, False, False)
    """Periodic along which of them."""
    oracle: composed_kind("oracles", OracleConfig)  # type: ignore[valid-type]
    """The surface that is sampled and that labels the frames."""
    sampler: composed_kind("samplers", SamplerConfig)  # type: ignore[valid-type]
    """How it is sampled."""
    columns: tuple[str, ...] = ()
    """What is kept of the labels besides energy and forces: of stress, charges, dipole."""
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
    """Labelled frames of one structure, and the state they end in."""

    positions: np.ndarray
    """(n_frames, n_atoms, 3) Å; of a molecule, with its centre of mass at the origin."""
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
    failed: tuple[str, ...]
    """Why frames of this block could not be labelled; they are left out."""
    more: dict[str, np.ndarray]
    """Further labels by column, (n_frames, ...)."""


def make_block(task: TrajectoryTask, block: int) -> Block:
    """Block number `block` of the trajectory; the previous block must exist.

    Raises:
        RuntimeError: the oracle fails on the way from one frame to the next: the trajectory cannot go on.
    """
    species, masses = np.array(task.species), np.array(task.masses)
    generator = np.random.default_rng([task.seed, task.trajectory, block])
    moving = task.oracle.for_dynamics()

    def label(oracle: OracleConfig, x: np.ndarray) -> Labels | Failed:
        if not any(task.pbc):
            return oracle.label(species, x)
        return oracle.label(species, x, cell=np.array(task.cell), pbc=np.array(task.pbc))

    def force(x: np.ndarray) -> np.ndarray:
        found = label(moving, x)
        if isinstance(found, Failed):
            raise RuntimeError(
                f"{task.oracle.kind} failed during the dynamics: {found.reason}; lower the temperature or "
                f"the timestep"
            )
        return found.forces

    def advance(state: State, n_steps: int) -> State:
        return task.sampler.advance(state, force, masses=masses, n_steps=n_steps, generator=generator)

    if block == 0:
        start = task.sampler.start(np.array(task.positions), masses=masses, generator=generator)
        state = advance(start, task.n_equilibration_steps)
    else:
        before = read_block(task.block_file(block - 1))
        state = State(before.end_positions, before.end_momenta)
    first = block * task.block_frames
    numbers = range(first, min(first + task.block_frames, task.n_frames))
    frames: list[tuple[float, State, Labels]] = []
    failed = []
    for number in numbers:
        state = advance(state, task.n_interval_steps)
        x = state.positions if any(task.pbc) else state.positions - masses @ state.positions / masses.sum()
        found = label(task.oracle, x)
        since = (number + 1.0) * task.n_interval_steps * task.sampler.timestep
        if isinstance(found, Failed):
            failed.append(f"frame {number} of trajectory {task.trajectory}: {found.reason}")
        else:
            frames.append((since, State(x, state.momenta / masses[:, None]), found))
    return _block(task, frames, state, tuple(failed))


def _block(
    task: TrajectoryTask, frames: list[tuple[float, State, Labels]], end: State, failed: tuple[str, ...]
) -> Block:
    n = len(task.species)
    return Block(
        positions=np.array([s.positions for _, s, _ in frames]).reshape(-1, n, 3),
        velocities=np.array([s.momenta for _, s, _ in frames]).reshape(-1, n, 3),
        energy=np.array([label.energy for _, _, label in frames]),
        forces=np.array([label.forces for _, _, label in frames]).reshape(-1, n, 3),
        time=np.array([since for since, _, _ in frames]),
        end_positions=end.positions,
        end_momenta=end.momenta,
        failed=failed,
        more={name: np.array([getattr(label, name) for _, _, label in frames]) for name in task.columns},
    )


_MORE = "more-"


def write_block(path: Path, block: Block) -> None:
    """Write a block in one step."""
    plain = {name: value for name, value in block._asdict().items() if name not in ("failed", "more")}
    plain["failed"] = np.array(block.failed, dtype=str)
    with replacing(path) as temporary, temporary.open("wb") as f:
        np.savez(f, **plain, **{_MORE + name: value for name, value in block.more.items()})  # type: ignore[arg-type]


def read_block(path: Path) -> Block:
    """The block at `path`. ConfigError when it is damaged."""
    data = io.BytesIO(read_bytes(path))
    try:
        with np.load(data, allow_pickle=False) as archive:
            more = {
                name.removeprefix(_MORE): archive[name] for name in archive.files if name.startswith(_MORE)
            }
            failed = tuple(str(text) for text in archive["failed"]) if "failed" in archive.files else ()
            return Block(**{name: archive[name] for name in Block._fields[:-2]}, failed=failed, more=more)
    except (
        ValueError,
        LookupError,
        EOFError,
        OSError,
        AttributeError,
        NotImplementedError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        # AttributeError: what is no archive but a single array
        raise ConfigError(
            f"{path}: cannot be read ({error}); remove it, and the blocks after it, to have them labelled "
            f"again"
        ) from None


def generate(tasks: Sequence[TrajectoryTask], *, n_workers: int, progress: Progress, what: str) -> None:
    """Make all blocks that are missing, with up to `n_workers` trajectories at a time. RuntimeError carries
    what a failed worker wrote, DiskError what the disk did not take."""
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
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        env={**os.environ, **one_thread, "PYTHONPATH": path},
    )
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
        raise RuntimeError(
            f"generating trajectory {task.trajectory} in {task.folder} failed with exit status "
            f"{process.returncode}; "
            f"finished blocks are kept, start again to continue. The worker wrote:\n{text[-3000:]}"
        )


def main() -> None:
    """Make the missing blocks of the one trajectory described on standard input."""
    die_with(int(sys.argv[1]))
    task = TrajectoryTask.model_validate_json(sys.stdin.buffer.read())
    try:
        make_folder(task.folder)
        for block in range(task.n_blocks):
            if not task.block_file(block).exists():
                write_block(task.block_file(block), make_block(task, block))
    except OSError as error:
        message = disk_error(error, about=task.folder)
        if message is None:
            raise
        print(message, file=sys.stderr)
        sys.exit(_DISK)


if __name__ == "__main__":
    main()
