"""Baselines are those of the definition, on the D frames of the point, and stand in tables and reports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sapis_lab.config import kind_class
from sapis_lab.data import Frames, FrameStore
from sapis_lab.data._store import Property
from sapis_lab.evaluation import Subject
from sapis_lab.evaluation.baselines import ridge
from sapis_lab.evaluation.ranking import kendall
from sapis_lab.quantities import declare, quantity
from sapis_lab.report.baselines import baseline_rows
from sapis_lab.report.tables import baselines_table
from sapis_lab.targets.property import PropertyTarget

N = 40


@pytest.fixture
def labelled(tmp_path: Path) -> Subject:
    """30 training frames and 10 of a test, of n_H hydrogens and n_O oxygens far apart, with a label that is
    1 + 2 n_H - 3 n_O + size, and a potential that learnt it from 20 of them."""
    generator = np.random.default_rng(0)
    h, o = generator.integers(1, 6, N), generator.integers(1, 6, N)
    size = generator.normal(size=N)
    species = np.concatenate([[1] * a + [8] * b for a, b in zip(h, o, strict=True)])
    store = FrameStore.create(
        tmp_path / "store",
        properties={
            "size": Property(),
            "gap": Property(unit="eV"),
            "way": Property(rank=1),
            "spin": Property("atom"),
        },
    )
    store.append(
        Frames(
            n_atoms=h + o,
            species=species.astype(np.uint8),
            positions=3.0 * generator.normal(size=(len(species), 3)),
            cell=np.zeros((N, 3, 3)),
            pbc=np.zeros((N, 3), dtype=bool),
            energy=np.full(N, np.nan),
            forces=np.full((len(species), 3), np.nan),
            properties={
                "size": size,
                "gap": 1 + 2 * h - 3.0 * o + size,
                "way": generator.normal(size=(N, 3)),
                "spin": generator.normal(size=len(species)),
            },
        )
    )
    order = generator.permutation(N)
    splits = {"train": order[:25], "validation": order[25:30], "test": order[30:]}
    store.seal(splits=splits, metadata={})
    learnt = {"gap": SimpleNamespace(target=PropertyTarget(name="gap", unit="eV"))}
    potential: Any = SimpleNamespace(
        heads=learnt, model=SimpleNamespace(gives_energy=False), origin={"n_frames": 20}
    )
    return Subject(potential, store, "cpu")


def scores(subject: Subject, **settings: Any) -> dict[str, float]:
    evaluation = kind_class("evaluation", "baselines")(**settings)
    return evaluation.checked(
        evaluation.score({part: evaluation.measure(subject, part) for part in evaluation.parts(subject)})
    )


def test_the_mean_is_that_of_the_frames_of_the_point_alone(labelled: Subject) -> None:
    gap, splits = labelled.store.label_column("gap"), labelled.store.splits
    error = gap[splits["train"][:20]].mean() - gap[splits["test"]]
    found = scores(labelled)
    assert found["test_gap_rmse_of_mean"] == pytest.approx(np.sqrt(np.mean(error**2)))
    assert found["test_gap_mae_of_mean"] == pytest.approx(np.abs(error).mean())


def test_what_composition_and_descriptors_explain_is_found(labelled: Subject) -> None:
    found = scores(labelled, descriptors=["size"])
    size = labelled.store.label_column("size")[labelled.store.splits["test"]]
    assert found["test_gap_rmse_of_descriptors"] < 1e-3 < 0.5 < found["test_gap_rmse_of_mean"]
    # what is left by the composition is the size
    assert 0.5 * size.std() < found["test_gap_rmse_of_composition"] < 2 * size.std() + 0.5
    assert set(scores(labelled)) == {k for k in found if not k.endswith("_of_descriptors")}
    shares = scores(labelled, composition="fractions")
    assert shares["test_gap_rmse_of_composition"] > found["test_gap_rmse_of_composition"]


def test_of_vectors_and_of_labels_of_atoms_the_mean_alone_is_a_baseline(labelled: Subject) -> None:
    store, heads = labelled.store, {}
    for key, target in (
        ("way", PropertyTarget(name="way", rank=1)),
        ("spin", PropertyTarget(name="spin", per="atom")),
    ):
        heads[key] = SimpleNamespace(target=target)
    potential: Any = SimpleNamespace(**{**vars(labelled.potential), "heads": heads})
    found = scores(replace(labelled, potential=potential))
    assert set(found) == {f"test_{key}_{e}_of_mean" for key in heads for e in ("rmse", "mae")}
    rows = [np.arange(store.offsets[k], store.offsets[k + 1]) for k in store.splits["train"][:20]]
    test = np.concatenate([np.arange(store.offsets[k], store.offsets[k + 1]) for k in store.splits["test"]])
    spin = store.label_column("spin").astype(float)
    error = spin[np.concatenate(rows)].mean() - spin[test]
    assert found["test_spin_mae_of_mean"] == pytest.approx(np.abs(error).mean())
    way = store.label_column("way")[store.splits["test"]]
    assert found["test_way_rmse_of_mean"] == pytest.approx(np.sqrt(np.mean(way**2)))


def test_ridge_is_least_squares_where_nothing_is_to_be_shrunk_and_the_mean_where_all_is() -> None:
    generator = np.random.default_rng(1)
    x, at = generator.normal(size=(200, 3)), generator.normal(size=(5, 3))
    line = 7 + x @ [1.0, -2.0, 0.5]
    assert ridge(x, line, at) == pytest.approx(7 + at @ [1.0, -2.0, 0.5], abs=1e-3)
    noise = generator.normal(size=200)
    assert np.abs(ridge(x, noise, at) - noise.mean()).max() < 0.1
    constant = np.column_stack([x, np.full(200, 4.0)])
    assert ridge(constant, line, np.column_stack([at, np.full(5, 9.0)])) == pytest.approx(ridge(x, line, at))


def test_ridge_has_the_strength_of_the_least_leave_one_out_error() -> None:
    generator = np.random.default_rng(2)
    x = generator.normal(size=(15, 10))
    y = x[:, 0] + 0.7 * generator.normal(size=15)

    def by_hand(x: np.ndarray, y: np.ndarray, at: np.ndarray, strength: float) -> np.ndarray:
        z = (x - x.mean(0)) / x.std(0)
        w = np.linalg.solve(z.T @ z + strength * np.eye(10), z.T @ (y - y.mean()))
        return y.mean() + (at - x.mean(0)) / x.std(0) @ w

    # leverages are exact for columns scaled once, by all rows
    def left_out(strength: float) -> float:
        z = (x - x.mean(0)) / x.std(0)
        hat = z @ np.linalg.solve(z.T @ z + strength * np.eye(10), z.T) + 1 / 15
        return float((((y - hat @ y) / (1 - np.diag(hat))) ** 2).sum())

    best = min(15 * np.logspace(-6, 4, 21), key=left_out)
    at = generator.normal(size=(4, 10))
    assert ridge(x, y, at) == pytest.approx(by_hand(x, y, at, best))


def test_energies_and_forces_have_baselines_too(subject: Subject) -> None:
    found, store = scores(subject), subject.store
    ids, train = store.splits["test"], store.splits["train"][:12]
    forces = store.frames(ids).forces.astype(float)
    assert found["test_force_rmse_of_mean"] == pytest.approx(np.sqrt(np.mean(forces**2)))
    n = np.diff(store.offsets)
    of_atom = store.energy[train].sum() / n[train].sum()
    error = of_atom * n[ids] - store.energy[ids]
    assert found["test_energy_mae_per_atom_of_mean"] == pytest.approx((np.abs(error) / n[ids]).mean())
    assert found["test_energy_rmse_of_composition"] <= found["test_energy_rmse_of_mean"] * 1.5


def test_a_baseline_has_the_unit_of_its_error() -> None:
    declare(*PropertyTarget(name="gap", unit="eV").measures())
    q = quantity("baselines_test_gap_rmse_of_mean")
    assert (q.unit, q.label) == ("eV", "test gap rmse of the mean of the training labels")
    assert quantity("baselines-mine_test_force_mae_of_mean").display_unit == "meV/Å"


@pytest.mark.parametrize(
    ("descriptors", "message"),
    [
        (["mass"], "descriptors names 'mass', and the frames have size, gap"),
        (["way"], "descriptors names 'way'"),
        (["gap"], "'gap' is what is learnt, and no descriptor of it"),
    ],
)
def test_descriptors_are_scalars_of_the_frames(
    labelled: Subject, descriptors: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        scores(labelled, descriptors=descriptors)


def test_a_potential_that_does_not_say_its_frames_is_refused(labelled: Subject) -> None:
    old: Any = SimpleNamespace(**{**vars(labelled.potential), "origin": {}})
    with pytest.raises(ValueError, match="does not say how many frames it was trained on"):
        scores(replace(labelled, potential=old))


# --------------------------------------------------------------------------------------------------- ranking


def test_tau_counts_pairs_in_the_same_order() -> None:
    # 6 pairs of (1, 2, 3, 4): all but (3, 4) in the same order
    assert kendall(np.array([1, 2, 3, 4]), np.array([10, 20, 40, 30])) == pytest.approx(4 / 6)
    assert kendall(np.array([1, 2, 3]), np.array([3, 2, 1])) == -1
    # ties: 4 pairs in the same order, 5 that are no tie in a, 6 in b
    assert kendall(np.array([1, 1, 2, 3]), np.array([1, 2, 4, 3])) == pytest.approx(3 / np.sqrt(5 * 6))
    assert kendall(np.array([1, 1]), np.array([1, 2])) is None


def test_tau_of_the_labels_of_a_test_stands_beside_those_of_scalars(labelled: Subject) -> None:
    gap, size = (labelled.store.label_column(k)[labelled.store.splits["test"]] for k in ("gap", "size"))
    from scipy.stats import kendalltau

    found: Any = SimpleNamespace(properties={"gap": -gap})
    potential: Any = SimpleNamespace(**{**vars(labelled.potential), "predict": lambda structures: found})
    ranking = kind_class("evaluation", "ranking")(beside=["size"])
    subject = replace(labelled, potential=potential)
    got = ranking.checked(ranking.score({p: ranking.measure(subject, p) for p in ranking.parts(subject)}))
    assert got == pytest.approx({"test_tau": -1, "test_tau_of_size": kendalltau(size, gap).statistic})
    assert quantity("ranking_test_cdk8_tau").better == "higher"
    for settings, message in (
        ({"of": "mass"}, "got mass; it predicts gap"),
        ({"beside": ["mass"]}, "'mass'"),
    ):
        with pytest.raises(ValueError, match=message):
            kind_class("evaluation", "ranking")(**settings).parts(subject)


# ---------------------------------------------------------------------------------------------------- reports


def runs(**columns: list[Any]) -> pd.DataFrame:
    table = {
        "status": ["done", "done", "failed"],
        "model": ["geat", "geat", "geat"],
        "n_frames": [10, 20, 20],
        "n_params": [1000, 1000, 1000],
        "learning_rate": [0.1, 0.1, 0.1],
        "val_gap_rmse": [0.5, 0.4, np.nan],
        "test_gap_rmse": [0.9, 0.3, np.nan],
    }
    return pd.DataFrame({**table, **columns})


def test_the_report_shows_baselines_and_models_at_the_same_labels() -> None:
    declare(*PropertyTarget(name="gap", unit="eV").measures())
    measured = quantity("val_gap_rmse")
    columns = {
        "baselines_test_gap_rmse_of_mean": [1.0, 1.1, np.nan],
        "baselines_test_gap_rmse_of_composition": [0.6, 0.6, np.nan],
        "baselines_test_gap_mae_of_mean": [0.1, 0.1, np.nan],
    }
    found = baseline_rows(runs(**columns), measured)
    assert found is not None and found["head"] == "test gap RMSE (eV)"
    said = [(r["n_frames"], r["name"], r["text"], r["ratio"]) for r in found["rows"]]
    assert said == [
        (10, "mean", "1", ""),
        (10, "composition", "0.6", ""),
        (10, "geat", "0.9", "1.50"),
        (20, "mean", "1.1", ""),
        (20, "composition", "0.6", ""),
        (20, "geat", "0.3", "0.50"),
    ]
    table = baselines_table(runs(**columns), measured)
    assert table is not None and "10 & geat & 1,000 & 0.9 & 1.50" in table
    assert baseline_rows(runs(), measured) is None and baselines_table(runs(), measured) is None
