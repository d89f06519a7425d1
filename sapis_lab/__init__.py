"""The laboratory in which people find out how machine-learned interatomic potentials scale, and whether
symmetry pays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sapis_lab.calculator import load_model as load_model

__version__ = "0.1.0"
__all__ = ["__version__", "load_model"]


def __getattr__(name: str) -> Any:
    """`load_model` is imported on first use, so that reading results needs neither torch nor ASE."""
    if name == "load_model":
        from sapis_lab.calculator import load_model

        return load_model
    raise AttributeError(f"module 'sapis_lab' has no attribute {name!r}")
