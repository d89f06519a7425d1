"""Generated frames: the same bytes however the work was interrupted or shared, and separate trajectories for
each split."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tblite", reason="xTB labels need the extra [xtb]")

from sapis_lab.config import kind_class, read_yaml
from sapis_lab.data import prepare, store_folder
from sapis_lab.data.xtb import XtbDataConfig, trajectory_tasks

TINY = XtbDataConfig(
    n_train=6,
    n_validation=2,
    n_test=2,
    trajectory_frames=3,
    block_frames=1,
    interval_fs=10,
    equilibration_fs=10,
    seed=5,
)


def contents(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The store of TINY, made by one worker without interruption."""
    return prepare(TINY, cache=tmp_path_factory.mktemp("reference"), n_workers=1)


def test_two_workers_make_the_same_bytes_as_one(reference, tmp_path):
    calls = []
    store = prepare(TINY, cache=tmp_path, n_workers=2, progress=lambda *call: calls.append(call))
    assert contents(store.folder) == contents(reference.folder)
    assert calls[-1] == ("GFN2-xTB frames of CH3CH2OH", 10, 10)
    assert [c[1] for c in calls] == sorted(c[1] for c in calls)


def test_killed_at_any_moment_and_started_again_it_ends_in_the_same_bytes(reference, tmp_path):
    folder = store_folder(TINY, tmp_path)
    script = (
        "import sys; from pathlib import Path; from sapis_lab.data import prepare; from sapis_lab.data.xtb "
        "import XtbDataConfig;"
        "prepare(XtbDataConfig.model_validate_json(sys.argv[1]), cache=Path(sys.argv[2]), n_workers=2)"
    )
    for n_blocks in (1, 4):
        process = subprocess.Popen(
            [sys.executable, "-c", script, TINY.model_dump_json(), str(tmp_path)],
            cwd=Path(__file__).parents[2],
        )
        deadline = time.monotonic() + 60
        while len(list(folder.glob("blocks/*.npz"))) < n_blocks:
            assert process.poll() is None and time.monotonic() < deadline, (
                "it ended before it could be killed"
            )
            time.sleep(0.005)
        children = descendants(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert children, "there should have been workers at this moment"
        deadline = time.monotonic() + 10
        while any(alive(pid) for pid in children):
            assert time.monotonic() < deadline, "workers outlived the process that started them"
            time.sleep(0.01)
        assert not (folder / "manifest.json").exists()
    store = prepare(TINY, cache=tmp_path, n_workers=1)
    assert contents(store.folder) == contents(reference.folder)


def descendants(pid):
    """Children of process `pid` (Linux)."""
    listing = Path(f"/proc/{pid}/task/{pid}/children")
    if not listing.exists():
        pytest.skip("needs /proc to see the worker processes")
    return [int(p) for p in listing.read_text().split()]


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def test_a_failing_worker_is_reported_with_what_it_wrote(tmp_path, monkeypatch):
    from sapis_lab.data import _generation

    monkeypatch.setattr(_generation.sys, "executable", shutil.which("false"))
    with pytest.raises(
        RuntimeError,
        match=r"generating trajectory \d in .* failed with exit status 1; finished blocks are kept",
    ):
        prepare(TINY, cache=tmp_path, n_workers=1)


def test_labels_do_not_depend_on_what_was_computed_before(reference):
    from sapis_lab.oracles.xtb import XtbConfig

    frames = reference.frames(np.array([3]))
    again = XtbConfig().label(frames.species, frames.positions)
    assert abs(again.energy - frames.energy[0]) < 1e-9
    assert np.array_equal(again.forces.astype(np.float32), frames.forces)


def test_splits_come_from_separate_trajectories_and_training_is_spread_over_its_own(reference):
    tasks = trajectory_tasks(TINY, Path("blocks"))
    assert [len(tasks[k]) for k in ("train", "validation", "test")] == [2, 1, 1]
    assert sorted(t.trajectory for split in tasks.values() for t in split) == [0, 1, 2, 3]
    assert sorted((reference.splits["train"][:2] >= 3).tolist()) == [False, True]
    assert reference.column("time")[:4].tolist() == [10.0, 20.0, 30.0, 10.0]
    start = reference.positions.reshape(-1, 9, 3)[[0, 3, 6, 8]]
    assert np.ptp(start, axis=0).max() > 0.01


def test_frames_are_centred_and_no_blocks_remain(reference):
    masses = np.array(trajectory_tasks(TINY, Path("b"))["train"][0].masses)
    assert np.abs(np.einsum("n,fnk->fk", masses, reference.positions.reshape(-1, 9, 3))).max() < 1e-9
    assert not (reference.folder / "blocks").exists()


@pytest.mark.parametrize(
    ("n", "trajectory_frames", "wanted"),
    [(400, 100, [100] * 4), (24, 12, [12, 12]), (7, 3, [3, 2, 2]), (5, 10, [5])],
)
def test_frames_are_spread_evenly_over_trajectories(n, trajectory_frames, wanted):
    config = XtbDataConfig(n_train=n, trajectory_frames=trajectory_frames)
    assert [t.n_frames for t in trajectory_tasks(config, Path("b"))["train"]] == wanted


def test_info_generates_nothing():
    info = XtbDataConfig().info(cutoff=100.0)
    assert info.species == (1, 6, 8) and info.mean_atoms == 9 and info.mean_pairs == 72
    assert (info.n_train, info.n_validation, dict(info.n_test)) == (400, 100, {"test": 100})


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"interval_fs=100\.3 is not a multiple of timestep=0\.5"):
        XtbDataConfig(interval_fs=100.3, timestep=0.5)
    with pytest.raises(ValueError, match="nearest: CH3CH2OH"):
        XtbDataConfig(molecule="CH3CHOH").info(cutoff=5.0)


def test_the_tiny_config_is_small_enough_for_a_smoke_test():
    for name, most in (("ethanol-xtb-tiny", 4000), ("ethanol-xtb", 70_000)):
        raw = read_yaml(Path(__file__).resolve().parents[2] / "configs" / "data" / f"{name}.yaml")
        tasks = trajectory_tasks(kind_class("data", raw["kind"]).model_validate(raw), Path("b"))
        steps = sum(
            t.n_equilibration_steps + t.n_frames * t.n_interval_steps
            for split in tasks.values()
            for t in split
        )
        assert steps <= most, "each step takes 1.1 ms of one core"


def test_frames_labelled_later_join_behind_the_others_and_change_none_of_them(reference, tmp_path):
    more = TINY.model_copy(update={"n_more": 6})
    store, first = prepare(more, cache=tmp_path, n_workers=1), len(reference.splits["train"])
    assert more.identity() != TINY.identity() and "n_more" not in TINY.identity()
    assert len(store.splits["train"]) == more.info(cutoff=5.0).n_train == first + 6
    for split, n in (("train", first), ("validation", 2), ("test", 2)):
        old, new = (s.frames(s.splits[split][:n]) for s in (reference, store))
        assert np.array_equal(old.positions, new.positions) and np.array_equal(old.energy, new.energy)
    smaller = prepare(TINY.model_copy(update={"n_more": 3}), cache=tmp_path, n_workers=1)
    new, newer = (s.frames(s.splits["train"][: first + 3]) for s in (smaller, store))
    assert np.array_equal(new.positions, newer.positions)


def test_frames_labelled_later_come_in_whole_trajectories():
    with pytest.raises(ValueError, match="n_more=4 is not a multiple of trajectory_frames=3"):
        XtbDataConfig.model_validate({**TINY.model_dump(), "n_more": 4})
