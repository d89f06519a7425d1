"""Settings compose by one rule, load back as written, and refuse what they do not know by naming what they
do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from sapis_lab.config import (
    Config,
    ConfigError,
    composed,
    differing_keys,
    dump,
    dump_yaml,
    expand_use,
    fingerprint,
    home,
    kind_class,
    kinds,
    load,
    merge,
    override,
    plainly,
    read_yaml,
)
from sapis_lab.files import write_text


class Inner(Config):
    size: int = Field(default=3, gt=0)
    """Size."""
    rates: dict[str, float] = {}
    """Rates."""


class Outer(Config):
    train: Annotated[Inner, composed("train")] = Inner()
    """Composed."""
    names: tuple[str, ...] = ()
    """Names."""


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAPIS_HOME", str(tmp_path))
    write_text(tmp_path / "configs/train/plain.yaml", "size: 5\nrates: {a: 1.0, b: 2.0}\n")
    return tmp_path


def test_a_string_names_a_file(configs):
    assert load(Outer, {"train": "plain"}, source="x").train == Inner(size=5, rates={"a": 1.0, "b": 2.0})


def test_keys_beside_use_override_the_file_key_by_key(configs):
    outer = load(Outer, {"train": {"use": "plain", "rates": {"b": 3.0}}}, source="x")
    assert outer.train == Inner(size=5, rates={"a": 1.0, "b": 3.0})


def test_settings_can_stand_in_full(configs):
    assert load(Outer, {"train": {"size": 7}}, source="x").train.size == 7


def test_a_missing_file_is_told_with_the_nearest(configs):
    with pytest.raises(ConfigError, match=r"x: train: configs/train/ has no 'plian'; did you mean 'plain'\?"):
        load(Outer, {"train": "plian"}, source="x")


@pytest.mark.parametrize("name", ["../train/plain", "/etc/passwd", "plain.yaml", ""])
def test_a_name_cannot_leave_its_folder(configs, name):
    with pytest.raises(ValueError, match="has no"):
        expand_use(name, "train")


def test_an_unknown_key_is_told_with_the_nearest():
    with pytest.raises(ConfigError, match=r"study: train: unknown key 'sise'; did you mean 'size'\?"):
        load(Outer, {"train": {"sise": 1}}, source="study")


def test_every_problem_is_one_line_with_file_field_and_value():
    with pytest.raises(ConfigError) as error:
        load(Outer, {"train": {"size": "many"}, "names": 3}, source="study")
    lines = str(error.value).splitlines()
    assert len(lines) == 2 and all(line.startswith("study: ") for line in lines)
    assert "train.size" in lines[0] and "'many'" in lines[0]


def test_of_many_problems_the_first_are_told():
    with pytest.raises(ConfigError, match="x: and 80 more") as error:
        load(Outer, {"names": list(range(100))}, source="x")
    assert len(str(error.value).splitlines()) == 21


def test_settings_are_immutable():
    with pytest.raises(ValueError, match="frozen"):
        Inner().size = 4


def test_a_dump_loads_back_equal(configs):
    outer = load(Outer, {"train": {"use": "plain", "size": 9}, "names": ["a"]}, source="x")
    write_text(configs / "out.yaml", dump_yaml(outer))
    assert load(Outer, read_yaml(configs / "out.yaml"), source="x") == outer


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        ("train.size=8", {"train": {"use": "plain", "size": 8}, "names": ["a", "b"]}),
        ("names=[c]", {"train": "plain", "names": ["c"]}),
        ("names.1=c", {"train": "plain", "names": ["a", "c"]}),
        ("train=other", {"train": "other", "names": ["a", "b"]}),
        ("train.rates.b=1e-3", {"train": {"use": "plain", "rates": {"b": 0.001}}, "names": ["a", "b"]}),
        ("new=null", {"train": "plain", "names": ["a", "b"], "new": None}),
    ],
)
def test_an_override_reaches_its_place(setting, wanted):
    raw = {"train": "plain", "names": ["a", "b"]}
    assert override(raw, [setting]) == wanted
    assert raw == {"train": "plain", "names": ["a", "b"]}


@pytest.mark.parametrize(
    "setting", ["train.size", "=3", "names.5=x", "names.x=y", "size=[1", "number.below=3"]
)
def test_an_override_that_leads_nowhere_is_refused(setting):
    with pytest.raises(ConfigError, match="--set"):
        override({"names": ["a"], "number": 3}, [setting])


def test_numbers_are_read_as_people_write_them(tmp_path):
    (tmp_path / "n.yaml").write_text("a: 3e3\nb: 1.0e5\nc: 1e-3\nd: 5\ne: .5\nf: 1_000.0\n")
    assert read_yaml(tmp_path / "n.yaml") == {
        "a": 3000.0,
        "b": 1e5,
        "c": 0.001,
        "d": 5,
        "e": 0.5,
        "f": 1000.0,
    }


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "just words"])
def test_a_file_that_is_no_mapping_is_told(tmp_path, text):
    (tmp_path / "n.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"n\.yaml"):
        read_yaml(tmp_path / "n.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: \xff\n", "not UTF-8 text"),
        (b"? [1, 2]\n: 3\n", "wanted text as a key"),
        (b"on: 3\n", "wanted text as a key, got True"),
        (b"a: 2026-13-45\n", "not valid YAML"),
    ],
)
def test_a_file_that_cannot_be_settings_is_told(tmp_path, content, message):
    (tmp_path / "n.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"n\.yaml: (.|\n)*{message}"):
        read_yaml(tmp_path / "n.yaml")


LAUGHS = "a0: &a0 [lol]\n" + "".join(f"a{k}: &a{k} [{','.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 10))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "more than 50000 values, with every alias written out"),
        ("a: [" + "1," * 60_000 + "]", "more than 50000 values"),
        ("a: " + "[" * 100_000, "nested more than 50 levels deep"),
        ("".join("  " * k + "a:\n" for k in range(100)), "nested more than 50 levels deep"),
        (
            "a: &a " + "[" * 30 + "]" * 30 + "\nb: " + "[" * 30 + "*a" + "]" * 30,
            "nested more than 50 levels deep",
        ),
        ("a: &a [*a]", "an alias within what it stands for"),
        ("a: " + "9" * 30, "holds an integer of 100 bits, wanted at most 64"),
        ("a: " + "9" * 9000, "not valid YAML"),
        ("a: 0x" + "9" * 9000, "holds an integer of 36000 bits"),
        ("a: 1" + ":59" * 9000, "holds an integer of"),
        ("a: 1" + ":59" * 9000 + ".0", "a value does not fit its tag"),
        ('a: !!int ""', "a value does not fit its tag"),
        ("a: !!bool maybe", "a value does not fit its tag"),
        ("a: !!timestamp x", "a value does not fit its tag"),
        ("a: !!map [1]", "a value does not fit its tag"),
        ("#" * 2**20 + "\na: 1", "has 1048581 bytes, wanted at most 1048576"),
        ("", "wanted a mapping of keys to values, got nothing"),
    ],
)
def test_a_hostile_file_is_refused(tmp_path, text, message):
    (tmp_path / "n.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"n\.yaml: (.|\n)*{message}") as error:
        read_yaml(tmp_path / "n.yaml")
    assert len(str(error.value)) < 500


def test_what_is_just_within_the_limits_is_read(tmp_path):
    text = (
        "a: ["
        + "1," * 40_000
        + "]\nb: &b "
        + "[" * 49
        + "1"
        + "]" * 49
        + "\nc: *b\nd: 18446744073709551615\n"
    )
    (tmp_path / "n.yaml").write_text(text)
    raw = read_yaml(tmp_path / "n.yaml")
    assert len(raw["a"]) == 40_000 and raw["b"] == raw["c"] and raw["d"] == 2**64 - 1


def test_a_pipe_in_the_place_of_a_file_is_told_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match="wanted a file, got a pipe"):
        read_yaml(tmp_path / "pipe.yaml")


def test_a_folder_in_the_place_of_a_file_is_told(tmp_path):
    with pytest.raises(ConfigError, match="wanted a file, got a folder"):
        read_yaml(tmp_path)


def test_a_date_in_a_file_survives_overrides(tmp_path):
    (tmp_path / "n.yaml").write_text("a: 2026-01-02\nb: 1\n")
    raw = read_yaml(tmp_path / "n.yaml")
    assert override(raw, ["b=2"]) == {**raw, "b": 2}


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), FileNotFoundError("x"), PermissionError("x"), ImportError("x"), RuntimeError("x")],
)
def test_failures_of_the_surroundings_are_told_plainly(error):
    def fail():
        raise error

    with pytest.raises(ConfigError, match=r"^data: (RuntimeError: )?x$"):
        plainly(fail, about="data")


def test_code_in_yaml_is_refused(tmp_path):
    (tmp_path / "n.yaml").write_text("a: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_yaml(tmp_path / "n.yaml")


def test_a_fingerprint_ignores_order_and_sees_values():
    assert fingerprint({"a": 1, "b": [1.0, 2]}) == fingerprint({"b": [1.0, 2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_differing_keys_are_dotted():
    assert differing_keys({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 9}, "e": 4}) == [
        "a.c",
        "d",
        "e",
    ]


def test_merging_replaces_what_is_no_mapping():
    assert merge({"a": [1, 2], "b": {"c": 1}}, {"a": [3], "b": {"d": 2}}) == {"a": [3], "b": {"c": 1, "d": 2}}


def test_a_file_is_written_in_one_step(tmp_path):
    path = tmp_path / "deep/file.txt"
    write_text(path, "one")
    write_text(path, "two")
    assert path.read_text() == "two" and [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_the_home_can_be_moved(configs):
    assert home() == configs


@pytest.mark.parametrize("folder", ["models", "data", "oracles", "samplers", "generators", "executors"])
def test_every_kind_has_one_settings_class_with_documented_fields(folder):
    assert kinds(folder)
    for kind in kinds(folder):
        cls = kind_class(folder, kind)
        undocumented = [
            name for name, field in cls.model_fields.items() if name != "kind" and not field.description
        ]
        assert not undocumented, f"{cls.__name__}: {undocumented}"
        assert kind_class(folder, kind).model_fields["kind"].default == kind


def test_an_unknown_kind_is_told_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'geat'"):
        kind_class("models", "gaet")


def test_a_kind_of_another_sort_is_told():
    from sapis_lab.data import DatasetConfig

    with pytest.raises(ValueError, match=r"geat\.py: GeatConfig must be a DatasetConfig"):
        kind_class("models", "geat", DatasetConfig)


def test_a_dump_is_plain(configs):
    assert dump(Outer(train=Inner(size=2))) == {"train": {"size": 2, "rates": {}}, "names": []}


def test_a_key_given_twice_is_refused(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("train:\n  steps: 5\n  steps: 6\n")
    with pytest.raises(
        ConfigError, match=r"twice.yaml: not valid YAML: the key 'steps' is given twice(.|\n)*line 3"
    ):
        read_yaml(path)
