"""Wrong and hostile files of every format: one line says which file and what was wrong, nothing large is
allocated, and no code in them runs."""

from __future__ import annotations

import json
import os
import pickle
import re
import sqlite3
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sapis_lab.formats import Reading, format_of

Make = Callable[[Path], object]
RAN: list[str] = []


class Bomb:
    """Says so when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return RAN.append, ("ran",)


PICKLE = pickle.dumps(Bomb())


def read(path: Path, topology: Path | None = None) -> None:
    for _ in format_of(path).blocks(path, Reading(topology=topology, energy="energy")):
        pass


def refusal(path: Path) -> str:
    """What is said of `path`, whose reading takes little memory."""
    topology = path.parent / "top.pdb"
    topology.write_text("ATOM      1 H    MOL A   1       0.000   0.000   0.000  1.00  0.00           H\n")
    format_of(path.with_name("x.xyz"))  # imports what is imported on first use
    tracemalloc.start()
    try:
        with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is the result
            read(path, topology)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 400e6, f"{peak / 1e6:.0f} MB"
    text = str(error.value)
    assert "\n" not in text and str(path) in text and len(text) < 900, text
    assert not RAN
    return text


def traj(path: Path) -> None:
    from ase import Atoms
    from ase.io import write

    write(path, [Atoms("H", positions=[[0, 0, k]]) for k in range(3)])


def database(path: Path) -> None:
    from ase import Atoms
    from ase.db import connect

    with connect(path, use_lock_file=False) as made:
        made.write(Atoms("H2", positions=[[0, 0, 0], [0, 0, 1]]))


def hdf5(path: Path, change: Callable[..., object] = lambda f: None) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as f:
        f["a/coordinates"] = np.zeros((2, 1, 3))
        f["a/species"] = [1]
        f["a/energies"] = [1.0, 2.0]
        change(f)


def cut(make: Make, share: float = 0.6) -> Make:
    """What `make` makes, without its end."""

    def made(path: Path) -> None:
        make(path)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])

    return made


def changed(make: Make, old: bytes, new: bytes) -> Make:
    def made(path: Path) -> None:
        make(path)
        assert old in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(old, new))

    return made


def other_link(f) -> None:  # type: ignore[no-untyped-def]
    import h5py

    f["a/energy"] = h5py.ExternalLink("/etc/passwd", "/x")


def elsewhere(f) -> None:  # type: ignore[no-untyped-def]
    del f["a/energies"]
    f["a"].create_dataset("energies", (2,), "f8", external=[("/etc/passwd", 0, 16)])


def absurd(f) -> None:  # type: ignore[no-untyped-def]
    del f["a/coordinates"]
    f["a"].create_dataset("coordinates", (10**12, 1, 3), "f8", chunks=(1000, 1, 3))


def many_atoms(f) -> None:  # type: ignore[no-untyped-def]
    del f["a/coordinates"]
    f["a"].create_dataset("coordinates", (1, 10**12, 3), "f8", chunks=(1, 1000, 3))


def lmdb_row(value: bytes) -> Make:
    def made(path: Path) -> None:
        lmdb = pytest.importorskip("lmdb")
        with lmdb.open(str(path), subdir=False, map_size=2**24) as table, table.begin(write=True) as write:
            write.put(b"1", value)
            write.put(b"nextid", zlib.compress(b"2"))

    return made


def text(content: str | bytes) -> Make:
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else content.encode())


def sqlite_of(statement: str) -> Make:
    def made(path: Path) -> None:
        connection = sqlite3.connect(path)
        connection.executescript(statement)
        connection.close()

    return made


def dcd(n_frames: int, n_atoms: int) -> bytes:
    control = [n_frames, *([0] * 18), 24]
    header = struct.pack("<i", 84) + b"CORD" + struct.pack("<20i", *control) + struct.pack("<i", 84)
    title = struct.pack("<ii80si", 84, 1, b"", 84)
    return header + title + struct.pack("<iii", 4, n_atoms, 4)


ATOM = {"species": ["H"], "positions": [[0, 0, 0]]}
CASES: list[tuple[str, Make, str]] = [
    # ASE trajectories
    ("a.traj", text(b""), "not an ASE trajectory"),
    ("a.traj", text(PICKLE), "not an ASE trajectory"),
    ("a.traj", cut(traj), "copy it again"),
    (
        "a.traj",
        text(b"- of Ulm" + b"ASE-Trajectory  " + struct.pack("<3q", 3, 10**12, 48)),
        "promises 10{12} frames",
    ),
    (
        "a.traj",
        changed(traj, b'"positions.": {"ndarray": [[1, 3]', b'"positions.": {"ndarray": [[9, 3]'),
        "wanted",
    ),
    ("a.traj", changed(traj, b'[[1, 3], "float64", ', b'[[999999999999, 3], "float64", 0, '), "frame 0"),
    # databases
    ("a.db", text(b""), "not an SQLite database"),
    ("a.db", text(b"SQLite format 3\0" + b"x" * 3000), "cannot be read as a database of ASE"),
    ("a.db", sqlite_of("CREATE TABLE other (x)"), "no such table: systems"),
    ("a.db", sqlite_of("CREATE TABLE t (x); CREATE VIEW systems AS SELECT 1 AS id FROM t"), "are no table"),
    (
        "a.db",
        sqlite_of("CREATE TABLE systems (id, numbers, positions); INSERT INTO systems VALUES (1, 'x', 2)"),
        "frame 0, row 1: numbers: got str, wanted a blob",
    ),
    (
        "a.db",
        sqlite_of(
            "CREATE TABLE systems (id, numbers, positions); INSERT INTO systems VALUES (1, x'01000000', "
            "x'00')"
        ),
        "positions: got 1 bytes",
    ),
    ("a.aselmdb", text(b"hello" * 100), "cannot be read as a database of LMDB"),
    ("a.aselmdb", lmdb_row(PICKLE), "row 1: no compressed JSON .* pickled rows are refused"),
    ("a.aselmdb", lmdb_row(zlib.compress(PICKLE)), "row 1: no compressed JSON"),
    (
        "a.aselmdb",
        lmdb_row(zlib.compress(b'"' + b" " * 2**28 + b'"')),
        "row 1: no compressed JSON .more than",
    ),
    (
        "a.aselmdb",
        lmdb_row(zlib.compress(b'{"numbers": {"__ndarray__": [[1000000000000], "int64", [1]]}}')),
        "described",
    ),
    (
        "a.json",
        text('{"1": {"unique_id": 1, "numbers": [1, 1], "positions": [[0, 0, 0]]}}'),
        "row 1: positions has",
    ),
    ("a.json", text('{"1": {"unique_id": 1, "numbers": [1'), "not valid JSON, or cut off"),
    # HDF5
    ("a.h5", text(b""), "holds none of them"),
    ("a.hdf", text(b"\x89HDF\r\n\x1a\n" + b"x" * 100), "cannot be read as HDF5"),
    ("a.hdf", text(b""), "not an HDF5 file"),
    ("a.h5", cut(hdf5), "cannot be read as HDF5|cannot be read"),
    ("a.h5", lambda path: hdf5(path, other_link), "group a: energy is a link to another place"),
    ("a.h5", lambda path: hdf5(path, elsewhere), "group a: energies lies in another file"),
    ("a.h5", lambda path: hdf5(path, absurd), r"coordinates has shape \(1000000000000, 1, 3\), .* holds 0"),
    ("a.h5", lambda path: hdf5(path, many_atoms), "coordinates has shape"),
    ("a.h5", lambda path: hdf5(path, lambda f: f.__delitem__("a/species")), "no elements"),
    # RuNNer
    ("input.data", text("hello there\n"), "before begin, wanted a file of RuNNer"),
    ("input.data", text("begin\natom 0 0 0 H 0 0 0 0 0\n"), "the file ends after 1 lines, wanted end"),
    ("input.data", text("begin\natom 0 0 0 H 0 0\nend\n"), "frame 0: atom 0 has 6 columns, wanted 9"),
    ("input.data", text("begin\natom 0 0 0 Xx 0 0 0 0 0\nend\n"), "atom 0 has species 'Xx'"),
    ("input.data", text("begin\natom a 0 0 H 0 0 0 0 0\nend\n"), "cannot be read as numbers"),
    ("input.data", text(b"begin\ncomment \xff\natom 0 0 0 H 0 0 0 0 0\nend\n"), "not UTF-8"),
    ("input.data", text("begin\n" + "a" * 200_000), "a line of 100000 characters"),
    # QM9 and JSON
    ("a.xyz", text("2\ngdb 1\t1.0\nH 0 0 0 0\n"), "properties"),
    ("dsgdb9nsd.xyz.tar", text(b"x" * 2000), "frame 0: the archive ends or is damaged"),
    ("a.json", text("hello"), "holds none of them"),
    ("a.json", text("[1, 2]"), "entry 0: wanted an object with a structure, got int"),
    ("a.json", text(json.dumps([ATOM, {"x": 1}])), "frame 1: no structure"),
    ("a.json", text(json.dumps([ATOM])[:-4]), "entry 0: not valid JSON, or cut off"),
    ("a.json", text("[" + "[" * 5000), "nested"),
    ("a.json", text(json.dumps([{**ATOM, "species": ["Q"]}])), "frame 0: species of atom 0 is 'Q'"),
    (
        "a.json",
        text(json.dumps([{"species": ["H"], "coords": [[0, 0, 0]]}])),
        "may be fractions of the cell or Å",
    ),
    ("a.json", text(b'[{"species": ["\xff"], "positions": [[0, 0, 0]]}]'), "species of atom 0"),
    # tables, text that ASE reads
    ("a.csv", text("x,y\n1,2\n"), "a column cif of crystals, got the columns x, y"),
    ("a.csv", text('id,cif\n1,"data_x\n'), "cut off or damaged"),
    ("a.csv", text("id,cif\n1,nothing\n"), "frame 0: .*cif"),
    ("OUTCAR", text("hello\n"), "no frame|cannot be read as vasp-out"),
    ("OUTCAR", text(""), "is empty"),
    (
        "POSCAR",
        text("x\n1\n1 0 0\n0 1 0\n0 0 1\nH\n1000000000000\nDirect\n0 0 0\n"),
        "frame 0: cannot be read as vasp",
    ),
    ("vasprun.xml", text("<modeling><broken"), "cannot be read as vasp-xml|no frame"),
    ("a.cif", text(b"data_\xff\xfe\0\0"), "a.cif"),
    ("x.out", text("nothing that anybody knows\n"), "which ASE does not know"),
    ("x.log", text(b"\0\1\2"), "a binary file, wanted the text of a program"),
    # trajectories
    ("a.dcd", text(b""), "not a DCD trajectory"),
    ("a.dcd", text(dcd(5, 1)), "promises 5 frames of 1 atoms, and the file holds 0"),
    ("a.dcd", text(dcd(5, 2**31 - 1)), "promises 2147483647 atoms"),
    ("a.dcd", text(dcd(1, 2) + bytes(48)), "2 atoms, wanted the 1 of"),
    ("a.dcd", text(dcd(1, 1) + bytes(36)), "frame 0: a record of 0 bytes, wanted 4"),
    ("a.xtc", text(b"hello" * 20), "not a trajectory of GROMACS"),
    ("a.xtc", text(struct.pack(">4i", 1995, 2**31 - 1, 0, 0) * 4), "promises 2147483647 atoms"),
    ("a.xtc", text(struct.pack(">4i", 1995, 1, 0, 0) * 2), "cannot be read as .xtc"),
    ("a.trr", text(struct.pack(">4i", 1993, 13, 12, 0)), "cannot be read as .trr|not a trajectory|no frames"),
    # what the ending does not say, and damaged compressed files
    ("a.bin", text(b"\x89HDF\r\n\x1a\n" + bytes(50)), "HDF5: set format: hdf5.*known are .*extxyz"),
    ("a.dat", text(PICKLE), "a pickle, which is refused because reading it runs code"),
    ("a", text(bytes(range(256))), "a binary file whose ending belongs to no format"),
    ("a.dat", text("x,y\n"), "wanted a line with the number of atoms.*known are .*hdf5"),
    ("a.pt", text(PICKLE), "pickled formats are refused"),
    ("a.lmdb", text(PICKLE), "pickled formats are refused"),
    ("a.traj.gz", text(b"\x1f\x8b" + b"x" * 50), "a.traj.gz"),
    ("input.data.xz", text(b"\xfd7zXZ\0" + b"x" * 50), "input.data.xz"),
    ("a.xyz", text("1000000000000\nenergy=1\nH 0 0 0\n"), "frame 0: .*1000000000000 atoms"),
]


@pytest.mark.parametrize(("name", "make", "wanted"), CASES, ids=[f"{k}-{c[0]}" for k, c in enumerate(CASES)])
@pytest.mark.filterwarnings("ignore")
def test_wrong_files_are_refused_by_name_in_one_line(
    tmp_path: Path, name: str, make: Make, wanted: str
) -> None:
    make(tmp_path / name)
    assert re.search(wanted, refusal(tmp_path / name)), refusal(tmp_path / name)


def test_a_missing_package_names_the_extra_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib

    real = importlib.import_module

    def without(name: str, *args: object) -> object:
        if name.split(".")[0] in ("h5py", "mdtraj", "lmdb"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.split(".")[0])
        return real(name, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(importlib, "import_module", without)
    (tmp_path / "a.hdf").write_bytes(b"\x89HDF\r\n\x1a\n")
    (tmp_path / "a.aselmdb").write_bytes(b"x")
    for name, package in (("a.hdf", "h5py"), ("a.aselmdb", "lmdb")):
        with pytest.raises(
            ImportError, match=rf"needs the package {package}.*pip install 'sapis-lab\[data\]'"
        ):
            read(tmp_path / name)


@pytest.mark.skipif("SAPIS_DATA" not in os.environ, reason="needs the data sets of SAPIS_DATA")
def test_pickled_lmdb_of_a_real_set_is_refused() -> None:
    path = Path(os.environ["SAPIS_DATA"]) / "lips/data.lmdb"
    with pytest.raises(ValueError, match="pickled formats are refused because reading them runs code"):
        format_of(path)
