"""A potential on disk is the potential in hand, and its forces and stress are derivatives of its energy."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.md.verlet import VelocityVerlet
from ase.units import fs

import sapis_lab
from sapis_lab.models.geat import GeatConfig
from sapis_lab.potential import Potential, load_potential, save_potential


def potential(species=(1, 6, 8), dtype=torch.float64, **settings):
    config = GeatConfig(channels=8, heads=2, edge_hidden=12, **settings)
    model = config.build(species=species, mean_neighbors=8.0, seed=1).to(dtype)
    references = {z: -10.0 * z for z in species}
    return Potential(model.requires_grad_(False), config, references, 8.0, {"id": "test"})


@pytest.fixture
def ethanol():
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=2)
    return atoms


def test_a_saved_potential_gives_the_same_numbers(tmp_path, ethanol):
    for dtype in (torch.float32, torch.float64):
        saved = potential(dtype=dtype)
        save_potential(tmp_path, saved)
        loaded = load_potential(tmp_path)
        a, b = (p.evaluate(species=ethanol.numbers, positions=ethanol.positions) for p in (saved, loaded))
        assert a[0] == b[0]
        np.testing.assert_array_equal(a[1], b[1])


def test_total_energy_includes_the_reference_energies(ethanol):
    p = potential()
    lone = p.evaluate(species=np.array([8]), positions=np.zeros((1, 3)))[0]
    assert abs(lone - -80.0) < 5.0  # what the model adds for one atom is of the order of one scale


def test_forces_are_minus_the_gradient_and_stress_is_the_strain_derivative(tmp_path):
    save_potential(tmp_path, potential(species=(29,)))
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=0)
    atoms.calc = sapis_lab.load_model(tmp_path)
    forces, stress, h = atoms.get_forces(), atoms.get_stress(voigt=False), 1e-4

    def energy(positions, cell):
        moved = Atoms(atoms.numbers, positions, cell=cell, pbc=True, calculator=atoms.calc)
        return moved.get_potential_energy()

    for i, k in ((0, 0), (2, 1), (3, 2)):
        step = np.zeros_like(atoms.positions)
        step[i, k] = h
        slope = (energy(atoms.positions + step, atoms.cell) - energy(atoms.positions - step, atoms.cell)) / (2 * h)
        assert forces[i, k] == pytest.approx(-slope, abs=2e-6)
    for a, b in ((0, 0), (0, 1), (2, 2)):
        strain = np.zeros((3, 3))
        strain[a, b] += h / 2
        strain[b, a] += h / 2
        up, down = np.eye(3) + strain, np.eye(3) - strain
        slope = energy(atoms.positions @ up, atoms.cell.array @ up) - energy(atoms.positions @ down, atoms.cell.array @ down)
        assert stress[a, b] == pytest.approx(slope / (2 * h) / atoms.get_volume(), abs=2e-6)


def test_dynamics_conserve_energy(tmp_path, ethanol):
    save_potential(tmp_path, potential())
    ethanol.calc = sapis_lab.load_model(tmp_path)
    ethanol.set_velocities(np.random.default_rng(0).normal(scale=0.02, size=(9, 3)))

    def spread(step, n):
        atoms = ethanol.copy()
        atoms.calc = ethanol.calc
        totals = []
        VelocityVerlet(atoms, step * fs).run(1)
        md = VelocityVerlet(atoms, step * fs)
        md.attach(lambda: totals.append(atoms.get_total_energy()))
        md.run(n)
        return np.ptp(totals)

    coarse, fine = spread(0.5, 40), spread(0.25, 80)
    assert fine < 0.35 * coarse  # velocity Verlet: the fluctuation falls as the square of the step (0.25), with room for sampling
    assert coarse < 0.05


def test_where_a_molecule_lies_changes_nothing_even_in_single_precision(ethanol):
    p = potential(dtype=torch.float32)
    here = p.evaluate(species=ethanol.numbers, positions=ethanol.positions)
    there = p.evaluate(species=ethanol.numbers, positions=ethanol.positions + [0.0, 3000.0, -1000.0])
    assert there[0] == pytest.approx(here[0], abs=1e-5)
    np.testing.assert_allclose(there[1], here[1], atol=2e-5)


def test_atoms_on_top_of_each_other_and_empty_structures_are_refused():
    with pytest.raises(ValueError, match="not finite; atoms 0 and 1 are 0 Å apart"):
        potential().evaluate(species=np.array([6, 8]), positions=np.zeros((2, 3)))
    with pytest.raises(ValueError, match="at least one atom"):
        potential().evaluate(species=np.array([], dtype=int), positions=np.zeros((0, 3)))


def test_unknown_elements_are_refused_by_name(ethanol):
    with pytest.raises(ValueError, match=r"knows the elements \[1, 6, 8\], got atomic numbers \[7\]"):
        potential().evaluate(species=np.array([7, 1]), positions=np.eye(3)[:2])


def test_a_folder_without_a_potential_and_a_newer_format_are_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no trained potential"):
        load_potential(tmp_path)
    save_potential(tmp_path, potential())
    text = (tmp_path / "model.yaml").read_text()
    (tmp_path / "model.yaml").write_text(text.replace("format: 1", "format: 99"))
    with pytest.raises(ValueError, match="has format 99, this version reads up to 1; update sapis_lab"):
        load_potential(tmp_path)
