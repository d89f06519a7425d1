"""Every kind of evaluation keeps what its base class says, and measures what it says it measures."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from sapis_lab.config import dump, kind_class, kinds, load
from sapis_lab.evaluation import Evaluation, Subject
from sapis_lab.evaluation.errors import QUANTILES
from sapis_lab.evaluation.smoothness import SIDES
from sapis_lab.quantities import is_time, of_evaluations, quantity, standard_targets
from sapis_lab.structures import Structure

LENNARD_JONES = {
    "kind": "lennard_jones",
    "atoms": {symbol: {"epsilon": 0.01, "sigma": 1.0} for symbol in ("H", "C", "O")},
    "truncation": "shifted",
}
SMALL: dict[str, dict[str, Any]] = {
    "cost": {"batches": (1, 3), "repeats": 2},
    "equivariance": {"n_frames": 3, "n_rotations": 2},
    "relaxation": {"most_structures": 3, "most_steps": 10},
    "dynamics": {"n_replicas": 2, "time": 0.02},
    "smoothness": {"n_frames": 2, "n_pairs": 2, "n_directions": 2},
    "strain": {"n_frames": 3, "n_strains": 2},
    "vibrations": {"n_molecules": 2, "most_steps": 5},
    "spectrum": {"n_replicas": 2, "time": 0.008, "every": 0.5, "equilibration": 0.0, "temperature": 1.0},
    "conformers": {"n_starts": 2, "most_steps": 5},
    "rdf": {"n_replicas": 2, "time": 0.05, "equilibration": 0.01, "frames": True},
    "diffusion": {"n_replicas": 2, "time": 0.4, "equilibration": 0.01, "timestep": 2.0},
    "torsions": {
        "n_replicas": 2,
        "time": 0.003,
        "every": 0.2,
        "timestep": 0.2,
        "equilibration": 0.0,
        "temperature": 1.0,
        "frames": True,
    },
    "equation_of_state": {"most_steps": 2, "n_volumes": 5},
    "elastic": {"most_steps": 2},
    "phonons": {"most_steps": 3, "supercell": (1, 1, 1), "mesh": (2, 2, 2)},
    "physicality": {"n_frames": 2, "n_turns": 2},
    "classical": {"oracle": LENNARD_JONES, "repeats": 2},
    "integration": {
        "oracle": LENNARD_JONES,
        "n_couplings": 3,
        "ensemble": {"kind": "langevin", "timestep": 0.02, "friction": 0.1},
        "equilibration": 0.0002,
        "time": 0.002,
        "every": 0.1,
    },
    "umbrella": {
        "torsions": ((0, 1, 2, 3),),
        "n_windows": (12,),
        "ensemble": {"kind": "langevin", "timestep": 0.25, "friction": 0.1},
        "pull": 0.1,
        "equilibration": 0.01,
        "time": 0.05,
        "every": 1.0,
        "basin": ((0.0, 180.0),),
        "regions": {"trans": ((150.0, -150.0),)},
    },
}
OF_CRYSTALS = {"strain", "rdf", "diffusion", "equation_of_state", "elastic", "phonons"}
OF_ETHANOL = {"torsions", "conformers"}
OF_CHAINS = {"umbrella"}


@pytest.fixture(params=kinds("evaluation"))
def evaluation(request: pytest.FixtureRequest) -> Evaluation:
    """Small settings of every kind."""
    return kind_class("evaluation", request.param)(**SMALL.get(request.param, {}))


@pytest.fixture
def fitting(
    evaluation: Evaluation, subject: Subject, crystals: Subject, ethanols: Subject, chains: Subject
) -> Subject:
    """What the kind can measure."""
    if evaluation.kind in OF_ETHANOL:
        return ethanols
    if evaluation.kind in OF_CHAINS:
        return chains
    return crystals if evaluation.kind in OF_CRYSTALS else subject


def measured(evaluation: Evaluation, subject: Subject) -> dict[str, dict[str, np.ndarray]]:
    return {part: evaluation.measure(subject, part) for part in evaluation.parts(subject)}


# ------------------------------------------------------------------------------------------------- every kind


def test_scores_are_finite_quantities_that_the_kind_has(evaluation: Evaluation, fitting: Subject) -> None:
    scores = evaluation.checked(evaluation.score(measured(evaluation, fitting)))
    assert scores
    for label in (evaluation.kind, f"{evaluation.kind}-mine"):
        for key in scores:
            q = quantity(f"{label}_{key}")
            assert q.key == f"{label}_{key}" and q.evaluation == label and q.axis
            assert "{" not in q.key + q.label and ("(mine)" in q.label) == label.endswith("-mine")


def test_raw_arrays_are_the_same_every_time_but_for_times(evaluation: Evaluation, fitting: Subject) -> None:
    a, b = (evaluation.score(measured(evaluation, fitting)) for _ in range(2))
    assert a.keys() == b.keys()
    stable = [key for key in a if not is_time(f"{evaluation.kind}_{key}")]
    assert {key: a[key] for key in stable} == {key: b[key] for key in stable}


def test_arrays_are_plain_and_scores_follow_from_them_alone(evaluation: Evaluation, fitting: Subject) -> None:
    raw = measured(evaluation, fitting)
    assert all(not a.dtype.hasobject for arrays in raw.values() for a in arrays.values())
    assert evaluation.score(raw) == evaluation.score(raw)


def test_settings_load_back_and_a_name_is_no_part_of_what_numbers_depend_on(evaluation: Evaluation) -> None:
    assert load(type(evaluation), dump(evaluation), source="test") == evaluation
    named = evaluation.model_copy(update={"name": "mine"})
    wanted = evaluation.fingerprint(weights="w", data={})
    assert named.fingerprint(weights="w", data={}) == wanted
    assert evaluation.fingerprint(weights="v", data={}) != wanted
    assert evaluation.fingerprint(weights="w", data={"kind": "other"}) != wanted
    assert (evaluation.label, named.label) == (evaluation.kind, f"{evaluation.kind}-mine")


def test_quantities_of_a_kind_are_known_without_torch(evaluation: Evaluation) -> None:
    program = (
        "import sys\nfrom sapis_lab.quantities import of_evaluations\n"
        "print(list(of_evaluations()), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip().endswith("False") and f"'{evaluation.kind}'" in done.stdout, done.stderr


def test_no_quantity_of_an_evaluation_is_one_of_training() -> None:
    of_training = {
        m.quantity(split).key for t in standard_targets() for m in t.measures() for split in ("val", "test")
    }
    assert not [key for key in of_training if key.startswith(tuple(of_evaluations()))]
    with pytest.raises(ValueError, match="unknown quantity 'errors_test_force_ma_H'"):
        quantity("errors_test_force_ma_H")


def test_scores_that_are_no_numbers_or_nobody_knows_are_refused() -> None:
    errors = kind_class("evaluation", "errors")()
    with pytest.raises(ValueError, match="test_force_mae_H is nan"):
        errors.checked({"test_force_mae_H": float("nan")})
    with pytest.raises(ValueError, match="'luck' is scored, but the quantities of 'errors' are"):
        errors.checked({"luck": 1.0})


# ----------------------------------------------------------------------------------------------------- errors


def test_errors_by_element_and_quantiles_are_those_of_the_definition(subject: Subject) -> None:
    scores = kind_class("evaluation", "errors")()
    found = scores.score(measured(scores, subject))
    by_element: dict[str, list[np.ndarray]] = {}
    lengths, per_atom = [], []
    from ase.data import chemical_symbols

    for k in subject.store.splits["test"]:
        frame = subject.store.frames(np.array([k]))
        e, f, _ = subject.potential.evaluate(species=frame.species, positions=frame.positions)
        per_atom.append(abs(e - frame.energy[0]) / len(frame.species))
        for z, got, wanted in zip(frame.species, f, frame.forces.astype(float), strict=True):
            by_element.setdefault(chemical_symbols[z], []).append(got - wanted)
            lengths.append(np.sqrt(((got - wanted) ** 2).sum()))
    assert len(by_element) > 1
    for symbol, errors in by_element.items():
        assert found[f"test_force_mae_{symbol}"] == pytest.approx(np.abs(errors).mean(), rel=1e-4)
        assert found[f"test_force_rmse_{symbol}"] == pytest.approx(
            np.sqrt(np.mean(np.square(errors))), rel=1e-4
        )
    for key, values in (("force_error", lengths), ("energy_error", per_atom)):
        for name, level in QUANTILES.items():
            assert found[f"test_{key}_{name}"] == pytest.approx(np.quantile(values, level), rel=1e-4)
        assert found[f"test_{key}_max"] == pytest.approx(max(values), rel=1e-4)


def test_further_test_sets_have_columns_of_their_own() -> None:
    q = quantity("errors_test_600K_force_mae_Cu")
    assert (q.label, q.axis) == ("test 600K force MAE of Cu", "test 600K force MAE of Cu (meV/Å)")
    assert quantity("errors_test_force_error_q90").label == "test 90 % quantile of the force error of an atom"


# --------------------------------------------------------------------------------------------------- dynamics


def test_dynamics_on_a_smooth_potential_last_and_conserve(subject: Subject) -> None:
    evaluation = kind_class("evaluation", "dynamics")(
        n_replicas=3, time=0.01, ensemble={"kind": "nve", "temperature": 100.0, "timestep": 0.1}
    )
    found = evaluation.score(measured(evaluation, subject))
    assert found["failures"] == 0 and found["time_to_failure"] == pytest.approx(0.01)
    assert found["fluctuation"] < 1e-3


def test_a_bond_that_leaves_its_length_is_a_failure_of_its_replica_alone(subject: Subject) -> None:
    evaluation = kind_class("evaluation", "dynamics")(
        n_replicas=2, time=0.01, ensemble={"kind": "nve", "temperature": 0.0}
    )
    raw = measured(evaluation, subject)
    assert np.isnan(raw["replicas"]["failed_at"]).all()
    hot = kind_class("evaluation", "dynamics")(
        n_replicas=2, time=0.1, ensemble={"kind": "nve", "temperature": 1e5}
    )
    scores = hot.score(measured(hot, subject))
    assert scores["failures"] == 1 and 0 < scores["time_to_failure"] < 0.1
    mixed = {name: value.copy() for name, value in raw["replicas"].items()}
    mixed["failed_at"][0] = 0.003
    scores = evaluation.score({"replicas": mixed})
    assert scores["failures"] == 0.5
    assert scores["time_to_failure"] == pytest.approx(0.5 * (0.003 + mixed["time"][-1]))
    assert scores["failure_rate"] == pytest.approx(1.5 / (0.003 + mixed["time"][-1]))


# ----------------------------------------------------------------------------------------------------- strain


def strain(subject: Subject, factor: float = 1.0) -> dict[str, float]:
    evaluation = kind_class("evaluation", "strain")(n_frames=6)
    raw = measured(evaluation, subject)
    raw["frames"]["stress"] = factor * raw["frames"]["stress"]
    return evaluation.score(raw)


def test_a_potential_follows_the_stress_that_it_labelled_itself(crystals: Subject) -> None:
    found = strain(crystals)
    assert found["slope"] == pytest.approx(1, abs=1e-3)
    assert found["correlation"] == pytest.approx(1, abs=1e-5)
    assert found["stress_mae"] == pytest.approx(0, abs=1e-8)
    assert 0 < found["stress_mismatch"] < 1e-5


@pytest.mark.parametrize("factor", [-1.0, 160.2])
def test_a_turned_sign_and_another_unit_show_in_the_slope(crystals: Subject, factor: float) -> None:
    assert strain(crystals, factor)["slope"] == pytest.approx(1 / factor, rel=1e-3)


def test_molecules_have_no_stress_to_be_judged_by(subject: Subject) -> None:
    with pytest.raises(ValueError, match="has no stress; wanted crystals"):
        kind_class("evaluation", "strain")().parts(subject)


# ------------------------------------------------------------------------------------------------- smoothness


def smoothness(subject: Subject) -> dict[str, float]:
    evaluation = kind_class("evaluation", "smoothness")(n_frames=3, n_pairs=4)
    raw = measured(evaluation, subject)
    assert raw["cutoff"]["energy"].shape == (12, len(SIDES)), "pairs to move"
    return evaluation.score(raw)


class _Cut:
    """A potential whose energy has a step, or whose forces lack a part, where a pair is within the cutoff."""

    def __init__(self, step: float, kink: float, extra: float) -> None:
        self.model, self.step, self.kink, self.extra = (
            type("M", (), {"cutoff": 3.0, "gives_energy": True}),
            step,
            kink,
            extra,
        )

    def predict(self, structures: Any) -> Any:
        structures = [structures] if isinstance(structures, Structure) else structures
        energy, forces = [], []
        for s in structures:
            v = s.positions[None] - s.positions[:, None]
            r = np.linalg.norm(v, axis=-1) + 10 * np.eye(len(v))
            near = r < 3.0
            # spring of 1 eV/Å^2 between all atoms, smooth; a step, and a slope, that end at the cutoff
            e = 0.5 * np.square(r - 10 * np.eye(len(v)))
            e = e + near * (self.step + self.kink * (3.0 - r))
            slope = r - 10 * np.eye(len(v)) - near * self.kink
            f = (slope[..., None] * v / r[..., None]).sum(1)
            energy.append(0.5 * e.sum())
            forces.append(f + self.extra)
        return type("P", (), {"energy": np.array(energy), "forces": np.concatenate(forces)})


@pytest.mark.parametrize(
    ("step", "kink", "extra", "key", "wanted"),
    [(0.02, 0.0, 0.0, "energy_jump", 0.02), (0.0, 0.3, 0.0, "force_jump", 0.3)],
)
def test_a_jump_at_the_cutoff_is_found_at_its_size(
    subject: Subject, step: float, kink: float, extra: float, key: str, wanted: float
) -> None:
    clean = smoothness(replace(subject, potential=_Cut(0.0, 0.0, 0.0)))
    assert max(clean.values()) < 1e-4
    found = smoothness(replace(subject, potential=_Cut(step, kink, extra)))
    assert found[key] == pytest.approx(wanted, rel=0.05)


def test_forces_that_are_not_the_slope_of_the_energy_are_found(subject: Subject) -> None:
    found = smoothness(replace(subject, potential=_Cut(0.0, 0.0, 0.1)))
    assert 0.01 < found["force_mismatch"] < 0.1 * np.sqrt(3 * 20)
    assert found["energy_jump"] < 1e-3


def test_our_models_are_smooth_in_single_precision(subject: Subject) -> None:
    assert subject.potential.dtype == torch.float32
    found = smoothness(subject)
    assert found["energy_jump"] < 1e-5 and found["force_jump"] < 1e-3 and found["force_mismatch"] < 1e-3


# ----------------------------------------------------------------------------------------------- equivariance


class _Field(_Cut):
    """The springs of `_Cut` in a field along x, which does not turn with the frame."""

    def __init__(self, strength: float) -> None:
        super().__init__(0.0, 0.0, 0.0)
        self.strength = strength

    def predict(self, structures: Any) -> Any:
        found = super().predict(structures)
        found.forces[:, 0] += self.strength
        found.energy -= self.strength * np.array([s.positions[:, 0].sum() for s in structures])
        return found


def test_what_does_not_turn_with_the_frame_is_found_at_its_size(subject: Subject) -> None:
    """R^T e - e for a unit vector e and R of O(3) has a mean square of 2/3 per component."""
    evaluation = kind_class("evaluation", "equivariance")(n_frames=8, n_rotations=60)
    scores = evaluation.score(measured(evaluation, replace(subject, potential=_Field(0.3))))
    assert scores["force_deviation"] == pytest.approx(0.3 * np.sqrt(2 / 3), rel=0.1)
    assert scores["energy_deviation"] > 0.01
    clean = evaluation.score(measured(evaluation, replace(subject, potential=_Field(0.0))))
    assert max(clean.values()) < 1e-12


def test_an_equivariant_model_turns_with_its_frames_in_single_precision(subject: Subject) -> None:
    evaluation = kind_class("evaluation", "equivariance")(n_frames=5)
    assert max(evaluation.score(measured(evaluation, subject)).values()) < 1e-4


# ------------------------------------------------------------------------------------------------------- cost


def test_cost_counts_atoms_and_grows_in_memory(subject: Subject) -> None:
    evaluation = kind_class("evaluation", "cost")(batches=(1, 200), repeats=2)
    raw = measured(evaluation, subject)["all"]
    scores = evaluation.score({"all": raw})
    n_atoms = len(subject.store.frames(subject.store.splits["test"][:1]).species)
    assert raw["n_atoms"][0] == n_atoms
    assert scores["seconds_per_atom_b1"] == pytest.approx(np.median(raw["seconds"][0]) / n_atoms)
    assert 0 < scores["seconds_per_atom_b200"] < 0.1
    if sys.platform == "linux":
        assert 0 <= scores["memory_b1"] <= scores["memory_b200"] < 2e9 and scores["memory_b200"] > 1e5
    with pytest.raises(ValueError, match="ascending order"):
        type(evaluation)(batches=(4, 2))
