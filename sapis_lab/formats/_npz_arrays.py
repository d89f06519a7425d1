"""Reading .npz archives of foreign data: never unpickles, and says which file and which array were wrong."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from sapis_lab.elements import ATOMIC_NUMBER
from sapis_lab.formats._xyz_text import CELL_NAMES, PBC_NAMES

_NPZ_NAMES = {
    "species": ("z", "Z", "nuclear_charges", "species", "numbers", "atomic_numbers"),
    "positions": ("R", "coords", "positions"),
    "energy": ("E", "energies", "energy"),
    "forces": ("F", "forces"),
    "cell": ("cell", "lattice"),
    "pbc": ("pbc",),
    "n_atoms": ("n_atoms", "natoms", "num_atoms"),
}
"""Array names looked for when `npz_keys` does not give one; those of cell, pbc and n_atoms in any case."""


def open_npz(path: Path) -> np.lib.npyio.NpzFile:
    """The archive at `path`; ValueError if it is not one (a pickle with the ending .npz, for example)."""
    try:
        archive = np.load(path, allow_pickle=False)
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(
            f"{path}: not a .npz archive of plain arrays ({error}); "
            "pickled files are refused because reading them runs code"
        ) from None
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError(f"{path}: a single array, wanted a .npz archive")
    return archive


def read_numbers(
    archive: np.lib.npyio.NpzFile, key: str, path: Path, *, wanted: str = "numbers"
) -> np.ndarray:
    """The array `key`, of integers or floats; ValueError if it holds anything else, such as text."""
    array = read_member(archive, key, path)
    if array.dtype.kind not in "iuf":
        example = repr(array.reshape(-1)[0].item()) if array.size else "none"
        raise ValueError(
            f"{path}: array {key!r} is of type {array.dtype} (the first is {example}), wanted {wanted}"
        )
    return array


def read_member(archive: np.lib.npyio.NpzFile, key: str, path: Path) -> np.ndarray:
    """The array `key`; ValueError if it is absent or pickled (an object array)."""
    if key not in archive.files:
        raise ValueError(f"{path}: no array {key!r}; it has {', '.join(archive.files)}")
    try:
        return archive[key]
    except ValueError as error:
        if "pickle" in str(error).lower() or "object" in str(error).lower():
            raise ValueError(
                f"{path}: array {key!r} is pickled (an object array), which is refused because reading it "
                f"runs code; "
                "save it as plain numbers"
            ) from None
        raise ValueError(f"{path}: array {key!r} cannot be read: {error}") from None


def npz_arrays(
    path: Path,
    names: Mapping[str, str | None],
    *,
    keys: Collection[str] = (),
    every: bool = False,
    may_lack: bool = False,
) -> dict[str, np.ndarray]:
    """The arrays of frames in an archive, as the file has them: species, positions, pbc, energy, forces, the
    cell if there is one, those of `keys`, and the sizes n_atoms where atoms of all frames are joined.

    Args:
        names: of arrays, where they are not the usual ones; None for an energy or forces that are not read.
        every: read all arrays with a row for each frame (or atom, where they are joined) as well.
        may_lack: energy and forces may be absent.

    Raises:
        ValueError: an array is missing or of another shape; the message names file and array.
    """
    given, arrays = {what: name for what, name in names.items() if name is not None}, {}
    with open_npz(path) as archive:
        for what in _NPZ_NAMES:
            if what in names and names[what] is None:
                continue
            optional = may_lack and what in ("energy", "forces")
            key = given.get(what) or _npz_key(archive, what, path, optional=optional)
            if key is not None and what in ("pbc", "species"):
                arrays[what] = read_member(archive, key, path)
            elif key is not None:
                arrays[what] = read_numbers(archive, key, path)
        for key in keys:
            arrays.setdefault(key, read_numbers(archive, key, path))
        if every:
            arrays |= _further(archive, arrays, path)
        _refuse_unread_cell(archive, given, arrays, path)
    arrays["species"] = _numbers_of_symbols(arrays["species"], path)
    n_frames = len(arrays["n_atoms"] if "n_atoms" in arrays else arrays["positions"])
    if "energy" in arrays:
        arrays["energy"] = arrays["energy"].reshape(-1)
        n_frames = len(arrays["energy"])
    _check_shapes(arrays, n_frames, path)
    arrays["pbc"] = _npz_pbc(arrays, n_frames, path)
    return arrays


def _further(
    archive: np.lib.npyio.NpzFile, arrays: Mapping[str, np.ndarray], path: Path
) -> dict[str, np.ndarray]:
    """The arrays with a row for each frame, or each atom where these are joined, that are not among `arrays`
    yet."""
    joined = "n_atoms" in arrays
    lengths = {len(arrays["n_atoms"] if joined else arrays["positions"])}
    if joined:
        lengths.add(len(arrays["species"]))
    usual = {name for what in arrays if what in _NPZ_NAMES for name in _NPZ_NAMES[what]}
    found = {}
    for key in archive.files:
        if key in arrays or key in usual or key.casefold() in usual:
            continue
        array = read_member(archive, key, path)
        rows_of_text = array.dtype.kind == "U" and array.ndim == 1
        if array.ndim and len(array) in lengths and (array.dtype.kind in "biuf" or rows_of_text):
            found[key] = array
    return found


def _numbers_of_symbols(species: np.ndarray, path: Path) -> np.ndarray:
    """Atomic numbers, whether the archive has them or chemical symbols; an empty symbol fills up a row."""
    if species.dtype.kind in "iuf":
        return species
    if species.dtype.kind == "S":
        species = np.char.decode(species, "ascii", errors="replace")
    if species.dtype.kind != "U":
        raise ValueError(
            f"{path}: species are of type {species.dtype}, wanted atomic numbers or chemical symbols"
        )
    symbols, which = np.unique(species, return_inverse=True)
    unknown = [str(s) for s in symbols if s not in ATOMIC_NUMBER and s != ""]
    if unknown:
        raise ValueError(
            f"{path}: species are of type {species.dtype} and name {unknown[0]!r}, wanted atomic numbers or "
            "chemical symbols such as H or Cl"
        )
    numbers: np.ndarray = np.array([ATOMIC_NUMBER.get(str(s), 0) for s in symbols])[which]
    return numbers.reshape(species.shape)


def _check_shapes(arrays: dict[str, np.ndarray], n_frames: int, path: Path) -> None:
    """ValueError where shapes of species, positions, forces and cell do not fit to `n_frames`."""
    z, forces = arrays["species"], arrays.get("forces")
    if "n_atoms" in arrays:
        n_total = int(arrays["n_atoms"].sum())
        shapes = {"species": (n_total,), "positions": (n_total, 3), "forces": (n_total, 3)}
        for what, wanted in shapes.items():
            if what in arrays and arrays[what].shape != wanted:
                raise ValueError(
                    f"{path}: {what} have shape {arrays[what].shape}, wanted {wanted}: the array n_atoms "
                    f"says that {n_frames} frames have {n_total} atoms together"
                )
    elif z.ndim not in (1, 2) or 0 in z.shape or (z.ndim == 2 and len(z) not in (1, n_frames)):
        raise ValueError(
            f"{path}: species have shape {z.shape}, wanted (n_atoms,) or (n_frames, n_atoms), with "
            f"{n_frames} energies"
        )
    else:
        wanted = (n_frames, z.shape[-1], 3)
        for what, value in (("positions", arrays["positions"]), ("forces", forces)):
            if value is not None and value.shape != wanted:
                raise ValueError(
                    f"{path}: {what} have shape {value.shape}, wanted {wanted} for {n_frames} energies and "
                    f"{z.shape[-1]} atoms"
                )
    cells = ((3, 3), (9,), (1, 3, 3), (n_frames, 3, 3), (n_frames, 9))
    if "cell" in arrays and arrays["cell"].shape not in cells:
        raise ValueError(
            f"{path}: the cell has shape {arrays['cell'].shape}, wanted (3, 3) or {(n_frames, 3, 3)}: three "
            f"lattice vectors"
        )


def _npz_key(archive: np.lib.npyio.NpzFile, what: str, path: Path, *, optional: bool = False) -> str | None:
    """The array that holds `what` by its name; None where a file without one has none.

    Raises:
        ValueError: none has a name that is known, or several have and differ.
    """
    names, of_shape = _NPZ_NAMES[what], what in ("cell", "pbc", "n_atoms")
    known = [
        key for name in names for key in archive.files if key == name or (of_shape and key.casefold() == name)
    ]
    if not known and not of_shape and not optional:
        raise ValueError(
            f"{path}: none of the arrays {', '.join(archive.files)} is known to hold the {what} "
            f"(tried {', '.join(names)}); set npz_keys"
        )
    for other in known[1:]:
        if not np.array_equal(read_member(archive, known[0], path), read_member(archive, other, path)):
            raise ValueError(
                f"{path}: the arrays {known[0]} and {other} differ, and either may hold the {what}; set "
                f"npz_keys"
            )
    return known[0] if known else None


def _npz_pbc(arrays: dict[str, np.ndarray], n_frames: int, path: Path) -> np.ndarray:
    """Periodicity of every frame, (n_frames, 3) bool: the array pbc, or all three directions where there is a
    cell."""
    cells: np.ndarray = np.broadcast_to(arrays.get("cell", np.zeros((3, 3))).reshape(-1, 9), (n_frames, 9))
    given, has_cell = arrays.get("pbc"), np.any(cells, axis=1)
    if given is None:
        return np.repeat(has_cell.reshape(-1, 1), 3, axis=1)
    if (
        given.shape not in ((), (3,), (1, 3), (n_frames, 3))
        or given.dtype.kind not in "biuf"
        or not np.isin(given, (0, 1)).all()
    ):
        got = given.tolist() if given.size < 10 else f"of shape {given.shape} and type {given.dtype}"
        raise ValueError(f"{path}: pbc is {got}, wanted (3,) or {(n_frames, 3)} of true and false")
    pbc = np.array(np.broadcast_to(given.astype(bool), (n_frames, 3)))
    lacking = np.nonzero(pbc.any(1) & ~has_cell)[0]
    if len(lacking):
        raise ValueError(
            f"{path}, frame {lacking[0]}: pbc is {pbc[lacking[0]].tolist()}, but there is no cell; "
            "set npz_keys: {cell: …} to the array that holds it"
        )
    return pbc


def _refuse_unread_cell(
    archive: np.lib.npyio.NpzFile, given: dict[str, str], arrays: dict[str, np.ndarray], path: Path
) -> None:
    """ValueError where an array that is not read could be the cell or the periodicity of frames that do not
    say it otherwise."""
    is_open = "pbc" in arrays and not arrays["pbc"].any()
    unread = [
        key
        for key in archive.files
        if key not in given.values() and key.casefold() not in ("cell", "lattice", "pbc")
    ]
    for what, names in (("cell", CELL_NAMES), ("pbc", PBC_NAMES)):
        may_hold = [key for key in unread if re.sub(r"[\W_\d]", "", key.casefold()) in names]
        if may_hold and what not in arrays and not is_open:
            raise ValueError(
                f"{path}: the array {may_hold[0]} may hold the {what} and is not read; set npz_keys: "
                f"{{{what}: {may_hold[0]}}}, "
                "or give an array pbc of three zeros if the structures are open"
            )
