"""What a store says of the oracle that labelled its frames."""

from __future__ import annotations

from typing import Any

from sapis_lab.config import identity
from sapis_lab.data._sources import data_root, need_file, sha256
from sapis_lab.oracles import OracleConfig
from sapis_lab.packages import versions


def oracle_record(oracle: OracleConfig) -> dict[str, Any]:
    """Kind, version, level of theory and settings, the versions of its packages here, and the sha256 of its
    files, as plain data.

    Raises:
        ValueError: a file that it reads is missing.
    """
    root = data_root(None) if oracle.files() else None
    found = versions(type(oracle).packages)  # of one that is missing, labels will say which extra has it
    return {
        "kind": oracle.kind,
        "version": type(oracle).version,
        "level": oracle.level(),
        "settings": identity(oracle),
        "packages": {name: found.get(name) for name in type(oracle).packages},
        "files": {} if root is None else {name: sha256(need_file(root, name)) for name in oracle.files()},
    }
