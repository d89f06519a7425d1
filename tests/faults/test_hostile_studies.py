"""Mutated study and config files through `sapis study plan`: refused with status 2, or accepted and
trainable; no traceback, no hang."""

from __future__ import annotations

import copy
import math
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from sapis_lab import cli
from sapis_lab.config import dump_yaml, load
from sapis_lab.files import write_text
from sapis_lab.records import read_record
from sapis_lab.sweep import plan
from sapis_lab.sweep.plan import infos
from sapis_lab.sweep.points import Point, points
from sapis_lab.sweep.study import Study, load_study
from sapis_lab.training import PointConfig, run

NUMBERS = (
    0,
    -1,
    1,
    2,
    10**9,
    10**30,
    -(10**30),
    10**400,
    1e308,
    -1e308,
    1e-308,
    0.5,
    math.inf,
    -math.inf,
    math.nan,
    2**63,
    2**64,
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    "",
    "x",
    "1e3",
    "nan",
    "\U0001f9ea",
    "a" * 300,
    "../../x",
    "\x00",
    [],
    {},
    [[]],
    [1, "x"],
    {"a": {"b": 1}},
    {"use": "geat"},
)
INSERTS = (
    b"[" * 1000,
    b"{",
    b": ",
    b"&a ",
    b"*a",
    b"!!python/name:os.system ",
    b"!!int ",
    b"\xff",
    b"9" * 5000,
    b"- " * 500,
)
SECONDS = 30


class Hang(BaseException):
    """It took too long; no `except Exception` catches it."""


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# -------------------------------------------------------------------------------------------------- mutations


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of all values below a value."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [place for key, value in items for place in ((*path, key), *places(value, (*path, key)))]


def mutated_tree(raw: dict[str, Any], rng: np.random.Generator) -> tuple[str, str]:
    """The name of a mutation, and the file with it."""
    raw = copy.deepcopy(raw)
    at = places(raw)[rng.integers(len(places(raw)))]
    node: Any = raw
    for key in at[:-1]:
        node = node[key]
    kind = ("delete", "number", "value", "list", "rename", "add", "twice", "deep", "alias", "scale")[
        rng.integers(10)
    ]
    value = node[at[-1]]
    if kind == "delete":
        del node[at[-1]]
    elif kind == "number":
        node[at[-1]] = NUMBERS[rng.integers(len(NUMBERS))]
    elif kind == "value":
        node[at[-1]] = copy.deepcopy(VALUES[rng.integers(len(VALUES))])
    elif kind == "list":
        node[at[-1]] = (
            [value] if rng.random() < 0.5 or not isinstance(value, list) else value[0] if value else None
        )
    elif kind == "rename" and isinstance(node, dict):
        node[str(at[-1]) + "s"] = node.pop(at[-1])
    elif kind == "add" and isinstance(node, dict):
        node[("ſteps", "", 3, "kind", "use", "x" * 1000, "name")[rng.integers(7)]] = value
    elif kind == "twice":
        raw["models"] = [*_list(raw.get("models")), *_list(raw.get("models"))]
    elif kind == "deep":
        for _ in range(int(rng.integers(2, 200))):
            value = [value] if rng.random() < 0.5 else {"a": value}
        node[at[-1]] = value
    elif kind == "scale" and isinstance(value, int | float):
        node[at[-1]] = value * (0.5, 2, 1.5, -1, 1e-3)[rng.integers(5)]
    text = yaml.safe_dump(raw, sort_keys=False, allow_unicode=True)
    if kind == "alias":
        laughs = "".join(f"a{k}: &a{k} [{','.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 9))
        text += (f"a0: &a0 [x]\n{laughs}", "a: &a [*a]\n", "a: &a 3\nb: *a\n", "b: *unknown\n")[
            rng.integers(4)
        ]
    return kind, text


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def mutated_bytes(text: str, rng: np.random.Generator) -> tuple[str, bytes]:
    """The name of a mutation of the bytes, and the file with it."""
    data = bytearray(text.encode())
    kind = ("cut", "bytes", "insert", "line", "binary", "utf-16", "tab")[rng.integers(7)]
    if kind == "cut":
        del data[rng.integers(len(data)) :]
    elif kind == "bytes":
        for k in rng.integers(len(data), size=3):
            data[k] = rng.integers(256)
    elif kind == "insert":
        k = int(rng.integers(len(data)))
        data[k:k] = INSERTS[rng.integers(len(INSERTS))]
    elif kind == "line":
        lines = bytes(data).split(b"\n")
        k, j = rng.integers(len(lines), size=2)
        lines[k], lines[j] = lines[j], lines[k]
        data = bytearray(b"\n".join(lines))
    elif kind == "binary":
        data = bytearray(rng.bytes(2000))
    elif kind == "utf-16":
        data = bytearray(text.encode("utf-16"))
    else:
        data = bytearray(bytes(data).replace(b"  ", b"\t", 1))
    return kind, bytes(data)


# ------------------------------------------------------------------------------------------------------ plans


def plan_status(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """Exit status of `sapis study plan mutant`, and what it said; anything but an exit is the test's
    failure."""
    monkeypatch.setattr(sys, "argv", ["sapis", "study", "plan", "mutant"])
    with at_most(SECONDS):
        try:
            cli.main()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
    said = capsys.readouterr()
    return status, said.err


def all_points(project: Path) -> list[Point]:
    """The points of the study that was accepted; it is written, and read back, as it was understood."""
    study: Study = load_study("mutant")
    write_text(project / "out.yaml", dump_yaml(study))
    assert load(Study, yaml.safe_load((project / "out.yaml").read_text()), source="out") == study
    return points(study, next(iter(infos(study).values())))


def train_two_steps(point: PointConfig, folder: Path, *, clusters: Path, cache: Path) -> None:
    """Train the settings of a point on other frames, as many as there are, and see that it is recorded."""
    data = {
        "kind": "extxyz",
        "train": "clusters.xyz",
        "n_validation": 4,
        "n_test": 3,
        "energy_unit": "eV",
        "length_unit": "Angstrom",
    }
    raw = yaml.safe_load(dump_yaml(point))
    raw |= {"data": {**data, "root": str(clusters)}, "n_frames": min(point.n_frames, 12), "n_params": None}
    raw["train"] |= {
        "steps": 2,
        "epochs": None,
        "references": "ridge",
        "validations": min(raw["train"]["validations"], 100),
    }
    small: PointConfig = load(PointConfig, raw, source="small")
    write_text(folder / "config.yaml", dump_yaml(small))
    try:
        run.run_point(folder, cache=cache)
    except run.PointFailed as error:
        assert (
            str(error).startswith("diverged")
            and small.train.rate_of(small.model, small.n_params_target) > 0.1
        ), error
        return
    assert read_record(folder).fingerprint == small.fingerprint


def base(path: Path) -> dict[str, Any]:
    """A study as plain data, on data that need no file, which alone is accepted."""
    raw: dict[str, Any] = yaml.safe_load(path.read_text()) | {"data": {"use": "ethanol-xtb", "n_train": 3000}}
    raw.pop("regime", None)
    learnt = ("task", "targets", "heads", "start")  # of which these data have no labels, or no trained point
    raw["train"] = {key: value for key, value in raw["train"].items() if key not in learnt}
    raw["law"] = {**raw.get("law", {}), "quantity": "val_force_rmse"}
    return raw


def fuzz(
    numbers: Iterable[int],
    project: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    clusters: Path,
    cache: Path,
    trained: int,
) -> Counter[str]:
    """Mutate, plan, train a sample of what is accepted, and count."""
    monkeypatch.setattr(plan, "_measure_machine", lambda: plan._Machine(1e10, 1e9))
    monkeypatch.setattr("sapis_lab.tasks._base.HOPELESS", math.inf)
    bases = [base(path) for path in sorted((project / "studies").glob("*.yaml"))]
    configs = project / "configs"
    shutil.copytree(configs, project / "intact")
    tally: Counter[str] = Counter()
    for number in numbers:
        rng = np.random.default_rng(number)
        shutil.rmtree(configs)
        shutil.copytree(project / "intact", configs)
        raw = bases[rng.integers(len(bases))]
        target, tree = project / "studies" / "mutant.yaml", raw
        target.write_text(yaml.safe_dump(raw, sort_keys=False))
        if rng.random() < 0.25:
            target = (
                configs / "data/ethanol-xtb.yaml",
                configs / "models/geat.yaml",
                configs / "train/default.yaml",
            )[rng.integers(3)]
            tree = yaml.safe_load(target.read_text())
        if rng.random() < 0.7:
            kind, text = mutated_tree(tree, rng)
            target.write_bytes(text.encode("utf-8", "surrogatepass"))
        else:
            kind, data = mutated_bytes(yaml.safe_dump(tree, sort_keys=False), rng)
            target.write_bytes(data)
        try:
            status, error = plan_status(capsys, monkeypatch)
        except BaseException as fault:
            raise AssertionError(
                f"mutation {number} ({kind}) of {target}: {type(fault).__name__}: {fault}"
            ) from fault
        assert status in (0, 2), (number, kind, error)
        assert (status == 2) == error.startswith("error: ") and "Traceback" not in error, (
            number,
            kind,
            error,
        )
        tally[f"{kind}: {'accepted' if status == 0 else 'refused'}"] += 1
        if status == 0:
            found = all_points(project)
            chosen = found[rng.integers(len(found))].config
            assert (
                load(PointConfig, yaml.safe_load(dump_yaml(chosen)), source="c").fingerprint
                == chosen.fingerprint
            )
            if tally["trained"] < trained and (chosen.n_params or 0) < 50_000:
                train_two_steps(chosen, project / "points" / str(number), clusters=clusters, cache=cache)
                tally["trained"] += 1
    totals = {
        word: sum(n for key, n in tally.items() if key.endswith(word))
        for word in ("accepted", "refused", "trained")
    }
    with capsys.disabled():
        print(f"\n{totals}  {dict(sorted(tally.items()))}")
    return Counter(totals)


def test_mutated_studies_are_refused_or_work(project, capsys, monkeypatch, clusters, cache):
    # the last asks for 10^400 frames
    tally = fuzz(
        [*range(36), 10_177], project, capsys, monkeypatch, clusters=clusters, cache=cache, trained=3
    )
    assert tally["refused"] >= 10 and tally["accepted"] >= 5


@pytest.mark.long
def test_a_thousand_mutated_studies_are_refused_or_work(project, capsys, monkeypatch, clusters, cache):
    tally = fuzz(
        range(10_000, 11_000), project, capsys, monkeypatch, clusters=clusters, cache=cache, trained=60
    )
    assert tally["refused"] >= 300 and tally["accepted"] >= 120


def test_the_intact_studies_are_accepted(project, capsys, monkeypatch):
    monkeypatch.setattr(plan, "_measure_machine", lambda: plan._Machine(1e10, 1e9))
    for path in sorted((project / "studies").glob("*.yaml")):
        write_text(project / "studies" / "mutant.yaml", yaml.safe_dump(base(path)))
        assert plan_status(capsys, monkeypatch) == (0, ""), path.stem
