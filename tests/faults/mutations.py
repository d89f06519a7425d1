"""Damage that a disk, an editor or a script may do to the results of a finished study: 138 kinds of it, each
one a function of folders."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

NAME = "small"
FUTURE = 4_000_000_000
"""A time in 2096, s."""


@dataclass(frozen=True)
class Place:
    """The folders of the study."""

    home: Path

    @property
    def results(self) -> Path:
        return self.home / "results" / NAME

    @property
    def points(self) -> list[Path]:
        return sorted(p for p in (self.results / "points").iterdir())

    @property
    def point(self) -> Path:
        return self.points[0]

    @property
    def store(self) -> Path:
        return next(iter((self.home / "cache").glob("*/manifest.json"))).parent


Change = Callable[[Path], None]


@dataclass(frozen=True)
class Mutation:
    """One kind of damage."""

    kind: str
    """Of the file: `record.json`, ..."""
    what: str
    where: Callable[[Place], Path]
    change: Change
    beside: Callable[[Place], None] = lambda place: None
    """What else must be so for the file to be read."""

    @property
    def is_undone(self) -> bool:
        """A point is not done any more, so that it has to be trained again."""
        return self.beside in (_undone, _to_train_again)

    @property
    def name(self) -> str:
        return f"{self.kind}: {self.what}"

    def apply(self, place: Path) -> tuple[str, ...]:
        """Do the damage; the words one of which must tell it: the file, or its folder."""
        folders = Place(place)
        path = self.where(folders)
        words = (path.name, path.parent.name) if path.parent != folders.results else (path.name,)
        self.beside(folders)
        self.change(path)
        return words


# ----------------------------------------------------------------------------------------- damage to any file


def _zero(path: Path) -> None:
    path.write_bytes(b"")


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _cut(path: Path) -> None:
    """Without the last 2 bytes."""
    path.write_bytes(path.read_bytes()[:-2])


def _nulls(path: Path) -> None:
    """As long as before, all zero bytes: what some file systems leave."""
    path.write_bytes(bytes(path.stat().st_size))


def _not_utf8(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x80 " + path.read_bytes())


def _missing(path: Path) -> None:
    path.unlink()


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _loop(path: Path) -> None:
    """A link to itself: nobody can read it, not even root."""
    path.unlink()
    path.symlink_to(path.name)


def _future(path: Path) -> None:
    os.utime(path, (FUTURE, FUTURE))


def _ancient(path: Path) -> None:
    os.utime(path, (1, 1))


def _text(text: str) -> Change:
    return lambda path: path.write_bytes(text.encode())  # type: ignore[return-value]


def _flip(share: float, bit: int) -> Change:
    """The bit of the byte at `share` of the file."""

    def change(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[int(share * (len(data) - 1))] ^= 1 << bit
        path.write_bytes(bytes(data))

    return change


def _replace(old: bytes, new: bytes) -> Change:
    """The first `old` in the file."""

    def change(path: Path) -> None:
        data = path.read_bytes()
        assert old in data, (path, old)
        path.write_bytes(data.replace(old, new, 1))

    return change


def _json(**values: Any) -> Change:
    """Set keys, with `__` between those of one mapping and the next; ... deletes."""

    def change(path: Path) -> None:
        raw = json.loads(path.read_text())
        for dotted, value in values.items():
            *above, last = dotted.split("__")
            inner = raw
            for key in above:
                inner = inner[key]
            if value is ...:
                del inner[last]
            else:
                inner[last] = value(inner[last]) if callable(value) else value
        path.write_text(json.dumps(raw, indent=1) + "\n")

    return change


def _other_point(path: Path) -> None:
    """The same file of the other point."""
    other = next(p for p in sorted(path.parent.parent.iterdir()) if p != path.parent)
    shutil.copy(other / path.name, path)


def _swapped(path: Path) -> None:
    other = next(p for p in sorted(path.parent.parent.iterdir()) if p != path.parent) / path.name
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)


def _digit(key: str) -> Change:
    """One bit of the first digit behind the point of a number: still a number."""

    def change(path: Path) -> None:
        data = bytearray(path.read_bytes())
        at = data.index(b".", data.index(f'"{key}"'.encode())) + 1
        data[at] ^= 1
        path.write_bytes(bytes(data))

    return change


NOT_CUT: dict[str, Change] = {"zero bytes": _zero, "folder": _folder, "pipe": _pipe}
FORMS: dict[str, Change] = {**NOT_CUT, "cut in half": _half}


def _some(
    kind: str, where: Callable[[Place], Path], changes: dict[str, Change], **more: Any
) -> Iterator[Mutation]:
    yield from (Mutation(kind, what, where, change, **more) for what, change in changes.items())


# ----------------------------------------------------------------------------------------------- file by file


def _records() -> Iterator[Mutation]:
    yield from _some(
        "record.json",
        lambda place: place.point / "record.json",
        {
            **FORMS,
            "last bytes missing": _cut,
            "null bytes": _nulls,
            "not UTF-8": _not_utf8,
            "link to itself": _loop,
            "missing": _missing,
            "dated in the future": _future,
            "dated long ago": _ancient,
            "null": _text("null"),
            "empty object": _text("{}"),
            "too deep": _text("[" * 100_000),
            "swapped with another": _swapped,
            "copy of another": _other_point,
            "other id": _json(id="somebody"),
            "empty id": _json(id=""),
            "huge N": _json(n_params=10**400),
            "one parameter more": _json(n_params=lambda n: n + 1),
            "one frame more": _json(n_frames=lambda n: n + 1),
            "other seed": _json(seed=lambda n: n + 1),
            "twice the rate": _json(learning_rate=lambda r: 2 * r),
            "other fingerprint": _json(fingerprint="0" * 64),
            "error -1": _json(metrics__val_force_rmse=-1.0),
            "error NaN": _json(metrics__val_force_rmse=float("nan")),
            "error infinite": _json(metrics__val_force_rmse=float("inf")),
            "error 1e300": _json(metrics__val_force_rmse=1e300),
            "error text": _json(metrics__val_force_rmse="small"),
            "error missing": _json(metrics__val_force_rmse=...),
            "no errors": _json(metrics={}),
            "negative FLOPs": _json(flops_train=-1.0),
            "other science": _json(science__n_frames=7),
            "no science": _json(science=None),
            "newer schema": _json(schema_version=99),
            "without id": _json(id=...),
            "without fingerprint": _json(fingerprint=...),
            "without N": _json(n_params=...),
            "without errors": _json(metrics=...),
            "bit 0 at the start": _flip(0.0, 0),
            "bit 7 in the middle": _flip(0.5, 7),
            "bit 2 at a third": _flip(0.33, 2),
            "bit of a digit of the error": _digit("val_force_rmse"),
        },
    )


def _potentials() -> Iterator[Mutation]:
    yield from _some(
        "model.safetensors",
        lambda place: place.point / "model.safetensors",
        {
            **FORMS,
            "bit of the header": _flip(0.01, 1),
            "bit in the middle": _flip(0.6, 3),
            "swapped with another": _swapped,
            "missing": _missing,
        },
    )
    yield from _some(
        "model.yaml",
        lambda place: place.point / "model.yaml",
        {
            **NOT_CUT,
            "not UTF-8": _not_utf8,
            "null": _text("null\n"),
            "copy of another": _other_point,
            "missing": _missing,
        },
    )


def _edited_table(path: Path) -> None:
    table = pd.read_parquet(path)
    table["val_force_rmse"] *= 2
    table.to_parquet(path, index=False)


def _shorter_table(path: Path) -> None:
    pd.read_parquet(path).iloc[:1].to_parquet(path, index=False)


def _edited_csv(path: Path) -> None:
    table = pd.read_csv(path)
    table["val_force_rmse"] = -table["val_force_rmse"]
    table.to_csv(path, index=False)


def _tables() -> Iterator[Mutation]:
    yield from _some(
        "runs.parquet",
        lambda place: place.results / "runs.parquet",
        {**FORMS, "edited": _edited_table, "a row less": _shorter_table, "bit in the middle": _flip(0.3, 4)},
    )
    yield from _some(
        "runs.csv",
        lambda place: place.results / "runs.csv",
        {**FORMS, "edited": _edited_csv, "missing": _missing},
    )


def _empty_figures(path: Path) -> None:
    for file in path.parent.iterdir():
        file.write_bytes(b"")


def _answers() -> Iterator[Mutation]:
    yield from _some(
        "fit.json",
        lambda place: place.results / "fit.json",
        {
            **FORMS,
            "list": _text("[1]"),
            "null": _text("null"),
            "not UTF-8": _not_utf8,
            "other quantity": _json(quantity="test_energy_mae"),
            "missing": _missing,
        },
    )
    yield from _some(
        "answers.json", lambda place: place.results / "answers.json", {**NOT_CUT, "null": _text("null")}
    )
    yield from _some(
        "report.html", lambda place: place.results / "report.html", {**NOT_CUT, "missing": _missing}
    )
    yield from _some(
        "figures",
        lambda place: min((place.results / "figures").glob("*.pdf")),
        {
            "one empty": _zero,
            "all empty": _empty_figures,
            "one missing": _missing,
            "folder in place of one": _folder,
        },
    )
    yield Mutation(
        "figures", "file in place of the folder", lambda place: place.results / "figures", _file_for_folder
    )


def _file_for_folder(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("figures")


def _edited_quantity(path: Path) -> None:
    _replace(b"quantity: val_force_rmse", b"quantity: val_force_mae")(path)


def _settings() -> Iterator[Mutation]:
    def edited(**values: Any) -> Change:
        def change(path: Path) -> None:
            raw = json.loads(path.read_text())
            raw["points"][0].update(values)
            path.write_text(json.dumps(raw))

        return change

    yield from _some(
        "points.json",
        lambda place: place.results / "points.json",
        {
            **FORMS,
            "null": _text("null"),
            "not UTF-8": _not_utf8,
            "missing": _missing,
            "no points": _json(points=[]),
            "other fingerprint": edited(fingerprint="0" * 64),
            "negative N": edited(n_params=-1),
            "name that leads out": edited(id="../../outside"),
        },
    )
    yield from _some(
        "study.yaml",
        lambda place: place.results / "study.yaml",
        {**FORMS, "null": _text("null\n"), "not UTF-8": _not_utf8, "other quantity": _edited_quantity},
    )
    yield from _some(
        "provenance.json",
        lambda place: place.results / "provenance.json",
        {**FORMS, "null": _text("null"), "not UTF-8": _not_utf8},
    )


def _undone(place: Place) -> None:
    """The first point is not done, nor is its record kept elsewhere."""
    (place.point / "record.json").unlink()
    shutil.rmtree(place.results / "records" / place.point.name)


def _logs() -> Iterator[Mutation]:
    yield from _some(
        "events.jsonl",
        lambda place: place.results / "events.jsonl",
        {"folder": _folder, "pipe": _pipe, "not UTF-8": _not_utf8},
    )
    yield from _some(
        "progress.json",
        lambda place: place.point / "progress.json",
        {**FORMS, "null": _text("null"), "text as step": _json(step="five", seconds="long")},
        beside=_undone,
    )
    yield from _some(
        ".lock",
        lambda place: place.results / ".lock",
        {"folder": _folder, "pipe": _pipe, "not text": _text("\x00\x01" * 400)},
    )
    failure: dict[str, Change] = {
        "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe\n"),
        "folder": lambda path: path.mkdir(),
        "pipe": os.mkfifo,
    }
    yield from _some(
        "failure.txt",
        lambda place: place.point / "failure.txt",
        failure,
        beside=_undone,
    )


def _to_train_again(place: Place) -> None:
    """Without the first point, so that the data are read."""
    shutil.rmtree(place.results / "records" / place.point.name)
    shutil.rmtree(place.point)


def _data() -> Iterator[Mutation]:
    files = {
        "positions.npy": {"cut in half": _half, "bit in the middle": _flip(0.5, 6)},
        "energy.npy": {"bit in the middle": _flip(0.5, 5)},
        "manifest.json": {"zero bytes": _zero, "null": _text("null")},
        "splits/train-1.npy": {"cut in half": _half},
    }
    for name, changes in files.items():
        yield from _some(
            f"store/{name}", lambda place, name=name: place.store / name, changes, beside=_to_train_again
        )


MUTATIONS = [*_records(), *_potentials(), *_tables(), *_answers(), *_settings(), *_logs(), *_data()]
