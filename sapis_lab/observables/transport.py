"""Mean squared displacements and diffusion: F frames of A atoms, Å and fs.

1 Å²/fs = 0.1 cm²/s (`CM2_PER_S`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sapis_lab import units

CM2_PER_S = 0.1
"""cm²/s in an Å²/fs."""
XI = 2.837297
"""ξ of a cubic box (Yeh & Hummer, J. Phys. Chem. B 108, 15873, 2004)."""


def unwrapped(positions: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """(F, A, 3) paths that go on through periodic boundaries, from frames in which atoms were wrapped; right
    where no atom moves by half of a lattice vector between two frames.

    Args:
        positions: (F, A, 3) Å.   cell: (3, 3) or (F, 3, 3) Å; of a changing cell, fractions are followed.
    """
    x = np.asarray(positions, dtype=float)
    cells = np.broadcast_to(np.asarray(cell, dtype=float), (len(x), 3, 3))
    fractions = x @ np.linalg.inv(cells)
    steps = np.diff(fractions, axis=0)
    fractions[1:] = fractions[0] + np.cumsum(steps - np.round(steps), axis=0)
    return fractions @ cells


def mean_squared_displacement(positions: np.ndarray, *, masses: np.ndarray | None = None) -> np.ndarray:
    """(F,) < |x(t + s) - x(t)|² > over atoms and all time origins t, Å², by Fourier transforms in F log F
    (Kneller et al., Comput. Phys. Commun. 91, 191, 1995; Calandrini et al., Coll. SFN 12, 201, 2011).

    Args:
        positions: (F, A, 3), unwrapped.   masses: (A,); the centre of mass is then at rest, which takes 1/A
            of what independent atoms would do.
    """
    x = np.array(positions, dtype=float)
    if masses is not None:
        x -= np.einsum("a,fai->fi", np.asarray(masses) / np.sum(masses), x)[:, None]
    x -= x.mean(0)  # smaller numbers lose fewer digits
    n = len(x)
    squared = (x**2).sum(-1)
    spectrum = np.fft.rfft(x, n=2 * n, axis=0)
    correlation = np.fft.irfft((spectrum * spectrum.conj()).real, n=2 * n, axis=0)[:n].sum(-1)
    padded = np.concatenate([np.zeros((1, squared.shape[1])), np.cumsum(squared, axis=0)])
    lag = np.arange(n)
    both = padded[n - lag] + (padded[n] - padded[lag])
    found = (both - 2 * correlation) / (n - lag)[:, None]
    return np.maximum(found.mean(1), 0.0)


class Diffusion(NamedTuple):
    """A coefficient of self-diffusion."""

    value: float
    """Å²/fs."""
    error: float
    """Standard error from blocks, Å²/fs; NaN with one block."""
    time: np.ndarray
    """(F,) fs."""
    msd: np.ndarray
    """(F,) Å²."""


def diffusion(
    positions: np.ndarray,
    *,
    timestep: float,
    masses: np.ndarray | None = None,
    atoms: np.ndarray | None = None,
    fit: tuple[float, float] = (0.1, 0.4),
    n_blocks: int = 4,
) -> Diffusion:
    """Self-diffusion by Einstein's relation, D = slope(msd)/6, fitted between two shares of the length: the
    mean over consecutive blocks, and its standard error from their spread.

    A path that is fitted at longer times knows less: the mean over blocks, each fitted between the same
    shares of its own length, has an error that the spread tells, which that of one fit to the whole is not.
    Blocks must be so long that a tenth of them is beyond what is ballistic; beyond 40 % too few origins are
    independent. The result is that of the periodic box; `yeh_hummer` adds what its images take.

    Args:
        positions: (F, A, 3), unwrapped, equally spaced.   timestep: fs between frames.
        masses: (A,); see `mean_squared_displacement`.   atoms: (A,) bool, those that are followed.
    """
    x = np.array(positions, dtype=float)
    if masses is not None:
        x -= np.einsum("a,fai->fi", np.asarray(masses) / np.sum(masses), x)[:, None]
    if atoms is not None:
        x = x[:, atoms]
    if len(x) < 10:
        raise ValueError(f"{len(x)} frames are too few for a slope, wanted at least 10")
    msd, time = mean_squared_displacement(x), timestep * np.arange(len(x))
    length = len(x) // max(n_blocks, 1)
    if n_blocks < 2 or length < 10:
        return Diffusion(_slope(time, msd, fit) / 6, float("nan"), time, msd)
    parts = []
    for k in range(n_blocks):
        piece = x[k * length : (k + 1) * length]
        parts.append(_slope(time[:length], mean_squared_displacement(piece), fit) / 6)
    return Diffusion(float(np.mean(parts)), float(np.std(parts, ddof=1) / np.sqrt(n_blocks)), time, msd)


def _slope(time: np.ndarray, msd: np.ndarray, fit: tuple[float, float]) -> float:
    n = len(time)
    first, last = int(fit[0] * n), max(int(fit[1] * n), int(fit[0] * n) + 2)
    return float(np.polyfit(time[first:last], msd[first:last], 1)[0])


def yeh_hummer(*, temperature: float, viscosity: float, length: float) -> float:
    """What to add to D of a cubic periodic box for that of an infinite one, Å²/fs: ξ kT / (6π η L) (Yeh &
    Hummer, J. Phys. Chem. B 108, 15873, 2004, eq. 12).

    Args:
        temperature: K.   viscosity: of the model, mPa s (that of TIP3P water is 0.31, of water 0.89).
        length: Å.
    """
    eta = viscosity * 1e-3 / (units.ELEMENTARY_CHARGE * 1e30) * 1e15  # eV fs/Å³
    return XI * units.KB * temperature / (6 * np.pi * eta * length)
