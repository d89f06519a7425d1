"""The spread of several potentials that were trained alike but for their seed.

Mean and standard deviation over M members, the latter with M - 1, times a factor that gives it the size of
the errors (Musil et al., J. Chem. Theory Comput. 15, 906 (2019), arXiv:1809.07653): members share data and
family, and agree where all of them are wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sapis_lab.config import ConfigError
from sapis_lab.data import FrameStore
from sapis_lab.potential import Potential, Predictions
from sapis_lab.structures import as_structures
from sapis_lab.uncertainty._base import Judged, Structures, Uncertainty
from sapis_lab.uncertainty._calibration import scale_of
from sapis_lab.uncertainty._frames import labelled


@dataclass(frozen=True)
class Ensemble(Uncertainty):
    """Several potentials of the same elements."""

    members: Sequence[Potential]
    energy_scale: float = 1.0
    """Factor on the standard deviation of energies."""
    force_scale: float = 1.0
    """Factor on the standard deviations of forces."""

    def __post_init__(self) -> None:
        if len(self.members) < 2:
            raise ConfigError(f"an ensemble of {len(self.members)} potentials; wanted at least 2")
        first = self.members[0]
        for k, member in enumerate(self.members):
            if not member.model.gives_energy:
                raise ConfigError(
                    f"member {k} of the ensemble learnt no energies; wanted energies and forces"
                )
            name = member.origin.get("fingerprint")
            if name is not None and name in [m.origin.get("fingerprint") for m in self.members[:k]]:
                raise ConfigError(
                    f"member {k} of the ensemble is the point {member.origin.get('id')} once more; wanted "
                    f"points that differ in their seed"
                )
            if member.model.species != first.model.species:
                raise ConfigError(
                    f"member {k} of the ensemble knows the elements {list(member.model.species)}, the first "
                    f"{list(first.model.species)}; wanted the same of all"
                )

    def judge(self, structures: Structures, *, stress: bool = False) -> Judged:
        given = as_structures(structures)
        found = [member.predict(given, stress=stress) for member in self.members]
        energy, forces = np.stack([p.energy for p in found]), np.stack([p.forces for p in found])
        return Judged(
            _mean(found),
            self.energy_scale * energy.std(0, ddof=1),
            self.force_scale * forces.std(0, ddof=1),
        )

    def scaled(self, store: FrameStore, *, split: str = "validation", most: int = 200) -> Ensemble:
        """This ensemble with the factors that fit the errors on the first `most` frames of a split which no
        member was trained on.

        Raises:
            ValueError: the split has no frames, or none with labels.
        """
        frames = labelled(store, split, most)
        plain = replace(self, energy_scale=1.0, force_scale=1.0).judge(frames.structures)
        return replace(
            self,
            energy_scale=scale_of(plain.predictions.energy - frames.energy, plain.energy_std),
            force_scale=scale_of(plain.predictions.forces - frames.forces, plain.forces_std),
        )


def _mean(found: Sequence[Predictions]) -> Predictions:
    """The mean of several predictions of the same structures; properties that all members predict."""

    def mean(name: str) -> np.ndarray:
        return np.asarray(np.mean([getattr(p, name) for p in found], axis=0))

    common = set.intersection(*(set(p.properties) for p in found))
    properties: Mapping[str, np.ndarray] = {
        key: np.asarray(np.mean([p.properties[key] for p in found], axis=0)) for key in sorted(common)
    }
    return Predictions(
        found[0].n_atoms,
        mean("energy"),
        mean("forces"),
        mean("atomic_energies"),
        None if found[0].stress is None else mean("stress"),
        properties=properties,
        per_atom=found[0].per_atom & common,
    )
