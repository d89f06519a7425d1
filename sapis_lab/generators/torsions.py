"""Scans of torsions: the part of a molecule behind a bond turned about it.

A torsion is four atoms i j k l, its angle that between the planes i j k and j k l (IUPAC's sign). The atoms
that turn are those that hang on k when the bond j k is cut; bonds are distances in the start below 1.3 times
the sum of the covalent radii.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator

from sapis_lab.generators._base import Configuration, GeneratorConfig, Start, Surface

_BONDED = 1.3

Atom = Annotated[int, Field(ge=0, le=10**6)]


class TorsionsConfig(GeneratorConfig):
    """Scans of one or several torsions."""

    kind: Literal["torsions"] = "torsions"
    torsions: tuple[tuple[Atom, Atom, Atom, Atom], ...] = Field(min_length=1, max_length=100)
    """Four atoms each, from 0."""
    spacing: Literal["even", "random"] = "even"
    """Angles of one torsion evenly around the circle, from that of the start on; or random angles of all."""

    @field_validator("torsions")
    @classmethod
    def _are_four_atoms(
        cls, value: tuple[tuple[int, int, int, int], ...]
    ) -> tuple[tuple[int, int, int, int], ...]:
        for four in value:
            if len(set(four)) < 4:
                raise ValueError(f"{list(four)} are not four different atoms")
        return value

    def generate(
        self, start: Start, surface: Surface, *, n: int, generator: np.random.Generator
    ) -> list[Configuration]:
        if any(start.pbc):
            raise ValueError("generator 'torsions' turns parts of molecules, got a periodic structure")
        if self.spacing == "even" and len(self.torsions) > 1:
            raise ValueError(
                f"generator 'torsions': spacing: even is for one torsion, got {len(self.torsions)}; "
                "use random"
            )
        parts = [turning(start, four) for four in self.torsions]
        if self.spacing == "random":

            def draw() -> Configuration:
                x = start.positions
                for four, part in zip(self.torsions, parts, strict=True):
                    x = turned(x, four, part, angle=2 * np.pi * generator.random())
                return Configuration(x, None)

            return self.drawn(draw, start, n=n, what="the number of torsions")
        made = []
        for k in range(n):
            one = Configuration(turned(start.positions, self.torsions[0], parts[0], angle=2 * np.pi * k / n))
            why = self.too_close(start, one)
            if why is not None:
                raise ValueError(
                    f"generator 'torsions': turned by {360 * k / n:.0f}°, {why}, closer than min_distance="
                    f"{self.min_distance} Å; lower it, or start from another structure"
                )
            made.append(one)
        return made


def turning(start: Start, four: tuple[int, int, int, int]) -> np.ndarray:
    """(n_atoms,) bool: which atoms turn with the last of the four.

    Raises:
        ValueError: there is no such atom, the four are not bonded in a row, or the bond is part of a ring.
    """
    from ase.data import covalent_radii

    if max(four) >= len(start.species):
        raise ValueError(
            f"generator 'torsions': {list(four)} names atom {max(four)} of {len(start.species)} atoms"
        )
    radii = covalent_radii[start.species]
    distances = np.linalg.norm(start.positions[:, None] - start.positions[None], axis=-1)
    bonded = distances < _BONDED * (radii[:, None] + radii)
    np.fill_diagonal(bonded, False)
    i, j, k, last = four
    for a, b in ((i, j), (j, k), (k, last)):
        if not bonded[a, b]:
            raise ValueError(
                f"generator 'torsions': atoms {a} and {b} of {list(four)} are not bonded, their distance is "
                f"{distances[a, b]:.2f} Å"
            )
    bonded[j, k] = bonded[k, j] = False
    part = np.zeros(len(radii), dtype=bool)
    part[k] = True
    while (grown := part | bonded[part].any(0)).sum() > part.sum():
        part = grown
    if part[j]:
        raise ValueError(f"generator 'torsions': the bond of {j} and {k} is part of a ring and cannot turn")
    return part


def turned(
    positions: np.ndarray, four: tuple[int, int, int, int], part: np.ndarray, *, angle: float
) -> np.ndarray:
    """Positions with the atoms of `part` (n_atoms,) turned about the bond of the middle two, so that the
    torsion grows by `angle` (rad); Rodrigues' formula."""
    origin = positions[four[1]]
    axis = positions[four[2]] - origin
    axis = axis / np.linalg.norm(axis)
    v = positions[part] - origin
    along = (v @ axis)[:, None] * axis
    moved = positions.copy()
    moved[part] = origin + along + (v - along) * np.cos(angle) + np.cross(axis, v) * np.sin(angle)
    return moved


def torsion_angle(positions: np.ndarray, four: tuple[int, int, int, int]) -> float:
    """The angle of a torsion, rad, in (-π, π]."""
    a, b, c, d = positions[list(four)]
    axis = (c - b) / np.linalg.norm(c - b)
    v, w = a - b - ((a - b) @ axis) * axis, d - c - ((d - c) @ axis) * axis
    return float(np.arctan2(np.cross(axis, v) @ w, v @ w))
