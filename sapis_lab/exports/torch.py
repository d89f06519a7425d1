"""A program of PyTorch, energies, forces and virials in one graph, that runs without this package.

    program: export     potential.pt2, made and read by `torch.export`; for Python, on any processor
    program: aoti       potential.pt2, compiled by AOTInductor for the processor of this machine; for Python
                        and C++ (needs a C++ compiler when it is written, none where it runs)
    program: script     potential.pt, TorchScript; for Python and C++ with libtorch, on any processor

Inputs and outputs are those of `sapis_lab/exports/_traced.py`, and stand in `predict.py`, which makes them of
a structure and needs torch, numpy and vesin. What is written was compared with the potential before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from sapis_lab.config import ConfigError
from sapis_lab.exports._base import Export, want_energies
from sapis_lab.exports._traced import checked, inputs_of, samples, scripted, traced, with_derivatives
from sapis_lab.files import write_text, write_with
from sapis_lab.potential import Potential

_MOST = 1 << 30

_PREDICT = '''\
"""Energy, forces and stress by the program in this folder; needs torch, numpy and vesin.

    from predict import predict
    energy, forces, stress = predict(numbers, positions, cell, pbc)     eV, eV/A, eV/A^3 (tension positive)

`python predict.py FILE` prints them of a file that ASE reads.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from vesin import NeighborList

CUTOFF, LAYOUT, SPECIES = {cutoff!r}, {layout!r}, {species!r}
HERE = Path(__file__).parent
PROGRAM = {load}


def edges(positions, cell, pbc):
    """Ordered pairs (i, j, shift) closer than the cutoff, sorted by i; r_ij = x_j + shift @ cell - x_i."""
    box = np.where(np.any(pbc), cell, np.eye(3) * (np.ptp(positions, axis=0).max() + 3 * CUTOFF))
    i, j, s = NeighborList(cutoff=CUTOFF, full_list=True).compute(positions, box, pbc, quantities="ijS")
    order = np.argsort(i, kind="stable")
    return i[order].astype(np.int64), j[order].astype(np.int64), s[order].astype(np.float32)


def inputs(structures):
    """The tensors that the program takes, of (numbers, positions, cell, pbc)."""
    count = [len(numbers) for numbers, *_ in structures]
    first = np.cumsum([0, *count])[:-1]
    found = [edges(x, cell, pbc) for _, x, cell, pbc in structures]
    i = np.concatenate([f[0] + n for f, n in zip(found, first)])
    j = np.concatenate([f[1] + n for f, n in zip(found, first)])
    s = np.concatenate([f[2] for f in found]).reshape(-1, 3)
    head = (
        np.concatenate([x for _, x, *_ in structures]),
        np.stack([cell if np.any(pbc) else np.zeros((3, 3)) for *_, cell, pbc in structures]),
        np.concatenate([numbers for numbers, *_ in structures]).astype(np.int64),
        np.repeat(np.arange(len(structures)), count),
    )
    if LAYOUT == "edges":
        arrays = (*head, i, j, s)
    else:  # a table: slot 0 is the atom itself
        n, per_atom = sum(count), np.bincount(i, minlength=sum(count))
        width = 1 + max(1, per_atom.max())
        column = 1 + np.arange(len(i)) - (np.cumsum(per_atom) - per_atom)[i]
        table, shift = np.repeat(np.arange(n)[:, None], width, 1), np.zeros((n, width, 3), dtype=np.float32)
        mask = np.zeros((n, width), dtype=bool)
        table[i, column], mask[i, column], shift[i, column] = j, True, s
        arrays = (*head, table, mask, shift)
    return [torch.from_numpy(np.ascontiguousarray(a)) for a in arrays]


# the program wants at least two atoms and two pairs; two atoms that see each other make up for them
PAIR = ([SPECIES[0]] * 2, np.array([[0.0, 0, 0], [0, 0, 0.7 * CUTOFF]]), np.zeros((3, 3)), np.zeros(3, bool))


def predict_many(structures):
    """Energies, and forces and stresses (None without a cell) of each, of (numbers, positions, cell, pbc)."""
    unknown = sorted({{int(z) for numbers, *_ in structures for z in numbers}} - set(SPECIES))
    if unknown:
        raise ValueError(f"the potential knows the elements {{SPECIES}}, got {{unknown}} as well")
    given = [(np.asarray(z), np.asarray(x, float), np.asarray(c, float), np.asarray(p, bool))
             for z, x, c, p in structures]
    energy, _, forces, virial = PROGRAM(*inputs([*given, PAIR]))
    ends = np.cumsum([len(z) for z, *_ in given])
    stress = [
        v.numpy() / abs(np.linalg.det(cell)) if pbc.any() else None
        for v, (*_, cell, pbc) in zip(virial.detach(), given)
    ]
    return energy.detach().numpy()[:-1], np.split(forces.detach().numpy()[: ends[-1]], ends[:-1]), stress


def predict(numbers, positions, cell=np.zeros((3, 3)), pbc=(False, False, False)):
    """Energy, forces (n_atoms, 3) and, with a cell, stress (3, 3) of one structure."""
    energy, forces, stress = predict_many([(numbers, positions, cell, pbc)])
    return float(energy[0]), forces[0], stress[0]


if __name__ == "__main__":
    import ase.io

    for atoms in ase.io.iread(sys.argv[1]):
        energy, forces, stress = predict(atoms.numbers, atoms.positions, np.asarray(atoms.cell), atoms.pbc)
        print("energy, eV:", energy)
        print("forces, eV/A:", forces, sep="\\n")
        if stress is not None:
            print("stress, eV/A^3:", stress, sep="\\n")
'''
_LOAD = {
    "export": 'torch.export.load(HERE / "potential.pt2").module()',
    "aoti": 'torch._inductor.aoti_load_package(str(HERE / "potential.pt2"))',
    "script": 'torch.jit.load(HERE / "potential.pt")',
}


class TorchExport(Export):
    """PyTorch: one graph with energies, forces and virials, and a script that makes its inputs."""

    kind: Literal["torch"] = "torch"
    program: Literal["export", "aoti", "script"] = "export"
    """By `torch.export`, compiled by AOTInductor for this machine, or TorchScript."""

    def check(self, potential: Potential) -> None:
        want_energies(potential, self.kind)
        if potential.model.energy_scale.device.type != "cpu":
            raise ConfigError("--to torch: wanted a potential on the CPU; load it there")

    def write(self, potential: Potential, folder: Path) -> list[Path]:
        graph = traced(with_derivatives(potential), potential)
        path = folder / ("potential.pt" if self.program == "script" else "potential.pt2")
        if self.program == "script":
            script = scripted(graph)
            checked(script, potential)
            write_with(path, lambda temporary: torch.jit.save(script, str(temporary)))
        else:
            program = _exported(graph, potential)
            checked(program.module(), potential)
            if self.program == "export":
                write_with(path, lambda temporary: _save(program, temporary))
            else:
                write_with(path, lambda temporary: _compile(program, temporary))
        text = _PREDICT.format(
            cutoff=potential.model.cutoff,
            layout=potential.model.layout,
            species=list(potential.model.species),
            load=_LOAD[self.program],
        )
        write_text(folder / "predict.py", text)
        return [path, folder / "predict.py"]


def _exported(graph: torch.fx.GraphModule, potential: Potential) -> Any:
    from torch.export import Dim, export

    a, b, k = Dim("A", min=2, max=_MOST), Dim("B", min=1, max=_MOST), Dim("K", min=2, max=_MOST)
    head: tuple[dict[int, Any], ...] = ({0: a}, {0: b}, {0: a}, {0: a})
    tail = ({0: k},) * 3 if potential.model.layout == "edges" else ({0: a, 1: k},) * 3
    inputs = inputs_of(potential, samples(potential, (27, 36)))
    try:
        return export(graph, inputs, dynamic_shapes=(*head, *tail), strict=False)
    except Exception as error:  # of many classes of torch's own
        line = str(error).strip().splitlines()[0][:160]
        raise ConfigError(
            f"--to torch: torch.export refuses this potential ({line}); take program=script"
        ) from error


def _save(program: Any, path: Path) -> None:
    with path.open("wb") as file:  # by its name it would want another ending
        torch.export.save(program, file)


def _compile(program: Any, path: Path) -> None:
    """The compiled package as the file `path`; the compiler wants a name that ends in .pt2."""
    package = path.with_name(f"{path.name}.pt2")
    try:
        torch._inductor.aoti_compile_and_package(program, package_path=str(package))
        package.replace(path)
    except Exception as error:
        raise ConfigError(
            f"--to torch program=aoti: cannot be compiled ({str(error).strip().splitlines()[0][:160]}); a "
            "C++ compiler is needed, or take program=export"
        ) from error
    finally:
        package.unlink(missing_ok=True)
