"""sapis data: prepare, list and examine data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sapis_lab.catalogue import markdown_page
from sapis_lab.cli import public_data
from sapis_lab.cli._data_validate import info, validate
from sapis_lab.cli.common import HELP, Set, Workers, broken_cell, dataset_config, stdout_console
from sapis_lab.cli.convert import data_convert
from sapis_lab.config import ConfigError, home, plainly
from sapis_lab.screen import Table, new_table

app = typer.Typer(
    help="Prepare, list and examine data sets, the files in configs/data/.\n\n"
    "Example: `sapis data prepare ethanol-xtb`",
    **HELP,
)
app.add_typer(public_data.app)  # its commands stand beside these

app.command("convert")(data_convert)
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
    for note in store.metadata.get("notes", ()):
        stdout_console().print(f"note: {note}", soft_wrap=True, markup=False)


@app.command("list")
def data_list(
    public: Annotated[bool, typer.Option("--public", help="Only the public sets.")] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="The public sets as the page docs/data.md.")
    ] = False,
) -> None:
    """List the data sets of configs/data/ with their kinds, and the public sets that can be fetched.

    Example: `sapis data list --public`
    """
    if markdown:
        print(markdown_page(), end="")
        return
    console = stdout_console()
    if not public:
        console.print(_configs())
        console.print(
            "\npublic sets; `sapis data show NAME` says more, `sapis data fetch NAME` downloads one:"
        )
    console.print(public_data.catalogue_table(console.width))
    console.print(public_data.legend())


def _configs() -> Table:
    from sapis_lab.config import read_yaml

    table = new_table("data", "kind", "settings", left="all", wrapped=["settings"])
    for path in sorted((home() / "configs" / "data").glob("*.yaml")):
        try:
            raw = read_yaml(path)
        except ConfigError as error:
            table.add_row(path.stem, "?", broken_cell(error))
            continue
        table.add_row(path.stem, str(raw.pop("kind", "?")), ", ".join(f"{k}={v}" for k, v in raw.items()))
    return table
