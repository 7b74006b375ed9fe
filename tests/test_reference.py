"""The reference leaves nothing out: every name that people type, every module, every column of the tables."""

import re
from pathlib import Path

import pytest

import circuits
import tracking
from tracking.history.columns import TABLES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / ".github" / "docs"


def listed(page: str) -> list[str]:
    """What stands in the summaries of a page."""
    return re.findall(r"^   ~?((?:circuits|tracking)\.[\w.]+)$", (DOCS / page).read_text(), flags=re.M)


def test_every_public_name_is_listed_once() -> None:
    names = [f"{getattr(door, name).__module__}.{name}" for door in (circuits, tracking) for name in door.__all__]
    assert sorted(listed("names.rst")) == sorted(names)


@pytest.mark.parametrize("package", ["circuits", "tracking"])
def test_every_module_is_listed_once(package: str) -> None:
    paths = [path for path in (ROOT / package).rglob("*.py") if path.name != "__init__.py"]
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    assert sorted(listed(f"{package}.rst")) == sorted(modules), f"add new modules to .github/docs/{package}.rst"


@pytest.mark.parametrize("table", TABLES)
def test_every_column_is_told(table: str) -> None:
    assert f"\n{table}\n{'-' * len(table)}\n.. columns:: {table}\n" in (DOCS / "tables.rst").read_text()
    assert TABLES[table].about
    assert all(column.about for column in TABLES[table].columns)
