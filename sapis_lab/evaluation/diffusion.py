"""Self-diffusion in dynamics on the potential, of periodic systems.

Of every element, by Einstein's relation on paths that no boundary cuts, the centre of mass at rest, all time
origins, fitted between 10 and 40 % of the length (`observables.transport.diffusion`); the error is that of
the mean over replicas, or over four blocks of one. With a reference, the ratio of the two. The values are
those of the periodic box: with `viscosity` of the model's liquid, `correction` is what a cubic box of this
volume takes from it (Yeh & Hummer, J. Phys. Chem. B 108, 15873, 2004).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from sapis_lab.elements import SYMBOLS
from sapis_lab.evaluation import Measured
from sapis_lab.evaluation._trajectories import POTENTIAL, TrajectoryEvaluation, of_reference
from sapis_lab.measures import Quantity
from sapis_lab.observables.transport import CM2_PER_S, diffusion, yeh_hummer

if TYPE_CHECKING:
    from sapis_lab.structures import Structure


class DiffusionConfig(TrajectoryEvaluation):
    """Self-diffusion, against that of a reference."""

    production: ClassVar[Literal["nve", "csvr"]] = "nve"

    kind: Literal["diffusion"] = "diffusion"
    every: float = Field(default=20.0, gt=0, le=1e6)
    """fs between frames."""
    time: float = Field(default=50.0, gt=0, le=1e6)
    """ps that are recorded of every replica."""
    viscosity: float | None = Field(default=None, gt=0, le=1e6)
    """Of the liquid, mPa s, for the correction for the size of the box."""

    @classmethod
    def quantities(cls) -> tuple[Quantity, ...]:
        def shown(key: str, label: str) -> Quantity:
            return Quantity(key, label, "cm²/s", display_unit="10⁻⁵ cm²/s", display_factor=1e5)

        return (
            shown("coefficient_{element}", "diffusion of {element}"),
            shown("error_{element}", "standard error of the diffusion of {element}"),
            shown("reference_{element}", "diffusion of {element} on the reference"),
            Quantity("ratio_{element}", "diffusion of {element} over that on the reference", ""),
            shown("correction", "what the size of the box takes from the diffusion"),
            Quantity("failures", "share of replicas that failed", "", better="lower"),
        )

    def refuse(self, frame: Structure) -> None:
        if frame.pbc is None or not np.all(frame.pbc):
            raise ValueError(
                "diffusion wants a system that is periodic in three directions; its test frames are not"
            )

    def score(self, measured: Measured) -> dict[str, float]:
        scores = {"failures": float(measured[POTENTIAL]["failed"]) / self.n_replicas}
        ours = self._coefficients([measured[POTENTIAL]])
        theirs = self._coefficients(of_reference(measured))
        for symbol, (value, error) in ours.items():
            scores[f"coefficient_{symbol}"] = value
            if np.isfinite(error):
                scores[f"error_{symbol}"] = error
            if symbol in theirs:
                scores[f"reference_{symbol}"] = theirs[symbol][0]
                if theirs[symbol][0] > 0:
                    scores[f"ratio_{symbol}"] = value / theirs[symbol][0]
        if self.viscosity is not None:
            volume = np.abs(np.linalg.det(measured[POTENTIAL]["cell"][0, 0]))
            scores["correction"] = CM2_PER_S * yeh_hummer(
                temperature=self.temperature, viscosity=self.viscosity, length=float(volume ** (1 / 3))
            )
        return scores

    def _coefficients(self, parts: list[Mapping[str, np.ndarray]]) -> dict[str, tuple[float, float]]:
        """D and its standard error by element, cm²/s."""
        found: dict[str, list[tuple[float, float]]] = {}
        for part in parts:
            for x in part["positions"]:
                for z in np.unique(part["species"]).tolist():
                    one = diffusion(
                        x, timestep=self.frame_fs(), masses=part["masses"], atoms=part["species"] == z
                    )
                    found.setdefault(SYMBOLS[z], []).append((CM2_PER_S * one.value, CM2_PER_S * one.error))
        means = {}
        for symbol, values in found.items():
            d = np.array(values)
            error = d[0, 1] if len(d) == 1 else d[:, 0].std(ddof=1) / np.sqrt(len(d))
            means[symbol] = (float(d[:, 0].mean()), float(error))
        return means
