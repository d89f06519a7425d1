"""Files of a set of the catalogue, downloaded into the folder of data, with a record of where they came
from."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from sapis_lab.catalogue import OfficialFile, PublicSet, described, presence, size_text
from sapis_lab.download._http import DownloadError
from sapis_lab.download._transfer import Received, Wanted, come, download, facts_of, same_file
from sapis_lab.download._unpack import Damaged, unpack
from sapis_lab.errors import ConfigError, DiskError
from sapis_lab.files import make_folder, read_json, with_checksum, without_checksum, write_text

RECORD, README = "fetched.json", "FETCHED.md"
"""What is kept beside the files: for programs, and for people."""


class Reporter(Protocol):
    """Is told how far a download is."""

    def bytes(self, name: str, done: int, total: int | None) -> None:
        """So many bytes of a file are here."""

    def unpacked(self, name: str, n_files: int, n_bytes: int) -> None:
        """So many files and bytes have come out of an archive."""

    def notice(self, text: str) -> None:
        """A sentence for people: a cut, a new beginning."""


Outcome = Literal["downloaded", "was there", "left as it is"]


@dataclass(frozen=True)
class Fetched:
    """What became of one official file."""

    file: OfficialFile
    outcome: Outcome
    """'was there': as this command has recorded it, or of the right checksum; 'left as it is': there by
    other ways, and nothing is known to compare it with."""
    files: tuple[str, ...] = ()
    """Paths below the folder of the set."""
    checked_by: str = ""
    """What the download was compared with; empty where nothing was known."""
    sha256: str = ""
    """Of the download."""


def fetch(
    public: PublicSet,
    files: Sequence[OfficialFile],
    *,
    root: Path,
    report: Reporter,
    url: str | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Fetched]:
    """Bring official files of a set below `root`, those that are not there; one result for each of them.

    Args:
        url: an address in place of the official one, of a single file.

    Raises:
        DownloadError, Unreachable, DiskError: see `download` and `unpack`; files before it are there.
        ConfigError: somebody else fetches into the same folder.
    """
    folder = root / public.place
    there = [_there(public, file, folder, root) for file in files]
    if None not in there:  # also in a folder that may not be written to
        return [found for found in there if found is not None]
    make_folder(folder)
    with _alone(folder):
        return [_one(public, file, folder, root=root, report=report, url=url, sleep=sleep) for file in files]


def _there(public: PublicSet, file: OfficialFile, folder: Path, root: Path) -> Fetched | None:
    """What is known of a file that is there already; None where it is not, or is an archive yet to be
    unpacked.

    Raises:
        DownloadError: something else is in its place.
    """
    target = folder / file.path
    known = record_of(folder).get("parts", {}).get(file.part)
    if known is not None and _is_whole(folder, known) and not (file.unpack and os.path.lexists(target)):
        return Fetched(file, "was there", tuple(known["files"]), known["checked_by"], known["sha256"])
    if os.path.lexists(target):
        recorded = known is not None and not file.unpack and not file.checked_by
        _refuse_another(target, Wanted(sha256=known["sha256"]) if recorded else _wanted(file))
        if not file.unpack:
            outcome: Outcome = "was there" if file.checked_by else "left as it is"
            return Fetched(file, outcome, (file.path,), file.checked_by)
    elif file.unpack and known is None and file in presence(public, root).there:
        return Fetched(file, "left as it is", file.patterns)
    return None


def _wanted(file: OfficialFile) -> Wanted:
    return Wanted(file.n_bytes, file.md5, file.sha256)


def _one(
    public: PublicSet,
    file: OfficialFile,
    folder: Path,
    *,
    root: Path,
    report: Reporter,
    url: str | None,
    sleep: Callable[[float], None],
) -> Fetched:
    if (found := _there(public, file, folder, root)) is not None:
        return found
    target = folder / file.path
    if target.is_file():  # an archive, downloaded by hand, or by a process that has not unpacked it
        received = facts_of(target)
    else:
        received = download(
            url or file.url,
            target,
            wanted=_wanted(file),
            progress=lambda done, total: report.bytes(file.part, done, total),
            notice=report.notice,
            sleep=sleep,
        )
    there = {file.path: {"bytes": received.n_bytes, "sha256": received.sha256}}
    if file.unpack:
        there = _unpacked(file, target, folder, report)
    _record(public, file, folder, received, there, asked=url or file.url)
    if file.unpack:
        target.unlink()
    return Fetched(file, "downloaded", tuple(there), file.checked_by, received.sha256)


def _refuse_another(target: Path, wanted: Wanted) -> None:
    """DownloadError where something else is in the place of an official file."""
    difference = same_file(target, wanted) if target.is_file() else "got no file"
    if difference is not None:
        raise DownloadError(
            f"{target}: is there already, and is not the official file: {difference}; move it away, or name "
            f"another folder with --to"
        )


def _unpacked(file: OfficialFile, target: Path, folder: Path, report: Reporter) -> dict[str, dict[str, Any]]:
    try:
        found = unpack(
            target,
            folder,
            drop=file.drop,
            progress=lambda n_files, n_bytes: report.unpacked(file.part, n_files, n_bytes),
        )
    except Damaged as damaged:
        if file.md5 or file.sha256:
            raise
        target.unlink()  # nothing else would tell it from a whole one the next time
        raise Damaged(f"{damaged}, and it is removed: the same command downloads it anew") from None
    return {name: {"bytes": facts.n_bytes, "sha256": facts.sha256} for name, facts in found.items()}


def check_space(public: PublicSet, files: Sequence[OfficialFile], root: Path) -> None:
    """DiskError where what is to come cannot fit below `root`, as far as the sizes are known."""
    there = presence(public, root).there
    targets = {root / public.place / file.path: file.size for file in files if file not in there}
    known = sum(size - come(target) for target, size in targets.items() if size is not None)
    place = root
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if known > free:
        raise DiskError(
            f"{root}: {size_text(known)} are to come and {size_text(free)} are free there; make room on that "
            f"disk, or name another folder with --to"
        )


# ---------------------------------------------------------------------------------------------------- records


def record_of(folder: Path) -> dict[str, Any]:
    """What was fetched into the folder of a set; empty where nothing was, or what says so is damaged."""
    path = folder / RECORD
    try:
        return without_checksum(read_json(path, keys=["parts"]), source=str(path), advice="")
    except ConfigError:
        return {}


def _is_whole(folder: Path, known: dict[str, Any]) -> bool:
    """Whether the files of a record are there, of the sizes that they had."""
    return all(
        (folder / name).is_file() and (folder / name).stat().st_size == facts["bytes"]
        for name, facts in known["files"].items()
    )


def _record(
    public: PublicSet,
    file: OfficialFile,
    folder: Path,
    received: Received,
    there: dict[str, dict[str, Any]],
    *,
    asked: str,
) -> None:
    parts = record_of(folder).get("parts", {})
    parts[file.part] = {
        "public_set": public.name,
        "url": asked,
        "came_from": received.url,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "bytes": received.n_bytes,
        "sha256": received.sha256,
        "md5": received.md5,
        "checked_by": file.checked_by,
        "files": there,
    }
    known = record_of(folder)
    sets = known.get("sets", {})
    sets[public.name] = {
        "title": public.title,
        "licence": public.licence,
        "level_of_theory": public.level,
        "homepage": public.homepage,
        "citation": [paper.bibtex() for paper in public.citations],
    }
    facts = {"format": 1, "sets": sets, "parts": parts}
    mine = {name: part for name, part in parts.items() if part["public_set"] == public.name}
    # several sets may lie in one folder
    readme = README if public.place == public.name else f"FETCHED-{public.name}.md"
    write_text(folder / readme, _readme(public, mine))
    write_text(folder / RECORD, json.dumps(with_checksum(facts), indent=1, ensure_ascii=False) + "\n")


def _readme(public: PublicSet, parts: dict[str, Any]) -> str:
    rows = [
        f"- {name}: {facts['url']}, {facts['date']}, {facts['bytes']:,} bytes, sha256 {facts['sha256']}, "
        + (f"compared by {facts['checked_by']}" if facts["checked_by"] else "nothing to compare it with")
        for name, facts in parts.items()
    ]
    text = "\n".join(rows)
    return (
        f"# {public.title}\n\nDownloaded by `sapis data fetch {public.name}`:\n\n{text}\n\n"
        f"```\n{described(public)}```\n"
    )


# ----------------------------------------------------------------------------------------------------- a lock


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder of a set; ConfigError says who else does. The system lets go of it when the holder
    ends."""
    with (folder / ".fetch.lock").open("a+") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            f.seek(0)
            raise ConfigError(
                f"{folder}: {f.read(200).strip() or 'another process'} is fetching into this folder; wait "
                f"for it, or stop it: what has come is kept"
            ) from None
        f.truncate(0)
        f.write(f"process {os.getpid()} on {platform.node()}\n")
        f.flush()
        yield
