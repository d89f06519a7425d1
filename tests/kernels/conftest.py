"""Processes for Triton, which reads when it is imported whether it is to interpret kernels."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest


def process(**environment: str) -> Iterator[ProcessPoolExecutor]:
    """A process with this in its environment."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed: the extra `gpu`")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TRITON_INTERPRET", raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        pool.submit(os.getpid).result()
    with pool:
        yield pool


@pytest.fixture(scope="session")
def interpreter() -> Iterator[ProcessPoolExecutor]:
    """Where kernels are interpreted on CPU tensors."""
    yield from process(TRITON_INTERPRET="1", SAPIS_KERNELS="require")


@pytest.fixture(scope="session")
def compiler() -> Iterator[ProcessPoolExecutor]:
    """Where kernels can be compiled for devices that are not there."""
    yield from process()
