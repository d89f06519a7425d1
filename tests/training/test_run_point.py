"""A point runs, resumes exactly, records what it is, and refuses to turn a diverged training into a
number."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pandas as pd
import pytest
import torch
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

import sapis_lab
from sapis_lab.config import dump_yaml, load, read_yaml
from sapis_lab.files import write_text
from sapis_lab.models.transformer import TransformerConfig
from sapis_lab.potential import load_potential
from sapis_lab.records import read_record
from sapis_lab.structures import Structure
from sapis_lab.training import PointConfig
from sapis_lab.training._callbacks import CURVE
from sapis_lab.training.run import PointFailed, prepare_task, run_point

MODEL = {
    "kind": "geat",
    "lmax": 1,
    "layers": 1,
    "channels": 4,
    "heads": 1,
    "invariants": 2,
    "n_radial": 8,
    "edge_hidden": 8,
}


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Copper-gold clusters of 4 to 6 atoms labelled by effective-medium theory, as an extended-XYZ file."""
    rng, folder, clusters = np.random.default_rng(0), tmp_path_factory.mktemp("frames"), []
    corners = 2.6 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1]])
    for k in range(24):
        n = 4 + k % 3
        atoms = Atoms(
            ["Cu", "Au", "Cu", "Cu", "Au", "Cu"][:n],
            corners[:n] + rng.normal(scale=0.12, size=(n, 3)),
            calculator=EMT(),
        )
        atoms.get_forces()
        clusters.append(atoms)
    write(folder / "clusters.xyz", clusters, format="extxyz")
    return folder


def point(folder, frames, **train):
    settings = {"steps": 12, "batch_size": 4, "learning_rate": 0.01, "validations": 3, **train}
    data = {
        "kind": "extxyz",
        "train": "clusters.xyz",
        "n_validation": 4,
        "n_test": 4,
        "energy_unit": "eV",
        "length_unit": "Angstrom",
    }
    raw = {
        "id": folder.name,
        "data": {**data, "root": str(frames)},
        "model": MODEL,
        "n_params_target": 1000,
        "n_frames": 10,
        "seed": 0,
    }
    config = load(PointConfig, {**raw, "train": settings}, source="test")
    write_text(folder / "config.yaml", dump_yaml(config))
    return config


def test_a_point_records_what_it_is_and_its_model_opens_as_a_calculator(tmp_path, frames):
    config = point(tmp_path / "p", frames)
    run_point(tmp_path / "p", cache=tmp_path / "cache")
    record = read_record(tmp_path / "p")
    model = config.model.build(species=(29, 79), mean_neighbors=4.0, seed=0)
    assert (
        record.n_params
        == sum(p.numel() for p in model.parameters())
        == record.n_params_equivariant + record.n_params_scalar
    )
    assert (record.n_frames, record.steps, record.samples, record.epochs) == (10, 12, 48, 4.8)
    assert record.flops_train == 12 * record.flops_per_step > 0
    assert record.fingerprint == config.fingerprint
    assert {"val_force_rmse", "test_force_rmse", "test_energy_mae"} <= set(record.metrics)
    # the recorded error is the error of the model on disk
    from ase.io import read

    calculator = sapis_lab.load_model(tmp_path / "p")
    errors = []
    for k in np.random.default_rng(0).permutation(24)[-4:]:  # the frames held out last
        labelled = read(frames / "clusters.xyz", int(k))
        free = labelled.copy()
        free.calc = calculator
        errors.append((free.get_forces() - labelled.get_forces()).ravel())
    rmse = float(np.sqrt(np.mean(np.concatenate(errors) ** 2)))
    assert min(abs(rmse / record.metrics[k] - 1) for k in ("val_force_rmse", "test_force_rmse")) < 1e-4
    made_from = calculator.potential.references_from
    assert made_from.kind == "ridge" and made_from.compositions == ({29: 3, 79: 1}, {29: 3, 79: 2})
    with pytest.raises(
        ValueError,
        match="a lone Cu atom: its energy, and atomisation energies with it, would have no meaning",
    ):
        Atoms("Cu", calculator=calculator).get_potential_energy()


def test_errors_on_the_first_training_frames_are_recorded_and_change_nothing_else(
    tmp_path, frames, monkeypatch
):
    """Whatever their number, weights and other errors have the same bits; the frames are not turned."""
    records = {}
    for most in (1, 3, 200):
        config = point(tmp_path / f"p{most}", frames, schedule="wsd", ema=0.9)
        config = config.model_copy(update={"model": TransformerConfig(layers=1, channels=8, heads=2)})
        write_text(tmp_path / f"p{most}" / "config.yaml", dump_yaml(config))
        monkeypatch.setattr("sapis_lab.training.run.SCORED_TRAINING_FRAMES", most)
        run_point(tmp_path / f"p{most}", cache=tmp_path / "cache")
        records[most] = read_record(tmp_path / f"p{most}")
    weights = {(tmp_path / f"p{most}" / "model.safetensors").read_bytes() for most in records}
    others = [{k: v for k, v in r.metrics.items() if not k.startswith("train_")} for r in records.values()]
    assert len(weights) == 1 and others[0] == others[1] == others[2]
    task, potential = prepare_task(config, tmp_path / "cache"), load_potential(tmp_path / "p3")
    for most, n in ((1, 1), (3, 3), (200, 10)):
        chosen = [task.store.frames(task.train_ids[k : k + 1]) for k in range(n)]
        found = potential.predict([Structure(f.species, f.positions, f.cell[0], f.pbc[0]) for f in chosen])
        error = np.asarray(found.forces) - np.concatenate([f.forces for f in chosen])
        assert records[most].metrics["train_force_mae"] == pytest.approx(np.abs(error).mean(), rel=1e-4)


def test_the_record_says_how_far_training_rose_above_its_best(tmp_path, frames):
    """At a rate too high the last validation is not the best."""
    point(tmp_path / "p", frames, learning_rate=0.5, schedule="wsd", validations=6, ema=None)
    run_point(tmp_path / "p", cache=tmp_path / "cache")
    curve = pd.read_csv(tmp_path / "p" / CURVE).dropna(subset="val_force_rmse")
    ratios = [curve[k].iloc[-1] / curve[k].min() for k in ("val_force_rmse", "val_energy_rmse")]
    assert read_record(tmp_path / "p").metrics["validation_rise"] == pytest.approx(max(ratios), rel=1e-6)
    assert max(ratios) > 1


def test_the_checkpoint_loads_without_running_code(tmp_path, frames):
    point(tmp_path / "p", frames)
    run_point(tmp_path / "p", cache=tmp_path / "cache", checkpoint_seconds=0)
    checkpoint = torch.load(tmp_path / "p" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 11


def test_tensorboard_shows_curves_settings_and_final_errors(tmp_path, frames):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    point(tmp_path / "p", frames)
    run_point(tmp_path / "p", cache=tmp_path / "cache")
    record, events = read_record(tmp_path / "p"), EventAccumulator(str(tmp_path / "p" / "tensorboard"))
    events.Reload()
    assert [e.step for e in events.Scalars("val_force_rmse")] == [4, 8, 12]
    (final,) = events.Scalars("final/test_force_mae")
    assert final.value == pytest.approx(record.metrics["test_force_mae"])
    told = HParamsPluginData.FromString(
        events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    ).session_start_info.hparams
    assert (told["model"].string_value, told["n_params"].number_value) == (record.model, record.n_params)


@pytest.mark.parametrize(
    ("settings", "kills"),
    [
        pytest.param({"optimizer": {"kind": "adamw"}, "amsgrad": True}, (8, 25), marks=pytest.mark.long),
        ({"optimizer": {"kind": "soap", "every": 3}}, (15,)),
    ],
)
def test_a_run_killed_at_a_random_step_ends_in_the_same_numbers(tmp_path, frames, settings, kills):
    for name in ("whole", "killed"):
        point(tmp_path / name, frames, steps=60, **settings)  # three moments to restore, or bases
    code = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        from sapis_lab.training.run import run_point
        run_point(Path(sys.argv[1]), cache=Path({str(tmp_path / "cache")!r}), checkpoint_seconds=0)
    """)
    subprocess.run([sys.executable, "-c", code, tmp_path / "whole"], check=True, capture_output=True)
    for rows in kills:
        command = [sys.executable, "-c", code, tmp_path / "killed"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
            curve = tmp_path / "killed" / "metrics.csv"
            while child.poll() is None and (not curve.exists() or curve.read_text().count("\n") < rows):
                time.sleep(0.005)
            os.kill(child.pid, signal.SIGKILL)
    assert not (tmp_path / "killed" / "record.json").exists()
    subprocess.run([sys.executable, "-c", code, tmp_path / "killed"], check=True, capture_output=True)
    for file in ("model.safetensors", "metrics.csv"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "killed" / file).read_bytes(), file
    whole, killed = read_record(tmp_path / "whole"), read_record(tmp_path / "killed")
    assert whole.metrics == killed.metrics and whole.flops_train == killed.flops_train


def test_a_diverged_run_fails_with_its_reason_and_leaves_no_record(tmp_path, frames):
    point(tmp_path / "p", frames, learning_rate=1e3, clip=None, ema=None, warmup=0.0)
    with pytest.raises(PointFailed, match="diverged"):
        run_point(tmp_path / "p", cache=tmp_path / "cache")
    assert not (tmp_path / "p" / "record.json").exists()


def test_more_frames_than_there_are_is_refused(tmp_path, frames):
    config = point(tmp_path / "p", frames).model_copy(update={"n_frames": 17})
    write_text(tmp_path / "p" / "config.yaml", dump_yaml(config))
    with pytest.raises(ValueError, match="n_frames=17 exceeds the 16 labelled training frames"):
        run_point(tmp_path / "p", cache=tmp_path / "cache")


def test_a_model_of_another_size_than_planned_is_refused(tmp_path, frames):
    config = point(tmp_path / "p", frames).model_copy(update={"n_params": 123})
    write_text(tmp_path / "p" / "config.yaml", dump_yaml(config))
    with pytest.raises(
        ValueError, match=r"planned with n_params=123, but its model for the elements \[29, 79\] has"
    ):
        run_point(tmp_path / "p", cache=tmp_path / "cache")


@pytest.mark.gpu
def test_a_point_on_a_gpu_resumes_from_its_checkpoint(tmp_path, frames):
    point(tmp_path / "p", frames, steps=40)
    run_point(tmp_path / "p", cache=tmp_path / "cache", device="cuda", checkpoint_seconds=0)
    whole = read_record(tmp_path / "p")
    (tmp_path / "p" / "record.json").unlink()
    # its last step again
    run_point(tmp_path / "p", cache=tmp_path / "cache", device="cuda", checkpoint_seconds=0)
    assert read_record(tmp_path / "p").metrics["val_force_rmse"] == pytest.approx(
        whole.metrics["val_force_rmse"], rel=1e-3
    )


def test_where_the_data_lie_is_no_part_of_a_result(tmp_path, frames):
    here = point(tmp_path / "p", frames)
    there = here.model_copy(update={"data": here.data.model_copy(update={"root": tmp_path})})
    assert here.fingerprint == there.fingerprint
    assert here.fingerprint != here.model_copy(update={"seed": 1}).fingerprint


def test_amsgrad_is_part_of_a_result_only_where_it_is_on(tmp_path, frames):
    plain = {"steps": 60, "optimizer": {"kind": "adamw"}}
    off, on = (point(tmp_path / name, frames, **plain, amsgrad=name == "on") for name in ("off", "on"))
    assert (
        off.fingerprint
        == point(tmp_path / "plain", frames, **plain).model_copy(update={"id": "off"}).fingerprint
        != on.fingerprint
    )
    assert "amsgrad" not in off.science()["train"] and on.science()["train"]["amsgrad"]
    for name in ("off", "on"):
        run_point(tmp_path / name, cache=tmp_path / "cache")
    errors = [read_record(tmp_path / name).metrics["val_force_rmse"] for name in ("off", "on")]
    assert errors[0] != errors[1]


def test_settings_of_a_point_load_back_to_the_same_value(tmp_path, frames):
    config = point(tmp_path / "p", frames)
    assert load(PointConfig, read_yaml(tmp_path / "p" / "config.yaml"), source="test") == config


def test_a_checkpoint_of_other_settings_is_refused_with_the_settings(tmp_path, frames):
    folder = tmp_path / "p"
    point(folder, frames, steps=40)
    stop = textwrap.dedent(f"""
        import os, signal, sys
        from pathlib import Path
        from sapis_lab.training import _callbacks
        from sapis_lab.training.run import run_point
        save = _callbacks.Curve.save
        def once(self, trainer):
            save(self, trainer)
            os.kill(os.getpid(), signal.SIGKILL)
        _callbacks.Curve.save = once
        run_point(Path(sys.argv[1]), cache=Path({str(tmp_path / "cache")!r}), checkpoint_seconds=0)
    """)
    assert (
        subprocess.run([sys.executable, "-c", stop, folder], capture_output=True).returncode
        == -signal.SIGKILL
    )
    assert (folder / "last.ckpt").exists()
    point(folder, frames, steps=40, learning_rate=0.002)  # by hand: no engine looks at what the folder holds
    with pytest.raises(
        ValueError,
        match=r"last\.ckpt was made from other settings than config\.yaml has now; .* train\.learning_rate",
    ):
        run_point(folder, cache=tmp_path / "cache")
    assert (folder / "last.ckpt").exists() and not (folder / "record.json").exists()
    point(folder, frames, steps=40)
    run_point(folder, cache=tmp_path / "cache")
    assert read_record(folder).steps == 40


def test_a_finished_point_is_not_trained_over_under_other_settings(tmp_path, frames):
    point(tmp_path / "p", frames)
    run_point(tmp_path / "p", cache=tmp_path / "cache")
    before = (tmp_path / "p/record.json").read_bytes()
    point(tmp_path / "p", frames, learning_rate=0.002)
    with pytest.raises(
        ValueError, match=r"record\.json was made from other settings .* train\.learning_rate"
    ):
        run_point(tmp_path / "p", cache=tmp_path / "cache")
    assert (tmp_path / "p/record.json").read_bytes() == before


def form_on_cpu(config):
    return config.model.build(species=(29, 79), mean_neighbors=4.0, seed=0).kernel(torch.device("cpu"))


def test_a_record_names_its_weights_and_what_computed_them(tmp_path, frames):
    from sapis_lab.files import digest

    config = point(tmp_path / "p", frames)
    run_point(tmp_path / "p", cache=tmp_path / "cache")
    made = read_record(tmp_path / "p")
    assert made.weights == digest(tmp_path / "p/model.safetensors")
    assert made.kernel == form_on_cpu(config)


@pytest.mark.long
def test_a_point_that_goes_on_in_another_form_records_both(tmp_path, frames):
    folder = tmp_path / "p"
    code = textwrap.dedent(f"""
        import os, signal, sys
        from pathlib import Path
        from sapis_lab.training import _callbacks
        from sapis_lab.training.run import run_point
        save = _callbacks.Curve.save
        def once(self, trainer):
            save(self, trainer)
            if "kill" in sys.argv:
                os.kill(os.getpid(), signal.SIGKILL)
        _callbacks.Curve.save = once
        run_point(Path(sys.argv[1]), cache=Path({str(tmp_path / "cache")!r}), checkpoint_seconds=0)
    """)
    config, logs = point(folder, frames), []
    for words, kernels in ((["kill"], "off"), ([], "auto")):
        done = subprocess.run(
            [sys.executable, "-c", code, folder, *words],
            env={**os.environ, "SAPIS_KERNELS": kernels},
            capture_output=True,
            text=True,
        )
        logs.append(done.stdout)
    alone = form_on_cpu(config) == "PyTorch"
    assert read_record(folder).kernel == ("PyTorch" if alone else "PyTorch, C++")
    said = "point p: PyTorch computes the steps, not a compiled kernel: "
    assert logs[0].count(f"{said}off by $SAPIS_KERNELS\n") == 1 and logs[1].count(said) == int(alone)


@pytest.mark.parametrize("where", ["middle", "end"])
def test_a_bit_turned_over_in_the_weights_is_refused(tmp_path, frames, where):
    point(tmp_path / "p", frames)
    run_point(tmp_path / "p", cache=tmp_path / "cache")
    path = tmp_path / "p/model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1 if where == "end" else len(data) * 3 // 4] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(
        ValueError, match=r"model\.safetensors is not the file that model\.yaml was written with"
    ):
        sapis_lab.load_model(tmp_path / "p")


@pytest.mark.parametrize("references", ["ridge", "isolated"])
def test_references_are_fitted_once_more_to_what_the_trained_model_leaves(tmp_path, frames, references):
    """The potential then has no mean error of the energies of the training frames; forces have the same
    bits."""
    from ase.io import read

    labelled = read(frames / "clusters.xyz", ":")
    lone = [
        Atoms(element, calculator=SinglePointCalculator(Atoms(element), energy=e))
        for element, e in (("Cu", 3.0), ("Au", 4.0))
    ]
    write(frames / "atoms.xyz", lone, format="extxyz")
    mean, metrics = {}, {}
    for refit in (False, True):
        folder = tmp_path / str(refit)
        config = point(folder, frames, refit_references=refit, references=references)
        data = config.data.model_copy(update={"isolated_atoms": "atoms.xyz"})
        write_text(folder / "config.yaml", dump_yaml(config.model_copy(update={"data": data})))
        run_point(folder, cache=tmp_path / "cache")
        metrics[refit] = read_record(folder).metrics
        calculator = sapis_lab.load_model(folder)
        errors = []
        for k in np.random.default_rng(0).permutation(24)[:10]:
            free = labelled[k].copy()
            free.calc = calculator
            errors.append(free.get_potential_energy() - labelled[k].get_potential_energy())
        mean[refit] = np.mean(errors)
    assert abs(mean[True]) < 1e-5 < 1e-3 < abs(mean[False])
    for key in ("val_force_rmse", "test_force_rmse", "train_force_mae"):
        assert metrics[True][key] == metrics[False][key]
    assert metrics[True]["train_energy_rmse"] < metrics[False]["train_energy_rmse"]
    assert metrics[True]["val_energy_rmse"] != metrics[False]["val_energy_rmse"]
