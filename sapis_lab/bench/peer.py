"""What a peer code is to us: a model that turns one batch of frames, given with its edges, into energies and
forces.

Every code gets the same frames, the same directed edges and the same number of parameters, and answers in the
same units and signs: energies (B,) and forces (A, 3) = -dE/dr, with a graph kept in training so that a loss
of forces can be differentiated. What a code's own input layout costs is paid in `prepare`, outside any clock.

This file is read inside the peers' own environments, which have torch and numpy and lack this package: it
imports nothing else, and `load_adapter` makes `sapis_lab.bench` importable there.

Arrays of a batch file (npz), B frames, A atoms, E directed edges, flat and in the order of the frames:

    z (A,)  pos (A, 3) Å  F (A, 3) eV/Å  E (B,) eV  cell (B, 3, 3) Å  pbc (B, 3)  ptr (B + 1,) first atom of
    every frame i, j (E,) centre and neighbour, counted over the file  S (E, 3) cells between them  eptr (B +
    1,) first edge  cutoff () Å
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import os
import sys
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

WIDTHS = "SAPIS_BENCH_WIDTHS"
"""Environment variable that may name a JSON file in which `fit_width` remembers what it found (building a
model can take seconds)."""


@dataclass(frozen=True)
class Info:
    """What a model must know of the data before it is built."""

    elements: tuple[int, ...]
    """atomic numbers that occur, ascending"""
    mean_neighbors: float
    """average number of neighbours within the cutoff"""
    cutoff: float
    """Å"""
    seed: int = 0
    """of the initial parameters"""

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray], *, seed: int = 0) -> Info:
        """The information of a batch file."""
        elements = tuple(int(z) for z in np.unique(arrays["z"]))
        return cls(elements, len(arrays["i"]) / len(arrays["z"]), float(arrays["cutoff"]), seed)


class Task:
    """One batch: frames, all their directed edges, targets.  r_ij = positions[neighbor] + translation -
    positions[center].

    Args:
        arrays: a batch file (keys above).   frames: which of its frames, in which order; all by default.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], frames: Iterable[int] | None = None) -> None:
        offsets, edge_offsets = arrays["ptr"], arrays["eptr"]
        chosen = np.arange(len(offsets) - 1) if frames is None else np.fromiter(frames, dtype=np.int64)
        atoms = np.concatenate([np.arange(offsets[k], offsets[k + 1]) for k in chosen])
        edges = np.concatenate([np.arange(edge_offsets[k], edge_offsets[k + 1]) for k in chosen])
        n_atoms = np.asarray(offsets[chosen + 1] - offsets[chosen])
        n_edges = np.asarray(edge_offsets[chosen + 1] - edge_offsets[chosen])
        moved = np.repeat(np.cumsum(n_atoms) - n_atoms - offsets[chosen], n_edges)

        def integer(a: np.ndarray) -> Tensor:
            return torch.as_tensor(np.ascontiguousarray(a)).to(torch.int64)

        def real(a: np.ndarray) -> Tensor:
            return torch.as_tensor(np.ascontiguousarray(a)).to(torch.float32)

        self.species = integer(arrays["z"][atoms])
        """(A,) atomic numbers"""
        self.positions = real(arrays["pos"][atoms])
        """(A, 3) Å"""
        self.forces = real(arrays["F"][atoms])
        """(A, 3) eV/Å"""
        self.energy = real(arrays["E"][chosen])
        """(B,) eV"""
        self.cell = real(arrays["cell"][chosen])
        """(B, 3, 3) Å, rows are lattice vectors, zero without periodicity"""
        self.pbc = torch.as_tensor(np.ascontiguousarray(arrays["pbc"][chosen])).bool()
        """(B, 3)"""
        self.n_atoms = integer(n_atoms)
        """(B,)"""
        self.offsets = integer(np.concatenate([[0], np.cumsum(n_atoms)]))
        """(B + 1,) first atom of every frame"""
        self.frame = integer(np.repeat(np.arange(len(chosen)), n_atoms))
        """(A,) the frame of every atom"""
        self.center, self.neighbor = integer(arrays["i"][edges] + moved), integer(arrays["j"][edges] + moved)
        """(E,) both directions of a pair are present; sorted by centre"""
        self.edge_frame = integer(np.repeat(np.arange(len(chosen)), n_edges))
        """(E,) the frame of every edge"""
        self.shift = real(arrays["S"][edges])
        """(E, 3) whole cells from the neighbour's own image to the one that is seen"""
        self.translation = torch.einsum("ea,eab->eb", self.shift, self.cell[self.edge_frame])
        """(E, 3) the same in Å"""
        self.cutoff = float(arrays["cutoff"])
        """Å"""

    @property
    def n_frames(self) -> int:
        """B."""
        return len(self.n_atoms)

    @property
    def n_edges(self) -> int:
        """E."""
        return len(self.center)

    @property
    def periodic(self) -> bool:
        """True where any frame repeats."""
        return bool(self.pbc.any())

    def rotate(self, rotation: Tensor) -> None:
        """Everything that is a vector, rotated in place by `rotation` (3, 3)."""
        for name in ("positions", "forces", "translation", "cell"):
            setattr(self, name, getattr(self, name) @ rotation.T)


class EnergyForces(NamedTuple):
    """What `Peer.ef` returns."""

    energy: Tensor
    """(B,) eV, or in the unit of the targets it is trained on"""
    forces: Tensor
    """(A, 3) minus its gradient, per Å"""


class Peer(ABC):
    """A model of another code (or of ours) behind one interface."""

    module: nn.Module
    """Holds the parameters."""
    width: Any = None
    """The width that `fit_width` chose, as the code counts it."""
    note: str = ""
    """What a reader of a table should know of how it was run."""

    @abstractmethod
    def prepare(self, task: Task) -> Any:
        """The batch in the code's own layout; not timed."""

    @abstractmethod
    def ef(self, inputs: Any, train: bool) -> EnergyForces:
        """Energies and forces; differentiable in the parameters if `train`. May be called many times on the
        same `inputs`."""

    def params(self) -> list[nn.Parameter]:
        """The trainable parameters."""
        return [p for p in self.module.parameters() if p.requires_grad]

    def n_params(self) -> int:
        """Their number."""
        return sum(p.numel() for p in self.params())

    def set_train(self, train: bool) -> None:
        """Training or evaluation mode."""
        self.module.train(train)


class Spec(NamedTuple):
    """A model of an adapter, from a string such as `tensornet,layers=3`: its name, then options behind
    commas."""

    name: str
    options: dict[str, Any]

    @classmethod
    def parse(cls, text: str) -> Spec:
        """Name and options; a value that reads as JSON (number, true, list) is one, anything else is a
        string."""
        name, *pairs = text.split(",")
        options: dict[str, Any] = {}
        for pair in pairs:
            key, equals, value = pair.partition("=")
            if not equals:
                raise ValueError(f"option {pair!r} of {text!r}: wanted key=value")
            try:
                options[key] = json.loads(value)
            except json.JSONDecodeError:
                options[key] = value
        return cls(name, options)

    def take(self, **defaults: Any) -> dict[str, Any]:
        """`defaults` with the options put over them; an option that is none of them is an error."""
        unknown = sorted(set(self.options) - set(defaults))
        if unknown:
            raise ValueError(f"option {unknown[0]!r} of {self.name!r}: wanted one of {', '.join(defaults)}")
        return {**defaults, **self.options}


def flat_matrices(module: nn.Module) -> dict[nn.Parameter, list[tuple[int, int]]]:
    """The shapes (inputs, outputs) of the matrices that lie one after the other in flat parameters.

    Linear maps and tensor products of e3nn, on which several codes stand, keep all of their weights in one
    vector; a tensor product with weights for all pairs of inputs is a linear map of their products.
    """
    found = {}
    for part in module.modules():
        weight, views = getattr(part, "weight", None), getattr(part, "weight_views", None)
        if isinstance(weight, nn.Parameter) and weight.dim() == 1 and views is not None:
            shapes = [(math.prod(view.shape[:-1]), view.shape[-1]) for view in views()]
            if sum(m * n for m, n in shapes) == len(weight):
                found[weight] = shapes
    return found


def count_parameters(module: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def fit_width(make: Callable[[int], nn.Module], n_params: float, widths: Sequence[int], key: str) -> int:
    """The width in `widths` (ascending) whose model has the number of parameters nearest to `n_params`, on a
    log scale.

    Args:
        make: the model of a width; its number of parameters grows with it.
        key: what else the count depends on (code, model, elements), under which the answer is remembered
            where the environment variable `SAPIS_BENCH_WIDTHS` names a file.
    """
    memory = Path(os.environ[WIDTHS]) if WIDTHS in os.environ else None
    key = f"{key}|{int(n_params)}|{widths[0]}:{widths[-1]}:{len(widths)}"
    known = _remembered(memory)
    if key in known:
        return known[key]
    counts: dict[int, int] = {}

    def count(k: int) -> int:
        if k not in counts:
            counts[k] = count_parameters(make(widths[k]))
        return counts[k]

    low, high = 0, len(widths) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < n_params else (low, middle)
    best = widths[min((low, high), key=lambda k: abs(math.log(count(k) / n_params)))]
    if memory is not None:
        part = memory.with_suffix(f".{os.getpid()}")
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps({**_remembered(memory), key: best}, indent=0, sort_keys=True))
        part.replace(memory)
    return best


class Sized(NamedTuple):
    """What `make_sized` returns."""

    module: nn.Module
    width: int


def make_sized(
    make: Callable[[int], nn.Module], n_params: float, widths: Sequence[int], *, key: str, seed: int
) -> Sized:
    """The model of the width that `fit_width` chooses, its parameters drawn from `seed`; the global random
    state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        width = fit_width(make, n_params, widths, key)
        torch.manual_seed(seed)
        return Sized(make(width), width)


def _remembered(memory: Path | None) -> dict[str, int]:
    return json.loads(memory.read_text()) if memory is not None and memory.is_file() else {}


def load_adapter(name: str) -> types.ModuleType:
    """The adapter `sapis_lab/bench/adapters/<name>.py`, which has `build(model, n_params, info) -> Peer`.

    Where `sapis_lab` is not installed, this puts a package without contents but with this folder's path in
    its place, so that `sapis_lab.bench.…` is found and nothing else of this folder's neighbours comes onto
    the path.
    """
    if "sapis_lab" not in sys.modules and importlib.util.find_spec("sapis_lab") is None:
        stand_in = types.ModuleType("sapis_lab")
        stand_in.__path__ = [str(Path(__file__).resolve().parents[1])]
        sys.modules["sapis_lab"] = stand_in
    return importlib.import_module(f"sapis_lab.bench.adapters.{name}")


def build(adapter: str, model: str, n_params: float, info: Info) -> Peer:
    """The model `model` (with options behind commas) of an adapter, of about `n_params` parameters."""
    return load_adapter(adapter).build(model, n_params, info)
