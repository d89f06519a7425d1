"""Vibrational spectra of trajectories, in wavenumbers (cm⁻¹).

By the theorem of Wiener and Khinchin the Fourier transform of a correlation function is the mean squared size
of that of the signal. The signal is cut into half-overlapping segments under a Hann window (Welch, IEEE
Trans. Audio Electroacoust. 15, 70, 1967), whose length sets the resolution: 1 ps gives 33 cm⁻¹ between
points.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sapis_lab.observables.structure import parabola_top

CM_PER_FS = 2.99792458e-5
"""Speed of light."""


class Spectrum(NamedTuple):
    """A density over wavenumbers."""

    wavenumber: np.ndarray
    """(n,) cm⁻¹."""
    density: np.ndarray
    """(n,) cm, with ∫ density dν = 1."""


def vibrational_density(
    velocities: np.ndarray, masses: np.ndarray, *, timestep: float, segment: float = 2000.0
) -> Spectrum:
    """Density of vibrational states, the transform of Σ_a m_a <v_a(0) v_a(t)>; a classical harmonic system
    has one equal share in every mode.

    Args:
        velocities: (F, A, 3) Å/fs, equally spaced.   masses: (A,) amu.   timestep: fs between frames, below
        half of the shortest period.   segment: fs; at most the length of the trajectory.
    """
    v = np.asarray(velocities, dtype=float) * np.sqrt(np.asarray(masses, dtype=float))[None, :, None]
    return _density(v.reshape(len(v), -1), timestep=timestep, segment=segment, power=0)


def infrared(dipoles: np.ndarray, *, timestep: float, segment: float = 2000.0) -> Spectrum:
    """Shape of the infrared absorption, ν² times the transform of <μ(0) μ(t)>: classical, with the quantum
    correction of a harmonic oscillator (Ramírez et al., J. Chem. Phys. 121, 3973, 2004).

    Args:
        dipoles: (F, 3) e Å, equally spaced; of a charged molecule about its centre of mass.
    """
    mu = np.asarray(dipoles, dtype=float)
    return _density(mu - mu.mean(0), timestep=timestep, segment=segment, power=2)


def _density(signal: np.ndarray, *, timestep: float, segment: float, power: int) -> Spectrum:
    n = min(len(signal), max(8, round(segment / timestep)))
    if len(signal) < 8:
        raise ValueError(f"{len(signal)} frames are too few for a spectrum, wanted at least 8")
    window = np.hanning(n + 1)[:n, None]
    padded = 4 * n  # interpolates between the points that the window resolves
    total = np.zeros(padded // 2 + 1)
    for first in range(0, len(signal) - n + 1, max(1, n // 2)):
        total += (np.abs(np.fft.rfft(signal[first : first + n] * window, n=padded, axis=0)) ** 2).sum(1)
    wavenumber = np.fft.rfftfreq(padded, timestep) / CM_PER_FS
    total = total * wavenumber**power
    return Spectrum(wavenumber, total / (total.sum() * (wavenumber[1] - wavenumber[0])))


def broadened(spectrum: Spectrum, width: float) -> Spectrum:
    """Convolved with a Gaussian of standard deviation `width`, cm⁻¹."""
    from scipy.ndimage import gaussian_filter1d

    step = spectrum.wavenumber[1] - spectrum.wavenumber[0]
    return spectrum._replace(density=gaussian_filter1d(spectrum.density, width / step, mode="constant"))


def peaks(spectrum: Spectrum, *, least: float = 0.05, apart: float = 30.0) -> np.ndarray:
    """(n,) places of the maxima, cm⁻¹, ascending: those higher, and more prominent, than `least` of the
    highest, `apart` cm⁻¹ from each other."""
    from scipy.signal import find_peaks

    y, step = spectrum.density, spectrum.wavenumber[1] - spectrum.wavenumber[0]
    height = least * y.max()
    found, _ = find_peaks(y, height=height, prominence=height, distance=max(1, round(apart / step)))
    return np.array([parabola_top(spectrum.wavenumber[k - 1 : k + 2], y[k - 1 : k + 2])[0] for k in found])


def peak_shifts(ours: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """(n,) cm⁻¹, for every peak of the reference: how far our nearest one is, positive where it is higher."""
    if not len(ours):
        raise ValueError("the spectrum has no peak; wanted some to compare with the reference")
    nearest = ours[np.abs(ours[None] - reference[:, None]).argmin(1)]
    return nearest - reference


def cosine(a: Spectrum, b: Spectrum) -> float:
    """Cosine of the angle between two spectra on the points of the first, 1 where they are the same."""
    other = np.interp(a.wavenumber, b.wavenumber, b.density, right=0.0)
    return float(a.density @ other / np.sqrt((a.density @ a.density) * (other @ other)))


def without_verlet_shift(wavenumber: np.ndarray, *, timestep: float) -> np.ndarray:
    """Frequencies in the limit of no timestep: velocity Verlet turns a mode by Ω with sin(Ω dt/2) = ω dt/2,
    so that what is seen lies too high (3,500 cm⁻¹ by 16 at 0.5 fs).

    Args:
        wavenumber: seen, cm⁻¹.   timestep: of the integration, fs.
    """
    half = np.pi * CM_PER_FS * np.asarray(wavenumber) * timestep
    return np.sin(half) / (np.pi * CM_PER_FS * timestep)
