"""What the settings accept can be trained and recorded; what cannot is refused before anything is spent, with
field, got and wanted."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_settings import drawn, edges

from sapis_lab.analysis.options import LawOptions
from sapis_lab.config import (
    Config,
    ConfigError,
    _leaf_types,
    dump_yaml,
    kind_class,
    kinds,
    load,
    override,
    read_yaml,
)
from sapis_lab.executors import SlurmOptions
from sapis_lab.files import write_text
from sapis_lab.optimizers.soap import SoapConfig
from sapis_lab.records import read_record, runs_table
from sapis_lab.sweep.files import checked_name
from sapis_lab.sweep.points import points
from sapis_lab.sweep.scale_options import ScaleOptions
from sapis_lab.sweep.study import Lattice, RunOptions, Study, load_study
from sapis_lab.sweep.tuner.options import Axis, TuneOptions
from sapis_lab.training import PointConfig, TrainConfig, run
from sapis_lab.training._config import LossConfig

SECTIONS: tuple[type[Config], ...] = (
    LossConfig,
    TrainConfig,
    PointConfig,
    Lattice,
    RunOptions,
    Study,
    SlurmOptions,
    LawOptions,
    TuneOptions,
    ScaleOptions,
    *(
        kind_class(folder, kind)
        for folder in ("models", "data", "oracles", "generators")
        for kind in kinds(folder)
    ),
)
APART = {("LawOptions", "robust"), ("SlurmOptions", "flags"), ("ExtxyzConfig", "isolated_atoms")}
APART |= {("DeepmdConfig", "isolated_atoms"), ("FilesConfig", "isolated_atoms")}
"""Numbers whose range is not written as one; the next test holds them."""


FIELDS = [
    (c, name)
    for c in SECTIONS
    for name in c.model_fields
    if _leaf_types(c, name) & {int, float} and (c.__name__, name) not in APART
]


def told(cls: type[Config], raw: dict[str, Any]) -> str:
    """What `cls` says about `raw`, or nothing."""
    try:
        load(cls, raw, source="x")
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("cls", "name"), FIELDS, ids=lambda v: v if isinstance(v, str) else v.__name__)
def test_every_number_has_a_range_and_refuses_what_is_none(cls, name):
    field = cls.model_fields[name]
    low, high, *_ = edges(field)
    assert math.isfinite(high) and math.isfinite(low), f"{cls.__name__}.{name} has no range"
    many = "tuple" in str(field.annotation)
    for value in (math.inf, -math.inf, math.nan, "nan", ".inf", 10**30, -(10**30), 10**400):
        assert f"x: {name}" in told(cls, {name: [value] if many else value}), value
    assert f"x: {name}: wanted a number, got true" in told(cls, {name: [True] if many else True})


@pytest.mark.parametrize(
    ("cls", "raw", "message"),
    [
        (TrainConfig, {"steps": 5, "clip": math.inf}, "clip: input should be a finite number, got inf"),
        (TrainConfig, {"steps": 5, "betas": [0.9, 1.0]}, "betas.1: input should be less than 1, got 1"),
        (
            TrainConfig,
            {"steps": 5, "betas": [-0.1, 0.9]},
            "betas.0: input should be greater than or equal to 0",
        ),
        (
            TrainConfig,
            {"steps": 5, "validations": 10**9},
            "validations: input should be less than or equal to 10000",
        ),
        (
            TrainConfig,
            {"steps": 5, "learning_rate": {"geat": math.inf}},
            "learning_rate.geat: input should be a finite number",
        ),
        (
            TrainConfig,
            {"steps": 5, "learning_rate": 1e9},
            "learning_rate: input should be less than or equal to 1000",
        ),
        (
            TrainConfig,
            {"steps": 5, "loss": {"energy_weight": 0, "force_weight": 0}},
            "both 0; wanted at least one above 0",
        ),
        (
            SoapConfig,
            {"eps": 1e-300},  # none in float32, where a gradient of zero would be divided by it
            "eps: input should be greater than or equal to 0.000000000001",
        ),
        (Lattice, {"n_params": [1e3], "n_frames": [True]}, "n_frames: wanted a number, got true"),
        (
            Lattice,
            {"n_params": [1e3], "n_frames": [5], "seeds": [2**64]},
            "seeds: wanted an integer of at most 9223372036854775807",
        ),
        (
            Lattice,
            {"n_params": [1e3], "n_frames": [5], "seeds": {1, 2}},
            "seeds: wanted a number, text, a list or a mapping",
        ),
        (LawOptions, {"robust": 0.0}, "positive threshold"),
        (LawOptions, {"robust": math.inf}, "robust: input should be a finite number"),
        (TuneOptions, {"space": {"train.ema": {"choice": [0.9, math.nan]}}}, "finite number"),
        (TuneOptions, {"space": {"x": {"linear": [0, 1], "step": 1e-12}}}, "wanted 1 to 10000 steps"),
        (
            TuneOptions,
            {"space": {"x": {"log": [1, 2]}}, "n_frames": [5, 5]},
            "n_frames: wanted distinct values",
        ),
        (
            SlurmOptions,
            {"flags": {"nice": 10**30}},
            "flags: wanted an integer of at most 9223372036854775807",
        ),
        (
            kind_class("data", "extxyz"),
            {"isolated_atoms": {"H": math.nan}},
            "isolated_atoms.H: input should be a finite number",
        ),
        (
            kind_class("data", "extxyz"),
            {"isolated_atoms": {"H": True}},
            "isolated_atoms: wanted a number, got true",
        ),
        (Axis, {"log": [1, math.inf]}, "log.1: input should be a finite number"),
        (RunOptions, {"cache": "a\0b"}, "cache: wanted text of Unicode characters without zero bytes"),
        (Study, {"question": "\ud800"}, "question: wanted text of Unicode characters"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_with_its_field(cls, raw, message):
    assert message in told(cls, raw)


def test_names_that_no_file_system_takes_are_refused(project):
    with pytest.raises(ConfigError, match="wanted at most 100 characters, got 300"):
        checked_name("a" * 300)
    assert "name: string should have at most 100 characters" in told(
        kind_class("models", "geat"), {"name": "a" * 300}
    )
    tests = {
        "train": "a.xyz",
        "n_validation": 1,
        "tests": {"test_" + "a" * 300: "b.xyz"},
        "energy_unit": "eV",
        "length_unit": "nm",
    }
    assert "wanted at most 100" in told(kind_class("data", "extxyz"), tests)
    load_study("smoke", [f"models=[{{kind: geat, name: {'a' * 100}}}]"], called="b" * 100)


def test_a_problem_in_a_list_is_told_once(project):
    with pytest.raises(ConfigError) as error:
        load_study("smoke", ["models=[{kind: geat, layers: 1000000000}]"])
    assert (
        str(error.value)
        == "studies/smoke.yaml: models.0.layers: input should be less than or equal to 100, got 1000000000"
    )


def test_more_points_than_anyone_could_train_are_refused(project):
    many = ",".join(map(str, range(1, 1001)))
    with pytest.raises(ConfigError, match="all combinations are 4000000 points, wanted at most 100000"):
        load_study("smoke", [f"lattice.seeds=[{many}]", f"lattice.n_frames=[{many}]"])


def test_rates_that_a_factor_carries_out_of_range_are_refused(project):
    with pytest.raises(
        ConfigError,
        match=r"lattice.rate_factors: 1e\+06 makes the learning rate of geat-l2 10000, wanted at most 1000",
    ):
        load_study("smoke", ["lattice.rate_factors=[1,1e6]", "train.learning_rate=0.01"])


@pytest.mark.parametrize(
    "setting", ["lattice.n_params=[3000.0000001,3000.0000002]", "lattice.rate_factors=[1,1.0000001]"]
)
def test_points_that_would_share_a_folder_are_refused(project, setting):
    from sapis_lab.data import dataset_info

    study = load_study("smoke", [setting])
    with pytest.raises(ConfigError, match="in the names of points; leave one of them out"):
        points(study, dataset_info(study.data, cutoff=5.0))


def test_a_size_whose_widths_no_setting_holds_is_refused_with_the_width():
    with pytest.raises(ConfigError, match="channels: input should be less than or equal to 1000000"):
        kind_class("models", "transformer")(layers=1, heads=4).at_size(1e14, n_species=1)


def test_text_that_looks_like_a_number_is_written_as_text(tmp_path):
    config = kind_class("models", "geat")(name="1e3")
    write_text(tmp_path / "c.yaml", dump_yaml(config))
    assert load(type(config), read_yaml(tmp_path / "c.yaml"), source="x") == config


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("a." * 60 + "b=1", "wanted at most 50 keys, got 61"),
        ("names.²=1", "is no position in a list"),
        ("names." + "9" * 5000 + "=1", "is no position in a list"),
        ("n=" + "9" * 30, "holds an integer of 100 bits, wanted at most 64"),
        ("n=" + "[" * 60 + "]" * 60, "nested more than 50 levels deep"),
        ("n=!!bool maybe", "a value does not fit its tag"),
    ],
)
def test_an_override_that_is_absurd_is_refused(setting, message):
    with pytest.raises(ConfigError, match="^--set") as error:
        override({"names": ["a"]}, [setting])
    assert message in str(error.value) and len(str(error.value)) < 400


# ------------------------------------------------------------------------------------- what is accepted works

SOURCE = {
    "kind": "extxyz",
    "train": "clusters.xyz",
    "n_validation": 4,
    "n_test": 3,
    "energy_unit": "eV",
    "length_unit": "Angstrom",
}


def random_point(number: int, data: Path) -> dict[str, Any]:
    """Settings of a point of two steps, drawn from their ranges; every model kind in turn."""
    rng = np.random.default_rng(number)
    kind = kinds("models")[number % len(kinds("models"))]
    cls = kind_class("models", kind)
    model = {"kind": kind, **drawn(cls, rng)}
    if "heads" in cls.model_fields:
        heads = model.get("heads", cls.model_fields["heads"].default)
        model["channels"] = heads * max(
            1, model.get("channels", cls.model_fields["channels"].default) // heads
        )
    train = {**drawn(TrainConfig, rng), "steps": 2, "epochs": None, "start": None, "references": "ridge"}
    train["learning_rate"] = float(np.exp(rng.uniform(-20, -4.6)))
    optimizer = "adamw" if train.get("amsgrad") else str(rng.choice(kinds("optimizers")))
    train["optimizer"] = {"kind": optimizer, **drawn(kind_class("optimizers", optimizer), rng)}
    seed = int(rng.choice([0, 5, 2**63 - 1]))
    return {
        "id": f"p{number}",
        "data": {**SOURCE, "root": str(data)},
        "model": model,
        "train": train,
        "seed": seed,
        "n_params_target": 1e3,
        "n_frames": int(rng.integers(1, 13)),
    }


def train_all(numbers: range, home: Path, *, data: Path, cache: Path) -> Counter[str]:
    """Train what is accepted, see that records and table hold it, and count."""
    tally: Counter[str] = Counter()
    planned = []
    for number in numbers:
        raw = random_point(number, data)
        try:
            point: PointConfig = load(PointConfig, raw, source="x")
        except ConfigError as error:
            assert "\n" not in str(error) or str(error).count("x: ") > 1
            tally["refused"] += 1
            continue
        folder = home / point.id
        write_text(folder / "config.yaml", dump_yaml(point))
        run.run_point(folder, cache=cache)
        record = read_record(folder)
        assert record.fingerprint == point.fingerprint and record.steps == 2
        planned.append(record)
        tally["trained and recorded"] += 1
    assert len(runs_table(home, planned)) == len(planned)
    print(dict(tally))
    return tally


def test_what_is_accepted_trains_and_records(tmp_path, clusters, cache, monkeypatch):
    monkeypatch.setattr("sapis_lab.tasks._base.HOPELESS", math.inf)  # two steps make no good model
    tally = train_all(range(40), tmp_path, data=clusters, cache=cache)
    assert tally["trained and recorded"] >= 30


@pytest.mark.long
def test_what_is_accepted_trains_and_records_a_thousand_times(tmp_path, clusters, cache, monkeypatch):
    monkeypatch.setattr("sapis_lab.tasks._base.HOPELESS", math.inf)
    tally = train_all(range(1000, 2000), tmp_path, data=clusters, cache=cache)
    assert tally["trained and recorded"] >= 800
