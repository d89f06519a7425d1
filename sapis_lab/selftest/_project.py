"""A small study in a project folder of its own, and how its end differs from another's: for fault
experiments."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from sapis_lab.files import is_temporary, write_text
from sapis_lab.records import differing_columns

PATIENCE = 600.0
"""How long one session of a study may take, s."""


def small_study(
    data: Path,
    *,
    cache: Path,
    question: str,
    n_params: tuple[float, ...] = (3e3, 6e3),
    n_frames: tuple[int, ...] = (12, 32),
    seeds: int = 1,
    steps: int = 150,
    workers: int = 2,
) -> dict[str, Any]:
    """Settings of a lattice of two models on `molecules.xyz` in the folder `data`: seconds a point, and a
    checkpoint every half second."""
    return {
        "question": question,
        "data": {
            "kind": "extxyz",
            "root": str(data),
            "train": "molecules.xyz",
            "n_validation": 8,
            "n_test": 4,
            "energy_unit": "eV",
            "length_unit": "Angstrom",
        },
        "models": [{"kind": "geat"}, {"kind": "transformer"}],
        "lattice": {"n_params": list(n_params), "n_frames": list(n_frames), "seeds": list(range(seeds))},
        "train": {"steps": steps, "batch_size": 4, "validations": 2},
        "law": {"bootstrap": 100, "calibrate": 0},
        "run": {"workers": workers, "checkpoint_seconds": 0.5, "cache": str(cache)},
    }


@dataclass
class Project:
    """A project folder with one study, and the command that runs it."""

    home: Path
    name: str
    log_file: Path
    """What all sessions print."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Of all sessions, beside that of this process."""

    @property
    def folder(self) -> Path:
        """The results of the study."""
        return self.home / "results" / self.name

    def write(self, study: dict[str, Any]) -> None:
        """Make `study` the study of the project."""
        write_text(self.home / "studies" / f"{self.name}.yaml", json.dumps(study, indent=1))  # JSON is YAML

    def start(self, *words: str, **environment: str) -> subprocess.Popen[bytes]:
        """`sapis WORDS` in the project, in a session of its own."""
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "sapis_lab.cli", *words],
                cwd=self.home,
                env={**os.environ, "SAPIS_HOME": str(self.home), **self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start_study(self, **environment: str) -> subprocess.Popen[bytes]:
        """Run the study, or continue it."""
        return self.start("study", "run", self.name, "--retry-failed", **environment)

    def end(self, process: subprocess.Popen[bytes]) -> int:
        """Wait for the end of `process`; its exit status.

        Raises:
            RuntimeError: it takes too long.
        """
        try:
            return process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise RuntimeError(f"{self.name} did not end within {PATIENCE:.0f} s:\n{self.log()}") from None

    def log(self) -> str:
        """The last lines that were printed."""
        return "\n".join(self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])

    def table(self) -> pd.DataFrame:
        """The runs table."""
        return pd.read_parquet(self.folder / "runs.parquet")

    def weights(self, id: str) -> str:
        """Checksum of the trained weights of a point; '' without any."""
        path = self.folder / "points" / id / "model.safetensors"
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


@dataclass(frozen=True)
class Difference:
    """What a disturbed study came to, beside the undisturbed one. Everything empty: the same, bit by bit but
    for times."""

    lost: list[str]
    """Points that are done in one alone."""
    duplicated: list[str]
    columns: list[str]
    """Of the table."""
    weights: list[str]
    """Points whose trained weights differ."""
    temporaries: list[str]
    """Files in the results folder that were half written and never removed."""

    @property
    def is_same(self) -> bool:
        """Nothing lost, doubled, different or left behind."""
        return not (self.lost or self.duplicated or self.columns or self.weights or self.temporaries)

    def __str__(self) -> str:
        found = [f"{name} {', '.join(values)}" for name, values in vars(self).items() if values]
        return "; ".join(found) or "same"


def difference(wanted: Project, found: Project) -> Difference:
    """How the results of `found` differ from those of `wanted`."""
    a, b = wanted.table(), found.table()
    done = [set(table.loc[table["status"] == "done", "id"]) for table in (a, b)]
    return Difference(
        lost=sorted(done[0] ^ done[1]),
        duplicated=sorted(b.loc[b["id"].duplicated(), "id"]),
        columns=differing_columns(a, b),
        weights=[id for id in a["id"] if wanted.weights(id) != found.weights(id)],
        temporaries=sorted(
            str(p.relative_to(found.folder)) for p in found.folder.rglob("*") if is_temporary(p)
        ),
    )
