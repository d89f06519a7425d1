"""Imports point one way, and each outside package has one home ."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "sapis_lab"

# The first column: a part may import parts of its own and of lower rank.
TORCH_COLUMN = [
    {"text", "screen", "packages"},
    {"errors", "outside"},
    {"files"},
    {"units", "measures", "config", "elements", "catalogue", "download"},
    {"targets"},
    {"quantities"},
    {"jobs"},
    {"executors"},
    {"atoms", "graphs", "neighbors", "structures", "geometry", "integrators", "formats", "augmentation"},
    {"samplers", "generators", "heads"},
    {
        "models",
        "kernels",
        "soap",
        "soap_growth",
        "optimizers",
        "fine_tuning",
        "derivatives",
        "growth",
        "potential",
        "references",
        "batches",
        "calculator",
        "uncertainty",
        "oracles",
        "data",
        "propagators",
        "observables",
    },
    {"accounting", "exports", "training", "tasks", "simulation", "free_energy"},
    {"evaluation"},
    {"sweep"},
    {"scaling", "active"},
    {"selftest", "bench"},
    {"cli"},
]
# The second column never imports torch, and may be imported by anyone.
TABLE_COLUMN = [
    {"text", "screen", "packages"},
    {"errors", "outside"},
    {"files"},
    {"units", "measures", "config", "elements", "catalogue", "download"},
    {"targets"},
    {"quantities"},
    {"records"},
    {"analysis"},
    {"figures", "policies"},
    {"report"},
]

HOMES = {
    "lightning": {"training"},
    "pytorch_lightning": {"training"},
    "tensorboard": {"training"},
    "optuna": {"sweep.tuner"},
    "submitit": {"executors"},
    "matplotlib": {"figures"},
    "PIL": {"figures"},
    "jinja2": {"report"},
    "typer": {"cli", "sweep"},
    "rich": {"screen", "cli", "sweep", "scaling", "bench", "selftest", "report"},
    "tblite": {"oracles"},
    "pyscf": {"oracles"},
    "openmm": {"oracles", "exports"},
    "openmmml": {"exports"},
    "ipi": {"exports"},
    "torch_sim": {"exports"},
    "metatomic": {"exports"},
    "metatensor": {"exports"},
    "rdkit": {"oracles", "data"},
    "triton": {"kernels"},
    "h5py": {"formats", "selftest"},
    "mdtraj": {"formats"},
    "lmdb": {"formats", "bench"},
    "pymbar": {"free_energy"},
    "ase_db_backends": {"formats"},
    "phonopy": {"observables"},
}


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Every module of the package by its dotted name below `sapis_lab`, with its syntax tree."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(p for p in parts if p != "__init__")
        yield name, ast.parse(path.read_text())


def imported(name: str, tree: ast.Module) -> Iterator[str]:
    """Dotted names of all modules that `tree` imports, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"sapis_lab.{name} imports relatively; write the whole name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


MODULES = dict(modules())


def part(name: str) -> str:
    return name.split(".")[0]


def rank(part: str, column: list[set[str]]) -> int | None:
    return next((k for k, parts in enumerate(column) if part in parts), None)


def test_every_part_has_its_place():
    known = set().union(*TORCH_COLUMN, *TABLE_COLUMN)
    assert {part(name) for name in MODULES} - {""} <= known


@pytest.mark.parametrize("name", [n for n in MODULES if n])
def test_imports_point_one_way(name):
    for target in imported(name, MODULES[name]):
        if not target.startswith("sapis_lab."):
            continue
        to = part(target.removeprefix("sapis_lab."))
        if rank(to, TORCH_COLUMN) is None and rank(to, TABLE_COLUMN) is None:
            continue  # a name of the package page itself, such as sapis_lab.load_model
        mine, theirs = rank(part(name), TABLE_COLUMN), rank(to, TABLE_COLUMN)
        if mine is not None:
            assert theirs is not None and theirs <= mine, (
                f"sapis_lab.{name} imports {target}, which stands above it or needs torch"
            )
        elif theirs is None:
            mine, theirs = rank(part(name), TORCH_COLUMN), rank(to, TORCH_COLUMN)
            assert mine is not None and theirs is not None and theirs <= mine, (
                f"sapis_lab.{name} imports {target}, which stands above it"
            )


@pytest.mark.parametrize("package", HOMES)
def test_an_outside_package_has_one_home(package):
    users = {
        n for n, tree in MODULES.items() for target in imported(n, tree) if target.split(".")[0] == package
    }
    strangers = [
        n for n in users if not any(n == home or n.startswith(f"{home}.") for home in HOMES[package])
    ]
    assert not strangers, f"{package} belongs to {sorted(HOMES[package])}, but is imported by {strangers}"


def import_without(blocked: list[str], names: list[str]) -> subprocess.CompletedProcess[str]:
    """Import modules in a fresh process in which importing anything of `blocked` fails."""
    program = f"""
import importlib, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError("blocked: " + name)

sys.meta_path.insert(0, Blocker())
for name in {names!r}:
    importlib.import_module(name)
"""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)


def test_the_table_column_works_without_torch():
    parts = set().union(*TABLE_COLUMN)
    names = [f"sapis_lab.{n}" for n in MODULES if part(n) in parts]
    light = [
        "sapis_lab.cli",
        "sapis_lab.sweep.folder",
        "sapis_lab.sweep.run_study",
        "sapis_lab.sweep.submission",
        "sapis_lab.sweep.status",
        "sapis_lab.sweep.board",
    ]
    done = import_without(["torch", "lightning", "torch_geometric", "e3nn", "optuna", "ase"], names + light)
    assert done.returncode == 0, done.stderr


def test_training_on_a_finished_store_needs_no_label_source_and_no_tuner():
    names = ["sapis_lab.training.run", "sapis_lab.data"]
    chemistry = ["ase", "vesin", "tblite", "pyscf", "openmm", "rdkit"]
    done = import_without(["optuna", "submitit", "typer", *chemistry], names)
    assert done.returncode == 0, done.stderr


def test_the_command_starts_light():
    program = (
        "import sys, sapis_lab.cli; print([m for m in ('torch', 'pandas', 'numpy', 'scipy', 'matplotlib') if "
        "m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
