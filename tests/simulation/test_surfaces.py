"""A potential moves replicas by the energies and forces that it predicts, whatever is kept between steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sapis_lab.config import kind_class
from sapis_lab.potential import Potential
from sapis_lab.simulation import PotentialSurface, Replicas, advance, replicas_of
from sapis_lab.structures import Structure

FAMILIES = ("geat", "nequip", "allegro", "transformer")


def potential(family: str) -> Potential:
    config = kind_class("models", family)(cutoff=3.0).at_size(3e3, n_species=2)
    model = config.build(species=(8, 12), mean_neighbors=8.0, seed=0).requires_grad_(False)
    return Potential(model, config, {8: -2.0, 12: -1.0}, 8.0, {"id": "test"})


def crystals(n: int = 2, *, pbc: bool = True, side: int = 2) -> Replicas:
    generator = np.random.default_rng(3)
    span = range(side)
    corners = np.array([[i, j, k] for i in span for j in span for k in span])
    z = np.where(corners.sum(1) % 2 == 0, 8, 12)
    some = []
    for _ in range(n):
        x = 2.1 * corners + 0.1 * generator.normal(size=corners.shape)
        x[0] += 4.2 * side * np.array([3, -2, 0]) * pbc  # far outside of the cell
        cell = 2.1 * side * np.eye(3) + 0.1 * generator.normal(size=(3, 3))
        some.append(Structure(z, x, cell if pbc else None, np.full(3, pbc)))
    return replicas_of(some, masses=[np.where(z == 8, 16.0, 24.3)] * n, seed=0)


@pytest.mark.parametrize("pbc", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_forces_along_a_path_are_those_of_the_potential_alone(family: str, pbc: bool) -> None:
    used = potential(family)
    surface = PotentialSurface(used, skin=1.0)
    state = crystals(pbc=pbc)
    generator = np.random.default_rng(0)
    for _ in range(8):
        found = surface(state, stress=pbc)
        wanted = used.predict(state.structures(), stress=pbc)
        assert np.allclose(found.energy, wanted.energy, atol=1e-5, rtol=0)
        assert np.allclose(found.forces, wanted.forces, atol=1e-5, rtol=0)
        if pbc:
            assert np.allclose(found.stress, wanted.stress, atol=1e-6, rtol=0)
        state = replace(
            state, positions=state.positions + 0.08 * generator.normal(size=state.positions.shape)
        )
    assert 1 < surface.n_searches < 8


def test_neighbors_are_looked_for_again_where_the_cell_has_changed() -> None:
    surface = PotentialSurface(potential("geat"))
    state = crystals()
    surface(state)
    surface(replace(state, cell=1.001 * state.cell, positions=1.001 * state.positions))
    assert surface.n_searches == 2


def test_a_replica_that_has_flown_apart_does_not_stop_the_others() -> None:
    surface = PotentialSurface(potential("geat"))
    state = crystals(3)
    x = state.positions.copy()
    x[9] = np.nan
    found = surface(replace(state, positions=x))
    assert np.isnan(found.energy).tolist() == [False, True, False]
    assert np.isnan(found.forces).any(1).reshape(3, 8).all(1).tolist() == [False, True, False]


def test_a_skin_does_not_change_the_drift() -> None:
    """Wrapping and stale neighbours are what usually goes wrong: both paths stay together, and conserve."""
    ensemble = kind_class("simulation", "nve")(timestep=1.0, temperature=200.0)
    ends, spreads = [], []
    for skin in (0.0, 0.6):
        state, seen = ensemble.start(crystals(2)), []
        surface = PotentialSurface(potential("geat"), skin=skin)
        end, _ = advance(
            state, ensemble, surface, n_steps=60,
            on_frame=lambda now, found, seen=seen: seen.append(ensemble.conserved(now, found)),
        )  # fmt: skip
        ends.append(end.positions)
        spreads.append(np.std(np.array(seen), axis=0))
    assert np.allclose(ends[0], ends[1], atol=1e-4)
    assert (spreads[1] < 2 * spreads[0] + 1e-7).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"truncation": "switched"},
        {"truncation": "shifted"},
        {"truncation": "cut", "tail": True},
    ],
)
def test_lennard_jones_along_a_path_is_that_of_the_oracle(settings: dict) -> None:
    """Two elements, a cell smaller than the cutoff, so that atoms see images of themselves."""
    from sapis_lab.oracles.lennard_jones import LennardJonesAtom, LennardJonesConfig
    from sapis_lab.simulation import LennardJonesSurface, OracleSurface

    atoms = {
        "O": LennardJonesAtom(epsilon=0.1, sigma=1.9),
        "Mg": LennardJonesAtom(epsilon=0.05, sigma=1.6),
    }
    oracle = LennardJonesConfig(atoms=atoms, cutoff=5.0, switch_start=4.0, **settings)
    slow, fast = OracleSurface(oracle), LennardJonesSurface(oracle)
    state = crystals()
    generator = np.random.default_rng(0)
    for _ in range(8):
        found, wanted = fast(state, stress=True), slow(state, stress=True)
        for a, b in zip(found, wanted, strict=True):
            assert np.allclose(a, b, rtol=1e-10, atol=1e-10)
        state = replace(
            state, positions=state.positions + 0.05 * generator.normal(size=state.positions.shape)
        )
    assert 1 < fast.n_searches < 8
    cell = replace(state, cell=1.01 * state.cell, positions=1.01 * state.positions)
    assert np.allclose(fast(cell).energy, slow(cell).energy)
    if not settings.get("tail"):
        free = crystals(pbc=False)
        assert np.allclose(fast(free).forces, slow(free).forces, atol=1e-10)
