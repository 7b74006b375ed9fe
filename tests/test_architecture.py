"""Imports go one way, each package is where a newcomer looks for it, and only one module opens each big door."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLAT = 8
LONGEST_MODULE = 450
LONGEST_FUNCTION = 60


def modules() -> list[Path]:
    return sorted([*ROOT.glob("circuits/**/*.py"), *ROOT.glob("tracking/**/*.py")])


def imported(path: Path) -> set[str]:
    """Every module that the file names in an import statement, at any depth of the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            found.add(str(node.module))
    return found


def test_the_contracts_hold() -> None:
    """The levels, the doors and the absence of circles: `[tool.importlinter]` in pyproject.toml."""
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_only_graph_is_numpy_only() -> None:
    names = imported(ROOT / "circuits/graph.py") | imported(ROOT / "circuits/display.py")
    foreign = {name.split(".")[0] for name in names - {"circuits.display"}}
    assert foreign <= {
        "re",
        "html",
        "collections",
        "dataclasses",
        "functools",
        "typing",
        "numpy",
        "jaxtyping",
        "pandas",
    }


def test_few_modules_lie_flat() -> None:
    assert len(list(ROOT.glob("tracking/*.py"))) <= FLAT


@pytest.mark.parametrize("package", ["circuits", "tracking"])
def test_nothing_is_imported_from_a_packages_own_door(package: str) -> None:
    packages = {".".join(path.parent.relative_to(ROOT).parts) for path in ROOT.glob(f"{package}/**/__init__.py")}
    for path in ROOT.glob(f"{package}/**/*.py"):
        assert not imported(path) & packages, path.relative_to(ROOT)


SHAPED = {"Bool", "Float", "Int", "Num", "Shaped", "UInt8"}
"""Types of jaxtyping: the string in their brackets names axes."""


def axes(text: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """From where to where, as (row, column from 1), each string that names axes."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in SHAPED:
            for part in ast.walk(node.slice):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    end = (part.end_lineno or part.lineno, (part.end_col_offset or 0) + 1)
                    found.append(((part.lineno, part.col_offset + 1), end))
    return found


def test_no_undefined_name_hides_behind_the_names_of_axes() -> None:
    """`ruff` cannot tell axes from forward references, so its F821 is off for the project; here only axes may be."""
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821,F822", "--output-format", "json"]
    done = subprocess.run([*command, "circuits", "tracking", "tests"], cwd=ROOT, capture_output=True, text=True)
    spans = {path: axes(Path(path).read_text()) for path in {found["filename"] for found in json.loads(done.stdout)}}
    undefined = []
    for found in json.loads(done.stdout):
        at = (found["location"]["row"], found["location"]["column"])
        if not any(start <= at <= end for start, end in spans[found["filename"]]):
            undefined.append(f"{Path(found['filename']).relative_to(ROOT)}:{at[0]} {found['message']}")
    assert spans
    assert undefined == []


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_opens_with_a_docstring_and_ends_in_sight(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= LONGEST_MODULE


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_function_is_too_long_to_see_at_once(path: Path) -> None:
    """Lines of code: a docstring is not counted."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            told = node.body[0] if ast.get_docstring(node) else None
            docstring = told.end_lineno - told.lineno + 1 if told and told.end_lineno else 0
            lines = (node.end_lineno or 0) - node.lineno + 1 - docstring
            assert lines <= LONGEST_FUNCTION, f"{node.name} has {lines} lines; split it"


def test_one_module_prints() -> None:
    """What goes to a terminal goes through `tracking.cli.terminal`, where names are made safe to show."""
    printing = {"print", "echo", "secho", "Console"}
    for path in modules():
        if path.relative_to(ROOT).as_posix() != "tracking/cli/terminal.py":
            calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
            names = {getattr(call, "id", getattr(call, "attr", "")) for call in calls}
            assert not names & printing, path.relative_to(ROOT)
