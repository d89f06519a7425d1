"""The whole way of `sapis scale NAME`: the seed lattice, then decide, run, measure and decide again, until
the budget or a rule ends it.

Points lie where those of any study do, `results/NAME/points/`, so that table, laws, figures and report hold
them all. The history and the decisions stand in `results/NAME/scale/` (see `scaling.history`).

What a run costs is planned from the exact FLOPs of its model, times what the last record measured over what
was planned for it (batches are not all alike), and counted as its record measures it. With `warm_start` a run
starts from
the one before; the campaign has paid for that one already, so only the new steps are counted, here and in its
record.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sapis_lab.analysis.optimum import Cost
from sapis_lab.config import ConfigError, dump_yaml, load, plainly, read_yaml
from sapis_lab.data import DatasetConfig, DatasetInfo
from sapis_lab.files import write_text
from sapis_lab.growth import expanded
from sapis_lab.models import ModelConfig
from sapis_lab.policies import Decision, Prices, Rules, Runs
from sapis_lab.quantities import quantity
from sapis_lab.records import RECORD, Record, read_record, read_table
from sapis_lab.scaling.design import next_points
from sapis_lab.scaling.history import (
    ASIDE,
    Basis,
    Entry,
    Row,
    decide_next,
    read_decisions,
    read_history,
    replayed,
    runs_of,
    same,
    write_decisions,
    write_history,
)
from sapis_lab.sweep import engine, road
from sapis_lab.sweep.folder import (
    Manifest,
    failure_reason,
    inputs_hash,
    locked,
    point_folder,
    refuse_if_running,
    results_folder,
    state,
    write_manifest,
)
from sapis_lab.sweep.launcher import LOG
from sapis_lab.sweep.local import PRELOAD, LocalPool
from sapis_lab.sweep.plan import infos, plan, planned_flops
from sapis_lab.sweep.points import Point, point_id, points
from sapis_lab.sweep.progress import Board, duration, shown
from sapis_lab.sweep.provenance import note_finished, write_provenance
from sapis_lab.sweep.resources import resources, slurm_queue
from sapis_lab.sweep.scale_options import ScaleOptions
from sapis_lab.sweep.signals import Stop, interrupting
from sapis_lab.sweep.slurm import refuse_without_slurm
from sapis_lab.sweep.study import Lattice, Study, load_study
from sapis_lab.training import Parent

FOLDER = "scale"
SIZES = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
"""Multiples of the last run's N at which the FLOPs of a model are looked at, for a power of N that holds
about there."""


@dataclass(frozen=True)
class Campaign:
    """A study that scales itself, resolved."""

    study: Study
    options: ScaleOptions
    known: dict[float, DatasetInfo]
    seeds: tuple[Point, ...]
    """The lattice."""

    @property
    def info(self) -> DatasetInfo:
        return next(iter(self.known.values()))

    @property
    def loss_key(self) -> str:
        return self.study.law.quantity


def resolve(name: str, settings: Sequence[str] = (), *, called: str | None = None) -> Campaign:
    """The study with its lattice and limits, checked. ConfigError names what cannot be."""
    study = load_study(name, settings, called=called)
    if study.scale is None:
        raise ConfigError(f"studies/{name}.yaml has no scale: section; see `sapis scale --help`")
    if study.scale.label_more and "n_more" not in type(study.data).model_fields:
        kind = study.data.kind
        raise ConfigError(
            f"studies/{name}.yaml: scale.label_more: data of kind {kind!r} cannot make more frames; wanted "
            f"kind xtb, or 0"
        )
    known = plainly(lambda: infos(study), about=f"data {study.data.kind!r}")
    campaign = Campaign(study, study.scale, known, tuple(points(study, next(iter(known.values())))))
    lattice = study.lattice
    if len(lattice.n_params) < 2 or len(lattice.n_frames) < 2 or len(campaign.seeds) < 6:
        raise ConfigError(
            f"studies/{name}.yaml: lattice: scaling starts from at least 6 points with two sizes and two "
            f"amounts of data, "
            f"got {len(campaign.seeds)} points"
        )
    cost = sum(planned_flops(p, known) for p in campaign.seeds)
    if cost >= study.scale.budget:
        raise ConfigError(
            f"studies/{name}.yaml: scale.budget: {study.scale.budget:.3g} FLOPs do not cover the lattice, "
            f"which costs {cost:.3g}"
        )
    return campaign


def run_scale(
    name: str,
    console: Console,
    *,
    settings: Sequence[str] = (),
    called: str | None = None,
    workers: int | None = None,
    retry_failed: bool = False,
) -> int:
    """Scale, or go on; the exit status: 0 ended by a rule or the budget, 1 a run failed, 75 stopped and
    resumable.

    Raises:
        ConfigError: the study cannot be scaled as it is.
    """
    request = road.Request(name, tuple(settings), called, workers=workers)
    refuse_if_running(request.folder)
    again = " ".join(["sapis", "scale", *request.command[3:]])
    session: _Session | None = None
    with interrupting() as stop:
        try:
            campaign = resolve(name, settings, called=called)
            with locked(request.folder) as taken_over:
                if taken_over:
                    console.print(Text(taken_over, style="yellow"), soft_wrap=True)
                session = _Session(campaign, request, console, stop, retry_failed=retry_failed, command=again)
                return session.run()
        except engine.LauncherDied as error:
            console.print(Text(f"error: {error}", style="red"), soft_wrap=True)
            return road.STOPPED
        except (engine.Stopped, KeyboardInterrupt):
            if session is not None and session.status is not None:  # it came when all was done
                return session.status
            console.print(
                Text(f"\nstopped; nothing is lost. Continue with: {again}", style="yellow"), soft_wrap=True
            )
            return road.STOPPED


def print_replay(name: str, console: Console) -> int:
    """Decide the whole history again and compare; the exit status, 1 where a decision differs."""
    folder = results_folder(name)
    if (folder / "study.yaml").exists():
        _recorded(folder)  # may name a folder with the kind of its policy
    pairs = replayed(folder / FOLDER)
    differing = [entry.step for entry, again in pairs if not same(entry.decision, again)]
    for entry, again in pairs:
        mark = (
            "same"
            if same(entry.decision, again)
            else f"now {again.action} N={again.n_params:.4g} D={again.n_frames:.0f}"
        )
        d = entry.decision
        console.print(
            Text(f"{entry.step:3d} {d.action:8s} N={d.n_params:.4g} D={d.n_frames:.0f}: {mark}"),
            soft_wrap=True,
        )
    console.print(
        Text(
            f"{len(pairs) - len(differing)} of {len(pairs)} decisions are made again from the table as they "
            f"were"
        )
    )
    return int(bool(differing))


def print_design(
    name: str, console: Console, *, target: tuple[float, float] | None = None, n_shown: int = 8
) -> None:
    """Which run to add to `results/NAME`, scaled or not, to learn most per FLOP about N* at the next cost, or
    about L at a target (N, D).

    Raises:
        ConfigError: no finished runs, those of several models, or a cost that does not grow with D.
    """
    folder = results_folder(name)
    study = _recorded(folder)
    table = read_table(folder)
    table = table[table["status"] == "done"]
    if table["model"].nunique() != 1:
        raise ConfigError(
            f"{folder}/runs.parquet: wanted the runs of one model, got "
            f"{', '.join(sorted(table['model'].unique()))}"
        )
    n, d, flops, loss = (
        table[c].to_numpy(float) for c in ("n_params", "n_frames", "flops_train", study.law.quantity)
    )
    runs = Runs(n, d, loss, flops, table["seed"].to_numpy(int), np.zeros(len(table), bool))
    plainly(lambda: Cost.from_runs(n, d, flops), about=f"{folder}/runs.parquet")
    power, log_kappa = np.polyfit(np.log(n), np.log(flops / d), 1)
    prices = Prices(float(np.exp(log_kappa)), float(power))
    budget = None if target else 2.0 * float(flops.max())
    rules = Rules(most_frames=plainly(lambda: next(iter(infos(study).values())).n_train))
    design = plainly(
        lambda: next_points(runs, prices, budget=budget, target=target, rules=rules),
        about=f"{folder}/runs.parquet",
    )
    screen = Table(
        title=(
            f"{design.quantity}: known to a factor {math.exp(design.sd):.3f}; the next run, by what it "
            f"teaches per FLOP"
        )
    )
    for column in ("N", "D", "seed", "FLOPs", "variance less by", "per FLOP"):
        screen.add_column(column, justify="right")
    for c in design.candidates[:n_shown]:
        screen.add_row(
            f"{c.n_params:.0f}",
            f"{c.n_frames:.0f}",
            f"{c.seed}",
            f"{c.cost:.3g}",
            f"{100 * c.reduction:.1f} %",
            f"{c.per_cost:.2f}",
        )
    console.print(screen)


def print_comparison(name: str, others: Sequence[str], console: Console) -> None:
    """The campaign `results/NAME` beside the grids `results/OTHER`: what all their runs of its model cost
    together, and the best of them.

    Chosen is the run with the lowest loss that the law describes; its error on test frames, which chose
    nothing, stands beside it. Written to `scale/comparison.json`.

    Raises:
        ConfigError: results that are not there, or without a run of the campaign's model.
    """
    folder = results_folder(name)
    refuse_if_running(folder)  # comparison.json is written there
    rows = read_history(folder / FOLDER)
    study = _recorded(folder)
    key, label = study.law.quantity, study.models[0].label
    test = key.replace("val_", "test_", 1)
    found = [_best_of(name, folder, label, key, test)]
    found[0]["total_flops"] = rows[-1].flops_total
    found += [_best_of(other, results_folder(other), label, key, test) for other in others]
    q = quantity(key)
    screen = Table(title=f"{label}: all FLOPs that were spent, and the best run that they bought")
    for column in ("results", "runs", "FLOPs of all", "N", "D", "its FLOPs", f"{q.label}", "on test frames"):
        screen.add_column(column, justify="left" if column == "results" else "right")
    for best in found:
        errors = [
            f"{best[k] * q.display_factor:.1f} {q.display_unit or q.unit}" if best.get(k) else ""
            for k in ("loss", "test_loss")
        ]
        screen.add_row(
            best["results"],
            f"{best['n_runs']}",
            f"{best['total_flops']:.4g}",
            f"{best['n_params']}",
            f"{best['n_frames']}",
            f"{best['flops']:.3g}",
            *errors,
        )
    console.print(screen)
    write_text(
        folder / FOLDER / "comparison.json",
        json.dumps({"quantity": key, "model": label, "found": found}, indent=1) + "\n",
    )


def _recorded(folder: Path) -> Study:
    """The study as results were made with it."""
    path = folder / "study.yaml"
    study: Study = load(Study, read_yaml(path), source=str(path), recorded=True)
    return study


def _best_of(name: str, folder: Path, label: str, key: str, test: str) -> dict[str, Any]:
    table = read_table(folder)
    table = table[(table["status"] == "done") & (table["model"] == label)]
    if not len(table):
        raise ConfigError(f"{folder}/runs.parquet has no finished run of {label}")
    best = table.loc[table[key].idxmin()]
    return {
        "results": name,
        "n_runs": len(table),
        "total_flops": float(table["flops_train"].sum()),
        "n_params": int(best["n_params"]),
        "n_frames": int(best["n_frames"]),
        "seed": int(best["seed"]),
        "steps": int(best["steps"]),
        "flops": float(best["flops_train"]),
        "loss": float(best[key]),
        "test_loss": float(best[test]) if test in table else None,
    }


# ---------------------------------------------------------------------------------------------------- session


class _Session:
    """One process that works on a campaign; everything that lasts is in files."""

    def __init__(
        self,
        campaign: Campaign,
        request: road.Request,
        console: Console,
        stop: Stop,
        *,
        retry_failed: bool,
        command: str,
    ) -> None:
        self.campaign, self.request, self.console, self.stop = campaign, request, console, stop
        self.retry_failed, self.command = retry_failed, command
        self.study, self.options = campaign.study, campaign.options
        self.folder, self.place = request.folder, request.folder / FOLDER
        self.use = resources(self.study.run, workers=request.workers)
        self.rows: list[Row] = []
        self.entries: list[Entry] = []
        self.points: list[Point] = list(campaign.seeds)
        self.measured_over_planned = 1.0
        self.labelled = campaign.info.n_train
        self.pool: _Kept | None = None
        self.status: int | None = None
        """Exit status, once nothing is left to do."""

    def run(self) -> int:
        """The campaign to its end; the exit status."""
        try:
            status = self._run()
        finally:
            self._end_workers()
        self.status = status
        return status

    def _end_workers(self) -> None:
        pool, self.pool = self.pool, None
        if pool is not None:
            pool.end()

    def _run(self) -> int:
        began = time.monotonic()
        self._say(f"{self.study.name}: {self.study.question}", style="bold")
        self._say(
            f"{len(self.campaign.seeds)} points to start from, then {self.options.policy.kind} decisions "
            f"up to {self.options.budget:.3g} FLOPs"
        )
        if self.use.executor == "slurm":
            refuse_without_slurm()
        engine.refuse_other_settings([p.config for p in self.campaign.seeds], self.folder)
        write_text(self.folder / "study.yaml", dump_yaml(self.study))
        self._write_manifest()
        road._prepare_data(self.study, self.use.cores, self.console)
        write_provenance(
            self.folder,
            command=self.command.split(),
            device=self.use.device,
            workers=self.use.workers,
            data=road._data_identity(self.study),
        )
        if not self._train(self.campaign.seeds):
            return road.SOME_FAILED
        for point in self.campaign.seeds:
            self._add(0, "seed", point, Decision("seed", reason="seed lattice"))
        status = self._go_on()
        self._end_workers()
        note_finished(self.folder)
        self.stop.check()
        self._conclude(began)
        self.status = status
        return status

    def _go_on(self) -> int:
        """Decide, run, measure, and again; the exit status."""
        recorded = read_decisions(self.place)
        for step in range(1, 10_000):
            known = step <= len(recorded)
            entry = recorded[step - 1] if known else self._decided(step)
            if known and entry.decision.action == "stop" and entry.basis != self._basis():
                recorded = recorded[: step - 1]  # it had stopped under other rules, or a smaller budget
                entry = self._decided(step)
            decision = entry.decision
            point = None if decision.action == "stop" else self._point(decision, step)
            entry = replace(entry, id=None if point is None else point.planned.id)
            self.entries.append(entry)
            if not known:
                write_decisions(self.place, self.entries)
                self._tell(entry)
            if point is None:
                return road.COMPLETE
            self.points.append(point)
            self._write_manifest()
            if not self._train([point]):
                return road.SOME_FAILED
            row = self._add(step, decision.action, point, decision)
            if not known:
                q = quantity(self.campaign.loss_key)
                inside = "outside of" if row.surprised else "within"
                self._say(
                    f"      measured {row.measured * q.display_factor:.4g} {q.display_unit or q.unit}, "
                    f"{inside} what was predicted; "
                    f"{row.flops_total:.3g} of {self.options.budget:.3g} FLOPs spent"
                )
        raise AssertionError("a campaign of ten thousand steps")

    def _decided(self, step: int) -> Entry:
        basis = self._basis()
        return Entry(step, None, decide_next(self.rows, basis), basis)

    def _basis(self) -> Basis:
        o = self.options
        rules = Rules(
            growth=o.ratio,
            most_params=o.most_params or math.inf,
            most_frames=self.campaign.info.n_train + o.label_more,
            sure=o.sure,
            measure=o.measure,
            tolerance=o.tolerance,
            min_gain=o.min_gain,
            target=o.target,
        )
        return Basis(o.policy, o.budget, self._prices(), rules)

    def _prices(self) -> Prices:
        """FLOPs against N and D: a power of N through what models of about the last run's size need."""
        runs = runs_of(self.rows)
        info, lattice, found = self.campaign.info, self.study.lattice, []
        for factor in SIZES:
            try:
                near = _lattice(float(f"{factor * runs.n_params[runs.last]:.3g}"), lattice.n_frames[-1], 0)
                found += points(self.study.model_copy(update={"lattice": near}), info)
            except ConfigError:
                continue  # a size that the family cannot have
        each = np.array([self._planned(p) for p in found]) / lattice.n_frames[-1]
        power, log_kappa = np.polyfit(np.log([p.planned.n_params for p in found]), np.log(each), 1)
        return Prices(float(np.exp(log_kappa)), float(power), self.options.label_cost, float(self.labelled))

    def _planned(self, point: Point) -> float:
        """Training FLOPs of a point, as records count them."""
        return planned_flops(point, self.campaign.known) * self.measured_over_planned

    # ---- points

    def _point(self, decision: Decision, step: int) -> Point:
        """The point that runs a decision: sizes as the model can have them, D as the cost then allows."""
        study = self.study
        if decision.action in ASIDE:
            like = next(p.planned for p in self.points if p.planned.n_params == decision.n_params)
            target, n_frames = like.n_params_target, round(decision.n_frames)
        else:
            target, n_frames = float(f"{decision.n_params:.3g}"), round(decision.n_frames)
        study = self._with_labels(study, n_frames)
        make = self._maker(study)
        if decision.action not in ASIDE:
            n_frames = self._frames(make(target, study.lattice.n_frames[-1], 0), decision)
            if n_frames == self._basis().rules.most_frames:
                make = self._maker(self._with_labels(self.study, n_frames))
                target = self._filled(make, target, n_frames, decision)
                n_frames = self._frames(make(target, n_frames, 0), decision)
            make = self._maker(self._with_labels(self.study, n_frames))
        taken = {p.planned.id for p in self.points}
        label = self.study.models[0].label
        seed = next(
            s for s in range(decision.seed, 10_000) if point_id(label, target, n_frames, s) not in taken
        )
        point = make(target, n_frames, seed)
        if self.options.warm_start and decision.action not in ASIDE:
            point = self._warm(point)
        return point

    def _maker(self, study: Study) -> Any:
        known = self.campaign.known if study.data == self.study.data else infos(study)
        info = next(iter(known.values()))

        def make(target: float, n_frames: int, seed: int) -> Point:
            lattice = _lattice(target, n_frames, seed)
            return points(study.model_copy(update={"lattice": lattice}), info)[0]

        return make

    def _frames(self, point: Point, decision: Decision) -> int:
        """D at which the model as it is costs what the decision allows; its exact size differs from what was
        asked for."""
        prices = Prices(
            self._planned(point) / point.planned.n_frames / point.planned.n_params,
            label=self.options.label_cost,
            labelled=self.labelled,
        )
        wanted = float(prices.frames(point.planned.n_params, decision.cost))
        return max(1, int(min(wanted, self._basis().rules.most_frames)))

    def _filled(self, make: Any, target: float, n_frames: int, decision: Decision) -> float:
        """About the N at which a run on all frames costs what the decision allows. Elsewhere D makes up for
        the error of the prices, a smooth power of N through models whose widths are whole numbers; here only
        N can. Where the cost leaps past what is allowed, D comes down to meet it."""
        allowed = decision.cost - self.options.label_cost * max(n_frames - self.labelled, 0)
        power, most = self._prices().power, self.options.most_params or math.inf
        found = target
        for _ in range(4):
            try:
                ratio = allowed / self._planned(make(target, n_frames, 0))
            except ConfigError:
                break  # a size that the family cannot have
            found, target = target, float(f"{target * ratio ** (1 / power):.3g}")
            if abs(ratio - 1) < 0.02 or target > most:
                break
        return found

    def _with_labels(self, study: Study, n_frames: int) -> Study:
        """The study with a pool of at least `n_frames`."""
        more = n_frames - self.campaign.info.n_train
        if more <= 0:
            return study
        return study.model_copy(update={"data": _with_more(study.data, more)})

    def _warm(self, point: Point) -> Point:
        """The point, starting from the last one of the path: its model, widened until it has about as many
        parameters."""
        aside = {e.id for e in self.entries if e.decision.action in ASIDE}
        path = [p for p in self.points if p.planned.id not in aside]
        parent = (
            path[-1]
            if len(path) > len(self.campaign.seeds)
            else max(path, key=lambda p: p.planned.n_params * p.planned.n_frames)
        )
        old, wanted, n_species = parent.config.model, point.planned.n_params, len(self.campaign.info.species)
        if wanted < 0.98 * parent.planned.n_params:
            return point  # a model does not shrink: this one starts anew
        model = _widened(old, wanted, n_species=n_species, eta=self.options.eta)
        config = point.config.model_copy(
            update={
                "id": f"{point.config.id}-warm",
                "model": model,
                "n_params": model.n_params(n_species=n_species),
                "parent": Parent(id=parent.config.id, fingerprint=parent.config.fingerprint),
            }
        )
        planned = point.planned.model_copy(
            update={"id": config.id, "fingerprint": config.fingerprint, "n_params": config.n_params}
        )
        return Point(config, planned)

    # ---- running

    def _train(self, chosen: Sequence[Point]) -> bool:
        """Run points; False, with the reasons told, where one failed. Raises Stopped where one has not ended
        and nobody runs it."""
        study = self.study
        configs = sorted((p.config for p in chosen), key=lambda c: -c.n_params_target * c.n_frames)
        if any(not (point_folder(self.folder, c.id) / RECORD).exists() for c in configs):
            for data in {c.data.model_dump_json(): c.data for c in configs}.values():
                if data != study.data:
                    road._prepare_data(study.model_copy(update={"data": data}), self.use.cores, self.console)
            self._run_points(chosen, configs)
        states = {c.id: state(point_folder(self.folder, c.id)) for c in configs}
        for id in (id for id, s in states.items() if s == "failed"):
            self._say(f"  failed  {id}: {failure_reason(point_folder(self.folder, id))}", style="red")
        if "failed" in states.values():
            self._say(f"  run it again: {self.command} --retry-failed")
            return False
        for id in (id for id, s in states.items() if s != "done"):
            self._say(f"  not ended  {id}", style="yellow")
        if set(states.values()) != {"done"}:
            raise engine.Stopped("some runs have not ended")
        return True

    def _run_points(self, chosen: Sequence[Point], configs: Sequence[Any]) -> None:
        """Through the executor of the study, to their end."""
        how: dict[str, Any] = {
            "folder": self.folder,
            "cache": self.study.run.cache_folder,
            "retry_failed": self.retry_failed,
        }
        if self.use.executor == "slurm":
            costs = plan(
                self.study, chosen, self.campaign.known, workers=self.use.workers, device=self.use.device
            )
            queue = slurm_queue(self.study, self.folder, points=configs, expected=costs.expected_seconds)
            try:
                engine.run(configs, executor=queue, on_event=road.follower(self.console), **how)
            except engine.Stopped:
                self._say("\nnot waiting any longer; the jobs go on")
                raise
            return
        road.refuse_if_queued([c.id for c in configs], self.folder, self.console)
        self.pool = self.pool or self._started()
        ids, key = [c.id for c in configs], self.campaign.loss_key
        with Board(
            ids, folder=self.folder, expected={}, workers=self.use.workers, loss_key=key, console=self.console
        ) as board:
            engine.run(configs, executor=self.pool, on_event=_unless_kept(board), **how)

    def _started(self) -> _Kept:
        """Workers that serve the whole session: importing everything takes longer than many a point."""
        run, log = self.study.run, self.folder / LOG
        modules = [*PRELOAD, *engine.kind_modules([p.config for p in self.campaign.seeds])]
        return _Kept(
            LocalPool(
                log,
                cache=run.cache_folder.absolute(),
                workers=self.use.workers,
                device=self.use.device,
                devices=self.use.devices,
                arguments=engine.point_arguments(self.folder, self.use.device),
                preload=modules,
            )
        )

    def _add(self, step: int, action: str, point: Point, decision: Decision) -> Row:
        """The finished run as a row of the history, which is written."""
        record: Record = read_record(point_folder(self.folder, point.planned.id))
        new = max(0, record.n_frames - self.labelled)
        self.labelled = max(self.labelled, record.n_frames)
        flops = record.flops_train + new * self.options.label_cost
        if action not in ASIDE:  # those are small, and the plan is a few percent further off for small models
            self.measured_over_planned = record.flops_train / planned_flops(point, self.campaign.known)
        total = flops + (self.rows[-1].flops_total if self.rows else 0.0)
        row = Row(
            step,
            action,
            record.n_params,
            record.n_frames,
            record.seed,
            flops,
            total,
            *decision.predicted,
            record.metrics[self.campaign.loss_key],
            decision.reason,
        )
        self.rows.append(row)
        if step == 0 and len(self.rows) < len(self.campaign.seeds):
            return row
        write_history(self.place, self.rows)
        return row

    def _write_manifest(self) -> None:
        inputs = inputs_hash(self.request.name, ["scale", *self.request.settings])
        write_manifest(self.folder, Manifest(inputs=inputs, points=tuple(p.planned for p in self.points)))

    # ---- telling

    def _say(self, text: str, style: str = "") -> None:
        self.console.print(Text(text, style=style), soft_wrap=True)

    def _tell(self, entry: Entry) -> None:
        d = entry.decision
        if d.action == "stop":
            self._say(f"{entry.step:3d}   stop: {d.reason}")
            return
        q = quantity(self.campaign.loss_key)
        low, high = (v * q.display_factor for v in d.predicted[1:])
        self._say(f"{entry.step:3d}   {d.action}: {entry.id}, {d.cost:.3g} FLOPs; {d.reason}")
        self._say(
            f"      predicted {d.predicted[0] * q.display_factor:.4g} [{low:.4g}, {high:.4g}] "
            f"{q.display_unit or q.unit}"
        )

    def _conclude(self, began: float) -> None:
        road.rebuild_table(self.folder)
        plainly(lambda: road.analyse(self.folder), about="the points are kept, but their analysis failed")
        best = min(self.rows, key=lambda r: r.measured)
        q = quantity(self.campaign.loss_key)
        decided = [r for r in self.rows if r.step]
        self._say(
            f"\n{len(self.rows) - len(decided)} seeds and {len(decided)} runs that were decided on, "
            f"{self.rows[-1].flops_total:.4g} of "
            f"{self.options.budget:.4g} FLOPs; best {q.label} {best.measured * q.display_factor:.4g} "
            f"{q.display_unit or q.unit} at "
            f"N = {best.n_params:.0f}, D = {best.n_frames:.0f} (step {best.step}); this session took "
            f"{duration(time.monotonic() - began)}",
            style="bold",
        )
        for title, path in (("history", "history.csv"), ("reasons", "decisions.jsonl")):
            self._say(f"{title} {shown(self.place / path)}")
        self._say(f"report  {shown(self.folder / 'report.html')}")


class _Kept:
    """A pool that outlives one call of the engine."""

    def __init__(self, pool: LocalPool) -> None:
        self.pool = pool
        self.start, self.stop, self.poll, self.end = pool.start, pool.stop, pool.poll, pool.close

    @property
    def n_free(self) -> int:
        return self.pool.n_free

    @property
    def running(self) -> tuple[str, ...]:
        return self.pool.running

    def close(self) -> None:
        """What the engine does after each run; the session ends the pool."""


def _unless_kept(board: Board) -> Any:
    """The board, without a line for every point that was done before."""
    return lambda event: None if event.kind == "kept" else board(event)


def _lattice(n_params: float, n_frames: int, seed: int) -> Lattice:
    """Of one point. ConfigError for a size that no lattice may have."""
    one: Lattice = load(
        Lattice, {"n_params": [n_params], "n_frames": [n_frames], "seeds": [seed]}, source="scale"
    )
    return one


def _with_more(data: DatasetConfig, n_frames: int) -> DatasetConfig:
    """The data set with at least `n_frames` more than its pool."""
    whole = getattr(data, "trajectory_frames", 1)
    return data.model_copy(update={"n_more": -(-n_frames // whole) * whole})


def _widened(old: ModelConfig, n_params: int, *, n_species: int, eta: float) -> ModelConfig:
    """The settings of `old`, grown selectively to about `n_params` parameters, with what they must remember
    of their birth."""
    model = old._without_storage(n_species)

    def grown(factor: float) -> ModelConfig:
        return model.growth(expanded(old, factor, eta=eta)).config

    if n_params <= old.n_params(n_species=n_species):
        return grown(1.0)
    low, high = 1.0, 2.0
    while grown(high).n_params(n_species=n_species) < n_params:
        low, high = high, 2 * high
    for _ in range(20):
        middle = math.sqrt(low * high)
        low, high = (
            (middle, high) if grown(middle).n_params(n_species=n_species) < n_params else (low, middle)
        )
    return min((grown(low), grown(high)), key=lambda m: abs(m.n_params(n_species=n_species) - n_params))
