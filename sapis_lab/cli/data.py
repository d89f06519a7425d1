"""sapis data: prepare, list and examine data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sapis_lab.cli._data_validate import info, validate
from sapis_lab.cli.common import HELP, Set, Workers, broken_cell, dataset_config, stdout_console
from sapis_lab.config import ConfigError, home, plainly
from sapis_lab.screen import new_table

app = typer.Typer(
    help="Prepare, list and examine data sets, the files in configs/data/.\n\n"
    "Example: `sapis data prepare ethanol-xtb`",
    **HELP,
)
app.command("validate")(validate)
app.command("info")(info)


@app.command("prepare")
def data_prepare(
    name: Annotated[
        str, typer.Argument(help="Name of a file in configs/data/, without `.yaml`.", show_default=False)
    ],
    settings: Set = None,
    workers: Workers = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of the frame stores; `.sapis/data` of the project by default.")
    ] = None,
) -> None:
    """Make the frame store of a data set (generate, read, check), or continue an interrupted making.

    Example: `SAPIS_DATA=/path/to/data sapis data prepare rmd17-ethanol`
    """
    from sapis_lab.data import prepare
    from sapis_lab.jobs.host import n_cores
    from sapis_lab.sweep.board import DataBoard
    from sapis_lab.sweep.words import shown

    config = dataset_config(name, settings or [])
    with DataBoard(stdout_console()) as board:
        store = plainly(
            lambda: prepare(
                config,
                cache=cache or home() / ".sapis" / "data",
                n_workers=workers or n_cores(),
                progress=board,
            )
        )
    sizes = ", ".join(f"{len(ids)} {split}" for split, ids in store.splits.items())
    stdout_console().print(f"{name}: {sizes} frames in {shown(store.folder)}", soft_wrap=True)


@app.command("list")
def data_list() -> None:
    """List the data sets of configs/data/ with their kinds.

    Example: `sapis data list`
    """
    from sapis_lab.config import read_yaml

    table = new_table("data", "kind", "settings", left="all", wrapped=["settings"])
    for path in sorted((home() / "configs" / "data").glob("*.yaml")):
        try:
            raw = read_yaml(path)
        except ConfigError as error:
            table.add_row(path.stem, "?", broken_cell(error))
            continue
        table.add_row(path.stem, str(raw.pop("kind", "?")), ", ".join(f"{k}={v}" for k, v in raw.items()))
    stdout_console().print(table)
