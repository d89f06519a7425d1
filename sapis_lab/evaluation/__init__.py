"""What is measured on finished points beside the errors of their training; one module per kind.

An evaluation is two steps: to *measure* is expensive and leaves raw arrays on the disk, to *score* them is
cheap and gives the numbers that join the runs table. A kind also says which quantities these are, so that
tables, laws, figures and reports know them without any other list. Importing a kind needs no torch: analysis
asks kinds for their quantities.
"""

from sapis_lab.evaluation._arrays import MANIFEST, damaged_parts
from sapis_lab.evaluation._base import Evaluation, Measured, Subject
from sapis_lab.evaluation._run import (
    ANSWER,
    EvaluationsFailed,
    evaluate_point,
    is_evaluated,
    write_request,
)

__all__ = [
    "ANSWER",
    "MANIFEST",
    "Evaluation",
    "EvaluationsFailed",
    "Measured",
    "Subject",
    "damaged_parts",
    "evaluate_point",
    "is_evaluated",
    "write_request",
]
