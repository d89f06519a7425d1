"""Dynamics on a trained potential."""

from __future__ import annotations

import numpy as np
import torch

from sapis_lab.atoms import AtomsBatch, collate, make_graph
from sapis_lab.derivatives import predict_in_double
from sapis_lab.graphs import EdgeGraph
from sapis_lab.neighbors import Pairs
from sapis_lab.potential import Potential
from sapis_lab.simulation._replicas import Replicas
from sapis_lab.simulation._surface import Found, Surface
from sapis_lab.structures import prepared


class PotentialSurface(Surface):
    """A trained potential. Neighbours are looked for within the cutoff and a skin, and again when an atom has
    moved by half of the skin or the cell has changed."""

    def __init__(self, potential: Potential, *, skin: float = 1.0) -> None:
        if skin < 0:
            raise ValueError(f"skin is {skin} Å, wanted 0 or more")
        self.potential, self.skin = potential, skin
        self.n_searches = 0
        self._batch: AtomsBatch | None = None
        self._at: np.ndarray | None = None
        self._cell: np.ndarray | None = None
        self._edges: EdgeGraph | None = None

    def forget(self) -> None:
        self._batch = None

    def __call__(self, state: Replicas, *, stress: bool = False) -> Found:
        unknown = sorted({int(z) for z in np.unique(state.species)} - set(self.potential.model.species))
        if unknown:
            raise ValueError(
                f"the potential knows the elements {list(self.potential.model.species)}, got atomic numbers "
                f"{unknown} as well"
            )
        bad = ~np.isfinite(state.positions).all(1)
        bad = state.per_replica(bad.astype(int)) > 0
        if not bad.any() and not self._still_there(state):
            bad = self._search(state)
        if bad.any():
            return _not_a_number(self, state, bad, stress=stress)
        batch = self._neighbors(state)
        found = predict_in_double(self.potential.model, batch, stress=stress)
        species, which = np.unique(state.species, return_inverse=True)
        reference = np.array([self.potential.references[int(z)] for z in species])[which]
        return Found(
            found.energy.cpu().numpy() + state.per_replica(reference),
            found.forces.cpu().numpy(),
            None if found.stress is None else found.stress.cpu().numpy(),
        )

    def _neighbors(self, state: Replicas) -> AtomsBatch:
        """The batch of the state, whose neighbours are known."""
        device = self.potential.model.energy_scale.device
        assert self._batch is not None
        batch = self._batch
        batch.positions = torch.from_numpy(state.positions).to(device)
        if isinstance(batch.graph, EdgeGraph) and self.skin:
            batch.graph = self._near(batch)
        return batch

    def _still_there(self, state: Replicas) -> bool:
        if self._batch is None or self._at is None or self._at.shape != state.positions.shape:
            return False
        if not np.array_equal(state.cell, self._cell):  # type: ignore[arg-type]
            return False
        return bool(((state.positions - self._at) ** 2).sum(1).max() < (0.5 * self.skin) ** 2)

    def _search(self, state: Replicas) -> np.ndarray:
        """Look for neighbours within the cutoff and the skin. (R,) bool: replicas where two atoms are too
        close for any model to know the energy (`structures.prepared`); nothing is kept where there are
        some."""
        model = self.potential.model
        reach = model.cutoff + self.skin
        edges: list[Pairs] = []
        bad = np.zeros(len(state), dtype=bool)
        for k, structure in enumerate(state.structures()):
            try:
                ready = prepared(structure, cutoff=reach, known=model.species)
            except ValueError:
                bad[k] = True
                continue
            moved = ready.moved
            # the pairs of the wrapped atoms, said of the positions as they are
            shift = ready.edges.shift + moved[ready.edges.center] - moved[ready.edges.neighbor]
            edges.append(Pairs(ready.edges.center, ready.edges.neighbor, shift.astype(np.int64)))
        if bad.any():
            return bad
        graph = make_graph(
            layout=model.layout,
            n_atoms=state.n_atoms,
            edges=[(p.center, p.neighbor, p.shift) for p in edges],
            periodic=bool(state.pbc.any()),
            cutoff=model.cutoff,
        )
        batch = collate(
            n_atoms=state.n_atoms,
            species=state.species,
            positions=state.positions,
            cell=np.where(np.any(state.pbc, axis=1).reshape(-1, 1, 1), state.cell, 0.0),
            graph=graph,
            dtype=torch.float64,
        )
        self._batch = batch.to(model.energy_scale.device)
        self._edges = self._batch.graph if isinstance(self._batch.graph, EdgeGraph) else None
        self._at, self._cell = state.positions.copy(), state.cell.copy()
        self.n_searches += 1
        return bad

    def _near(self, batch: AtomsBatch) -> EdgeGraph:
        """Of the edges within the skin, those within the cutoff."""
        every = self._edges
        assert every is not None
        near = every.vectors(batch.positions, batch.cell).square().sum(1) < self.potential.model.cutoff**2
        return every._replace(
            center=every.center[near],
            neighbor=every.neighbor[near],
            shift=None if every.shift is None else every.shift[near],
        )


def _not_a_number(surface: Surface, state: Replicas, bad: np.ndarray, *, stress: bool) -> Found:
    """The answer of the replicas that are not `bad`, (R,) bool; NaN of these."""
    fine = ~bad
    found = Found(
        np.full(len(state), np.nan),
        np.full(state.positions.shape, np.nan),
        np.full((len(state), 3, 3), np.nan) if stress else None,
    )
    if fine.any():
        some = surface(state.chosen(fine), stress=stress)
        found.energy[fine] = some.energy
        found.forces[np.repeat(fine, state.n_atoms)] = some.forces
        if found.stress is not None and some.stress is not None:
            found.stress[fine] = some.stress
    return found
