"""A kind of one's own is one file in a folder outside of the package, named by a study or by $SAPIS_KINDS."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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

FILES = {
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
