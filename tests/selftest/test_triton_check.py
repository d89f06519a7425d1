"""`sapis selftest triton` says where it ran, fails when something differs, and what it needs."""

from __future__ import annotations

import importlib.util
import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

from sapis_lab.selftest import triton_form
from sapis_lab.selftest.triton_form import Differences, run_triton, where

CPU = torch.device("cpu")


@pytest.mark.long
def test_it_runs_under_the_interpreter_and_says_so(
    sapis: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    pytest.importorskip("triton", reason="Triton is not installed: the extra `gpu`")
    file = tmp_path / "triton.json"
    done = sapis("selftest", "triton", "--lmax", "1", "--json", str(file), TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("under Triton's interpreter on the CPU, not on a device") == 2
    found = json.loads(file.read_text())
    assert found["device"] == "cpu" and len(found["rows"]) == 2
    assert 0 < found["largest"]["gradients"] < 1e-10


@pytest.mark.parametrize(("gradients", "status"), [(1e-12, 0), (1e-9, 1)])
def test_a_difference_is_a_failure(gradients: float, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_form, "where", lambda: (CPU, "here"))
    monkeypatch.setattr(triton_form, "differences", lambda *_, **__: Differences(1e-15, 2e-15, gradients))
    screen, saved = io.StringIO(), []
    console = Console(file=screen, width=200)
    assert run_triton([1, 2], ["float64"], save=saved.append, console=console) == status
    assert f"gradients {gradients:.1e} (here)" in screen.getvalue()
    assert saved[0]["largest"]["gradients"] == gradients and len(saved[0]["rows"]) == 4


def test_it_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(ValueError, match="no CUDA device; TRITON_INTERPRET=1 sapis selftest triton"):
        where()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="Triton is not installed"):
        where()


def test_an_unknown_precision_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="precisions float16: wanted float32 or float64"):
        run_triton([1], ["float16"], save=lambda _: None, console=Console())
