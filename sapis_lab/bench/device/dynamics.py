"""Molecular dynamics of silicon, the protocol for which fairchem publishes numbers on one H200.

Velocity Verlet by ASE at 1 fs, 200 steps to warm up and 100 that are timed, each with its own neighbour list.
The weights are those of a model at birth, which changes no time; its energies are scaled down, so that the
forces, `FORCE` on average, leave the crystal as it is while 300 steps pass.

What fairchem says of UMA in its mode Nitro (fairchem-core 2.24, https://pypi.org/project/fairchem-core/2.24.0/):
about 6 ns a day for 1,000 atoms by ASE, and inference alone of 150 atoms as fast as 33 ns a day would want.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from sapis_lab.bench.device.part import SAY, TIME_UP, Asked
from sapis_lab.bench.device.station import Station
from sapis_lab.bench.device.worker import synchronise
from sapis_lab.bench.inputs import THERMAL, silicon
from sapis_lab.bench.measure import WorkerFailed
from sapis_lab.bench.step import model_config
from sapis_lab.calculator import SapisCalculator
from sapis_lab.derivatives import predict_in_double
from sapis_lab.kernels import reference_forms
from sapis_lab.potential import Potential
from sapis_lab.structures import Structure, batch_in_double, prepared

MODEL = "geat"
SILICON = 14
FORCE = 0.01
"""Root of the mean square of the forces at the start, eV/Å."""
TEMPERATURE = 10.0
"""K: in 300 fs no atom then comes near another one."""
CRYSTALS: dict[int, Any] = {
    1000: ((5, 5, 5), "cubic"),
    150: ((5, 5, 3), "primitive"),
    64: ((2, 2, 2), "cubic"),
}
"""By number of atoms: repeats of which cell."""
PUBLISHED = {1000: 86_400e3 / 6e6, 150: 86_400e3 / 33e6}
"""ms a step of 1 fs: a day over 6 and 33 ns."""
WARM_UP, TIMED = 200, 100


def measure(asked: Asked) -> Iterator[dict[str, Any]]:
    """Every crystal at every size, by what training takes here and, where that is a kernel, by PyTorch."""
    yield {
        SAY: "published for UMA Nitro on one H200: 14.4 ms (1,000 atoms, ASE), 2.6 ms (150, inference alone)",
        "published_ms": PUBLISHED,
        "source": "https://pypi.org/project/fairchem-core/2.24.0/",
    }
    yield {SAY: "untrained weights; forces scaled down, to keep the crystal"}
    crystals, sizes, steps = (1000, 150), (1e5, 1e6), (WARM_UP, TIMED)
    if asked.rehearsal:
        crystals, sizes, steps = (64,), (3e3,), (2, 5)  # type: ignore[assignment]
    longest = 0.0
    with Station("dynamics", asked) as station:
        for size in sizes:
            for n_atoms in crystals:
                for kernels in (True, False):
                    row: dict[str, Any] = {"n_atoms": n_atoms, "size": size, "kernels": kernels}
                    before = asked.left()
                    if before < 1.2 * longest:
                        yield row | {"skipped": TIME_UP}
                        continue
                    arguments = {**row, "device": asked.device, "steps": steps}
                    target = f"{__name__}:of_crystal"
                    try:
                        row |= station.ask(within=60.0, do="call", target=target, arguments=arguments)
                    except WorkerFailed as failure:
                        row["error"] = str(failure)
                    longest = max(longest, before - asked.left())
                    if row.pop("same", False):  # PyTorch computes both
                        continue
                    yield row | {"published_ms": PUBLISHED.get(n_atoms)}


def of_crystal(
    *, n_atoms: int, size: float, kernels: bool, device: str, steps: tuple[int, int]
) -> dict[str, Any]:
    """Times of a step of dynamics, of its neighbour list and of the model, s; `same` where without kernels
    there is nothing new to measure.

    Args:
        kernels: what training takes, or PyTorch alone.   steps: to warm up, and timed.
    """
    from ase import Atoms, units
    from ase.md.verlet import VelocityVerlet

    place = torch.device(device)
    potential, structure = potential_of(n_atoms, size, place)
    by = potential.model.kernel(place)
    if not kernels and by == "PyTorch":
        return {"same": True}
    with nullcontext() if kernels else reference_forms():
        atoms = Atoms(structure.species, structure.positions, cell=structure.cell, pbc=True)
        spread = np.sqrt(atoms.get_masses() * units.kB * TEMPERATURE)[:, None]
        atoms.set_momenta(spread * np.random.default_rng(0).normal(size=structure.positions.shape))
        atoms.calc = SapisCalculator(potential)
        dynamics = VelocityVerlet(atoms, timestep=1.0 * units.fs)
        warm_up, timed = steps
        dynamics.run(warm_up)
        start = atoms.positions.copy()
        seconds = []
        for _ in range(timed):
            synchronise(place)
            begin = time.perf_counter()
            dynamics.run(1)
            synchronise(place)
            seconds.append(time.perf_counter() - begin)
        lists, models = _pieces(potential, structure, place, n=max(2, timed // 5))
        moved = float(np.abs(atoms.positions - start).max())
        return {
            "by": by if kernels else "PyTorch",
            "n_params": sum(p.numel() for p in potential.model.parameters()),
            "seconds": statistics.mean(seconds),
            "seconds_median": statistics.median(seconds),
            "n": timed,
            "list_seconds": lists,
            "model_seconds": models,
            "ns_per_day": 86_400e-6 / statistics.mean(seconds),
            "farthest": moved,
        }


def potential_of(n_atoms: int, size: float, device: torch.device) -> tuple[Potential, Structure]:
    """An untrained potential for silicon, and the rattled crystal."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    positions, cell = silicon(*CRYSTALS[n_atoms])
    positions = positions + np.random.default_rng(0).normal(scale=THERMAL, size=positions.shape)
    structure = Structure(np.full(len(positions), SILICON), positions, cell, np.ones(3, dtype=bool))
    config = model_config(MODEL).at_size(size, n_species=1)
    edges = prepared(structure, cutoff=config.cutoff, known=(SILICON,)).edges
    mean_neighbors = len(edges.center) / len(positions)
    model = config.build(species=(SILICON,), mean_neighbors=mean_neighbors, seed=0).eval()
    model.requires_grad_(False)
    potential = Potential(model.to(device), config, {SILICON: 0.0}, mean_neighbors, {})
    forces = potential.predict(structure).forces
    model.energy_scale.fill_(FORCE / float(np.sqrt(np.mean(forces**2))))
    return potential, structure


def _pieces(
    potential: Potential, structure: Structure, device: torch.device, *, n: int
) -> tuple[float, float]:
    """Medians of the time of a neighbour list with the checks, and of the model on a batch that is ready,
    s."""
    model, lists, models = potential.model, [], []
    for _ in range(n):
        begin = time.perf_counter()
        ready = prepared(structure, cutoff=model.cutoff, known=model.species)
        lists.append(time.perf_counter() - begin)
    batch = batch_in_double([ready], layout=model.layout, cutoff=model.cutoff).to(device)
    for _ in range(n):
        synchronise(device)
        begin = time.perf_counter()
        predict_in_double(model, batch)
        synchronise(device)
        models.append(time.perf_counter() - begin)
    return statistics.median(lists), statistics.median(models)
