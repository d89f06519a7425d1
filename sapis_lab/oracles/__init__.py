"""Sources of labels, one module per kind. Their packages are imported on first use: training on finished
stores needs none of them."""

from typing import TYPE_CHECKING, Any

from sapis_lab.oracles._base import Failed, Labels, OracleConfig

if TYPE_CHECKING:
    from sapis_lab.oracles._openmm_walk import TorsionWalk


def __getattr__(name: str) -> Any:
    if name == "TorsionWalk":
        from sapis_lab.oracles._openmm_walk import TorsionWalk

        return TorsionWalk
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["Failed", "Labels", "OracleConfig", "TorsionWalk"]
