"""What the kind `files` does beyond one format: charges that nobody reads, labels that are missing, copies,
folders, units that follow from the format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sapis_lab import units
from sapis_lab.config import ConfigError, load
from sapis_lab.data import FrameStore, dataset_info, prepare, refuse_mixed_charges
from sapis_lab.data.extxyz import ExtxyzConfig
from sapis_lab.data.files import FilesConfig

REST = np.array([[0.0, 0, 0], [1.2, 0, 0], [-0.4, 1.0, 0]])


def springs(n: int, seed: int = 0) -> list[tuple[np.ndarray, float, np.ndarray]]:
    """(positions, energy, forces) of three atoms joined by springs of 10 eV/Å²."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        x = REST + 0.1 * generator.normal(size=(3, 3))
        energy, forces = -100.0, np.zeros((3, 3))
        for i, j in ((0, 1), (0, 2), (1, 2)):
            r = np.linalg.norm(x[j] - x[i])
            stretch = r - np.linalg.norm(REST[j] - REST[i])
            energy += 5 * stretch**2
            pull = 10 * stretch * (x[j] - x[i]) / r
            forces[i] += pull
            forces[j] -= pull
        found.append((x, float(energy), forces))
    return found


def write(path: Path, said: Any = lambda k: "", n: int = 30, unit: tuple[float, float] = (1.0, 1.0)) -> None:
    """An extended-XYZ file; `said(k)` stands in the comment line of frame k."""
    lines = []
    for k, (x, energy, f) in enumerate(springs(n)):
        lines += ["3", f"Properties=species:S:1:pos:R:3:forces:R:3 energy={energy / unit[0]!r} {said(k)}"]
        for symbol, a, b in zip("OHH", x / unit[1], f / unit[0] * unit[1], strict=True):
            lines.append(" ".join([symbol, *map(repr, [*a.tolist(), *b.tolist()])]))
    path.write_text("\n".join(lines) + "\n")


def config(root: Path, **changes: Any) -> FilesConfig:
    given = {"kind": "files", "train": "a.xyz", "n_validation": 4, "n_test": 4, "root": str(root)}
    given |= {"energy_unit": "eV", "length_unit": "Angstrom"}
    return load(FilesConfig, {**given, **changes}, source="test")


def made(root: Path, **changes: Any) -> FrameStore:
    return prepare(config(root, **changes), cache=root / "cache")


@pytest.mark.parametrize(
    ("key", "setting", "values", "stored"),
    [
        ("charge", "charge_key", (0, 1), "total_charge"),
        ("total_charge", "charge_key", ("0.0", "-1.0"), "total_charge"),
        ("Charge", "charge_key", (0, 1), "total_charge"),
        ("spin", "spin_key", (1, 3), "multiplicity"),
        ("multiplicity", "spin_key", (1, 2), "multiplicity"),
    ],
)
def test_frames_of_several_charges_that_nobody_reads_are_refused(
    tmp_path: Path, key: str, setting: str, values: tuple[Any, Any], stored: str
) -> None:
    write(tmp_path / "a.xyz", lambda k: f"{key}={values[k % 2]}")
    one, other = (f"{float(v):g}" for v in values)
    place = r"\(\S+a\.xyz, frame"
    message = (
        rf"frames of several charges or spins: {key} is {one} {place} 0\), {other} {place} 1\); choose one "
        rf"with where: \{{{key}: {one}\}}, or read it with {setting}: {key}"
    )
    with pytest.raises(ValueError, match=message):
        made(tmp_path)
    # read, chosen, or all the same: no objection
    found = made(tmp_path, **{setting: key}).label_column(stored)
    assert found.tolist() == [float(values[k % 2]) for k in range(30)]
    assert made(tmp_path, where={key: values[0]}).n_frames == 15
    write(tmp_path / "b.xyz", lambda k: f"{key}={values[0]}")
    assert made(tmp_path, train="b.xyz").n_frames == 30


def test_no_training_on_several_charges(tmp_path: Path) -> None:
    write(tmp_path / "a.xyz", lambda k: f"charge={k % 2}")
    mixed = made(tmp_path, charge_key="charge")
    with pytest.raises(
        ValueError, match=r"frames have the total charge 0, 1, and no model takes it as an input"
    ):
        refuse_mixed_charges(mixed)
    refuse_mixed_charges(made(tmp_path, charge_key="charge", where={"charge": 1}))
    refuse_mixed_charges(made(tmp_path, where={"charge": 1}))


def test_a_column_called_spin_or_charge_is_no_total_charge(tmp_path: Path) -> None:
    lines = (tmp_path / "a.xyz").write_text
    write(tmp_path / "b.xyz")
    text = (tmp_path / "b.xyz").read_text().replace("forces:R:3", "forces:R:3:charge:R:1")
    rows = [
        f"{row} 0.{k % 9}" if row[:1] in "OH" and " " in row else row
        for k, row in enumerate(text.split("\n"))
    ]
    lines("\n".join(rows))
    assert made(tmp_path).n_frames == 30


def test_energies_beside_free_energies_are_noted_with_their_difference(tmp_path: Path) -> None:
    write(tmp_path / "a.xyz", lambda k: f"free_energy={springs(30)[k][1] - 0.25 * (k == 7)}")
    (note,) = made(tmp_path).metadata["notes"]
    assert "differs by up to 0.25 eV a frame" in note and "energy_key: free_energy reads it" in note
    write(tmp_path / "b.xyz", lambda k: f"free_energy={springs(30)[k][1]!r}")
    assert "notes" not in made(tmp_path, train="b.xyz").metadata


def test_a_gradient_is_not_taken_for_forces(tmp_path: Path) -> None:
    for key in ("dft_total_gradient", "Gradient"):
        with pytest.raises(
            ConfigError, match=f"forces_key: {key} names a gradient.* set forces_are: gradient"
        ):
            config(tmp_path, forces_key=key)
        assert config(tmp_path, forces_key=key, forces_are="gradient")


def test_frames_that_lack_a_label_are_dropped_when_asked(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    x, energy, f = (np.array(part) for part in zip(*springs(30), strict=True))
    energy[[2, 5, 9]] = np.nan
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["water/species"], file["water/coordinates"] = [8, 1, 1], x
        file["water/ccsd.energy"], file["water/forces"] = energy, f
    settings = {"train": "a.h5", "energy_key": "ccsd.energy"}
    with pytest.raises(ValueError, match=r"a\.h5, frame 2: .*energy"):
        made(tmp_path, **settings)
    store = made(tmp_path, **settings, missing="drop")
    assert store.n_frames == 27 and store.metadata["left_out"] == {"missing_labels": 3}
    np.testing.assert_array_equal(store.energy, energy[np.isfinite(energy)])
    assert made(tmp_path, **settings, missing="mask").n_frames == 30
    with pytest.raises(ValueError, match=r"no key 'energy'; it has group, ccsd\.energy; set energy_key"):
        made(tmp_path, train="a.h5")


def test_copies_of_earlier_frames_are_dropped_when_asked(tmp_path: Path) -> None:
    write(tmp_path / "b.xyz", n=24)
    text = (tmp_path / "b.xyz").read_text()
    (tmp_path / "a.xyz").write_text(text + "".join(text.splitlines(keepends=True)[:20]))  # four frames again
    with pytest.raises(
        ValueError, match=r"frame \d and .*frame 2[4-7] .*same configuration.* or copies: drop"
    ):
        made(tmp_path)
    store = made(tmp_path, copies="drop")
    assert store.metadata["left_out"] == {"copies": 4}
    assert sorted(np.concatenate(list(store.splits.values())).tolist()) == list(range(24))


def test_units_follow_from_the_format_unless_the_settings_say_others(tmp_path: Path) -> None:
    frames = springs(30)
    lines = []
    for x, energy, f in frames:
        lines += ["begin", "comment x"]
        for symbol, a, b in zip(
            "OHH", x / units.BOHR_TO_ANGSTROM, f * units.BOHR_TO_ANGSTROM / units.HARTREE_TO_EV, strict=True
        ):
            lines.append(
                f"atom {' '.join(map(repr, a.tolist()))} {symbol} 0 0 {' '.join(map(repr, b.tolist()))}"
            )
        lines += [f"energy {energy / units.HARTREE_TO_EV!r}", "charge 0", "end"]
    (tmp_path / "input.data").write_text("\n".join(lines))
    store = made(tmp_path, train="input.data", energy_unit=None, length_unit=None)
    np.testing.assert_allclose(store.energy, [energy for _, energy, _ in frames])
    np.testing.assert_allclose(store.positions[:3], frames[0][0])
    np.testing.assert_allclose(store.forces[:3], frames[0][2], atol=1e-6)
    with pytest.raises(ValueError, match="the length unit would have to be Bohr, not Angstrom"):
        made(tmp_path, train="input.data", energy_unit="Hartree")


def test_a_trajectory_of_positions_becomes_a_store_without_labels(tmp_path: Path) -> None:
    mdtraj = pytest.importorskip("mdtraj")
    rows = [
        f"ATOM  {k + 1:5d}  {e:<3} MOL A   1    {0:8.3f}{0:8.3f}{k:8.3f}  1.00  0.00           {e}"
        for k, e in enumerate("OHH")
    ]
    for name in ("top.pdb", "other.pdb"):
        (tmp_path / name).write_text("\n".join(rows) + "\nEND\n")
    x = np.array([x for x, _, _ in springs(30)], np.float32)
    mdtraj.Trajectory(x / 10, mdtraj.load_topology(str(tmp_path / "top.pdb"))).save_trr(
        str(tmp_path / "a.trr")
    )
    alone = {
        "train": "a.trr",
        "energy_key": None,
        "forces_key": None,
        "energy_unit": None,
        "length_unit": None,
    }
    with pytest.raises(ValueError, match=r"got 2 there: other\.pdb, top\.pdb; set topology"):
        made(tmp_path, **alone)
    store = made(tmp_path, **alone, topology="top.pdb")
    assert store.n_frames == 30 and set(store.metadata["sources"]) == {"a.trr", "top.pdb"}
    np.testing.assert_allclose(store.positions, x.reshape(-1, 3), atol=1e-5)
    found = dataset_info(config(tmp_path, **alone, topology="top.pdb"), cutoff=4.0)
    assert found.labels == () and found.species == (1, 8)


def test_the_same_frames_in_every_format_make_the_same_store(tmp_path: Path) -> None:
    from sapis_lab.data import convert, from_file, target_format

    write(tmp_path / "a.xyz")
    wanted = made(tmp_path)
    ev = {"energy_unit": "eV", "length_unit": "Angstrom"}
    for name in ("b.db", "b.npz", "b.xyz.gz", "system"):
        target = tmp_path / name
        convert(
            from_file(tmp_path / "a.xyz", ev), target, target_format(target, None), progress=lambda *_: None
        )
        store = made(tmp_path, train=name)
        for part in ("energy", "positions", "forces", "species"):
            np.testing.assert_array_equal(getattr(store, part), getattr(wanted, part))
        assert store.splits["train"].tolist() == wanted.splits["train"].tolist()


def test_the_former_kind_reads_the_two_formats_that_it_read(tmp_path: Path) -> None:
    write(tmp_path / "a.log")
    given = {"kind": "extxyz", "n_validation": 4, "n_test": 4, "energy_unit": "eV", "length_unit": "Angstrom"}
    settings = {**given, "train": "a.log", "root": str(tmp_path)}
    with pytest.raises(
        ValueError, match=r"a\.log: is of the format ase_files by its name.* set kind: files, or"
    ):
        prepare(load(ExtxyzConfig, settings, source="test"), cache=tmp_path / "cache")
    named = load(ExtxyzConfig, {**settings, "format": "extxyz"}, source="test")
    assert prepare(named, cache=tmp_path / "cache").n_frames == 30


@pytest.mark.filterwarnings("ignore::sapis_lab.errors.Notice")  # of made-up labels
def test_isolated_atoms_may_be_of_another_format(tmp_path: Path) -> None:
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write as ase_write

    write(tmp_path / "a.xyz")
    atoms = [Atoms(symbol) for symbol in "HO"]
    for k, one in enumerate(atoms):
        one.calc = SinglePointCalculator(one, energy=(-13.5, -60.25)[k])
    ase_write(tmp_path / "atoms.traj", atoms)
    assert made(tmp_path, isolated_atoms="atoms.traj").isolated_atoms == {1: -13.5, 8: -60.25}
    ase_write(tmp_path / "more.traj", [atoms[0], Atoms("H2", positions=[[0, 0, 0], [0, 0, 1]])])
    with pytest.raises(ValueError, match=r"more\.traj, frame 1: 2 atoms, wanted one in every frame"):
        made(tmp_path, isolated_atoms="more.traj")
    with pytest.raises(
        ValueError, match=r"atoms\.traj: is in eV by its format ase_traj, and the energies of"
    ):
        made(tmp_path, isolated_atoms="atoms.traj", energy_unit="Hartree", max_force=None)
