"""Model families, one public module a kind; what they share is re-exported here.

A new model is one new file `<kind>.py` with a `ModelConfig` and the `Model` that it builds; the contract
tests find and examine it.
"""

from sapis_lab.models._base import TOLERANCE, TOLERANCE_SMALL, Flops, Model, ModelConfig, Origin, Output

__all__ = ["TOLERANCE", "TOLERANCE_SMALL", "Flops", "Model", "ModelConfig", "Origin", "Output"]
