"""Crystals of mlearn: totals, the published split, symmetric copies, the sign of stress, and refusals."""

import copy
import json
import os

import numpy as np
import pytest

from sapis_lab import units
from sapis_lab.data import Frames, dataset_info, prepare
from sapis_lab.data._copies import first_copies
from sapis_lab.data.mlearn import MlearnConfig
from sapis_lab.neighbors import neighbor_list

needs_files = pytest.mark.skipif(
    "SAPIS_DATA" not in os.environ, reason="SAPIS_DATA is not set: no crystals of mlearn to read"
)

EDGE = 5.43
FCC = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
DIAMOND = np.concatenate([FCC, FCC + 0.25])
STIFFNESS = 4.0
"""eV/Å²"""


def entry(shift=None, *, strain=(0.0, 0.0, 0.0), energy=0.0):
    """A cubic cell of 8 Si: moved atoms on springs to their sites, or strained."""
    cell = EDGE * np.diag(1 + np.array(strain))
    shift = np.zeros((8, 3)) if shift is None else shift
    abc = DIAMOND + shift @ np.linalg.inv(cell)
    return {
        "group": "Elastic" if any(strain) else "AIMD-NVT",
        "structure": {
            "lattice": {"matrix": cell.tolist()},
            "sites": [{"species": [{"element": "Si", "occu": 1}], "abc": x.tolist()} for x in abc],
        },
        "outputs": {
            "energy": -43.0 + energy + STIFFNESS / 2 * float((shift**2).sum()),
            "forces": (-STIFFNESS * shift).tolist(),
            "virial_stress": [10.0, 20.0, 30.0, 1.0, 2.0, 3.0],
        },
    }


def silicon(folder):
    """The two files: thermal cells, and three strained ones whose test partners are strained elsewhere."""
    generator = np.random.default_rng(0)
    thermal = [entry(0.05 * generator.normal(size=(8, 3))) for _ in range(211 + 22)]
    along_x = [entry(strain=(s, 0, 0), energy=900 * s**2) for s in (0.02, -0.03, 0.05)]
    elsewhere = [entry(strain=(0, s, 0), energy=900 * s**2) for s in (0.02, -0.03)]
    alone = entry(strain=(0.02, 0.02, 0), energy=1.0)
    folder.mkdir(parents=True)
    write(folder / "training.json", thermal[:211] + along_x)
    write(folder / "test.json", [*thermal[211:], *elsewhere, alone])
    return folder


def write(path, entries):
    path.write_text(json.dumps(entries))


def nickel(folder):
    """The file of the repackaging: 263 frames, then 31 twice, with energies per atom."""
    generator = np.random.default_rng(1)
    frames = []
    for _ in range(263 + 31):
        shift = 0.05 * generator.normal(size=(4, 3))
        cell = 3.52 * np.eye(3)
        frames.append(
            {
                "atoms": {
                    "lattice_mat": cell.tolist(),
                    "coords": (FCC + shift / 3.52).tolist(),
                    "elements": ["Ni"] * 4,
                    "cartesian": False,
                },
                "total_energy": -5.0 + STIFFNESS / 8 * float((shift**2).sum()),
                "forces": (-STIFFNESS * shift).tolist(),
                "stresses": [0.0] * 6,
            }
        )
    folder.mkdir(parents=True)
    write(folder / "id_prop.json", frames + frames[263:])
    return folder / "id_prop.json", frames


def config(root, **changes):
    return MlearnConfig(**{"element": "Si", "root": root, **changes})


def refusal(root, **changes):
    with pytest.raises(ValueError) as refused:  # noqa: PT011  (the text is what each test looks at)
        prepare(config(root, **changes), cache=root / "cache")
    return str(refused.value)


def test_the_split_is_the_published_one_and_distinct_frames_are_no_copies_of_training(tmp_path):
    silicon(tmp_path / "mlearn" / "Si")
    before = config(tmp_path).info(cutoff=5.0)
    store = prepare(config(tmp_path), cache=tmp_path / "cache")
    assert {name: len(ids) for name, ids in store.splits.items()} == {
        "train": 194,
        "validation": 20,
        "test": 25,
        "test_distinct": 23,
    }
    test, distinct = (store.frames(store.splits[name]) for name in ("test", "test_distinct"))
    kept = [*range(22), 24]
    assert np.array_equal(distinct.energy, test.energy[kept])
    assert np.array_equal(distinct.positions, test.positions.reshape(25, 8, 3)[kept].reshape(-1, 3))
    assert (before.n_train, before.n_validation, dict(before.n_test)) == (
        194,
        20,
        {"test": 25, "test_distinct": 23},
    )
    after = dataset_info(config(tmp_path), cutoff=5.0, cache=tmp_path / "cache")
    assert (after.mean_atoms, after.species, after.labels) == (before.mean_atoms, (14,), before.labels)
    assert before.labels == ("energy", "forces", "stress") and before.periodic


def test_stress_is_tension_and_in_the_order_of_vasp_for_strained_crystals_alone(tmp_path):
    silicon(tmp_path / "mlearn" / "Si")
    store = prepare(config(tmp_path), cache=tmp_path / "cache")
    kbar = -0.1 / units.EV_PER_A3_TO_GPA
    strained, thermal = store.column("stress")[211], store.column("stress")[5]
    assert np.allclose(strained, kbar * np.array([[10.0, 1, 3], [1, 20, 2], [3, 2, 30]]), rtol=1e-12)
    assert np.allclose(thermal, kbar * np.array([[10.0, 1, 2], [1, 20, 3], [2, 3, 30]]), rtol=1e-12)


def test_no_validation_frame_has_a_copy_in_training(tmp_path):
    folder = silicon(tmp_path / "mlearn" / "Si")
    entries = json.loads((folder / "training.json").read_text())
    for k in range(100):  # half of all frames become copies: turned by a quarter about z
        turned = copy.deepcopy(entries[100 + k])
        for site in turned["structure"]["sites"]:
            site["abc"] = [site["abc"][1], -site["abc"][0], site["abc"][2]]
        turned["outputs"]["forces"] = [[y, -x, z] for x, y, z in turned["outputs"]["forces"]]
        entries[k] = turned
    write(folder / "training.json", entries)
    for seed in range(3):
        store = prepare(config(tmp_path, n_validation=14, seed=seed), cache=tmp_path / "cache")
        assert (store.splits["validation"] >= 200).all()
    assert "of the 214 training frames 14 have no symmetric copy" in refusal(tmp_path, n_validation=15)


def test_energies_per_atom_of_the_repackaging_become_totals_and_test_frames_are_read_once(tmp_path):
    _, frames = nickel(tmp_path / "mlearn" / "Ni")
    store = prepare(config(tmp_path, element="Ni"), cache=tmp_path / "cache")
    assert {name: len(ids) for name, ids in store.splits.items()} == {
        "train": 243,
        "validation": 20,
        "test": 31,
        "test_distinct": 31,
    }
    assert np.allclose(store.energy[:294], [4 * f["total_energy"] for f in frames], rtol=1e-14)
    assert np.allclose(store.positions[:4], 3.52 * np.array(frames[0]["atoms"]["coords"]), rtol=1e-14)
    assert store.columns == ()


def test_a_file_whose_end_is_not_the_test_twice_is_refused(tmp_path):
    path, frames = nickel(tmp_path / "mlearn" / "Ni")
    write(path, frames + frames[:31])
    assert "frame 294: total_energy differs from that of frame 263" in refusal(tmp_path, element="Ni")


def change(entries, k, *path, to):
    where = entries[k]
    for key in path[:-1]:
        where = where[key]
    where[path[-1]] = to


@pytest.mark.parametrize(
    ("path", "to", "message"),
    [
        (("outputs", "energy"), "low", "outputs.energy is 'low', wanted numbers"),
        (("outputs", "energy"), float("nan"), "outputs.energy holds nan, wanted finite numbers"),
        (("outputs", "forces"), [[0.0, 0.0, 0.0]] * 7, "outputs.forces has shape (7, 3), wanted (8, 3)"),
        (("outputs", "forces"), [[0.0, 0.0, 0.0], [0.0]], "outputs.forces is"),
        (("outputs", "virial_stress"), [1.0, 2.0, 3.0], "outputs.virial_stress has shape (3,), wanted (6,)"),
        (("outputs",), {}, "no outputs.energy"),
        (("structure", "lattice"), {}, "no structure.lattice.matrix"),
        (("structure", "lattice", "matrix"), [[0.0] * 3] * 3, "wanted three vectors that span a volume"),
        (("structure", "sites"), [], "structure.sites is not a list of sites"),
        (("structure", "sites", 2, "species"), [{"element": "C", "occu": 1}], "species of atom 2 is"),
        (("structure", "sites", 2, "abc"), None, "structure.sites.abc is"),
    ],
)
def test_what_is_wrong_in_an_entry_is_named(tmp_path, path, to, message):
    file = silicon(tmp_path / "mlearn" / "Si") / "training.json"
    entries = json.loads(file.read_text())
    change(entries, 17, *path, to=to)
    write(file, entries)
    found = refusal(tmp_path)
    assert f"{file}, frame 17: " in found and message in found


@pytest.mark.parametrize(
    ("path", "to", "message"),
    [
        (("total_energy",), None, "total_energy is None, wanted numbers"),
        (("atoms", "elements"), ["Cu"] * 4, "atoms.elements is ['Cu'"),
        (("atoms", "cartesian"), 0, "atoms.cartesian is 0, wanted true or false"),
        (("atoms", "coords"), [[0.0, 0.0, 0.0]], "atoms.coords has shape (1, 3), wanted (4, 3)"),
    ],
)
def test_what_is_wrong_in_a_repackaged_entry_is_named(tmp_path, path, to, message):
    file, frames = nickel(tmp_path / "mlearn" / "Ni")
    change(frames, 3, *path, to=to)
    write(file, frames + frames[263:])
    found = refusal(tmp_path, element="Ni")
    assert f"{file}, frame 3: " in found and message in found


def test_files_that_are_missing_short_or_damaged_are_named(tmp_path):
    folder = silicon(tmp_path / "mlearn" / "Si")
    entries = json.loads((folder / "test.json").read_text())
    write(folder / "test.json", entries[:24])
    assert "test.json: 24 frames, wanted the 25 published ones" in refusal(tmp_path)
    (folder / "test.json").write_text(json.dumps(entries)[:-100])
    assert "test.json: not valid JSON" in refusal(tmp_path)
    (folder / "test.json").unlink()
    assert f"missing file: wanted {folder / 'test.json'}" in refusal(tmp_path)
    assert "mlearn/Cu/id_prop.json" in refusal(tmp_path, element="Cu")


def frames_of(cells, abc):
    n = np.array([len(x) for x in abc])
    return Frames(
        n_atoms=n,
        species=np.full(n.sum(), 14, np.uint8),
        positions=np.concatenate([x @ c for x, c in zip(abc, cells, strict=True)]),
        cell=np.array(cells),
        pbc=np.ones((len(n), 3), bool),
        energy=np.zeros(len(n)),
        forces=np.zeros((n.sum(), 3)),
    )


def test_turned_mirrored_moved_and_renumbered_crystals_are_copies_and_others_are_not():
    generator = np.random.default_rng(2)
    cell = EDGE * np.eye(3) + 0.3 * generator.normal(size=(3, 3))
    abc = DIAMOND + 0.03 * generator.normal(size=(8, 3))
    turn = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    other_cell = np.array([[1, 0, 0], [1, 1, 0], [0, -1, 1]])  # the same lattice by other vectors
    moved = abc.copy()
    moved[3] += [0.003, 0, 0]
    found = first_copies(
        frames_of(
            [cell, cell @ turn, cell, other_cell @ cell, cell, -cell],
            [
                abc,
                abc,
                generator.permutation(abc) + 0.4,
                abc @ np.linalg.inv(other_cell),
                moved,
                abc,
            ],
        )
    )
    assert found.tolist() == [0, 0, 0, 0, 4, 0]


@needs_files
@pytest.mark.parametrize(
    ("element", "copies", "of_equal_energy", "force_rms"),
    [
        ("Li", 3, 3, 0.257),
        ("Si", 3, 3, 0.874),
        ("Ge", 3, 3, 0.658),
        ("Ni", 13, 4, 0.861),
        ("Cu", 13, 9, 0.782),
    ],
)
def test_published_frames_have_the_known_forces_and_copies(
    tmp_path, element, copies, of_equal_energy, force_rms
):
    store = prepare(config(None, element=element), cache=tmp_path)
    train = store.frames(np.r_[store.splits["train"], store.splits["validation"]])
    assert round(float(np.sqrt((train.forces.astype(float) ** 2).mean())), 3) == force_rms
    test = store.frames(store.splits["test"])
    n_distinct = len(store.splits["test_distinct"])
    assert len(test) - n_distinct == copies
    gap = np.abs(test.energy[:, None] - train.energy).min(1)
    assert (gap < 1e-6).sum() == of_equal_energy
    distinct = store.frames(store.splits["test_distinct"])
    assert (np.abs(distinct.energy[:, None] - train.energy).min(1) > 1e-6).all()


@needs_files
@pytest.mark.parametrize(("element", "within"), [("Si", 0.03), ("Ge", 0.04)])
def test_energies_of_strained_crystals_are_the_work_of_their_stresses(tmp_path, element, within):
    """Between frames of equal fractional coordinates, cell(t) = cell exp(t L): dE/dt = V stress : L."""
    store = prepare(config(None, element=element), cache=tmp_path)
    x = store.frames(np.sort(np.r_[store.splits["train"], store.splits["validation"]]))
    start = np.cumsum(x.n_atoms) - x.n_atoms
    volume = np.abs(np.linalg.det(x.cell))
    assert x.stress is not None
    ideal = [k for k in range(len(x)) if x.n_atoms[k] == 64]
    abc = {k: x.positions[start[k] : start[k] + 64] @ np.linalg.inv(x.cell[k]) for k in ideal}
    gain, work = [], []
    for a in ideal:
        for b in ideal:
            apart = abc[b] - abc[a]
            turn = np.linalg.solve(x.cell[a], x.cell[b])
            if (
                a < b
                and np.abs(apart - np.round(apart)).max() < 1e-3
                and np.abs(turn - np.eye(3)).max() < 0.045
            ):
                step = turn - np.eye(3)
                rate = step - step @ step / 2 + step @ step @ step / 3
                mean = (volume[a] * x.stress[a] + volume[b] * x.stress[b]) / 2
                gain.append(x.energy[b] - x.energy[a])
                work.append(float((mean * rate).sum()))
    difference = np.sqrt(np.mean(np.subtract(gain, work) ** 2))
    assert len(gain) > 150 and np.std(gain) > 1.0
    assert difference < within


@needs_files
def test_atoms_of_small_cells_see_their_own_images(tmp_path):
    store = prepare(config(None, element="Li"), cache=tmp_path)
    small = int(np.argmin(np.diff(store.offsets)))
    atoms = slice(store.offsets[small], store.offsets[small + 1])
    x, cell = store.positions[atoms], store.cell[small]
    assert len(x) == 2
    pairs = neighbor_list(x, cell, True, 5.0)
    shifts = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 3, indexing="ij"), -1).reshape(-1, 3)
    r = np.linalg.norm(x[None, :, None] + shifts @ cell - x[:, None, None], axis=-1)
    assert len(pairs.center) == ((r > 0) & (r < 5.0)).sum()
    itself = pairs.center == pairs.neighbor
    assert itself.sum() == 2 * 18 and pairs.shift[itself].any(1).all()
