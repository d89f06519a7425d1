"""A potential as one graph of tensor operations, for any number of structures, atoms and neighbours.

    layout 'pairs'     positions (A, 3) Å, cell (B, 3, 3) Å, species (A,), frame (A,), neighbor (A, K),
                       mask (A, K) bool, shift (A, K, 3): slot 0 of an atom is the atom itself, a slot
                       without a neighbour points to the atom itself and has the mask False
    layout 'edges'     positions, cell, species, frame, center (E,), neighbor (E,), shift (E, 3)

    energy (B,) eV, atomic energies (A,) eV, both with reference energies; forces (A, 3) eV/Å; virial
    (B, 3, 3) eV, dE/dε, of which stress is that over the volume

Floating-point numbers are float64 but for `shift` (float32), others int64; A and K (or E) are at least 2.
The model computes in its own precision and everything around it in float64, as in
`derivatives.predict_in_double`; derivatives are part of the graph. Tracing follows one run with symbolic
sizes (`make_fx`), so what a model reads off its inputs as plain numbers would be frozen; `checked` compares
with the potential at other sizes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sapis_lab.atoms import AtomsBatch, make_graph
from sapis_lab.config import ConfigError
from sapis_lab.graphs import EdgeGraph, Graph, PairGraph
from sapis_lab.potential import Potential
from sapis_lab.structures import Structure, prepared

TOLERANCE = 1e-5
"""Of energies, forces and virials, relative to the largest of each."""


def inputs_of(potential: Potential, structures: list[Structure]) -> tuple[Tensor, ...]:
    """The inputs of the graph for structures."""
    model = potential.model
    ready = [prepared(s, cutoff=model.cutoff, known=model.species) for s in structures]
    graph = make_graph(
        layout=model.layout,
        n_atoms=np.array([len(s.species) for s in ready]),
        edges=[s.edges for s in ready],
        periodic=True,
        cutoff=model.cutoff,
    )
    head = (
        torch.from_numpy(np.concatenate([s.positions for s in ready])),
        torch.from_numpy(np.stack([s.cell for s in ready])),
        torch.from_numpy(np.concatenate([s.species for s in ready]).astype(np.int64)),
        graph.frame,
    )
    if isinstance(graph, EdgeGraph):
        assert graph.shift is not None
        return (*head, graph.center, graph.neighbor, graph.shift)
    assert graph.neighbor is not None and graph.mask is not None and graph.shift is not None
    return (*head, graph.neighbor, graph.mask, graph.shift)


def batch_of(potential: Potential, inputs: tuple[Tensor, ...]) -> AtomsBatch:
    """The batch of such inputs."""
    positions, cell, species, frame, first, second, shift = inputs
    n_frames = cell.shape[0]
    graph: Graph
    if potential.model.layout == "edges":
        graph = EdgeGraph(first, second, shift, frame, n_frames)
    else:
        graph = PairGraph(None, None, first, second, shift, frame, n_frames, potential.model.cutoff)
    n_atoms = torch.zeros_like(cell[:, 0, 0], dtype=torch.int64).index_add(0, frame, torch.ones_like(frame))
    return AtomsBatch(
        positions=positions, species=species, batch=frame, n_atoms=n_atoms, cell=cell, graph=graph
    )


def reference_table(potential: Potential) -> Tensor:
    """(119,) float64, the reference energy of every atomic number; NaN of those that are not known."""
    table = torch.full((119,), torch.nan, dtype=torch.float64)
    for z, energy in potential.references.items():
        table[z] = energy
    return table


def with_derivatives(potential: Potential) -> Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Energies, atomic energies, forces and virials as a function of the inputs."""
    model, references = potential.model, reference_table(potential)

    def function(*inputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        batch = batch_of(potential, inputs)
        graph = batch.graph
        vectors = graph.vectors(batch.positions, batch.cell)
        features, pullback = model.features_and_pullback(vectors.to(model.energy_scale.dtype), batch)
        leaves = tuple(f.detach().requires_grad_(True) for f in features)
        with torch.enable_grad():
            output = model.evaluate(leaves, batch)
            assert output.atomic_energy is not None
            gradients = torch.autograd.grad(output.atomic_energy.sum(), leaves)
        gradient = pullback(*gradients).double()
        atomic = output.atomic_energy.detach().double() + references.index_select(0, batch.species)
        energy = torch.zeros_like(batch.cell[:, 0, 0]).index_add(0, batch.batch, atomic)
        return energy, atomic, graph.forces(gradient), graph.strain_gradient(vectors, gradient)

    return function


def traced(function: Callable[..., Any], potential: Potential) -> torch.fx.GraphModule:
    """The graph of a function of the inputs.

    Raises:
        ConfigError: the family cannot be traced.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    inputs = inputs_of(potential, samples(potential, (27, 36)))
    # constants that are made on first use and kept would be kept as tensors of the tracer, without numbers
    function(*inputs)
    try:
        return make_fx(function, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*inputs)
    except Exception as error:  # whatever a family does that tracing does not follow
        raise ConfigError(_refusal(potential, error)) from error


def scripted(graph: torch.fx.GraphModule) -> Any:
    """A traced graph as TorchScript."""
    for node in graph.graph.nodes:
        if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
            node.target = node.target.overloadpacket  # TorchScript resolves overloads itself
    graph.recompile()
    with quiet():
        return torch.jit.script(graph)


@contextmanager
def quiet() -> Iterator[None]:
    """Without what TorchScript says of classes that are not ours, and of itself being deprecated."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The TorchScript type system", UserWarning)
        warnings.filterwarnings("ignore", ".torch.jit", DeprecationWarning)
        yield


def samples(potential: Potential, sizes: tuple[int, ...]) -> list[Structure]:
    """Rattled lattices of so many atoms of all its elements, half a cutoff apart, periodic."""
    generator = np.random.default_rng(0)
    step, found = 0.5 * potential.model.cutoff, []
    for n in sizes:
        shape = np.array([3, 3, n // 9])
        x = step * np.indices((3, 3, n // 9)).reshape(3, -1).T
        x = x + 0.05 * step * generator.normal(size=x.shape)
        species = np.array(potential.model.species)[np.arange(len(x)) % len(potential.model.species)]
        found.append(Structure(species, x, step * np.diag(shape).astype(float), np.ones(3, dtype=bool)))
    return found


def checked(run: Callable[..., Any], potential: Potential) -> None:
    """ConfigError where the energies, forces and virials that `run` makes of inputs are not those of the
    potential, at sizes that were not traced."""
    # of compositions like these the energy may be undetermined, which is no matter here
    silent = replace(potential, references_from=None)
    for sizes in ((54,), (18, 45, 27)):
        structures = samples(potential, sizes)
        ours = silent.predict(structures, stress=True)
        try:
            energy, _, forces, virial = run(*inputs_of(potential, structures))
        except Exception as error:  # a size that was frozen
            raise ConfigError(_refusal(potential, error)) from error
        assert ours.stress is not None
        volume = np.linalg.det(np.stack([np.asarray(s.cell) for s in structures])).reshape(-1, 1, 1)
        for found, wanted in ((energy, ours.energy), (forces, ours.forces), (virial, ours.stress * volume)):
            off = np.abs(found.detach().numpy() - wanted).max() / max(np.abs(wanted).max(), 1e-3)
            if not off < TOLERANCE:
                raise ConfigError(_refusal(potential, f"numbers are off by {off:.1e}"))


def _refusal(potential: Potential, error: object) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return (
        f"a potential of the family {potential.config.kind!r} cannot be traced as a graph that fits all "
        f"sizes ({lines[-1].strip()[:120]}); geat, allegro and transformer can; take another form, as "
        "--to ase"
    )
