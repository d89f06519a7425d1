"""The table of `sapis selftest free-energy`: a reference for the free energies of alanine dipeptide.

AMBER ff99SB-ILDN with OBC solvent at 300 K, sampled by OpenMM in umbrella windows of φ and ψ that are walked
through up and down the circle, with two seeds (`_torsion_windows`). ΔF is that of 0° < φ < 140° against the
rest. It stands if every walk says the same, pymbar and the package's own solver agree, and populations are
those of plain dynamics (10 trajectories of 10 ns, figshare 10.6084/m9.figshare.1026131).

The protocols `fine` and `long` have springs on φ that are stiffer than the barrier at 135° is curved, so that
every window has one side; `long` stays five times as long in each. `soft`, 12 x 12 windows, obeys the same
rule of spacing and does not: its windows at the barrier stay on the side that a walk comes from, and neither
errors nor overlaps say so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from rich.console import Console
from rich.text import Text

from sapis_lab import units
from sapis_lab.config import ConfigError
from sapis_lab.free_energy import Umbrella, Windows, within
from sapis_lab.screen import new_table
from sapis_lab.selftest._torsion_windows import PHI, PSI, TEMPERATURE, Direction, Protocol, Walked, walked

PROTOCOLS = {
    "long": Protocol("long", 48, 18, 1.8, sampling=30.0, moving=2.0, equilibration=5.0),
    "fine": Protocol("fine", 48, 18, 1.8, sampling=6.0, moving=1.0, equilibration=2.0),
    "soft": Protocol("soft", 12, 12, 1.8, sampling=60.0, moving=2.0, equilibration=8.0),
    "phi": Protocol("phi", 25, 0, 1.8, sampling=350.0, moving=10.0, equilibration=40.0),
}
DIRECTIONS: tuple[Direction, ...] = ("up", "down")
BASIN = ((0.0, 140.0), None)
REGIONS = {
    "alphaR": ((-180.0, 0.0), (-150.0, 50.0)),
    "PPII": ((-110.0, 0.0), (50.0, -150.0)),
    "C5": ((180.0, -110.0), (50.0, -150.0)),
}
PUBLISHED = {"alphaR": (0.468, 0.030), "PPII": (0.276, 0.016), "C5": (0.256, 0.015)}
"""Of plain dynamics, mean and standard error."""
KJ = units.KJ_PER_MOL_TO_EV
MOST_APART, MOST_OF_SOLVERS, MOST_OF_POPULATION = 0.7, 0.05, 0.08
_N_BINS, _REDRAWN = 36, 20
_MOST_SAMPLES = 60_000
"""Of a weighing together: with 864 windows the table of energies is then 400 MB."""


class Checked(NamedTuple):
    """One number and how large it may be, kJ/mol or a share."""

    protocol: str
    quantity: str
    value: float
    most: float

    @property
    def good(self) -> bool:
        return abs(self.value) <= self.most


def run_free_energy(
    protocols: Sequence[str],
    *,
    walks: Sequence[str],
    folder: Path,
    console: Console,
    save: Callable[[dict[str, Any]], None],
) -> int:
    """Walk, weigh and check; 1 if a number is larger than it may be.

    Args:
        walks: 'up-SEED' and 'down-SEED', at least one of each direction.
        folder: of samples; walks that are there are not done again.

    Raises:
        ConfigError: a protocol or a walk is not known, or the molecule is not under $SAPIS_DATA.
    """
    for name in walks:
        if not re.fullmatch(r"(up|down)-\d{1,9}", name):
            raise ConfigError(f"--walks: got {name!r}, wanted up-SEED or down-SEED, as up-0")
    if {_direction(name) for name in walks} != set(DIRECTIONS):
        raise ConfigError(f"--walks: got {', '.join(walks)}; wanted walks of both directions")
    if unknown := [name for name in protocols if name not in PROTOCOLS]:
        raise ConfigError(f"--protocols: got {unknown[0]!r}, wanted some of {', '.join(PROTOCOLS)}")
    results: dict[str, Any] = {}
    checks: list[Checked] = []
    for name in protocols:
        protocol = PROTOCOLS[name]
        done = {
            walk: walked(
                folder, protocol, _direction(walk), seed=int(walk.split("-")[1]), progress=console.print
            )
            for walk in walks
        }
        results[name] = weighed(protocol, done)
        checks += list(_checks(name, results[name]))
        save({"results": results, "checks": [{**c._asdict(), "good": c.good} for c in checks]})
        _show(console, name, results[name])
    grid = new_table("protocol", "check", "value", "at most", "", left=["protocol", "check", ""])
    for c in checks:
        grid.add_row(c.protocol, c.quantity, f"{c.value:.3g}", f"{c.most:g}", "" if c.good else "no")
    console.print(grid)
    n_bad = sum(not c.good for c in checks)
    console.print(Text(f"{len(checks) - n_bad} of {len(checks)} within their bounds"))
    return 1 if n_bad else 0


def weighed(protocol: Protocol, walks: dict[str, Walked]) -> dict[str, Any]:
    """What walks say, alone and together; kJ/mol and shares."""
    alone = {name: _said(protocol, [walk]) for name, walk in walks.items()}
    every = _said(protocol, list(walks.values()), full=True)
    return {
        "windows": [protocol.n_phi, protocol.n_psi],
        "sampling_ps": protocol.sampling,
        "stiffness_kj_per_mol_rad2": [k / KJ for k in protocol.stiffness()],
        "walks": alone,
        "together": every,
        "cis": max(float(walk.cis.mean()) for walk in walks.values()),
        "mirrored": max(float(walk.mirrored.mean()) for walk in walks.values()),
        "stuck": _stuck(walks),
    }


def _said(protocol: Protocol, walks: Sequence[Walked], *, full: bool = False) -> dict[str, Any]:
    """ΔF and populations of some walks together; with its error, profile and solvers where it is `full`."""
    windows, values = _table(protocol, walks)
    most = max(5, _MOST_SAMPLES // (len(windows.centers) * len(walks)))
    umbrella = Umbrella(windows, values, kT=units.KB * TEMPERATURE, most=most)
    inside = _inside(umbrella, BASIN)
    found: dict[str, Any] = {
        "delta_f": umbrella.difference(inside) / KJ,
        "populations": {name: umbrella.population(_inside(umbrella, box)) for name, box in REGIONS.items()},
    }
    if not full:
        return found
    redrawn = umbrella.resampled(lambda s: umbrella.difference(inside, s) / KJ, n=_REDRAWN, seed=0)
    edges = np.linspace(-np.pi, np.pi, _N_BINS + 1)
    profile = umbrella.profile(0, edges) / KJ
    few = Umbrella(windows, values, kT=units.KB * TEMPERATURE, most=max(5, most // 4))
    return found | {
        "delta_f_error": float(redrawn.std(ddof=1)),
        "solver_difference": few.solver_difference() / KJ,
        "overlap_gap": umbrella.overlap_gap(),
        "inefficiency": float(umbrella.inefficiencies.mean()),
        "phi_degrees": np.rad2deg((edges[1:] + edges[:-1]) / 2).tolist(),
        "profile": [value if np.isfinite(value) else None for value in profile.tolist()],
    }


def _table(protocol: Protocol, walks: Sequence[Walked]) -> tuple[Windows, list[np.ndarray]]:
    """The windows in one order, and the samples (n_samples, R, 2) of every walk in it. Samples with a cis
    peptide bond or of the D form are another molecule, and refused."""
    order = [np.lexsort(np.round(np.rad2deg(walk.centers)).T) for walk in walks]
    centers = walks[0].centers[order[0]]
    for walk, which in zip(walks, order, strict=True):
        if walk.cis.any() or walk.mirrored.any():
            raise ConfigError(
                f"{protocol.name}: a walk has {walk.cis.mean():.1%} samples with a cis peptide bond and "
                f"{walk.mirrored.mean():.1%} of the D form; move more slowly"
            )
        assert np.allclose(np.cos(walk.centers[which]), np.cos(centers), atol=1e-6)
    values = [
        np.stack([walk.phi[which].T, walk.psi[which].T], -1) for walk, which in zip(walks, order, strict=True)
    ]
    return Windows((PHI, PSI), centers, np.array(protocol.stiffness())), values


def _inside(umbrella: Umbrella, box: Sequence[tuple[float, float] | None]) -> np.ndarray:
    radians = [None if i is None else (np.deg2rad(i[0]), np.deg2rad(i[1])) for i in box]
    return within(umbrella.values, radians, umbrella.windows.atoms)


def _direction(walk: str) -> Direction:
    return "up" if walk.startswith("up-") else "down"


def _pairs(names: Iterable[str], *, same: Literal["direction", "seed"]) -> list[tuple[str, str]]:
    """Walks that share their direction and not their seed, or the other way round."""
    part = 0 if same == "direction" else 1
    return [(a, b) for a, b in combinations(names, 2) if a.split("-")[part] == b.split("-")[part]]


def _stuck(walks: dict[str, Walked]) -> int:
    """Windows whose mean φ differs by more than 30° between directions: one is on the wrong side."""
    means = {}
    for name, walk in walks.items():
        order = np.lexsort(np.round(np.rad2deg(walk.centers)).T)
        means[name] = np.exp(1j * walk.phi[order]).mean(1)
    apart = [np.abs(np.angle(means[a] / means[b])) > np.deg2rad(30) for a, b in _pairs(means, same="seed")]
    return int(np.any(apart, 0).sum())


def _checks(name: str, found: dict[str, Any]) -> list[Checked]:
    delta_f = {walk: said["delta_f"] for walk, said in found["walks"].items()}
    checks = [
        Checked(name, f"ΔF of {a} and {b} apart, kJ/mol", delta_f[a] - delta_f[b], MOST_APART)
        for same in ("direction", "seed")
        for a, b in _pairs(delta_f, same=same)  # type: ignore[arg-type]
    ]
    checks.append(
        Checked(name, "two solvers apart, kJ/mol", found["together"]["solver_difference"], MOST_OF_SOLVERS)
    )
    for region, (published, _) in PUBLISHED.items():
        here = found["together"]["populations"][region]
        checks.append(Checked(name, f"{region} beyond plain dynamics", here - published, MOST_OF_POPULATION))
    return checks


def _show(console: Console, name: str, found: dict[str, Any]) -> None:
    grid = new_table("walks", "ΔF, kJ/mol", *REGIONS, left=["walks"])
    rows = {**found["walks"], "together": found["together"]}
    for label, row in rows.items():
        error = f" ± {row['delta_f_error']:.2f}" if "delta_f_error" in row else ""
        grid.add_row(
            label,
            f"{row['delta_f']:.2f}{error}",
            *(f"{row['populations'][region]:.3f}" for region in REGIONS),
        )
    grid.add_row("plain dynamics", "", *(f"{mean:.3f} ± {error:.3f}" for mean, error in PUBLISHED.values()))
    console.print(
        Text(
            f"{name}: {found['windows'][0]} x {found['windows'][1]} windows, {found['stuck']} of them on "
            f"another side up than down"
        )
    )
    console.print(grid)
