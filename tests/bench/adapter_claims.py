"""How far an adapter is from what every adapter promises, as numbers; runs in any environment that has torch
and numpy.

python -P adapter_claims.py FOLDER_OF_PEER_PY ADAPTER MODEL N_PARAMS FRAMES.npz     ->  one line of JSON,
after whatever the code prints
"""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import torch


def deviations(
    peer_module: Any, adapter: str, model: str, n_params: float, arrays: dict[str, np.ndarray]
) -> dict[str, float]:
    """Deviations of a model on a batch of several frames, relative where a scale is at hand.

    `forces`: -dE/dx by central differences along random directions, against the predicted.   `rotation`:
    change of the energies. `batch`: of a frame's energy and forces when it is alone.   `images`: of the
    energies when atoms move by whole cells. `order`: of energies and forces when the atoms of every frame
    come in reverse order. `repeat`: of everything when the same inputs are used again.
    `silent`: parameters without a gradient of a loss of energies and forces. `training`: that loss after five
    steps of Adam, over what it was. `size`: number of parameters over the request, minus one.
    """
    peer = peer_module.build(adapter, model, n_params, peer_module.Info.of(arrays, seed=1))
    generator = torch.Generator().manual_seed(5)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float32)

    def loss(predicted: Any) -> torch.Tensor:
        error: torch.Tensor = predicted.forces - task.forces
        return predicted.energy.square().mean() + error.square().mean()

    def ef(task: Any) -> tuple[torch.Tensor, torch.Tensor]:
        energy, forces = peer.ef(peer.prepare(task), False)
        return energy.detach().double(), forces.detach().double()

    peer.set_train(False)
    task = peer_module.Task(arrays)
    energy, forces = ef(task)
    if not forces.any():  # all branches end in maps that start at zero: nothing would be tested
        with torch.no_grad():
            for p in peer.params():
                if not p.any():
                    p += 0.1 * random(*p.shape)
        energy, forces = ef(task)
    scale = forces.abs().max().item()
    assert energy.shape == (task.n_frames,) and forces.shape == task.positions.shape and scale > 0
    found = {"size": peer.n_params() / n_params - 1}

    step, errors = 1e-2, []
    for _ in range(3):
        direction = random(*task.positions.shape)
        direction /= direction.norm()
        sides = []
        for sign in (1, -1):
            moved = peer_module.Task(arrays)
            moved.positions = task.positions + sign * step * direction
            sides.append(ef(moved)[0].sum().item())
        numeric = (sides[0] - sides[1]) / (2 * step)
        errors.append(abs(numeric + (forces * direction).sum().item()) / forces.norm().item())
    found["forces"] = max(errors)

    turned = peer_module.Task(arrays)
    rotation = torch.linalg.qr(random(3, 3))[0]
    turned.rotate(rotation * torch.linalg.det(rotation).sign())
    found["rotation"] = (ef(turned)[0] - energy).abs().max().item() / scale

    alone = [ef(peer_module.Task(arrays, [k])) for k in range(task.n_frames)]
    found["batch"] = max(
        (torch.cat([e for e, _ in alone]) - energy).abs().max().item(),
        (torch.cat([f for _, f in alone]) - forces).abs().max().item(),
    )
    found["batch"] /= scale

    if task.periodic:
        imaged = peer_module.Task(arrays)
        cells = torch.randint(-1, 2, task.positions.shape, generator=generator).float()
        imaged.positions = task.positions + torch.bmm(cells.unsqueeze(1), task.cell[task.frame]).squeeze(1)
        imaged.shift = task.shift + cells[task.center] - cells[task.neighbor]
        imaged.translation = torch.bmm(imaged.shift.unsqueeze(1), task.cell[task.edge_frame]).squeeze(1)
        found["images"] = (ef(imaged)[0] - energy).abs().max().item() / scale

    energy_back, forces_back = ef(peer_module.Task(reversed_atoms(arrays)))
    found["order"] = (energy_back - energy).abs().max().item() / scale
    back = torch.cat([torch.arange(a, b).flip(0) for a, b in pairwise(arrays["ptr"].tolist())])
    found["order"] = max(found["order"], (forces_back[back] - forces).abs().max().item() / scale)

    peer.set_train(True)
    inputs = peer.prepare(task)
    first = peer.ef(inputs, True)
    loss(first).backward()
    found["silent"] = float(sum(p.grad is None for p in peer.params()))
    again = peer.ef(inputs, True)
    found["repeat"] = (again.forces - first.forces).abs().max().item() / scale

    start = loss(first).item()
    optimizer = torch.optim.Adam(peer.params(), lr=1e-5)
    for _ in range(5):
        optimizer.zero_grad()
        loss(peer.ef(inputs, True)).backward()
        optimizer.step()
    found["training"] = loss(peer.ef(inputs, True)).item() / start
    return found


def reversed_atoms(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same frames with their atoms in reverse order, edges still sorted by centre."""
    ptr, eptr = arrays["ptr"], arrays["eptr"]
    order = np.concatenate([np.arange(a, b)[::-1] for a, b in pairwise(ptr)])  # its own inverse
    i, j = order[arrays["i"]], order[arrays["j"]]
    edges = np.concatenate([a + np.argsort(i[a:b], kind="stable") for a, b in pairwise(eptr)])
    return {
        **arrays,
        **{key: arrays[key][order] for key in ("z", "pos", "F")},
        "i": i[edges],
        "j": j[edges],
        "S": arrays["S"][edges],
    }


if __name__ == "__main__":
    folder, adapter, model, n_params, file = sys.argv[1:]
    sys.path.append(folder)
    import peer as peer_module

    torch.set_num_threads(1)
    with np.load(file) as archive:
        print(json.dumps(deviations(peer_module, adapter, model, float(n_params), dict(archive))))
