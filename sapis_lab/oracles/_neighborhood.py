"""Energy, forces and stress of a potential that is a function of the vectors between neighbours: what the
potentials of our own share.

With v_ij = x_j + S cell - x_i for every ordered pair (i, j, S) within the cutoff and G_ij = dE/dv_ij by
automatic differentiation in float64,

    F_i = Σ_j (G_ij - G_ji),        stress = (1/V) Σ_ij v_ij ⊗ G_ij        (positive is tension),

which holds with periodic boundaries too, also where the cutoff exceeds the cell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sapis_lab.data import SYMBOLS
from sapis_lab.neighbors import neighbor_list
from sapis_lab.oracles._base import Failed, Labels

if TYPE_CHECKING:
    from torch import Tensor

NUMBERS = {symbol: z for z, symbol in enumerate(SYMBOLS) if z}
"""Atomic numbers by symbol."""


class Neighborhood(NamedTuple):
    """All ordered pairs of one structure."""

    vectors: Tensor
    """(n_pairs, 3) float64, Å, v_ij."""
    center: Tensor
    """(n_pairs,) int64, the atom i; ascending."""
    neighbor: Tensor
    """(n_pairs,) int64, the atom j."""
    kind: Tensor
    """(n_atoms,) int64, the place of an atom's element among those that the potential knows."""

    def triplets(self) -> tuple[Tensor, Tensor]:
        """Pairs of different pairs (i, j), (i, k) with the same center, each (n_triplets,) int64."""
        import torch

        center = self.center.numpy()
        count = np.bincount(center, minlength=len(self.kind))
        start = np.cumsum(count) - count
        of_pair = count[center]
        first = np.repeat(np.arange(len(center)), of_pair)
        within = np.arange(len(first)) - np.repeat(np.cumsum(of_pair) - of_pair, of_pair)
        second = start[center[first]] + within
        different = first != second
        return torch.from_numpy(first[different]), torch.from_numpy(second[different])


def known_elements(elements: tuple[str, ...], species: np.ndarray, *, oracle: str) -> np.ndarray:
    """The place of every atom's element in `elements`, (n_atoms,).

    Raises:
        ValueError: an element that the potential does not know.
    """
    places = {NUMBERS[symbol]: k for k, symbol in enumerate(elements)}
    unknown = sorted({SYMBOLS[int(z)] for z in species if int(z) not in places})
    if unknown:
        raise ValueError(
            f"oracle {oracle!r} has parameters for {', '.join(elements)}, got {', '.join(unknown)} as well"
        )
    return np.array([places[int(z)] for z in species], dtype=np.int64)


def differentiated(
    energy: Callable[[Neighborhood], Tensor],
    kind: np.ndarray,
    positions: np.ndarray,
    *,
    cell: np.ndarray | None,
    pbc: np.ndarray | None,
    cutoff: float,
) -> Labels | Failed:
    """The labels of one structure; the stress where all three directions are periodic.

    Args:
        energy: of all pairs, eV, a scalar.   kind: (n_atoms,), see `Neighborhood`.
        positions, cell, pbc: as of `OracleConfig.label`.   cutoff: Å.
    """
    import torch

    x = np.asarray(positions, dtype=np.float64)
    periodic = np.zeros(3, dtype=bool) if pbc is None else np.broadcast_to(np.asarray(pbc, bool), (3,))
    box = np.zeros((3, 3)) if cell is None else np.asarray(cell, dtype=np.float64)
    pairs = neighbor_list(x, box, periodic, cutoff)
    i, j = pairs.center.astype(np.int64), pairs.neighbor.astype(np.int64)
    v = x[j] - x[i]
    if periodic.any():
        v = v + pairs.shift @ box
    vectors = torch.from_numpy(v).requires_grad_()
    total = energy(Neighborhood(vectors, torch.from_numpy(i), torch.from_numpy(j), torch.from_numpy(kind)))
    gradient = np.zeros_like(v)
    if len(v):
        (found,) = torch.autograd.grad(total, vectors)
        gradient = found.numpy()
    value = float(total.detach())
    if not (np.isfinite(value) and np.isfinite(gradient).all()):
        return Failed("the energy or a force is not finite; atoms may lie on top of each other")
    forces = np.zeros_like(x)
    np.add.at(forces, i, gradient)
    np.subtract.at(forces, j, gradient)
    if not periodic.all():
        return Labels(value, forces)
    stress = v.T @ gradient / abs(np.linalg.det(box))
    return Labels(value, forces, stress=0.5 * (stress + stress.T))
