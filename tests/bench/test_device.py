"""`sapis bench device`: a part that goes wrong costs no other, and the parts measure what they say."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from sapis_lab.bench.device import (
    dynamics,
    forms,
    precision,
    ranks,
    run,
    sharing,
    station,
    steps,
    suite,
    worker,
)
from sapis_lab.bench.device.forms import FormJob, make_form, trained, write_reference
from sapis_lab.bench.device.part import Asked
from sapis_lab.bench.device.parts import PARTS, Column, Part, milliseconds, number, word
from sapis_lab.bench.device.station import MOST_DEATHS, Station
from sapis_lab.bench.device.worker import Absent
from sapis_lab.bench.environments import MAIN, command
from sapis_lab.bench.inputs import THERMAL, make_input, silicon
from sapis_lab.bench.measure import WorkerDied, WorkerFailed
from sapis_lab.bench.step import model_config
from sapis_lab.bench.worker import n_flops, n_operations
from sapis_lab.config import ConfigError, dump
from sapis_lab.kernels.geat import GeatKernel

SMALL = dump(model_config("geat").at_size(2e3, n_species=3))
MACHINE = {
    "wrong": None,
    "cuda": False,
    "device": "cpu",
    "device_name": "Stub 9000 (TM)",
    "driver": None,
    "torch": "0",
    "torch_cuda": None,
    "triton": None,
    "n_devices": 0,
}


def part(name: str, share: float = 1.0) -> Part:
    keys, values = (Column("what", word("what"), True),), (Column("value", number("value", ".1f")),)
    return Part(name, f"Part {name}", f"device_parts:{name}", share, keys, values)


def asked(tmp_path: Path, left: float = 1e6) -> Asked:
    return Asked("cpu", True, time.time() + left, str(tmp_path))


@pytest.fixture
def measured(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, dict[str, Any], str]]:
    """Runs parts of device_parts on a machine that is made up; the status, the results and what was
    printed."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def measure(
        *parts: Part, seconds: float = 60.0, out: Path | None = tmp_path / "out", **machine: Any
    ) -> tuple[int, dict[str, Any], str]:
        monkeypatch.setattr(run, "ask_machine", lambda device, scratch: {**MACHINE, **machine})
        console = Console(width=80, record=True, file=io.StringIO())
        status = run.run_device(
            name=None, seconds=seconds, out=out, device="auto", parts=parts, console=console
        )
        text = console.export_text()
        folder = out or Path(text.split("written to ")[1].strip())
        return status, json.loads((folder / "device.json").read_text()), text

    return measure


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


# ------------------------------------------------------------------------------------------- parts that fail


def test_a_part_that_goes_wrong_costs_no_other_and_keeps_its_rows(measured):
    parts = [part("good"), part("raises"), part("dies"), part("half"), part("hangs", 0.2), part("told", 2.0)]
    status, results, text = measured(*parts, seconds=30.0)
    found = results["parts"]
    assert status == 1
    assert {name: one["status"] for name, one in found.items()} == {
        "good": "done",
        "raises": "failed",
        "dies": "failed",
        "half": "failed",
        "hangs": "stopped",
        "told": "done",
    }
    assert [row["value"] for name in ("good", "raises", "dies", "half") for row in found[name]["rows"]] == [
        1.5,
        2.5,
        3.5,
        4.5,
    ]
    assert found["good"]["facts"] == [{"say": "one number", "number": 1}]
    assert "MemoryError: no room for 7 GB" in found["raises"]["reason"]
    assert "signal 11" in found["dies"]["reason"] and "killed" in found["hangs"]["reason"]
    assert not is_running(int(found["hangs"]["rows"][0]["value"])), "what a part has started ends with it"
    assert all(words in text for words in ("one number", "no room for 7 GB", "signal 11", "and killed"))


def test_results_are_written_after_every_part(measured, monkeypatch):
    written, write = [], run.write_results

    def noted(folder: Path, results: dict[str, Any], parts: Any) -> None:
        write(folder, results, parts)
        written.append(list(json.loads((folder / "device.json").read_text())["parts"]))

    monkeypatch.setattr(run, "write_results", noted)
    measured(part("good"), part("raises"), part("told"))
    assert written == [["good"], ["good", "raises"], ["good", "raises", "told"]]


def test_a_part_for_which_no_time_is_left_is_skipped_and_said_to_be(measured):
    status, results, text = measured(part("good"), seconds=2.0)
    assert status == 0 and results["parts"]["good"]["status"] == "skipped"
    assert "no time was left" in text


def test_a_row_that_failed_fails_the_command_and_one_that_is_absent_does_not(measured, tmp_path):
    status, results, text = measured(part("row_fails"))
    assert status == 1
    page = (tmp_path / "out" / "device.md").read_text()
    for shown in (text, page):
        assert "failed (x): OutOfMemoryError: 1 GB" in shown and "none (y): there is none" in shown
    assert "| z | 5.5 |" in page
    rows = results["parts"]["row_fails"]["rows"]
    assert not run.failed({"status": "done", "rows": rows[1:]})


def test_a_table_that_cannot_be_shown_loses_no_numbers(measured):
    odd = Part("good", "Odd", "device_parts:good", 1.0, (Column("n", lambda row: row["no"]),), ())
    status, results, text = measured(odd, part("told"))
    assert "no table (KeyError" in text and results["parts"]["good"]["rows"] == [{"what": "a", "value": 1.5}]
    assert results["parts"]["told"]["status"] == "done"


# ------------------------------------------------------------------------------------- where results belong


def test_a_rehearsal_says_so_first_and_leaves_the_results_of_devices_alone(measured, project):
    _, results, text = measured(part("told"), out=None)
    assert text.splitlines()[0] == run.REHEARSAL and results["rehearsal"] is True
    assert results["parts"]["told"]["rows"] == [{"what": "cpu", "value": 1.0}]
    assert not (project / "results").exists()


def test_results_of_a_device_go_to_its_name_with_where_they_come_from(measured, project):
    machine = {"cuda": True, "device": "cuda:0", "driver": "570.1", "memory_bytes": 2**37, "triton": "3.9"}
    place = project / "results" / "device" / "stub-9000-tm"
    status, results, text = measured(part("told"), out=None, **machine)
    assert status == 0 and (place / "device.json").exists() and "REHEARSAL" not in text
    page = (place / "device.md").read_text()
    for shown in (text, page):
        for words in ("Stub 9000 (TM), 128 GiB, driver 570.1", "triton 3.9", "commit"):
            assert words in shown
    assert results["rehearsal"] is False and results["started"] and "dirty" in results
    assert results["parts"]["told"]["rows"] == [{"what": "cuda:0", "value": 0.0}]


def test_a_copy_without_history_takes_the_commit_from_the_environment(measured, monkeypatch):
    monkeypatch.setattr(run, "current_commit", lambda: (None, None))
    monkeypatch.setenv("SAPIS_COMMIT", "abc123")
    monkeypatch.setenv("SAPIS_DIRTY", "1")
    _, results, text = measured(part("good"))
    assert (results["commit"], results["dirty"]) == ("abc123", True)
    assert "commit abc123 with changes" in text


def test_a_device_that_is_not_there_is_refused(tmp_path):
    assert "sees" in run.ask_machine("cuda:99", tmp_path)["wrong"]
    with pytest.raises(ConfigError, match="'gpu': wanted auto, cpu, cuda or cuda:K"):
        run.ask_machine("gpu", tmp_path)


def test_parts_are_chosen_by_name_in_their_order():
    assert [p.name for p in run.chosen(["ranks", "steps"])] == ["steps", "ranks"]
    assert run.chosen([]) == PARTS
    with pytest.raises(ConfigError, match="no part 'step'; there are steps, dynamics"):
        run.chosen(["step"])


def test_tables_fit_a_terminal_of_80_columns():
    numbers = {
        "n_params": 10_012_345,
        "size": 1e7,
        "seconds": 12.345,
        "seconds_median": 12.345,
        "n_tests": 120,
    }
    numbers |= {"atoms_per_second": 1_234_567.0, "reserved_bytes": 141e9, "peak_share": 0.987}
    numbers |= {"force_error": 1e-7, "gradient_error": 1e-7, "largest_force_error": 1e-7, "kernel": "Triton"}
    numbers |= {"list_seconds": 0.0123, "model_seconds": 0.0123, "ns_per_day": 12.3, "published_ms": 14.4}
    numbers |= {"passed": 100, "failed": 10, "skipped": 10, "not_reached": 100, "n_atoms": 1000}
    numbers |= {"steps_per_second": 12345.6, "gain": 10.0, "n_models": 8, "n_ranks": 2, "sum_bytes": 4e7}
    numbers |= {"sum_seconds": 0.123, "gradient_difference": 1e-7}
    words = {
        "input": "silicon1000",
        "form": "replay",
        "by": "PyTorch",
        "setting": "float32",
        "backend": "nccl",
    }
    words |= {"file": "tests/training/test_run_point.py"}
    for one in PARTS:
        console = Console(width=200, record=True, file=io.StringIO())
        console.print(one.table([{**numbers, **words}]))
        lines = console.export_text().splitlines()
        assert max(map(len, lines)) <= 80, one.name
        assert "-" not in one.cells({**numbers, **words}), f"{one.name}: every column has its number"


def test_sizes_have_three_figures():
    sizes = [{"size": 3e3, "n_params": n} for n in (2779, 99_960, 999_700, 10_012_345)]
    steps_part = PARTS[0]
    assert [steps_part.keys[1].cell(row) for row in sizes] == ["2.78k", "100k", "1.00M", "10.0M"]


def test_times_have_three_figures():
    assert [milliseconds("t")({"t": t}) for t in (0.0001234, 0.01234, 1.234)] == ["0.123", "12.3", "1,234"]


# ------------------------------------------------------------------------------------------------- processes

STUB = """
import json, sys, time
print(json.dumps({"ok": True}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    if request["do"] == "die":
        sys.exit("no more")
    if request["do"] == "hang":
        time.sleep(600)
    print(json.dumps({"ok": request["do"] != "fault", "error": "ValueError: no", "n": 1}), flush=True)
"""


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Station:
    monkeypatch.setattr(station, "command", lambda *_: [sys.executable, "-c", STUB])
    return Station("stub", asked(tmp_path, left=60.0))


def test_a_station_replaces_a_process_that_died_and_one_that_hangs(stub):
    with stub:
        assert stub.ask(within=20, do="x")["n"] == 1
        with pytest.raises(WorkerDied, match="status 1: no more"):
            stub.ask(within=20, do="die")
        assert stub.ask(within=20, do="x")["n"] == 1
        with pytest.raises(WorkerDied, match="no answer within 1 s"):
            stub.ask(within=1, do="hang")
        with pytest.raises(WorkerFailed, match="ValueError: no"):
            stub.ask(within=20, do="fault")
        assert stub.ask(within=20, do="x")["n"] == 1, "a fault that is told leaves the process as it was"


def test_a_station_gives_up_a_process_that_only_dies(stub):
    with stub:
        for _ in range(MOST_DEATHS):
            with pytest.raises(WorkerDied):
                stub.ask(within=20, do="die")
        with pytest.raises(WorkerFailed, match="not tried, after its process died 3 times.*no more"):
            stub.ask(within=20, do="x")


def test_a_worker_ends_when_its_device_has_lost_its_context(monkeypatch):
    def lost() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    ends: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lost)
    monkeypatch.setattr(os, "_exit", ends.append)
    worker._refuse_dead_context()
    assert ends == [1]


# ----------------------------------------------------------------------------------------------------- steps


@pytest.fixture
def reference(tmp_path: Path) -> tuple[str, int]:
    file = str(tmp_path / "reference.npz")
    found = write_reference(model=SMALL, input="eth16", device="cpu", threads=1, file=file)
    return file, found["flops"]


@pytest.mark.parametrize("form", ["eager", "kernel"])
def test_forms_have_the_forces_and_gradients_of_float64(reference, form):
    job = make_form(model=SMALL, input="eth16", device="cpu", form=form)
    if isinstance(job, Absent):
        pytest.skip(job.reason)
    file, flops = reference
    found = job.agreement(file=file)
    assert 0 < found["force_error"] < 1e-5 and 0 < found["gradient_error"] < 1e-5
    job.forces[3, 1] += 0.01 * np.abs(job.forces).max()
    job.gradient[7] += 0.01 * np.abs(job.gradient).max()
    seen = job.agreement(file=file)
    assert seen["force_error"] > 1e-4 and seen["gradient_error"] > 5e-3
    assert n_flops(job, "train") == flops
    before = [p.detach().clone() for p in job.parameters]
    job.train()
    assert not all(torch.equal(p, q) for p, q in zip(job.parameters, before, strict=True))


def test_the_eager_form_is_computed_by_pytorch_alone():
    jobs = [make_form(model=SMALL, input="eth16", device="cpu", form=form) for form in ("eager", "kernel")]
    if isinstance(jobs[1], Absent):
        pytest.skip(jobs[1].reason)
    eager, kernel = (n_operations(job, "train") for job in jobs)
    assert eager > 3 * kernel


def test_a_form_that_is_not_here_says_why():
    graph = make_form(model=SMALL, input="eth16", device="cpu", form="graph")
    assert graph == Absent("CUDA graphs want a CUDA device")
    replay = make_form(model=SMALL, input="eth16", device="cpu", form="replay")
    assert replay == graph
    large = dump(model_config("geat:lmax=4").at_size(5e3, n_species=3))
    kernel = make_form(model=large, input="eth16", device="cpu", form="kernel")
    assert isinstance(kernel, Absent) and kernel.reason


def test_a_kernel_is_replayed_where_it_says_that_it_can_be_traced(monkeypatch):
    if (
        trained(SMALL, make_input("eth16"), device=torch.device("cpu")).model.kernel(torch.device("cpu"))
        != "C++"
    ):
        pytest.skip("no kernel here")
    why = [forms._why_no_kernel(SMALL, "eth16", torch.device("cpu"), traced=t) for t in (False, True)]
    assert why == [None, "C++ cannot be traced"]
    monkeypatch.setattr(GeatKernel, "traceable", True)
    assert forms._why_no_kernel(SMALL, "eth16", torch.device("cpu"), traced=True) is None


def test_kernels_on_demand_are_demanded_on_a_device_with_triton(monkeypatch):
    monkeypatch.delenv("SAPIS_KERNELS", raising=False)
    monkeypatch.setattr(station.importlib.util, "find_spec", lambda name: object())
    assert station.environment("cuda:0")["SAPIS_KERNELS"] == "require"
    assert "SAPIS_KERNELS" not in station.environment("cpu")
    monkeypatch.setenv("SAPIS_KERNELS", "off")
    assert station.environment("cuda:0")["SAPIS_KERNELS"] == "off"
    monkeypatch.setattr(station.importlib.util, "find_spec", lambda name: None)
    assert "SAPIS_KERNELS" not in station.environment("cuda:0")


def test_operations_of_the_model_itself_count_as_a_kernel(monkeypatch):
    real = forms.predict

    def faster(model: Any, batch: Any, **options: Any) -> Any:
        if "off by reference_forms" not in model.why_no_kernel(batch.positions.device):
            torch.zeros(1)
        return real(model, batch, **options)

    monkeypatch.setattr(forms, "predict", faster)
    large = dump(model_config("geat:lmax=4").at_size(5e3, n_species=3))
    assert isinstance(make_form(model=large, input="eth16", device="cpu", form="kernel"), FormJob)


class FakeStation:
    """Answers as a form does whose step takes as long as `seconds` says."""

    seconds = {"eager": 0.5, "graph": 0.25, "kernel": 0.125, "replay": 0.0625}
    fails: dict[str, str] = {}
    order: list[str] = []

    def __init__(self, name: str, asked: Asked) -> None:
        self.name, self.request = name, {}

    def __enter__(self) -> FakeStation:
        return self

    def __exit__(self, *exception: object) -> None:
        return

    def start(self) -> None:
        return

    def send(self, **request: Any) -> None:
        self.request = request

    def read(self, within: float) -> dict[str, Any]:
        do = self.request["do"]
        if self.fails.get(self.name) == do:
            raise WorkerFailed(f"OutOfMemoryError in {do}")
        if self.name == "reference":
            Path(self.request["arguments"]["file"]).touch()
            return {"flops": 4e9}
        if self.name == "gemm":
            facts = {"flops": {"large": 8e9}, "large": "1x1"}
            return {"facts": facts} if do == "make" else {"seconds": [0.5, 0.5, 0.5]}
        if do == "make":
            return {"facts": {"n_params": 9, "n_atoms": 100, "n_pairs": 5, "kernel": None}}
        if do == "method":
            return {"agreement": {"force_error": 1e-6}, "memory": {"reserved_bytes": 7}}[self.request["name"]]
        self.order.append(self.name)
        n, one = self.request["n"], self.seconds[self.name]
        return {"seconds": [one] * n, "wall": [one] * n, "peak_bytes": 5}

    def ask(self, *, within: float, **request: Any) -> dict[str, Any]:
        self.send(**request)
        return self.read(within)


def test_numbers_of_the_table_of_steps_follow_from_the_times(tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "Station", FakeStation)
    monkeypatch.setattr(FakeStation, "order", [])
    monkeypatch.setattr(FakeStation, "fails", {"graph": "time"})
    peak, *rows = steps.measure(asked(tmp_path))
    assert peak["flops_per_second"] == 16e9
    assert len(rows) == 8
    eager, graph, kernel, replay = rows[:4]
    assert [row["form"] for row in rows[:4]] == ["eager", "graph", "kernel", "replay"]
    assert replay["seconds"] == 0.0625
    assert (eager["seconds"], eager["atoms_per_second"], eager["peak_share"]) == (0.5, 200, 0.5)
    assert (kernel["seconds"], kernel["peak_share"]) == (0.125, 2.0), "FLOPs are those of the PyTorch form"
    assert graph["error"] == "OutOfMemoryError in time" and "seconds" not in graph
    assert eager["force_error"] == 1e-6 and eager["reserved_bytes"] == 7
    timed = FakeStation.order[: len(FakeStation.order) // 2]
    there = ["eager", "kernel", "replay"]
    assert timed == [*there, *there, *there[::-1]], "a first call each, then forwards and backwards"


def test_cells_for_which_no_time_is_left_are_rows_that_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "Station", FakeStation)
    _, *rows = steps.measure(asked(tmp_path, left=-1.0))
    assert [row.get("skipped") for row in rows] == ["the time of this part was up"] * 2


# ------------------------------------------------------------------------------------------------ other parts


def test_crystals_of_silicon_are_diamond():
    for n_atoms, (repeats, unit) in dynamics.CRYSTALS.items():
        x, cell = silicon(repeats, unit)
        assert len(x) == n_atoms
        assert abs(np.linalg.det(cell)) / n_atoms == pytest.approx(5.431**3 / 8)
        fractions = (x[:, None] - x[None]) @ np.linalg.inv(cell)
        r = np.linalg.norm((fractions - np.round(fractions)) @ cell, axis=-1)
        near = (r > 1e-6) & (r < 2.6)
        assert (near.sum(1) == 4).all() and r[near] == pytest.approx(5.431 * 3**0.5 / 4)
    data = make_input("silicon1000")
    assert (
        data.n_edges == 28_000
        and data.periodic
        and 0.5 * THERMAL < np.std(data.positions - silicon((5, 5, 5))[0]) < 2 * THERMAL
    )


def test_dynamics_keeps_the_crystal_and_names_what_computes_it():
    potential, structure = dynamics.potential_of(64, 2e3, torch.device("cpu"))
    forces = potential.predict(structure).forces
    assert np.sqrt(np.mean(forces**2)) == pytest.approx(dynamics.FORCE, rel=1e-4)
    found = dynamics.of_crystal(n_atoms=64, size=2e3, kernels=True, device="cpu", steps=(1, 2))
    assert found["n"] == 2 and 0 < found["farthest"] < 0.05
    assert found["by"] == potential.model.kernel(torch.device("cpu"))
    assert min(found["seconds"], found["list_seconds"], found["model_seconds"]) > 0
    assert found["ns_per_day"] == pytest.approx(86_400 / found["seconds"] * 1e-6)


def test_published_times_are_those_of_the_speeds():
    assert dynamics.PUBLISHED[1000] == pytest.approx(14.4) and dynamics.PUBLISHED[150] == pytest.approx(
        2.62, abs=0.01
    )


def test_less_precise_products_have_larger_errors():
    rows = precision.errors(model=SMALL, input="eth16", device="cpu", steps=2, repeats=1, threads=1)["rows"]
    of = {row["setting"]: row for row in rows if row["by"] == "PyTorch"}
    assert set(of) == set(precision.SETTINGS) and torch.get_float32_matmul_precision() == "highest"
    assert 0 < of["float32"]["force_error"] < 1e-5 and 0 < of["float32"]["gradient_error"] < 1e-4
    assert of["bf16"]["force_error"] > 100 * of["float32"]["force_error"]


def test_gradients_of_shares_add_up_to_that_of_all_frames():
    whole, device = make_input("eth16"), torch.device("cpu")
    parts = [ranks.share_of(whole, k, 3) for k in range(3)]
    assert sum(len(p.n_atoms) for p in parts) == 16 and sum(len(p.species) for p in parts) == 144
    gradients = []
    for data in (whole, *parts):
        ready = trained(SMALL, data, device=device, dtype=torch.float64, whole=whole)
        ready.objective(ready.batch, ready.counts).backward()
        gradients.append(forms.flat_gradient(ready.model))
    assert forms.gradient_error(sum(gradients[1:]), gradients[0]) < 1e-12


def test_steps_of_processes_side_by_side_add_up():
    class Beside:
        def __init__(self, error: str = "") -> None:
            self.error, self.request, self.n_read = error, {}, 0

        def send(self, **request: Any) -> None:
            self.request = request

        def read(self, within: float) -> dict[str, Any]:
            self.n_read += 1
            if self.error:
                raise WorkerFailed(self.error)
            if self.request["do"] == "make":
                return {"facts": {"n_params": 9, "kernel": None}}
            return {"n": 10, "seconds": 2.0}

    rows = list(sharing._beside([Beside(), Beside(), Beside()], (1, 2, 3), {}, 2.0))  # type: ignore[arg-type]
    assert [(row["n_models"], row["steps_per_second"], row["gain"]) for row in rows] == [
        (1, 5.0, 1.0),
        (2, 10.0, 2.0),
        (3, 15.0, 3.0),
    ]
    others = [Beside("no room"), Beside()]
    (row,) = sharing._beside(others, (1, 2), {}, 2.0)  # type: ignore[arg-type]
    assert row["error"] == "no room" and others[1].n_read == 1, "no answer is left for the next question"


def test_outcomes_of_tests_are_counted_by_file(tmp_path):
    place = tmp_path / "tests" / "kernels"
    place.mkdir(parents=True)
    (tmp_path / "tests" / "test_plain.py").write_text("def test_x(): pass\n")
    mark = f"@pytest.{suite.MARK}\n"
    ok, bad = f"{mark}def test_ok(): pass\n", f"{mark}def test_bad(): assert 1 == 2\n"
    (tmp_path / "tests" / "test_a.py").write_text(f"import pytest\n{ok}{bad}")
    (place / "test_b.py").write_text(f"import pytest\n{mark}def test_no(): pytest.skip('none')\n")
    files = suite.marked_files(tmp_path / "tests")
    assert [path.name for path in files] == ["test_b.py", "test_a.py"]
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu: x\n")
    notes = tmp_path / "notes.jsonl"
    options = ["-q", "-m", "gpu", "-p", "no:cacheprovider", *map(str, files)]
    done = subprocess.run(
        command(MAIN, "device.suite", str(notes), *options), cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stdout + done.stderr
    lines = [json.loads(line) for line in notes.read_text().splitlines()]
    skipped, mixed = suite.rows(lines, collect=False)
    assert (skipped["file"], skipped["skipped"], skipped["passed"]) == ("tests/kernels/test_b.py", 1, 0)
    assert (mixed["passed"], mixed["failed"], mixed["n_tests"]) == (1, 1, 2)
    assert mixed["error"].startswith("test_bad: ") and "error" not in skipped
    (stopped, _) = suite.rows(lines[:3], collect=False)
    assert stopped["not_reached"] == 1 and stopped["note"] == "1 tests not reached in time"


# -------------------------------------------------------------------------------------------- all at once


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_the_rehearsal_goes_through_all_parts(sapis, tmp_path):
    options = ("--device", "cpu", "--seconds", "1200", "--out", str(tmp_path / "out"))
    done = sapis("bench", "device", *options, timeout=1400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[0] == run.REHEARSAL
    written = json.loads((tmp_path / "out" / "device.json").read_text())
    assert written["rehearsal"] and list(written["parts"]) == [p.name for p in PARTS]
    for name, found in written["parts"].items():
        assert found["status"] == "done" and found["rows"], name
        assert not [row for row in found["rows"] if row.get("error") or row.get("skipped")], name
    agreeing = [row for row in written["parts"]["steps"]["rows"] if "seconds" in row]
    assert agreeing and all(row["gradient_error"] < 1e-4 for row in agreeing)
    assert [row["gradient_difference"] < 1e-5 for row in written["parts"]["ranks"]["rows"]] == [True, True]
    assert all(f"## {p.title}" in (tmp_path / "out" / "device.md").read_text() for p in PARTS)
