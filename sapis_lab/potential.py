"""A trained potential on disk and in hand: `model.safetensors` holds the weights, `model.yaml` everything else; nothing is pickled.

model.yaml: format, the model's settings, species, mean_neighbors, reference energies (eV), what these were made from (not in
older files), precision, and where it came from.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import load_file, save

from sapis_lab.atoms import AtomsBatch, collate, make_graph
from sapis_lab.config import dump, kind_class, load, read_yaml
from sapis_lab.derivatives import predict_in_double
from sapis_lab.files import write_bytes, write_text
from sapis_lab.models import Model, ModelConfig
from sapis_lab.neighbors import MIN_DISTANCE, Closest, closest, neighbor_list, wrapped
from sapis_lab.references import ReferencesFrom, UndeterminedEnergy

FORMAT = 1
WEIGHTS, DESCRIPTION = "model.safetensors", "model.yaml"


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
    references_from: ReferencesFrom | None = None
    """What the reference energies were made from; None in older files, of whose energies nothing can be warned."""
    _warned: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

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
            species: (n_atoms,) atomic numbers.   positions: (n_atoms, 3) Å; along periodic directions they may lie anywhere.
            cell: (3, 3) Å, rows are lattice vectors.   pbc: (3,) bool.

        Raises:
            ValueError: no atoms, elements the model does not know, numbers that are not finite, two atoms (images included)
                closer than `neighbors.MIN_DISTANCE` (the message names them and their distance), or a lone atom whose energy
                has no meaning.

        Warns:
            UndeterminedEnergy: the training data leave an offset of the energy open (once a potential).
        """
        species = np.asarray(species)
        if not len(species):
            raise ValueError("a structure needs at least one atom, got none")
        unknown = sorted({int(z) for z in species} - set(self.model.species))
        if unknown:
            raise ValueError(f"the potential knows the elements {list(self.model.species)}, got atomic numbers {unknown} as well")
        positions = np.asarray(positions, dtype=float)
        if positions.shape != (len(species), 3):
            raise ValueError(f"positions have shape {positions.shape}, wanted {(len(species), 3)} for {len(species)} species")
        batch, pair = self._batch(species, positions, cell, pbc)
        if pair is not None and pair.distance < MIN_DISTANCE:
            raise ValueError(f"{pair}, wanted at least {MIN_DISTANCE} Å; no model has learnt from such a structure")
        if self.references_from is not None:
            doubt = self.references_from.doubt(species, lone=len(species) == 1 and pair is None)
            if doubt and not self._warned:
                self._warned.add(doubt)
                warnings.warn(doubt, UndeterminedEnergy, stacklevel=2)
        result = predict_in_double(self.model, batch.to(self.model.energy_scale.device), stress=stress)
        elements, counts = np.unique(species, return_counts=True)
        references = math.fsum(int(n) * self.references[int(z)] for z, n in zip(elements, counts, strict=True))
        total, forces = float(result.energy) + references, result.forces.cpu().numpy()
        if not (np.isfinite(total) and np.isfinite(forces).all()):
            raise ValueError(f"energy or forces are not finite; {pair or 'no atom has a neighbour'}")
        return total, forces, None if result.stress is None else result.stress[0].cpu().numpy()

    def _batch(
        self, species: np.ndarray, positions: np.ndarray, cell: np.ndarray | None, pbc: np.ndarray | None
    ) -> tuple[AtomsBatch, Closest | None]:
        """The structure as a batch in float64, its atoms wrapped into the cell, and its closest pair."""
        cell = np.zeros((3, 3)) if cell is None else np.asarray(cell, dtype=float)
        pbc = np.zeros(3, dtype=bool) if pbc is None else np.asarray(pbc, dtype=bool)
        given, positions = positions, wrapped(positions, cell, pbc)
        n_atoms = np.array([len(species)])
        edges = neighbor_list(positions, cell, pbc, self.model.cutoff)
        graph = make_graph(layout=self.model.layout, n_atoms=n_atoms, edges=[edges], periodic=bool(pbc.any()), cutoff=self.model.cutoff)
        batch = collate(
            n_atoms=n_atoms, species=species, positions=positions, cell=cell[None], graph=graph, dtype=torch.float64
        )
        pair = closest(positions, cell, edges)
        if pair is not None:  # which pairs cross a boundary is said of the positions as they were given
            plain = np.linalg.norm(given[pair.neighbor] - given[pair.center])
            pair = pair._replace(across=not np.isclose(plain, pair.distance, atol=1e-6))
        return batch, pair


def save_potential(folder: Path, potential: Potential) -> None:
    """Write the potential into `folder`; the description last, so that a folder with one is whole."""
    weights = save({k: v.detach().cpu().contiguous() for k, v in potential.model.state_dict().items()})
    write_bytes(folder / WEIGHTS, weights)  # not by safetensors, whose files nobody else may read
    description = {
        "format": FORMAT,
        "model": dump(potential.config),
        "species": list(potential.model.species),
        "mean_neighbors": potential.mean_neighbors,
        "reference_energies": {int(z): float(e) for z, e in potential.references.items()},
        **({} if potential.references_from is None else {"references_from": potential.references_from.plain()}),
        "precision": str(potential.dtype).removeprefix("torch."),
        "units": {"energy": "eV", "length": "Angstrom", "forces": "eV/Angstrom", "stress": "eV/Angstrom^3, tension positive"},
        "origin": dict(potential.origin),
    }
    write_text(folder / DESCRIPTION, yaml.safe_dump(description, sort_keys=False))


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
    model.load_state_dict(load_file(folder / WEIGHTS))
    model.eval().requires_grad_(False)
    references = {int(z): float(e) for z, e in saved["reference_energies"].items()}
    told = saved.get("references_from")
    references_from = (
        None if told is None else load(ReferencesFrom, told, source=f"{folder / DESCRIPTION}: references_from")
    )
    return Potential(model.to(device), config, references, saved["mean_neighbors"], saved["origin"], references_from)
