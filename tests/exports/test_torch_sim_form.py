"""The form `torch_sim`, run in torch-sim."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from export_cases import SIZES, atoms_of, near, run_script, written

from sapis_lab.exports.torch_sim import TorchSimExport, torch_sim_model
from sapis_lab.potential import Potential

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch-sim's own models, which it imports
ts = pytest.importorskip("torch_sim", reason="torch-sim is not installed")
torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def model(potential: Potential):
    return torch_sim_model(potential)


def test_it_is_a_model_of_the_interface(model) -> None:
    from torch_sim.models.interface import validate_model_outputs

    validate_model_outputs(model, torch.device("cpu"), torch.float64)


@pytest.mark.parametrize("periodic", [False, True], ids=["open", "periodic"])
@pytest.mark.parametrize("n", SIZES)
def test_numbers_are_ours(potential: Potential, model, n: int, periodic: bool) -> None:
    atoms = atoms_of(n, periodic=periodic)
    ours = potential.predict(atoms, stress=periodic)
    found = model(ts.io.atoms_to_state([atoms], torch.device("cpu"), torch.float64))
    assert near(found["energy"], ours.energy) and near(found["forces"], ours.forces)
    assert near(found["stress"], ours.stress if periodic else np.zeros((1, 3, 3)))


def test_a_batch_has_the_numbers_of_its_systems(potential: Potential, model) -> None:
    several = [atoms_of(n, periodic=True, seed=n) for n in (32, 1, 64)]
    found = model(ts.io.atoms_to_state(several, torch.device("cpu"), torch.float64))
    ours = [potential.predict(atoms, stress=True) for atoms in several]
    assert near(found["energy"], np.concatenate([p.energy for p in ours]))
    assert near(found["forces"], np.concatenate([p.forces for p in ours]))
    assert near(found["stress"], np.concatenate([p.stress for p in ours if p.stress is not None]))


def test_stress_has_the_sign_of_torch_sims_own_models(potential: Potential, model) -> None:
    """The trace of the stress is the slope of the energy in the scale of the cell over its volume; theirs has
    that sign, and is twice as large in 0.3, which counts both directions of a pair."""
    from torch_sim.models.lennard_jones import LennardJonesModel

    theirs = LennardJonesModel(
        sigma=2.5, epsilon=0.1, cutoff=6.0, compute_forces=True, compute_stress=True, dtype=torch.float64
    )
    atoms = Atoms([14, 26], [[0, 0, 0], [0, 0, 2.3]], cell=[30, 30, 30], pbc=True)  # no pair at a cutoff

    def slope_and_trace(of) -> tuple[float, float]:
        energies = []
        for scale in (0.999, 1.001):
            moved = atoms.copy()
            moved.set_cell(atoms.cell * scale, scale_atoms=True)
            state = ts.io.atoms_to_state([moved], torch.device("cpu"), torch.float64)
            energies.append(float(of(state)["energy"][0]))
        state = ts.io.atoms_to_state([atoms], torch.device("cpu"), torch.float64)
        trace = float(of(state)["stress"][0].trace())
        return (energies[1] - energies[0]) / 0.002 / atoms.get_volume(), trace

    slope, trace = slope_and_trace(model)
    assert trace == pytest.approx(slope, rel=1e-2)
    slope, trace = slope_and_trace(theirs)
    assert trace / slope == pytest.approx(1.5, abs=0.6)


def test_nve_conserves_the_energy(model) -> None:
    several = [atoms_of(32, periodic=True, seed=k) for k in range(2)]
    state = ts.io.atoms_to_state(several, torch.device("cpu"), torch.float64)
    kT = torch.tensor(300 * ts.units.MetalUnits.temperature, dtype=torch.float64)
    dt = torch.tensor(0.0005 * ts.units.MetalUnits.time, dtype=torch.float64)
    init, update = ts.integrators.nve(model, dt=dt, kT=kT, seed=0)
    state = init(state)
    totals = []
    for _ in range(50):
        state = update(state)
        kinetic = ts.quantities.calc_kinetic_energy(
            masses=state.masses, momenta=state.momenta, system_idx=state.system_idx
        )
        totals.append((state.energy + kinetic).numpy())
    drift = np.ptp(np.array(totals), axis=0) / 32
    assert (drift < 1e-4).all(), drift  # eV/atom over 25 fs


def test_the_script_runs(potential: Potential, tmp_path: Path) -> None:
    place = written(potential, TorchSimExport(), tmp_path / "out")
    atoms_of(8, periodic=True).write(tmp_path / "start.xyz")
    done = run_script(place / "model.py", str(tmp_path / "start.xyz"), cwd=tmp_path)
    assert "potential energies, eV:" in done.stdout
