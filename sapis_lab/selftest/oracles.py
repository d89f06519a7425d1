"""The table of `sapis selftest oracles`: labels against what was published.

PBE/def2-SVP by PySCF against the test frames of revised MD17 (Christensen & von Lilienfeld, Mach. Learn.:
Sci. Technol. 1, 045018, 2020), and the potentials of our own against the values of their papers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.text import Text

from sapis_lab import units
from sapis_lab.config import ConfigError
from sapis_lab.data import need_file
from sapis_lab.oracles import Failed, Labels, OracleConfig
from sapis_lab.oracles.lennard_jones import LennardJonesAtom, LennardJonesConfig
from sapis_lab.oracles.pyscf import PyscfConfig
from sapis_lab.oracles.stillinger_weber import StillingerWeberConfig
from sapis_lab.oracles.tersoff import TersoffConfig
from sapis_lab.screen import new_table

PARTS = ("lennard_jones", "stillinger_weber", "tersoff", "pyscf")
RMD17 = PyscfConfig(grid_level=1)
"""As configs/oracles/pbe-def2svp.yaml."""
ETHANOL = "rmd17/rmd17_ethanol_test_01.npz"
MOST_FORCE_ERROR = 2.0
"""meV/Å, mean absolute difference from rMD17."""


class Checked(NamedTuple):
    """One value beside the published one."""

    oracle: str
    system: str
    quantity: str
    unit: str
    here: float
    published: float
    within: float
    """How far apart they may be."""
    source: str

    @property
    def good(self) -> bool:
        return abs(self.here - self.published) <= self.within


def run_oracles(
    parts: Sequence[str],
    *,
    n_frames: int,
    data: Path | None,
    console: Console,
    save: Callable[[dict[str, Any]], None],
) -> int:
    """Check the oracles named by `parts`; 1 if a value is farther from the published one than it may be.

    Raises:
        ConfigError: a part is not known, or its files are not there.
    """
    if unknown := [part for part in parts if part not in PARTS]:
        raise ConfigError(f"--parts: got {unknown[0]!r}, wanted some of {', '.join(PARTS)}")
    makers: dict[str, Callable[[], Iterator[Checked]]] = {
        "lennard_jones": lambda: lennard_jones(data),
        "stillinger_weber": stillinger_weber,
        "tersoff": tersoff,
        "pyscf": lambda: pyscf(data, n_frames=n_frames),
    }
    found: list[Checked] = []
    seconds: dict[str, float] = {}
    for part in parts:
        begin = time.process_time()
        found += makers[part]()
        seconds[part] = time.process_time() - begin
        save({"checks": [{**c._asdict(), "good": c.good} for c in found], "cpu_seconds": seconds})
    grid = new_table(
        "oracle", "system", "quantity", "unit", "here", "published", "within", "", "source",
        left=["oracle", "system", "quantity", "unit", "", "source"],
    )  # fmt: skip
    for c in found:
        grid.add_row(
            c.oracle,
            c.system,
            c.quantity,
            c.unit,
            f"{c.here:.6g}",
            f"{c.published:.6g}",
            f"{c.within:g}",
            "" if c.good else "no",
            c.source,
        )
    console.print(grid)
    n_bad = sum(not c.good for c in found)
    times = ", ".join(f"{part} {s:.0f} s" for part, s in seconds.items())
    console.print(Text(f"{len(found) - n_bad} of {len(found)} within their bounds; CPU time: {times}"))
    return 1 if n_bad else 0


# ------------------------------------------------------------------------------------------------- potentials


def lennard_jones(data: Path | None) -> Iterator[Checked]:
    """NIST's sample configuration and the ground state of the crystal, in reduced units."""
    reduced = LennardJonesConfig(
        atoms={"Ar": LennardJonesAtom(epsilon=1.0, sigma=1.0)}, cutoff=3.0, truncation="cut", tail=True
    )
    path = None if data is None else data / "lennard_jones" / "lj_sample_config_periodic4.xyz"
    if path is not None and path.is_file():
        rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
        box = np.diag([float(x) for x in rows[1][1:]])
        x = np.array([[float(c) for c in row[1:]] for row in rows[2:]])
        with_tail = _label(reduced, np.full(len(x), 18), x, box).energy
        plain = reduced.model_copy(update={"tail": False})
        without = _label(plain, np.full(len(x), 18), x, box).energy
        source = "NIST, configuration 4"
        yield Checked("lennard_jones", "30 atoms", "energy, cut at 3 σ", "ε", without, -16.790, 6e-4, source)
        yield Checked("lennard_jones", "30 atoms", "tail", "ε", with_tail - without, -0.54517, 6e-6, source)
    far = reduced.model_copy(update={"cutoff": 9.0})
    lattice, energy = _minimum(far, "Ar", "fcc", near=1.54)
    source = "lattice sums (Kittel)"
    yield Checked(
        "lennard_jones", "fcc", "energy per atom", "ε", energy, -(14.45392**2) / (2 * 12.13188), 2e-4, source
    )
    rest = (2 * 12.13188 / 14.45392) ** (1 / 6) * np.sqrt(2)
    yield Checked("lennard_jones", "fcc", "lattice constant", "σ", lattice, float(rest), 1e-4, source)


def stillinger_weber() -> Iterator[Checked]:
    """Silicon's diamond lattice; elastic constants were published with another ε."""
    source = "Phys. Rev. B 31, 5262"
    lattice, energy = _minimum(StillingerWeberConfig(), "Si", "diamond", near=5.43)
    yield Checked("stillinger_weber", "Si", "energy per atom", "eV", energy, -4.3364, 2e-4, source)
    yield Checked("stillinger_weber", "Si", "lattice constant", "Å", lattice, 5.431, 1e-3, source)
    c11, c12 = _elastic(StillingerWeberConfig(epsilon=2.315), "Si", "diamond", lattice)
    source = "Phys. Rev. B 46, 2250"
    yield Checked("stillinger_weber", "Si, ε 2.315 eV", "C11", "GPa", c11, 161.6, 1.0, source)
    yield Checked("stillinger_weber", "Si, ε 2.315 eV", "C12", "GPa", c12, 81.6, 1.0, source)


def tersoff() -> Iterator[Checked]:
    """The diamond lattices of carbon, silicon, germanium and silicon carbide."""
    source = "Phys. Rev. B 39, 5566"
    for formula, a, e in (("C", 3.566, -7.371), ("Si", 5.432, -4.63), ("Ge", 5.657, -3.85)):
        found, energy = _minimum(TersoffConfig(), formula, "diamond", near=a)
        yield Checked("tersoff", formula, "energy per atom", "eV", energy, e, 1e-3, source)
        yield Checked("tersoff", formula, "lattice constant", "Å", found, a, 1e-3, source)
    found, _ = _minimum(TersoffConfig(), "SiC", "zincblende", near=4.32)
    yield Checked("tersoff", "SiC", "lattice constant", "Å", found, 4.32, 2e-3, source)
    c11, c12 = _elastic(TersoffConfig(), "Si", "diamond", 5.432)
    source = "Phys. Rev. B 46, 2250"
    yield Checked("tersoff", "Si", "C11", "GPa", c11, 142.5, 1.0, source)
    yield Checked("tersoff", "Si", "C12", "GPa", c12, 75.4, 1.0, source)


def pyscf(data: Path | None, *, n_frames: int) -> Iterator[Checked]:
    """Mean absolute differences from the first test frames of rMD17 ethanol.

    Raises:
        ConfigError: the file is not there, or a frame could not be labelled.
    """
    if data is None:
        raise ConfigError(f"SAPIS_DATA is not set; wanted the folder that holds {ETHANOL}")
    with np.load(need_file(data, ETHANOL), allow_pickle=False) as archive:
        z, x = archive["nuclear_charges"], archive["coords"][:n_frames]
        e = archive["energies"][:n_frames] * units.KCAL_PER_MOL_TO_EV
        f = archive["forces"][:n_frames] * units.KCAL_PER_MOL_TO_EV
    found = [_label(RMD17, z, one) for one in x]
    force_error = 1e3 * float(np.abs(np.array([one.forces for one in found]) - f).mean())
    energy_error = 1e3 * (np.array([one.energy for one in found]) - e)
    system, source = f"ethanol, {len(x)} frames", "rMD17, test 01"
    yield Checked("pyscf", system, "force MAE", "meV/Å", force_error, 0.0, MOST_FORCE_ERROR, source)
    mean = float(np.abs(energy_error).mean())
    yield Checked("pyscf", system, "energy MAE", "meV", mean, 0.0, 5.0, source)
    spread = float(energy_error.std())
    yield Checked("pyscf", system, "energy, spread", "meV", spread, 0.0, 2.0, source)


# ------------------------------------------------------------------------------------------------- helpers


def _label(
    oracle: OracleConfig, species: np.ndarray, positions: np.ndarray, cell: np.ndarray | None = None
) -> Labels:
    pbc = None if cell is None else np.ones(3, dtype=bool)
    found = oracle.label(species, positions, cell=cell, pbc=pbc)
    if isinstance(found, Failed):
        raise ConfigError(f"oracle {oracle.kind!r} failed: {found.reason}")
    return found


def _crystal(formula: str, lattice: str, a: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Species, positions and cell of a conventional cell."""
    from ase.build import bulk

    atoms: Any = bulk(formula, lattice, a=a, cubic=True)
    return np.array(atoms.numbers), np.array(atoms.positions), np.array(atoms.cell.array)


def _minimum(oracle: OracleConfig, formula: str, lattice: str, *, near: float) -> tuple[float, float]:
    """Lattice constant and energy per atom of the minimum near a lattice constant."""
    from scipy.optimize import minimize_scalar

    def energy(a: float) -> float:
        species, x, cell = _crystal(formula, lattice, a)
        return _label(oracle, species, x, cell).energy / len(species)

    found = minimize_scalar(
        energy, bounds=(0.97 * near, 1.03 * near), method="bounded", options={"xatol": 1e-6}
    )
    return float(found.x), float(found.fun)


def _elastic(oracle: OracleConfig, formula: str, lattice: str, a: float) -> tuple[float, float]:
    """C11 and C12 of a cubic crystal, GPa, by central differences of the stress; atoms stay at their
    fractions, as symmetry has it for strains along the axes."""
    species, x, cell = _crystal(formula, lattice, a)
    h, ends = 1e-5, []
    for sign in (1, -1):
        strain = np.diag([1 + sign * h, 1.0, 1.0])
        stress = _label(oracle, species, x @ strain, cell @ strain).stress
        assert stress is not None
        ends.append(stress * units.EV_PER_A3_TO_GPA)
    slope = (ends[0] - ends[1]) / (2 * h)
    return float(slope[0, 0]), float(slope[1, 1])
