"""What decides physics in a file of frames (cell, periodicity, elements, labels) is read in any spelling, or
refused by its name."""

from pathlib import Path

import numpy as np
import pytest

from sapis_lab.data import FrameStore, prepare
from sapis_lab.data.extxyz import ExtxyzConfig
from sapis_lab.formats import read_extxyz

SIDE = 4.0
"""Å, of the cubic cell of two atoms."""
CELL = f'"{SIDE} 0 0 0 {SIDE} 0 0 0 {SIDE}"'


def springs(n: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(positions, energy, forces) of two atoms on a spring of 2 Å, eV and Å."""
    rng = np.random.default_rng(0)
    x = np.array([[0.0, 0, 0], [2.0, 0, 0]]) + 0.1 * rng.normal(size=(n, 2, 3))
    d = x[:, 1] - x[:, 0]
    r = np.linalg.norm(d, axis=1, keepdims=True)
    pull = 5.0 * (r - 2.0) * d / r
    return x, -10.0 + 2.5 * (r[:, 0] - 2.0) ** 2, np.stack([pull, -pull], 1)


def write(
    path: Path,
    comment: str,
    columns: str = "Properties=species:S:1:pos:R:3:forces:R:3",
    names: tuple[str, ...] = ("Cu",),
) -> Path:
    """Frames whose comment line is `comment`, with {e} for the energy."""
    lines = []
    for x, e, f in zip(*springs(), strict=True):
        lines += ["2", f"{columns} {comment}".format(e=f"{e:.10f}")]
        lines += [" ".join([*names, *(f"{v:.10f}" for v in (*a, *b))]) for a, b in zip(x, f, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


def store_of(path: Path, **changes: object) -> FrameStore:
    given = {
        "train": path.name,
        "n_validation": 3,
        "n_test": 3,
        "energy_unit": "eV",
        "length_unit": "Angstrom",
        "root": path.parent,
    }
    return prepare(ExtxyzConfig(**{**given, **changes}), cache=path.parent / f"cache-{path.name}")


def same(a: FrameStore, b: FrameStore) -> bool:
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("cell", "pbc", "positions", "species", "energy", "forces")
    )


@pytest.mark.parametrize(
    "comment",
    [
        f"lattice={CELL} energy={{e}}",
        f"LATTICE={CELL} Energy={{e}}",
        f"Lattice = {CELL} energy = {{e}}",
        f'"Lattice"={CELL} ENERGY={{e}}',
        f'lattice={CELL} PBC="T T T" energy={{e}}',
        f'energy={{e}} name= Lattice={CELL} Pbc="T T T"',
        f"Lattice={CELL} Lattice={CELL} energy={{e}}",
    ],
)
def test_a_cell_in_any_spelling_gives_the_same_store(tmp_path: Path, comment: str) -> None:
    plain = store_of(write(tmp_path / "plain.xyz", f"Lattice={CELL} energy={{e}}"))
    assert plain.pbc.all()
    assert same(store_of(write(tmp_path / "other.xyz", comment)), plain)


@pytest.mark.parametrize("key", ["pbc", "PBC", "Pbc"])
def test_periodicity_in_any_spelling_is_honoured(tmp_path: Path, key: str) -> None:
    slab = store_of(write(tmp_path / "slab.xyz", f'Lattice={CELL} {key}="T T F" energy={{e}}'))
    assert slab.pbc[0].tolist() == [True, True, False] and slab.cell.any()
    assert not store_of(write(tmp_path / "open.xyz", f'Lattice={CELL} {key}="F F F" energy={{e}}')).pbc.any()


@pytest.mark.parametrize(
    ("comment", "message"),
    [
        (f"Lattice={CELL} lattice={CELL} energy={{e}}", "has Lattice and lattice, wanted one Lattice"),
        (
            f'Lattice={CELL} Lattice="5 0 0 0 5 0 0 0 5" energy={{e}}',
            "has the key Lattice twice, with different values",
        ),
        ('Lattice="9 0 0 0 9 0 0 0 9" pbc="T T T" PBC="F F F" energy={e}', "has pbc and PBC, wanted one pbc"),
        (
            'cell="4 4 4" energy={e}',
            'the key cell seems to be a cell, in a form that is not known; write Lattice="…" with nine '
            "numbers",
        ),
        (f"Cell={CELL} energy={{e}}", "the key Cell seems to be a cell"),
        ('unit_cell="4 4 4 90 90 90" pbc="T T T" energy={e}', "the key unit_cell seems to be a cell"),
        ("box=4.0 energy={e}", "the key box seems to be a cell"),
        (
            f'Lattice={CELL} cell="5 5 5" energy={{e}}',
            "the key cell stands beside Lattice, and which of them is the cell is not known",
        ),
        (
            "CELL(abcABC): 4 4 4 90 90 90 energy={e}",
            "has 'CELL' without a value of its own, which may mean a cell",
        ),
        ("Lattice energy={e}", "has 'Lattice' without a value of its own"),
        (
            f'Lattice={CELL} periodic="F F F" energy={{e}}',
            "the key periodic says what is periodic, in a form that is not known",
        ),
        ("energy={e} energy=-3.0", "has the key energy twice"),
        ("Energy={e} ENERGY={e}", "has Energy and ENERGY, wanted one energy"),
    ],
)
def test_what_may_be_a_cell_or_is_there_twice_is_refused_by_its_key(
    tmp_path: Path, comment: str, message: str
) -> None:
    with pytest.raises(ValueError, match=r"a\.xyz, frame 0: ") as refused:
        store_of(write(tmp_path / "a.xyz", comment))
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "comment",
    [
        "energy={e} cell_type=none lattice_index=3 supercellular=1",
        'cell="4 4 4" pbc="F F F" energy={e}',
        'name="a cell in words" energy={e}',
        "A=157.7 B=157.7 C=157.7 H=-40.4 energy={e}",
    ],
)
def test_what_says_no_cell_or_stands_in_an_open_frame_is_left_alone(tmp_path: Path, comment: str) -> None:
    assert not store_of(write(tmp_path / "a.xyz", comment)).pbc.any()


def test_columns_in_any_spelling_are_read_and_doubled_ones_refused(tmp_path: Path) -> None:
    plain = store_of(write(tmp_path / "plain.xyz", "energy={e}"))
    other = write(tmp_path / "other.xyz", "energy={e}", "properties=Species:S:1:POS:R:3:Forces:R:3")
    assert same(store_of(other), plain)
    twice = write(tmp_path / "twice.xyz", "energy={e}", "Properties=species:S:1:pos:R:3:pos:R:3")
    with pytest.raises(ValueError, match="frame 0: Properties has the column pos twice"):
        store_of(twice)
    two = write(tmp_path / "two.xyz", "energy={e}", "Properties=species:S:1:pos:R:3:Pos:R:3")
    with pytest.raises(ValueError, match="frame 0: has pos and Pos, wanted one pos"):
        store_of(two)


def test_numbers_and_symbols_of_one_atom_must_agree(tmp_path: Path) -> None:
    columns = "Properties=species:S:1:Z:R:1:pos:R:3:forces:R:3"
    assert set(store_of(write(tmp_path / "a.xyz", "energy={e}", columns, ("Cu", "29"))).species) == {29}
    assert set(store_of(write(tmp_path / "b.xyz", "energy={e}", columns, ("Cu1", "29"))).species) == {
        29
    }  # a label
    with pytest.raises(ValueError, match="frame 0: atom 0 is of element 28 by Z and 29 by species"):
        store_of(write(tmp_path / "c.xyz", "energy={e}", columns, ("Cu", "28")))
    with pytest.raises(ValueError, match=r"frame 0: atom 0 has atomic number 29\.4, wanted a whole number"):
        store_of(write(tmp_path / "d.xyz", "energy={e}", columns, ("Cu", "29.4")))


def test_a_virial_in_another_spelling_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xyz", f'Lattice={CELL} Virial="1 0 0 0 1 0 0 0 1" energy={{e}}')
    assert np.allclose(store_of(path, virial_key="virial").column("stress")[0], -np.eye(3) / SIDE**3)


def test_isolated_atoms_that_are_given_twice_must_agree(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xyz", "energy={e}")
    atom = "1\nProperties=species:S:1:pos:R:3 energy={}\nCu 0 0 0\n"
    (tmp_path / "atoms.xyz").write_text(atom.format(-3) + atom.format(-4))
    with pytest.raises(
        ValueError, match=r"atoms\.xyz, frame 1: a second Cu with another energy, -4.0 eV after -3.0 eV"
    ):
        store_of(path, isolated_atoms="atoms.xyz")


# -------------------------------------------------------------------------------------------------------- npz


def npz(path: Path, **arrays: object) -> Path:
    x, e, f = springs()
    np.savez(path, **{"R": x, "z": np.array([29, 29]), "E": e, "F": f, **arrays})
    return path


BOX = SIDE * np.eye(3)


def test_an_npz_cell_means_periodic_and_its_pbc_is_honoured(tmp_path: Path) -> None:
    assert store_of(npz(tmp_path / "crystal.npz", cell=BOX)).pbc.all()
    assert same(
        store_of(npz(tmp_path / "capitals.npz", Lattice=BOX, PBC=np.ones(3))),
        store_of(tmp_path / "crystal.npz"),
    )
    slab = store_of(npz(tmp_path / "slab.npz", cell=BOX, pbc=np.array([True, True, False])))
    assert slab.pbc.all(0).tolist() == [True, True, False] and slab.cell.any()
    boxed = store_of(npz(tmp_path / "boxed.npz", lattice=BOX, pbc=np.zeros((12, 3), dtype=int)))
    assert not boxed.pbc.any() and not boxed.cell.any()
    named = store_of(npz(tmp_path / "named.npz", h=BOX, p=np.array(True)), npz_keys={"cell": "h", "pbc": "p"})
    assert named.pbc.all()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pbc": np.ones(3)}, r"frame 0: pbc is \[True, True, True\], but there is no cell"),
        (
            {"cell": BOX, "pbc": np.array([1, 1, 2])},
            r"pbc is \[1, 1, 2\], wanted \(3,\) or \(12, 3\) of true and false",
        ),
        ({"cell": BOX, "pbc": np.ones(12)}, r"pbc is of shape \(12,\) and type float64"),
        ({"cell": BOX, "pbc": np.array("T T T")}, "pbc is T T T, wanted"),
        ({"box": BOX}, "the array box may hold the cell and is not read; set npz_keys: {cell: box}"),
        ({"unit_cell": BOX}, "the array unit_cell may hold the cell"),
        ({"cell": BOX, "periodic": np.zeros(3)}, "the array periodic may hold the pbc"),
        (
            {"cell": BOX, "lattice": 2 * BOX},
            "the arrays cell and lattice differ, and either may hold the cell",
        ),
        ({"cell": BOX, "Cell": 2 * BOX}, "the arrays cell and Cell differ"),
        (
            {"energies": np.zeros(12)},
            "the arrays E and energies differ, and either may hold the energy; set npz_keys",
        ),
        ({"species": np.array([28, 29])}, "the arrays z and species differ, and either may hold the species"),
    ],
)
def test_arrays_that_may_be_meant_are_refused_by_name(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        store_of(npz(tmp_path / "a.npz", **arrays))


def test_two_arrays_of_one_content_are_no_question(tmp_path: Path) -> None:
    assert store_of(npz(tmp_path / "a.npz", cell=BOX, lattice=BOX, pbc=np.ones(3))).pbc.all()
    assert not store_of(npz(tmp_path / "b.npz", box=BOX, pbc=np.zeros(3))).pbc.any()


def test_a_value_that_is_missing_does_not_swallow_the_next_key(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xyz", f"config_type= energy={{e}} note= Lattice = {CELL}")
    frame = next(iter(read_extxyz(path)))
    assert frame.cell.any() and float(frame.info["energy"]) < 0


@pytest.mark.parametrize(
    ("comment", "columns", "words"),
    [
        ("energy=-1.0 Energy=-1.0", "forces:R:3", "has energy and Energy, wanted one energy"),
        ("energy=-1.0", "Forces:R:3:forces:R:3", "has Forces and forces, wanted one forces"),
        ("energy=-1_0.0", "forces:R:3", "energy is '-1_0.0', wanted 1 numbers"),
    ],
)
def test_a_label_that_is_there_twice_or_is_no_number_is_refused(tmp_path, comment, columns, words):
    n = 3 * columns.count("R:3")
    rows = "".join(f"H 0 0 {z}" + " 0.1" * n + "\n" for z in (0, 0.74))
    (tmp_path / "a.xyz").write_text(f"2\nProperties=species:S:1:pos:R:3:{columns} {comment}\n{rows}" * 9)
    config = {
        "train": "a.xyz",
        "n_validation": 2,
        "n_test": 2,
        "energy_unit": "eV",
        "length_unit": "Angstrom",
    }
    with pytest.raises(ValueError, match=rf"a\.xyz, frame 0: {words}"):
        prepare(ExtxyzConfig(**config, root=tmp_path), cache=tmp_path / "cache")


def test_a_force_with_an_underscore_is_no_number(tmp_path):
    (tmp_path / "a.xyz").write_text("1\nProperties=species:S:1:pos:R:3:forces:R:3\nH 0 0 0 0 1_0 0\n")
    with pytest.raises(ValueError, match=r"frame 0: column forces:R:3 cannot be read as numbers"):
        list(read_extxyz(tmp_path / "a.xyz"))
