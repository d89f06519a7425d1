"""One archive with what a paper needs of a study: `sapis study export NAME`.

    NAME/study.yaml, provenance.json, points.json     the question, the lattice and where the numbers come
    from NAME/runs.csv, runs.parquet, fit.json             the numbers and the laws
    NAME/figures/, report.html                        as they were last drawn
    NAME/points/ID/record.json, config.yaml, metrics.csv, failure.txt, evaluation/
    NAME/SHA256SUMS                                   of all of them, as `sha256sum -c` reads it

Equal contents give equal bytes: entries are sorted and carry no times.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

from sapis_lab.config import ConfigError
from sapis_lab.errors import disk_error
from sapis_lab.files import replacing
from sapis_lab.records import EVALUATIONS
from sapis_lab.sweep.lock import refuse_if_running
from sapis_lab.sweep.manifest import MANIFEST

TOP = (
    "study.yaml",
    "provenance.json",
    MANIFEST,
    "runs.csv",
    "runs.parquet",
    "fit.json",
    "regime.json",
    "report.html",
    "events.jsonl",
)
OF_A_POINT = ("config.yaml", "record.json", "metrics.csv", "failure.txt")
MODEL = ("model.safetensors", "model.yaml")
SUMS = "SHA256SUMS"
_EPOCH = (1980, 1, 1, 0, 0, 0)


def export(folder: Path, target: Path, *, models: bool = False) -> list[str]:
    """Write the archive `target` (a .zip) of a results folder in one step; the names in it.

    Args:
        models: with the trained potentials, which is most of the bytes.

    Raises:
        Locked: another process works on the study.
        ConfigError: there is no table to export, `target` is no .zip, or it cannot be written.
    """
    if target.suffix != ".zip":
        raise ConfigError(f"{target}: wanted a file name that ends in .zip")
    if not (folder / "runs.csv").exists():
        raise ConfigError(
            f"{folder.name}: no runs.csv in {folder}; run the study first: sapis study run {folder.name}"
        )
    refuse_if_running(folder)
    files, sums = dict(_files(folder, models)), ""
    try:
        with replacing(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, path in files.items():
                data = path.read_bytes()  # once: the sum is of what is packed
                sums += f"{hashlib.sha256(data).hexdigest()}  {name}\n"
                archive.writestr(_entry(f"{folder.name}/{name}"), data)
            archive.writestr(_entry(f"{folder.name}/{SUMS}"), sums)
    except OSError as error:
        raise disk_error(error, about=target) or ConfigError(
            f"{target}: cannot be written: {error.strerror or error}"
        ) from None
    return [*files, SUMS]


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, date_time=_EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry


def _files(folder: Path, models: bool) -> Iterator[tuple[str, Path]]:
    """Names in the archive and files, sorted; links are left out, which could lead anywhere."""
    wanted = [folder / name for name in TOP]
    wanted += [
        p
        for p in (folder / "figures").rglob("*")
        if not any(part.startswith(".") for part in p.relative_to(folder).parts)
    ]
    for place in (folder / "points").glob("*"):
        wanted += [place / name for name in (*OF_A_POINT, *(MODEL if models else ()))]
        wanted += (place / EVALUATIONS).glob("*.json")
    found = {str(p.relative_to(folder)): p for p in wanted if p.is_file() and not p.is_symlink()}
    yield from sorted(found.items())
