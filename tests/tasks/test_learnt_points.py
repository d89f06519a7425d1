"""Points that learn stress, dipoles, charges and properties: what is recorded is what the potential on disk
predicts, and it beats the mean of the labels."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.stress import voigt_6_to_full_3x3_stress
from labelled_files import DYNAMICS, XYZ, make_point, write_chains, write_crystals

import sapis_lab
from sapis_lab.config import ConfigError
from sapis_lab.data import FrameStore, prepare
from sapis_lab.potential import Potential, Predictions, load_potential
from sapis_lab.records import Record, read_record
from sapis_lab.structures import Structure
from sapis_lab.training import PointConfig
from sapis_lab.training.run import run_point

GAP = [
    {"kind": "property", "name": "gap", "unit": "eV"},
    {"kind": "property", "name": "size", "unit": "Å"},
]
CHARGES = [{"kind": "dipole"}, {"kind": "charges"}]


class Finished(NamedTuple):
    """A point that was run."""

    folder: Path
    config: PointConfig
    store: FrameStore
    record: Record
    potential: Potential

    def structures(self, split: str = "test") -> list[Structure]:
        frames = self.store.frames(self.ids(split))
        ends = np.cumsum(frames.n_atoms)
        return [
            Structure(frames.species[e - n : e], frames.positions[e - n : e], frames.cell[k], frames.pbc[k])
            for k, (n, e) in enumerate(zip(frames.n_atoms, ends, strict=True))
        ]

    def labels(self, key: str, split: str = "test") -> np.ndarray:
        return self.store.frames(self.ids(split)).label(key).astype(np.float64)

    def ids(self, split: str) -> np.ndarray:
        """Frames of a split; of the training frames those that were learnt."""
        ids = np.asarray(self.store.splits[split])
        return ids[: self.config.n_frames] if split == "train" else ids


def finished(place: Path, data: dict[str, Any], **train: Any) -> Finished:
    config = make_point(place / "p", data, **train)
    run_point(place / "p", cache=place / "cache")
    store = prepare(config.data, cache=place / "cache")
    return Finished(place / "p", config, store, read_record(place / "p"), load_potential(place / "p"))


@pytest.fixture(scope="module")
def stress(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    place = tmp_path_factory.mktemp("stress")
    write_crystals(place / "argon.xyz")
    data = {**XYZ, "train": "argon.xyz", "stress_key": "stress", "root": str(place)}
    return finished(place, data, n_frames=20, targets=[{"kind": "stress", "weight": 10.0}], steps=300)


@pytest.fixture(scope="module")
def dipole(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    pytest.importorskip("tblite", reason="xTB labels need the extra [xtb]")
    return finished(tmp_path_factory.mktemp("dipole"), DYNAMICS, n_frames=24, targets=CHARGES)


@pytest.fixture(scope="module")
def gap(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    place = tmp_path_factory.mktemp("gap")
    write_chains(place / "chains.xyz")
    data = {**XYZ, "train": "chains.xyz", "energy_key": None, "forces_key": None, "root": str(place)}
    data |= {"properties": {"gap": {"unit": "eV"}, "size": {}}}
    heads = {"gap": {"kind": "scalar", "pool": "mean"}}
    return finished(place, data, n_frames=48, targets=GAP, heads=heads, task={"kind": "properties"})


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Crystals of which every third has no stress, and two have no energy and forces, test frames among
    them."""
    from ase.io import read, write

    place = tmp_path_factory.mktemp("masked")
    write_crystals(place / "argon.xyz")
    frames = read(place / "argon.xyz", ":")
    for k, atoms in enumerate(frames):
        if k % 3 == 0:
            del atoms.calc.results["stress"]
        if k in (5, 31):
            atoms.info["stress"] = voigt_6_to_full_3x3_stress(atoms.calc.results["stress"])
            atoms.calc = None
    write(place / "argon.xyz", frames, format="extxyz")
    data = {**XYZ, "train": "argon.xyz", "stress_key": "stress", "missing": "mask", "seed": None}
    targets = [{"kind": "stress", "weight": 10.0}]
    return finished(place, {**data, "root": str(place)}, n_frames=20, targets=targets, steps=300)


CASES = ["stress", "dipole", "gap", "masked"]


@pytest.fixture(params=CASES)
def point(request: pytest.FixtureRequest) -> Finished:
    found: Finished = request.getfixturevalue(request.param)
    return found


def predicted(found: Predictions, key: str) -> np.ndarray | None:
    return getattr(found, key) if key in ("energy", "forces", "stress") else found.properties[key]


def targets_of(point: Finished) -> list:
    return list(point.config.train.task.targets(point.config.train))


def test_the_record_has_every_error_of_every_split_and_nothing_else(point: Finished) -> None:
    splits = ("val", "test", "train")
    wanted = {f"{s}_{m.key}" for t in targets_of(point) for m in t.measures() for s in splits}
    assert set(point.record.metrics) == wanted | {"validation_rise"}
    train = point.config.train
    assert point.record.n_params == train.task.n_params(
        point.config.model, train, n_species=len(point.store.elements)
    )


@pytest.mark.parametrize("split", ["test", "train"])
def test_recorded_errors_are_those_of_the_potential_on_disk(point: Finished, split: str) -> None:
    periodic = bool(point.store.pbc.any())
    found = point.potential.predict(point.structures(split), stress=periodic)
    for target in targets_of(point):
        error = np.asarray(predicted(found, target.key)) - point.labels(target.key, split)
        error = error[~np.isnan(error.reshape(len(error), -1)).any(1)]
        name = target.measures()[0].key.removesuffix("_rmse")
        rmse, mae = (point.record.metrics[f"{split}_{name}_{m}"] for m in ("rmse", "mae"))
        assert np.sqrt(np.mean(error**2)) == pytest.approx(rmse, rel=1e-3)
        assert np.mean(np.abs(error)) == pytest.approx(mae, rel=1e-3)


def test_what_was_learnt_beats_the_mean_of_the_training_labels(point: Finished) -> None:
    for target in targets_of(point):
        if target.key in ("energy", "forces"):
            continue
        train, test = (point.labels(target.key, split) for split in ("train", "test"))
        mean = np.nanmean(train, axis=0)
        if target.key == "charges":  # those of its element, which is what a head starts from
            z = {s: point.store.frames(point.store.splits[s]).species for s in ("train", "test")}
            mean = np.array([train[z["train"] == k].mean() for k in z["test"]])
        baseline = np.sqrt(np.nanmean((test - mean) ** 2))
        name = target.measures()[0].key
        assert point.record.metrics[f"test_{name}"] < 0.7 * baseline, target.key


def test_many_structures_at_once_are_as_one_by_one(point: Finished) -> None:
    structures, periodic = point.structures(), bool(point.store.pbc.any())
    together = point.potential.predict(structures, stress=periodic)
    few = point.potential.predict(structures, stress=periodic, batch_pairs=1)
    for k, structure in enumerate(structures):
        alone = point.potential.predict(structure, stress=periodic)
        for target in targets_of(point):
            one = np.asarray(predicted(alone, target.key))
            for many in (together[k], few[k]):
                np.testing.assert_allclose(predicted(many, target.key), one, rtol=1e-4, atol=1e-5)
    assert together[0].per_atom == together.per_atom


def test_the_calculator_gives_what_the_potential_predicts(point: Finished) -> None:
    structure = point.structures()[0]
    atoms = Atoms(structure.species, structure.positions, cell=structure.cell, pbc=structure.pbc)
    atoms.calc = sapis_lab.load_model(point.folder)
    found = point.potential.predict(structure, stress=bool(np.any(structure.pbc)))
    for target in targets_of(point):
        wanted = np.asarray(predicted(found, target.key))
        wanted = wanted if target.per == "atom" else wanted[0]
        got = (
            atoms.get_stress(voigt=False)
            if target.key == "stress"
            else atoms.calc.get_property(target.key, atoms)
        )
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-9)
        assert np.shape(got) == wanted.shape


def test_ase_finds_dipoles_and_charges_under_their_names(dipole: Finished) -> None:
    structure = dipole.structures()[0]
    atoms = Atoms(structure.species, structure.positions, calculator=sapis_lab.load_model(dipole.folder))
    found = dipole.potential.predict(structure)
    np.testing.assert_allclose(atoms.get_dipole_moment(), found.properties["dipole"][0])
    np.testing.assert_allclose(atoms.get_charges(), found.properties["charges"])
    assert atoms.get_charges().shape == (3,) and found.per_atom == {"charges"}


def test_a_dipole_moment_is_for_open_frames_alone(dipole: Finished, stress: Finished, tmp_path: Path) -> None:
    """In a crystal it would change with the cell that an atom is put into."""
    one = dipole.structures()[0]
    boxed = Structure(one.species, one.positions, 12.0 * np.eye(3), np.ones(3, bool))
    found = dipole.potential.predict([one, boxed, one])
    assert np.isfinite(found.properties["dipole"][[0, 2]]).all()
    assert np.isnan(found.properties["dipole"][1]).all()
    np.testing.assert_allclose(found[1].properties["charges"], found[0].properties["charges"], atol=1e-5)
    write_crystals(tmp_path / "argon.xyz", moment=True)
    data = {**XYZ, "train": "argon.xyz", "dipole_key": "mu", "root": str(tmp_path)}
    make_point(tmp_path / "p", data, n_frames=20, steps=1, targets=[{"kind": "dipole"}])
    words = r"train\.heads\.dipole: kind 'charges' is for open frames, .* wanted another head"
    with pytest.raises(ValueError, match=words):
        run_point(tmp_path / "p", cache=tmp_path / "cache")
    heads = {"dipole": {"kind": "tensor"}}
    make_point(tmp_path / "q", data, n_frames=20, steps=1, targets=[{"kind": "dipole"}], heads=heads)
    run_point(tmp_path / "q", cache=tmp_path / "cache")


def test_a_potential_of_properties_alone_has_no_energies(gap: Finished) -> None:
    structure = gap.structures()[0]
    atoms = Atoms(structure.species, structure.positions, calculator=sapis_lab.load_model(gap.folder))
    assert set(atoms.calc.implemented_properties) == {"gap", "size"}
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_potential_energy()
    found = gap.potential.predict(structure)
    assert np.isnan(found.energy).all() and np.isnan(found.forces).all() and not found.per_atom
    with pytest.raises(
        ValueError, match="this potential learnt gap, size and no energies: no stress, no pairs"
    ):
        gap.potential.predict(structure, pairs=True)


def test_a_summed_property_of_two_distant_molecules_is_the_sum_and_a_mean_is_not(gap: Finished) -> None:
    one = gap.structures()[0]
    two = Structure(np.tile(one.species, 2), np.concatenate([one.positions, one.positions + 30.0]))
    single, double = gap.potential.predict(one).properties, gap.potential.predict(two).properties
    assert double["size"][0] == pytest.approx(2 * single["size"][0], rel=1e-5)
    assert double["gap"][0] == pytest.approx(single["gap"][0], rel=1e-5)


@pytest.mark.parametrize(("name", "pool"), [("count", "sum"), ("constant", "mean")])
def test_what_constants_explain_is_nothing_to_learn(name: str, pool: str, tmp_path: Path) -> None:
    """Its spread would be rounding, and the units of the loss with it."""
    write_chains(tmp_path / "chains.xyz")
    data = {**XYZ, "train": "chains.xyz", "energy_key": None, "forces_key": None, "root": str(tmp_path)}
    targets = [{"kind": "property", "name": name}]
    make_point(
        tmp_path / "p",
        {**data, "properties": {name: {}}},
        n_frames=48,
        targets=targets,
        heads={name: {"kind": "scalar", "pool": pool}},
        task={"kind": "properties"},
    )
    with pytest.raises(
        ValueError, match=f"all labels of {name} in the training frames are the same, or follow"
    ):
        run_point(tmp_path / "p", cache=tmp_path / "cache")


def changed(folder: Path, point: Finished, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of the potential whose description was edited."""
    shutil.copytree(point.folder, folder)
    raw = yaml.safe_load((folder / "model.yaml").read_text())
    del raw["checksum"]  # as whoever changes it on purpose does
    change(raw)
    (folder / "model.yaml").write_text(yaml.safe_dump(raw, allow_unicode=True))
    return folder


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no head": (lambda raw: raw["heads"]["dipole"].pop("head"), "heads.dipole.head: field required"),
    "an unknown kind of head": (
        lambda raw: raw["heads"]["dipole"]["head"].update(kind="charge"),
        "heads.dipole.head: no heads kind 'charge'; did you mean 'charges'",
    ),
    "an unknown kind of target": (
        lambda raw: raw["heads"]["dipole"]["target"].update(kind="dipoles"),
        "heads.dipole.target: no targets kind 'dipoles'; did you mean 'dipole'",
    ),
    "no mapping": (lambda raw: raw.update(heads=["dipole"]), "heads: input should be a valid dictionary"),
    "another width": (
        lambda raw: raw["heads"]["dipole"]["head"].update(hidden=9),
        "heads.to_dipole.network.inner.weight: wanted F32 [9, ",
    ),
    "a width beyond all": (
        lambda raw: raw["heads"]["dipole"]["head"].update(hidden=10**9),
        "heads.dipole.head.hidden: input should be less than or equal to 100000",
    ),
    "a head less": (lambda raw: raw["heads"].pop("charges"), "heads.to_charges"),
    "a head more": (
        lambda raw: raw["heads"].update(
            gap={"target": {"kind": "property", "name": "gap"}, "head": {"kind": "scalar"}}
        ),
        "heads.to_gap",
    ),
    "another name": (
        lambda raw: raw["heads"].update(moment=raw["heads"].pop("dipole")),
        "heads: 'moment' holds the target 'dipole'; wanted it under its own name",
    ),
    "a head that cannot predict it": (
        lambda raw: raw["heads"]["dipole"]["head"].update(kind="scalar"),
        "a scalar head predicts scalars, the target has rank 1",
    ),
    "a target of the energy": (
        lambda raw: raw["heads"].update(stress={"target": {"kind": "stress"}, "head": {"kind": "tensor"}}),
        "heads: stress comes from the energy and has no head",
    ),
    "nothing that it gives": (
        lambda raw: raw.update(heads={}, gives_energy=False),
        "gives_energy is false and there are no heads; wanted one of them",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_description_of_heads_is_refused_with_its_field(
    what: str, dipole: Finished, tmp_path: Path
) -> None:
    change, words = DAMAGE[what]
    folder = changed(tmp_path / "p", dipole, change)
    with pytest.raises(ConfigError) as error:
        load_potential(folder)
    assert words in str(error.value) and str(folder) in str(error.value)


def test_an_edited_description_of_heads_is_refused_by_its_checksum(dipole: Finished, tmp_path: Path) -> None:
    folder = shutil.copytree(dipole.folder, tmp_path / "p")
    text = (folder / "model.yaml").read_text()
    (folder / "model.yaml").write_text(text.replace("weight: 1.0", "weight: 2.0", 1))
    with pytest.raises(ConfigError, match=r"model\.yaml"):
        load_potential(folder)
