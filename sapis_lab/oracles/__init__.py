"""Sources of labels, one module per kind. Their packages are imported on first use: training on finished
stores needs none of them."""

from sapis_lab.oracles._base import Failed, Labels, OracleConfig

__all__ = ["Failed", "Labels", "OracleConfig"]
