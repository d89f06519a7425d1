"""The tables of `sapis selftest faults`: which planted faults the checks of data see, and whether real sets
pass without a false alarm."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.text import Text

from sapis_lab.config import ConfigError, home
from sapis_lab.data import SYMBOLS, Finding, Frames, FrameStore, Subject, examine, findings
from sapis_lab.data.extxyz import ExtxyzConfig
from sapis_lab.files import write_text
from sapis_lab.screen import new_table
from sapis_lab.selftest._planted import FAULTS, Fault, Splits, written
from sapis_lab.selftest._real_sets import REAL_SETS, RealSet

SETS = ("rmd17-ethanol", "acac-300K", "3bpa-mixedT", "mlearn-si", "carbon-lda", "water-pbe0ts")
MOST_FRAMES, MOST_ATOMS = 300, 12_000
"""Of a set in which faults are planted."""
TRUE_ALARMS: dict[str, dict[str, str]] = {
    "ethanol-ccsdt": {"copies": "2 of its 1,000 frames are there twice"},
    "cu-ace": {"copies": "2 frames are there twice"},
    "oc20-bulks": {
        "copies": "materials are there twice",
        "labels of copies": "two of them with energies of another calculation",
        "outliers": "6 unfinished calculations, to -6,665 eV per atom and 679 eV/Å",
    },
    "oc20": {"outliers": "an adsorbate that starts within a surface, 269 eV/Å"},
    **{
        f"mlearn-{element}": {"copies": "strained crystals that are one another turned"}
        for element in ("li", "si", "ge", "ni", "cu")
    },
}
"""What is really so in the sets as they are published."""
WORDS = {"caught": "green", "told": "yellow", "not checked": "dim", "silent": "red", "–": "dim"}
LEGEND = (
    "caught: refused; told: suspect, with the reason; not checked: the set does not allow the check, and it "
    "says so; silent: nothing; –: the set has no such labels"
)


class Cell(NamedTuple):
    """What became of one fault in one set."""

    fault: str
    set: str
    now: str
    """A key of WORDS."""
    why: str
    before: str | None
    """The same by the checks of an earlier commit: caught or silent."""


class Alarm(NamedTuple):
    """A finding on a set as it is published."""

    set: str
    check: str
    outcome: str
    why: str
    true: str
    """Why it is right; empty for a false alarm."""


def run_faults(
    sets: Sequence[str],
    *,
    published: bool,
    before: str | None,
    data: Path,
    console: Console,
    save: Callable[[dict[str, Any]], None],
) -> int:
    """Plant every fault in every set, and examine all real sets as they are; 1 if a fault is silent or an
    alarm false, else 0. `before`: a commit whose checks are asked too."""
    known = {real.name: real for real in REAL_SETS}
    if unknown := [name for name in sets if name not in known]:
        raise ConfigError(f"--sets: got {unknown[0]}, wanted of {', '.join(known)}")
    former = None if before is None else _former_check(before)
    cells: list[Cell] = []
    alarms: list[Alarm] = []
    outcomes: dict[str, dict[str, str]] = {}

    def keep() -> None:
        save(
            {
                "before": before,
                "faults": [cell._asdict() for cell in cells],
                "alarms": [alarm._asdict() for alarm in alarms],
                "outcomes": outcomes,
            }
        )

    for name in sets:
        begin = time.process_time()
        cells += _planted(known[name], data, former)
        console.print(Text(f"{name}: {len(FAULTS)} faults, {time.process_time() - begin:.0f} CPU s"))
        keep()
    if cells:
        console.print()
        console.print(_table(cells, sets, before))
        console.print(Text(LEGEND, "dim"), soft_wrap=True)
        console.print(Text(_sum(cells, before)), soft_wrap=True)
    for real in REAL_SETS if published else ():
        found = _of_published(real, data)
        if found is None:
            console.print(Text(f"{real.name}: not read, its files or packages are missing"), soft_wrap=True)
            continue
        outcomes[real.name] = {finding.check: finding.outcome for finding in found}
        alarms += [
            Alarm(real.name, f.check, f.outcome, f.why, TRUE_ALARMS.get(real.name, {}).get(f.check, ""))
            for f in found
            if f.outcome in ("failed", "suspect")
        ]
        keep()
    if outcomes:
        console.print()
        console.print(_published_table(outcomes, alarms))
    false = [alarm for alarm in alarms if not alarm.true]
    for alarm in false:
        console.print(Text(f"false alarm: {alarm.set}, {alarm.check}: {alarm.why}", "red"), soft_wrap=True)
    if outcomes:
        told = len(outcomes)
        console.print(Text(f"{told} published sets, {len(alarms)} alarms, {len(false)} of them false"))
    return int(bool(false) or any(cell.now == "silent" for cell in cells))


def _splits_of(frames: Frames) -> Splits:
    order = np.random.default_rng(0).permutation(len(frames))
    a, b = int(0.7 * len(order)), int(0.85 * len(order))
    return {"train": order[:a], "validation": order[a:b], "test": order[b:]}


def _some_of(frames: Frames, folder: Path) -> Frames:
    """MOST_FRAMES of the frames, or those that have MOST_ATOMS, spread evenly."""
    n = min(MOST_FRAMES, len(frames), int(MOST_ATOMS / frames.n_atoms.mean()))
    if n == len(frames):
        return frames
    return _stored(frames, folder).frames(np.unique(np.linspace(0, len(frames) - 1, n).astype(int)))


def _stored(frames: Frames, folder: Path) -> FrameStore:
    store = FrameStore.create(folder, columns=() if frames.stress is None else ("stress",))
    store.append(frames)
    return store


def _examined(frames: Frames, splits: Splits, folder: Path, *, name: str) -> list[Finding]:
    lacking = [key for key in ("energy", "forces") if np.isnan(frames.label(key)).any()]
    subject = Subject(_stored(frames, folder), splits, lambda k: f"{name}, frame {k}", may_lack=lacking)
    return list(findings(subject))


def _of_published(real: RealSet, data: Path) -> list[Finding] | None:
    try:
        frames = real.frames(data)
    except (OSError, ImportError):
        return None
    with tempfile.TemporaryDirectory() as folder:
        return _examined(frames, _splits_of(frames), Path(folder) / "store", name=real.name)


def _planted(real: RealSet, data: Path, former: Callable[..., None] | None) -> Iterator[Cell]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        frames = _some_of(real.frames(data), folder / "all")
        splits = _splits_of(frames)
        usual = _alarms(_examined(frames, splits, folder / "usual", name=real.name))
        for k, fault in enumerate(FAULTS):
            spoilt = fault.plant(frames, splits) if fault.plant else (frames, splits)
            if spoilt is None:
                yield Cell(fault.name, real.name, "–", "no stress", "–" if former else None)
                continue
            if fault.plant is None:
                found = _of_cut_file(frames, folder / f"cut{k}")
                earlier = "caught" if any(f.outcome == "failed" for f in found) else "silent"
            else:
                found = _examined(*spoilt, folder / f"spoilt{k}", name=real.name)
                earlier = _asked(former, folder / f"spoilt{k}", spoilt[1]) if former else "silent"
            now, why = _outcome(fault, found, usual)
            yield Cell(fault.name, real.name, now, why, earlier if former else None)


def _alarms(found: Sequence[Finding]) -> Counter[str]:
    """How often each check raises its voice; pairs of copies are counted one by one."""
    counts: Counter[str] = Counter()
    for finding in found:
        if finding.outcome in ("failed", "suspect"):
            counts[f"{finding.check} {finding.outcome}"] += int(finding.numbers.get("pairs", 1))
    return counts


def _outcome(fault: Fault, found: Sequence[Finding], usual: Counter[str]) -> tuple[str, str]:
    now = _alarms(found)
    new = [
        f
        for f in found
        if now[k := f"{f.check} {f.outcome}"] > usual[k] and f.outcome in ("failed", "suspect")
    ]
    for outcome, word in (("failed", "caught"), ("suspect", "told")):
        for finding in new:
            if finding.outcome == outcome:
                return word, f"{finding.check}: {finding.why}"
    mine = [f for f in found if f.check.startswith(fault.checks)]
    unchecked = [f for f in mine if f.outcome == "not checked"]
    if unchecked and len(unchecked) == len(mine):
        return "not checked", unchecked[0].why
    return "silent", "; ".join(f"{f.check}: {f.why}" for f in mine)


def _of_cut_file(frames: Frames, folder: Path) -> list[Finding]:
    """What is found in a file of the frames of which the last third is missing."""
    folder.mkdir()
    text = written(frames, dict(enumerate(SYMBOLS)))
    write_text(folder / "cut.xyz", text[: (2 * len(text)) // 3])
    config = ExtxyzConfig(
        train=("cut.xyz",),
        n_validation=5,
        n_test=5,
        energy_unit="eV",
        length_unit="Angstrom",
        root=folder,
    )
    return examine(config, cache=folder / "cache", n_workers=1, progress=lambda what, done, total: None)


def _former_check(commit: str) -> Callable[..., None]:
    """`check_store` of the one file of checks that an earlier commit had."""
    asked = subprocess.run(
        ["git", "-C", str(home()), "show", f"{commit}:sapis_lab/data/_checks.py"],
        capture_output=True,
        text=True,
    )
    if asked.returncode:
        raise ConfigError(f"--before {commit}: no sapis_lab/data/_checks.py there ({asked.stderr.strip()})")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "former_checks.py"
        write_text(path, asked.stdout)
        spec = importlib.util.spec_from_file_location("former_checks", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["former_checks"] = module
        spec.loader.exec_module(module)
    check: Callable[..., None] = module.check_store
    return check


def _asked(former: Callable[..., None], folder: Path, splits: Splits) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            former(FrameStore.open(folder), splits, lambda k: f"frame {k}")
        except ValueError:
            return "caught"
    return "silent"


def _table(cells: Sequence[Cell], sets: Sequence[str], before: str | None) -> Any:
    grid = new_table("fault", *sets, left="all")
    for fault in FAULTS:
        row = []
        for name in sets:
            cell = next(c for c in cells if c.fault == fault.name and c.set == name)
            text = Text(cell.now, WORDS[cell.now])
            if before is not None and cell.now != "–":
                text.append(f" (was {cell.before})", "dim")
            row.append(text)
        grid.add_row(fault.name, *row)
    return grid


def _sum(cells: Sequence[Cell], before: str | None) -> str:
    counts = Counter(cell.now for cell in cells)
    said = ", ".join(f"{counts[word]} {word}" for word in WORDS if word != "–" and counts[word])
    planted = sum(cell.now != "–" for cell in cells)
    earlier = sum(cell.before == "caught" for cell in cells)
    was = f"; by the checks of {before}: {earlier} caught" if before is not None else ""
    return f"{planted} faults planted: {said}{was}"


def _published_table(outcomes: dict[str, dict[str, str]], alarms: Sequence[Alarm]) -> Any:
    words = {"passed": "pass", "failed": "FAIL", "suspect": "susp", "not checked": "–"}
    alarm = "alarms, and why they are right"
    grid = new_table("set", "passed", "not checked", alarm, left="all", wrapped=["not checked", alarm])
    for name, found in outcomes.items():
        counts = Counter(found.values())
        unchecked = ", ".join(check for check, outcome in found.items() if outcome == "not checked")
        why = "; ".join(f"{a.check} {words[a.outcome]}: {a.true or 'FALSE'}" for a in alarms if a.set == name)
        grid.add_row(name, str(counts["passed"]), unchecked, why)
    return grid
