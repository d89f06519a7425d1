"""Phonons of crystals by finite displacements, through phonopy (Togo, J. Phys. Soc. Jpn. 92, 012001,
2023)."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np

from sapis_lab import units
from sapis_lab.observables.surfaces import Predict, whole
from sapis_lab.structures import Structure


class Phonons(NamedTuple):
    """Frequencies on a mesh of wavevectors and at points of it."""

    points: np.ndarray
    """(n_points, 3) wavevectors, in units of the reciprocal lattice of the primitive cell."""
    frequencies: np.ndarray
    """(n_points, n_bands) THz, ascending; imaginary ones are negative."""
    mesh: np.ndarray
    """(n_mesh, n_bands) THz, on the mesh."""
    weights: np.ndarray
    """(n_mesh,) how many wavevectors are alike by symmetry."""
    heat_capacity: float
    """J/mol/K of primitive cells, at the temperature that was asked for, harmonic, volume constant."""


def phonons(
    predict: Predict,
    structure: Structure,
    *,
    supercell: tuple[int, int, int] = (2, 2, 2),
    displacement: float = 0.01,
    mesh: tuple[int, int, int] = (8, 8, 8),
    points: np.ndarray | None = None,
    temperature: float = 300.0,
) -> Phonons:
    """Phonons of a crystal at rest.

    Args:
        structure: a crystal at rest (`minima.relaxed_crystal`); phonopy finds its primitive cell.
        supercell: its repeats, so large that forces vanish over half of it.   displacement: Å.
        mesh: of wavevectors.   points: (n, 3) further ones, in units of the primitive reciprocal lattice; Γ
            by
            default.   temperature: K.
    """
    made = _displaced(structure, supercell, displacement)
    forces = []
    for cell in made.supercells_with_displacements:
        some = Structure(cell.numbers, cell.positions, cell.cell, np.ones(3, dtype=bool))
        forces.append(np.asarray(predict([some]).forces, dtype=float))
    made.forces = np.array(forces)
    made.produce_force_constants()
    made.symmetrize_force_constants()
    wanted = np.zeros((1, 3)) if points is None else np.asarray(points, dtype=float)
    frequencies = np.sort(made.run_qpoints(wanted).frequencies, axis=1)
    made.run_mesh(mesh, is_gamma_center=True)
    found = made.mesh
    heat = heat_capacity(np.asarray(found.frequencies), np.asarray(found.weights), temperature=temperature)
    return Phonons(wanted, frequencies, np.sort(found.frequencies, axis=1), found.weights, heat)


def _displaced(structure: Structure, supercell: tuple[int, int, int], displacement: float) -> Any:
    """phonopy's object of a crystal with its displaced supercells."""
    try:
        from phonopy import Phonopy
        from phonopy.structure.atoms import PhonopyAtoms
    except ImportError:
        raise ImportError(
            "phonons need the package phonopy, which is not installed: pip install 'sapis-lab[phonons]'"
        ) from None
    at = whole(structure)
    if not at.pbc.all():
        raise ValueError(f"pbc is {at.pbc.tolist()}, wanted a crystal")
    cell = PhonopyAtoms(numbers=at.species, positions=at.positions, cell=at.cell)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = Phonopy(
            cell, supercell_matrix=np.diag(supercell), primitive_matrix="auto", symprec=1e-4, log_level=0
        )
        made.generate_displacements(distance=displacement)
    return made


def heat_capacity(frequencies: np.ndarray, weights: np.ndarray, *, temperature: float) -> float:
    """J/mol/K of harmonic modes (n, n_bands), THz, averaged with weights (n,): Σ R x² eˣ / (eˣ - 1)², x =
    hν/kT; modes below 0.001 THz, the translations, count as classical, imaginary ones not at all."""
    x = 1e12 * 6.62607015e-34 / units.ELEMENTARY_CHARGE * frequencies / (units.KB * temperature)
    small = np.abs(frequencies) < 1e-3
    x = np.where(small | (frequencies < 0), 1.0, x)
    each = np.where(small, 1.0, (0.5 * x / np.sinh(0.5 * x)) ** 2) * (small | (frequencies > 0))
    gas = units.KB * units.ELEMENTARY_CHARGE * units.AVOGADRO
    return float(gas * np.average(each.sum(1), weights=weights))


def density_of_states(found: Phonons, edges: np.ndarray) -> np.ndarray:
    """(n_edges - 1,) share of the modes of the mesh in bins of frequency, THz."""
    weights = np.repeat(found.weights[:, None], found.mesh.shape[1], axis=1)
    counts = np.histogram(found.mesh.ravel(), bins=edges, weights=weights.ravel())[0]
    return counts / weights.sum()
