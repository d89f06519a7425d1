"""What a tuning found: trials.csv, best.yaml, figures, the regime rule where a rate or a batch was tuned,
and the last words.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from sapis_lab.config import plainly
from sapis_lab.sweep.request import COMPLETE, SOME_FAILED
from sapis_lab.sweep.tuner.request import TuneRequest, Tuning
from sapis_lab.sweep.words import duration, shown

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy


def report(tuning: Tuning, folder: Path, studies: list[OptunaStudy]) -> Any:
    """Write trials.csv and best.yaml; the table."""
    from sapis_lab.sweep.tuner.table import trials_table, write_best, write_trials

    table = trials_table(
        tuning.cells, studies, folder=folder / "trials", keys=tuning.keys, names=tuning.names
    )
    write_trials(table, folder)
    write_best(table, folder, study=tuning.study, cells=tuning.cells, keys=tuning.keys, names=tuning.names)
    return table


def conclude(request: TuneRequest, tuning: Tuning, table: Any, console: Console, *, seconds: float) -> int:
    """Figures, the regime rule, and the last words."""
    from sapis_lab.sweep.tuner.table import print_table

    folder = request.folder
    n_failed = int((table["state"] == "failed").sum())
    title = (
        f"\n{tuning.study.name}: {len(table)} trials ended, {n_failed} failed; this session took "
        f"{duration(seconds)}"
    )
    print_table(table, console, title=title, keys=tuning.keys, names=tuning.names)
    draw(folder, tuning)
    fit_regime(folder, console)
    console.print(
        Text(f"table   {shown(folder / 'trials.csv')}\nbest    {shown(folder / 'best.yaml')}"), soft_wrap=True
    )
    console.print(Text(f"figures {shown(folder / 'figures')}/"), soft_wrap=True)
    if n_failed:
        console.print(
            Text(f"run the failed ones again: {' '.join(request.command)} --retry-failed"), soft_wrap=True
        )
    return SOME_FAILED if n_failed else COMPLETE


def draw(folder: Path, tuning: Tuning) -> None:
    """The figures of the trials."""
    from sapis_lab.figures import draw_tuning
    from sapis_lab.sweep.tuner.table import read_trials

    logs = [name for name, axis in tuning.tune.space.items() if axis.log is not None]
    draw_tuning(
        read_trials(folder),
        folder / "figures",
        objectives=tuning.keys,
        settings=tuning.names,
        logarithmic=logs,
    )


def fit_regime(folder: Path, console: Console) -> None:
    """results/NAME/regime.json and what it says, where a rate or a batch was tuned by one error."""
    from sapis_lab.analysis.regime import fit_folder
    from sapis_lab.figures import draw_regime

    regime = plainly(
        lambda: fit_folder(folder.parent), about="the trials are kept, but their rule could not be fitted"
    )
    if regime is not None:
        console.print(Text(regime.text()), soft_wrap=True)
        draw_regime(regime, folder / "figures")
        console.print(Text(f"rule    {shown(folder.parent / 'regime.json')}"), soft_wrap=True)
