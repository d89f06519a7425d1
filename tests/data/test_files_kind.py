"""The kind `files`: which frames belong to a data set, units in their usual spellings, compressed files, and
stores that are made in pieces."""

import bz2
import gzip
import lzma

import numpy as np
import pytest
from test_extxyz import harmonic, write

from sapis_lab import units
from sapis_lab.data import prepare
from sapis_lab.data._places import Places
from sapis_lab.data.extxyz import ExtxyzConfig
from sapis_lab.data.files import FilesConfig
from sapis_lab.errors import Notice
from sapis_lab.formats import Reading, format_of

ENDING = {gzip: "gz", lzma: "xz", bz2: "bz2"}


def config(root, **changes):
    given = {
        "train": "a.xyz",
        "n_validation": 5,
        "n_test": 5,
        "energy_unit": "eV",
        "length_unit": "Angstrom",
        "root": root,
    }
    return FilesConfig(**{**given, **changes})


def made(root, **changes):
    return prepare(config(root, **changes), cache=root / "stores")


def named(frame_of, n=40):
    """A change for `write` that gives frame k the text `frame_of(k)` in its comment line."""
    return lambda k, frame: {**frame, "properties": f"{frame['properties']} {frame_of(k)}"}


@pytest.mark.parametrize("module", [gzip, lzma, bz2])
def test_a_compressed_file_gives_the_same_frames(tmp_path, module):
    plain = write(tmp_path / "a.xyz")
    (tmp_path / f"a.xyz.{ENDING[module]}").write_bytes(module.compress(plain.read_bytes()))
    one, other = made(tmp_path), made(tmp_path, train=f"a.xyz.{ENDING[module]}")
    assert np.array_equal(one.positions, other.positions)
    assert np.array_equal(one.splits["train"], other.splits["train"])


@pytest.mark.parametrize("module", [gzip, lzma, bz2])
def test_a_compressed_file_that_ends_early_names_the_frame(tmp_path, module):
    data = module.compress(write(tmp_path / "a.xyz", n=400).read_bytes())
    (tmp_path / "b.xyz.gz").write_bytes(data[: len(data) * 2 // 3])
    (tmp_path / f"b.xyz.{ {gzip: 'gz', lzma: 'xz', bz2: 'bz2'}[module] }").write_bytes(
        data[: len(data) * 2 // 3]
    )
    name = f"b.xyz.{ {gzip: 'gz', lzma: 'xz', bz2: 'bz2'}[module] }"
    with pytest.raises(ValueError, match=rf"{name}, frame \d+: the (compressed )?file ends"):
        made(tmp_path, train=name)


def test_a_file_that_ends_within_a_number_is_refused(tmp_path):
    path = write(tmp_path / "a.xyz")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"a\.xyz, frame 39: the file ends within its last line"):
        made(tmp_path)


def test_a_file_without_a_line_break_at_its_end_is_whole(tmp_path):
    path = write(tmp_path / "a.xyz")
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert made(tmp_path).n_frames == 40


def test_frames_are_chosen_by_their_keys(tmp_path):
    write(
        tmp_path / "a.xyz", change=named(lambda k: f"config_type={'bulk' if k % 2 else 'slab'} run={k % 3}")
    )
    assert made(tmp_path, where={"config_type": "bulk"}).n_frames == 20
    assert made(tmp_path, where={"Config_Type": ["bulk", "slab"]}, without={"run": [0, "1"]}).n_frames == 13


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"where": {"config_type": "surface"}}, "where names config_type: surface, which no frame has"),
        ({"without": {"config_type": ["bulk", "bluk"]}}, "without names config_type: bluk, which"),
        ({"without": {"configtype": "bulk"}}, "without names configtype: bulk, which no frame has"),
        ({"where": {"run": 7}}, "where names run: 7, which no frame has|hold 0 frames"),
    ],
)
def test_a_rule_that_no_frame_meets_is_refused(tmp_path, rules, words):
    kinds = ["slab", "bulk"]
    write(tmp_path / "a.xyz", change=named(lambda k: f"config_type={kinds[k % 2]} run={k % 3}"))
    with pytest.raises(ValueError, match=rf"a\.xyz: {words}|hold 0 frames.*left out by where"):
        made(tmp_path, **rules)


@pytest.mark.parametrize("value", [True, "T", "true", "True"])
def test_true_and_numbers_are_met_in_any_spelling(tmp_path, value):
    write(tmp_path / "a.xyz", change=named(lambda k: f"flag={'FT'[k % 2]} run={k % 3}.0"))
    assert made(tmp_path, where={"flag": value}).n_frames == 20
    assert made(tmp_path, where={"run": [1, "2.00"]}).n_frames == 26


def test_a_byte_order_mark_is_no_part_of_the_number_of_atoms(tmp_path):
    path = write(tmp_path / "a.xyz")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert made(tmp_path).n_frames == 40


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    from sapis_lab.data import _file_conversion as module

    path, plain = write(tmp_path / "a.xyz"), module.append

    def append(*args):
        plain(*args)
        path.write_text(path.read_text().replace("1.2", "1.3", 1))

    with monkeypatch.context() as patched:
        patched.setattr(module, "append", append)
        with pytest.raises(ValueError, match=r"a\.xyz was changed while it was read; start again"):
            made(tmp_path)
    assert np.array_equal(made(tmp_path).positions, made(tmp_path).positions)


def test_plans_count_the_frames_that_the_keys_choose(tmp_path):
    write(tmp_path / "a.xyz", change=named(lambda k: f"config_type={'bulk' if k % 2 else 'slab'}"))
    assert config(tmp_path, where={"config_type": "bulk"}).info(cutoff=4.0).n_train == 10


ATOMS = (
    "1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=-3.25 config_type=IsolatedAtom\nH 0 0 0 0 0 0\n"
    "1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=-90.5 config_type=IsolatedAtom\nO 0 0 0 0 0 0\n"
)


def test_isolated_atoms_in_a_training_file_become_references_and_no_frames(tmp_path):
    path = write(tmp_path / "a.xyz", change=named(lambda k: "config_type=md"))
    path.write_text(ATOMS + path.read_text())
    store = made(tmp_path)
    assert store.isolated_atoms == {1: -3.25, 8: -90.5}
    assert store.n_frames == 40
    assert store.metadata["left_out"] == {"isolated_atoms": 2}
    assert config(tmp_path).info(cutoff=4.0).n_train == len(store.splits["train"]) == 30


def test_the_former_kind_keeps_isolated_atoms_as_frames(tmp_path):
    path = write(tmp_path / "a.xyz", change=named(lambda k: "config_type=md"))
    path.write_text(path.read_text() + ATOMS)
    given = {"train": "a.xyz", "n_validation": 5, "n_test": 5, "energy_unit": "eV", "length_unit": "Angstrom"}
    assert ExtxyzConfig(**given, root=tmp_path).info(cutoff=4.0).n_train == 32


def test_two_energies_of_one_isolated_atom_are_refused(tmp_path):
    path = write(tmp_path / "a.xyz", change=named(lambda k: "config_type=md"))
    path.write_text(ATOMS + ATOMS.replace("-3.25", "-3.5") + path.read_text())
    with pytest.raises(ValueError, match=r"frame 2: a second isolated H with another energy, -3.5 eV"):
        made(tmp_path)


def test_frames_with_a_large_force_are_left_out_and_counted(tmp_path):
    def torn(k, frame):
        return {**frame, "f": frame["f"] + [[300.0, 0, 0], [-300, 0, 0], [0, 0, 0]]} if k in (3, 8) else frame

    write(tmp_path / "a.xyz", change=torn)
    store = made(tmp_path, max_force=50.0)
    assert store.metadata["left_out"] == {"max_force": 2}
    named = np.concatenate(list(store.splits.values()))
    assert sorted(set(range(40)) - set(named.tolist())) == [3, 8]


def test_one_absurd_energy_does_not_decide_what_is_usual(tmp_path):
    def absurd(k, frame):
        return {**frame, "energy": -20_000.0} if k == 17 else frame

    write(tmp_path / "a.xyz", change=absurd)
    store = made(tmp_path, energy_window=5.0)
    named = np.concatenate(list(store.splits.values()))
    assert set(range(40)) - set(named.tolist()) == {17}


def test_levels_of_theory_are_not_mixed(tmp_path):
    write(tmp_path / "a.xyz", change=named(lambda k: f"head={'pbe' if k < 30 else 'r2scan'}"))
    with pytest.raises(ValueError, match=r"several levels of theory: head is pbe \(.*frame 0\), r2scan"):
        made(tmp_path)
    assert made(tmp_path, where={"head": "pbe"}).n_frames == 30
    assert made(tmp_path, where={"head": ["pbe", "r2scan"]}).n_frames == 40


@pytest.mark.parametrize(
    ("field", "text", "name"),
    [
        ("energy_unit", "ev", "eV"),
        ("energy_unit", "kcal/mole", "kcal/mol"),
        ("energy_unit", "Ha", "Hartree"),
        ("energy_unit", "hartree", "Hartree"),
        ("energy_unit", "kJ mol-1", "kJ/mol"),
        ("length_unit", "Å", "Angstrom"),
        ("length_unit", "a0", "Bohr"),
        ("stress_unit", "kB", "kbar"),
        ("stress_unit", "gpa", "GPa"),
        ("stress_unit", "eV/Å³", "eV/Angstrom^3"),
        ("stress_unit", "eV/A3", "eV/Angstrom^3"),
        ("force_unit", "Ha/bohr", "Hartree/Bohr"),
        ("dipole_unit", "debye", "Debye"),
    ],
)
def test_units_are_known_in_their_usual_spellings(tmp_path, field, text, name):
    assert getattr(config(tmp_path, **{field: text}), field) == name


def test_a_mega_unit_is_not_a_milli_unit():
    assert units.spelled("MeV", units.ENERGY) == "MeV"
    assert units.spelled("mev", units.ENERGY) == "meV"


def test_units_that_nobody_says_are_asked_for(tmp_path):
    write(tmp_path / "a.xyz")
    with pytest.raises(ValueError, match=r"a\.xyz: its format does not say its units: set energy_unit"):
        made(tmp_path, energy_unit=None)


CELL = np.diag([11.0, 12.0, 13.0])


def crystal(tmp_path, stress, name="a", **more):
    x, e, f = harmonic(0, 40)
    arrays = {"R": x + 5, "z": np.array([8, 1, 1]), "E": e, "F": f, "cell": CELL, "pbc": np.ones(3)}
    np.savez(tmp_path / f"{name}.npz", **arrays, s=stress, **more)


def test_a_stress_in_every_accepted_form_is_the_same_label(tmp_path):
    tension = np.array([[1.0, 0.4, 0.5], [0.4, 2.0, 0.6], [0.5, 0.6, 3.0]]) * 1e-3  # eV/Å³
    whole = np.broadcast_to(tension, (40, 3, 3))
    voigt = [[1.0, 2, 3, 0.6, 0.5, 0.4]] * 40
    vasp = [[1.0, 2, 3, 0.4, 0.6, 0.5]] * 40
    volume = 11.0 * 12 * 13
    forms = {
        "matrix": (whole, {"stress_key": "s"}),
        "nine": (whole.reshape(40, 9), {"stress_key": "s"}),
        "voigt": (1e-3 * np.array(voigt), {"stress_key": "s"}),
        "vasp": (1e-3 * np.array(vasp), {"stress_key": "s", "stress_order": "vasp"}),
        "GPa": (whole * units.EV_PER_A3_TO_GPA, {"stress_key": "s", "stress_unit": "GPa"}),
        "kB of VASP": (
            -1e-3 * np.array(vasp) * units.EV_PER_A3_TO_GPA * 10,
            {"stress_key": "s", "stress_order": "vasp", "stress_unit": "kB", "stress_is": "compression"},
        ),
        "virial": (-whole * volume, {"virial_key": "s"}),
    }
    for name, (numbers, settings) in forms.items():
        crystal(tmp_path, numbers)
        store = prepare(config(tmp_path, train="a.npz", **settings), cache=tmp_path / name)
        assert np.allclose(store.column("stress"), tension, rtol=1e-12), name


def test_npz_frames_of_several_sizes_and_with_symbols(tmp_path):
    x, e, f = harmonic(0, 40)
    smaller = np.arange(40) % 4 == 0
    z = np.array([["O", "H", "H"]] * 40)
    z[smaller, 2] = ""
    f[smaller] -= f[smaller].mean(1, keepdims=True)
    np.savez(tmp_path / "a.npz", R=x, z=z, E=e, F=f)
    sizes = np.where(smaller, 2, 3)
    store = made(tmp_path, train="a.npz")
    assert np.diff(store.offsets).tolist() == sizes.tolist()
    joined = z.ravel() != ""
    np.savez(
        tmp_path / "b.npz",
        R=x.reshape(-1, 3)[joined],
        z=np.where(z == "O", 8, 1).ravel()[joined],
        E=e,
        F=f.reshape(-1, 3)[joined],
        n_atoms=sizes,
    )
    other = made(tmp_path, train="b.npz")
    for name in ("species", "positions", "forces", "offsets"):
        assert np.array_equal(getattr(store, name), getattr(other, name)), name


def test_reading_goes_on_where_it_was_left(tmp_path):
    path = write(tmp_path / "a.xyz")
    x, e, f = harmonic(0, 40)
    np.savez(tmp_path / "a.npz", R=x, z=np.array([8, 1, 1]), E=e, F=f)
    for file in (path, tmp_path / "a.npz"):
        used = format_of(file)
        for wanted in (slice(None), slice(5, None, 3)):
            every = [n for b in used.blocks(file, Reading(wanted=wanted)) for n in b.numbers.tolist()]
            rest = [n for b in used.blocks(file, Reading(wanted=wanted, skip=4)) for n in b.numbers.tolist()]
            assert every == list(range(40))[wanted]
            assert rest == every[4:]
        assert used.count(file) == 40


def test_frames_of_other_keys_begin_a_block(tmp_path):
    path = write(tmp_path / "a.xyz", change=named(lambda k: "extra=1" if 10 <= k < 13 else ""))
    sizes = [len(block) for block in format_of(path).blocks(path)]
    assert sizes == [10, 3, 27]


def test_places_of_frames_are_runs():
    places = Places()
    numbers = {"a": [0, 1, 2, 5, 6, 9], "b": [0, 3, 6, 9, 10], "c": [7]}
    wanted = []
    for name, of in numbers.items():
        for part in np.split(np.array(of), [2]):
            places.add(name, part)
        wanted += [f"{name}, frame {k}" for k in of]
    assert [places(k) for k in range(len(places))] == wanted


def test_a_hundred_thousand_places_are_one_run():
    places = Places()
    for k in range(100):
        places.add("a", np.arange(1000 * k, 1000 * (k + 1)))
    assert len(places._runs) == 1
    assert places(99_999) == "a, frame 99999"


# ----------------------------------------------------------------------------------- groups, orders, resuming


@pytest.mark.parametrize(
    "setting", [{}, {"split_by": "molecule"}, {"split_by": {"by": "key", "key": "Molecule"}}]
)
def test_frames_of_one_molecule_stay_together(tmp_path, setting):
    write(tmp_path / "a.xyz", change=named(lambda k: f"molecule=m{k % 8}"))
    store = made(tmp_path, **setting)
    groups = [{k % 8 for k in ids.tolist()} for ids in store.splits.values()]
    assert [len(ids) for ids in store.splits.values()] == [30, 5, 5]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    assert config(tmp_path, **setting).info(cutoff=4.0).n_train == 30


def test_groups_that_cannot_be_held_out_are_told_and_frames_split_one_by_one(tmp_path):
    write(tmp_path / "a.xyz", change=named(lambda k: f"molecule=m{k // 14}"))
    with pytest.warns(Notice, match="frames that share molecule are in several splits"):
        assert len(made(tmp_path).splits["train"]) == 30
    with pytest.raises(ValueError, match="wanted|want at least|nearest"):
        made(tmp_path, split_by="molecule")


def test_a_key_to_split_by_that_is_not_there_is_refused(tmp_path):
    write(tmp_path / "a.xyz")
    with pytest.raises(ValueError, match=r"frame 0: no key 'molecule' to split by"):
        made(tmp_path, split_by="molecule")


def test_each_frame_for_itself_where_nothing_stays_together(tmp_path):
    write(tmp_path / "a.xyz", change=named(lambda k: f"molecule=m{k % 8}"))
    plain = made(tmp_path, split_by=None)
    write(tmp_path / "b.xyz")
    assert np.array_equal(plain.splits["train"], made(tmp_path, train="b.xyz").splits["train"])


def test_the_order_of_training_frames_is_that_of_the_setting(tmp_path):
    write(tmp_path / "a.xyz")
    plain = made(tmp_path)
    store = made(tmp_path, order={"kind": "stratified", "by": "energy", "n_strata": 2})
    assert sorted(store.splits["train"].tolist()) == sorted(plain.splits["train"].tolist())
    energy = store.energy[store.splits["train"]]
    assert (energy[:10] > np.median(energy)).sum() == 5


class Killed(Exception):
    pass


def killed_after(n, monkeypatch):
    """Conversions end at the n-th append from now on."""
    from sapis_lab.data import _file_conversion as module

    plain, count = module.append, iter(range(10**9))

    def append(*args):
        if next(count) == n:
            raise Killed
        plain(*args)

    monkeypatch.setattr(module, "append", append)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4])
def test_a_killed_conversion_goes_on_and_gives_the_same_store(tmp_path, monkeypatch, n):
    def comment(k):
        return f"config_type={'bulk' if k % 3 else 'slab'}"

    path = write(tmp_path / "a.xyz", change=named(comment))
    path.write_text(ATOMS + path.read_text())
    write(tmp_path / "t.xyz", 1, 20, change=named(comment))
    settings = {
        "n_test": 0,
        "tests": {"test": "t.xyz"},
        "without": {"config_type": "slab"},
        "max_force": 100.0,
    }
    whole = prepare(config(tmp_path, **settings), cache=tmp_path / "whole")
    monkeypatch.setattr("sapis_lab.data._file_conversion._APPEND_ATOMS", 30)
    monkeypatch.setattr("sapis_lab.formats._base.BLOCK_ATOMS", 12)
    with monkeypatch.context() as patched:
        killed_after(n, patched)
        with pytest.raises(Killed):
            made(tmp_path, **settings)
    again = made(tmp_path, **settings)
    for name in ("positions", "species", "energy", "forces", "offsets"):
        assert np.array_equal(getattr(whole, name), getattr(again, name)), name
    assert whole.metadata == again.metadata
    assert all(np.array_equal(whole.splits[k], again.splits[k]) for k in whole.splits)


def test_a_conversion_of_a_file_that_has_changed_begins_again(tmp_path, monkeypatch):
    write(tmp_path / "a.xyz")
    monkeypatch.setattr("sapis_lab.data._file_conversion._APPEND_ATOMS", 30)
    monkeypatch.setattr("sapis_lab.formats._base.BLOCK_ATOMS", 12)
    with monkeypatch.context() as patched:
        killed_after(3, patched)
        with pytest.raises(Killed):
            made(tmp_path)
    write(tmp_path / "a.xyz", 5)
    assert np.allclose(made(tmp_path).energy, harmonic(5, 40)[1])
