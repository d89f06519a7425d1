"""Datasets: public formats and generated labels become frame stores; one module per kind.

Importing this package needs numpy and pydantic only, so that a machine which trains on finished stores needs
no label source.
"""

from sapis_lab.data._base import (
    DatasetConfig,
    DatasetInfo,
    Progress,
    dataset_info,
    prepare,
    store_folder,
    store_info,
)
from sapis_lab.data._charges import refuse_mixed_charges
from sapis_lab.data._convert import convert, from_file, from_store, target_format
from sapis_lab.data._neighbor_table import Edges, NeighborTable
from sapis_lab.data._references import fit_references
from sapis_lab.data._sources import DATA_VARIABLE
from sapis_lab.data._splits import nested_order
from sapis_lab.data._store import Frames, FrameStore, is_sealed
from sapis_lab.elements import SYMBOLS

__all__ = [
    "DATA_VARIABLE",
    "SYMBOLS",
    "DatasetConfig",
    "DatasetInfo",
    "Edges",
    "FrameStore",
    "Frames",
    "NeighborTable",
    "Progress",
    "convert",
    "dataset_info",
    "fit_references",
    "from_file",
    "from_store",
    "is_sealed",
    "nested_order",
    "prepare",
    "refuse_mixed_charges",
    "store_folder",
    "store_info",
    "target_format",
]
