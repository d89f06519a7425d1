"""What the Triton kernels of this folder share: launches, sizes of tiles, and operations of PyTorch's
dispatcher, under which `make_fx` and CUDA graphs see a launch as one step.

Kernels are compiled on first use, for the sizes of a model and the type of its numbers. Under
TRITON_INTERPRET=1, set before Triton is imported, they are interpreted on CPU tensors (tests).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import triton
from torch import Tensor

_LIBRARY = torch.library.Library("sapis_lab", "FRAGMENT")
MOST_WARPS, ENTRIES_PER_WARP = 8, 256


def operation(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as the operation `torch.ops.sapis_lab.NAME`: of tensors and numbers, returns new tensors."""
    name = function.__name__
    _LIBRARY.define(name + torch.library.infer_schema(function, mutates_args=()))
    _LIBRARY.impl(name, function, "CompositeExplicitAutograd")
    found: Callable[..., Any] = getattr(torch.ops.sapis_lab, name).default
    return found


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, tile: int, **constants: Any) -> None:
    """Starts `kernel` on as many warps as tiles of `tile` entries are worth; nothing where the grid is
    empty."""
    n_warps = min(MOST_WARPS, power(-(-tile // ENTRIES_PER_WARP)))
    if _compilers:
        _compilers[-1](kernel, arguments, constants, n_warps)
    elif 0 not in grid:
        device = arguments[0].device  # Triton launches on the current one
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            kernel[grid](*arguments, **constants, num_warps=n_warps)


_compilers: list[Callable[..., None]] = []
_TYPES = {torch.float32: "*fp32", torch.float64: "*fp64", torch.int64: "*i64"}


@contextmanager
def compiling(capabilities: Sequence[int]) -> Iterator[dict[tuple[Any, ...], str]]:
    """For the length of a `with` block kernels are compiled for devices of these compute capabilities (80,
    90) instead of being run, which takes no device: what they would compute is left undefined. Gives the PTX
    by name of the kernel, capability, types of the arguments and constants."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    made: dict[tuple[Any, ...], str] = {}

    def compiled(kernel: Any, arguments: Sequence[Any], constants: Mapping[str, Any], n_warps: int) -> None:
        # as a launch does it: a one is a constant, multiples of 16 are known as such
        values = {p.name: a for p, a in zip(kernel.params, arguments, strict=False)}
        ones = {name: 1 for name, a in values.items() if not isinstance(a, Tensor) and a == 1}
        types = {
            p.name: _TYPES[a.dtype] if isinstance(a, Tensor) else p.annotation_type or "i32"
            for p, a in zip(kernel.params, values.values(), strict=False)
        }
        types = {**types, **dict.fromkeys((*ones, *constants), "constexpr")}
        aligned = {
            (i,): [["tt.divisibility", 16]]
            for i, (name, a) in enumerate(values.items())
            if name not in ones and (isinstance(a, Tensor) or a % 16 == 0)
        }
        for capability in capabilities:
            key = (kernel.__name__, capability, tuple(types.values()), *constants.items(), *aligned)
            if key not in made:
                source = ASTSource(kernel, types, {**ones, **constants}, aligned)
                target = GPUTarget("cuda", capability, 32)
                made[key] = triton.compile(source, target=target, options={"num_warps": n_warps}).asm["ptx"]

    _compilers.append(compiled)
    try:
        yield made
    finally:
        _compilers.pop()


def power(n: int) -> int:
    """The smallest power of two from n on."""
    found: int = triton.next_power_of_2(n)
    return found


def blocks(n: int, *, row: int, tile: int) -> int:
    """How many of n rows of `row` entries, both powers of two, a tile of about `tile` entries holds."""
    return max(1, min(power(n), tile // row))
