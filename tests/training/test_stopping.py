"""A point that is asked to stop saves and says so, one that is killed loses nothing: both end in the numbers
of an undisturbed one."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from ranked_points import Launcher, make_point, n_rows, pid_of, wait_until

from sapis_lab.records import read_record
from sapis_lab.training._signals import SIGNALS, StopSignals
from sapis_lab.training.run import Stopped, run_point


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, clusters: Path, cache: Path, launcher: Launcher
) -> dict[int, Path]:
    """The same point, undisturbed, by the number of its ranks."""
    folders = {n: tmp_path_factory.mktemp("undisturbed") / "p" for n in (1, 2)}
    for n, folder in folders.items():
        make_point(folder, clusters)
        assert launcher.run(folder, cache=cache, ranks=n) == 0, (folder / "log.txt").read_text()
    return folders


def assert_same(found: Path, wanted: Path) -> None:
    for file in ("model.safetensors", "metrics.csv"):
        assert (found / file).read_bytes() == (wanted / file).read_bytes(), file
    assert read_record(found).metrics == read_record(wanted).metrics


@pytest.mark.parametrize("n_ranks", [1, 2])
def test_a_point_killed_at_random_steps_ends_in_the_same_bits(
    n_ranks: int, tmp_path: Path, clusters: Path, cache: Path, launcher: Launcher, whole: dict[int, Path]
) -> None:
    folder, rng, resumed = tmp_path / "p", random.Random(n_ranks), []
    make_point(folder, clusters)
    for _ in range(5):
        launcher.start(folder, cache=cache, ranks=n_ranks, checkpoint_seconds=0)
        target = n_rows(folder) + rng.randint(2, 24)
        wait_until(lambda target=target: n_rows(folder) >= target)
        time.sleep(rng.uniform(0, 0.02))  # anywhere between two rows, in a checkpoint too
        os.kill(pid_of(folder, rng.randrange(n_ranks)), signal.SIGKILL)
        assert launcher.wait(folder) == -9
        resumed.append(n_rows(folder))
    assert not (folder / "record.json").exists()
    assert launcher.run(folder, cache=cache, ranks=n_ranks) == 0
    assert_same(folder, whole[n_ranks])
    starts = [
        line for line in (folder / "log.txt").read_text().splitlines() if line.startswith("point p: step ")
    ]
    assert len(starts) == 6 and len(set(starts)) > 3, "it went on, instead of starting over"


@pytest.mark.parametrize(("number", "n_ranks"), [*((s, 1) for s in SIGNALS), (signal.SIGUSR1, 2)])
def test_a_signal_saves_after_the_step_and_exits_75(
    number: int,
    n_ranks: int,
    tmp_path: Path,
    clusters: Path,
    cache: Path,
    launcher: Launcher,
    whole: dict[int, Path],
) -> None:
    folder = tmp_path / "p"
    make_point(folder, clusters)
    launcher.start(folder, cache=cache, ranks=n_ranks)
    wait_until(lambda: n_rows(folder) >= 20)
    os.kill(pid_of(folder, n_ranks - 1), number)  # one rank is enough
    assert launcher.wait(folder) == 75
    step = torch.load(folder / "last.ckpt", weights_only=True)["global_step"]
    assert f"stopped at step {step} of 100, which last.ckpt holds" in (folder / "log.txt").read_text()
    assert step == n_rows(folder) >= 20 and not (folder / "failure.txt").exists()
    if number in (signal.SIGTERM, signal.SIGUSR1):
        assert launcher.run(folder, cache=cache, ranks=n_ranks) == 0
        assert_same(folder, whole[n_ranks])


def test_a_second_interrupt_does_not_wait_for_the_step(tmp_path: Path, launcher: Launcher) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    launcher.start(folder, cache=tmp_path, target="ranked_points:run_deaf")
    for asked in ("0", "1"):
        wait_until(
            lambda asked=asked: (folder / "asked").exists() and (folder / "asked").read_text() == asked
        )
        launcher.signal(folder, signal.SIGINT)
    assert launcher.wait(folder) == 75


def test_a_signal_during_the_scoring_keeps_the_last_step(
    tmp_path: Path, clusters: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sapis_lab.training import run

    for name in ("whole", "stopped"):
        make_point(tmp_path / name, clusters, steps=20)
    run_point(tmp_path / "whole", cache=cache)
    honest = run._scores_at_the_end
    with monkeypatch.context() as patched:
        patched.setattr(
            run,
            "_scores_at_the_end",
            lambda *arguments: (os.kill(os.getpid(), signal.SIGTERM), honest(*arguments))[1],
        )
        with pytest.raises(Stopped, match="between training and record, with step 20 of 20"):
            run_point(tmp_path / "stopped", cache=cache)
    run_point(tmp_path / "stopped", cache=cache)
    assert_same(tmp_path / "stopped", tmp_path / "whole")


def test_handlers_are_given_back() -> None:
    before = [signal.getsignal(s) for s in SIGNALS]
    with StopSignals() as stop:
        assert not stop.asked
        signal.raise_signal(signal.SIGUSR1)
        assert stop.asked == 1
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as a library may do
        stop.hold()
        signal.raise_signal(signal.SIGTERM)
        assert stop.asked == 2
    assert [signal.getsignal(s) for s in SIGNALS] == before


def test_a_stopped_point_ends_a_process_with_75() -> None:
    assert issubclass(Stopped, SystemExit) and Stopped("why").code == 75 and str(Stopped("why")) == "why"
