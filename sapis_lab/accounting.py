"""What N, D and C mean here.

N   the counted number of trainable parameters (`Model.count`), by group;
D   the number of distinct labelled training frames, the length of the prefix of the stored order;
C   training FLOPs: matrix products of one training step as torch's counter sees them (a multiply-add is two),
times the steps.

A training step with forces from a conservative energy costs about six forward passes: one forward, one
backward to the geometry, four for the second backward pass. The factor is measured here rather than assumed.
Elementwise and scatter work, which the counter does not see, is estimated and reported on a line of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from sapis_lab.kernels import reference_forms

STEP_FACTOR = 6
"""Training step over forward pass, for plans made before anything is counted and for elementwise work."""
INFERENCE_FACTOR = 2
"""Energy and forces over forward pass."""


class FlopCounter(TorchDispatchMode):
    """Adds up what torch's own formulas say of every operation inside, backward passes included.

    `torch.utils.flop_counter.FlopCounterMode` gives the same sums. It also follows modules, with hooks that
    refuse leaves which enter a module and are differentiated inside a step (torch 2.13: "A leaf node was
    passed to _will_engine_execute_node"), and asks at every call whether the operation is made of others;
    here that is asked once, which halves the time of counting a step.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        """FLOPs so far; a multiply-add is two."""
        self._indivisible: set[OpOverload] = set()

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        formula = flop_registry.get(func.overloadpacket)
        if formula is None and func not in self._indivisible:
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
            self._indivisible.add(func)
        out = func(*args, **kwargs)
        if formula is not None:
            self.total += int(formula(*args, **kwargs, out_val=out))
        return out


def counted_flops(function: Callable[[], Any]) -> int:
    """FLOPs of the matrix products that `function()` runs, backward passes included; of the PyTorch form
    where there is a compiled one."""
    with FlopCounter() as counter, reference_forms():
        function()
    return counter.total
