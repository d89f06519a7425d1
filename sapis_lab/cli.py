"""The `sapis` command: studies, data, answers, and what can be put into a config. Every subcommand has --help with an example."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sapis_lab.config import ConfigError, home, plainly

if TYPE_CHECKING:
    from sapis_lab.sweep.folder import Manifest

_HELP: dict[str, Any] = {
    "no_args_is_help": True,
    "rich_markup_mode": "markdown",
    "context_settings": {"help_option_names": ["-h", "--help"]},
}

app = typer.Typer(
    help="How machine-learned interatomic potentials scale, and whether symmetry pays.\n\nExample: `sapis study run quickstart`",
    add_completion=False, pretty_exceptions_enable=False, **_HELP,
)  # fmt: skip
study_app = typer.Typer(help="Run and inspect studies, the files in studies/.\n\nExample: `sapis study plan quickstart`", **_HELP)
data_app = typer.Typer(help="Prepare and list data sets, the files in configs/data/.\n\nExample: `sapis data prepare ethanol-xtb`", **_HELP)
selftest_app = typer.Typer(help="Measure what is promised, on this machine.\n\nExample: `sapis selftest contracts`", **_HELP)
bench_app = typer.Typer(
    help="Measure speed and accuracy, of our models and of peer codes.\n\nExample: `sapis bench step --models geat,nequip`", **_HELP
)
app.add_typer(study_app, name="study")
app.add_typer(data_app, name="data")
app.add_typer(bench_app, name="bench")
app.add_typer(selftest_app, name="selftest")

Name = Annotated[str, typer.Argument(help="Name of a file in studies/, without `.yaml`.", show_default=False)]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="Override a setting: `key=value` with a dotted key; may be repeated.", metavar="KEY=VALUE")
]
As = Annotated[str | None, typer.Option("--as", help="Keep the results under another name.", metavar="NAME")]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        help="Points to take: an id, a glob (`'geat-*'`) or values (`n_frames=50,seed=0`); may be repeated.",
        metavar="POINTS",
    ),
]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Points at a time; one per core, or per GPU, by default.")]


def main() -> None:
    """Entry point: bad settings end with one clear message and exit status 2, never with a traceback."""
    # Workers use one thread each; what this process computes itself (fits, a timing of the machine) gains nothing from more.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        app(prog_name="sapis")
    except ConfigError as error:
        _stderr(f"error: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        _stderr("stopped")
        sys.exit(75)
    except BrokenPipeError:  # the reader of our output has closed it, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)


def _stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _console() -> Console:
    # A file or a pipe has no width, and a cut number is worse than a long line.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


# ---------------------------------------------------------------------------------------------------------------- study


@study_app.command("run")
def study_run(
    name: Name,
    settings: Set = None,
    called: As = None,
    only: Only = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run points again that failed in an earlier run.")] = False,
    workers: Workers = None,
    executor: Annotated[
        Literal["local", "slurm"] | None, typer.Option("--executor", help="Where points run; the study's `run.executor` by default.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="With Slurm: follow the jobs to their end, then collect.")] = False,
) -> None:
    """Run a study to its report, or continue it where it was interrupted.

    Ctrl-C stops it after the running steps, twice at once; running it again continues. With --executor slurm the points are submitted as
    job arrays, and the command returns. Exit status: 0 all points done (or submitted), 1 some failed, 2 bad settings, 75 stopped; with
    --only the selected points decide, whatever became of the others.

    Example: `sapis study run quickstart --set train.steps=200 --as quick200`
    """
    from sapis_lab.sweep.road import Request, run_study

    request = Request(name, tuple(settings or ()), called, tuple(only or ()), retry_failed, workers, executor, wait)
    raise typer.Exit(run_study(request, _console()))


@study_app.command("collect")
def study_collect(
    name: Annotated[str, typer.Argument(help="Name of a folder in results/.", show_default=False)],
    resubmit: Annotated[bool, typer.Option("--resubmit", help="Submit points again whose jobs are gone without a result.")] = False,
) -> None:
    """Gather what Slurm jobs have found so far: table, laws, figures, report. Jobs that still run go on.

    Exit status: 0 all points done, 1 some failed, 75 some have not ended.

    Example: `sapis study collect rmd17-ethanol --resubmit`
    """
    from sapis_lab.sweep.road import collect_study

    raise typer.Exit(collect_study(name, _console(), resubmit=resubmit))


@study_app.command("plan")
def study_plan(name: Name, settings: Set = None, called: As = None, only: Only = None, workers: Workers = None) -> None:
    """Print every point with its exact N, D, FLOPs, time and disk; nothing is generated, trained or written.

    Example: `sapis study plan quickstart --only 'geat-*'`
    """
    from sapis_lab.sweep.folder import point_folder, state
    from sapis_lab.sweep.progress import print_plan
    from sapis_lab.sweep.road import Request, prepare_job

    request = Request(name, tuple(settings or ()), called, tuple(only or ()), workers=workers)
    job = prepare_job(request)
    states = {p.id: state(point_folder(request.folder, p.id)) for p in job.chosen} if request.folder.exists() else None
    print_plan(job.plan.only(p.id for p in job.chosen), _console(), states=states)


@study_app.command("status")
def study_status(
    name: Name,
    watch: Annotated[bool, typer.Option("--watch", help="Print it again every few seconds until nothing runs or waits any more.")] = False,
    every: Annotated[float, typer.Option("--every", min=0.2, help="With --watch: seconds between two looks.")] = 2.0,
) -> None:
    """Print the state of a study from its files alone: counts, running points, time left, failures. It may run elsewhere meanwhile.

    Example: `sapis study status quickstart --watch`
    """
    from sapis_lab.sweep.files import checked_name
    from sapis_lab.sweep.folder import read_manifest, results_folder
    from sapis_lab.sweep.progress import print_status, watch_status

    folder = results_folder(checked_name(name))
    if not (folder / "points.json").exists():
        from sapis_lab.sweep.files import raw_study

        raw_study(name)  # an unknown name is told apart from a study that was not started
        _console().print(f"{name} has not been started; start it with: sapis study run {name}", soft_wrap=True)
        return
    from sapis_lab.sweep.slurm import queue_of

    def show(console: Console) -> bool:
        manifest: Manifest = read_manifest(folder)
        return print_status(manifest, folder, console, queue=queue_of(folder))

    if watch:
        watch_status(show, _console(), every=every)
    else:
        show(_console())


@study_app.command("clean")
def study_clean(
    name: Annotated[str, typer.Argument(help="Name of a folder in results/.", show_default=False)],
    also: Annotated[
        list[str] | None, typer.Option("--also", help="What else: orphans, failed, curves or models; may be repeated.", show_default=False)
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it, only say what would go.")] = False,
) -> None:
    """Delete what nothing needs any more: checkpoints of points that are done, and files that a kill left half written.

    With --also: points no longer in the lattice (orphans), failed points, TensorBoard events (curves), trained potentials (models).

    Example: `sapis study clean quickstart --also orphans --yes`
    """
    from sapis_lab.sweep import clean
    from sapis_lab.sweep.files import checked_name
    from sapis_lab.sweep.folder import results_folder
    from sapis_lab.sweep.progress import size

    folder, known = results_folder(checked_name(name)), sorted(set(clean.MEANING) - set(clean.ALWAYS))
    for what in also or ():
        if what not in known:
            raise ConfigError(f"--also {what}: wanted one of {', '.join(known)}")
    waste = (clean.clean if yes else clean.find_waste)(folder, also or ())  # type: ignore[operator, arg-type]
    for what, meaning in clean.MEANING.items():
        if found := [w.n_bytes for w in waste if w.what == what]:
            _console().print(f"{size(sum(found)):>9}  {len(found):5}  {meaning}", soft_wrap=True)
    total = size(sum(w.n_bytes for w in waste))
    words = "nothing to delete" if not waste else f"{total} deleted" if yes else f"{total} can go; add --yes to delete them"
    _console().print(f"{name}: {words}", soft_wrap=True)


@study_app.command("export")
def study_export(
    name: Annotated[str, typer.Argument(help="Name of a folder in results/.", show_default=False)],
    to: Annotated[Path | None, typer.Option("--to", help="The archive, a .zip.", show_default="NAME.zip")] = None,
    models: Annotated[bool, typer.Option("--models", help="With the trained potentials.")] = False,
) -> None:
    """Pack what a paper needs into one archive: settings, records, table, laws, figures and report, with their checksums.

    Example: `sapis study export rmd17-ethanol --to ethanol.zip`
    """
    from sapis_lab.sweep.export import export
    from sapis_lab.sweep.files import checked_name
    from sapis_lab.sweep.folder import results_folder
    from sapis_lab.sweep.progress import size

    target = to or Path(f"{name}.zip")
    names = export(results_folder(checked_name(name)), target, models=models)
    _console().print(f"{target}: {len(names)} files, {size(target.stat().st_size)}", soft_wrap=True)


@study_app.command("list")
def study_list() -> None:
    """List the studies with their questions and states.

    Example: `sapis study list`
    """
    from sapis_lab.config import read_yaml
    from sapis_lab.sweep.files import study_names
    from sapis_lab.sweep.road import known_studies

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("study", "state", "question"):
        table.add_column(column, no_wrap=column != "question")
    for study, word in known_studies(study_names()):
        question: str | Text
        try:
            question = str(read_yaml(home() / "studies" / f"{study}.yaml").get("question", ""))
        except ConfigError as error:
            question = _broken(error)
        table.add_row(study, word, question)
    _console().print(table)


def _broken(error: ConfigError) -> Text:
    """A file that cannot be read, as a cell of the list it stands in: the others are shown all the same."""
    return Text(" ".join(str(error).split()), style="red")


# ----------------------------------------------------------------------------------------------------------------- data


@data_app.command("prepare")
def data_prepare(
    name: Annotated[str, typer.Argument(help="Name of a file in configs/data/, without `.yaml`.", show_default=False)],
    settings: Set = None,
    workers: Workers = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of the frame stores; `.sapis/data` of the project by default.")] = None,
) -> None:
    """Make the frame store of a data set (generate, read, check), or continue an interrupted making.

    Example: `SAPIS_DATA=/path/to/data sapis data prepare rmd17-ethanol`
    """
    from sapis_lab.data import prepare
    from sapis_lab.sweep.progress import DataBoard, shown
    from sapis_lab.sweep.provenance import n_cores

    config = _dataset(name, settings or [])
    with DataBoard(_console()) as board:
        store = plainly(lambda: prepare(config, cache=cache or home() / ".sapis" / "data", n_workers=workers or n_cores(), progress=board))
    sizes = ", ".join(f"{len(ids)} {split}" for split, ids in store.splits.items())
    _console().print(f"{name}: {sizes} frames in {shown(store.folder)}", soft_wrap=True)


@data_app.command("list")
def data_list() -> None:
    """List the data sets of configs/data/ with their kinds.

    Example: `sapis data list`
    """
    from sapis_lab.config import read_yaml

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("data", "kind", "settings"):
        table.add_column(column, no_wrap=column != "settings")
    for path in sorted((home() / "configs" / "data").glob("*.yaml")):
        try:
            raw = read_yaml(path)
        except ConfigError as error:
            table.add_row(path.stem, "?", _broken(error))
            continue
        table.add_row(path.stem, str(raw.pop("kind", "?")), ", ".join(f"{k}={v}" for k, v in raw.items()))
    _console().print(table)


def _dataset(name: str, settings: list[str]) -> Any:
    from pydantic import create_model

    from sapis_lab.config import composed_kind, load, override
    from sapis_lab.data import DatasetConfig

    holder = create_model("Data", data=(composed_kind("data", DatasetConfig), ...))
    raw = override({"data": name}, [f"data.{s}" for s in settings])
    return load(holder, raw, source=f"configs/data/{name}.yaml").data


# ----------------------------------------------------------------------------------------------------------------- tune


@app.command("tune")
def tune(
    name: Name,
    settings: Set = None,
    called: As = None,
    workers: Workers = None,
    worker: Annotated[bool, typer.Option("--worker", help="Be one worker on the database of `run.storage`, on any host.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Print the best trials so far, or the Pareto front, and run nothing.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run trials again that failed in an earlier run.")] = False,
) -> None:
    """Search for good settings at every (model, N, D) of a study, as its `tune:` section says, or go on with it.

    Each trial is one point, which continues from its checkpoint whatever was killed. Where the learning rate or the batch size is
    tuned, the rule by which it moves with N and D is fitted to results/NAME/regime.json; `regime: NAME` in another study uses it. Exit
    status: 0 all trials ended, 1 some failed, 2 bad settings, 75 stopped.

    Example: `sapis tune rate-rule --workers 2`
    """
    from sapis_lab.sweep.tuner.road import TuneRequest, print_status, run_tune, run_worker

    request = TuneRequest(name, tuple(settings or ()), called, workers, retry_failed)
    if status:
        print_status(request, _console())
        return
    raise typer.Exit((run_worker if worker else run_tune)(request, _console()))


@app.command("scale")
def scale(
    name: Name,
    settings: Set = None,
    called: As = None,
    workers: Workers = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run points again that failed in an earlier run.")] = False,
    replay: Annotated[bool, typer.Option("--replay", help="Only decide the recorded history again, and compare.")] = False,
    design: Annotated[bool, typer.Option("--design", help="Only print which run would teach most per FLOP about N*.")] = False,
    target: Annotated[str | None, typer.Option("--target", help="With --design: about L at `N,D`.", show_default=False)] = None,
    against: Annotated[
        list[str] | None, typer.Option("--against", help="Only compare with the best run of results; may be repeated.", metavar="NAME")
    ] = None,
) -> None:
    """Scale a model by itself, or go on: from the study's lattice it decides, runs, measures and decides again, until a budget or a rule.

    The section `scale:` of the study file says how. Every decision and its reasons stand in results/NAME/scale/. Exit status: 0 ended by
    its budget or a rule, 1 a run failed (or, with --replay, a decision differs), 75 stopped: the same command goes on.

    Example: `sapis scale quickstart-scale`
    """
    from sapis_lab.scaling.road import print_comparison, print_design, print_replay, run_scale

    if target is not None and not design:
        raise ConfigError("--target goes with --design")
    if design:
        place = _numbers(target, "--target") if target else None
        if place is not None and (len(place) != 2 or min(place) <= 0):
            raise ConfigError(f"--target {target!r}: wanted N,D such as 1e5,4000")
        print_design(called or name, _console(), target=(place[0], place[1]) if place else None)
        return
    if against:
        print_comparison(called or name, against, _console())
        return
    if replay:
        raise typer.Exit(print_replay(called or name, _console()))
    status = run_scale(name, _console(), settings=settings or (), called=called, workers=workers, retry_failed=retry_failed)
    raise typer.Exit(status)


@app.command("dashboard")
def dashboard(
    name: Name, settings: Set = None, called: As = None, port: Annotated[int, typer.Option("--port", help="Port on this host.")] = 8080
) -> None:
    """Look at the trials of `sapis tune NAME` in a browser, with optuna-dashboard (the extra `dash`), on a copy of their file or on the
    database.

    Example: `sapis dashboard rate-rule --port 8081`
    """
    from sapis_lab.sweep.tuner.road import TuneRequest, run_dashboard

    raise typer.Exit(run_dashboard(TuneRequest(name, tuple(settings or ()), called), port=port, console=_console()))


# -------------------------------------------------------------------------------------------------------------- answers


def _answered(name: str) -> Path:
    """The results folder of `name`, its table up to date with the records."""
    from sapis_lab.sweep.files import checked_name
    from sapis_lab.sweep.folder import results_folder
    from sapis_lab.sweep.road import rebuild_table

    folder = results_folder(checked_name(name))
    if not folder.is_dir():
        known = sorted(p.name for p in (home() / "results").glob("*") if p.is_dir())
        raise ConfigError(f"no results of {name!r}; there are {', '.join(known) or 'none'}")
    rebuild_table(folder)
    return folder


@app.command("fit")
def fit(
    name: Annotated[str, typer.Argument(help="A folder in results/, or a table: CSV, parquet, JSON lines.", show_default=False)],
    quantity: Annotated[str | None, typer.Option(help="Of a study: the loss, a measured quantity; the study's by default.")] = None,
    n: Annotated[str | None, typer.Option("--n", help="Of a table: the column of model sizes N.", show_default=False)] = None,
    d: Annotated[str | None, typer.Option("--d", help="The column of data sizes D.", show_default=False)] = None,
    compute: Annotated[str | None, typer.Option("--compute", help="The column of C for L(C), not N and D.", show_default=False)] = None,
    loss: Annotated[str | None, typer.Option("--loss", help="The column of losses.", show_default=False)] = None,
    weight: Annotated[str | None, typer.Option("--weight", help="The column of precisions of ln loss.", show_default=False)] = None,
    group: Annotated[str | None, typer.Option("--group", help="The column of runs whose points err together.", show_default=False)] = None,
    epochs: Annotated[str | None, typer.Option("--epochs", help="The column of passes over the D frames.", show_default=False)] = None,
    law: Annotated[str, typer.Option("--law", help="`all`, `tied`, or laws as `n+d,n+d+nd+e`.")] = "all",
    robust: Annotated[str, typer.Option("--robust", help="`auto`, `none`, or Huber's threshold on ln loss (of a sum).")] = "auto",
    n_bootstrap: Annotated[int, typer.Option("--bootstrap", min=0, help="Resamples.")] = 4000,
    resample: Annotated[
        str | None, typer.Option("--resample", help="`residuals`, `rows` or `clusters` (by --group).", show_default="residuals")
    ] = None,
    calibrate: Annotated[int, typer.Option("--calibrate", min=0, help="Simulated data sets behind each end of an interval; 0: F.")] = 199,
    seed: Annotated[int, typer.Option("--seed", help="Of resampling and simulation.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all numbers to this file.", show_default=False)] = None,
) -> None:
    """Fit the laws: again from a study's results, with figures and report, or to any table of N, D and loss. Needs no torch.

    Example: `sapis fit rmd17-ethanol --quantity test_force_rmse`

    Example: `sapis fit runs.csv --n params --d tokens --loss loss --law all --robust auto --json fit.json`
    """
    if _is_table(name, {"--n": n, "--d": d, "--compute": compute, "--loss": loss}):
        _fit_table(
            Path(name), n=n, d=d, compute=compute, loss=loss, weight=weight, group=group, epochs=epochs, law=law, robust=robust,
            n_bootstrap=n_bootstrap, resample=resample, calibrate=calibrate, seed=seed, json_file=json_file,
        )  # fmt: skip
        return
    from sapis_lab.report import analyse_folder
    from sapis_lab.sweep.road import print_answers

    folder = _answered(name)
    plainly(lambda: analyse_folder(folder, **({"quantity": quantity} if quantity else {})))
    print_answers(folder, _console())


def _is_table(name: str, columns: dict[str, str | None]) -> bool:
    from sapis_lab.analysis.table import READERS

    return Path(name).suffix.lower() in READERS or Path(name).is_file() or any(columns.values())


def _fit_table(
    path: Path, *, n: str | None, d: str | None, compute: str | None, loss: str | None, weight: str | None, group: str | None,
    epochs: str | None, law: str, robust: str, n_bootstrap: int, resample: str | None, calibrate: int, seed: int, json_file: Path | None,
) -> None:  # fmt: skip
    import json

    from sapis_lab.analysis.result import Effort
    from sapis_lab.analysis.table import Columns
    from sapis_lab.analysis.table_fit import fit_table, law_names, table_json
    from sapis_lab.config import write_text
    from sapis_lab.report.laws_text import print_table_fit

    if compute is not None and (n is not None or d is not None or epochs is not None):
        raise ConfigError("--compute stands instead of --n, --d and --epochs, got both")
    wanted = {"--loss": loss} | ({} if compute is not None else {"--n": n, "--d": d})
    missing = [option for option, column in wanted.items() if column is None]
    if missing:
        raise ConfigError(f"{path}: a table needs the names of its columns; missing {', '.join(missing)} (as in --n N --d D --loss loss)")
    how: Any = robust if robust in ("auto", "none") else _numbers(robust, "--robust")[0]
    resampling: Any = resample or ("clusters" if group else "residuals")
    if resampling not in ("residuals", "rows", "clusters"):
        raise ConfigError(f"--resample {resampling!r}: wanted residuals, rows or clusters")
    if json_file is not None and not json_file.resolve().parent.is_dir():
        raise ConfigError(f"--json {json_file}: there is no folder {json_file.parent}")
    columns = Columns(compute or n or "", None if compute else d, loss or "", weight, group, epochs)
    effort = Effort(n_bootstrap=n_bootstrap, resampling=resampling, n_simulations=calibrate, all_tests=True)

    def run() -> Any:
        return fit_table(path, columns, laws=law_names(law, compute=compute is not None), robust=how, effort=effort, seed=seed)

    found = plainly(run)
    print_table_fit(found, _console())
    if json_file is not None:
        write_text(json_file, json.dumps(table_json(found), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@app.command("figures")
def figures(name: Annotated[str, typer.Argument(help="Name of a folder in results/.", show_default=False)]) -> None:
    """Draw a study's figures again from its results, each as PDF, SVG, PNG and CSV. Trains nothing, needs no torch.

    Example: `sapis figures rmd17-ethanol`
    """
    from sapis_lab.report import analyse_folder
    from sapis_lab.report.page import not_drawn
    from sapis_lab.sweep.progress import shown

    folder = _answered(name)
    plainly(lambda: analyse_folder(folder))
    for path in sorted((folder / "figures").glob("*.pdf")):
        _console().print(shown(path), soft_wrap=True)
    for kind, reason in not_drawn(folder / "figures").items():
        _console().print(Text(f"not drawn: {kind}: {reason}"), soft_wrap=True)


@app.command("report")
def report(name: Annotated[str, typer.Argument(help="Name of a folder in results/.", show_default=False)]) -> None:
    """Write a study's report again from its results. Trains nothing, needs no torch.

    Example: `sapis report rmd17-ethanol`
    """
    from sapis_lab.report import analyse_folder
    from sapis_lab.sweep.progress import shown

    folder = _answered(name)
    plainly(lambda: analyse_folder(folder))
    _console().print(shown(folder / "report.html"), soft_wrap=True)


# -------------------------------------------------------------------------------------------------------------- looking


KIND_FOLDERS = ("models", "data")
"""Folders whose kinds can stand in a study."""


@app.command("kinds")
def kinds_of(
    folder: Annotated[str | None, typer.Argument(help="models or data; both when not given.", show_default=False)] = None,
    kind: Annotated[str | None, typer.Argument(help="Show the settings of one kind.", show_default=False)] = None,
) -> None:
    """List what a `kind:` can be, or the settings of one kind with their meaning and defaults.

    Example: `sapis kinds data xtb`
    """
    from sapis_lab.config import kind_class, kinds

    if folder not in (None, *KIND_FOLDERS):
        raise ConfigError(f"{folder!r} has no kinds; known: {', '.join(KIND_FOLDERS)}")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    if folder is None or kind is None:
        for column in ("folder", "kind", "settings"):
            table.add_column(column)
        for place in KIND_FOLDERS if folder is None else (folder,):
            for known in kinds(place):
                table.add_row(place, known, ", ".join(f for f in kind_class(place, known).model_fields if f != "kind"))
        _console().print(table)
        return
    config = plainly(lambda: kind_class(folder, kind))
    for column in ("setting", "default", "meaning"):
        table.add_column(column, no_wrap=column == "setting")
    for field, info in config.model_fields.items():
        default = "required" if info.is_required() else repr(info.get_default(call_default_factory=True))
        table.add_row(field, default, (info.description or "").replace("\n", " "))
    _console().print(table)


@app.command("schema")
def schema() -> None:
    """Print the JSON schema of a study file, for editors that check and complete YAML.

    Example: `sapis schema > study.schema.json`
    """
    import json

    from sapis_lab.sweep.schema import study_schema

    print(json.dumps(study_schema(), indent=1))


@selftest_app.command("contracts")
def contracts() -> None:
    """Measure every model's equivariance, smoothness, derivatives and counts, in float32 and float64.

    Example: `sapis selftest contracts`
    """
    import torch

    from sapis_lab.selftest.contracts import table

    torch.set_num_threads(1)
    print(table())


@selftest_app.command("coverage")
def coverage(
    quick: Annotated[bool, typer.Option("--quick", help="Two cells, few data sets: seconds.")] = False,
    n_sets: Annotated[int, typer.Option("--data-sets", min=20, help="Data sets of each cell.")] = 1000,
    simulations: Annotated[int, typer.Option("--simulations", min=0, help="Behind each critical value; 0: only F's.")] = 99,
    robust: Annotated[str, typer.Option("--robust", help="Estimators: `none` (least squares), `auto` (Huber).")] = "none,auto",
    seed: Annotated[int, typer.Option("--seed", help="Of the data sets.")] = 0,
    json_file: Json = None,
) -> None:
    """Count how often 95 % intervals hold the true exponents, over laws, lattices, noises and estimators. About an hour of CPU time.

    Exit status: 1 if alpha or beta of an identifiable cell is covered outside 93-97 % by more than two standard errors of the count.

    Example: `sapis selftest coverage --quick`
    """
    from sapis_lab.analysis.coverage import cells, quick_cells
    from sapis_lab.selftest.coverage import run_coverage

    save = _keeper(json_file, "coverage")
    estimators: list[Any] = robust.split(",")
    if not set(estimators) <= {"none", "auto"}:
        raise ConfigError(f"--robust {robust!r}: wanted none, auto or both with a comma between them")
    designs = list(quick_cells() if quick else cells(robust=estimators))
    n_sets, simulations = (min(n_sets, 200), min(simulations, 39)) if quick else (n_sets, simulations)
    raise typer.Exit(run_coverage(designs, n_sets=n_sets, n_simulations=simulations, seed=seed, console=_console(), save=save))


@selftest_app.command("ranks")
def ranks(
    n_ranks: Annotated[int, typer.Option("--ranks", min=2, help="Processes that train together.")] = 2,
) -> None:
    """Train 50 steps with one process and with several on frames of unequal size, and print how far the parameters are apart.

    Example: `sapis selftest ranks`
    """
    from sapis_lab.selftest.ranks import rank_table

    print(rank_table(n_ranks=n_ranks))


@selftest_app.command("kill")
def kill(
    n_kills: Annotated[int, typer.Option("--kills", min=1, help="SIGKILLs at random moments.")] = 50,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Of the lattice, 8 points of some seconds each.")] = 6,
    seed: Annotated[int, typer.Option("--seed", help="Of the moments and the targets.")] = 0,
) -> None:
    """Kill a study again and again, its engine, launcher and points, and compare what it ends in with the undisturbed one. Minutes.

    Exit status: 1 if a point is lost or doubled, or any number or weight differs.

    Example: `sapis selftest kill --kills 10 --seeds 2`
    """
    from sapis_lab.selftest.kill import Plan, run_kill

    raise typer.Exit(run_kill(Plan(kills=n_kills, seeds=seeds, seed=seed), say=lambda line: print(line, flush=True)))


# ---------------------------------------------------------------------------------------------------------------- bench

Sizes = Annotated[str, typer.Option("--sizes", help="Numbers of parameters, as in `6e4,3e5,1e6`.")]
Inputs = Annotated[str, typer.Option("--inputs", help="Of `eth16`, `mol27x8`, `mol27x16`, `water192`.")]
Rounds = Annotated[int, typer.Option("--rounds", min=1, help="Visits to every model; each lasts about --visit.")]
Visit = Annotated[float, typer.Option("--visit", min=0, help="Length of a visit, s; at least one step.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write all numbers to this file.", show_default=False)]
Reference = Annotated[str, typer.Option("--reference", help="Model whose time is 1 in the ratios.", show_default=False)]
Root = Annotated[Path | None, typer.Option("--root", help="Folder of the peers' environments; $SAPIS_PEERS or `.sapis/peers`.")]


@bench_app.command("step")
def bench_step(
    models: Annotated[str, typer.Option("--models", help="Models, with degree and options: `geat,geat-l1,geat:lmax=3:layers=1`.")] = "geat",
    sizes: Annotated[
        str, typer.Option("--sizes", help="Numbers of parameters, as in `6e4,3e5,1e6`; `own`: the models' own widths.")
    ] = "1e5",
    inputs: Inputs = "eth16,mol27x16,water192",
    reference: Reference = "",
    rounds: Rounds = 7,
    visit: Visit = 0.3,
    device: Annotated[str, typer.Option("--device", help="`cpu`, `cuda` or `cuda:K`.")] = "cpu",
    json_file: Json = None,
) -> None:
    """Time training steps and inference of this package's models, side by side in interleaved rounds.

    Every model has a process of its own with one thread; on a CPU its CPU time is taken, on a GPU synchronised wall time. FLOPs,
    operations, page faults, memory and the speed of matrix products in the same minutes stand beside it. Exit status: 1 if a model failed.

    Example: `sapis bench step --models geat,geat-l1,nequip --sizes 6e4,3e5 --inputs mol27x16 --json step.json`
    """
    from sapis_lab.bench.measure import Settings
    from sapis_lab.bench.step import run_step, sizes_of, words_of

    settings = Settings(rounds=rounds, visit_seconds=visit, reference=reference, device=device)
    status = run_step(
        models=words_of(models, option="--models"), sizes=sizes_of(sizes, own=True), inputs=words_of(inputs, option="--inputs"),
        settings=settings, json_file=json_file, console=_console(),
    )  # fmt: skip
    raise typer.Exit(status)


@bench_app.command("peers")
def bench_peers(
    models: Annotated[
        str, typer.Option("--models", help="Peers, our models, and options: `geat,nequip,mace:layers=1`.", show_default=False)
    ] = "",
    sizes: Sizes = "1e5",
    inputs: Inputs = "eth16,mol27x16,water192",
    reference: Reference = "",
    rounds: Rounds = 7,
    visit: Visit = 0.3,
    installed: Annotated[bool, typer.Option("--installed", help="Leave out peers whose environment is missing, and say which.")] = False,
    root: Root = None,
    json_file: Json = None,
) -> None:
    """Time peer codes beside our models in one interleaved run, all on the same frames and edges with the same loss.

    Without --models: geat, transformer and every peer. Ratios are against geat where it is measured. A model of this package that has a
    peer's name is called `sapis-NAME`. Exit status: 1 if a model failed.

    Example: `sapis bench peers --models geat,geat-l1,nequip,painn --sizes 1e5 --inputs mol27x16`
    """
    from sapis_lab.bench.measure import Settings
    from sapis_lab.bench.peers import PEERS, run_peers
    from sapis_lab.bench.step import sizes_of, words_of

    status = run_peers(
        models=words_of(models, option="--models") if models else ["geat", "transformer", *PEERS], sizes=sizes_of(sizes),
        inputs=words_of(inputs, option="--inputs"), installed=installed, json_file=json_file, console=_console(),
        settings=Settings(rounds=rounds, visit_seconds=visit, reference=reference, root=root),
    )  # fmt: skip
    raise typer.Exit(status)


@bench_app.command("environments")
def bench_environments(
    names: Annotated[list[str] | None, typer.Argument(help="Environments to make; all when none is given.", show_default=False)] = None,
    root: Root = None,
    torch: Annotated[str | None, typer.Option("--torch", help="Requirement of torch, for another build.", show_default=False)] = None,
) -> None:
    """Make the virtual environments of the peer codes; complete ones are left alone.

    Example: `sapis bench environments nequip mace`
    """
    import subprocess

    from sapis_lab.bench.environments import ENVIRONMENTS, make_environments

    wanted, options = names or list(ENVIRONMENTS), {"torch": torch} if torch else {}
    try:
        plainly(lambda: make_environments(wanted, root, **options))
    except subprocess.CalledProcessError as error:
        _stderr(f"error: {' '.join(map(str, error.cmd))} ended with status {error.returncode}; see install.log in the environment's folder")
        raise typer.Exit(1) from None


@bench_app.command("accuracy")
def bench_accuracy(
    codes: Annotated[
        list[str] | None,
        typer.Argument(help="Peers and our models, with options: `geat geat:lmax=1 painn`; none to print the tables of what is there."),
    ] = None,
    data: Annotated[str, typer.Option("--data", help="Of `acac`, `ethanol`, `3bpa`, `lips`, or paths of batch files.")] = "acac,ethanol",
    seconds: Annotated[str, typer.Option("--seconds", help="Long budgets of CPU time, s; `none` to choose the rates only.")] = "300",
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds at the long budgets, as in `0,1,2`.")] = "0",
    tune_seconds: Annotated[float, typer.Option("--tune-seconds", help="CPU time at which learning rates are compared, s.")] = 60.0,
    rates: Annotated[str | None, typer.Option("--rates", help="First rates to try, for all codes.", show_default=False)] = None,
    n_params: Annotated[float, typer.Option("--size", help="Number of parameters.")] = 1e5,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Runs at a time, one thread each.")] = 1,
    folder: Annotated[Path | None, typer.Option("--folder", help="Of the results.", show_default="results/accuracy-at-equal-time")] = None,
    root: Root = None,
) -> None:
    """Train peer codes and our models for the same CPU time on the same frames, and compare their force errors.

    Every finished run is kept in `runs.jsonl` of the folder and not done again.

    Example: `SAPIS_DATA=/path/to/data sapis bench accuracy geat painn --data acac --seconds 300 --seeds 0,1,2`
    """
    from sapis_lab.bench.accuracy import FOLDER, RUNS, RunLog, run_accuracy, write_tables
    from sapis_lab.bench.step import words_of

    names, place = [code.replace(":", ",") for code in codes or []], folder or home() / FOLDER
    first = _numbers(rates, "--rates") if rates else None
    if names:
        plainly(
            lambda: run_accuracy(
                names, data=words_of(data, option="--data"), seconds=[] if seconds == "none" else _numbers(seconds, "--seconds"),
                seeds=[int(seed) for seed in _numbers(seeds, "--seeds")], tune_seconds=tune_seconds,
                rates=dict.fromkeys(names, first) if first else None, n_params=n_params, workers=workers, folder=place, root=root,
            )
        )  # fmt: skip
    elif not (place / RUNS).is_file():
        raise ConfigError(f"{place / RUNS} is not there: nothing has been measured; name codes, as in: sapis bench accuracy geat painn")
    _console().print(Text(plainly(lambda: write_tables(RunLog(place / RUNS).read(), place))), soft_wrap=True)


@bench_app.command("engine")
def bench_engine(
    n_points: Annotated[int, typer.Option("--points", min=2, help="Points of the lattice.")] = 40,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="Training time of a point, s.")] = 2.0,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Points at a time.")] = 2,
    model: Annotated[str, typer.Option("--model", help="Name of a file in configs/models/, without `.yaml`.")] = "geat",
    json_file: Json = None,
) -> None:
    """Time a lattice of short points against the sum of their training times, the start of the workers apart.

    The data and the training are those of the study quickstart. Exit status: 1 if a point failed.

    Example: `sapis bench engine --points 40 --seconds 2 --workers 2`
    """
    save = _keeper(json_file, "engine")
    from sapis_lab.bench.engine import Plan, run_engine

    plan = Plan(model=model, n_points=n_points, seconds=seconds, workers=workers)
    raise typer.Exit(run_engine(plan, cache=None, save=save, console=_console()))


@bench_app.command("growth")
def bench_growth(
    data: Annotated[str, typer.Option("--data", help="Name of a file in configs/data/, without `.yaml`.")] = "acac-300K",
    model: Annotated[str, typer.Option("--model", help="A model that grows, with options: `geat:lmax=1`.")] = "geat",
    small: Annotated[float, typer.Option("--small", help="Number of parameters before growth.")] = 6e4,
    large: Annotated[float, typer.Option("--large", help="Number of parameters after growth.")] = 2.4e5,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps before growth.")] = 1000,
    more: Annotated[int, typer.Option("--more", min=5, help="Steps after growth.")] = 500,
    rewarm: Annotated[int, typer.Option("--rewarm", min=0, help="Steps of the warm-up after growth; at most a fifth of --more.")] = 100,
    rate: Annotated[float, typer.Option("--rate", min=0, help="Peak learning rate after growth over the default.")] = 0.3,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Frames of a step.")] = 5,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many seeds, from 0 on.")] = 3,
    json_file: Json = None,
) -> None:
    """Grow a trained model and go on, against the larger model trained from scratch for the same training FLOPs.

    Prints what growth changes of energies and forces, and the validation errors of both. Every training has a complete schedule of its own.
    Exit status: 1 if a training diverged or growth changed more than rounding.

    Example: `SAPIS_DATA=/path/to/data sapis bench growth --steps 1000 --more 500 --seeds 3 --json growth.json`
    """
    save = _keeper(json_file, "growth")
    from sapis_lab.bench.growth import Plan, run_growth

    plan = Plan(
        _dataset(data, []), model=model, small=small, large=large, steps=steps, more=more, rewarm=rewarm, rate=rate, batch_size=batch,
        n_seeds=seeds,
    )  # fmt: skip
    raise typer.Exit(run_growth(plan, cache=None, save=save, console=_console()))


@bench_app.command("stability")
def bench_stability(
    model: Annotated[str, typer.Option("--model", help="A model of this package, with options: `geat:lmax=1`.")] = "geat",
    data: Annotated[str, typer.Option("--data", help="`acac` (configs/data/acac-300K), `ethanol`, or a batch file.")] = "acac",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many seeds, from 0 on.")] = 20,
    factors: Annotated[str, typer.Option("--factors", help="Learning rates over the model's default.")] = "0.5,1,2",
    seconds: Annotated[float, typer.Option("--seconds", min=0, help="CPU time of every run, s.")] = 30.0,
    n_params: Annotated[float, typer.Option("--size", help="Number of parameters.")] = 1e5,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Runs at a time, one thread each.")] = 2,
    runs: Annotated[
        Path | None, typer.Option("--runs", help="JSON-lines file of the finished runs.", show_default="results/stability/runs.jsonl")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Make runs once more that are in the file.")] = False,
    json_file: Json = None,
) -> None:
    """Count how often training diverges, at the default learning rate of a model and at multiples of it.

    Every finished run is kept in --runs and not done again. Exit status: 1 if a run diverged or failed.

    Example: `SAPIS_DATA=/path/to/data sapis bench stability --seeds 20 --factors 0.5,1,2 --seconds 30 --workers 2`
    """
    save = _keeper(json_file, "stability")
    from sapis_lab.bench.stability import Plan, run_stability

    plan = Plan(
        model=model, data=data, n_seeds=seeds, factors=_positive(factors, "--factors"), seconds=seconds, n_params=n_params,
        workers=workers, again=again,
    )  # fmt: skip
    raise typer.Exit(plainly(lambda: run_stability(plan, file=runs, cache=None, save=save, console=_console())))


@bench_app.command("pack")
def bench_pack(
    model: Annotated[str, typer.Option("--model", help="A model of this package, with options: `geat:lmax=1`.")] = "geat",
    sizes: Sizes = "3e3,1e4,1e5",
    models_at_once: Annotated[str, typer.Option("--models-at-once", "-k", help="Numbers of models k that are trained as one.")] = "1,4,8",
    rounds: Rounds = 5,
    visit: Visit = 0.5,
    device: Annotated[str, typer.Option("--device", help="`cpu`, `cuda` or `cuda:K`.")] = "cpu",
    json_file: Json = None,
) -> None:
    """Time training steps of k small models packed into one batched model, against k single steps.

    Single steps are taken in PyTorch alone and with the C++ kernel; on a CPU its CPU time is taken, on a GPU synchronised wall time. Exit
    status: 1 if a measurement failed or packed gradients are not the single ones.

    Example: `sapis bench pack --sizes 3e3,1e4,1e5 -k 1,4,8 --json pack.json`
    """
    save = _keeper(json_file, "pack")
    from sapis_lab.bench.measure import Settings
    from sapis_lab.bench.pack import run_pack
    from sapis_lab.bench.step import sizes_of

    settings = Settings(rounds=rounds, visit_seconds=visit, device=device)
    status = run_pack(
        model=model, sizes=sizes_of(sizes), n_models=_counts(models_at_once, "--models-at-once"), settings=settings, save=save,
        console=_console(),
    )  # fmt: skip
    raise typer.Exit(status)


@bench_app.command("scaler")
def bench_scaler(
    policies: Annotated[
        str, typer.Option("--policies", help="Of null, greedy, jump, trigger, posterior, and `posterior without measurements`.")
    ] = "null,greedy,jump,trigger,posterior,posterior without measurements",
    worlds: Annotated[str, typer.Option("--worlds", help="Of the six; all when not given.", show_default=False)] = "",
    n_worlds: Annotated[int, typer.Option("--campaigns", min=2, help="Campaigns in each world, of each policy.")] = 32,
    json_file: Json = None,
) -> None:
    """Measure what policies of scaling waste on six synthetic worlds, with the seeds on which nothing was tuned.

    Exit status: 1 if the posterior policy wastes more than 6 % on a world, or 3 points more than the best fixed policy there.

    Example: `sapis bench scaler --campaigns 32 --json results/scaler-worlds/scaler.json`
    """
    save = _keeper(json_file, "scaler")
    from sapis_lab.bench.scaler import run_scaler
    from sapis_lab.bench.step import words_of
    from sapis_lab.scaling.worlds import SHARES

    chosen = words_of(worlds, option="--worlds") if worlds else list(SHARES)
    names = words_of(policies, option="--policies")
    raise typer.Exit(plainly(lambda: run_scaler(names, chosen, n_worlds=n_worlds, console=_console(), save=save)))  # type: ignore[arg-type]


@bench_app.command("fits")
def bench_fits(
    parts: Annotated[str, typer.Option("--parts", help="Of recovery, lattices, speed, published.")] = "recovery,lattices,speed,published",
    n_lattices: Annotated[int, typer.Option("--lattices", min=1, help="Synthetic lattices.")] = 500,
    n_starts: Annotated[int, typer.Option("--starts", min=1, max=24, help="Starts of the loop with numerical gradients.")] = 12,
    json_file: Json = None,
) -> None:
    """Examine the fits of laws: exact recovery, start-dependent misses, speed against loops of scalar fits, published tables.

    Published tables are looked for in `$SAPIS_DATA/scaling`. Exit status: 1 if any optimum was missed.

    Example: `SAPIS_DATA=/path/to/data sapis bench fits --json fits.json`
    """
    save = _keeper(json_file, "fits")
    from sapis_lab.bench.fits import run_fits
    from sapis_lab.bench.step import words_of

    data = Path(os.environ["SAPIS_DATA"]) if "SAPIS_DATA" in os.environ else None
    status = plainly(
        lambda: run_fits(
            words_of(parts, option="--parts"), n_lattices=n_lattices, n_starts=n_starts, data=data, console=_console(), save=save
        )
    )
    raise typer.Exit(status)


def _keeper(json_file: Path | None, what: str) -> Callable[[dict[str, Any]], None]:
    """Writes results, with where they come from, to the file of --json, whose folder must be there."""
    import json
    import platform
    from datetime import UTC, datetime
    from importlib.metadata import version

    from sapis_lab.config import write_text
    from sapis_lab.sweep.provenance import current_commit

    if json_file is not None and not json_file.resolve().parent.is_dir():
        raise ConfigError(f"--json {json_file}: there is no folder {json_file.parent}")
    commit, dirty = current_commit()
    about = {
        "format": 1, "what": what, "started": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit, "dirty": dirty,
        "host": platform.node(), "python": platform.python_version(), "torch": version("torch"),
    }  # fmt: skip

    def save(results: dict[str, Any]) -> None:
        if json_file is not None:
            write_text(json_file, json.dumps({**about, **results}, indent=1, ensure_ascii=False) + "\n")

    return save


def _positive(text: str, option: str) -> tuple[float, ...]:
    values = tuple(dict.fromkeys(_numbers(text, option)))
    if not all(0 < value < float("inf") for value in values):
        raise ConfigError(f"{option} {text!r}: wanted numbers above 0")
    return values


def _counts(text: str, option: str) -> list[int]:
    values = _positive(text, option)
    if not all(value.is_integer() for value in values):
        raise ConfigError(f"{option} {text!r}: wanted whole numbers, as in 1,4,8")
    return [int(value) for value in values]



def _numbers(text: str, option: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise ConfigError(f"{option} {text!r}: wanted numbers with commas between them, as in 1,2") from None


if __name__ == "__main__":
    main()
