"""Small points on frames of unequal size, and what the tests have processes do with them."""

from __future__ import annotations

import json
import os
import resource
import selectors
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.emt import EMT
from ase.io import read, write
from safetensors.torch import load_file
from torch import Tensor

from sapis_lab.batches import TrainingStream
from sapis_lab.config import dump, dump_yaml, kind_class, load, read_yaml
from sapis_lab.files import write_text
from sapis_lab.training import PointConfig
from sapis_lab.training._ranks import join
from sapis_lab.training._signals import StopSignals
from sapis_lab.training.module import TrainingModule
from sapis_lab.training.run import prepare_task
from sapis_lab.training.step_forms import make_step

TARGET = "sapis_lab.training.run:run_point"
HERE = Path(__file__).resolve().parent
CORNERS = 2.6 * np.array([[i, j, k] for i in range(4) for j in range(4) for k in range(6)])


def write_clusters(folder: Path, *, sizes: tuple[int, ...] = (2, 9, 3, 6, 12), n: int = 20) -> Path:
    """Copper-gold clusters labelled by effective-medium theory, the largest with several times the atoms of
    the smallest."""
    rng, made = np.random.default_rng(0), []
    for k in range(n):
        size = sizes[k % len(sizes)]
        places = (
            np.concatenate([CORNERS[i : i + 1] for i in rng.permutation(len(CORNERS))[:size]])
            if size > 12
            else CORNERS[:size]
        )
        atoms = Atoms(
            rng.choice(["Cu", "Au"], size), places + rng.normal(scale=0.1, size=(size, 3)), calculator=EMT()
        )
        atoms.get_forces()
        made.append(atoms)
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "clusters.xyz", made, format="extxyz")
    return folder


def write_labelled(folder: Path) -> Path:
    """As `write_clusters`, with charges of atoms, dipole moments and a gap beside energies and forces, of
    which some frames lack some."""
    rng = np.random.default_rng(1)
    write_clusters(folder)
    labelled = []
    for k, atoms in enumerate(read(folder / "clusters.xyz", ":")):
        x = atoms.positions - atoms.positions.mean(0)
        electrons = np.where(atoms.numbers == 79, -0.3, 0.2) + rng.normal(scale=0.05, size=len(atoms))
        electrons -= electrons.mean()
        if k % 4 != 1:
            atoms.arrays["q"] = electrons
        if k % 3 != 2:
            atoms.info["mu"] = electrons @ x
        if k % 5 != 3:
            atoms.info["gap"] = 2.0 + 0.1 * len(atoms) + 0.1 * np.ptp(x)
        if k % 7 == 4:
            atoms.calc = None
        labelled.append(atoms)
    write(folder / "clusters.xyz", labelled, format="extxyz")
    return folder


LABELLED: dict[str, Any] = {
    "dipole_key": "mu",
    "charges_key": "q",
    "properties": {"gap": {"unit": "eV"}},
    "missing": "mask",
}
"""Settings of data that were written by `write_labelled`."""
TARGETS: list[dict[str, Any]] = [
    {"kind": "dipole"},
    {"kind": "charges"},
    {"kind": "property", "name": "gap", "unit": "eV"},
]


def make_point(
    folder: Path,
    data: Path,
    *,
    kind: str = "geat",
    n_params: float = 3e3,
    n_frames: int = 12,
    labels: dict[str, Any] | None = None,
    **train: Any,
) -> PointConfig:
    """A point in `folder`: its config.yaml; `labels` are further settings of its data."""
    settings = {"steps": 100, "batch_size": 4, "learning_rate": 0.01, "validations": 3, **train}
    source = {
        "kind": "extxyz",
        "train": "clusters.xyz",
        "n_validation": 4,
        "n_test": 3,
        "energy_unit": "eV",
        "length_unit": "Angstrom",
    }
    model = dump(kind_class("models", kind)(cutoff=4.0, layers=2).at_size(n_params, n_species=2))
    raw = {
        "id": folder.name,
        "data": {**source, **(labels or {}), "root": str(data)},
        "model": model,
        "n_params_target": n_params,
        "seed": 0,
    }
    config = load(PointConfig, {**raw, "n_frames": n_frames, "train": settings}, source="test")
    write_text(folder / "config.yaml", dump_yaml(config))
    return config


def weights(folder: Path) -> Tensor:
    """All parameters of a finished point, (n,) float64."""
    return torch.cat(
        [
            t.double().flatten()
            for _, t in sorted(load_file(folder / "model.safetensors").items())
            if t.is_floating_point()
        ]
    )


def n_rows(folder: Path) -> int:
    """Rows of a point's curve so far."""
    curve = folder / "metrics.csv"
    return max(0, curve.read_text().count("\n") - 1) if curve.exists() else 0


def wait_until(condition: Callable[[], object], *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.003)


def pid_of(folder: Path, rank: int = 0) -> int:
    """The process that last began as this rank of the point."""
    log = folder / (f"log.rank{rank}.txt" if rank else "log.txt")
    return int(
        [
            line.split("process ")[1].split()[0]
            for line in log.read_text().splitlines()
            if line.startswith("--- ")
        ][-1]
    )


class Launcher:
    """`sapis_lab.jobs.launcher` with everything imported, and what one may ask of it."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "launcher.txt"
        path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                # the tests of the engine look for children by the words of `-m`
                [
                    sys.executable,
                    "-c",
                    "from sapis_lab.jobs import launcher; launcher.main()",
                    "ranked_points",
                    "sapis_lab.training.run",
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": path, "SAPIS_RANK_TIMEOUT": "60"},
            )
        self.answers: list[dict[str, Any]] = []
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.process.stdout, selectors.EVENT_READ)
        self._until(lambda answer: "ready" in answer)

    def ask(self, **request: Any) -> None:
        self.process.stdin.write(json.dumps(request).encode() + b"\n")

    def start(
        self, folder: Path, *, cache: Path, ranks: int = 1, target: str = TARGET, **arguments: Any
    ) -> None:
        """Start a point."""
        if ranks > 1:
            arguments["devices"] = ranks
        self.ask(
            start=folder.name,
            folder=str(folder),
            target=target,
            arguments={"cache": str(cache), **arguments},
            ranks=ranks,
        )

    def signal(self, folder: Path, number: int) -> None:
        self.ask(stop=folder.name, signal=int(number))

    def wait(self, folder: Path) -> int:
        """Its exit status, once it has ended."""
        return self.ended(folder)["status"]

    def ended(self, folder: Path) -> dict[str, Any]:
        """All that is told when it has ended."""
        return self._until(lambda answer: answer.get("ended") == folder.name)

    def run(self, folder: Path, **arguments: Any) -> int:
        self.start(folder, **arguments)
        return self.wait(folder)

    def _until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        end = time.monotonic() + 120
        while True:
            for answer in self.answers:
                if wanted(answer):
                    self.answers.remove(answer)
                    return answer
            assert time.monotonic() < end, "the launcher does not answer"
            if self.selector.select(1.0):
                data = os.read(self.process.stdout.fileno(), 65536)
                assert data, self.log.read_text()
                self.answers += [json.loads(line) for line in data.splitlines()]

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=20)
        self.process.stdout.close()
        self.selector.close()


# ----------------------------------------------------------------------------------- targets, run in children


def save_gradients(folder: Path, *, cache: str, batch_sizes: list[int], devices: int = 1) -> None:
    """Loss and gradients of the first step for several sizes of the global batch, as every rank has them, in
    `gradients.rankN.pt`."""
    torch.set_num_threads(1)
    point = load(PointConfig, read_yaml(folder / "config.yaml"), source="test")
    ranks = join(devices, device=torch.device("cpu"), folder=folder)
    task = prepare_task(point, Path(cache))
    found = []
    for batch_size in batch_sizes:
        step = make_step(task.objective, form="eager")
        module = TrainingModule(
            task.model, point.train, steps=1, learning_rate=0.1, mean_loss=step, ranks=ranks
        )
        stream = TrainingStream(
            task.make,
            task.train_ids,
            batch_size=batch_size,
            seed=0,
            augment=False,
            first_step=lambda: 0,
            rank=ranks.rank,
            world=ranks.size,
            micro_batch=point.train.micro_batch,
        )
        module.backward(module.training_step(next(iter(stream)), 0))
        module.on_after_backward()
        found.append(
            [
                module.last_loss,
                *(None if p.grad is None else p.grad.clone() for p in task.model.parameters()),
            ]
        )
        task.model.zero_grad(set_to_none=True)
    torch.save(found, folder / f"gradients.rank{ranks.rank}.pt")
    ranks.wait()
    ranks.leave()


def run_starved(folder: Path, *, cache: str, megabytes: int) -> None:
    """Run the point with little more memory than the process has already."""
    from sapis_lab.training.run import run_point

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + megabytes * 2**20,) * 2)
    run_point(folder, cache=Path(cache))


def run_deaf(folder: Path, *, cache: str) -> None:
    """A step that never ends: it is asked to stop and says how often."""
    with StopSignals() as stop:
        while True:
            write_text(folder / "asked", str(stop.asked))
            time.sleep(0.01)


def run_and_raise(folder: Path, *, cache: str, devices: int = 1) -> None:
    """A rank of its own fault: rank 1 fails, rank 0 waits for it."""
    ranks = join(devices, device=torch.device("cpu"), folder=folder)
    if ranks.rank == 1:
        raise ValueError("no such thing on this node")
    ranks.wait()
