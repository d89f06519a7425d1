"""What every head is: settings that build it for a target, and a map from features of atoms to labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import silu

from sapis_lab.atoms import AtomsBatch
from sapis_lab.config import KindConfig
from sapis_lab.targets import Target

MOST_HIDDEN = 10**5


class Head(nn.Module, ABC):
    """Predicts one target from the features of the atoms.

    Outputs are in the units of the labels: `scale` is the spread of the training labels (the unit of the
    loss), `atom_scale` what one atom contributes to it, `offset` a constant for every element, which an atom
    brings (`normalise`).
    """

    scale: Tensor
    atom_scale: Tensor
    offset: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("atom_scale", torch.ones(()))
        self.register_buffer("offset", torch.zeros(119))

    def normalise(self, *, scale: float, atom_scale: float, offset: Mapping[int, float]) -> None:
        """Set the size of the outputs: what was measured on the training labels.

        Args:
            scale: their spread.   atom_scale: the contribution of an atom to it.   offset: constants by
                atomic number.
        """
        self.scale.fill_(scale)
        self.atom_scale.fill_(atom_scale)
        for z, value in offset.items():
            self.offset[z] = value

    @abstractmethod
    def forward(self, node_features: Tensor, batch: AtomsBatch) -> Tensor:
        """Labels of the frames (B, ...) or atoms (A, ...) from features (A, F)."""

    def summed(self, per_atom: Tensor, batch: AtomsBatch) -> Tensor:
        """(A, ...) -> (B, ...), sums over the atoms of every frame."""
        return per_atom.new_zeros(batch.n_frames, *per_atom.shape[1:]).index_add(0, batch.batch, per_atom)


class HeadConfig(KindConfig):
    """Settings of a head; subclasses are the kinds."""

    open_only: ClassVar[bool] = False
    """Whether the outputs mean nothing in periodic frames, as those that positions enter."""

    hidden: int = Field(default=32, ge=1, le=MOST_HIDDEN)
    """Width of its hidden layer."""

    @abstractmethod
    def build(self, target: Target, *, n_features: int, cutoff: float) -> Head:
        """The head for `target`, drawing from the global generator.

        Args:
            n_features: F of the trunk.   cutoff: of its neighbourhoods, Å.

        Raises:
            ValueError: this kind cannot predict that target.
        """

    def sums_atoms(self, target: Target) -> bool:
        """Whether the label of a frame is a sum over its atoms, so that each element has a constant."""
        return False


class Perceptron(nn.Module):
    """F -> hidden -> 1, with SiLU; `bias`: of the output. The last layer starts small, so that a head starts
    near its offset."""

    def __init__(self, n_in: int, hidden: int, *, bias: bool = True) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(n_in, hidden), nn.Linear(hidden, 1, bias=bias)
        nn.init.normal_(self.outer.weight, std=0.1 / hidden**0.5)
        if bias:
            nn.init.zeros_(self.outer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., n_in) -> (..., 1)."""
        out: Tensor = self.outer(silu(self.inner(x)))
        return out


def attach(model: nn.Module, target: Target, config: HeadConfig) -> None:
    """Give `model` a head for `target`, in `model.heads`.

    Raises:
        ValueError: the head cannot predict the target, or the model does not say how many features it has.
    """
    n_features, cutoff = int(getattr(model, "n_features", 0)), float(getattr(model, "cutoff", 0.0))
    if not n_features:
        raise ValueError(
            f"{type(model).__name__} has no n_features, the number of its node features, which a head reads; "
            f"its kind cannot learn {target.key}"
        )
    heads = model.heads
    assert isinstance(heads, nn.ModuleDict)
    heads[place_of(target.key)] = config.build(target, n_features=n_features, cutoff=cutoff)


def apply(heads: Mapping[str, Head], node_features: Tensor, batch: AtomsBatch) -> dict[str, Tensor]:
    """What every head predicts, by the keys of their targets."""
    return {key: head(node_features, batch) for key, head in heads.items()}


def head_of(model: nn.Module, key: str) -> Head:
    """The head of the target `key`."""
    heads = model.heads
    assert isinstance(heads, nn.ModuleDict)
    head = heads[place_of(key)]
    assert isinstance(head, Head)
    return head


def place_of(key: str) -> str:
    """The name of a target's head in `model.heads`, which is none of ModuleDict's own attributes."""
    return f"to_{key}"
