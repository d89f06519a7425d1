"""Scalars: a network of every atom's features, by atom, or summed or averaged over the atoms of a frame."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from sapis_lab.atoms import AtomsBatch
from sapis_lab.heads._base import Head, HeadConfig, Perceptron
from sapis_lab.targets import Target


class ScalarConfig(HeadConfig):
    """A scalar per atom or per frame."""

    kind: Literal["scalar"] = "scalar"
    pool: Literal["sum", "mean"] = "sum"
    """Of the atoms of a frame, where the target is per frame: sum for what grows with the number of atoms
    (heat capacity, polarisability), mean for what does not (a gap)."""

    def build(self, target: Target, *, n_features: int, cutoff: float) -> Head:
        if target.rank:
            raise ValueError(
                f"train.heads.{target.key}: a scalar head predicts scalars, the target has rank "
                f"{target.rank}; use kind: tensor"
            )
        return ScalarHead(self, n_features, per_atom=target.per == "atom")

    def sums_atoms(self, target: Target) -> bool:
        return target.per == "frame" and self.pool == "sum"


class ScalarHead(Head):
    """y_i = a MLP(x_i) + b(Z_i), by atom, or summed or averaged over a frame."""

    def __init__(self, config: ScalarConfig, n_features: int, *, per_atom: bool) -> None:
        super().__init__()
        self.per_atom, self.pool = per_atom, config.pool
        self.network = Perceptron(n_features, config.hidden)

    def forward(self, node_features: Tensor, batch: AtomsBatch) -> Tensor:
        own = self.atom_scale * self.network(node_features).squeeze(1)
        own = own + self.offset.index_select(0, batch.species)
        if self.per_atom:
            return own
        total = self.summed(own, batch)
        return total if self.pool == "sum" else total / batch.n_atoms
