"""Energies that the training data leave undetermined are warned of, or refused, and nothing else is."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from sapis_lab.calculator import SapisCalculator
from sapis_lab.config import ConfigError
from sapis_lab.models.geat import GeatConfig
from sapis_lab.potential import Potential, load_potential, save_potential
from sapis_lab.references import ReferencesFrom, UndeterminedEnergy

ETHANOL, METHANOL = [6, 2, 1], [4, 1, 1]
ELEMENTS = (1, 6, 8)


def record(*compositions, kind="ridge", elements=ELEMENTS):
    return ReferencesFrom.of_frames(np.array(compositions), elements, kind=kind)


def potential(made_from, species=ELEMENTS):
    model = GeatConfig(lmax=1, channels=8, heads=2, edge_hidden=12).build(
        species=species, mean_neighbors=8.0, seed=1
    )
    return Potential(
        model.requires_grad_(False), model.config, dict.fromkeys(species, -467.7), 8.0, {}, made_from
    )


def energy(p, atoms):
    atoms = atoms.copy()
    atoms.calc = SapisCalculator(p)
    return atoms.get_potential_energy()


def test_a_record_spans_the_training_compositions_with_few():
    # the last two are sums of the first
    frames = np.array([ETHANOL] * 50 + [METHANOL] * 3 + [[10, 3, 2]] * 9 + [[12, 4, 2]])
    assert record(*frames).compositions == ({1: 4, 6: 1, 8: 1}, {1: 6, 6: 2, 8: 1})


@pytest.mark.parametrize("seed", range(5))
def test_a_composition_is_determined_exactly_when_no_shift_of_references_that_training_allows_moves_it(seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 9, (3, 6)).repeat(4, axis=0) + 0
    made = record(*counts, elements=(1, 6, 7, 8, 16, 17))
    null = np.linalg.svd(counts.astype(float))[2][
        np.linalg.matrix_rank(counts) :
    ]  # shifts of references without effect in training
    for row in [*(rng.integers(0, 4, 12) @ counts for _ in range(20)), *rng.integers(0, 9, (20, 6))]:
        moved = np.abs(null @ row).max() > 1e-9
        assert made.determine({z: int(n) for z, n in zip((1, 6, 7, 8, 16, 17), row, strict=True) if n}) == (
            not moved
        )


def test_an_element_that_training_lacks_is_not_determined():
    assert not record(ETHANOL).determine({1: 6, 6: 2, 8: 1, 7: 1})


def test_a_composition_beyond_those_of_training_is_warned_of_once_each():
    p = potential(record(ETHANOL))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = energy(p, molecule("CH3CH2OH"))
        far = molecule("CH3CH2OH")
        far.translate([50, 0, 0])
        assert energy(p, molecule("CH3CH2OH") + far) == pytest.approx(2 * one, abs=1e-3)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UndeterminedEnergy)
        energy(p, molecule("CH4"))
        energy(p, molecule("H2O"))
        energy(p, molecule("CH4"))
    assert [str(w.message).split(" has ")[0] for w in told] == [
        "the energy of CH4",
        "the energy of H2O",
    ]  # once a composition
    assert "has an arbitrary offset: the reference energies were fitted on C2H6O and" in str(told[0].message)


def test_a_lone_atom_of_fitted_references_is_refused():
    for made_from, species in ((record(ETHANOL), ELEMENTS), (record([4], [32], elements=(29,)), (29,))):
        with pytest.raises(
            ValueError,
            match=r"a lone (H|Cu) atom: its energy, and atomisation energies with it, would have no meaning",
        ):
            energy(potential(made_from, species), Atoms([species[0]]))


def test_a_lone_atom_that_training_showed_and_atoms_with_images_are_evaluated():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        energy(potential(record(ETHANOL, [1, 0, 0])), Atoms("H"))
        energy(potential(record([32], elements=(29,)), (29,)), bulk("Cu"))


def test_a_lone_atom_of_isolated_references_is_warned_of_and_compositions_are_not():
    p = potential(record(ETHANOL, kind="isolated"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        energy(p, molecule("CH4"))
    with pytest.warns(
        UndeterminedEnergy,
        match="a lone H atom: training showed none, so its energy is not that of the isolated atom",
    ):
        energy(p, Atoms("H"))


def test_the_record_is_kept_with_the_potential_and_files_without_it_load_as_before(tmp_path):
    saved = potential(record(ETHANOL, METHANOL))
    save_potential(tmp_path, saved)
    assert load_potential(tmp_path).references_from == saved.references_from
    assert "- 1: 4\n    6: 1\n    8: 1\n" in (tmp_path / "model.yaml").read_text()
    save_potential(tmp_path / "old", replace(saved, references_from=None))
    assert "references_from" not in (tmp_path / "old" / "model.yaml").read_text()
    old = load_potential(tmp_path / "old")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert old.references_from is None and np.isfinite(energy(old, Atoms("H")))


def test_a_damaged_record_is_refused_by_file_and_field(tmp_path):
    save_potential(tmp_path, potential(record(ETHANOL)))
    text = (tmp_path / "model.yaml").read_text()
    without = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("checksum:"))
    (tmp_path / "model.yaml").write_text(without.replace("kind: ridge", "kind: guessed"))
    with pytest.raises(ConfigError, match=r"model\.yaml.*references_from.*kind: .*'ridge' or 'isolated'"):
        load_potential(tmp_path)
