"""The form `metatomic`, run by metatomic's own calculator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet
from export_cases import SIZES, atoms_of, near, small_potential, written

from sapis_lab.config import ConfigError
from sapis_lab.exports.metatomic import MetatomicExport, scriptable
from sapis_lab.potential import Potential

pytestmark = pytest.mark.filterwarnings("ignore")  # TorchScript is deprecated
with scriptable():
    pytest.importorskip("metatomic.torch", reason="metatomic is not installed")
    ase_of_metatomic = pytest.importorskip("metatomic_ase", reason="metatomic-ase is not installed")


@pytest.fixture(scope="module")
def place(potential: Potential, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(potential, MetatomicExport(), tmp_path_factory.mktemp("metatomic") / "out")


def test_numbers_are_ours_and_dynamics_conserve_the_energy(potential: Potential, place: Path) -> None:
    calculator = ase_of_metatomic.MetatomicCalculator(place / "potential.pt", check_consistency=True)
    for n in SIZES:
        for periodic in (False, True):
            atoms = atoms_of(n, periodic=periodic)
            atoms.calc = calculator
            ours = potential.predict(atoms, stress=periodic)
            assert near(atoms.get_potential_energy(), ours.energy[0]), (n, periodic)
            assert near(atoms.get_forces(), ours.forces), (n, periodic)
            if ours.stress is not None:
                assert near(atoms.get_stress(voigt=False), ours.stress[0]), (n, periodic)
    atoms = atoms_of(32, periodic=True)
    atoms.calc = calculator
    MaxwellBoltzmannDistribution(atoms, temperature_K=300, rng=np.random.default_rng(0))
    totals = []
    dynamics = VelocityVerlet(atoms, timestep=0.05)  # 0.5 fs
    dynamics.attach(lambda: totals.append(atoms.get_total_energy()))
    dynamics.run(20)
    assert np.ptp(totals) / 32 < 1e-4


def test_several_systems_and_atoms_of_them_are_computed_together(potential: Potential, place: Path) -> None:
    import torch
    from metatensor.torch import Labels
    from metatomic.torch import ModelEvaluationOptions, ModelOutput, load_atomistic_model, systems_to_torch

    model = load_atomistic_model(place / "potential.pt")
    several = [atoms_of(n, periodic=True, seed=n) for n in (32, 8)]
    systems = systems_to_torch(several, dtype=torch.float64)
    from vesin.metatomic import compute_requested_neighbors

    compute_requested_neighbors(systems, system_length_unit="Angstrom", model=model)
    ours = potential.predict(several)
    for kind, wanted in (("system", ours.energy), ("atom", ours.atomic_energies)):
        outputs = {"energy": ModelOutput(unit="eV", sample_kind=kind)}
        options = ModelEvaluationOptions(length_unit="Angstrom", outputs=outputs)
        found = model(systems, options, check_consistency=True)["energy"].block().values
        assert near(found.detach().numpy()[:, 0], wanted)
    chosen = Labels(["system", "atom"], torch.tensor([[0, 3], [1, 0]], dtype=torch.int32))
    outputs = {"energy": ModelOutput(unit="eV", sample_kind="atom")}
    options = ModelEvaluationOptions(length_unit="Angstrom", outputs=outputs, selected_atoms=chosen)
    found = model(systems, options, check_consistency=True)["energy"].block().values
    assert near(found.detach().numpy()[:, 0], ours.atomic_energies[[3, 32]])


def test_a_family_that_cannot_be_traced_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="family 'nequip' cannot be traced"):
        written(small_potential("nequip"), MetatomicExport(), tmp_path / "out")
    assert not list(tmp_path.iterdir())
