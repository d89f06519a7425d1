"""The catalogue holds facts of one form, which agree with the kinds, the configs, the data and
docs/data.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sapis_lab.catalogue import (
    OfficialFile,
    credits_of,
    described,
    fetching_advice,
    markdown_page,
    names,
    presence,
    public_set,
    public_sets,
    size_text,
)
from sapis_lab.config import kind_class, kinds
from sapis_lab.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parent.parent.parent
RMD17 = "it is public (CC0 1.0, 1.07 GB), and downloaded by: sapis data fetch rmd17"
SETS = pytest.mark.parametrize("public", public_sets(), ids=lambda public: public.name)


def test_the_sets_that_people_ask_for_are_there():
    wanted = (
        "rmd17 md17 md17_ccsdt md22 3bpa acac ethanol_botnet qm9 ani1x ani1ccx ani2x comp6 spice oc20 "
        "oc20_is2re matbench_mp_e_form matbench_mp_gap mptrj materials_project mlearn water_pbe0ts lips "
        "moleculenet pdbbind alanine_dipeptide folding_at_home"
    )
    assert set(wanted.split()) <= set(names())


@SETS
def test_a_set_says_what_one_must_know(public):
    assert public.title and public.holds and public.level and public.licence and public.sources
    assert public.labels and all(label.unit for label in public.labels)
    assert re.match(r"https?://", public.homepage)
    assert public.files or public.not_fetched
    assert not (public.files and public.not_fetched)
    assert len({file.part for file in public.files}) == len(public.files)
    assert "all" not in {file.part for file in public.files}
    assert described(public).startswith(f"{public.name}: {public.title}\n")


@SETS
def test_its_papers_can_be_cited_and_found(public):
    for paper in public.citations:
        assert paper.doi or paper.arxiv
        assert re.fullmatch(r"(10\.\d{4,}/\S+)?", paper.doi)
        assert re.fullmatch(r"(\d{4}\.\d{4,5})?", paper.arxiv)
        assert re.fullmatch(r"[a-z0-9]+", paper.key)
        entry = paper.bibtex()
        assert entry.count("{") == entry.count("}") and entry.startswith("@")
        assert all("," in author or author == "others" for author in paper.authors)


@SETS
def test_what_is_known_of_its_files_has_the_form_of_what_it_is(public):
    for file in public.files:
        assert re.fullmatch(r"([0-9a-f]{32})?", file.md5)
        assert re.fullmatch(r"([0-9a-f]{12,64})?", file.sha256)
        assert file.n_bytes is None or file.n_bytes > 0
        assert "?" not in file.url and file.url.isascii()
        assert file.unpack or file.gives == ()


def test_one_key_of_bibtex_is_one_paper():
    papers = [paper for public in public_sets() for paper in public.citations]
    assert len({paper.key for paper in papers}) == len(set(papers))


@SETS
def test_the_kinds_that_read_it_exist(public):
    assert set(public.kinds) <= set(kinds("data"))


def test_the_sets_that_kinds_name_exist():
    named = {kind: kind_class("data", kind).catalogue for kind in kinds("data")}
    assert {name for name in named.values() if name} <= set(names())
    assert named["rmd17"] == "rmd17" and named["mlearn"] == "mlearn" and named["extxyz"] is None


def test_a_name_that_is_none_names_the_nearest():
    with pytest.raises(ConfigError, match=r"'rmd71' in the catalogue; did you mean 'rmd17'\? known: "):
        public_set("rmd71")
    assert public_set("MPtrj").name == "mptrj" and public_set("matbench-mp-gap").name == "matbench_mp_gap"


@pytest.mark.parametrize("path", ["../a", "/a", "a/../../b"])
def test_a_file_lies_in_the_folder_of_its_set(path):
    with pytest.raises(ValueError, match="leads out of the folder of its set"):
        OfficialFile(part="a", url="https://a.org/a", path=path)


def test_a_file_has_an_address_of_the_web():
    with pytest.raises(ValueError, match="wanted http or https"):
        OfficialFile(part="a", url="ftp://a.org/a", path="a")


def test_files_are_seen_by_their_names(tmp_path):
    acac, rmd17 = public_set("acac"), public_set("rmd17")
    assert presence(acac, tmp_path).word == "no"
    (tmp_path / "acac").mkdir()
    (tmp_path / "acac" / "train_300K.xyz").touch()
    assert presence(acac, tmp_path).word == "1 of 7"
    for file in acac.files:
        (tmp_path / "acac" / file.path).touch()
    assert presence(acac, tmp_path).word == "all"
    (tmp_path / "rmd17").mkdir()
    (tmp_path / "rmd17" / "rmd17_ethanol_train_01.npz").touch()
    assert presence(rmd17, tmp_path).word == "some"


@pytest.mark.parametrize(
    ("paths", "name", "advice"),
    [
        (
            ["/d/acac/train_300K.xyz"],
            None,
            "it is public (MIT, 4.11 MB), and downloaded by: sapis data fetch acac",
        ),
        (["/d/rmd17/npz_data/rmd17_uracil.npz"], None, RMD17),
        (["/d/other.npz"], "rmd17", RMD17),
        (
            ["/d/water_pbe0ts/data_2"],
            None,
            "it is public (LGPL-3.0, 1.86 MB), and downloaded by: sapis data fetch water_pbe0ts",
        ),
        (
            ["/d/md17/md17_ethanol.npz"],
            None,
            "it is public (licence not stated, size not known), and downloaded by: "
            "sapis data fetch md17 --file ethanol",
        ),
        (["/d/other.db"], "pdbbind", "it is public, and where to get it says: sapis data show pdbbind"),
        (
            ["/d/other.xz"],
            "oc20",
            "it is public, and its files are listed by: sapis data show oc20",
        ),
        (["/d/mine/train.xyz", "train_300K.xyz"], None, ""),
    ],
)
def test_what_downloads_a_missing_file_is_known_by_its_name(paths, name, advice):
    assert fetching_advice(paths, name=name) == advice


def test_credits_can_be_kept_as_json():
    said = credits_of("rmd17")
    assert said["public_set"] == "rmd17" and said["licence"] == "CC0 1.0"
    assert said["data_doi"] == "10.6084/m9.figshare.12672038" and "2007.09593" in said["citation"][0]


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(None, "not known"), (455, "455 B"), (86_144_227, "86.1 MB"), (999_900, "1 MB"), (225e9, "225 GB")],
)
def test_sizes_are_told_in_three_digits(n_bytes, text):
    assert size_text(n_bytes) == text


def test_the_page_of_public_sets_is_in_step_with_the_catalogue():
    """`sapis data list --markdown > docs/data.md` makes it anew."""
    assert (REPOSITORY / "docs" / "data.md").read_text(encoding="utf-8") == markdown_page()
