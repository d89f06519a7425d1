"""The lattice: its order, its ids, its selection, and everything that is refused before anything is spent."""

from __future__ import annotations

import pytest

from sapis_lab.config import ConfigError, dump, load
from sapis_lab.data import DatasetInfo
from sapis_lab.sweep.engine import kind_modules
from sapis_lab.sweep.points import point_id, points, select
from sapis_lab.sweep.study import Study, load_study

INFO = DatasetInfo(
    species=(1, 6, 8),
    n_train=400,
    n_validation=100,
    n_test={"test": 100},
    mean_atoms=9,
    mean_pairs=72,
    periodic=False,
    bytes_estimate=0,
)
SMALL = (
    "models=[transformer]",
    "lattice.n_params=[3e3,1e4]",
    "lattice.n_frames=[50,400]",
    "lattice.seeds=[0,1]",
    "train.learning_rate.transformer=0.005",
)


def lattice(*settings: str) -> list:
    return points(load_study("quickstart", [*SMALL, *settings]), INFO)


def test_ids_are_readable():
    assert point_id("geat-l2", 1e5, 512, 0) == "geat-l2-n1.0e5-d512-s0"
    assert point_id("geat-l2", 12345, 512, 3, 0.5) == "geat-l2-n1.2345e4-d512-s3-r0.5"


def test_points_follow_the_lattice():
    ids = [p.config.id for p in lattice()]
    assert ids == [
        f"transformer-n{n}-d{d}-s{s}" for n in ("3.0e3", "1.0e4") for d in (50, 400) for s in (0, 1)
    ]


def test_a_point_holds_its_own_numbers_and_loads_back():
    point = lattice()[-1]
    assert (
        point.config.n_frames == 400 and point.config.seed == 1 and point.config.train.learning_rate == 0.005
    )
    assert abs(point.planned.n_params / 1e4 - 1) < 0.1
    assert load(type(point.config), dump(point.config), source="x") == point.config
    assert point.planned.fingerprint == point.config.fingerprint
    assert point.planned.n_params == point.config.n_params and "n_params" not in point.config.science()


def test_the_kinds_of_the_points_are_imported_before_the_first_one_starts():
    assert kind_modules([p.config for p in lattice()]) == [
        "sapis_lab.data.xtb",
        "sapis_lab.models.transformer",
    ]


def test_rate_factors_multiply_the_rate():
    found = {
        p.config.id: p.config.train.learning_rate
        for p in lattice("lattice.rate_factors=[0.5,1]", "lattice.seeds=[0]")
    }
    assert found["transformer-n3.0e3-d50-s0-r0.5"] == 0.0025
    assert found["transformer-n3.0e3-d50-s0"] == 0.005


def test_every_point_has_its_own_fingerprint():
    found = lattice("lattice.rate_factors=[0.5,1]")
    assert len({p.config.fingerprint for p in found}) == len(found) == len({p.config.id for p in found})


def test_where_it_runs_is_no_part_of_a_point():
    a, b = lattice(), lattice("run.workers=7", "run.cache=elsewhere")
    assert [p.config.fingerprint for p in a] == [p.config.fingerprint for p in b]


def test_all_problems_are_told_at_once():
    with pytest.raises(ConfigError) as error:
        lattice("lattice.n_frames=[50,5000]", "lattice.n_params=[10,1e4]")
    assert "n_frames=5000 exceeds the 400 labelled training frames" in str(error.value)
    assert "n_params=10 cannot be met within 25% by transformer" in str(error.value)


def test_an_error_on_frames_that_the_data_lack_is_refused():
    with pytest.raises(
        ConfigError,
        match=r"law\.quantity: 'test_600K_force_mae' needs the frames of 'test_600K'.*they have val, test",
    ):
        lattice("law.quantity=test_600K_force_mae")
    assert lattice("law.quantity=test_energy_mae_per_atom")
    assert lattice("law.quantity=train_force_rmse")


def test_points_are_selected_by_id_glob_and_value():
    planned = [p.planned for p in lattice()]
    assert [p.id for p in select(planned, [])] == [p.id for p in planned]
    assert [p.id for p in select(planned, ["transformer-n1.0e4-d50-s1"])] == ["transformer-n1.0e4-d50-s1"]
    assert len(select(planned, ["transformer-n3*"])) == 4
    assert [p.id for p in select(planned, ["n_frames=50,seed=0"])] == [
        "transformer-n3.0e3-d50-s0",
        "transformer-n1.0e4-d50-s0",
    ]
    assert len(select(planned, ["n_params=1e4", "seed=0"])) == 6
    with pytest.raises(ConfigError, match="names no point; the nearest is 'transformer-n3.0e3-d50-s0'"):
        select(planned, ["transformer-n3.0e3-d51-s0"])
    with pytest.raises(ConfigError, match="with a key of model, family"):
        select(planned, ["frames=50"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lattice.n_params=[1e4,3e3]", "distinct values in ascending order"),
        ("lattice.n_frames=[50,50]", "distinct values in ascending order"),
        ("lattice.n_frames=[0]", "greater than or equal to 1"),
        ("lattice.n_params=[]", "at least 1 item"),
        ("lattice.seeds=[-1]", "greater than or equal to 0"),
        ("models=[geat,geat]", "'geat-l2' appears more than once; set a different `name:`"),
        ("models=[gaet]", "did you mean 'geat'"),
        ("data=ethanol-xbt", "did you mean 'ethanol-xtb'"),
        (
            "train.learning_rate={gaet: 0.1, geat: 0.1, transformer: 0.1}",
            "train.learning_rate: 'gaet' is no model",
        ),
        ("train.epochs=3", "exactly one of steps and epochs"),
        ("run.device=gpu", "'auto', 'cpu' or 'cuda'"),
        (
            "law.reference=geta",
            "law.reference: 'geta' is no model of this study; its models are geat-l2, transformer",
        ),
        ("law.quantity=n_params", "law.quantity: 'n_params' is no error that a law could describe"),
        ("data={kind: 3}", "data: wanted the name of a kind, one of"),
        ("data={kind: [xtb]}", "got kind=['xtb']"),
        ("latice.seeds=[1]", "unknown key 'latice'; did you mean 'lattice'"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(setting, message):
    with pytest.raises(ConfigError, match="studies/quickstart.yaml") as error:
        load_study("quickstart", [setting])
    assert message in str(error.value)


def test_two_models_of_one_kind_need_names():
    study = load_study("quickstart", ["models=[{use: geat, name: small, lmax: 1}, {use: geat}]"])
    assert [m.label for m in study.models] == ["small", "geat-l2"]


@pytest.mark.parametrize("name", ["../quickstart", "a/b", "..", "", "quickstart.yaml"])
def test_a_name_cannot_leave_the_folder(name):
    with pytest.raises(ConfigError):
        load_study(name)


def test_a_name_in_the_file_must_be_the_files(project):
    path = project / "studies/quickstart.yaml"
    path.write_text(path.read_text() + "name: other\n")
    with pytest.raises(ConfigError, match="the file name is the name"):
        load_study("quickstart")


def test_a_study_reads_back_under_another_name():
    study = load_study("quickstart", called="quick2")
    assert study.name == "quick2" and isinstance(study, Study)
