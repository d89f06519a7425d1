"""Extended XYZ and npz files: units, signs, slices, splits, and refusals that name file and frame."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from sapis_lab import units
from sapis_lab.config import kind_class, read_yaml
from sapis_lab.data import prepare
from sapis_lab.data._file_slices import split_slice
from sapis_lab.data.extxyz import ExtxyzConfig
from sapis_lab.errors import Notice
from sapis_lab.formats import count_frames, read_extxyz

REST = np.array([[0.0, 0, 0], [1.2, 0, 0], [-0.4, 1.0, 0]])
STIFFNESS = 10.0
"""eV/Å²"""


def harmonic(seed, n):
    """(positions, energy, forces) of three atoms joined by springs, randomly distorted and turned, eV and
    Å."""
    generator = np.random.default_rng(seed)
    turns = np.linalg.qr(generator.normal(size=(n, 3, 3)))[0]
    x = (REST + 0.1 * generator.normal(size=(n, 3, 3))) @ turns
    energy, forces = np.full(n, -100.0), np.zeros((n, 3, 3))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        r = np.linalg.norm(x[:, j] - x[:, i], axis=1, keepdims=True)
        stretch = r - np.linalg.norm(REST[j] - REST[i])
        energy += 0.5 * STIFFNESS * stretch[:, 0] ** 2
        pull = STIFFNESS * stretch * (x[:, j] - x[:, i]) / r
        forces[:, i] += pull
        forces[:, j] -= pull
    return x, energy, forces


def write(path, seed=0, n=40, *, change=lambda k, frame: frame, extra=""):
    """An extended-XYZ file; `change(k, dict)` may spoil frame k. Returns the path."""
    lines = []
    for k, (x, e, f) in enumerate(zip(*harmonic(seed, n), strict=True)):
        frame = change(
            k,
            {
                "species": ["O", "H", "H"],
                "x": x.copy(),
                "energy": e,
                "f": f.copy(),
                "properties": "species:S:1:pos:R:3:forces:R:3",
            },
        )
        lines += [
            str(len(frame["species"])),
            f"Properties={frame['properties']} energy={frame['energy']:.12f} {extra}",
        ]
        lines += [
            " ".join([s, *(f"{v:.10f}" for v in (*a, *b))])
            for s, a, b in zip(frame["species"], frame["x"], frame["f"], strict=True)
        ]
    path.write_text("\n".join(lines) + "\n")
    return path


def config(root, **changes):
    given = {
        "train": "a.xyz",
        "n_validation": 5,
        "tests": {"test": "b.xyz"},
        "energy_unit": "eV",
        "length_unit": "Angstrom",
        "root": root,
    }
    return ExtxyzConfig(**{**given, **changes})


@pytest.fixture
def files(tmp_path):
    write(tmp_path / "a.xyz", 0, 40)
    write(tmp_path / "b.xyz", 1, 20)
    return tmp_path


def make(root, **changes):
    return prepare(config(root, **changes), cache=root / "cache")


def test_frames_slices_and_splits(files):
    store = make(
        files,
        train="a.xyz[:30]",
        n_validation=5,
        n_train=20,
        seed=3,
        tests={"test": "b.xyz[::2]", "test_far": "b.xyz[1::2]"},
    )
    _, e, f = harmonic(0, 40)
    order = np.random.default_rng(3).permutation(30)
    assert np.array_equal(store.splits["train"], order[:20]) and np.array_equal(
        store.splits["validation"], order[25:]
    )
    assert np.allclose(store.energy[store.splits["train"]], e[order[:20]], atol=1e-9)
    assert np.allclose(store.frames(order[:1]).forces, f[order[0]], atol=1e-6)
    assert np.allclose(store.energy[store.splits["test_far"]], harmonic(1, 20)[1][1::2], atol=1e-9)
    assert store.elements == (1, 8)


def test_units_and_signs_are_those_of_the_config(files):
    def in_bohr(k, v):
        return {**v, "x": v["x"] / units.BOHR_TO_ANGSTROM, "f": v["f"] * units.BOHR_TO_ANGSTROM}

    plain = make(files)
    for name, seed in (("c.xyz", 0), ("d.xyz", 1)):
        write(
            files / name,
            seed,
            40 - 20 * seed,
            change=lambda k, v: {**v, "x": v["x"] / units.BOHR_TO_ANGSTROM},
        )
    frames = {"train": "c.xyz", "tests": {"test": "d.xyz"}}
    other = make(
        files,
        **frames,
        energy_unit="kcal/mol",
        length_unit="Bohr",
        force_unit="kcal/mol/Angstrom",
    )
    factor = units.KCAL_PER_MOL_TO_EV
    assert np.allclose(other.energy, plain.energy * factor)
    assert np.allclose(other.positions, plain.positions)
    assert np.allclose(other.forces, plain.forces * factor)
    per_bohr = {**frames, "length_unit": "Bohr", "force_unit": "eV/Bohr"}
    with pytest.raises(ValueError, match="forces seem to be per Å, not per Bohr: set force_unit"):
        make(files, **per_bohr)
    for name, seed in (("c.xyz", 0), ("d.xyz", 1)):
        write(files / name, seed, 40 - 20 * seed, change=in_bohr)
    assert np.allclose(make(files, **per_bohr).forces, plain.forces, rtol=1e-6)


def test_gradients_and_energies_per_atom_are_turned_when_the_config_says_so(tmp_path):
    def spoil(k, frame):
        return {**frame, "f": -frame["f"], "energy": frame["energy"] / 3}

    write(tmp_path / "a.xyz", 0, change=spoil)
    write(tmp_path / "b.xyz", 1, change=spoil)
    store = make(tmp_path, forces_are="gradient", energy_is="per_atom")
    assert np.allclose(store.energy[:40], harmonic(0, 40)[1], atol=1e-9)
    assert np.allclose(store.forces[:3], harmonic(0, 40)[2][0], atol=1e-6)


def test_wrong_signs_units_and_energies_per_atom_are_noticed(tmp_path):
    for spoil, message in [
        (lambda k, frame: {**frame, "f": -frame["f"]}, "set forces_are: gradient"),
        (lambda k, frame: {**frame, "energy": frame["energy"] / 3}, "set energy_is: per_atom"),
        (lambda k, frame: {**frame, "energy": frame["energy"] * 23.06}, "set energy_unit: kcal/mol"),
        (lambda k, frame: {**frame, "f": frame["f"] * units.BOHR_TO_ANGSTROM}, "such as eV/Bohr"),
    ]:
        write(tmp_path / "a.xyz", 0, 100, change=spoil)
        write(tmp_path / "b.xyz", 1, 20, change=spoil)
        with pytest.raises(ValueError, match=message):
            make(tmp_path)


def at(frame, **changes):
    """A function that changes only frame number `frame`."""
    return lambda k, values: (
        {**values, **{key: change(values) for key, change in changes.items()}} if k == frame else values
    )


def put(key, index, value):
    def change(values):
        array = np.array(values[key])
        array[index] = value
        return array

    return change


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            at(7, f=put("f", (1, 2), np.nan)),
            r"a\.xyz, frame 7: forces of atom 1 is .*nan.*, wanted finite numbers in eV/Å",
        ),
        (at(7, energy=lambda v: np.inf), r"a\.xyz, frame 7: energy is inf"),
        (
            at(7, x=lambda v: v["x"][[0, 1, 1]] + 0.01 * np.eye(3)),
            r"a\.xyz, frame 7: atoms 1 and 2 are 0\.\d+ Å apart, wanted at least 0\.3",
        ),
        (at(7, f=lambda v: 0 * v["f"]), r"a\.xyz, frame 7: every force is exactly zero"),
        (
            lambda k, v: {**v, "f": 0 * v["f"]},
            r"a\.xyz, frame \d+ and all other frames of split 'train': every force is zero",
        ),
        (
            lambda k, v: {**v, "energy": -5.0},
            r"a\.xyz, frame \d+ and all other training frames have the energy -5\.0 eV",
        ),
        (at(7, species=lambda v: ["O", "Hq", "H"]), r"a\.xyz, frame 7: atom 1 has species 'Hq'"),
        (
            at(7, properties=lambda v: "species:S:1:pos:R:3:forces:R:2"),
            r"a\.xyz, frame 7: atom 0 has 7 columns, wanted the 6",
        ),
        (
            at(7, properties=lambda v: "species:S:1:pos:R:3:force:R:3"),
            r"a\.xyz, frame 7: no column 'forces'; it has .*force; set forces_key",
        ),
    ],
)
def test_bad_frames_are_refused_by_file_and_number(tmp_path, spoil, message):
    write(tmp_path / "a.xyz", 0, change=spoil)
    write(tmp_path / "b.xyz", 1)
    with pytest.raises(ValueError, match=message):
        make(tmp_path)


def test_the_number_of_a_frame_counts_from_the_start_of_the_file_not_of_the_slice(tmp_path):
    write(tmp_path / "a.xyz", 0, change=at(8, energy=lambda v: np.nan))
    write(tmp_path / "b.xyz", 1)
    with pytest.raises(ValueError, match=r"a\.xyz, frame 8: energy"):
        make(tmp_path, train="a.xyz[::2]")


def test_a_frame_in_two_splits_is_refused_naming_both(tmp_path):
    x = harmonic(0, 40)[0][11]
    write(tmp_path / "a.xyz", 0)
    write(tmp_path / "b.xyz", 1, change=at(4, x=lambda v: x))
    with pytest.raises(
        ValueError,
        match=r"a\.xyz, frame 11 \((train|validation)\) and .*b\.xyz, frame 4 \(test\) are the same",
    ):
        make(tmp_path)


def test_a_frame_that_training_repeats_is_refused_naming_both(tmp_path):
    x, shift = harmonic(0, 40)[0][11], np.array([0.3, -7.0, 1e-9])
    write(tmp_path / "b.xyz", 1)
    for moved in (x, x + shift):
        write(tmp_path / "a.xyz", 0, change=at(23, x=lambda v, moved=moved: moved))
        write(tmp_path / "c.xyz", 2, change=at(5, x=lambda v, moved=moved: moved))
        with pytest.raises(
            ValueError,
            match=(
                r"a\.xyz, frame 11 and .*a\.xyz, frame 23 \(both train\) are the same.*a copy of the file "
                r"without one"
            ),
        ):
            make(tmp_path, seed=None)
        write(tmp_path / "a.xyz", 0)
        with pytest.raises(
            ValueError, match=r"a\.xyz, frame 11 and .*c\.xyz, frame 5 \(both train\) are the same"
        ):
            make(tmp_path, train=["a.xyz", "c.xyz"], seed=None)


def test_a_translated_copy_of_an_open_frame_is_found_in_another_split(tmp_path):
    x = harmonic(0, 40)[0][11] + [0.1234567, 5.0, -3.0]
    write(tmp_path / "a.xyz", 0)
    write(tmp_path / "b.xyz", 1, change=at(4, x=lambda v: x))
    with pytest.raises(ValueError, match=r"a\.xyz, frame 11 \(.*b\.xyz, frame 4 \(test\) are the same"):
        make(tmp_path)


def test_a_translated_periodic_frame_is_told_and_taken(tmp_path):
    x = harmonic(0, 40)[0][11] + [0.5, 0.5, 0.5]
    for name, seed in (("a.xyz", 0), ("b.xyz", 1)):
        write(
            tmp_path / name,
            seed,
            change=at(4, x=lambda v: x) if seed else at(-1),
            extra='Lattice="9 0 0 0 9 0 0 0 9"',
        )
    with pytest.warns(Notice) as told:
        assert make(tmp_path).sealed
    one, other = sorted(str(w.message) for w in told)
    assert re.search(r"1 frame is a copy of a frame of another split.*\(1 moved\)", one)
    assert "1 of 1 copies have other labels" in other


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize(
    ("true", "declared"), [("Angstrom", "Bohr"), ("Angstrom", "nm"), ("Bohr", "Angstrom"), ("nm", "Angstrom")]
)
def test_a_wrong_length_unit_is_refused_naming_the_right_one(tmp_path, true, declared, periodic):
    side = 9 / units.LENGTH[true]
    for name, seed in (("a.xyz", 0), ("b.xyz", 1)):
        extra = f'Lattice="{side} 0 0 0 {side} 0 0 0 {side}"' if periodic else ""
        # 0.97 Å, the distance of O and H in water.
        write(
            tmp_path / name,
            seed,
            change=lambda k, v: {**v, "x": v["x"] * 0.9 / units.LENGTH[true]},
            extra=extra,
        )
    make(tmp_path, length_unit=true, force_unit="eV/Angstrom")
    with pytest.raises(
        ValueError,
        match=rf"a\.xyz, frame 0 .* is [\d.]+ times the sum .* would have to be {true}, not {declared}",
    ):
        make(tmp_path, length_unit=declared)


def test_atoms_of_noble_gases_may_be_as_far_apart_as_they_are(tmp_path):
    def argon(k, v):
        return {**v, "species": ["Ar"] * 3, "x": v["x"] * 3.5, "f": v["f"] / 3.5}

    for name, seed in (("a.xyz", 0), ("b.xyz", 1)):
        write(tmp_path / name, seed, change=argon)
    assert make(tmp_path).sealed


def test_info_names_the_elements_of_every_file_and_frame_that_a_split_holds(tmp_path):
    write(tmp_path / "a.xyz", 0, 600, change=at(550, species=lambda v: ["O", "F", "H"]))
    write(tmp_path / "c.xyz", 2, 20, change=at(19, species=lambda v: ["S", "H", "H"]))
    write(tmp_path / "b.xyz", 1, 20, change=at(7, species=lambda v: ["O", "H", "F"]))
    for changes in (
        {
            "train": ["a.xyz", "c.xyz"],
            "seed": None,
            "validation": "b.xyz",
            "n_validation": 0,
            "tests": {},
            "n_test": 5,
            "n_train": 560,
        },
        {"train": ["c.xyz", "a.xyz"], "seed": None, "n_validation": 5},
        {
            "train": ["c.xyz", "a.xyz"],
            "seed": None,
            "n_validation": 5,
            "n_train": 615,
            "strata": "composition",
            "tests": {"test": "a2.xyz"},
        },
    ):
        write(tmp_path / "a2.xyz", 3, 10)
        wanted = config(tmp_path, **changes)
        if changes.get("n_train") == 560:
            with pytest.raises(ValueError, match="element Z=16 occurs in split 'test'"):
                make(tmp_path, **changes)
            assert wanted.info(cutoff=5.0).species == (1, 8, 9, 16)
            continue
        store = make(tmp_path, **changes)
        info = wanted.info(cutoff=5.0)
        assert info.species == store.elements == (1, 8, 9, 16)
        assert (info.n_train, info.n_validation) == (
            len(store.splits["train"]),
            len(store.splits["validation"]),
        )


def test_elements_of_frames_that_no_split_names_do_not_count(tmp_path):
    write(tmp_path / "a.xyz", 0, 40, change=at(30, species=lambda v: ["Au", "H", "H"]))
    write(tmp_path / "b.xyz", 1, 20)
    for n_train, wanted in ((30, (1, 8)), (35, (1, 8, 79))):
        changes = {"n_train": n_train, "seed": None}
        assert (
            make(tmp_path, **changes).elements
            == config(tmp_path, **changes).info(cutoff=5.0).species
            == wanted
        )


def test_an_element_that_training_never_shows_is_refused(tmp_path):
    write(tmp_path / "a.xyz", 0)
    write(tmp_path / "b.xyz", 1, change=at(4, species=lambda v: ["O", "H", "F"]))
    with pytest.raises(ValueError, match=r"b\.xyz, frame 4: element Z=9 occurs in split 'test'"):
        make(tmp_path)


def test_torn_and_foreign_files_are_refused(files):
    text = (files / "a.xyz").read_text().splitlines()
    (files / "a.xyz").write_text("\n".join(text[:-1]) + "\n")
    with pytest.raises(ValueError, match=r"a\.xyz, frame 39: the file ends after 2 of 3 atoms"):
        make(files)
    (files / "a.xyz").write_text("not a number\n")
    with pytest.raises(
        ValueError, match=r"a\.xyz, frame 0: wanted a line with the number of atoms, got one of 12 characters"
    ):
        make(files)
    with pytest.raises(ValueError, match="pickled formats are refused"):
        (files / "c.pkl").write_bytes(b"")
        make(files, train="c.pkl")
    with pytest.raises(ValueError, match=r"missing file: wanted .*none\.xyz.*SAPIS_DATA"):
        make(files, train="none.xyz")


@pytest.mark.parametrize("count", [0, -3])
def test_a_frame_without_atoms_is_refused(files, count):
    text = (files / "a.xyz").read_text().splitlines()
    (files / "a.xyz").write_text("\n".join([*text[:10], str(count), "energy=0", *text[10:]]) + "\n")
    for act in (make, lambda root: config(root).info(cutoff=5.0)):
        with pytest.raises(ValueError, match=rf"a\.xyz, frame 2: got {count} atoms, wanted at least 1"):
            act(files)


def test_bytes_that_are_not_text_are_refused_by_file_and_frame(files):
    text = (files / "a.xyz").read_text().splitlines()
    text[5 * 3 + 1] += " author=Ångström"
    (files / "a.xyz").write_text("\n".join(text) + "\n", encoding="utf-8")
    make(files)
    (files / "a.xyz").write_text("\n".join(text) + "\n", encoding="latin-1")
    for act in (
        lambda root: prepare(config(root), cache=root / "other"),
        lambda root: config(root).info(cutoff=5.0),
    ):
        with pytest.raises(
            ValueError, match=r"a\.xyz, frame 3: the comment line is not UTF-8 text.*wanted extended XYZ"
        ):
            act(files)
    (files / "a.xyz").write_bytes(bytes(range(128, 256)) * 100)
    with pytest.raises(ValueError, match=r"a\.xyz, frame 0: wanted a line with the number of atoms, got"):
        prepare(config(files), cache=files / "other")


@pytest.mark.parametrize(
    "properties",
    ["species:S:x", "species:S:1:pos:R:0", "species:S:1:pos:Q:3:forces:R:3", "species:S:1:pos:R"],
)
def test_properties_that_make_no_sense_are_refused(tmp_path, properties):
    write(tmp_path / "a.xyz", 0, change=at(7, properties=lambda v: properties))
    write(tmp_path / "b.xyz", 1)
    with pytest.raises(
        ValueError, match=rf"a\.xyz, frame 7: got Properties={properties}, wanted triples name:type:columns"
    ):
        make(tmp_path)


@pytest.mark.parametrize("pbc", ["T", "T T X", ""])
def test_pbc_that_is_not_three_truths_is_refused(tmp_path, pbc):
    write(tmp_path / "a.xyz", 0, extra=f'pbc="{pbc}"')
    write(tmp_path / "b.xyz", 1)
    with pytest.raises(ValueError, match=rf"a\.xyz, frame 0: pbc is '{pbc}', wanted three of T and F"):
        make(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"z": np.array(["O", "H", "D2"])},
            r"a\.npz: species are of type <U2 and name 'D2', wanted atomic numbers or chemical symbols",
        ),
        ({"z": np.array(8)}, r"a\.npz: species have shape \(\), wanted \(n_atoms,\)"),
        ({"cell": np.eye(3)[:2]}, r"a\.npz: the cell has shape \(2, 3\), wanted \(3, 3\) or \(30, 3, 3\)"),
        ({"cell": np.zeros((29, 3, 3))}, r"a\.npz: the cell has shape \(29, 3, 3\), wanted"),
        ({"E": np.array(["x"] * 30)}, r"a\.npz: array 'E' is of type <U1"),
    ],
)
def test_npz_arrays_of_the_wrong_kind_are_refused_by_name(tmp_path, change, message):
    for name, seed in (("a", 0), ("b", 1)):
        x, e, f = harmonic(seed, 30)
        np.savez(
            tmp_path / f"{name}.npz",
            **({"R": x, "z": np.array([8, 1, 1]), "E": e, "F": f} | (change if name == "a" else {})),
        )
    for act in (make, lambda root, **changes: config(root, **changes).info(cutoff=5.0)):
        with pytest.raises(ValueError, match=message):
            act(tmp_path, train="a.npz", tests={"test": "b.npz"})


def test_a_missing_energy_key_names_the_ones_there(files):
    with pytest.raises(
        ValueError, match=r"a\.xyz, frame 0: no key 'REF_energy'.*it has energy; set energy_key"
    ):
        make(files, energy_key="REF_energy")


def test_too_many_frames_wanted_is_refused(files):
    with pytest.raises(ValueError, match=r"hold 40 frames; n_validation=5 and n_test=0 leave 35.*n_train=36"):
        make(files, n_train=36)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation": "c.xyz"}, "exactly one"),
        ({"n_validation": 0}, "exactly one"),
        ({"tests": {}}, "exactly one"),
        ({"tests": {"held_out": "b.xyz"}}, "split named 'held_out'; wanted 'test', or 'test_'"),
        ({"tests": {"test600": "b.xyz"}}, "split named 'test600'; wanted 'test', or 'test_'"),
        ({"tests": {"test_600_K": "b.xyz"}}, r"split named 'test_600_K'.*\(test_600K\)"),
        ({"train": "a.xyz[::0]"}, r"'a\.xyz\[::0\]': a slice with step 0, wanted a step of at least 1"),
        ({"train": "/data/a.xyz[:10]"}, "'/data/a.xyz' is an absolute path, wanted one relative to `root`"),
        ({"isolated_atoms": "/data/atoms.xyz"}, "'/data/atoms.xyz' is an absolute path"),
        ({"force_unit": "eV/parsec"}, "wanted an energy"),
        ({"train": "a.xyz[::-1]"}, "optional slice"),
        ({"isolated_atoms": {"Hx": 1.0}}, "chemical symbols"),
        ({"stress_key": "s", "virial_key": "v"}, "not both"),
    ],
)
def test_settings_that_contradict_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        config(tmp_path, **changes)


def test_units_must_be_stated():
    with pytest.raises(ValueError, match="energy_unit"):
        ExtxyzConfig(train="a.xyz", n_validation=1, n_test=1, length_unit="Angstrom")


def test_slices_are_those_of_python():
    assert split_slice("x/y.xyz") == ("x/y.xyz", slice(None))
    assert split_slice("y.xyz[::2]") == ("y.xyz", slice(None, None, 2))
    assert split_slice("y.xyz[5:-1]") == ("y.xyz", slice(5, -1))


def test_stress_is_positive_in_tension(tmp_path):
    cell = 'Lattice="10 0 0 0 10 0 0 0 10" pbc="T T T" '
    write(tmp_path / "a.xyz", 0, extra=cell + 'stress="1 2 3 4 5 6" virial="1 0 0 0 1 0 0 0 1"')
    write(tmp_path / "b.xyz", 1, extra=cell + 'stress="1 2 3 4 5 6" virial="1 0 0 0 1 0 0 0 1"')
    store = make(tmp_path, stress_key="stress", stress_unit="GPa")
    s = store.column("stress")[0] * units.EV_PER_A3_TO_GPA
    assert np.allclose(s, [[1, 6, 5], [6, 2, 4], [5, 4, 3]])
    compressed = make(tmp_path, stress_key="stress", stress_unit="kbar", stress_is="compression")
    assert np.allclose(compressed.column("stress")[0], -0.1 * s / units.EV_PER_A3_TO_GPA)
    virial = make(tmp_path, virial_key="virial")
    assert np.allclose(virial.column("stress")[0], -np.eye(3) / 1000)
    assert store.pbc.all() and store.cell[0, 0, 0] == 10


def test_a_box_around_an_open_molecule_is_dropped(tmp_path):
    for name, seed in (("a.xyz", 0), ("b.xyz", 1)):
        write(tmp_path / name, seed, extra='Lattice="50 0 0 0 50 0 0 0 50" pbc="F F F"')
    store = make(tmp_path)
    assert not store.cell.any() and not store.pbc.any()


def test_npz_files_of_sgdml_and_with_named_arrays(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        x, e, f = harmonic(seed, 30)
        np.savez(tmp_path / f"{name}.npz", R=x, z=np.array([8, 1, 1]), E=e[:, None], F=f)
        np.savez(tmp_path / f"{name}-named.npz", xyz=x, z=np.array([8, 1, 1]), dft=e, F=f)
    plain = make(tmp_path, train="a.npz", tests={"test": "b.npz[:10]"})
    named = make(
        tmp_path,
        train="a-named.npz",
        tests={"test": "b-named.npz[:10]"},
        npz_keys={"positions": "xyz", "energy": "dft"},
    )
    assert (
        plain.n_frames == 40
        and np.array_equal(plain.energy, named.energy)
        and np.array_equal(plain.positions, named.positions)
    )
    with pytest.raises(ValueError, match="is known to hold the positions"):
        make(tmp_path, train="a-named.npz", tests={"test": "b.npz"})


def test_isolated_atoms_from_a_dict_or_a_file_are_kept_and_checked(files):
    (files / "atoms.xyz").write_text(
        "1\nProperties=species:S:1:pos:R:3 energy=-70\nO 0 0 0\n1\nProperties=species:S:1:pos:R:3 "
        "energy=-13\nH 0 0 0\n"
    )
    assert make(files, isolated_atoms="atoms.xyz").isolated_atoms == {8: -70.0, 1: -13.0}
    assert make(files, isolated_atoms={"O": -70, "H": -13}).isolated_atoms == {8: -70.0, 1: -13.0}
    with pytest.raises(ValueError, match="isolated_atoms lacks O"):
        make(files, isolated_atoms={"H": -13})
    with pytest.raises(ValueError, match=r"a\.xyz, frame 0: energy minus isolated atoms is .* eV per atom"):
        make(files, isolated_atoms={"O": -2000, "H": -13})


def test_composition_strata_balance_every_prefix(tmp_path):
    write(
        tmp_path / "a.xyz",
        0,
        60,
        change=lambda k, v: {**v, "species": ["O", "H", "H"] if k < 40 else ["O", "O", "H"]},
    )
    write(tmp_path / "b.xyz", 1, 20)
    store = make(tmp_path, strata="composition", n_validation=6)
    oxygens = store.composition(store.splits["train"][:30])[:, 1]
    assert 18 <= (oxygens == 1).sum() <= 22


def test_reading_agrees_with_ase(files):
    ase_io = pytest.importorskip("ase.io")
    ours = list(read_extxyz(files / "a.xyz", wanted=slice(3, 30, 4)))
    theirs = ase_io.read(files / "a.xyz", "3:30:4")
    assert count_frames(files / "a.xyz") == 40 and [f.number for f in ours] == list(range(3, 30, 4))
    for a, b in zip(ours, theirs, strict=True):
        assert np.array_equal(a.species, b.numbers) and np.array_equal(a.positions, b.positions)
        assert np.array_equal(a.columns["forces"], b.get_forces())


@pytest.mark.skipif("SAPIS_DATA" not in os.environ, reason="SAPIS_DATA is not set: no AcAc files to read")
def test_the_acac_config_makes_the_splits_it_describes(tmp_path):
    raw = read_yaml(Path(__file__).resolve().parents[2] / "configs" / "data" / "acac-300K.yaml")
    acac = kind_class("data", raw["kind"]).model_validate(raw)
    store = prepare(acac, cache=tmp_path)
    assert {k: len(v) for k, v in store.splits.items()} == {
        "train": 450,
        "validation": 50,
        "test": 325,
        "test_600K": 325,
    }
    assert np.array_equal(store.splits["train"], np.random.default_rng(7).permutation(500)[:450])
    rows = store.forces[: 500 * 15].astype(float)
    assert round(np.sqrt((rows**2).mean()), 2) == 1.05
    assert store.isolated_atoms[6] == -1026.8538996116154
    assert acac.info(cutoff=5.0).n_test == {"test": 325, "test_600K": 325}
    binding = store.energy[0] - store.composition(np.array([0]))[0] @ [
        store.isolated_atoms[z] for z in store.elements
    ]
    assert -6 < binding / 15 < -3


@pytest.mark.skipif(
    "SAPIS_DATA" not in os.environ, reason="SAPIS_DATA is not set: no files of 3BPA and LiPS to read"
)
@pytest.mark.parametrize(
    ("name", "splits", "periodic", "n_elements", "force_rms"),
    [
        ("3bpa-mixedT", {"train": 400, "validation": 50, "test": 50}, False, 4, 1.42),
        ("lips-200", {"train": 150, "validation": 20, "test": 30}, True, 3, 0.61),
    ],
)
def test_the_configs_of_larger_structures_make_what_they_describe(
    tmp_path, name, splits, periodic, n_elements, force_rms
):
    raw = read_yaml(Path(__file__).resolve().parents[2] / "configs" / "data" / f"{name}.yaml")
    store = prepare(kind_class("data", raw["kind"]).model_validate(raw), cache=tmp_path)
    assert {k: len(v) for k, v in store.splits.items()} == splits
    assert len(store.elements) == n_elements and bool(store.pbc.all()) == periodic
    assert np.sqrt((store.forces.astype(float) ** 2).mean()) == pytest.approx(force_rms, abs=0.005)


OBLIQUE = np.array([[9.0, 0.1, -0.3], [-1.9, 8.0, 0.7], [0.4, -2.2, 9.1]])
LATTICE = f'Lattice="{" ".join(map(str, OBLIQUE.reshape(-1)))}"'


@pytest.mark.parametrize("apart", [0.0, 0.2])
def test_atoms_that_overlap_across_a_boundary_are_refused_by_name(tmp_path, apart):
    def doubled(v):
        return np.vstack([v["x"][:2], v["x"][0] - OBLIQUE[1] + 2 * OBLIQUE[2] + [0, apart, 0]])

    write(tmp_path / "a.xyz", 0, change=at(7, x=doubled), extra=LATTICE)
    write(tmp_path / "b.xyz", 1, extra=LATTICE)
    message = (
        rf"a\.xyz, frame 7: atoms 0 and 2 are {apart:.3f} Å apart across the periodic boundary, wanted at "
        rf"least 0\.3"
    )
    with pytest.raises(ValueError, match=message):
        make(tmp_path)


def test_of_several_overlaps_of_a_frame_the_closest_is_named(tmp_path):
    write(
        tmp_path / "a.xyz", 0, change=at(7, x=lambda v: np.array([[0.0, 0, 0], [0.25, 0, 0], [0.35, 0, 0]]))
    )
    write(tmp_path / "b.xyz", 1)
    with pytest.raises(
        ValueError, match=r"a\.xyz, frame 7: atoms 1 and 2 are 0\.100 Å apart, wanted at least 0\.3 Å"
    ):
        make(tmp_path)


def test_atoms_that_have_drifted_many_cells_apart_are_wrapped_and_others_stored_as_given(tmp_path):
    def drift(v):
        return v["x"] + np.array([[0, 0, 0], [300, -2, 0], [0, 0, -500]]) @ OBLIQUE

    write(tmp_path / "a.xyz", 0, change=at(7, x=drift), extra=LATTICE)
    write(tmp_path / "b.xyz", 1, extra=LATTICE)
    moved = make(tmp_path)
    write(tmp_path / "a.xyz", 0, extra=LATTICE)
    plain = prepare(config(tmp_path), cache=tmp_path / "other")
    frame = slice(3 * 7, 3 * 8)
    others = np.setdiff1d(np.arange(len(plain.species)), np.arange(3 * 7, 3 * 8))
    assert np.array_equal(moved.positions[others], plain.positions[others])
    cells = (moved.positions[frame] - plain.positions[frame]) @ np.linalg.inv(OBLIQUE)
    assert np.allclose(cells, np.round(cells), atol=1e-8) and np.abs(moved.positions[frame]).max() < 20
    assert [len(s.neighbors(5.0).edges(np.array([7])).center) for s in (moved, plain)] == [6, 6]


def test_scattered_atoms_of_npz_files_are_wrapped_too(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        x, e, f = harmonic(seed, 30)
        x[7, 1] += 200 * OBLIQUE[0]
        np.savez(tmp_path / f"{name}.npz", R=x, z=np.array([8, 1, 1]), E=e, F=f, cell=OBLIQUE)
    store = make(tmp_path, train="a.npz", tests={"test": "b.npz"})
    assert np.abs(store.positions[3 * 7 : 3 * 8]).max() < 20
