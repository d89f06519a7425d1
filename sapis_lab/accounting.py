"""What N, D and C mean here.

N   the counted number of trainable parameters (`Model.count`), by group;
D   the number of distinct labelled training frames, the length of the prefix of the stored order;
C   training FLOPs: matrix products of one training step as torch's counter sees them (a multiply-add is two), times the steps.

A training step with forces from a conservative energy costs about six forward passes: one forward, one backward to the geometry, four
for the second backward pass. The factor is measured here rather than assumed. Elementwise and scatter work, which the counter does not
see, is estimated and reported on a line of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils.flop_counter import FlopCounterMode

from sapis_lab.kernels import reference_forms

STEP_FACTOR = 6
"""Training step over forward pass, for plans made before anything is counted and for elementwise work."""
INFERENCE_FACTOR = 2
"""Energy and forces over forward pass."""


class _NoModules:
    """Stands in for the counter's module tracker, whose hooks refuse leaves that enter a module and are differentiated inside a step
    (torch 2.13: "A leaf node was passed to _will_engine_execute_node")."""

    parents = frozenset({"Global"})

    def __enter__(self) -> _NoModules:
        return self

    def __exit__(self, *exception: object) -> None:
        return None


def counted_flops(function: Callable[[], Any]) -> int:
    """FLOPs of the matrix products that `function()` runs, backward passes included; of the PyTorch form where there is a compiled one."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _NoModules()  # type: ignore[assignment]
    with counter, reference_forms():
        function()
    return int(counter.get_total_flops())
