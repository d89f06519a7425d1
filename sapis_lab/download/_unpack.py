"""Archives unpacked without trust: tar (plain, gz, bz2, xz), zip, and single files in gz, bz2 or xz.

What an archive is, its first bytes say, not its name. Names in it must stay within the folder; links,
devices and pipes are refused, since they can lead out of it; the bytes that come out are counted against a
limit while they are written, whatever the archive announces. Everything is written to a folder beside, and
takes its place once all of it is there: an archive that is damaged at its end changes nothing.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from sapis_lab.download._http import DownloadError
from sapis_lab.errors import disk_error
from sapis_lab.files import make_folder, move

LEAST_LIMIT, GROWTH = 1 << 30, 100
"""Bytes that any archive may unpack to, and how many times its own size."""
MOST_MEMBERS = 5_000_000
_CHUNK, _MOST_PADDING = 1 << 20, 1000
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    NotImplementedError,
)
"""What the readers of archives raise on bytes that are none."""


class Damaged(DownloadError):
    """An archive that is cut short, or none."""


class Unpacked(NamedTuple):
    """One file that came out of an archive."""

    n_bytes: int
    sha256: str


class _Member(NamedTuple):
    """A file in an archive: its name there, and what opens it."""

    name: str
    open: Callable[[], Any]


def unpack(
    archive: Path,
    folder: Path,
    *,
    drop: str = "",
    limit: int | None = None,
    progress: Callable[[int, int], None] = lambda n_files, n_bytes: None,
) -> dict[str, Unpacked]:
    """The files of an archive in `folder`: their sizes and checksums by their paths below it.

    Args:
        drop: a folder at the top of the archive that is left out of the paths.   limit: bytes that may come
        out; 100 times the size of the archive, and at least 1 GiB, by default.   progress: called as
        progress(files, bytes) that have come out.

    Raises:
        DownloadError: the archive is damaged, or holds what is refused, or a file of another content is in
        the place of one of its files; nothing in `folder` has changed.   DiskError: likewise.
    """
    limit = limit if limit is not None else max(LEAST_LIMIT, GROWTH * archive.stat().st_size)
    beside = archive.with_name(f".{archive.name}.unpacking")
    shutil.rmtree(beside, ignore_errors=True)  # of a process that was killed
    try:
        make_folder(beside)
        found = _written(archive, beside, drop=drop, limit=limit, progress=progress)
        _refuse_conflicts(archive, found, folder)
        for name in found:
            move(beside / name, folder / name)
    except _DAMAGED as error:
        raise Damaged(
            f"{archive}: damaged or cut short ({_words(error)}), wanted a whole archive; nothing was unpacked"
        ) from None
    except OSError as error:
        if error.errno is None:  # "Invalid data stream", of bz2
            raise Damaged(
                f"{archive}: damaged ({error}), wanted a whole archive; nothing was unpacked"
            ) from None
        raise disk_error(error, about=beside) or error from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return found


def _words(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__


def _written(
    archive: Path, beside: Path, *, drop: str, limit: int, progress: Callable[[int, int], None]
) -> dict[str, Unpacked]:
    """Write the files of an archive to the folder `beside`."""
    found: dict[str, Unpacked] = {}
    total = 0
    with _members(archive) as members:
        for member in members:
            name = _inside(archive, member.name, drop)
            if name is None:
                continue
            if name in found:
                raise DownloadError(f"{archive}: holds {member.name!r} twice; unpack it by hand")
            if len(found) >= MOST_MEMBERS:
                raise DownloadError(f"{archive}: holds more than {MOST_MEMBERS:,} files; unpack it by hand")
            path = beside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with member.open() as source, path.open("xb") as f:
                for_people = partial(_beyond, progress, len(found), total)
                found[name] = _copy(source, f, archive, limit=limit, room=limit - total, progress=for_people)
            total += found[name].n_bytes
            progress(len(found), total)
    if not found:
        raise Damaged(f"{archive}: holds no file, wanted an archive of some")
    return found


def _beyond(progress: Callable[[int, int], None], n_files: int, before: int, n_bytes: int) -> None:
    progress(n_files, before + n_bytes)


def _copy(
    source: IO[bytes],
    f: IO[bytes],
    archive: Path,
    *,
    limit: int,
    room: int,
    progress: Callable[[int], None],
) -> Unpacked:
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(_CHUNK):
        size += len(chunk)
        if size > room:
            raise DownloadError(
                f"{archive}: unpacks to more than {limit:,} bytes from {archive.stat().st_size:,}, which may "
                f"be a trap; unpack it by hand where you trust it"
            )
        digest.update(chunk)
        f.write(chunk)
        progress(size)
    return Unpacked(size, digest.hexdigest())


def _inside(archive: Path, name: str, drop: str) -> str | None:
    """The path below the folder of a file in an archive; None for what file managers add.

    Raises:
        DownloadError: it leads out of the folder, or cannot be a name.
    """
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name or "\0" in name or ":" in (parts or ("",))[0]:
        raise DownloadError(
            f"{archive}: holds {name!r}, which leads out of the folder it is unpacked in; it is not to be "
            f"trusted: nothing was unpacked"
        )
    if not parts or parts[0] == "__MACOSX" or parts[-1] == ".DS_Store":
        return None
    if drop and parts[0] == drop and len(parts) > 1:
        parts = parts[1:]
    return "/".join(parts)


def _refuse_conflicts(archive: Path, found: dict[str, Unpacked], folder: Path) -> None:
    """DownloadError where a file of another content is in the place of one that was unpacked."""
    for name, facts in found.items():
        target = folder / name
        if not os.path.lexists(target):
            continue
        if not target.is_file() or target.stat().st_size != facts.n_bytes or _sha256(target) != facts.sha256:
            raise DownloadError(
                f"{target}: is there already, and is not the file of that name in {archive.name}; move it "
                f"away, or name another folder with --to"
            )


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


# ------------------------------------------------------------------------------------------ kinds of archives


@contextlib.contextmanager
def _members(archive: Path) -> Iterator[Iterator[_Member]]:
    """The files in an archive, one after the other, each to be read before the next one is asked for."""
    with archive.open("rb") as f:
        head = f.read(512)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        with zipfile.ZipFile(archive) as opened:
            yield _of_zip(opened, archive)
        return
    single = _SINGLE.get(next((magic for magic in _SINGLE if head.startswith(magic)), b""))
    if single is not None and not _is_tar(archive, single):
        yield iter([_Member(archive.with_suffix("").name, lambda: single(archive, "rb"))])
        return
    if single is None and head[257:262] != b"ustar" and not tarfile.is_tarfile(archive):
        raise Damaged(f"{archive}: wanted an archive (tar, zip, gz, bz2 or xz), got something else")
    with archive.open("rb") if single is None else single(archive, "rb") as file:
        remembering = _Remembering(file)
        with tarfile.open(fileobj=remembering, mode="r:") as opened:  # type: ignore[call-overload]
            yield _of_tar(opened, archive, remembering)


class _Remembering:
    """A file that knows what was read from it last: the end of a tar is seen in its last block alone."""

    def __init__(self, file: Any) -> None:
        self._file, self.last = file, b""
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        self.last = self._file.read(size)
        return self.last


_SINGLE: dict[bytes, Callable[[Path, Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
"""What opens a compressed file, by its first bytes."""


def _is_tar(archive: Path, opener: Callable[[Path, Any], Any]) -> bool:
    """Whether a compressed file holds a tar: by the mark in its first block, or, in the oldest kind, its
    checksum."""
    with opener(archive, "rb") as f:
        block = f.read(512)
    try:
        return block[257:262] == b"ustar" or bool(tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape"))
    except tarfile.TarError:
        return False


def _of_tar(opened: tarfile.TarFile, archive: Path, file: _Remembering) -> Iterator[_Member]:
    for member in opened:
        if member.isdir():
            _inside(archive, member.name, "")
            continue
        if not member.isreg():
            raise DownloadError(
                f"{archive}: holds {member.name!r}, which is {_sort_of(member)}, wanted files and folders "
                f"alone: nothing was unpacked"
            )
        yield _Member(member.name, _extractor(opened, member))
    # tarfile takes a header that is cut off or damaged for the end, unless it is the first one
    if file.last != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it lacks the mark at its end")
    for _ in range(_MOST_PADDING):  # the checksum of what is compressed stands behind all of it
        if not file.read(_CHUNK):
            return
    raise tarfile.ReadError("its end is followed by much else")


def _extractor(opened: tarfile.TarFile, member: tarfile.TarInfo) -> Callable[[], Any]:
    return lambda: opened.extractfile(member)


def _sort_of(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return f"a link to {member.linkname!r}"
    return "a pipe" if member.isfifo() else "a device"


def _of_zip(opened: zipfile.ZipFile, archive: Path) -> Iterator[_Member]:
    for member in opened.infolist():
        if member.is_dir():
            _inside(archive, member.filename, "")
            continue
        mode = member.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            what = "a link" if stat.S_ISLNK(mode) else "a device, a pipe or the like"
            raise DownloadError(
                f"{archive}: holds {member.filename!r}, which is {what}, wanted files and folders alone: "
                f"nothing was unpacked"
            )
        if member.flag_bits & 1:
            raise DownloadError(f"{archive}: {member.filename!r} wants a password; unpack it by hand")
        yield _Member(member.filename, _zip_opener(opened, member))


def _zip_opener(opened: zipfile.ZipFile, member: zipfile.ZipInfo) -> Callable[[], Any]:
    return lambda: opened.open(member)
