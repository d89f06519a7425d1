"""What may be tuned: everything is checked against the config before anything starts; refusals name field,
bound and nearest name."""

from __future__ import annotations

from typing import Any

import pytest

from sapis_lab.config import ConfigError, dump, dump_yaml, load
from sapis_lab.data import DatasetInfo
from sapis_lab.sweep.files import checked_url
from sapis_lab.sweep.study import Study
from sapis_lab.sweep.tuner import tickets
from sapis_lab.sweep.tuner.options import Axis, TuneOptions
from sapis_lab.sweep.tuner.space import Cell, cells, is_whole, study_settings
from sapis_lab.text import without_password

INFO = DatasetInfo((1, 6, 8), 100, 50, {"test": 50}, 9.0, 72.0, False, 1000)
RAW: dict[str, Any] = {
    "name": "s",
    "question": "?",
    "data": "ethanol-xtb",
    "models": ["geat"],
    "train": {"use": "default", "steps": 10},
    "lattice": {"n_params": [3e3, 1e4], "n_frames": [50, 100]},
}


def study(tune: dict[str, Any], **more: Any) -> Study:
    return load(Study, {**RAW, **more, "tune": tune}, source="studies/s.yaml")


def found(space: dict[str, Any], **more: Any) -> list[Cell]:
    made = study({"space": space}, **more)
    assert made.tune is not None
    return cells(made, made.tune, INFO)


def test_every_n_and_d_of_the_lattice_is_a_cell():
    made = found({"train.learning_rate": {"log": [1e-3, 0.1]}})
    assert [c.id for c in made] == [
        "geat-l2-n3.0e3-d50",
        "geat-l2-n3.0e3-d100",
        "geat-l2-n1.0e4-d50",
        "geat-l2-n1.0e4-d100",
    ]


def test_what_is_searched_over_is_no_part_of_the_cells():
    (cell,) = found({"n_params_target": {"log": [3e3, 1e4]}, "n_frames": {"choice": [50, 100]}})
    assert cell.id == "geat-l2"
    point = cell.point({"n_params_target": 5e3, "n_frames": 50}, id="t", number=0)
    assert (
        point.n_frames == 50
        and point.n_params == pytest.approx(5e3, rel=0.25)
        and point.n_params_target == 5e3
    )


def test_the_values_of_a_trial_are_in_its_point():
    cell = found({"train.learning_rate": {"log": [1e-3, 0.1]}}, lattice={**RAW["lattice"], "seeds": [3, 5]})[
        0
    ]
    values = {
        "train.learning_rate": 0.02,
        "train.loss.energy_weight": 7.0,
        "train.betas.0": 0.8,
        "model.heads": 2,
        "train.ema": None,
        "train.optimizer.every": 20,
    }
    points = [cell.point(values, id=f"t{k}", number=k) for k in range(3)]
    train = points[0].train
    assert (train.learning_rate, train.loss.energy_weight, train.betas, train.ema) == (
        0.02,
        7.0,
        (0.8, 0.95),
        None,
    )
    assert train.optimizer.every == 20
    assert cell.point({"train.ema.share": 0.1}, id="t", number=0).train.ema.share == 0.1
    assert points[0].model.heads == 2 and points[0].n_params == points[0].model.n_params(n_species=3)
    assert [p.seed for p in points] == [3, 5, 3] and points[0].id == "t0"


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (
            {"train.learning_rte": {"log": [1e-3, 0.1]}},
            ["train.learning_rte", "did you mean 'train.learning_rate'?"],
        ),
        ({"model.head": {"choice": [2]}}, ["did you mean 'model.heads'?"]),
        (
            {"train.ema": {"linear": [0.9, 1.0]}},
            ["train.ema", "the largest value 1.0 is refused", "less than 1"],
        ),
        ({"train.warmup": {"linear": [-0.1, 0.1]}}, ["the smallest value -0.1 is refused"]),
        ({"train.batch_size": {"linear": [2.5, 8]}}, ["train.batch_size", "the fraction 2.5", "integer"]),
        (
            {"train.schedule": {"choice": ["cosine", "cosin"]}},
            ["the choice 'cosin' is refused", "'cosine' or 'wsd'"],
        ),
        (
            {"model.heads": {"choice": [2, 3]}},
            ["the choice 3 is refused", "heads=3 does not divide channels"],
        ),
        ({"model.channels": {"linear": [4, 64], "step": 4}}, ["model.channels", "n_params_target"]),
        ({"n_frames": {"log": [10, 500]}}, ["500", "100 labelled training frames"]),
        ({"n_params_target": {"log": [10, 1e4]}}, ["the smallest value 10", "smallest size"]),
        ({"data.seed": {"choice": [1]}}, ["no number or choice in the config"]),
        ({"train.epochs": {"linear": [1, 5]}}, ["exactly one of steps and epochs"]),
    ],
)
def test_what_the_config_refuses_is_told_before_anything_starts(space, words):
    with pytest.raises(ConfigError) as refused:
        found(space)
    assert "studies/s.yaml: tune.space." in str(refused.value)
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize(
    ("tune", "words"),
    [
        ({"space": {}}, ["tune.space", "at least 1 item"]),
        (
            {"space": {"train.ema": {"log": [0.1, 0.01]}}},
            ["tune.space.train.ema", "the smallest and the largest value"],
        ),
        ({"space": {"train.ema": {"log": [0, 1]}}}, ["log wants values above 0"]),
        (
            {"space": {"train.ema": {"log": [0.1, 0.9], "choice": [1]}}},
            ["exactly one of log, linear and choice, got log and choice"],
        ),
        ({"space": {"train.ema": {"lin": [0.1, 0.9]}}}, ["unknown key 'lin'; did you mean 'linear'?"]),
        ({"space": {"train.ema": {"choice": [0.1, 0.1]}}}, ["distinct values"]),
        (
            {"space": {"train.ema": {"choice": [0.1]}}, "trial": 3},
            ["unknown key 'trial'; did you mean 'trials'?"],
        ),
        (
            {"space": {"train.ema": {"choice": [0.1]}}, "objectives": ["test_force_rmse"]},
            ["test frames", "'val_force_rmse'"],
        ),
        (
            {"space": {"train.ema": {"choice": [0.1]}}, "objectives": ["learning_rate"]},
            ["neither an error nor a cost"],
        ),
        (
            {
                "space": {"train.ema": {"choice": [0.1]}},
                "objectives": ["val_force_rmse", "flops_train"],
                "pruner": "asha",
            },
            ["tune.pruner", "one objective"],
        ),
        (
            {"space": {"train.ema": {"choice": [0.1]}}, "sampler": "cmaes"},
            ["tune.sampler", "the choice train.ema"],
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(tune, words):
    with pytest.raises(ConfigError) as refused:
        study(tune)
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize("split", ["test", "train"])
def test_a_law_of_errors_on_other_frames_wants_other_objectives(split):
    with pytest.raises(ConfigError, match="objectives.*'val_force_mae'"):
        study({"space": {"train.ema": {"choice": [0.9]}}}, law={"quantity": f"{split}_force_mae"})


def test_a_tuned_study_loads_back_as_written():
    import yaml

    made = study(
        {
            "space": {"train.batch_size": {"linear": [2, 8], "step": 2}, "model.heads": {"choice": [2, 4]}},
            "pruner": "median",
        }
    )
    assert load(Study, yaml.safe_load(dump_yaml(made)), source="dump") == made


def test_whole_numbers_stay_whole_and_ranges_keep_their_steps():
    cell = found({"train.learning_rate": {"log": [1e-3, 0.1]}})[0]
    names = (
        "train.batch_size",
        "train.steps",
        "model.layers",
        "n_frames",
        "train.learning_rate",
        "train.schedule",
        "model.soft_norm",
    )
    assert [is_whole(cell, name) for name in names] == [True, True, True, True, False, False, False]
    d = tickets._distribution(Axis(linear=(2, 9), step=3), whole=True)
    assert (d.low, d.high, d.step) == (2, 8, 3)
    assert tickets._distribution(Axis(log=(2, 64)), whole=True).log


def test_settings_are_given_as_overrides_of_the_study():
    made = study({"space": {"model.heads": {"choice": [2]}}})
    cell = cells(made, made.tune, INFO)[0]
    values = {
        "train.learning_rate": 0.01,
        "model.heads": 2,
        "train.ema": None,
        "train.augment": True,
        "n_frames": 50,
    }
    words = [
        "train.learning_rate=0.01",
        "models.0.heads=2",
        "train.ema=null",
        "train.augment=true",
        "lattice.n_frames=[50]",
    ]
    assert study_settings(made, cell, values) == words


# ---------------------------------------------------------------------------------------------------- storage


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://u:se:c/r@et@h:5432/db",
        "postgresql://u:secret@h/db",
        "postgresql://h/db?user=u&password=secret",
    ],
)
def test_a_password_is_used_but_written_nowhere(url: str):
    made = study({"space": {"train.ema": {"choice": [0.9]}}}, run={"storage": url})
    assert made.run.storage == checked_url(url) and made.run.storage.startswith("postgresql+psycopg://")
    for text in (dump_yaml(made), str(dump(made)), without_password(f"--set run.storage={url}")):
        assert "***" in text and "secret" not in text and "r@et" not in text


@pytest.mark.parametrize("url", ["sqlite:///x.db", "mysql://u:hidden@h/db", "postgresql:", "redis://h"])
def test_another_database_is_refused_without_its_password(url: str):
    with pytest.raises(ConfigError) as refused:
        study({"space": {"train.ema": {"choice": [0.9]}}}, run={"storage": url})
    assert "postgresql+psycopg://user@host/database" in str(refused.value) and "hidden" not in str(
        refused.value
    )


def test_a_command_without_a_password_is_left_alone():
    text = "sapis tune x --set run.storage=postgresql+psycopg://u@h/db --set train.steps=3"
    assert without_password(text) == text


def test_a_study_is_read_without_optuna_and_without_what_runs_points():
    import subprocess
    import sys

    heavy = [
        "optuna",
        "submitit",
        "sapis_lab.sweep.engine",
        "sapis_lab.jobs.run",
        "sapis_lab.executors.slurm",
    ]
    code = f"import sys, sapis_lab.sweep.study; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_more_trials_or_another_sampler_may_be_asked_for_later_but_not_another_space():
    made = study({"space": {"train.ema": {"choice": [0.9]}}})
    cell = cells(made, made.tune, INFO)[0]

    def settings(**change: Any) -> dict:
        return tickets.settings(cell, TuneOptions(**{**dump(made.tune), **change}), ["val_force_rmse"])

    assert settings(trials=99, sampler="gp", pruner="median", seed=7) == settings()
    assert settings(space={"train.ema": {"choice": [0.8]}}) != settings()


# ----------------------------------------------------------------------------------------------------- regime


def test_a_lattice_takes_its_rates_from_the_rule_of_another_study(project):
    from sapis_lab.analysis.regime import ModelRule, PowerRule, Regime, write_regime
    from sapis_lab.sweep.points import points

    def rule(kappa: float, exponent: float) -> PowerRule:
        return PowerRule(kappa, exponent, 0.0, dict.fromkeys(("kappa", "n_exponent", "d_exponent")), 0.0, ())

    rules = {"learning_rate": rule(0.3, -0.25), "batch_size": rule(0.004, 1.0)}
    write_regime(
        Regime("tuned", "val_force_rmse", {"geat-l2": ModelRule("geat-l2", "geat", rules)}),
        project / "results/tuned",
        train={},
    )
    raw = {**RAW, "models": ["geat", "transformer"], "regime": "tuned"}
    made = {p.config.id: p for p in points(load(Study, raw, source="s"), INFO)}
    for n in ("3.0e3", "1.0e4"):
        config, planned = made[f"geat-l2-n{n}-d50-s0"]
        assert config.train.learning_rate == planned.learning_rate == 0.3 * planned.n_params**-0.25
        assert config.train.batch_size == round(0.004 * planned.n_params) != 16
    assert made["transformer-n3.0e3-d50-s0"].config.train.learning_rate == 0.05  # the rule does not know it
    with pytest.raises(
        ConfigError,
        match="regime: .*results/nobody/regime.json is not there; tune that study first: sapis tune nobody",
    ):
        points(load(Study, {**raw, "regime": "nobody"}, source="s"), INFO)


def test_a_ticket_that_is_tried_again_may_die_as_often_as_a_new_one():
    import optuna

    study = optuna.create_study()
    study.enqueue_trial({}, user_attrs={tickets.FOLDER: "cell-t0000"})
    trial = study.ask()
    assert tickets.died(trial, "by SIGKILL") is None and tickets.died(trial, "by SIGKILL") is None
    ended = tickets.died(trial, "with status 3")
    assert ended is not None and ended.state == "failed"
    assert ended.reason == "ended 3 times without a result, the last time with status 3"
    tickets.tell(study, trial, ended)
    assert tickets.retry_failed(study) == ["cell-t0000"]
    again = study.ask()
    assert again.user_attrs[tickets.FOLDER] == "cell-t0000"
    assert tickets.died(again, "by SIGKILL") is None
