"""One session of `sapis scale NAME`: the seed lattice, then decide, run, measure and decide again, until the
budget or a rule ends it. What lasts is in files, and the next session goes on from them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console
from rich.text import Text

from sapis_lab.config import dump_yaml, plainly
from sapis_lab.files import write_text
from sapis_lab.jobs.signals import Stop, interrupting
from sapis_lab.policies import Decision
from sapis_lab.quantities import quantity
from sapis_lab.scaling.campaign import FOLDER, Campaign, resolve
from sapis_lab.scaling.history import Entry, decide_next, read_decisions, write_decisions
from sapis_lab.scaling.ledger import Ledger
from sapis_lab.scaling.sizing import point_of
from sapis_lab.scaling.workers import Workers
from sapis_lab.sweep import engine
from sapis_lab.sweep.answers import analyse, rebuild_table
from sapis_lab.sweep.lock import locked, refuse_if_running
from sapis_lab.sweep.manifest import Manifest, inputs_hash, write_manifest
from sapis_lab.sweep.prepare import data_identity, prepare_data
from sapis_lab.sweep.provenance import note_finished, write_provenance
from sapis_lab.sweep.request import COMPLETE, SOME_FAILED, STOPPED, Request
from sapis_lab.sweep.resources import resources
from sapis_lab.sweep.words import duration, shown


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
    request = Request(name, tuple(settings), called, workers=workers)
    refuse_if_running(request.folder)
    again = " ".join(["sapis", "scale", *request.command[3:]])
    session: Session | None = None
    with interrupting() as stop:
        try:
            campaign = resolve(name, settings, called=called)
            with locked(request.folder) as taken_over:
                if taken_over:
                    console.print(Text(taken_over, style="yellow"), soft_wrap=True)
                session = Session(campaign, request, console, stop, retry_failed=retry_failed, command=again)
                return session.run()
        except engine.LauncherDied as error:
            console.print(Text(f"error: {error}", style="red"), soft_wrap=True)
            return STOPPED
        except (engine.Stopped, KeyboardInterrupt):
            if session is not None and session.status is not None:  # it came when all was done
                return session.status
            console.print(
                Text(f"\nstopped; nothing is lost. Continue with: {again}", style="yellow"), soft_wrap=True
            )
            return STOPPED


class Session:
    """One process that works on a campaign; everything that lasts is in files."""

    def __init__(
        self,
        campaign: Campaign,
        request: Request,
        console: Console,
        stop: Stop,
        *,
        retry_failed: bool,
        command: str,
    ) -> None:
        self.campaign, self.request, self.console, self.stop = campaign, request, console, stop
        self.command = command
        self.study, self.options = campaign.study, campaign.options
        self.folder, self.history = request.folder, request.folder / FOLDER
        self.use = resources(self.study.run, workers=request.workers)
        self.ledger = Ledger(campaign)
        self.workers = Workers(
            campaign, self.use, console, folder=self.folder, command=command, retry_failed=retry_failed
        )
        self.status: int | None = None
        """Exit status, once nothing is left to do."""

    def run(self) -> int:
        """The campaign to its end; the exit status."""
        try:
            status = self._run()
        finally:
            self.workers.end()
        self.status = status
        return status

    def _run(self) -> int:
        began = time.monotonic()
        self._say(f"{self.study.name}: {self.study.question}", style="bold")
        self._say(
            f"{len(self.campaign.seeds)} points to start from, then {self.options.policy.kind} decisions "
            f"up to {self.options.budget:.3g} FLOPs"
        )
        self.use.executor.check()
        engine.refuse_other_settings([p.config for p in self.campaign.seeds], self.folder)
        write_text(self.folder / "study.yaml", dump_yaml(self.study))
        self._write_manifest()
        prepare_data(self.study, cores=self.use.cores, console=self.console)
        write_provenance(
            self.folder,
            command=self.command.split(),
            device=self.use.device,
            workers=self.use.workers,
            data=data_identity(self.study),
        )
        if not self.workers.train(self.campaign.seeds):
            return SOME_FAILED
        for point in self.campaign.seeds:
            self.ledger.add(0, "seed", point, Decision("seed", reason="seed lattice"), folder=self.folder)
        status = self._go_on()
        self.workers.end()
        note_finished(self.folder)
        self.stop.check()
        self._conclude(began)
        self.status = status
        return status

    def _go_on(self) -> int:
        """Decide, run, measure, and again; the exit status."""
        recorded = read_decisions(self.history)
        for step in range(1, 10_000):
            known = step <= len(recorded)
            entry = recorded[step - 1] if known else self._decided(step)
            if known and entry.decision.action == "stop" and entry.basis != self.ledger.basis():
                recorded = recorded[: step - 1]  # it had stopped under other rules, or a smaller budget
                entry = self._decided(step)
            decision = entry.decision
            point = None if decision.action == "stop" else point_of(decision, self.ledger)
            entry = replace(entry, id=None if point is None else point.planned.id)
            self.ledger.entries.append(entry)
            if not known:
                write_decisions(self.history, self.ledger.entries)
                self._tell(entry)
            if point is None:
                return COMPLETE
            self.ledger.points.append(point)
            self._write_manifest()
            if not self.workers.train([point]):
                return SOME_FAILED
            row = self.ledger.add(step, decision.action, point, decision, folder=self.folder)
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
        basis = self.ledger.basis()
        return Entry(step, None, decide_next(self.ledger.rows, basis), basis)

    def _write_manifest(self) -> None:
        inputs = inputs_hash(self.request.name, ["scale", *self.request.settings])
        write_manifest(
            self.folder, Manifest(inputs=inputs, points=tuple(p.planned for p in self.ledger.points))
        )

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
        rebuild_table(self.folder)
        plainly(lambda: analyse(self.folder), about="the points are kept, but their analysis failed")
        best = min(self.ledger.rows, key=lambda r: r.measured)
        q = quantity(self.campaign.loss_key)
        decided = [r for r in self.ledger.rows if r.step]
        self._say(
            f"\n{len(self.ledger.rows) - len(decided)} seeds and {len(decided)} runs that were decided on, "
            f"{self.ledger.rows[-1].flops_total:.4g} of "
            f"{self.options.budget:.4g} FLOPs; best {q.label} {best.measured * q.display_factor:.4g} "
            f"{q.display_unit or q.unit} at "
            f"N = {best.n_params:.0f}, D = {best.n_frames:.0f} (step {best.step}); this session took "
            f"{duration(time.monotonic() - began)}",
            style="bold",
        )
        for title, path in (("history", "history.csv"), ("reasons", "decisions.jsonl")):
            self._say(f"{title} {shown(self.history / path)}")
        self._say(f"report  {shown(self.folder / 'report.html')}")
