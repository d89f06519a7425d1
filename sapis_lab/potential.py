"""A trained potential on disk and in hand: `model.safetensors` holds the weights, `model.yaml` everything else; nothing is pickled.

model.yaml: format, the model's settings, species, mean_neighbors, reference energies (eV), precision, and where it came from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import load as load_safetensors
from safetensors.torch import save

from sapis_lab.atoms import AtomsBatch, collate, make_graph
from sapis_lab.config import dump, kind_class, load, read_yaml
from sapis_lab.derivatives import predict
from sapis_lab.files import read_bytes, write_bytes, write_text
from sapis_lab.models import Model, ModelConfig
from sapis_lab.neighbors import neighbor_list

FORMAT = 1
WEIGHTS, DESCRIPTION = "model.safetensors", "model.yaml"
_LARGEST_WEIGHTS = 2**36


@dataclass(frozen=True)
class Potential:
    """A model with its reference energies: total energies, forces and stress of any structure of its species."""

    model: Model
    config: ModelConfig
    references: Mapping[int, float]
    """Reference energy of every species, eV, by atomic number."""
    mean_neighbors: float
    origin: Mapping[str, Any]
    """The point it was trained at: id, fingerprint, data."""

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the weights."""
        return self.model.energy_scale.dtype

    def evaluate(
        self,
        *,
        species: np.ndarray,
        positions: np.ndarray,
        cell: np.ndarray | None = None,
        pbc: np.ndarray | None = None,
        stress: bool = False,
    ) -> tuple[float, np.ndarray, np.ndarray | None]:
        """Total energy (eV), forces (n_atoms, 3) eV/Å and, on request, stress (3, 3) eV/Å^3 of one structure.

        Args:
            species: (n_atoms,) atomic numbers.   positions: (n_atoms, 3) Å.   cell: (3, 3) Å, rows are lattice vectors.   pbc: (3,) bool.
        """
        species = np.asarray(species)
        if not len(species):
            raise ValueError("a structure needs at least one atom, got none")
        unknown = sorted({int(z) for z in species} - set(self.model.species))
        if unknown:
            raise ValueError(f"the potential knows the elements {list(self.model.species)}, got atomic numbers {unknown} as well")
        batch = self._batch(species, np.asarray(positions, dtype=float), cell, pbc)
        result = predict(self.model, batch.to(self.model.energy_scale.device), stress=stress)
        total = float(result.energy.double()) + sum(self.references[int(z)] for z in species)
        if not (np.isfinite(total) and bool(torch.isfinite(result.forces).all())):
            raise ValueError(f"energy or forces are not finite; {_closest(np.asarray(positions, dtype=float))}")
        tension = None if result.stress is None else result.stress[0].double().cpu().numpy()
        return total, result.forces.double().cpu().numpy(), tension

    def _batch(self, species: np.ndarray, positions: np.ndarray, cell: np.ndarray | None, pbc: np.ndarray | None) -> AtomsBatch:
        cell = np.zeros((3, 3)) if cell is None else np.asarray(cell, dtype=float)
        pbc = np.zeros(3, dtype=bool) if pbc is None else np.asarray(pbc, dtype=bool)
        n_atoms = np.array([len(species)])
        edges = neighbor_list(positions, cell, pbc, self.model.cutoff)
        graph = make_graph(layout=self.model.layout, n_atoms=n_atoms, edges=[edges], periodic=bool(pbc.any()), cutoff=self.model.cutoff)
        return collate(n_atoms=n_atoms, species=species, positions=positions, cell=cell[None], graph=graph, dtype=self.dtype)


def _closest(positions: np.ndarray) -> str:
    """The closest pair of atoms, in words."""
    if len(positions) < 2 or not np.isfinite(positions).all():
        return "positions must be finite numbers"
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=-1) + np.diag(np.full(len(positions), np.inf))
    i, j = np.unravel_index(np.argmin(distance), distance.shape)
    return f"atoms {i} and {j} are {distance[i, j]:.3g} Å apart"


def save_potential(folder: Path, potential: Potential) -> str:
    """Write the potential into `folder`; the description, which holds the sha256 of the weights, last, so that a folder with one is whole.

    Returns the sha256 (hex) of the file of weights.
    """
    weights = save({k: v.detach().cpu().contiguous() for k, v in potential.model.state_dict().items()})
    write_bytes(folder / WEIGHTS, weights)  # not by safetensors, whose files nobody else may read
    description = {
        "format": FORMAT,
        "model": dump(potential.config),
        "species": list(potential.model.species),
        "mean_neighbors": potential.mean_neighbors,
        "reference_energies": {int(z): float(e) for z, e in potential.references.items()},
        "precision": str(potential.dtype).removeprefix("torch."),
        "units": {"energy": "eV", "length": "Angstrom", "forces": "eV/Angstrom", "stress": "eV/Angstrom^3, tension positive"},
        "origin": dict(potential.origin),
        "weights_sha256": (weights_sha256 := hashlib.sha256(weights).hexdigest()),
    }
    write_text(folder / DESCRIPTION, yaml.safe_dump(description, sort_keys=False))
    return weights_sha256


def load_potential(path: str | Path, *, device: str = "cpu") -> Potential:
    """The potential in a point's folder (or whose model.yaml `path` is).

    Raises:
        ValueError: no potential there, or one of a newer format than this version reads.
    """
    path = Path(path)
    folder = path.parent if path.name in (DESCRIPTION, WEIGHTS) else path
    if not (folder / DESCRIPTION).exists():
        raise ValueError(f"{folder} holds no trained potential ({DESCRIPTION} is missing); give the folder of a finished point")
    saved = read_yaml(folder / DESCRIPTION)
    if saved["format"] > FORMAT:
        raise ValueError(f"{folder / DESCRIPTION} has format {saved['format']}, this version reads up to {FORMAT}; update sapis_lab")
    config = load(kind_class("models", saved["model"]["kind"]), saved["model"], source=str(folder / DESCRIPTION))
    model = config.build(species=tuple(saved["species"]), mean_neighbors=saved["mean_neighbors"], seed=0)
    model = model.to(dtype=getattr(torch, saved["precision"]))
    model.load_state_dict(_weights(folder / WEIGHTS, wanted=saved.get("weights_sha256")))
    model.eval().requires_grad_(False)
    references = {int(z): float(e) for z, e in saved["reference_energies"].items()}
    return Potential(model.to(device), config, references, saved["mean_neighbors"], saved["origin"])


def _weights(path: Path, *, wanted: str | None) -> dict[str, torch.Tensor]:
    """The tensors in a file of weights, once its sha256 is found to be `wanted`; potentials of older versions do not say theirs."""
    data = read_bytes(path, limit=_LARGEST_WEIGHTS)
    if wanted is not None and (got := hashlib.sha256(data).hexdigest()) != wanted:
        raise ValueError(
            f"{path} is not the file that {DESCRIPTION} was written with (sha256 {got[:12]} of {len(data)} bytes, wanted {wanted[:12]}): "
            "it was damaged, or comes from another potential"
        )
    return load_safetensors(data)
