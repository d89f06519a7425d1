"""Settings of what is learnt: heads that are written out, and refusals before anything is trained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sapis_lab.config import ConfigError, dump, load
from sapis_lab.data import DatasetInfo
from sapis_lab.sweep.points import points
from sapis_lab.sweep.study import Study
from sapis_lab.training import PointConfig, TrainConfig

GAP = {"kind": "property", "name": "gap", "unit": "eV"}
INFO = DatasetInfo(
    (1, 6, 8), 100, 50, {"test": 50}, 9.0, 72.0, False, 1000, ("energy", "forces", "gap", "dipole")
)


def train(**changes: Any) -> TrainConfig:
    return load(TrainConfig, {"steps": 5, **changes}, source="train")


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a head of no target": (
        {"heads": {"gap": {"kind": "scalar"}}},
        "heads: 'gap' is no target with a head; those are none",
    ),
    "a head for stress": (
        {"targets": ["stress", GAP], "heads": {"stress": {"kind": "tensor"}}},
        "heads: 'stress' is no target with a head; those are gap",
    ),
    "the energy as a property": (
        {"targets": [{"kind": "property", "name": "energy"}]},
        "'energy' comes from the energy; wanted a property that a head predicts",
    ),
    "nothing to learn": (
        {"task": {"kind": "properties"}},
        "task: properties wants targets, got none; name them in train.targets",
    ),
    "stress without energies": (
        {"task": {"kind": "properties"}, "targets": ["stress"]},
        "task: properties learns no energies, and so no stress; wanted targets with a head",
    ),
    "two of one name": ({"targets": [GAP, {**GAP, "per": "atom"}]}, "targets: gap is there twice"),
    "a kind twice": ({"targets": ["dipole", "dipole"]}, "targets: dipole is there twice"),
    "energies beside energies": (
        {"targets": [{"kind": "energy"}]},
        "targets: energy is there twice; weights of energy and forces are set in train.loss",
    ),
    "no such kind": ({"targets": [{"kind": "dipol"}]}, "no targets kind 'dipol'; did you mean 'dipole'"),
    "no such file": ({"targets": ["dipol"]}, "dipol"),
    "no name": ({"targets": [{"kind": "property"}]}, "name: field required"),
    "a name that no column has": ({"targets": [{**GAP, "name": "HOMO-LUMO"}]}, "name: string should match"),
    "a rank beyond matrices": ({"targets": [{**GAP, "rank": 3}]}, "rank: input should be 0, 1 or 2"),
    "a negative weight": ({"targets": [{**GAP, "weight": -1}]}, "greater than or equal to 0"),
    "a slip": ({"targets": [{**GAP, "wieght": 1}]}, "unknown key 'wieght'; did you mean 'weight'"),
    "no such task": ({"task": {"kind": "property"}}, "no tasks kind 'property'; did you mean 'properties'"),
    "no such head": ({"targets": [GAP], "heads": {"gap": {"kind": "scaler"}}}, "did you mean 'scalar'"),
}


@pytest.mark.parametrize("what", BAD)
def test_settings_that_cannot_be_learnt_are_refused(what: str) -> None:
    changes, words = BAD[what]
    with pytest.raises(ConfigError) as error:
        train(**changes)
    assert words in str(error.value) and str(error.value).startswith("train")


def test_heads_are_written_out_so_that_what_is_recorded_says_everything() -> None:
    vector = {"kind": "property", "name": "current", "rank": 1}
    made = train(
        targets=["dipole", "charges", GAP, vector, "stress"],
        heads={"gap": {"kind": "scalar", "pool": "mean"}},
    )
    assert {key: head.kind for key, head in made.heads.items()} == {
        "dipole": "charges",
        "charges": "scalar",
        "gap": "scalar",
        "current": "tensor",
    }
    assert dump(made)["heads"]["gap"] == {"kind": "scalar", "hidden": 32, "pool": "mean"}
    assert load(TrainConfig, dump(made), source="x") == made


def point(**settings: Any) -> PointConfig:
    raw = {"id": "p", "data": {"kind": "xtb"}, "model": {"kind": "geat"}, "n_params_target": 1e4, "seed": 0}
    return load(PointConfig, {**raw, "n_frames": 8, "train": {"steps": 5, **settings}}, source="x")


def test_what_is_learnt_is_part_of_a_result_only_where_there_is_more_than_energies_and_forces() -> None:
    plain = point()
    assert not {"task", "targets", "heads"} & plain.science()["train"].keys()
    others = [
        point(targets=["stress"]),
        point(targets=[{"kind": "stress", "weight": 2.0}]),
        point(targets=[GAP]),
        point(targets=[GAP], heads={"gap": {"kind": "scalar", "pool": "mean"}}),
        point(targets=[GAP], task={"kind": "properties"}),
    ]
    assert len({p.fingerprint for p in (plain, *others)}) == 6
    # spelled out or not, the usual head is the same settings
    assert point(targets=[GAP], heads={"gap": {"kind": "scalar"}}).fingerprint == others[2].fingerprint


def study(**changes: Any) -> Study:
    raw = {
        "name": "s",
        "question": "What is refused before anything is spent?",
        "data": {"kind": "xtb"},
        "models": [{"kind": "geat"}],
        "lattice": {"n_params": [1e4], "n_frames": [8]},
        "train": {"steps": 5, "targets": [GAP]},
        "law": {"quantity": "val_gap_rmse"},
    }
    return load(Study, {**raw, **changes}, source="s.yaml")


def refusal(made: Study, info: DatasetInfo = INFO) -> str:
    with pytest.raises(ConfigError) as error:
        points(made, info)
    return str(error.value)


def test_a_lattice_counts_heads_among_its_parameters() -> None:
    (with_gap,) = points(study(), INFO)
    (alone,) = points(study(train={"steps": 5, "targets": [GAP], "task": {"kind": "properties"}}), INFO)
    (plain,) = points(study(train={"steps": 5}, law={}), INFO)
    trunk = with_gap.config.model.n_params(n_species=3)
    n_features = with_gap.config.model.build(species=(1, 6, 8), mean_neighbors=8.0, seed=0).n_features
    hidden = 32
    assert plain.planned.n_params == plain.config.model.n_params(n_species=3)
    assert with_gap.planned.n_params == trunk + (n_features + 1) * hidden + hidden + 1
    assert alone.planned.n_params < with_gap.planned.n_params


def test_a_target_that_the_data_have_no_labels_of_is_refused_by_the_plan() -> None:
    said = refusal(study(train={"steps": 5, "targets": [GAP, "charges"]}))
    assert said == (
        "studies/s.yaml: train.targets: 'charges' is to be learnt, but 'xtb' has no such labels; it has "
        "energy, forces, gap, dipole; name them in the settings of the data"
    )
    unlabelled = replace(INFO, labels=("gap",))
    assert "'energy' is to be learnt" in refusal(study(), unlabelled)
    alone = study(train={"steps": 5, "targets": [GAP], "task": {"kind": "properties"}})
    assert len(points(alone, unlabelled)) == 1
    # a kind of data that does not say what it has is asked when it is there
    assert len(points(study(), replace(INFO, labels=None))) == 1


def test_a_law_of_what_is_not_learnt_is_refused_with_what_is() -> None:
    assert refusal(study(law={"quantity": "val_stress_rmse"})) == (
        "studies/s.yaml: law.quantity: 'val_stress_rmse' is no error of what this study learns; measured are "
        "energy_mae, energy_mae_per_atom, energy_rmse, force_mae, force_rmse, gap_mae, gap_rmse"
    )
    alone = {"steps": 5, "targets": [GAP], "task": {"kind": "properties"}}
    assert "'val_force_rmse' is no error of what this study learns" in refusal(study(train=alone, law={}))
    assert "needs the frames of 'test_600K'" in refusal(study(law={"quantity": "test_600K_gap_mae"}))
    with pytest.raises(ConfigError, match="unknown quantity 'val_gpa_rmse'; did you mean"):
        study(law={"quantity": "val_gpa_rmse"})


def test_a_head_that_cannot_predict_its_target_is_refused_by_the_plan() -> None:
    settings = {"steps": 5, "targets": [GAP], "heads": {"gap": {"kind": "tensor"}}}
    words = "train.heads.gap: a tensor head predicts vectors and matrices, the target is a scalar"
    assert words in refusal(study(train=settings))


def test_spread_is_that_about_what_constants_explain() -> None:
    """The unit of a head's loss, and its constants: means by element, or the best sum of them."""
    from sapis_lab.tasks._heads import _without_constants

    class Store:
        elements = (1, 8)

        def composition(self, ids: np.ndarray) -> np.ndarray:
            return np.array([[2, 1], [4, 1], [2, 2], [0, 3]])[ids]

    store: Any = Store()
    labels = np.array([1.0, 2.0, 4.0, 5.0])
    rest, mean = _without_constants(labels, np.ones(4, bool), store, np.arange(4), None, per_element=False)
    assert mean == {1: 3.0, 8: 3.0} and rest.tolist() == [-2.0, -1.0, 1.0, 2.0]
    exact = np.array([2 * 0.5 + 3.0, 4 * 0.5 + 3.0, 2 * 0.5 + 6.0, 9.0])
    rest, sums = _without_constants(exact, np.ones(4, bool), store, np.arange(4), None, per_element=True)
    assert sums == pytest.approx({1: 0.5, 8: 3.0}, rel=1e-4) and np.abs(rest).max() < 1e-4
    # labels of atoms, one of which is missing
    species, there = np.array([1, 1, 8, 1]), np.array([True, True, True, False])
    rest, means = _without_constants(
        np.array([0.2, 0.4, -0.6]), there, store, np.arange(1), species, per_element=True
    )
    assert means == pytest.approx({1: 0.3, 8: -0.6}) and rest == pytest.approx([-0.1, 0.1, 0.0])
