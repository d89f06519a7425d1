"""A lattice that is killed again and again ends in the table of one that is not: `sapis selftest kill`.

The same study runs twice in folders of their own, once undisturbed. The other time SIGKILL goes to a random
process of it at random moments: to the engine (`sapis study run`), to the launcher that forks the points, or
to a point. What ends is started again by the same command, as a user would. In the end both tables must be
equal, bit by bit but for times, and so must the trained weights.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sapis_lab.jobs.event_log import read_events
from sapis_lab.jobs.processes import children
from sapis_lab.selftest._project import PATIENCE, Difference, Project, difference, small_study
from sapis_lab.selftest.ranks import write_molecules

NAME = "kill"
TARGETS: dict[str, int] = {"engine": 1, "launcher": 1, "point": 3}
"""How often each kind of process is chosen, relative to the others."""
PAUSE = (0.1, 1.6)
"""Time from the moment that points run, or from the last kill, to the next one, s."""


@dataclass(frozen=True)
class Plan:
    """What is run and killed."""

    kills: int = 50
    seeds: int = 6
    """Seeds of the lattice of two models, two sizes and two numbers of frames."""
    steps: int = 150
    workers: int = 2
    seed: int = 0
    """Of the moments and targets."""


@dataclass
class Outcome:
    """What the killed run came to, beside the undisturbed one."""

    n_points: int
    kills: Counter[str]
    sessions: int
    """How often the study was started."""
    given_up: int
    """Points that were killed three times without a new checkpoint and waited for the next start."""
    difference: Difference
    seconds: tuple[float, float]
    """Wall time undisturbed and killed."""

    @property
    def is_same(self) -> bool:
        """Nothing lost, doubled or different."""
        return self.difference.is_same


def run_kill(plan: Plan, *, say: Callable[[str], None] = print) -> int:
    """Run both and print what came out; the exit status: 1 if anything is lost, doubled or different, or the
    run ended too early."""
    with tempfile.TemporaryDirectory(prefix="sapis-kill-") as place:
        found = compare(Path(place), plan, say=say)
    delivered = sum(found.kills.values())
    say(f"{delivered} SIGKILLs: {', '.join(f'{found.kills[kind]} to {kind}s' for kind in TARGETS)}")
    say(
        f"{found.sessions} starts of the study; {found.given_up} times a point was killed three times "
        f"without a new checkpoint in between"
    )
    apart = found.difference
    say(f"{found.n_points} points; lost {len(apart.lost)}, duplicated {len(apart.duplicated)}")
    say(f"columns of the table that differ, times aside: {apart.columns or 'none'}")
    say(f"points whose trained weights differ: {apart.weights or 'none'}")
    say(f"files left half written: {apart.temporaries or 'none'}")
    say(f"wall time {found.seconds[0]:.0f} s undisturbed, {found.seconds[1]:.0f} s killed")
    if delivered < plan.kills:
        say(f"the lattice ended before {plan.kills} kills; take more --seeds")
    return 0 if found.is_same and delivered >= plan.kills else 1


def compare(place: Path, plan: Plan, *, say: Callable[[str], None]) -> Outcome:
    """Run the study undisturbed and killed, below `place`.

    Raises:
        RuntimeError: a run ended with a status that none of this explains, or took too long.
    """
    write_molecules(place / "molecules.xyz")
    calm, killed = _Run(place, "calm", plan), _Run(place, "killed", plan)
    calm.to_the_end(say, kills=0)
    say(f"undisturbed: {plan.seeds * 8} points in {calm.seconds:.0f} s; now the same study, killed")
    killed.to_the_end(say, kills=plan.kills)
    return Outcome(
        n_points=len(calm.project.table()),
        kills=killed.kills,
        sessions=killed.sessions,
        given_up=killed.given_up,
        difference=difference(calm.project, killed.project),
        seconds=(calm.seconds, killed.seconds),
    )


@dataclass
class _Run:
    """One of the two runs of the study."""

    place: Path
    name: str
    plan: Plan
    kills: Counter[str] = field(default_factory=Counter)
    sessions: int = 0
    given_up: int = 0
    seconds: float = 0.0

    @property
    def project(self) -> Project:
        return Project(self.place / self.name, NAME, self.place / f"{self.name}.log")

    def to_the_end(self, say: Callable[[str], None], *, kills: int) -> None:
        project, plan = self.project, self.plan
        question = "Does a lattice that is killed end in the same numbers?"
        cache = self.place / "cache"
        project.write(
            small_study(
                self.place,
                cache=cache,
                question=question,
                seeds=plan.seeds,
                steps=plan.steps,
                workers=plan.workers,
            )
        )
        dice, begin = random.Random(self.plan.seed), time.monotonic()
        while True:
            process = project.start_study()
            self.sessions += 1
            left = kills - sum(self.kills.values())
            for _ in range(left):
                if not self._kill_one(process, dice, say):
                    break
            status = project.end(process)
            if status == 0:
                break
            if status == 2 or status > 0 and not self.kills:
                raise RuntimeError(f"the study ended with exit status {status}:\n{project.log()}")
            if time.monotonic() - begin > PATIENCE + 20 * kills:
                raise RuntimeError(f"not done after {time.monotonic() - begin:.0f} s:\n{project.log()}")
        self.seconds = time.monotonic() - begin
        self.given_up = sum(event["event"] == "failed" for event in read_events(project.folder))

    def _kill_one(
        self, process: subprocess.Popen[bytes], dice: random.Random, say: Callable[[str], None]
    ) -> bool:
        """Kill a process of the study once points run; False when the engine has ended."""
        pause, chosen = dice.uniform(*PAUSE), dice.choices(list(TARGETS), list(TARGETS.values()))[0]
        if not _wait_for_points(process):
            return False
        time.sleep(pause)
        targets = _targets(process.pid)
        if process.poll() is not None or not targets[chosen]:
            return process.poll() is None  # the point that was there has just ended
        pid = dice.choice(targets[chosen])
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return True
        self.kills[chosen] += 1
        say(f"  kill {sum(self.kills.values()):>3}: {chosen} {pid}")
        return chosen == "point"


def _wait_for_points(process: subprocess.Popen[bytes]) -> bool:
    """Wait until a point runs; False when the engine ends before."""
    while process.poll() is None:
        if _targets(process.pid)["point"]:
            return True
        time.sleep(0.02)
    return False


def _targets(engine: int) -> dict[str, list[int]]:
    """The living processes of the study, by kind: the launcher is the engine's child, points are the
    launcher's."""
    launchers = children(engine)
    return {
        "engine": [engine],
        "launcher": launchers,
        "point": [point for launcher in launchers for point in children(launcher)],
    }
