"""What batches cost: this package's loader beside PyTorch Geometric, LMDB and Zarr (`sapis bench loader`).

All give what a training step wants of the same frames, 32 molecules of ethanol at random: positions
(float32), species, directed edges within 5 Å, energies, forces, and the frame of every atom, as tensors. All
run in one process without workers, and in turn: a visit to each, round by round. Each is written as its users
write it:

    sapis   the training stream of a frame store with its neighbour table (memory mapped)
    pyg     an InMemoryDataset of Data objects, in a DataLoader of PyTorch Geometric
    lmdb    one value a frame, a pickled dictionary of NumPy arrays; a Dataset in torch's DataLoader, whose
            collate_fn joins the arrays and makes tensors of them
    zarr    one array a quantity, chunks along the frames, edges padded to the largest number; a Dataset in
            torch's DataLoader that selects the frames of a batch from every array at once

Before anything is timed, each one's batch of the same frames is compared with the store's.
"""

from __future__ import annotations

import pickle
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from rich.console import Console
from rich.text import Text
from torch import Tensor

from sapis_lab.batches import BatchMaker, TrainingStream
from sapis_lab.bench.inputs import CUTOFF
from sapis_lab.bench.store import ethanol
from sapis_lab.config import ConfigError
from sapis_lab.data import FrameStore, nested_order
from sapis_lab.graphs import EdgeGraph
from sapis_lab.screen import new_table

ZARR_CHUNK = 64
"""Frames; 16, 256 and 1,024 took the same for 32 frames at random, 30 ms of CPU, within the noise."""
WARM_SECONDS = 5.0
FIELDS = ("positions", "species", "batch", "edge_index", "energy", "forces")


class Plan(NamedTuple):
    """What is measured."""

    loaders: tuple[str, ...]
    n_frames: int
    batch_size: int
    rounds: int
    visit_seconds: float


class Loader(Protocol):
    """Gives batches of one training set."""

    def steps(self) -> Iterator[Any]:
        """Batches of random frames, without end."""

    def batch(self, ids: np.ndarray) -> dict[str, Tensor]:
        """The batch of given frames, by `FIELDS`."""


def make_store(folder: Path, n_frames: int) -> FrameStore:
    """A sealed store of ethanol, nearly all of it for training, with its neighbour table."""
    store = FrameStore.create(folder)
    store.append(ethanol(n_frames))
    order = nested_order(n_frames, seed=0)
    store.seal(splits={"train": order[2:], "validation": order[:1], "test": order[1:2]}, metadata={})
    store = FrameStore.open(folder)
    store.neighbors(CUTOFF)
    return store


class SapisLoader:
    """The training stream of a store, in the layout of edges."""

    def __init__(self, store: FrameStore, folder: Path, batch_size: int) -> None:
        self.make = BatchMaker(store, np.zeros(len(store.elements)), layout="edges", cutoff=CUTOFF)
        self.stream = TrainingStream(
            self.make,
            store.splits["train"],
            batch_size=batch_size,
            seed=0,
            augment=False,
            first_step=lambda: 0,
            rank=0,
            world=1,
        )

    def steps(self) -> Iterator[Any]:
        return iter(self.stream)

    def batch(self, ids: np.ndarray) -> dict[str, Tensor]:
        made = self.make(ids)
        assert isinstance(made.graph, EdgeGraph)
        return {name: getattr(made, name) for name in FIELDS}


class _Frame(NamedTuple):
    """A frame as the other loaders store it."""

    species: np.ndarray
    positions: np.ndarray
    edge_index: np.ndarray
    energy: np.ndarray
    forces: np.ndarray


def frames_of(store: FrameStore) -> Iterator[_Frame]:
    """The frames of a store, one by one."""
    table = store.neighbors(CUTOFF)
    for k in range(store.n_frames):
        one, edges = store.frames(np.array([k])), table.edges(np.array([k]))
        yield _Frame(
            one.species.astype(np.int64),
            one.positions.astype(np.float32),
            np.stack([edges.neighbor, edges.center]).astype(np.int64),
            one.energy.astype(np.float32),
            one.forces,
        )


class PygLoader:
    """An InMemoryDataset in a DataLoader of PyTorch Geometric."""

    def __init__(self, store: FrameStore, folder: Path, batch_size: int) -> None:
        from torch_geometric.data import Batch, Data, InMemoryDataset
        from torch_geometric.loader import DataLoader

        class Ethanol(InMemoryDataset):
            def __init__(self, frames: list[Data]) -> None:
                super().__init__()
                self.data, self.slices = self.collate(frames)

        def data(frame: _Frame) -> Data:
            return Data(
                z=torch.from_numpy(frame.species),
                pos=torch.from_numpy(frame.positions),
                edge_index=torch.from_numpy(frame.edge_index),
                energy=torch.from_numpy(frame.energy),
                forces=torch.from_numpy(frame.forces),
            )

        self.join = Batch.from_data_list
        self.dataset = Ethanol([data(frame) for frame in frames_of(store)])
        self.loader = DataLoader(self.dataset, batch_size=batch_size, shuffle=True)

    def steps(self) -> Iterator[Any]:
        while True:
            yield from self.loader

    def batch(self, ids: np.ndarray) -> dict[str, Tensor]:
        made = self.join([self.dataset[int(k)] for k in ids])
        names = {"positions": "pos", "species": "z"}
        return {name: made[names.get(name, name)] for name in FIELDS}


def joined(frames: Sequence[dict[str, np.ndarray]]) -> dict[str, Tensor]:
    """The batch of frames that are dictionaries of arrays."""
    sizes = np.array([len(frame["species"]) for frame in frames])
    first = np.repeat(np.cumsum(sizes) - sizes, [frame["edge_index"].shape[1] for frame in frames])
    arrays = {
        name: np.concatenate([frame[name] for frame in frames])
        for name in ("species", "positions", "energy", "forces")
    }
    arrays["batch"] = np.repeat(np.arange(len(frames)), sizes)
    arrays["edge_index"] = np.concatenate([frame["edge_index"] for frame in frames], axis=1) + first
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


class LmdbLoader:
    """One pickled dictionary of arrays a frame."""

    def __init__(self, store: FrameStore, folder: Path, batch_size: int) -> None:
        import lmdb

        class Dataset(torch.utils.data.Dataset[dict[str, np.ndarray]]):
            def __init__(self, path: Path) -> None:
                self.environment = lmdb.open(
                    str(path), subdir=False, readonly=True, lock=False, readahead=False, meminit=False
                )
                self.transaction = self.environment.begin(buffers=True)
                self.n = store.n_frames

            def __len__(self) -> int:
                return self.n

            def __getitem__(self, k: int) -> dict[str, np.ndarray]:
                value = self.transaction.get(b"%d" % k)
                assert value is not None, f"no frame {k}"
                return pickle.loads(value)  # type: ignore[no-any-return]

        path = folder / "frames.lmdb"
        environment = lmdb.open(str(path), subdir=False, map_size=10_000 * store.n_frames + 2**24)
        with environment.begin(write=True) as transaction:
            for k, frame in enumerate(frames_of(store)):
                transaction.put(b"%d" % k, pickle.dumps(frame._asdict(), protocol=pickle.HIGHEST_PROTOCOL))
        environment.close()
        self.dataset = Dataset(path)
        self.loader = torch.utils.data.DataLoader(
            self.dataset, batch_size=batch_size, shuffle=True, collate_fn=joined
        )

    def steps(self) -> Iterator[Any]:
        while True:
            yield from self.loader

    def batch(self, ids: np.ndarray) -> dict[str, Tensor]:
        return joined([self.dataset[int(k)] for k in ids])


class ZarrLoader:
    """One chunked array a quantity; frames of a batch are selected together."""

    def __init__(self, store: FrameStore, folder: Path, batch_size: int) -> None:
        import zarr

        frames = list(frames_of(store))
        n, most = len(frames), max(frame.edge_index.shape[1] for frame in frames)
        edges = np.zeros((n, 2, most), np.int64)
        for padded, frame in zip(edges, frames, strict=True):
            padded[:, : frame.edge_index.shape[1]] = frame.edge_index
        arrays = {
            name: np.stack([getattr(frame, name) for frame in frames])
            for name in ("species", "positions", "energy", "forces")
        }
        arrays |= {"edge_index": edges, "n_edges": np.array([f.edge_index.shape[1] for f in frames])}
        group = zarr.open_group(str(folder / "frames.zarr"), mode="w")
        for name, array in arrays.items():
            chunks = (ZARR_CHUNK, *array.shape[1:])
            group.create_array(name, shape=array.shape, chunks=chunks, dtype=array.dtype)[:] = array
        opened = zarr.open_group(str(folder / "frames.zarr"), mode="r")
        self.arrays: dict[str, Any] = {name: opened[name] for name in arrays}
        owner = self

        class Dataset(torch.utils.data.Dataset[Any]):
            def __len__(self) -> int:
                return n

            def __getitems__(self, ids: list[int]) -> dict[str, Tensor]:
                return owner.batch(np.array(ids))

        self.loader = torch.utils.data.DataLoader(
            Dataset(), batch_size=batch_size, shuffle=True, collate_fn=lambda batch: batch
        )

    def steps(self) -> Iterator[Any]:
        while True:
            yield from self.loader

    def batch(self, ids: np.ndarray) -> dict[str, Tensor]:
        found = {name: array.oindex[ids] for name, array in self.arrays.items()}
        (b, n), count = found["species"].shape, found.pop("n_edges")
        edges = found["edge_index"] + n * np.arange(b)[:, None, None]
        there = np.arange(edges.shape[2]) < count[:, None]
        arrays = {
            "species": found["species"].reshape(-1),
            "positions": found["positions"].reshape(-1, 3),
            "forces": found["forces"].reshape(-1, 3),
            "energy": found["energy"].reshape(-1),
            "batch": np.repeat(np.arange(b), n),
            "edge_index": np.stack([edges[:, k][there] for k in range(2)]),
        }
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


LOADERS: dict[str, tuple[Callable[[FrameStore, Path, int], Loader], str]] = {
    "sapis": (SapisLoader, ""),
    "pyg": (PygLoader, "torch_geometric"),
    "lmdb": (LmdbLoader, "lmdb"),
    "zarr": (ZarrLoader, "zarr"),
}
"""Classes by name, and the package that each wants."""


def run_loader(plan: Plan, *, save: Callable[[dict[str, Any]], None], console: Console) -> int:
    """Measure the loaders, and print the table; the exit status: 1 where one gave another batch.

    Raises:
        ConfigError: no such loader.
    """
    for name in plan.loaders:
        if name not in LOADERS:
            raise ConfigError(f"--loaders: no loader {name!r}; there are {', '.join(LOADERS)}")
    torch.set_num_threads(1)
    names = [name for name in plan.loaders if not LOADERS[name][1] or find_spec(LOADERS[name][1])]
    place = Path(tempfile.mkdtemp(prefix="sapis-loader-"))
    try:
        store = make_store(place / "store", plan.n_frames)
        loaders = {name: LOADERS[name][0](store, place, plan.batch_size) for name in names}
        wrong = {name: what for name in names if (what := _difference(loaders[name], store, plan.batch_size))}
        steps = {name: loader.steps() for name, loader in loaders.items()}
        for name in names:
            _visit(steps[name], WARM_SECONDS if plan.visit_seconds else 0.0)
        visits = [
            {name: _visit(steps[name], plan.visit_seconds) for name in names} for _ in range(plan.rounds)
        ]
    finally:
        shutil.rmtree(place, ignore_errors=True)
    rows = [_row(name, [one[name] for one in visits], plan, wrong.get(name, "")) for name in names]
    for row in rows:
        row["ratio"] = row["cpu_us"] / rows[0]["cpu_us"]
    absent = [name for name in plan.loaders if name not in names]
    save({"plan": plan._asdict(), "rows": rows, "not_installed": absent})
    _print(plan, rows, absent, console)
    return 1 if wrong else 0


def _visit(steps: Iterator[Any], seconds: float) -> tuple[float, float]:
    """CPU and wall time of a batch, s, over a visit of at least one."""
    n, cpu, wall = 0, time.process_time(), time.perf_counter()
    while n == 0 or time.process_time() - cpu < seconds:
        next(steps)
        n += 1
    return (time.process_time() - cpu) / n, (time.perf_counter() - wall) / n


def _difference(loader: Loader, store: FrameStore, batch_size: int) -> str:
    """What a loader's batch has that the store's frames have not, in words; nothing where all agree."""
    ids = np.random.default_rng(3).permutation(store.n_frames)[:batch_size]
    got, frames, edges = loader.batch(ids), store.frames(ids), store.neighbors(CUTOFF).edges(ids)
    first = np.repeat(np.cumsum(frames.n_atoms) - frames.n_atoms, edges.n_edges)
    wanted = {
        "positions": frames.positions.astype(np.float32),
        "species": frames.species,
        "batch": np.repeat(np.arange(len(ids)), frames.n_atoms),
        "edge_index": np.stack([edges.neighbor + first, edges.center + first]),
        "energy": frames.energy.astype(np.float32),
        "forces": frames.forces,
    }
    different = [name for name in FIELDS if not np.array_equal(got[name].numpy(), wanted[name])]
    return f"other {', '.join(different)}" if different else ""


def _row(name: str, visits: Sequence[tuple[float, float]], plan: Plan, wrong: str) -> dict[str, Any]:
    cpu, wall = ([1e6 * one[k] for one in visits] for k in range(2))
    spread = statistics.quantiles(cpu, n=4) if len(cpu) > 1 else [cpu[0]] * 3
    return {
        "loader": name,
        "cpu_us": statistics.median(cpu),
        "quartiles_us": [spread[0], spread[2]],
        "wall_us": statistics.median(wall),
        "frames_per_cpu_second": plan.batch_size / statistics.median(cpu) * 1e6,
        "visits_us": cpu,
        "wrong": wrong,
    }


def _print(plan: Plan, rows: Sequence[dict[str, Any]], absent: Sequence[str], console: Console) -> None:
    console.print(
        Text(
            f"batches of {plan.batch_size} of {plan.n_frames:,} frames of ethanol with their edges within "
            f"{CUTOFF:g} Å, one process; medians of {plan.rounds} visits in turn"
        ),
        soft_wrap=True,
    )
    table = new_table(
        "loader",
        "CPU µs a batch",
        "quartiles",
        "wall µs",
        "frames/s of CPU",
        "times",
        "",
        left=["loader", ""],
    )
    for row in rows:
        low, high = row["quartiles_us"]
        table.add_row(
            row["loader"],
            f"{row['cpu_us']:,.0f}",
            f"{low:,.0f} to {high:,.0f}",
            f"{row['wall_us']:,.0f}",
            f"{row['frames_per_cpu_second']:,.0f}",
            f"{row['ratio']:.2f}",
            row["wrong"],
        )
    for name in absent:
        table.add_row(name, "", "", "", "", "", f"not measured: {LOADERS[name][1]} is not installed")
    console.print(table)
