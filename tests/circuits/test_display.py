"""Whatever is a table shows itself as one in a notebook, its first sentences above."""

import ast
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from circuits.display import table_html

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Found:
    sentences: tuple[str, ...]

    _repr_html_ = table_html

    def to_frame(self) -> pd.DataFrame:
        return pd.DataFrame({"component": [f"a{layer}.h0" for layer in range(60)]})


def test_sentences_come_first_and_long_tables_are_cut() -> None:
    page = Found(("a < b",))._repr_html_()
    assert page.startswith("<p>Found</p><ul><li>a &lt; b</li></ul>")
    assert "a0.h0" in page
    assert "a59.h0" in page
    assert page.count("<tr>") < 50


def tables() -> list[tuple[str, ast.ClassDef]]:
    """Every class whose `to_frame` needs no more to be said, by its name."""
    paths = [path for package in ("circuits", "tracking") for path in sorted((ROOT / package).rglob("*.py"))]
    classes = [
        node for path in paths for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)
    ]
    plain = "def to_frame(self) -> 'pd.DataFrame':"
    return [(node.name, node) for node in classes if any(ast.unparse(child).startswith(plain) for child in node.body)]


@pytest.mark.parametrize(("name", "node"), tables())
def test_every_table_shows_itself(name: str, node: ast.ClassDef) -> None:
    assert "_repr_html_ = table_html" in map(ast.unparse, node.body), name


def test_tables_are_found() -> None:
    assert {"Circuit", "NodeScores", "Comparison", "Forecast", "Audit"} <= {name for name, _ in tables()}
