"""What the commands share: options, the console, settings from words."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import get_terminal_size
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from sapis_lab.config import ConfigError
from sapis_lab.screen import wrapped
from sapis_lab.sweep.console import PlainConsole
from sapis_lab.text import visible

HELP: dict[str, Any] = {
    "no_args_is_help": True,
    "rich_markup_mode": "markdown",
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
"""Settings of every group of commands."""

Name = Annotated[str, typer.Argument(help="Name of a file in studies/, without `.yaml`.", show_default=False)]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Override a setting: `key=value` with a dotted key; may be repeated.",
        metavar="KEY=VALUE",
    ),
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
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", min=1, max=10_000, help="Points at a time; one per core, or per GPU, by default."
    ),
]
Json = Annotated[
    Path | None, typer.Option("--json", help="Write all numbers to this file.", show_default=False)
]
Root = Annotated[
    Path | None,
    typer.Option("--root", help="Folder of the peers' environments; $SAPIS_PEERS or `.sapis/peers`."),
]
Again = Annotated[bool, typer.Option("--again", help="Make runs once more that are in the file.")]


def to_stderr(text: str) -> None:
    """A line for people, beside what a program may read; on a terminal it breaks between words."""
    text = visible(text)
    if sys.stderr.isatty():
        text = wrapped(Text(text), get_terminal_size().columns).plain
    print(text, file=sys.stderr, flush=True)


def stdout_console() -> Console:
    """Prints tables and boards to the terminal, or to what stands for it."""
    # A file or a pipe has no width, and a cut number is worse than a long line.
    return PlainConsole(width=None if sys.stdout.isatty() else 160)


def broken_cell(error: ConfigError) -> Text:
    """A file that cannot be read, as a cell of the list it stands in: the others are shown all the same."""
    return Text(" ".join(str(error).split()), style="red")


def dataset_config(name: str, settings: list[str]) -> Any:
    """The settings of `configs/data/NAME.yaml`, some of them overridden by `key=value`."""
    from pydantic import create_model

    from sapis_lab.config import composed_kind, load, override
    from sapis_lab.data import DatasetConfig

    holder = create_model("Data", data=(composed_kind("data", DatasetConfig), ...))
    raw = override({"data": name}, [f"data.{s}" for s in settings])
    made: Any = load(holder, raw, source=f"configs/data/{name}.yaml")
    return made.data


def check_json(json_file: Path | None, *, read: Iterable[Path | str | None] = ()) -> None:
    """ConfigError where the file of --json cannot be written, or is one of those that are read, before
    anything is computed for it."""
    if json_file is None:
        return
    if json_file.exists() and any(json_file.samefile(path) for path in _files(read)):
        raise ConfigError(f"--json {json_file}: that file is read here and would be lost; name another one")
    if not json_file.resolve().parent.is_dir():
        raise ConfigError(f"--json {json_file}: there is no folder {json_file.parent}")
    if json_file.exists() and not json_file.is_file():
        raise ConfigError(
            f"--json {json_file}: wanted a file, got {'a folder' if json_file.is_dir() else 'something else'}"
        )


def keep_from(out: Path, *, read: Iterable[Path | str | None]) -> None:
    """ConfigError where one of the files that are read lies in the folder of --out."""
    for path in _files(read):
        if path.resolve().is_relative_to(out.resolve()):
            raise ConfigError(
                f"--out {out}: {path} lies there, is read here and could be lost; name another folder"
            )


def _files(read: Iterable[Path | str | None]) -> list[Path]:
    """Those of the paths that are files; numbers such as `n=1e9` are none."""
    return [path for path in [Path(name) for name in read if name] if _is_file(path)]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


@contextmanager
def progress(*, after: float = 2.0) -> Iterator[Callable[[str], None]]:
    """What is being done, on one line of a terminal once it has taken a while; nothing elsewhere."""
    begin, terminal = time.monotonic(), sys.stderr.isatty()
    width = 0

    def told(text: str) -> None:
        nonlocal width
        seconds = time.monotonic() - begin
        if terminal and seconds > after:
            line = f"{text}, {seconds:.0f} s"[:78]
            print(f"\r{line:<{width}}", end="", file=sys.stderr, flush=True)
            width = max(width, len(line))

    try:
        yield told
    finally:
        if width:
            print("\r" + " " * width + "\r", end="", file=sys.stderr, flush=True)


def keeper(json_file: Path | None, what: str) -> Callable[[dict[str, Any]], None]:
    """Writes results, with where they come from, to the file of --json, whose folder must be there."""
    import json
    import platform
    from datetime import UTC, datetime

    from sapis_lab.files import write_text
    from sapis_lab.jobs.host import current_commit
    from sapis_lab.packages import versions

    check_json(json_file)
    commit, dirty = current_commit()
    about = {
        "format": 1,
        "what": what,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "dirty": dirty,
        "host": platform.node(),
        "python": platform.python_version(),
        **versions(["torch"]),
    }

    def save(results: dict[str, Any]) -> None:
        if json_file is not None:
            write_text(json_file, json.dumps({**about, **results}, indent=1, ensure_ascii=False) + "\n")

    return save


def positive_numbers(text: str, option: str) -> tuple[float, ...]:
    """Different numbers above 0 with commas between them."""
    values = tuple(dict.fromkeys(numbers(text, option)))
    if not all(0 < value < float("inf") for value in values):
        raise ConfigError(f"{option} {text!r}: wanted numbers above 0")
    return values


def counts(text: str, option: str) -> list[int]:
    """Different whole numbers above 0 with commas between them."""
    values = positive_numbers(text, option)
    if not all(value.is_integer() for value in values):
        raise ConfigError(f"{option} {text!r}: wanted whole numbers, as in 1,4,8")
    return [int(value) for value in values]


def numbers(text: str, option: str) -> list[float]:
    """Numbers with commas between them."""
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise ConfigError(f"{option} {text!r}: wanted numbers with commas between them, as in 1,2") from None


def source_path(name: str) -> Path | None:
    """The file or folder that a command line names: from the working directory, or else from $SAPIS_DATA, as
    data sets name theirs; None where there is neither."""
    from sapis_lab.data import DATA_VARIABLE

    data = os.environ.get(DATA_VARIABLE)
    places = [Path(name), *([Path(data) / name] if data and not Path(name).is_absolute() else [])]
    return next((place for place in places if place.exists()), None)
