"""Every model kind, small."""

from __future__ import annotations

from sapis_lab.config import kind_class, kinds
from sapis_lab.models import ModelConfig
from sapis_lab.selftest import SPECIES

KINDS = kinds("models")


def small(kind: str, **settings: object) -> ModelConfig:
    """About 5,000 parameters."""
    return kind_class("models", kind)(cutoff=4.0, **settings).at_size(5e3, n_species=len(SPECIES))
