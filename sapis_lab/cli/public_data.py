"""sapis data show, fetch: public data sets, and their way onto this machine."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from shutil import get_terminal_size
from typing import Annotated, Any

import typer
from rich.text import Text

from sapis_lab.catalogue import (
    LEGEND,
    TABLE_HEAD,
    OfficialFile,
    PublicSet,
    described,
    names,
    presence,
    public_set,
    public_sets,
    size_text,
    table_row,
    total_size,
)
from sapis_lab.cli.common import to_stderr
from sapis_lab.config import ConfigError, home, plainly
from sapis_lab.screen import Table, new_table, wrapped

app = typer.Typer()

_STOPPED = 75
"""Exit status of what the same command continues."""

SetName = Annotated[
    str, typer.Argument(help="Name of a public set, as `sapis data list` has it.", show_default=False)
]


@app.command("show")
def data_show(name: SetName) -> None:
    """Show all that is known of a public data set: what it holds, units, licence, files, whom to cite.

    Example: `sapis data show rmd17`
    """
    public = _named(name)
    readers = _readers(public) or "no kind of data yet"
    print(_on_screen(described(public, readers=readers)), end="")


@app.command("fetch")
def data_fetch(
    name: SetName,
    file: Annotated[
        list[str] | None,
        typer.Option(
            "--file",
            help="Only this file of the set, as `sapis data show` names it, or `all`; may be repeated.",
            metavar="PART",
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="Folder of data sets; $SAPIS_DATA by default.", metavar="FOLDER"),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option("--url", help="Take the file from this address instead: a mirror, a newer place."),
    ] = None,
) -> None:
    """Download the official files of a public data set into $SAPIS_DATA, or continue a download that was cut.

    They are compared with the sizes and checksums that are known, and unpacked; `fetched.json` and
    `FETCHED.md` beside them say where they came from.

    Example: `sapis data fetch acac`
    """
    from sapis_lab.download import Unreachable, check_space, fetch

    public = _named(name)
    files = _chosen(public, file or [], url)
    root = _root(to)
    plainly(lambda: check_space(public, files, root))
    with _Line() as line:
        line.say(_intention(public, files, root))
        if any((url or f.url).startswith("http:") and not (f.md5 or f.sha256) for f in files):
            line.say(
                "note: the address is not encrypted, and no checksum is known to compare what comes with"
            )
        try:
            done = plainly(lambda: fetch(public, files, root=root, report=line, url=url))
        except Unreachable as error:
            line.say(f"error: {error}")
            raise typer.Exit(_STOPPED) from None
        except KeyboardInterrupt:
            line.say("what has come is kept; the same command continues")
            raise
    for outcome in done:
        to_stdout(_outcome(outcome, root / public.place))
    readers = _readers(public)
    to_stdout(f"licence: {public.licence}; cite: {public.citations[0].short()}")
    if readers:
        to_stdout(f"read by {readers}")


def to_stdout(text: str) -> None:
    """A line for people, broken between words on a terminal."""
    print(_on_screen(text))


def _on_screen(text: str) -> str:
    if not sys.stdout.isatty():
        return text
    return wrapped(Text(text), get_terminal_size().columns).plain


_NARROW, _WIDTHS = 100, {"labels": 12, "level": 15, "licence": 10, "size": 9}
"""Columns of a terminal below which levels of theory break at their slash, and the others as here."""


def catalogue_table(width: int) -> Table:
    """All public sets, and whether they are in the folder of data, for a terminal of `width` columns."""
    from sapis_lab.data import known_root

    root, narrow = known_root(None), width < _NARROW
    table = new_table(*TABLE_HEAD, "here", left="all", wrapped=TABLE_HEAD[1:])
    for column in table.columns:
        column.max_width = _WIDTHS.get(str(column.header)) if narrow else None
    for public in public_sets():
        name, labels, level, *others = table_row(public)
        here = presence(public, root).word if root is not None else "?"
        table.add_row(name, labels, _broken(level) if narrow else level, *others, here)
    return table


def _broken(level: str) -> str:
    """A level of theory with a line break between functional and basis, in place of one anywhere."""
    return re.sub(r"/(?=\S{6})", "/\n", level)


def legend() -> str:
    """What the columns of the table mean."""
    from sapis_lab.data import DATA_VARIABLE

    return f"{LEGEND}; here: what of it is in ${DATA_VARIABLE}"


# --------------------------------------------------------------------------------------------- what was asked


def _named(name: str) -> PublicSet:
    """The set of a name; an error says so where it is that of a config."""
    config = home() / "configs" / "data" / f"{name}.yaml"
    if name not in names() and config.is_file():
        found = [public for public in public_sets() if config.stem in _configs(public)]
        if found:
            raise ConfigError(
                f"{name!r} is a config, configs/data/{name}.yaml; the public set that it reads is "
                f"{found[0].name!r}: sapis data show {found[0].name}"
            )
    return public_set(name)


def _chosen(public: PublicSet, parts: Sequence[str], url: str | None) -> tuple[OfficialFile, ...]:
    """The files of a set that are asked for.

    Raises:
        ConfigError: there are none to download, none of that name, or several where one was wanted.
    """
    if public.not_fetched:
        raise ConfigError(f"{public.name} is not downloaded for you: {public.not_fetched}. {public.homepage}")
    known = {file.part: file for file in public.files}
    listing = ", ".join(
        file.part if file.size is None else f"{file.part} ({size_text(file.size)})" for file in public.files
    )
    unknown = [part for part in parts if part not in known and part != "all"]
    if unknown:
        raise ConfigError(f"--file {unknown[0]!r}: {public.name} has no such file; it has {listing}")
    chosen = public.files if "all" in parts else tuple(known[part] for part in dict.fromkeys(parts))
    chosen = chosen or public.usual
    if not chosen:
        raise ConfigError(f"{public.name} has several files: name those you want with --file: {listing}")
    if url is not None and len(chosen) != 1:
        raise ConfigError(f"--url is the address of one file: name it with --file, of {listing}")
    return chosen


def _root(to: Path | None) -> Path:
    """The folder of data sets: an existing one, or one that can be made beside existing ones."""
    from sapis_lab.data import DATA_VARIABLE, known_root

    if to is None:
        root = known_root(None)
        if root is None:
            raise ConfigError(f"set {DATA_VARIABLE} to the folder of data sets, or name one with --to")
        if not root.is_dir():
            raise ConfigError(
                f"{DATA_VARIABLE} names {root}, which does not exist; make that folder, or name another one "
                f"with --to"
            )
        return root
    if to.exists() and not to.is_dir():
        raise ConfigError(f"--to {to}: wanted a folder, got a file")
    if not to.absolute().parent.is_dir():
        raise ConfigError(f"--to {to}: there is no folder {to.absolute().parent}")
    return to


def _configs(public: PublicSet) -> list[str]:
    """The names of the files in configs/data/ that read a set."""
    from sapis_lab.config import read_yaml

    found = []
    for path in sorted((home() / "configs" / "data").glob("*.yaml")):
        try:
            raw = read_yaml(path)
        except ConfigError:
            continue
        if raw.get("kind") in _own_kinds(public) or f"{public.place}/" in _paths(raw):
            found.append(path.stem)
    return found


def _paths(raw: Any) -> str:
    """All words of a config, each with a slash, to look for a folder's name at their beginnings."""
    values = raw.values() if isinstance(raw, dict) else raw if isinstance(raw, list) else []
    own = f" {raw.split('/')[0]}/" if isinstance(raw, str) and "/" in raw else ""
    return own + "".join(_paths(value) for value in values)


def _own_kinds(public: PublicSet) -> list[str]:
    """The kinds of data that are of this set alone."""
    from sapis_lab.config import kind_class, kinds

    return [k for k in kinds("data") if getattr(kind_class("data", k), "catalogue", None) == public.name]


def _readers(public: PublicSet) -> str:
    """'kind: rmd17 (configs/data/: rmd17-ethanol)'; empty where nothing reads a set."""
    kinds = [*_own_kinds(public), *public.kinds]
    if not kinds:
        return ""
    configs = _configs(public)
    which = f" (configs/data/: {', '.join(configs)})" if configs else ""
    return " and ".join(f"kind: {kind}" for kind in kinds) + which


# ----------------------------------------------------------------------------------------------- what is told


def _intention(public: PublicSet, files: Sequence[OfficialFile], root: Path) -> str:
    n = "1 file" if len(files) == 1 else f"{len(files)} files"
    total = total_size(tuple(files))
    size = "size not known" if total is None else size_text(total)
    return f"{public.name}: {n}, {size}, into {root / public.place}; licence: {public.licence}"


def _outcome(done: Any, folder: Path) -> str:
    """What became of one file, in a line."""
    n = len(done.files)
    if done.outcome == "left as it is":
        return f"{done.file.part}: is there already and left as it is; nothing is known to compare it with"
    where = (
        "is there already" if done.outcome == "was there" else f"{n} file{'s' if n > 1 else ''} in {folder}"
    )
    if done.checked_by:
        return f"{done.file.part}: {where}; {done.checked_by} as wanted"
    return f"{done.file.part}: {where}; nothing is known to compare it with, its sha256 is {done.sha256}"


class _Line:
    """How far a download is, on one line of a terminal; elsewhere only what must be known."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._width = 0
        self._name, self._begin, self._first = "", 0.0, 0
        self._shown = 0.0

    def __enter__(self) -> _Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def say(self, text: str) -> None:
        self.clear()
        to_stderr(text)

    notice = say

    def bytes(self, name: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if name != self._name or done < self._first:
            self._name, self._begin, self._first = name, now, done
        if now - self._shown < 0.2 and done != total:
            return
        self._shown = now
        self._show(f"{name}  {progress_text(done, total, done - self._first, now - self._begin)}")

    def unpacked(self, name: str, n_files: int, n_bytes: int) -> None:
        if (now := time.monotonic()) - self._shown >= 0.2:
            self._shown = now
            self._show(f"{name}  unpacked {n_files:,} files, {size_text(n_bytes)}")

    def _show(self, text: str) -> None:
        if self._terminal:
            line = text[: get_terminal_size().columns - 1]
            print(f"\r{line:<{self._width}}", end="", file=sys.stderr, flush=True)
            self._width = len(line)

    def clear(self) -> None:
        if self._width:
            print("\r" + " " * self._width + "\r", end="", file=sys.stderr, flush=True)
            self._width = 0


def progress_text(done: int, total: int | None, came: int, seconds: float) -> str:
    """'34 %, 29.3 MB of 86.1 MB, 4.1 MB/s, 14 s left'.

    Args:
        came: bytes that came within `seconds`; those of earlier attempts say nothing about the rate.
    """
    from sapis_lab.sweep.words import duration

    rate = came / seconds if seconds > 0 else 0.0
    words = [f"{size_text(done)} of {size_text(total)}" if total else size_text(done)]
    if total:
        words.insert(0, f"{100 * done // total} %")
    if rate > 0:
        words.append(f"{size_text(rate)}/s")
        if total:
            words.append(f"{duration((total - done) / rate)} left")
    return ", ".join(words)
