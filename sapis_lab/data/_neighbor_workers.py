"""Neighbour lists of a store, by several processes: `python -m sapis_lab.data._neighbor_workers`.

Every worker opens the store itself. It reads lines on its standard input, the first and last frame of a
chunk, and writes for each a line of JSON and then the bytes of the chunk's arrays. The chunks go round the
workers and are read in the same order, each worker computing one while another waits to be read. Fresh
interpreters rather than multiprocessing, for the reasons that `_generation` gives.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import numpy as np

from sapis_lab.data._arrays import GrowingArrays
from sapis_lab.data._edge_chunks import StoredFrames, chunk_bounds, edge_chunk
from sapis_lab.jobs.processes import die_with

_ARRAYS = {"n_edges": ("<i8", ()), "center": ("<i4", ()), "neighbor": ("<i4", ()), "shift": ("|i1", (3,))}


def edge_chunks_of_workers(
    store: StoredFrames, cutoff: float, *, first: int, n_workers: int
) -> Generator[tuple[int, int, dict[str, np.ndarray]]]:
    """What `edge_chunks` gives, by `n_workers` processes.

    Raises:
        ValueError: as `neighbor_list`.   RuntimeError: a worker ended; what it wrote is in the message.
    """
    with contextlib.ExitStack() as stack:
        workers = [_Worker(store.folder, cutoff) for _ in range(n_workers)]
        for worker in workers:
            stack.callback(worker.close)
        asked: list[tuple[_Worker, int, int]] = []
        for k, (begin, end) in enumerate(chunk_bounds(store, first)):
            if len(asked) == 2 * n_workers:
                yield _answer(asked)
            worker = workers[k % n_workers]
            worker.ask(begin, end)
            asked.append((worker, begin, end))
        while asked:
            yield _answer(asked)


def _answer(asked: list[tuple[_Worker, int, int]]) -> tuple[int, int, dict[str, np.ndarray]]:
    worker, begin, end = asked.pop(0)
    return begin, end, worker.answer(begin, end)


class _Worker:
    """A process that computes chunks."""

    def __init__(self, folder: Path, cutoff: float) -> None:
        package_home = str(Path(__file__).resolve().parent.parent.parent)
        path = os.pathsep.join(p for p in (package_home, os.environ.get("PYTHONPATH")) if p)
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the worker)
        module = "sapis_lab.data._neighbor_workers"
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, str(os.getpid()), str(folder), repr(cutoff)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env={**os.environ, **one_thread, "PYTHONPATH": path},
        )

    def ask(self, first: int, last: int) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended; its answer will say so
            self.process.stdin.write(f"{first} {last}\n".encode())
            self.process.stdin.flush()

    def answer(self, first: int, last: int) -> dict[str, np.ndarray]:
        """The arrays of the chunk that was asked for first."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        told = json.loads(line) if line.endswith(b"\n") else {}
        if "error" in told:
            raise ValueError(told["error"])
        arrays = {}
        for name, (dtype, row) in _ARRAYS.items():
            shape = (last - first if name == "n_edges" else told.get("n_edges", 0), *row)
            n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
            data = self.process.stdout.read(n_bytes) if told else b""
            if not told or len(data) != n_bytes:
                self._raise_ended(first, last)
            arrays[name] = np.frombuffer(data, dtype).reshape(shape)
        return arrays

    def _raise_ended(self, first: int, last: int) -> None:
        self.process.kill()
        self.process.wait()
        self.errors.seek(0)
        text = self.errors.read().decode(errors="replace").strip()
        raise RuntimeError(
            f"a process that computed neighbours of frames {first} to {last - 1} ended with exit status "
            f"{self.process.returncode}; what is done is kept, start again to continue. It wrote:\n"
            f"{text[-3000:]}"
        )

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.errors):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


class _Frames:
    """What a chunk takes from a store."""

    def __init__(self, folder: Path) -> None:
        arrays = GrowingArrays.open(folder)
        self.folder, self.n_frames = folder, arrays.n("offsets") - 1
        self.offsets, self.positions = arrays["offsets"], arrays["positions"]
        self.cell, self.pbc = arrays["cell"], arrays["pbc"]


def main() -> None:
    """Compute the chunks that are asked for on standard input, until it ends."""
    die_with(int(sys.argv[1]))
    store, cutoff, out = _Frames(Path(sys.argv[2])), float(sys.argv[3]), sys.stdout.buffer
    for line in sys.stdin:
        first, last = map(int, line.split())
        try:
            arrays = edge_chunk(store, first, last, cutoff)
        except ValueError as error:
            out.write(json.dumps({"error": str(error)}).encode() + b"\n")
            out.flush()
            return
        out.write(json.dumps({"n_edges": len(arrays["center"])}).encode() + b"\n")
        for name, (dtype, _) in _ARRAYS.items():
            out.write(np.ascontiguousarray(arrays[name], dtype=dtype).tobytes())
        out.flush()


if __name__ == "__main__":
    main()
