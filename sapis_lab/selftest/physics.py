"""The table of `sapis selftest physics`: our dynamics and observables against what is known.

Lennard-Jones fluids of 256 atoms against NIST's reference simulations (Standard Reference Simulation Website,
cut at 3 σ with the tail of a uniform fluid) and the peaks of g(r); the volume of a perfect gas; the error of
velocity Verlet and of two timesteps; elastic constants and phonons of silicon as Stillinger and Weber have
it; diffusion of a Brownian path; two harmonic frequencies. In reduced units where ε and σ are said.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.text import Text

from sapis_lab import units
from sapis_lab.config import ConfigError
from sapis_lab.observables import crystals, minima, phonons, statistics, structure, transport
from sapis_lab.observables.surfaces import of_oracle
from sapis_lab.oracles.lennard_jones import LennardJonesAtom, LennardJonesConfig
from sapis_lab.oracles.stillinger_weber import StillingerWeberConfig
from sapis_lab.screen import new_table
from sapis_lab.simulation import (
    EnsembleConfig,
    Found,
    LennardJonesSurface,
    Replicas,
    Surface,
    advance,
    replicas_of,
)
from sapis_lab.simulation.langevin import LangevinConfig
from sapis_lab.simulation.npt import BAR, NptConfig, pressure
from sapis_lab.simulation.nve import NveConfig
from sapis_lab.simulation.respa import RespaConfig
from sapis_lab.structures import Structure

PARTS = ("static", "fluid", "gas", "timestep", "silicon", "diffusion")
EPSILON, SIGMA, MASS = 119.8 * units.KB, 3.405, 39.948
"""Argon; every number of the fluid is divided by them."""
TAU = SIGMA * np.sqrt(MASS / EPSILON / units.ACCELERATION)
"""Unit of time, fs."""
CONFIGURATION = Path("lennard_jones") / "lj_sample_config_periodic4.xyz"


class StatePoint(NamedTuple):
    """A fluid with its reference values."""

    temperature: float
    density: float
    energy: float
    """U* an atom."""
    pressure: float
    peaks: tuple[tuple[float, float], ...]
    """r* and g of the first maximum, minimum and second maximum; empty where they are not known."""


STATES = (
    StatePoint(0.85, 0.776, -5.5121, 0.0068, ()),
    StatePoint(0.90, 0.82, -5.7456, 0.8239, ((1.09, 2.76), (1.56, 0.63), (2.06, 1.26))),
)
"""Energies and pressures: NIST. Peaks: an independent simulation of as many atoms."""


@dataclass(frozen=True)
class Plan:
    """How long."""

    n_steps: int = 10_000
    """Of every fluid, 0.005 τ each, after a sixth as many."""
    seed: int = 0


class Checked(NamedTuple):
    """One value beside the known one."""

    part: str
    system: str
    quantity: str
    unit: str
    here: float
    error: float
    """Its standard error; zero where there is none."""
    known: float
    within: float
    """How far apart they may be."""
    source: str

    @property
    def good(self) -> bool:
        return abs(self.here - self.known) <= self.within


def run_physics(
    parts: Sequence[str],
    plan: Plan,
    *,
    data: Path | None,
    console: Console,
    save: Callable[[dict[str, Any]], None],
) -> int:
    """Print the table of `parts`; 1 if a value is farther from the known one than it may be.

    Raises:
        ConfigError: a part is not known.
    """
    if unknown := [part for part in parts if part not in PARTS]:
        raise ConfigError(f"--parts: got {unknown[0]!r}, wanted some of {', '.join(PARTS)}")
    makers: dict[str, Callable[[], Iterator[Checked]]] = {
        "static": lambda: static(data),
        "fluid": lambda: fluid(plan),
        "gas": lambda: gas(plan),
        "timestep": lambda: timesteps(plan),
        "silicon": silicon,
        "diffusion": lambda: brownian(plan),
    }
    found: list[Checked] = []
    seconds: dict[str, float] = {}
    for part in parts:
        begin = time.process_time()
        found += makers[part]()
        seconds[part] = time.process_time() - begin
        save({"checks": [{**c._asdict(), "good": c.good} for c in found], "cpu_seconds": seconds})
    grid = new_table(
        "system", "quantity", "unit", "here", "±", "known", "within", "", "source",
        left=["system", "quantity", "unit", "", "source"],
    )  # fmt: skip
    for c in found:
        grid.add_row(
            c.system, c.quantity, c.unit, f"{c.here:.5g}", f"{c.error:.1g}" if c.error else "",
            f"{c.known:.5g}", f"{c.within:.2g}", "" if c.good else "no", c.source,
        )  # fmt: skip
    console.print(grid)
    n_bad = sum(not c.good for c in found)
    times = ", ".join(f"{part} {s:.0f} s" for part, s in seconds.items())
    console.print(Text(f"{len(found) - n_bad} of {len(found)} within their bounds; CPU time: {times}"))
    return 1 if n_bad else 0


# ----------------------------------------------------------------------------------------------------- fluids


def static(data: Path | None) -> Iterator[Checked]:
    """NIST's sample configuration on the surface that dynamics move on."""
    path = None if data is None else data / CONFIGURATION
    if path is None or not path.is_file():
        return
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    box = np.diag([float(x) for x in rows[1][1:]])
    x = np.array([[float(c) for c in row[1:]] for row in rows[2:]])
    one = LennardJonesAtom(epsilon=1.0, sigma=1.0)
    state = _replicas([Structure(np.full(len(x), 18), x, box, np.ones(3, dtype=bool))])
    values = []
    for tail in (False, True):
        oracle = LennardJonesConfig(atoms={"Ar": one}, cutoff=3.0, truncation="cut", tail=tail)
        values.append(float(LennardJonesSurface(oracle)(state).energy[0]))
    source = "NIST, configuration 4"
    yield Checked("static", "30 atoms", "energy, cut at 3 σ", "ε", values[0], 0, -16.790, 5e-4, source)
    yield Checked("static", "30 atoms", "tail", "ε", values[1] - values[0], 0, -0.54517, 6e-6, source)


def _replicas(structures: list[Structure], *, seed: int = 0) -> Replicas:
    masses = [np.full(len(s.species), MASS) for s in structures]
    return replicas_of(structures, masses=masses, seed=seed)


def _crystal(density: float) -> Structure:
    """256 atoms at face-centred cubic places."""
    side = SIGMA * (4 / density) ** (1 / 3)
    places = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    corners = np.array([[i, j, k] for i in range(4) for j in range(4) for k in range(4)])
    x = side * (corners[:, None] + places).reshape(-1, 3)
    return Structure(np.full(256, 18), x, 4 * side * np.eye(3), np.ones(3, dtype=bool))


def fluid(plan: Plan) -> Iterator[Checked]:
    """Energy, pressure and g(r) of two fluids; energies to 1 %, pressures to 0.1 ε/σ³, peaks to 0.1."""
    oracle = LennardJonesConfig(cutoff=3 * SIGMA, truncation="cut", tail=True)
    for point in STATES:
        energy, tension, frames, cell = _simulated(oracle, point, plan)
        name = f"fluid, T* {point.temperature:g}, ρ* {point.density:g}"
        u = statistics.block_mean(energy)
        p = statistics.block_mean(tension + _edge(point.density))
        source = "NIST"
        yield Checked("fluid", name, "U*", "ε", *u, point.energy, 0.01 * abs(point.energy), source)
        yield Checked("fluid", name, "p*", "ε/σ³", *p, point.pressure, 0.1, source)
        if point.peaks:
            yield from _peaks(name, frames, cell, point)


def _edge(density: float) -> float:
    """What pairs that enter the cutoff push, ε/σ³, as in a uniform fluid: (2π/3) ρ² r_c³ u(r_c), -0.19 at ρ*
    0.776. Forces of an energy that is cut do not have it, the tail of the pressure (Allen & Tildesley, eq.
    2.145) does: that is ρ E_tail/N, which the oracle's stress holds, and this."""
    r = 3.0
    return float(2 * np.pi / 3 * density**2 * r**3 * 4 * (r**-12 - r**-6))


def _simulated(
    oracle: LennardJonesConfig, point: StatePoint, plan: Plan
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """U* an atom and p* every fifth step, positions every fiftieth, and the cell, Å."""
    ensemble = LangevinConfig(
        temperature=point.temperature * EPSILON / units.KB, timestep=0.005 * TAU, friction=1 / TAU
    )
    surface = LennardJonesSurface(oracle)
    state = ensemble.start(_replicas([_crystal(point.density)], seed=plan.seed))
    state, _ = advance(state, ensemble, surface, n_steps=plan.n_steps // 6)
    energy, tension, frames = [], [], []

    def keep(now: Replicas, found: Found) -> None:
        energy.append(found.energy[0] / 256 / EPSILON)
        if now.step % 20 == 0:
            stress = surface(now, stress=True).stress
            assert stress is not None
            tension.append(pressure(now, stress)[0] * SIGMA**3 / EPSILON)
        if now.step % 50 == 0:
            frames.append(now.positions)

    advance(state, ensemble, surface, n_steps=plan.n_steps, every=5, on_frame=keep)
    return np.array(energy), np.array(tension), np.array(frames), state.cell[0]


def _peaks(name: str, frames: np.ndarray, cell: np.ndarray, point: StatePoint) -> Iterator[Checked]:
    found = structure.pair_distribution(
        frames, cell, np.full(256, 18), n_bins=120, r_max=min(3.0 * SIGMA, 0.499 * cell[0, 0])
    )
    r, g = found.r / SIGMA, found.g
    spans = ((0.9, 1.3, 1), (1.3, 1.8, -1), (1.8, 2.4, 1))
    names = ("first peak", "first minimum", "second peak")
    source = "independent simulation"
    for (low, high, sign), (at, height), which in zip(spans, point.peaks, names, strict=True):
        some = np.flatnonzero((r > low) & (r < high))
        k = int(some[np.argmax(sign * g[some])])
        place, value = structure.parabola_top(r[k - 1 : k + 2], g[k - 1 : k + 2])
        yield Checked("fluid", name, f"g(r), {which}", "", value, 0, height, 0.1, source)
        yield Checked("fluid", name, f"g(r), place of the {which}", "σ", place, 0, at, 0.05, source)


class _PerfectGas(Surface):
    """No energy at all."""

    def __call__(self, state: Replicas, *, stress: bool = False) -> Found:
        n = len(state)
        return Found(np.zeros(n), np.zeros_like(state.positions), np.zeros((n, 3, 3)) if stress else None)


def gas(plan: Plan) -> Iterator[Checked]:
    """Volume of 32 perfect gases of 16 atoms at constant pressure: (N + 1) kT/P on average, and its spread;
    each within three standard errors."""
    n, temperature, wanted = 16, 300.0, 1000.0
    volume = (n + 1) * units.KB * temperature / (wanted * BAR)
    side = volume ** (1 / 3)
    generator = np.random.default_rng(plan.seed)
    periodic = np.ones(3, dtype=bool)
    some = [
        Structure(np.full(n, 18), generator.uniform(0, side, (n, 3)), side * np.eye(3), periodic)
        for _ in range(32)
    ]
    ensemble = NptConfig(
        temperature=temperature, pressure=wanted, timestep=5.0, friction=0.005, every=2,
        compressibility=1 / wanted, pressure_relaxation=200.0,
    )  # fmt: skip
    seen: list[np.ndarray] = []

    def keep(now: Replicas, found: Found) -> None:
        if now.step > 800:
            seen.append(now.volume)

    advance(
        ensemble.start(_replicas(some, seed=plan.seed)), ensemble, _PerfectGas(),
        n_steps=6 * plan.n_steps // 5, every=10, on_frame=keep,
    )  # fmt: skip
    v = np.array(seen) / volume
    mean, error = float(v.mean()), float(v.mean(0).std(ddof=1) / np.sqrt(v.shape[1]))
    name, source = "perfect gas, 16 atoms", "(N + 1) kT / P"
    yield Checked("gas", name, "mean volume over that", "", mean, error, 1.0, 3 * error, source)
    squared = ((v - 1) ** 2).mean(0)
    spread, error = float(squared.mean()), float(squared.std(ddof=1) / np.sqrt(len(squared)))
    known = 1 / (n + 1)
    yield Checked("gas", name, "its variance", "", spread, error, known, 3 * error, "1 / (N + 1)")


def timesteps(plan: Plan) -> Iterator[Checked]:
    """The exponent with which the spread of the energy grows with the timestep: 2 for a symplectic integrator
    of second order, also with two timesteps."""
    oracle = LennardJonesConfig(cutoff=2.6 * SIGMA, truncation="switched", switch_start=2.0 * SIGMA)
    point = StatePoint(0.9, 0.82, 0, 0, ())
    warm = LangevinConfig(
        temperature=point.temperature * EPSILON / units.KB, timestep=0.004 * TAU, friction=1 / TAU
    )
    surface = LennardJonesSurface(oracle)
    start = warm.start(_replicas([_crystal(point.density)], seed=plan.seed))
    start, _ = advance(start, warm, surface, n_steps=plan.n_steps // 12)
    steps = (0.002, 0.004, 0.008)
    far = LennardJonesConfig(cutoff=1.7 * SIGMA, truncation="switched", switch_start=1.4 * SIGMA)
    for name, n_inner in (("velocity Verlet", 1), ("two timesteps, 3 inner steps", 3)):
        spread = []
        for dt in steps:
            made: EnsembleConfig
            made = NveConfig(timestep=dt * TAU)
            if n_inner > 1:
                made = RespaConfig(timestep=dt * TAU, n_inner=n_inner, fast=far)
            seen: list[float] = []

            def keep(now: Replicas, found: Found, seen: list[float] = seen) -> None:
                seen.append(float(found.energy[0] + now.kinetic()[0]))

            advance(start.at_rest(), made, surface, n_steps=round(1.2 / dt), on_frame=keep)
            spread.append(np.std(seen))
        slope = float(np.polyfit(np.log(steps), np.log(spread), 1)[0])
        yield Checked("timestep", name, "std(E) against dt, exponent", "", slope, 0, 2.0, 0.2, "second order")


# ---------------------------------------------------------------------------------------- crystals and motion


def silicon() -> Iterator[Checked]:
    """Elastic constants, with atoms relaxed and clamped, the bulk modulus from energies, and that the
    acoustic phonons vanish at Γ."""
    from ase.build import bulk

    atoms: Any = bulk("Si", "diamond", a=5.40, cubic=True)
    predict = of_oracle(StillingerWeberConfig(epsilon=2.1683))
    least = minima.relaxed_crystal(
        predict, Structure(atoms.numbers, atoms.positions, atoms.cell.array, np.ones(3, dtype=bool))
    )
    at = least.structure
    assert at.cell is not None
    name, source = "Si, Stillinger-Weber", "Phys. Rev. B 46, 2250"
    a = float(np.diag(at.cell).mean())
    yield Checked("silicon", name, "lattice constant", "Å", a, 0, 5.431, 1e-3, source)
    found = crystals.elastic_constants(predict, at)
    known = (("C11", 151.4), ("C12", 76.4), ("C44", 56.4))
    for (label, value), here in zip(known, found.cubic, strict=True):
        yield Checked("silicon", name, label, "GPa", here, 0, value, 0.2, source)
    clamped = crystals.elastic_constants(predict, at, relax=False).cubic[2]
    yield Checked("silicon", name, "C44, clamped atoms", "GPa", clamped, 0, 109.7, 0.2, source)
    v, e = crystals.energies_of_volumes(predict, at, scales=np.linspace(0.97, 1.03, 9).tolist())
    modulus = crystals.birch_murnaghan(v, e).bulk_modulus
    c11, c12, _ = found.cubic
    own = "(C11 + 2 C12)/3 of here"
    yield Checked(
        "silicon", name, "bulk modulus, from energies", "GPa", modulus, 0, (c11 + 2 * c12) / 3, 0.3, own
    )
    try:
        waves = phonons.phonons(predict, at, points=np.array([[0, 0, 0], [0.02, 0, 0.02]]))
    except ImportError:
        return
    yield Checked("silicon", name, "acoustic phonons at Γ", "THz", float(np.abs(waves.frequencies[0,
    :3]).max()),
                  0, 0.0, 1e-3, "translation")  # fmt: skip
    density = 8 * 28.0855 / a**3 / units.AVOGADRO * 1e24  # g/cm³
    speed = np.sqrt(c11 * 1e9 / (density * 1e3))
    # (1/2, 0, 1/2) of the primitive lattice is X, at 2π/a
    wave = 2 * np.pi * 0.04 / (a * 1e-10)
    here = float(waves.frequencies[1, 2] * 1e12 * 2 * np.pi / wave)
    yield Checked("silicon", name, "speed of longitudinal sound, [100]", "m/s", here, 0, float(speed), 60.0,
                  "sqrt(C11/ρ) of here")  # fmt: skip


def brownian(plan: Plan) -> Iterator[Checked]:
    """Diffusion of 30 Brownian particles over 10^5 steps, and what a drift of the whole adds to it."""
    d, dt = 0.05, 2.0
    generator = np.random.default_rng(plan.seed)
    x = np.cumsum(np.sqrt(2 * d * dt) * generator.normal(size=(100_000, 30, 3)), axis=0)
    found = transport.diffusion(x, timestep=dt, n_blocks=10, fit=(5e-4, 2e-3))
    yield Checked("diffusion", "Brownian paths", "D over that put in", "", found.value / d, found.error / d,
    1.0,
                  0.01, "construction")  # fmt: skip
    drift = x[:2000] + 0.01 * np.arange(2000)[:, None, None]
    plain = transport.diffusion(x[:2000], timestep=dt, masses=np.ones(30)).value
    moved = transport.diffusion(drift, timestep=dt, masses=np.ones(30)).value
    yield Checked("diffusion", "Brownian paths", "what a drift adds, relative", "", moved / plain - 1, 0, 0.0,
                  1e-9, "construction")  # fmt: skip
