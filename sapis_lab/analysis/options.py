"""How a study's law is fitted: the `law:` section of a study file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from sapis_lab.analysis.laws import law_named
from sapis_lab.config import Config, Seed
from sapis_lab.quantities import quantity
from sapis_lab.targets import ENERGY_MAE, LOSS


class LawOptions(Config):
    """What the analysis does with a runs table."""

    quantity: str = LOSS
    """The loss L: the key of one measured quantity, in its physical unit."""
    laws: tuple[str, ...] = ("n+d", "n+d+nd")
    """Forms to fit side by side, simplest first; the first is drawn where the data cannot choose."""
    bootstrap: int = Field(1000, ge=100, le=100_000)
    """Number of resamples behind every band."""
    calibrate: int = Field(199, ge=0, le=100_000)
    """Data sets simulated for the critical value at each end of an exponent's interval; 0 takes that of the F
    distribution."""
    robust: Literal["auto", "none"] | float = "auto"
    """Huber threshold on ln L: following the residuals, none (least squares), or a number in log units."""
    label_flops: float = Field(0.0, ge=0, le=1e30)
    """Cost of making one labelled frame, in FLOPs: the compute-optimal split counts it beside training."""
    reference: str | None = None
    """Model that others are compared with; the largest-l_max geat, else the first model, when not given."""
    seed: Seed = 0
    """Seed of the resampling."""

    @field_validator("quantity")
    @classmethod
    def _known_quantity(cls, key: str) -> str:
        if quantity(key).better != "lower":
            raise ValueError(
                f"{key!r} is no error that a law could describe; wanted one such as {LOSS} or "
                f"{ENERGY_MAE.replace('val_', 'test_')}"
            )
        return key

    @field_validator("laws")
    @classmethod
    def _known_laws(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names:
            raise ValueError("wanted at least one law")
        laws = [law_named(name) for name in names]
        bent = [law.name for law in laws if law.bent]
        if bent:
            raise ValueError(
                f"{bent[0]!r} is no sum of powers, of which the optima and costs of a study are computed; "
                f"fit it to the study's runs.csv with `sapis fit TABLE`"
            )
        return tuple(law.name for law in laws)

    @field_validator("robust")
    @classmethod
    def _positive(cls, robust: str | float) -> str | float:
        if not isinstance(robust, str) and not 1e-6 <= robust <= 1e6:
            raise ValueError(
                f"wanted 'auto', 'none' or a positive threshold in log units, from 1e-6 to 1e6, got {robust}"
            )
        return robust
