"""`sapis bench peers`: codes are found in their environments, what is missing is told, and one protocol
serves all."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import torch

import sapis_lab
from sapis_lab import cli
from sapis_lab.bench import environments
from sapis_lab.bench.inputs import INPUTS, make_input
from sapis_lab.bench.peer import Task
from sapis_lab.bench.peers import PEERS, peer_code
from sapis_lab.bench.step import StepJob, model_config
from sapis_lab.bench.worker import PeerJob
from sapis_lab.config import ConfigError, dump


@pytest.fixture
def sapis(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., CompletedProcess[str]]:
    """Runs `sapis bench` in this process, which has imported everything already."""

    def run(*arguments: str) -> CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["sapis", "bench", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as exit:
            code = int(exit.code or 0)
        out = capsys.readouterr()
        return CompletedProcess(arguments, code, out.out, out.err)

    return run


def broken_environment(root: Path, name: str) -> None:
    """An environment that looks complete and whose interpreter says why it cannot run."""
    python = root / name / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\necho \"ModuleNotFoundError: No module named '{name}'\" >&2\nexit 1\n")
    python.chmod(0o755)
    (root / name / "installed.txt").write_text("torch==0\n")


def test_every_peer_has_an_adapter_and_an_environment():
    adapters = {path.stem for path in (Path(environments.__file__).parent / "adapters").glob("*.py")}
    for code in map(peer_code, (*PEERS, "geat")):
        assert code.adapter in adapters and code.environment in (
            environments.MAIN,
            *environments.ENVIRONMENTS,
        )


def test_names_are_peers_or_our_models_with_options():
    assert peer_code("mace:layers=1").model == "mace,layers=1"
    assert peer_code("geat-l1") == peer_code("geat:lmax=1")
    for name, model in {"geat": "geat", "geat-l1": "geat,lmax=1", "sapis-nequip": "nequip"}.items():
        assert (peer_code(name).environment, peer_code(name).adapter, peer_code(name).model) == (
            environments.MAIN,
            "sapis",
            model,
        )
    assert peer_code("nequip").environment == "nequip"
    with pytest.raises(ConfigError, match=r"no 'nequipp'.*; peers: nequip, "):
        peer_code("nequipp")


@pytest.mark.parametrize("name", INPUTS)
def test_peers_get_the_frames_edges_and_targets_of_the_input(name):
    data = make_input(name)
    task, batch = Task(data.arrays()), data.batch(layout="edges")
    assert torch.equal(task.species, batch.species) and torch.equal(task.n_atoms, batch.n_atoms)
    assert torch.equal(torch.stack([task.neighbor, task.center]), batch.edge_index)
    vectors = task.positions[task.neighbor] + task.translation - task.positions[task.center]
    torch.testing.assert_close(vectors, batch.graph.vectors(batch.positions, batch.cell), rtol=0, atol=1e-5)
    torch.testing.assert_close(task.forces, batch.forces)


def test_our_adapter_takes_the_same_step_as_our_own_measurement(tmp_path):
    np.savez(tmp_path / "eth16.npz", **make_input("eth16").arrays())
    peer = PeerJob(adapter="sapis", model="geat,lmax=1", n_params=2e3, arrays=str(tmp_path / "eth16.npz"))
    ours = StepJob(model=dump(model_config("geat-l1").at_size(2e3, n_species=3)), input="eth16", device="cpu")
    assert peer.facts["n_params"] == ours.facts["n_params"]
    for job in (peer, ours):
        job.enter("infer")
    scale = float(ours.model.energy_scale)
    for found, wanted in zip(peer.energies_and_forces(), ours.energies_and_forces(), strict=True):
        torch.testing.assert_close(found, wanted / scale, rtol=1e-3, atol=1e-4)


def test_workers_need_torch_and_numpy_alone():
    package = str(Path(sapis_lab.__file__).parent)
    code = (
        "import sys, types\n"
        f"package = types.ModuleType('sapis_lab'); package.__path__ = [{package!r}]; "
        f"sys.modules['sapis_lab'] = package\n"
        "for name in ('pydantic', 'yaml', 'rich', 'typer', 'torch_geometric', 'lightning', 'e3nn', 'scipy', "
        "'ase', 'vesin', 'pandas'):\n"
        "    sys.modules[name] = None\n"
        "import sapis_lab.bench.worker, sapis_lab.bench.accuracy_run\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_code_that_fails_is_reported_beside_those_that_run(sapis, tmp_path):
    broken_environment(tmp_path / "peers", "nequip")
    path = tmp_path / "peers.json"
    done = sapis(
        "peers",
        "--models",
        "nequip,geat",
        "--sizes",
        "3e3",
        "--inputs",
        "eth16",
        "--rounds",
        "1",
        "--visit",
        "0",
        "--root",
        str(tmp_path / "peers"),
        "--json",
        str(path),
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert (
        "failed  nequip at 3000: its process ended with status 1: ModuleNotFoundError: No module named "
        "'nequip'" in done.stdout
    )
    written = json.loads(path.read_text())
    assert written["what"] == "peers" and written["reference"] == "geat"
    dead, alive = written["rows"]
    assert dead["train"] is None and "ModuleNotFoundError" in dead["error"]
    assert (
        alive["error"] is None
        and alive["count_error"] is None
        and alive["train"]["ratio"] == 1.0
        and alive["train"]["flops"] > 0
    )


def test_a_missing_environment_is_told_with_the_command_that_makes_it(sapis, tmp_path):
    done = sapis("peers", "--models", "geat,painn,mace", "--root", str(tmp_path))
    assert (
        done.returncode == 2 and f"sapis bench environments schnetpack mace --root {tmp_path}" in done.stderr
    )
    alone = sapis("peers", "--models", "painn", "--installed", "--root", str(tmp_path))
    assert (
        alone.returncode == 2 and "left out: painn" in alone.stdout and "nothing to measure" in alone.stderr
    )


def test_what_is_typed_wrongly_is_told(sapis, tmp_path):
    unknown = sapis("peers", "--models", "geat,nequipp")
    assert unknown.returncode == 2 and "no 'nequipp'" in unknown.stderr and "peers: nequip" in unknown.stderr
    data = sapis("peers", "--models", "geat", "--inputs", "eth17")
    assert data.returncode == 2 and "no input 'eth17'; there are eth16" in data.stderr
    nothing = sapis("accuracy", "--folder", str(tmp_path))
    assert nothing.returncode == 2 and "nothing has been measured" in nothing.stderr
    code = sapis("accuracy", "nequipp", "--root", str(tmp_path))
    assert code.returncode == 2 and "no code 'nequipp'" in code.stderr
    kind = sapis("accuracy", "geat", "--optimizer", "muon", "--root", str(tmp_path))
    assert kind.returncode == 2 and "--optimizer muon: wanted adamw or soap" in kind.stderr
    place = sapis("environments", "nequipp", "--root", str(tmp_path))
    assert place.returncode == 2 and "no environment 'nequipp'; there are nequip" in place.stderr
