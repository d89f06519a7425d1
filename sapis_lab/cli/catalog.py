"""sapis kinds, schema: what can be put into a config."""

from __future__ import annotations

from typing import Annotated

import typer

from sapis_lab.cli.common import stdout_console
from sapis_lab.config import ConfigError, plainly
from sapis_lab.screen import new_table

app = typer.Typer()

KIND_FOLDERS = (
    "models",
    "heads",
    "targets",
    "tasks",
    "optimizers",
    "data",
    "oracles",
    "samplers",
    "generators",
    "simulation",
    "evaluation",
    "policies",
    "executors",
    "exports",
)
"""Folders whose kinds have settings: all but `exports` can stand in a study, whose settings `sapis export`
takes."""


@app.command("kinds")
def kinds_of(
    folder: Annotated[
        str | None,
        typer.Argument(
            help="models, heads, targets, tasks, optimizers, data, oracles, samplers, generators, "
            "simulation, evaluation, policies, executors or exports; all when not given.",
            show_default=False,
        ),
    ] = None,
    kind: Annotated[
        str | None, typer.Argument(help="Show the settings of one kind.", show_default=False)
    ] = None,
) -> None:
    """List what a `kind:` can be, or the settings of one kind with their meaning and defaults.

    Example: `sapis kinds data xtb`
    """
    from sapis_lab.config import kind_class, kinds

    if folder not in (None, *KIND_FOLDERS):
        raise ConfigError(f"{folder!r} has no kinds; known: {', '.join(KIND_FOLDERS)}")
    if folder is None or kind is None:
        table = new_table("folder", "kind", "settings", left="all", wrapped=["settings"])
        for place in KIND_FOLDERS if folder is None else (folder,):
            for known in kinds(place):
                table.add_row(
                    place, known, ", ".join(f for f in kind_class(place, known).model_fields if f != "kind")
                )
        stdout_console().print(table)
        return
    config = plainly(lambda: kind_class(folder, kind))
    table = new_table("setting", "default", "meaning", left="all", wrapped=["default", "meaning"])
    for field, info in config.model_fields.items():
        default = "required" if info.is_required() else repr(info.get_default(call_default_factory=True))
        table.add_row(field, default, (info.description or "").replace("\n", " "))
    stdout_console().print(table)


@app.command("schema")
def schema() -> None:
    """Print the JSON schema of a study file, for editors that check and complete YAML.

    Example: `sapis schema > study.schema.json`
    """
    import json

    from sapis_lab.sweep.schema import study_schema

    print(json.dumps(study_schema(), indent=1))
