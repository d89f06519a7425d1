"""Conversion between formats: bit for bit where the format allows it, read back by ASE and dpdata as well,
and with units and signs turned once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sapis_lab import units
from sapis_lab.config import ConfigError
from sapis_lab.data import FrameStore, convert, from_file, from_store, is_sealed, target_format
from sapis_lab.formats import Block, Written

EV = {"energy_unit": "eV", "length_unit": "Angstrom"}
CRYSTALS = {**EV, "stress_key": "stress"}


def quiet(what: str, done: int, total: int) -> None:
    """Progress that nobody follows."""


def made(source: Path, target: Path, to: str | None = None, **settings: Any) -> Written:
    return convert(from_file(source, settings), target, target_format(target, to), progress=quiet)


def write_sample(path: Path, *, same: bool = False, n: int = 7) -> None:
    """Crystals with numbers that need all their digits, of two compositions; keys in ASE's names."""
    rng = np.random.default_rng(0)
    lines = []
    for k in range(n):
        symbols = ["O", "H", "H"] if same or k % 2 else ["C", "O"]
        cell = 6 * np.eye(3) + rng.normal(size=(3, 3)) / 7
        stress = rng.normal(size=(3, 3)) / 11
        stress = stress + stress.T
        told = " ".join(map(repr, cell.reshape(-1).tolist()))
        told_stress = " ".join(map(repr, stress.reshape(-1).tolist()))
        lines += [
            str(len(symbols)),
            f'Lattice="{told}" Properties=species:S:1:pos:R:3:forces:R:3:tags:I:1 pbc="T T T" '
            f"energy={rng.normal() / 3 - 100!r} "
            f'stress="{told_stress}" name=frame-{k} gap={rng.normal()!r}',
        ]
        for a, symbol in enumerate(symbols):
            numbers = [*rng.normal(size=3).tolist(), *rng.normal(size=3).tolist()]
            lines.append(" ".join([symbol, *map(repr, numbers), str(a)]))
    path.write_text("\n".join(lines) + "\n")


def frames(path: Path, **settings: Any) -> list[dict[str, Any]]:
    """Every frame of a file in eV and Å, as plain values."""
    found = []
    for block in from_file(path, settings).blocks:
        found += list(split(block))
    return found


def split(block: Block) -> Iterator[dict[str, Any]]:
    ends = np.cumsum(block.n_atoms)
    for k in range(len(block)):
        rows = slice(int(ends[k] - block.n_atoms[k]), int(ends[k]))
        one = {"z": block.species[rows].tolist(), "x": block.positions[rows], "cell": block.cell[k]}
        one |= {key: value[k] for key, value in block.frame_labels.items()}
        yield one | {key: value[rows] for key, value in block.atom_labels.items()}


def assert_equal(
    found: list[dict[str, Any]], wanted: list[dict[str, Any]], *, but: tuple[str, ...] = ()
) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        for key in set(other) - set(but):
            np.testing.assert_array_equal(np.asarray(one[key]), np.asarray(other[key]), err_msg=key)


SETTINGS: dict[str, dict[str, Any]] = {
    "b.xyz": CRYSTALS,
    "b.extxyz.xz": CRYSTALS,
    "b.npz": CRYSTALS,
    "b.db": {},
    "b.aselmdb": {},
}


@pytest.mark.parametrize("target", SETTINGS)
@pytest.mark.parametrize("same", [False, True])
def test_frames_come_back_bit_for_bit(tmp_path: Path, target: str, same: bool) -> None:
    if target.endswith("aselmdb"):
        pytest.importorskip("ase_db_backends")
    write_sample(tmp_path / "a.xyz", same=same)
    wanted = frames(tmp_path / "a.xyz", **CRYSTALS)
    assert {"energy", "forces", "stress", "tags", "gap", "name"} <= set(wanted[0])
    assert made(tmp_path / "a.xyz", tmp_path / target, **CRYSTALS).n_frames == 7
    assert_equal(frames(tmp_path / target, **SETTINGS[target]), wanted)
    # and once more into the format they came from
    made(tmp_path / target, tmp_path / "c.xyz", **SETTINGS[target])
    assert_equal(frames(tmp_path / "c.xyz", **CRYSTALS), wanted)
    assert not list(tmp_path.glob(".*")), "temporary files stay behind"


def test_systems_of_deepmd_keep_all_but_text_and_the_last_bit_of_stress(tmp_path: Path) -> None:
    write_sample(tmp_path / "a.xyz")
    wanted = frames(tmp_path / "a.xyz", **CRYSTALS)
    done = made(tmp_path / "a.xyz", tmp_path / "systems", **CRYSTALS)
    assert done.notes == ("text is left out, which DeePMD has no place for: name",)
    assert sorted(f.name for f in (tmp_path / "systems").iterdir()) == ["C1O1", "H2O1"]
    order = [0, 2, 4, 6, 1, 3, 5]  # system after system
    found = frames(tmp_path / "systems")
    assert_equal(found, [wanted[k] for k in order], but=("name", "stress", "tags", "gap"))
    for one, k in zip(found, order, strict=True):
        np.testing.assert_allclose(one["stress"], wanted[k]["stress"], rtol=1e-14)
        assert one["gap"] == wanted[k]["gap"]
    # a single composition is one system
    write_sample(tmp_path / "b.xyz", same=True)
    made(tmp_path / "b.xyz", tmp_path / "one", **CRYSTALS)
    assert (tmp_path / "one/type.raw").is_file() and (tmp_path / "one/set.000/virial.npy").is_file()


def test_ase_reads_what_is_written(tmp_path: Path) -> None:
    from ase.db import connect
    from ase.io import iread

    write_sample(tmp_path / "a.xyz")
    wanted = frames(tmp_path / "a.xyz", **CRYSTALS)
    made(tmp_path / "a.xyz", tmp_path / "b.db", **CRYSTALS)
    made(tmp_path / "a.xyz", tmp_path / "b.xyz", **CRYSTALS)
    rows = [row.toatoms() for row in connect(tmp_path / "b.db", use_lock_file=False).select()]
    for found in (rows, list(iread(tmp_path / "b.xyz", ":"))):
        assert len(found) == 7
        for atoms, one in zip(found, wanted, strict=True):
            assert atoms.get_potential_energy() == one["energy"]
            np.testing.assert_array_equal(atoms.get_forces(), one["forces"])
            np.testing.assert_array_equal(atoms.positions, one["x"])
            np.testing.assert_array_equal(atoms.cell.array, one["cell"])
            np.testing.assert_array_equal(atoms.get_stress(voigt=False), one["stress"])
            assert atoms.get_tags().tolist() == one["tags"].tolist() and atoms.pbc.all()


def test_dpdata_reads_the_systems_and_writes_what_is_read(tmp_path: Path) -> None:
    dpdata = pytest.importorskip("dpdata")
    write_sample(tmp_path / "a.xyz", same=True)
    wanted = frames(tmp_path / "a.xyz", **CRYSTALS)
    made(tmp_path / "a.xyz", tmp_path / "system", **CRYSTALS)
    system = dpdata.LabeledSystem(str(tmp_path / "system"), fmt="deepmd/npy")
    assert system.data["atom_names"] == ["O", "H"] and system.data["atom_types"].tolist() == [0, 1, 1]
    for k, one in enumerate(wanted):
        assert system.data["energies"][k] == one["energy"]
        np.testing.assert_array_equal(system.data["coords"][k], one["x"])
        np.testing.assert_array_equal(system.data["forces"][k], one["forces"])
        # a positive virial is pressure times volume
        volume = abs(np.linalg.det(one["cell"]))
        np.testing.assert_allclose(system.data["virials"][k], -volume * one["stress"], rtol=1e-12)
    system.to("deepmd/npy", str(tmp_path / "again"), set_size=3, prec=np.float64)
    assert_equal(
        frames(tmp_path / "again"), frames(tmp_path / "system"), but=("system", "gap", "tags", "stress")
    )


def test_units_and_signs_become_those_of_the_target(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text(
        '1\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3:gradient:R:3 E=-2.0 '
        'p="10 20 30 40 50 60"\nHe 0.0 0.0 1.0 0.0 0.0 0.5\n'
    )
    settings = {
        "energy_unit": "Hartree",
        "length_unit": "Bohr",
        "energy_key": "E",
        "forces_key": "gradient",
        "forces_are": "gradient",
        "stress_key": "p",
        "stress_unit": "kbar",
        "stress_is": "compression",
        "stress_order": "vasp",
    }
    made(tmp_path / "a.xyz", tmp_path / "b.db", **settings)
    (one,) = frames(tmp_path / "b.db")
    np.testing.assert_allclose(one["energy"], -2 * 27.211386245988)
    np.testing.assert_allclose(one["x"], [[0, 0, 0.529177210903]])
    np.testing.assert_allclose(one["forces"], [[0, 0, -0.5 * 27.211386245988 / 0.529177210903]])
    # VASP's order xx yy zz xy yz zx, 1 kbar = 0.1 GPa, and pressure is minus tension
    kbar = -0.1 / units.EV_PER_A3_TO_GPA
    np.testing.assert_allclose(one["stress"], kbar * np.array([[10, 40, 60], [40, 20, 50], [60, 50, 30]]))


def test_labels_that_some_frames_lack_are_left_out_there(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text(
        "1\nenergy=-1.0\nH 0 0 0\n1\nq=2.0\nH 0 0 1\n1\nenergy=-3.0 q=4.0\nH 0 0 2\n"
    )
    for target in ("b.xyz", "b.npz", "b.db"):
        made(tmp_path / "a.xyz", tmp_path / target, **EV)
        found = frames(tmp_path / target, **({} if target == "b.db" else EV))
        assert [float(one.get("energy", np.nan)) for one in found[::2]] == [-1.0, -3.0]
        assert np.isnan(found[1].get("energy", np.nan)) and "forces" not in found[0]
    with pytest.raises(ValueError, match="frame 1: some frames of H1 have energy, q and others not"):
        made(tmp_path / "a.xyz", tmp_path / "d", **EV)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a.xyz", "b.db", "b.npz", "b.xyz"]


def test_a_label_of_unknown_unit_is_left_out_and_named(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text('1\nenergy=-1 dipole="0 0 1" free_energy=-2 gap=3\nH 0 0 0\n')
    source = from_file(tmp_path / "a.xyz", EV)
    convert(source, tmp_path / "b.xyz", "extxyz", progress=quiet)
    assert any("dipole is left out, because its unit is not known; set dipole_key" in n for n in source.notes)
    assert any("free_energy is left out" in n for n in source.notes)
    assert "gap=3" in (tmp_path / "b.xyz").read_text() and "dipole" not in (tmp_path / "b.xyz").read_text()


def test_a_store_and_its_splits_survive_a_detour(tmp_path: Path) -> None:
    from sapis_lab.data import prepare
    from sapis_lab.data.files import FilesConfig

    write_sample(tmp_path / "a.xyz", same=True, n=30)
    config = FilesConfig(
        train="a.xyz", n_validation=4, n_test=6, root=tmp_path, energy_unit="eV", length_unit="Angstrom"
    )
    # the numbers are drawn: forces do not follow from energies
    from sapis_lab.data import files as kind

    monkey = pytest.MonkeyPatch()
    monkey.setattr(kind, "check_store", lambda *a, **k: None)
    store = prepare(config, cache=tmp_path / "cache")
    monkey.undo()
    for name in ("b.xyz", "b.db", "b.npz"):
        convert(from_store(store), tmp_path / name, target_format(tmp_path / name, None), progress=quiet)
        settings = {} if name == "b.db" else EV
        back = tmp_path / f"store-{name}"
        convert(from_file(tmp_path / name, settings), back, "store", progress=quiet)
        assert is_sealed(back)
        again = FrameStore.open(back)
        assert {k: v.tolist() for k, v in again.splits.items()} == {
            k: v.tolist() for k, v in store.splits.items()
        }
        np.testing.assert_array_equal(again.positions, store.positions)
        np.testing.assert_array_equal(again.energy, store.energy)
        np.testing.assert_array_equal(again.forces, store.forces)
    found = list(from_store(store, split="test").blocks)
    assert sum(map(len, found)) == 6
    assert found[0].frame_labels["energy"].tolist() == store.energy[store.splits["test"]].tolist()
    with pytest.raises(ValueError, match="has no split 'x'; it has train, validation, test"):
        from_store(store, split="x")


def test_a_target_is_whole_or_absent(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text("1\nenergy=-1.0\nH 0 0 0\n1\nenergy=-1.0\nH 0 0\n")
    for target in ("b.db", "b.npz", "d"):
        with pytest.raises(ValueError, match=r"a\.xyz, frame 1: atom 0 has 3 columns"):
            made(tmp_path / "a.xyz", tmp_path / target, **EV)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a.xyz"]
    with pytest.raises(
        ValueError, match=r"c\.json: an ASE database is written as \.db or \.aselmdb, got \.json"
    ):
        made(tmp_path / "a.xyz", tmp_path / "c.json", "ase_db", **EV)
    (tmp_path / "d").mkdir()
    (tmp_path / "b.db").write_text("what was there")
    for target in ("d", "b.db", "a.xyz"):  # a file is not converted onto itself either
        with pytest.raises(ConfigError, match=f"{target}: is there already; remove it"):
            made(tmp_path / "a.xyz", tmp_path / target, **EV)
    assert (tmp_path / "b.db").read_text() == "what was there"


def test_targets_say_their_format_or_are_told_it(tmp_path: Path) -> None:
    wanted = {"a.xyz": "extxyz", "a.xyz.gz": "extxyz", "a.npz": "npz", "a.db": "ase_db", "a": "deepmd"}
    assert {name: target_format(tmp_path / name, None) for name in wanted} == wanted
    assert target_format(tmp_path / "a.dat", "store") == "store"
    for name, to, message in (
        (
            "a.dat",
            None,
            "its ending does not say a format; give --to one of ase_db, deepmd, extxyz, npz, store",
        ),
        ("a.traj", None, "the format ase_traj is read and not written"),
        ("a.xyz", "hdf5", "--to hdf5: wanted one of"),
        ("a.json", None, "may be of the formats"),
    ):
        with pytest.raises(ConfigError, match=message):
            target_format(tmp_path / name, to)


def test_whole_numbers_stay_whole_and_what_keeps_its_unit_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text(
        "1\nenergy=-1.0 step=7 old=0.5\nH 0 0 0\n1\nenergy=-2.0 step=8 old=1\nH 0 0 0\n"
    )
    source = from_file(
        tmp_path / "a.xyz", {"energy_unit": "Hartree", "length_unit": "Angstrom", "forces_key": None}
    )
    (block,) = list(source.blocks)
    assert block.frame_labels["step"].dtype.kind == "i" and block.frame_labels["step"].tolist() == [7, 8]
    assert block.frame_labels["old"].tolist() == [0.5, 1.0]
    assert source.notes == ["kept as they stand, in the units of the file: old"]
    assert list(from_file(tmp_path / "a.xyz", {**EV, "forces_key": None}).blocks)
    plain = from_file(tmp_path / "a.xyz", {**EV, "forces_key": None})
    assert list(plain.blocks) and plain.notes == []


def test_the_command_converts_and_says_what_it_left_out(tmp_path: Path) -> None:
    write_sample(tmp_path / "a.xyz")
    word = [sys.executable, "-m", "sapis_lab.cli", "data", "convert"]

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*word, *words], capture_output=True, text=True, cwd=tmp_path, timeout=120)

    sets = [w for key, value in CRYSTALS.items() for w in ("--set", f"{key}={value}")]
    done = run("a.xyz", "b", *sets)
    assert done.returncode == 0, done.stderr
    assert "b: 7 frames in the format deepmd" in done.stdout and "note: text is left out" in done.stdout
    for words, message in (
        (("a.xyz", "c.db"), "a.xyz: its format does not say its units: set energy_unit"),
        (("nothing", "c.db"), "nothing: no such file or folder in "),
        (("a.xyz", "c.db", "--set", "energy_units=eV"), "energy_unit"),
        (("a.xyz", "c.db", "--split", "test"), "a file has no splits"),
    ):
        failed = run(*words)
        assert failed.returncode and failed.stderr.count("\n") == 1, failed.stderr
        assert message in failed.stderr
    assert not (tmp_path / "c.db").exists()
    shutil.rmtree(tmp_path / "b")
