"""Figures of a table of N, D and loss, each a pure function of its `TableFit`; of groups of rows, of their
`GroupsFit`."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from sapis_lab.analysis.table_fit import TableFit
from sapis_lab.analysis.table_groups import GroupsFit
from sapis_lab.figures._drawing import NOT_DRAWN, SUFFIXES, Drawing, NotDrawn, write_drawings
from sapis_lab.figures._tables import frontier, groups, laws, longer, loss, parity, residuals, steps

TABLE_FIGURES: dict[str, Callable[[TableFit], Drawing | NotDrawn]] = {
    "table_loss": loss.draw,
    "table_frontier": frontier.draw,
    "table_laws": laws.draw,
    "table_residuals": residuals.draw,
}
"""In the order of the report."""
STEP_FIGURES: dict[str, Callable[[TableFit], Drawing | NotDrawn]] = {
    "table_steps": steps.draw,
    "table_loss": loss.draw,
    "table_longer": longer.draw,
    "table_laws": laws.draw,
    "table_residuals": residuals.draw,
    "table_parity": parity.draw,
}
"""Those of a table with a column of training steps, whose cost is not N D."""


def figures_of(fits: TableFit) -> dict[str, Callable[[TableFit], Drawing | NotDrawn]]:
    """The figures that a table has."""
    return TABLE_FIGURES if fits.table.points.steps is None else STEP_FIGURES


GROUPS = "groups"
"""The sub-folder of the figures of each group."""
LONGEST = 40
"""Letters of a group's name that its folder has."""


def draw_groups(found: GroupsFit, folder: Path, *, told: Callable[[str], None] | None = None) -> list[Path]:
    """Write the figure of the exponents of groups into `folder`, and the figures of every group into its own
    (`group_folders`); the paths, as of `draw_table`. `told` is called with what is being drawn."""
    _clear(folder)
    written = write_drawings([("group_exponents", groups.draw(found))], folder)
    for name, place in group_folders(found).items():
        if told is not None:
            told(f"{name}: figures")
        written += write_drawings(
            _drawings(found.groups[name], f"{found.columns.by} {name}: "), folder / place
        )
    return written


def group_folders(found: GroupsFit) -> dict[str, str]:
    """The folder of each group's figures, by its name: a number, and as much of the name as every file system
    takes."""
    digits = len(str(len(found.groups)))
    return {
        name: f"{GROUPS}/{'-'.join([f'{k:0{digits}}', *([word] if (word := _word(name)) else [])])}"
        for k, name in enumerate(found.groups, 1)
    }


def _word(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._]+", "-", plain)[:LONGEST].strip("-.")


def draw_table(fits: TableFit, folder: Path) -> list[Path]:
    """Write every figure that the table supports into `folder`, and not_drawn.json, which says why the others
    are missing; the paths. Figures of an earlier answer, also of groups, go."""
    _clear(folder)
    return write_drawings(_drawings(fits), folder)


def _drawings(fits: TableFit, of: str = "") -> Iterator[tuple[str, Drawing | NotDrawn]]:
    """The figures by name; captions begin with whose they are."""
    for name, draw in figures_of(fits).items():
        drawing = draw(fits)
        yield (
            name,
            replace(drawing, caption=of + drawing.caption) if isinstance(drawing, Drawing) else drawing,
        )


def _clear(folder: Path) -> None:
    """Remove the figures of an earlier answer, and nothing else: those of another sort of table, and those of
    groups that are no more."""
    names = {*TABLE_FIGURES, *STEP_FIGURES, "group_exponents"}
    places = [folder, *(p for p in folder.glob(f"{GROUPS}/*") if p.is_dir() and not p.is_symlink())]
    for place in places:
        for path in place.iterdir() if place.is_dir() else ():
            if path.stem in names and path.suffix[1:] in SUFFIXES or path.name == NOT_DRAWN:
                path.unlink()
    for place in [*places[1:], folder / GROUPS]:
        if place.is_dir() and not place.is_symlink() and not any(place.iterdir()):
            place.rmdir()
