"""Files of this project: written whole or not at all, and read with limits. No outside package is imported
here.

Writing: the bytes go to a temporary file beside the target, are brought to the disk, and take the target's
name in one step; then the folder is brought to the disk as well. After a power cut a name therefore holds the
old bytes or the new ones, never a part and never nothing, and what was written first is there first. (A
rename alone promises nothing about the bytes: ext4 may commit it before them.)

Reading: regular files up to a size, UTF-8, nested up to a depth; anything else (a folder, a pipe that would
hang the reader, a damaged or hostile file) is a ConfigError that names the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeVar

from sapis_lab.errors import ConfigError, MissingFile

T = TypeVar("T")

MIB = 2**20
LIMIT = 256 * MIB
"""Largest file of ours that is read into memory as a whole, bytes."""
MAX_DEPTH = 50
"""Deepest nesting of lists and mappings in a file of ours."""
MAX_INTEGER = 2**64 - 1
"""Largest integer in a file of ours; C counts beyond that are floats."""

TEMPORARY = ".tmp"
"""Suffix of files that are being written; their names begin with a dot."""


# ---------------------------------------------------------------------------------------------------- writing


@contextlib.contextmanager
def replacing(path: Path | str, *, durable: bool = True) -> Iterator[Path]:
    """Gives a temporary path beside `path`; what the block writes there becomes `path` in one step when the
    block ends.

    When the block fails the temporary file is removed and `path` is as it was.

    Args:
        durable: bring file and folder to the disk, so that a power cut cannot undo or empty what was written.
            Without, only for files whose loss costs nothing (progress for people).

    Raises:
        OSError: with `path` as its file name.
    """
    path = Path(path)
    temporary = temporary_of(path)
    try:
        yield temporary
        if durable:
            flush(temporary)
        temporary.replace(path)
        if durable:
            flush_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if (
            isinstance(error, OSError)
            and error.errno is not None
            and error.filename in (None, str(temporary))
        ):
            error.filename = str(path)
            error.filename2 = None
        raise


@contextlib.contextmanager
def new_folder(path: Path | str) -> Iterator[Path]:
    """Gives a temporary folder beside `path`; with what the block puts there it becomes `path` in one step
    when the block ends, once all of it is on the disk. `path` must be missing, or an empty folder.

    When the block fails the temporary folder is removed and `path` is as it was.

    Raises:
        OSError: with `path` as its file name where the folder itself could not be made or named.
    """
    path = Path(path)
    temporary = temporary_of(path)
    make_folder(path.parent)
    try:
        temporary.mkdir()
        yield temporary
        for folder, _, names in os.walk(temporary, topdown=False):
            for name in names:
                flush(Path(folder) / name)
            flush_folder(Path(folder))
        temporary.replace(path)
        flush_folder(path.parent)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename = str(path)
            error.filename2 = None
        raise


def temporary_of(path: Path) -> Path:
    """Where this process writes what is to become `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")


def is_temporary(path: Path) -> bool:
    """Whether `path` is a file that somebody writes, or has left half written."""
    return path.name.startswith(".") and path.name.endswith(TEMPORARY)


def write_bytes(path: Path | str, data: bytes | memoryview, *, durable: bool = True) -> None:
    """Make `data` the file `path`, see `replacing`; folders that are missing are made."""
    path = Path(path)
    make_folder(path.parent)
    with replacing(path, durable=durable) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path | str, text: str, *, durable: bool = True) -> None:
    """Make `text`, in UTF-8, the file `path`, see `replacing`; folders that are missing are made."""
    write_bytes(path, text.encode("utf-8"), durable=durable)


def write_with(path: Path | str, write: Callable[[Path], object], *, durable: bool = True) -> None:
    """`write(temporary path)`, whose file then becomes `path`, see `replacing`: for libraries that open files
    themselves."""
    path = Path(path)
    make_folder(path.parent)
    with replacing(path, durable=durable) as temporary:
        write(temporary)


def move(source: Path | str, target: Path | str) -> None:
    """Give a whole file its name in one step, once its bytes are on the disk.

    Where that fails, `source` is still there, unlike with `replacing`: for what is expensive to have again.
    """
    source, target = Path(source), Path(target)
    make_folder(target.parent)
    flush(source)
    source.replace(target)
    flush_folder(target.parent)


def make_folder(path: Path | str) -> None:
    """Make a folder with its parents, and bring every new name to the disk."""
    path = Path(path)
    new = []
    while not path.exists():
        new.append(path)
        path = path.parent
    for folder in reversed(new):
        folder.mkdir(exist_ok=True)
        flush_folder(folder.parent)


def flush(path: Path) -> None:
    """Bring the bytes of a file to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def flush_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    try:
        flush(folder)
    except OSError as error:
        if error.errno not in _NO_FSYNC_OF_FOLDERS:
            raise


# some network and FUSE file systems cannot, and keep names in their own way; a folder that only others may
# read cannot be opened
_NO_FSYNC_OF_FOLDERS = {22, 13, 95}  # EINVAL, EACCES, EOPNOTSUPP


# ---------------------------------------------------------------------------------------------------- reading


def read_bytes(path: Path | str, *, limit: int | None = LIMIT) -> bytes:
    """The bytes of a regular file of at most `limit` bytes; of any number of them where it is None.

    Raises:
        MissingFile: there is none.   ConfigError: it is no regular file, too large, or cannot be read.
    """
    with _regular(path) as f:
        size = os.fstat(f.fileno()).st_size
        if limit is not None and size > limit:
            raise ConfigError(f"{path}: has {size} bytes, wanted at most {limit}")
        return f.read(size + 1)  # `limit` would be allocated at once


@contextlib.contextmanager
def _regular(path: Path | str) -> Iterator[BufferedReader]:
    """A regular file, open for reading; errors of opening and reading it are those of `read_bytes`."""
    try:
        # a pipe without a writer would hang otherwise
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise MissingFile(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # a ValueError: a name with a zero byte
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode):
            raise ConfigError(f"{path}: wanted a file, got {_sort_of(mode)}")
        with open(fd, "rb", closefd=False) as f:
            yield f
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    finally:
        os.close(fd)


def _sort_of(mode: int) -> str:
    kinds = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}
    return next((word for test, word in kinds.items() if test(mode)), "a device")


def read_text(path: Path | str, *, limit: int = LIMIT) -> str:
    """The UTF-8 text in a file, see `read_bytes`."""
    try:
        return read_bytes(path, limit=limit).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from None


def read_lossy(path: Path | str, *, limit: int = LIMIT) -> str:
    """The text in a file for people to read, see `read_bytes`; what is no UTF-8 becomes the replacement
    character."""
    return read_bytes(path, limit=limit).decode("utf-8", errors="replace")


def read_json(
    path: Path | str, *, limit: int = LIMIT, then: str = "", keys: Collection[str] = ()
) -> dict[str, Any]:
    """The JSON object in a file, see `read_bytes` and `check_plain`.

    Args:
        then: what to do about a damaged file; ends the messages.   keys: it must have.

    Raises:
        ConfigError: as `read_bytes`, and for what is no JSON, no object, nested too deeply, or holds an
        integer that is too large.
    """
    return _described(
        path, lambda: _object(read_text(path, limit=limit), source=str(path), keys=keys), then=then
    )


def read_json_list(path: Path | str, *, limit: int = LIMIT, then: str = "") -> list[dict[str, Any]]:
    """The JSON objects in a list in a file, see `read_json`."""

    def entries() -> list[dict[str, Any]]:
        value = _plain_json(read_text(path, limit=limit), source=str(path))
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise ConfigError(f"{path}: wanted a JSON list of objects, got {_word(value)}")
        return value

    return _described(path, entries, then=then)


def parse_json(text: str, *, source: str) -> dict[str, Any]:
    """The JSON object in a line of text, with the limits of `read_json`; `source` opens the messages."""
    return _object(text, source=source, keys=())


def _described(path: Path | str, read: Callable[[], T], *, then: str) -> T:
    try:
        return read()
    except MissingFile:
        raise
    except ConfigError as error:
        raise ConfigError(f"{error}; {then}" if then else str(error)) from None


def _object(text: str, *, source: str, keys: Collection[str]) -> dict[str, Any]:
    value = _plain_json(text, source=source)
    if not isinstance(value, dict):
        raise ConfigError(f"{source}: wanted a JSON object, got {_word(value)}")
    missing = [key for key in keys if key not in value]
    if missing:
        raise ConfigError(f"{source}: lacks {', '.join(missing)}")
    return value


def _plain_json(text: str, *, source: str) -> Any:
    try:
        value = json.loads(text)
    except RecursionError:
        raise ConfigError(f"{source}: nested more than {MAX_DEPTH} levels deep") from None
    except ValueError as error:
        raise ConfigError(f"{source}: not valid JSON: {error}") from None
    check_plain(value, source=source)
    return value


def _word(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def plain_rows(text: str) -> Iterator[dict[str, str]]:
    """The rows of a CSV of numbers, which has no quotes, by the names in its first line; whatever the text
    is, rows are short or strange at worst. The csv module ends at a field that is longer than it likes."""
    lines = text.split("\n")
    names = lines[0].split(",")
    for line in lines[1:]:
        if line:
            yield dict(zip(names, line.split(","), strict=False))


def check_plain(value: Any, *, source: str) -> None:
    """ConfigError when plain data are nested deeper than `MAX_DEPTH` or hold an integer beyond `MAX_INTEGER`.

    `source` opens the message.
    """
    level, depth = [value], 0
    while level:
        if depth > MAX_DEPTH:
            raise ConfigError(f"{source}: nested more than {MAX_DEPTH} levels deep")
        below: list[Any] = []
        for item in {
            id(item): item for item in level
        }.values():  # YAML's aliases are one object in many places
            if isinstance(item, Mapping):
                below += item.values()
            elif isinstance(item, list | tuple):
                below += item
            elif isinstance(item, int) and abs(item) > MAX_INTEGER:
                raise ConfigError(
                    f"{source}: holds an integer of {item.bit_length()} bits, wanted at most "
                    f"{MAX_INTEGER.bit_length()}"
                )
        level, depth = below, depth + 1


# -------------------------------------------------------------------------------------------------- checksums

CHECKSUM = "checksum"
"""The key under which a file of ours holds the sha256 of everything else in it."""


def checksum(plain: Mapping[str, Any]) -> str:
    """sha256 (hex) of plain data as JSON gives them back, without their own checksum; the same on every
    machine."""
    rest = json.loads(json.dumps({key: value for key, value in plain.items() if key != CHECKSUM}))
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def with_checksum(plain: Mapping[str, Any]) -> dict[str, Any]:
    """`plain` with its checksum."""
    return {**plain, CHECKSUM: checksum(plain)}


def without_checksum(raw: Mapping[str, Any], *, source: str, advice: str) -> dict[str, Any]:
    """`raw` without its checksum, once that is found right; files of older versions have none.

    Raises:
        ConfigError: the contents were changed after they were written; the message names `source` and ends in
        `advice`.
    """
    rest = {key: value for key, value in raw.items() if key != CHECKSUM}
    if CHECKSUM in raw and raw[CHECKSUM] != checksum(raw):
        raise ConfigError(
            f"{source}: its contents were changed after they were written (the checksum in it is of others); "
            f"{advice}"
        )
    return rest


def digest(path: Path | str) -> str:
    """sha256 (hex) of the bytes of a regular file, read in pieces; errors as `read_bytes`."""
    with _regular(path) as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
