"""The C++ form of GEAT's training step (`geat.cpp`) as an autograd Function: energies with dE/dv, then
gradients of the parameters.

Forward-over-reverse: the gradient of a loss of energies and forces is the derivative of the backward sweep
along the loss's cotangent of dE/dv, so that no graph is built and nothing is differentiated twice by
autograd. The scalar features are differentiable in the parameters as well, for further readouts; nothing is
in the displacements. Same numbers as the PyTorch form to rounding (tested in float64), on CPU tensors in
float32 or float64, lmax up to 3, heads a power of two up to 8.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sapis_lab.geometry.couplings import quadrature
from sapis_lab.geometry.harmonics import solid_coefficients
from sapis_lab.graphs import EdgeGraph, PairGraph
from sapis_lab.kernels import Kernel, Refusal
from sapis_lab.kernels.libraries import check_numbers, library
from sapis_lab.kernels.shapes import GeatShape

ABI = 1
"""Of geat_shape.h: raised whenever what follows here, or an entry point, changes."""
MOST_LMAX, HEADS, MOST_KEYS = 3, (1, 2, 4, 8), 500
"""Largest degree, numbers of heads and largest product of invariants and key width that its buffers hold."""

_LAYER = (
    "project",
    "project_bias",
    "scalar_value",
    "edge_radial",
    "edge_invariant",
    "edge_bias",
    "edge_out",
    "edge_out_bias",
    "merge",
    "factors",
    "node_in.weight",
    "node_in.bias",
    "node_out.weight",
    "node_out.bias",
    "couple",
)
_ENDS = (
    "represent",
    "embedding",
    "readout_in.weight",
    "readout_in.bias",
    "readout_out.weight",
    "readout_out.bias",
    "readout_skip",
)
"""Parameters in the order of geat_shape.h."""


def places(shape: GeatShape) -> list[str]:
    """Names of all parameters in the order of geat_shape.h; a model need not have all of them (the last layer
    has no `couple`)."""
    return [f"layers.{i}.{name}" for i in range(shape.layers) for name in _LAYER] + list(_ENDS)


def constants(shape: GeatShape) -> list[Tensor]:
    """What the C++ form is handed beside sizes and parameters, float64: coefficients of the harmonics (L, L,
    L), centres and widths of the radial functions, and the matrices to (G, M) and from (M, G) the grid."""
    degrees = shape.lmax + 1
    table = [solid_coefficients(l, m) if m <= l else [] for l in range(degrees) for m in range(degrees)]
    rows = [[*row, *([0.0] * (degrees - len(row)))] for row in table]
    tables = (torch.tensor(t, dtype=torch.float64) for t in (rows, shape.centers, shape.widths))
    return [t.to(device="cpu", dtype=torch.float64).contiguous() for t in (*tables, *quadrature(shape.lmax))]


def refused(shape: GeatShape) -> list[str]:
    """What of a model the C++ form cannot compute: 'heads 3: wanted 1, 2, 4 or 8'."""
    keys = shape.invariants * shape.key_width
    reasons = {
        f"lmax {shape.lmax} > {MOST_LMAX}": shape.lmax > MOST_LMAX,
        f"heads {shape.heads}: wanted 1, 2, 4 or 8": shape.heads not in HEADS,
        f"invariants x key_width {keys} > {MOST_KEYS}": keys > MOST_KEYS,
    }
    return [reason for reason, holds in reasons.items() if holds]


class _Shape(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in (
                "lmax",
                "layers",
                "channels",
                "heads",
                "invariants",
                "key_width",
                "n_radial",
                "edge_hidden",
                "coupling_channels",
                "node_width",
                "n_species",
                "n_grid",
                "softmax",
                "gaunt",
                "born_hidden",
            )
        ),
        *(
            (name, ctypes.c_double)
            for name in (
                "cutoff",
                "sum_scale",
                "uniform",
                "norm_attention",
                "norm_update",
                "norm_edge",
                "norm_readout",
            )
        ),
    ]


class _Batch(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("n_frames", "block", "slots", "entries")),
        *((name, ctypes.c_void_p) for name in ("n_atoms", "neighbor", "mask", "species", "vectors")),
        ("energy_scale", ctypes.c_double),
    ]


class _Library:
    """Typed entry points of a compiled library, which must be of the same version as this page."""

    def __init__(self, lib: ctypes.CDLL) -> None:
        wanted = {
            "geat_abi": ABI,
            "geat_shape_bytes": ctypes.sizeof(_Shape),
            "geat_batch_bytes": ctypes.sizeof(_Batch),
            "geat_layer_parameters": len(_LAYER),
            "geat_end_parameters": len(_ENDS),
        }
        check_numbers(lib, wanted, caller="sapis_lab/kernels/geat.py")
        self.forward, self.backward, self.free = lib.geat_forward, lib.geat_backward, lib.geat_free
        self.forward.argtypes, self.forward.restype = [ctypes.c_void_p] * 12, ctypes.c_void_p
        self.backward.argtypes, self.backward.restype = [ctypes.c_void_p] * 5, ctypes.c_int
        self.free.argtypes, self.free.restype = [ctypes.c_void_p], None
        self.error = lib.geat_error
        self.error.argtypes, self.error.restype = [], ctypes.c_char_p

    def failure(self) -> Exception:
        """What the call that has just failed in this thread said."""
        said = self.error().decode()
        if said:
            return ValueError(f"the GEAT kernel cannot compute this: {said}")
        return MemoryError("the GEAT kernel could not allocate its work space")


class GeatKernel(Kernel):
    """On one CPU thread; what it needs to know of one model, and the call."""

    shape: ClassVar[type] = GeatShape
    device: ClassVar[str] = "cpu"
    name: ClassVar[str] = "C++"

    @classmethod
    def made(
        cls, shape: GeatShape, *, multipliers: Mapping[str, float], dtype: torch.dtype
    ) -> GeatKernel | Refusal:
        real = {torch.float32: "float", torch.float64: "double"}.get(dtype)
        unknown = [] if real else [f"{str(dtype).removeprefix('torch.')}: wanted float32 or float64"]
        if reasons := [*unknown, *refused(shape)]:
            return Refusal("; ".join(reasons))
        lib = library("geat", (f"REAL={real}", f"DEGREES={shape.lmax + 1}"))
        return lib if isinstance(lib, Refusal) else cls(shape, multipliers, dtype, lib)

    def __init__(
        self, shape: GeatShape, multipliers: Mapping[str, float], dtype: torch.dtype, lib: ctypes.CDLL
    ) -> None:
        self.lib, self.dtype = _Library(lib), dtype
        names = places(shape)
        self.names = [name for name in names if name in multipliers]
        self.place = [i for i, name in enumerate(names) if name in multipliers]
        self.n_places = len(names)
        self.multipliers = (ctypes.c_double * len(names))(*(multipliers.get(name, 0.0) for name in names))
        self.constants = constants(shape)
        shared = {field[0]: getattr(shape, field[0]) for field in _Shape._fields_ if field[0] != "n_grid"}
        self.sizes = _Shape(n_grid=self.constants[-2].shape[0], **shared)

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
        """As of `Kernel`; v (3, G, I, K), features (A, C).

        Raises:
            ValueError: gradients in `vectors` are asked for, which are not there; a type, a species or a
                layout that does not fit the model.
        """
        assert isinstance(graph, PairGraph)
        if vectors.requires_grad and torch.is_grad_enabled():
            raise ValueError(
                "the GEAT kernel gives gradients in the parameters, not in the displacements (for forces of "
                "a readout of the features): call model(batch), which is differentiable in the positions"
            )
        values = [parameters[name] for name in self.names]
        if mixed := {t.dtype for t in (vectors, *values)} - {self.dtype}:
            raise ValueError(f"the GEAT kernel is built for {self.dtype}, got {mixed} among its inputs")
        return _Step.apply(self, float(energy_scale), vectors, graph, n_atoms, species, *values)


def _address(t: Tensor | None) -> int | None:
    return None if t is None else t.data_ptr()


class _Handle:
    """Owns what the forward sweep has saved."""

    def __init__(self, step: int, free: Any) -> None:
        self.step, self.free = step, free

    def __del__(self) -> None:
        self.free(self.step)


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        kernel: GeatKernel,
        scale: float,
        vectors: Tensor,
        graph: PairGraph,
        n_atoms: Tensor,
        species: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        vectors, parameters = vectors.contiguous(), tuple(p.contiguous() for p in parameters)
        a = len(species)
        energy, gradient = vectors.new_empty(a), torch.empty_like(vectors)
        features = vectors.new_empty(a, kernel.sizes.channels)
        neighbor, mask = (
            None if t is None or graph.block else t.contiguous() for t in (graph.neighbor, graph.mask)
        )
        batch = _Batch(
            n_frames=len(n_atoms),
            block=graph.block[1] if graph.block else 0,
            slots=graph.dims[2],
            entries=vectors[0].numel(),
            n_atoms=_address(n_atoms),
            neighbor=_address(neighbor),
            mask=_address(mask),
            species=_address(species),
            vectors=_address(vectors),
            energy_scale=scale,
        )
        pointers = (ctypes.c_void_p * kernel.n_places)()
        for place, p in zip(kernel.place, parameters, strict=True):
            pointers[place] = p.data_ptr()
        step = kernel.lib.forward(
            ctypes.addressof(kernel.sizes),
            ctypes.addressof(batch),
            ctypes.addressof(pointers),
            ctypes.addressof(kernel.multipliers),
            *(_address(t) for t in kernel.constants),
            _address(energy),
            _address(features),
            _address(gradient),
        )
        if not step:
            raise kernel.lib.failure()
        ctx.kernel, ctx.kept = kernel, (batch, vectors, neighbor, mask, n_atoms, species, parameters)
        ctx.handle = _Handle(step, kernel.lib.free)
        ctx.set_materialize_grads(False)
        return energy, gradient, features

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, on_energy: Tensor | None, on_gradient: Tensor | None, on_features: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        kernel, parameters = ctx.kernel, ctx.kept[-1]
        vectors, species = ctx.kept[1], ctx.kept[5]
        on_energy = vectors.new_zeros(len(species)) if on_energy is None else on_energy.contiguous()
        on_gradient = torch.zeros_like(vectors) if on_gradient is None else on_gradient.contiguous()
        on_features = None if on_features is None else on_features.contiguous()
        gradients = [torch.empty_like(p) for p in parameters]
        pointers = (ctypes.c_void_p * kernel.n_places)()
        for place, g in zip(kernel.place, gradients, strict=True):
            pointers[place] = g.data_ptr()
        failed = kernel.lib.backward(
            ctx.handle.step,
            _address(on_energy),
            _address(on_gradient),
            _address(on_features),
            ctypes.addressof(pointers),
        )
        if failed:
            raise kernel.lib.failure()
        return (None,) * 6 + tuple(gradients)
