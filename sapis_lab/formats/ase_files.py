"""Outputs and structures that ASE reads as text: VASP (OUTCAR, vasprun.xml, POSCAR, CONTCAR, XDATCAR),
FHI-aims, CASTEP, Quantum Espresso, ORCA, Gaussian, NWChem, CP2K, DFTB+ (.gen), CIF, PDB, XSF, ...; eV and Å,
forces without constraints, stress in Voigt order with positive tension.

Only formats whose readers in ASE parse text are let through: those that are pickled, run something, name
types instead of elements (LAMMPS) or state no unit are refused. Labels are the results of the calculator
(energy, free_energy, forces, stress, dipole, charges, magmoms, ...), the columns tags, momenta,
initial_charges and initial_magmoms, and what stands in atoms.info.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from sapis_lab.formats._base import (
    Block,
    Reading,
    Single,
    check_n_atoms,
    first_bytes,
    joined,
    open_binary,
    open_text,
    picked,
    uncompressed,
    without_compression,
)
from sapis_lab.formats._values import sorted_labels

FIXED = {"energy_unit": "eV", "length_unit": "Angstrom", "stress_unit": "eV/Angstrom^3"}

_BY_NAME = {
    "outcar": "vasp-out",
    "vasprun.xml": "vasp-xml",
    "poscar": "vasp",
    ".poscar": "vasp",
    "contcar": "vasp",
    "xdatcar": "vasp-xdatcar",
    ".vasp": "vasp",
    "aims.out": "aims-output",
    "geometry.in": "aims",
    ".castep": "castep-castep",
    ".geom": "castep-geom",
    ".cell": "castep-cell",
    ".cif": "cif",
    ".pdb": "proteindatabank",
    ".gen": "gen",
    ".xsf": "xsf",
    ".pwo": "espresso-out",
    ".pwi": "espresso-in",
    ".res": "res",
    ".shelx": "res",
    ".cube": "cube",
    ".sdf": "sdf",
    ".mol": "mol",
    ".nwo": "nwchem-out",
    ".com": "gaussian-in",
    ".gjf": "gaussian-in",
    ".out": "",
    ".log": "",
}
"""Endings of file names, and the format of ASE; empty where the contents decide."""
ENDINGS = tuple(_BY_NAME)

# fmt: off
_ALLOWED = frozenset((
    "abinit-out", "aims", "aims-output", "castep-castep", "castep-cell", "castep-geom", "castep-md",
    "cif", "cp2k-restart", "crystal", "cube", "dmol-arc", "dmol-car", "espresso-in", "espresso-out",
    "gamess-us-out", "gaussian-in", "gaussian-out", "gen", "gpaw-out", "magres", "mol", "nwchem-in",
    "nwchem-out", "onetep-in", "onetep-out", "orca-output", "proteindatabank", "qbox", "res", "sdf",
    "siesta-xv", "struct", "struct_out", "turbomole", "turbomole-gradient", "vasp", "vasp-out",
    "vasp-xdatcar", "vasp-xml", "xsd", "xsf", "xtd",
))
# fmt: on
_COLUMNS = ("initial_charges", "initial_magmoms", "tags", "momenta")


def count(path: Path) -> int:
    """Frames in the file, which is read for it."""
    return sum(1 for _ in _atoms(path))


def blocks(path: Path, reading: Reading) -> Iterator[Block]:
    """The frames, one after another where ASE reads them so."""
    frames = picked(_atoms(path), reading, path, lambda: count(path))
    return joined(single_of(atoms, k, path, labels=reading.labels) for k, atoms in frames)


def _format_of(path: Path) -> str:
    """ASE's name of the format of `path`.

    Raises:
        ValueError: ASE does not know it, or it is none that is let through.
    """
    plain = without_compression(path).name.lower()
    fits = [end for end in ENDINGS if plain.endswith(end)]
    if fits and (name := _BY_NAME[max(fits, key=len)]):
        return name
    import io

    from ase.io.formats import UnknownFileTypeError, filetype

    start = first_bytes(path, 50_000)
    if b"\0" in start:
        raise ValueError(f"{path}: a binary file, wanted the text of a program that ASE reads")
    try:
        name = filetype(io.BytesIO(start), read=True)
    except (UnknownFileTypeError, UnicodeDecodeError):
        name = ""
    if name not in _ALLOWED:
        got = f"which ASE calls {name}, and which is not read here" if name else "which ASE does not know"
        raise ValueError(
            f"{path}: a file {got}; wanted one of {', '.join(sorted(_ALLOWED))}, by a name such as OUTCAR, "
            "vasprun.xml, aims.out, x.castep, x.cif, or by its first lines"
        )
    return name


def _atoms(path: Path) -> Iterator[Any]:
    """ASE's Atoms of all frames."""
    name = _format_of(path)
    from ase.io.formats import ioformats

    form, number = ioformats[name], 0
    if not path.stat().st_size:
        raise ValueError(f"{path}: is empty, wanted a file of the format {name}")
    with ExitStack() as stack:
        if not form.acceptsfd:
            source: Any = str(stack.enter_context(uncompressed(path)))
        else:
            source = stack.enter_context(open_binary(path) if form.isbinary else open_text(path))
        try:
            found = form.read(source) if form.single else form.read(source, index=slice(None))
            for atoms in [found] if hasattr(found, "positions") else found:
                yield atoms
                number += 1
        except GeneratorExit:
            raise
        except Exception as error:  # readers of ASE raise whatever a line that they do not expect leads to
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
            raise ValueError(
                f"{path}, frame {number}: cannot be read as {name} by ASE ({said}); is the file whole, and "
                "of "
                "that format?"
            ) from None
    if not number:
        raise ValueError(f"{path}: no frame, wanted a file of the format {name} with one at least")


def single_of(atoms: Any, number: int, path: Path, *, labels: bool) -> Single:
    """One of ASE's Atoms as a frame."""
    place = f"{path}, frame {number}"
    n = check_n_atoms(len(atoms), place)
    if (atoms.numbers < 1).any():
        atom = int(np.argmax(atoms.numbers < 1))
        raise ValueError(f"{place}: the element of atom {atom} is not known, wanted a chemical symbol")
    occupancy = atoms.info.get("occupancy")
    if isinstance(occupancy, dict):
        shares = [one for site in occupancy.values() if isinstance(site, dict) for one in site.values()]
        if any(isinstance(one, int | float) and one < 1 for one in shares):
            raise ValueError(
                f"{place}: has sites that are occupied in part, wanted one element with occupancy 1 a site; "
                "leave it out"
            )
    info, columns = sorted_labels({k: v for k, v in atoms.info.items() if k != "occupancy"}, n)
    results = dict(getattr(atoms.calc, "results", {}))
    given, of_atoms = sorted_labels(results, n)
    info, columns = {**info, **given}, {**columns, **of_atoms}
    for name in _COLUMNS:
        if atoms.has(name):
            columns[name] = atoms.get_array(name)
    for name, array in atoms.arrays.items():
        if name not in ("numbers", "positions", *_COLUMNS) and array.dtype.kind in "biuf":
            columns.setdefault(name, array)
    return Single(
        number,
        atoms.numbers.astype(np.int64),
        np.asarray(atoms.positions, dtype=np.float64),
        np.asarray(atoms.cell.array, dtype=np.float64),
        np.asarray(atoms.pbc, dtype=bool),
        info,
        columns if labels else {},
    )
