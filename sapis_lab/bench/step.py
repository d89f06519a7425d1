"""Speed of a training step and of inference of this package's models, side by side (`sapis bench step`).

A step is what training does with a batch: `derivatives.predict`, the package's loss, backward, clipping,
AdamW (without Lightning, the schedule and the running average of the weights). Inference is `predict` without
a graph, for energies and forces.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from sapis_lab.bench.inputs import CUTOFF, INPUTS, make_input
from sapis_lab.bench.measure import Entry, Settings, run
from sapis_lab.bench.worker import TrainingJob
from sapis_lab.config import ConfigError, dump, expand_use, kind_class, load, override, plainly
from sapis_lab.derivatives import predict
from sapis_lab.models import ModelConfig
from sapis_lab.tasks import energy_loss
from sapis_lab.training import TrainConfig

OWN = 0.0
"""Stands for a model's own widths where a number of parameters is wanted: degrees, say, are then compared at
equal channels."""


class StepJob(TrainingJob):
    """A model of the package on one input.

    Args:
        model: the settings of the model.   input: name of the input.   device: 'cpu', 'cuda' or 'cuda:K'.
    """

    def __init__(self, *, model: dict[str, Any], input: str, device: str) -> None:
        config = load(kind_class("models", model["kind"], ModelConfig), model, source="the model")
        data, self.settings = make_input(input), TrainConfig(steps=1)
        self.device = torch.device(device)
        self.model = config.build(species=data.elements, mean_neighbors=data.mean_neighbors, seed=0)
        self.model.energy_scale.fill_(float(np.sqrt(np.mean(data.forces**2))))
        self.model.to(self.device)
        self.batch = data.batch(layout=self.model.layout).to(self.device)
        settings = self.settings
        super().__init__(
            self.model, clip=settings.clip, betas=settings.betas, weight_decay=settings.weight_decay
        )
        graph = self.batch.graph
        self.facts = {
            "n_params": sum(self.model.count().values()),
            "n_atoms": len(data.species),
            "n_frames": len(data.n_atoms),
            "n_pairs": data.n_edges,
            "note": f"{graph.n_pairs} pairs computed",
        }

    def loss(self) -> Tensor:
        prediction = predict(self.model, self.batch, differentiable=True)
        return energy_loss(prediction, self.batch, scale=self.model.energy_scale, config=self.settings.loss)

    def energies_and_forces(self) -> tuple[Tensor, Tensor]:
        prediction = predict(self.model, self.batch)
        return prediction.energy, prediction.forces

    def set_train(self, train: bool) -> None:
        self.model.train(train)


def run_step(
    *,
    models: Sequence[str],
    sizes: Sequence[float],
    inputs: Sequence[str],
    settings: Settings,
    json_file: Path | None,
    console: Console,
) -> int:
    """Measure every model at every size on every input; the exit status, 1 where any of them failed.

    Args:
        models: as `model_config` reads them.   sizes: numbers of parameters.   inputs: names of `make_input`.

    Raises:
        ConfigError: a name that is not known, a size that a model cannot have, a device that is not there.
    """
    settings = checked(settings, models)
    check_device(settings.device)
    elements = plainly(lambda: {name: make_input(name).elements for name in inputs}, about="--inputs")
    configs = {name: model_config(name) for name in models}
    entries = [
        Entry(
            name,
            size,
            data,
            "sapis_lab.bench.step:StepJob",
            {
                "model": sized_model(name, configs[name], size, elements[data]),
                "input": data,
                "device": settings.device,
            },
        )
        for data in inputs
        for size in sizes
        for name in models
    ]
    return run(entries, settings, what="step", words=INPUTS, json_file=json_file, console=console)


def check_device(device: str) -> None:
    """Raise ConfigError unless torch can run on `device`: cpu, cuda or cuda:K."""
    found = re.fullmatch(r"cpu|cuda(:(\d+))?", device)
    if not found:
        raise ConfigError(f"--device {device!r}: wanted cpu, cuda or cuda:K")
    if device != "cpu" and int(found[2] or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"--device {device}: torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices; "
            f"use --device cpu"
        )


def sized_model(name: str, config: ModelConfig, size: float, elements: tuple[int, ...]) -> dict[str, Any]:
    """The settings of `config` at about `size` parameters, or with their own widths, as plain data.
    ConfigError names model and size where it cannot be met."""
    if size == OWN:
        return dump(config)
    return dump(
        plainly(
            lambda: config.at_size(size, n_species=len(elements)), about=f"--models {name}, --sizes {size:g}"
        )
    )


def checked(settings: Settings, models: Sequence[str]) -> Settings:
    """The settings with a reference, by default the first model."""
    reference = settings.reference or models[0]
    if reference not in models:
        raise ConfigError(f"--reference {reference!r} is not measured; wanted one of {', '.join(models)}")
    return replace(settings, reference=reference)


def model_config(text: str) -> ModelConfig:
    """Settings of a model named on a command line: a file of configs/models or a kind, with `-lN` for its
    largest degree and options.

        geat    geat-l1    geat:lmax=1    geat:lmax=3:layers=1

    Raises:
        ConfigError: no such model, or no such option.
    """
    name, *options = text.split(":")
    about = f"--models {text}"
    for option in options:
        if not re.fullmatch(r"\w+=.+", option):
            raise ConfigError(f"{about}: wanted options such as geat:lmax=1:layers=2, got {option!r}")
    degree = re.fullmatch(r"(.+)-l(\d+)", name)

    def settings() -> dict[str, Any]:
        if degree:
            return override(expand_use(degree[1], "models"), [f"lmax={degree[2]}", *options])
        return override(expand_use(name, "models"), options)

    raw = plainly(settings, about=about)
    config = load(
        plainly(lambda: kind_class("models", raw.get("kind", ""), ModelConfig), about=about),
        raw,
        source=about,
    )
    if config.cutoff != CUTOFF:
        raise ConfigError(
            f"{about}: the inputs have neighbours within {CUTOFF:g} Å, got cutoff={config.cutoff:g}"
        )
    return config


def words_of(text: str, *, option: str) -> list[str]:
    """The words of a list with commas, each once."""
    found = list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not found:
        raise ConfigError(f"{option}: wanted names with commas between them, got {text!r}")
    return found


def sizes_of(text: str, *, own: bool = False) -> list[float]:
    """The numbers of parameters in a list such as 6e4,3e5; with `own`, the word own stands for `OWN`."""
    if own and text.strip() == "own":
        return [OWN]
    try:
        sizes = [float(word) for word in words_of(text, option="--sizes")]
    except ValueError as error:
        raise ConfigError(f"--sizes {text!r}: wanted numbers such as 6e4,3e5: {error}") from None
    if not all(1 <= size < 1e12 for size in sizes):
        raise ConfigError(f"--sizes {text!r}: wanted numbers of parameters, at least 1")
    return sizes
