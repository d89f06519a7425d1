"""`points.json` of a results folder: the lattice of a study as it was last resolved, and what it was made
from. Nothing heavy is imported here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from sapis_lab import outside
from sapis_lab.config import Config, ConfigError, dump, home, load
from sapis_lab.errors import MissingFile
from sapis_lab.files import digest, read_bytes, read_json, with_checksum, without_checksum, write_text
from sapis_lab.records import Planned

MANIFEST, SETTINGS = "points.json", "study.yaml"


class Manifest(Config):
    """`points.json`: the lattice of a study as it was last resolved."""

    schema_version: int = 1
    inputs: str
    """sha256 of all files the lattice was made from: the study, the configs, the program. While it holds,
    nothing has changed."""
    points: tuple[Planned, ...]
    """In the order of the lattice."""
    expected_seconds: dict[str, float] = {}
    """Estimated time of every point, s."""
    settings: str | None = None
    """sha256 of study.yaml, the resolved settings that were written with it; none in lists of older
    versions."""


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `points.json`, which belongs to the `study.yaml` that is there."""
    if (folder / SETTINGS).is_file():
        manifest = manifest.model_copy(update={"settings": digest(folder / SETTINGS)})
    write_text(
        folder / MANIFEST, json.dumps(with_checksum(dump(manifest)), indent=1, ensure_ascii=False) + "\n"
    )


def read_manifest(folder: Path) -> Manifest:
    """The lattice of a results folder. ConfigError when the study was never started."""
    path = folder / MANIFEST
    again = "run the study again to write it anew"
    try:
        raw = without_checksum(read_json(path, then=again), source=str(path), advice=again)
    except MissingFile:
        raise MissingFile(f"{path}: no such file; the study {folder.name!r} has not been started") from None
    return load(Manifest, raw, source=str(path))


def refuse_other_study_file(folder: Path, manifest: Manifest) -> None:
    """Raise ConfigError if `study.yaml` is not what was written with the list of points: cut, it may still be
    YAML, of other settings."""
    path = folder / SETTINGS
    if manifest.settings is not None and digest(path) != manifest.settings:
        raise ConfigError(
            f"{path} is not what was written with {MANIFEST}: it was damaged or edited; run the study again "
            f"to write it anew"
        )


_SOURCES = (".py", ".j2", ".mplstyle", ".cpp", ".h", ".cu")
_ASIDE = ("bench", "selftest", "cli")


def inputs_hash(name: str, settings: Sequence[str]) -> str:
    """sha256 of the study file with its overrides, all configs and the program: what a study's lattice and
    answers depend on.

    Of the program it takes every source that numbers or answers can depend on, the C++ kernels too; what only
    measures, tests or prints (`_ASIDE`) may change without reopening a study.
    """
    package = Path(__file__).resolve().parent.parent
    files = [home() / "studies" / f"{name}.yaml", *sorted((home() / "configs").rglob("*.yaml"))]
    files += sorted(
        p
        for p in package.rglob("*")
        if p.suffix in _SOURCES and p.relative_to(package).parts[0] not in _ASIDE
    )
    files += sorted(p for place in outside.folders() for p in place.rglob("*.py"))
    files += sorted((home() / "results").glob("*/regime.json"))  # rules that a study may take its rates from
    digest = hashlib.sha256(json.dumps(list(settings)).encode())
    for path in files:
        digest.update(path.name.encode() + b"\0" + (read_bytes(path) if path.exists() else b""))
    return digest.hexdigest()
