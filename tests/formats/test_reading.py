"""One number of every format, known without its reader: written here by hand into a small file, or read off a
file of /work/shared/data with another program (h5dump, sqlite3, struct), as the comments say."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sapis_lab.formats import Block, Reading, format_of, known
from sapis_lab.formats.hdf5 import smiles_charge

DATA = Path(os.environ.get("SAPIS_DATA", "/nowhere"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs the data sets of SAPIS_DATA")


def read(path: Path, reading: Reading | None = None) -> list[Block]:
    return list(format_of(path).blocks(path, reading))


def numbers(path: Path, wanted: slice, *, skip: int = 0, topology: Path | None = None) -> list[int]:
    found = format_of(path).blocks(path, Reading(wanted=wanted, skip=skip, topology=topology))
    return [int(n) for block in found for n in block.numbers]


def packed(path: Path) -> Path:
    gz = path.with_name(path.name + ".gz")
    gz.write_bytes(gzip.compress(path.read_bytes()))
    return gz


# ------------------------------------------------------------------------------------------------ ASE


def two_atoms(k: int):  # type: ignore[no-untyped-def]
    """CO, k-th frame, with results of a calculator and labels of its own; constrained."""
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.constraints import FixAtoms

    atoms = Atoms("CO", positions=[[0, 0, 0], [0, 0, 1.1 + k]], cell=[8, 9, 10], pbc=True, tags=[0, 2])
    atoms.set_constraint(FixAtoms([0]))
    atoms.info["charge"] = -1
    atoms.calc = SinglePointCalculator(
        atoms,
        energy=-5.25 - k,
        free_energy=-5.5 - k,
        forces=[[0, 0, 0.75], [0, 0, -0.75]],
        stress=[1, 2, 3, 4, 5, 6],
        magmoms=[0.5, -0.5],
    )
    return atoms


def check_two_atoms(blocks: list[Block], n: int, *, charge: bool = True) -> None:
    (block,) = blocks
    assert block.numbers.tolist() == list(range(n))
    assert block.frame_labels["energy"].tolist() == [-5.25 - k for k in range(n)]
    assert block.frame_labels["free_energy"].tolist() == [-5.5 - k for k in range(n)]
    # the force on the first atom, which is fixed: ASE would hand out zero
    assert block.atom_labels["forces"][:2].tolist() == [[0, 0, 0.75], [0, 0, -0.75]]
    assert block.frame_labels["stress"][0].tolist() == [1, 2, 3, 4, 5, 6]
    assert block.atom_labels["magmoms"][:2].tolist() == [0.5, -0.5]
    assert block.atom_labels["tags"][:2].tolist() == [0, 2]
    assert block.species[:2].tolist() == [6, 8] and block.positions[3].tolist() == [0, 0, 2.1]
    assert block.cell[0].tolist() == [[8, 0, 0], [0, 9, 0], [0, 0, 10]] and block.pbc.all()
    if charge:
        assert block.frame_labels["charge"].tolist() == [-1] * n


def test_a_trajectory_of_ase_gives_forces_without_constraints(tmp_path: Path) -> None:
    from ase.io import write

    write(tmp_path / "a.traj", [two_atoms(k) for k in range(3)])
    check_two_atoms(read(tmp_path / "a.traj"), 3)
    check_two_atoms(read(packed(tmp_path / "a.traj")), 3)
    assert numbers(tmp_path / "a.traj", slice(-2, None)) == [1, 2]


def test_a_trajectory_whose_elements_change(tmp_path: Path) -> None:
    from ase import Atoms
    from ase.io import write

    write(
        tmp_path / "a.traj",
        [Atoms(s, positions=np.eye(3)[: len(Atoms(s))]) for s in ("H2", "CO", "H2O", "H2")],
    )
    found = np.concatenate([block.species for block in read(tmp_path / "a.traj")])
    assert found.tolist() == [1, 1, 6, 8, 1, 1, 8, 1, 1]


@pytest.mark.parametrize("ending", ["db", "json", "aselmdb"])
def test_a_database_of_ase_gives_results_and_what_stands_in_data(tmp_path: Path, ending: str) -> None:
    from ase.db import connect

    if ending == "aselmdb":
        pytest.importorskip("ase_db_backends")
    path = tmp_path / f"a.{ending}"
    with connect(path, use_lock_file=False) as database:
        for k in range(4):
            database.write(two_atoms(k), data={"spin": 2, "q": np.array([0.5, -0.5])}, gap=0.25, name="x1")
        database.delete([2])
    (block,) = read(path)
    assert block.frame_labels["energy"].tolist() == [-5.25, -7.25, -8.25]
    assert block.frame_labels["gap"].tolist() == [0.25] * 3 and block.frame_labels["name"][0] == "x1"
    assert block.frame_labels["spin"].tolist() == [2] * 3
    assert block.atom_labels["q"].tolist() == [0.5, -0.5] * 3
    assert format_of(path).count(path) == 3
    assert numbers(path, slice(1, None)) == [1, 2] and numbers(path, slice(None), skip=2) == [2]
    with connect(tmp_path / f"b.{ending}", use_lock_file=False) as database:
        for k in range(2):
            database.write(two_atoms(k))
    check_two_atoms(read(tmp_path / f"b.{ending}"), 2, charge=False)
    check_two_atoms(read(packed(tmp_path / f"b.{ending}")), 2, charge=False)


CIF = """data_x
_cell_length_a 4.0
_cell_length_b 5.0
_cell_length_c 6.0
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Na1 Na 0.0 0.0 0.0 1.0
Cl1 Cl 0.5 0.5 0.5 {occupancy}
"""


def test_poscar_and_cif_are_read_compressed_or_not(tmp_path: Path) -> None:
    (tmp_path / "POSCAR").write_text("x\n2.0\n1 0 0\n0 2 0\n0 0 3\nNa Cl\n1 1\nDirect\n0 0 0\n0.5 0.5 0.5\n")
    (tmp_path / "a.cif").write_text(CIF.format(occupancy="1.0"))
    for path, x in ((tmp_path / "POSCAR", [1, 2, 3]), (tmp_path / "a.cif", [2, 2.5, 3])):
        for one in (path, packed(path)):
            (block,) = read(one)
            # fractions of one half of cells 2 x 4 x 6 Å (a scale of two) and 4 x 5 x 6 Å
            assert block.species.tolist() == [11, 17] and block.positions[1].tolist() == x
            assert block.pbc.all()


def test_a_cif_with_sites_that_are_occupied_in_part_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.cif").write_text(CIF.format(occupancy="0.5"))
    with pytest.raises(ValueError, match=r"a\.cif, frame 0: has sites that are occupied in part"):
        read(tmp_path / "a.cif")


def test_an_outcar_of_vasp_gives_its_energy_at_zero_smearing(tmp_path: Path) -> None:
    ase_test = pytest.importorskip("ase.test")
    sample = Path(ase_test.__file__).parent / "testdata/vasp/OUTCAR_example_1"
    if not sample.is_file():
        pytest.skip("ASE is installed without its test data")
    (tmp_path / "OUTCAR.gz").write_bytes(gzip.compress(sample.read_bytes()))
    (block,) = read(tmp_path / "OUTCAR.gz")
    # line 3889: energy(sigma->0) = -68.23102426; line 3887: free energy TOTEN = -68.22868532
    assert block.frame_labels["energy"].tolist() == [-68.23102426]
    assert block.frame_labels["free_energy"].tolist() == [-68.22868532]
    # line 3859, the first of TOTAL-FORCE (eV/Angst)
    assert block.atom_labels["forces"][0].tolist() == [0.030415, -0.114705, -0.460114]
    # line 3815: in kB -4.29429 -4.58894 -4.50342 (xy) 0.50047 (yz) -0.94049 (zx) 0.36481; positive is
    # compression there, and 1 eV/Å³ = 1602.1766 kB
    wanted = -np.array([-4.29429, -4.58894, -4.50342, -0.94049, 0.36481, 0.50047]) / 1602.1766
    np.testing.assert_allclose(block.frame_labels["stress"][0], wanted, rtol=1e-6)


@needs_data
def test_a_relaxation_of_oc20(tmp_path: Path) -> None:
    # ase gui: last frame, energy -795.66874518, force on the last atom without constraints
    (block,) = read(DATA / "oc20/random1000163.traj", Reading(wanted=slice(-1, None)))
    assert block.frame_labels["energy"].tolist() == [-795.66874518]
    np.testing.assert_allclose(
        block.atom_labels["forces"][-1], [-0.02204905, -0.01455979, -0.00198463], atol=1e-8
    )


@needs_data
def test_a_row_of_a_real_database() -> None:
    # sqlite3 oxides.db 'select energy from systems where id = 7'; the third force of the blob, as float64
    (block,) = read(DATA / "oxides_asedb/oxides.db", Reading(wanted=slice(6, 7)))
    assert block.frame_labels["energy"].tolist() == [-42.517625]
    np.testing.assert_allclose(block.atom_labels["forces"][2], [-0.023229, -0.023229, 0.0], atol=1e-12)


# ------------------------------------------------------------------------------------------------ HDF5


@needs_data
@pytest.mark.parametrize(
    ("name", "energy", "forces", "frame", "value", "force"),
    [
        # h5dump -d: C2H10N6O1/wb97x_dz.energy[0] and wb97x_dz.forces[0,0]; 2+1+3+1 frames stand before it
        (
            "ani_spice_samples/ani1_n5.hdf5",
            "wb97x_dz.energy",
            "wb97x_dz.forces",
            7,
            -485.76217486,
            [3.7159663e-4, -3.7694834e-3, 5.4936847e-3],
        ),
        # 002/energies[3] and forces[3,0]
        (
            "ani_spice_samples/ani2x_minimal.hdf5",
            "energy",
            "forces",
            3,
            -113.281173732,
            [0, 0, -0.0447778031],
        ),
        # C#C.[Na+]/dft_total_energy[4] and dft_total_gradient[4,0]...: the group 103147721 before it has 50
        (
            "ani_spice_samples/SPICE-1.1.4_n2.hdf5",
            "dft_total_energy",
            "dft_total_gradient",
            54,
            -239.52013294205506,
            None,
        ),
        # s66x8/mol01/energies[2] and forces[2,0]; mol00 has 8 frames
        (
            "comp6_s66x8/s66x8_wb97x6-31gd.h5",
            "energy",
            "forces",
            10,
            -192.080932328,
            [1.1948639e-3, 7.0183398e-3, -6.3170297e-3],
        ),
    ],
)
def test_data_sets_in_hdf5(
    name: str, energy: str, forces: str, frame: int, value: float, force: list[float] | None
) -> None:
    pytest.importorskip("h5py")
    reading = Reading(wanted=slice(frame, frame + 1), energy=energy, forces=forces)
    (block,) = read(DATA / name, reading)
    assert block.numbers.tolist() == [frame]
    np.testing.assert_allclose(block.frame_labels[energy], [value], rtol=0, atol=6e-9)
    if force is not None:
        np.testing.assert_allclose(block.atom_labels[forces][0], force, rtol=1e-6, atol=1e-12)
    else:  # conformations[4,1] of SPICE, Bohr, and the gradient there
        assert block.positions[1].tolist() == [5.177509307861328, 2.586146831512451, 4.147759914398193]
        np.testing.assert_allclose(
            block.atom_labels[forces][1], [7.4589900e-3, -1.7116291e-2, 5.0055487e-3], rtol=1e-6
        )
        assert block.frame_labels["group"].tolist() == ["C#C.[Na+]"]
        assert block.frame_labels["smiles_charge"].tolist() == [1]


def test_layouts_of_hdf5_by_group_and_frame_by_frame(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as f:
        one = f.create_group("b/water")
        one["species"] = np.array([b"O", b"H", b"H"])
        one["coordinates"] = np.arange(18.0).reshape(2, 3, 3)
        one["energies"] = np.array([-1.5, np.nan])
        one["charge"] = 1
        other = f.create_group("a")
        other["atomic_numbers"] = [1]
        other["positions"] = [[0.5, 0, 0]]
        other["energy"] = -0.5
        other["cell"] = 3 * np.eye(3)
    blocks = read(tmp_path / "a.h5")
    assert [b.numbers.tolist() for b in blocks] == [[0], [1, 2]]
    assert blocks[0].frame_labels["energy"].tolist() == [-0.5] and blocks[0].pbc.all()
    assert blocks[1].frame_labels["group"].tolist() == ["b/water"] * 2
    assert blocks[1].frame_labels["energy"][0] == -1.5 and np.isnan(blocks[1].frame_labels["energy"][1])
    assert blocks[1].frame_labels["charge"].tolist() == [1, 1]
    assert blocks[1].species.tolist() == [8, 1, 1] * 2 and blocks[1].positions[4].tolist() == [12, 13, 14]
    assert (
        format_of(tmp_path / "a.h5").name == "hdf5"
        and format_of(tmp_path / "a.h5").count(tmp_path / "a.h5") == 3
    )
    assert [b.numbers.tolist() for b in read(packed(tmp_path / "a.h5"))] == [[0], [1, 2]]


@pytest.mark.parametrize(
    ("smiles", "charge"),
    [
        ("[H:3][C:1]#[C:2][H:4].[Na+:5]", 1),
        ("[O-]C(=O)C", -1),
        ("[Mg++]", 2),
        ("[Fe+3:1].[Cl-:2]", 2),
        ("[13CH3-:2]", -1),
        ("C[C@@H](N)C#N", 0),
        ("CC(", 0),
        ("[Na", None),
    ],
)
def test_the_charge_that_smiles_say(smiles: str, charge: int | None) -> None:
    assert smiles_charge(smiles) == charge


# ------------------------------------------------------------------------------------------- other text

RUNNER = """begin
comment the first
lattice 10.0 0.0 0.0
lattice 0.0 11.0 0.0
lattice 0.0 0.0 12.0
atom 0.0 0.0 0.0 O -0.8 0.0 0.1 0.2 0.3
atom 1.8 0.0 0.0 H 0.8 0.0 -0.1 -0.2 -0.3
energy -76.5
charge 1.0
end
begin
comment open
atom 0.0 0.0 0.5 H 0.0 0.0 0.0 0.0 0.0
energy -0.5
charge 0.0
end
"""


def test_structures_of_runner(tmp_path: Path) -> None:
    (tmp_path / "input.data").write_text(RUNNER)
    for path in (tmp_path / "input.data", packed(tmp_path / "input.data")):
        (block,) = read(path)
        assert block.frame_labels["energy"].tolist() == [-76.5, -0.5]
        assert block.frame_labels["total_charge"].tolist() == [1.0, 0.0]
        assert block.frame_labels["comment"].tolist() == ["the first", "open"]
        assert block.atom_labels["forces"][1].tolist() == [-0.1, -0.2, -0.3]
        assert block.atom_labels["charges"].tolist() == [-0.8, 0.8, 0.0]
        assert block.pbc.tolist() == [[True] * 3, [False] * 3] and block.cell[0, 1, 1] == 11.0
        assert block.species.tolist() == [8, 1, 1]
    assert format_of(tmp_path / "input.data").fixed["length_unit"] == "Bohr"
    assert numbers(tmp_path / "input.data", slice(-1, None)) == [1]


QM9 = """2
gdb 7\t1.0\t2.0\t3.0\t0.5\t9.46\t-0.25\t0.0829\t0.3399\t26.1563\t0.034358\t-1.25\t-1.2\t-1.1\t-1.3\t6.316\t
H\t 1.5*^-1\t0.0\t0.0\t0.1
Cl\t0.0\t0.0\t1.3\t-0.1
100.0\t200.0
Cl\tCl
InChI=1S/ClH/h1H\tInChI=1S/ClH/h1H
"""


def test_molecules_of_qm9_alone_in_a_folder_and_in_their_archive(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    for k in (1, 2):
        (folder / f"dsgdb9nsd_00000{k}.xyz").write_text(QM9)
    with tarfile.open(tmp_path / "dsgdb9nsd.xyz.tar.bz2", "w:bz2") as archive:
        for k in (1, 2):
            member = tarfile.TarInfo(f"dsgdb9nsd_00000{k}.xyz")
            member.size = len(QM9)
            archive.addfile(member, io.BytesIO(QM9.encode()))
    for path, n in (
        (folder / "dsgdb9nsd_000001.xyz", 1),
        (folder, 2),
        (tmp_path / "dsgdb9nsd.xyz.tar.bz2", 2),
    ):
        (block,) = read(path)
        assert block.frame_labels["U0"].tolist() == [-1.25] * n
        assert block.frame_labels["alpha"].tolist() == [9.46] * n
        assert block.frame_labels["smiles"][0] == "Cl" and block.frame_labels["gdb"][0] == 7
        assert block.positions[0].tolist() == [0.15, 0, 0] and block.atom_labels["charges"][1] == -0.1


def test_structures_in_json_by_key_paths(tmp_path: Path) -> None:
    pymatgen = {
        "structure": {
            "lattice": {"matrix": [[2, 0, 0], [0, 4, 0], [0, 0, 6]]},
            "sites": [
                {"species": [{"element": "Na", "occu": 1}], "abc": [0, 0, 0], "properties": {"magmom": 1.5}},
                {
                    "species": [{"element": "Cl", "occu": 1}],
                    "abc": [0.5, 0.25, 0.5],
                    "properties": {"magmom": 0},
                },
            ],
        },
        "outputs": {"energy": -3.5, "forces": [[0, 0, 1], [0, 0, -1]], "virial_stress": [1, 2, 3, 4, 5, 6]},
        "group": "x",
    }
    plain = {
        "species": ["C"],
        "lattice": [[3, 0, 0], [0, 3, 0], [0, 0, 3]],
        "frac_coords": [[0.5, 0, 0]],
        "e": 1,
    }
    (tmp_path / "a.json").write_text(json.dumps([pymatgen, pymatgen]))
    (tmp_path / "b.json").write_text(
        json.dumps({"mp-1": {"mp-1-0": pymatgen, "mp-1-1": pymatgen}, "mp-2": plain})
    )
    (block,) = read(tmp_path / "a.json")
    # (0.5, 0.25, 0.5) of 2 x 4 x 6 Å
    assert (
        block.positions[1].tolist() == [1, 1, 3]
        and block.frame_labels["outputs.energy"].tolist() == [-3.5] * 2
    )
    assert (
        block.atom_labels["outputs.forces"][3].tolist() == [0, 0, -1]
        and block.frame_labels["group"][0] == "x"
    )
    assert block.atom_labels["magmom"].tolist() == [1.5, 0, 1.5, 0]
    blocks = read(packed(tmp_path / "b.json"))
    assert [b.numbers.tolist() for b in blocks] == [[0, 1], [2]]
    assert blocks[0].frame_labels["key"].tolist() == ["mp-1.mp-1-0", "mp-1.mp-1-1"]
    assert blocks[1].positions.tolist() == [[1.5, 0, 0]] and blocks[1].frame_labels["e"].tolist() == [1]


def test_a_table_with_crystals_as_cif(tmp_path: Path) -> None:
    text = CIF.format(occupancy="1.0")
    (tmp_path / "a.csv").write_text(f',id,cif,energy\n0,x1,"{text}",-4.5\n1,x2,"{text}",-5.5\n')
    (block,) = read(tmp_path / "a.csv")
    assert block.frame_labels["energy"].tolist() == [-4.5, -5.5] and block.frame_labels["id"][1] == "x2"
    assert block.positions[3].tolist() == [2, 2.5, 3]


def test_systems_of_deepmd_in_one_folder(tmp_path: Path) -> None:
    for name, types, z in (("a", "0 1 1", "O H"), ("b", "0 0", "H")):
        system = tmp_path / name
        (system / "set.000").mkdir(parents=True)
        (system / "type.raw").write_text(types)
        (system / "type_map.raw").write_text(z)
        n = len(types.split())
        np.save(system / "set.000/coord.npy", np.arange(2.0 * 3 * n).reshape(2, -1))
        np.save(system / "set.000/box.npy", np.tile(5 * np.eye(3).reshape(-1), (2, 1)))
        np.save(system / "set.000/energy.npy", np.array([[-1.5], [-2.5]]))
        np.save(system / "set.000/force.npy", np.ones((2, 3 * n)))
        np.save(system / "set.000/virial.npy", np.tile(np.arange(9.0), (2, 1)))
        np.save(system / "set.000/atom_ener.npy", np.full((2, n), 0.25))
    a, b = read(tmp_path)
    assert a.species.tolist() == [8, 1, 1] * 2 and b.species.tolist() == [1] * 4
    assert a.frame_labels["energy"].tolist() == [-1.5, -2.5] and a.frame_labels["system"][0] == "a"
    assert a.positions[5].tolist() == [15, 16, 17] and a.cell[1, 2, 2] == 5
    assert a.frame_labels["virial"][0].tolist() == list(range(9)) and a.atom_labels["atom_ener"].shape == (6,)
    assert b.numbers.tolist() == [2, 3] and numbers(tmp_path, slice(1, None, 2)) == [1, 3]


# ---------------------------------------------------------------------------------------- trajectories

PDB = "".join(
    f"ATOM  {k:5d}  {name:<3} MOL A   1    {0.0:8.3f}{0.0:8.3f}{float(k):8.3f}  1.00  0.00           {e}\n"
    for k, (name, e) in enumerate((("C", "C"), ("O", "O")), start=1)
)


def dcd(n: int, *, order: str = "<", cell: bool = True) -> bytes:
    """A DCD file of two atoms at (k, 0, 0) and (k, 1, 2) in frame k, in a cell of 10, 11 and 12 Å."""

    def record(data: bytes) -> bytes:
        return struct.pack(f"{order}i", len(data)) + data + struct.pack(f"{order}i", len(data))

    control = [0] * 20
    control[0], control[10], control[19] = n, int(cell), 24
    out = record(b"CORD" + struct.pack(f"{order}20i", *control))
    out += record(struct.pack(f"{order}i", 1) + b" " * 80) + record(struct.pack(f"{order}i", 2))
    for k in range(n):
        if cell:
            out += record(struct.pack(f"{order}6d", 10, 90, 11, 90, 90, 12))
        for axis in ((k, k), (0, 1), (0, 2)):
            out += record(struct.pack(f"{order}2f", *axis))
    return out


@pytest.mark.parametrize("order", ["<", ">"])
def test_trajectories_in_dcd(tmp_path: Path, order: str) -> None:
    pytest.importorskip("mdtraj")
    (tmp_path / "top.pdb").write_text(PDB)
    (tmp_path / "a.dcd").write_bytes(dcd(5, order=order))
    (block,) = read(tmp_path / "a.dcd")
    assert block.species.tolist() == [6, 8] * 5 and block.positions[7].tolist() == [3, 1, 2]
    assert block.cell[4].tolist() == [[10, 0, 0], [0, 11, 0], [0, 0, 12]] and block.pbc.all()
    assert numbers(tmp_path / "a.dcd", slice(1, None, 2)) == [1, 3]
    (tmp_path / "b.dcd").write_bytes(dcd(5, cell=False))
    assert not read(tmp_path / "b.dcd")[0].pbc.any()


@needs_data
def test_a_real_dcd(tmp_path: Path) -> None:
    pytest.importorskip("mdtraj")
    topology = DATA / "alanine_dipeptide/ala2.pdb"
    (block,) = read(
        DATA / "alanine_dipeptide/trajectory-0.dcd", Reading(wanted=slice(5, 6), topology=topology)
    )
    # struct.unpack of the records of frame 5: x and y of atom 1
    assert block.positions[1, :2].tolist() == [4.919458866119385, 13.058420181274414]


def test_trajectories_of_gromacs_and_mdtraj_are_in_nm(tmp_path: Path) -> None:
    mdtraj = pytest.importorskip("mdtraj")
    h5py = pytest.importorskip("h5py")
    (tmp_path / "top.pdb").write_text(PDB)
    x = np.array([[[0.1 * k, 0, 0], [0.1 * k, 0.1, 0.2]] for k in range(5)], np.float32)
    made = mdtraj.Trajectory(x, mdtraj.load_topology(str(tmp_path / "top.pdb")))
    made.unitcell_lengths, made.unitcell_angles = np.full((5, 3), 1.5), np.full((5, 3), 90.0)
    made.save_xtc(str(tmp_path / "a.xtc"))
    made.save_trr(str(tmp_path / "a.trr"))
    with h5py.File(tmp_path / "a.h5", "w") as f:  # as mdtraj.org/latest/hdf5_format.html describes it
        atoms = [{"index": k, "name": e, "element": e} for k, e in enumerate("CO")]
        topology = {"chains": [{"index": 0, "residues": [{"index": 0, "name": "MOL", "atoms": atoms}]}]}
        f["topology"] = np.array([json.dumps(topology).encode()])
        f["coordinates"], f["time"] = x, np.arange(5.0)
        f["cell_lengths"], f["cell_angles"] = made.unitcell_lengths, made.unitcell_angles
    for name in ("a.xtc", "a.trr", "a.h5"):
        (block,) = read(tmp_path / name)
        assert format_of(tmp_path / name).fixed == {"length_unit": "nm"}
        np.testing.assert_allclose(block.positions[7], [0.3, 0.1, 0.2], atol=6e-4)
        np.testing.assert_allclose(block.cell[0], 1.5 * np.eye(3), atol=1e-6)
        assert block.species.tolist() == [6, 8] * 5 and block.pbc.all()
        assert numbers(tmp_path / name, slice(1, None, 2)) == [1, 3]
        assert numbers(tmp_path / name, slice(None), skip=3) == [3, 4]


def test_the_topology_of_a_trajectory_is_the_only_pdb_beside_it_or_named(tmp_path: Path) -> None:
    pytest.importorskip("mdtraj")
    (tmp_path / "a.dcd").write_bytes(dcd(2))
    with pytest.raises(
        ValueError, match=r"a\.dcd: .* wanted one PDB file beside it, got none there; set topology"
    ):
        read(tmp_path / "a.dcd")
    for name in ("top.pdb", "other.pdb"):
        (tmp_path / name).write_text(PDB)
    with pytest.raises(ValueError, match=r"got 2 there: other\.pdb, top\.pdb; set topology"):
        read(tmp_path / "a.dcd")
    assert read(tmp_path / "a.dcd", Reading(topology=tmp_path / "top.pdb"))


# ------------------------------------------------------------------------------------------ all formats


def test_every_format_has_its_ending_and_its_functions() -> None:
    for name, found in known().items():
        assert callable(found.module.count) and callable(found.module.blocks), name
        assert found.endings or hasattr(found.module, "is_one"), name
    assert {name for name, f in known().items() if f.can_write} == {"ase_db", "deepmd", "extxyz", "npz"}


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("a.xyz", lambda p: p.write_text("1\nenergy=1\nH 0 0 0\n" * 6)),
        ("input.data", lambda p: p.write_text(RUNNER * 3)),
        ("a.dcd", lambda p: p.write_bytes(dcd(6))),
        (
            "a.json",
            lambda p: p.write_text(
                json.dumps([{"species": ["H"], "positions": [[0, 0, k]]} for k in range(6)])
            ),
        ),
    ],
)
@pytest.mark.parametrize(
    "wanted", [slice(None), slice(1, 5), slice(-3, None), slice(None, None, 2), slice(9, None)]
)
@pytest.mark.parametrize("skip", [0, 1, 4])
def test_slices_and_what_is_skipped(
    tmp_path: Path, name: str, make: Callable[[Path], object], wanted: slice, skip: int
) -> None:
    make(tmp_path / name)
    (tmp_path / "top.pdb").write_text(PDB)
    if name == "a.dcd":
        pytest.importorskip("mdtraj")
    assert numbers(tmp_path / name, wanted, skip=skip) == list(range(6))[wanted][skip:]
    with pytest.raises(ValueError, match="runs backwards"):
        numbers(tmp_path / name, slice(None, None, -1))
