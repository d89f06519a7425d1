"""Every YAML of configs/ and studies/ loads, is written back, and loads back equal."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sapis_lab.config import dump_yaml, kind_class, load, read_yaml
from sapis_lab.sweep.schema import study_schema
from sapis_lab.sweep.study import Study, load_study
from sapis_lab.training import TrainConfig

REPOSITORY = Path(__file__).resolve().parent.parent
STUDIES = sorted((REPOSITORY / "studies").glob("*.yaml"))
CONFIGS = sorted((REPOSITORY / "configs").rglob("*.yaml"))
NAMES = [p.stem for p in STUDIES]


def loaded(path: Path):
    raw = read_yaml(path)
    if path.parent.name == "train" and not {"steps", "epochs"} & raw.keys():
        raw["steps"] = 100  # the budget is the study's to set
    cls = TrainConfig if path.parent.name == "train" else kind_class(path.parent.name, raw["kind"])
    return cls, load(cls, raw, source=str(path.name))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_config_loads_back_as_written(path):
    cls, config = loaded(path)
    assert load(cls, yaml.safe_load(dump_yaml(config)), source="dump") == config


@pytest.mark.parametrize("name", NAMES)
def test_a_study_loads_back_as_written(name):
    study = load_study(name)
    assert load(Study, yaml.safe_load(dump_yaml(study)), source="dump") == study
    assert study.name == name and study.question.endswith("?")


def test_the_studies_of_the_readme_are_there():
    assert {"quickstart", "rmd17-ethanol", "smoke", "acac-accuracy"} <= set(NAMES)


def test_the_schema_knows_every_kind_and_name():
    schema = study_schema()
    assert {"models-geat", "models-transformer", "data-xtb", "data-rmd17"} <= set(schema["$defs"])
    assert "quickstart" not in schema["required"] and {
        "data",
        "models",
        "lattice",
        "train",
        "question",
    } <= set(schema["required"])
    assert "ethanol-xtb" in schema["properties"]["data"]["anyOf"][0]["enum"]
