"""A model of metatomic (https://docs.metatensor.org/metatomic), for the engines that read it.

`potential.pt` holds the energies as TorchScript, differentiable once in positions and cell; the engine brings
the neighbour list and takes forces and stress by differentiation. Energies come for systems or atoms, with
reference energies, in eV and Å.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from sapis_lab.config import ConfigError
from sapis_lab.exports._base import Export, want_energies
from sapis_lab.exports._traced import batch_of, checked, quiet, reference_table, scripted, traced
from sapis_lab.files import write_text, write_with
from sapis_lab.potential import Potential

_SCRIPT = '''\
"""Energy, forces and stress of FILE by metatomic's calculator for ASE: `python calculator.py FILE`."""

import sys
from pathlib import Path

import ase.io
from metatomic_ase import MetatomicCalculator

calculator = MetatomicCalculator(Path(__file__).parent / "potential.pt")

if __name__ == "__main__":
    for atoms in ase.io.iread(sys.argv[1]):
        atoms.calc = calculator
        print("energy, eV:", atoms.get_potential_energy())
        print("forces, eV/A:", atoms.get_forces(), sep="\\n")
'''


class MetatomicExport(Export):
    """metatomic: energies as TorchScript, which engines differentiate."""

    kind: Literal["metatomic"] = "metatomic"

    def check(self, potential: Potential) -> None:
        want_energies(potential, self.kind)
        if potential.model.energy_scale.device.type != "cpu":
            raise ConfigError("--to metatomic: wanted a potential on the CPU; load it there")
        try:
            with scriptable():
                import metatomic.torch  # noqa: F401
        except ImportError as error:
            raise ConfigError(
                f"metatomic cannot be imported ({error}); pip install 'sapis_lab[metatomic]'"
            ) from None

    def write(self, potential: Potential, folder: Path) -> list[Path]:
        with scriptable():
            return self._write(potential, folder)

    def _write(self, potential: Potential, folder: Path) -> list[Path]:
        from metatomic.torch import AtomisticModel, ModelCapabilities, ModelMetadata, ModelOutput

        from sapis_lab.exports._metatomic_model import SapisModule

        energies = scripted(traced(_atomic_energies(potential), potential))
        checked(_with_derivatives(energies), potential)
        edges = potential.model.layout == "edges"
        module = SapisModule(energies, potential.model.cutoff, edges).eval()
        capabilities = ModelCapabilities(
            outputs={"energy": ModelOutput(unit="eV", sample_kind="atom", description="potential energy")},
            atomic_types=[int(z) for z in potential.model.species],
            interaction_range=reach(potential),
            length_unit="Angstrom",
            supported_devices=["cpu"],
            dtype="float64",
        )
        metadata = ModelMetadata(
            name=str(potential.origin.get("id") or potential.config.kind), description="see README.md"
        )
        model = AtomisticModel(module, metadata, capabilities)
        path = folder / "potential.pt"
        write_with(path, lambda temporary: model.save(str(temporary)))
        write_text(folder / "calculator.py", _SCRIPT)
        return [path, folder / "calculator.py"]


@contextmanager
def scriptable() -> Iterator[None]:
    """metatensor makes TorchScript of itself when it is imported, which fails once torch_geometric has put a
    function in the place of `torch.index_select` that TorchScript cannot read: it is put back meanwhile.
    """
    there = torch.index_select
    torch.index_select = torch._C._VariableFunctions.index_select  # type: ignore[attr-defined, assignment]
    try:
        with quiet():
            yield
    finally:
        torch.index_select = there


def reach(potential: Potential) -> float:
    """How far away an atom may be that the energy of another one depends on, Å: the cutoff times the layers
    that pass something on, and once more for what they begin with."""
    if potential.config.kind == "allegro":  # pairs alone, strictly local
        return potential.model.cutoff
    return potential.model.cutoff * (1 + int(getattr(potential.config, "layers", 1)))


def _atomic_energies(potential: Potential) -> Callable[..., Tensor]:
    """Atomic energies (A,) with reference energies, a function of the inputs that can be differentiated."""
    model, references = potential.model, reference_table(potential)

    def function(*inputs: Tensor) -> Tensor:
        batch = batch_of(potential, inputs)
        vectors = batch.graph.vectors(batch.positions, batch.cell)
        features = model.features(vectors.to(model.energy_scale.dtype), batch)
        output = model.evaluate(features, batch)
        assert output.atomic_energy is not None
        return output.atomic_energy.double() + references.index_select(0, batch.species)

    return function


def _with_derivatives(energies: Any) -> Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Energies, atomic energies, forces and virials as an engine takes them from atomic energies."""

    def function(positions: Tensor, cell: Tensor, species: Tensor, frame: Tensor, *rest: Tensor) -> Any:
        strain = torch.zeros_like(cell).requires_grad_(True)
        x = positions.clone().requires_grad_(True)
        deform = torch.eye(3, dtype=cell.dtype) + (strain + strain.transpose(1, 2)) / 2
        moved = torch.bmm(x.unsqueeze(1), deform[frame]).squeeze(1)
        atomic = energies(moved, torch.bmm(cell, deform), species, frame, *rest)
        slope, virial = torch.autograd.grad(atomic.sum(), (x, strain))
        energy = torch.zeros(len(cell), dtype=atomic.dtype).index_add(0, frame, atomic)
        return energy, atomic, -slope, virial

    return function
