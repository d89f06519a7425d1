"""What umbrella windows say of the surface without springs: profiles, populations, differences between
basins, each with errors that know how correlated the samples are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sapis_lab.free_energy._mbar import Mbar, mbar
from sapis_lab.free_energy._solve import Solved, log_sum, overlap, overlap_gap, self_consistent
from sapis_lab.free_energy._statistics import blocked_counts, statistical_inefficiency
from sapis_lab.free_energy._windows import Windows
from sapis_lab.geometry import coordinates

_BLOCK = 3.0
"""Length of a block that is drawn again, in statistical inefficiencies."""


class Umbrella:
    """Samples of the same windows from one or several walks, weighed together.

    Args:
        walks: (n_samples, R, C) each, coordinates in all windows.   kT: eV.
        most: samples of a window and walk that are used; more are thinned evenly.

    Raises:
        ValueError: the windows do not overlap (`self_consistent`).
    """

    def __init__(self, windows: Windows, walks: Sequence[np.ndarray], *, kT: float, most: int = 1000) -> None:
        self.windows, self.kT = windows, kT
        thin = [walk[:: max(1, -(-len(walk) // most))] for walk in walks]
        series = [walk[:, k] for k in range(len(windows.centers)) for walk in thin]
        self.values = np.concatenate(series)
        """(N, C)"""
        self.lengths = np.array([len(s) for s in series])
        self.inefficiencies = np.array([statistical_inefficiency(self._flat(s)) for s in series])
        """(R * n_walks,) of the samples of every window and walk."""
        self.n_samples = np.full(len(windows.centers), sum(len(walk) for walk in thin))
        self._u = windows.energies(self.values) / kT
        self.solved: Solved = self_consistent(self._u, self.n_samples)

    def _flat(self, series: np.ndarray) -> np.ndarray:
        """Coordinates without jumps at the ends of a circle, those of a torsion as cosine and sine."""
        columns = []
        for c, four in enumerate(self.windows.atoms):
            x = series[:, c]
            columns += [x] if coordinates.period(four) is None else [np.cos(x), np.sin(x)]
        return np.stack(columns, 1)

    def by_pymbar(self) -> Mbar:
        """The windows' free energies by pymbar, from samples thinned by their statistical inefficiencies."""
        ends = np.cumsum(self.lengths)
        kept = [
            np.arange(end - n, end, max(1, int(np.ceil(g))))
            for n, end, g in zip(self.lengths, ends, self.inefficiencies, strict=True)
        ]
        per_window = np.array([len(k) for k in kept]).reshape(len(self.windows.centers), -1).sum(1)
        return mbar(self._u[:, np.concatenate(kept)], per_window)

    def solver_difference(self) -> float:
        """Largest difference of the windows' free energies between pymbar and the solver here, of the same
        samples; eV."""
        return float(np.abs(mbar(self._u, self.n_samples).f - self.solved.f).max()) * self.kT

    def overlap_gap(self) -> float:
        """`overlap_gap` of the windows."""
        return overlap_gap(overlap(self._u, self.n_samples, self.solved))

    def population(self, inside: np.ndarray, solved: Solved | None = None) -> float:
        """Share of the configurations `inside` (N,) bool of the samples."""
        log_weights = (solved or self.solved).log_weights
        return float(np.exp(log_sum(log_weights[inside]) - log_sum(log_weights)))

    def difference(self, inside: np.ndarray, solved: Solved | None = None) -> float:
        """Free energy of what is `inside`, (N,) bool, minus that of all else; eV.

        Raises:
            ValueError: no samples are inside, or all.
        """
        log_weights = (solved or self.solved).log_weights
        a, b = log_sum(log_weights[inside]), log_sum(log_weights[~inside])
        if not np.isfinite(a - b):
            raise ValueError("a basin without samples has no free energy; wanted windows in it and outside")
        return float(self.kT * (b - a))

    def profile(self, column: int, edges: np.ndarray, solved: Solved | None = None) -> np.ndarray:
        """(n_bins,) eV: free energy of every bin of a coordinate, the least is zero; infinite without
        samples."""
        log_weights = (solved or self.solved).log_weights
        x = self.values[:, column]
        which = np.digitize(x, edges) - 1
        f = np.array([-log_sum(log_weights[which == k]) for k in range(len(edges) - 1)])
        return np.asarray(self.kT * (f - f.min()))

    def on_surface(self, difference: np.ndarray, solved: Solved | None = None) -> Solved:
        """The weights that the same samples have on another surface; `difference`, (N,) eV, is its energy
        minus that of the surface they were drawn on. Surfaces that are a few kT apart at most share enough
        samples: see `effective`."""
        solved = solved or self.solved
        return solved._replace(log_weights=solved.log_weights - difference / self.kT)

    def effective(self, difference: np.ndarray) -> float:
        """Share of the samples that count after `on_surface` (Kish): 1 where surfaces differ by a
        constant."""
        w = np.exp(-(difference - difference.min()) / self.kT)
        return float(w.sum() ** 2 / (len(w) * np.square(w).sum()))

    def resampled(
        self, statistic: Callable[[Solved], float | np.ndarray], *, n: int, seed: int
    ) -> np.ndarray:
        """(n, ...) `statistic` of samples drawn again in blocks of three statistical inefficiencies: their
        standard deviation is the standard error."""
        generator = np.random.default_rng(seed)
        blocks = np.ceil(_BLOCK * self.inefficiencies).astype(int)
        found = []
        for _ in range(n):
            counts = blocked_counts(self.lengths, blocks, generator)
            solved = self_consistent(
                self._u, self.n_samples, counts=counts, start=self.solved.f, tolerance=1e-5
            )
            found.append(statistic(solved))
        return np.array(found)


def within(
    values: np.ndarray, box: Sequence[tuple[float, float] | None], atoms: Sequence[tuple[int, ...]]
) -> np.ndarray:
    """(N,) bool: values (N, C) in a box of intervals, one for each coordinate, None for all; an interval of a
    circle may run through its end, as (150°, -150°)."""
    inside = np.ones(len(values), dtype=bool)
    for c, (interval, four) in enumerate(zip(box, atoms, strict=False)):
        if interval is None:
            continue
        low, high = interval
        p = coordinates.period(four)
        if p is None:
            inside &= (values[:, c] >= low) & (values[:, c] < high)
        else:
            width = (high - low) % p or p
            inside &= (values[:, c] - low) % p < width
    return inside
