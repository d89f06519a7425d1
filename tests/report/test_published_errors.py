"""Published errors stand beside those of a study, at the same D, with the ratio to the least of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from synthetic_runs import runs_table

from sapis_lab.config import ConfigError, dump, dump_yaml, load
from sapis_lab.quantities import quantity
from sapis_lab.records import write_table
from sapis_lab.report import analyse_folder
from sapis_lab.report.published import published_rows
from sapis_lab.sweep.study import Study

PUBLISHED = [
    {"model": "MACE", "source": "table 2", "n_frames": 200, "errors": {"val_force_rmse": 0.2}},
    {"model": "A & B", "source": "table 3", "n_frames": 200, "errors": {"val_force_rmse": 0.1}},
    {"model": "MACE", "source": "table 2", "n_frames": 7, "errors": {"test_force_mae": 0.3}},
]
STUDY: dict[str, Any] = {
    "name": "x",
    "question": "?",
    "data": "ethanol-xtb-tiny",
    "models": ["geat", "transformer"],
    "lattice": {"n_params": [3e3], "n_frames": [8]},
    "train": {"steps": 5},
}


def a_study(**more: Any) -> Study:
    made: Study = load(Study, {**STUDY, **more}, source="studies/x.yaml")
    return made


def test_our_best_size_is_shown_at_the_same_number_of_labels_with_the_ratio() -> None:
    runs = runs_table(models=("geat-l2", "transformer"), n_params=(1e3, 1e5), n_frames=(50, 200))
    found = published_rows({"published": PUBLISHED}, runs, quantity("val_force_rmse"))
    assert found is not None and len(found["heads"]) == 2
    at_200 = [row for row in found["rows"] if row["n_frames"] == 200]
    assert [row["model"] for row in at_200] == ["MACE", "A & B", "geat-l2", "transformer"]
    assert [row["cells"] for row in at_200[:2]] == [["200", "–"], ["100", "–"]]
    for row in at_200[2:]:
        some = runs[(runs["model"] == row["model"]) & (runs["n_frames"] == 200)]
        means = some.groupby("n_params")["val_force_rmse"].mean()
        value, ratio = re.fullmatch(r"([\d.]+) \(([\d.]+)\)", row["cells"][0]).groups()  # type: ignore[union-attr]
        assert float(value) == pytest.approx(1e3 * means.min(), rel=0.01)
        assert float(ratio) == pytest.approx(means.min() / 0.1, rel=0.01)
        assert row["size"] == f"{means.idxmin():,}" and not row["published"]
    assert [row["model"] for row in found["rows"] if row["n_frames"] == 7] == ["MACE"]


def test_a_study_without_them_is_written_and_shown_as_before(tmp_path: Path) -> None:
    assert "published" not in dump(a_study())
    assert published_rows({}, runs_table(), quantity("val_force_rmse")) is None


def test_report_and_table_hold_them(tmp_path: Path) -> None:
    runs = runs_table(models=("geat-l2",), n_params=(1e3, 1e5), n_frames=(50, 200))
    write_table(runs, tmp_path)
    (tmp_path / "study.yaml").write_text(dump_yaml(a_study(published=PUBLISHED)))
    analyse_folder(tmp_path, bootstrap=100, calibrate=0)
    page = (tmp_path / "report.html").read_text()
    assert "Beside published errors" in page and "A &amp; B" in page and "this study, 1 seed" in page
    assert r"A \& B" in (tmp_path / "tables" / "published.tex").read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"errors": {"test_force_mea": 0.1}}, "test_force_mea"),
        ({"errors": {}}, "errors"),
        ({"errors": {"test_force_mae": 0.0}}, "greater than 0"),
        ({"n_frames": 0}, "n_frames"),
        ({"source": ""}, "source"),
    ],
)
def test_what_cannot_be_compared_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        a_study(published=[PUBLISHED[0] | change])
