"""A damaged potential is refused with file and field, before memory for it is taken; what loads computes
finite numbers."""

from __future__ import annotations

import copy
import json
import os
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from sapis_lab.config import ConfigError, kind_class, kinds
from sapis_lab.potential import DESCRIPTION, WEIGHTS, Potential, load_potential, save_potential

SPECIES = (1, 6, 8)
POSITIONS = np.array([[0.0, 0.0, 0.0], [1.1, 0.0, 0.0], [0.0, 1.3, 0.2]])


def write_potential(folder: Path, kind: str = "geat") -> Path:
    config = kind_class("models", kind)(cutoff=4.0, layers=2, channels=8)
    model = config.build(species=SPECIES, mean_neighbors=8.0, seed=1)
    origin = {"id": "p", "fingerprint": "f", "n_frames": 8, "data": "d"}
    save_potential(folder, Potential(model, config, {1: -13.6, 6: -1000.0, 8: -2000.0}, 8.0, origin))
    return folder


def described(folder: Path, **changes: Any) -> None:
    """Change the description; `...` takes a key out, and dots reach into the model's settings."""
    path = folder / DESCRIPTION
    raw = yaml.safe_load(path.read_text())
    del raw["checksum"]  # as whoever changes it on purpose does, and as it was in older versions
    for key, value in changes.items():
        node, name = (raw["model"], key.removeprefix("model__")) if key.startswith("model__") else (raw, key)
        if value is ...:
            del node[name]
        else:
            node[name] = value
    path.write_text(yaml.safe_dump(raw))


def weighed(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def first(tensors: dict[str, torch.Tensor]) -> str:
    return min(name for name, t in tensors.items() if t.ndim == 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"species": ...}, "species: field required"),
        ({"model": ...}, "model: field required"),
        ({"precision": ...}, "precision: field required"),
        ({"reference_energies": ...}, "reference_energies: field required"),
        ({"format": "one"}, "format: input should be a valid integer"),
        ({"format": True}, "format: wanted a number, got true"),
        ({"format": 0}, "format: input should be greater than or equal to 1"),
        ({"species": [1, 6, 6]}, "species: wanted distinct atomic numbers in ascending order"),
        ({"species": [1, 6, 200]}, "species.2: input should be less than or equal to 118"),
        ({"species": [-1, 6, 8]}, "species.0: input should be greater than or equal to 1"),
        ({"species": []}, "at least 1 item"),
        ({"species": "HCO"}, "species: input should be a valid tuple"),
        ({"mean_neighbors": -3.0}, "mean_neighbors: input should be greater than or equal to 0"),
        ({"mean_neighbors": float("nan")}, "mean_neighbors: input should be a finite number"),
        (
            {"reference_energies": {1: -13.6, 6: -1000.0}},
            "reference_energies: wanted one for each of the species",
        ),
        (
            {"reference_energies": {1: -13.6, 6: float("inf"), 8: 0.0}},
            "reference_energies.6: input should be a finite number",
        ),
        ({"precision": "float16"}, "precision: input should be 'float32' or 'float64'"),
        ({"units": {"energy": "kcal/mol"}}, "units: wanted"),
        ({"model": [1]}, "model: input should be a valid dictionary"),
        ({"model": {}}, "model.kind: wanted the name of a model kind, got None"),
        ({"model": {"kind": "gaet"}}, "model.kind: no models kind 'gaet'; did you mean 'geat'"),
        ({"model__kind": "../geat"}, "model.kind: no models kind"),
        ({"model__channels": "many"}, "model: channels: input should be a valid integer"),
        ({"model__channels": 10**9}, "model: channels: input should be less than or equal to 1000000"),
        ({"model__channels": 10**6}, "as model.yaml says, got F32 ["),
        ({"model__layers": 3}, "got nothing of that name"),
        (
            {"model__layers": 1},
            "layers.0.node_out.weight: wanted F32 [16, 8] as model.yaml says, got F32 [16, 20]",
        ),
        ({"model__cutoff": ...}, "model: lacks cutoff; wanted all settings"),
        ({"model__chanels": 8}, "unknown key 'chanels'; did you mean 'channels'"),
        ({"species": [1, 8], "reference_energies": {1: 0.0, 8: 0.0}}, "as model.yaml says, got F32 ["),
        ({"precision": "float64"}, "wanted F64"),
        ({"colour": "blue"}, "unknown key 'colour'"),
    ],
)
def test_a_damaged_description_is_refused_with_its_field(tmp_path, changes, message):
    described(write_potential(tmp_path), **changes)
    with pytest.raises(ConfigError) as error:
        load_potential(tmp_path)
    assert message in str(error.value) and str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(first(t)), "got nothing of that name"),
        (lambda t: t.update({"more": torch.ones(3)}), "more: wanted nothing of that name"),
        (lambda t: t.update({first(t): t[first(t)][:1].clone()}), "as model.yaml says, got F32 [1,"),
        (lambda t: t.update({first(t): t[first(t)].half()}), "got F16"),
        (lambda t: t.update({first(t): t[first(t)] * float("nan")}), "wanted finite numbers"),
        (
            lambda t: t.update({"energy_scale": torch.tensor(float("inf"))}),
            "energy_scale: wanted finite numbers",
        ),
    ],
)
def test_damaged_weights_are_refused_with_the_tensor(tmp_path, change, message):
    weighed(write_potential(tmp_path), change)
    described(tmp_path, weights_sha256=None)  # as older versions wrote it: without, the checksum tells first
    with pytest.raises(ConfigError) as error:
        load_potential(tmp_path)
    assert message in str(error.value) and str(tmp_path / WEIGHTS) in str(error.value)


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_truncated_weights_are_refused(tmp_path, keep):
    path = write_potential(tmp_path) / WEIGHTS
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(
        ConfigError, match=r"model.safetensors is not the file that model.yaml was written with"
    ):
        load_potential(tmp_path)
    described(tmp_path, weights_sha256=None)  # as older versions wrote it
    with pytest.raises(
        ConfigError, match=r"model.safetensors: cannot be read: .*; this potential is damaged"
    ):
        load_potential(tmp_path)


def test_what_lies_in_the_place_of_the_weights_is_told(tmp_path):
    path = write_potential(tmp_path) / WEIGHTS
    path.unlink()
    with pytest.raises(
        ConfigError, match=r"model.safetensors: no such file; this potential has lost its weights"
    ):
        load_potential(tmp_path)
    os.mkfifo(path)
    with pytest.raises(ConfigError, match=r"model.safetensors: wanted a file"):
        load_potential(tmp_path)


def test_a_name_that_looks_like_a_number_is_read_back(tmp_path):
    config = kind_class("models", "transformer")(name="1e3", layers=1, channels=4)
    model = config.build(species=SPECIES, mean_neighbors=8.0, seed=1)
    save_potential(tmp_path, Potential(model, config, dict.fromkeys(SPECIES, 0.0), 8.0, {"id": "2e5"}))
    loaded = load_potential(tmp_path)
    assert loaded.config == config and loaded.origin == {"id": "2e5"}


@pytest.mark.parametrize(
    ("old", "new"),
    [("mean_neighbors: 8.0", "mean_neighbors: 18.0"), ("1: -13.6", "1: -13.7"), ("id: p", "id: q")],
)
def test_an_edited_description_is_refused(tmp_path, old, new):
    folder = write_potential(tmp_path)
    path = folder / DESCRIPTION
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    told = r"model\.yaml: its contents were changed after they were written .* take out the line `checksum`"
    with pytest.raises(ConfigError, match=told):
        load_potential(folder)
    path.write_text(
        "".join(
            line for line in path.read_text().splitlines(keepends=True) if not line.startswith("checksum:")
        )
    )
    load_potential(folder)


# -------------------------------------------------------------------------------------------------- at random

VALUES = (
    None,
    True,
    -1,
    0,
    10**9,
    10**30,
    -(10**30),
    1e308,
    float("nan"),
    float("inf"),
    "x",
    "",
    [],
    {},
    [1, [2]],
    {"a": 1},
    "\U0001f9ea",
)


def damage(folder: Path, rng: np.random.Generator) -> str:
    """Damage one of the two files in one of many ways; what was done."""
    kind = ("key", "value", "text", "bytes", "cut", "header", "tensor")[rng.integers(7)]
    description, weights = folder / DESCRIPTION, folder / WEIGHTS
    if kind in ("key", "value"):
        raw = yaml.safe_load(description.read_text())
        del raw["checksum"]
        node = raw["model"] if rng.random() < 0.5 else raw
        name = list(node)[rng.integers(len(node))]
        if kind == "key":
            del node[name]
        else:
            node[name] = copy.deepcopy(VALUES[rng.integers(len(VALUES))])
        description.write_text(yaml.safe_dump(raw))
    elif kind == "text":
        data = bytearray(description.read_bytes())
        for k in rng.integers(len(data), size=3):
            data[k] = rng.integers(256)
        description.write_bytes(bytes(data))
    elif kind == "bytes":
        data = bytearray(weights.read_bytes())
        for k in rng.integers(600, size=2):
            data[k] = rng.integers(256)
        weights.write_bytes(bytes(data))
    elif kind == "cut":
        path = (description, weights)[rng.integers(2)]
        path.write_bytes(path.read_bytes()[: rng.integers(path.stat().st_size)])
    elif kind == "header":
        data = weights.read_bytes()
        (n,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + n])
        entry = header[list(header)[rng.integers(len(header))]]
        if "shape" in entry:
            entry["shape"] = [[10**12], [-1], [2, 2], []][rng.integers(4)]
        text = json.dumps(header).encode()
        weights.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + n :])
    else:
        tensors = load_file(weights)
        name = list(tensors)[rng.integers(len(tensors))]
        tensor = tensors[name]
        change = rng.integers(5)
        tensors[name] = (
            tensor.half(),
            tensor * float("nan"),
            tensor.reshape(-1)[:1].clone(),
            tensor.long(),
            tensor * 1e30,
        )[change]
        save_file(tensors, weights)
    return kind


def examine(numbers: range, home: Path) -> Counter[str]:
    """Damage potentials, load them, and count; anything but a ConfigError or a working potential is a
    fault."""
    tally: Counter[str] = Counter()
    for number in numbers:
        rng = np.random.default_rng(number)
        folder = write_potential(home / str(number), kinds("models")[number % 4])
        before = load_potential(folder)
        kind = damage(folder, rng)
        try:
            potential = load_potential(folder)
        except ConfigError as error:
            assert str(folder) in str(error)
            tally[f"{kind}: refused"] += 1
            continue
        try:
            energy, forces, _ = potential.evaluate(species=np.array(SPECIES), positions=POSITIONS)
            assert np.isfinite(energy) and np.isfinite(forces).all()
        except ValueError as error:
            assert "not finite" in str(error)  # noqa: PT017
        if kind in ("key", "value", "text"):
            assert potential.config == before.config and dict(potential.references) == dict(before.references)
        tally[f"{kind}: loaded"] += 1
    print(dict(sorted(tally.items())))
    return tally


def test_potentials_damaged_at_random_are_refused_or_work(tmp_path):
    assert sum(n for word, n in examine(range(20), tmp_path).items() if word.endswith("refused")) >= 10


@pytest.mark.long
def test_hundreds_of_damaged_potentials_are_refused_or_work(tmp_path):
    assert (
        sum(n for word, n in examine(range(1000, 1400), tmp_path).items() if word.endswith("refused")) >= 200
    )
