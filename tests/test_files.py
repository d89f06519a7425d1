"""Files are written whole or not at all, and what is no good file of ours is refused with its name."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from sapis_lab import files
from sapis_lab.errors import ConfigError, DiskError, MissingFile, disk_error


def test_a_file_reaches_the_disk_before_its_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(fd):
        calls.append(("fsync", Path(f"/proc/self/fd/{fd}").readlink().name))
        fsync(fd)

    def noted_replace(self, target):
        calls.append(("rename", self.name, Path(target).name))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    files.write_text(tmp_path / "a" / "record.json", "{}")
    temporary = f".record.json.{os.getpid()}.tmp"
    assert calls == [
        ("fsync", tmp_path.name),
        ("fsync", temporary),
        ("rename", temporary, "record.json"),
        ("fsync", "a"),
    ]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), ValueError("no")]
)
def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path, error):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(type(error)) as raised, files.replacing(path) as temporary:
        temporary.write_text("ne")
        raise error
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["table.csv"]
    if isinstance(error, OSError):
        assert raised.value.filename == str(path)
        told = disk_error(raised.value)
        assert isinstance(told, DiskError) and str(told).startswith(
            f"{path}: No space left on device; make room on that disk"
        )


def test_a_file_that_is_moved_reaches_the_disk_before_its_name_and_stays_where_that_fails(
    tmp_path, monkeypatch
):
    calls = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: (calls.append(Path(f"/proc/self/fd/{fd}").readlink().name), fsync(fd))[1]
    )
    (tmp_path / "part").write_text("whole")
    files.move(tmp_path / "part", tmp_path / "a" / "name")
    assert calls == [tmp_path.name, "part", "a"] and (tmp_path / "a" / "name").read_text() == "whole"

    def broken(fd):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output error"):
        files.move(tmp_path / "a" / "name", tmp_path / "a" / "other")
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["name"]


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match=r"pipe: wanted a file, got a pipe"):
        files.read_text(tmp_path / "pipe")
    with pytest.raises(ConfigError, match=r"folder: wanted a file, got a folder"):
        files.read_text(tmp_path / "folder")
    with pytest.raises(ConfigError, match=r"wanted a file, got a device"):
        files.read_text("/dev/zero")
    with pytest.raises(MissingFile, match="no such file"):
        files.read_text(tmp_path / "nothing")
    assert issubclass(MissingFile, FileNotFoundError)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1]", "wanted a JSON object, got list"),
        (b"null", "wanted a JSON object, got null"),
        (b"", "not valid JSON"),
        (b'{"a": 1', "not valid JSON"),
        (b'{"a": "\xff"}', "not UTF-8 text"),
        (b'{"a":' + b"[" * 60 + b"]" * 60 + b"}", "nested more than 50 levels deep"),
        (b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nested more than 50 levels deep"),
        (b'{"a": 1' + b"0" * 30 + b"}", "holds an integer of"),
        (b'{"a": 1' + b"0" * 9000 + b"}", "not valid JSON"),
    ],
)
def test_damaged_and_hostile_json_is_one_kind_of_error(tmp_path, content, message):
    path = tmp_path / "record.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as raised:
        files.read_json(path)
    assert str(raised.value).startswith(str(path))


def test_a_file_beyond_the_limit_is_not_read(tmp_path):
    path = tmp_path / "large.json"
    path.write_text(json.dumps({"a": "x" * 1000}))
    with pytest.raises(ConfigError, match=r"has 1009 bytes, wanted at most 100"):
        files.read_json(path, limit=100)


def test_the_digest_of_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match=r"pipe: wanted a file, got a pipe$"):
        files.digest(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="wanted a file, got a folder"):
        files.digest(tmp_path)
    with pytest.raises(MissingFile):
        files.digest(tmp_path / "none")


def test_a_folder_in_the_place_of_a_file_is_named_with_what_to_do(tmp_path):
    (tmp_path / "runs.csv").mkdir()
    with pytest.raises(IsADirectoryError) as raised:
        files.write_text(tmp_path / "runs.csv", "id")
    assert str(disk_error(raised.value)).startswith(
        f"{tmp_path / 'runs.csv'}: Is a directory; remove that folder"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["runs.csv"]
