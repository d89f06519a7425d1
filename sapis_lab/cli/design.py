"""sapis design: what to run next, from a table of runs; nothing is trained, torch is not needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from sapis_lab.cli.answers import named_targets
from sapis_lab.cli.common import Json, check_json, stdout_console
from sapis_lab.config import ConfigError, plainly

app = typer.Typer()


@app.command("design")
def design(
    table: Annotated[
        Path, typer.Argument(help="The runs so far: CSV, Excel, parquet, JSON.", show_default=False)
    ],
    n: Annotated[str, typer.Option("--n", help="The column of model sizes N.", show_default=False)],
    d: Annotated[str, typer.Option("--d", help="The column of data sizes D.", show_default=False)],
    loss: Annotated[
        str,
        typer.Option(
            "--loss", help="The column of losses; rows without one can be made.", show_default=False
        ),
    ],
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            help="A run whose loss is to be forecast, as `n=7e9,d=4e12`, or a table of them; repeatable.",
            show_default=False,
        ),
    ] = None,
    pool: Annotated[
        Path | None,
        typer.Option(
            "--pool",
            help="A table of runs that can be made, with the columns of N and D.",
            show_default=False,
        ),
    ] = None,
    price: Annotated[
        str, typer.Option("--price", help="A column of the pool, or a formula of n and d as `6*n*d`.")
    ] = "n*d",
    budget: Annotated[
        float | None, typer.Option("--budget", help="What the runs may cost together.", show_default=False)
    ] = None,
    most: Annotated[int, typer.Option("--most", min=1, max=10_000, help="How many runs.")] = 10,
    law: Annotated[
        str, typer.Option("--law", help="Laws with commas between them, which are averaged.")
    ] = "pnorm+e:tied,pnorm+e,n+d:cross",
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=2**63 - 1, help="Of the first of the runs to begin with.")
    ] = 0,
    sheet: Annotated[
        str | None, typer.Option("--sheet", help="Of an Excel file with several.", show_default=False)
    ] = None,
    json_file: Json = None,
) -> None:
    """Say which runs to make next for the best forecast at the targets, with the interval to expect after
    each. Needs no torch.

    Runs that can be made are the rows of --pool, or the rows without a loss, or the grid of N and D around
    the runs.

    Example: `sapis design runs.csv --n params --d tokens --loss loss --target n=7e9,d=4e12 --price "6*n*d"
    --budget 1e22`
    """
    from sapis_lab.analysis.design_table import design_json, design_table
    from sapis_lab.analysis.table import Columns
    from sapis_lab.analysis.table_fit import law_names
    from sapis_lab.files import write_text
    from sapis_lab.report.design_text import print_design

    if not target:
        raise ConfigError(
            f"{table}: --target is missing; wanted the run whose loss is to be forecast, as --target "
            f"n=7e9,d=4e12, or a table of such runs"
        )
    if budget is not None and not 0 < budget < float("inf"):
        raise ConfigError(f"--budget {budget:g}: wanted a number above 0")
    check_json(json_file, read=[table, pool, *target])
    columns = Columns(n, d, loss)

    def run() -> Any:
        return design_table(
            table,
            columns,
            targets=[(at[0], at[1]) for at in named_targets(target, columns, option="--target")],
            pool=pool,
            price=price,
            budget=float("inf") if budget is None else budget,
            laws=law_names(law),
            most=most,
            seed=seed,
            sheet=sheet,
        )

    found = plainly(run)
    print_design(found, stdout_console())
    if json_file is not None:
        write_text(
            json_file, json.dumps(design_json(found), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        )
