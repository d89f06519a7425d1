"""A cheap linear potential of pair functions and of products of neighbour densities, with its derivatives:
the ruler that the checks hold labels against.

    E = Σ_pairs c_k φ_k(r_ij) + Σ_i Σ_{c≤c',l≤2} c_{cc'l} ⟨A_i^{cl}, A_i^{c'l}⟩ + Σ_i Σ_c c_c sqrt(A_i^{c0}),
    A_i^{cl} = Σ_j φ_m(r_ij) u_ij^{⊗l},        c = (m, element of j),  u = r/r,

the first terms of the atomic cluster expansion (Drautz, Phys. Rev. B 99 (2019) 014104) in Cartesian form.
Fitted by least squares to the forces of 150 frames it leaves 2 to 15 % of them in molecules, metals and
water, in a second; nothing is trained and no unit is assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sapis_lab.neighbors import neighbor_list

CUTOFF, ANGULAR_CUTOFF = 6.0, 4.0
"""Å: of pairs, of densities."""
MOST_ELEMENTS = 6
"""Beyond, pairs of elements are too many for the frames that are looked at."""
RIDGES = (1e-10, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3)
"""Over the largest eigenvalue of the scaled normal matrix; which is best is measured on held-out frames."""


class Structure(NamedTuple):
    species: np.ndarray
    """(n_atoms,)"""
    positions: np.ndarray
    """(n_atoms, 3), Å"""
    cell: np.ndarray
    """(3, 3), Å"""
    pbc: np.ndarray
    """(3,)"""


class Features(NamedTuple):
    energy: np.ndarray
    """(n_features,)"""
    gradient: np.ndarray
    """(3 n_atoms, n_features), d energy / d positions, 1/Å."""
    strain: np.ndarray
    """(n_features, 3, 3), d energy / d strain, symmetric; zeros where it was not asked for."""


def _radial(r: np.ndarray, n: int, *, first: float, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """`n` Gaussians in ln r that end smoothly at the cutoff, and their derivatives, (n_pairs, n)."""
    low, width = np.log(first), (np.log(cutoff) - np.log(first)) / n
    d = (np.log(r)[:, None] - (low + width * np.arange(n))) / width
    g, x = np.exp(-0.5 * d * d), np.clip(r / cutoff, 0, 1)[:, None]
    f, df = (1 - x * x) ** 3, -6 * x / cutoff * (1 - x * x) ** 2
    return g * f, -g * d / width / r[:, None] * f + g * df


class FewBody:
    """The functions for frames of given elements.

    Args:
        elements: atomic numbers, sorted.
    """

    def __init__(self, elements: Sequence[int]) -> None:
        self.elements = np.asarray(elements)
        n = len(self.elements)
        self.n_pair, n_radial = {1: (14, 5), 2: (10, 4)}.get(n, (10, 3))
        a, b = np.triu_indices(n)
        self.pair_of = np.zeros((n, n), dtype=int)
        self.pair_of[a, b] = self.pair_of[b, a] = np.arange(len(a))
        self.n_radial, self.by_element = n_radial, n <= 4
        self.n_channels = n_radial * (n if self.by_element else 1)
        self.first, self.second = np.triu_indices(self.n_channels)
        self.product_of = np.zeros((self.n_channels,) * 2, dtype=int)
        self.product_of[self.first, self.second] = np.arange(len(self.first))
        self.product_of[self.second, self.first] = np.arange(len(self.first))
        self.of_pairs = len(a) * self.n_pair
        self.of_center = 3 * len(self.first) + self.n_channels
        self.size = self.of_pairs + (n if self.by_element else 1) * self.of_center

    def __call__(self, frame: Structure, *, strain: bool = False) -> Features:
        z = np.searchsorted(self.elements, frame.species)
        i, j, shift = neighbor_list(frame.positions, frame.cell, frame.pbc, CUTOFF)
        i, j = i.astype(int), j.astype(int)
        v = frame.positions[j] + shift @ frame.cell - frame.positions[i]
        r = np.linalg.norm(v, axis=1)
        made = _Sums(len(z), self.size, strain=strain)
        self._pairs(made, z, i, j, v, r)
        near = r < ANGULAR_CUTOFF
        self._densities(made, z, i[near], j[near], v[near], r[near])
        gradient = made.gradient.reshape(len(z), self.size, 3).transpose(0, 2, 1).reshape(-1, self.size)
        return Features(made.energy, gradient, 0.5 * (made.strain + made.strain.transpose(0, 2, 1)))

    def _pairs(
        self, made: _Sums, z: np.ndarray, i: np.ndarray, j: np.ndarray, v: np.ndarray, r: np.ndarray
    ) -> None:
        g, dg = _radial(r, self.n_pair, first=0.7, cutoff=CUTOFF)
        column = self.pair_of[z[i], z[j]][:, None] * self.n_pair + np.arange(self.n_pair)
        made.energy += np.bincount(column.ravel(), 0.5 * g.ravel(), minlength=self.size)
        made.add(i, j, v, column, 0.5 * dg[:, :, None] * (v / r[:, None])[:, None, :])

    def _densities(
        self, made: _Sums, z: np.ndarray, i: np.ndarray, j: np.ndarray, v: np.ndarray, r: np.ndarray
    ) -> None:
        # E edges, N radial functions, C channels; a, b Cartesian
        n, n_c, u = len(z), self.n_channels, v / r[:, None]
        f, df = _radial(r, self.n_radial, first=0.9, cutoff=ANGULAR_CUTOFF)
        kind = z if self.by_element else np.zeros_like(z)
        channel = kind[j][:, None] * self.n_radial + np.arange(self.n_radial)
        rows = (i[:, None] * n_c + channel).ravel()

        def summed(weight: np.ndarray) -> np.ndarray:
            return np.bincount(rows, (f * weight[:, None]).ravel(), minlength=n * n_c).reshape(n, n_c)

        scalar = summed(np.ones(len(r)))
        vector = np.stack([summed(u[:, a]) for a in range(3)], -1)
        matrix = np.stack([np.stack([summed(u[:, a] * u[:, b]) for a in range(3)], -1) for b in range(3)], -1)
        one, other, root = self.first, self.second, np.sqrt(scalar + 1e-2)
        values = np.concatenate(
            [
                scalar[:, one] * scalar[:, other],
                (vector[:, one] * vector[:, other]).sum(-1),
                (matrix[:, one] * matrix[:, other]).sum((-1, -2)),
                root,
            ],
            axis=1,
        )
        center = self.of_pairs + kind * self.of_center
        np.add.at(made.energy, center[:, None] + np.arange(self.of_center), values)

        # An edge changes the densities of its own channels (E, N); a product of one of them with channel C
        # changes by the other factor, and with itself by twice that.
        column = self.product_of[channel[:, :, None], np.arange(n_c)] + center[i][:, None, None]
        twice = np.where(channel[:, :, None] == np.arange(n_c), 2.0, 1.0)[..., None]
        along, across = (twice * df[:, :, None, None]), twice * (f / r[:, None])[:, :, None, None]
        u_ = u[:, None, None, :]
        s, w, m = scalar[i], vector[i], matrix[i]
        made.add(i, j, v, column, along * s[:, None, :, None] * u_)
        wu = np.einsum("eca,ea->ec", w, u)
        side = w - wu[..., None] * u[:, None, :]
        made.add(i, j, v, column + len(one), along * wu[:, None, :, None] * u_ + across * side[:, None])
        mu = np.einsum("ecab,eb->eca", m, u)
        umu = np.einsum("eca,ea->ec", mu, u)
        side = 2 * (mu - umu[..., None] * u[:, None, :])
        made.add(i, j, v, column + 2 * len(one), along * umu[:, None, :, None] * u_ + across * side[:, None])
        change = (0.5 / root[i[:, None], channel] * df)[..., None] * u[:, None, :]
        made.add(i, j, v, center[i][:, None] + 3 * len(one) + channel, change)


class _Sums:
    """Sums over edges, by feature."""

    def __init__(self, n_atoms: int, size: int, *, strain: bool) -> None:
        self.n_atoms, self.size, self.with_strain = n_atoms, size, strain
        self.energy = np.zeros(size)
        self.gradient = np.zeros((n_atoms * size, 3))
        self.strain = np.zeros((size, 3, 3))

    def add(
        self, i: np.ndarray, j: np.ndarray, v: np.ndarray, column: np.ndarray, change: np.ndarray
    ) -> None:
        """`change` (n_edges, ..., 3) of the features `column` (n_edges, ...) with the vectors v of edges."""
        ones = (-1, *[1] * (column.ndim - 1))
        to_j, to_i = (
            (j.reshape(ones) * self.size + column).ravel(),
            (i.reshape(ones) * self.size + column).ravel(),
        )
        n = self.n_atoms * self.size
        for a in range(3):
            w = change[..., a].ravel()
            self.gradient[:, a] += np.bincount(to_j, w, minlength=n) - np.bincount(to_i, w, minlength=n)
            for b in range(3) if self.with_strain else ():
                weight = (v[:, b].reshape(ones) * change[..., a]).ravel()
                self.strain[:, b, a] += np.bincount(column.ravel(), weight, minlength=self.size)


def solved(normal: np.ndarray, right: np.ndarray) -> list[np.ndarray]:
    """Coefficients (n_features,) of the normal equations for every ridge of RIDGES."""
    scale = np.sqrt(np.diag(normal)) + 1e-12
    w, turn = np.linalg.eigh(normal / scale[:, None] / scale)
    w, b = np.maximum(w, 0), turn.T @ (right / scale)
    return [turn @ (b / (w + ridge * w[-1] + 1e-300)) / scale for ridge in RIDGES]
