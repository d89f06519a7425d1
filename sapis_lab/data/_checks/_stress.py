"""Stress against energies: sign, unit, whether it is a virial, and the order of its components.

The stress is the derivative of the energy with respect to strain, V σ = ∂E/∂ε. Energies at different cells,
and forces, determine it: a cheap potential (`_few_body`) is fitted to both on two thirds of the frames and
predicts the stress of the last third, in turn. Pressure, the other diagonal part and the off-diagonal part
are compared apart, so that components in another order (VASP's xx yy zz xy yz zx read as xx yy zz yz xz xy)
show. Measured on strained crystals of carbon slopes of 1.000 to 1.02 with a correlation of 0.999, on Si and
Ge, whose frames are fewer and more varied, 0.7 to 1.3 with 0.8 to 0.98.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from typing import NamedTuple

import numpy as np

from sapis_lab import units
from sapis_lab.data._checks._consistency import FIT_ATOMS
from sapis_lab.data._checks._finding import Finding, Subject
from sapis_lab.data._checks._potential import JointFit, Surveyor
from sapis_lab.data._checks._similar import sampled

NAME = "stress"
_FRAMES, _FEWEST = 120, 30
_ORDERS = ("yz", "xz", "xy")
LEAST_STRAIN = 0.01
"""Range of the volume per atom over its mean."""
_CLEAR = 0.8
"""Correlation below which nothing is concluded."""


class _Parts(NamedTuple):
    """Of matrices (n, 3, 3), eV per atom."""

    pressure: np.ndarray
    """(n,)"""
    diagonal: np.ndarray
    """(n, 3), less the pressure."""
    off: np.ndarray
    """(n, 3): yz, xz, xy."""


def stress(subject: Subject) -> Iterator[Finding]:
    """Slopes of the stress on that of the cheap potential; of forms that stresses have in files, the one that
    agrees."""
    if "stress" not in subject.store.columns:
        return
    found = subject.only("stress", "energy", "forces").get("train", np.zeros(0, np.int64))
    ids = found[subject.store.pbc[found].all(1)]
    if len(ids) < _FEWEST:
        yield Finding(
            NAME,
            "not checked",
            f"because {len(ids)} training frames have stress, energy and forces, wanted {_FEWEST}",
        )
        return
    cell = subject.store.cell[ids]
    per_atom = np.abs(np.linalg.det(cell)) / np.diff(subject.store.offsets)[ids]
    if np.ptp(per_atom) < LEAST_STRAIN * per_atom.mean():
        why = "because all frames have the same volume per atom, and energies do not tell what strain does"
        yield Finding(NAME, "not checked", why)
        return
    compared = _compared(subject, ids)
    if isinstance(compared, str):
        yield Finding(NAME, "not checked", f"because {compared}")
        return
    labels, predicted, volume = compared
    yield _judged(subject.where(int(ids[0])), labels, predicted, volume)


def _compared(subject: Subject, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray] | str:
    """V σ per atom of labels and of the cheap potential, (n, 3, 3), and volumes (n,), of some frames."""
    store = subject.store
    some = np.random.default_rng(0).permutation(sampled(ids, 600))
    n_atoms = np.diff(store.offsets)[some]
    some = some[: min(_FRAMES, int(np.searchsorted(np.cumsum(n_atoms), FIT_ATOMS)) + 1)]
    if len(some) < _FEWEST:
        return f"frames of {n_atoms.mean():.0f} atoms are too large for the cheap potential"
    try:
        surveyor = Surveyor(store, some, strain=True)
    except ValueError as error:
        return str(error)
    if surveyor.potential.size > 600:
        return f"{len(surveyor.potential.elements)} elements are too many for the cheap potential"
    fit = JointFit(surveyor, [int(k) for k in some])
    left, coefficients = fit.misses(1.0)
    if left.sum(1).mean() > 0.3:
        return "no cheap potential fits energies and forces together, so there is nothing to compare with"
    n = np.diff(store.offsets)[some][:, None, None]
    predicted = np.array(
        [
            np.tensordot(fit.coefficients_for(place, coefficients), surveyor.features(int(k)).strain, 1)
            for place, k in enumerate(some)
        ]
    )
    volume = np.abs(np.linalg.det(store.cell[some]))
    labels = store.column("stress")[some] * volume[:, None, None]
    return labels / n, predicted / n, volume


def _parts(m: np.ndarray) -> _Parts:
    pressure = np.trace(m, axis1=1, axis2=2) / 3
    diagonal = np.diagonal(m, axis1=1, axis2=2) - pressure[:, None]
    return _Parts(pressure, diagonal, np.stack([m[:, 1, 2], m[:, 0, 2], m[:, 0, 1]], 1))


def _slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Of y on x (reduced major axis), and their correlation, through the origin."""
    xx, yy, xy = float(np.sum(x * x)), float(np.sum(y * y)), float(np.sum(x * y))
    if xx == 0 or yy == 0:
        return float("nan"), 0.0
    r = xy / np.sqrt(xx * yy)
    return float(np.sign(r) * np.sqrt(yy / xx)), float(r)


def _judged(place: str, labels: np.ndarray, predicted: np.ndarray, volume: np.ndarray) -> Finding:
    got, wanted = _parts(labels), _parts(predicted)
    slope, r = _slope(wanted.diagonal, got.diagonal)
    p_slope, p_r = _slope(wanted.pressure, got.pressure)
    # pressures and the rest speak for one factor: the clearer of the two is believed
    if abs(p_r) > abs(r):
        slope, r = p_slope, p_r
    off_slope, off_r = _slope(wanted.off, got.off)
    numbers: dict[str, float | int | str] = {
        "slope": slope,
        "correlation": r,
        "off-diagonal slope": off_slope,
        "off-diagonal correlation": off_r,
        "frames": len(labels),
    }
    start = f"{place} and the other training frames: against energies and forces of {len(labels)} frames, "
    of_virial = _slope(
        np.concatenate([wanted.diagonal.ravel(), wanted.off.ravel(), wanted.pressure]),
        np.concatenate([p.ravel() for p in (got.diagonal, got.off, got.pressure)])
        / np.concatenate([np.repeat(volume, 3), np.repeat(volume, 3), volume]),
    )
    if abs(r) < _CLEAR and abs(off_r) < _CLEAR:
        return Finding(
            NAME,
            "not checked",
            f"because it does not follow from energies and forces (correlations {r:.2f} and {off_r:.2f})",
            numbers,
        )
    if not 0.5 < slope < 2.0 or r < 0:
        return Finding(
            NAME,
            "failed",
            f"{start}stress is {slope:.3g} times what it should be; {_cause(slope, of_virial)}",
            numbers,
        )
    order, order_r = _order(wanted.off, got.off)
    if order != (0, 1, 2) and order_r > _CLEAR and order_r > off_r + 0.2:
        names = ", ".join(_ORDERS[k] for k in order)
        return Finding(
            NAME,
            "failed",
            f"{start}the off-diagonal components agree (correlation {order_r:.2f}) only where those read as "
            f"yz, xz, xy are taken for {names}; VASP has xx yy zz xy yz zx: give nine components, or six in "
            f"the order xx yy zz yz xz xy",
            numbers,
        )
    if off_r < -_CLEAR or (off_r > _CLEAR and not 0.4 < off_slope < 2.5):
        return Finding(
            NAME,
            "failed",
            f"{start}the off-diagonal components are {off_slope:.3g} times what they "
            f"should be; is a shear given twice, or its sign turned?",
            numbers,
        )
    return Finding(
        NAME,
        "passed",
        f"slope {slope:.3g} (correlation {r:.3f}), off the diagonal {off_slope:.3g} ({off_r:.3f}), over "
        f"{len(labels)} frames",
        numbers,
    )


def _order(wanted: np.ndarray, got: np.ndarray) -> tuple[tuple[int, ...], float]:
    """The permutation of the off-diagonal components that agrees best, and its correlation."""
    found = {p: _slope(wanted[:, list(p)], got)[1] for p in permutations(range(3))}
    best = max(found, key=lambda p: found[p] + 0.05 * (p == (0, 1, 2)))
    return best, found[best]


def _cause(slope: float, of_virial: tuple[float, float]) -> str:
    gpa = units.EV_PER_A3_TO_GPA
    size = abs(slope)
    causes = []
    if slope < 0:
        causes.append("a positive stress seems to mean compression: set stress_is: compression")
    known = {
        "it seems to be in GPa and read as eV/Å³: set stress_unit: GPa": gpa,
        "it seems to be in kbar and read as eV/Å³: set stress_unit: kbar": 10 * gpa,
        "it seems to be in eV/Å³ and read as GPa: leave stress_unit out": 1 / gpa,
        "it seems to be in eV/Å³ and read as kbar: leave stress_unit out": 0.1 / gpa,
        "it seems to be in kbar and read as GPa: set stress_unit: kbar": 10.0,
        "it seems to be in GPa and read as kbar: set stress_unit: GPa": 0.1,
    }
    for text, factor in known.items():
        if 0.6 < size / factor < 1.6:
            causes.append(text)
    if 0.5 < abs(of_virial[0]) < 2 and abs(of_virial[1]) > _CLEAR:
        causes.append("it seems to be a virial, volume times stress: set virial_key instead of stress_key")
    return "; ".join(causes) or "check its unit, its sign and the order of its components"
