"""Runs the points of a campaign to their end, through the executor of its study: on this machine by workers
that serve the whole session, or as jobs of Slurm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from sapis_lab.jobs.events import OnEvent
from sapis_lab.jobs.executor import Executor
from sapis_lab.jobs.folder import failure_reason, state
from sapis_lab.records import RECORD
from sapis_lab.scaling.campaign import Campaign
from sapis_lab.sweep import engine
from sapis_lab.sweep.board import Board
from sapis_lab.sweep.folder import point_folder
from sapis_lab.sweep.plan import plan
from sapis_lab.sweep.points import Point
from sapis_lab.sweep.prepare import prepare_data
from sapis_lab.sweep.resources import Resources, executor_of
from sapis_lab.sweep.submission import follower, refuse_if_queued


class Workers:
    """Started with the first point that has to run."""

    def __init__(
        self,
        campaign: Campaign,
        use: Resources,
        console: Console,
        *,
        folder: Path,
        command: str,
        retry_failed: bool,
    ) -> None:
        self.campaign, self.use, self.console = campaign, use, console
        self.folder, self.command, self.retry_failed = folder, command, retry_failed
        self.pool: _Kept | None = None

    def end(self) -> None:
        """Let them go."""
        pool, self.pool = self.pool, None
        if pool is not None:
            pool.end()

    def _say(self, text: str, style: str = "") -> None:
        self.console.print(Text(text, style=style), soft_wrap=True)

    def train(self, chosen: Sequence[Point]) -> bool:
        """Run points; False, with the reasons printed, where one failed. Raises Stopped where one has not
        ended and nobody runs it."""
        study = self.campaign.study
        configs = sorted((p.config for p in chosen), key=lambda c: -c.n_params_target * c.n_frames)
        if any(not (point_folder(self.folder, c.id) / RECORD).exists() for c in configs):
            for data in {c.data.model_dump_json(): c.data for c in configs}.values():
                if data != study.data:
                    other = study.model_copy(update={"data": data})
                    prepare_data(other, cores=self.use.cores, console=self.console)
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
            "cache": self.campaign.study.run.cache_folder,
            "retry_failed": self.retry_failed,
        }
        if self.use.slurm:
            costs = plan(
                self.campaign.study,
                chosen,
                self.campaign.known,
                workers=self.use.workers,
                device=self.use.device,
            )
            queue = executor_of(
                self.campaign.study,
                self.use,
                self.folder,
                points=configs,
                expected=costs.expected_seconds,
            )
            try:
                engine.run(configs, executor=queue, on_event=follower(self.console), **how)
            except engine.Stopped:
                self._say("\nnot waiting any longer; the jobs go on")
                raise
            return
        refuse_if_queued([c.id for c in configs], self.folder, self.console)
        self.pool = self.pool or self._started()
        ids, key = [c.id for c in configs], self.campaign.loss_key
        with Board(
            ids, folder=self.folder, expected={}, workers=self.use.workers, loss_key=key, console=self.console
        ) as board:
            engine.run(configs, executor=self.pool, on_event=_unless_kept(board), **how)

    def _started(self) -> _Kept:
        """Workers that serve the whole session: importing everything takes longer than many a point."""
        seeds = [p.config for p in self.campaign.seeds]
        return _Kept(executor_of(self.campaign.study, self.use, self.folder, points=seeds))


class _Kept:
    """An executor that outlives one call of the engine."""

    def __init__(self, pool: Executor) -> None:
        self.pool, self.task = pool, pool.task
        self.start, self.stop, self.poll, self.end = pool.start, pool.stop, pool.poll, pool.close

    @property
    def n_free(self) -> int:
        return self.pool.n_free

    @property
    def running(self) -> tuple[str, ...]:
        return self.pool.running

    def open(self, on_event: OnEvent, give_up: Callable[[], bool]) -> None:
        """Once, and without a word: the console has said what begins."""
        self.pool.open(lambda event: None, give_up)

    def close(self) -> None:
        """What the engine does after each run; the session ends the pool."""


def _unless_kept(board: Board) -> Any:
    """The board, without a line for every point that was done before."""
    return lambda event: None if event.kind == "kept" else board(event)
