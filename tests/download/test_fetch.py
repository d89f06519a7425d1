"""Files of a public set come below the folder of data, with a record, once, and by one process at a time."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from sapis_lab.catalogue import Citation, Label, OfficialFile, PublicSet
from sapis_lab.download import DownloadError, fetch, record_of
from sapis_lab.errors import ConfigError, DiskError
from sapis_lab.files import digest

BODY = b"1\n2\n3\n" * 1000


def tarred(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:bz2") as made:
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            made.addfile(info, io.BytesIO(body))
    return file.getvalue()


ARCHIVE = tarred({"toy/npz/a.npz": b"a" * 5000, "toy/splits/1.csv": b"1\n"})


class Report:
    def __init__(self) -> None:
        self.notices: list[str] = []

    def bytes(self, name: str, done: int, total: int | None) -> None:
        pass

    def unpacked(self, name: str, n_files: int, n_bytes: int) -> None:
        pass

    def notice(self, text: str) -> None:
        self.notices.append(text)


@pytest.fixture
def toy(server) -> PublicSet:
    return PublicSet(
        name="toy",
        title="A toy",
        holds="nothing",
        labels=(Label(name="energy", unit="eV"),),
        level="none",
        licence="CC0 1.0",
        citations=(Citation(key="toy2020", authors=("Toy, T.",), title="Toys", year=2020),),
        homepage="https://example.org",
        files=(
            OfficialFile(
                part="plain",
                url=server.put("/a.txt", BODY),
                path="sub/a.txt",
                n_bytes=len(BODY),
                sha256=hashlib.sha256(BODY).hexdigest()[:12],
            ),
            OfficialFile(
                part="packed",
                url=server.put("/toy.tar.gz", ARCHIVE),
                path="toy.tar.gz",
                unpack=True,
                drop="toy",
                gives=("npz/*.npz", "splits/*.csv"),
            ),
        ),
    )


def got(public: PublicSet, root: Path, *files: OfficialFile, **options: object) -> list[str]:
    chosen = files or public.files
    done = fetch(public, chosen, root=root, report=Report(), **options)  # type: ignore[arg-type]
    return [one.outcome for one in done]


def contents(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


WHOLE = {"sub/a.txt", "npz/a.npz", "splits/1.csv", "fetched.json", "FETCHED.md", ".fetch.lock"}


def test_files_come_with_a_record_of_where_from(toy, tmp_path):
    assert got(toy, tmp_path) == ["downloaded", "downloaded"]
    folder = tmp_path / "toy"
    assert contents(folder) == WHOLE and (folder / "sub" / "a.txt").read_bytes() == BODY
    record = record_of(folder)
    said = record["sets"]["toy"]
    assert said["licence"] == "CC0 1.0" and said["citation"][0].startswith("@misc{toy2020,")
    plain, packed = record["parts"]["plain"], record["parts"]["packed"]
    assert plain["url"] == toy.files[0].url and plain["checked_by"] == "sha256 and size"
    assert plain["sha256"] == digest(folder / "sub" / "a.txt")
    assert packed["sha256"] == hashlib.sha256(ARCHIVE).hexdigest() and packed["checked_by"] == ""
    assert packed["files"]["npz/a.npz"] == {"bytes": 5000, "sha256": digest(folder / "npz" / "a.npz")}
    told = (folder / "FETCHED.md").read_text()
    assert "nothing to compare it with" in told and "@misc{toy2020," in told


def test_what_is_there_is_not_downloaded_again(toy, tmp_path, server):
    got(toy, tmp_path)
    n = len(server.asked)
    assert got(toy, tmp_path) == ["was there", "was there"] and len(server.asked) == n
    (tmp_path / "toy" / "npz" / "a.npz").unlink()
    assert got(toy, tmp_path) == ["was there", "downloaded"] and len(server.asked) == n + 1
    assert contents(tmp_path / "toy") == WHOLE


def test_files_put_there_by_hand_are_compared_where_they_can_be_and_left(toy, tmp_path, server):
    folder = tmp_path / "toy"
    for name, body in {"sub/a.txt": BODY, "npz/b.npz": b"mine", "splits/1.csv": b"mine"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
    assert got(toy, tmp_path) == ["was there", "left as it is"] and server.asked == []
    assert not (folder / ".fetch.lock").exists()
    (folder / "sub" / "a.txt").write_bytes(b"other")
    with pytest.raises(DownloadError, match="got 5 bytes, wanted 6,000; move it away") as raised:
        got(toy, tmp_path)
    assert str(raised.value).startswith(f"{folder / 'sub' / 'a.txt'}: is there already, and is not the off")
    assert (folder / "sub" / "a.txt").read_bytes() == b"other"


def test_a_file_that_changed_since_it_was_fetched_is_not_taken_for_it(toy, tmp_path):
    unchecked = replace(toy, files=(replace(toy.files[0], n_bytes=None, sha256=""),))
    got(unchecked, tmp_path)
    (tmp_path / "toy" / "sub" / "a.txt").write_bytes(b"longer" * 2000)
    with pytest.raises(DownloadError, match="got a file of sha256"):
        got(unchecked, tmp_path)


def test_an_archive_put_there_by_hand_is_unpacked(toy, tmp_path, server):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "toy.tar.gz").write_bytes(ARCHIVE)
    assert got(toy, tmp_path, toy.files[1]) == ["downloaded"] and server.asked == []
    assert contents(tmp_path / "toy") == WHOLE - {"sub/a.txt"}


def test_a_process_killed_while_its_files_were_named_is_continued(toy, tmp_path, server):
    """One file is in its place, the archive is still there, no record: all of it is unpacked again."""
    folder = tmp_path / "toy"
    for name, body in {"toy.tar.gz": ARCHIVE, "npz/a.npz": b"a" * 5000, "splits/1.csv": b"1\n"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
    (folder / "splits" / "1.csv").unlink()
    assert got(toy, tmp_path, toy.files[1]) == ["downloaded"] and server.asked == []
    assert contents(folder) == WHOLE - {"sub/a.txt"}


def test_an_archive_whose_record_is_written_is_removed(toy, tmp_path, server):
    got(toy, tmp_path)
    (tmp_path / "toy" / "toy.tar.gz").write_bytes(ARCHIVE)
    got(toy, tmp_path)
    assert contents(tmp_path / "toy") == WHOLE


def test_a_damaged_archive_that_nothing_tells_from_a_whole_one_is_removed(toy, tmp_path, server):
    server.put("/toy.tar.gz", ARCHIVE[:-20])
    with pytest.raises(DownloadError, match="cut short .* it is removed: the same command downloads it"):
        got(toy, tmp_path, toy.files[1])
    assert contents(tmp_path / "toy") == {".fetch.lock"}
    server.put("/toy.tar.gz", ARCHIVE)
    assert got(toy, tmp_path) == ["downloaded", "downloaded"]


def test_an_archive_that_could_not_be_unpacked_for_want_of_room_is_kept(toy, tmp_path, server, monkeypatch):
    from sapis_lab.download import _unpack

    with monkeypatch.context() as patch:

        def full(*arguments, **options):
            raise OSError(28, "No space left on device")

        patch.setattr(_unpack, "_copy", full)
        with pytest.raises(DiskError, match="make room"):
            got(toy, tmp_path, toy.files[1])
    n = len(server.asked)
    assert got(toy, tmp_path, toy.files[1]) == ["downloaded"] and len(server.asked) == n


def test_a_second_fetch_into_the_same_folder_is_refused(toy, tmp_path):
    (tmp_path / "toy").mkdir()
    with (tmp_path / "toy" / ".fetch.lock").open("w") as f:
        f.write("process 17 on there\n")
        f.flush()
        fcntl.flock(f, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="process 17 on there is fetching into this folder; wait"):
            got(toy, tmp_path)
    assert got(toy, tmp_path) == ["downloaded", "downloaded"]


def test_while_one_fetches_another_one_is_refused(toy, tmp_path):
    refusals = []

    class Second(Report):
        def bytes(self, name, done, total):
            with pytest.raises(
                ConfigError, match=r"process \d+ on .* is fetching into this folder"
            ) as raised:
                got(toy, tmp_path)
            refusals.append(str(raised.value))

    fetch(toy, toy.files[:1], root=tmp_path, report=Second())
    assert refusals


def test_another_address_is_recorded(toy, tmp_path, server):
    url = server.put("/mirror", redirect="/a.txt")
    got(toy, tmp_path, toy.files[0], url=url)
    part = record_of(tmp_path / "toy")["parts"]["plain"]
    assert (part["url"], part["came_from"]) == (url, toy.files[0].url)


def test_an_edited_record_is_not_believed(toy, tmp_path):
    got(toy, tmp_path)
    path = tmp_path / "toy" / "fetched.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sets": {}}))
    assert record_of(tmp_path / "toy") == {}


def test_two_sets_in_one_folder_keep_a_record_of_both(toy, tmp_path, server):
    other = replace(toy, name="other", folder="toy", licence="MIT", files=toy.files[:1])
    got(toy, tmp_path, toy.files[1])
    got(other, tmp_path)
    record = record_of(tmp_path / "toy")
    assert {name: said["licence"] for name, said in record["sets"].items()} == {
        "toy": "CC0 1.0",
        "other": "MIT",
    }
    assert {name: part["public_set"] for name, part in record["parts"].items()} == {
        "packed": "toy",
        "plain": "other",
    }
    assert "plain" in (tmp_path / "toy" / "FETCHED-other.md").read_text()
    assert got(toy, tmp_path) == ["was there", "was there"]


def test_room_is_wanted_for_what_is_to_come_alone(toy, tmp_path, monkeypatch):
    from types import SimpleNamespace

    from sapis_lab.download import _fetch, check_space

    monkeypatch.setattr(_fetch.shutil, "disk_usage", lambda path: SimpleNamespace(free=1500))
    with pytest.raises(DiskError, match="6 kB are to come and 1.5 kB are free there"):
        check_space(toy, toy.files, tmp_path)
    (tmp_path / "toy" / "sub").mkdir(parents=True)
    (tmp_path / "toy" / "sub" / ".a.txt.part").write_bytes(BODY[:5000])
    check_space(toy, toy.files, tmp_path)
    (tmp_path / "toy" / "sub" / "a.txt").write_bytes(BODY)
    check_space(toy, toy.files, tmp_path)
