"""Labels beyond energies and forces: read with their units, masked where they are missing and may be, and
refused by file, frame and name where they are not what they should be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sapis_lab import units
from sapis_lab.config import ConfigError, load
from sapis_lab.data import FrameStore, dataset_info, prepare
from sapis_lab.data._store import Property
from sapis_lab.data.extxyz import ExtxyzConfig
from sapis_lab.files import with_checksum, without_checksum

N = 14
ALPHA = np.array([[2.0, 0.3, -0.1], [0.3, 1.0, 0.2], [-0.1, 0.2, 3.0]])
LABELS = {
    "dipole_key": "mu",
    "charges_key": "q",
    "properties": {
        "gap": {"key": "epsgap", "unit": "eV", "factor": units.HARTREE_TO_EV},
        "alpha": {"rank": 2},
        "spin": {"per": "atom", "rank": 1, "unit": "µB"},
    },
}
Frame = dict[str, Any]


def frame_of(k: int) -> Frame:
    """Water, bent; labels of everything, known by the number of the frame."""
    rng = np.random.default_rng(k)
    x = np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]) + 0.05 * rng.normal(size=(3, 3))
    return {
        "species": ["O", "H", "H"],
        "x": x,
        "info": {
            "mu": 0.1 * k + np.arange(3),
            "epsgap": 0.01 * k + 0.2,
            "alpha": ALPHA + 0.1 * k * np.eye(3),
        },
        "columns": {"q": np.array([-0.6, 0.2, 0.4]) + 0.01 * k, "spin": rng.normal(size=(3, 3))},
    }


def write(path: Path, change: Callable[[int, Frame], object] = lambda k, frame: None) -> None:
    """An extended-XYZ file without energies and forces; `change(k, frame)` may spoil frame k."""
    lines = []
    for k in range(N):
        frame = frame_of(k)
        change(k, frame)
        columns = {n: np.asarray(c).reshape(3, -1) for n, c in frame["columns"].items()}
        kinds = {n: "S" if c.dtype.kind == "U" else "R" for n, c in columns.items()}
        said = "".join(f":{n}:{kinds[n]}:{c.shape[1]}" for n, c in columns.items())
        info = " ".join(f'{n}="{" ".join(map(str, np.ravel(v).tolist()))}"' for n, v in frame["info"].items())
        lines += ["3", f"Properties=species:S:1:pos:R:3{said} {info}"]
        for i in range(3):
            numbers = [*frame["x"][i], *(v for c in columns.values() for v in c[i])]
            lines.append(" ".join([frame["species"][i], *map(str, numbers)]))
    path.write_text("\n".join(lines) + "\n")


def config(root: Path, **changes: Any) -> ExtxyzConfig:
    given = {"train": "a.xyz", "n_validation": 3, "n_test": 3, "seed": None, "root": str(root)}
    given |= {"energy_unit": "eV", "length_unit": "Angstrom", "energy_key": None, "forces_key": None}
    return load(ExtxyzConfig, {"kind": "extxyz", **given, **LABELS, **changes}, source="test")


def made(root: Path, **changes: Any) -> FrameStore:
    return prepare(config(root, **changes), cache=root / "cache")


def test_labels_are_stored_in_their_units(tmp_path: Path) -> None:
    write(tmp_path / "a.xyz")
    store = made(tmp_path, dipole_unit="Debye")
    assert store.labels == ("energy", "forces", "dipole", "charges", "gap", "alpha", "spin")
    assert store.properties["gap"] == Property("frame", 0, "eV")
    frames = [frame_of(k) for k in range(N)]
    np.testing.assert_allclose(
        store.label_column("dipole"), units.DEBYE_TO_E_ANGSTROM * np.array([f["info"]["mu"] for f in frames])
    )
    np.testing.assert_allclose(
        store.label_column("gap"), units.HARTREE_TO_EV * np.array([f["info"]["epsgap"] for f in frames])
    )
    np.testing.assert_allclose(store.label_column("alpha"), [f["info"]["alpha"] for f in frames])
    for name, column in (("charges", "q"), ("spin", "spin")):
        wanted = np.concatenate([f["columns"][column] for f in frames])
        np.testing.assert_allclose(store.label_column(name), wanted, atol=1e-6)
    assert [store.is_per_atom(key) for key in store.labels] == [False, True, False, True, False, False, True]
    # gathered frames hold the same rows
    some = store.frames(np.array([5, 2]))
    np.testing.assert_array_equal(some.label("spin"), store.label_column("spin")[[15, 16, 17, 6, 7, 8]])
    assert store.incomplete == ("energy", "forces")


def test_arrays_of_an_archive_are_the_same_labels(tmp_path: Path) -> None:
    write(tmp_path / "a.xyz")
    frames = [frame_of(k) for k in range(N)]
    np.savez(
        tmp_path / "a.npz",
        z=np.array([8, 1, 1]),
        R=[f["x"] for f in frames],
        **{name: [f["info"][name] for f in frames] for name in ("mu", "epsgap", "alpha")},
        **{name: [f["columns"][name] for f in frames] for name in ("q", "spin")},
    )
    one, other = made(tmp_path), made(tmp_path, train="a.npz")
    for key in one.labels:
        np.testing.assert_allclose(other.label_column(key), one.label_column(key), atol=1e-6)


def test_missing_labels_are_masked_where_they_may_be(tmp_path: Path) -> None:
    def lacking(k: int, frame: Frame) -> None:
        if k % 3 == 1:
            del frame["info"]["mu"], frame["columns"]["q"]
        if k == 4:
            frame["info"]["epsgap"] = float("nan")

    write(tmp_path / "a.xyz", lacking)
    store = made(tmp_path, missing="mask")
    lacks = np.arange(N) % 3 == 1
    assert set(store.incomplete) == {"energy", "forces", "dipole", "charges", "gap"}
    assert (np.isnan(store.label_column("dipole")).all(1) == lacks).all()
    assert (np.isnan(store.label_column("charges")) == np.repeat(lacks, 3)).all()
    assert np.flatnonzero(np.isnan(store.label_column("gap"))).tolist() == [4]
    assert FrameStore.open(store.folder).incomplete == store.incomplete


def test_the_data_say_what_labels_they_have_before_and_after_they_are_made(tmp_path: Path) -> None:
    write(tmp_path / "a.xyz")
    settings = config(tmp_path)
    before = dataset_info(settings, cutoff=4.0, cache=tmp_path / "cache").labels
    prepare(settings, cache=tmp_path / "cache")
    after = dataset_info(settings, cutoff=4.0, cache=tmp_path / "cache").labels
    assert before == after == ("dipole", "charges", "gap", "alpha", "spin")


def spoilt(name: str, value: Any, *, column: bool = False) -> Callable[[int, Frame], object]:
    """Frame 2 with another label, or without it where `value` is None."""

    def change(k: int, frame: Frame) -> None:
        place = frame["columns" if column else "info"]
        if k == 2 and value is None:
            del place[name]
        elif k == 2:
            place[name] = value

    return change


SKEW = ALPHA + np.array([[0, 1, 0], [0, 0, 0], [0, 0, 0]])
BAD: dict[str, tuple[Callable[[int, Frame], object], dict[str, Any], str]] = {
    "a key that is not there": (
        spoilt("epsgap", None),
        {},
        r"no key 'epsgap' for the label gap; it has mu, alpha; set its key, or missing: mask",
    ),
    "a column that is not there": (
        spoilt("q", None, column=True),
        {},
        r"no column 'q' for the label charges; it has spin; set its key, or missing: mask",
    ),
    "too few numbers": (spoilt("mu", [1.0, 2.0]), {}, r"mu is '1.0 2.0', wanted 3 numbers"),
    "one number for a matrix": (spoilt("alpha", 3.0), {}, r"alpha is '3.0', wanted 9 numbers"),
    "no number": (spoilt("epsgap", "large"), {}, r"epsgap is 'large', wanted 1 numbers"),
    "a column of another width": (
        spoilt("spin", np.ones((3, 2)), column=True),
        {},
        r"spin has shape \(3, 2\), wanted numbers of shape \(3, 3\)",
    ),
    "a column of text": (
        spoilt("q", np.array([["a"], ["b"], ["c"]]), column=True),
        {},
        r"q has shape .*, wanted numbers of shape \(3,\)",
    ),
    "NaN": (
        spoilt("epsgap", float("nan")),
        {},
        r"gap is nan, wanted finite numbers in eV; remove or relabel",
    ),
    "infinity that may be missing": (
        spoilt("epsgap", float("inf")),
        {"missing": "mask"},
        r"gap is inf, wanted finite numbers in eV",
    ),
    "a vector with one component missing": (
        spoilt("mu", [1.0, float("nan"), 2.0]),
        {"missing": "mask"},
        r"dipole is \[1.0, nan, 2.0\], wanted finite numbers",
    ),
    "a matrix that is not symmetric": (
        spoilt("alpha", SKEW),
        {},
        r"alpha is \[\[2.0, 1.3, .*wanted a symmetric matrix",
    ),
    "a key in two spellings": (
        spoilt("MU", [1.0, 2, 3]),
        {"dipole_key": "Mu"},
        r"has mu and MU, wanted one Mu",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_label_that_is_not_what_it_should_be_is_refused_with_its_frame(what: str, tmp_path: Path) -> None:
    change, settings, words = BAD[what]
    write(tmp_path / "a.xyz", change)
    with pytest.raises(ValueError, match=rf"a\.xyz, frame 2: {words}"):
        made(tmp_path, **settings)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"mu": np.ones((N, 2))}, r"mu has shape \(2,\), wanted \(3,\)"),
        ({"q": np.ones((N, 2))}, r"q has shape \(2,\) in every frame, wanted \(3,\), a row an atom"),
        ({"mu": np.ones((3, N))}, r"mu has shape \(3, 14\), wanted 14 rows, one a frame"),
        ({"epsgap": np.array(["large"] * N)}, "array 'epsgap' is of type <U5 .* wanted numbers"),
        ({"epsgap": None}, "no array 'epsgap'; it has "),
    ],
)
def test_an_array_that_is_not_what_it_should_be_is_refused(
    arrays: dict[str, Any], words: str, tmp_path: Path
) -> None:
    frames = [frame_of(k) for k in range(N)]
    every = {name: [f["info"][name] for f in frames] for name in ("mu", "epsgap", "alpha")}
    every |= {name: [f["columns"][name] for f in frames] for name in ("q", "spin")}
    every |= {"z": np.array([8, 1, 1]), "R": [f["x"] for f in frames], **arrays}
    np.savez(tmp_path / "a.npz", **{name: value for name, value in every.items() if value is not None})
    with pytest.raises(ValueError, match=rf"a\.npz(, frame 0)?: {words}"):
        made(tmp_path, train="a.npz")


SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown unit": (
        {"dipole_unit": "C*m"},
        "dipole_unit: input should be 'e*Angstrom', 'Debye' or 'e*Bohr'",
    ),
    "a label of its own": (
        {"properties": {"dipole": {"rank": 1}}},
        "properties: 'dipole' is a label of its own; see the setting dipole_key",
    ),
    "the energy as a property": ({"properties": {"energy": {}}}, "'energy' is a label of its own"),
    "forces without energies": ({"forces_key": "forces"}, "energy_key is null and forces_key is not"),
    "a name that no column has": ({"properties": {"Gap eV": {}}}, "properties.Gap eV"),
    "a rank beyond matrices": ({"properties": {"gap": {"rank": 3}}}, "gap.rank: input should be 0, 1 or 2"),
    "a slip": ({"properties": {"gap": {"keys": "x"}}}, "unknown key 'keys'; did you mean 'key'"),
    "neither frame nor atom": ({"properties": {"gap": {"per": "bond"}}}, "'frame' or 'atom'"),
    "a factor of infinity": (
        {"properties": {"gap": {"factor": float("inf")}}},
        "factor: input should be a finite",
    ),
}


@pytest.mark.parametrize("what", SETTINGS)
def test_settings_of_labels_are_checked(what: str, tmp_path: Path) -> None:
    changes, words = SETTINGS[what]
    with pytest.raises(ConfigError) as error:
        config(tmp_path, **changes)
    assert words in str(error.value)


def manifest(store: FrameStore, change: Callable[[dict[str, Any]], object]) -> None:
    path = store.folder / "manifest.json"
    raw = without_checksum(json.loads(path.read_text()), source="test", advice="")
    change(raw)
    path.write_text(json.dumps(with_checksum(raw)))


def test_a_store_of_another_format_is_refused_by_its_number(tmp_path: Path) -> None:
    write(tmp_path / "a.xyz")
    store = made(tmp_path)
    for version in (0, 2):
        manifest(store, lambda raw, version=version: raw.update(format=version))
        with pytest.raises(
            ValueError, match=f"is a store of format {version}, this program reads 1; make it again"
        ):
            made(tmp_path)


def test_a_store_from_before_there_were_further_labels_opens(tmp_path: Path) -> None:
    write(tmp_path / "a.xyz", lambda k, frame: None)
    store = made(tmp_path, dipole_key=None, charges_key=None, properties={})
    assert "properties" not in store._arrays.manifest
    manifest(store, lambda raw: raw.pop("incomplete"))
    again = FrameStore.open(store.folder)
    assert again.labels == ("energy", "forces") and again.incomplete == () and again.properties == {}


def test_a_store_whose_properties_are_damaged_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.xyz")
    store = made(tmp_path)
    text = (store.folder / "manifest.json").read_text()
    (store.folder / "manifest.json").write_text(text.replace('"rank": 2', '"rank": 1'))
    with pytest.raises(ConfigError, match=r"manifest\.json"):
        made(tmp_path)
