"""A library of another version, and sizes that would run over a buffer, end in an error that names them."""

from __future__ import annotations

import ctypes
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from test_geat_kernel import batch, built, needs_compiler

from sapis_lab import kernels
from sapis_lab.atoms import AtomsBatch
from sapis_lab.kernels import Refusal, geat, libraries
from sapis_lab.kernels.geat import GeatKernel
from sapis_lab.models.geat import Geat

FOLDER = Path(geat.__file__).parent
SMALL: dict[str, object] = {
    "lmax": 1,
    "channels": 8,
    "heads": 2,
    "n_radial": 4,
    "edge_hidden": 5,
    "invariants": 3,
    "key_width": 2,
}


def library() -> ctypes.CDLL:
    found = libraries.library("geat", ("REAL=double", "DEGREES=2"))
    assert not isinstance(found, Refusal)
    return found


# ----------------------------------------------------------------------------------------------------- layout


@needs_compiler
def test_the_library_of_these_sources_is_of_the_version_of_the_page_that_calls_it() -> None:
    geat._Library(library())


@needs_compiler
def test_another_abi_number_is_refused_and_both_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geat, "ABI", 99)
    said = rf"geat_abi is 1 in {re.escape(library()._name)} and 99 in sapis_lab/kernels/geat\.py"
    with pytest.raises(libraries.OtherVersionError, match=said):
        built(SMALL).kernel(torch.device("cpu"))


@needs_compiler
@pytest.mark.parametrize(("struct", "name"), [("_Shape", "geat_shape_bytes"), ("_Batch", "geat_batch_bytes")])
def test_a_struct_of_another_size_is_refused(struct: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Longer(ctypes.Structure):
        _fields_ = [*getattr(geat, struct)._fields_, ("more", ctypes.c_int64)]

    size = ctypes.sizeof(getattr(geat, struct))
    monkeypatch.setattr(geat, struct, Longer)
    with pytest.raises(libraries.OtherVersionError, match=f"{name} is {size} in .* and {size + 8} in"):
        geat._Library(library())


@needs_compiler
def test_another_number_of_parameters_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geat, "_LAYER", geat._LAYER[:-1])
    with pytest.raises(libraries.OtherVersionError, match="geat_layer_parameters is 15 in .* and 14 in"):
        geat._Library(library())


def test_a_library_from_before_the_numbers_is_refused() -> None:
    with pytest.raises(libraries.OtherVersionError, match=r"geat_abi is missing in old\.so and 1 in"):
        libraries.check_numbers(SimpleNamespace(_name="old.so"), {"geat_abi": 1}, caller="geat.py")


# ----------------------------------------------------------------------------------------------------- bounds


@pytest.fixture
def model() -> Iterator[Geat]:
    made = built(SMALL)
    kernel = kernels.find(made, torch.device("cpu"))
    assert isinstance(kernel, GeatKernel)
    yield made


def energies(model: Geat, made: AtomsBatch) -> torch.Tensor:
    found = model.energy_and_gradient(made.graph.vectors(made.positions, made.cell), made)
    assert found is not None
    return found[0]


@needs_compiler
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"lmax": 2}, "lmax 2: this library computes lmax 1"),
        ({"heads": 16}, "heads 16: wanted 1, 2, 4 or 8"),
        ({"heads": 3}, "heads 3: wanted 1, 2, 4 or 8"),
        ({"heads": 0}, "heads 0: wanted 1, 2, 4 or 8"),
        ({"channels": 9}, "channels 9: wanted a multiple of heads 2"),
        ({"invariants": 501, "key_width": 1}, "invariants 501 x key_width 1 > 500"),
        ({"invariants": 2**62, "key_width": 4}, "invariants 4611686018427387904 x key_width 4 > 500"),
        ({"born_hidden": 6}, "born_hidden 6: wanted 1 to edge_hidden 5"),
        ({"n_radial": 0}, "a size of 0: wanted at least 1"),
    ],
)
def test_sizes_beyond_the_buffers_are_refused_at_entry(
    changed: dict[str, int], said: str, model: Geat
) -> None:
    made = batch("molecules")
    before, kernel = energies(model, made), kernels.find(model, torch.device("cpu"))
    assert isinstance(kernel, GeatKernel)
    kept = {name: getattr(kernel.sizes, name) for name in changed}
    for name, value in changed.items():
        setattr(kernel.sizes, name, value)
    with pytest.raises(ValueError, match=f"the GEAT kernel cannot compute this: {said}"):
        energies(model, made)
    for name, value in kept.items():
        setattr(kernel.sizes, name, value)
    assert torch.equal(energies(model, made), before)


@needs_compiler
def test_the_largest_sizes_that_python_admits_are_computed() -> None:
    made = batch("molecules")
    for settings in ({"invariants": 125, "key_width": 4}, {"channels": 8, "heads": 8}):
        model = built({**SMALL, **settings})
        with kernels.reference_forms():
            wanted = model(made).energy
        total = energies(model, made).new_zeros(made.n_frames)
        total = total.index_add(0, made.batch, energies(model, made))
        assert torch.allclose(total, wanted, rtol=1e-10)


@needs_compiler
@pytest.mark.parametrize("structure", ["molecules", "crystals"])
def test_a_species_that_the_model_does_not_know_is_refused(structure: str, model: Geat) -> None:
    made = batch(structure)
    made.species[0] = 118
    with pytest.raises(ValueError, match=r"an atom of species (\d+) of \1: the model does not know it"):
        energies(model, made)


@needs_compiler
@pytest.mark.parametrize("structure", ["molecules", "crystals"])
def test_a_layout_that_does_not_fit_the_atoms_is_refused(structure: str, model: Geat) -> None:
    made = batch(structure)
    made.n_atoms = made.n_atoms[:-1]
    said = "147 displacements: wanted 98" if structure == "molecules" else r"\d+ displacements: wanted \d+"
    with pytest.raises(ValueError, match=said):
        energies(model, made)


@needs_compiler
def test_a_frame_that_is_larger_than_its_block_is_refused(model: Geat) -> None:
    made = batch("molecules")
    made.n_atoms = made.n_atoms + torch.tensor([1, 0, -1])
    with pytest.raises(ValueError, match="a frame of 8 atoms in a block of 7"):
        energies(model, made)


@needs_compiler
def test_displacements_of_another_precision_are_refused(model: Geat) -> None:
    made = batch("molecules")
    made.positions = made.positions.float()
    with pytest.raises(ValueError, match=r"is built for torch\.float64, got {torch\.float32}"):
        energies(model, made)


# ---------------------------------------------------------------------------------------------------- sources


def test_the_key_of_a_library_holds_every_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in [*FOLDER.glob("*.cpp"), *FOLDER.glob("*.h")]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "stranger.h").write_text("// of no kernel\n")
    (tmp_path / "soap.cpp").unlink()  # a library of its own
    monkeypatch.setattr(libraries, "__file__", str(tmp_path / "libraries.py"))
    monkeypatch.setattr(libraries, "_compiler", lambda: "/usr/bin/true")
    monkeypatch.setattr(libraries, "_version", lambda compiler: "1")
    monkeypatch.setattr(libraries, "_is_whole", lambda target: True)

    def key() -> str:
        return libraries.build("geat", folder=tmp_path / "cache").name

    before, names = key(), [path.name for path in libraries.sources(tmp_path / "geat.cpp")]
    written = {path.name for path in tmp_path.iterdir() if path.suffix in (".cpp", ".h")}
    assert names[0] == "geat.cpp" and {*names, "stranger.h"} == written
    for name in [*names, "stranger.h"]:
        kept = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(kept + b"\n")
        assert (key() == before) == (name == "stranger.h"), name
        (tmp_path / name).write_bytes(kept)
    assert key() == before


@needs_compiler
def test_the_sources_are_those_that_the_compiler_reads() -> None:
    flags = [*libraries.FLAGS, "-DREAL=float", "-DDEGREES=3", "-MM"]
    listed = subprocess.run(
        [libraries._compiler(), *flags, str(FOLDER / "geat.cpp")], capture_output=True, text=True, check=True
    ).stdout.replace("\\\n", " ")
    read = {Path(name).resolve() for name in listed.split(":", 1)[1].split()}
    assert read == set(libraries.sources(FOLDER / "geat.cpp")) and len(read) > 8


def test_the_package_ships_every_source() -> None:
    project = tomllib.loads((FOLDER.parents[1] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["sapis_lab"]
    shipped = {path for pattern in patterns for path in FOLDER.parent.glob(pattern)}
    for source in FOLDER.glob("*.cpp"):
        assert set(libraries.sources(source)) <= shipped


def test_lines_of_the_sources_fit_the_page() -> None:
    for path in [*FOLDER.glob("*.cpp"), *FOLDER.glob("*.h")]:
        assert max(map(len, path.read_text().splitlines())) <= 110, path
