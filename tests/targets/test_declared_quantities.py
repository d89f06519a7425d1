"""What a study declares of a property goes with its table: label and unit are there for later readers."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from synthetic_runs import runs_table as synthetic_runs

from sapis_lab.config import ConfigError, fingerprint, load
from sapis_lab.quantities import declare, declared, quantity
from sapis_lab.records import Planned, Record, read_table, runs_table, write_record, write_table
from sapis_lab.targets.property import PropertyTarget
from sapis_lab.training import TrainConfig

BAND = {"kind": "property", "name": "band_edge", "unit": "eV", "label": "band edge"}
STUDY = {
    "name": "edges",
    "question": "How do band edges scale?",
    "train": {"steps": 2000},
    "law": {"quantity": "val_band_edge_rmse", "laws": ["n+d"], "bootstrap": 100, "calibrate": 0},
}


def table_of(folder: Path, *, targets: list[dict[str, Any]], measure: str) -> pd.DataFrame:
    """The runs table of a study whose points learnt `targets`, from the records of its points."""
    planned = []
    rows = synthetic_runs(models=("geat-l2",), n_params=(3e3, 1e4, 3e4)).to_dict("records")
    for row in rows:
        science: dict[str, Any] = {"id": row["id"], "train": {"targets": targets} if targets else {}}
        metrics = {f"{split}_{measure}": row[f"{split}_force_rmse"] for split in ("val", "test")}
        known = {key: row[key] for key in row if key in Record.model_fields}
        own = {"science": science, "fingerprint": fingerprint(science), "metrics": metrics}
        made = Record(**{**known, **own})
        write_record(folder / "points" / made.id, made)
        planned.append(Planned(**{key: getattr(made, key) for key in Planned.model_fields}))
    return runs_table(folder / "points", planned)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the table of a study of band edges."""
    folder = tmp_path_factory.mktemp("edges")
    write_table(table_of(folder, targets=[BAND], measure="band_edge_rmse"), folder)
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
    return folder


def python(text: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(text), *map(str, arguments)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_process_that_never_saw_the_study_knows_label_and_unit(results: Path) -> None:
    said = python(
        """
        import sys
        from pathlib import Path
        from sapis_lab.quantities import quantity
        try:
            quantity("val_band_edge_rmse")
        except ValueError as error:
            print(str(error)[:46])
        from sapis_lab.records import read_table
        read_table(Path(sys.argv[1]))
        found = quantity("val_band_edge_rmse")
        print(found.axis, found.better, found.split, found.measure, sep="; ")
        assert "torch" not in sys.modules
        """,
        results,
    )
    assert said.splitlines() == [
        "unknown quantity 'val_band_edge_rmse'; did you",
        "validation band edge RMSE (eV); lower; val; band_edge_rmse",
    ]


def test_its_figures_and_report_name_it_with_its_unit(results: Path) -> None:
    python(
        """
        import sys
        from pathlib import Path
        from sapis_lab import figures
        from sapis_lab.report import analyse_folder
        figures.kinds = lambda: ("loss_vs_data",)  # one of the many, which take seconds
        analyse_folder(Path(sys.argv[1]))
        """,
        results,
    )
    page = (results / "report.html").read_text()
    assert "validation band edge RMSE" in page and "val_band_edge_rmse" not in page.split("<body")[0]
    caption = (results / "figures" / "loss_vs_data.txt").read_text()
    assert caption.startswith("Validation band edge RMSE against labelled training frames D")
    assert "validation band edge RMSE (eV)" in page


def test_the_table_of_a_study_of_energies_and_forces_carries_nothing(tmp_path: Path) -> None:
    table = table_of(tmp_path, targets=[], measure="force_rmse")
    assert table.attrs == {}
    write_table(table, tmp_path)
    plain = tmp_path / "plain"
    plain.mkdir()
    pd.DataFrame({name: table[name] for name in table}).to_parquet(plain / "runs.parquet", index=False)
    assert (plain / "runs.parquet").read_bytes() == (tmp_path / "runs.parquet").read_bytes()


def test_targets_of_the_package_need_no_declaration_in_a_table(tmp_path: Path) -> None:
    table = table_of(tmp_path, targets=[{"kind": "dipole"}], measure="dipole_rmse")
    assert table.attrs == {} and quantity("val_dipole_rmse").unit == "e Å"


def test_errors_of_further_test_sets_are_carried_too() -> None:
    declare(*PropertyTarget(**BAND).measures())
    (found,) = declared(["test_600K_band_edge_mae", "val_force_rmse", "test_600K_force_mae", "n_params"])
    assert (found.label, found.unit) == ("test 600K band edge MAE", "eV")


def test_a_table_read_twice_is_the_same(results: Path) -> None:
    pd.testing.assert_frame_equal(read_table(results), read_table(results))
    assert [plain["key"] for plain in read_table(results).attrs["quantities"]] == [
        "val_band_edge_rmse",
        "test_band_edge_rmse",
    ]


@pytest.mark.parametrize(("name", "kind"), [("charge", "charges"), ("dipole", "dipole"), ("force", "forces")])
def test_a_property_that_would_be_scored_under_the_name_of_another_error_is_refused(
    name: str, kind: str
) -> None:
    """In tables and figures it would carry the label and unit of that one."""
    settings = {"steps": 1, "targets": [{"kind": "property", "name": name}]}
    words = rf"{name}_rmse, an error of the target '{kind}'; wanted another name"
    with pytest.raises(ConfigError, match=words):
        load(TrainConfig, settings, source="test")
