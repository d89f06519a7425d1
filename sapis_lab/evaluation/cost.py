"""What using the trained potential costs: time per atom and memory, by the number of frames at a time.

The frames are the first of the first test set, repeated where there are fewer. Times are those of
`Potential.predict` as a user calls it, with neighbour lists: the median of `repeats` calls after one that is
not counted. Memory is the most that was taken beyond what the process had before its first prediction: on a
GPU of torch's allocator, on a CPU of resident pages (Linux alone). One process at a time on an idle machine
gives numbers to compare: use one worker.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator

from sapis_lab.evaluation import Evaluation, Measured, Subject
from sapis_lab.measures import Quantity


class CostConfig(Evaluation):
    """Seconds per atom and memory of inference."""

    kind: Literal["cost"] = "cost"
    batches: tuple[Annotated[int, Field(ge=1, le=100_000)], ...] = Field(default=(1, 16, 64), min_length=1)
    """Numbers of frames at a time, ascending."""
    repeats: int = Field(default=5, ge=1, le=1000)
    """Calls that are timed, of each of them."""

    @field_validator("batches")
    @classmethod
    def _ascending(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        if list(values) != sorted(set(values)):
            raise ValueError(f"wanted distinct numbers in ascending order, got {list(values)}")
        return values

    @classmethod
    def quantities(cls) -> tuple[Quantity, ...]:
        def of_machine(key: str, label: str, unit: str, shown: str, factor: float) -> Quantity:
            return Quantity(
                key, label, unit, better="lower", display_unit=shown, display_factor=factor, is_time=True
            )

        return (
            of_machine(
                "seconds_per_atom_b{n}", "inference time per atom, {n} frames at a time", "s", "μs", 1e6
            ),
            of_machine("memory_b{n}", "memory of inference, {n} frames at a time", "B", "MB", 1e-6),
        )

    def parts(self, subject: Subject) -> tuple[str, ...]:
        return ("all",)  # memory is counted from one start

    def measure(self, subject: Subject, part: str) -> dict[str, np.ndarray]:
        """seconds (n_batches, repeats) s; n_atoms (n_batches,); memory (n_batches,) bytes, NaN where it
        cannot be known."""
        ids = subject.test_frames()
        meter = _Memory(subject.device)
        seconds, n_atoms, memory = [], [], []
        for n in self.batches:
            structures = subject.structures(np.resize(ids, n))
            n_atoms.append(sum(len(s.species) for s in structures))
            subject.potential.predict(structures)
            seconds.append([_timed(subject, structures) for _ in range(self.repeats)])
            memory.append(meter.most())
        return {
            "batches": np.array(self.batches),
            "seconds": np.array(seconds),
            "n_atoms": np.array(n_atoms),
            "memory": np.array(memory),
        }

    def score(self, measured: Measured) -> dict[str, float]:
        arrays = measured["all"]
        scores = {}
        for k, n in enumerate(arrays["batches"]):
            scores[f"seconds_per_atom_b{n}"] = float(np.median(arrays["seconds"][k]) / arrays["n_atoms"][k])
            if np.isfinite(arrays["memory"][k]):
                scores[f"memory_b{n}"] = float(arrays["memory"][k])
        return scores


def _timed(subject: Subject, structures: list) -> float:
    began = time.perf_counter()
    subject.potential.predict(structures)  # its arrays are on the host: what a GPU does has ended
    return time.perf_counter() - began


class _Memory:
    """The most memory beyond what there is now, bytes."""

    def __init__(self, device: str) -> None:
        self.device, self.status = device, Path("/proc/self/status")
        if device.startswith("cuda"):
            import torch

            torch.cuda.reset_peak_memory_stats(device)
            self.before = float(torch.cuda.memory_allocated(device))
            return
        self.before = self._pages("VmRSS")
        try:
            Path("/proc/self/clear_refs").write_text("5")  # the peak counts from now
        except OSError:
            self.before = float("nan")

    def most(self) -> float:
        if self.device.startswith("cuda"):
            import torch

            return torch.cuda.max_memory_allocated(self.device) - self.before
        return max(0.0, self._pages("VmHWM") - self.before)

    def _pages(self, key: str) -> float:
        try:
            lines = self.status.read_text().splitlines()
        except OSError:
            return float("nan")
        return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith(key)), float("nan"))
