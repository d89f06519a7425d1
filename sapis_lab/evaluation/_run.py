"""Evaluates one finished point: what a process of its own does in `results/NAME/evaluations/ID/`.

    request.yaml      the evaluations that are wanted, resolved; written by who asks
    LABEL/            the raw arrays of each (`_arrays`)
    evaluated.json    written last: which request was answered

The scores of each evaluation go to `points/ID/evaluation/LABEL.json`, as soon as they are there. One that
fails costs no other.
"""

from __future__ import annotations

import json
import os
import platform
import time
import traceback
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from sapis_lab.config import Config, composed_kind, dump, dump_yaml, fingerprint, load, read_yaml
from sapis_lab.evaluation._arrays import Arrays
from sapis_lab.evaluation._base import Evaluation, Subject
from sapis_lab.files import TEMPORARY, digest, read_lossy, write_text
from sapis_lab.records import (
    FAILURE,
    Evaluated,
    Record,
    evaluation_file,
    read_evaluated,
    read_record,
    write_evaluated,
)

REQUEST, ANSWER = "request.yaml", "evaluated.json"


class Request(Config):
    """What is wanted of one point."""

    evaluations: tuple[composed_kind("evaluation", Evaluation), ...]  # type: ignore[valid-type]
    """In the order in which they are done."""


class EvaluationsFailed(Exception):
    """Some evaluations of a point have no scores; the message says which, and why."""


def write_request(folder: Path, evaluations: Sequence[Evaluation]) -> None:
    """Ask for `evaluations` in `folder`: an answer that is there goes, and so does the failure of another
    request."""
    path, text = folder / REQUEST, dump_yaml(Request(evaluations=tuple(evaluations)))
    (folder / ANSWER).unlink(missing_ok=True)
    if not path.exists() or read_lossy(path) != text:
        (folder / FAILURE).unlink(missing_ok=True)
        write_text(path, text)


def wanted_fingerprint(evaluation: Evaluation, record: Record, weights: str) -> str:
    """What scores of a finished point with these weights (sha256) must have been made from."""
    versions = record.science.get("versions") or {}
    data = {"settings": record.science.get("data"), "version": versions.get("data")}
    return evaluation.fingerprint(weights=weights, data=data)


def is_evaluated(place: Path, evaluation: Evaluation, record: Record) -> bool:
    """Whether the point in `place` has the scores of `evaluation`.

    Raises:
        ConfigError: there are scores, and they are damaged.
    """
    path = evaluation_file(place, evaluation.label)
    if not path.exists():
        return False
    found = read_evaluated(path)
    weights = record.weights or found.weights  # older records do not say
    return found.fingerprint == wanted_fingerprint(evaluation, record, weights)


def evaluate_point(folder: Path, *, cache: str | Path, device: str = "cpu", threads: int = 1) -> None:
    """Do what `folder/request.yaml` asks for of the finished point of the same name.

    Args:
        cache: folder of frame stores.   device: 'cpu', 'cuda' or 'cuda:K'.   threads: of the CPU.

    Raises:
        EvaluationsFailed: some of it could not be done; the rest is.
        ConfigError: the point has not finished, or its files are damaged.
    """
    from sapis_lab.training.process import set_up_torch

    set_up_torch(threads)
    folder = Path(folder)
    for left in folder.rglob(f".*{TEMPORARY}"):  # of a process that was killed
        left.unlink(missing_ok=True)
    source = str(folder / REQUEST)
    request: Request = load(Request, read_yaml(folder / REQUEST), source=source, recorded=True)
    point = _Point(folder.parent.parent / "points" / folder.name, Path(cache), device)
    problems = []
    for evaluation in request.evaluations:
        try:
            _evaluate(evaluation, point, folder / evaluation.label)
        except Exception as error:
            traceback.print_exc()
            words = str(error).strip().splitlines() or ["without a word"]
            problems.append(f"{evaluation.label}: {type(error).__name__}: {words[0]}")
    if problems:
        raise EvaluationsFailed("; ".join(problems))
    write_text(folder / ANSWER, json.dumps({"request": fingerprint(dump(request))}, indent=1) + "\n")


class _Point:
    """A finished point; its potential and its frames are loaded when something is measured."""

    def __init__(self, place: Path, cache: Path, device: str) -> None:
        self.place, self.cache, self.device = place, cache, device
        self.record = read_record(place)

    @cached_property
    def subject(self) -> Subject:
        from sapis_lab.data import prepare
        from sapis_lab.potential import load_potential
        from sapis_lab.training import PointConfig

        settings = self.place / "config.yaml"
        point: PointConfig = load(PointConfig, read_yaml(settings), source=str(settings), recorded=True)
        potential = load_potential(self.place, device=self.device)
        return Subject(potential, prepare(point.data, cache=self.cache), self.device)

    @cached_property
    def weights(self) -> str:
        """sha256 of the weights, as the record has it; of the file where the record is older than that."""
        from sapis_lab.potential import WEIGHTS

        return self.record.weights or digest(self.place / WEIGHTS)


def _evaluate(evaluation: Evaluation, point: _Point, folder: Path) -> None:
    """Measure what is not there yet, score it, and write the scores."""
    if is_evaluated(point.place, evaluation, point.record):
        print(f"{evaluation.label}: scored already", flush=True)
        return
    wanted = wanted_fingerprint(evaluation, point.record, point.weights)
    began = time.perf_counter()
    arrays = Arrays(folder, wanted)
    names = evaluation.parts(point.subject)
    for part in names:
        if arrays.has(part):
            print(f"{evaluation.label}: {part} is measured already", flush=True)
            continue
        print(f"{evaluation.label}: measuring {part}", flush=True)
        arrays.keep(part, evaluation.measure(point.subject, part))
    scores = evaluation.checked(evaluation.score({part: arrays.read(part) for part in names}))
    write_evaluated(
        point.place,
        Evaluated(
            kind=evaluation.kind,
            name=evaluation.name,
            settings=dump(evaluation),
            version=type(evaluation).version,
            fingerprint=wanted,
            point=point.record.fingerprint,
            weights=point.weights,
            scores=scores,
            seconds=time.perf_counter() - began,
            **_where(point.device),
        ),
    )
    print(f"{evaluation.label}: {len(scores)} scores", flush=True)


def _where(device: str) -> dict[str, Any]:
    import torch

    name = platform.processor() or platform.machine()
    return {
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else name,
        "host": platform.node(),
        "commit": os.environ.get("SAPIS_COMMIT") or None,
        "dirty": {"0": False, "1": True}.get(os.environ.get("SAPIS_DIRTY", "")),
    }
