"""sapis data list, show, fetch: what people see of public data sets."""

from __future__ import annotations

import io
import signal
import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from rich.cells import cell_len
from rich.console import Console

from sapis_lab import cli
from sapis_lab.catalogue import PublicSet, public_sets, table_row
from sapis_lab.cli.public_data import catalogue_table, progress_text

BODY = b"PK" + bytes(range(256)) * 2000


@pytest.fixture
def inside(project, tmp_path, monkeypatch, capsys):
    """Runs `sapis` in this process, with an empty folder of data."""
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("SAPIS_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(project)
    monkeypatch.setattr("sapis_lab.download._transfer.FIRST_ATTEMPTS", 1)

    def run(*arguments: str) -> CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["sapis", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out = capsys.readouterr()
        return CompletedProcess(arguments, int(end.value.code or 0), out.out, out.err)

    return run


def refused(done: CompletedProcess[str], *words: str, status: int = 2) -> None:
    assert done.returncode == status, done.stdout + done.stderr
    assert "error: " in done.stderr and "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_the_list_shows_public_sets_and_whether_they_are_here(inside, tmp_path):
    (tmp_path / "data" / "acac").mkdir()
    (tmp_path / "data" / "acac" / "train_300K.xyz").touch()
    lines = inside("data", "list").stdout.splitlines()
    row = [line for line in lines if line.startswith("acac ")][-1]
    assert " ".join(row.split()) == "acac E, F PBE+D3/def2-SVP MIT 4.11 MB 1 of 7"
    assert any(line.startswith("acac-300K") for line in lines)
    assert "acac-300K" not in inside("data", "list", "--public").stdout


def words(public: PublicSet) -> set[str]:
    return {word for cell in table_row(public) for word in cell.split()}


def test_at_80_columns_every_word_is_whole(inside):
    file = io.StringIO()
    Console(file=file, width=80).print(catalogue_table(80))
    text = file.getvalue()
    assert "…" not in text and max(map(cell_len, text.splitlines())) <= 80
    shown = set(text.replace("/", "/ ").split())
    for public in public_sets():
        wanted = {part for word in words(public) for part in word.replace("/", "/ ").split()}
        assert wanted <= shown, public.name


def test_without_a_folder_of_data_the_list_does_not_say_what_is_here(inside, monkeypatch):
    monkeypatch.delenv("SAPIS_DATA")
    row = [x for x in inside("data", "list").stdout.splitlines() if x.startswith("acac ")][-1]
    assert row.rstrip().endswith("?")


def test_a_set_is_shown_with_units_files_readers_and_citation(inside):
    shown = inside("data", "show", "rmd17").stdout
    for words in (
        "energy in kcal/mol (energies; total)",
        "read by   kind: rmd17 (configs/data/: rmd17-aspirin, rmd17-ethanol)",
        "https://figshare.com/ndownloader/files/23950376",
        "sha256 cddeea2ec2c4b22a9de16a9a65a3eeedac5b29da9c99c20bbff0153912bf922b",
        "@article{christensen2020role,",
    ):
        assert words in shown
    assert "checksum not known" in inside("data", "show", "md17").stdout
    assert "read by   no kind of data yet" in inside("data", "show", "folding-at-home").stdout


def test_names_that_are_none_say_what_to_do(inside):
    refused(inside("data", "show", "rmd71"), "no public data set 'rmd71'", "did you mean 'rmd17'?")
    refused(inside("data", "fetch", "acac-300K"), "is a config", "the public set that it reads is 'acac'")
    refused(inside("data", "fetch", "pdbbind"), "wants a registration", "http://www.pdbbind.org.cn")
    refused(inside("data", "fetch", "oc20"), "name those you want with --file: s2ef_train_200K (344 MB)")
    refused(inside("data", "fetch", "oc20", "--file", "2M"), "oc20 has no such file; it has s2ef_train_200K")
    refused(inside("data", "fetch", "acac", "--url", "http://a.org/b"), "--url is the address of one file")


def test_the_folder_must_be_there(inside, monkeypatch, tmp_path):
    refused(inside("data", "fetch", "acac", "--to", str(tmp_path / "no" / "data")), "there is no folder")
    (tmp_path / "file").touch()
    refused(inside("data", "fetch", "acac", "--to", str(tmp_path / "file")), "wanted a folder, got a file")
    monkeypatch.setenv("SAPIS_DATA", str(tmp_path / "nowhere"))
    refused(inside("data", "fetch", "acac"), "nowhere, which does not exist")
    monkeypatch.delenv("SAPIS_DATA")
    refused(
        inside("data", "fetch", "acac"), "set SAPIS_DATA to the folder of data sets, or name one with --to"
    )


def test_a_file_is_fetched_once_and_says_under_which_licence(inside, server, tmp_path):
    url = server.put("/md17_ethanol.npz", BODY)
    arguments = ("data", "fetch", "md17", "--file", "ethanol", "--url", url, "--to", str(tmp_path / "new"))
    done = inside(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("md17: 1 file, size not known, into ")
    assert "the address is not encrypted, and no checksum is known" in done.stderr
    assert f"ethanol: 1 file in {tmp_path / 'new' / 'md17'}; nothing is known to compare it" in done.stdout
    assert "licence: not stated; cite: Chmiela et al., Science Advances 3, e1603015 (2017)" in done.stdout
    assert (tmp_path / "new" / "md17" / "md17_ethanol.npz").read_bytes() == BODY
    assert (
        "ethanol: is there already; nothing is known" in inside(*arguments).stdout and len(server.asked) == 1
    )


def test_another_file_ends_the_command_and_leaves_nothing(inside, server, tmp_path):
    url = server.put("/train_300K.xyz", BODY)
    done = inside("data", "fetch", "acac", "--file", "train_300K.xyz", "--url", url)
    refused(done, f"{url}: got a file of 512,002 bytes, wanted 880,100")
    assert [p.name for p in (tmp_path / "data" / "acac").iterdir()] == [".fetch.lock"]


def test_a_network_that_is_away_ends_with_the_status_of_what_can_be_continued(inside, server):
    url = server.put("/a", BODY, statuses=[503] * 9)
    done = inside("data", "fetch", "md17", "--file", "ethanol", "--url", url)
    refused(done, "the server answers 503", "run the same command again to continue", status=75)


def test_what_has_come_is_kept_when_one_stops_it(inside, server, monkeypatch):
    def stop(*arguments, **options):
        signal.raise_signal(signal.SIGINT)
        return b""

    monkeypatch.setattr("sapis_lab.download._transfer._read", stop)
    done = inside("data", "fetch", "md17", "--file", "ethanol", "--url", server.put("/a", BODY))
    assert done.returncode == 75
    assert done.stderr.endswith("what has come is kept; the same command continues\nstopped\n")


def test_a_disk_without_room_is_told_before_anything_comes(inside, monkeypatch):
    from types import SimpleNamespace

    from sapis_lab.download import _fetch

    monkeypatch.setattr(_fetch.shutil, "disk_usage", lambda path: SimpleNamespace(free=1e9))
    done = inside("data", "fetch", "oc20", "--file", "s2ef_train_2M")
    refused(done, "3.4 GB are to come and 1 GB are free there; make room on that disk", status=74)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((50_000_000, 100_000_000, 25_000_000, 10.0), "50 %, 50 MB of 100 MB, 2.5 MB/s, 20 s left"),
        ((50_000_000, None, 50_000_000, 10.0), "50 MB, 5 MB/s"),
        ((0, 100, 0, 0.0), "0 %, 0 B of 100 B"),
    ],
)
def test_progress_has_share_rate_and_time_left(numbers, text):
    done, total, came, seconds = numbers
    assert progress_text(done, total, came, seconds) == text


def test_the_sources_name_no_address_without_a_scheme_of_the_web():
    """Addresses are in the catalogue alone; what downloads knows none."""
    import sapis_lab.download

    for path in Path(sapis_lab.download.__file__).parent.glob("*.py"):
        assert "://" not in path.read_text().replace("http://...", "").replace("https://...", "")
