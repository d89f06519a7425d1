"""Numbers as people write them: what can mean one thing is read, what may mean two is refused."""

import numpy as np
import pandas as pd
import pytest

from sapis_lab.analysis.table import Columns, positive_column, read_frame, read_points
from sapis_lab.analysis.table_numbers import label_column, number_column, setting_column


def column(*entries, **others):
    return pd.DataFrame({"x": list(entries)} | {name: list(values) for name, values in others.items()})


@pytest.mark.parametrize(
    ("entries", "values"),
    [
        (["1000", "1e3", " 5. ", ".5", "+2", "1E-3", "1.5e+03"], [1000, 1000, 5, 0.5, 2, 1e-3, 1500]),
        (["2e3", "1e\u22122"], [2000, 0.01]),
        (["0,5", "1,25", "1,500"], [0.5, 1.25, 1.5]),
        (["1,5000", "1,234"], [1.5, 1.234]),
        (["1.234,5", "2.000", "1.000.000"], [1234.5, 2000, 1e6]),
        (["1,234.5", "2,000", "1,000,000"], [1234.5, 2000, 1e6]),
        (["1,000,000", "0.5", "1,500"], [1e6, 0.5, 1500]),
        (["1,500e3", "1,250"], [1500, 1.25]),
        (["1234,567", "1,234"], [1234.567, 1.234]),
        (["0.500", "1.500"], [0.5, 1.5]),
        (["1.500", "2.000"], [1.5, 2.0]),  # a point is a decimal point where nothing says otherwise
        (["1 000", "20 000 000"], [1000, 2e7]),
        (["1\u00a0000", "1\u202f000", "1\u2009000", "1\u2007000,5"], [1000, 1000, 1000, 1000.5]),
        (["1_000_000", "1'000", "1\u2019000.5"], [1e6, 1000, 1000.5]),
        ([1000, "1 000", np.float64(0.5), np.int64(3)], [1000, 1000, 0.5, 3]),
    ],
)
def test_a_text_that_means_one_number_is_read(entries, values):
    assert positive_column(column(*entries), "x", "t.csv").tolist() == values


@pytest.mark.parametrize(
    "text", ["0.1", "1e-7", "4.354", "123456.7891", "3.14159265358979312", "1e22", "7e-310"]
)
def test_numbers_as_programs_write_them_are_read_to_the_last_bit(text):
    assert number_column(column(text), "x", "t.csv", sign="any")[0] == float(text)


@pytest.mark.parametrize("text", ["7e-310", "1e101"])
def test_positive_numbers_whose_powers_are_none_are_refused(text):
    with pytest.raises(
        ValueError, match=r"column 'x', row 2: got .*, wanted a number between 1e-100 and 1e\+100"
    ):
        positive_column(column("1", text), "x", "t.csv")


WRONG = [
    (["1", "1,500"], "row 2: got '1,500', which may be 1.5 or 1500; write 1,5000 or 1500"),
    (
        ["1,500", "2,000"],
        "row 1: got '1,500', which may be 1.5 or 1500; write 1,5000 or 1500; 2 of 2 rows are like it",
    ),
    (
        ["0.5", "0,25"],
        "row 2: got '0,25' with decimal commas and '0.5' in row 1 with decimal points; write the column in "
        "one way",
    ),
    (
        ["1,000,000", "0,25"],
        "row 2: got '0,25' with decimal commas and '1,000,000' in row 1 with commas between thousands; "
        "write the "
        "column in one way",
    ),
    (
        ["70M", "1B"],
        "row 1: got '70M', wanted a positive number without a letter, such as 7e7; 2 of 2 rows are like it",
    ),
    *(
        ([text], f"row 1: got {text!r}, wanted a positive number")
        for text in (
            "1 00",
            "1 0000",
            "1,00,000",
            "1_0",
            "1 000_000",
            "1.2.3",
            "1.234,5,6",
            "0x10",
            "inf",
            "-1",
            "\u22121",
            "0",
            "--",
            ".",
            "e5",
            "1e",
            "1 e5",
            "5 %",
            "\u0661\u0662",
        )
    ),
    (
        [10**400],
        "row 1: got 100000000000000000000000000000000000000000000000000000000..., wanted a positive number",
    ),
    ([True], "row 1: got True, wanted a positive number"),
    ([[1]], "row 1: got [1], wanted a positive number"),
]


@pytest.mark.parametrize(("entries", "message"), WRONG)
def test_any_other_text_is_refused(entries, message):
    with pytest.raises(ValueError) as error:
        positive_column(column(*entries), "x", "t.csv")
    assert str(error.value) == f"t.csv, column 'x', {message}"


@pytest.mark.parametrize("text", ["1,5000", "1500", "1,500"])
def test_what_a_refusal_says_to_write_is_read(text):
    frame = column("0,5", text)
    assert positive_column(frame, "x", "t.csv")[1] == float(text.replace(",", "."))


def test_points_in_a_table_with_decimal_commas_may_part_thousands():
    frame = column("1.500", "2.000", loss=["0,5", "0,25"])
    with pytest.raises(ValueError) as error:
        positive_column(frame, "x", "t.csv")
    assert str(error.value) == (
        "t.csv, column 'x', row 1: got '1.500', which may be 1.5 or 1500 (column 'loss' has decimal commas: "
        "'0,5' in "
        "row 1); write 1,5000 or 1500; 2 of 2 rows are like it"
    )
    assert positive_column(frame.assign(loss="a,b"), "x", "t.csv").tolist() == [1.5, 2.0]
    assert positive_column(frame.assign(x=["1.500", "2.000.000"]), "x", "t.csv").tolist() == [1500, 2e6]


def test_labels_are_texts_and_settings_are_equal_where_their_numbers_are():
    frame = column(" a", "None", "a ", "0.1")
    assert label_column(frame, "x", "t.csv").tolist() == ["a", "None", "a", "0.1"]
    assert setting_column(column("1e-3", "0.001", "none", "1,500"), "x", "t.csv").tolist() == [
        "0.001",
        "0.001",
        "none",
        "1,500",
    ]
    with pytest.raises(ValueError, match="column 'x', row 2: got nothing, wanted a label; fill in"):
        label_column(column("a", ""), "x", "t.csv")


MISSING = """Name;State;N;D;loss
a;finished;1000;50;0,5
b;crashed;1000;60;
c;failed;2000;60;NaN
d;finished;2000;70;0,25
"""


def test_rows_without_a_loss_are_counted_and_refused(tmp_path):
    (tmp_path / "a.csv").write_text(MISSING)
    with pytest.raises(ValueError) as error:
        read_points(tmp_path / "a.csv", Columns("N", "D", "loss"))
    assert str(error.value) == (
        f"{tmp_path}/a.csv, column 'loss', row 2: got nothing, wanted a positive number; "
        "2 of 4 rows have none there (rows 2, 3); State: crashed, failed; "
        "fill in what is missing, or leave such rows out (--drop-missing)"
    )


def test_rows_without_a_number_are_left_out_on_request_and_counted(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(MISSING)
    found = read_points(path, Columns("N", "D", "loss"), missing="drop")
    assert (found.points.loss.tolist(), found.n_dropped, found.n_copies) == ([0.5, 0.25], 2, 0)
    path.write_text(MISSING.replace("NaN", "Infinity"))
    with pytest.raises(ValueError, match="row 3: got 'Infinity', wanted a positive number"):
        read_points(path, Columns("N", "D", "loss"), missing="drop")
    path.write_text("N,D,loss\n1,2,\n1,3,nan\n,4,1\n")
    with pytest.raises(
        ValueError, match="none of the 3 rows .*; missing 1 in column 'N', 2 in column 'loss'$"
    ):
        read_points(path, Columns("N", "D", "loss"), missing="drop")


def test_text_of_a_csv_stays_as_it_is(tmp_path):
    (tmp_path / "a.csv").write_text("N,note\n1e3,NA\n007,\n")
    frame = read_frame(tmp_path / "a.csv")
    assert frame.to_numpy().tolist() == [["1e3", "NA"], ["007", ""]]
