"""Archives are unpacked whole or not at all, and only into their folder."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from sapis_lab.download import DownloadError, unpack
from sapis_lab.download import _unpack as unpacking
from sapis_lab.errors import DiskError

FILES = {"set/npz/a.npz": b"a" * 1000, "set/splits/1.csv": b"1\n2\n"}


def tar(path: Path, files: dict[str, bytes], mode: str = "w", *extra: tarfile.TarInfo) -> Path:
    with tarfile.open(path, mode) as made:
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            made.addfile(info, io.BytesIO(body))
        for info in extra:
            made.addfile(info)
    return path


def entry(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, body in files.items():
            made.writestr(name, body)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def refused(archive: Path, out: Path, message: str, **options: object) -> None:
    """The archive is refused, and its folder is as it was."""
    before = contents(out)
    with pytest.raises(DownloadError, match=message) as raised:
        unpack(archive, out, **options)  # type: ignore[arg-type]
    assert str(raised.value).startswith((str(archive), str(out)))
    assert contents(out) == before and sorted(p.name for p in archive.parent.iterdir()) == sorted(
        {archive.name, "out"} | {p.name for p in archive.parent.iterdir() if not p.name.startswith(".")}
    )


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_is_known_by_its_bytes_whatever_its_name_says(tmp_path, out, mode):
    found = unpack(tar(tmp_path / "a.zip", FILES, mode), out, drop="set")
    assert contents(out) == {"npz/a.npz": b"a" * 1000, "splits/1.csv": b"1\n2\n"}
    assert {name: facts.n_bytes for name, facts in found.items()} == {"npz/a.npz": 1000, "splits/1.csv": 4}
    assert len(found["splits/1.csv"].sha256) == 64


def test_how_far_it_is_is_told_within_a_file_too(tmp_path, out):
    seen = []
    archive = tar(tmp_path / "a.tar", {"a": b"1", "b": bytes(2_500_000)})
    unpack(archive, out, progress=lambda n_files, n_bytes: seen.append((n_files, n_bytes)))
    assert (1, 1_048_577) in seen and seen[-1] == (2, 2_500_001)


def test_a_folder_that_is_not_there_is_not_left_out(tmp_path, out):
    unpack(tar(tmp_path / "a.tar", {"npz/a.npz": b"a"}), out, drop="set")
    assert contents(out) == {"npz/a.npz": b"a"}


def test_a_zip_is_unpacked_without_what_file_managers_add(tmp_path, out):
    extra = {"__MACOSX/._a.npz": b"x", "b/.DS_Store": b"x", "a-train.npz": b"1"}
    unpack(zipped(tmp_path / "a.zip", extra), out)
    assert contents(out) == {"a-train.npz": b"1"}


@pytest.mark.parametrize(("suffix", "opener"), [("gz", gzip.open), ("bz2", bz2.open), ("xz", lzma.open)])
def test_a_single_compressed_file_loses_its_suffix(tmp_path, out, suffix, opener):
    with opener(tmp_path / f"a.json.{suffix}", "wb") as f:
        f.write(b"{}" * 1000)
    unpack(tmp_path / f"a.json.{suffix}", out)
    assert contents(out) == {"a.json": b"{}" * 1000}


LEADING_OUT = ["../evil", "/etc/evil", "a/../../evil", "..", "a\\..\\..\\evil", "C:/evil", "a/../b"]


@pytest.mark.parametrize("name", LEADING_OUT)
def test_a_name_in_a_tar_that_leads_out_is_refused(tmp_path, out, name):
    archive = tar(tmp_path / "a.tar", {"good": b"1", name: b"evil"})
    refused(archive, out, "leads out of the folder it is unpacked in; it is not to be trusted")


@pytest.mark.parametrize("name", LEADING_OUT[:3])
def test_a_name_in_a_zip_that_leads_out_is_refused(tmp_path, out, name):
    refused(zipped(tmp_path / "a.zip", {"good": b"1", name: b"evil"}), out, "leads out of the folder")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (tarfile.SYMTYPE, "a link to '/etc'"),
        (tarfile.LNKTYPE, "a link to '/etc'"),
        (tarfile.FIFOTYPE, "a pipe"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
    ],
)
def test_links_devices_and_pipes_are_refused(tmp_path, out, kind, message):
    archive = tar(tmp_path / "a.tar", {"good": b"1"}, "w", entry("bad", kind, "/etc"))
    refused(archive, out, f"holds 'bad', which is {message}, wanted files and folders alone")


def test_a_link_in_a_zip_is_refused(tmp_path, out):
    info = zipfile.ZipInfo("bad")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr(info, "/etc")
    refused(tmp_path / "a.zip", out, "holds 'bad', which is a link")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_a_tar_that_is_cut_short_changes_nothing(tmp_path, out, mode, share):
    body = os.urandom(50_000)
    archive = tar(tmp_path / "a.tar", {"a": body, "b": body[:20_000]}, mode)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(share * len(whole))])
    refused(archive, out, r"damaged|cut short")


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_tar_without_its_last_bytes_is_not_whole(tmp_path, out, mode):
    """All files come out, but the checksum over them does not."""
    archive = tar(tmp_path / "a.tar", {"a": b"1" * 512}, mode)
    archive.write_bytes(archive.read_bytes()[:-3])
    refused(archive, out, "damaged or cut short")


def test_a_tar_that_ends_between_two_files_is_not_whole(tmp_path, out):
    """tarfile alone takes that for its end."""
    archive = tar(tmp_path / "a.tar", {"a": b"1" * 512, "b": b"2"})
    archive.write_bytes(archive.read_bytes()[:1024])
    refused(archive, out, "it lacks the mark at its end")


def test_a_tar_with_a_damaged_header_is_not_whole(tmp_path, out):
    archive = tar(tmp_path / "a.tar", {"a": b"1" * 512, "b": b"2"})
    body = bytearray(archive.read_bytes())
    body[1030] ^= 255
    archive.write_bytes(body)
    refused(archive, out, "it lacks the mark at its end")


def test_a_zip_that_is_cut_short_or_damaged_changes_nothing(tmp_path, out):
    archive = zipped(tmp_path / "a.zip", {"a": os.urandom(5000)})
    whole = archive.read_bytes()
    archive.write_bytes(whole[:3000])
    refused(archive, out, "damaged or cut short")
    archive.write_bytes(whole[:2000] + b"xxxx" + whole[2004:])
    refused(archive, out, "damaged or cut short")


@pytest.mark.parametrize("body", [b"<html>", b"", b"\0" * 2000, b"\x1f\x8b", b"PK\x03\x04"])
def test_what_is_no_archive_is_refused(tmp_path, out, body):
    (tmp_path / "a.tar").write_bytes(body)
    refused(tmp_path / "a.tar", out, "wanted a")


def test_an_archive_that_grows_beyond_its_limit_is_stopped(tmp_path, out):
    archive = tar(tmp_path / "a.tar.bz2", {"a": bytes(100_000), "b": bytes(100_000)}, "w:bz2")
    refused(archive, out, "unpacks to more than 150,000 bytes from .* a trap", limit=150_000)
    refused(zipped(tmp_path / "b.zip", {"a": bytes(200_000)}), out, "a trap", limit=150_000)
    with gzip.open(tmp_path / "c.gz", "wb") as f:
        f.write(bytes(200_000))
    refused(tmp_path / "c.gz", out, "a trap", limit=150_000)


def test_the_limit_follows_the_size_of_the_archive(tmp_path, out, monkeypatch):
    monkeypatch.setattr(unpacking, "LEAST_LIMIT", 1000)
    archive = tar(tmp_path / "a.tar.bz2", {"a": bytes(10_000_000)}, "w:bz2")
    refused(archive, out, f"unpacks to more than {100 * archive.stat().st_size:,} bytes")


def test_a_file_that_is_twice_in_an_archive_is_refused(tmp_path, out):
    with tarfile.open(tmp_path / "a.tar", "w") as made:
        for body in (b"1", b"2"):
            info = tarfile.TarInfo("a")
            info.size = 1
            made.addfile(info, io.BytesIO(body))
    refused(tmp_path / "a.tar", out, "holds 'a' twice")


def test_files_of_another_content_are_not_written_over(tmp_path, out):
    (out / "b").write_bytes(b"mine")
    archive = tar(tmp_path / "a.tar", {"a": b"1", "b": b"2222"})
    refused(archive, out, r"b: is there already, and is not the file of that name in a\.tar; move it away")
    assert not (out / "a").exists()
    (out / "b").write_bytes(b"2222")
    assert set(unpack(archive, out)) == {"a", "b"}


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, out, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(unpacking, "_copy", full)
    with pytest.raises(DiskError, match="No space left on device; make room on that disk and run the same"):
        unpack(tar(tmp_path / "a.tar", FILES), out)
    assert contents(out) == {} and sorted(p.name for p in tmp_path.iterdir()) == ["a.tar", "out"]


def test_what_a_killed_process_has_left_is_no_hindrance(tmp_path, out):
    (tmp_path / ".a.tar.unpacking" / "set").mkdir(parents=True)
    (tmp_path / ".a.tar.unpacking" / "set" / "half").write_bytes(b"1")
    unpack(tar(tmp_path / "a.tar", FILES), out)
    assert contents(out) == FILES
