"""The one table of tolerances, by precision. All are relative to the largest force, or to the sum of |E_i|,
unless said otherwise."""

from __future__ import annotations

import torch

EXACT = {torch.float32: 2e-5, torch.float64: 1e-12}
"""Identities that hold in exact arithmetic: symmetry, extensivity, layouts, padding, two ways to one
derivative."""
DIFFERENCES = 2e-6
"""Central differences with steps of 1e-4 Å (or 1e-4 strain), float64: truncation, quadratic in the step."""
PARAMETER_DIFFERENCES = 1e-5
"""Central differences along a direction in parameter space, float64."""
JUMP_RATIO = 0.03
"""Jump at the cutoff at a tenth of the distance: 0.01 for the promised quadratic decay, 0.1 for a linear
one."""
BROKEN = 1e-2
"""What a model without rotational symmetry must at least show, or the test of the others would prove
nothing."""
FLOPS = 0.05
"""Analytic against counted matrix-product FLOPs."""
RANKS = 1e-5
"""Gradients averaged over two ranks against one rank, float32."""
