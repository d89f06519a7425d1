"""A kind of one's own is one file in a folder outside of the package, named by a study or by $SAPIS_KINDS."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sapis_lab import outside
from sapis_lab.config import ConfigError, kind_class, kinds
from sapis_lab.sweep.manifest import inputs_hash
from sapis_lab.sweep.study import load_study

ORACLE = '''
from typing import ClassVar, Literal

import numpy as np

from sapis_lab.oracles import Labels, OracleConfig


class SpringsConfig(OracleConfig):
    """Every atom on a spring of its own: E = k/2 sum |x|^2."""

    kind: Literal["springs"] = "springs"
    gives: ClassVar[frozenset[str]] = frozenset({"charges"})
    stiffness: float = 5.0
    """eV/A^2"""

    def label(self, species, positions, *, cell=None, pbc=None):
        x = np.asarray(positions)
        energy = 0.5 * self.stiffness * float((x**2).sum())
        return Labels(energy, -self.stiffness * x, charges=np.zeros(len(x)))

    def seconds(self, n_atoms):
        return 1e-5

    def level(self):
        return "springs"
'''

SAMPLER = '''
from typing import Literal

from sapis_lab.integrators.langevin import State
from sapis_lab.samplers import SamplerConfig


class RattleConfig(SamplerConfig):
    """Normal displacements about where the chain is."""

    kind: Literal["rattle"] = "rattle"
    width: float = 0.05
    """A"""

    def start(self, positions, *, masses, generator):
        return State(positions, 0 * positions)

    def advance(self, state, force, *, masses, n_steps, generator):
        moves = self.width * generator.standard_normal(state.positions.shape)
        return State(state.positions + moves, state.momenta)
'''

DATA = '''
from typing import Literal

from sapis_lab.data.dynamics import DynamicsDataConfig, SystemConfig


class TinyConfig(DynamicsDataConfig):
    """Rattled ethanol."""

    kind: Literal["tiny"] = "tiny"
    n_train: int = 24
    n_validation: int = 6
    n_test: int = 6
'''

FIGURE = """
from sapis_lab.figures import NotDrawn


def draw(study):
    return NotDrawn("a figure of its own has looked at the study")
"""

MODEL = '''
from typing import Literal

import torch

from sapis_lab.models import Flops, Model, ModelConfig


class PairsConfig(ModelConfig):
    """Energies of pairs."""

    kind: Literal["pairs"] = "pairs"
    channels: int = 32
    """Width of the network of distances."""

    def _build(self, species, mean_neighbors):
        return Pairs(self, species=species)

    def resized(self, channels, secondary):
        return self.model_copy(update={"channels": channels})

    def flops(self, *, n_atoms, n_pairs, n_species):
        return Flops(matmul=4 * n_pairs * self.channels, elementwise=8 * n_pairs * self.channels)


class Pairs(Model):
    symmetry, layout = "O(3)", "edges"

    def __init__(self, config, *, species):
        super().__init__(species=species, cutoff=config.cutoff)
        width = config.channels
        self.net = torch.nn.Sequential(torch.nn.Linear(1, width), torch.nn.Tanh(), torch.nn.Linear(width, 1))

    def atomic_energy(self, features, batch):
        r = features[0].norm(dim=-1, keepdim=True)
        pair = self.net(r) * (1 - r / self.cutoff).clamp(min=0) ** 3
        energy = pair.new_zeros(len(batch.species)).index_add(0, batch.graph.center, pair.squeeze(-1))
        return energy, energy[:, None], {}

    def equivariant_parameters(self):
        return iter(())
'''

EXECUTOR = '''
import json
import subprocess
import sys
from typing import Literal

from sapis_lab.executors import Capacity, ExecutorConfig
from sapis_lab.jobs.executor import Ended


class AloneConfig(ExecutorConfig):
    """One job at a time, each in a Python of its own."""

    kind: Literal["alone"] = "alone"
    diary: str = "alone.txt"
    """Where it is said which jobs were run."""

    def check(self):
        pass

    def capacity(self, *, device, devices, n_jobs="auto"):
        return Capacity("cpu", 1)

    def build(self, folder, task, *, capacity, devices, expected):
        return Alone(task, folder / self.diary)


class Alone:
    def __init__(self, task, diary):
        self.task, self.diary, self.process, self.running = task, diary, None, ()

    @property
    def n_free(self):
        return 1 - len(self.running)

    def open(self, on_event, give_up):
        pass

    def start(self, *folders):
        for folder in folders:
            arguments = json.dumps({**self.task.arguments, "device": "cpu"})
            words = ["-m", "sapis_lab.jobs.rank", str(folder), "--target", self.task.target]
            self.process = subprocess.Popen([sys.executable, *words, "--arguments", arguments])
            self.running = (folder.name,)
            with self.diary.open("a") as diary:
                diary.write(folder.name + chr(10))

    def stop(self, *ids):
        self.process.terminate()

    def poll(self, timeout):
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return []
        (id,), self.running = self.running, ()
        return [Ended(id, status)]

    def close(self):
        self.process.kill()
'''

TARGET = '''
from typing import ClassVar, Literal

from sapis_lab.targets import HeadTarget, usual_measures


class QuadrupoleTarget(HeadTarget):
    """Traceless second moments of a frame."""

    kind: Literal["quadrupole"] = "quadrupole"

    per: ClassVar[str] = "frame"
    rank: ClassVar[int] = 2
    unit: ClassVar[str] = "e Å²"
    head: ClassVar[str] = "moments"

    def measures(self):
        return usual_measures("quadrupole", "quadrupole", self.unit)
'''

HEAD = '''
from typing import Literal

import torch

from sapis_lab.heads import Head, HeadConfig, Perceptron


class MomentsConfig(HeadConfig):
    """Second moments of latent charges about the centre of the frame, without their trace."""

    kind: Literal["moments"] = "moments"

    def build(self, target, *, n_features, cutoff):
        if (target.per, target.rank) != ("frame", 2):
            raise ValueError(f"train.heads.{target.key}: moments are matrices of frames")
        return Moments(n_features, self.hidden)


class Moments(Head):
    def __init__(self, n_features, hidden):
        super().__init__()
        self.network = Perceptron(n_features, hidden)

    def forward(self, node_features, batch):
        charges = self.atom_scale * self.network(node_features).squeeze(1)
        center = self.summed(batch.positions, batch) / batch.n_atoms.unsqueeze(1)
        x = (batch.positions - center.index_select(0, batch.batch)).to(charges.dtype)
        outer = self.summed(charges.view(-1, 1, 1) * x.unsqueeze(2) * x.unsqueeze(1), batch)
        third = outer.diagonal(dim1=1, dim2=2).sum(1) / 3
        return outer - third.view(-1, 1, 1) * torch.eye(3, dtype=outer.dtype)
'''

TASK = '''
from typing import Literal

from sapis_lab.tasks import TaskConfig
from sapis_lab.tasks.properties import PropertiesConfig


class MatricesConfig(TaskConfig):
    """Properties alone, and only matrices."""

    kind: Literal["matrices"] = "matrices"

    def targets(self, train):
        found = PropertiesConfig().targets(train)
        if any(target.rank != 2 for target in found):
            raise ValueError("task: matrices learns matrices alone")
        return found

    def objective(self, model, targets):
        return PropertiesConfig().objective(model, targets)

    def equip(self, model, train, *, seed):
        PropertiesConfig().equip(model, train, seed=seed)

    def prepare(self, point, store, ids, *, siblings):
        return PropertiesConfig().prepare(point, store, ids, siblings=siblings)
'''

FILES = {
    "targets/quadrupole.py": TARGET,
    "heads/moments.py": HEAD,
    "tasks/matrices.py": TASK,
    "oracles/springs.py": ORACLE,
    "samplers/rattle.py": SAMPLER,
    "data/tiny.py": DATA,
    "figures/of_mine.py": FIGURE,
    "models/pairs.py": MODEL,
    "executors/alone.py": EXECUTOR,
}
STUDY = """
question: Do kinds from outside do all that those of the package do?
kinds: mine
data:
  kind: tiny
  oracle: {kind: springs}
  sampler: {kind: rattle}
  trajectory_frames: 12
  interval_fs: 1
  equilibration_fs: 0
models: [{kind: pairs, cutoff: 4.0}]
lattice: {n_params: [100], n_frames: [8, 24]}
train: {use: default, steps: 4, batch_size: 4, validations: 2}
law: {bootstrap: 100, calibrate: 0}
run: {executor: {kind: alone, diary: diary.txt}}
"""

MOMENTS = """
question: How do second moments scale that nobody in the package knows of?
kinds: mine
data:
  kind: extxyz
  train: chains.xyz
  n_validation: 6
  n_test: 6
  energy_unit: eV
  length_unit: Angstrom
  energy_key: null
  forces_key: null
  properties: {quadrupole: {rank: 2, unit: e Å²}}
models: [{kind: geat, cutoff: 4.0, layers: 1}]
lattice: {n_params: [3000], n_frames: [8, 24]}
train: {use: default, task: {kind: matrices}, targets: [{kind: quadrupole}], steps: 80, validations: 2}
law: {quantity: val_quadrupole_rmse, bootstrap: 100, calibrate: 0}
"""


@pytest.fixture
def mine(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a kind of every sort in a folder of its own, and a study that names it."""
    for name, text in FILES.items():
        path = project / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (project / "studies" / "mine.yaml").write_text(STUDY)
    monkeypatch.setenv(outside.VARIABLE, "")  # put back what a test adds
    yield project
    monkeypatch.undo()
    outside.refresh()


@pytest.mark.long
def test_a_study_uses_a_kind_of_every_sort_from_outside(mine: Path, sapis) -> None:
    done = sapis("study", "run", "mine", "--workers", "2")
    assert done.returncode == 0, done.stderr + done.stdout
    folder = mine / "results" / "mine"
    assert (
        "a figure of its own has looked at the study" in (folder / "figures" / "not_drawn.json").read_text()
    )
    assert (folder / "runs.csv").read_text().count(",pairs,") == 2
    assert "nothing to do" in sapis("study", "run", "mine").stdout
    points = sorted(p.name for p in (folder / "points").iterdir())
    assert sorted((folder / "diary.txt").read_text().split()) == points
    assert "2 points on cpu, 1 at a time" in done.stdout
    # its potential opens where the variable names the kind of its model
    (point,) = (folder / "points").glob("*d8*")
    program = f"import sapis_lab; print(type(sapis_lab.load_model({str(point)!r}).potential.model).__name__)"
    for kinds_of, wanted in ((str(mine / "mine"), "Pairs"), ("", "no models kind 'pairs'")):
        environment = {**os.environ, outside.VARIABLE: kinds_of}
        opened = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True
        )
        assert wanted in opened.stdout + opened.stderr


def write_moments(path: Path) -> float:
    """Bent chains with the second moments of charges that belong to their elements; returns what they are in
    the root mean square."""
    rng, lines, every = np.random.default_rng(0), [], []
    for _ in range(36):
        x = np.cumsum(np.column_stack([1.3 * np.ones(4), rng.normal(scale=0.4, size=(4, 2))]), 0)
        x -= x.mean(0)
        q = np.array([0.4, -0.6, 0.4, -0.6])
        moments = np.einsum("a,ai,aj->ij", q, x, x)
        moments -= np.trace(moments) / 3 * np.eye(3)
        every.append(moments)
        text = " ".join(f"{v:.9f}" for v in moments.ravel())
        lines += ["4", f'Properties=species:S:1:pos:R:3 quadrupole="{text}"']
        lines += [f"{s} {a:.9f} {b:.9f} {c:.9f}" for s, (a, b, c) in zip("COCO", x, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return float(np.sqrt(np.mean(np.square(every))))


@pytest.mark.long
def test_a_study_learns_a_target_from_outside_with_a_head_and_a_task_from_outside(mine: Path, sapis) -> None:
    size = write_moments(mine / "chains.xyz")
    (mine / "studies" / "moments.yaml").write_text(MOMENTS, encoding="utf-8")
    done = sapis("study", "run", "moments", SAPIS_DATA=str(mine))
    assert done.returncode == 0, done.stderr + done.stdout
    folder = mine / "results" / "moments"
    page = (folder / "report.html").read_text()
    assert "validation quadrupole RMSE" in page and "e Å²" in page
    runs = pd.read_parquet(folder / "runs.parquet")
    assert [c for c in runs if c.startswith("val_")] == ["val_quadrupole_rmse", "val_quadrupole_mae"]
    assert (runs["test_quadrupole_rmse"] < 0.5 * size).all(), (runs["test_quadrupole_rmse"], size)
    (point,) = (folder / "points").glob("*d24*")
    program = f"""if True:
        import numpy as np, sapis_lab
        from sapis_lab.structures import Structure
        potential = sapis_lab.load_model({str(point)!r}).potential
        x = np.array([[0, 0, 0], [1.3, 0.2, 0], [2.6, -0.3, 0.4], [3.9, 0.1, 0.2]])
        found = potential.predict(Structure(np.array([6, 8, 6, 8]), x)).properties["quadrupole"][0]
        print(np.abs(found - found.T).max() < 1e-6, abs(np.trace(found)) < 1e-5, found.shape)
    """
    environment = {**os.environ, outside.VARIABLE: str(mine / "mine")}
    opened = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert "True True (3, 3)" in opened.stdout, opened.stderr
    with pytest.raises(ConfigError, match="task: matrices learns matrices alone"):
        load_study("moments", ["train.targets=[dipole]"])


def test_the_variable_adds_kinds_to_those_of_the_package(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "springs" not in kinds("oracles")
    monkeypatch.setenv(outside.VARIABLE, str(mine / "mine"))
    assert (
        set(kinds("oracles")) >= {"springs", "xtb"}
        and kind_class("oracles", "springs").__name__ == "SpringsConfig"
    )
    before = inputs_hash("smoke", [])
    (mine / "mine" / "figures" / "of_mine.py").write_text(FIGURE.replace("has looked", "looked again"))
    assert inputs_hash("smoke", []) != before, "an edited file of one's own reopens a study"


def test_what_is_wrong_with_kinds_from_outside_names_them(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"studies/mine\.yaml: kinds: .*nowhere is no folder"):
        load_study("mine", ["kinds=nowhere"])
    monkeypatch.setenv(outside.VARIABLE, str(mine / "mine"))
    (mine / "mine" / "models" / "geat.py").write_text(MODEL)
    twice = (
        r"models kind 'geat' is defined twice, by sapis_lab\.models\.geat and "
        r"sapis_lab\.outside\.models\.geat"
    )
    with pytest.raises(ValueError, match=twice):
        kinds("models")


def test_entry_points_of_packages_are_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    from sapis_lab import config

    found = (EntryPoint("elsewhere", "sapis_lab.oracles.xtb", "sapis_lab.oracles"),)
    monkeypatch.setattr(config, "entry_points", lambda group: found if group == "sapis_lab.oracles" else ())
    config._modules.cache_clear()
    try:
        assert "elsewhere" in kinds("oracles") and kind_class("oracles", "elsewhere").__name__ == "XtbConfig"
    finally:
        config._modules.cache_clear()
