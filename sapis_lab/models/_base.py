"""What every model is: settings that build it at any size, energies by atoms, and a declared symmetry.

A model maps a batch to the interaction energy of every frame (reference energies of the species are added
outside, in float64). It never computes forces: `sapis_lab.derivatives.predict` does, for all models alike.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from sapis_lab import kernels
from sapis_lab.atoms import AtomsBatch, Layout
from sapis_lab.config import MOST_NAME, KindConfig, dump, load

TOLERANCE = 0.10
"""How nearly `at_size` meets the request, as |N / request - 1|."""
TOLERANCE_SMALL = 0.25
"""The same below 10^4 parameters, where widths are small whole numbers."""


MOST_WIDTH, MOST_LAYERS, MOST_RADIAL = 10**6, 100, 1024
"""Largest widths, numbers of layers and of radial functions of any model."""


class Output(NamedTuple):
    """What a model returns."""

    energy: Tensor | None
    """(B,) interaction energy of every frame, eV; None of a model that does not learn energies"""
    atomic_energy: Tensor | None
    """(A,) its parts, by atoms, eV; None likewise"""
    node_features: Tensor
    """(A, F) invariant features of every atom, which further readouts may use"""
    extras: dict[str, Tensor]
    """taps on request, such as attention weights"""


class Flops(NamedTuple):
    """Operations of one forward pass (a multiply-add counts two)."""

    matmul: int
    """matrix products, what torch's FLOP counter sees"""
    elementwise: int
    """estimate of everything else: elementwise work, reductions, gathers"""


class Origin(NamedTuple):
    """Where one parameter of a grown model comes from."""

    name: str | None
    """its name in the old model; None where there was none, in an inserted layer"""
    axes: tuple[Tensor, ...]
    """for every axis (n_new,) int64: the old position of each new one, -1 where there was none"""
    zero: Tensor
    """bool, broadcasts to the parameter: where an entry without an old value starts at zero; elsewhere it is
    drawn as at birth"""


class Growth(NamedTuple):
    """How to build a larger model that computes the same function."""

    config: ModelConfig
    """its settings, with what it must remember of its birth"""
    mean_neighbors: float
    """what the model was built with"""
    origins: dict[str, Origin]
    """of every parameter, by its name in the larger model"""


class Model(nn.Module, ABC):
    """An interatomic potential without its derivatives.

    Subclasses implement `atomic_energy`; those with geometry features of their own also override `features`
    and `features_and_pullback`, for which the displacement itself is the plain case.
    """

    symmetry: ClassVar[Literal["O(3)", "none"]]
    """The group under which energies are invariant by construction."""
    layout: ClassVar[Layout]
    """The layout of the neighbour graph that the model computes with."""
    n_features: int = 0
    """F, the number of node features, which heads read; 0 of a model that does not say."""

    energy_scale: Tensor
    species_row: Tensor

    def __init__(self, *, species: tuple[int, ...], cutoff: float) -> None:
        super().__init__()
        self.species, self.cutoff = tuple(species), float(cutoff)
        self.gives_energy = True
        self.heads = nn.ModuleDict()
        lookup = torch.full((119,), len(species))
        lookup[torch.tensor(species)] = torch.arange(len(species))
        self.register_buffer("species_row", lookup, persistent=False)
        self.register_buffer("energy_scale", torch.ones(()))

    @property
    def n_species(self) -> int:
        """Number of species the model knows."""
        return len(self.species)

    def one_hot(self, species: Tensor) -> Tensor:
        """(A,) atomic numbers -> (A, n_species); zero rows for padding (atomic number 0)."""
        eye = torch.eye(self.n_species + 1, dtype=self.energy_scale.dtype, device=species.device)
        return eye[:, : self.n_species].index_select(0, self.species_row.index_select(0, species))

    def features(self, vectors: Tensor, batch: AtomsBatch) -> tuple[Tensor, ...]:
        """Geometry features of the displacements (layout of `graph.vectors`), differentiable; by default the
        displacements themselves."""
        return (vectors,)

    def features_and_pullback(
        self, vectors: Tensor, batch: AtomsBatch
    ) -> tuple[tuple[Tensor, ...], Callable[..., Tensor]]:
        """Features without a graph, and the map from their gradients to dE/dvectors (linear, differentiable
        in the gradients)."""
        return (vectors,), lambda gradient: gradient

    @abstractmethod
    def atomic_energy(
        self, features: tuple[Tensor, ...], batch: AtomsBatch
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Energies per atom (A,) before `energy_scale`, invariant node features (A, F), and extras."""

    def evaluate(self, features: tuple[Tensor, ...], batch: AtomsBatch) -> Output:
        """Energies of the frames from the geometry features."""
        atomic, node_features, extras = self.atomic_energy(features, batch)
        if not self.gives_energy:
            return Output(None, None, node_features, extras)
        atomic = atomic * self.energy_scale
        energy = atomic.new_zeros(batch.n_frames).index_add(0, batch.batch, atomic)
        return Output(energy, atomic, node_features, extras)

    def kernel_shape(self) -> object | None:
        """What a compiled form must know of this model, of a class in `sapis_lab.kernels.shapes`; by default
        there is none, and autograd differentiates `evaluate`."""
        return None

    def kernel(self, device: torch.device) -> str:
        """What computes this model's training step on `device`: 'PyTorch', or the name of a compiled form
        ('C++')."""
        found = kernels.find(self, device)
        return "PyTorch" if isinstance(found, kernels.Refusal) else found.name

    def why_no_kernel(self, device: torch.device) -> str | None:
        """Why PyTorch computes it there ('lmax 4 > 3', 'no C++ compiler found: ...'); None where a compiled
        form does."""
        found = kernels.find(self, device)
        return found.reason if isinstance(found, kernels.Refusal) else None

    def energy_and_gradient(self, vectors: Tensor, batch: AtomsBatch) -> tuple[Tensor, Tensor, Tensor] | None:
        """Energies per atom (A,), dE/dvectors and node features by the compiled form for this device, all
        once differentiable in the parameters; None where there is none."""
        found = kernels.find(self, vectors.device)
        if isinstance(found, kernels.Refusal):
            return None
        return found(
            vectors,
            graph=batch.graph,
            n_atoms=batch.n_atoms,
            species=self.species_row.index_select(0, batch.species),
            parameters=dict(self.named_parameters()),
            energy_scale=self.energy_scale,
        )

    def forward(self, batch: AtomsBatch) -> Output:
        """Energies, differentiable in the positions to any order (slower than `derivatives.predict` where
        forces are wanted)."""
        return self.evaluate(self.features(batch.graph.vectors(batch.positions, batch.cell), batch), batch)

    @abstractmethod
    def equivariant_parameters(self) -> Iterator[str]:
        """Names of the parameters that act on features of degree l > 0 (or weigh couplings of them); the rest
        are scalar."""

    def energy_parameters(self) -> Iterator[str]:
        """Names of the parameters that energies alone depend on, not the node features: the readout."""
        return iter(())

    def forgo_energy(self) -> None:
        """Learn and give no energies from here on: the readout is not trained, and not counted in N."""
        self.gives_energy = False
        readout = set(self.energy_parameters())
        for name, parameter in self.named_parameters():
            if name in readout:
                parameter.requires_grad_(False)

    def multipliers(self) -> dict[str, float]:
        """m by parameter name: the model computes with W = m p, so that a step of Adam on p changes W by m
        times the learning rate."""
        return {name: 1.0 for name, _ in self.named_parameters()}

    def growth(self, to: ModelConfig) -> Growth:
        """How this model grows to the sizes of `to` without changing its function; see `sapis_lab.growth`.

        Raises:
            ValueError: `to` is smaller or another function; the family does not grow.
        """
        raise ValueError(
            f"{type(self).__name__} does not grow: its family has no `growth`; of the model kinds, geat has"
        )

    def count(self) -> dict[str, int]:
        """N by group: 'equivariant' and 'scalar', which add up to all trainable parameters."""
        sizes = {name: p.numel() for name, p in self.named_parameters() if p.requires_grad}
        equivariant = set(self.equivariant_parameters())
        unknown = equivariant - set(sizes)
        assert not unknown, (
            f"equivariant_parameters names {sorted(unknown)}, which are no trainable parameters"
        )
        return {
            "equivariant": sum(n for name, n in sizes.items() if name in equivariant),
            "scalar": sum(n for name, n in sizes.items() if name not in equivariant),
        }


class ModelConfig(KindConfig):
    """Settings of a model family; `build` makes the model, `at_size` chooses its widths for a number of
    parameters."""

    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=MOST_NAME)
    """Name in tables and figures; by default the kind and, for equivariant families, its largest degree
    (`geat-l2`)."""
    cutoff: float = Field(default=5.0, ge=0.1, le=100)
    """Radius of the neighbourhoods, Å."""

    symmetry: ClassVar[Literal["O(3)", "none"]] = "O(3)"
    channel_step: ClassVar[int] = 1
    """Channels come in multiples of this."""

    @property
    def label(self) -> str:
        """Name in tables and figures."""
        degree = getattr(self, "lmax", None)
        return self.name or (self.kind if degree is None else f"{self.kind}-l{degree}")

    def build(self, *, species: tuple[int, ...], mean_neighbors: float, seed: int) -> Model:
        """The model with random parameters drawn from `seed`; the global random state is left as it was.

        Args:
            species: atomic numbers it must know, ascending.   mean_neighbors: average number of neighbours
                within the cutoff, which sets the size of sums over neighbours.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            # isolated atoms have none, and sums are divided by it
            return self._build(tuple(species), max(mean_neighbors, 1.0))

    @abstractmethod
    def _build(self, species: tuple[int, ...], mean_neighbors: float) -> Model:
        """The model, drawing from the global generator, which `build` has seeded."""

    @abstractmethod
    def resized(self, channels: int, secondary: float) -> Self:
        """These settings with `channels` channels and the secondary widths (networks, heads, radial
        functions) that go with them, times `secondary`."""

    def widened(self, equivariant: float, scalar: float) -> Self:
        """These settings with the widths of equivariant maps times `equivariant` and those of scalar networks
        times `scalar`, no width smaller than it was."""
        raise ValueError(
            f"the settings of {self.label} do not say which widths are equivariant (`widened`); of the model "
            f"kinds, geat's do"
        )

    def without_storage(self, n_species: int) -> Model:
        with torch.device("meta"):
            return self._build(tuple(range(1, n_species + 1)), 1.0)

    @property
    def layout(self) -> Layout:
        """The layout of the neighbour graph that its model computes with."""
        return self.without_storage(1).layout

    def n_params(self, *, n_species: int) -> int:
        """Exact number of trainable parameters, counted on a model without storage."""
        return sum(p.numel() for p in self.without_storage(n_species).parameters() if p.requires_grad)

    @abstractmethod
    def flops(self, *, n_atoms: int, n_pairs: int, n_species: int) -> Flops:
        """Operations of one forward pass over `n_atoms` rows and `n_pairs` pairs (slots or edges), as the
        layout computes them."""

    def at_size(self, n_params: float, *, n_species: int) -> Self:
        """These settings with widths that give `n_params` parameters as nearly as whole widths allow.

        Raises:
            ValueError: beyond 10 % (25 % below 10^4) of the request; names the smallest or nearest size.
        """
        best, best_cost = None, math.inf
        for candidate, count, secondary in self._candidates(n_params, n_species):
            cost = abs(math.log(count / n_params)) + 0.15 * abs(math.log(secondary))
            if cost < best_cost:
                best, best_cost, best_count = candidate, cost, count
        tolerance = TOLERANCE_SMALL if n_params < 1e4 else TOLERANCE
        if best is None or abs(best_count / n_params - 1) > tolerance:
            smallest = min(
                self.resized(self.channel_step, s).n_params(n_species=n_species) for s in _SECONDARY
            )
            near = "" if best is None else f", nearest {best_count}"
            raise ValueError(
                f"n_params={n_params:g} cannot be met within {tolerance:.0%} by {self.label} with "
                f"{n_species} species: "
                f"its smallest size is {smallest} parameters{near}; change lattice.n_params or the settings "
                f"of {self.label}"
            )
        # `resized` does not check what it makes
        return load(type(self), dump(best), source=f"n_params={n_params:g} for {self.label}")  # type: ignore[no-any-return]

    def _candidates(self, n_params: float, n_species: int) -> Iterator[tuple[Self, int, float]]:
        """Sizes around the request: for every secondary factor, the two channel counts whose N bracket it."""
        for secondary in _SECONDARY:

            def count(step: int, s: float = secondary) -> int:
                return self.resized(step * self.channel_step, s).n_params(n_species=n_species)

            low, high = 1, 2
            while count(high) < n_params:
                low, high = high, 2 * high
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if count(middle) < n_params else (low, middle)
            for step in (low, high):
                yield self.resized(step * self.channel_step, secondary), count(step), secondary


_SECONDARY = (1.0, 0.9, 1.1, 0.8, 1.25, 0.7, 1.4, 0.6, 0.5)
"""Factors on the secondary widths that `at_size` tries, the plain case first."""
