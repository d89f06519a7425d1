"""The tiny study of these tests, and what was found of its points."""

from __future__ import annotations

import json

from sapis_lab.selftest._project import Project

NAME = "tiny"


def scores(project: Project, id: str, label: str) -> dict[str, float]:
    """The scores in a point's `evaluation/LABEL.json`."""
    path = project.folder / "points" / id / "evaluation" / f"{label}.json"
    return json.loads(path.read_text())["scores"]
