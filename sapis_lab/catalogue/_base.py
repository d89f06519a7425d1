"""What the catalogue knows of a public data set."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True, kw_only=True)
class Citation:
    """A paper, or the deposit of a data set."""

    key: str
    """Key of the BibTeX entry."""
    authors: tuple[str, ...]
    """Names as BibTeX has them, "Family, Given"; "others" last where there are many."""
    title: str
    year: int
    journal: str = ""
    volume: str = ""
    pages: str = ""
    doi: str = ""
    arxiv: str = ""

    def bibtex(self) -> str:
        """The BibTeX entry, with a newline at its end."""
        fields = {
            "author": " and ".join(self.authors),
            "title": f"{{{self.title}}}",
            "journal": self.journal,
            "volume": self.volume,
            "pages": self.pages.replace("–", "--"),
            "year": str(self.year),
            "doi": self.doi,
            "eprint": self.arxiv,
            "archivePrefix": "arXiv" if self.arxiv else "",
        }
        kind = "article" if self.journal else "misc"
        body = "".join(f"  {key} = {{{value}}},\n" for key, value in fields.items() if value)
        return f"@{kind}{{{self.key},\n{body}}}\n"

    def short(self) -> str:
        """One line: 'Christensen and von Lilienfeld, Mach. Learn.: Sci. Technol. 1, 045018 (2020)'."""
        families = [name.split(",")[0] for name in self.authors]
        if len(families) > 2 or families[-1] == "others":
            who = f"{families[0]} et al."
        else:
            who = " and ".join(families)
        where = " ".join(word for word in (self.journal, self.volume) if word)
        where = ", ".join(word for word in (where, self.pages) if word)
        link = f"doi:{self.doi}" if self.doi else f"arXiv:{self.arxiv}" if self.arxiv else ""
        place = f"{who}, {where} ({self.year})" if where else f"{who} ({self.year})"
        return f"{place}, {link}" if link else place


@dataclass(frozen=True, kw_only=True)
class Label:
    """One quantity that the official files hold."""

    name: str
    """What it is, in our words: energy, forces, stress, dipole, gap, …"""
    unit: str
    """As the official files have it; of forces and positions too."""
    key: str = ""
    """Its key or column in the files."""
    note: str = ""
    """What is easily read wrongly: a sign, a total that is per atom, labels that are missing."""


@dataclass(frozen=True, kw_only=True)
class OfficialFile:
    """One file that can be downloaded."""

    part: str
    """Its name for `--file`."""
    url: str
    path: str
    """Where it lies below the folder of its set; of an archive that is unpacked, its own name."""
    n_bytes: int | None = None
    about_bytes: float | None = None
    """What its source says in round numbers, where the exact size is not known."""
    md5: str = ""
    sha256: str = ""
    """Hex digits; the first ones alone where the source gives no more."""
    unpack: bool = False
    """Whether it is an archive, or a compressed file, that is unpacked into the folder of its set."""
    drop: str = ""
    """A folder at the top of the archive that is left out of the paths."""
    gives: tuple[str, ...] = ()
    """Globs below the folder of its set by which it is recognised once it is there; `path` by default."""
    about: str = ""
    """What it holds, where its name does not say."""
    asked: bool = False
    """Downloaded only where `--file` names it."""

    def __post_init__(self) -> None:
        inside = PurePosixPath(self.path)
        if inside.is_absolute() or ".." in inside.parts:
            raise ValueError(f"{self.part}: path={self.path!r} leads out of the folder of its set")
        if not re.match(r"https?://", self.url):
            raise ValueError(f"{self.part}: url={self.url!r}, wanted http or https")

    @property
    def patterns(self) -> tuple[str, ...]:
        return self.gives or (self.path,)

    @property
    def size(self) -> float | None:
        """Bytes, exact or in round numbers; None where not known."""
        return self.about_bytes if self.n_bytes is None else self.n_bytes

    @property
    def checked_by(self) -> str:
        """What a download is compared with: 'sha256', 'md5', 'size', or nothing."""
        known = {"sha256": self.sha256, "md5": self.md5, "size": self.n_bytes}
        return " and ".join(name for name, value in known.items() if value)


@dataclass(frozen=True, kw_only=True)
class PublicSet:
    """A public data set."""

    name: str = ""
    """Its name here; that of its module by default."""
    title: str
    holds: str
    """Molecules or crystals, how many, how large."""
    labels: tuple[Label, ...]
    brief: str = ""
    """The labels in a word or two, for tables; by default E, F and the names of the others."""
    level: str
    """Level of theory, of the labels."""
    licence: str
    citations: tuple[Citation, ...]
    """The papers to cite, the one of the data first."""
    homepage: str
    data_doi: str = ""
    files: tuple[OfficialFile, ...] = ()
    folder: str = ""
    """Where its files lie below SAPIS_DATA; its name by default."""
    also: tuple[str, ...] = ()
    """Globs below its folder of other forms in which people have it, and which its reader takes."""
    kinds: tuple[str, ...] = ()
    """Kinds for formats that read it; a kind of its own names it itself (`DatasetConfig.catalogue`)."""
    not_fetched: str = ""
    """Why its files are not downloaded for you, and what to do."""
    notes: tuple[str, ...] = ()
    """What one must know to use it."""
    sources: tuple[str, ...] = ()
    """Where these facts were taken from."""

    @property
    def place(self) -> str:
        """The folder below SAPIS_DATA."""
        return self.folder or self.name

    @property
    def usual(self) -> tuple[OfficialFile, ...]:
        """The files that are downloaded when none is named."""
        return tuple(file for file in self.files if not file.asked)


def github(repository: str, commit: str, path: str) -> str:
    """The address of one version of a file in a public repository, whose bytes never change."""
    return f"https://raw.githubusercontent.com/{repository}/{commit}/{path}"


def github_files(
    repository: str, commit: str, listing: str, *, below: str = "", into: str = "", asked: bool = False
) -> tuple[OfficialFile, ...]:
    """Files of a public repository at one commit, each named by its path.

    Args:
        listing: one line per file, "path bytes sha256".   below: folder of the repository that the paths
        start from.   into: folder of the set that they go to.   asked: only where `--file` names them.
    """
    rows = [line.split() for line in listing.strip().splitlines()]
    return tuple(
        OfficialFile(
            part=f"{into}/{path}" if into else path,
            url=github(repository, commit, f"{below}/{path}" if below else path),
            path=f"{into}/{path}" if into else path,
            n_bytes=int(n_bytes),
            sha256=sha256,
            asked=asked,
        )
        for path, n_bytes, sha256 in rows
    )


def size_text(n_bytes: float | None) -> str:
    """'86.1 MB'; 'not known'."""
    if n_bytes is None:
        return "not known"
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 999.5:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} TB"
