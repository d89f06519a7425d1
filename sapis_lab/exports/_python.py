"""What forms share whose program calls Python: the potential's own files, and scripts that load them."""

from __future__ import annotations

from pathlib import Path

from sapis_lab.files import write_text
from sapis_lab.potential import DESCRIPTION, WEIGHTS, Potential, save_potential


def write_python(potential: Potential, folder: Path, scripts: dict[str, str]) -> list[Path]:
    """Write the potential as a point holds it, and text files by their names; the paths of all of them."""
    save_potential(folder, potential)
    for name, text in scripts.items():
        write_text(folder / name, text)
    return [folder / name for name in (WEIGHTS, DESCRIPTION, *scripts)]
