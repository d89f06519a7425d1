"""What is asked of Slurm, and how points are bundled; nothing here needs a Slurm."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from sapis_lab.config import ConfigError, load
from sapis_lab.executors.slurm import SlurmOptions, SlurmQueue, bundled, jobs_of, private_folder
from sapis_lab.jobs.executor import Task
from sapis_lab.sweep.study import RunOptions


def options(**values: object) -> SlurmOptions:
    return load(SlurmOptions, values, source="s.yaml")


def test_short_points_are_bundled_and_long_ones_stay_alone():
    expected = {"long": 900.0, "longer": 2000.0, **{f"s{k}": 100.0 + k for k in range(12)}}
    bundles = bundled(list(expected), expected, least=600)
    assert sorted(id for bundle in bundles for id in bundle) == sorted(expected)
    assert bundles[:2] == [["longer"], ["long"]]
    work = [sum(expected[id] for id in bundle) for bundle in bundles]
    assert work == sorted(work, reverse=True) and min(work) >= 600
    assert max(work[2:]) - min(work[2:]) < 112
    assert all(
        [expected[id] for id in b] == sorted((expected[id] for id in b), reverse=True) for b in bundles
    )


def test_without_a_wanted_length_every_point_is_a_job():
    assert bundled(["a", "b"], {"a": 1.0, "b": 2.0}, least=0) == [["b"], ["a"]]


def test_little_work_is_one_job():
    assert bundled(["a", "b"], {"a": 1.0, "b": 2.0}, least=600) == [["b", "a"]]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"array": "0-3"}, "--array is set by the program"),
        ({"output": "/tmp/x"}, "--output is set by the program"),
        ({"mail-user": "a@b\n#SBATCH --wrap=evil"}, "should match pattern"),
        ({"x y": 1}, "should match pattern"),
        ({"exclusive": False}, "leave it out"),
    ],
)
def test_flags_that_cannot_be_passed_on_are_refused(flags, told):
    with pytest.raises(ConfigError, match=told):
        options(flags=flags)


@pytest.mark.parametrize("field", ["partition", "account", "qos", "constraint"])
def test_a_value_cannot_begin_another_line(field):
    with pytest.raises(ConfigError, match=f"{field}: string should match pattern"):
        options(**{field: "main\nrm -rf /"})


def test_no_value_reaches_a_shell(tmp_path, monkeypatch):
    """The batch file is run by bash with every program but `srun` and the marker out of reach."""
    pytest.importorskip("submitit")
    for program in ("srun", "sbatch", "squeue", "scontrol"):
        path = tmp_path / "bin" / program
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\nexit 0\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    import submitit

    evil = f"x'; touch {tmp_path}/owned; $(touch {tmp_path}/owned) `touch {tmp_path}/owned` \" #"
    folder = tmp_path / "it's $(touch owned)"
    asked = options(
        partition=evil,
        account=evil,
        qos=evil,
        constraint=evil,
        flags={"comment": evil, "exclusive": True, "nice": 5},
    )
    executor = submitit.SlurmExecutor(folder=folder)
    executor.update_parameters(job_name="sapis-x", **SlurmQueue(folder, asked, Task("m:f"))._parameters())
    script = tmp_path / "job.sh"
    script.write_text(executor._make_submission_file_text("true", "uid"))
    subprocess.run(["/bin/bash", str(script)], check=True, cwd=tmp_path)
    assert not (tmp_path / "owned").exists()
    text = script.read_text()
    assert "#SBATCH --exclusive\n" in text and "#SBATCH --nice=5\n" in text and "#SBATCH --requeue\n" in text


def test_a_machine_without_slurm_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        ConfigError,
        match="'slurm' wants sbatch, squeue, scontrol, srun, which this machine does not have; use local",
    ):
        SlurmQueue(tmp_path, SlurmOptions(), Task("m:f"))


def test_a_study_that_was_never_submitted_asks_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert jobs_of(tmp_path) == {}


def test_the_executor_is_an_option_of_running():
    run = load(
        RunOptions,
        {"executor": "slurm", "devices": 2, "slurm": {"time": 60, "gpus": 2, "flags": {"exclusive": True}}},
        source="s",
    )
    assert run.slurm.flags == {"exclusive": True} and run.devices == 2
    with pytest.raises(ConfigError, match="did you mean 'time'"):
        load(RunOptions, {"slurm": {"times": 60}}, source="s")


# ------------------------------------------------------------------------------------------------- job folder


def test_the_folder_whose_pickles_jobs_run_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    old = os.umask(0o002)
    try:
        made = private_folder(tmp_path / "results" / "x" / "slurm")
    finally:
        os.umask(old)
    assert made.stat().st_mode & 0o777 == 0o700
    (tmp_path / "results" / "x").chmod(0o755)
    assert private_folder(made) == made


@pytest.mark.parametrize(
    ("mode", "above", "message"),
    [
        (0o770, 0o755, "others may write to it"),
        (0o702, 0o755, "others may write to it"),
        (0o700, 0o777, "everybody may write to"),
    ],
)
def test_a_folder_that_others_may_write_to_is_refused(
    tmp_path: Path, mode: int, above: int, message: str
) -> None:
    folder = tmp_path / "x" / "slurm"
    folder.mkdir(parents=True)
    folder.chmod(mode)
    folder.parent.chmod(above)
    with pytest.raises(
        ConfigError, match=f"slurm: Slurm's jobs run what lies there, and {message}.*chmod go-w"
    ):
        private_folder(folder)


def test_a_link_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "slurm").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="it is no folder; remove it"):
        private_folder(tmp_path / "slurm")
