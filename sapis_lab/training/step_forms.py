"""The training step as one graph: its loss and parameter gradients, traced once per shape, then compiled or
replayed as a CUDA graph.

`torch.compile` of the energy is not an option: the graph it makes cannot be differentiated twice, and
gradients taken through it lose the force term, without an error in some versions of PyTorch (pytorch issues
91469 and 181581). So the whole step is traced,

    (parameters, batch, counts) -> L, dL/dparameters,      L = energy sum / counts[0] + force sum / counts[1],

with both derivatives inside: what is compiled or captured is a list of forward operations, and no autograd is
left at run time. Of the traced values only shapes are fixed; what depends on values would raise an error
while it is traced. The first result of every shape is compared with the eager step all the same.

Forms (`run.step` of a study):
    eager      `derivatives.predict`, the loss, autograd;
    compiled   the graph through inductor. Its results lie in $TORCHINDUCTOR_CACHE_DIR, by default
               `sapis_lab/inductor` in the user's cache folder, shared by all workers: points that differ in
               seed or learning rate alone find those of the first (inductor's FX graph cache), and so do
               later runs; D changes the mean number of neighbours, a constant of the graph, and with it some;
    graph      the graph captured once as a `torch.cuda.CUDAGraph` with inputs at fixed addresses, then
               replayed: the operations of the eager step without the time that Python and the launches take.
               Kernels that can be traced (Triton's) are part of it.
"""

from __future__ import annotations

import math
import operator
import os
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from sapis_lab.atoms import AtomsBatch
from sapis_lab.errors import Notice
from sapis_lab.kernels import reference_forms, traceable_forms
from sapis_lab.kernels.libraries import usable_folder
from sapis_lab.tasks import Objective
from sapis_lab.training._config import StepChoice

StepForm = Literal["eager", "compiled", "graph"]

BACKEND = "inductor"
"""Of the form `compiled`: a backend of torch.compile, or `eager` for the traced graph as it is (tests, which
cannot wait for inductor)."""
LIMIT = 4
"""Shapes that are compiled or captured; batches of further shapes take the eager step."""
AGREEMENT = {torch.float32: 1e-2, torch.float64: 1e-8}
"""Largest difference to the eager gradients, over the largest of them, that the first result of a shape may
show; without the force term they are off by tens of per cent, and near a minimum float32 leaves gradients few
digits."""
_WARM_UPS = 3


# ---------------------------------------------------------------------------------------------------- choices


def chosen_form(step: StepChoice, *, device: torch.device) -> StepForm:
    """The form that `step` stands for. `auto` is what is known to pay: the eager step.

    On a CPU compilation takes minutes for every size of a lattice, and GEAT has its C++ kernel. Whether a
    replay pays on a GPU has not been measured, so that it is there for who asks for it.

    Raises:
        ValueError: `graph` away from CUDA.
    """
    if step == "graph" and device.type != "cuda":
        raise ValueError(
            f"run.step: 'graph' replays CUDA graphs and wants CUDA, got device {device}; use auto, eager or "
            f"compiled"
        )
    return "eager" if step == "auto" else step


# ------------------------------------------------------------------------------------------------- eager step


class MeanLoss(Protocol):
    """A form of the step: the loss of a batch, from which `backward` reaches the parameters."""

    def __call__(self, batch: AtomsBatch, counts: Tensor) -> Tensor:
        """L, (); counts (n_targets,): labelled frames, or atoms, to divide the sums by."""


def make_step(objective: Objective, *, form: StepForm, required: bool = True) -> MeanLoss:
    """The step of an objective in `form`. Where it cannot be captured: an error if `required`, else the eager
    step and a warning."""
    if form == "eager":
        return objective
    return TracedStep(objective, form=form, required=required)


# ------------------------------------------------------------------------------------------- batch as tensors


class _Parts(NamedTuple):
    """What a step sees of a batch, taken apart."""

    tensors: list[Tensor]
    shape: tuple[Any, ...]
    """Hashable: the layout, the shape and type of every tensor, and the values of everything else."""


def _taken_apart(batch: AtomsBatch) -> _Parts:
    values = [batch.get(name) for name in _PLAIN]  # type: ignore[operator]
    named = {name: dict(batch[name]) if name in batch else {} for name in _NAMED}  # type: ignore[operator]
    values += [*batch.graph, *(v for labels in named.values() for v in labels.values())]
    tensors = [v for v in values if isinstance(v, Tensor)]
    keys = tuple((name, tuple(labels)) for name, labels in named.items())
    return _Parts(tensors, (type(batch.graph), keys, tuple(_described(v) for v in values)))


_PLAIN = ("positions", "species", "n_atoms", "cell", "energy", "forces", "stress")
_NAMED = ("labels", "present")
"""Mappings of tensors that a batch may have."""


def _described(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype, value.device
    # moving or cloning a `Data` makes lists of tuples
    return tuple(value) if isinstance(value, list) else value


def _put_together(tensors: Sequence[Tensor], shape: tuple[Any, ...]) -> AtomsBatch:
    kind, keys, described = shape
    rest = iter(tensors)
    values = iter([next(rest) if _is_tensor(d) else d for d in described])
    plain = {name: next(values) for name in _PLAIN}
    graph = kind(*(next(values) for _ in kind._fields))
    named = {name: {key: next(values) for key in of_name} for name, of_name in keys if of_name}
    return AtomsBatch(batch=graph.frame, graph=graph, **plain, **named)


def _is_tensor(described: Any) -> bool:
    return isinstance(described, tuple) and isinstance(described[-1], torch.device)


# ------------------------------------------------------------------------------------------------------ trace


class _Whole(nn.Module):
    """The eager step as a module, so that its parameters can be passed in."""

    def __init__(self, step: Objective) -> None:
        super().__init__()
        self.model, self.step = step.model, step

    def forward(self, batch: AtomsBatch, counts: Tensor) -> Tensor:
        return self.step(batch, counts)


class Traced(NamedTuple):
    """A step as one graph."""

    graph: GraphModule
    """(state, tensors of the batch, counts) -> [L, the gradients that there are]"""
    used: list[bool]
    """which trained parameters have a gradient, in their order"""


def trace(step: Objective, parts: _Parts, counts: Tensor, form: StepForm = "compiled") -> Traced:
    """Loss and parameter gradients of the shape of `parts` as one graph of forward operations: in the PyTorch
    form of the model, or for `graph` by its kernel, if that can be traced (inductor makes its own)."""
    # a second of imports that the other forms do without
    from torch.fx.experimental.proxy_tensor import (
        make_fx,
    )

    whole = _Whole(step)
    state = {**dict(whole.named_parameters()), **dict(whole.named_buffers())}
    trained, n = [t.requires_grad for t in state.values()], len(state)
    used: list[bool] = []
    forms = traceable_forms if form == "graph" else reference_forms

    def function(*flat: Tensor) -> list[Tensor]:
        leaves = [t.detach().requires_grad_(wanted) for t, wanted in zip(flat[:n], trained, strict=True)]
        with torch.enable_grad(), forms():
            loss = functional_call(
                whole,
                dict(zip(state, leaves, strict=True)),
                (_put_together(flat[n:-1], parts.shape), flat[-1]),
            )
            gradients = torch.autograd.grad(loss, [t for t in leaves if t.requires_grad], allow_unused=True)
        used[:] = [g is not None for g in gradients]
        return [loss.detach(), *(g for g in gradients if g is not None)]

    # Traced on real tensors: constants that models cast on first use would otherwise be cached as fake ones.
    flat = [*(t.detach() for t in state.values()), *parts.tensors, counts]
    graph = make_fx(function, tracing_mode="real")(*flat)
    with torch.no_grad():
        _simplify(graph)
    return Traced(graph, used)


def _simplify(traced: GraphModule) -> None:
    """Take out detachments and what works in place, evaluate what depends on no input, drop what nobody uses.

    Constants are also what a CUDA graph cannot capture: they are copied from the host.
    """
    for node in traced.graph.nodes:
        if _in_place(node) and _is_private(node.args[0]):
            node.target = _out_of_place(node.target)
    if not any(_in_place(node) for node in traced.graph.nodes):  # values may then be shared
        for node in list(traced.graph.nodes):
            if node.target is torch.ops.aten.detach.default:
                node.replace_all_uses_with(node.args[0])
                traced.graph.erase_node(node)
        _fold(traced)
    traced.graph.eliminate_dead_code()
    traced.recompile()


def _in_place(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def _is_private(value: Any) -> bool:
    """Whether a node makes a new tensor that one other node alone uses, which may then as well leave it as it
    is."""
    schema = getattr(value.target, "_schema", None)
    return len(value.users) == 1 and schema is not None and all(r.alias_info is None for r in schema.returns)


def _out_of_place(target: Any) -> Any:
    """aten.sub for aten.sub_."""
    packet, overload = target._schema.name.removeprefix("aten::").removesuffix("_"), target._overloadname
    return getattr(getattr(torch.ops.aten, packet), overload)


def _fold(traced: GraphModule) -> None:
    known: dict[Node, Any] = {}
    for node in list(traced.graph.nodes):
        if node.op == "get_attr":
            known[node] = operator.attrgetter(str(node.target))(traced)
        elif node.op == "call_function" and all(n in known for n in node.all_input_nodes):
            args, kwargs = (map_arg(a, known.__getitem__) for a in (node.args, node.kwargs))
            known[node] = node.target(*args, **kwargs)  # type: ignore[operator]
    for i, (node, value) in enumerate(known.items()):
        if (
            node.op == "call_function"
            and isinstance(value, Tensor)
            and any(user not in known for user in node.users)
        ):
            traced.register_buffer(f"folded_{i}", value)
            with traced.graph.inserting_before(node):
                node.replace_all_uses_with(traced.graph.get_attr(f"folded_{i}"))


# -------------------------------------------------------------------------------------------- compile, replay

Runner = Callable[[list[Tensor], list[Tensor]], list[Tensor]]
"""(state, tensors of the batch and counts) -> [L, gradients]."""


def _compiled(graph: GraphModule) -> Runner:
    function: Callable[..., list[Tensor]] = graph
    if BACKEND != "eager":
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(usable_folder() / "inductor"))
        function = torch.compile(graph, backend=BACKEND, dynamic=False, fullgraph=True)
    return lambda state, inputs: function(*state, *inputs)


class _Replay:
    """A captured graph: inputs are copied to fixed addresses, parameters and buffers are read where they
    are."""

    def __init__(self, graph: GraphModule, state: list[Tensor], inputs: list[Tensor]) -> None:
        self.inputs = [t.clone() for t in inputs]
        self.addresses = [t.data_ptr() for t in state]
        self.outputs, self.replay = captured(lambda: graph(*state, *self.inputs))

    def __call__(self, state: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
        if [t.data_ptr() for t in state] != self.addresses:
            raise RuntimeError(
                "the parameters have moved in memory since the training step was captured; make a new step"
            )
        for own, new in zip(self.inputs, inputs, strict=True):
            own.copy_(new, non_blocking=True)
        self.replay()
        # The next replay overwrites the outputs, which whoever holds the result must not see; the product
        # copies them in few launches.
        return list(torch._foreach_mul(self.outputs, 1.0))


def captured(function: Callable[[], list[Tensor]]) -> tuple[list[Tensor], Callable[[], None]]:
    """The outputs of `function` at fixed addresses, and what computes them anew from the present contents of
    its inputs."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # libraries set themselves up on first use, which cannot be captured
        for _ in range(_WARM_UPS):
            function()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    # thread_local: the threads of NCCL and of the loader may go on meanwhile
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        outputs = function()
    return outputs, graph.replay


class _Bucket(NamedTuple):
    """The step for one shape."""

    run: Runner
    used: list[bool]


class TracedStep:
    """The step of one model as a graph per shape of the batch; deliberately no Module, so that no checkpoint
    knows of it."""

    def __init__(
        self, objective: Objective, *, form: Literal["compiled", "graph"], required: bool = True
    ) -> None:
        self.eager, self.form, self.required = objective, form, required
        self.buckets: dict[tuple[Any, ...], _Bucket] = {}
        self.given_up = self.warned = False

    def __call__(self, batch: AtomsBatch, counts: Tensor) -> Tensor:
        parts = _taken_apart(batch)
        bucket = None if self.given_up else self.buckets.get(parts.shape) or self._new(batch, parts, counts)
        if bucket is None:
            return self.eager(batch, counts)
        loss: Tensor = _Handed.apply(bucket, self._state(), [*parts.tensors, counts], *self._trained())
        return loss

    def _trained(self) -> list[nn.Parameter]:
        return [p for p in self.eager.model.parameters() if p.requires_grad]

    def _state(self) -> list[Tensor]:
        model = self.eager.model
        return [t.detach() for t in (*model.parameters(), *model.buffers())]

    def _new(self, batch: AtomsBatch, parts: _Parts, counts: Tensor) -> _Bucket | None:
        """The step for a shape seen for the first time; None beyond the limit."""
        if len(self.buckets) >= LIMIT:
            if not self.warned:
                text = (
                    f"more than {LIMIT} shapes of batches: run.step={self.form} serves the first of them, "
                    f"the rest take the eager step"
                )
                warnings.warn(text, Notice, stacklevel=2)
            self.warned = True
            return None
        begin = time.perf_counter()
        loss = self.eager(batch, counts)
        wanted = [loss.detach(), *torch.autograd.grad(loss, self._trained(), allow_unused=True)]
        try:
            bucket, found = self._made(parts, counts)
        except RuntimeError as error:
            if self.required:
                raise
            text = (
                f"the training step cannot be captured as a CUDA graph, the eager step is taken: "
                f"{str(error).splitlines()[0]}"
            )
            warnings.warn(text, Notice, stacklevel=2)
            self.given_up = True
            return None
        there = iter(found)
        _refuse_difference(
            [next(there) if used else None for used in (True, *bucket.used)], wanted, form=self.form
        )
        self.buckets[parts.shape] = bucket
        print(
            f"training step {self.form} for {batch.n_frames} frames made in "
            f"{time.perf_counter() - begin:.1f} s",
            flush=True,
        )
        return bucket

    @torch.no_grad()
    def _made(self, parts: _Parts, counts: Tensor) -> tuple[_Bucket, list[Tensor]]:
        state, inputs = self._state(), [*parts.tensors, counts]
        traced = trace(self.eager, parts, counts, self.form)
        run = _Replay(traced.graph, state, inputs) if self.form == "graph" else _compiled(traced.graph)
        return _Bucket(run, traced.used), run(state, inputs)


def _refuse_difference(found: Sequence[Tensor | None], wanted: Sequence[Tensor | None], *, form: str) -> None:
    """Raise unless loss and gradients (None: zero) are those of the eager step: a compiler that drops a term
    says nothing."""
    zero = torch.zeros(())
    pairs = [
        (zero.to(b) if a is None else a, zero.to(a) if b is None else b)
        for a, b in zip(found, wanted, strict=True)
        if a is not b
    ]
    for what, some in (("loss", pairs[:1]), ("gradient", pairs[1:])):
        largest = max((b.abs().max().item() for _, b in some), default=0.0)
        errors = [(a - b).abs().max().item() for a, b in some]
        if math.isfinite(largest) and not all(e <= AGREEMENT[pairs[0][0].dtype] * largest for e in errors):
            raise ValueError(
                f"run.step={form}: its {what} differs by {max(errors):.3g} from that of the eager step, of "
                f"size {largest:.3g}; "
                "use run.step=eager and report it"
            )


class _Handed(torch.autograd.Function):
    """The loss, whose gradients are known already: `backward` hands them to the parameters, times what comes
    in."""

    @staticmethod
    def forward(
        ctx: Any, bucket: _Bucket, state: list[Tensor], inputs: list[Tensor], *trained: Tensor
    ) -> Tensor:  # type: ignore[override]
        loss, *gradients = bucket.run(state, inputs)
        ctx.gradients, ctx.used = gradients, bucket.used
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor | None, ...]:
        scaled = iter(torch._foreach_mul(ctx.gradients, incoming))
        return (None, None, None, *(next(scaled) if used else None for used in ctx.used))
