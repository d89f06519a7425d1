"""What README shows works as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def code(heading: str) -> str:
    """The first Python block under a heading of README."""
    section = (REPOSITORY / "README.md").read_text(encoding="utf-8").split(f"\n## {heading}\n")[1]
    block = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return block[1]


@pytest.fixture
def with_the_model(project: Path) -> dict[str, str]:
    """The environment of a project with README's model as one more kind, in a file outside of the package."""
    place = project / "mine" / "models"
    place.mkdir(parents=True)
    (place / "mymodel.py").write_text(code("Add a model in one file"), encoding="utf-8")
    (project / "configs" / "models" / "mymodel.yaml").write_text("kind: mymodel\n")
    return {**os.environ, "SAPIS_KINDS": str(project / "mine")}


def test_the_model_of_the_readme_passes_the_contract_tests(
    with_the_model: dict[str, str], project: Path
) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "mymodel",
        "tests/contracts",
    ]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=with_the_model, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-6000:]
    n = re.search(r"(\d+) passed", done.stdout)
    assert n is not None and int(n[1]) > 40, done.stdout[-500:]


def test_the_model_of_the_readme_can_be_studied(with_the_model: dict[str, str], project: Path) -> None:
    study = (project / "studies" / "smoke.yaml").read_text()
    (project / "studies" / "mine.yaml").write_text(
        re.sub(r"models: .*", "models: [mymodel, {use: mymodel, name: other}]", study)
    )
    command = [sys.executable, "-m", "sapis_lab.cli", "study", "plan", "mine"]
    done = subprocess.run(
        command, cwd=project, env=with_the_model, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "mymodel-n" in done.stdout and "other-n" in done.stdout


def test_the_programs_that_the_readme_names_are_there() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    verbs = set(re.findall(r"^    make ([a-z]+)", text, re.MULTILINE))
    makefile = (REPOSITORY / "Makefile").read_text()
    assert verbs and all(re.search(rf"^{verb}:", makefile, re.MULTILINE) for verb in verbs)
