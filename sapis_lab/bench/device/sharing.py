"""Small models side by side on one device, as points of a lattice are, and packed into one.

k processes take training steps at the same time, each of a model of its own; what counts is the sum of their
steps a second. Packed, one process takes one step of k models at once (`bench.pack`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from sapis_lab.bench.device.forms import Form
from sapis_lab.bench.device.part import SAY, TIME_UP, Asked
from sapis_lab.bench.device.station import Station
from sapis_lab.bench.inputs import INPUTS, make_input
from sapis_lab.bench.measure import WorkerFailed
from sapis_lab.bench.step import model_config, sized_model

MODEL, INPUT = "geat", "eth16"


def measure(asked: Asked) -> Iterator[dict[str, Any]]:
    """Every size and form by 1, 2, 4 and 8 processes, and packed."""
    sizes, side_by_side, n_packed, seconds = (3e3, 1e5), (1, 2, 4, 8), 8, 1.0
    if asked.rehearsal:
        sizes, side_by_side, n_packed, seconds = (3e3,), (1, 2), 2, 0.3  # type: ignore[assignment]
    row: dict[str, Any]
    yield {SAY: f"training steps a second of all models together, {INPUT} ({INPUTS[INPUT]}) each"}
    config, elements = model_config(MODEL), make_input(INPUT).elements
    models = {size: sized_model(MODEL, config, size, elements) for size in sizes}
    forms: tuple[Form, ...] = ("eager", "graph", "kernel", "replay")
    with ExitStack() as stack:
        stations = [stack.enter_context(Station(f"beside{k}", asked)) for k in range(side_by_side[-1])]
        packed = stack.enter_context(Station("packed", asked))
        for station in (*stations, packed):  # their imports take seconds
            station.start()
        for size in sizes:
            for form in forms:
                row = {"size": size, "form": form}
                if asked.left() < len(side_by_side) * seconds:
                    yield row | {"n_models": 0, "skipped": TIME_UP}
                    continue
                arguments = {"model": models[size], "input": INPUT, "device": asked.device, "form": form}
                for found in _beside(stations, side_by_side, arguments, seconds):
                    yield row | found
            row = {"size": size, "form": "packed", "n_models": n_packed}
            if asked.left() < 2 * seconds:
                yield row | {"skipped": TIME_UP}
                continue
            yield row | _packed(packed, models[size], n_packed, asked.device, seconds)


def _beside(
    stations: Sequence[Station], numbers: Sequence[int], arguments: dict[str, Any], seconds: float
) -> Iterator[dict[str, Any]]:
    """Steps a second of the first k stations together, for each of the numbers k."""
    try:
        request = {"do": "make", "target": "sapis_lab.bench.device.forms:make_form", "arguments": arguments}
        made = _all(stations, 60.0, **request)
        if "absent" in made[0]:
            yield {"n_models": 0, "absent": made[0]["absent"]}
            return
        _all(stations, 30.0, do="span", action="train", seconds=0.0)
        alone = None
        for k in numbers:
            found = _all(stations[:k], 30.0, do="span", action="train", seconds=seconds)
            rate = sum(f["n"] / f["seconds"] for f in found)
            alone = alone or rate
            yield {
                "n_models": k,
                "n_params": made[0]["facts"]["n_params"],
                "steps_per_second": rate,
                "gain": rate / alone,
                "kernel": made[0]["facts"]["kernel"],
            }
    except WorkerFailed as failure:
        yield {"n_models": 0, "error": str(failure)}


def _all(stations: Sequence[Station], within: float, **request: Any) -> list[dict[str, Any]]:
    """The answers of all stations, which work at the same time; every answer is read before a failure of one
    is raised."""
    failures: list[WorkerFailed] = []
    asked, answers = [], []
    for station in stations:
        try:
            station.send(**request)
            asked.append(station)
        except WorkerFailed as failure:
            failures.append(failure)
    for station in asked:
        try:
            answers.append(station.read(within))
        except WorkerFailed as failure:
            failures.append(failure)
    if failures:
        raise failures[0]
    return answers


def _packed(station: Station, model: dict[str, Any], k: int, device: str, seconds: float) -> dict[str, Any]:
    """Of k packed models: steps a second of all of them, and over that of k single steps in PyTorch."""
    arguments = {"model": model, "n_models": k, "input": INPUT, "device": device}
    try:
        made = station.ask(within=60.0, do="make", target="sapis_lab.bench.pack:PackJob", arguments=arguments)
        rates = {}
        for action in ("packed", "pytorch"):
            station.ask(within=30.0, do="span", action=action, seconds=0.0)
            found = station.ask(within=30.0, do="span", action=action, seconds=seconds)
            rates[action] = k * found["n"] / found["seconds"]
    except WorkerFailed as failure:
        return {"error": str(failure)}
    facts = made["facts"]
    return {
        "n_params": facts["n_params"],
        "steps_per_second": rates["packed"],
        "gain": rates["packed"] / rates["pytorch"],
        "gradient_difference": facts["gradient_differences"]["pytorch"],
    }
