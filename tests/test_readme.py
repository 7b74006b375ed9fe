"""What the README and the notebooks tell a reader to type works, on the demo's own run."""

import re
from pathlib import Path

import pytest

from tests.conftest import SHARED
from tracking.cli import run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.M | re.S)


@pytest.fixture
def beside_the_demo(demo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to write in, with the demo's run and history under the names that the documentation uses."""
    for name in ("run", "history"):
        (tmp_path / "demo").mkdir(exist_ok=True)
        (tmp_path / "demo" / name).symlink_to(demo_folder / name)
    monkeypatch.setenv("FORMATION_TEST_DATA", str(SHARED))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of the kernels, as of the tests
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_is_something_to_test() -> None:
    assert len(blocks("python")) >= 2
    assert sum(block.count("formation ") for block in blocks("sh")) >= 5


def test_python_blocks_run_in_order(beside_the_demo: Path) -> None:
    names: dict = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)


def test_command_lines_run_in_order(beside_the_demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shlex

    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("formation ")]
    for line in lines:
        assert run(shlex.split(line, comments=True)[1:]) == 0, f"{line}\n{capsys.readouterr().err}"


def test_the_two_commands_are_one_line_each() -> None:
    for marker in ("demo command", "test command"):
        found = re.search(rf"<!-- {marker} -->\n```\w*\n(.*?)```\n<!-- end -->", README, flags=re.S)
        assert found, f"README.md has no {marker}"
        assert len(found[1].strip().splitlines()) == 1


@pytest.mark.parametrize("notebook", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook_runs_and_keeps_no_outputs(notebook: Path, beside_the_demo: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    content = nbformat.read(notebook, as_version=4)
    cells = [cell for cell in content.cells if cell.cell_type == "code"]
    assert cells
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    NotebookClient(content, timeout=300, resources={"metadata": {"path": str(beside_the_demo)}}).execute()
