"""The training step in one of its forms, as a job for `worker`, and the float64 reference of its numbers.

    eager      PyTorch alone (`kernels.reference_forms`)
    graph      the same operations, captured once and replayed as a CUDA graph (`training.step_forms`)
    kernel     what training takes on this device where something is compiled for it: a kernel of the registry
               (`kernels.find`), or operations of the model's own
    replay     the same, captured and replayed, where the kernel says that it can be traced
    compiled   the traced step through inductor

A step is that of `bench.step`: energies, forces, loss, backward, clipping, AdamW.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from sapis_lab import kernels
from sapis_lab.accounting import counted_flops
from sapis_lab.atoms import AtomsBatch
from sapis_lab.bench.device.worker import Absent
from sapis_lab.bench.inputs import BenchInput, make_input
from sapis_lab.bench.worker import TrainingJob, dispatched
from sapis_lab.config import kind_class, load
from sapis_lab.derivatives import predict
from sapis_lab.kernels import reference_forms
from sapis_lab.models import Model, ModelConfig
from sapis_lab.tasks import Objective
from sapis_lab.training import TrainConfig, step_forms

Form = Literal["eager", "graph", "kernel", "replay", "compiled"]
FORMS: tuple[Form, ...] = get_args(Form)
_STEP_FORMS: dict[Form, step_forms.StepForm] = {
    "eager": "eager",
    "graph": "graph",
    "kernel": "eager",
    "replay": "graph",
    "compiled": "compiled",
}
_WARM_UPS = 2


class Trained(NamedTuple):
    """A model with what it is trained on, and for."""

    model: Model
    batch: AtomsBatch
    objective: Objective
    counts: Tensor
    """(n_targets,) frames or atoms that the sums of the loss are divided by"""


def trained(
    model: dict[str, Any],
    data: BenchInput,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    whole: BenchInput | None = None,
) -> Trained:
    """A model of these settings with the weights of seed 0, which are the same in every precision, and a
    batch.

    Args:
        whole: of whose frames `data` are a share; the model and the counts of the loss are those of all.
    """
    config = load(kind_class("models", model["kind"], ModelConfig), model, source="the model")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    whole, settings = whole or data, TrainConfig(steps=1)
    made = config.build(species=whole.elements, mean_neighbors=whole.mean_neighbors, seed=0)
    made.energy_scale.fill_(float(np.sqrt(np.mean(whole.forces**2))))
    made.to(device, dtype)
    targets = settings.task.targets(settings)
    counts = [len(whole.n_atoms) if target.per == "frame" else len(whole.species) for target in targets]
    return Trained(
        made,
        data.batch(layout=made.layout, dtype=dtype).to(device),
        settings.task.objective(made, targets),
        torch.tensor(counts, dtype=dtype, device=device),
    )


def make_form(*, model: dict[str, Any], input: str, device: str, form: Form) -> FormJob | Absent:
    """The step of a model on an input in this form, or why there is none here."""
    if form in ("graph", "replay") and not device.startswith("cuda"):
        return Absent("CUDA graphs want a CUDA device")
    if form == "compiled" and not device.startswith("cuda"):
        step_forms.BACKEND = "eager"  # inductor takes minutes for a CPU
    if form in ("kernel", "replay"):
        why = _why_no_kernel(model, input, torch.device(device), traced=form == "replay")
        if why is not None:
            return Absent(why)
    return FormJob(model=model, input=input, device=device, form=form)


def _why_no_kernel(model: dict[str, Any], input: str, device: torch.device, *, traced: bool) -> str | None:
    """Why PyTorch alone computes the step, or with `traced` its replay; None where something else takes
    part."""
    ready = trained(model, make_input(input), device=device)
    found = kernels.find(ready.model, device)
    if traced and isinstance(found, kernels.Kernel) and not found.traceable:
        return f"{found.name} cannot be traced"
    why = ready.model.why_no_kernel(device)
    return None if why is None or _own_operations(ready) else why


def _own_operations(ready: Trained) -> bool:
    """Whether a model without a kernel of the registry has operations of its own for this device, which
    `reference_forms` takes away: it then asks PyTorch for others."""
    numbers = []
    for form in (reference_forms(), nullcontext()):
        with form:
            numbers.append(dispatched(lambda: predict(ready.model, ready.batch, differentiable=True)))
    return numbers[0] != numbers[1]


class FormJob(TrainingJob):
    """A model on an input, trained by one form of the step; what it computes at birth is kept."""

    def __init__(self, *, model: dict[str, Any], input: str, device: str, form: Form) -> None:
        data, self.form, self.device = make_input(input), form, torch.device(device)
        ready = trained(model, data, device=self.device)
        self.model, self.batch, self.counts = ready.model, ready.batch, ready.counts
        settings = TrainConfig(steps=1)
        super().__init__(
            self.model, clip=settings.clip, betas=settings.betas, weight_decay=settings.weight_decay
        )
        self.step = step_forms.make_step(ready.objective, form=_STEP_FORMS[form])
        self.forces, self.gradient = self._at_birth()
        graph = self.batch.graph
        self.facts = {
            "n_params": sum(self.model.count().values()),
            "n_atoms": len(data.species),
            "n_pairs": graph.n_pairs,
            "kernel": self.model.kernel(self.device) if form in ("kernel", "replay") else None,
        }
        for _ in range(_WARM_UPS):
            self.train()
        self.settle()

    def settle(self) -> None:
        """Forget what making it has taken of the memory."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    @contextmanager
    def _form(self) -> Iterator[None]:
        with reference_forms() if self.form in ("eager", "graph") else nullcontext():
            yield

    def loss(self) -> Tensor:
        with self._form():
            return self.step(self.batch, self.counts)

    def energies_and_forces(self) -> tuple[Tensor, Tensor]:
        with self._form():
            found = predict(self.model, self.batch)
        return found.energy, found.forces

    def set_train(self, train: bool) -> None:
        self.model.train(train)

    def _at_birth(self) -> tuple[np.ndarray | None, np.ndarray]:
        """Forces (A, 3), which only steps of these forms compute on their own, and the gradient as one
        vector."""
        self.loss().backward()
        gradient = flat_gradient(self.model)
        own_forces = self.form in ("eager", "kernel")
        return self.energies_and_forces()[1].cpu().numpy() if own_forces else None, gradient

    def agreement(self, *, file: str) -> dict[str, float | None]:
        """How far forces and gradient are from those of `write_reference`: see `force_error` and
        `gradient_error`."""
        with np.load(file) as reference:
            return {
                "force_error": None if self.forces is None else force_error(self.forces, reference["forces"]),
                "gradient_error": gradient_error(self.gradient, reference["gradient"]),
            }

    def memory(self) -> dict[str, int | None]:
        """Most memory that the steps have taken of the device, bytes, what the allocator holds for them
        included: a captured graph keeps its intermediate results there."""
        cuda = self.device.type == "cuda"
        return {"reserved_bytes": torch.cuda.max_memory_reserved(self.device) if cuda else None}


def flat_gradient(model: torch.nn.Module) -> np.ndarray:
    """The gradients of all parameters as one vector, zeros where there is none."""
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters() if p.requires_grad]
    return torch.cat([p.reshape(-1) for p in parts]).cpu().numpy()


def force_error(found: np.ndarray, wanted: np.ndarray) -> float:
    """Root of the mean square of the difference over that of the forces."""
    return float(np.sqrt(np.mean((found - wanted) ** 2) / np.mean(wanted**2)))


def gradient_error(found: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference of an entry over the largest entry."""
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def write_reference(
    *, model: dict[str, Any], input: str, device: str, threads: int, file: str
) -> dict[str, Any]:
    """Forces and gradient in float64, in PyTorch alone, to an npz file; the FLOPs of a training step."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        ready = trained(model, make_input(input), device=torch.device(device), dtype=torch.float64)
        forces, gradient = forces_and_gradient(ready)
        flops = counted_flops(lambda: ready.objective(ready.batch, ready.counts).backward())
    finally:
        torch.set_num_threads(before)
    np.savez(file, forces=forces, gradient=gradient)
    return {"flops": flops}


def forces_and_gradient(ready: Trained) -> tuple[np.ndarray, np.ndarray]:
    """Forces (A, 3) and the gradient of the loss as one vector, in PyTorch alone."""
    with reference_forms():
        forces = predict(ready.model, ready.batch).forces.cpu().numpy()
        ready.model.zero_grad(set_to_none=True)
        ready.objective(ready.batch, ready.counts).backward()
    return forces, flat_gradient(ready.model)
