"""Every model kind, small, in both precisions."""

from __future__ import annotations

import pytest
import torch
from contract_cases import KINDS, small

from sapis_lab.models import Model, ModelConfig
from sapis_lab.selftest import build


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(params=KINDS)
def config(request: pytest.FixtureRequest) -> ModelConfig:
    """Small settings of every kind."""
    return small(request.param)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture
def model(config: ModelConfig, dtype: torch.dtype) -> Model:
    return build(config, dtype=dtype, seed=0)


@pytest.fixture
def double(config: ModelConfig) -> Model:
    """The model in float64."""
    return build(config, dtype=torch.float64, seed=0)
