"""What a campaign has run, decided and spent so far, and what follows from it for the next decision: prices
and rules.

What a run costs is planned from the exact FLOPs of its model, times what the last record measured over what
was planned for it (batches are not all alike), and counted as its record measures it. With `warm_start` a run
starts from the one before; the campaign has paid for that one already, so only the new steps are counted,
here and in its record.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from sapis_lab.config import ConfigError
from sapis_lab.policies import Decision, Prices, Rules
from sapis_lab.records import AGAIN, RECORD, Record, read_record
from sapis_lab.scaling.campaign import FOLDER, Campaign
from sapis_lab.scaling.history import ASIDE, Basis, Entry, Row, runs_of, write_history
from sapis_lab.sweep.folder import point_folder
from sapis_lab.sweep.plan import planned_flops
from sapis_lab.sweep.points import Point

SIZES = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
"""Multiples of the last run's N at which the FLOPs of a model are looked at, for a power of N that holds
about there."""


class Ledger:
    """Grows with the campaign, a decision and a run at a time."""

    def __init__(self, campaign: Campaign) -> None:
        self.campaign = campaign
        self.rows: list[Row] = []
        """Of the history: the finished runs."""
        self.entries: list[Entry] = []
        """The decisions."""
        self.points: list[Point] = list(campaign.seeds)
        """Those of the lattice, and those that were decided on."""
        self.measured_over_planned = 1.0
        """FLOPs of the last run of the path."""
        self.labelled = campaign.info.n_train
        """Frames that there are."""

    def add(self, step: int, action: str, point: Point, decision: Decision, *, folder: Path) -> Row:
        """The finished run as a row of the history, which is written; `folder`: of the results."""
        place = point_folder(folder, point.planned.id)
        record: Record = read_record(place)
        key = self.campaign.loss_key
        if key not in record.metrics:
            raise ConfigError(f"{place / RECORD} has no {key}, by which scale: decides; {AGAIN}")
        new = max(0, record.n_frames - self.labelled)
        self.labelled = max(self.labelled, record.n_frames)
        flops = record.flops_train + new * self.campaign.options.label_cost
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
            record.metrics[key],
            decision.reason,
        )
        self.rows.append(row)
        if step == 0 and len(self.rows) < len(self.campaign.seeds):
            return row
        write_history(folder / FOLDER, self.rows)
        return row

    def basis(self) -> Basis:
        """What the next decision rests on besides the rows."""
        o = self.campaign.options
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
        return Basis(o.policy, o.budget, self.prices(), rules)

    def prices(self) -> Prices:
        """FLOPs against N and D: a power of N through what models of about the last run's size need."""
        runs = runs_of(self.rows)
        n_frames, found = self.campaign.study.lattice.n_frames[-1], []
        for factor in SIZES:
            n_params = float(f"{factor * runs.n_params[runs.last]:.3g}")
            try:
                found.append(self.campaign.point(n_params, n_frames, 0))
            except ConfigError:
                continue  # a size that the family cannot have
        each = np.array([self.planned(p) for p in found]) / n_frames
        power, log_kappa = np.polyfit(np.log([p.planned.n_params for p in found]), np.log(each), 1)
        return Prices(
            float(np.exp(log_kappa)), float(power), self.campaign.options.label_cost, float(self.labelled)
        )

    def planned(self, point: Point) -> float:
        """Training FLOPs of a point, as records count them."""
        return planned_flops(point, self.campaign.known) * self.measured_over_planned
