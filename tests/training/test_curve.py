"""The curve of a point: its columns follow from what is measured, and a kill at any moment costs a row at
most."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

import pytest
import torch

from sapis_lab.tasks.energies import EnergyObjective
from sapis_lab.training import LossConfig, _callbacks
from sapis_lab.training._callbacks import cut_rows

MEASURED = [f"val_{key}" for key in EnergyObjective(torch.nn.Module(), LossConfig().targets()).measured]
COLUMNS = [*_callbacks.COLUMNS, *MEASURED]
append_row = partial(_callbacks.append_row, expected=MEASURED)


def row(step: int, **measured: float) -> dict[str, float]:
    return {"step": step, "loss": 0.5, "learning_rate": 1e-3, **measured}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as f:
        return list(csv.DictReader(f))


def written(path: Path, steps: range) -> bytes:
    """A curve whose validations, every third step, measure a sixth quantity and from step 6 on a seventh."""
    for step in steps:
        measured = {"val_force_rmse": 0.1 / step, "val_stress_rmse": 0.2 / step} if step % 3 == 0 else {}
        append_row(path, row(step, **measured, **({"val_charge_mae": 0.3} if step % 6 == 0 else {})))
    return path.read_bytes()


def test_the_five_errors_alone_give_the_file_that_they_always_gave(tmp_path: Path) -> None:
    append_row(tmp_path / "m.csv", row(1))
    append_row(tmp_path / "m.csv", row(2, val_force_rmse=0.25))
    assert (
        tmp_path / "m.csv"
    ).read_text() == f"{','.join(COLUMNS)}\n1,0.5,0.001,,,,,\n2,0.5,0.001,0.25,,,,\n"


def test_a_sixth_quantity_gets_a_column_and_moves_no_number(tmp_path: Path) -> None:
    written(tmp_path / "m.csv", range(1, 10))
    found = rows(tmp_path / "m.csv")
    assert list(found[0]) == [*COLUMNS, "val_stress_rmse", "val_charge_mae"]
    assert [r["step"] for r in found] == [str(k) for k in range(1, 10)]
    assert [r["val_stress_rmse"] for r in found if r["val_stress_rmse"]] == [repr(0.2 / k) for k in (3, 6, 9)]
    assert [r["val_charge_mae"] for r in found] == ["", "", "", "", "", "0.3", "", "", ""]


@pytest.mark.parametrize("last_step", range(10))
@pytest.mark.parametrize("torn", [b"", b"10,0.5,0.0", b"1"])
def test_a_resumed_curve_ends_in_the_same_bytes(tmp_path: Path, last_step: int, torn: bytes) -> None:
    wanted = written(tmp_path / "whole.csv", range(1, 13))
    path = tmp_path / "killed.csv"
    written(path, range(1, 10))
    path.write_bytes(path.read_bytes() + torn)
    cut_rows(path, last_step=last_step)
    assert [int(r["step"]) for r in rows(path)] == list(range(1, last_step + 1))
    assert written(path, range(last_step + 1, 13)) == wanted


@pytest.mark.parametrize("left", [b"", b"step,loss,lear", b"step,loss,learning_rate\n"])
def test_a_curve_whose_header_was_cut_off_begins_anew(tmp_path: Path, left: bytes) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(left)
    append_row(path, row(1, val_force_rmse=0.25))
    assert rows(path) == [
        dict.fromkeys(COLUMNS, "")
        | {"step": "1", "loss": "0.5", "learning_rate": "0.001", "val_force_rmse": "0.25"}
    ]


def test_a_kill_while_columns_are_added_leaves_the_old_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.csv"
    append_row(path, row(1))
    before = path.read_bytes()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_callbacks, "write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        append_row(path, row(2, val_stress_rmse=1.0))
    assert path.read_bytes() == before
