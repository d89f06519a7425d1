"""Generators: structures made from one to begin with, for an oracle to label, one module per kind."""

from sapis_lab.generators._base import Configuration, GeneratorConfig, Start

__all__ = ["Configuration", "GeneratorConfig", "Start"]
