"""docs/architecture.md says what is there: parts, paths, ranks, kinds, and the signatures of contracts."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import test_layers as layers

from sapis_lab import outside
from sapis_lab.cli.catalog import KIND_FOLDERS
from sapis_lab.config import kinds

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = (REPOSITORY / "docs" / "architecture.md").read_text()
PARTS = {layers.part(name) for name in layers.MODULES} - {""}


def section(title: str) -> str:
    """The text under a heading, up to the next of its level."""
    level = title.split(" ")[0]
    return re.split(rf"(?m)^{level} ", PAGE.split(f"\n{title}\n")[1])[0]


def rows(title: str) -> list[list[str]]:
    """The cells of the table under a heading."""
    lines = [line for line in section(title).splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def names(cell: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", cell))


def test_every_part_of_the_package_has_a_sentence_and_no_other():
    found = [re.fullmatch(r"`(\w+)`", part)[1] for part, sentence in rows("## The house") if sentence]
    assert found == sorted(PARTS)


def test_every_path_exists():
    paths = set(re.findall(r"(?:sapis_lab|tests|docs)/[\w./]+", PAGE)) - {"sapis_lab/models/mymodel.py"}
    assert paths and not [path for path in paths if not (REPOSITORY / path.rstrip(".")).exists()]


def test_the_ranks_are_those_that_are_tested():
    table = rows("## Imports point one way")
    for column, tested in ((1, layers.TORCH_COLUMN), (2, layers.TABLE_COLUMN)):
        there = [parts & PARTS for parts in tested if parts & PARTS]
        assert [names(row[column]) for row in table if row[column]] == there


def test_the_kind_folders_are_those_that_are_looked_up(monkeypatch):
    monkeypatch.setenv(outside.VARIABLE, "")
    asked = set()
    for tree in layers.MODULES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                function = ast.unparse(node.func).rpartition(".")[2]
                if function in ("kinds", "kind_module", "kind_class", "named_kind", "composed_kind"):
                    asked.add(node.args[0].value)
    table = {next(iter(names(folder))): known.split(", ") for folder, known, _ in rows("## Kinds")}
    assert set(table) == asked == {*KIND_FOLDERS, "figures", "formats"}
    assert all(tuple(known) == kinds(folder) for folder, known in table.items())


BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def pieces() -> list[tuple[str, ast.stmt]]:
    """The classes and functions of all blocks, with the path of the module that has them."""
    found = []
    for block in BLOCKS:
        for text in re.split(r"(?m)^(?=# sapis_lab/)", block):
            if text.strip():
                path, _, code = text.removeprefix("# ").partition("\n")
                found += [(path, statement) for statement in ast.parse(code).body]
    return found


def said(statement: ast.stmt) -> str:
    """A signature, or the annotation of a field."""
    if isinstance(statement, ast.FunctionDef):
        kind = [ast.unparse(d) for d in statement.decorator_list if ast.unparse(d) != "abstractmethod"]
        returns = statement.returns and ast.unparse(statement.returns)
        return f"{kind} {statement.name}({ast.unparse(statement.args)}) -> {returns}"
    assert isinstance(statement, ast.AnnAssign)
    return f"{ast.unparse(statement.target)}: {ast.unparse(statement.annotation)}"


def named(body: list[ast.stmt], name: str) -> ast.stmt:
    """The class, function or annotated name in a body; of overloads the last."""
    for statement in reversed(body):
        known = getattr(statement, "name", None) or ast.unparse(getattr(statement, "target", ast.Tuple([])))
        if known == name:
            return statement
    raise AssertionError(f"{name} is not there")


@pytest.mark.parametrize(("path", "piece"), pieces(), ids=lambda x: x if isinstance(x, str) else x.name)
def test_contracts_have_the_signatures_that_the_page_shows(path, piece):
    module = ast.parse((REPOSITORY / path).read_text())
    there = named(module.body, piece.name)
    if isinstance(piece, ast.FunctionDef):
        assert said(piece) == said(there)
        return
    assert list(map(ast.unparse, piece.bases)) == list(map(ast.unparse, there.bases))
    for statement in piece.body:
        name = getattr(statement, "name", None) or ast.unparse(statement.target)
        assert said(statement) == said(named(there.body, name))


@pytest.mark.parametrize("path", sorted({path for path, _ in pieces()}))
def test_the_page_shows_all_that_a_kind_must_implement(path):
    shown = {piece.name: {getattr(s, "name", "") for s in piece.body} for p, piece in pieces() if p == path}
    for statement in ast.parse((REPOSITORY / path).read_text()).body:
        if isinstance(statement, ast.ClassDef) and statement.name in shown:
            wanted = {
                s.name
                for s in statement.body
                if isinstance(s, ast.FunctionDef)
                and any("abstractmethod" in ast.unparse(d) for d in s.decorator_list)
            }
            assert wanted <= shown[statement.name], statement.name


def test_every_contract_says_how_to_add_one():
    titles = re.findall(r"(?m)^### .*", section("## Contracts"))
    assert len(titles) == len(BLOCKS) == 19
    silent = [title for title in titles if "**To add " not in section(title)]
    assert silent == ["### Point"]
