"""What the training frames leave open in a linear map from the features of the atoms to the energy.

The last-layer prediction rigidity of Bigi, Chong, Ceriotti and Grasselli (Mach. Learn.: Sci. Technol. 5,
045018 (2024), arXiv:2403.02251), a Laplace approximation of the last layer: with phi(A) = sum_i phi_i the
features of a structure, F the (D, F) matrix of those of the training frames,

    C = (F^T F + sigma^2 1)^-1 = L L^T,       s_E^2 = alpha_E^2 phi^T C phi = alpha_E^2 sum_m (L_m . phi)^2,
    s_k^2 = alpha_F^2 sum_m (d(L_m . phi)/dx_k)^2     for the component k of a force.

Features are those that every model gives (`Output.node_features`), of which its readout makes the energy;
where that readout is a network, they are not quite its last layer, a departure from the paper that needs no
knowledge of the family. sigma^2 is chosen and alpha is fitted on validation frames, energies and forces
apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sapis_lab.atoms import AtomsBatch
from sapis_lab.config import ConfigError
from sapis_lab.data import FrameStore
from sapis_lab.derivatives import along_features, node_features
from sapis_lab.files import digest, write_bytes
from sapis_lab.potential import WEIGHTS, Potential
from sapis_lab.structures import Structure, as_structures, batch_in_double, passes, prepared
from sapis_lab.uncertainty._base import Judged, Structures, Uncertainty
from sapis_lab.uncertainty._calibration import scale_of
from sapis_lab.uncertainty._frames import labelled

FILE = "uncertainty.safetensors"
_FORMAT = "1"
REGULARISERS = tuple(10.0**k for k in range(-10, 1))
"""sigma^2 that are tried, in units of the mean eigenvalue of F^T F."""
_PAIRS = 65_536


@dataclass(frozen=True)
class LastLayer(Uncertainty):
    """A potential with the covariance of its last layer."""

    potential: Potential
    factor: np.ndarray
    """(F, M) L, of which the covariance is L L^T; float64"""
    energy_scale: float
    """alpha_E, eV"""
    force_scale: float
    """alpha_F, eV"""

    @classmethod
    def fitted(
        cls, potential: Potential, store: FrameStore, *, n_train: int | None = None, most: int = 200
    ) -> Self:
        """Of a potential and the frames of its study.

        Args:
            n_train: D, the first training frames, that it was trained on; by default what its origin says.
            most: validation frames that sigma^2 and alpha are fitted on, at most.

        Raises:
            ValueError: it learnt no energies, D is not known, or a split has no frames.
        """
        if not potential.model.gives_energy:
            raise ValueError("the potential learnt no energies; wanted one with energies and forces")
        d = n_train if n_train is not None else potential.origin.get("n_frames")
        if not isinstance(d, int):
            raise ValueError("how many frames the potential was trained on is not known; give n_train")
        train = labelled(store, "train", d)
        features = _sums(potential, train.structures)
        eigenvalues, vectors = np.linalg.eigh(features.T @ features)
        validation = labelled(store, "validation", most)
        predicted = potential.predict(validation.structures)
        errors = predicted.energy - validation.energy
        there = np.isfinite(errors)
        along = _sums(potential, validation.structures)[there] @ vectors
        best, least = None, np.inf
        for regulariser in REGULARISERS:
            inverse = 1 / np.sqrt(np.clip(eigenvalues, 0, None) + regulariser * eigenvalues.mean())
            std = np.linalg.norm(along * inverse, axis=1)
            scale = scale_of(errors[there], std)
            nll = float(np.mean(np.log(scale * std)))  # with alpha fitted the rest of the NLL is a constant
            if nll < least:
                best, least = (vectors * inverse, scale), nll
        assert best is not None
        factor, energy_scale = best
        plain = cls(potential, factor, energy_scale, 1.0).judge(validation.structures)
        force_scale = scale_of(predicted.forces - validation.forces, plain.forces_std)
        return cls(potential, factor, energy_scale, force_scale)

    def judge(self, structures: Structures, *, stress: bool = False) -> Judged:
        given = as_structures(structures)
        predictions = self.potential.predict(given, stress=stress)
        energy, forces = [], []
        directions = torch.from_numpy(self.factor)
        for batch in _batches(self.potential, given):
            sums, slopes = along_features(self.potential.model, batch, directions)
            energy.append(sums.square().sum(1).sqrt().cpu().numpy())
            forces.append(slopes.square().sum(0).sqrt().cpu().numpy())
        return Judged(
            predictions,
            self.energy_scale * np.concatenate(energy),
            self.force_scale * np.concatenate(forces),
        )

    def save(self, folder: Path) -> Path:
        """Write `uncertainty.safetensors` beside the weights of its potential in `folder`; the path."""
        facts = {
            "format": _FORMAT,
            "weights_sha256": digest(folder / WEIGHTS),
            "energy_scale": repr(float(self.energy_scale)),
            "force_scale": repr(float(self.force_scale)),
        }
        tensors = {"factor": torch.from_numpy(np.ascontiguousarray(self.factor))}
        write_bytes(folder / FILE, save(tensors, metadata=facts))
        return folder / FILE

    @classmethod
    def load(cls, folder: Path, potential: Potential) -> Self:
        """Of the potential in `folder`, with the file beside it.

        Raises:
            ConfigError: there is no such file, it is damaged, or belongs to other weights.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            raise ConfigError(
                f"{path}: no such file; make it with: sapis model uncertainty POINT --out FOLDER"
            )
        try:
            with safe_open(path, framework="pt") as file:
                facts = file.metadata() or {}
                factor = file.get_tensor("factor").double().numpy()
            scales = float(facts["energy_scale"]), float(facts["force_scale"])
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise ConfigError(f"{path}: cannot be read: {error}; make it again") from None
        if facts.get("weights_sha256") != digest(Path(folder) / WEIGHTS):
            raise ConfigError(f"{path} was made of other weights than {WEIGHTS} beside it; make it again")
        if factor.ndim != 2 or not np.isfinite(factor).all() or not np.isfinite(scales).all():
            raise ConfigError(f"{path}: factor: wanted a matrix of finite numbers; make it again")
        return cls(potential, factor, *scales)


def _batches(potential: Potential, structures: Sequence[Structure]) -> Iterator[AtomsBatch]:
    model = potential.model
    ready = (prepared(s, cutoff=model.cutoff, known=model.species) for s in structures)
    for some in passes(ready, batch_pairs=_PAIRS):
        batch = batch_in_double(some, layout=model.layout, cutoff=model.cutoff)
        yield batch.to(model.energy_scale.device)


def _sums(potential: Potential, structures: Sequence[Structure]) -> np.ndarray:
    """(B, F), the sums of the features over the atoms of every structure."""

    def of(batch: AtomsBatch) -> Tensor:
        features = node_features(potential.model, batch).detach().double()
        return features.new_zeros(batch.n_frames, features.shape[1]).index_add(0, batch.batch, features)

    return np.concatenate([of(batch).cpu().numpy() for batch in _batches(potential, structures)])
