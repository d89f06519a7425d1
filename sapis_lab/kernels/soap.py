"""The C++ form of SOAP's step (`soap.cpp`): all blocks of one shape, or all vectors, in one call.

Same numbers as the PyTorch form (`sapis_lab/soap.py`) to rounding (tested in float64), on contiguous CPU
tensors in float32 or float64.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sapis_lab.kernels import Refusal, forms_are_off
from sapis_lab.kernels.libraries import check_numbers, library

ABI = 3
"""Of soap.cpp: raised whenever what follows here, or an entry point, changes."""
STATE = ("exp_avg", "exp_avg_sq", "covariance_left", "basis_left", "covariance_right", "basis_right")
"""Tensors of a stack, in the order of soap.cpp."""


class _Stack(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in ("n_parameters", "height", "width", "rows", "columns", "m", "n")
        ),
        *((name, ctypes.c_void_p) for name in STATE),
    ]


class Settings(ctypes.Structure):
    """Numbers of one step."""

    _fields_ = [
        *(
            (name, ctypes.c_double)
            for name in ("rate", "beta1", "beta2", "correction1", "correction2", "eps", "floor")
        ),
        *((name, ctypes.c_int64) for name in ("measure", "refresh")),
    ]


class SoapKernel:
    """The library of one floating-point type."""

    def __init__(self, lib: ctypes.CDLL) -> None:
        wanted = {
            "soap_abi": ABI,
            "soap_stack_bytes": ctypes.sizeof(_Stack),
            "soap_settings_bytes": ctypes.sizeof(Settings),
        }
        check_numbers(lib, wanted, caller="sapis_lab/kernels/soap.py")
        self._matrices, self._vectors = lib.soap_matrices, lib.soap_vectors
        self._matrices.argtypes = [ctypes.c_int64, *[ctypes.c_void_p] * 5]
        self._matrices.restype = ctypes.c_int
        self._vectors.argtypes = [ctypes.c_void_p, ctypes.c_int64, *[ctypes.c_void_p] * 5]
        self._vectors.restype = None

    def matrices(self, stacks: Sequence[Blocks]) -> Matrices:
        """The step of these stacks."""
        return Matrices(self._matrices, stacks)

    def vectors(
        self,
        settings: Settings,
        parameters: Sequence[Tensor],
        means: Sequence[Tensor],
        squares: Sequence[Tensor],
    ) -> None:
        """Adam for parameters of any shape, all with a gradient."""
        gradients = [p.grad.contiguous() for p in parameters if p.grad is not None]
        sizes = (ctypes.c_int64 * len(parameters))(*(p.numel() for p in parameters))
        arrays = [_addresses(some) for some in (parameters, gradients, means, squares)]
        self._vectors(
            ctypes.addressof(settings),
            len(parameters),
            ctypes.addressof(sizes),
            *(ctypes.addressof(array) for array in arrays),
        )


class Blocks(NamedTuple):
    """Parameters of one shape, cut into blocks of one shape."""

    parameters: Sequence[Tensor]
    """(..., height, width)"""
    cut: tuple[int, int]
    """rows and columns of blocks in a matrix"""
    state: Mapping[str, Tensor]
    """of all k blocks, by the names of `STATE`: (k, m, n), (k, m, m) and (k, n, n); filled where they are"""


class Matrices:
    """The step of some stacks, whose state stays where it is."""

    def __init__(self, function: Any, stacks: Sequence[Blocks]) -> None:
        self._function, self._state = function, [stack.state for stack in stacks]
        self.parameters = [p for stack in stacks for p in stack.parameters]
        self._stacks = (_Stack * len(stacks))(
            *(
                _Stack(
                    len(parameters),
                    *parameters[0].shape[-2:],
                    *cut,
                    *state[STATE[0]].shape[-2:],
                    *(state[name].data_ptr() for name in STATE),
                )
                for parameters, cut, state in stacks
            )
        )
        n = len(self.parameters)
        self._counts = (ctypes.c_int64 * n)(*(p[..., 0, 0].numel() for p in self.parameters))
        self._addresses, self._gradients = (ctypes.c_void_p * n)(), (ctypes.c_void_p * n)()

    def step(self, settings: Sequence[Settings]) -> None:
        """One step, with settings for every stack."""
        gradients = [None if p.grad is None else p.grad.contiguous() for p in self.parameters]
        self._addresses[:] = [p.data_ptr() for p in self.parameters]
        self._gradients[:] = [None if g is None else g.data_ptr() for g in gradients]
        of_stacks = (Settings * len(settings))(*settings)
        arrays = (self._stacks, of_stacks, self._addresses, self._gradients, self._counts)
        if self._function(len(settings), *(ctypes.addressof(array) for array in arrays)):
            raise MemoryError("the SOAP kernel could not allocate its work space")


def _addresses(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(tensors))(*(t.data_ptr() for t in tensors))


_REAL = {torch.float32: "float", torch.float64: "double"}
_MADE: dict[torch.dtype, SoapKernel | Refusal] = {}


def soap_kernel(parameters: Sequence[Tensor]) -> SoapKernel | Refusal:
    """The kernel for these parameters; or why PyTorch does their steps."""
    if forms_are_off():
        return Refusal("off by reference_forms")
    dtype = parameters[0].dtype
    if any(p.device.type != "cpu" or p.dtype != dtype or not p.is_contiguous() for p in parameters):
        return Refusal("wanted contiguous parameters of one type on the CPU")
    if dtype not in _REAL:
        return Refusal(f"{str(dtype).removeprefix('torch.')}: wanted float32 or float64")
    if dtype not in _MADE:
        lib = library("soap", (f"REAL={_REAL[dtype]}",))
        _MADE[dtype] = lib if isinstance(lib, Refusal) else SoapKernel(lib)
    return _MADE[dtype]
