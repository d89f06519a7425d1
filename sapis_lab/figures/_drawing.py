"""A figure with the numbers and the words that belong to it, and how the three are written to disk.

A figure that the points cannot support is not drawn: its module returns `NotDrawn` with the reason, which the
report prints.
"""

from __future__ import annotations

import io
import json
import os
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from sapis_lab.figures._style import RC
from sapis_lab.files import make_folder, write_bytes, write_text
from sapis_lab.text import for_spreadsheets


@dataclass(frozen=True)
class Drawing:
    """What a figure module returns."""

    figure: Figure
    numbers: pd.DataFrame
    """Every plotted number in long form, in display units; column `part` tells points, curves and bands
    apart."""
    caption: str
    """Plain sentences; every number in them is computed."""


@dataclass(frozen=True)
class NotDrawn:
    """Why a study has no figure of this kind."""

    reason: str
    """A clause without a capital or a full stop."""


NOT_DRAWN = "not_drawn.json"
SUFFIXES = ("pdf", "svg", "png", "csv", "txt")
METADATA = {
    "pdf": {"Creator": "sapis_lab", "Producer": None, "CreationDate": None},
    "svg": {"Creator": "sapis_lab", "Date": None},
}  # what would differ from run to run is left out


def save(drawing: Drawing, folder: Path, *, name: str) -> list[Path]:
    """Write NAME.pdf, NAME.svg, NAME.png (300 dpi), NAME.csv and NAME.txt. The same drawing gives the same
    bytes."""
    paths = {suffix: folder / f"{name}.{suffix}" for suffix in SUFFIXES}
    with mpl.rc_context(RC), _fixed_date():
        drawing.figure.draw_without_rendering()
        # placed once: both files then agree to the pixel, in half the time
        drawing.figure.set_layout_engine("none")
        for suffix, facts in METADATA.items():
            picture = io.BytesIO()
            drawing.figure.savefig(picture, format=suffix, metadata=facts)
            write_bytes(paths[suffix], picture.getbuffer())
        write_bytes(paths["png"], _png(drawing.figure))
    write_text(
        paths["csv"],
        for_spreadsheets(drawing.numbers).to_csv(index=False, lineterminator="\n", float_format="%.10g"),
    )
    write_text(paths["txt"], textwrap.fill(drawing.caption, width=110) + "\n")
    return list(paths.values())


def write_drawings(drawings: Iterable[tuple[str, Drawing | NotDrawn]], folder: Path) -> list[Path]:
    """Write the figures into `folder`, and not_drawn.json with the reasons of the others, whose old files go;
    the paths written."""
    written, missing = [], {}
    for name, drawing in drawings:
        if isinstance(drawing, Drawing):
            written += save(drawing, folder, name=name)
            continue
        missing[name] = drawing.reason
        for suffix in SUFFIXES:
            (folder / f"{name}.{suffix}").unlink(missing_ok=True)
    make_folder(folder)
    write_text(folder / NOT_DRAWN, json.dumps(missing, indent=1, ensure_ascii=False) + "\n")
    return [*written, folder / NOT_DRAWN]


def _png(figure: Figure) -> memoryview:
    """300 dpi with a palette of 256 colours: a quarter of the size, and nothing that the eye misses in lines
    and flat bands."""
    pixels = io.BytesIO()
    figure.savefig(
        pixels, format="png", dpi=300, metadata={"Software": None}, pil_kwargs={"compress_level": 1}
    )
    picture = (
        Image.open(pixels)
        .convert("RGB")
        .quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    )
    # the palette's white is 254
    picture.putpalette([255 if v >= 254 else v for v in picture.getpalette() or []])
    pixels = io.BytesIO()
    picture.save(pixels, format="png", optimize=True, dpi=(300, 300))
    return pixels.getbuffer()


@contextmanager
def _fixed_date() -> Iterator[None]:
    """Matplotlib stamps a PDF with the clock unless SOURCE_DATE_EPOCH is set; dropping CreationDate alone was
    not enough."""
    before = os.environ.get("SOURCE_DATE_EPOCH")
    os.environ["SOURCE_DATE_EPOCH"] = before or "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ["SOURCE_DATE_EPOCH"]
