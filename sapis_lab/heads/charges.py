"""Dipole moments of neutral frames from latent charges of the atoms, mu = sum_i q_i r_i.

The charges of a frame add up to zero, whatever the network says, so that the moment does not depend on the
origin (Unke & Meuwly, arXiv:1902.08408, eq. 14 and 15); they turn with nothing, and the moment turns with the
frame. What charges cannot describe, the dipoles of the atoms themselves, `tensor` can.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from sapis_lab.atoms import AtomsBatch
from sapis_lab.heads._base import Head, HeadConfig, Perceptron
from sapis_lab.targets import Target


class ChargesConfig(HeadConfig):
    """A vector per frame, as the moment of latent charges."""

    kind: Literal["charges"] = "charges"
    open_only: ClassVar[bool] = True  # the moment changes with the cell that an atom is put into

    def build(self, target: Target, *, n_features: int, cutoff: float) -> Head:
        if target.per != "frame" or target.rank != 1:
            raise ValueError(
                f"train.heads.{target.key}: latent charges make a vector per frame, the target is of rank "
                f"{target.rank} per {target.per}"
            )
        return ChargesHead(self, n_features)


class ChargesHead(Head):
    """mu = sum_i (q_i - mean q) r_i with q_i = a MLP(x_i)."""

    def __init__(self, config: ChargesConfig, n_features: int) -> None:
        super().__init__()
        # a constant charge of all atoms is taken out again
        self.network = Perceptron(n_features, config.hidden, bias=False)

    def charges(self, node_features: Tensor, batch: AtomsBatch) -> Tensor:
        """(A,) latent charges, in units of the label over Å; zero in sum over every frame."""
        own = self.atom_scale * self.network(node_features).squeeze(1)
        excess = self.summed(own, batch) / batch.n_atoms
        return own - excess.index_select(0, batch.batch)

    def forward(self, node_features: Tensor, batch: AtomsBatch) -> Tensor:
        charges = self.charges(node_features, batch)
        moments = charges.unsqueeze(1) * (batch.positions - self._center(batch)).to(charges.dtype)
        return self.summed(moments, batch)

    def _center(self, batch: AtomsBatch) -> Tensor:
        """(A, 3) the centre of the frame of every atom, which keeps digits and changes nothing else."""
        center = self.summed(batch.positions, batch) / batch.n_atoms.unsqueeze(1)
        return center.index_select(0, batch.batch)
