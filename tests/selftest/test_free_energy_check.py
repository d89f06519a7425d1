"""`sapis selftest free-energy`: walks that agree pass, walks that depend on their direction do not."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from sapis_lab import units
from sapis_lab.config import ConfigError
from sapis_lab.selftest import free_energy
from sapis_lab.selftest._torsion_windows import C7EQ, TEMPERATURE, Protocol, Walked

KT = units.KB * TEMPERATURE
WALKS = ("up-0", "down-0", "up-1", "down-1")
SMALL = Protocol("fine", 12, 8, 1.8, sampling=20.0)
GRID = np.deg2rad(np.arange(-180, 180, 5.0))


def surface(phi, psi):
    """eV: two basins of φ, 4 kT apart."""
    return KT * (-2 * np.cos(phi + 1.4) + 1.5 * np.cos(2 * psi))


def drawn(protocol, direction, *, seed, stuck):
    """Exact samples of `surface` in the windows of a walk; `stuck` ones keep a side that it came from."""
    generator = np.random.default_rng([seed, direction == "up"])
    centers, (k_phi, k_psi) = protocol.centers(direction), protocol.stiffness()
    phi, psi = np.meshgrid(GRID, GRID, indexing="ij")
    columns = []
    for center in centers:
        ways = [np.angle(np.exp(1j * (x - c))) for x, c in zip((phi, psi), center, strict=True)]
        if stuck and abs(np.rad2deg(center[0]) - 130) < 15:
            # one side of a wall at the center, whichever way a walk came
            ways[0] = np.where((ways[0] < 0) == (direction == "up"), ways[0], 10.0)
        energy = surface(phi, psi) + 0.5 * (k_phi * ways[0] ** 2 + k_psi * ways[1] ** 2)
        p = np.exp(-(energy - energy.min()) / KT).ravel()
        columns.append(generator.choice(p.size, size=60, p=p / p.sum()))
    at = np.array(columns)
    no = np.zeros(at.shape, dtype=bool)
    return Walked(centers, phi.ravel()[at], psi.ravel()[at], no, no)


@pytest.fixture
def check(monkeypatch, tmp_path):
    def run(*, stuck=False, change=lambda walk: walk, protocols=("fine",), walks=WALKS):
        monkeypatch.setattr(free_energy, "PROTOCOLS", {"fine": SMALL})
        monkeypatch.setattr(free_energy, "PUBLISHED", {})
        monkeypatch.setattr(
            free_energy,
            "walked",
            lambda folder, protocol, direction, *, seed, progress: change(
                drawn(protocol, direction, seed=seed, stuck=stuck)
            ),
        )
        text, kept = io.StringIO(), []
        status = free_energy.run_free_energy(
            protocols,
            walks=walks,
            folder=tmp_path,
            console=Console(file=text, width=200),
            save=kept.append,
        )
        return status, text.getvalue(), kept[-1]

    return run


def test_walks_that_agree_give_the_free_energy_of_the_surface(check):
    status, text, kept = check()
    assert status == 0 and "5 of 5 within their bounds" in text
    together = kept["results"]["fine"]["together"]
    density = np.exp(-surface(*np.meshgrid(GRID, GRID, indexing="ij")) / KT).sum(1)
    degrees = np.rad2deg(GRID)
    inside = (degrees >= 0) & (degrees < 140)
    exact = -KT * np.log(density[inside].sum() / density[~inside].sum()) / units.KJ_PER_MOL_TO_EV
    assert together["delta_f"] == pytest.approx(exact, abs=4 * together["delta_f_error"])
    assert kept["results"]["fine"]["stuck"] == 0


def test_windows_that_keep_their_side_are_counted_and_end_with_status_1(check):
    status, text, kept = check(stuck=True)
    found = kept["results"]["fine"]
    assert status == 1 and found["stuck"] > 0
    bad = [c["quantity"] for c in kept["checks"] if not c["good"]]
    assert bad == ["ΔF of up-0 and down-0 apart, kJ/mol", "ΔF of up-1 and down-1 apart, kJ/mol"]


def test_samples_of_another_molecule_are_refused(check):
    with pytest.raises(ConfigError, match="samples with a cis peptide bond"):
        check(change=lambda walk: walk._replace(cis=np.ones_like(walk.cis)))


def test_a_protocol_that_is_not_known_is_refused(check):
    with pytest.raises(ConfigError, match="--protocols: got 'coarse', wanted some of fine"):
        check(protocols=("coarse",))


@pytest.mark.parametrize(
    ("walks", "message"),
    [
        (("up-0", "up-1"), "got up-0, up-1; wanted walks of both directions"),
        (("up-0", "left-1"), "got 'left-1', wanted up-SEED or down-SEED"),
    ],
)
def test_walks_that_cannot_be_are_refused(check, walks, message):
    with pytest.raises(ConfigError, match=message):
        check(walks=walks)


def test_a_walk_goes_once_around_from_c7eq_with_the_stated_spacing():
    for direction, sign in (("up", 1), ("down", -1)):
        centers = np.rad2deg(SMALL.centers(direction))
        assert centers[0] == pytest.approx(C7EQ)
        steps = (np.diff(centers[:, 0]) + 180) % 360 - 180
        assert set(np.round(steps[7::8])) == {30.0 * sign}
        assert len({tuple(c) for c in np.round(centers) % 360}) == 96
    gap = 2 * np.pi / 12
    assert gap / np.sqrt(KT / SMALL.stiffness()[0]) == pytest.approx(1.8)
