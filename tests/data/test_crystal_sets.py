"""Crystals with labels and no forces: perovskites, entries of the Materials Project; values and refusals."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest

from sapis_lab.config import load, read_yaml
from sapis_lab.data import prepare
from sapis_lab.data._crystals import cell_of
from sapis_lab.data.materials_project import MaterialsProjectConfig
from sapis_lab.data.perov_5 import Perov5Config

needs_files = pytest.mark.skipif(
    "SAPIS_DATA" not in os.environ, reason="SAPIS_DATA is not set: no crystals to read"
)
REPOSITORY = Path(__file__).resolve().parents[2]
CIF = """# generated
data_test
_cell_length_a   4.0
_cell_length_b   5.0(2)
_cell_length_c   6.0
_cell_angle_alpha   90.0
_cell_angle_beta   90.0
_cell_angle_gamma   120.0
_chemical_formula_sum   'Sr1 Ti1 O3'
loop_
 _symmetry_equiv_pos_site_id
 _symmetry_equiv_pos_as_xyz
  1  'x, y, z'
loop_
 _atom_site_type_symbol
 _atom_site_label
 _atom_site_fract_x
 _atom_site_fract_y
 _atom_site_fract_z
 _atom_site_occupancy
  Sr  Sr0  0.0  0.0  0.0  1
  Ti  Ti1  0.5  0.5  0.5  1
  O  O2  0.5  0.5  {z}  1
"""


def settings(name, cls):
    return load(cls, read_yaml(REPOSITORY / "configs" / "data" / f"{name}.yaml"), source=name)


# ------------------------------------------------------------------------------------------------ perovskites


def perovskites(folder, cifs=None, *, heat="1.5"):
    """A file with one row for each CIF."""
    cifs = [CIF.format(z=f"{0.01 * k:.2f}") for k in range(12)] if cifs is None else cifs
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "val.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["", "material_id", "cif", "heat_all", "heat_ref", "dir_gap", "ind_gap"])
        rows.writerows([k, k, text, heat, 1.0, 0.0, 0.25] for k, text in enumerate(cifs))
    return Perov5Config(files="val.csv", n_validation=2, n_test=3, root=folder)


def refused(config, cache):
    with pytest.raises(ValueError) as found:  # noqa: PT011
        prepare(config, cache=cache)
    return str(found.value)


@pytest.mark.long
@needs_files
def test_the_first_perovskite_is_the_one_that_stands_in_the_file(tmp_path):
    store = prepare(settings("perov-5", Perov5Config), cache=tmp_path)
    first = store.frames(np.array([0]))
    # CuCdN3: Cu at a·0.00159044, Cd at a·(0.50071723, ½, ½), a = 4.27928426 Å, heat_all 2.76
    assert first.species.tolist() == [29, 48, 7, 7, 7]
    assert first.positions[:2] == pytest.approx(
        np.array([[0.00680594, 0, 0], [2.14271136, 2.13964213, 2.13964213]]), abs=2e-8
    )
    assert np.array_equal(np.diag(first.cell[0]), [4.27928426] * 3) and first.pbc.all()
    assert (first.label("formation_energy")[0], first.label("heat_ref")[0]) == (2.76, 2.709152583232041)
    assert {name: len(ids) for name, ids in store.splits.items()} == {
        "train": 3087,
        "validation": 200,
        "test": 500,
    }
    assert len(store.elements) == 56


def test_a_cell_of_lengths_and_angles_has_them():
    a, b, c = cell_of(3.0, 4.0, 5.0, 80.0, 95.0, 110.0)
    lengths = [np.linalg.norm(v) for v in (a, b, c)]
    angles = [
        np.degrees(np.arccos(u @ v / np.linalg.norm(u) / np.linalg.norm(v)))
        for u, v in ((b, c), (a, c), (a, b))
    ]
    assert lengths == pytest.approx([3, 4, 5]) and angles == pytest.approx([80, 95, 110])
    assert np.linalg.det([a, b, c]) > 0


def test_a_cif_becomes_the_crystal_that_it_describes(tmp_path):
    store = prepare(perovskites(tmp_path), cache=tmp_path / "cache")
    frame = store.frames(np.array([3]))
    assert frame.species.tolist() == [38, 22, 8]
    # a = (4, 0, 0), b = 5 (cos 120°, sin 120°, 0), c = (0, 0, 6)
    assert frame.cell[0] == pytest.approx(np.array([[4, 0, 0], [-2.5, 4.330127, 0], [0, 0, 6]]), abs=1e-6)
    assert frame.positions[2] == pytest.approx([0.75, 2.1650635, 0.18], abs=1e-6)
    assert frame.label("indirect_gap").tolist() == [0.25]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("'x, y, z'", "'-x, -y, z'", "the symmetry operation '-x, -y, z', wanted every atom listed"),
        ("0.5  0.5  0.5  1", "0.5  0.5  0.5  0.9", "the site of atom 1 is occupied by 0.9, wanted 1"),
        ("_cell_length_c   6.0\n", "", "_cell_length_c of the CIF is '', wanted a number"),
        ("_cell_length_c   6.0", "_cell_length_c   long", "_cell_length_c of the CIF is 'long'"),
        ("_cell_angle_gamma   120.0", "_cell_angle_gamma   0.0", "wanted three vectors that span a volume"),
        ("  Ti  Ti1", "  Xx  Ti1", "atom 1 is 'Xx', wanted a chemical symbol"),
        ("  Ti  Ti1  0.5", "  Ti  Ti1  half", "_atom_site_fract_x of the CIF is 'half'"),
        ("  Ti  Ti1  0.5", "  Ti  Ti1", "has 5 values, wanted 6"),
        ("'Sr1 Ti1 O3'", "'Sr1 Ti1 O3", "has an open quote"),
    ],
)
def test_a_cif_that_is_not_what_is_read_is_refused_by_its_row(tmp_path, old, new, message):
    cifs = [CIF.format(z=f"{0.01 * k:.2f}") for k in range(12)]
    assert old in cifs[4]
    cifs[4] = cifs[4].replace(old, new)
    said = refused(perovskites(tmp_path, cifs), tmp_path / "cache")
    assert said.startswith(f"{tmp_path / 'val.csv'}, row 5: ") and message in said


def test_a_perovskite_without_a_label_is_refused(tmp_path):
    assert "row 1: no heat_all" in refused(perovskites(tmp_path, heat=""), tmp_path / "cache")


def test_a_cut_file_is_refused(tmp_path):
    config = perovskites(tmp_path)
    whole = (tmp_path / "val.csv").read_text()
    (tmp_path / "val.csv").write_text(whole[: whole.index("Ti  Ti1", 2000)])
    assert "cells, wanted 7" in refused(config, tmp_path / "cache")


# ------------------------------------------------------------------------------------------ Materials Project


def entry(k=0, **changes):
    plain = {
        "lattice": [[4.0 + 0.01 * k, 0, 0], [0, 4.0, 0], [0, 0, 4.0]],
        "species": ["Na", "Cl"],
        "frac_coords": [[0, 0, 0], [0.5, 0.5, 0.5]],
        "formation_energy_per_atom": -2.0 + 0.1 * k,
        "energy_per_atom": -3.4,
        "band_gap": 5.0,
    }
    return {**plain, **changes}


def entries(folder, some=None):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mp.json").write_text(json.dumps([entry(k) for k in range(10)] if some is None else some))
    return MaterialsProjectConfig(file="mp.json", n_validation=2, n_test=2, root=folder)


@needs_files
def test_the_first_crystal_of_the_materials_project_is_the_one_that_stands_in_the_file(tmp_path):
    store = prepare(settings("materials-project-200", MaterialsProjectConfig), cache=tmp_path)
    first = store.frames(np.array([0]))
    assert first.species.tolist() == [89, 89, 89]
    # the third atom: 0 a + 0.344954 b + 0.666667 c with b = (2.001328, 3.466402, 0), c = (0, 0, 9.803856)
    assert first.positions[2] == pytest.approx([0.690366, 1.195749, 6.535907], abs=1e-6)
    assert first.label("formation_energy")[0] == 0.015585797500004142
    assert (first.label("energy_per_atom")[0], first.label("band_gap")[0]) == (-68.62189361499999, 0)
    in_training = set(store.frames(store.splits["train"]).species.tolist())
    assert set(store.elements) == in_training and len(in_training) == 60


def test_structures_of_pymatgen_are_the_same_crystals(tmp_path):
    def of_pymatgen(plain):
        sites = [
            {"species": [{"element": s, "occu": 1}], "abc": x}
            for s, x in zip(plain["species"], plain["frac_coords"], strict=True)
        ]
        left = {k: v for k, v in plain.items() if k not in ("lattice", "species", "frac_coords")}
        return {**left, "structure": {"lattice": {"matrix": plain["lattice"]}, "sites": sites}}

    plain = [entry(k) for k in range(10)]
    one = prepare(entries(tmp_path / "a", plain), cache=tmp_path / "a" / "cache")
    two = prepare(entries(tmp_path / "b", [of_pymatgen(e) for e in plain]), cache=tmp_path / "b" / "cache")
    assert np.array_equal(one.positions, two.positions) and np.array_equal(one.cell, two.cell)
    shared = of_pymatgen(entry())
    shared["structure"]["sites"][1]["species"].append({"element": "Br", "occu": 0.5})
    config = entries(tmp_path / "c", [*(of_pymatgen(e) for e in plain), shared])
    assert "frame 10: site 1 is shared or partly empty" in refused(config, tmp_path / "c" / "cache")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"band_gap": None}, "no band_gap; leave the entry out, or set missing: mask"),
        ({"band_gap": "wide"}, "band_gap is 'wide', wanted a finite number"),
        ({"band_gap": True}, "band_gap is 'True', wanted a finite number"),
        ({"species": ["Na", "Qq"]}, "atom 1 is 'Qq', wanted a chemical symbol"),
        ({"species": ["Na"]}, "fractional coordinates"),
        ({"frac_coords": [[0, 0], [0, 0]]}, "wanted numbers of shape (2, 3)"),
        ({"lattice": [[1, 0, 0], [2, 0, 0], [0, 0, 1]]}, "wanted three vectors that span a volume"),
    ],
)
def test_an_entry_that_is_not_what_is_read_is_refused_by_its_number(tmp_path, changes, message):
    config = entries(tmp_path, [*(entry(k) for k in range(10)), entry(**changes)])
    said = refused(config, tmp_path / "cache")
    assert said.startswith(f"{tmp_path / 'mp.json'}, frame 10: ") and message in said


def test_labels_that_are_missing_are_masked_where_the_settings_say_so(tmp_path):
    config = entries(
        tmp_path, [*(entry(k) for k in range(10)), entry(3, band_gap=None, lattice=(5 * np.eye(3)).tolist())]
    )
    store = prepare(config.model_copy(update={"missing": "mask"}), cache=tmp_path / "cache")
    assert np.isnan(store.label_column("band_gap")).sum() == 1
    assert set(store.incomplete) == {"energy", "forces", "band_gap"}
