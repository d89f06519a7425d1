"""The catalogue for people: everything about one set, and the page that lists all of them."""

from __future__ import annotations

import re
from typing import Any

from sapis_lab.catalogue._base import OfficialFile, PublicSet, size_text
from sapis_lab.catalogue._search import public_set, public_sets

TABLE_HEAD = ("set", "labels", "level", "licence", "size")
LEGEND = "E energy, F forces; sizes of the downloads"
_SHORT = {"energy": "E", "forces": "F"}
_ASIDE = re.compile(r" \([^)]*\)|; .*")
"""What a table leaves out: programs, exceptions."""


def table_row(public: PublicSet) -> tuple[str, ...]:
    """The cells of a set under `TABLE_HEAD`."""
    labels = [_SHORT.get(label.name, label.name) for label in public.labels if label.name != "positions"]
    return (
        public.name,
        public.brief or ", ".join(dict.fromkeys(labels)) or "positions",
        _ASIDE.sub("", public.level),
        _ASIDE.sub("", public.licence),
        _size_cell(public),
    )


def _size_cell(public: PublicSet) -> str:
    """What a plain fetch downloads, or the range of what may be asked for."""
    if not public.files:
        return "-"
    if public.usual:
        return size_text(total_size(public.usual))
    known = sorted(file.size for file in public.files if file.size is not None)
    if not known:
        return "not known"
    return (
        f"{size_text(known[0])} to {size_text(known[-1])}" if known[0] != known[-1] else size_text(known[0])
    )


def total_size(files: tuple[OfficialFile, ...]) -> float | None:
    """Bytes of all of them; None where one is not known."""
    sizes = [file.size for file in files]
    return None if None in sizes else sum(size for size in sizes if size is not None)


def credits_of(name: str) -> dict[str, Any]:
    """What the metadata of a store say of the public set it was made from: its name, licence, DOI and the
    papers to cite, as BibTeX."""
    public = public_set(name)
    return {
        "public_set": public.name,
        "licence": public.licence,
        **({"data_doi": public.data_doi} if public.data_doi else {}),
        "citation": [paper.bibtex() for paper in public.citations],
    }


def described(public: PublicSet, *, readers: str = "") -> str:
    """All that is known of a set, in paragraphs and lists; the citations can be copied.

    Args:
        readers: the kinds and configs that read it, where those are known.
    """
    blocks = [f"{public.name}: {public.title}", public.holds, _facts(public, readers)]
    if public.notes:
        blocks.append("\n".join(f"note: {note}" for note in public.notes))
    if public.not_fetched:
        blocks.append(f"not downloaded for you: {public.not_fetched}")
    blocks.append("cite:\n" + "\n".join(paper.bibtex().rstrip() for paper in public.citations))
    if public.files:
        blocks.append(_files(public))
    if public.sources:
        blocks.append("these facts are from: " + "; ".join(public.sources))
    return "\n\n".join(blocks) + "\n"


def _facts(public: PublicSet, readers: str) -> str:
    facts = {
        "level": public.level,
        "licence": public.licence,
        "homepage": public.homepage,
        "data": f"doi:{public.data_doi}" if public.data_doi else "",
        "read by": readers,
    }
    lines = [f"{name:<10}{fact}" for name, fact in facts.items() if fact]
    lines.append("labels, in the units of the files:")
    for label in public.labels:
        aside = "; ".join(word for word in (label.key, label.note) if word)
        lines.append(f"  {label.name} in {label.unit}{f' ({aside})' if aside else ''}")
    return "\n".join(lines)


def _files(public: PublicSet) -> str:
    lines, base = [f"files, below $SAPIS_DATA/{public.place}/:"], ""
    for file in public.files:
        its_base = file.url.removesuffix(file.part)
        if its_base not in (file.url, base):
            base = its_base
            lines.append(f"  from {base}")
        about = f", {file.about}" if file.about else ""
        asked = ", only with --file" if file.asked else ""
        size = size_text(file.size) if file.size is not None else "size not known"
        lines.append(f"    {file.part}  {size}{about}{asked}")
        if its_base == file.url:
            lines.append(f"      {file.url}")
        lines.append(f"      {_checked(file)}")
        if file.patterns != (file.part,):
            lines.append(f"      becomes {', '.join(file.patterns)}")
    return "\n".join(lines)


def _checked(file: OfficialFile) -> str:
    if len(file.sha256) == 64:
        return f"sha256 {file.sha256}"
    known = [f"md5 {file.md5}"] if file.md5 else []
    if file.sha256:
        known.append(f"sha256 {file.sha256}... (its beginning alone is known)")
    return ", ".join(known) or "checksum not known"


# ----------------------------------------------------------------------------------------------------- a page

_PAGE = """# Public data sets

What `sapis data fetch NAME` brings into `SAPIS_DATA`, and `sapis data show NAME` tells in full: units and
keys of the official files, their addresses and checksums, traps, and whom to cite. This page is made from the
catalogue, one file per set in `sapis_lab/catalogue/sets/`, by

    sapis data list --markdown > docs/data.md

and a test compares the two. Sizes are those of the downloads, as far as they are known.

"""


def markdown_page() -> str:
    """docs/data.md: a table of all sets, and the first citation of each."""
    lines = [
        "| set | what | labels, in units of the files | level | licence | size |",
        "|---|---|---|---|---|---|",
    ]
    for public in public_sets():
        labels = "; ".join(f"{label.name} ({label.unit})" for label in public.labels) or "-"
        size = "not downloaded for you" if public.not_fetched else _size_cell(public)
        cells = (
            f"`{public.name}`",
            f"{public.title}: {public.holds}",
            labels,
            public.level,
            public.licence,
            size,
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    cited = [
        f"- `{p.name}`: " + "; ".join(c.short() for c in p.citations) + f". {p.homepage}"
        for p in public_sets()
    ]
    return _PAGE + "\n".join(lines) + "\n\n## Whom to cite\n\n" + "\n".join(cited) + "\n"
