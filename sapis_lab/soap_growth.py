"""The state of SOAP (`sapis_lab/soap.py`) for a parameter that has grown.

A matrix G of gradients becomes G' = S G T^T, in which S and T lay old rows and columns in their new places;
new rows and columns have no past. With sides longer than a block the past is known block by block, and the
blocks of the new matrix may cut it elsewhere. A new block with the rows I and the columns J has

    covariances   L' = sum over old blocks b of  w_b S_b L_b S_b^T,      w_b = sum_{j in J} R_b[jj] / tr R_b,
                  the share of the squared gradients of b that is in its columns; R' alike. So their traces
                  are exact. Zero is new rows, and what rows of different old blocks have in common, which
                  nobody has measured.
    bases         the old one where the block has all rows of one old block and of no other; else the
                  eigenvectors of L'. New rows get unit vectors.
    momentum      M' = sum over b of  A_b M_b B_b^T,      A_b = Q'_L^T S_b Q_L, B_b alike: turned back, laid
                  and turned again.
    second        V' = sum over b of  (A_b o A_b) V_b (B_b o B_b)^T: entries of the turned gradient are taken
    moments       as uncorrelated, as SOAP takes them.

Where no block is cut elsewhere that is the old state, bit by bit, with zeros and unit vectors for what is
new. Zeros are safe here, unlike Adam's: where both moments decay alike, the first one is never larger than
the root of the second. All matrices go on with one count of steps, which a stack of them shares.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sapis_lab.kernels.soap import STATE
from sapis_lab.soap import is_matrix, parts


class _Part(NamedTuple):
    """Rows (or columns) of a matrix that are those of a block."""

    start: int
    length: int
    """with what fills the last one up"""

    def lay(self, old: _Part, source: Tensor) -> Tensor:
        """S (length, length of `old`): 1 where a row of this part was one of `old`; source (M,): the old
        position of every row, -1 where there was none."""
        mine = source[self.start : self.start + self.length]
        new = torch.nonzero((mine >= old.start) & (mine < old.start + old.length)).view(-1)
        laid = torch.zeros(self.length, old.length, dtype=torch.float64)
        laid[new, mine[new] - old.start] = 1
        return laid


class _Past(NamedTuple):
    """An old block as a new one has it."""

    rows: Tensor
    """S_b (m', m)"""
    columns: Tensor
    """T_b (n', n)"""
    state: dict[str, Tensor]
    """by the names of STATE, float64"""


def grown_matrices(
    past: Mapping[str, Tensor] | None,
    shape: Sequence[int],
    *,
    old_shape: Sequence[int],
    axes: Sequence[Tensor],
    scale: float,
    block: int,
) -> dict[str, Tensor]:
    """The state of a parameter of this `shape`, (..., M, N), but for its count of steps; float64.

    Args:
        past: of the old parameter; None where there was none.   axes: the old position of every new one on
        every axis, -1 where there was none.   scale: new gradients over old ones.
        block: longest side of a block.
    """
    rows, columns = (_parts(side, block) for side in shape[-2:])
    if past is None or not is_matrix(tuple(old_shape)):  # a vector had no bases
        n = math.prod(shape[:-2])
        made = [_block([], i.length, j.length, scale=1.0) for i in rows for j in columns] * n
    else:
        cuts = list(itertools.product(*(_parts(side, block) for side in old_shape[-2:])))
        states = [{key: past[key][k].double().cpu() for key in STATE} for k in range(len(past[STATE[0]]))]
        *stack, of_rows, of_columns = (axis.cpu() for axis in axes)
        made = []
        for matrix in _matrices(stack, old_shape[:-2]):
            known = [] if matrix is None else states[matrix * len(cuts) : (matrix + 1) * len(cuts)]
            for i, j in itertools.product(rows, columns):
                seen = [
                    _Past(i.lay(a, of_rows), j.lay(b, of_columns), state)
                    for (a, b), state in zip(cuts, known, strict=bool(known))
                ]
                seen = [p for p in seen if p.rows.any() and p.columns.any()]
                made.append(_block(seen, i.length, j.length, scale=scale))
    return {key: torch.stack([one[key] for one in made]) for key in STATE}


def _parts(side: int, block: int) -> list[_Part]:
    n, length = parts(side, block)
    return [_Part(k * length, length) for k in range(n)]


def _matrices(axes: Sequence[Tensor], old: Sequence[int]) -> Iterator[int | None]:
    """For every matrix of a stack which one of the old stack it was; None where there was none."""
    for index in itertools.product(*(axis.tolist() for axis in axes)):
        place = 0
        for k, n in zip(index, old, strict=True):
            place = place * n + k
        yield None if any(k < 0 for k in index) else place


def _block(seen: Sequence[_Past], m: int, n: int, *, scale: float) -> dict[str, Tensor]:
    """The state of one new block (m, n)."""
    left, right = (torch.zeros(side, side, dtype=torch.float64) for side in (m, n))
    mean, square = (torch.zeros(m, n, dtype=torch.float64) for _ in range(2))
    for rows, columns, state in seen:
        of_left, of_right = state["covariance_left"], state["covariance_right"]
        left += _share(of_right, columns) * rows @ of_left @ rows.T
        right += _share(of_left, rows) * columns @ of_right @ columns.T
    basis_left, turns_left = _turned(left, [(p.rows, p.state["basis_left"]) for p in seen])
    basis_right, turns_right = _turned(right, [(p.columns, p.state["basis_right"]) for p in seen])
    for past, a, b in zip(seen, turns_left, turns_right, strict=True):
        mean += a @ past.state["exp_avg"] @ b.T
        square += a.square() @ past.state["exp_avg_sq"] @ b.square().T
    values = (scale * mean, scale**2 * square, scale**2 * left, basis_left, scale**2 * right, basis_right)
    return dict(zip(STATE, values, strict=True))


def _share(covariance: Tensor, lay: Tensor) -> Tensor:
    """Of the squared gradients of an old block what lies in the columns (or rows) that were laid, ()."""
    squares = covariance.diagonal()
    total = squares.sum()
    return (lay.sum(0) * squares).sum() / total if total > 0 else total


def _turned(covariance: Tensor, old: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, list[Tensor]]:
    """The basis of a side of a block, and for every old block what turns the basis that it had into that
    one.

    Args:
        old: for every old block how its rows are laid, and its basis.
    """
    one = torch.eye(len(covariance), dtype=torch.float64)
    known = torch.zeros(len(covariance), dtype=torch.bool)
    for lay, _ in old:
        known |= lay.any(1)
    if len(old) == 1 and bool((old[0][0].sum(0) == 1).all()):
        lay, basis = old[0]
        return torch.cat([lay @ basis, one[:, ~known]], 1), [one[:, : len(basis)]]
    vectors = torch.zeros_like(one)[:, : int(known.sum())]
    size = covariance.trace().clamp_min(1e-30)
    vectors[known] = torch.linalg.eigh(covariance[known][:, known] / size)[1].flip(-1)
    new = torch.cat([vectors, one[:, ~known]], 1)
    return new, [new.T @ lay @ basis for lay, basis in old]
