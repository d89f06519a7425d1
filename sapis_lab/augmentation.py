"""How training frames are changed at random before a step sees them: turned, and moved a little.

Rotations. A frame x with cell h (rows) and labels of Cartesian rank r becomes

    x' = R x,  h' = h R^T,  scalars stay,  v' = R v,  t' = R t R^T,        R uniform on O(3) or SO(3).

Energies are scalars, forces and dipoles vectors, stress is a matrix. An improper R turns vectors round and
leaves scalars as they are; what changes sign under reflection without being a vector, such as an optical
rotation, or does not although it is one, such as a magnetic moment, is learnt with SO3.

Noise. Every coordinate is moved by an independent normal number dx of standard deviation s. The energy
follows to first order, E' = E - F.dx, and the forces are left as they are, so that with the Hessian H of the
true surface

    E' - E(x + dx) = -dx.H.dx / 2,  on average -s² tr(H) / 2;        F' - F(x + dx) = H dx,  on average 0.

These are errors of the labels, which the model learns. Of ethanol at 500 K on the GFN2-xTB surface, where
tr(H) is 590 eV/Å², they are

    s = 0.001 Å     energy -0.3 ± 0.1 meV (of a frame)     forces  36 meV/Å (RMS per component)
        0.003 Å            -2.7 ± 1.3 meV                          109 meV/Å
        0.01 Å             -29 ± 12 meV                            360 meV/Å

so that noise costs more accuracy than it can give wherever a model is to come below these errors. What is
drawn depends on the seed, the step and the place of the frame in the global batch alone: a resumed run and
any number of ranks see the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, ValidationInfo

from sapis_lab.config import Config

_ROTATIONS, _NOISE = 0x0A, 0x0B
"""Keep the random streams of rotations and of noise apart from that of the order of frames."""


class Augmentation(Config):
    """Random changes of every training frame, drawn anew whenever it is seen."""

    rotations: Literal["O3", "SO3", "none"] = "O3"
    """Turn frames and labels, for models that are not equivariant: by rotations and reflections, by rotations
    alone, or not at all."""
    noise: float = Field(default=0.0, ge=0, le=0.1)
    """Standard deviation of a coordinate, Å, for every model; wants forces, with which energies follow to
    first order. Labels get errors of second order in energies and of first order in forces: for ethanol at
    500 K 0.3 meV a frame and 36 meV/Å at 0.001 Å, 29 meV and 360 meV/Å at 0.01 Å."""

    def of(self, *, symmetry: str) -> Augmentation:
        """What is left of it for a model of this `symmetry`: one that is equivariant is not trained on turned
        frames."""
        return self if symmetry == "none" else self.model_copy(update={"rotations": "none"})


_NOTHING = Augmentation(rotations="none")
_FULL = Augmentation()


def _short(value: Any, info: ValidationInfo) -> Any:
    """The setting, true for what that stands for and false for nothing: equal numbers have one name."""
    if isinstance(value, Mapping):
        value = Augmentation.model_validate(value, context=info.context)
    if not isinstance(value, bool | Augmentation):
        raise ValueError(
            f"wanted true, false, or a mapping as in {{rotations: SO3}}, got {str(value)[:80]!r}"
        )
    return {_FULL: True, _NOTHING: False}.get(value, value) if isinstance(value, Augmentation) else value


AugmentSetting = Annotated[bool | Augmentation, BeforeValidator(_short)]
"""The setting `train.augment`."""


def augmentation(setting: bool | Augmentation) -> Augmentation:
    """What a setting stands for: true for rotations and reflections, false for nothing."""
    if isinstance(setting, Augmentation):
        return setting
    return _FULL if setting else _NOTHING


def random_rotations(n: int, *, seed: int, step: int, group: Literal["O3", "SO3"] = "O3") -> np.ndarray:
    """(n, 3, 3) float64, uniform on O(3), where half of them have a reflection, or the same without it."""
    rng = np.random.default_rng([seed, step, _ROTATIONS])
    q = rng.normal(size=(n, 4))
    w, x, y, z = (q / np.linalg.norm(q, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    proper = np.moveaxis(np.array(rows), -1, 0)
    if group == "SO3":
        return proper
    sign = np.where(rng.random(n) < 0.5, -1.0, 1.0)
    return proper * sign[:, None, None]


def rotated(labels: np.ndarray, rotations: np.ndarray, rank: int) -> np.ndarray:
    """Labels (n, 3, ...) of Cartesian rank 0, 1 or 2, each turned by its own rotation (n, 3, 3)."""
    if rank == 0:
        return labels
    if rank == 1:
        return np.einsum("aij,aj->ai", rotations, labels)
    return rotations @ labels @ rotations.transpose(0, 2, 1)


def random_displacements(n_atoms: int, *, noise: float, seed: int, step: int, place: int) -> np.ndarray:
    """(n_atoms, 3) Å: how the frame at `place` of the global batch of `step` is moved."""
    return np.random.default_rng([seed, step, _NOISE, place]).normal(scale=noise, size=(n_atoms, 3))


def energy_change(forces: np.ndarray, displacements: np.ndarray, n_atoms: np.ndarray) -> np.ndarray:
    """-F.dx of every frame, (n_frames,) eV; forces (n_atoms_total, 3) eV/Å, displacements (n_atoms_total, 3)
    Å."""
    work = (forces.astype(np.float64) * displacements).sum(1)
    return -np.add.reduceat(work, np.cumsum(n_atoms) - n_atoms)
