"""Exported folders are whole, say what they hold, and hold the potential that was given."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import yaml
from export_cases import SIZES, atoms_of, near, run_script, small_potential, written

import sapis_lab
from sapis_lab import files
from sapis_lab.config import ConfigError, kind_class, kinds, load
from sapis_lab.errors import DiskError
from sapis_lab.exports import Export, Patch, card_of, export, patched, write_potential
from sapis_lab.exports.ase import AseExport
from sapis_lab.packages import versions
from sapis_lab.potential import Potential, load_potential, save_potential

TRACED = {"torch": {"program": "script"}, "metatomic": {}}  # which takes several seconds
FORMS = [
    pytest.param(form, marks=[pytest.mark.long] if form in TRACED else [])
    for form in kinds("exports")
    if form != "lammps"  # which takes other potentials, and has tests of its own
]


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Export:
    if request.param == "metatomic" and not versions(["metatomic-torch"]):
        pytest.skip("metatomic is not installed")
    return kind_class("exports", request.param)(**TRACED.get(request.param, {}))  # type: ignore[return-value]


# ------------------------------------------------------------------------------------------------- every form


def test_a_form_writes_what_it_says_and_a_card(potential: Potential, form: Export, tmp_path: Path) -> None:
    place = tmp_path / "deep" / "out"
    said = export(potential, form, place, card=card_of(potential, form))
    there = {path for path in place.rglob("*") if path.is_file()}
    assert there == set(said) and {place / "README.md", place / "card.yaml"} < there
    assert [p.name for p in place.parent.iterdir()] == ["out"]
    card = yaml.safe_load((place / "card.yaml").read_text())
    assert card["form"]["kind"] == form.kind and card["elements"] == ["Si", "Fe"]
    assert (place / "README.md").read_text().startswith("# small\n")


def test_a_form_that_fails_leaves_nothing(
    potential: Potential, form: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(files, "flush", full)
    with pytest.raises(DiskError, match="No space left on device; make room on that disk"):
        written(potential, form, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_place_that_is_taken_is_left_as_it_is(potential: Potential, form: Export, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="out: there is something of that name; name another folder"):
        written(potential, form, tmp_path / "out")
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "mine.txt"]


def test_an_empty_folder_is_filled(potential: Potential, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert (written(potential, AseExport(), tmp_path / "out") / "card.yaml").is_file()


def test_a_potential_without_energies_is_refused(form: Export, tmp_path: Path) -> None:
    potential = small_potential()
    potential.model.forgo_energy()
    with pytest.raises(ConfigError, match=rf"--to {form.kind}: the potential learnt .* and no energies"):
        written(potential, form, tmp_path / "out")
    assert not list(tmp_path.iterdir())


# -------------------------------------------------------------------------------------------------------- ASE


@pytest.mark.parametrize("periodic", [False, True], ids=["open", "periodic"])
@pytest.mark.parametrize("n", SIZES)
def test_the_calculator_of_an_export_has_our_numbers(
    potential: Potential, tmp_path: Path, n: int, periodic: bool
) -> None:
    place, atoms = written(potential, AseExport(), tmp_path / "out"), atoms_of(n, periodic=periodic)
    atoms.calc = sapis_lab.load_model(place)
    ours = potential.predict(atoms, stress=periodic)
    assert near(atoms.get_potential_energy(), ours.energy[0]) and near(atoms.get_forces(), ours.forces)
    if ours.stress is not None:
        assert near(atoms.get_stress(voigt=False), ours.stress[0])


def test_stress_in_ase_is_the_slope_of_the_energy(potential: Potential) -> None:
    from sapis_lab.calculator import SapisCalculator

    atoms = atoms_of(32, periodic=True)
    atoms.calc = SapisCalculator(potential)
    stress, h = atoms.get_stress(voigt=False), 1e-4
    ends = []
    for sign in (1, -1):
        strained = atoms.copy()
        strained.set_cell(atoms.cell @ (np.eye(3) + sign * h * np.diag([0, 1, 0])), scale_atoms=True)
        ends.append(potential.predict(strained).energy[0])
    assert stress[1, 1] == pytest.approx((ends[0] - ends[1]) / (2 * h) / atoms.get_volume(), rel=1e-2)


def test_the_script_prints_what_the_potential_predicts(potential: Potential, tmp_path: Path) -> None:
    place, atoms = written(potential, AseExport(), tmp_path / "out"), atoms_of(8, periodic=True)
    ase.io.write(tmp_path / "a.xyz", atoms)
    said = run_script(place / "calculator.py", str(tmp_path / "a.xyz"), cwd=tmp_path).stdout
    energy = potential.predict(ase.io.read(tmp_path / "a.xyz")).energy[0]
    assert near(float(said.split("energy, eV: ")[1].split()[0]), energy) and "stress" in said


# ------------------------------------------------------------------------------------------------------ cards


def test_a_card_says_what_is_not_known(potential: Potential, tmp_path: Path) -> None:
    place = written(potential, AseExport(), tmp_path / "out")
    card, text = yaml.safe_load((place / "card.yaml").read_text()), (place / "README.md").read_text()
    assert card["licence"] is None and card["level_of_theory"] is None and card["errors"] == {}
    assert "| licence of the data | not stated |" in text and "| level of theory | not stated |" in text


def test_a_card_of_a_public_set_has_level_licence_and_citation(tmp_path: Path) -> None:
    save_potential(tmp_path, potential := small_potential())
    data = {"kind": "rmd17", "molecule": "ethanol", "split": 1, "n_validation": 50}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"id": "p", "data": data}))
    card = card_of(potential, AseExport(), point=tmp_path, cache=tmp_path / "none")
    assert card["level_of_theory"] == "PBE/def2-SVP (ORCA)" and card["licence"] == "CC0 1.0"
    assert card["citation"][0].startswith("@article{christensen2020role")
    assert card["data"]["molecule"] == "ethanol" and "root" not in card["data"]


def test_a_card_of_a_damaged_point_says_where(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data: 3\n")
    with pytest.raises(ConfigError, match=r"config\.yaml: data: wanted settings with a kind, got 3"):
        card_of(small_potential(), AseExport(), point=tmp_path)


# ---------------------------------------------------------------------------------------------------- patches


def test_patched_references_move_energies_by_the_number_of_atoms_and_nothing_else(
    potential: Potential, tmp_path: Path
) -> None:
    save_potential(tmp_path / "a", potential)
    made = patched(load_potential(tmp_path / "a"), Patch(reference_energies={"Fe": -7.5}))
    write_potential(made, tmp_path / "b", like=tmp_path / "a")
    again, atoms = load_potential(tmp_path / "b"), atoms_of(32, periodic=True)
    before, after = (p.predict(atoms, stress=True) for p in (potential, again))
    n = int((atoms.numbers == 26).sum())
    assert after.energy[0] - before.energy[0] == pytest.approx(-2.5 * n)
    assert np.array_equal(after.forces, before.forces) and np.array_equal(after.stress, before.stress)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]
    assert again.origin["patches"][0]["what"] == "reference energy of Fe: -5.0 eV became -7.5 eV"
    assert again.origin["fingerprint"] == potential.origin["fingerprint"]


def test_patched_words_stand_in_the_card_with_what_was_changed(potential: Potential) -> None:
    made = patched(potential, Patch(licence="CC BY 4.0", notes="for tests"))
    made = patched(made, Patch(licence="CC0 1.0"))
    card = card_of(made, AseExport())
    assert card["licence"] == "CC0 1.0" and card["notes"] == "for tests"
    assert [p["what"] for p in card["patches"]] == [
        "licence: 'as of the data' became 'CC BY 4.0'",
        "notes: 'as of the data' became 'for tests'",
        "licence: 'CC BY 4.0' became 'CC0 1.0'",
    ]


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ({}, "nothing is changed; wanted KEY=VALUE"),
        ({"reference_energies": {"H": -13.6}}, r"reference_energies\.H: wanted one of the elements .*Si, Fe"),
        ({"reference_energies": {"Xx": 1.0}}, r"reference_energies\.Xx: wanted one of the elements"),
        ({"reference_energies": {"Fe": float("inf")}}, r"reference_energies.*"),
    ],
)
def test_a_patch_that_changes_nothing_known_is_refused(
    potential: Potential, patch: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        patched(potential, load(Patch, patch, source="patch"))
