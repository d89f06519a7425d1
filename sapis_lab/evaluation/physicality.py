"""What no potential should do, after the physicality tests of ml-peg 0.7 and the bond smoothness
characterization test (`observables.physicality`), computed in float64 whatever the potential was trained in.

On frames of the first test set: changes of energy and forces when a frame is moved, turned, reordered; energy
of two copies far apart; forces with ghost atoms far away; the antisymmetric part of -dF/dx; compression; and
bonds stretched and pressed. On dimers of all elements: changes of sign of the force and minima. An invariant,
conservative model is at rounding in all but the scans, where ml-peg's bad ends are 1 meV, 1 meV/Å, 5 meV/Å
(ghost atoms), 0.004 (antisymmetry), 5 changes of sign or minima.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import Field

from sapis_lab.augmentation import random_rotations
from sapis_lab.evaluation import Evaluation, Measured, Subject
from sapis_lab.measures import Quantity


class PhysicalityConfig(Evaluation):
    """Symmetries, extensivity, and scans far from the data."""

    kind: Literal["physicality"] = "physicality"
    n_frames: int = Field(default=4, ge=1, le=1000)
    """Frames of the first test set, from its start."""
    n_turns: int = Field(default=4, ge=1, le=1000)
    """Rotations and reflections of each of them."""
    n_jacobians: int = Field(default=1, ge=0, le=1000)
    """Frames whose -dF/dx is taken: 24 predictions for every atom."""
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """Of translations, rotations and orders."""

    @classmethod
    def quantities(cls) -> tuple[Quantity, ...]:
        def energy(key: str, label: str) -> Quantity:
            return Quantity(key, label, "eV", better="lower", display_unit="meV", display_factor=1e3)

        def force(key: str, label: str) -> Quantity:
            return Quantity(key, label, "eV/Å", better="lower", display_unit="meV/Å", display_factor=1e3)

        return (
            energy("extensivity", "energy per atom of two far copies beyond twice that of one"),
            force("ghost_force", "largest change of a force by atoms far away"),
            energy("translation_energy", "largest change of the energy per atom by a translation"),
            force("translation_force", "largest change of a force by a translation"),
            energy("rotation_energy", "largest change of the energy per atom by a rotation"),
            force("rotation_force", "largest change of a force by a rotation"),
            force("order_force", "largest change of a force by another order of the atoms"),
            Quantity("antisymmetry", "antisymmetric share of the derivative of forces", "", better="lower"),
            Quantity("dimer_flips", "largest number of changes of sign of a dimer's force", "",
                     better="lower"),
            Quantity("dimer_minima", "largest number of minima of a dimer", "", better="lower"),
            Quantity("compression_holes", "points of a compression 100 eV per atom below", "",
                     better="lower"),
            Quantity("bond_minima", "largest number of minima along a bond beyond one", "", better="lower"),
            force("bond_jump", "largest third difference of the force along a bond"),
            energy("bond_mismatch", "largest difference of energy and work along a bond"),
        )  # fmt: skip

    def parts(self, subject: Subject) -> tuple[str, ...]:
        subject.want_energies()
        return ("symmetries", "dimers", "scans")

    def measure(self, subject: Subject, part: str) -> dict[str, np.ndarray]:
        """symmetries: (n_frames, ...) of each; dimers: flips and minima by pair of elements; scans: of the
        frames and their bonds."""
        potential = subject.potential
        in_double = replace(potential, model=deepcopy(potential.model).double())
        if part == "dimers":
            return self._dimers(in_double.predict, in_double.model)
        frames = subject.structures(subject.test_frames(self.n_frames))
        if part == "scans":
            return self._scans(in_double.predict, frames)
        return self._symmetries(in_double.predict, frames, in_double.model)

    def _symmetries(self, predict, frames, model) -> dict[str, np.ndarray]:  # noqa: ANN001
        from sapis_lab.observables import physicality

        generator = np.random.default_rng(self.seed)
        rows: dict[str, list[float]] = {}
        for k, frame in enumerate(frames):
            by = generator.uniform(-10, 10, 3)
            order = generator.permutation(len(frame.species))
            turns = random_rotations(self.n_turns, seed=self.seed, step=k)
            moved = physicality.translated(predict, frame, by=by)
            turned = physicality.turned(predict, frame, turns=turns)
            found = {
                "extensivity": physicality.extensivity(predict, frame),
                "translation_energy": moved.energy,
                "translation_force": moved.force,
                "rotation_energy": turned.energy,
                "rotation_force": turned.force,
                "order_force": physicality.reordered(predict, frame, order=order).force,
            }
            if frame.pbc is None or not np.any(frame.pbc):
                found["ghost_force"] = physicality.ghost_atoms(predict, frame, species=model.species)
            if k < self.n_jacobians:
                found["antisymmetry"] = physicality.force_antisymmetry(predict, frame, cutoff=model.cutoff)
            for key, value in found.items():
                rows.setdefault(key, []).append(value)
        return {key: np.array(values) for key, values in rows.items()}

    def _dimers(self, predict, model) -> dict[str, np.ndarray]:  # noqa: ANN001
        from sapis_lab.elements import COVALENT_RADII
        from sapis_lab.observables import physicality

        species = list(model.species)
        pairs, scans = [], []
        for k, a in enumerate(species):
            for b in species[k:]:
                nearest = max(0.35, 0.5 * (COVALENT_RADII[a] + COVALENT_RADII[b]))
                far = np.linspace(nearest, model.cutoff + 0.3, 400)
                scans.append(physicality.dimer(predict, (a, b), distances=far))
                pairs.append((a, b))
        return {
            "pairs": np.array(pairs),
            "distance": np.array([s.at for s in scans]),
            "energy": np.array([s.energy for s in scans]),
            "force": np.array([s.force for s in scans]),
        }

    def _scans(self, predict, frames) -> dict[str, np.ndarray]:  # noqa: ANN001
        from sapis_lab.neighbors import neighbor_list
        from sapis_lab.observables import physicality

        holes, minima, jump, mismatch = [], [], [], []
        for frame in frames:
            at = np.asarray(frame.positions, dtype=float)
            near = neighbor_list(at, frame.cell, False if frame.pbc is None else frame.pbc, 3.5)
            cell = np.zeros((3, 3)) if frame.cell is None else frame.cell
            v = at[near.neighbor] + near.shift @ cell - at[near.center]
            closest = np.linalg.norm(v, axis=1).min(initial=3.5)
            factors = np.linspace(max(0.25, 0.35 / closest), 2.0, 100)
            scan = physicality.compression(predict, frame, factors=factors)
            rest = float(predict([frame]).energy[0])
            holes.append(physicality.holes(scan, energy=rest, n_atoms=len(frame.species)))
            if frame.pbc is None or not np.any(frame.pbc):
                for bond in physicality.bond_scans(predict, frame):
                    minima.append(max(0, bond.minima - 1))
                    jump.append(bond.jump)
                    mismatch.append(bond.mismatch)
        return {
            "holes": np.array(holes),
            "minima": np.array(minima, dtype=int),
            "jump": np.array(jump, dtype=float),
            "mismatch": np.array(mismatch, dtype=float),
        }

    def score(self, measured: Measured) -> dict[str, float]:
        from sapis_lab.observables.physicality import Scan

        scores = {key: float(values.max()) for key, values in measured["symmetries"].items()}
        there = measured["dimers"]
        every = [Scan(*row) for row in zip(there["distance"], there["energy"], there["force"], strict=True)]
        scores |= {
            "dimer_flips": float(max(s.flips for s in every)),
            "dimer_minima": float(max(s.minima for s in every)),
            "compression_holes": float(measured["scans"]["holes"].sum()),
        }
        if len(measured["scans"]["minima"]):
            scores |= {
                "bond_minima": float(measured["scans"]["minima"].max()),
                "bond_jump": float(measured["scans"]["jump"].max()),
                "bond_mismatch": float(measured["scans"]["mismatch"].max()),
            }
        return scores
