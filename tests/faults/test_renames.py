"""Processes that are killed at the rename of a file; `sapis selftest renames` does it for every kind of
file."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sapis_lab.selftest import _rename_hook
from sapis_lab.selftest.renames import Plan, kill_at_renames

PROGRAM = """
import os, pathlib, shutil
for k in range(3):
    pathlib.Path(".part").write_text(str(k))
    {rename}
"""


@pytest.fixture
def renaming(tmp_path: Path) -> Callable[..., tuple[int, list[str], list[dict]]]:
    """Runs a program that renames three files in `home` under a hook; its status, the files, the log of the
    hook."""

    def run(rename: str, **order: object) -> tuple[int, list[str], list[dict]]:
        home, hooks, log = tmp_path / "home", tmp_path / "hooks", tmp_path / "log"
        for folder in (home, hooks):
            folder.mkdir(exist_ok=True)
        shutil.copy(_rename_hook.__file__, hooks / "sitecustomize.py")
        steered = json.dumps({"home": str(home), "log": str(log), "kind": None, **order})
        environment = {**os.environ, "PYTHONPATH": f"{hooks}:{tmp_path}", "SAPIS_RENAMES": steered}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM.format(rename=rename)], cwd=home, env=environment, timeout=60
        )
        return (
            done.returncode,
            sorted(p.name for p in home.iterdir()),
            [json.loads(line) for line in log.read_text().splitlines()],
        )

    return run


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("results/a/points/geat-l2-n3.0e3-d12-s0/record.json", "points/*/record.json"),
        ("results/a/records/geat-l2-n3.0e3-d12-s0/record.json", "records/*/record.json"),
        ("results/a/figures/loss.pdf", "figures/*.pdf"),
        ("results/a/tables/laws.tex", "tables/*.tex"),
        ("results/a/study.yaml", "study.yaml"),
        ("a.zip", "a.zip"),
        ("cache/extxyz-580b5ff1ce4b/splits/train-1.npy", "cache/extxyz-*/splits/*.npy"),
        ("cache/extxyz-580b5ff1ce4b/energy.npy", "cache/extxyz-*/*.npy"),
        ("cache/extxyz-580b5ff1ce4b/neighbors-5.0/manifest.json", "cache/extxyz-*/neighbors-#/manifest.json"),
        ("kernels/geat-0123456789abcdef.so", "kernels/geat-*.so"),
        ("../elsewhere", None),
    ],
)
def test_files_that_differ_by_point_store_or_figure_alone_are_of_one_kind(path: str, kind: str | None):
    assert _rename_hook.kind_of(Path(os.path.normpath(Path("/home", path))), Path("/home")) == kind


RENAMES = (
    'os.replace(".part", f"file{k}.json")',
    'os.rename(".part", f"file{k}.json")',
    'pathlib.Path(".part").replace(f"file{k}.json")',
    'pathlib.Path(".part").rename(f"file{k}.json")',
    'shutil.move(".part", f"file{k}.json")',
)


@pytest.mark.parametrize("rename", RENAMES)
def test_every_way_to_rename_is_seen_and_can_be_fatal(rename: str, renaming):
    status, files, log = renaming(rename, kind="file#.json", side="before", number=2)
    assert status == -signal.SIGKILL and files == [".part", "file0.json"]
    assert [line.get("number") for line in log] == [1, 2, None]


def test_after_the_rename_the_file_has_its_name(renaming):
    status, files, _ = renaming(RENAMES[0], kind="file#.json", side="after", number=2)
    assert status == -signal.SIGKILL and files == ["file0.json", "file1.json"]


def test_without_a_kind_nobody_is_killed_and_the_environments_own_hook_runs(renaming, tmp_path: Path):
    (tmp_path / "sitecustomize.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    status, files, log = renaming(RENAMES[0])
    assert status == 0 and files == ["file0.json", "file1.json", "file2.json"] and len(log) == 3
    assert (tmp_path / "ran").exists()


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_study_that_is_killed_at_a_rename_ends_in_the_same_table_and_weights(tmp_path: Path):
    found = kill_at_renames(tmp_path, Plan(kinds=("points/*/record.json", "runs.csv")), say=print)
    assert len(found.cases) == 4 and found.is_same, found
    kinds = {
        "points/*/last.ckpt",
        "points/*/failure.txt",
        "fit.json",
        "report.html",
        "kernels/geat-*.so",
        "renames.zip",
    }
    assert kinds <= set(found.renames)
