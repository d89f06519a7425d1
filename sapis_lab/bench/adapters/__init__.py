"""One peer code a file: `build(model, n_params, info)` makes its models behind the interface of `peer.Peer`.

`find_code` says for a name in a table, such as `painn` or `geat,lmax=1`, which file builds it and in which
environment.
"""

from __future__ import annotations

from typing import NamedTuple


class Code(NamedTuple):
    """A model as it is named on a command line and in tables."""

    name: str
    environment: str
    """as in `environments`; `main` is the one of this package"""
    adapter: str
    """a file of this folder"""
    model: str
    """what its `build` is asked for"""
    distribution: str
    """the package whose version is recorded"""
    rotate: bool
    """trained with random rotations, for models without the symmetry"""


_CODES = {
    "painn": ("schnetpack", "schnetpack", "schnetpack"),
    "tensornet": ("torchmdnet", "torchmd_net", "torchmd-net"),
    "tensornet2": ("torchmdnet", "torchmd_net", "torchmd-net"),
    "et": ("torchmdnet", "torchmd_net", "torchmd-net"),
    "nequip": ("nequip", "nequip", "nequip"),
    "nequip-S": ("nequip", "nequip", "nequip"),
    "allegro": ("nequip", "nequip", "nequip-allegro"),
    "mace": ("mace", "mace", "mace-torch"),
    "mace-inv": ("mace", "mace", "mace-torch"),
    "dpa4": ("deepmd", "deepmd", "deepmd-kit"),
    "orb": ("orb", "orb", "orb-models"),
    "e3nn-nequip": ("main", "e3nn_nequip", "e3nn"),
}
_WITHOUT_SYMMETRY = {"orb"}
_OURS = "sapis-"
"""In front of a kind of this package, where its plain name means a peer's model (`sapis-nequip`)."""


def find_code(text: str) -> Code:
    """The code of a name with options behind commas; every kind of this package is one, as `sapis-<kind>` or
    plainly where that is free."""
    name, _, options = text.partition(",")
    if name in _CODES:
        environment, adapter, distribution = _CODES[name]
        return Code(text, environment, adapter, text, distribution, name in _WITHOUT_SYMMETRY)
    kind = name.removeprefix(_OURS)
    model = f"{kind},{options}" if options else kind
    # not at the top: peers' environments read this file and have no pydantic
    from sapis_lab.config import kind_class, kinds

    if kind not in kinds("models"):
        ours = ", ".join(k if k not in _CODES else _OURS + k for k in kinds("models"))
        raise ValueError(f"no code {name!r}; there are {', '.join(_CODES)}, and of this package {ours}")
    rotate = getattr(kind_class("models", kind), "symmetry", "O(3)") == "none"
    return Code(text, "main", "sapis", model, "sapis-lab", rotate)
