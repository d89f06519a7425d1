"""Plans: exact counts, costs that add up, times from records where there are any."""

from __future__ import annotations

import io
import platform
from dataclasses import replace

import pandas as pd
import pytest
import torch
from rich.console import Console

from sapis_lab.accounting import INFERENCE_FACTOR, STEP_FACTOR
from sapis_lab.sweep.plan import makespan
from sapis_lab.sweep.plan_screen import print_plan
from sapis_lab.sweep.planned_study import plan_study
from sapis_lab.sweep.request import Request
from sapis_lab.sweep.words import duration, size

REQUEST = Request(
    "quickstart",
    settings=(
        "models=[transformer]",
        "lattice.n_params=[3e3,1e4]",
        "lattice.n_frames=[50,400]",
        "run.device=cpu",
    ),
    workers=2,
)


def test_nothing_is_written(project):
    plan_study(REQUEST)
    assert not (project / "results").exists() and not (project / ".sapis").exists()


def test_flops_follow_the_definition(project):
    job = plan_study(REQUEST)
    cost, model = job.plan.costs[0], job.points[0].config.model
    # a block has slots for all 9 x 9 pairs
    forward = model.flops(n_atoms=8 * 9, n_pairs=8 * 81, n_species=3).matmul
    assert cost.flops_step == STEP_FACTOR * forward
    assert cost.flops_train == cost.flops_step * 500
    assert cost.flops_inference == pytest.approx(INFERENCE_FACTOR * forward / 8)
    assert cost.planned.n_params == model.n_params(n_species=3)


def test_the_disk_of_a_point_holds_what_its_optimiser_keeps(project):
    adam, soap = (
        plan_study(replace(REQUEST, settings=(*REQUEST.settings, f"train.optimizer={{kind: {kind}}}")))
        for kind in ("adamw", "soap")
    )
    for before, after, point in zip(adam.plan.costs, soap.plan.costs, soap.points, strict=True):
        n, train = before.planned.n_params, point.config.train
        # the average and the weights twice, then two moments of Adam
        assert before.disk == 4 * 5 * n + 60_000
        model = point.config.model.build(species=(1, 6, 8), mean_neighbors=8.0, seed=0)
        optimizer = train.optimizer.build(model.parameters(), learning_rate=0.1, train=train)
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()
        kept = sum(v.numel() for state in optimizer.state.values() for k, v in state.items() if k != "step")
        assert after.disk - before.disk == 4 * (kept - 2 * n)


def test_times_come_from_records_of_the_same_family_on_this_host(project):
    before = plan_study(REQUEST).plan
    assert before.measured == set()
    folder = project / "results/earlier"
    folder.mkdir(parents=True)
    rows = [
        {
            "flops_per_step": f,
            "seconds_train": 500 * (0.5 + 1e-7 * f),
            "seconds_total": 500 * (0.5 + 1e-7 * f) + 7,
        }
        for f in (1e6, 1e7, 3e7)
    ]
    runs = pd.DataFrame(rows).assign(
        family="transformer", status="done", host=platform.node(), device="cpu", steps=500
    )
    runs.to_parquet(folder / "runs.parquet")
    plan = plan_study(REQUEST).plan
    assert plan.measured == {"transformer"}
    for cost in plan.costs:
        assert cost.seconds == pytest.approx(7 + 500 * (0.5 + 1e-7 * cost.flops_step))
    runs.assign(host="elsewhere").to_parquet(folder / "runs.parquet")
    assert plan_study(REQUEST).plan.measured == set()


def test_the_screen_names_every_point_in_full(project):
    job = plan_study(REQUEST)
    console = Console(width=160, record=True, file=io.StringIO())
    print_plan(job.plan, console)
    text = console.export_text()
    for cost in job.plan.costs:
        assert cost.planned.id in text and f"{cost.planned.n_params:,}" in text
    assert "total  4 points" in text and "a rough estimate" in text and "…" not in text


def test_the_longest_job_goes_first():
    assert makespan([1, 1, 1, 3], 2) == 3
    assert makespan([2.0, 2.0, 2.0], 1) == 6
    assert makespan([], 2) == 0


def test_numbers_are_written_as_people_read_them():
    assert [duration(s) for s in (8.2, 200, 7500)] == ["8 s", "3 min 20 s", "2 h 05 min"]
    assert [size(b) for b in (512, 61e6)] == ["512 B", "61 MB"]


def test_a_command_can_be_typed_again(monkeypatch):
    request = Request(
        "quickstart", settings=("lattice.n_frames=[50, 140]",), called="quick2", only=("geat-*",)
    )
    monkeypatch.delenv("MAKELEVEL", raising=False)
    assert (
        request.again
        == "sapis study run quickstart --set 'lattice.n_frames=[50, 140]' --as quick2 --only 'geat-*'"
    )
    monkeypatch.setenv("MAKELEVEL", "1")
    assert Request("quickstart").again == "make study NAME=quickstart"
    assert (
        Request("quickstart", retry_failed=True).again == 'make study NAME=quickstart ARGS="--retry-failed"'
    )
