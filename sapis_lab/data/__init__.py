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
from sapis_lab.data._checks import Finding, Subject, findings, worst
from sapis_lab.data._convert import convert, from_file, from_store, target_format
from sapis_lab.data._copies import Copy, Group, copies
from sapis_lab.data._examine import Summary, examine, recorded, summary
from sapis_lab.data._file_slices import split_slice
from sapis_lab.data._neighbor_table import NeighborTable
from sapis_lab.data._references import fit_references
from sapis_lab.data._sources import DATA_VARIABLE, data_root, known_root, need_file
from sapis_lab.data._splits import nested_order
from sapis_lab.data._store import Frames, FrameStore, is_sealed
from sapis_lab.elements import SYMBOLS
from sapis_lab.neighbors import Edges

__all__ = [
    "DATA_VARIABLE",
    "SYMBOLS",
    "Copy",
    "DatasetConfig",
    "DatasetInfo",
    "Edges",
    "Finding",
    "FrameStore",
    "Frames",
    "Group",
    "NeighborTable",
    "Progress",
    "data_root",
    "convert",
    "Subject",
    "Summary",
    "copies",
    "dataset_info",
    "examine",
    "findings",
    "fit_references",
    "from_file",
    "from_store",
    "is_sealed",
    "known_root",
    "need_file",
    "nested_order",
    "prepare",
    "recorded",
    "refuse_mixed_charges",
    "store_folder",
    "store_info",
    "target_format",
    "split_slice",
    "summary",
    "worst",
]
