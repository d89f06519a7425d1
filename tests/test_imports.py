"""Parts of the package use one another's public names, and no modules import each other in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "sapis_lab"


def trees(root: Path) -> dict[str, ast.Module]:
    """The syntax tree of every module, by its dotted name below `root`."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        found[".".join(p for p in parts if p != "__init__")] = ast.parse(path.read_text())
    return found


def imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """The dotted name and the local name of whatever a module imports: at its top, in functions, and for type
    checkers."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, alias.asname or alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((f"{node.module}.{a.name}", a.asname or a.name) for a in node.names)


def part(name: str) -> str:
    """The first component below the package."""
    return (name.split(".") + [""])[1]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def private_uses(modules: dict[str, ast.Module]) -> set[str]:
    """Names with a leading underscore that a module takes from another part: modules, what is in them, and
    attributes that are defined in other parts only."""
    definers: dict[str, set[str]] = {}
    for user, tree in modules.items():
        for name in defined(tree):
            definers.setdefault(name, set()).add(part(user))
    found = set()
    for user, tree in modules.items():
        root = user.split(".")[0]
        for name, _ in imports(tree):
            foreign = name.startswith(f"{root}.") and part(name) != part(user)
            if foreign and any(is_private(word) for word in name.split(".")):
                found.add(f"{user}: {name}")
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and is_private(node.attr):
                owners = definers.get(node.attr, set())
                if owners and part(user) not in owners:
                    found.add(f"{user}: {ast.unparse(node)}")
    return found


def defined(tree: ast.Module) -> Iterator[str]:
    """Functions, classes, and whatever is assigned to."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def circles(modules: dict[str, ast.Module]) -> set[str]:
    """Sets of modules each of which reaches every other by imports.

    Importing a module runs its packages, too; that is no reason to say that it depends on all that they
    gather.
    """
    reach: dict[str, set[str]] = {}
    for name, tree in modules.items():
        direct = {t if t in modules else t.rpartition(".")[0] for t, _ in imports(tree)}
        reach[name] = (direct & set(modules)) - {name}
    for middle in modules:  # Warshall's transitive closure
        for name in modules:
            if middle in reach[name]:
                reach[name] = reach[name] | reach[middle]
    groups = (
        {name} | {other for other in reach[name] if name in reach[other]}
        for name in modules
        if name in reach[name]
    )
    return {" ".join(sorted(group)) for group in groups}


MODULES = trees(PACKAGE)


def test_parts_use_public_names_of_one_another():
    assert private_uses(MODULES) == set()


def test_no_modules_import_each_other():
    assert circles(MODULES) == set()


def test_private_names_and_circles_are_seen(tmp_path):
    files = {
        "a/__init__.py": "",
        "a/one.py": "from toy.b import _secret\nfrom toy.b import two\ntwo._hidden()\n",
        "a/_own.py": "_shared = 1\n",
        "a/three.py": "from toy.a._own import _shared\n",
        "b/__init__.py": "_secret = 1\n",
        "b/two.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from toy.b.four import F\n"
        "def _hidden(): ...\n",
        "b/four.py": "def f():\n    import toy.b.two\n",
        "c.py": "import toy.a._own\nimport toy.a.three\n",
    }
    for name, text in files.items():
        path = tmp_path / "toy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = trees(tmp_path / "toy")
    wanted = {"toy.a.one: toy.b._secret", "toy.a.one: two._hidden", "toy.c: toy.a._own"}
    assert private_uses(found) == wanted
    assert circles(found) == {"toy.b.four toy.b.two"}
