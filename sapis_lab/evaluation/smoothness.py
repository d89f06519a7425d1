"""Whether the trained potential is smooth at its cutoff, and its forces are the slope of its energy.

Cutoff. In frames of the first test set an atom j is moved along the line from an atom i to distances
r_c - 3h, r_c - h, r_c + h, r_c + 3h, where r_c is the cutoff; pairs whose distance is near r_c already come
first, and no atom is brought closer than 0.8 Å to another. From each side energy and forces are continued to
r_c along their slope,

    E(-) = E(-h) - h f(-h),              E(+) = E(+h) + h f(+h),                f = F_j . u, u from i to j
    F(-) = F(-h) + (F(-h) - F(-3h)) / 2, F(+) = F(+h) - (F(+3h) - F(+h)) / 2

so that `energy_jump` = max |E(+) - E(-)| and `force_jump` = max |F(+) - F(-)| (of any atom) vanish with h for
a smooth potential. What is left at h = 0.001 Å is of the order of h² and of rounding.

Slope. Along random unit vectors d in the space of all 3n coordinates, `force_mismatch` = max |F . d + E'|,
with E' from central differences of fourth order at h = 0.01 Å,

    E' = (4 D(h) - D(2h)) / 3,        D(h) = (E(x + h d) - E(x - h d)) / 2h.

Dynamics whose forces are not the slope of the energy do not conserve it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from sapis_lab.evaluation import Evaluation, Measured, Subject
from sapis_lab.measures import Quantity

if TYPE_CHECKING:
    from sapis_lab.structures import Structure

ACROSS, ALONG = 1e-3, 1e-2
"""Steps h across the cutoff and along the random directions, Å."""
SIDES = (-3, -1, 1, 3)
NEAREST = 0.8
"""How close a moved atom may come to another, Å."""


class SmoothnessConfig(Evaluation):
    """Jumps at the cutoff, and forces against differences of the energy."""

    kind: Literal["smoothness"] = "smoothness"
    n_frames: int = Field(default=8, ge=1, le=10_000)
    """Frames of the first test set, from its start."""
    n_pairs: int = Field(default=8, ge=1, le=10_000)
    """Pairs that are moved across the cutoff in each of them."""
    n_directions: int = Field(default=4, ge=1, le=10_000)
    """Random directions in each of them."""
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """Of the directions."""

    @classmethod
    def quantities(cls) -> tuple[Quantity, ...]:
        def shown(key: str, label: str, unit: str) -> Quantity:
            return Quantity(key, label, unit, better="lower", display_unit=f"m{unit}", display_factor=1e3)

        return (
            shown("energy_jump", "largest jump of the energy at the cutoff", "eV"),
            shown("force_jump", "largest jump of a force at the cutoff", "eV/Å"),
            shown("force_mismatch", "largest mismatch of forces and differences of the energy", "eV/Å"),
        )

    def parts(self, subject: Subject) -> tuple[str, ...]:
        subject.want_energies()
        return ("cutoff", "slope")

    def measure(self, subject: Subject, part: str) -> dict[str, np.ndarray]:
        """Energies and forces across the cutoff, or energies along the directions with the slope that forces
        say."""
        frames = subject.structures(subject.test_frames(self.n_frames))
        return self._across(subject, frames) if part == "cutoff" else self._along(subject, frames)

    def _across(self, subject: Subject, frames: list[Structure]) -> dict[str, np.ndarray]:
        """energy (n_moves, 4) eV; slope (n_moves, 4), f of the moved atom, eV/Å; step (n_moves,) Å; jump
        (n_moves,), the largest |F(+) - F(-)| of an atom, eV/Å."""
        cutoff = subject.potential.model.cutoff
        energy, slope, jump = [], [], []
        for frame in frames:
            for atom, towards, places in _moves(frame, cutoff, most=self.n_pairs):
                moved = [frame._replace(positions=x) for x in places]
                found = subject.potential.predict(moved)
                f = found.forces.reshape(len(SIDES), -1, 3)
                before, after = f[1] + (f[1] - f[0]) / 2, f[2] - (f[3] - f[2]) / 2
                energy.append(found.energy)
                slope.append(f[:, atom] @ towards)
                jump.append(np.linalg.norm(after - before, axis=1).max())
        return {
            "energy": np.reshape(energy, (-1, len(SIDES))),
            "slope": np.reshape(slope, (-1, len(SIDES))),
            "jump": np.array(jump, dtype=float),
        }

    def _along(self, subject: Subject, frames: list[Structure]) -> dict[str, np.ndarray]:
        """energy (n_directions of all frames, 4) eV at -2h, -h, h, 2h; slope (same,), F . d, eV/Å."""
        generator = np.random.default_rng(self.seed)
        energy, slope = [], []
        for frame in frames:
            forces = subject.potential.predict(frame).forces
            for _ in range(self.n_directions):
                d = generator.normal(size=frame.positions.shape)
                d /= np.linalg.norm(d)
                moved = [frame._replace(positions=frame.positions + k * ALONG * d) for k in (-2, -1, 1, 2)]
                energy.append(subject.potential.predict(moved).energy)
                slope.append((forces * d).sum())
        return {"energy": np.array(energy), "slope": np.array(slope)}

    def score(self, measured: Measured) -> dict[str, float]:
        e, f = measured["cutoff"]["energy"], measured["cutoff"]["slope"]
        scores = {}
        if len(e):
            across = (e[:, 2] + ACROSS * f[:, 2]) - (e[:, 1] - ACROSS * f[:, 1])
            scores["energy_jump"] = float(np.abs(across).max())
            scores["force_jump"] = float(measured["cutoff"]["jump"].max())
        e = measured["slope"]["energy"]
        near, far = (e[:, 2] - e[:, 1]) / (2 * ALONG), (e[:, 3] - e[:, 0]) / (4 * ALONG)
        mismatch = measured["slope"]["slope"] + (4 * near - far) / 3
        return scores | {"force_mismatch": float(np.abs(mismatch).max())}


def _moves(
    frame: Structure, cutoff: float, *, most: int
) -> Iterator[tuple[int, np.ndarray, list[np.ndarray]]]:
    """The moved atom, the direction from its partner (3,), and the positions at the four distances, of at
    most `most` pairs."""
    from sapis_lab.neighbors import closest, neighbor_list

    x = np.asarray(frame.positions, dtype=float)
    cell = np.zeros((3, 3)) if frame.cell is None else np.asarray(frame.cell, dtype=float)
    pbc = np.zeros(3, dtype=bool) if frame.pbc is None else np.asarray(frame.pbc, dtype=bool)
    reach = 2 * cutoff if not pbc.any() else cutoff + 0.5
    pairs = neighbor_list(x, cell, pbc, reach)
    v = x[pairs.neighbor] + pairs.shift @ cell - x[pairs.center]
    r = np.linalg.norm(v, axis=1)
    found = 0
    for k in np.lexsort((np.arange(len(r)), np.abs(r - cutoff))):
        i, j = int(pairs.center[k]), int(pairs.neighbor[k])
        if i == j or found == most:  # an atom and its image move together
            continue
        towards = v[k] / r[k]
        places = []
        for side in SIDES:
            moved = x.copy()
            moved[j] += (cutoff + side * ACROSS - r[k]) * towards
            places.append(moved)
        near = closest(places[0], cell, neighbor_list(places[0], cell, pbc, NEAREST))
        if near is None or (near.distance > NEAREST and j not in (near.center, near.neighbor)):
            found += 1
            yield j, towards, places
