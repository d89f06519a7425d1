"""Every adapter hands its code what it promises: right forces, no leak between frames, images and rotations
that change nothing."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from adapter_claims import deviations
from bench_frames import crystals, molecules
from torch import nn

from sapis_lab.bench import adapters, peer
from sapis_lab.bench.adapters import find_code
from sapis_lab.bench.environments import is_made, python_of

HERE = Path(__file__).resolve().parent
FRAMES: dict[str, Callable[[], dict[str, np.ndarray]]] = {
    "molecules": lambda: molecules(3),
    "crystals": crystals,
}
# float32; forces by differences of energies with a step of 0.01 Å
TOLERANCES = {
    "forces": 1e-2,
    "rotation": 1e-4,
    "batch": 1e-4,
    "images": 1e-4,
    "repeat": 1e-5,
    "silent": 0.0,
    "order": 1e-4,
    "training": 0.999,
}
OURS = ["e3nn-nequip,hidden=8,layers=2", "geat", "sapis-nequip,lmax=1,layers=2", "transformer"]
THEIRS = [
    "painn",
    "tensornet",
    "tensornet2",
    "et",
    "nequip",
    "nequip-S",
    "allegro",
    "mace-inv",
    "mace",
    "dpa4",
    "orb",
]


@pytest.fixture(scope="module")
def widths(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where widths are remembered from test to test; e3nn generates code for every width that is tried."""
    return tmp_path_factory.mktemp("widths") / "widths.json"


def check(found: dict[str, float], name: str) -> None:
    promised = {
        claim: limit
        for claim, limit in TOLERANCES.items()
        if claim != "rotation" or not find_code(name).rotate
    }
    broken = {
        claim: found[claim] for claim, limit in promised.items() if claim in found and found[claim] > limit
    }
    assert not broken, f"{name}: {broken} of {found}"


@pytest.mark.parametrize("frames", FRAMES)
@pytest.mark.parametrize("name", OURS)
def test_an_adapter_keeps_its_promises(
    name: str, frames: str, widths: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(peer.WIDTHS, str(widths))
    code = find_code(name)
    assert code.environment == "main"
    check(deviations(peer, code.adapter, code.model, 1e4, FRAMES[frames]()), name)


@pytest.mark.long
@pytest.mark.parametrize("frames", FRAMES)
@pytest.mark.parametrize("name", THEIRS)
def test_a_peer_keeps_them_in_its_own_environment(name: str, frames: str, tmp_path: Path) -> None:
    code = find_code(name)
    if not is_made(code.environment):
        pytest.skip(
            f"no environment {code.environment}; python -m sapis_lab.bench.environments {code.environment} "
            f"makes it"
        )
    file = tmp_path / "frames.npz"
    np.savez(file, **FRAMES[frames]())  # type: ignore[arg-type]
    folder = str(Path(peer.__file__).parent)
    command = [
        python_of(code.environment),
        "-P",
        HERE / "adapter_claims.py",
        folder,
        code.adapter,
        code.model,
        "1e5",
        file,
    ]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    found = json.loads(ran.stdout.strip().splitlines()[-1])
    check(found, name)
    assert abs(found["size"]) < 0.1


def test_a_rotation_moves_the_energy_of_the_one_model_that_is_not_invariant() -> None:
    code = find_code("transformer")
    assert code.rotate
    assert deviations(peer, code.adapter, code.model, 1e4, molecules(2))["rotation"] > 1e-3


def test_a_task_takes_its_frames_in_the_order_asked_for() -> None:
    arrays = crystals(3)
    task, alone = peer.Task(arrays, [2, 0]), peer.Task(arrays, [0])
    assert task.energy.tolist() == pytest.approx(arrays["E"][[2, 0]].tolist())
    last = task.edge_frame == 1
    assert torch.equal(task.center[last] - 4, alone.center) and torch.equal(
        task.neighbor[last] - 4, alone.neighbor
    )
    vectors = task.positions[task.neighbor] + task.translation - task.positions[task.center]
    assert (vectors.norm(dim=1) < task.cutoff).all() and (vectors.norm(dim=1) > 0).all()


def test_the_seed_and_nothing_else_decides_the_parameters() -> None:
    def weights(seed: int) -> torch.Tensor:
        sized = peer.make_sized(
            lambda w: nn.Linear(w, w, bias=False), 100, range(2, 20), key="square", seed=seed
        )
        assert sized.width == 10
        return next(sized.module.parameters()).detach()

    torch.manual_seed(11)
    first, state = weights(3), torch.random.get_rng_state()
    torch.randn(5)
    assert torch.equal(first, weights(3))
    assert not torch.equal(first, weights(4))
    torch.manual_seed(11)
    assert torch.equal(state, torch.random.get_rng_state())


def test_fit_width_finds_the_nearest_size_and_remembers_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []

    def make(width: int) -> nn.Module:
        built.append(width)
        return nn.Linear(width, width, bias=False)

    monkeypatch.setenv(peer.WIDTHS, str(tmp_path / "widths.json"))
    assert peer.fit_width(make, 1000, range(2, 200, 2), "square") == 32
    n_built = len(built)
    assert peer.fit_width(make, 1000, range(2, 200, 2), "square") == 32 and len(built) == n_built
    assert peer.fit_width(make, 1e9, range(2, 200, 2), "square") == 198


def test_options_follow_commas_and_unknown_ones_are_refused() -> None:
    assert peer.Spec.parse("mace,max_L=0,kind=a") == ("mace", {"max_L": 0, "kind": "a"})
    assert peer.Spec.parse("mace,max_L=0").take(max_L=1, layers=2) == {"max_L": 0, "layers": 2}
    with pytest.raises(ValueError, match="wanted one of layers"):
        peer.Spec.parse("painn,depth=2").take(layers=3)
    with pytest.raises(ValueError, match="key=value"):
        peer.Spec.parse("painn,depth")


def test_a_name_means_a_peer_first_and_a_kind_of_ours_where_it_is_free() -> None:
    assert find_code("nequip").environment == "nequip"
    ours = find_code("sapis-nequip,layers=2")
    assert (ours.environment, ours.adapter, ours.model) == ("main", "sapis", "nequip,layers=2")
    with pytest.raises(ValueError, match="no code 'schnet'; there are painn"):
        find_code("schnet")


def test_every_adapter_file_is_reached_by_a_name() -> None:
    files = {f.stem for f in Path(adapters.__file__).parent.glob("*.py")} - {"__init__"}
    assert files == {find_code(name).adapter for name in [*OURS, *THEIRS]}
