"""Raw arrays of a measurement on disk: a folder with one npz file for each part, and `measured.json`, which
holds what they were measured of and the sha256 of every file.

Each part is written whole, and noted after that: an interrupted measurement has the parts that it had
finished. What was measured of other weights or with other settings, or is damaged, is measured again.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sapis_lab.errors import ConfigError
from sapis_lab.files import (
    digest,
    read_bytes,
    read_json,
    with_checksum,
    without_checksum,
    write_bytes,
    write_text,
)

MANIFEST = "measured.json"


class Arrays:
    """The arrays in `folder` that were measured of what has `fingerprint`; others that lie there are removed
    when the first part is kept."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder, self.fingerprint = Path(folder), fingerprint
        self._digests: dict[str, str] = self._known()

    def _known(self) -> dict[str, str]:
        path = self.folder / MANIFEST
        try:
            raw = without_checksum(read_json(path), source=str(path), advice="measured again")
            if raw["fingerprint"] != self.fingerprint:
                return {}
            return {str(part): str(sha256) for part, sha256 in raw["parts"].items()}
        except (ConfigError, KeyError, AttributeError):
            return {}

    def has(self, part: str) -> bool:
        """Whether a part is there, with the bytes that were written."""
        try:
            return part in self._digests and digest(self._path(part)) == self._digests[part]
        except ConfigError:
            return False

    def keep(self, part: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the arrays of a part."""
        for name, array in arrays.items():
            if np.asarray(array).dtype.hasobject:
                raise ValueError(f"{part}: {name} holds Python objects, wanted numbers or text")
        if not self._digests:
            for old in self.folder.glob("*.npz"):
                old.unlink()
        data: Any = io.BytesIO()
        named: dict[str, Any] = {name: np.asarray(array) for name, array in arrays.items()}
        np.savez(data, **named)
        write_bytes(self._path(part), data.getvalue())
        self._digests[part] = digest(self._path(part))
        text = json.dumps(with_checksum({"fingerprint": self.fingerprint, "parts": self._digests}), indent=1)
        write_text(self.folder / MANIFEST, text + "\n")

    def read(self, part: str) -> dict[str, np.ndarray]:
        """The arrays of a part that is there."""
        with np.load(io.BytesIO(read_bytes(self._path(part), limit=None)), allow_pickle=False) as file:
            return dict(file)

    def _path(self, part: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", part):
            raise ValueError(f"{part!r} cannot name a part: wanted letters, digits, '_', '.' and '-'")
        return self.folder / f"{part}.npz"


def damaged_parts(folder: Path) -> list[str]:
    """What is not whole of a folder of arrays, one sentence each."""
    path, again = folder / MANIFEST, f"remove {folder}, whose scores do not need it"
    try:
        raw = without_checksum(read_json(path, keys=["parts"]), source=str(path), advice=again)
        wanted = {folder / f"{part}.npz": sha256 for part, sha256 in raw["parts"].items()}
        damaged = [file for file, sha256 in wanted.items() if digest(file) != sha256]
        return [f"{file}: not what was written; {again}" for file in damaged]
    except (ConfigError, AttributeError) as error:
        return [str(error)]
