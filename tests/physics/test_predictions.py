"""Predictions of many structures at once: those of each alone, with forces and stress that follow from the
pairs, in the layout of every model."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from sapis_lab.calculator import SapisCalculator
from sapis_lab.config import kind_class, kinds
from sapis_lab.potential import Potential, Predictions, save_potential
from sapis_lab.references import ReferencesFrom, UndeterminedEnergy
from sapis_lab.selftest import SPECIES, build
from sapis_lab.structures import Structure

REPOSITORY = Path(__file__).resolve().parents[2]
REFERENCES = {1: -13.6, 6: -1030.0, 8: -2040.0}


def made(kind: str, dtype: torch.dtype = torch.float64, made_from: ReferencesFrom | None = None) -> Potential:
    config = kind_class("models", kind)(cutoff=3.0).at_size(4e3, n_species=3)
    model = build(config, dtype=dtype, seed=0)
    return Potential(model.requires_grad_(False), config, REFERENCES, 8.0, {"id": "test"}, made_from)


def rattled(atoms: Atoms, seed: int) -> Atoms:
    atoms.rattle(0.1, seed=seed)
    return atoms


MOLECULES = [rattled(molecule(name), k) for k, name in enumerate(("CH3CH2OH", "H2O", "C6H6"))]
LINE = Atoms("C12", [[1.4 * k, 0.3 * (k % 2), 0.0] for k in range(12)])
"""Most of its pairs are beyond the cutoff: where pairs have slots, it has a table."""


def crystal(seed: int) -> Atoms:
    """Atoms of an oblique cell that is smaller than the cutoff, anywhere along the lattice vectors."""
    rng = np.random.default_rng(seed)
    atoms = rattled(bulk("C", "diamond", a=4.4).repeat((2, 1, 1)), seed)
    atoms.numbers = rng.choice(SPECIES, len(atoms))
    atoms.positions += rng.integers(-3, 4, (len(atoms), 3)) @ atoms.cell.array
    return atoms


def slab() -> Atoms:
    atoms = crystal(5)
    atoms.pbc = (True, False, True)
    return atoms


SETS = {
    "one molecule": MOLECULES[:1],
    "molecules": MOLECULES,
    "a line": [LINE, MOLECULES[0]],
    "crystals": [crystal(0), crystal(1)],
    "a molecule beside crystals": [crystal(2), MOLECULES[1], crystal(3), slab()],
}


@pytest.fixture(scope="module", params=kinds("models"))
def potential(request: pytest.FixtureRequest) -> Potential:
    return made(request.param)


def recomputed(found: Predictions, structures: list[Atoms]) -> tuple[np.ndarray, np.ndarray]:
    """Forces, and strain derivatives of every structure, from the pairs, by their definition."""
    pairs = found.pairs
    assert pairs is not None
    forces = np.zeros((int(found.n_atoms.sum()), 3))
    np.add.at(forces, pairs.center, pairs.gradient)
    np.add.at(forces, pairs.neighbor, -pairs.gradient)
    x, frame = np.concatenate([s.positions for s in structures]), np.repeat(range(len(found)), found.n_atoms)
    cell = np.stack([s.cell.array for s in structures])[frame[pairs.center]]
    v = x[pairs.neighbor] + np.einsum("ek,ekl->el", pairs.shift, cell) - x[pairs.center]
    assert (np.linalg.norm(v, axis=1) < 3.0).all()
    virial = np.zeros((len(found), 3, 3))
    np.add.at(virial, frame[pairs.center], v[:, :, None] * pairs.gradient[:, None, :])
    return forces, 0.5 * (virial + virial.transpose(0, 2, 1))


@pytest.mark.parametrize("name", SETS)
def test_forces_and_stress_follow_from_the_pairs(potential: Potential, name: str) -> None:
    structures = SETS[name]
    periodic = all(s.cell.rank == 3 for s in structures)
    found = potential.predict(structures, pairs=True, stress=periodic)
    forces, virial = recomputed(found, structures)
    assert np.abs(found.forces).max() > 0.1, "nothing to compare"
    np.testing.assert_allclose(forces, found.forces, rtol=0, atol=1e-11)
    if periodic:
        volume = np.array([s.get_volume() for s in structures])[:, None, None]
        np.testing.assert_allclose(virial / volume, found.stress, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", SETS)
def test_the_pairs_are_the_neighbour_list_of_the_positions_as_given(potential: Potential, name: str) -> None:
    from ase.neighborlist import primitive_neighbor_list

    found = potential.predict(SETS[name], pairs=True)
    for k, s in enumerate(SETS[name]):
        pairs = found[k].pairs
        assert pairs is not None
        rows = np.column_stack([pairs.center, pairs.neighbor, pairs.shift]).tolist()
        i, j, shift = primitive_neighbor_list("ijS", s.pbc, s.cell.array, s.positions, 3.0)
        assert sorted(rows) == sorted(np.column_stack([i, j, shift]).tolist())
        assert rows == sorted(rows, key=lambda row: row[0]), "sorted by centre"


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("batch_pairs", [1, 200, 10**6])
def test_many_structures_are_each_as_it_is_alone(potential: Potential, name: str, batch_pairs: int) -> None:
    structures = SETS[name]
    together = potential.predict(structures, pairs=True, batch_pairs=batch_pairs)
    assert len(together) == len(structures)
    for part, atoms in zip(together, structures, strict=True):
        alone = potential.predict(atoms, pairs=True)
        assert alone.pairs is not None and part.pairs is not None
        np.testing.assert_allclose(part.energy, alone.energy, rtol=0, atol=1e-9)
        np.testing.assert_allclose(part.forces, alone.forces, rtol=0, atol=1e-11)
        np.testing.assert_allclose(part.atomic_energies, alone.atomic_energies, rtol=0, atol=1e-10)
        for key in ("center", "neighbor", "shift"):
            np.testing.assert_array_equal(getattr(part.pairs, key), getattr(alone.pairs, key))
        np.testing.assert_allclose(part.pairs.gradient, alone.pairs.gradient, rtol=0, atol=1e-11)


def test_energies_of_the_atoms_add_up_and_hold_the_reference_energies(potential: Potential) -> None:
    found = potential.predict(MOLECULES)
    for part, atoms in zip(found, MOLECULES, strict=True):
        assert part.atomic_energies.sum() == pytest.approx(part.energy[0], abs=1e-9)
        interaction = part.atomic_energies - [REFERENCES[z] for z in atoms.numbers]
        assert np.abs(interaction).max() < 100  # references differ by a thousand eV
        atoms = atoms.copy()
        atoms.calc = SapisCalculator(potential)
        np.testing.assert_array_equal(
            atoms.get_potential_energies(), potential.predict(atoms).atomic_energies
        )


def test_an_energy_of_an_atom_depends_on_nothing_beyond_its_molecule(potential: Potential) -> None:
    far = MOLECULES[1].copy()
    far.translate([40.0, 0, 0])
    both = potential.predict(MOLECULES[0] + far).atomic_energies
    alone = np.concatenate([potential.predict(m).atomic_energies for m in MOLECULES[:2]])
    np.testing.assert_allclose(both, alone, rtol=0, atol=1e-9)


def test_memory_is_bounded_by_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    import sapis_lab.potential as module

    sizes: list[int] = []
    compute = module.predict_in_double

    def noted(model, batch, **options):
        sizes.append(batch.graph.n_pairs)
        return compute(model, batch, **options)

    monkeypatch.setattr(module, "predict_in_double", noted)
    made("geat").predict([MOLECULES[0]] * 20 + [crystal(0).repeat(3)], batch_pairs=300)
    assert len(sizes) > 4 and max(sizes[:-1]) <= 300 < sizes[-1]


def test_plain_arrays_are_a_structure_too() -> None:
    potential = made("geat")
    a, b = MOLECULES[0], crystal(0)
    plain = [Structure(a.numbers, a.positions), Structure(b.numbers, b.positions, b.cell.array, b.pbc)]
    np.testing.assert_array_equal(potential.predict(plain).forces, potential.predict([a, b]).forces)
    np.testing.assert_array_equal(
        potential.predict(plain[1], stress=True).stress[0],
        potential.evaluate(
            species=b.numbers, positions=b.positions, cell=b.cell.array, pbc=b.pbc, stress=True
        )[2],
    )


def test_what_is_wrong_names_the_structure_among_several() -> None:
    potential = made("geat")
    near = Atoms("HH", [[0, 0, 0], [0, 0, 0.1]])
    for bad, why in (
        (near, r"atoms 0 and 1 are 0\.100 Å apart, wanted at least 0\.3 Å"),
        (Atoms("N2", [[0, 0, 0], [0, 0, 1.1]]), r"knows the elements \[1, 6, 8\], got atomic numbers \[7\]"),
        (Atoms(), "a structure needs at least one atom, got none"),
        (Structure(np.array([1]), np.full((1, 3), np.nan)), "positions of atom 0 are not finite"),
        (Structure(np.array([1, 1]), np.zeros((1, 3))), r"positions have shape \(1, 3\), wanted \(2, 3\)"),
    ):
        with pytest.raises(ValueError, match="structure 1: .*" + why):
            potential.predict([MOLECULES[0], bad])
        with pytest.raises(ValueError, match="^(?!structure).*" + why):
            potential.predict(bad)
    with pytest.raises(ValueError, match="at least one structure"):
        potential.predict([])
    with pytest.raises(ValueError, match="stress needs a cell"):
        potential.predict([crystal(0), MOLECULES[0]], stress=True)


def test_energies_without_a_meaning_are_warned_of_once_a_composition_and_lone_atoms_refused() -> None:
    made_from = ReferencesFrom.of_frames(np.array([[6, 2, 1]]), SPECIES, kind="ridge")
    potential = made("geat", made_from=made_from)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UndeterminedEnergy)
        potential.predict([MOLECULES[0], MOLECULES[1], MOLECULES[1]])
    assert [str(w.message).split(" has ")[0] for w in told] == ["the energy of H2O"]
    with pytest.raises(ValueError, match="structure 1: a lone H atom"):
        potential.predict([MOLECULES[0], Atoms("H")])


def test_the_example_of_the_readme_works_as_it_stands(tmp_path: Path) -> None:
    section = (REPOSITORY / "README.md").read_text(encoding="utf-8").split("## Use a trained potential\n")[1]
    blocks = re.findall(r"```python\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    (path,) = set(re.findall(r'load_model\("(.*?)"\)|load_potential\("(.*?)"\)', "".join(blocks))[0]) - {""}
    save_potential(tmp_path / path, made("geat"))
    program = "from ase.build import molecule\natoms = molecule('CH3CH2OH')\n" + "".join(blocks)
    program += "\nprint(found.energy.shape, found.forces.shape)"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(2,) (18, 3)\n"
