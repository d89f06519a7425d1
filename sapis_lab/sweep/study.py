"""A study: one question, the lattice of points that answers it, and how its law is fitted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)

from sapis_lab import outside
from sapis_lab.analysis.options import LawOptions
from sapis_lab.config import Added, Config, FrameCount, Seed, Size, composed, composed_kind, home, kinds, load
from sapis_lab.data import DatasetConfig
from sapis_lab.evaluation import Evaluation
from sapis_lab.executors import DeviceChoice, ExecutorChoice, SlurmOptions, executor
from sapis_lab.models import ModelConfig
from sapis_lab.quantities import quantity
from sapis_lab.sweep.files import checked_name, checked_url, raw_study
from sapis_lab.sweep.scale_options import ScaleOptions
from sapis_lab.sweep.tuner.options import TuneOptions
from sapis_lab.targets import LOSS
from sapis_lab.text import without_password
from sapis_lab.training import MOST_RATE, StepChoice, TrainConfig

_MOST_POINTS = 100_000


class Lattice(Config):
    """All combinations of these are trained, for every model."""

    n_params: tuple[Size, ...] = Field(min_length=1)
    """Target numbers of parameters N, ascending. Each model meets them as nearly as its widths allow; records
    hold the exact count."""
    n_frames: tuple[FrameCount, ...] = Field(min_length=1)
    """Numbers of training frames D, ascending. Each smaller set is contained in every larger one."""
    seeds: tuple[Seed, ...] = Field(default=(0,), min_length=1)
    """Seeds of parameters and batches, ascending."""
    rate_factors: tuple[Annotated[float, Field(ge=1e-6, le=1e6)], ...] = Field(default=(1.0,), min_length=1)
    """Factors on the learning rate, ascending: a grid over rates. The analysis takes one rate for each model,
    N and D: the one with the lowest validation error averaged over the seeds, among those at which the most
    seeds finished."""

    @field_validator("n_params", "n_frames", "seeds", "rate_factors")
    @classmethod
    def _ascending(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if list(values) != sorted(set(values)):
            raise ValueError(f"wanted distinct values in ascending order, got {list(values)}")
        return values


class Published(Config):
    """Errors that somebody has published, to be shown beside those of this study."""

    model: str = Field(min_length=1, max_length=100)
    """Its name, as it is to be shown."""
    source: str = Field(min_length=1, max_length=300)
    """Where the numbers stand: authors, identifier, table."""
    n_frames: FrameCount
    """Labelled training frames D that it learnt from; models of this study are shown at the same D."""
    errors: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(min_length=1)
    """By quantity, such as `test_force_mae`, in the units of the runs table: eV and Å."""

    @field_validator("errors")
    @classmethod
    def _errors_are_known(cls, errors: dict[str, float]) -> dict[str, float]:
        for key in errors:
            quantity(key)
        return errors


class RunOptions(Config):
    """Where and how the study runs; no part of a result's identity."""

    executor: ExecutorChoice = executor("local")
    """Where points run: on this machine (local), or as Slurm job arrays (slurm); the name of a kind, or a
    mapping with `kind` and its settings. `--executor` overrides it."""
    workers: Annotated[int, Field(ge=1, le=10_000)] | Literal["auto"] = "auto"
    """Points at a time on this machine; auto: as many as its processor cores, or its GPUs, hold."""
    devices: int = Field(default=1, ge=1, le=10_000)
    """Cores or GPUs of every point, which train it together; results hardly depend on it, since batches stay
    what the study says."""
    device: DeviceChoice = "auto"
    """Where points are trained; auto: on GPUs if there are any."""
    step: StepChoice = "auto"
    """The form of a training step. eager: by autograd (GEAT on a CPU: its C++ kernel); compiled: loss and
    gradients traced into one graph and compiled once per shape of batch, for runs of hours, since compiling
    takes minutes; graph: captured as a CUDA graph and replayed; auto: eager."""
    checkpoint_seconds: float = Field(default=20.0, gt=0, le=1e6)
    """Time between two checkpoints of a point, s: what a kill costs at most."""
    cache: Path | None = None
    """Folder of the frame stores; `.sapis/data` of the project when not given. Slurm's nodes must reach
    it."""
    slurm: SlurmOptions = SlurmOptions()
    """What is asked of Slurm."""
    storage: str | None = None
    """URL of a PostgreSQL database for `sapis tune` on many hosts, `postgresql+psycopg://user@host/database`;
    a file in results/ when not given. A password in it is used, but written nowhere; $PGPASSWORD and
    ~/.pgpass serve as well."""
    heartbeat: int = Field(default=30, ge=1, le=86_400)
    """With `storage`: how often a worker says that it lives, s; what it had is put back after three of these
    without a word."""

    @field_validator("storage")
    @classmethod
    def _is_postgresql(cls, url: str | None) -> str | None:
        return None if url is None else checked_url(url)

    @field_serializer("storage")
    def _without_password(self, url: str | None) -> str | None:
        return None if url is None else without_password(url)

    @model_validator(mode="after")
    def _graphs_need_cuda(self) -> Self:
        if self.step == "graph" and self.device == "cpu":
            raise ValueError(
                "step: 'graph' replays CUDA graphs and wants CUDA, got device='cpu'; use auto, eager or "
                "compiled"
            )
        return self

    @model_validator(mode="after")
    def _devices_fill_nodes(self) -> Self:
        if self.devices % self.slurm.nodes:
            raise ValueError(
                f"devices: {self.devices} do not spread evenly over slurm.nodes={self.slurm.nodes}; wanted a "
                f"multiple"
            )
        return self

    @property
    def cache_folder(self) -> Path:
        return self.cache if self.cache is not None else home() / ".sapis" / "data"


class Study(Config):
    """`studies/NAME.yaml`, resolved."""

    name: str
    """The name of its file, and of its folder in results/."""
    kinds: Path | None = None
    """A folder with kinds of this study's own, as `models/mymodel.py` (`sapis_lab.outside`), relative to the
    project folder. Their code is run."""
    question: str
    """What it wants to know, in a sentence; the report opens with it."""
    data: composed_kind("data", DatasetConfig)  # type: ignore[valid-type]
    """The data set: a name from configs/data/, or its settings."""
    models: tuple[composed_kind("models", ModelConfig), ...] = Field(min_length=1)  # type: ignore[valid-type]
    """The models to compare: names from configs/models/, or settings."""
    lattice: Lattice
    """Sizes, data amounts and seeds."""
    train: Annotated[TrainConfig, composed("train")]
    """How every point is trained: a name from configs/train/, or settings."""
    evaluate: Annotated[
        tuple[composed_kind("evaluation", Evaluation), ...],  # type: ignore[valid-type]
        Added(before=()),
    ] = ()
    """What is measured on every point after its training: names from configs/evaluation/, or settings."""
    law: LawOptions = LawOptions()  # type: ignore[call-arg]
    """How the law is fitted."""
    published: Annotated[tuple[Published, ...], Added(before=())] = ()
    """Errors from the literature on the same data, which the report shows beside those of this study."""
    regime: str | None = None
    """A tuned study, whose rule `results/NAME/regime.json` sets the learning rate of every point from its N
    and D, and the batch size if that was tuned, for the models that it knows; `train` sets those of the
    others."""
    tune: TuneOptions | None = None
    """What `sapis tune` varies, and how."""
    scale: ScaleOptions | None = None
    """How `sapis scale` goes on from the lattice."""
    run: RunOptions = RunOptions()
    """Where and how it runs."""

    @model_validator(mode="before")
    @classmethod
    def _kinds_of_its_own(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and isinstance(place := data.get("kinds"), str | Path):
            outside.add(home() / place)  # before the other fields, which may name them
        return data

    @field_validator("name", "regime")
    @classmethod
    def _stays_in_its_folder(cls, name: str | None) -> str | None:
        return None if name is None else checked_name(name)

    @model_validator(mode="after")
    def _labels_differ(self) -> Self:
        twice = [label for label, n in Counter(m.label for m in self.models).items() if n > 1]
        if twice:
            raise ValueError(
                f"models: {twice[0]!r} appears more than once; set a different `name:` for each of them"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_used(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Studies that evaluate nothing, or compare with nobody, are written as before they could."""
        new = ("evaluate", "published")
        return {key: value for key, value in plain(self).items() if key not in new or value}

    @model_validator(mode="after")
    def _evaluations_differ(self) -> Self:
        twice = [label for label, n in Counter(e.label for e in self.evaluate).items() if n > 1]
        if twice:
            raise ValueError(
                f"evaluate: {twice[0]!r} appears more than once; set a different `name:` for each of them"
            )
        return self

    @model_validator(mode="after")
    def _law_is_measured(self) -> Self:
        """An evaluation that measures the law's quantity is one of the study, which can wait for it."""
        wanted = quantity(self.law.quantity).evaluation
        if not wanted:
            return self
        if wanted not in {e.label for e in self.evaluate}:
            raise ValueError(
                f"law.quantity: {self.law.quantity!r} is measured by the evaluation {wanted!r}, which is not "
                f"in evaluate: ({', '.join(e.label for e in self.evaluate) or 'none'})"
            )
        if self.scale is not None:
            raise ValueError(
                f"law.quantity: {self.law.quantity!r} is measured after the training, and scale: decides by "
                f"errors of the training; use one such as {LOSS}"
            )
        return self

    @model_validator(mode="after")
    def _tuning_has_objectives(self) -> Self:
        if self.tune is not None:
            self.tune.objectives_of(self.law.quantity)
        return self

    @model_validator(mode="after")
    def _scaling_has_one_model_and_epochs(self) -> Self:
        if self.scale is not None and len(self.models) != 1:
            raise ValueError(
                f"scale: wanted one model to scale, got {len(self.models)}; give each of them a study of its "
                f"own"
            )
        if self.scale is not None and self.train.epochs is None:
            raise ValueError(
                "scale: wanted train.epochs, got train.steps: at fixed steps cost does not grow with D, and "
                "nothing is traded"
            )
        return self

    @model_validator(mode="after")
    def _points_can_be_counted(self) -> Self:
        lattice = self.lattice
        n = (
            len(self.models)
            * len(lattice.n_params)
            * len(lattice.n_frames)
            * len(lattice.seeds)
            * len(lattice.rate_factors)
        )
        if n > _MOST_POINTS:
            raise ValueError(
                f"lattice: all combinations are {n} points, wanted at most {_MOST_POINTS}; make two studies "
                f"of it"
            )
        return self

    @model_validator(mode="after")
    def _reference_is_a_model(self) -> Self:
        labels = [m.label for m in self.models]
        if self.law.reference not in (None, *labels):
            raise ValueError(
                f"law.reference: {self.law.reference!r} is no model of this study; its models are "
                f"{', '.join(labels)}"
            )
        return self

    @model_validator(mode="after")
    def _rates_name_models(self) -> Self:
        if isinstance(self.train.learning_rate, dict):
            # Rates of kinds that this study leaves out may come with configs/train/; a name that is nothing
            # at all is a slip.
            known = {m.label for m in self.models} | set(kinds("models")) | {"default"}
            unknown = sorted(set(self.train.learning_rate) - known)
            if unknown:
                raise ValueError(
                    f"train.learning_rate: {unknown[0]!r} is no model; known: {', '.join(sorted(known))}"
                )
        for model in self.models:
            for factor, n_params in product(self.lattice.rate_factors, self.lattice.n_params):
                if not 0 < (rate := factor * self.train.rate_of(model, n_params)) <= MOST_RATE:
                    raise ValueError(
                        f"lattice.rate_factors: {factor:g} makes the learning rate of {model.label} "
                        f"{rate:g}, wanted at most {MOST_RATE:g}"
                    )
        return self


def load_study(name: str, settings: Sequence[str] = (), *, called: str | None = None) -> Study:
    """The study `studies/NAME.yaml`, resolved, with overrides such as `train.steps=100`; `called` gives it
    another name.

    Raises:
        ConfigError: no such study, an unknown key, a value that cannot be used; the message names file and
        field.
    """
    return load(Study, raw_study(name, settings, called=called), source=f"studies/{name}.yaml")
