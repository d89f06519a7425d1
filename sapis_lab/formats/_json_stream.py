"""Entries of a large JSON file, a list or an object, one after another: only one of them is in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from sapis_lab.errors import ConfigError
from sapis_lab.files import check_plain
from sapis_lab.formats._base import BROKEN, first_bytes, open_text

_PIECE = 2**20
_MOST = 2**28
"""Characters of one entry."""
_BLANK = " \t\r\n"


def json_start(path: Path) -> str:
    """The first character of a JSON file that is no blank; empty where there is none."""
    return first_bytes(path).decode("utf-8", "replace").lstrip("\ufeff" + _BLANK)[:1]


def json_entries(path: Path) -> Iterator[tuple[str, Any]]:
    """(key, value) of the entries of the object in `path`, or (number, value) of those of a list.

    Raises:
        ValueError: it is no JSON, or cut off; the message names the entry.
    """
    with open_text(path) as file:
        yield from _Entries(file, path)


class _Entries:
    def __init__(self, file: IO[str], path: Path) -> None:
        self._file, self._path = file, path
        self._text, self._at, self._end = "", 0, False
        self._n = 0

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        start = self._next()
        if start not in ("[", "{"):
            raise ValueError(f"{self._path}: wanted a JSON list or object, got none at the start of the file")
        close = "]" if start == "[" else "}"
        self._at += 1
        if self._next() == close:
            return
        while True:
            key = str(self._n)
            if start == "{":
                key = self._value()
                if not isinstance(key, str) or self._next() != ":":
                    self._refuse("wanted a key and a colon")
                self._at += 1
            value = self._value()
            try:
                check_plain(value, source=f"{self._path}, entry {key[:60]}")
            except ConfigError as error:
                raise ValueError(str(error)) from None
            yield key, value
            self._n += 1
            after = self._next()
            if after == close:
                return
            if after != ",":
                self._refuse(f"wanted a comma or {close!r}, got {after!r}" if after else "the file ends")
            self._at += 1

    def _next(self) -> str:
        """The next character that is no blank, which stays; empty at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _BLANK and self._text[self._at] != "\ufeff":
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def _more(self, n: int = _PIECE) -> bool:
        try:
            piece = self._file.read(n)
        except BROKEN as error:
            self._refuse(f"the compressed file ends or is damaged here ({error})")
        self._text, self._at = self._text[self._at :] + piece, 0
        self._end = not piece
        return bool(piece)

    def _value(self) -> Any:
        self._next()
        wanted = _PIECE
        while True:
            try:
                value, end = json.JSONDecoder().raw_decode(self._text, self._at)
            except RecursionError:
                self._refuse("nested too deeply")
            except ValueError as error:
                problem = str(error)
            else:
                if end < len(self._text) or self._end:  # a number may go on behind the end of the piece
                    self._at = end
                    return value
                problem = ""
            if len(self._text) - self._at > _MOST:
                self._refuse(f"longer than {_MOST} characters")
            # twice as much each time, so that a long entry is tried few times
            wanted = max(wanted, len(self._text) - self._at)
            if not self._more(wanted) and problem:
                self._refuse(f"not valid JSON, or cut off ({problem.split(':')[0]})")

    def _refuse(self, problem: str) -> None:
        raise ValueError(f"{self._path}, entry {self._n}: {problem}, wanted a JSON list or object of entries")
