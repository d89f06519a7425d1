"""How far a training with several ranks is from that with one: `sapis selftest ranks`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from sapis_lab.config import dump, dump_yaml, kind_class, load, read_yaml
from sapis_lab.derivatives import predict
from sapis_lab.files import write_text
from sapis_lab.jobs.folder import FAILURE, LOG
from sapis_lab.jobs.launcher import fork_ranks
from sapis_lab.models import ModelConfig
from sapis_lab.records import read_record
from sapis_lab.selftest.contracts import SPECIES, random_molecule
from sapis_lab.tasks import energy_loss
from sapis_lab.training import PointConfig
from sapis_lab.training.run import prepare_task

MODELS = ("geat", "nequip")
"""One with a compiled kernel and one without."""
_SIZES = (2, 3, 5, 9, 14, 20)
_MORSE = (1.0, 1.8, 1.3)
"""Depth, eV, 1/length, 1/Å, and distance of the minimum, Å, of every pair."""


def rank_table(*, n_ranks: int = 2, steps: int = 50) -> str:
    """Largest relative differences of the parameters after `steps` steps of `n_ranks` gloo ranks and of one,
    by model and precision.

    Frames have 2 to 20 atoms and a global batch has 5 of them, so that the ranks differ in frames and in
    atoms at every step. The difference of a parameter is relative to the largest element of its tensor; the
    errors are those of the two trained models.
    """
    titles = ("parameters", "idle ones", "error, 1 rank", f"{n_ranks} ranks, eV/Å")
    lines = [f"{'model':<12}{'precision':<11}{'N':>7}" + "".join(f"{title:>17}" for title in titles)]
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        write_molecules(root / "molecules.xyz")
        for kind in MODELS:
            for precision in ("float64", "float32"):
                folders = [_trained(root, kind, precision, n, steps) for n in (1, n_ranks)]
                if precision == "float64":
                    idle = _idle(folders[0], root / "cache")
                one, several = (load_file(f / "model.safetensors") for f in folders)
                apart = {k: (several[k] - one[k]).abs() / one[k].abs().max().clamp(min=1e-30) for k in idle}
                busy, rest = (
                    max((float(x) for k, i in idle.items() for x in apart[k][i == want]), default=0.0)
                    for want in (False, True)
                )
                records = [read_record(f) for f in folders]
                errors = "".join(f"{r.metrics['val_force_rmse']:>17.9f}" for r in records)
                lines.append(
                    f"{kind:<12}{precision:<11}{records[0].n_params:>7}{busy:>17.1e}{rest:>17.1e}{errors}"
                )
    return "\n".join(
        [
            *lines,
            f"Largest |difference| of a parameter after {steps} steps, over the largest of its tensor. Idle: "
            f"the loss does not depend on",
            "it (an offset of all attention scores, say), so its gradient is rounding, which AdamW enlarges. "
            "Error: val_force_rmse.",
        ]
    )


def _idle(folder: Path, cache: Path) -> dict[str, Tensor]:
    """Of every parameter of a trained float64 point, which elements the loss of its training frames does not
    depend on."""
    point = load(PointConfig, read_yaml(folder / "config.yaml"), source=str(folder), recorded=True)
    task = prepare_task(point, cache)
    task.model.load_state_dict(load_file(folder / "model.safetensors"))
    batch = task.make(task.train_ids)
    energy_loss(
        predict(task.model, batch, differentiable=True),
        batch,
        scale=task.model.energy_scale,
        config=point.train.loss,
    ).backward()
    gradients = {
        name: torch.zeros_like(p) if p.grad is None else p.grad.abs()
        for name, p in task.model.named_parameters()
    }
    largest = max(float(g.max()) for g in gradients.values())
    return {name: g < 1e-11 * largest for name, g in gradients.items()}


def write_molecules(path: Path, n_frames: int = 48) -> None:
    """Random molecules with the energies and forces of a Morse potential between all pairs, as extended
    XYZ."""
    depth, slope, distance = _MORSE
    rng, symbols, lines = np.random.default_rng(0), {1: "H", 6: "C", 8: "O"}, []
    for k in range(n_frames):
        frame = random_molecule(_SIZES[k % len(_SIZES)], rng)
        v = frame.positions[:, None] - frame.positions[None]
        r = np.linalg.norm(v, axis=-1) + np.diag(np.full(len(v), np.inf))
        decay = np.exp(-slope * (r - distance))
        energy = 0.5 * depth * (decay**2 - 2 * decay).sum()
        forces = (2 * depth * slope * (decay**2 - decay) / r)[..., None] * np.where(
            np.isfinite(r)[..., None], v, 0.0
        )
        lines += [str(len(v)), f'Properties=species:S:1:pos:R:3:forces:R:3 energy={energy:.12f} pbc="F F F"']
        for z, x, f in zip(frame.species, frame.positions, forces.sum(1), strict=True):
            lines.append(" ".join([symbols[int(z)], *(f"{c:.12f}" for c in (*x, *f))]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _trained(root: Path, kind: str, precision: str, n_ranks: int, steps: int) -> Path:
    """The folder of the point, trained."""
    plain = kind_class("models", kind).model_validate({"kind": kind})
    assert isinstance(plain, ModelConfig)
    data = {"kind": "extxyz", "root": str(root), "train": "molecules.xyz", "n_validation": 8, "n_test": 4}
    train = {"steps": steps, "batch_size": 5, "precision": precision, "ema": None, "validations": 1}
    raw: dict[str, Any] = {
        "id": f"{kind}-{precision}-{n_ranks}",
        "data": {**data, "energy_unit": "eV", "length_unit": "Angstrom"},
        "train": train,
        "model": dump(plain.at_size(1e4, n_species=len(SPECIES))),
        "n_params_target": 1e4,
        "n_frames": 32,
        "seed": 0,
    }
    folder = root / raw["id"]
    write_text(folder / "config.yaml", dump_yaml(load(PointConfig, raw, source="selftest")))
    arguments = {"cache": root / "cache", "devices": n_ranks}
    request = {
        "folder": folder,
        "target": "sapis_lab.training.run:run_point",
        "arguments": arguments,
        "ranks": n_ranks,
    }
    if status := fork_ranks(request).wait():
        message = folder / (FAILURE if (folder / FAILURE).exists() else LOG)
        raise RuntimeError(
            f"training with {n_ranks} ranks ended with status {status}: {message.read_text(encoding='utf-8')}"
        )
    return folder
