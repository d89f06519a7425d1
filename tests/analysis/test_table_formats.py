"""Tables in the files that people have, in any encoding: spreadsheets, exports of trackers."""

import datetime
import json
import subprocess
import sys

import pandas as pd
import pytest

from sapis_lab.analysis.table import Columns, positive_column, read_frame, read_points

COLUMNS = Columns("N", "D", "loss")
POINTS = ([1000.0, 2000.0], [50.0, 60.0], [0.5, 0.25])
ROWS = [{"N": 1000, "D": 50, "loss": 0.5}, {"N": 2000, "D": 60, "loss": 0.25}]


def put(folder, name, content):
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def points(path, columns=COLUMNS, **options):
    found = read_points(path, columns, **options).points
    return found.n_params.tolist(), found.n_frames.tolist(), found.loss.tolist()


def workbook(path, **sheets):
    openpyxl = pytest.importorskip("openpyxl", reason="Excel files need the extra xlsx")
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        page = book.create_sheet(name)
        for row in rows:
            page.append(row)
    book.save(path)
    return path


TEXT = "N;D;Größe;loss\r\n1000;50;klein;0,5\r\n2000;60;groß;0,25\r\n"


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        TEXT.encode("cp1252"),
        TEXT.encode("utf-16"),
        TEXT.encode("utf-16-le"),
        TEXT.encode("utf-16-be"),
        TEXT.encode("utf-32"),
        TEXT.replace(";", "\t").encode("utf-16"),
        TEXT.replace("\r\n", "\r").encode(),
        ("sep=;\r\n" + TEXT).encode("cp1252"),
        ("\r\n" + TEXT.replace("\r\n", "\r\n\r\n")).encode(),
        " N ;D\u00a0; Größe;  loss \n 1000 ; 50;klein; 0,5\n2000;60 ;groß;\u20090,25 \n".encode(),
    ],
)
def test_every_encoding_and_layout_holds_the_same_rows(tmp_path, data):
    path = put(tmp_path, "runs.csv", data)
    assert points(path) == POINTS
    assert [text.strip() for text in read_frame(path)["Größe"]] == ["klein", "groß"]


def test_a_separator_in_a_quoted_name_is_none(tmp_path):
    assert points(put(tmp_path, "a.csv", 'N;D;loss;"a,b,c,d"\n1000;50;0.5;1\n2000;60;0.25;2\n')) == POINTS


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        "\ufeff" + json.dumps(ROWS),
        "\n".join(map(json.dumps, ROWS)),
        '{"N": [1000, 2000], "D": [50, 60], "loss": [0.5, "0,25"]}',
        json.dumps({"N": [1000, 2000], "D": [50, 60], "loss": [0.5, 0.25]}, indent=1),
        pd.DataFrame(ROWS).to_json(),
        pd.DataFrame(ROWS).to_json(orient="split"),
        json.dumps({"columns": ["N", "D", "loss"], "data": [[1000, 50, 0.5], [2000, 60, 0.25]]}),
    ],
)
def test_json_holds_the_same_rows_by_rows_and_by_columns(tmp_path, text):
    assert points(put(tmp_path, "runs.json", text)) == POINTS


def test_a_sheet_holds_numbers_and_numbers_in_text(tmp_path):
    rows = [[None] * 3, ["N ", " D", "loss"], [1000, 50, 0.5], [None] * 3, ["2 000", "60", "0,25"], [None]]
    assert points(workbook(tmp_path / "runs.xlsx", runs=rows, empty=[])) == POINTS


def test_one_of_several_sheets_is_named(tmp_path):
    path = workbook(
        tmp_path / "a.xlsx", runs=[list(ROWS[0]), *(list(r.values()) for r in ROWS)], notes=[["x"]]
    )
    assert points(path, sheet="runs") == POINTS
    for sheet, message in (
        (
            None,
            "a.xlsx: several sheets hold something, 'runs', 'notes'; say which one is the table (--sheet)",
        ),
        ("rums", "a.xlsx: no sheet 'rums', got the sheets 'runs', 'notes'"),
    ):
        with pytest.raises(ValueError) as error:
            read_points(path, COLUMNS, sheet=sheet)
        assert str(error.value) == f"{tmp_path}/{message}"


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (datetime.datetime(2026, 5, 1), "the date 2026-05-01"),
        ("#DIV/0!", "'#DIV/0!'"),
        (True, "True"),
        ("70M", "'70M'"),
    ],
)
def test_an_entry_of_a_sheet_that_is_no_number_is_shown(tmp_path, value, got):
    path = workbook(tmp_path / "a.xlsx", runs=[["N", "D", "loss"], [1, 2, value]])
    with pytest.raises(ValueError, match=f"column 'loss', row 1: got {got}, wanted a positive number"):
        read_points(path, COLUMNS)


def test_without_openpyxl_an_excel_file_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    path = put(tmp_path, "a.xlsx", b"PK\x03\x04")
    with pytest.raises(ValueError) as error:
        read_points(path, COLUMNS)
    assert str(error.value) == (
        f"{path}: Excel files need the package openpyxl, which is not installed: pip install "
        "'sapis-lab[xlsx]'"
    )


def test_parquet_with_an_index_missing_integers_and_categories(tmp_path):
    frame = pd.DataFrame(ROWS).assign(N=pd.array([1000, 2000], dtype="Int64"))
    frame.assign(D=pd.Categorical(["50", "60"])).set_index("N").to_parquet(tmp_path / "a.parquet")
    assert points(tmp_path / "a.parquet") == POINTS


def test_dates_in_parquet_are_no_numbers_of_nanoseconds(tmp_path):
    pd.DataFrame(ROWS).assign(D=pd.to_datetime(["2026-01-01", "2026-01-02"])).to_parquet(
        tmp_path / "a.parquet"
    )
    with pytest.raises(
        ValueError, match="row 1: got the date 2026-01-01, wanted a positive number; 2 of 2 rows"
    ):
        read_points(tmp_path / "a.parquet", COLUMNS)


@pytest.mark.parametrize("name", ["runs.csv", "runs.json", "runs.parquet", "runs.xlsx"])
def test_a_row_that_was_written_twice_counts_once(tmp_path, name):
    frame, path = pd.DataFrame([*ROWS, ROWS[0]]), tmp_path / name
    if name.endswith("xlsx"):
        workbook(path, runs=[list(frame), *frame.astype(object).to_numpy().tolist()])
    elif name.endswith("parquet"):
        frame.to_parquet(path)
    else:
        text = frame.to_csv(sep=";", decimal=",", index=False) if name.endswith("csv") else frame.to_json()
        put(tmp_path, name, text)
    assert points(path) == POINTS and read_points(path, COLUMNS).n_copies == 1


def test_a_copy_is_one_in_other_blanks_and_marks_too(tmp_path):
    path = put(tmp_path, "a.csv", "N;D;loss\n1 000;50;0,5\n1000;50,0;0,50\n2000;60;0,25\n")
    assert points(path) == POINTS and read_points(path, COLUMNS).n_copies == 1


NO_TABLES = [
    (
        "a.csv",
        b"N,D,loss\n1000,10,0,5\n2000,20,1,25\n",
        ": not a table in CSV: line 2 has 4 entries with ',' between them, wanted 3 as in the header; an "
        "entry "
        "that holds a ',' needs quotes about it",
    ),
    (
        "a.csv",
        b"PK\x03\x04",
        ": not a table in CSV: the bytes are those of a zip file, as Excel writes them (.xlsx)",
    ),
    ("a.csv", b"\x1f\x8b\x08", ": not a table in CSV: the bytes are those of a file packed by gzip"),
    ("a.csv", b"N,D\n1,\x00\n", ": not a table in CSV: it holds zero bytes, which no text has"),
    ("a.csv", b"N,N,loss,D\n1,2,3,4\n", ": 2 columns are named 'N' for N (columns 1 and 2), wanted one"),
    ("a.json", b'{"N": [1, 2], "D": [3]}', ": columns must be lists of one length, got 'N' 2, 'D' 1"),
    (
        "a.json",
        b'{"columns": ["N", "D"], "data": [[1, 2], [3]]}',
        ", entry 2 of 'data': got 1 entries, wanted a list of 2",
    ),
    (
        "a.json",
        b'{"N": 1,\n "D": 2',
        ": not JSON (Expecting ',' delimiter), wanted one object a line, an array of objects, or columns",
    ),
    (
        "history.csv",
        b'"Step","run-a - val/loss","run-a - val/loss__MIN","run-a - val/loss__MAX"\n1,2,2,2\n',
        ": no column 'N' for N; got the columns Step, run-a - val/loss, run-a - val/loss__MIN, run-a - "
        "val/loss__MAX; these are curves, one column a run ('run-a - val/loss') and one row a step: export "
        "the "
        "table of runs instead, one row a run",
    ),
    (
        "project.csv",
        b"summary,config,name\n\"{'val': 3}\",\"{'N': 4}\",run-a\n",
        ": no column 'N' for N; got the columns summary, config, name; 'summary', 'config' hold many values "
        "in one "
        "entry, each of which must be a column",
    ),
    (
        "a.csv",
        b"n,d,Val Loss\n1,2,3\n",
        ": no column 'N' for N; got the columns n, d, Val Loss; did you mean 'n'?",
    ),
]


@pytest.mark.parametrize(("name", "data", "message"), NO_TABLES)
def test_what_is_no_table_of_runs_is_one_line_that_says_what_it_is(tmp_path, name, data, message):
    path = put(tmp_path, name, data)
    with pytest.raises(ValueError) as error:
        read_points(path, COLUMNS)
    assert str(error.value) == f"{path}{message}"


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        ("n_params", "'N Params'"),
        ("NParams", "'N Params'"),
        ("val_loss", "'summary/val_loss' or 'metrics.Val-Loss'"),
        ("learning_rat", "'learning_rate'"),
    ],
)
def test_a_name_in_another_case_with_other_blanks_or_without_its_prefix_is_told(tmp_path, wanted, meant):
    names = ["N Params", "summary/val_loss", "metrics.Val-Loss", "learning_rate"]
    path = put(tmp_path, "a.csv", ",".join(names) + "\n1,2,3,4\n")
    with pytest.raises(ValueError) as error:
        positive_column(read_frame(path), wanted, path)
    assert str(error.value) == (
        f"{path}: no column {wanted!r}; got the columns {', '.join(names)}; did you mean {meant}?"
    )


def test_of_many_columns_a_message_lists_some(tmp_path):
    path = put(tmp_path, "a.csv", ",".join(f"c{k}" for k in range(200)) + "\n")
    with pytest.raises(ValueError, match="c29 and 170 more$"):
        read_points(path, COLUMNS)


@pytest.mark.parametrize(
    "columns",
    [
        ("config.n_params", "config.n_frames", "summary/val_loss"),  # of Weights & Biases
        ("params.N", "params.D", "metrics.val_loss"),  # MLflow's search_runs
    ],
)
def test_exports_of_runs_are_tables(tmp_path, columns):
    header = ["", "Name", "State", *columns, "_wandb"]
    rows = [
        [0, "a", "finished", 1000, 50, 0.5, '{"runtime": 5, "x": [1, 2]}'],
        [1, "b", "FINISHED", 2000, 60, 0.25, ""],
    ]
    pd.DataFrame(rows, columns=header).to_csv(tmp_path / "runs.csv", index=False)
    assert points(tmp_path / "runs.csv", Columns(*columns)) == POINTS


@pytest.mark.parametrize(("name", "data", "message"), [NO_TABLES[0], NO_TABLES[8], NO_TABLES[10]])
def test_the_command_ends_with_that_line_and_a_status(tmp_path, name, data, message):
    path = put(tmp_path, name, data)
    words = ["fit", str(path), "--n", "N", "--d", "D", "--loss", "loss"]
    done = subprocess.run([sys.executable, "-m", "sapis_lab.cli", *words], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {path}{message}\n")
