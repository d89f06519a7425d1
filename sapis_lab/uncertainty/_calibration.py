"""Whether standard deviations have the size of errors, and rank them.

For errors d and standard deviations s of n numbers:

    scale       alpha^2 = mean of (d / s)^2, which makes the negative log likelihood of alpha s least
    NLL         mean of [ (d / s)^2 + ln(2 pi s^2) ] / 2, in nats; it is that of Gaussian errors
    spearman    rank correlation of |d| and s
    covered     share of |d| <= s; 0.683 of Gaussian errors
    gain        NLL of one s for all (the root mean square of d) minus the NLL above: what telling the frames
                apart is worth, in nats
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_LEAST = 1e-12
"""Standard deviations below this, in eV or eV/Å, count as this."""


class Calibration(NamedTuple):
    """How standard deviations and errors go together."""

    n: int
    spearman: float
    """NaN where all are equal."""
    nll: float
    """nats a number"""
    gain: float
    """nats a number; above 0: the standard deviations know more than their mean"""
    covered: float
    """share of the errors within one standard deviation"""
    scale: float
    """by which the standard deviations would have to be multiplied; 1 where they have the size of the
    errors"""


def scale_of(errors: np.ndarray, std: np.ndarray) -> float:
    """alpha, of arrays of one shape.

    Raises:
        ValueError: there is no error, or none is finite.
    """
    d, s = _flat(errors, std)
    return float(np.sqrt(np.mean(np.square(d / s))))


def calibration(errors: np.ndarray, std: np.ndarray) -> Calibration:
    """All of the above, of errors and standard deviations of one shape; errors that are not there (NaN) are
    left out.

    Raises:
        ValueError: there is no error, or none is finite.
    """
    from scipy.stats import spearmanr

    d, s = _flat(errors, std)
    flat = np.ptp(s) == 0 or np.ptp(np.abs(d)) == 0
    rank = float("nan") if flat or len(d) < 3 else float(spearmanr(np.abs(d), s).statistic)
    nll = _nll(d, s)
    size = max(float(np.sqrt(np.mean(np.square(d)))), _LEAST)
    return Calibration(
        len(d),
        rank,
        nll,
        _nll(d, np.full_like(d, size)) - nll,
        float(np.mean(np.abs(d) <= s)),
        scale_of(d, s),
    )


def _nll(d: np.ndarray, s: np.ndarray) -> float:
    return float(np.mean(np.square(d / s) + np.log(2 * np.pi * np.square(s))) / 2)


def _flat(errors: np.ndarray, std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    d, s = np.asarray(errors, dtype=float).ravel(), np.asarray(std, dtype=float).ravel()
    if d.shape != s.shape:
        raise ValueError(f"{d.size} errors and {s.size} standard deviations; wanted as many of both")
    there = np.isfinite(d)
    if not there.any():
        raise ValueError("no label to compare with; wanted at least one error that is a number")
    return d[there], np.maximum(s[there], _LEAST)
