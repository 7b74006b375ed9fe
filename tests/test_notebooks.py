"""The notebooks use public names alone, and the reference shows each of them."""

import ast
import json
import re
from pathlib import Path

import pytest

import circuits
import tracking

ROOT = Path(__file__).parents[1]
DOORS = {"circuits": circuits, "tracking": tracking}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def code_of(notebook: Path) -> list[ast.AST]:
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    return [node for cell in cells for node in ast.walk(ast.parse("".join(cell["source"])))]


def not_public(node: ast.AST) -> list[str]:
    """The names of ours in an import that are not public, and attributes that are private."""
    if isinstance(node, ast.Import):
        return [name.name for name in node.names if name.name.partition(".")[0] in DOORS]
    if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in DOORS:
        public = DOORS[node.module].__all__ if node.module in DOORS else ()
        return [f"{node.module}.{name.name}" for name in node.names if name.name not in public]
    return [node.attr] if isinstance(node, ast.Attribute) and node.attr.startswith("_") else []


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_uses_public_names_alone(notebook: Path) -> None:
    assert [name for node in code_of(notebook) for name in not_public(node)] == []


def test_what_is_not_public_is_seen() -> None:
    code = "import tracking.cli\nfrom tracking.cli.demo import run_demo\nfrom tracking import History, demo\nx._y"
    found = [name for node in ast.walk(ast.parse(code)) for name in not_public(node)]
    assert found == ["tracking.cli", "tracking.cli.demo.run_demo", "tracking.demo", "_y"]


def test_the_reference_shows_every_notebook() -> None:
    page = (ROOT / ".github" / "docs" / "notebooks.rst").read_text()
    assert sorted(re.findall(r"^\.\. notebook:: (\S+)$", page, flags=re.M)) == [path.stem for path in NOTEBOOKS]
