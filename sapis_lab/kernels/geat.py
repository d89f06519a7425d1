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
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sapis_lab.geometry.couplings import quadrature
from sapis_lab.geometry.harmonics import solid_coefficients
from sapis_lab.kernels._build import library

if TYPE_CHECKING:
    from sapis_lab.graphs import PairGraph
    from sapis_lab.models.geat import Geat

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
"""Parameters in the order of geat.cpp."""


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
                "energy_scale",
            )
        ),
    ]


class _Batch(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("n_frames", "block", "slots", "entries")),
        *((name, ctypes.c_void_p) for name in ("n_atoms", "neighbor", "mask", "species", "vectors")),
    ]


class _Library:
    """Typed entry points of a compiled library."""

    def __init__(self, lib: ctypes.CDLL) -> None:
        self.forward, self.backward, self.free = lib.geat_forward, lib.geat_backward, lib.geat_free
        self.forward.argtypes, self.forward.restype = [ctypes.c_void_p] * 12, ctypes.c_void_p
        self.backward.argtypes, self.backward.restype = [ctypes.c_void_p] * 5, ctypes.c_int
        self.free.argtypes, self.free.restype = [ctypes.c_void_p], None


class GeatKernel:
    """What the kernel needs to know of one model, and the call."""

    def __init__(self, model: Geat, lib: ctypes.CDLL) -> None:
        self.lib = _Library(lib)
        config, degrees = model.config, model.config.lmax + 1
        named, multipliers = dict(model.named_parameters()), model.multipliers()
        places = [f"layers.{i}.{name}" for i in range(config.layers) for name in _LAYER] + list(_ENDS)
        self.names = [name for name in places if name in named]  # the last layer has no `couple`
        self.place = [i for i, name in enumerate(places) if name in named]
        self.n_places = len(places)
        self.multipliers = (ctypes.c_double * len(places))(*(multipliers.get(name, 0.0) for name in places))
        table = [solid_coefficients(l, m) if m <= l else [] for l in range(degrees) for m in range(degrees)]
        rows = [[*row, *([0.0] * (degrees - len(row)))] for row in table]
        grid = quadrature(config.lmax)
        constants = (torch.tensor(rows, dtype=torch.float64), *model.radial_functions(), *grid)
        self.constants = [t.to(device="cpu", dtype=torch.float64).contiguous() for t in constants]
        born, units = config.born_widths
        self.shape = _Shape(
            lmax=config.lmax,
            layers=config.layers,
            channels=config.channels,
            heads=config.heads,
            invariants=config.invariants,
            key_width=config.key_width,
            n_radial=config.n_radial,
            edge_hidden=config.edge_hidden,
            coupling_channels=config.coupling_channels,
            node_width=config.node_width,
            n_species=model.n_species,
            n_grid=grid[0].shape[0],
            softmax=config.attention == "softmax",
            gaunt=config.product == "gaunt",
            born_hidden=units,
            cutoff=model.cutoff,
            sum_scale=model.sum_scale,
            uniform=1.0 / model.mean_neighbors,
            norm_attention=1.0 / born,
            norm_update=1.0 / (config.soft_norm * born),
            norm_edge=1.0 / (config.edge_norm * units) if config.edge_norm else 0.0,
            norm_readout=1.0 / (config.readout_norm * born) if config.readout_norm else 0.0,
            energy_scale=1.0,
        )

    def __call__(
        self, model: Geat, vectors: Tensor, graph: PairGraph, n_atoms: Tensor, species: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Energies (A,), dE/dv in the layout of `vectors` (3, G, I, K), and scalar features (A, C), all
        differentiable in the parameters.

        Raises:
            ValueError: gradients in `vectors` are asked for, which are not there.
        """
        if vectors.requires_grad and torch.is_grad_enabled():
            raise ValueError(
                "the GEAT kernel gives gradients in the parameters, not in the displacements (for forces of "
                "a readout of the "
                "features): call model(batch), which is differentiable in the positions"
            )
        named = dict(model.named_parameters())
        return _Step.apply(
            self,
            float(model.energy_scale),
            vectors,
            graph,
            n_atoms,
            species,
            *(named[name] for name in self.names),
        )


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
        features = vectors.new_empty(a, kernel.shape.channels)
        kernel.shape.energy_scale = scale
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
        )
        pointers = (ctypes.c_void_p * kernel.n_places)()
        for place, p in zip(kernel.place, parameters, strict=True):
            pointers[place] = p.data_ptr()
        step = kernel.lib.forward(
            ctypes.addressof(kernel.shape),
            ctypes.addressof(batch),
            ctypes.addressof(pointers),
            ctypes.addressof(kernel.multipliers),
            *(_address(t) for t in kernel.constants),
            _address(energy),
            _address(features),
            _address(gradient),
        )
        if not step:
            raise MemoryError("the GEAT kernel could not allocate its work space")
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
            raise MemoryError("the GEAT kernel could not allocate its work space")
        return (None,) * 6 + tuple(gradients)


_KERNELS: WeakKeyDictionary[Geat, tuple[torch.dtype, GeatKernel | None]] = WeakKeyDictionary()


def kernel_of(model: Geat) -> GeatKernel | None:
    """The kernel where it can compute this model: built, lmax <= 3, heads 1, 2, 4 or 8, products within its
    buffers; made once a model."""
    dtype = model.energy_scale.dtype
    known = _KERNELS.get(model)
    if known is None or known[0] != dtype:
        known = _KERNELS[model] = dtype, _made(model, dtype)
    return known[1]


def _made(model: Geat, dtype: torch.dtype) -> GeatKernel | None:
    config, real = model.config, {torch.float32: "float", torch.float64: "double"}.get(dtype)
    if (
        real is None
        or config.lmax > 3
        or config.heads not in (1, 2, 4, 8)
        or config.invariants * config.key_width > 500
    ):
        return None
    lib = library("geat", (f"REAL={real}", f"DEGREES={config.lmax + 1}"))
    return None if lib is None else GeatKernel(model, lib)
