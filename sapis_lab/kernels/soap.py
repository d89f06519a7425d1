"""The C++ form of SOAP's step (`soap.cpp`): all blocks of one shape, or all vectors, in one call.

Same numbers as the PyTorch form (`sapis_lab/soap.py`) to rounding (tested in float64), on contiguous CPU
tensors in float32 or float64.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from sapis_lab.kernels import Refusal, forms_are_off
from sapis_lab.kernels.libraries import check_numbers, library

ABI = 1
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
    """The steps of one floating-point type."""

    def __init__(self, lib: ctypes.CDLL) -> None:
        wanted = {
            "soap_abi": ABI,
            "soap_stack_bytes": ctypes.sizeof(_Stack),
            "soap_settings_bytes": ctypes.sizeof(Settings),
        }
        check_numbers(lib, wanted, caller="sapis_lab/kernels/soap.py")
        self._matrices, self._vectors = lib.soap_matrices, lib.soap_vectors
        self._matrices.argtypes, self._matrices.restype = [ctypes.c_void_p] * 5, ctypes.c_int
        self._vectors.argtypes = [ctypes.c_void_p, ctypes.c_int64, *[ctypes.c_void_p] * 5]
        self._vectors.restype = None

    def matrices(
        self,
        settings: Settings,
        parameters: Sequence[Tensor],
        *,
        cut: tuple[int, int],
        state: dict[str, Tensor],
    ) -> None:
        """A step of parameters (..., height, width), each matrix cut into `cut` rows and columns of blocks.

        Args:
            state: of all blocks, by the names of `STATE`; (k, m, n), (k, m, m) and (k, n, n).
        """
        size = parameters[0].shape[-2:]
        stack = _Stack(
            len(parameters), *size, *cut, *state[STATE[0]].shape[-2:], *(state[k].data_ptr() for k in STATE)
        )
        gradients = [None if p.grad is None else p.grad.contiguous() for p in parameters]
        counts = (ctypes.c_int64 * len(parameters))(*(p.numel() // size.numel() for p in parameters))
        of_parameters, of_gradients = _addresses(parameters), _addresses(gradients)
        failed = self._matrices(
            ctypes.addressof(stack),
            ctypes.addressof(settings),
            ctypes.addressof(of_parameters),
            ctypes.addressof(of_gradients),
            ctypes.addressof(counts),
        )
        if failed:
            raise MemoryError("the SOAP kernel could not allocate its work space")

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


def _addresses(tensors: Sequence[Tensor | None]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(tensors))(*(None if t is None else t.data_ptr() for t in tensors))


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
