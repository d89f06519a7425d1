"""Whatever is damaged in the results of a study, no command prints a traceback or hangs, and no number that
is not the study's is given."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from mutations import MUTATIONS, NAME, Mutation

from sapis_lab.config import ConfigError, read_yaml
from sapis_lab.files import digest, read_json
from sapis_lab.potential import load_potential
from sapis_lab.records import differing_columns, read_record
from sapis_lab.sweep.manifest import read_manifest

Sapis = Callable[..., tuple[int | None, str]]
Words = tuple[str, ...]
Commands = tuple[Words, ...]

LOOKING = (("study", "status"), ("study", "list"), ("study", "export"), ("study", "clean"))
ANSWERING = (("study", "run"), ("fit",), ("figures",), ("report",))
QUICK = (
    "record.json: zero bytes",
    "record.json: swapped with another",
    "model.safetensors: cut in half",
    "runs.parquet: edited",
    "study.yaml: not UTF-8",
    "report.html: zero bytes",
)
NUMBERS = ("quantity", "models", "comparisons", "exponent_tests", "reference", "failed")
"""Of fit.json, what is more than a time."""


def test_there_are_138_kinds_of_damage():
    assert len({mutation.name for mutation in MUTATIONS}) == 138 and {m.name for m in MUTATIONS} >= set(QUICK)


def test_without_damage_nothing_is_wrong(finished: Path, forked: Sapis):
    assert faults(None, finished, forked, (*LOOKING, ANSWERING[0])) == []


@pytest.mark.parametrize("mutation", [m for m in MUTATIONS if m.name in QUICK], ids=lambda m: m.name)
def test_damage_is_rebuilt_or_refused(mutation: Mutation, finished: Path, forked: Sapis, record_property):
    _examine(mutation, (LOOKING[0], LOOKING[2], ANSWERING[0]), finished, forked, record_property)


@pytest.mark.long
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_no_command_is_misled_by_damage(mutation: Mutation, finished: Path, forked: Sapis, record_property):
    _examine(mutation, (*LOOKING, *ANSWERING), finished, forked, record_property)


def _examine(
    mutation: Mutation, commands: Commands, finished: Path, forked: Sapis, tell: Callable[[str, object], None]
) -> None:
    found = faults(mutation, finished, forked, commands)
    tell("damage", [mutation.kind, mutation.what, found])
    assert not found, "\n".join(found)


def faults(mutation: Mutation | None, finished: Path, forked: Sapis, commands: Commands) -> list[str]:
    """What is wrong with each of `commands`, run on a copy of the study with the damage done to it; commands
    that only look share one."""
    found: list[str] = []
    home, told, fresh = finished.with_name("home"), (), False
    for words in commands:
        if not (fresh and words in LOOKING):
            shutil.rmtree(home, ignore_errors=True)
            shutil.copytree(finished, home, symlinks=True)
            told = mutation.apply(home) if mutation else ()
        fresh = words in LOOKING
        more = {"export": ("--to", str(home / "archive.zip")), "clean": ("--yes",)}.get(words[-1], ())
        status, output = forked(*words, *(() if words[-1] == "list" else (NAME,)), *more, home=home)
        command = " ".join(words)
        listing = words[-1] in ("status", "list", "run")
        found += [f"{command}: {fault}" for fault in _wrong_words(status, output, told, listing=listing)]
        usual = _wrong_table if words in ANSWERING else _nothing
        check = {"run": _wrong_results, "export": _wrong_archive}.get(words[-1], usual)
        undone = words[-1] != "run" and mutation is not None and mutation.is_undone
        found += [f"{command}: {fault}" for fault in check(home, finished, status, told, undone)]
    return found


def _wrong_words(status: int | None, output: str, told: Words, *, listing: bool) -> list[str]:
    """`listing`: a line that is no error may tell the file as well, as that of a failed point does."""
    if status is None:
        return ["does not end"]
    lines = output.strip().splitlines() or [""]
    if "Traceback (most recent call last)" in output:
        return [f"traceback: {lines[-1][:200]}"]
    if status < 0:
        return [f"killed by signal {-status}"]
    if status == 0:
        return []
    # the first line of a message says what, more of them may say where
    message = output[output.rindex("error: ") :] if "error: " in output else ""
    telling = output if listing and not message else message
    if not any(word in telling for word in told):
        return [f"exit status {status} without a line that names {told[0]}: {lines[-1][:200]}"]
    return []


def _nothing(home: Path, finished: Path, status: int | None, told: Words, undone: bool) -> list[str]:
    return []


def _wrong_table(home: Path, finished: Path, status: int | None, told: Words, undone: bool) -> list[str]:
    """A table must be the study's: all of it after success, a part of it otherwise, or where a point is not
    done."""
    folder, wanted = home / "results" / NAME, pd.read_parquet(finished / "results" / NAME / "runs.parquet")
    found = []
    for name, read in (("runs.parquet", pd.read_parquet), ("runs.csv", partial(pd.read_csv, dtype=str))):
        if status and name in told:
            continue  # the command has refused it, and left it as it was
        right = wanted if name == "runs.parquet" else read(finished / "results" / NAME / name)
        try:
            table = read(folder / name) if (folder / name).is_file() else None
        except Exception as error:
            table = None
            found += [f"{name} is left damaged: {type(error).__name__}"] if status == 0 else []
        if table is None:
            found += [] if status else [f"{name} is not there"]
            continue
        if status or undone:
            done = table[table["status"] == "done"] if "status" in table else table
            right = right[right["id"].isin(done["id"])].reset_index(drop=True)
            table = done.reset_index(drop=True)
        different = differing_columns(right, table)
        if different == ["failure"] and (status or undone):
            different = []  # a failed row beside it has given the column another type
        found += [f"{name} differs in {', '.join(different)}"] if different else []
    return found


def _wrong_results(home: Path, finished: Path, status: int | None, told: Words, undone: bool) -> list[str]:
    """After success everything is there again, with the study's numbers."""
    found = _wrong_table(home, finished, status, told, undone)
    if status != 0:
        return found
    folder, original = home / "results" / NAME, finished / "results" / NAME
    for path in sorted((original / "points").iterdir()):
        place = folder / "points" / path.name
        found += _unreadable(f"{path.name}/record.json", lambda place=place: read_record(place))
        found += _wrong_potential(place, path)
    found += _unreadable("fit.json", lambda: read_json(folder / "fit.json"))
    if not found:
        fits, right = (json.loads((f / "fit.json").read_text()) for f in (folder, original))
        found += [
            f"fit.json: other {key}" for key in NUMBERS if _untimed(fits.get(key)) != _untimed(right.get(key))
        ]
    found += _unreadable("points.json", lambda: read_manifest(folder))
    found += _unreadable("study.yaml", lambda: read_yaml(folder / "study.yaml"))
    for path in [original / "report.html", *(original / "figures").iterdir()]:
        now = folder / path.relative_to(original)
        if not now.is_file() or not now.stat().st_size:
            found.append(f"{now.relative_to(folder)} is not there, or empty")
    return found


def _untimed(value: object) -> object:
    """Without what is made from times, which are others when a point is trained again."""
    if isinstance(value, dict):
        return {key: _untimed(inner) for key, inner in value.items() if "seconds" not in key}
    return [_untimed(inner) for inner in value] if isinstance(value, list) else value


def _wrong_potential(place: Path, original: Path) -> list[str]:
    """The trained potential is the study's, has been taken away, or is refused when it is loaded."""
    weights, description = place / "model.safetensors", place / "model.yaml"
    if not weights.exists():  # `sapis study clean --also models`
        return []
    if digest(weights) != digest(original / weights.name):
        return [f"{place.name}: other weights"]
    if description.is_file() and digest(description) == digest(original / description.name):
        return []
    try:
        load_potential(place)
    except ValueError as error:
        told = description.name in str(error) and "\n" not in str(error)
        return [] if told else [f"{place.name}: model.yaml is refused in other words: {error}"]
    return [f"{place.name}: a damaged model.yaml is loaded"]


def _unreadable(name: str, read: Callable[[], object]) -> list[str]:
    try:
        read()
    except (ConfigError, OSError) as error:
        return [f"{name} is left damaged: {str(error)[:160]}"]
    return []


def _wrong_archive(home: Path, finished: Path, status: int | None, told: Words, undone: bool) -> list[str]:
    path = home / "archive.zip"
    if status != 0:
        return ["an archive is there all the same"] if path.exists() else []
    with zipfile.ZipFile(path) as archive:
        return [] if archive.testzip() is None else ["a damaged archive"]
