"""One file from an address, continued where it was cut: by this process, or by an earlier one that was
killed.

The bytes go to `.NAME.part` beside the target; `.NAME.part.json` says of which address and of which version
of the file (its ETag or date) they are. A later attempt asks for the rest alone (Range, If-Range; RFC 9110,
sections 13 and 14); where the server has another version by then, or does not do ranges, it sends the whole
file and we begin anew. Bytes that a power cut may have taken are not counted: after a boot only those that
were brought to the disk. The file gets its name once it has its size and checksums.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import time
from collections.abc import Callable
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, NamedTuple

from sapis_lab.download._http import (
    Cut,
    DownloadError,
    NothingMore,
    Unreachable,
    check_url,
    in_words,
    open_url,
)
from sapis_lab.errors import ConfigError, DiskError, disk_error
from sapis_lab.files import is_temporary, make_folder, move, read_json, write_text

ATTEMPTS, FIRST_ATTEMPTS = 8, 4
"""Connections in a row that may bring nothing before we give up; fewer while nothing has come at all."""
_CHUNK = 1 << 20
_FLUSHED = 64 << 20
"""Bytes after which the disk is asked to keep them."""
_LONG_TO_READ = 4 << 30
"""Bytes of a file whose checksums take more than some ten seconds."""

Progress = Callable[[int, int | None], None]
"""Called as progress(bytes that are here, bytes of the file or None)."""


class Wanted(NamedTuple):
    """What is known of a file before it is downloaded."""

    n_bytes: int | None = None
    md5: str = ""
    sha256: str = ""
    """Hex digits, or the first ones of them."""


class Received(NamedTuple):
    """A file that was downloaded."""

    url: str
    """The address that gave it, behind all redirects."""
    n_bytes: int
    md5: str
    sha256: str


def download(
    url: str,
    target: Path,
    *,
    wanted: Wanted | None = None,
    progress: Progress = lambda done, total: None,
    notice: Callable[[str], None] = lambda text: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Received:
    """Make the file at an address the file `target`.

    Args:
        wanted: what it is compared with before it gets its name.   notice: is told, in a sentence, of cuts
        and new beginnings.   sleep: waits between attempts.

    Raises:
        DownloadError: the server refuses, or sends another file than was wanted; no file is left.
        Unreachable: the connection broke too often; what has come is kept.   DiskError: likewise.
    """
    check_url(url)
    wanted = wanted or Wanted()
    make_folder(target.parent)
    part = _Part(target, url)
    failures, clean = 0, part.size == 0
    while True:
        before = part.size
        try:
            final_url = _connection(url, part, wanted, progress)
            if part.size > _LONG_TO_READ:
                notice(f"{part.size:,} bytes are here; comparing their checksums takes a while")
            received = Received(final_url, part.size, *_digests(part.path))
            wrong = _difference(received, wanted)
            if wrong is None:
                part.rename()
                return received
            part.forget()
            if clean:
                raise DownloadError(f"{url}: {wrong}; nothing of it is kept: try again, or another --url")
            notice(f"{wrong}: pieces of different files, it seems; from the beginning")
            failures, clean = 0, True
        except Cut as cut:
            failures = 0 if part.size > before else failures + 1
            clean = clean and part.size == 0
            if failures >= (ATTEMPTS if part.size else FIRST_ATTEMPTS):
                raise Unreachable(
                    f"{url}: {cut}, {failures} times in a row; {_kept(part)} run the same command again to "
                    f"continue"
                ) from None
            pause = cut.pause if cut.pause is not None else float(min(2**failures, 60))
            notice(f"{cut}; again in {pause:.0f} s")
            sleep(pause)
        except OSError as error:
            raise disk_error(error, about=part.path) or error from None


def _kept(part: _Part) -> str:
    return f"the {part.size:,} bytes that have come are kept:" if part.size else "nothing has come yet:"


# --------------------------------------------------------------------------------------------- one connection


def _connection(url: str, part: _Part, wanted: Wanted, progress: Progress) -> str:
    """Append what a server sends to `part`, until the file is there; the address that gave it."""
    can_check = bool(wanted.md5 or wanted.sha256)
    start = part.size if part.validator or can_check else 0
    try:
        answer = open_url(url, start=start, validator=part.validator)
    except NothingMore as none:
        if str(none).rpartition("/")[2] == str(part.size):
            return part.url
        part.forget()
        raise Cut("the file at the server is another one than before", pause=0.0) from None
    with answer:
        total = _announced(answer, url)
        _refuse_other(answer, url, total, wanted)
        _begin(answer, part, start)
        _check_room(part, total)
        progress(part.size, total)
        _append(answer, part, total, wanted.n_bytes, progress)
        return answer.url or url


def _announced(answer: HTTPResponse, url: str) -> int | None:
    """Bytes of the whole file; None where the server does not say."""
    if answer.status not in (200, 206):
        raise DownloadError(f"{url}: got {answer.status} {answer.reason}, wanted the file")
    if answer.status == 206:
        said = answer.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        said = answer.headers.get("Content-Length", "")
    return int(said) if said.isdecimal() else None


def _begin(answer: HTTPResponse, part: _Part, start: int) -> None:
    """Make `part` ready for what comes: more of it, or all of it anew."""
    if answer.status == 200:
        part.restart(answer)
        return
    unit, _, span = answer.headers.get("Content-Range", "").partition(" ")
    if unit != "bytes" or span.partition("-")[0] != str(start):
        part.forget()
        raise Cut("the server sends another part of the file than was asked for", pause=0.0)


def _refuse_other(answer: HTTPResponse, url: str, total: int | None, wanted: Wanted) -> None:
    """DownloadError where what the server announces is not the file."""
    if wanted.n_bytes is not None and total is not None and total != wanted.n_bytes:
        raise DownloadError(
            f"{url}: got a file of {total:,} bytes, wanted {wanted.n_bytes:,}: it is another version, or "
            f"another file; look on the homepage, and name the right one with --url"
        )
    coding = answer.headers.get("Content-Encoding", "identity")
    if coding != "identity" and not url.endswith((".gz", ".tgz", ".bz2", ".xz")):
        raise DownloadError(
            f"{url}: got it in the coding {coding}, wanted the bytes of the file as they are; name another "
            f"address with --url"
        )
    if answer.headers.get_content_type() == "text/html" and not url.endswith((".html", ".htm")):
        raise DownloadError(
            f"{url}: got a web page, wanted a file: perhaps a login, or a page of the network here; open it "
            f"in a browser to see"
        )


def _check_room(part: _Part, total: int | None) -> None:
    free = shutil.disk_usage(part.path.parent).free
    if total is not None and total - part.size > free:
        raise DiskError(
            f"{part.path.parent}: {total - part.size:,} bytes are to come and {free:,} are free; make room "
            f"on that disk, or name another folder with --to"
        )


def _append(
    answer: HTTPResponse, part: _Part, total: int | None, most: int | None, progress: Progress
) -> None:
    """Write what comes to the end of `part`; `most` bytes are enough to see that it is another file."""
    with part.path.open("ab", buffering=0) as f:
        unflushed = 0
        try:
            while chunk := _read(answer):
                _write(f, chunk)
                unflushed += len(chunk)
                progress(f.tell(), total)
                if most is not None and f.tell() > most:
                    break
                if unflushed >= _FLUSHED:
                    part.flushed(f.fileno())
                    unflushed = 0
            size = f.tell()
        finally:
            part.flushed(f.fileno())
    if total is not None and size < total:
        raise Cut(f"the connection ended after {size:,} of {total:,} bytes")
    if total is not None and size > total:
        part.forget()
        raise Cut(f"the server sent more than the {total:,} bytes that it announced")


def _write(f: Any, chunk: bytes) -> None:
    view = memoryview(chunk)
    while len(view):  # a disk that is nearly full takes a part
        view = view[f.write(view) :]


def _read(answer: HTTPResponse) -> bytes:
    try:
        return answer.read1(_CHUNK)
    except (http.client.HTTPException, OSError) as error:
        raise Cut(in_words(error)) from None


# ------------------------------------------------------------------------------------------ what has come yet


def come(target: Path) -> int:
    """Bytes of a file that have come, and may be continued."""
    part = _part_of(target)
    return part.stat().st_size if part.is_file() else 0


def _part_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.part")


class _Part:
    """The bytes of a file that have come, and which version of it they are of."""

    def __init__(self, target: Path, url: str) -> None:
        self.target, self.url = target, url
        self.path = _part_of(target)
        self.notes = target.with_name(f".{target.name}.part.json")
        self.validator = ""
        self._synced = 0
        self._continue()

    @property
    def size(self) -> int:
        return come(self.target)

    def _continue(self) -> None:
        """Take what an earlier process has left, as far as it is of this address and on the disk."""
        try:
            said = read_json(self.notes, keys=["url", "validator", "synced", "boot"])
        except ConfigError:
            said = {}
        if said.get("url") != self.url or not self.path.is_file():
            self.forget()
            return
        self.validator, self._synced = str(said["validator"]), int(said["synced"])
        if said["boot"] != _boot() and self.size > self._synced:
            os.truncate(self.path, self._synced)

    def restart(self, answer: HTTPResponse) -> None:
        """Begin anew with the version of the file that an answer is of."""
        self.forget()
        tag = answer.headers.get("ETag", "")
        # weak tags say that two versions mean the same, not that their bytes are the same
        self.validator = tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")
        self.path.touch()
        self._write_notes()

    def flushed(self, fd: int) -> None:
        """Bring the bytes that were written to the disk, then say so."""
        os.fsync(fd)
        self._synced = self.size
        self._write_notes()

    def _write_notes(self) -> None:
        facts = {"url": self.url, "validator": self.validator, "synced": self._synced, "boot": _boot()}
        write_text(self.notes, json.dumps(facts, indent=1) + "\n")

    def forget(self) -> None:
        self.validator, self._synced = "", 0
        self.path.unlink(missing_ok=True)
        self._remove_notes()

    def rename(self) -> None:
        """Give the file its name."""
        move(self.path, self.target)
        self._remove_notes()

    def _remove_notes(self) -> None:
        """Remove the notes, also those that a process was killed over."""
        self.notes.unlink(missing_ok=True)
        for path in self.notes.parent.iterdir():
            if is_temporary(path) and path.name.startswith(f".{self.notes.name}."):
                path.unlink(missing_ok=True)


def _boot() -> str:
    """Which run of which machine this is; empty where that is not known. Within it, bytes that a process has
    written are there, whatever became of the process."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


# ------------------------------------------------------------------------------------------------ comparisons


def _digests(path: Path) -> tuple[str, str]:
    """md5 and sha256 of a file, hex."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as f:
        while chunk := f.read(_CHUNK):
            md5.update(chunk)
            sha256.update(chunk)
    return md5.hexdigest(), sha256.hexdigest()


def _difference(received: Received, wanted: Wanted) -> str | None:
    """What tells a file from the one that was wanted; None where nothing does."""
    if wanted.n_bytes is not None and received.n_bytes != wanted.n_bytes:
        return f"got {received.n_bytes:,} bytes, wanted {wanted.n_bytes:,}"
    for name, got, want in (
        ("sha256", received.sha256, wanted.sha256),
        ("md5", received.md5, wanted.md5),
    ):
        if want and not got.startswith(want.lower()):
            return f"got a file of {name} {got}, wanted {want}"
    return None


def facts_of(path: Path) -> Received:
    """Size and checksums of a file that was not downloaded here; its address is empty."""
    return Received("", path.stat().st_size, *_digests(path))


def same_file(path: Path, wanted: Wanted) -> str | None:
    """What tells a file on the disk from the one that is wanted; None where nothing does."""
    return _difference(facts_of(path), wanted)
