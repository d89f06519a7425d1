"""sapis data validate and sapis data info: what the checks find in a data set, and what it holds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from sapis_lab.cli.common import (
    Json,
    Set,
    check_json,
    dataset_config,
    progress,
    source_path,
    stdout_console,
)
from sapis_lab.config import ConfigError, home, plainly
from sapis_lab.screen import new_table

if TYPE_CHECKING:
    from sapis_lab.data import Finding, Summary

_STYLE = {"passed": "green", "failed": "red", "suspect": "yellow", "not checked": "dim"}
Target = Annotated[
    str,
    typer.Argument(
        help="Name of a file in configs/data/, without `.yaml`, or a path of a data file.", show_default=False
    ),
]
Cache = Annotated[
    Path | None, typer.Option(help="Folder of the frame stores; `.sapis/data` of the project by default.")
]


def validate(name: Target, settings: Set = None, cache: Cache = None, json_file: Json = None) -> None:
    """Make every check of a data set, and list what each found; a failure does not end it.

    A path (from here, or from $SAPIS_DATA), with a slice such as [::10] if wanted, is read as kind files with
    the units that --set gives. Exit status: 1 if a check failed.

    Example: `sapis data validate mine.xyz --set energy_unit=eV --set length_unit=Angstrom`
    """
    from sapis_lab.data import examine, worst
    from sapis_lab.jobs.host import n_cores

    check_json(json_file)
    config = _config(name, settings or [])
    with progress() as told:
        found = plainly(
            lambda: examine(
                config,
                cache=cache or home() / ".sapis" / "data",
                n_workers=n_cores(),
                progress=lambda what, done, total: told(f"{what} {done} of {total}"),
            )
        )
    _print(found)
    if json_file is not None:
        _write(json_file, {"data": name, "findings": [finding.plain() for finding in found]})
    raise typer.Exit(1 if worst(found) == "failed" else 0)


def info(
    name: Target,
    settings: Set = None,
    cutoff: Annotated[float, typer.Option("--cutoff", min=0.5, help="Å, for counting neighbours.")] = 5.0,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for histograms of energies and forces.", show_default=False),
    ] = None,
    cache: Cache = None,
    json_file: Json = None,
) -> None:
    """Say what a data set holds: sizes, elements, compositions, ranges, neighbours, labels, origin.

    Makes its frame store where there is none.

    Example: `sapis data info acac-300K --out figures`
    """
    from sapis_lab.data import prepare, summary
    from sapis_lab.jobs.host import n_cores

    check_json(json_file)
    config = _config(name, settings or [])
    store = plainly(lambda: prepare(config, cache=cache or home() / ".sapis" / "data", n_workers=n_cores()))
    found = plainly(lambda: summary(store, cutoff=cutoff))
    table = new_table("what", "value", left="all", wrapped=["value"])
    for what, value in _lines(found, cutoff):
        table.add_row(what, value)
    stdout_console().print(table)
    if json_file is not None:
        plain = {k: v for k, v in found._asdict().items() if k not in ("energies", "forces")}
        _write(json_file, {"data": name, "cutoff": cutoff, **plain})
    if out is not None:
        from sapis_lab.figures import data_drawing, save
        from sapis_lab.files import make_folder

        if not len(found.energies) and not len(found.forces):
            raise ConfigError(f"--out {out}: {name} has neither energies nor forces, nothing is drawn")
        drawing = data_drawing(Path(name).stem, found.energies, found.forces)
        plainly(lambda: make_folder(out))
        for path in plainly(lambda: save(drawing, out, name="data")):
            stdout_console().print(str(path), soft_wrap=True)


def _config(name: str, settings: list[str]) -> Any:
    """Of a name in configs/data/, or of a file of frames, which is read as kind files."""
    if (home() / "configs" / "data" / f"{name}.yaml").exists():
        return dataset_config(name, settings)
    from sapis_lab.data import split_slice

    relative, _ = plainly(lambda: split_slice(name))
    path = source_path(relative)
    if path is None and not Path(relative).suffix and "/" not in relative:
        return dataset_config(name, settings)  # which says what names there are
    from pydantic import create_model

    from sapis_lab.config import composed_kind, load, override
    from sapis_lab.data import DatasetConfig

    if path is None:
        raise ConfigError(
            f"{name}: there is no such file in {Path.cwd()} or $SAPIS_DATA, and no data set of that name in "
            "configs/data/"
        )
    raw: dict[str, Any] = {
        "kind": "files",
        "root": str(path.resolve().parent),
        "train": path.name + name[len(relative) :],
        "split_by": None,
        "n_validation": 1,
        "n_test": 1,
        "seed": None,
    }
    holder = create_model("Data", data=(composed_kind("data", DatasetConfig), ...))
    changed = override({"data": raw}, [f"data.{s}" for s in settings])
    made: Any = load(holder, changed, source=f"{name} with --set KEY=VALUE")
    return made.data


def _print(found: list[Finding]) -> None:
    table = new_table("check", "outcome", "what was found", left="all", wrapped=["what was found"])
    for finding in found:
        table.add_row(finding.check, Text(finding.outcome, _STYLE[finding.outcome]), finding.why)
    console = stdout_console()
    console.print(table)
    counts = Counter(str(finding.outcome) for finding in found)
    console.print(", ".join(f"{counts[outcome]} {outcome}" for outcome in _STYLE if counts[outcome]))


def _lines(found: Summary, cutoff: float) -> list[tuple[str, str]]:
    """Rows of what and value."""
    more = found.n_compositions - len(found.compositions)
    lines = [
        ("frames", ", ".join(f"{n:,} {split}" for split, n in found.sizes.items())),
        ("elements", ", ".join(found.elements)),
        (
            "compositions",
            ", ".join(f"{text} ({n:,})" for text, n in found.compositions.items())
            + (f" and {more:,} more" if more > 0 else ""),
        ),
        ("atoms per frame", f"{found.atoms[0]} to {found.atoms[2]}, mean {found.atoms[1]:.4g}"),
        ("periodic directions", ", ".join(f"{pbc} ({n:,})" for pbc, n in found.periodicity.items())),
        ("neighbours per atom", f"{found.neighbors:.3g} within {cutoff:g} Å"),
        ("labels", ", ".join(f"{key} ({100 * share:.4g} %)" for key, share in found.labels.items())),
    ]
    if found.energy is not None:
        low, mean, high, deviation = found.energy
        lines.append(
            (
                "energy per atom",
                f"{low:.6g} to {high:.6g} eV, mean {mean:.6g}, standard deviation {deviation:.3g}",
            )
        )
    if found.force is not None:
        lines.append(
            ("forces", f"RMS {found.force[0]:.4g} eV/Å, largest component {found.force[1]:.4g} eV/Å")
        )
    lines += [(key.replace("_", " "), _said(value)) for key, value in found.metadata.items()]
    return lines


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_said(v)}" for k, v in value.items())
    return f"{value:.8g}" if isinstance(value, float) else str(value)


def _write(json_file: Path, results: dict[str, Any]) -> None:
    import json

    from sapis_lab.files import write_text

    write_text(json_file, json.dumps(results, indent=1, ensure_ascii=False) + "\n")
