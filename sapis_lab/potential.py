"""A trained potential on disk and in hand: `model.safetensors` holds the weights, `model.yaml` everything
else; nothing is pickled.

model.yaml: format, the model's settings, species, mean_neighbors, reference energies (eV), what these were
made from (not in older files), precision, and where it came from.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from pydantic.fields import FieldInfo
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from sapis_lab.atoms import AtomsBatch
from sapis_lab.config import (
    Added,
    Config,
    ConfigError,
    composed_kind,
    dump,
    kind_class,
    load,
    plainly,
    read_yaml,
    yaml_text,
)
from sapis_lab.derivatives import node_features, predict_in_double
from sapis_lab.files import digest, with_checksum, without_checksum, write_bytes, write_text
from sapis_lab.heads import HeadConfig, apply, attach, head_of
from sapis_lab.models import Model, ModelConfig
from sapis_lab.references import ReferencesFrom, UndeterminedEnergy
from sapis_lab.structures import (
    AtomsLike,
    Prepared,
    Structure,
    as_structures,
    batch_in_double,
    passes,
    prepared,
)
from sapis_lab.targets import Target

FORMAT = 1
WEIGHTS, DESCRIPTION = "model.safetensors", "model.yaml"
_EDITED = "put them back, or take out the line `checksum` to use what stands there now"
UNITS = {
    "energy": "eV",
    "length": "Angstrom",
    "forces": "eV/Angstrom",
    "stress": "eV/Angstrom^3, tension positive",
}


@dataclass(frozen=True)
class PairGradients:
    """g_ij = dE/dv_ij of all ordered pairs within the cutoff, sorted by centre.

    v_ij = r_j + shift @ cell - r_i with the positions as they were given; forces_i = sum_j g_ij - sum_j g_ji,
    and stress = (1/V) sum_ij v_ij (x) g_ij, symmetrised.
    """

    center: np.ndarray
    """(n_pairs,) int64, atom i, counted over all structures"""
    neighbor: np.ndarray
    """(n_pairs,) int64, atom j, counted over all structures"""
    shift: np.ndarray
    """(n_pairs, 3) int64, the lattice translation of j"""
    gradient: np.ndarray
    """(n_pairs, 3) g_ij, eV/Å"""


@dataclass(frozen=True)
class Predictions:
    """What a potential says of B structures with A atoms in all; `predictions[k]` is about the k-th alone."""

    n_atoms: np.ndarray
    """(B,) int64"""
    energy: np.ndarray
    """(B,) total energies, reference energies included, eV; NaN, as forces and parts of the energy are, of a
    potential that learnt properties alone"""
    forces: np.ndarray
    """(A, 3) eV/Å"""
    atomic_energies: np.ndarray
    """(A,) eV: the model's energy of every atom and the reference energy of its species, which add up to
    `energy`"""
    stress: np.ndarray | None = None
    """(B, 3, 3) eV/Å^3, tension positive, on request"""
    pairs: PairGradients | None = None
    """On request."""
    properties: Mapping[str, np.ndarray] = field(default_factory=dict)
    """What the heads of the potential predict, by the keys of their targets: (B, ...) or (A, ...), in the
    units of the labels that they learnt; NaN of a periodic structure where it has no meaning, as a dipole
    moment."""
    per_atom: frozenset[str] = frozenset()
    """Which of the properties belong to atoms."""

    def __len__(self) -> int:
        return len(self.n_atoms)

    def __getitem__(self, k: int) -> Predictions:
        k = range(len(self))[k]
        last = int(self.n_atoms[: k + 1].sum())
        atoms = slice(last - int(self.n_atoms[k]), last)
        pairs = None
        if self.pairs is not None:
            of_k = slice(*np.searchsorted(self.pairs.center, (atoms.start, atoms.stop)))
            center, neighbor = self.pairs.center[of_k] - atoms.start, self.pairs.neighbor[of_k] - atoms.start
            pairs = PairGradients(center, neighbor, self.pairs.shift[of_k], self.pairs.gradient[of_k])
        return Predictions(
            self.n_atoms[k : k + 1],
            self.energy[k : k + 1],
            self.forces[atoms],
            self.atomic_energies[atoms],
            None if self.stress is None else self.stress[k : k + 1],
            pairs,
            {
                key: values[atoms if key in self.per_atom else slice(k, k + 1)]
                for key, values in self.properties.items()
            },
            self.per_atom,
        )


class Learnt(Config):
    """A target with the head that predicts it."""

    target: composed_kind("targets", Target)  # type: ignore[valid-type]
    """What is predicted."""
    head: composed_kind("heads", HeadConfig)  # type: ignore[valid-type]
    """By what."""


@dataclass(frozen=True)
class Potential:
    """A model with its reference energies: total energies, forces and stress of any structure of its
    species."""

    model: Model
    config: ModelConfig
    references: Mapping[int, float]
    """Reference energy of every species, eV, by atomic number."""
    mean_neighbors: float
    origin: Mapping[str, Any]
    """The point it was trained at: id, fingerprint, data."""
    references_from: ReferencesFrom | None = None
    """What the reference energies were made from; None in older files, of whose energies nothing can be
    warned."""
    heads: Mapping[str, Learnt] = field(default_factory=dict)
    """What it learnt beside the energy, or instead of it, by the keys of the targets."""
    _warned: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the weights."""
        return self.model.energy_scale.dtype

    def predict(
        self,
        structures: Structure | AtomsLike | Iterable[Structure | AtomsLike],
        *,
        stress: bool = False,
        pairs: bool = False,
        batch_pairs: int = 65_536,
    ) -> Predictions:
        """Energies, of the atoms too, and forces of one or several structures: ASE's `Atoms`, or `Structure`.

        Args:
            stress: as well; needs a cell of non-zero volume in every structure.   pairs: dE/dv of every pair
                as well.
            batch_pairs: most slots of pairs (padding included) that the model computes at a time, which
                bounds the memory: a structure of more goes alone. Results depend on it by rounding alone.

        Raises:
            ValueError: no structure, or one without atoms, with elements the model does not know, numbers
                that are not finite, two atoms (images included) closer than `neighbors.MIN_DISTANCE` (the
                message names them and their distance), or a lone atom whose energy has no meaning.

        Warns:
            UndeterminedEnergy: the training data leave an offset of the energy open (once a composition).
        """
        given = as_structures(structures)
        if not given:
            raise ValueError("wanted at least one structure, got none")
        parts: list[Predictions] = []
        ready = (self._checked(s, k, given) for k, s in enumerate(given))
        for some in passes(ready, batch_pairs=batch_pairs):
            parts.append(self._pass(some, stress=stress, pairs=pairs))
        return parts[0] if len(parts) == 1 else _joined(parts)

    def evaluate(
        self,
        *,
        species: np.ndarray,
        positions: np.ndarray,
        cell: np.ndarray | None = None,
        pbc: np.ndarray | None = None,
        stress: bool = False,
    ) -> tuple[float, np.ndarray, np.ndarray | None]:
        """Total energy (eV), forces (n_atoms, 3) eV/Å and, on request, stress (3, 3) eV/Å^3 of one structure;
        see `predict`.

        Args:
            species: (n_atoms,) atomic numbers.   positions: (n_atoms, 3) Å; along periodic directions they
            may lie anywhere. cell: (3, 3) Å, rows are lattice vectors.   pbc: (3,) bool.
        """
        found = self.predict(Structure(species, positions, cell, pbc), stress=stress)
        return float(found.energy[0]), found.forces, None if found.stress is None else found.stress[0]

    def _checked(self, structure: Structure, k: int, given: Sequence[Structure]) -> Prepared:
        """The k-th of the given structures, once its energy is known to have a meaning."""
        try:
            ready = prepared(structure, cutoff=self.model.cutoff, known=self.model.species)
            if self.references_from is not None:
                lone = len(ready.species) == 1 and ready.closest is None
                doubt = self.references_from.doubt(ready.species, lone=lone)
                if doubt and doubt not in self._warned:
                    self._warned.add(doubt)
                    warnings.warn(doubt, UndeterminedEnergy, stacklevel=5)
        except ValueError as error:
            if len(given) == 1:
                raise
            raise ValueError(f"structure {k}: {error}") from error
        return ready

    def _pass(self, structures: Sequence[Prepared], *, stress: bool, pairs: bool) -> Predictions:
        """The predictions of structures that are computed at once."""
        batch = batch_in_double(structures, layout=self.model.layout, cutoff=self.model.cutoff)
        batch = batch.to(self.model.energy_scale.device)
        if not self.model.gives_energy:
            return self._properties_alone(batch, stress=stress, pairs=pairs)
        result = predict_in_double(self.model, batch, stress=stress)
        energy, forces = result.energy.cpu().numpy(), result.forces.cpu().numpy()
        ends = np.cumsum([len(s.species) for s in structures])
        for k, (s, end) in enumerate(zip(structures, ends, strict=True)):
            elements, counts = np.unique(s.species, return_counts=True)
            energy[k] += math.fsum(
                int(n) * self.references[int(z)] for z, n in zip(elements, counts, strict=True)
            )
            if not (np.isfinite(energy[k]) and np.isfinite(forces[end - len(s.species) : end]).all()):
                raise ValueError(f"energy or forces are not finite; {s.closest or 'no atom has a neighbour'}")
        return Predictions(
            n_atoms=np.diff(ends, prepend=0),
            energy=energy,
            forces=forces,
            atomic_energies=result.atomic_energy.cpu().numpy()
            + np.array([self.references[int(z)] for s in structures for z in s.species]),
            stress=None if result.stress is None else result.stress.cpu().numpy(),
            pairs=self._pairs(batch, result.pair_gradient, structures) if pairs else None,
            properties=self._properties(result.node_features, batch),
            per_atom=self._per_atom,
        )

    @property
    def _per_atom(self) -> frozenset[str]:
        return frozenset(key for key, learnt in self.heads.items() if learnt.target.per == "atom")

    @torch.no_grad()
    def _properties(self, features: torch.Tensor, batch: AtomsBatch) -> dict[str, np.ndarray]:
        found = apply({key: head_of(self.model, key) for key in self.heads}, features, batch)
        periodic = batch.cell.abs().sum((1, 2)) > 0
        for key, learnt in self.heads.items():
            if learnt.head.open_only:
                found[key][periodic if learnt.target.per == "frame" else periodic[batch.batch]] = torch.nan
        return {key: value.cpu().numpy() for key, value in found.items()}

    def _properties_alone(self, batch: AtomsBatch, *, stress: bool, pairs: bool) -> Predictions:
        if stress or pairs:
            raise ValueError(
                f"this potential learnt {', '.join(self.heads)} and no energies: no stress, no pairs"
            )
        n_atoms = batch.n_atoms.cpu().numpy()
        return Predictions(
            n_atoms=n_atoms,
            energy=np.full(len(n_atoms), np.nan),
            forces=np.full((n_atoms.sum(), 3), np.nan),
            atomic_energies=np.full(n_atoms.sum(), np.nan),
            properties=self._properties(node_features(self.model, batch), batch),
            per_atom=self._per_atom,
        )

    def _pairs(
        self, batch: AtomsBatch, gradient: torch.Tensor, structures: Sequence[Prepared]
    ) -> PairGradients:
        graph = batch.graph
        edges, vectors = graph.as_edges(), graph.rows(graph.vectors(batch.positions, batch.cell))
        near = (vectors.square().sum(1) < self.model.cutoff**2).cpu().numpy()  # a block has all pairs
        center, neighbor = edges.center.cpu().numpy()[near], edges.neighbor.cpu().numpy()[near]
        moved = np.concatenate([s.moved for s in structures])
        shift = moved[center] - moved[neighbor]
        if edges.shift is not None:
            shift = shift + edges.shift.cpu().numpy().astype(np.int64)[near]
        return PairGradients(center, neighbor, shift, graph.rows(gradient).cpu().numpy()[near])


def _joined(parts: Sequence[Predictions]) -> Predictions:
    """The predictions of several passes as those of one."""

    def together(name: str) -> np.ndarray:
        return np.concatenate([getattr(p, name) for p in parts])

    found = [p.pairs for p in parts if p.pairs is not None]
    pairs = None
    if found:
        first = np.cumsum([0, *(p.n_atoms.sum() for p in parts[:-1])])
        pairs = PairGradients(
            np.concatenate([p.center + n for p, n in zip(found, first, strict=True)]),
            np.concatenate([p.neighbor + n for p, n in zip(found, first, strict=True)]),
            np.concatenate([p.shift for p in found]),
            np.concatenate([p.gradient for p in found]),
        )
    return Predictions(
        together("n_atoms"),
        together("energy"),
        together("forces"),
        together("atomic_energies"),
        None if parts[0].stress is None else together("stress"),
        pairs,
        {key: np.concatenate([p.properties[key] for p in parts]) for key in parts[0].properties},
        parts[0].per_atom,
    )


def save_potential(folder: Path, potential: Potential) -> str:
    """Write the potential into `folder`; the description, which holds the sha256 of the weights, last, so
    that a folder with one is whole.

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
        **(
            {}
            if potential.references_from is None
            else {"references_from": potential.references_from.plain()}
        ),
        **(
            {"heads": {key: dump(learnt) for key, learnt in potential.heads.items()}}
            if potential.heads
            else {}
        ),
        **({} if potential.model.gives_energy else {"gives_energy": False}),
        "precision": str(potential.dtype).removeprefix("torch."),
        "units": UNITS,
        "origin": dict(potential.origin),
        "weights_sha256": (weights_sha256 := hashlib.sha256(weights).hexdigest()),
    }
    write_text(folder / DESCRIPTION, yaml_text(with_checksum(description)))
    return weights_sha256


def load_potential(path: str | Path, *, device: str = "cpu") -> Potential:
    """The potential in a point's folder (or whose model.yaml `path` is).

    The description is checked, and the header of the weights against it, before a model of that size is made.

    Raises:
        ConfigError: no potential there, one of a newer format than this version reads, or a damaged one; the
        message names file and field.
    """
    path = Path(path)
    folder = path.parent if path.name in (DESCRIPTION, WEIGHTS) else path
    if not (folder / DESCRIPTION).exists():
        raise ConfigError(
            f"{folder} holds no trained potential ({DESCRIPTION} is missing); give the folder of a finished "
            f"point"
        )
    saved, config = _described(folder / DESCRIPTION)
    weights = _weights(folder / WEIGHTS, config, saved)
    model = _built(config, saved, folder)
    model.load_state_dict(weights)
    model.eval().requires_grad_(False)
    return Potential(
        model.to(device),
        config,
        saved.reference_energies,
        saved.mean_neighbors,
        saved.origin,
        saved.references_from,
        saved.heads,
    )


def _built(config: ModelConfig, saved: Description, folder: Path) -> Model:
    """The model that a description says, with its heads, its numbers still to come."""
    model = config.build(species=saved.species, mean_neighbors=saved.mean_neighbors, seed=0)
    if not saved.gives_energy:
        model.forgo_energy()
    with torch.random.fork_rng(devices=[]):
        for key, learnt in saved.heads.items():
            try:
                attach(model, learnt.target, learnt.head)
            except ValueError as error:
                raise ConfigError(f"{folder / DESCRIPTION}: heads.{key}: {error}") from None
    return model.to(dtype=getattr(torch, saved.precision))


class Description(Config):
    """What `model.yaml` says."""

    format: int = Field(ge=1)
    """Of the two files together."""
    model: dict[str, Any]
    """Settings of the model, by its kind."""
    species: tuple[Annotated[int, Field(ge=1, le=118)], ...] = Field(min_length=1)
    """Atomic numbers it knows, ascending."""
    mean_neighbors: float = Field(ge=0, le=1e6)
    """Average number of neighbours, which sets the size of sums over them."""
    reference_energies: dict[int, float]
    """Reference energy of every species, eV, by atomic number."""
    heads: dict[str, Learnt] = {}
    """What it learnt beside the energy, or instead of it, by the keys of the targets."""
    gives_energy: bool = True
    """Whether it learnt energies."""
    precision: Literal["float32", "float64"]
    """Floating-point type of the weights."""
    units: dict[str, str] = UNITS
    """For readers; always the same."""
    origin: dict[str, Any] = {}
    """The point it was trained at."""
    references_from: ReferencesFrom | None = None
    """What the reference energies were taken from; none in potentials of older versions."""
    weights_sha256: str | None = None
    """sha256 (hex) of the file of weights; none in potentials of older versions."""

    @model_validator(mode="after")
    def _one_reference_each(self) -> Self:
        if list(self.species) != sorted(set(self.species)):
            raise ValueError(
                f"species: wanted distinct atomic numbers in ascending order, got {list(self.species)}"
            )
        if set(self.reference_energies) != set(self.species):
            raise ValueError(
                f"reference_energies: wanted one for each of the species {list(self.species)}, got "
                f"{list(self.reference_energies)}"
            )
        if self.units != UNITS:
            raise ValueError(f"units: wanted {UNITS}, got {self.units}")
        return self

    @model_validator(mode="after")
    def _heads_have_the_names_of_their_targets(self) -> Self:
        for key, learnt in self.heads.items():
            if learnt.target.from_energy:
                raise ValueError(f"heads: {key} comes from the energy and has no head; take it out")
            if key != learnt.target.key:
                raise ValueError(
                    f"heads: {key!r} holds the target {learnt.target.key!r}; wanted it under its own name"
                )
        if not (self.gives_energy or self.heads):
            raise ValueError("gives_energy is false and there are no heads; wanted one of them")
        return self


def _described(path: Path) -> tuple[Description, ModelConfig]:
    raw = read_yaml(path)
    version = raw.get("format")
    if isinstance(version, int) and version > FORMAT:
        raise ConfigError(f"{path} has format {version}, this version reads up to {FORMAT}; update sapis_lab")
    saved: Description = load(
        Description, without_checksum(raw, source=str(path), advice=_EDITED), source=str(path)
    )
    kind = saved.model.get("kind")
    if not isinstance(kind, str):
        raise ConfigError(f"{path}: model.kind: wanted the name of a model kind, got {kind!r}")
    cls = plainly(lambda: kind_class("models", kind, ModelConfig), about=f"{path}: model.kind")
    config = load(cls, saved.model, source=f"{path}: model", recorded=True)
    # a default in the place of what was trained with would be another function of the same weights
    missing = [name for name, info in cls.model_fields.items() if _is_missing(name, info, saved.model)]
    if missing:
        raise ConfigError(
            f"{path}: model: lacks {', '.join(missing)}; wanted all settings of the model that the weights "
            f"were trained in"
        )
    return saved, config


def _is_missing(name: str, info: FieldInfo, given: Mapping[str, Any]) -> bool:
    return (
        name not in given
        and info.default is not None
        and not any(isinstance(mark, Added) for mark in info.metadata)
    )


def _weights(path: Path, config: ModelConfig, saved: Description) -> dict[str, torch.Tensor]:
    """The tensors of a file of weights, which are those of the model that was described, and finite."""
    if not path.is_file():
        raise ConfigError(
            f"{path}: {'wanted a file' if path.exists() else 'no such file'}; this potential has lost its "
            f"weights"
        )
    if saved.weights_sha256 is not None and (got := digest(path)) != saved.weights_sha256:
        raise ConfigError(
            f"{path} is not the file that {DESCRIPTION} was written with (sha256 {got[:12]}, wanted "
            f"{saved.weights_sha256[:12]}): "
            "it was damaged, or comes from another potential"
        )
    with torch.device("meta"):  # shapes without memory, however large the description says the model is
        model = _built(config, saved, path.parent)
    wanted = {name: (tuple(t.shape), _DTYPES[t.dtype]) for name, t in model.state_dict().items()}
    try:
        with safe_open(path, framework="pt") as file:
            found = {
                name: (tuple(file.get_slice(name).get_shape()), file.get_slice(name).get_dtype())
                for name in file.keys()  # noqa: SIM118
            }
            for name in [*wanted, *found]:
                if wanted.get(name) != found.get(name):
                    got = _said(found.get(name))
                    raise ConfigError(
                        f"{path}: {name}: wanted {_said(wanted.get(name))} as {DESCRIPTION} says, got {got}"
                    )
            tensors = {name: file.get_tensor(name) for name in wanted}
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}; this potential is damaged") from None
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ConfigError(f"{path}: {name}: wanted finite numbers, got infinite ones or NaN")
    return tensors


_DTYPES = {torch.float32: "F32", torch.float64: "F64"}


def _said(tensor: tuple[tuple[int, ...], str] | None) -> str:
    return "nothing of that name" if tensor is None else f"{tensor[1]} {list(tensor[0])}"
