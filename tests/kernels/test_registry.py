"""A kernel is found by the shape of a model and the device, and where there is none people are told why."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from test_geat_kernel import needs_compiler

from sapis_lab import kernels
from sapis_lab.kernels import Kernel, Refusal, find, reference_forms
from sapis_lab.kernels.geat import GeatKernel
from sapis_lab.kernels.geat_triton import GeatTriton
from sapis_lab.kernels.shapes import GeatShape
from sapis_lab.models import Model
from sapis_lab.models.geat import GeatConfig
from sapis_lab.models.nequip import NequipConfig

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")
SMALL = {"channels": 8, "heads": 2, "n_radial": 4, "edge_hidden": 5, "invariants": 3, "key_width": 2}


def built(dtype: torch.dtype = torch.float32, **settings: object) -> Model:
    config = GeatConfig.model_validate({**SMALL, **settings})
    return config.build(species=(1, 8), mean_neighbors=6.0, seed=0).to(dtype)


@needs_compiler
def test_a_model_that_the_kernel_knows_is_computed_by_it() -> None:
    model = built()
    found = find(model, CPU)
    assert isinstance(found, GeatKernel) and found is find(model, CPU)
    assert (model.kernel(CPU), model.why_no_kernel(CPU)) == ("C++", None)
    double = find(model.double(), CPU)
    assert isinstance(double, GeatKernel) and double is not found


@pytest.mark.parametrize(
    ("settings", "dtype", "device", "reason"),
    [
        ({"lmax": 4}, torch.float32, CPU, "lmax 4 > 3"),
        ({"channels": 12, "heads": 3}, torch.float64, CPU, "heads 3: wanted 1, 2, 4 or 8"),
        ({"channels": 16, "heads": 16}, torch.float64, CPU, "heads 16: wanted 1, 2, 4 or 8"),
        ({"invariants": 100, "key_width": 6}, torch.float32, CPU, "invariants x key_width 600 > 500"),
        ({}, torch.float16, CPU, "float16: wanted float32 or float64"),
        (
            {"lmax": 4, "channels": 12, "heads": 3},
            torch.float32,
            CPU,
            "lmax 4 > 3; heads 3: wanted 1, 2, 4 or 8",
        ),
        ({}, torch.float32, MPS, "none is written for Geat on mps, only C++ on cpu, Triton on cuda"),
    ],
)
def test_a_refusal_says_why(
    settings: dict[str, object], dtype: torch.dtype, device: torch.device, reason: str
) -> None:
    model = built(dtype, **settings)
    assert find(model, device) == Refusal(reason)
    assert (model.kernel(device), model.why_no_kernel(device)) == ("PyTorch", reason)


def test_a_family_without_kernels_says_so() -> None:
    model = NequipConfig(channels=4).build(species=(1, 8), mean_neighbors=6.0, seed=0)
    assert model.why_no_kernel(CPU) == "none is written for Nequip" and model.kernel(CPU) == "PyTorch"


def test_reference_forms_refuse_for_their_length_only() -> None:
    model = built()
    before = model.why_no_kernel(CPU)
    with reference_forms():
        assert find(model, CPU) == Refusal("off by reference_forms") and model.kernel(CPU) == "PyTorch"
        with reference_forms():
            pass
        assert model.why_no_kernel(CPU) == "off by reference_forms"
    assert model.why_no_kernel(CPU) == before


NEW = """
from sapis_lab.kernels import Kernel, Refusal
from sapis_lab.kernels.shapes import GeatShape


class OnCuda(Kernel):
    shape, device, name = GeatShape, "cuda", "CUDA"

    @classmethod
    def made(cls, shape, *, multipliers, dtype):
        return cls() if shape.lmax < 2 else Refusal("lmax 2 > 1")

    def __call__(self, vectors, **rest):
        return vectors, vectors, vectors
"""


@pytest.fixture
def new_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A file `geat_cuda.py` beside those of the package."""
    (tmp_path / "geat_cuda.py").write_text(NEW)
    (tmp_path / "_no_kernel.py").write_text("raise ImportError('private files are no kernels')")
    monkeypatch.setattr(kernels, "__path__", [*kernels.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    kernels._written.cache_clear()
    yield
    kernels._written.cache_clear()


def test_a_kernel_for_another_device_is_one_new_file(new_kernel: None) -> None:
    model = built(lmax=1)
    found = find(model, CUDA)
    assert isinstance(found, Kernel) and found.name == model.kernel(CUDA) == "CUDA"
    refused = built(lmax=2).why_no_kernel(CUDA)
    assert refused is not None and refused.startswith("lmax 2 > 1; Triton is not yet measured")
    assert built().why_no_kernel(MPS) == (
        "none is written for Geat on mps, only C++ on cpu, CUDA on cuda, Triton on cuda"
    )
    assert model.kernel(CPU) in ("C++", "PyTorch")  # as before


def test_kernels_are_those_of_the_public_modules() -> None:
    assert kernels._written() == (GeatKernel, GeatTriton)
    keys = [(kernel.shape, kernel.device, kernel.name) for kernel in kernels._written()]
    assert len(set(keys)) == len(keys)


def test_the_shape_of_a_model_is_plain_numbers_and_needs_no_storage() -> None:
    config = GeatConfig.model_validate({**SMALL, "lmax": 1})
    model = config.build(species=(1, 8), mean_neighbors=6.0, seed=0)
    shape = model.kernel_shape()
    assert isinstance(shape, GeatShape) and hash(shape) == hash(config.shape(n_species=2, mean_neighbors=6.0))
    with torch.device("meta"):
        assert config.shape(n_species=2, mean_neighbors=6.0) == shape
    assert (shape.n_species, shape.coupling_channels, shape.uniform) == (2, 4, 1 / 6.0)
    assert len(shape.centers) == len(shape.widths) == shape.n_radial
