"""Faults that real data sets come with, planted in frames: what people get wrong about units, signs and
splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from sapis_lab import units
from sapis_lab.data import Frames

Splits = dict[str, np.ndarray]


@dataclass(frozen=True)
class Fault:
    """One fault, and the checks that are meant to see it."""

    name: str
    checks: tuple[str, ...]
    """Names of findings begin with these."""
    plant: Callable[[Frames, Splits], tuple[Frames, Splits] | None] | None
    """The spoilt frames and splits; None where the set has nothing that could be spoilt so. Without one the
    file itself is cut."""


def _atoms(frames: Frames, k: int) -> slice:
    end = int(np.sum(frames.n_atoms[: k + 1]))
    return slice(end - int(frames.n_atoms[k]), end)


def _scaled(energy: float = 1.0, forces: float = 1.0) -> Callable[[Frames, Splits], tuple[Frames, Splits]]:
    return lambda f, s: (replace(f, energy=f.energy * energy, forces=f.forces * np.float32(forces)), s)


def _flipped_in_test(frames: Frames, splits: Splits) -> tuple[Frames, Splits]:
    forces = frames.forces.copy()
    for k in splits["test"]:
        forces[_atoms(frames, int(k))] *= -1
    return replace(frames, forces=forces), splits


def _per_atom(frames: Frames, splits: Splits) -> tuple[Frames, Splits]:
    return replace(frames, energy=frames.energy / frames.n_atoms), splits


def _stress(factor: float) -> Callable[[Frames, Splits], tuple[Frames, Splits] | None]:
    def plant(frames: Frames, splits: Splits) -> tuple[Frames, Splits] | None:
        return None if frames.stress is None else (replace(frames, stress=frames.stress * factor), splits)

    return plant


def _with_copy(
    frames: Frames, splits: Splits, of: int, split: str, *, turn: np.ndarray, wrap: bool
) -> tuple[Frames, Splits]:
    """A frame once more at the end, turned or with atoms moved by lattice vectors."""
    atoms = _atoms(frames, of)
    x = frames.positions[atoms] @ turn
    if wrap:
        number = np.arange(len(x))[:, None]
        x = x + number % 3 * frames.cell[of][0] - number % 2 * frames.cell[of][2]
    added = Frames(
        n_atoms=np.append(frames.n_atoms, frames.n_atoms[of]),
        species=np.append(frames.species, frames.species[atoms]),
        positions=np.concatenate([frames.positions, x]),
        cell=np.concatenate([frames.cell, frames.cell[of][None]]),
        pbc=np.concatenate([frames.pbc, frames.pbc[of][None]]),
        energy=np.append(frames.energy, frames.energy[of]),
        forces=np.concatenate([frames.forces, (frames.forces[atoms] @ turn).astype(np.float32)]),
        stress=None if frames.stress is None else np.concatenate([frames.stress, frames.stress[of][None]]),
    )
    return added, {**splits, split: np.append(splits[split], len(frames.n_atoms))}


_TURN = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]


def _copy_in_test(frames: Frames, splits: Splits) -> tuple[Frames, Splits]:
    k = int(splits["train"][1])
    periodic = bool(frames.pbc[k].any())
    return _with_copy(frames, splits, k, "test", turn=np.eye(3) if periodic else _TURN, wrap=periodic)


def _copy_in_training(frames: Frames, splits: Splits) -> tuple[Frames, Splits]:
    return _with_copy(frames, splits, int(splits["train"][1]), "train", turn=np.eye(3), wrap=False)


def _outlier(frames: Frames, splits: Splits) -> tuple[Frames, Splits]:
    k = int(splits["train"][3])
    energy, forces = frames.energy.copy(), frames.forces.copy()
    energy[k] -= 50.0
    forces[_atoms(frames, k).start] = (300.0, 0.0, 0.0)
    return replace(frames, energy=energy, forces=forces), splits


def _mixed(frames: Frames, splits: Splits) -> tuple[Frames, Splits]:
    """Every second frame without its periodicity, or with a box around it where there is none."""
    pbc, cell = frames.pbc.copy(), frames.cell.copy()
    pbc[::2] = ~pbc[::2]
    cell[::2] = 0.0 if frames.pbc.any() else 30.0 * np.eye(3)
    return replace(frames, pbc=pbc, cell=cell), splits


_AGAINST = "energies against forces"
FAULTS: tuple[Fault, ...] = (
    Fault("sign flipped in test", ("forces of test",), _flipped_in_test),
    Fault("gradients as forces", (_AGAINST,), _scaled(forces=-1.0)),
    Fault("forces in eV/Bohr", (_AGAINST,), _scaled(forces=units.BOHR_TO_ANGSTROM)),
    Fault(
        "all in kcal/mol",
        ("energy unit",),
        _scaled(1 / units.KCAL_PER_MOL_TO_EV, 1 / units.KCAL_PER_MOL_TO_EV),
    ),
    Fault("energies per atom", (_AGAINST,), _per_atom),
    Fault("sign of the virial", ("stress",), _stress(-1.0)),
    Fault("stress in GPa", ("stress",), _stress(units.EV_PER_A3_TO_GPA)),
    Fault("moved copy in test", ("copies",), _copy_in_test),
    Fault("frame twice in training", ("copies",), _copy_in_training),
    Fault("outlier", ("outliers",), _outlier),
    Fault("mixed periodicity", ("periodicity",), _mixed),
    Fault("file cut off", ("files are read",), None),
)


def written(frames: Frames, symbols: Mapping[int, str]) -> str:
    """Frames as extended XYZ."""
    lines, start = [], 0
    for k, n in enumerate(frames.n_atoms):
        atoms = slice(start, start + int(n))
        start += int(n)
        lattice = " ".join(f"{v:.10g}" for v in frames.cell[k].ravel())
        cell = f'Lattice="{lattice}" ' if frames.pbc[k].any() else ""
        flags = " ".join("FT"[int(p)] for p in frames.pbc[k])
        lines += [
            str(n),
            f'{cell}Properties=species:S:1:pos:R:3:forces:R:3 energy={frames.energy[k]:.9f} pbc="{flags}"',
        ]
        for z, x, f in zip(frames.species[atoms], frames.positions[atoms], frames.forces[atoms], strict=True):
            lines.append(" ".join([symbols[int(z)], *(f"{v:.8f}" for v in (*x, *f))]))
    return "\n".join(lines) + "\n"
