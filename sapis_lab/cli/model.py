"""sapis model: trained potentials, corrected and with an uncertainty."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sapis_lab.cli.common import HELP, stdout_console
from sapis_lab.config import ConfigError, home, load, override, plainly

app = typer.Typer(
    help=(
        "Trained potentials: correct what they say of themselves, add uncertainties.\n\nExample: `sapis "
        "model patch quickstart/best --out ethanol licence=MIT`"
    ),
    **HELP,
)
Point = Annotated[
    str,
    typer.Argument(
        help="NAME/POINT of results/, NAME/best, or a folder with a potential.",
        metavar="NAME/POINT",
        show_default=False,
    ),
]
Out = Annotated[
    Path, typer.Option("--out", help="Folder to write, which must not be there.", show_default=False)
]


@app.command("patch")
def patch(
    point: Point,
    out: Out,
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            help="What changes: reference_energies.ELEMENT (eV), licence, level_of_theory, citation, notes.",
            metavar="KEY=VALUE...",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Correct reference energies or the card of a trained potential without training it, as a new folder.

    Weights stay as they are; the potential notes what was changed, and what stood there before.

    Example: `sapis model patch quickstart/best --out ethanol reference_energies.H=-13.6 licence='CC0 1.0'`
    """
    from sapis_lab.exports import Patch, patched, write_potential
    from sapis_lab.potential import load_potential
    from sapis_lab.sweep.trained import trained_folder

    changes = load(Patch, override({}, settings or []), source="patch")
    folder = trained_folder(point)
    made = patched(load_potential(folder), changes)
    write_potential(made, out, like=folder)
    console = stdout_console()
    for change in made.origin["patches"][-len(changes.reference_energies) - len(changes.about) :]:
        console.print(change["what"], soft_wrap=True, markup=False, highlight=False)
    console.print(f"written to {out}", soft_wrap=True, markup=False, highlight=False)


@app.command("uncertainty")
def uncertainty(
    point: Point,
    out: Out,
    most: Annotated[
        int, typer.Option("--validation", min=3, help="Validation frames that scale the uncertainties.")
    ] = 200,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of the frame stores; `.sapis/data` of the project by default.")
    ] = None,
) -> None:
    """Give a finished point standard deviations of energies and forces, from its last layer, as a new folder.

    They are fitted on its training frames and scaled on validation frames; `sapis_lab.load_model(FOLDER)`
    then has them, and `stop_above=` ends a simulation where they are too large.

    Example: `sapis model uncertainty quickstart/best --out ethanol`
    """
    from sapis_lab.data import prepare
    from sapis_lab.exports import data_of, write_potential
    from sapis_lab.potential import load_potential
    from sapis_lab.sweep.board import DataBoard
    from sapis_lab.sweep.trained import trained_folder
    from sapis_lab.uncertainty import LastLayer

    folder = trained_folder(point)
    potential, data = load_potential(folder), data_of(folder)
    if data is None:
        raise ConfigError(f"{folder}: its training data are not stated; give the folder of a finished point")
    with DataBoard(stdout_console()) as board:
        store = plainly(lambda: prepare(data, cache=cache or home() / ".sapis" / "data", progress=board))
    known = plainly(lambda: LastLayer.fitted(potential, store, most=most), about=str(folder))
    write_potential(potential, out, like=folder, uncertainty=known)
    stdout_console().print(
        f"{out}: {known.factor.shape[1]} directions, scaled on validation frames",
        soft_wrap=True,
        markup=False,
    )
