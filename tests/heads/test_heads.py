"""Outputs of every head have the symmetry that its target declares, on every model and layout, and padding
adds nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from sapis_lab.atoms import AtomsBatch
from sapis_lab.config import kind_class, kinds
from sapis_lab.derivatives import node_features
from sapis_lab.graphs import EdgeGraph, PairGraph
from sapis_lab.heads import Head, HeadConfig, attach, head_of
from sapis_lab.models import Model
from sapis_lab.selftest import Frame, batch_of, build, random_crystal, random_molecule, random_rotation
from sapis_lab.targets import Target

CUTOFF = 4.0
EXACT = 1e-11
"""Of the largest entry, float64."""
JUMP_RATIO = 5e-3
"""Jump at the cutoff at a tenth of the distance: 1e-3 where it falls with the cube, 1e-2 with the square."""


class Case(NamedTuple):
    """A head with a target that it predicts."""

    head: dict[str, Any]
    per: str
    rank: int


CASES = {
    "scalar of atoms": Case({"kind": "scalar"}, "atom", 0),
    "sum of scalars": Case({"kind": "scalar"}, "frame", 0),
    "mean of scalars": Case({"kind": "scalar", "pool": "mean"}, "frame", 0),
    "moment of charges": Case({"kind": "charges"}, "frame", 1),
    "vectors of atoms": Case({"kind": "tensor"}, "atom", 1),
    "vector": Case({"kind": "tensor"}, "frame", 1),
    "matrices of atoms": Case({"kind": "tensor"}, "atom", 2),
    "matrix": Case({"kind": "tensor"}, "frame", 2),
}
MODELS = ("geat", "nequip", "allegro")
"""The transformer's features turn with nothing: its heads are tested on features that do not depend on it."""


def target_of(case: Case) -> Target:
    settings = {"kind": "property", "name": "what", "per": case.per, "rank": case.rank}
    return kind_class("targets", "property", Target).model_validate(settings)


def config_of(case: Case) -> HeadConfig:
    return kind_class("heads", case.head["kind"], HeadConfig).model_validate({**case.head, "hidden": 7})


def shaken(head: torch.nn.Module) -> None:
    """Parameters off their initial values, and constants of every element: zeros would hide errors."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in head.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    assert isinstance(head, Head)
    head.normalise(scale=1.3, atom_scale=0.7, offset={1: 0.2, 6: -0.5, 8: 1.1})


def model_with(kind: str, case: Case) -> Model:
    model = build(
        kind_class("models", kind)(cutoff=CUTOFF).at_size(3e3, n_species=3), dtype=torch.float64, seed=0
    )
    torch.manual_seed(3)
    attach(model, target_of(case), config_of(case))
    model.double()
    shaken(head_of(model, "what"))
    return model


def head_alone(case: Case, n_features: int = 5) -> Head:
    torch.manual_seed(3)
    head = config_of(case).build(target_of(case), n_features=n_features, cutoff=CUTOFF).double()
    shaken(head)
    return head


def make(frames: list[Frame], layout: str = "pairs", *, block: bool = False) -> AtomsBatch:
    return batch_of(frames, layout=layout, cutoff=CUTOFF, dtype=torch.float64, block=block)


@torch.no_grad()
def output(model: Model, batch: AtomsBatch) -> Tensor:
    found = head_of(model, "what")(node_features(model, batch), batch)
    assert found.dtype == torch.float64
    return found


def turned(values: Tensor, matrix: np.ndarray, rank: int) -> Tensor:
    q = torch.from_numpy(matrix)
    return values if rank == 0 else values @ q.T if rank == 1 else q @ values @ q.T


def difference(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return ((a - b).abs().max() / b.abs().max()).item()


STRUCTURES: dict[str, Callable[[], list[Frame]]] = {
    "molecules of one size": lambda: [random_molecule(6, np.random.default_rng(k)) for k in range(3)],
    "molecules of many sizes": lambda: [random_molecule(n, np.random.default_rng(n)) for n in (9, 1, 4, 2)],
    "crystals": lambda: [random_crystal(np.random.default_rng(k)) for k in range(2)],
}


def moved(frames: list[Frame], rng: np.random.Generator) -> tuple[list[Frame], np.ndarray, Tensor]:
    """Frames turned, reflected, shifted and their atoms in another order; the matrix, and which atom is
    where."""
    matrix, offset = -random_rotation(rng), rng.uniform(-3, 3, 3)
    orders = [rng.permutation(len(f.species)) for f in frames]
    made = [
        Frame(
            f.positions[o] @ matrix.T + offset,
            f.species[o],
            None if f.cell is None else f.cell @ matrix.T,
        )
        for f, o in zip(frames, orders, strict=True)
    ]
    starts = np.cumsum([0, *[len(o) for o in orders[:-1]]])
    return (
        made,
        matrix,
        torch.from_numpy(np.concatenate([o + s for o, s in zip(orders, starts, strict=True)])),
    )


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", MODELS)
def test_outputs_turn_with_the_frame_and_follow_its_atoms(kind: str, name: str, structure: str) -> None:
    case = CASES[name]
    if structure == "crystals" and name == "moment of charges":
        pytest.skip("a crystal has no dipole moment")
    model, frames = model_with(kind, case), STRUCTURES[structure]()
    layouts = [model.layout] if structure == "crystals" or model.layout == "edges" else ["pairs", "block"]
    for layout in layouts:
        block = layout == "block"
        other, matrix, order = moved(frames, np.random.default_rng(4))
        before, after = (output(model, make(some, model.layout, block=block)) for some in (frames, other))
        wanted = before[order] if case.per == "atom" else before
        assert difference(after, turned(wanted, matrix, case.rank)) < EXACT
        if case.rank == 2:
            assert difference(before, before.transpose(-1, -2)) < EXACT
        # what is tested depends on the frame: a constant would pass
        assert (before - before.mean(0)).abs().max() > 1e-3


@pytest.mark.parametrize("name", CASES)
def test_outputs_have_the_symmetry_whatever_the_features(name: str) -> None:
    case = CASES[name]
    head, frames = head_alone(case), STRUCTURES["molecules of many sizes"]()
    other, matrix, order = moved(frames, np.random.default_rng(5))
    x = torch.randn(16, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, after = head(x, make(frames)), head(x[order], make(other))
    assert (
        difference(after, turned(before[order] if case.per == "atom" else before, matrix, case.rank)) < EXACT
    )


@pytest.mark.parametrize("name", CASES)
def test_every_layout_of_a_structure_gives_the_same(name: str) -> None:
    case = CASES[name]
    head = head_alone(case)
    line = np.array([[1.2 * i, 0.1 * (i % 2), 0.3 * (i % 3)] for i in range(14)])
    frames = [random_molecule(5, np.random.default_rng(2)), Frame(line, np.array([1, 6, 8] * 4 + [1, 6]))]
    batches = {"edges": make(frames, "edges"), "table": make(frames), "block": make(frames, block=True)}
    assert isinstance(batches["edges"].graph, EdgeGraph)
    assert isinstance(batches["table"].graph, PairGraph) and batches["table"].graph.block is None
    assert isinstance(batches["block"].graph, PairGraph) and batches["block"].graph.slot is not None
    x = torch.randn(19, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = {layout: head(x, batch) for layout, batch in batches.items()}
    assert difference(found["edges"], found["block"]) < EXACT
    assert difference(found["table"], found["block"]) < EXACT
    if case.rank == 0 or name == "moment of charges":
        return
    crystals = [random_crystal(np.random.default_rng(k)) for k in range(2)]
    with torch.no_grad():
        edges, table = (head(x[:8], make(crystals, layout)) for layout in ("edges", "pairs"))
    assert difference(edges, table) < EXACT


@pytest.mark.parametrize("kind", kinds("models"))
@pytest.mark.parametrize("name", CASES)
def test_padding_adds_nothing(kind: str, name: str) -> None:
    """A frame gives the same alone and beside larger ones, in a batch that pads it to their size."""
    case = CASES[name]
    model, frames = (
        model_with(kind, case),
        [random_molecule(n, np.random.default_rng(n)) for n in (2, 9, 1, 4)],
    )
    block = model.layout == "pairs"
    together = make(frames, model.layout, block=block)
    assert not block or together.graph.slot is not None
    alone = torch.cat([output(model, make([f], model.layout, block=block)) for f in frames])
    assert difference(output(model, together), alone) < EXACT


def test_latent_charges_add_up_to_nothing_in_every_frame() -> None:
    head, batch = head_alone(CASES["moment of charges"]), make(STRUCTURES["molecules of many sizes"]())
    x = torch.randn(16, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        charges = head.charges(x, batch)  # type: ignore[operator]
        sums = charges.new_zeros(4).index_add(0, batch.batch, charges)
        moments = torch.zeros(4, 3).double().index_add(0, batch.batch, charges[:, None] * batch.positions)
        assert charges.abs().max() > 0.1 and sums.abs().max() < 1e-14
        assert difference(head(x, batch), moments) < EXACT


def test_a_scalar_of_a_frame_is_the_sum_or_the_mean_of_those_of_its_atoms() -> None:
    atoms, total, mean = (
        head_alone(CASES[n]) for n in ("scalar of atoms", "sum of scalars", "mean of scalars")
    )
    batch = make(STRUCTURES["molecules of many sizes"]())
    x = torch.randn(16, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = torch.zeros(4).double().index_add(0, batch.batch, atoms(x, batch))
        assert difference(total(x, batch), wanted) < EXACT
        assert difference(mean(x, batch), wanted / batch.n_atoms) < EXACT
        plain = atoms.atom_scale * atoms.network(x).squeeze(1)  # type: ignore[operator]
        offset = torch.tensor([{1: 0.2, 6: -0.5, 8: 1.1}[z] for z in batch.species.tolist()])
        assert difference(atoms(x, batch), plain + offset) < 1e-7


def test_a_tensor_is_the_sum_over_neighbours_that_its_docstring_states() -> None:
    """By a plain loop over pairs."""
    from sapis_lab.geometry.radial import envelope

    frame = random_molecule(6, np.random.default_rng(0))
    x = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for name in ("vectors of atoms", "matrices of atoms"):
        head: Any = head_alone(CASES[name])
        wanted = torch.zeros(6, *(3,) * CASES[name].rank, dtype=torch.float64)
        for i in range(6):
            for j in range(6):
                v = torch.from_numpy(frame.positions[j] - frame.positions[i])
                r = v.norm()
                if i == j or r >= CUTOFF:
                    continue
                radial = torch.exp(-head.width * (torch.exp(-5 * r / CUTOFF) - head.centers) ** 2)
                inner = head.of_center(x[i]) + head.of_neighbor(x[j]) + head.of_distance(radial)
                w = head.weight(torch.nn.functional.silu(inner)) * envelope(r / CUTOFF) * head.atom_scale
                u = v / r
                wanted[i] += w * (u if CASES[name].rank == 1 else torch.outer(u, u))
            if head.trace is not None:
                offset = head.offset[int(frame.species[i])]
                wanted[i] += (head.atom_scale * head.trace(x[i]) + offset) * torch.eye(3).double()
        with torch.no_grad():
            assert difference(head(x, make([frame], block=True)), wanted.detach()) < EXACT


@pytest.mark.parametrize("kind", kinds("models"))
@pytest.mark.parametrize("name", CASES)
def test_outputs_are_smooth_at_the_cutoff(kind: str, name: str) -> None:
    model = model_with(kind, CASES[name])
    others = [[0.0, 0.0, 0.0], [1.1, 0.0, -0.4]]

    def at(distance: float) -> Tensor:
        frame = Frame(np.array([*others, [0.0, 0.0, distance]]), np.array([6, 8, 1]))
        return output(model, make([frame], model.layout))

    jumps = []
    for h in (1e-2, 1e-3):
        # without what changes beyond the cutoff, too: the moment of charges, since the atom moves
        inside, outside, beyond = at(CUTOFF - h), at(CUTOFF + h), at(CUTOFF + 3 * h)
        jumps.append(((inside - outside) - (outside - beyond)).abs().max().item())
        if name != "moment of charges":
            assert (outside - beyond).abs().max() < 1e-13
    assert jumps[1] <= JUMP_RATIO * jumps[0] + 1e-13, "it falls with the cube of the distance"


REFUSED = {
    "a vector by scalars": (
        "scalar",
        "frame",
        1,
        "predicts scalars, the target has rank 1; use kind: tensor",
    ),
    "a scalar by tensors": ("tensor", "atom", 0, "the target is a scalar; use kind: scalar"),
    "a scalar by charges": ("charges", "frame", 0, "a vector per frame, the target is of rank 0 per frame"),
    "vectors of atoms by charges": ("charges", "atom", 1, "of rank 1 per atom"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_target_that_a_head_cannot_predict_is_refused(what: str) -> None:
    kind, per, rank, words = REFUSED[what]
    case = Case({"kind": kind}, per, rank)
    with pytest.raises(ValueError, match=rf"train\.heads\.what: .*{words}"):
        config_of(case).build(target_of(case), n_features=5, cutoff=CUTOFF)


def test_a_model_that_does_not_say_how_many_features_it_has_is_refused() -> None:
    model = torch.nn.Module()
    model.heads = torch.nn.ModuleDict()
    with pytest.raises(ValueError, match="Module has no n_features, .* its kind cannot learn what"):
        attach(model, target_of(CASES["vector"]), config_of(CASES["vector"]))


@pytest.mark.parametrize("kind", kinds("models"))
def test_every_model_says_how_many_features_it_has(kind: str) -> None:
    model = build(
        kind_class("models", kind)(cutoff=CUTOFF).at_size(3e3, n_species=3), dtype=torch.float64, seed=0
    )
    batch = make([random_molecule(4, np.random.default_rng(0))], model.layout)
    assert node_features(model, batch).shape == (4, model.n_features)
