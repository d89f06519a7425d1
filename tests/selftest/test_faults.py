"""The self-test of the checks of data: planted faults are seen, and what is told is told of the right set."""

from __future__ import annotations

import numpy as np
import pytest
from rich.console import Console

from sapis_lab.config import ConfigError
from sapis_lab.data import SYMBOLS, FrameStore
from sapis_lab.selftest import faults
from sapis_lab.selftest._planted import FAULTS, written
from sapis_lab.selftest._real_sets import RealSet, Single, joined

REST = np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])


def water(root, n=100):
    """Distorted and turned water molecules on springs, eV and Å, with a total as all electrons have it."""
    generator = np.random.default_rng(0)
    for x in REST + 0.08 * generator.normal(size=(n, 3, 3)):
        energy, forces = -2077.0, np.zeros((3, 3))
        for i, j in ((0, 1), (0, 2), (1, 2)):
            v = x[j] - x[i]
            r = np.linalg.norm(v)
            stretch = r - np.linalg.norm(REST[j] - REST[i])
            energy += 5 * stretch**2
            forces[i] += 10 * stretch * v / r
            forces[j] -= 10 * stretch * v / r
        turn = np.linalg.qr(generator.normal(size=(3, 3)))[0]
        yield Single(np.array([8, 1, 1]), x @ turn, energy, forces @ turn)


def test_no_fault_planted_in_sound_frames_stays_silent(monkeypatch):
    monkeypatch.setattr(faults, "REAL_SETS", (RealSet("water", water),))
    saved = {}
    console = Console(width=200, record=True)
    status = faults.run_faults(
        ["water"], published=True, before=None, data=None, console=console, save=saved.update
    )
    seen = {cell["fault"]: cell["now"] for cell in saved["faults"]}
    assert status == 0 and saved["alarms"] == []
    assert set(seen) == {fault.name for fault in FAULTS}
    assert [name for name, now in seen.items() if now == "–"] == ["sign of the virial", "stress in GPa"]
    assert set(seen.values()) <= {"caught", "told", "–"}, seen
    assert seen["forces in eV/Bohr"] == "caught" and seen["moved copy in test"] == "told"
    assert "10 faults planted" in console.export_text()


def test_an_unknown_set_is_refused():
    with pytest.raises(ConfigError, match="--sets: got nothing, wanted of rmd17-aspirin"):
        faults.run_faults(
            ["nothing"], published=False, before=None, data=None, console=Console(), save=lambda _: None
        )


def test_frames_are_written_as_they_are(tmp_path):
    from sapis_lab.formats import read_extxyz

    frames = joined(list(water(None, 3)))
    (tmp_path / "a.xyz").write_text(written(frames, dict(enumerate(SYMBOLS))))
    store = FrameStore.create(tmp_path / "s")
    store.append(frames)
    for k, frame in enumerate(read_extxyz(tmp_path / "a.xyz")):
        assert np.allclose(frame.positions, frames.positions[3 * k : 3 * k + 3], atol=1e-8)
        assert np.allclose(frame.columns["forces"], frames.forces[3 * k : 3 * k + 3], atol=1e-6)
