"""Samplers: how configurations are drawn on the surface of an oracle, one module per kind."""

from sapis_lab.samplers._base import SamplerConfig

__all__ = ["SamplerConfig"]
