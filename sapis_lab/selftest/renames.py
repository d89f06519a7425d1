"""A process that is killed just before, or just after, it gives a file its name: `sapis selftest renames`.

Every file of a study is written under a temporary name and renamed. A tiny study runs undisturbed first,
which shows the kinds of files that are renamed. Then it runs once for every kind and either side of the
rename: the process that renames the first file of that kind, the engine, the launcher or a point, gets a
SIGKILL there, and the study is started again until it ends. Table and trained weights must be those of the
undisturbed run, bit by bit but for times, and no half-written file may be left.
"""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sapis_lab.config import ConfigError
from sapis_lab.selftest import _rename_hook
from sapis_lab.selftest._project import Project, difference, small_study
from sapis_lab.selftest.ranks import write_molecules

NAME = "renames"
SIDES: tuple[Side, ...] = ("before", "after")
STARTS = 4
"""How often a command is started before it counts as stuck."""

Side = Literal["before", "after"]


@dataclass(frozen=True)
class Plan:
    """Which renames are fatal."""

    kinds: tuple[str, ...] = ("*",)
    """Globs of kinds."""
    each: bool = False
    """Every rename of a kind, not the first alone."""
    steps: int = 8


@dataclass
class Case:
    """One run that was killed at a rename."""

    kind: str
    side: Side
    number: int
    """Which rename of its kind, from 1."""
    result: str = ""
    """`same`, or what is not."""


@dataclass
class Outcome:
    """What all runs came to."""

    renames: Counter[str]
    """Of the undisturbed run, by kind."""
    cases: list[Case] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_same(self) -> bool:
        """Every run ended like the undisturbed one."""
        return all(case.result == "same" for case in self.cases)


def run_renames(plan: Plan, *, say: Callable[[str], None] = print) -> int:
    """Run it and print what came out; the exit status: 1 if any run ended otherwise than the undisturbed
    one."""
    with tempfile.TemporaryDirectory(prefix="sapis-renames-") as place:
        found = kill_at_renames(Path(place), plan, say=say)
    width = max(map(len, found.renames))
    say(f"\n{'kind':<{width}}  renames  before  after")
    for kind, n in sorted(found.renames.items()):
        results = {
            side: [c.result for c in found.cases if (c.kind, c.side) == (kind, side)] for side in SIDES
        }
        cells = [("same" if set(r) == {"same"} else "DIFFERS") if r else "-" for r in results.values()]
        say(f"{kind:<{width}}  {n:>7}  {cells[0]:<6}  {cells[1]}")
    for case in found.cases:
        if case.result != "same":
            say(f"{case.kind}, number {case.number}, {case.side}: {case.result}")
    n_same = sum(case.result == "same" for case in found.cases)
    n_kinds = len({case.kind for case in found.cases})
    say(
        f"{len(found.cases)} SIGKILLs at renames of {n_kinds} kinds; {n_same} ended in the same table and "
        f"weights"
    )
    say(f"{found.seconds:.0f} s")
    return 0 if found.is_same else 1


def kill_at_renames(place: Path, plan: Plan, *, say: Callable[[str], None]) -> Outcome:
    """Run the study undisturbed and once for every rename to die at, below `place`.

    Raises:
        ConfigError: no kind of file is renamed that `plan.kinds` names.   RuntimeError: the undisturbed run
        fails.
    """
    begin = time.monotonic()
    write_molecules(place / "molecules.xyz")
    hooks = place / "hooks"
    hooks.mkdir()
    shutil.copy(_rename_hook.__file__, hooks / "sitecustomize.py")
    calm = _Run(place, "calm", plan, hooks)
    status = calm.to_the_end(None)
    if status:
        raise RuntimeError(f"the undisturbed run: {status}\n{calm.project.log()}")
    found = Outcome(Counter(line["kind"] for line in calm.lines() if "kind" in line))
    kinds = sorted(
        kind for kind in found.renames if any(fnmatch.fnmatchcase(kind, glob) for glob in plan.kinds)
    )
    if not kinds:
        known = ", ".join(sorted(found.renames))
        raise ConfigError(f"--kinds {','.join(plan.kinds)}: no such file is renamed; there are {known}")
    n_renames, seconds = sum(found.renames.values()), time.monotonic() - begin
    say(f"undisturbed: {n_renames} renames of {len(found.renames)} kinds in {seconds:.0f} s")
    for case in _cases(found, kinds, plan):
        started = time.monotonic()
        run = _Run(place, "killed", plan, hooks)
        if not case.kind.startswith("kernels/"):  # building one takes ten seconds
            shutil.copytree(calm.kernels, run.kernels)
        case.result = run.to_the_end(case) or str(difference(calm.project, run.project))
        who = next((line["command"] for line in run.lines() if "killed" in line), None)
        if who is None and case.result == "same":
            case.result = "nobody was killed: no such rename in this run"
        found.cases.append(case)
        shutil.rmtree(run.project.home)
        run.log.unlink()
        say(f"  {case.kind} {case.number} {case.side}: {case.result}, {time.monotonic() - started:.0f} s")
    found.seconds = time.monotonic() - begin
    return found


def _cases(found: Outcome, kinds: list[str], plan: Plan) -> Iterator[Case]:
    for kind in kinds:
        for number in range(1, 1 + (found.renames[kind] if plan.each else 1)):
            for side in SIDES:
                yield Case(kind, side, number)


@dataclass
class _Run:
    """The study in a folder of its own, with its data and its compiled kernels."""

    place: Path
    name: str
    plan: Plan
    hooks: Path

    @property
    def project(self) -> Project:
        path = os.pathsep.join(filter(None, [str(self.hooks), os.environ.get("PYTHONPATH")]))
        environment = {"PYTHONPATH": path, "SAPIS_KERNEL_CACHE": str(self.kernels)}
        return Project(self.place / self.name, NAME, self.place / f"{self.name}.log", environment)

    @property
    def kernels(self) -> Path:
        return self.place / self.name / "kernels"

    @property
    def log(self) -> Path:
        """Of the renames."""
        return self.place / f"{self.name}.renames"

    def lines(self) -> list[dict[str, Any]]:
        """The log of the renames."""
        text = self.log.read_text(encoding="utf-8") if self.log.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    def to_the_end(self, case: Case | None) -> str:
        """Run and export the study, killed once at the rename that `case` names; '' or what went wrong."""
        project = self.project
        project.write(_study(self.place, project.home / "cache", self.plan))
        archive = project.home / f"{NAME}.zip"
        # one of the two points fails, and is left so
        for words, wanted in (
            (("study", "run", NAME), 1),
            (("study", "export", NAME, "--to", str(archive)), 0),
        ):
            for _ in range(STARTS):
                steered = {_rename_hook.VARIABLE: self._order(case)}
                is_killed = any("killed" in line for line in self.lines())
                status = project.end(project.start(*words, **({} if is_killed else steered)))
                if status == wanted:
                    break
            else:
                return (
                    f"`sapis {' '.join(words[:2])}` ended {STARTS} times, at last with {status}, wanted "
                    f"{wanted}"
                )
        return "" if archive.stat().st_size else f"{archive.name} is empty"

    def _order(self, case: Case | None) -> str:
        which = {} if case is None else {"side": case.side, "number": case.number}
        return json.dumps(
            {"home": str(self.project.home), "log": str(self.log), "kind": case and case.kind, **which}
        )


def _study(place: Path, cache: Path, plan: Plan) -> dict[str, Any]:
    """One point that is done and one that diverges and fails; checkpoints at every step."""
    question = "Does a study end in the same numbers wherever it is killed?"
    study = small_study(
        place, cache=cache, question=question, n_params=(3e3,), n_frames=(12,), steps=plan.steps
    )
    study["run"]["checkpoint_seconds"] = 0.01
    study["models"] = [{"kind": "geat"}]
    study["lattice"]["rate_factors"] = [1.0, 1e5]
    return study
