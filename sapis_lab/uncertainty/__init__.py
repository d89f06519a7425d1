"""How far the energies and forces of a trained potential may be off, said while it is used.

An `Ensemble` takes the spread of potentials that differ in their seed; a `LastLayer` takes what the training
frames determine of the linear map behind the features of the atoms, at the cost of one potential. Both are
scaled so that their standard deviations have the size of the errors on frames that were not trained on, and
`calibration` says whether they also rank these errors.
"""

from sapis_lab.uncertainty._base import Judged, TooUncertain, Uncertainty, refuse_uncertain
from sapis_lab.uncertainty._calibration import Calibration, calibration, scale_of
from sapis_lab.uncertainty._ensemble import Ensemble
from sapis_lab.uncertainty._last_layer import FILE, LastLayer

__all__ = [
    "FILE",
    "Calibration",
    "Ensemble",
    "Judged",
    "LastLayer",
    "TooUncertain",
    "Uncertainty",
    "calibration",
    "refuse_uncertain",
    "scale_of",
]
