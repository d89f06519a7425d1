"""Several ranks train a point as one process would: the same global batches, losses, gradients, clipping,
scores and files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ranked_points import Launcher, make_point, n_rows, pid_of, wait_until, weights

from sapis_lab.config import kinds
from sapis_lab.records import read_record
from sapis_lab.training._ranks import join

EXACT = 1e-11
"""Gradients by two ways in float64, over the largest of them."""
TRAINED = 1e-6
"""Weights after a short training in float64, over the largest: AdamW divides by gradients that may be near
zero."""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("kind", kinds("models"))
def test_ranks_have_the_loss_and_gradients_of_the_global_batch(
    kind: str, tmp_path: Path, clusters: Path, cache: Path, launcher: Launcher
) -> None:
    # sizes that divide, that do not, and that leave a rank without a frame
    batch_sizes, found = [4, 5, 2, 1], {}
    for n in (1, 2, 3):
        make_point(tmp_path / f"p{n}", clusters, kind=kind, precision="float64")
        status = launcher.run(
            tmp_path / f"p{n}",
            cache=cache,
            ranks=n,
            target="ranked_points:save_gradients",
            batch_sizes=batch_sizes,
        )
        assert status == 0, (tmp_path / f"p{n}" / "log.txt").read_text()
        ranks = [
            torch.load(tmp_path / f"p{n}" / f"gradients.rank{r}.pt", weights_only=True) for r in range(n)
        ]
        for other in ranks[1:]:
            for a, b in zip(sum(ranks[0], []), sum(other, []), strict=True):
                assert (a is None) == (b is None) and (a is None or torch.equal(a, b)), (
                    "the ranks' weights would part"
                )
        found[n] = ranks[0]
    for n in (2, 3):
        for some, wanted in zip(found[n], found[1], strict=True):
            largest = max(float(w.abs().max()) for w in wanted[1:] if w is not None)
            assert [g is None for g in some] == [w is None for w in wanted]
            assert float(some[0]) == pytest.approx(float(wanted[0]), rel=EXACT)
            assert all(
                float((g - w).abs().max()) < EXACT * largest
                for g, w in zip(some[1:], wanted[1:], strict=True)
                if w is not None
            )


@pytest.mark.parametrize(("kind", "batch_size"), [("geat", 5), ("nequip", 2)])
def test_a_point_of_several_ranks_ends_as_that_of_one(
    kind: str, batch_size: int, tmp_path: Path, clusters: Path, cache: Path, launcher: Launcher
) -> None:
    settings = {"steps": 20, "batch_size": batch_size, "precision": "float64", "clip": 0.5}
    for n in (1, 3):
        make_point(tmp_path / f"p{n}", clusters, kind=kind, **settings)
        assert launcher.run(tmp_path / f"p{n}", cache=cache, ranks=n) == 0, (
            tmp_path / f"p{n}" / "log.txt"
        ).read_text()
    one, three = (read_record(tmp_path / f"p{n}") for n in (1, 3))
    wanted = weights(tmp_path / "p1")
    assert float((weights(tmp_path / "p3") - wanted).abs().max()) < TRAINED * float(wanted.abs().max())
    assert three.metrics == pytest.approx(one.metrics, rel=1e-5)
    assert (three.fingerprint, three.flops_train, three.samples) == (
        one.fingerprint,
        one.flops_train,
        one.samples,
    )
    assert three.device.startswith("3 x ")
    # what the clipping changes is seen, so the comparison is one of clipped gradients
    make_point(tmp_path / "free", clusters, kind=kind, **{**settings, "clip": None})
    assert launcher.run(tmp_path / "free", cache=cache) == 0
    assert float((weights(tmp_path / "free") - wanted).abs().max()) > 1e3 * TRAINED * float(
        wanted.abs().max()
    )
    written = {p.name for p in (tmp_path / "p3").iterdir()}
    assert written - {p.name for p in (tmp_path / "p1").iterdir()} == {"log.rank1.txt", "log.rank2.txt"}


def test_scores_are_the_same_bits_for_any_number_of_ranks(
    tmp_path: Path, clusters: Path, cache: Path, launcher: Launcher
) -> None:
    """Weights that never move, so that only the scores could differ."""
    for n in (1, 2):
        make_point(tmp_path / f"p{n}", clusters, steps=2, learning_rate=1e-300, ema=None)
        assert launcher.run(tmp_path / f"p{n}", cache=cache, ranks=n) == 0
    assert torch.equal(weights(tmp_path / "p1"), weights(tmp_path / "p2"))
    assert read_record(tmp_path / "p1").metrics == read_record(tmp_path / "p2").metrics


def test_a_point_goes_on_with_another_number_of_ranks(
    tmp_path: Path, clusters: Path, cache: Path, launcher: Launcher
) -> None:
    for name in ("whole", "moved"):
        settings = {"steps": 100, "precision": "float64", "learning_rate": 0.003}
        make_point(tmp_path / name, clusters, **settings)
    assert launcher.run(tmp_path / "whole", cache=cache) == 0
    moved = tmp_path / "moved"
    for ranks, rows in ((2, 20), (3, 50)):
        launcher.start(moved, cache=cache, ranks=ranks)
        wait_until(lambda rows=rows: n_rows(moved) >= rows)
        launcher.signal(moved, signal.SIGTERM)
        assert launcher.wait(moved) == 75
        assert torch.load(moved / "last.ckpt", weights_only=True)["global_step"] >= rows
    assert launcher.run(moved, cache=cache) == 0
    wanted = weights(tmp_path / "whole")
    assert float((weights(moved) - wanted).abs().max()) < TRAINED * float(wanted.abs().max())
    assert n_rows(moved) == n_rows(tmp_path / "whole") == 100


def test_a_killed_rank_ends_the_point_which_then_continues(
    tmp_path: Path, clusters: Path, cache: Path, launcher: Launcher
) -> None:
    for name in ("whole", "killed"):
        make_point(tmp_path / name, clusters)
    assert launcher.run(tmp_path / "whole", cache=cache, ranks=2) == 0
    killed = tmp_path / "killed"
    launcher.start(killed, cache=cache, ranks=2, checkpoint_seconds=0)
    wait_until(lambda: n_rows(killed) >= 30)
    first, second = pid_of(killed), pid_of(killed, 1)
    os.kill(second, signal.SIGKILL)
    assert launcher.ended(killed) == {"ended": "killed", "status": -9, "rank": 1}
    assert not alive(first) and not (killed / "failure.txt").exists()
    assert launcher.run(killed, cache=cache, ranks=2) == 0
    for file in ("model.safetensors", "metrics.csv"):
        assert (killed / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file


def test_the_fault_of_one_rank_is_told_with_its_number(tmp_path: Path, launcher: Launcher) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    launcher.start(folder, cache=tmp_path, ranks=2, target="ranked_points:run_and_raise")
    assert launcher.ended(folder) == {"ended": "p", "status": 1, "rank": 1}
    assert (
        (folder / "failure.txt")
        .read_text()
        .startswith("rank 1 of 2: ValueError: no such thing on this node\n")
    )


def test_ranks_of_another_number_than_devices_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(
        ValueError, match="devices=2 wants 2 processes, and neither RANK and WORLD_SIZE nor SLURM_PROCID"
    ):
        join(2, device=torch.device("cpu"), folder=tmp_path)
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "3")
    with pytest.raises(ValueError, match="devices=2, but SLURM_NTASKS=3: start as many processes"):
        join(2, device=torch.device("cpu"), folder=tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("way", ["alone", "torchrun", "srun"])
def test_a_point_of_two_ranks_from_the_command_line(
    way: str, tmp_path: Path, clusters: Path, cache: Path
) -> None:
    """Of srun the environment is taken; a real Slurm is in the tests of the executor."""
    make_point(tmp_path / "p", clusters, steps=20)
    words = ["-m", "sapis_lab.sweep.run_ranks", str(tmp_path / "p"), "--cache", str(cache), "--devices", "2"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")} | {
        "SAPIS_RANK_TIMEOUT": "60"
    }
    commands = [(words, environment)]
    if way == "torchrun":
        commands = [
            (["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *words], environment)
        ]
    if way == "srun":
        job = {"SLURM_NTASKS": "2", "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}
        commands = [
            (words, {**environment, **job, "SLURM_PROCID": str(r), "SLURM_LOCALID": str(r)}) for r in range(2)
        ]
    started = [subprocess.Popen([sys.executable, *command], env=given) for command, given in commands]
    assert [process.wait(timeout=120) for process in started] == [0] * len(started), (
        tmp_path / "p" / "log.txt"
    ).read_text()
    assert read_record(tmp_path / "p").device.startswith("2 x ")
    assert not (tmp_path / "p" / ".rendezvous.json").exists()


@pytest.mark.long
def test_killing_the_launcher_of_several_ranks_is_no_failure_of_the_point(
    tmp_path: Path, clusters: Path, cache: Path
) -> None:
    make_point(tmp_path / "p", clusters, steps=100_000)
    own = Launcher(tmp_path)
    own.start(tmp_path / "p", cache=cache, ranks=2)
    wait_until(lambda: (tmp_path / "p" / "progress.json").exists())
    pids = [pid_of(tmp_path / "p", rank) for rank in range(2)]
    own.process.kill()
    own.close()
    wait_until(lambda: not any(alive(pid) for pid in pids), seconds=5)
    assert not (tmp_path / "p" / "failure.txt").exists()


@pytest.mark.long
def test_a_rank_that_lost_another_says_so_where_nobody_else_can(
    tmp_path: Path, clusters: Path, cache: Path
) -> None:
    """As under srun, where no launcher of ours sees the end of a rank."""
    make_point(tmp_path / "p", clusters, steps=100_000)
    words = [
        sys.executable,
        "-m",
        "sapis_lab.sweep.run_ranks",
        str(tmp_path / "p"),
        "--cache",
        str(cache),
        "--devices",
        "2",
    ]
    job = {"SLURM_NTASKS": "2", "SLURM_JOB_ID": "8", "SLURM_STEP_ID": "0", "SAPIS_RANK_TIMEOUT": "60"}
    started = [
        subprocess.Popen(words, env={**os.environ, **job, "SLURM_PROCID": str(r), "SLURM_LOCALID": str(r)})
        for r in range(2)
    ]
    wait_until(lambda: (tmp_path / "p" / "progress.json").exists())
    started[1].kill()
    assert started[0].wait(timeout=60) == 1 and started[1].wait() == -9
    assert (tmp_path / "p" / "failure.txt").read_text().startswith("rank 0 of 2 lost another one: ")


@pytest.mark.long
@pytest.mark.parametrize("presses", [1, 2])
def test_control_c_reaches_every_rank_once(presses: int, tmp_path: Path, clusters: Path, cache: Path) -> None:
    """As a terminal sends it: to the whole group of processes."""
    make_point(tmp_path / "p", clusters, steps=100_000)
    words = [
        sys.executable,
        "-m",
        "sapis_lab.sweep.run_ranks",
        str(tmp_path / "p"),
        "--cache",
        str(cache),
        "--devices",
        "2",
    ]
    process = subprocess.Popen(words, start_new_session=True, env={**os.environ, "SAPIS_RANK_TIMEOUT": "60"})
    wait_until(lambda: (tmp_path / "p" / "progress.json").exists())
    for _ in range(presses):
        os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 75
    assert presses == 2 or (tmp_path / "p" / "last.ckpt").exists()


@pytest.mark.long
def test_the_selftest_finds_the_parameters_of_two_ranks_where_those_of_one_are(sapis) -> None:
    done = sapis("selftest", "ranks")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith(("geat", "nequip"))]
    assert len(rows) == 4
    for _, precision, _, apart, *_ in rows:
        assert float(apart) < {"float64": 1e-12, "float32": 1e-4}[precision]
