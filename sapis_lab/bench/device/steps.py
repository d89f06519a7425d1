"""Training steps by form, size and input: time, memory, share of the device's speed, agreement with float64.

Every form has a process of its own, so that one which crashes or hangs costs no other, and the forms of a
cell are visited in rounds, forwards and backwards in turn (`bench.measure`). The float64 reference comes from
the CPU. FLOPs are those of the matrix products of the PyTorch form, as `accounting` counts them,
whatever computes the step; they are compared with the speed of one large matrix product in float32.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sapis_lab.bench.device.forms import FORMS, Form
from sapis_lab.bench.device.part import SAY, TIME_UP, Asked
from sapis_lab.bench.device.station import Station
from sapis_lab.bench.inputs import make_input
from sapis_lab.bench.measure import MOST_CALLS, WorkerFailed, quartiles
from sapis_lab.bench.step import model_config, sized_model
from sapis_lab.jobs.host import n_cores

MODEL = "geat"
SIZES = (1e5, 1e6, 1e7, 6e4)
INPUTS = ("mol27x8", "silicon1000", "eth16", "water192")
"""In the order in which they are measured, as long as there is time."""
SMALL = {"sizes": (3e3,), "inputs": ("eth16", "water192")}
"""Of a rehearsal."""
_HERE = "sapis_lab.bench.device.forms"
_CPU_SPEED = 3e9
"""FLOP/s in float64 of one core, at the least."""
_REFERENCE_SECONDS = 6.0
"""A reference that half of the cores need longer for is computed on the device."""
_REFERENCE_WAIT = 25.0
"""After which a cell goes on without it, s."""


@dataclass(frozen=True)
class Pace:
    """How often a step is timed."""

    rounds: int = 5
    visit_seconds: float = 0.15
    make_seconds: float = 60.0
    """After which making a form counts as hanging."""


def measure(asked: Asked) -> Iterator[dict[str, Any]]:
    """The eager step and the kernel, both also replayed as CUDA graphs, at every size on every input."""
    sizes, inputs = (SMALL["sizes"], SMALL["inputs"]) if asked.rehearsal else (SIZES, INPUTS)
    pace = Pace(rounds=2, visit_seconds=0.0) if asked.rehearsal else Pace()
    cells = [(float(size), str(name)) for size in sizes for name in inputs]
    yield from _table(asked, cells, forms=("eager", "graph", "kernel", "replay"), pace=pace)


def measure_compiled(asked: Asked) -> Iterator[dict[str, Any]]:
    """The step through inductor beside the eager one, once: its compilation takes minutes."""
    if asked.rehearsal:
        yield {SAY: "on a CPU the traced step runs as it is, since inductor would take minutes"}
    cells = [(3e3, "eth16")] if asked.rehearsal else [(1e5, "mol27x8")]
    pace = Pace(rounds=2, visit_seconds=0.0) if asked.rehearsal else Pace(make_seconds=600.0)
    yield from _table(asked, cells, forms=("eager", "compiled"), pace=pace)


def _table(
    asked: Asked, cells: Sequence[tuple[float, str]], *, forms: Sequence[Form], pace: Pace
) -> Iterator[dict[str, Any]]:
    assert set(forms) <= set(FORMS)
    with ExitStack() as stack:
        stations = {name: stack.enter_context(Station(name, asked)) for name in (*forms, "reference")}
        if not asked.rehearsal:
            for station in stations.values():  # their imports take seconds
                station.start()
        peak = _peak(asked)
        yield peak
        longest = 0.0
        for size, name in cells:
            before = asked.left()
            if before < 1.2 * longest:
                yield {"input": name, "size": size, "form": "all", "skipped": TIME_UP}
                continue
            yield from _Cell(asked, size, name, stations, pace).rows(forms, peak["flops_per_second"])
            longest = max(longest, before - asked.left())


def _peak(asked: Asked) -> dict[str, Any]:
    """Speed of one large matrix product in float32 (TF32 off); 0 where it failed."""
    with Station("gemm", asked) as station:
        try:
            made = station.ask(
                within=60,
                do="make",
                target="sapis_lab.bench.worker:GemmJob",
                arguments={"device": asked.device},
            )
            station.ask(within=60, do="time", action="large", n=3)
            seconds = station.ask(within=60, do="time", action="large", n=7)["seconds"]
        except WorkerFailed as failure:
            return {SAY: f"the large matrix product failed: {failure}", "flops_per_second": 0.0}
    facts = made["facts"]
    speed = facts["flops"]["large"] / statistics.median(seconds)
    text = f"{speed / 1e12:.3g} TFLOP/s: a float32 matrix product {facts['large']}, TF32 off"
    meaning = (
        "peak: FLOPs of a step over its time over that speed; forces: RMS of the difference to float64 over "
        "their RMS; grads: largest difference over the largest entry; GB: of the allocator, on a CPU of the "
        "process"
    )
    return {SAY: f"{text}; {meaning}", "flops_per_second": speed, "shape": facts["large"]}


class _Cell:
    """One size on one input, in all forms."""

    def __init__(
        self, asked: Asked, size: float, name: str, stations: Mapping[str, Station], pace: Pace
    ) -> None:
        self.asked, self.size, self.name, self.stations, self.pace = asked, size, name, stations, pace
        data, config = make_input(name), model_config(MODEL)
        self.model = sized_model(MODEL, config, size, data.elements)
        sized = config.at_size(size, n_species=len(data.elements))
        graph = data.batch(layout=sized.layout).graph
        matmul = sized.flops(
            n_atoms=getattr(graph, "n_nodes", len(data.species)),
            n_pairs=graph.n_pairs,
            n_species=len(data.elements),
        ).matmul
        flops, most = 6 * matmul, max(1, n_cores() // 2)
        threads = min(most, 1 + int(flops / _CPU_SPEED))
        fits = flops < _REFERENCE_SECONDS * _CPU_SPEED * most
        self.reference_device = "cpu" if fits else asked.device
        self.reference_file = Path(asked.folder) / f"{name}-{size:g}.npz"
        self.reference = {
            "model": self.model,
            "input": name,
            "device": self.reference_device,
            "threads": threads,
            "file": str(self.reference_file),
        }

    def rows(self, forms: Sequence[Form], peak: float) -> Iterator[dict[str, Any]]:
        """A row for every form."""
        rows: dict[Form, dict[str, Any]] = {
            form: {"input": self.name, "size": self.size, "form": form} for form in forms
        }
        flops, reference_error = self._make(rows)
        ready = [form for form, row in rows.items() if "facts" in row]
        seconds = self._rounds(ready, rows)
        for form, row in rows.items():
            facts = row.pop("facts", {})
            row |= {key: facts.get(key) for key in ("n_params", "n_atoms", "n_pairs", "kernel")}
            if not ("error" in row or "absent" in row):
                low, median, high = quartiles(seconds[form])
                row |= {"n": len(seconds[form]), "seconds": median, "seconds_q25": low, "seconds_q75": high}
                row |= {"atoms_per_second": facts["n_atoms"] / median, "flops": flops}
                row["peak_share"] = flops / median / peak if flops and peak else None
                row["reference"] = f"float64 on {self.reference_device}"
                if reference_error:
                    row["note"] = f"no float64 reference: {reference_error}"
            yield row

    def _make(self, rows: dict[Form, dict[str, Any]]) -> tuple[int | None, str | None]:
        """Make all forms and the reference, at the same time where there are cores for it; the FLOPs of a
        step, and what the reference failed with."""
        requests: dict[str, dict[str, Any]] = {}
        for form in rows:
            arguments = {
                "model": self.model,
                "input": self.name,
                "device": self.asked.device,
                "form": form,
            }
            requests[form] = {"do": "make", "target": f"{_HERE}:make_form", "arguments": arguments}
        target = f"{_HERE}:write_reference"
        requests["reference"] = {"do": "call", "target": target, "arguments": self.reference}
        failures: dict[str, str] = {}
        flops: int | None = None
        together = not self.asked.rehearsal
        for group in [list(requests)] if together else [[name] for name in requests]:
            for name in group:
                try:
                    self.stations[name].send(**requests[name])
                except WorkerFailed as failure:
                    failures[name] = str(failure)
            for name in [name for name in group if name not in failures]:
                try:
                    wait = _REFERENCE_WAIT if name == "reference" else self.pace.make_seconds
                    made = self.stations[name].read(wait)
                except WorkerFailed as failure:
                    failures[name] = str(failure)
                    continue
                if name == "reference":
                    flops = made["flops"]
                else:
                    rows[name] |= made  # type: ignore[index]
        reference_error = failures.pop("reference", None)
        for name, text in failures.items():
            rows[name]["error"] = text  # type: ignore[index]
        return flops, reference_error

    def _rounds(self, ready: Sequence[Form], rows: dict[Form, dict[str, Any]]) -> dict[Form, list[float]]:
        """Seconds of single steps by form; agreement and memory go into the rows."""
        seconds: dict[Form, list[float]] = {form: [] for form in ready}
        calls = dict.fromkeys(ready, 1)

        def attempt(form: Form, **request: Any) -> dict[str, Any]:
            if "error" in rows[form]:
                return {}
            try:
                return self.stations[form].ask(within=30.0, **request)
            except WorkerFailed as failure:
                rows[form]["error"] = str(failure)
                return {}

        for form in ready:
            if self.reference_file.is_file():
                arguments = {"file": str(self.reference_file)}
                rows[form] |= attempt(form, do="method", name="agreement", arguments=arguments)
            if warm := attempt(form, do="time", action="train", n=2):
                wall = max(min(warm["wall"]), 1e-9)
                calls[form] = max(1, min(MOST_CALLS, round(self.pace.visit_seconds / wall)))
        for k in range(self.pace.rounds):
            for form in ready[:: 1 if k % 2 == 0 else -1]:
                found = attempt(form, do="time", action="train", n=calls[form])
                if found:
                    seconds[form] += found["seconds"]
                    rows[form]["peak_bytes"] = found["peak_bytes"]
        for form in ready:
            rows[form] |= attempt(form, do="method", name="memory", arguments={})
        return seconds
