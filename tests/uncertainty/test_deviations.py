"""Standard deviations of energies and forces: what they are, that they rank errors where they can, and that a
simulation ends by them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.md.verlet import VelocityVerlet
from scipy.stats import spearmanr

import sapis_lab
from sapis_lab.calculator import SapisCalculator
from sapis_lab.config import ConfigError, kind_class, load
from sapis_lab.data import DatasetConfig, FrameStore, prepare
from sapis_lab.derivatives import along_features
from sapis_lab.potential import Potential, save_potential
from sapis_lab.simulation import PotentialSurface, WatchedSurface, advance, replicas_of
from sapis_lab.simulation.nve import NveConfig
from sapis_lab.structures import Structure
from sapis_lab.uncertainty import (
    FILE,
    Ensemble,
    LastLayer,
    TooUncertain,
    calibration,
    refuse_uncertain,
    scale_of,
)
from sapis_lab.uncertainty._last_layer import _batches, _sums

SPECIES = (8, 14)


def potential_of(seed: int, *, kind: str = "geat", n_frames: int = 24) -> Potential:
    config = kind_class("models", kind)(cutoff=4.0).at_size(3e3, n_species=2)
    model = config.build(species=SPECIES, mean_neighbors=6.0, seed=seed).eval().requires_grad_(False)
    return Potential(model, config, {8: -2.0, 14: -3.0}, 6.0, {"id": f"s{seed}", "n_frames": n_frames})


def molecule(generator: np.random.Generator, *, spread: float = 0.1) -> Structure:
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=float)
    x = 1.9 * corners + spread * generator.normal(size=(8, 3))
    return Structure(np.array([8, 14] * 4), x)


def morse(x: np.ndarray) -> tuple[float, np.ndarray]:
    """Energy, eV, and forces, eV/Å, of bonds of 2 eV and 1.9 Å between all atoms within 4 Å."""
    v = x[None] - x[:, None]
    r = np.linalg.norm(v, axis=2) + 1e9 * np.eye(len(x))
    decay = np.exp(-1.5 * (r - 1.9))
    slope = 2 * 2.0 * 1.5 * (decay - decay**2)
    return float((2.0 * (decay**2 - 2 * decay)).sum() / 2), (slope[..., None] * v / r[..., None]).sum(1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    """Frames with Morse bonds, half of those for tests far from the others."""
    place, generator = tmp_path_factory.mktemp("frames"), np.random.default_rng(0)
    spreads = [0.05] * 36 + [0.05, 0.2] * 15
    frames = [molecule(generator, spread=s) for s in spreads]
    labels = [morse(s.positions) for s in frames]
    energy, forces = np.array([e for e, _ in labels]), np.stack([f for _, f in labels])
    for name, part in (("train", slice(0, 36)), ("test", slice(36, None))):
        x = np.stack([s.positions for s in frames])[part]
        np.savez(
            place / f"{name}.npz",
            R=x,
            z=frames[0].species,
            E=energy[part],
            F=forces[part],
        )
    raw = {"train": "train.npz", "tests": {"test": "test.npz"}, "n_validation": 12, "root": place}
    raw |= {"energy_unit": "eV", "length_unit": "Angstrom"}
    data: DatasetConfig = load(kind_class("data", "files"), raw, source="test")
    return prepare(data, cache=place / "cache")


@pytest.fixture(scope="module")
def last_layer(store: FrameStore) -> LastLayer:
    """Of an untrained potential whose mean energy is that of the frames, as reference energies make it."""
    potential, frames = potential_of(0), store.frames(np.asarray(store.splits["train"]))
    structures = [Structure(frames.species[:8], x) for x in frames.positions.reshape(-1, 8, 3)]
    offset = float((frames.energy - potential.predict(structures).energy).mean()) / 8
    references = {z: e + offset for z, e in potential.references.items()}
    return LastLayer.fitted(replace(potential, references=references), store)


# ------------------------------------------------------------------------------------------------- last layer


def test_the_covariance_is_that_of_the_definition(store: FrameStore, last_layer: LastLayer) -> None:
    potential = last_layer.potential
    train = [store.frames(np.asarray(store.splits["train"])[k : k + 1]) for k in range(24)]
    structures = [Structure(f.species, f.positions) for f in train]
    features = _sums(potential, structures)
    precision = np.linalg.inv(last_layer.factor @ last_layer.factor.T)
    rest = precision - features.T @ features  # sigma^2 1
    size = np.abs(precision).max()
    assert np.abs(rest - np.diag(np.full(len(rest), rest.trace() / len(rest)))).max() < 1e-6 * size
    phi = _sums(potential, structures[:3])
    wanted = [np.sqrt(p @ np.linalg.inv(precision) @ p) for p in phi]
    found = last_layer.judge(structures[:3]).energy_std / last_layer.energy_scale
    assert found == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("kind", ["geat", "nequip", "transformer"])
def test_slopes_of_features_are_those_of_differences(kind: str) -> None:
    potential = replace(potential_of(0, kind=kind))
    potential.model.double()
    frame = molecule(np.random.default_rng(3))
    directions = np.random.default_rng(4).normal(size=(_sums(potential, [frame]).shape[1], 3))
    import torch

    batch = next(_batches(potential, [frame]))
    _, slopes = along_features(potential.model, batch, torch.from_numpy(directions))
    h = 1e-4
    for atom, k in ((0, 0), (5, 2)):
        step = np.zeros_like(frame.positions)
        step[atom, k] = h
        ends = _sums(potential, [frame._replace(positions=frame.positions + s * step) for s in (1, -1)])
        slope = (ends[0] - ends[1]) @ directions / (2 * h)
        assert slopes[:, atom, k].numpy() == pytest.approx(-slope, rel=1e-4, abs=1e-6)


def test_energies_of_frames_far_from_training_are_less_certain(last_layer: LastLayer) -> None:
    generator = np.random.default_rng(5)
    near = [molecule(generator, spread=0.05) for _ in range(10)]
    far = [molecule(generator, spread=0.2) for _ in range(10)]
    judged = [last_layer.judge(frames) for frames in (near, far)]
    assert np.median(judged[1].energy_std) > 2 * np.median(judged[0].energy_std)


def test_standard_deviations_turn_with_the_structure_and_not_otherwise(last_layer: LastLayer) -> None:
    frame = molecule(np.random.default_rng(6))
    turn = np.linalg.qr(np.random.default_rng(7).normal(size=(3, 3)))[0]
    judged = last_layer.judge([frame, frame._replace(positions=frame.positions @ turn.T)])
    assert judged.energy_std[0] == pytest.approx(judged.energy_std[1], rel=1e-3)
    assert judged.atoms_std[:8] == pytest.approx(judged.atoms_std[8:], rel=1e-3)


def test_it_is_read_back_with_its_weights_and_refused_with_others(
    last_layer: LastLayer, tmp_path: Path
) -> None:
    for name, potential in (("a", last_layer.potential), ("b", potential_of(1))):
        save_potential(tmp_path / name, potential)
    last_layer.save(tmp_path / "a")
    frame = molecule(np.random.default_rng(8))
    again = LastLayer.load(tmp_path / "a", last_layer.potential).judge(frame)
    assert np.array_equal(again.forces_std, last_layer.judge(frame).forces_std)
    (tmp_path / "b" / FILE).write_bytes((tmp_path / "a" / FILE).read_bytes())
    with pytest.raises(ConfigError, match=r"was made of other weights than model\.safetensors"):
        LastLayer.load(tmp_path / "b", potential_of(1))
    (tmp_path / "b" / FILE).write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="cannot be read"):
        LastLayer.load(tmp_path / "b", potential_of(1))
    with pytest.raises(ConfigError, match="no such file; make it with: sapis model uncertainty"):
        LastLayer.load(tmp_path, potential_of(1))


# --------------------------------------------------------------------------------------------------- ensemble


def test_an_ensemble_is_mean_and_spread_of_its_members() -> None:
    members, frame = [potential_of(k) for k in range(3)], molecule(np.random.default_rng(0))
    judged = Ensemble(members).judge(frame)
    energies = [m.predict(frame).energy[0] for m in members]
    forces = np.stack([m.predict(frame).forces for m in members])
    assert judged.energy_std[0] == pytest.approx(np.std(energies, ddof=1))
    assert judged.predictions.energy[0] == pytest.approx(np.mean(energies))
    assert judged.forces_std == pytest.approx(forces.std(0, ddof=1))
    assert judged.predictions.forces == pytest.approx(forces.mean(0))


def test_a_scaled_ensemble_has_the_size_of_the_errors_on_validation(store: FrameStore) -> None:
    ensemble = Ensemble([potential_of(k) for k in range(3)]).scaled(store)
    frames = store.frames(np.asarray(store.splits["validation"]))
    judged = ensemble.judge([Structure(frames.species[:8], x) for x in frames.positions.reshape(-1, 8, 3)])
    assert scale_of(judged.predictions.energy - frames.energy, judged.energy_std) == pytest.approx(1)
    assert scale_of(judged.predictions.forces - frames.forces, judged.forces_std) == pytest.approx(1)


def test_what_is_no_ensemble_is_refused() -> None:
    with pytest.raises(ConfigError, match="an ensemble of 1 potentials; wanted at least 2"):
        Ensemble([potential_of(0)])
    config = kind_class("models", "geat")(cutoff=4.0).at_size(3e3, n_species=1)
    other = config.build(species=(8,), mean_neighbors=6.0, seed=0)
    with pytest.raises(ConfigError, match=r"member 1 of the ensemble knows the elements \[8\], the first"):
        Ensemble([potential_of(0), Potential(other, config, {8: 0.0}, 6.0, {})])


# ------------------------------------------------------------------------------------------------ calibration


def test_calibration_recovers_a_known_scale_and_rank() -> None:
    generator = np.random.default_rng(0)
    std = np.exp(generator.normal(size=20_000))
    errors = 3 * std * generator.normal(size=std.shape)
    found = calibration(errors, std)
    assert found.scale == pytest.approx(3, rel=0.02)
    right = calibration(errors, 3 * std)
    assert right.covered == pytest.approx(0.683, abs=0.01) and right.gain > 0.3
    assert right.spearman == pytest.approx(spearmanr(np.abs(errors), std).statistic) and right.spearman > 0.4
    assert right.nll < calibration(errors, 2 * std).nll and right.nll < calibration(errors, 4 * std).nll
    blind = calibration(errors, generator.permutation(3 * std))
    assert abs(blind.spearman) < 0.03 and blind.gain < 0


def test_missing_labels_are_left_out_of_calibrations() -> None:
    assert calibration(np.array([1.0, np.nan, -1.0]), np.ones(3)).n == 2
    with pytest.raises(ValueError, match="no label to compare with"):
        calibration(np.full(3, np.nan), np.ones(3))


# ------------------------------------------------------------------------------------------- while it is used


def test_the_calculator_gives_standard_deviations(tmp_path: Path) -> None:
    members = [potential_of(k) for k in range(2)]
    places = [tmp_path / f"s{k}" for k in range(2)]
    for place, member in zip(places, members, strict=True):
        save_potential(place, member)
    frame = molecule(np.random.default_rng(0))
    atoms = Atoms(frame.species, frame.positions, calculator=sapis_lab.load_model(places))
    judged = Ensemble(members).judge(frame)
    assert atoms.get_potential_energy() == pytest.approx(judged.predictions.energy[0])
    assert atoms.calc.get_property("energy_std", atoms) == pytest.approx(judged.energy_std[0])
    assert atoms.calc.results["forces_std"] == pytest.approx(judged.forces_std)


def test_the_calculator_takes_the_last_layer_beside_the_weights(
    last_layer: LastLayer, tmp_path: Path
) -> None:
    save_potential(tmp_path, last_layer.potential)
    frame = molecule(np.random.default_rng(0))
    plain = sapis_lab.load_model(tmp_path)
    assert plain.uncertainty is None and "energy_std" not in plain.implemented_properties
    with pytest.raises(ConfigError, match="stop_above=1.0 needs an uncertainty"):
        sapis_lab.load_model(tmp_path, stop_above=1.0)
    last_layer.save(tmp_path)
    atoms = Atoms(frame.species, frame.positions, calculator=sapis_lab.load_model(tmp_path))
    atoms.get_forces()
    assert atoms.calc.results["forces_std"] == pytest.approx(last_layer.judge(frame).forces_std)


def test_dynamics_in_ase_stop_where_forces_are_not_known(last_layer: LastLayer) -> None:
    frame = molecule(np.random.default_rng(0), spread=0.05)
    allowed = 1.5 * float(last_layer.judge(frame).atoms_std.max())
    atoms = Atoms(frame.species, frame.positions)
    atoms.calc = SapisCalculator(last_layer.potential, uncertainty=last_layer, stop_above=allowed)
    rng = np.random.default_rng(1)
    atoms.set_velocities(rng.normal(size=(8, 3)) * 0.3)  # fast enough to fly apart
    with pytest.raises(TooUncertain, match=r"the force on atom \d \((O|Si)\) has a standard deviation of"):
        VelocityVerlet(atoms, timestep=0.1).run(500)
    assert np.linalg.norm(atoms.calc.results["forces_std"], axis=1).max() > allowed


def test_our_dynamics_stop_where_forces_are_not_known(last_layer: LastLayer) -> None:
    frames = [molecule(np.random.default_rng(k), spread=0.05) for k in range(2)]
    allowed = 1.5 * float(last_layer.judge(frames).atoms_std.max())
    surface = PotentialSurface(last_layer.potential)
    watched = WatchedSurface(surface, last_layer, stop_above=allowed, every=5)
    ensemble = NveConfig(temperature=20_000.0, timestep=0.5)
    state = ensemble.start(replicas_of(frames, masses=[np.full(8, 20.0)] * 2, seed=0))
    with pytest.raises(TooUncertain, match=r"step \d+, replica \d: the force on atom"):
        advance(state, ensemble, watched, n_steps=500)
    same = [advance(state, ensemble, s, n_steps=3)[0].positions for s in (watched, surface)]
    assert np.array_equal(*same)


def test_an_allowed_uncertainty_is_let_pass() -> None:
    frame = molecule(np.random.default_rng(0))
    judged = Ensemble([potential_of(k) for k in range(2)]).judge(frame)
    refuse_uncertain(judged, frame.species, stop_above=float(judged.atoms_std.max()))
    with pytest.raises(TooUncertain, match=r"step 7: the force on atom .* or raise stop_above"):
        refuse_uncertain(
            judged, frame.species, stop_above=0.99 * float(judged.atoms_std.max()), where="step 7"
        )


def test_stress_is_computed_with_the_forces_and_not_again(monkeypatch: pytest.MonkeyPatch) -> None:
    frame, calls = molecule(np.random.default_rng(0)), []
    usual = Potential.predict

    def counted(self, *given, **named):
        calls.append(named)
        return usual(self, *given, **named)

    monkeypatch.setattr(Potential, "predict", counted)
    atoms = Atoms(frame.species, frame.positions, cell=[6, 6, 6], pbc=True)
    atoms.calc = SapisCalculator(potential_of(0))
    atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    assert len(calls) == 1


@pytest.mark.parametrize("limit", [float("nan"), float("inf"), 0, -1.0, True, "0.5"])
def test_a_limit_that_would_stop_nothing_or_everything_is_refused(limit: Any) -> None:
    with pytest.raises(ConfigError, match="wanted a number of eV/Å above 0"):
        SapisCalculator(None, uncertainty=object(), stop_above=limit)  # type: ignore[arg-type]


def test_no_member_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="no path is given"):
        sapis_lab.load_model([])
