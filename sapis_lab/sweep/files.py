"""Study files as plain data, before anything heavy is imported to understand them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from sapis_lab import outside
from sapis_lab.config import MOST_NAME, ConfigError, home, override, plainly, read_yaml
from sapis_lab.text import without_password

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def checked_name(name: str) -> str:
    """`name`, if it can name a study; ConfigError otherwise (it must not lead out of studies/ or
    results/)."""
    if len(name) > MOST_NAME:
        raise ConfigError(
            f"{name[:20]!r}... cannot name a study: wanted at most {MOST_NAME} characters, got {len(name)}"
        )
    if not NAME.fullmatch(name) or ".." in name:
        raise ConfigError(
            f"{name!r} cannot name a study: wanted letters, digits, '_', '-' and '.', without a path or "
            f"suffix"
        )
    return name


_URL = re.compile(r"(?P<driver>postgres(?:ql)?(?:\+psycopg)?)://(?P<rest>\S+/\S+|\S*\?\S+)")


def checked_url(url: str) -> str:
    """`url` of a PostgreSQL database, for the driver psycopg; ValueError otherwise, without its password."""
    match = _URL.fullmatch(url)
    if match is None:
        wanted = "wanted the URL of a PostgreSQL database, as in postgresql+psycopg://user@host/database"
        raise ValueError(f"{wanted}, got {_without_any_password(url)!r}")
    return f"postgresql+psycopg://{match['rest']}"


def _without_any_password(text: str) -> str:
    """What is no URL may hold a password all the same: all from a colon to the last @ goes, and without an @
    all that is no port."""
    text = re.sub(r":(?!//).*@", ":***@", without_password(text), flags=re.DOTALL)
    return (
        text
        if "@" in text
        else re.sub(r"(?<=//)([^\s:/]*):(?!\d+(?:/|$)).*", r"\1:***", text, flags=re.DOTALL)
    )


def study_names() -> list[str]:
    """The studies of this project."""
    return sorted(p.stem for p in (home() / "studies").glob("*.yaml"))


def raw_study(name: str, settings: Sequence[str] = (), *, called: str | None = None) -> dict[str, Any]:
    """The study file as plain data with `settings` (`key=value`) laid on it, under the name `called` if
    given.

    ConfigError names the nearest study when there is none.
    """
    checked_name(name)
    known = study_names()
    if name not in known:
        near = get_close_matches(name.removesuffix(".yaml"), known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"no study {name!r} in studies/; {hint}known: {', '.join(known) or 'none'}")
    raw = override(read_yaml(home() / "studies" / f"{name}.yaml"), settings)
    if raw.setdefault("name", name) != name:
        raise ConfigError(
            f"studies/{name}.yaml: name is {raw['name']!r}; leave it out, the file name is the name"
        )
    if isinstance(place := raw.get("kinds"), str):
        plainly(lambda: outside.add(home() / place), about=f"studies/{name}.yaml: kinds")
    return {**raw, "name": checked_name(called or name)}
