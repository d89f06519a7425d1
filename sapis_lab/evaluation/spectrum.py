"""Vibrational spectrum of dynamics on the potential, and how far it is from that of a reference.

The density of vibrational states (`observables.spectra.vibrational_density`) of replicas that move at
constant energy after they were brought to one temperature, broadened by a Gaussian, averaged over replicas.
With a reference (`reference: {kind: xtb}`) that moves with the same settings from the same frames:

    cosine          between the two spectra
    cosine_floor    between the two halves of the reference's replicas: what noise leaves
    peak_shift      largest distance of a peak of the reference, at least a tenth of the highest, from ours
    peak_shift_mean over these peaks, absolute
    highest_peak    the highest wavenumber of such a peak, the reference's beside it

In a small molecule at constant energy every mode keeps most of the heat that it began with, so that heights
depend on the replicas; ours begin with the frames and momenta of the reference's. Both are shifted alike by
the timestep (`observables.spectra.without_verlet_shift`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from sapis_lab.evaluation import Measured
from sapis_lab.evaluation._trajectories import POTENTIAL, TrajectoryEvaluation, of_reference
from sapis_lab.measures import Quantity
from sapis_lab.observables.spectra import (
    Spectrum,
    broadened,
    cosine,
    peak_shifts,
    peaks,
    vibrational_density,
)

if TYPE_CHECKING:
    from sapis_lab.structures import Structure

LEAST = 0.1
"""Height of a peak of the reference that is compared, in units of the highest."""
FAINTEST = 0.02
"""Height of a peak of ours that may be the one: heights are noisier than places, and a peak that is a little
lower than the reference's is not a missing one."""


class SpectrumConfig(TrajectoryEvaluation):
    """Vibrational spectrum, against that of a reference."""

    production: ClassVar[Literal["nve", "csvr"]] = "nve"

    kind: Literal["spectrum"] = "spectrum"
    segment: float = Field(default=2.0, gt=0, le=1e4)
    """ps, length of the pieces that are transformed: 2 ps resolve 17 cm⁻¹."""
    width: float = Field(default=10.0, gt=0, le=1000)
    """Standard deviation of the broadening, cm⁻¹."""

    @classmethod
    def quantities(cls) -> tuple[Quantity, ...]:
        return (
            Quantity("cosine", "cosine with the reference spectrum", "", better="higher"),
            Quantity("cosine_floor", "cosine of two halves of the reference", ""),
            Quantity("peak_shift", "largest shift of a peak from the reference", "cm⁻¹", better="lower"),
            Quantity("peak_shift_mean", "mean shift of the peaks from the reference", "cm⁻¹", better="lower"),
            Quantity("highest_peak", "highest peak of the spectrum", "cm⁻¹"),
            Quantity("highest_peak_reference", "highest peak of the reference spectrum", "cm⁻¹"),
            Quantity("failures", "share of replicas that failed", "", better="lower"),
        )

    def refuse(self, frame: Structure) -> None:
        """Every system has a spectrum."""

    def score(self, measured: Measured) -> dict[str, float]:
        ours = self.spectrum([measured[POTENTIAL]])
        found = peaks(ours, least=LEAST)
        scores = {"failures": float(measured[POTENTIAL]["failed"]) / self.n_replicas}
        if len(found):
            scores["highest_peak"] = float(found[-1])
        parts = of_reference(measured)
        if not parts:
            return scores
        reference = self.spectrum(parts)
        wanted = peaks(reference, least=LEAST)
        scores["cosine"] = cosine(reference, ours)
        if len(parts) > 1:
            halves = self.spectrum(parts[::2]), self.spectrum(parts[1::2])
            scores["cosine_floor"] = cosine(*halves)
        if len(found) and len(wanted):
            shifts = np.abs(peak_shifts(peaks(ours, least=FAINTEST), wanted))
            scores |= {"peak_shift": float(shifts.max()), "peak_shift_mean": float(shifts.mean())}
            scores["highest_peak_reference"] = float(wanted[-1])
        return scores

    def spectrum(self, parts: list[Mapping[str, np.ndarray]]) -> Spectrum:
        """The mean over all replicas of some parts."""
        every = [
            vibrational_density(v, part["masses"], timestep=self.frame_fs(), segment=1e3 * self.segment)
            for part in parts
            for v in part["velocities"]
        ]
        mean = np.mean([one.density for one in every], axis=0)
        return broadened(Spectrum(every[0].wavenumber, mean), self.width)
