"""How a study scales by itself: the `scale:` section of a study file. Light: no torch is imported."""

from __future__ import annotations

from pydantic import Field

from sapis_lab.config import Config, Size
from sapis_lab.policies import PolicyChoice, policy


class ScaleOptions(Config):
    """The `scale:` section. The study's lattice is where it starts; every run lasts `train.epochs`, so that
    cost grows with N D."""

    budget: float = Field(gt=0, le=1e30)
    """Training FLOPs of everything: the lattice, measurements, and the runs that are decided on."""
    policy: PolicyChoice = policy("posterior")
    """How the next run is chosen: the name of a kind, or a mapping with `kind` and its settings; `sapis kinds
    policies` lists them."""
    ratio: float = Field(default=2.0, ge=1.01, le=1000)
    """Cost of a run over that of the one before. The last one takes all that is left, up to 1 + ratio."""
    sure: float = Field(default=0.5, ge=0.5, le=1)
    """Probability of being better than growing N and D alike that another split must have."""
    measure: bool = True
    """Cheap runs aside from the path, where they save more than they cost."""
    tolerance: float = Field(default=0.0, ge=0, le=1e6)
    """Stop when the expected loss above its floor is less, in the unit of `law.quantity`."""
    min_gain: float = Field(default=0.0, ge=0, le=100)
    """Stop when a doubling of the cost is expected to gain less in ln L."""
    target: float | None = Field(default=None, gt=0, le=1e6)
    """Stop when this loss is reached, or when the floor is found to lie above it."""
    label_cost: float = Field(default=0.0, ge=0, le=1e30)
    """Of making one more labelled frame, in FLOPs."""
    label_more: int = Field(default=0, ge=0, le=10**7)
    """Frames that may be labelled beyond the pool, where the data set can make more (kind xtb); otherwise D
    is bounded by the pool."""
    most_params: Size | None = None
    """Largest N to try."""
    warm_start: bool = False
    """Runs of the path start from the one before, its model grown, instead of from scratch. Losses at equal
    (N, D) are then those of a longer training than the lattice's, which the law does not know."""
    eta: float = Field(default=0.5, ge=0, le=1)
    """With `warm_start`: the share in which scalar widths grow, equivariant ones growing fully."""
