"""Downloads continue where they were cut, and get their name only when they are what was wanted."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from sapis_lab.download import DownloadError, Unreachable, Wanted, download
from sapis_lab.download import _transfer as transfer
from sapis_lab.download._http import TIMEOUT, Cut, check_url
from sapis_lab.errors import DiskError

BODY = bytes(range(256)) * 2000
SHA256, MD5 = hashlib.sha256(BODY).hexdigest(), hashlib.md5(BODY).hexdigest()


class Sleeps(list):
    """Stands for time.sleep, and waits for nothing."""

    __call__ = list.append


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_downloaded_with_its_checksums(server, tmp_path):
    url = server.put("/a.bin", BODY)
    seen = []
    received = download(
        url,
        tmp_path / "new" / "a.bin",
        wanted=Wanted(len(BODY), MD5, SHA256[:12]),
        progress=lambda *x: seen.append(x),
    )
    assert (tmp_path / "new" / "a.bin").read_bytes() == BODY and names(tmp_path / "new") == ["a.bin"]
    assert received == (url, len(BODY), MD5, SHA256)
    assert seen[0] == (0, len(BODY)) and seen[-1] == (len(BODY), len(BODY))


def test_after_a_cut_the_bytes_that_came_are_not_asked_for_again(server, tmp_path):
    url = server.put("/a.bin", BODY, cuts=[300_000, 100_000])
    sleeps, said = Sleeps(), []
    download(url, tmp_path / "a.bin", notice=said.append, sleep=sleeps)
    assert (tmp_path / "a.bin").read_bytes() == BODY
    assert server.asked == [("/a.bin", None), ("/a.bin", "bytes=300000-"), ("/a.bin", "bytes=400000-")]
    assert said[0] == "the connection ended after 300,000 of 512,000 bytes; again in 1 s"


def test_a_server_without_ranges_starts_again(server, tmp_path):
    url = server.put("/a.bin", BODY, cuts=[300_000], ranges=False)
    download(url, tmp_path / "a.bin", sleep=Sleeps())
    assert (tmp_path / "a.bin").read_bytes() == BODY and len(server.asked) == 2


def test_bytes_of_another_version_are_not_continued(server, tmp_path):
    """The file at the server changes between two attempts: If-Range sends all of the new one."""
    url = server.put("/a.bin", BODY, cuts=[300_000])

    def sleep(seconds):
        server.put("/a.bin", BODY[::-1], etag='"two"')

    download(url, tmp_path / "a.bin", sleep=sleep)
    assert (tmp_path / "a.bin").read_bytes() == BODY[::-1]


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_version_and_a_checksum_nothing_is_continued(server, tmp_path, etag):
    url = server.put("/a.bin", BODY, cuts=[300_000], etag=etag)
    download(url, tmp_path / "a.bin", sleep=Sleeps())
    assert [wanted for _, wanted in server.asked] == [None, None]


def test_without_a_version_a_checksum_lets_it_continue(server, tmp_path):
    url = server.put("/a.bin", BODY, cuts=[300_000], etag="")
    download(url, tmp_path / "a.bin", wanted=Wanted(sha256=SHA256), sleep=Sleeps())
    assert [wanted for _, wanted in server.asked] == [None, "bytes=300000-"]


def test_pieces_of_different_files_are_thrown_away_once(server, tmp_path):
    """No ETag tells that the file has changed; the checksum does, and all of it is loaded again."""
    url = server.put("/a.bin", BODY[::-1], cuts=[300_000], etag="")
    said = []

    def sleep(seconds):
        server.put("/a.bin", BODY, etag="")

    download(url, tmp_path / "a.bin", wanted=Wanted(sha256=SHA256), sleep=sleep, notice=said.append)
    assert (tmp_path / "a.bin").read_bytes() == BODY
    assert said[-1].endswith("pieces of different files, it seems; from the beginning")


def test_a_range_that_is_another_one_is_not_believed(server, tmp_path):
    url = server.put("/a.bin", BODY, cuts=[300_000], wrong_range=True)
    download(url, tmp_path / "a.bin", sleep=Sleeps())
    assert (tmp_path / "a.bin").read_bytes() == BODY


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Wanted(sha256="0" * 64), f"got a file of sha256 {SHA256}, wanted {'0' * 64}"),
        (Wanted(sha256="00" * 6), f"got a file of sha256 {SHA256}, wanted 000000000000"),
        (Wanted(md5="0" * 32), f"got a file of md5 {MD5}, wanted {'0' * 32}"),
        (Wanted(n_bytes=500_000), "got a file of 512,000 bytes, wanted 500,000: it is another version"),
    ],
)
def test_another_file_than_was_wanted_is_not_kept(server, tmp_path, wanted, message):
    url = server.put("/a.bin", BODY)
    with pytest.raises(DownloadError, match=message) as raised:
        download(url, tmp_path / "a.bin", wanted=wanted)
    assert str(raised.value).startswith(f"{url}: ") and names(tmp_path) == []


def test_a_length_that_is_wrong_is_seen_without_an_announcement(server, tmp_path):
    url = server.put("/a.bin", BODY, length=-1)
    with pytest.raises(DownloadError, match="got 512,000 bytes, wanted 512,001"):
        download(url, tmp_path / "a.bin", wanted=Wanted(n_bytes=512_001))
    assert names(tmp_path) == []


def test_a_file_shorter_than_announced_is_never_taken_for_whole(server, tmp_path):
    url = server.put("/a.bin", BODY, length=600_000, etag="")
    with pytest.raises(
        Unreachable, match=r"ended after 512,000 of 600,000 bytes, 8 times in a row"
    ) as raised:
        download(url, tmp_path / "a.bin", sleep=Sleeps())
    assert "run the same command again to continue" in str(raised.value)
    assert "a.bin" not in names(tmp_path)


def test_a_web_page_in_the_place_of_a_file_is_refused(server, tmp_path):
    url = server.put("/a.bin", b"<html>log in</html>", headers={"Content-Type": "text/html; charset=utf-8"})
    with pytest.raises(DownloadError, match=r"got a web page, wanted a file: perhaps a login"):
        download(url, tmp_path / "a.bin")
    assert "a.bin" not in names(tmp_path)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, r"got 404 Not Found: the file is not there; look on the homepage, and name it with --url"),
        (403, r"got 403 Forbidden: it wants a login or a registration; download it in a browser"),
        (400, r"got 400 Bad Request, wanted the file; name another address with --url"),
    ],
)
def test_a_refusal_is_told_at_once(server, tmp_path, status, message):
    url = server.put("/a.bin", BODY, statuses=[status])
    with pytest.raises(DownloadError, match=message):
        download(url, tmp_path / "a.bin", sleep=Sleeps())
    assert len(server.asked) == 1 and names(tmp_path) == []


def test_a_busy_server_is_asked_again_after_the_time_it_names(server, tmp_path):
    url = server.put("/a.bin", BODY, statuses=[503, 429, 500], headers={"Retry-After": "7"})
    sleeps = Sleeps()
    download(url, tmp_path / "a.bin", sleep=sleeps)
    assert sleeps == [7.0, 7.0, 7.0] and (tmp_path / "a.bin").read_bytes() == BODY


def test_attempts_that_bring_nothing_wait_longer_and_end(server, tmp_path):
    url = server.put("/a.bin", BODY, statuses=[500] * 50)
    sleeps = Sleeps()
    with pytest.raises(Unreachable, match=r"answers 500 .*, 4 times in a row; nothing has come yet: run"):
        download(url, tmp_path / "a.bin", sleep=sleeps)
    assert sleeps == [2.0, 4.0, 8.0]


def test_a_server_that_is_not_there_is_named(server, tmp_path):
    server.httpd.shutdown()
    server.httpd.server_close()
    with pytest.raises(Unreachable, match="Connection refused, 4 times in a row"):
        download(server.url + "/a.bin", tmp_path / "a.bin", sleep=Sleeps())


def test_redirects_are_followed_and_the_last_address_is_told(server, tmp_path):
    server.put("/old", redirect="/older")
    server.put("/older", redirect=server.put("/a.bin", BODY))
    assert download(server.url + "/old", tmp_path / "a.bin").url == server.url + "/a.bin"


def test_a_circle_of_redirects_ends(server, tmp_path):
    server.put("/one", redirect="/two")
    url = server.put("/two", redirect="/one")
    with pytest.raises(DownloadError, match="redirects in a circle, or more than 10 times"):
        download(url, tmp_path / "a.bin", sleep=Sleeps())


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/a", "data:,a"])
def test_redirects_lead_to_http_alone(server, tmp_path, place):
    url = server.put("/a.bin", redirect=place)
    with pytest.raises(DownloadError, match=r"redirects to where it must not \(.*\), wanted http or https"):
        download(url, tmp_path / "a.bin", sleep=Sleeps())
    assert names(tmp_path) == []


def test_redirects_do_not_lead_out_of_https():
    from email.message import Message
    from urllib.request import Request

    from sapis_lab.download._http import _Redirects

    with pytest.raises(DownloadError, match="leads to http://b.org/, out of https"):
        _Redirects().redirect_request(Request("https://a.org"), None, 302, "", Message(), "http://b.org/")
    made = _Redirects().redirect_request(
        Request("http://a.org", headers={"Range": "bytes=5-"}), None, 302, "", Message(), "https://b.org/"
    )
    assert made.full_url == "https://b.org/" and made.headers == {"Range": "bytes=5-"}


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://a.org/b", "/etc/passwd", "http://", "http://a b/", "http://a:x/", ""]
)
def test_what_is_no_address_of_the_web_is_refused(url, tmp_path):
    with pytest.raises(DownloadError, match=r"wanted an address, http://\.\.\. or https://\.\.\."):
        download(url, tmp_path / "a.bin")
    check_url("https://a.org:8080/b?c=d")


def test_a_full_disk_is_told_and_the_download_goes_on_afterwards(server, tmp_path, monkeypatch):
    url = server.put("/a.bin", BODY)
    write = transfer._write

    def full(f, chunk):
        write(f, chunk[: 100_000 - f.tell()])
        if f.tell() == 100_000:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(transfer, "_write", full)
    with pytest.raises(DiskError) as raised:
        download(url, tmp_path / "a.bin", sleep=Sleeps())
    part = tmp_path / ".a.bin.part"
    assert str(raised.value) == (
        f"{part}: No space left on device; make room on that disk and run the same command again to continue"
    )
    monkeypatch.undo()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    download(url, tmp_path / "a.bin", sleep=Sleeps())
    assert server.asked[-1] == ("/a.bin", "bytes=100000-") and (tmp_path / "a.bin").read_bytes() == BODY


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 400 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(place)], capture_output=True
    ).returncode:
        pytest.skip("mounting a file system wants root")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_real_disk_without_room_is_told_and_the_download_goes_on(server, small_disk):
    """Also the notes about what has come can not be written then; the older ones do."""
    url = server.put("/a.bin", BODY, length=-1)
    with pytest.raises(DiskError, match="No space left on device; make room on that disk and run the same"):
        download(url, small_disk / "a.bin", sleep=Sleeps())
    assert "a.bin" not in names(small_disk)
    came = (small_disk / ".a.bin.part").stat().st_size
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    download(url, small_disk / "a.bin", sleep=Sleeps())
    assert server.asked[-1] == ("/a.bin", f"bytes={came}-") and came > 300_000
    assert (small_disk / "a.bin").read_bytes() == BODY and names(small_disk) == ["a.bin"]


def test_a_file_that_cannot_fit_is_refused_before_it_comes(server, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(DiskError, match="512,000 bytes are to come and 1,000 are free; make room"):
        download(server.put("/a.bin", BODY), tmp_path / "a.bin")


def test_a_killed_download_continues_in_another_process(server, tmp_path):
    url = server.put("/a.bin", BODY, length=len(BODY), cuts=[300_000] * 1000)
    program = (
        "import sys, time; from pathlib import Path; from sapis_lab.download import download\n"
        "download(sys.argv[1], Path(sys.argv[2]), sleep=lambda s: time.sleep(1e6))"
    )
    process = subprocess.Popen([sys.executable, "-c", program, url, str(tmp_path / "a.bin")])
    part = tmp_path / ".a.bin.part"
    try:
        for _ in range(6000):
            if part.is_file() and part.stat().st_size == 300_000:
                break
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    (tmp_path / "..a.bin.part.json.17.tmp").touch()  # as where it is killed over its notes
    server.pages["/a.bin"].cuts.clear()
    download(url, tmp_path / "a.bin")
    assert server.asked[-1] == ("/a.bin", "bytes=300000-")
    assert (tmp_path / "a.bin").read_bytes() == BODY and names(tmp_path) == ["a.bin"]


def left_over(tmp_path: Path, url: str, body: bytes, **facts: object) -> None:
    """What a process leaves that was killed in the middle."""
    (tmp_path / ".a.bin.part").write_bytes(body)
    notes = {"url": url, "validator": '"one"', "synced": len(body), "boot": transfer._boot(), **facts}
    (tmp_path / ".a.bin.part.json").write_text(json.dumps(notes))


def test_after_a_boot_only_bytes_that_were_on_the_disk_count(server, tmp_path):
    """A file system may give a file its length before its bytes: after a power cut the rest can be zeros."""
    url = server.put("/a.bin", BODY)
    left_over(tmp_path, url, BODY[:200_000] + bytes(100_000), synced=200_000, boot="another")
    download(url, tmp_path / "a.bin")
    assert server.asked == [("/a.bin", "bytes=200000-")] and (tmp_path / "a.bin").read_bytes() == BODY


def test_a_whole_file_without_its_name_gets_it(server, tmp_path):
    url = server.put("/a.bin", BODY)
    left_over(tmp_path, url, BODY)
    assert download(url, tmp_path / "a.bin").sha256 == SHA256
    assert server.asked == [("/a.bin", f"bytes={len(BODY)}-")] and names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("left", [BODY + b"more", BODY[:1000]])
def test_leftovers_that_do_not_fit_are_thrown_away(server, tmp_path, left):
    url = server.put("/a.bin", BODY, etag='"two"')
    left_over(tmp_path, url, left)
    download(url, tmp_path / "a.bin", sleep=Sleeps())
    assert (tmp_path / "a.bin").read_bytes() == BODY


@pytest.mark.parametrize("notes", [None, b"", b"[1]", b'{"url": "x"}', b"\xff"])
def test_leftovers_of_nobody_knows_what_are_thrown_away(server, tmp_path, notes):
    url = server.put("/a.bin", BODY)
    left_over(tmp_path, url, b"x" * 1000)
    notes_file = tmp_path / ".a.bin.part.json"
    notes_file.unlink() if notes is None else notes_file.write_bytes(notes)
    download(url, tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == BODY and server.asked == [("/a.bin", None)]


def test_the_name_comes_after_the_bytes_are_on_the_disk(server, tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(
        os, "fsync", lambda fd: (calls.append(Path(f"/proc/self/fd/{fd}").readlink().name), fsync(fd))[1]
    )
    monkeypatch.setattr(
        Path, "replace", lambda a, b: (calls.append(f"name {Path(b).name}"), replace(a, b))[1]
    )
    download(server.put("/a.bin", BODY), tmp_path / "a.bin")
    named = calls.index("name a.bin")
    assert ".a.bin.part" in calls[:named] and tmp_path.name in calls[named:]


def test_a_silent_server_counts_as_a_cut():
    from sapis_lab.download._http import in_words

    assert in_words(TimeoutError()) == f"nothing came for {TIMEOUT:.0f} s"
    assert Cut("a", pause=1.0).pause == 1.0


def test_passwords_in_addresses_are_not_told(server, tmp_path):
    url = server.url.replace("//", "//me:secret@") + "/a.bin"
    with pytest.raises((DownloadError, Unreachable)) as raised:
        download(url, tmp_path / "a.bin", sleep=Sleeps())
    assert "secret" not in str(raised.value)


def test_a_stream_without_an_end_is_left_once_it_is_another_file(server, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "_read", lambda answer: b"x" * 1000)
    url = server.put("/a.bin", BODY, length=-1)
    with pytest.raises(DownloadError, match=r"got \d,000 bytes, wanted 5,500"):
        download(url, tmp_path / "a.bin", wanted=Wanted(n_bytes=5500))
    assert names(tmp_path) == []


def test_a_coding_that_was_not_asked_for_is_refused(server, tmp_path):
    """Its bytes would be kept as those of the file."""
    coded = {"headers": {"Content-Encoding": "gzip"}}
    with pytest.raises(DownloadError, match="got it in the coding gzip, wanted the bytes of the file"):
        download(server.put("/a.bin", BODY, **coded), tmp_path / "a.bin")
    download(server.put("/a.tar.gz", BODY, **coded), tmp_path / "a.tar.gz")


def test_a_name_that_cannot_be_given_loses_nothing(server, tmp_path, monkeypatch):
    url = server.put("/a.bin", BODY)
    with monkeypatch.context() as patch:

        def broken(*arguments):
            raise OSError(errno.EIO, "Input/output error")

        patch.setattr(Path, "replace", lambda a, b: broken() if b.name == "a.bin" else a.rename(b))
        with pytest.raises(DiskError, match="Input/output error; see to that disk"):
            download(url, tmp_path / "a.bin")
    download(url, tmp_path / "a.bin")
    assert server.asked[-1] == ("/a.bin", f"bytes={len(BODY)}-") and names(tmp_path) == ["a.bin"]
