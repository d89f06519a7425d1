"""Relaxations with a potential: where they end, fixed atoms, what is lost, errors beside doing nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sapis_lab.config import kind_class
from sapis_lab.data import Frames, FrameStore
from sapis_lab.data._store import Property
from sapis_lab.evaluation import Subject
from sapis_lab.evaluation.relaxation import RelaxationConfig

REST = np.array([[0.0, 0, 0], [3, 0, 0], [1.5, 2, 0]])
"""Where the springs of the potential are at rest, Å."""
STIFFNESS = 2.0
"""eV/Å²"""


class Springs:
    """A potential whose atoms are on springs to REST, moved by `off`; atoms beyond `reach` have met."""

    def __init__(self, off: float = 0.0, reach: float = 100.0) -> None:
        self.off, self.reach = np.array([off, 0, 0]), reach
        self.model = SimpleNamespace(gives_energy=True)
        self.heads: dict[str, Any] = {}

    def predict(self, atoms: Any, *, stress: bool = False) -> Any:
        away = atoms.positions - (REST + self.off)
        if np.abs(away).max() > self.reach:
            raise ValueError("atoms 0 and 1 are 0.2 Å apart")
        energy = -5.0 + STIFFNESS / 2 * (away**2).sum()
        return SimpleNamespace(
            energy=np.array([energy]),
            forces=-STIFFNESS * away,
            atomic_energies=np.full(3, energy / 3),
            stress=None,
            properties={},
            per_atom=frozenset(),
        )


def subject(folder: Path, springs: Springs) -> Subject:
    """Starts 0.4 Å (in z) from the labelled state, which is at rest, frame by frame; the first atom fixed."""
    starts = np.array([REST, REST, REST, REST])
    starts[:, 1:, 2] += np.array([0.4, 0.4, 0.1, 0.4])[:, None]
    store = FrameStore.create(
        folder / "store",
        properties={
            "relaxed_energy": Property(unit="eV"),
            "to_relaxed": Property("atom", 1, "Å"),
            "fixed": Property("atom"),
            "step": Property(),
        },
    )
    n = len(starts)
    store.append(
        Frames(
            n_atoms=np.full(n, 3),
            species=np.full(3 * n, 29, np.uint8),
            positions=starts.reshape(-1, 3),
            cell=np.tile(20 * np.eye(3), (n, 1, 1)),
            pbc=np.ones((n, 3), dtype=bool),
            energy=-5.0 + STIFFNESS / 2 * ((starts - REST) ** 2).sum((1, 2)),
            forces=(STIFFNESS * (REST - starts)).reshape(-1, 3),
            properties={
                "relaxed_energy": np.array([-5.0, -5.0, -5.0, np.nan]),
                "to_relaxed": (REST - starts).reshape(-1, 3) + np.repeat([0, 0, 0, np.nan], 3)[:, None],
                "fixed": np.tile([1.0, 0, 0], n),
                "step": np.array([0.0, 0, 1, 0]),
            },
        )
    )
    store.seal(
        splits={"train": np.array([0]), "validation": np.zeros(0), "test": np.arange(1, 4)}, metadata={}
    )
    potential: Any = springs
    return Subject(potential, store, "cpu")


def scores(of: Subject, **settings: Any) -> dict[str, float]:
    evaluation = kind_class("evaluation", "relaxation")(**settings)
    return evaluation.checked(evaluation.score({p: evaluation.measure(of, p) for p in evaluation.parts(of)}))


def test_on_the_true_surface_a_relaxation_ends_in_the_labelled_state(tmp_path: Path) -> None:
    found = scores(subject(tmp_path, Springs()), force=1e-3)
    # frames 1 and 3 have step 0, the latter no labels; two free atoms start 0.4 Å away: 2 · ½ · 2 · 0.16 eV
    assert found["test_share_converged"] == 1 and found["test_share_lost"] == 0
    assert found["test_relaxed_energy_mae"] < 1e-5 and found["test_displacement"] < 1e-3
    assert found["test_displacement_unrelaxed"] == pytest.approx(0.4)
    assert found["test_relaxation_energy_mae_unrelaxed"] == pytest.approx(0.32)
    assert found["test_relaxation_energy_mae"] < 1e-5
    assert 0 < found["test_relaxation_steps"] < 200


def test_a_fixed_atom_stays_and_the_others_go_where_the_potential_says(tmp_path: Path) -> None:
    found = scores(subject(tmp_path, Springs(off=0.3)), force=1e-3)
    assert found["test_displacement"] == pytest.approx(0.3, abs=2e-3)
    # the fixed atom keeps its 0.3 Å from rest: ½ · 2 · 0.09 eV above -5 eV
    assert found["test_relaxed_energy_mae"] == pytest.approx(0.09, abs=1e-4)
    assert found["test_relaxation_energy_mae"] == pytest.approx(2 * 0.09, abs=1e-3)


def test_a_relaxation_that_runs_out_of_steps_has_not_converged_and_still_counts(tmp_path: Path) -> None:
    found = scores(subject(tmp_path, Springs()), force=1e-3, most_steps=3)
    assert found["test_share_converged"] == 0 and found["test_relaxation_steps"] == 3
    assert 0.05 < found["test_displacement"] < 0.4


def test_a_relaxation_whose_atoms_meet_is_lost_and_in_no_error(tmp_path: Path) -> None:
    found = scores(subject(tmp_path, Springs(reach=0.35)))
    assert found == {"test_share_converged": 0, "test_share_lost": 1}


def test_most_structures_are_from_the_start_of_a_set(tmp_path: Path) -> None:
    of = subject(tmp_path, Springs())
    assert RelaxationConfig(most_structures=1)._starts(of, "test").tolist() == [1]
    assert RelaxationConfig()._starts(of, "test").tolist() == [1, 3]


def test_a_potential_without_energies_is_refused(tmp_path: Path) -> None:
    springs = Springs()
    springs.model, springs.heads = SimpleNamespace(gives_energy=False), {"gap": None}
    with pytest.raises(ValueError, match="learnt gap and no energies"):
        kind_class("evaluation", "relaxation")().parts(subject(tmp_path, springs))
