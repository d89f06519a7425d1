"""The same free energies by pymbar (Shirts & Chodera, J. Chem. Phys. 129, 124105, 2008), with the errors of
uncorrelated samples. pymbar's default solver can return nonsense (choderalab/pymbar#544): it is asked for its
robust one."""

from __future__ import annotations

import logging
from types import ModuleType
from typing import NamedTuple

import numpy as np


class Mbar(NamedTuple):
    """Free energies of K states, in units of kT; the first is zero."""

    f: np.ndarray
    """(K,)"""
    error: np.ndarray
    """(K,) standard errors of f, of samples that are independent."""
    overlap: np.ndarray
    """(K, K)"""


def mbar(u: np.ndarray, n_samples: np.ndarray) -> Mbar:
    """By pymbar.   u: (K, N) reduced energies of all samples in all states.   n_samples: (K,).

    Raises:
        ImportError: pymbar is not installed; the message names the extra.
    """
    made = _pymbar().MBAR(u, np.asarray(n_samples), solver_protocol="robust")
    found = made.compute_free_energy_differences()
    return Mbar(
        np.array(found["Delta_f"][0]),
        np.array(found["dDelta_f"][0]),
        np.array(made.compute_overlap()["matrix"]),
    )


def _pymbar() -> ModuleType:
    # It greets on standard error when it is imported without JAX.
    logger = logging.getLogger("pymbar")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        import pymbar
    except ImportError:
        raise ImportError(
            "free energies by MBAR need the package pymbar, which is not installed: "
            "pip install 'sapis-lab[free]'"
        ) from None
    finally:
        logger.setLevel(level)
    return pymbar
