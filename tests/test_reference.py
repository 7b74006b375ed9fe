"""The reference leaves nothing out: every name that people type, every module, every column of the tables."""

import re
from pathlib import Path

import pytest

import circuits
import tracking
from tracking.results.results import COLUMNS

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


@pytest.mark.parametrize("table", COLUMNS)
def test_every_column_is_told(table: str) -> None:
    section = (DOCS / "tables.rst").read_text().split(f"\n{table}\n---")[1].split("\n\n\n")[0]
    rows = re.search(r"^=+ =+\n(.*?)^=+ =+$", section, flags=re.M | re.S)
    assert rows
    assert [line.split()[0] for line in rows[1].splitlines()] == list(COLUMNS[table])
