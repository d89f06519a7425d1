"""Samples of alanine dipeptide (AMBER ff99SB-ILDN with OBC solvent) in umbrella windows along φ, or φ and ψ,
that are walked through one after the other, up or down the angles.

A walk begins at C7eq, goes once around the circle of φ, and with windows of ψ once around that circle at
every φ. Springs are such that windows lie `spacing` standard deviations of a free angle in its spring apart.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from sapis_lab import units
from sapis_lab.data import data_root, need_file
from sapis_lab.files import make_folder, read_bytes, write_bytes
from sapis_lab.geometry.coordinates import difference, values
from sapis_lab.oracles import TorsionWalk
from sapis_lab.oracles.openmm import OpenmmConfig, pdb_structure

TOPOLOGY = "alanine_dipeptide/ala2.pdb"
ORACLE = OpenmmConfig(
    topology=TOPOLOGY, force_field=("amber99sbildn.xml", "amber99_obc.xml"), nonbonded="all"
)
PHI, PSI = (4, 6, 8, 14), (6, 8, 14, 16)
OMEGAS = ((1, 4, 6, 8), (8, 14, 16, 18))
"""The peptide bonds."""
CENTER = (6, 14, 10, 8)
"""N, C, CB and CA: the sign of their torsion is that of the α carbon's handedness."""
C7EQ = (-80.0, 70.0)
"""Degrees."""
TEMPERATURE = 300.0
_FRICTION, _TIMESTEP, _EVERY = 0.005, 1.0, 200


class Protocol(NamedTuple):
    """How a walk samples; times are in ps and of one window."""

    name: str
    n_phi: int
    n_psi: int
    """Windows of ψ at every φ; 0 leaves ψ free."""
    spacing: float
    """Between windows, in standard deviations of a free angle in its spring."""
    sampling: float
    moving: float = 2.0
    equilibration: float = 8.0

    def stiffness(self) -> tuple[float, float]:
        """Of φ and ψ, eV/rad²."""
        kT = units.KB * TEMPERATURE
        phi, psi = (kT * (self.spacing * n / (2 * np.pi)) ** 2 for n in (self.n_phi, self.n_psi))
        return phi, psi

    def centers(self, direction: Direction) -> np.ndarray:
        """(n_windows, 2) rad, in the order of the walk."""
        sign = 1 if direction == "up" else -1
        phi, psi = np.deg2rad(C7EQ)
        turn = sign * 2 * np.pi
        at = [
            (phi + turn * i / self.n_phi, psi + (turn * j / self.n_psi if self.n_psi else 0.0))
            for i in range(self.n_phi)
            for j in range(max(self.n_psi, 1))
        ]
        return difference(np.array(at), 0.0, period=2 * np.pi)


Direction = Literal["up", "down"]


class Walked(NamedTuple):
    """Angles (n_windows, n_samples), rad, of one walk, and the windows' centers (n_windows, 2)."""

    centers: np.ndarray
    phi: np.ndarray
    psi: np.ndarray
    cis: np.ndarray
    """bool: a peptide bond is not trans."""
    mirrored: np.ndarray
    """bool: the α carbon is the D form."""


def walked(
    folder: Path,
    protocol: Protocol,
    direction: Direction,
    *,
    seed: int,
    progress: Callable[[str], None],
) -> Walked:
    """The samples of one walk: read from `folder`, where it was done before, or done and kept there.

    Raises:
        ConfigError: the molecule's file is not under $SAPIS_DATA, or kept samples are damaged.
    """
    make_folder(folder)
    path = folder / f"{protocol.name}-{direction}-{seed}.npz"
    if path.exists():
        with np.load(io.BytesIO(read_bytes(path))) as kept:
            return Walked(**{name: kept[name] for name in Walked._fields})
    start = pdb_structure(need_file(data_root(None), TOPOLOGY))
    walk = TorsionWalk(
        ORACLE,
        start.species,
        start.positions,
        torsions=(PHI, PSI),
        stiffness=protocol.stiffness(),
        temperature=TEMPERATURE,
        friction=_FRICTION,
        timestep=_TIMESTEP,
        seed=seed,
    )
    handed = np.sign(values(start.positions, CENTER))
    walk.place(np.array([values(start.positions, four) for four in (PHI, PSI)]))
    centers = protocol.centers(direction)
    walk.move(centers[0], n_steps=20_000)
    columns: list[list[np.ndarray]] = [[], [], [], []]
    for k, center in enumerate(centers):
        walk.move(center, n_steps=round(1e3 * protocol.moving / _TIMESTEP))
        walk.run(round(1e3 * protocol.equilibration / _TIMESTEP), every=_EVERY)
        x = walk.run(round(1e3 * protocol.sampling / _TIMESTEP), every=_EVERY)
        trans = [np.abs(values(x, four)) > np.pi / 2 for four in OMEGAS]
        new = (values(x, PHI), values(x, PSI), ~np.all(trans, 0), np.sign(values(x, CENTER)) != handed)
        for column, value in zip(columns, new, strict=True):
            column.append(value)
        progress(f"{path.stem}: window {k + 1} of {len(centers)}")
    found = Walked(centers, *(np.array(column) for column in columns))
    out = io.BytesIO()
    np.savez(out, **found._asdict())
    write_bytes(path, out.getvalue())
    return found
