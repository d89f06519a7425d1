"""How far GEAT's Triton form is from the PyTorch form: `sapis selftest triton`.

Energies, forces and the parameter gradients of a loss of energies, forces and features (second derivatives),
for degrees 1 to 3 and both layouts of pairs, with slots that hold no pair within the cutoff. A difference is
the largest over the largest entry of the reference, of gradients parameter by parameter.

On a CUDA device the kernels are those of training, and the model has its default widths. With
TRITON_INTERPRET=1 in the environment Triton interprets them on the CPU, a small model takes seconds, and
nothing is said about a device.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.text import Text
from torch import Tensor

from sapis_lab.atoms import AtomsBatch
from sapis_lab.derivatives import predict
from sapis_lab.kernels import reference_forms
from sapis_lab.kernels.geat_triton import GeatTriton
from sapis_lab.models import Model
from sapis_lab.models.geat import GeatConfig
from sapis_lab.screen import new_table
from sapis_lab.selftest.contracts import SPECIES, Frame, batch_of, random_crystal, random_molecule

LAYOUTS = ("block", "table")
"""Molecules of several sizes, padded; crystals with their images."""
SMALL = {
    "channels": 6,
    "heads": 2,
    "n_radial": 5,
    "edge_hidden": 6,
    "invariants": 3,
    "key_width": 2,
    "node_hidden": 1.0,
}
"""Of the model that is interpreted: no width is a power of two but the smallest."""
AGREEMENT = {torch.float32: 1e-3, torch.float64: 1e-10}
"""Largest relative difference that passes; float32 leaves second derivatives four digits or so."""


class Differences(NamedTuple):
    """Largest relative differences."""

    energies: float
    forces: float
    gradients: float
    """of the parameters"""


def where() -> tuple[torch.device, str]:
    """The device that kernels run on, and what to say of it.

    Raises:
        ValueError: Triton is not installed, or there is neither a CUDA device nor TRITON_INTERPRET=1, which
            Triton reads when it is imported.
    """
    if importlib.util.find_spec("triton") is None:
        raise ValueError("Triton is not installed; pip install 'sapis-lab[gpu]'")
    if os.environ.get("TRITON_INTERPRET") == "1":
        return torch.device("cpu"), "under Triton's interpreter on the CPU, not on a device"
    if not torch.cuda.is_available():
        raise ValueError("no CUDA device; TRITON_INTERPRET=1 sapis selftest triton interprets the kernels")
    device = torch.device("cuda")
    return device, f"on a device: {torch.cuda.get_device_name(device)}"


def structures(layout: str, *, n_atoms: Sequence[int]) -> tuple[list[Frame], float]:
    """Frames that take this layout, and a cutoff, Å, beyond which some of their pairs are."""
    rng = np.random.default_rng(3)
    if layout == "table":
        return [random_crystal(rng) for _ in n_atoms[1:]], 2.7
    return [random_molecule(n, rng) for n in n_atoms], 2.5


def random_model(frames_cutoff: float, *, settings: dict[str, Any], dtype: torch.dtype) -> Model:
    """GEAT whose every parameter, zero at birth or not, is random."""
    config = GeatConfig.model_validate({"cutoff": frames_cutoff, **settings})
    model = config.build(species=SPECIES, mean_neighbors=6.0, seed=1).to(dtype)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=dtype))
        model.energy_scale.fill_(1.3)
    return model


def by_kernel(model: Model, batch: AtomsBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Energies of the frames, forces and features by the Triton form, whatever the registry would choose."""
    kernel = GeatTriton(
        model.kernel_shape(),  # type: ignore[arg-type]
        model.multipliers(),
        model.energy_scale.dtype,
    )
    with torch.no_grad():
        vectors = batch.graph.vectors(batch.positions, batch.cell)
    atomic, gradient, features = kernel(
        vectors,
        graph=batch.graph,
        n_atoms=batch.n_atoms,
        species=model.species_row.index_select(0, batch.species),
        parameters=dict(model.named_parameters()),
        energy_scale=model.energy_scale,
    )
    energy = atomic.new_zeros(batch.n_frames).index_add(0, batch.batch, atomic)
    return energy, batch.graph.forces(gradient), features


def by_pytorch(model: Model, batch: AtomsBatch) -> tuple[Tensor, Tensor, Tensor]:
    """The same by the PyTorch form."""
    with reference_forms():
        found = predict(model, batch, differentiable=True)
    return found.energy, found.forces, found.node_features


def differences(
    lmax: int,
    layout: str,
    *,
    dtype: torch.dtype,
    device: torch.device,
    settings: dict[str, Any] | None = None,
    n_atoms: Sequence[int] = (4, 3),
) -> Differences:
    """Of one model and batch; `settings` of GEAT, by default the small ones, and atoms of the molecules."""
    frames, cutoff = structures(layout, n_atoms=n_atoms)
    batch = batch_of(frames, layout="pairs", cutoff=cutoff, dtype=dtype, block=layout == "block").to(device)
    chosen = {**(SMALL if settings is None else settings), "lmax": lmax}
    model = random_model(cutoff, settings=chosen, dtype=dtype).to(device)
    names = ["energies", "forces", *(name for name, _ in model.named_parameters())]
    found, wanted = (
        dict(zip(names, _results(form, model, batch), strict=True)) for form in (by_kernel, by_pytorch)
    )
    apart = {
        n: ((found[n] - t).abs().max() / t.abs().max().clamp_min(1e-6)).item() for n, t in wanted.items()
    }
    energies, forces, *gradients = apart.values()
    return Differences(energies, forces, max(gradients))


def _results(
    form: Callable[[Model, AtomsBatch], tuple[Tensor, Tensor, Tensor]], model: Model, batch: AtomsBatch
) -> list[Tensor]:
    """Energies, forces, and gradients of the parameters."""
    energy, forces, features = form(model, batch)
    # no target fits, so that no term is small
    loss = (energy - 1).square().sum() + (forces - 1).square().sum() + features.tanh().sum()
    return [energy.detach(), forces.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


def run_triton(
    degrees: Sequence[int],
    precisions: Sequence[str],
    *,
    save: Callable[[dict[str, Any]], None],
    console: Console,
) -> int:
    """Print the table; the exit status, 1 where a difference is above `AGREEMENT`.

    Args:
        degrees: lmax of the models.   precisions: float32, float64.   save: called with all results.

    Raises:
        ValueError: a precision that there is not, and as of `where`.
    """
    known = {str(t).removeprefix("torch."): t for t in AGREEMENT}
    if not set(precisions) <= set(known):
        raise ValueError(f"precisions {', '.join(precisions)}: wanted {' or '.join(known)}")
    device, said = where()
    sizes: dict[str, Any] = {"settings": {}, "n_atoms": (21, 9, 15)} if device.type == "cuda" else {}
    console.print(Text(f"Triton form of GEAT against the PyTorch form, {said}"), soft_wrap=True)
    table = new_table("lmax", "layout", "precision", "energies", "forces", "parameter gradients")
    rows, passed = [], True
    for precision in precisions:
        for lmax in degrees:
            for layout in LAYOUTS:
                dtype = known[precision]
                found = differences(lmax, layout, dtype=dtype, device=device, **sizes)
                passed &= max(found) <= AGREEMENT[dtype]
                rows.append({"lmax": lmax, "layout": layout, "precision": precision, **found._asdict()})
                table.add_row(str(lmax), layout, precision, *(f"{value:.1e}" for value in found))
    console.print(table)
    largest = {name: max(row[name] for row in rows) for name in Differences._fields}
    text = ", ".join(f"{name} {value:.1e}" for name, value in largest.items())
    console.print(Text(f"largest relative differences: {text} ({said})"), soft_wrap=True)
    save({"where": said, "device": device.type, "largest": largest, "rows": rows})
    return int(not passed)
