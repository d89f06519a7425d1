"""Results that are committed stay valid: their points have the fingerprints that they were recorded with,
whatever settings were added."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import pytest

from sapis_lab.config import Added, Config, composed_kind, fingerprint, identity, load, read_yaml
from sapis_lab.data import DatasetInfo
from sapis_lab.models import ModelConfig
from sapis_lab.sweep.manifest import read_manifest
from sapis_lab.sweep.points import points
from sapis_lab.sweep.study import Study, load_study

RESULTS = Path(__file__).resolve().parents[2] / "results"
STUDIES = sorted(
    p.parent.name for p in RESULTS.glob("*/points.json") if p.parent.name not in ("quickstart", "smoke")
)
OLDER = {("acac-accuracy", "geat"), ("rmd17-ethanol", "geat")}
"""Points of a model whose version was raised afterwards: they are other points now."""
INFO = DatasetInfo(
    species=(1, 6, 8),
    n_train=10**6,
    n_validation=100,
    n_test=dict.fromkeys(("test", "test_300K", "test_600K"), 100),
    mean_atoms=9,
    mean_pairs=72,
    periodic=False,
    bytes_estimate=0,
)


ELEMENTS = {
    "carbon-stress": (6,),
    "silicon-forces": (14,),
    "silicon-observables": (14,),
    "silicon-stress": (14,),
    "freesolv": (1, 6, 7, 8, 9, 15, 16, 17, 35, 53),
    "oc20-relaxation": tuple(range(1, 22)),
    "perov-5": tuple(range(1, 57)),
    "qm9-gap": (1, 6, 7, 8),
}
ELEMENTS |= {
    f"affinity-{target}": (1, 6, 7, 8, 9, 16, 17, 35)
    for target in ("cdk2", "cdk8", "cmet", "eg5", "hif2a", "p38", "pde2", "pfkfb3", "shp2", "syk")
}
"""Of the data of a study, where they are not those of INFO; how many there are is what counts."""


def today(study: Study, point, info: DatasetInfo) -> str:
    """The fingerprint that a point of a lattice would have now; the scaler's stand outside of the lattice of
    their study."""
    axes = {"n_params": (point.n_params_target,), "n_frames": (point.n_frames,), "seeds": (point.seed,)}
    lattice = study.lattice.model_copy(update=axes)
    found = points(study.model_copy(update={"lattice": lattice}), info)
    return next(p.planned.fingerprint for p in found if p.planned.id == point.id)


@pytest.mark.parametrize("name", STUDIES)
def test_committed_points_keep_their_fingerprints(name, monkeypatch):
    monkeypatch.setenv("SAPIS_HOME", str(RESULTS.parent))
    study = load(Study, read_yaml(RESULTS / name / "study.yaml"), source=name, recorded=True)
    info = replace(INFO, species=ELEMENTS.get(name, INFO.species))
    for point in read_manifest(RESULTS / name).points:
        assert (today(study, point, info) == point.fingerprint) == ((name, point.family) not in OLDER), (
            point.id
        )


@pytest.mark.parametrize("name", [n for n in STUDIES if (RESULTS.parent / "studies" / f"{n}.yaml").exists()])
def test_a_study_file_still_asks_for_the_points_that_are_committed(name, monkeypatch):
    """The command that made them finds them done, whatever the defaults of today are."""
    monkeypatch.setenv("SAPIS_HOME", str(RESULTS.parent))
    study, info = load_study(name), replace(INFO, species=ELEMENTS.get(name, INFO.species))
    for point in read_manifest(RESULTS / name).points:
        assert (today(study, point, info) == point.fingerprint) == ((name, point.family) not in OLDER), (
            point.id
        )


def test_there_are_committed_points():
    assert sum(len(read_manifest(RESULTS / name).points) for name in STUDIES) > 200


# ----------------------------------------------------------------------------------------- settings that grow


class Before(Config):
    rate: float = 0.1


class After(Config):
    rate: float = 0.1
    optimizer: Annotated[str, Added(before="adamw")] = "adamw"


class Later(Config):
    """The same with another default, which is what its results are then made with."""

    rate: float = 0.1
    optimizer: Annotated[str, Added(before="adamw")] = "soap"


class Whole(Config):
    train: After = After()
    several: tuple[After, ...] = (After(), After(optimizer="soap"))
    named: dict[int, After] = {3: After(), 10: After(optimizer="soap")}


def test_an_added_setting_changes_no_identity_until_it_is_used():
    assert identity(After()) == identity(Before())
    assert identity(After(optimizer="soap")) == {"rate": 0.1, "optimizer": "soap"}


def test_a_changed_default_gives_new_results_an_identity_of_their_own():
    assert fingerprint(identity(Later())) != fingerprint(identity(Before()))
    assert fingerprint(identity(Later(optimizer="adamw"))) == fingerprint(identity(Before()))


def test_recorded_settings_mean_what_they_meant():
    recorded = load(Later, {"rate": 0.3}, source="results", recorded=True)
    assert recorded.optimizer == "adamw" and load(Later, {"rate": 0.3}, source="studies").optimizer == "soap"
    assert fingerprint(identity(recorded)) == fingerprint(identity(Before(rate=0.3)))
    assert load(Later, {"optimizer": "muon"}, source="results", recorded=True).optimizer == "muon"


def test_recorded_settings_mean_it_at_any_depth():
    class Point(Config):
        train: Later

    assert load(Point, {"train": {}}, source="results", recorded=True).train.optimizer == "adamw"


def test_added_settings_are_left_out_at_any_depth():
    assert identity(Whole()) == {
        "train": {"rate": 0.1},
        "several": [{"rate": 0.1}, {"rate": 0.1, "optimizer": "soap"}],
        "named": {"3": {"rate": 0.1}, "10": {"rate": 0.1, "optimizer": "soap"}},
    }


def test_the_settings_of_a_kind_are_whole_in_an_identity():
    class Holder(Config):
        model: composed_kind("models", ModelConfig)  # type: ignore[valid-type]

    assert identity(load(Holder, {"model": {"kind": "geat", "lmax": 1}}, source="x"))["model"]["lmax"] == 1
