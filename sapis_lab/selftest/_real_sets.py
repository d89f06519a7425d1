"""The public sets in $SAPIS_DATA as frames in eV and Å, whatever their format: what `sapis selftest faults`
plants its faults in, and what must pass without an alarm."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sapis_lab import units
from sapis_lab.data import SYMBOLS, Frames

NUMBER = {symbol: z for z, symbol in enumerate(SYMBOLS)}


class Single(NamedTuple):
    """One structure with labels, eV and Å."""

    species: np.ndarray
    """(n_atoms,)"""
    positions: np.ndarray
    """(n_atoms, 3)"""
    energy: float
    forces: np.ndarray
    """(n_atoms, 3)"""
    cell: np.ndarray | None = None
    """(3, 3)"""
    pbc: Sequence[bool] | None = None
    """All three where there is a cell, by default."""
    stress: np.ndarray | None = None
    """(3, 3), positive is tension."""


@dataclass(frozen=True)
class RealSet:
    """A set by its name, and how it is read."""

    name: str
    read: Callable[[Path], Iterator[Single]]

    def frames(self, root: Path) -> Frames:
        """All frames in the order of the files. ModuleNotFoundError where a package that reads them is
        missing, OSError where a file is."""
        return joined(list(self.read(root)))


def joined(singles: Sequence[Single]) -> Frames:
    """Single structures as the frames of a store."""
    n_atoms = np.array([len(s.species) for s in singles])
    zero = np.zeros((3, 3))
    have_stress = all(s.stress is not None for s in singles)
    return Frames(
        n_atoms=n_atoms,
        species=np.concatenate([s.species for s in singles]).astype(np.uint8),
        positions=np.concatenate([s.positions for s in singles]).astype(np.float64),
        cell=np.array([zero if s.cell is None else s.cell for s in singles], dtype=np.float64),
        pbc=np.array([[s.cell is not None] * 3 if s.pbc is None else list(s.pbc) for s in singles]),
        energy=np.array([s.energy for s in singles], dtype=np.float64),
        forces=np.concatenate([s.forces for s in singles]).astype(np.float32),
        stress=np.array([s.stress for s in singles]) if have_stress else None,
    )


def _npz(root: Path, *, name: str, unit: float) -> Iterator[Single]:
    with np.load(root / name, allow_pickle=False) as file:
        found = {key: file[key] for key in file.files}

    def of(*keys: str) -> Any:
        return next((found[key] for key in keys if key in found), None)

    z, x, e, f = of("nuclear_charges", "z"), of("coords", "R"), of("energies", "E"), of("forces", "F")
    cells = of("cell")
    for k, energy in enumerate(np.asarray(e, dtype=np.float64).reshape(-1)):
        cell = None if cells is None else cells[k]
        yield Single(z, x[k], float(energy) * unit, f[k] * unit, cell)


def _xyz(root: Path, *, names: Sequence[str]) -> Iterator[Single]:
    from ase.io import iread

    for name in names:
        for atoms in iread(root / name, index=":", format="extxyz"):
            yield _of_ase(atoms)


def _of_ase(atoms: Any) -> Single:
    has_cell = bool(atoms.cell.rank)
    forces = atoms.arrays.get("force")
    if forces is None:
        forces = (
            np.full((len(atoms), 3), np.nan)
            if atoms.calc is None
            else atoms.get_forces(apply_constraint=False)
        )
    energy = atoms.info.get("energy")
    energy = float("nan") if atoms.calc is None else atoms.calc.results.get("energy", energy)
    virial = atoms.info.get("virial")
    stress = None if virial is None else -np.reshape(virial, (3, 3)) / atoms.get_volume()
    return Single(
        atoms.numbers,
        atoms.positions,
        float("nan") if energy is None else float(energy),
        forces,
        atoms.cell.array if has_cell else None,
        atoms.pbc if has_cell else None,
        stress,
    )


def _qm9(root: Path) -> Iterator[Single]:
    from ase.io import iread

    for atoms in iread(root / "qm9/qm9_reduced_100.xyz", index=":", format="extxyz"):
        nothing = np.full((len(atoms), 3), np.nan)
        yield Single(atoms.numbers, atoms.positions, atoms.info["U0"] * units.HARTREE_TO_EV, nothing)


def _mlearn(root: Path, *, element: str) -> Iterator[Single]:
    folder, z = root / "mlearn" / element, NUMBER[element]
    if (folder / "id_prop.json").exists():
        entries = json.loads((folder / "id_prop.json").read_text())
        n_test = {"Ni": 31, "Cu": 31}[element]
        for entry in entries[: len(entries) - n_test]:  # the test frames are there twice
            atoms, cell = entry["atoms"], np.array(entry["atoms"]["lattice_mat"])
            n, x = len(atoms["elements"]), np.array(atoms["coords"])
            yield Single(
                np.full(n, z),
                x if atoms["cartesian"] else x @ cell,
                n * float(entry["total_energy"]),
                np.array(entry["forces"]),
                cell,
            )
        return
    for name in ("training", "test"):
        for entry in json.loads((folder / f"{name}.json").read_text()):
            cell = np.array(entry["structure"]["lattice"]["matrix"])
            x = np.array([site["abc"] for site in entry["structure"]["sites"]]) @ cell
            out = entry["outputs"]
            xx, yy, zz, xy, yz, zx = -0.1 / units.EV_PER_A3_TO_GPA * np.array(out["virial_stress"])
            stress = np.array([[xx, xy, zx], [xy, yy, yz], [zx, yz, zz]]) if element != "Li" else None
            yield Single(np.full(len(x), z), x, out["energy"], np.array(out["forces"]), cell, None, stress)


def _water_pbe0ts(root: Path) -> Iterator[Single]:
    folder = root / "water_pbe0ts"
    for part in sorted(folder.glob("data_*")):
        z = np.where(np.loadtxt(part / "type.raw", dtype=int) == 0, 8, 1)
        for made in sorted(part.glob("set.*")):
            x, f, e, box = (np.load(made / f"{name}.npy") for name in ("coord", "force", "energy", "box"))
            for k in range(len(e)):
                yield Single(z, x[k].reshape(-1, 3), float(e[k]), f[k].reshape(-1, 3), box[k].reshape(3, 3))


def _runner(root: Path) -> Iterator[Single]:
    length, hartree = units.BOHR_TO_ANGSTROM, units.HARTREE_TO_EV
    cell: list[list[float]] = []
    atoms: list[list[str]] = []
    energy = 0.0
    with (root / "water_rpbed3/input.data").open() as file:
        for line in file:
            words = line.split()
            if words[0] == "lattice":
                cell.append([float(w) for w in words[1:4]])
            elif words[0] == "atom":
                atoms.append(words)
            elif words[0] == "energy":
                energy = float(words[1])
            elif words[0] == "end":
                x = np.array([[float(w) for w in a[1:4]] for a in atoms]) * length
                f = np.array([[float(w) for w in a[7:10]] for a in atoms]) * hartree / length
                z = np.array([NUMBER[a[4]] for a in atoms])
                yield Single(z, x, energy * hartree, f, np.array(cell) * length)
                cell, atoms = [], []


def _oc20(root: Path) -> Iterator[Single]:
    from ase.io import iread

    for path in sorted((root / "oc20").glob("*.traj")):
        for atoms in iread(path, index=":"):
            yield _of_ase(atoms)


def _asedb(root: Path, *, name: str) -> Iterator[Single]:
    from ase.db import connect

    with connect(root / name) as db:
        for row in db.select():
            yield Single(row.numbers, row.positions, row.energy, row.forces, row.cell, row.pbc)


def _hdf5(
    root: Path, *, name: str, keys: Sequence[str], sign: float, length: float = 1.0
) -> Iterator[Single]:
    """Groups of conformers; `keys` name species, coordinates, energies (Hartree) and forces (Hartree per
    length)."""
    import h5py

    def groups(group: Any) -> Iterator[Any]:
        if keys[1] in group:
            yield group
            return
        for value in group.values():
            if isinstance(value, h5py.Group):
                yield from groups(value)

    force = sign * units.HARTREE_TO_EV / length
    with h5py.File(root / name) as file:
        for group in groups(file):
            z, x, e, f = (group[key][...] for key in keys)
            if z.dtype.kind == "S":
                z = np.array([NUMBER[symbol.decode()] for symbol in z])
            for k in range(len(e)):
                row = z[k] if z.ndim == 2 else z
                yield Single(row, x[k] * length, float(e[k]) * units.HARTREE_TO_EV, f[k] * force)


_MOLECULES = (
    "aspirin",
    "azobenzene",
    "benzene",
    "ethanol",
    "malonaldehyde",
    "naphthalene",
    "salicylic",
    "toluene",
)
_KCAL = units.KCAL_PER_MOL_TO_EV
_ANI1 = ("atomic_numbers", "coordinates", "wb97x_dz.energy", "wb97x_dz.forces")
_SPICE = ("atomic_numbers", "conformations", "dft_total_energy", "dft_total_gradient")
_PLAIN = ("species", "coordinates", "energies", "forces")

REAL_SETS: tuple[RealSet, ...] = (
    *(
        RealSet(f"rmd17-{m}", partial(_npz, name=f"rmd17/rmd17_{m}_train_01.npz", unit=_KCAL))
        for m in _MOLECULES
    ),
    RealSet("acac-300K", partial(_xyz, names=["acac/train_300K.xyz"])),
    RealSet("acac-600K", partial(_xyz, names=["acac/train_600K.xyz"])),
    RealSet("ethanol-botnet", partial(_xyz, names=["ethanol_botnet/train.xyz"])),
    RealSet("ethanol-methanol", partial(_xyz, names=["ethanol_botnet/train_eth_meth.xyz"])),
    RealSet("ethanol-ccsdt", partial(_npz, name="ethanol_ccsdt/ethanol_ccsd_t-train.npz", unit=_KCAL)),
    RealSet("3bpa-300K", partial(_xyz, names=["3bpa/train_300K.xyz"])),
    RealSet("3bpa-mixedT", partial(_xyz, names=["3bpa/train_mixedT.xyz"])),
    *(
        RealSet(f"mlearn-{element.lower()}", partial(_mlearn, element=element))
        for element in ("Li", "Si", "Ge", "Ni", "Cu")
    ),
    RealSet("carbon-lda", partial(_xyz, names=["carbon_castep_lda/carbon_reduced_100.xyz"])),
    RealSet("cu-ace", partial(_xyz, names=["cu_ace/Cu_df2_1k.extxyz"])),
    RealSet("lips-200", partial(_npz, name="lips/lips_200.npz", unit=1.0)),
    RealSet("water-pbe0ts", _water_pbe0ts),
    RealSet("water-rpbed3", _runner),
    RealSet("oc20", _oc20),
    RealSet("oc20-bulks", partial(_asedb, name="oc20_bulks_mp/bulks.db")),
    RealSet("oxides", partial(_asedb, name="oxides_asedb/oxides.db")),
    RealSet("comp6-s66x8", partial(_hdf5, name="comp6_s66x8/s66x8_wb97x6-31gd.h5", keys=_PLAIN, sign=-1.0)),
    RealSet("ani1x", partial(_hdf5, name="ani_spice_samples/ani1_n5.hdf5", keys=_ANI1, sign=1.0)),
    RealSet("ani2x", partial(_hdf5, name="ani_spice_samples/ani2x_minimal.hdf5", keys=_PLAIN, sign=1.0)),
    RealSet(
        "spice",
        partial(
            _hdf5,
            name="ani_spice_samples/SPICE-1.1.4_n2.hdf5",
            keys=_SPICE,
            sign=-1.0,
            length=units.BOHR_TO_ANGSTROM,
        ),
    ),
    RealSet("qm9-100", _qm9),
)
"""In the order in which tables show them."""
