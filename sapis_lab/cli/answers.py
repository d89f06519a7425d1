"""sapis fit, figures, report: answers from results; nothing is trained, torch is not needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from sapis_lab.cli.common import check_json, keep_from, progress, stdout_console, to_stderr
from sapis_lab.config import ConfigError, home, plainly

app = typer.Typer()


def _robust(text: str) -> Any:
    """The estimator that --robust names."""
    if text in ("auto", "none"):
        return text
    try:
        threshold = float(text)
    except ValueError:
        threshold = 0.0
    if not threshold > 0:
        raise ConfigError(f"--robust {text!r}: wanted auto, none or a positive threshold on ln loss")
    return threshold


@contextmanager
def _answered(name: str) -> Iterator[Path]:
    """The results folder of `name`, its table up to date with the records; the block may write answers into
    it, an engine may not.

    Raises:
        Locked: another process works on it.
    """
    from sapis_lab.sweep.files import checked_name
    from sapis_lab.sweep.folder import results_folder
    from sapis_lab.sweep.lock import locked

    folder = results_folder(checked_name(name))
    if not folder.is_dir():
        known = sorted(p.name for p in (home() / "results").glob("*") if p.is_dir())
        raise ConfigError(f"no results of {name!r}; there are {', '.join(known) or 'none'}")
    with locked(folder) as taken_over:
        if taken_over:
            to_stderr(taken_over)
        from sapis_lab.sweep.answers import noting_answers, rebuild_table  # a refusal does not wait for it

        with noting_answers(folder):
            rebuild_table(folder)
            yield folder


@app.command("fit")
def fit(
    name: Annotated[
        str,
        typer.Argument(
            help="A folder in results/, or a table: CSV, Excel, parquet, JSON.", show_default=False
        ),
    ],
    quantity: Annotated[
        str | None, typer.Option(help="Of a study: the loss, a measured quantity; the study's by default.")
    ] = None,
    n: Annotated[
        str | None, typer.Option("--n", help="Of a table: the column of model sizes N.", show_default=False)
    ] = None,
    d: Annotated[
        str | None, typer.Option("--d", help="The column of data sizes D.", show_default=False)
    ] = None,
    compute: Annotated[
        str | None,
        typer.Option("--compute", help="The column of C for L(C), not N and D.", show_default=False),
    ] = None,
    loss: Annotated[
        str | None, typer.Option("--loss", help="The column of losses.", show_default=False)
    ] = None,
    weight: Annotated[
        str | None, typer.Option("--weight", help="The column of precisions of ln loss.", show_default=False)
    ] = None,
    group: Annotated[
        str | None,
        typer.Option("--group", help="The column of runs whose points err together.", show_default=False),
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option("--steps", help="The column of training steps, for laws of them.", show_default=False),
    ] = None,
    epochs: Annotated[
        str | None,
        typer.Option("--epochs", help="The column of passes over the D frames.", show_default=False),
    ] = None,
    best_over: Annotated[
        str | None,
        typer.Option(
            "--best-over",
            help="Columns of settings, as `lr,batch`: of each N and D the best stays, with all its seeds.",
            show_default=False,
        ),
    ] = None,
    drop_missing: Annotated[
        bool, typer.Option("--drop-missing", help="Leave out rows without a number where one is needed.")
    ] = False,
    sheet: Annotated[
        str | None, typer.Option("--sheet", help="Of an Excel file with several.", show_default=False)
    ] = None,
    law: Annotated[str, typer.Option("--law", help="`all`, `tied`, or laws as `n+d,n+d+nd+e`.")] = "all",
    robust: Annotated[
        str, typer.Option("--robust", help="`auto`, `none`, or Huber's threshold on ln loss (of a sum).")
    ] = "auto",
    n_bootstrap: Annotated[int, typer.Option("--bootstrap", min=0, max=100_000, help="Resamples.")] = 2000,
    resample: Annotated[
        str | None,
        typer.Option(
            "--resample", help="`residuals`, `rows` or `clusters` (by --group).", show_default="residuals"
        ),
    ] = None,
    calibrate: Annotated[
        int,
        typer.Option(
            "--calibrate",
            min=0,
            max=100_000,
            help="Simulated data sets behind each end of an interval; 0: F.",
        ),
    ] = 199,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=2**63 - 1, help="Of resampling and simulation.")
    ] = 0,
    predict: Annotated[
        list[str] | None,
        typer.Option(
            "--predict",
            help="A run to forecast, as `n=7e9,d=4e12` (`c=1e22`), or a table of them; repeatable.",
            show_default=False,
        ),
    ] = None,
    hold_out: Annotated[
        list[str] | None,
        typer.Option(
            "--hold-out",
            help="Rows to leave out and forecast, as `n>1.2e9` (n, d, nd, c, loss); repeatable.",
            show_default=False,
        ),
    ] = None,
    noise: Annotated[
        str,
        typer.Option(
            "--noise", help="`auto` weighs points by a noise that changes with N, D or loss; or `equal`."
        ),
    ] = "auto",
    by: Annotated[
        str | None,
        typer.Option(
            "--by", help="The column of groups (models) to fit one by one and compare.", show_default=False
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            help="With --by: a column of one number for each group, as l_max, to see exponents along.",
            show_default=False,
        ),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all numbers to this file.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Write numbers, tables, figures and a report into this folder.", show_default=False
        ),
    ] = None,
) -> None:
    """Fit the laws: again from a study's results, with figures and report, or to any table of N, D and loss.
    Needs no torch.

    Example: `sapis fit rmd17-ethanol --quantity test_force_rmse`

    Example: `sapis fit runs.csv --n params --d tokens --loss loss --law all --robust auto --json fit.json`

    Example: `sapis fit runs.csv --n params --d tokens --loss loss --predict n=7e9,d=4e12 --hold-out "n>1e9"`

    Example: `sapis fit runs.csv --n N --d D --loss loss --by model --against lmax --out fits/models`
    """
    if _is_table(name, {"--n": n, "--d": d, "--compute": compute, "--loss": loss}):
        if quantity is not None:
            raise ConfigError(
                f"--quantity {quantity!r} is of a study; {name} is a table, whose loss is --loss"
            )
        _fit_table(
            Path(name),
            n=n,
            d=d,
            compute=compute,
            loss=loss,
            weight=weight,
            group=group,
            steps=steps,
            epochs=epochs,
            best_over=best_over,
            drop_missing=drop_missing,
            sheet=sheet,
            law=law,
            robust=robust,
            n_bootstrap=n_bootstrap,
            resample=resample,
            calibrate=calibrate,
            seed=seed,
            predict=predict or [],
            hold_out=hold_out or [],
            noise=noise,
            by=by,
            against=against,
            json_file=json_file,
            out=out,
        )
        return
    of_a_table: dict[str, Any] = {"--best-over": best_over, "--drop-missing": drop_missing, "--sheet": sheet}
    of_a_table |= {"--by": by, "--against": against, "--out": out}
    given = [option for option, value in of_a_table.items() if value]
    if given:
        raise ConfigError(f"{', '.join(given)}: of a table, got the study {name!r}")
    with _answered(name) as folder:
        from sapis_lab.report import analyse_folder
        from sapis_lab.sweep.answers import print_answers

        plainly(lambda: analyse_folder(folder, **({"quantity": quantity} if quantity else {})))
        print_answers(folder, stdout_console())


def _is_table(name: str, columns: dict[str, str | None]) -> bool:
    path = Path(name)  # a pipe goes where tables go, to be refused as what it is
    if any(columns.values()) or (path.exists() and not path.is_dir()):
        return True
    if not path.suffix:
        return False
    from sapis_lab.analysis.table import READERS

    return path.suffix.lower() in READERS


def _fit_table(
    path: Path,
    *,
    n: str | None,
    d: str | None,
    compute: str | None,
    loss: str | None,
    weight: str | None,
    group: str | None,
    steps: str | None,
    epochs: str | None,
    best_over: str | None,
    drop_missing: bool,
    sheet: str | None,
    law: str,
    robust: str,
    n_bootstrap: int,
    resample: str | None,
    calibrate: int,
    seed: int,
    predict: list[str],
    hold_out: list[str],
    noise: str,
    by: str | None,
    against: str | None,
    json_file: Path | None,
    out: Path | None,
) -> None:
    import json

    from sapis_lab.analysis.result import Effort
    from sapis_lab.analysis.table import Columns
    from sapis_lab.analysis.table_fit import Questions, fit_table, law_names, table_json
    from sapis_lab.analysis.table_groups import fit_table_groups, groups_json
    from sapis_lab.files import write_text
    from sapis_lab.report.groups_text import print_groups
    from sapis_lab.report.laws_text import print_table_fit

    if compute is not None and (n is not None or d is not None or epochs is not None):
        raise ConfigError("--compute stands instead of --n, --d and --epochs, got both")
    if steps is not None and (compute is not None or epochs is not None):
        other = "--compute" if compute is not None else "--epochs"
        raise ConfigError(f"--steps with {other}: got both; laws of steps have neither")
    wanted = {"--loss": loss} | ({} if compute is not None else {"--n": n, "--d": d})
    missing = [option for option, column in wanted.items() if column is None]
    if missing:
        raise ConfigError(
            f"{path}: a table needs the names of its columns; missing {', '.join(missing)} (as in --n N --d "
            f"D --loss loss)"
        )
    how = _robust(robust)
    resampling: Any = resample or ("clusters" if group else "residuals")
    if resampling not in ("residuals", "rows", "clusters"):
        raise ConfigError(f"--resample {resampling!r}: wanted residuals, rows or clusters")
    if resampling == "clusters" and group is None:
        raise ConfigError("--resample clusters: needs the runs that belong together, --group COLUMN")
    if noise not in ("auto", "equal"):
        raise ConfigError(f"--noise {noise!r}: wanted auto or equal")
    if against is not None and by is None:
        raise ConfigError(f"--against {against!r}: a number of each group needs the groups, --by COLUMN")
    if by is not None and hold_out:
        raise ConfigError("--hold-out with --by: got both; leave rows out of one group at a time")
    check_json(json_file, read=[path, *predict])
    if out is not None:
        from sapis_lab.report.table_folder import check_out

        check_out(out)
        keep_from(out, read=[path, *predict])
    over = tuple(dict.fromkeys(name.strip() for name in (best_over or "").split(",") if name.strip()))
    if best_over is not None and not over:
        raise ConfigError("--best-over: wanted names of columns with commas between them, got none")
    columns = Columns(
        compute or n or "",
        None if compute else d,
        loss or "",
        weight,
        group,
        epochs,
        by,
        against,
        best_over=over,
        steps=steps,
    )
    effort = Effort(n_bootstrap=n_bootstrap, resampling=resampling, n_simulations=calibrate, all_tests=True)

    def run() -> Any:
        with progress() as told:
            return (fit_table if by is None else fit_table_groups)(
                path,
                columns,
                laws=law_names(law, compute=compute is not None, steps=steps is not None),
                robust=how,
                effort=effort,
                seed=seed,
                missing="drop" if drop_missing else "refuse",
                sheet=sheet,
                questions=Questions(named_targets(predict, columns), tuple(hold_out), noise),  # type: ignore[arg-type]
                told=told,
            )

    found = plainly(run)
    if by is None:
        print_table_fit(found, stdout_console())
    else:
        print_groups(found, stdout_console())
    if json_file is not None:
        numbers_found = table_json(found) if by is None else groups_json(found)
        write_text(json_file, json.dumps(numbers_found, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    if out is not None:
        from sapis_lab.report.table_folder import write_groups_folder, write_table_folder
        from sapis_lab.sweep.words import shown

        with progress() as told:
            report = (
                write_table_folder(found, out) if by is None else write_groups_folder(found, out, told=told)
            )
        stdout_console().print(Text(f"report  {shown(report)}"), soft_wrap=True)


def named_targets(
    texts: list[str], columns: Any, *, option: str = "--predict"
) -> tuple[tuple[float, ...], ...]:
    """The points that an option names, one by one or by tables with the columns of sizes."""
    from sapis_lab.analysis.forecast import target
    from sapis_lab.analysis.table import positive_column, read_frame

    found: list[tuple[float, ...]] = []
    compute, steps = columns.n_frames is None, columns.steps is not None
    for text in texts:
        if "=" in text:
            found.append(target(text, compute=compute, steps=steps, option=option))
            continue
        path = Path(text)
        frame = read_frame(path)
        names = [columns.n_params, columns.n_frames, columns.steps]
        values = [positive_column(frame, name, path) for name in names if name is not None]
        found += list(zip(*values, *([[1.0] * len(frame)] if compute else []), strict=True))
    return tuple(found)


@app.command("figures")
def figures(
    name: Annotated[str, typer.Argument(help="Name of a folder in results/.", show_default=False)],
) -> None:
    """Draw a study's figures again from its results, each as PDF, SVG, PNG and CSV. Trains nothing, needs no
    torch.

    Example: `sapis figures rmd17-ethanol`
    """
    with _answered(name) as folder:
        from sapis_lab.report import analyse_folder
        from sapis_lab.report.page import not_drawn
        from sapis_lab.sweep.words import shown

        plainly(lambda: analyse_folder(folder))
        for path in sorted((folder / "figures").glob("*.pdf")):
            stdout_console().print(shown(path), soft_wrap=True)
        for kind, reason in not_drawn(folder / "figures").items():
            stdout_console().print(Text(f"not drawn: {kind}: {reason}"), soft_wrap=True)


@app.command("report")
def report(
    name: Annotated[str, typer.Argument(help="Name of a folder in results/.", show_default=False)],
) -> None:
    """Write a study's report again from its results. Trains nothing, needs no torch.

    Example: `sapis report rmd17-ethanol`
    """
    with _answered(name) as folder:
        from sapis_lab.report import analyse_folder
        from sapis_lab.sweep.words import shown

        plainly(lambda: analyse_folder(folder))
        stdout_console().print(shown(folder / "report.html"), soft_wrap=True)
