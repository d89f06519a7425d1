"""sapis rule: how the best learning rate and batch size move with N and D, from any table of a sweep."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from sapis_lab.cli.common import Json, check_json, keep_from, stdout_console
from sapis_lab.config import ConfigError, plainly
from sapis_lab.files import is_temporary

app = typer.Typer()


@app.command("rule")
def rule(
    table: Annotated[Path, typer.Argument(help="A table: CSV, parquet, JSON lines.", show_default=False)],
    n: Annotated[str, typer.Option("--n", help="The column of model sizes N.", show_default=False)],
    d: Annotated[str, typer.Option("--d", help="The column of data sizes D.", show_default=False)],
    lr: Annotated[str, typer.Option("--lr", help="The column of learning rates.", show_default=False)],
    loss: Annotated[
        str,
        typer.Option("--loss", help="The column of losses; empty, nan or inf: diverged.", show_default=False),
    ],
    batch: Annotated[
        str | None,
        typer.Option(
            "--batch", help="The column of batch sizes, where these were swept.", show_default=False
        ),
    ] = None,
    by: Annotated[
        str | None, typer.Option("--by", help="The column of models: one rule each.", show_default=False)
    ] = None,
    predict: Annotated[
        list[str] | None,
        typer.Option(
            "--predict", help="`n=1e8,d=1e10`: the rule's value there; may be repeated.", metavar="N,D"
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=2**63 - 1, help="Of the simulated intervals.")
    ] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", help="Draw the figures into this folder.", show_default=False)
    ] = None,
    json_file: Json = None,
) -> None:
    """Fit rate = kappa N^lambda D^mu, and the batch size likewise, to the runs of any sweep. Needs no torch.

    Example: `sapis rule runs.csv --n params --d tokens --lr lr --batch bs --loss loss --predict n=1e9,d=2e10`
    """
    import json

    from sapis_lab.analysis.forecast import target
    from sapis_lab.analysis.rule_table import SweepColumns, fit_rule_table, rules_json
    from sapis_lab.files import write_text
    from sapis_lab.report.rules_text import print_rules

    check_json(json_file, read=[table])
    if out is not None:
        _check_out(out)
        keep_from(out, read=[table])
    where = plainly(lambda: [target(text) for text in predict or ()])
    columns = SweepColumns(n, d, lr, loss, batch, by)
    fits: Any = plainly(lambda: fit_rule_table(table, columns, seed=seed))
    predictions = {
        name: {setting: [m.predict(setting, *place) for place in where] for setting in m.rules}
        for name, m in fits.models.items()
    }
    print_rules(fits, stdout_console(), predictions=predictions)
    if json_file is not None:
        plain = rules_json(fits, predictions)
        write_text(json_file, json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    if out is not None:
        from sapis_lab.figures import draw_rules
        from sapis_lab.sweep.words import shown

        for path in draw_rules(fits, out):
            if path.suffix == ".pdf":
                stdout_console().print(shown(path), soft_wrap=True)


def _check_out(out: Path) -> None:
    """ConfigError where the folder is none, or holds what no rule has drawn."""
    if not out.exists():
        return
    if not out.is_dir():
        raise ConfigError(f"--out {out}: wanted a folder, got a file")
    strange = sorted(
        path.name
        for path in out.iterdir()
        if not is_temporary(path)
        and not re.fullmatch(r"(rule|bowls(_\d+)?)\.(pdf|svg|png|csv|txt)", path.name)
    )
    if strange:
        what = ", ".join(strange[:3]) + (" and more" if len(strange) > 3 else "")
        raise ConfigError(
            f"--out {out}: the folder holds {what}, which no rule has drawn; name a new or an empty folder"
        )
