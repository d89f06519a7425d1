"""A point that names a parent starts from its function, in a model of its own size, and is another point than
one without."""

import numpy as np
import pytest
from test_run_point import frames, point  # noqa: F401  (frames is a fixture)

from sapis_lab.config import dump_yaml, load
from sapis_lab.data import prepare
from sapis_lab.files import write_text
from sapis_lab.growth import expanded
from sapis_lab.potential import Potential, load_potential
from sapis_lab.records import read_record
from sapis_lab.training import Parent, PointConfig
from sapis_lab.training.run import prepare_task, run_point


@pytest.fixture(scope="module")
def family(tmp_path_factory, frames):  # noqa: F811
    """A trained parent and the config of a larger child on more frames, in one folder."""
    folder = tmp_path_factory.mktemp("points")
    parent = point(folder / "parent", frames)
    run_point(folder / "parent", cache=folder / "cache")
    model = parent.model.without_storage(2).growth(expanded(parent.model, 2.0, eta=0.5)).config
    child = parent.model_copy(
        update={
            "id": "child",
            "model": model,
            "n_frames": 14,
            "parent": Parent(id="parent", fingerprint=parent.fingerprint),
        }
    )
    write_text(folder / "child" / "config.yaml", dump_yaml(child))
    return folder, parent, child


def test_a_child_starts_with_the_energies_and_forces_of_its_parent(family):
    folder, parent, child = family
    setup = prepare_task(child, folder / "cache", siblings=folder)
    assert sum(setup.model.count().values()) > read_record(folder / "parent").n_params
    store = prepare(child.data, cache=folder / "cache")
    before = load_potential(folder / "parent")
    some = store.frames(store.splits["validation"])
    at = np.cumsum(some.n_atoms)[:-1]
    for species, positions in zip(np.split(some.species, at), np.split(some.positions, at), strict=True):
        energy, forces, _ = before.evaluate(species=species, positions=positions)
        references = dict(zip(store.elements, setup.references, strict=True))
        after = Potential(setup.model, child.model, references, setup.mean_neighbors, {})
        again = after.evaluate(species=species, positions=positions)
        assert again[0] == pytest.approx(energy, abs=1e-4)
        assert np.allclose(again[1], forces, atol=1e-4)


def test_a_child_trains_and_counts_its_own_flops_alone(family):
    folder, _, child = family
    run_point(folder / "child", cache=folder / "cache")
    record = read_record(folder / "child")
    assert record.flops_train == record.steps * record.flops_per_step
    assert record.science["parent"] == {
        "id": "parent",
        "fingerprint": read_record(folder / "parent").fingerprint,
    }
    grown = load_potential(folder / "child")
    assert grown.config == child.model
    # with the references themselves
    assert grown.references_from == load_potential(folder / "parent").references_from


def test_a_parent_is_part_of_what_a_point_is_and_its_absence_is_not(family):
    _, parent, child = family
    assert "parent" not in parent.science()
    assert child.fingerprint != child.model_copy(update={"parent": None}).fingerprint
    assert (
        load(
            PointConfig,
            {k: v for k, v in parent.model_dump(mode="json").items() if k != "parent"},
            source="test",
        )
        == parent
    )


def test_a_parent_made_from_other_settings_is_refused(family):
    folder, _, child = family
    other = child.model_copy(update={"parent": Parent(id="parent", fingerprint="0" * 64)})
    with pytest.raises(ValueError, match="made from other settings than the parent that child names"):
        prepare_task(other, folder / "cache", siblings=folder)
