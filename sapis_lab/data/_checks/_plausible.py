"""Units in which energies and forces are wrong by the same factor, which no comparison of the two can see.

- No energy is below that of Thomas and Fermi's atoms, -0.7687 Z^(7/3) Hartree, summed (Lieb & Simon, Adv.
  Math. 23 (1977) 22); all-electron totals are 0.755 to 0.81 of it, in all sets measured from H2 to
  sulphur. Totals with pseudopotentials are below 0.2 of it.
- The stiffness on the way between similar frames, -ΔF·Δx/Δx², is 0.3 to 13 eV/Å² (86 of diatomics),
  whatever the temperature, and RMS forces are 0.1 to 1.4 eV/Å in 30 sets (median of a set; less in relaxed
  structures).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sapis_lab import units
from sapis_lab.data._arrays import segments
from sapis_lab.data._checks._finding import Finding, Subject
from sapis_lab.data._checks._similar import sampled, similar

NAME = "energy unit"
_SAMPLE = 500
_THOMAS_FERMI = 0.7687 * units.HARTREE_TO_EV * np.arange(256.0) ** (7 / 3)
_ALL_ELECTRON = (0.74, 0.83)
"""Of the energy of Thomas and Fermi."""
_LARGEST_FORCE, _STIFFEST, _SOFTEST = 4.0, 200.0, 0.06
"""eV/Å, RMS of typical frames; eV/Å², median over pairs: published sets have 0.3 to 13."""


def energy_unit(subject: Subject) -> Iterator[Finding]:
    """Suspect where both are too large, or totals are those of all electrons in another unit."""
    store, numbers = subject.store, dict[str, float | int | str]()
    reasons: list[str] = []
    soft = False
    factors: list[tuple[float, float]] = []
    with_energy = subject.only("energy")
    place = None
    if with_energy:
        ids = sampled(np.concatenate(list(with_energy.values())), _SAMPLE)
        place = subject.where(int(ids[0]))
        rows, n_atoms = segments(store.offsets, ids)
        starts = np.cumsum(n_atoms) - n_atoms
        limit = np.add.reduceat(_THOMAS_FERMI[store.species[rows]], starts)
        share = float(np.median(-store.energy[ids] / limit))
        numbers["energy over Thomas-Fermi"] = share
        if share > 1.0:
            reasons.append(
                f"energies are {share:.3g} times those of Thomas and Fermi's atoms, below which none is"
            )
            factors.append((share / 0.76, 1.3 if share > _ALL_ELECTRON[0] * 20 else 10.0))
        elif in_hartree(share):
            reasons.append(
                f"energies are {share:.3g} times those of Thomas and Fermi's atoms, as all-electron totals "
                f"in Hartree would be"
            )
            factors.append((1 / units.HARTREE_TO_EV, 1.3))
    with_forces = subject.only("forces")
    if with_forces:
        every = np.concatenate(list(with_forces.values()))
        ids = sampled(every[np.diff(store.offsets)[every] > 1], _SAMPLE)
        if len(ids):
            place = place or subject.where(int(ids[0]))
            rms = float(np.median([_rms(subject, k) for k in ids]))
            numbers["RMS force, eV/Å"] = rms
            if rms > _LARGEST_FORCE:
                reasons.append(f"the RMS force is {rms:.3g} eV/Å, in known sets below 1.5")
                factors.append((rms / 0.9, 10.0))
            stiff = _stiffness(subject, ids)
            if stiff is not None:
                numbers["stiffness, eV/Å²"] = stiff
                if stiff > _STIFFEST:
                    reasons.append(
                        f"the stiffness between similar frames is {stiff:.3g} eV/Å², of bonds 1 to 100"
                    )
                    factors.append((stiff / 6, 10.0))
                if stiff < _SOFTEST:
                    reasons.append(
                        f"the stiffness between similar frames is {stiff:.3g} eV/Å², of bonds 1 to 100"
                    )
                    soft = True
    if not numbers:
        yield Finding(NAME, "not checked", "because no frame has an energy or forces")
    elif reasons:
        likely = "numbers seem to be in eV and read as a smaller unit"
        if not soft:
            likely = f"numbers seem to be in {_likely(*factors[0])} and read as eV"
        why = f"{place} and the others: {'; '.join(reasons)}; {likely}: is energy_unit right?"
        yield Finding(NAME, "suspect", why, numbers)
    else:
        said = ", ".join(f"{k} {float(v):.3g}" for k, v in numbers.items())
        yield Finding(NAME, "passed", said, numbers)


def in_hartree(share: float) -> bool:
    """Whether a share of the energy of Thomas and Fermi is that of all-electron totals in Hartree."""
    return _ALL_ELECTRON[0] < share * units.HARTREE_TO_EV < _ALL_ELECTRON[1]


def _likely(factor: float, width: float) -> str:
    """The units whose numbers are so many times those in eV, within a factor of `width`, the nearest
    first."""
    off = {u: abs(np.log(factor * value)) for u, value in units.ENERGY.items() if u != "eV"}
    near = sorted((u for u in off if off[u] < np.log(width)), key=lambda u: off[u])
    return " or ".join(near or [min(off, key=lambda u: off[u])])


def _rms(subject: Subject, frame: int) -> float:
    s = subject.store
    return float(np.sqrt(np.mean(s.forces[s.offsets[frame] : s.offsets[frame + 1]].astype(np.float64) ** 2)))


def _stiffness(subject: Subject, ids: np.ndarray) -> float | None:
    """Median over pairs of similar frames, eV/Å²; None of fewer than 20."""
    s, found = subject.store, []
    for step in similar(s, ids, n_pairs=60):
        fa, fb = (s.forces[s.offsets[k] : s.offsets[k + 1]].astype(np.float64) for k in (step.a, step.b))
        found.append(-np.sum((fb @ step.turn - fa) * step.change) / np.sum(step.change**2))
    return float(np.median(found)) if len(found) >= 20 else None
