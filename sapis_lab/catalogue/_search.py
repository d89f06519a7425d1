"""The sets of the catalogue by name, and by the names of their files."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import cache
from pathlib import PurePath, PurePosixPath

from sapis_lab.catalogue import sets
from sapis_lab.catalogue._base import OfficialFile, PublicSet, size_text
from sapis_lab.errors import ConfigError


@cache
def _all() -> dict[str, PublicSet]:
    """The sets of all public modules of `sets`, by their names, in alphabetical order."""
    modules = [m.name for m in pkgutil.iter_modules(sets.__path__) if not m.name.startswith("_")]
    found = []
    for module in modules:
        public: PublicSet = importlib.import_module(f"{sets.__name__}.{module}").SET
        found.append(public if public.name else replace(public, name=module))
    return {public.name: public for public in sorted(found, key=lambda public: public.name)}


def names() -> tuple[str, ...]:
    """Names of all sets, in alphabetical order."""
    return tuple(_all())


def public_sets() -> tuple[PublicSet, ...]:
    """All sets, by name."""
    return tuple(_all().values())


def public_set(name: str) -> PublicSet:
    """The set of that name; ConfigError names the nearest one where there is none."""
    plain = name.lower().replace("-", "_")
    if plain not in names():
        near = get_close_matches(plain[:100], names(), n=1, cutoff=0.5)
        meant = f" did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"no public data set {name[:100]!r} in the catalogue;{meant} known: {', '.join(names())}"
        )
    return _all()[plain]


def fetching_advice(wanted: Sequence[str | PurePath], *, name: str | None = None) -> str:
    """What downloads a file that is missing, empty where the catalogue does not know it: "it is public (MIT,
    4.11 MB), and downloaded by: sapis data fetch acac".

    Args:
        wanted: paths that would do; the ends of their names are compared with what the sets give.   name: the
        set that the reader is of, taken where no file of the catalogue has that name.
    """
    found = next((pair for path in wanted for pair in _giving(PurePath(path))), None)
    if found is not None:
        return _advice(*found)
    return _advice(public_set(name), None) if name is not None else ""


def _giving(path: PurePath) -> list[tuple[PublicSet, OfficialFile]]:
    by_folder = sorted(public_sets(), key=lambda public: public.name != public.place)
    return [
        (public, file)
        for public in by_folder
        if public.place in path.parts
        for file in public.files
        if any(path.match(f"{public.place}/{name}") for pattern in file.patterns for name in _names(pattern))
    ]


def _names(pattern: str) -> list[str]:
    """A pattern, and the folders that it leads through."""
    return [pattern, *(str(folder) for folder in PurePosixPath(pattern).parents if folder.name)]


def _advice(public: PublicSet, file: OfficialFile | None) -> str:
    if public.not_fetched:
        return f"it is public, and where to get it says: sapis data show {public.name}"
    files = public.usual
    if file is not None and file.asked:
        command, files = f"sapis data fetch {public.name} --file {file.part}", (file,)
    elif files:
        command = f"sapis data fetch {public.name}"
    else:
        return f"it is public, and its files are listed by: sapis data show {public.name}"
    sizes = [f.size for f in files]
    total = None if None in sizes else sum(s for s in sizes if s is not None)
    size = "size not known" if total is None else size_text(total)
    licence = public.licence.split(" (")[0].replace("not ", "licence not ")
    return f"it is public ({licence}, {size}), and downloaded by: {command}"
