"""Free energies along one or two torsions, by umbrella windows: of the potential and, where an oracle is
named, of the surface that it learnt.

All windows are replicas of one simulation (`free_energy.sample_windows`) and are pulled to their centers up
the circle of the first torsion in one half of the walks, down it in the other: a difference between the two
(hysteresis) says that windows are not at equilibrium, which neither errors nor overlaps tell. Around a whole
circle they begin at the labelled test frame of least energy; on an arc at a test frame near the end they come
from. Springs put windows `spacing` standard deviations of a free angle apart.

An arc is for circles with a barrier steeper than the springs: windows on it stay on the side that they came
from, and close the circle with a wrong number.

    delta_f                       F(basin) - F(all else), of both directions together
    delta_f_error                 its standard error, from blocks of correlated samples drawn again
    hysteresis                    size of the difference of delta_f between up and down
    solver_difference             largest difference of a window's F between pymbar and the own solver
    overlap_gap                   1 - second eigenvalue of the overlap matrix; necessary, not sufficient
    population_REGION             share of the configurations in a region

and of the oracle `reference_delta_f`, `reference_error`, `reference_hysteresis`, with the differences

    delta_f_difference            size of delta_f - reference_delta_f
    profile_mae                   mean size of the difference of the profiles of the first torsion, in bins
                                  where the reference's is below 25 kJ/mol, their median taken off
    population_difference_REGION  size of the difference of the shares
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from sapis_lab import units
from sapis_lab.config import composed_kind
from sapis_lab.evaluation import Evaluation, Measured, Subject
from sapis_lab.free_energy import Umbrella, Windows, circle, sample_windows, within
from sapis_lab.geometry.coordinates import difference, values
from sapis_lab.measures import Quantity
from sapis_lab.oracles import OracleConfig
from sapis_lab.simulation import OracleSurface, Surface, replicas_of
from sapis_lab.simulation.langevin import LangevinConfig

Atom = Annotated[int, Field(ge=0, le=10**6)]
Degrees = Annotated[float, Field(ge=-360, le=360)]
Box = tuple[tuple[Degrees, Degrees] | None, ...]

LOW = 25 * units.KJ_PER_MOL_TO_EV
"""Bins of a profile above this say nothing of what molecules do at room temperature."""
_REDRAWN = 30
_NEAR = 5
"""Test frames nearest the end of an arc, among which the one of least energy is where a walk begins."""


class UmbrellaConfig(Evaluation):
    """Free energies along torsions."""

    kind: Literal["umbrella"] = "umbrella"
    torsions: tuple[tuple[Atom, Atom, Atom, Atom], ...] = Field(min_length=1, max_length=2)
    """Four atoms each, from 0. A second one is for what would be slow in windows of the first alone."""
    n_windows: tuple[Annotated[int, Field(ge=3, le=200)], ...] = (25,)
    """Around the circle of each torsion; with two, all pairs."""
    arc: tuple[Degrees, Degrees] | None = None
    """Of the first torsion, degrees: windows from the one up to the other alone. By default the whole
    circle."""
    spacing: float = Field(default=1.8, gt=0.2, le=3)
    """Between windows, in standard deviations of a free angle in its spring; more than 2 gives wrong numbers
    that repeat."""
    ensemble: composed_kind("simulation", LangevinConfig) = LangevinConfig()  # type: ignore[valid-type]
    """How the replicas move, with temperature and timestep."""
    pull: float = Field(default=2.0, gt=0, le=1e6)
    """Time in which the farthest window is reached, ps."""
    equilibration: float = Field(default=1.0, ge=0, le=1e6)
    """In every window, ps."""
    time: float = Field(default=5.0, gt=0, le=1e6)
    """Sampled in every window of one walk, ps."""
    every: float = Field(default=50.0, gt=0, le=1e6)
    """Between samples, fs."""
    walks: int = Field(default=1, ge=1, le=100)
    """Up the circle, and as many down."""
    basin: Box = ((0.0, 140.0),)
    """An interval of each torsion, degrees, null for all; it may run through the end of the circle."""
    regions: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9]+$", max_length=20)], Box] = {}
    """Further ones, whose populations are told."""
    n_bins: int = Field(default=36, ge=2, le=1000)
    """Of the profile."""
    oracle: composed_kind("oracles", OracleConfig) | None = None  # type: ignore[valid-type]
    """The surface that the potential learnt, sampled in the same way."""
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """Of momenta and thermostats."""

    @model_validator(mode="after")
    def _consistent(self) -> UmbrellaConfig:
        if len(self.n_windows) != len(self.torsions):
            raise ValueError(
                f"n_windows has {len(self.n_windows)} numbers for {len(self.torsions)} torsions; wanted "
                "one for each"
            )
        if self.arc is not None and not 0 < self.arc[1] - self.arc[0] < 360:
            raise ValueError(
                f"arc={list(self.arc)} wanted an angle and a larger one, less than 360 degrees apart"
            )
        for name, box in {"basin": self.basin, **self.regions}.items():
            if len(box) > len(self.torsions):
                raise ValueError(f"{name} has {len(box)} intervals for {len(self.torsions)} torsions")
        return self

    @classmethod
    def quantities(cls) -> tuple[Quantity, ...]:
        def energy(key: str, label: str, better: Any = "none") -> Quantity:
            factor = 1 / units.KJ_PER_MOL_TO_EV
            return Quantity(key, label, "eV", better=better, display_unit="kJ/mol", display_factor=factor)

        return (
            energy("delta_f", "free energy of the basin"),
            energy("delta_f_error", "standard error of the free energy of the basin", "lower"),
            energy("hysteresis", "difference of the free energy between directions", "lower"),
            energy("solver_difference", "difference between two solvers", "lower"),
            Quantity("overlap_gap", "gap of the overlap matrix", "", better="higher"),
            Quantity("population_{region}", "population of {region}", ""),
            energy("reference_delta_f", "free energy of the basin of the reference"),
            energy("reference_error", "standard error of the reference", "lower"),
            energy("reference_hysteresis", "difference of the reference between directions", "lower"),
            energy("delta_f_difference", "error of the free energy of the basin", "lower"),
            energy("profile_mae", "MAE of the free energy profile", "lower"),
            Quantity("population_difference_{region}", "error of the population of {region}", "", "lower"),
        )

    def parts(self, subject: Subject) -> tuple[str, ...]:
        """Walks: of the potential, and of the oracle."""
        subject.want_energies()
        subject.test_frames(1)
        who = ("model",) if self.oracle is None else ("model", "reference")
        return tuple(f"{w}-{way}-{k}" for w in who for way in ("up", "down") for k in range(self.walks))

    def measure(self, subject: Subject, part: str) -> dict[str, np.ndarray]:
        """values (n_samples, R, C) rad; centers (R, C) rad; stiffness (C,) eV/rad²."""
        from ase.data import atomic_masses

        who, way, k = part.split("-")
        windows = self._windows()
        frame = self._begin(subject, way)
        n, masses = len(windows.centers), atomic_masses[np.asarray(frame.species, dtype=int)]
        seed = 2 * int(k) + (way == "down") + (10_000 if who == "reference" else 0)
        start = replicas_of([frame] * n, masses=[masses] * n, seed=self.seed + 100_003 * seed)
        dt = self.ensemble.timestep
        sampled = sample_windows(
            start,
            self.ensemble,
            self._surface(subject, who),
            windows,
            ways=self._ways(windows, windows.values(start), way),
            n_pull=max(1, round(1e3 * self.pull / dt)),
            n_equilibrate=round(1e3 * self.equilibration / dt),
            n_steps=max(1, round(1e3 * self.time / dt)),
            every=max(1, round(self.every / dt)),
            progress=lambda done, total: print(f"{part}: step {done} of {total}", flush=True),
        )
        return {"values": sampled, "centers": windows.centers, "stiffness": windows.stiffness}

    def _surface(self, subject: Subject, who: str) -> Surface:
        if who == "reference":
            return OracleSurface(self.oracle)  # type: ignore[arg-type]
        from sapis_lab.simulation import PotentialSurface

        return PotentialSurface(subject.potential)

    def _windows(self) -> Windows:
        """On all pairs of angles."""
        kT, circles = units.KB * self.ensemble.temperature, []
        for c, n in enumerate(self.n_windows):
            if c or self.arc is None:
                circles.append(circle(n, kT=kT, spacing=self.spacing))
            else:
                low, high = np.deg2rad(self.arc)
                circles.append(
                    circle(n, kT=kT, spacing=self.spacing, begin=low, turn=(high - low) * n / (n - 1))
                )
        grid = np.meshgrid(*(centers for centers, _ in circles), indexing="ij")
        centers = np.stack([axis.ravel() for axis in grid], 1)
        return Windows(self.torsions, centers, np.array([stiffness for _, stiffness in circles]))

    def _begin(self, subject: Subject, way: str) -> Any:
        """The frame where a walk begins: on an arc the one of least energy among those near its end."""
        frames, energy = alike_test_frames(subject)
        if self.arc is None:
            return frames[int(np.argmin(energy))]
        end = np.deg2rad(self.arc[0] if way == "up" else self.arc[1])
        angles = np.array([values(np.asarray(f.positions), self.torsions[0]) for f in frames])
        far = np.abs(difference(angles, end, period=2 * np.pi))
        near = np.nonzero(far <= np.sort(far)[min(_NEAR, len(far)) - 1])[0]
        return frames[near[np.argmin(energy[near])]]

    def _ways(self, windows: Windows, begin: np.ndarray, way: str) -> np.ndarray:
        """(R, C) from where the replicas begin, (R, C), to their centers."""
        up = np.mod(-windows.ways(begin), 2 * np.pi)
        ways = up if way == "up" else np.where(up > 0, up - 2 * np.pi, 0.0)
        if self.arc is not None:  # within the arc, whichever side of a center it begins
            low, length = np.deg2rad(self.arc[0]), np.deg2rad(self.arc[1] - self.arc[0])
            at = np.mod(begin[:, 0] - low, 2 * np.pi)
            at = np.where(at > 0.5 * length + np.pi, at - 2 * np.pi, at)
            ways[:, 0] = windows.centers[:, 0] - low - at
        return ways

    def score(self, measured: Measured) -> dict[str, float]:
        model = self._estimates(measured, "model")
        scores = {name: value for name, value in model.items() if isinstance(value, float)}
        if self.oracle is None:
            return scores
        reference = self._estimates(measured, "reference")
        there = np.isfinite(model["profile"]) & (reference["profile"] < LOW)
        apart = model["profile"][there] - reference["profile"][there]
        scores |= {
            "reference_delta_f": reference["delta_f"],
            "reference_error": reference["delta_f_error"],
            "reference_hysteresis": reference["hysteresis"],
            "delta_f_difference": abs(model["delta_f"] - reference["delta_f"]),
            "profile_mae": float(np.abs(apart - np.median(apart)).mean()),
        }
        for name in self.regions:
            of = f"population_{name}"
            scores[f"population_difference_{name}"] = abs(model[of] - reference[of])
        return scores

    def _estimates(self, measured: Measured, who: str) -> dict[str, Any]:
        """Scores of one surface, and its `profile` (n_bins,), eV."""
        walks = {part: arrays for part, arrays in measured.items() if part.startswith(f"{who}-")}
        first = next(iter(walks.values()))
        windows = Windows(self.torsions, first["centers"], first["stiffness"])
        kT = units.KB * self.ensemble.temperature
        both = Umbrella(windows, [w["values"] for w in walks.values()], kT=kT)
        basin = self._inside(both, self.basin)
        ways = []
        for way in ("up", "down"):
            some = [w["values"] for part, w in walks.items() if f"-{way}-" in part]
            one = Umbrella(windows, some, kT=kT)
            ways.append(one.difference(self._inside(one, self.basin)))
        error = both.resampled(lambda s: both.difference(basin, s), n=_REDRAWN, seed=self.seed).std(ddof=1)
        return {
            "delta_f": both.difference(basin),
            "delta_f_error": float(error),
            "hysteresis": abs(ways[0] - ways[1]),
            "solver_difference": both.solver_difference(),
            "overlap_gap": both.overlap_gap(),
            "profile": both.profile(0, np.linspace(-np.pi, np.pi, self.n_bins + 1)),
            **{
                f"population_{name}": both.population(self._inside(both, box))
                for name, box in self.regions.items()
            },
        }

    def _inside(self, umbrella: Umbrella, box: Box) -> np.ndarray:
        radians = [None if i is None else (np.deg2rad(i[0]), np.deg2rad(i[1])) for i in box]
        return within(umbrella.values, radians, self.torsions)


def alike_test_frames(subject: Subject) -> tuple[list[Any], np.ndarray]:
    """Of the test frames those with the atoms of the first one, as structures, and their labelled energies,
    (n,) eV, infinite without one."""
    ids = subject.test_frames()
    frames = subject.structures(ids)
    same = [k for k, f in enumerate(frames) if np.array_equal(f.species, frames[0].species)]
    energy = np.asarray(subject.store.energy[ids[same]], dtype=float)
    return [frames[k] for k in same], np.where(np.isnan(energy), np.inf, energy)
