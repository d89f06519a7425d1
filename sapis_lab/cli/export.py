"""sapis export: a trained potential in the form that another program reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sapis_lab.cli.common import stdout_console
from sapis_lab.config import ConfigError, load, override, plainly

app = typer.Typer()


@app.command("export")
def export(
    point: Annotated[
        str,
        typer.Argument(
            help="NAME/POINT of results/, NAME/best, or the folder of a finished point.",
            metavar="NAME/POINT",
            show_default=False,
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            help="Settings of the form; `sapis kinds exports FORM` lists them.",
            metavar="[KEY=VALUE]...",
            show_default=False,
        ),
    ] = None,
    to: Annotated[str, typer.Option("--to", help="The form; `sapis kinds exports` lists them.")] = "ase",
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder to write, which must not be there.", show_default="POINT-FORM"),
    ] = None,
) -> None:
    """Write a trained potential for another program, with a model card, as one new folder.

    The folder appears whole or not at all. NAME/best is the finished point with the lowest validation error.

    Example: `sapis export quickstart/best --to ase --out ethanol`
    """
    from sapis_lab.config import kind_class
    from sapis_lab.exports import Export, card_of
    from sapis_lab.exports import export as write
    from sapis_lab.sweep.trained import trained_folder

    form_class = plainly(lambda: kind_class("exports", to, Export), about="--to")
    form = load(form_class, override({"kind": to}, settings or []), source=f"--to {to}")
    folder = trained_folder(point)
    from sapis_lab.potential import load_potential
    from sapis_lab.uncertainty import FILE, LastLayer

    potential = load_potential(folder)
    known = LastLayer.load(folder, potential) if (folder / FILE).is_file() else None
    target = out or Path(f"{potential.origin.get('id') or folder.resolve().name}-{to}")
    if target.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"--out {target}: wanted a folder outside of {folder}, which holds the potential")
    card = card_of(potential, form, point=folder)
    written = write(potential, form, target, card=card, uncertainty=known)
    console = stdout_console()
    console.print(f"{target}: {folder.name} for {to}", soft_wrap=True, markup=False, highlight=False)
    for path in written:
        console.print(f"  {path.relative_to(target)}", soft_wrap=True, markup=False, highlight=False)
