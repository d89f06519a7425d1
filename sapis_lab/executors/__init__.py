"""Executors: where jobs run, one module per kind."""

from sapis_lab.executors._slurm_options import SlurmOptions

__all__ = ["SlurmOptions"]
