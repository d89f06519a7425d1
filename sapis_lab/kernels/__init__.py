"""Compiled forms of what profiling shows to cost most; each is tested against the PyTorch form, which runs
wherever none can be used.

A kernel is one public module of this folder with a `Kernel` for one family of models, known by the shape that
they declare (`shapes`, `Model.kernel_shape`), and one type of device. `find` gives the kernel of a model on a
device, or a `Refusal` that says why there is none.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from sapis_lab.graphs import EdgeGraph, PairGraph


@dataclass(frozen=True)
class Refusal:
    """Why something is computed by PyTorch rather than by a kernel."""

    reason: str
    """for people: 'heads 3: wanted 1, 2, 4 or 8', 'no C++ compiler found: ...'"""


class Kernel(ABC):
    """Energies with dE/dv of one model, once differentiable in the parameters."""

    shape: ClassVar[type]
    """Of the models that it computes."""
    device: ClassVar[str]
    """Type of the device that it runs on."""
    name: ClassVar[str]
    """In records: 'C++'."""
    traceable: ClassVar[bool] = False
    """Whether it is made of operations of PyTorch's dispatcher, which tracers see and CUDA graphs capture."""

    @classmethod
    @abstractmethod
    def made(cls, shape: Any, *, multipliers: Mapping[str, float], dtype: torch.dtype) -> Kernel | Refusal:
        """The kernel of a model of this shape whose parameters, of type `dtype`, have these multipliers by
        name; or why it cannot compute one."""

    @abstractmethod
    def __call__(
        self,
        vectors: Tensor,
        *,
        graph: EdgeGraph | PairGraph,
        n_atoms: Tensor,
        species: Tensor,
        parameters: Mapping[str, Tensor],
        energy_scale: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Energies of the atoms (A,), dE/dv in the layout of `vectors`, and scalar features (A, F).

        Args:
            n_atoms: (B,) of every frame.   species: (A,) row of every atom's species in the model.
            energy_scale: (), of the energies.
        """


class Shaped(Protocol):
    """What `find` asks of a model."""

    energy_scale: Tensor

    def kernel_shape(self) -> object | None: ...

    def multipliers(self) -> dict[str, float]: ...


_off = _traced = 0
_FOUND: WeakKeyDictionary[Shaped, dict[tuple[str, torch.dtype], Kernel | Refusal]] = WeakKeyDictionary()


@contextmanager
def reference_forms() -> Iterator[None]:
    """Computes in PyTorch alone for the length of a `with` block: its products are what FLOP counters and
    tracers see."""
    global _off
    _off += 1
    try:
        yield
    finally:
        _off -= 1


def forms_are_off() -> bool:
    """Whether PyTorch computes everything (`reference_forms`)."""
    return _off > 0


@contextmanager
def traceable_forms() -> Iterator[None]:
    """As `reference_forms`, but with the kernels that can be traced."""
    global _traced
    _traced += 1
    try:
        yield
    finally:
        _traced -= 1


def find(model: Shaped, device: torch.device) -> Kernel | Refusal:
    """The kernel of `model`, with parameters of their present type, on `device`; made once a model."""
    if forms_are_off():
        return Refusal("off by reference_forms")
    known = _FOUND.setdefault(model, {})
    key = device.type, model.energy_scale.dtype
    if key not in known:
        known[key] = _made(model, *key)
    found = known[key]
    if _traced and isinstance(found, Kernel) and not found.traceable:
        return Refusal(f"off by traceable_forms: {found.name} cannot be traced")
    return found


def _made(model: Shaped, device: str, dtype: torch.dtype) -> Kernel | Refusal:
    shape, family = model.kernel_shape(), type(model).__name__
    written = [kernel for kernel in _written() if kernel.shape is type(shape)]
    here = [kernel for kernel in written if kernel.device == device]
    if not here:
        others = ", ".join(f"{kernel.name} on {kernel.device}" for kernel in written)
        return Refusal(f"none is written for {family}" + (f" on {device}, only {others}" if others else ""))
    reasons = []
    for kernel in here:
        made = kernel.made(shape, multipliers=model.multipliers(), dtype=dtype)
        if isinstance(made, Kernel):
            return made
        reasons.append(made.reason)
    return Refusal("; ".join(reasons))


@cache
def _written() -> tuple[type[Kernel], ...]:
    """The kernels of the public modules of this folder."""
    names = sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return tuple(
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Kernel) and value.__module__ == module.__name__
    )
