"""Both graph layouts hold the same pairs and turn dE/dv into the same forces and strain derivatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sapis_lab.atoms import AtomsBatch, Layout, make_graph
from sapis_lab.graphs import EdgeGraph, PairGraph
from sapis_lab.neighbors import Edges, neighbor_list
from sapis_lab.selftest import Frame, batch_of, random_crystal, random_molecule

CUTOFF = 3.0
MOLECULES = [random_molecule(n, np.random.default_rng(n)) for n in (4, 9)]
CRYSTALS = [random_crystal(np.random.default_rng(n)) for n in (0, 1)]
LINE = Frame(np.array([[1.2 * i, 0.1 * (i % 2), 0.0] for i in range(12)]), np.full(12, 6))
CASES = {
    "edges": (MOLECULES, {"layout": "edges"}),
    "block": ([MOLECULES[1]], {"layout": "pairs", "block": True}),
    "padded block": (MOLECULES, {"layout": "pairs", "block": True}),
    "table": ([MOLECULES[0], LINE], {"layout": "pairs"}),
    "periodic edges": (CRYSTALS, {"layout": "edges"}),
    "periodic table": (CRYSTALS, {"layout": "pairs"}),
}


@pytest.fixture(params=CASES)
def batch(request: pytest.FixtureRequest) -> AtomsBatch:
    frames, options = CASES[request.param]
    return batch_of(frames, cutoff=CUTOFF, dtype=torch.float64, **options)


def pair_energy(v: torch.Tensor, *, axis: int) -> torch.Tensor:
    """Some smooth function of every displacement, not symmetric under v -> -v, zero beyond the cutoff."""
    r = v.norm(dim=axis)
    direction = 1 + 0.3 * v.select(axis, 0) - 0.1 * v.select(axis, 2) ** 2
    return ((1 - r / CUTOFF).clamp_min(0) ** 3 * direction).sum()


def axis_of(batch: AtomsBatch) -> int:
    return 1 if isinstance(batch.graph, EdgeGraph) else 0


def test_forces_and_strain_derivatives_are_those_of_autograd(batch: AtomsBatch) -> None:
    positions = batch.positions.clone().requires_grad_(True)
    strain = torch.zeros(batch.n_frames, 3, 3, dtype=torch.float64, requires_grad=True)
    symmetric = torch.eye(3, dtype=torch.float64) + 0.5 * (strain + strain.transpose(1, 2))
    strained = torch.bmm(positions.unsqueeze(1), symmetric[batch.batch]).squeeze(1)
    energy = pair_energy(batch.graph.vectors(strained, torch.bmm(batch.cell, symmetric)), axis=axis_of(batch))
    by_position, by_strain = torch.autograd.grad(energy, (positions, strain))

    vectors = batch.graph.vectors(batch.positions, batch.cell).detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(pair_energy(vectors, axis=axis_of(batch)), vectors)
    assert torch.allclose(batch.graph.forces(gradient), -by_position, atol=1e-12)
    assert torch.allclose(batch.graph.strain_gradient(vectors.detach(), gradient), by_strain, atol=1e-11)


def test_every_layout_holds_the_same_pairs(batch: AtomsBatch) -> None:
    vectors = batch.graph.vectors(batch.positions, batch.cell)
    found = vectors.norm(dim=axis_of(batch)).reshape(-1)
    found = found[found < CUTOFF - 1e-9].sort().values
    wanted = []
    for frame in range(batch.n_frames):
        p, cell = batch.positions[batch.batch == frame], batch.cell[frame]
        reach = (
            torch.arange(-2.0, 3.0, dtype=torch.float64)
            if cell.any()
            else torch.zeros(1, dtype=torch.float64)
        )
        images = torch.cartesian_prod(reach, reach, reach)
        d = (p[None, :, None] + images @ cell - p[:, None, None]).norm(dim=-1).reshape(-1)
        wanted.append(d[(d < CUTOFF) & (d > 1e-9)])
    assert torch.allclose(found, torch.cat(wanted).sort().values, atol=1e-10)


def test_slots_without_a_pair_have_the_vector_of_the_cutoff(batch: AtomsBatch) -> None:
    if not isinstance(batch.graph, PairGraph):
        pytest.skip("edges have no padding")
    vectors = batch.graph.vectors(batch.positions, batch.cell)
    empty = (~batch.graph.is_pair()).expand(batch.graph.dims)
    assert torch.equal(
        vectors[:, empty],
        torch.tensor([[CUTOFF], [0.0], [0.0]], dtype=torch.float64).expand(3, int(empty.sum())),
    )
    assert empty.sum() >= batch.graph.n_nodes, "the pair (i, i) of every row"


def test_padding_and_unpadding_are_inverse(batch: AtomsBatch) -> None:
    if not isinstance(batch.graph, PairGraph):
        pytest.skip("edges have no padding")
    padded = batch.graph.pad(batch.positions, value=-7.0)
    assert padded.shape == (batch.graph.n_nodes, 3)
    assert torch.equal(batch.graph.unpad(padded), batch.positions)


def test_neighbours_and_centres_are_rows_of_the_atoms_in_each_slot(batch: AtomsBatch) -> None:
    graph = batch.graph
    if not isinstance(graph, PairGraph) or batch.cell.any():
        pytest.skip("needs slots and no images")
    g, i, k = graph.dims
    p = graph.pad(batch.positions).unsqueeze(0)
    v = graph.neighbors_of(p).view(g, 1, k, 3) - graph.centers_of(p).view(g, i, 1, 3)
    pair = graph.is_pair().expand(g, i, k)
    assert torch.allclose(v[pair], graph.vectors(batch.positions, batch.cell).permute(1, 2, 3, 0)[pair])


def test_as_edges_a_graph_gives_the_same_vectors_forces_and_strain_derivatives(batch: AtomsBatch) -> None:
    vectors = batch.graph.vectors(batch.positions, batch.cell).detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(pair_energy(vectors, axis=axis_of(batch)), vectors)
    edges, rows = batch.graph.as_edges(), batch.graph.rows(gradient)
    along = edges.vectors(batch.positions, batch.cell)
    assert torch.allclose(along, batch.graph.rows(vectors.detach()), atol=1e-12)
    assert torch.allclose(edges.forces(rows), batch.graph.forces(gradient), atol=1e-12)
    assert torch.allclose(
        edges.strain_gradient(along, rows),
        batch.graph.strain_gradient(vectors.detach(), gradient),
        atol=1e-11,
    )
    assert (edges.center.diff() >= 0).all() and (
        edges.frame[edges.center] == edges.frame[edges.neighbor]
    ).all()


def test_sparse_frames_get_a_table_and_dense_ones_a_block() -> None:
    dense, sparse = (
        batch_of([f], layout="pairs", cutoff=CUTOFF, dtype=torch.float64).graph for f in (MOLECULES[0], LINE)
    )
    assert isinstance(dense, PairGraph) and dense.block is not None
    assert isinstance(sparse, PairGraph) and sparse.neighbor is not None


def test_a_table_without_edges_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the edges"):
        make_graph(layout="edges", n_atoms=np.array([3]), edges=None, periodic=False, cutoff=CUTOFF)


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("layout", ["edges", "pairs"])
def test_joined_edges_make_the_graph_of_edges_by_frames(layout: Layout, periodic: bool) -> None:
    generator, n_atoms = np.random.default_rng(0), np.array([5, 1, 40])
    cells = [6 * np.eye(3) * periodic] * 3
    frames = [
        neighbor_list(generator.uniform(0, 6, (n, 3)), cell, periodic, 1.5)
        for n, cell in zip(n_atoms, cells, strict=True)
    ]
    by_frame = [(p.center, p.neighbor, p.shift) for p in frames]
    joined = Edges(
        np.array([len(p.center) for p in frames]),
        *(np.concatenate([getattr(p, name) for p in frames]) for name in ("center", "neighbor", "shift")),
    )
    graphs = [
        make_graph(layout=layout, n_atoms=n_atoms, edges=edges, periodic=periodic, cutoff=1.5)
        for edges in (by_frame, joined)
    ]
    first = np.repeat([0, 5, 6], joined.n_edges)
    if isinstance(graphs[1], EdgeGraph):
        assert np.array_equal(graphs[1].center.numpy(), joined.center + first)
        assert np.array_equal(graphs[1].neighbor.numpy(), joined.neighbor + first)
    for a, b in zip(*graphs, strict=True):
        assert torch.equal(a, b) and a.dtype == b.dtype if torch.is_tensor(a) else a == b


def test_edges_of_periodic_frames_without_translations_are_refused() -> None:
    edges = Edges(np.array([0]), np.zeros(0, np.int32), np.zeros(0, np.int32), None)
    with pytest.raises(ValueError, match="need their lattice translations"):
        make_graph(layout="edges", n_atoms=np.array([3]), edges=edges, periodic=True, cutoff=CUTOFF)


def test_edge_index_is_in_the_order_of_pytorch_geometric() -> None:
    batch = batch_of(MOLECULES, layout="edges", cutoff=CUTOFF, dtype=torch.float64)
    assert torch.equal(batch.edge_index[1], batch.graph.center)
    with pytest.raises(ValueError, match="layout 'edges'"):
        _ = batch_of(MOLECULES, layout="pairs", cutoff=CUTOFF, dtype=torch.float64).edge_index
