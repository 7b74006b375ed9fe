"""What the README and the notebooks tell a reader to type works, on the demo's own run."""

import re
import shlex
import tomllib
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import pytest

import tracking
from circuits.heads import KINDS
from circuits.tasks.registry import TASKS
from tests.conftest import SHARED
from tracking.cli.cli import app, run
from tracking.interventions.actions import ACTIONS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.M | re.S)


def test_the_list_of_public_names_is_whole() -> None:
    listed = README.partition("The public names of `tracking`")[2].partition("\n\nOne model at a time")[0]
    names = [name for row in re.findall(r"^\| (`.*?) \|", listed, flags=re.M) for name in re.findall(r"`(\w+)`", row)]
    assert sorted(names) == sorted(tracking.__all__)


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


def command_lines() -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("formation ")]
    return [shlex.split(line, comments=True) for line in lines]


SMALL = {"steps": 400, "checkpoints": "0..400:100", "d_model": 8, "batch_size": 4, "vocabulary": 16}
SMALL |= {"context_length": 8, "shortest_period": 2, "longest_period": 4}


@pytest.fixture
def beside_the_files(beside_the_demo: Path) -> Path:
    """The TOML files that the README shows, of runs made small, and the table that it imports."""
    for block in blocks("toml"):
        name = block.splitlines()[0].removeprefix("# ")
        options = tomllib.loads(block)
        top = {key: value for key, value in options.items() if not isinstance(value, dict)}
        tables = {key: value for key, value in options.items() if isinstance(value, dict)}
        if name == "config.toml":
            top |= SMALL
        elif "sources" in tables:
            tables = {f"sources.{source}": entries for source, entries in tables["sources"].items()}
            tables["sources.repeats"] |= {"shortest_period": 2, "longest_period": 3}
            top |= {"steps": 40, "checkpoints": "0..40:5", "n_layers": 1, "d_model": 8, "n_heads": 2, "batch_size": 16}
            top |= {"vocabulary": 16, "context_length": 8, "learning_rate": 0.01, "warmup_steps": 5}
        else:
            tables["base"] |= {**SMALL, "steps": 20, "checkpoints": "0,10,20", "n_heads": 2}
            top |= {"n_prompts": 4} | ({"seeds": 2} if "seeds" in top else {})
        (beside_the_demo / name).write_text(toml(top, tables))
    rows = [(step, "a1.h0", 0.9 if step > 200 else 0.05) for step in range(0, 1001, 100)]
    table = pd.DataFrame(rows, columns=["training_step", "component", "value"])
    table.to_csv(beside_the_demo / "scores.csv", index=False)
    evaluations = pd.DataFrame({"step": range(0, 1001, 100), "blimp": [0.5 + 0.03 * row for row in range(11)]})
    evaluations.to_csv(beside_the_demo / "evaluations.csv", index=False)
    return beside_the_demo


def toml(top: dict, tables: dict) -> str:
    def text(value: object) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{key} = {text(inner)}" for key, inner in value.items()) + "}"
        return f'"{value}"' if isinstance(value, str) else str(value)

    lines = [f"{key} = {text(value)}" for key, value in top.items()]
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {text(value)}" for key, value in table.items())]
    return "\n".join(lines)


def test_python_blocks_run_in_order(beside_the_demo: Path) -> None:
    names: dict = {}
    assert len(blocks("python")) >= 5
    with patch.dict(ACTIONS), patch.dict(KINDS), patch.dict(TASKS):  # what the README adds is its own
        for block in blocks("python"):
            exec(compile(block, "README.md", "exec"), names)


@pytest.mark.slow
def test_command_lines_run_in_order(beside_the_files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in command_lines():
        assert run(words[1:]) == 0, f"{shlex.join(words)}\n{capsys.readouterr().err}"


def test_every_verb_is_in_the_readme_with_the_example_of_its_help() -> None:
    demo = re.search(r"formation demo --out demo$", README, flags=re.M)
    assert demo  # in the first of the two commands, which is too long a work for a test
    known = [*command_lines(), shlex.split(demo[0])]
    for command in app.registered_commands:
        (example,) = re.findall(r"Example: `(.*?)`", command.callback.__doc__ or "")
        assert shlex.split(example) in known, f"README.md has no line {example}"


def test_every_public_name_is_in_the_table() -> None:
    import tracking

    table = README.split("The public names of `tracking`")[1].split("\n\n")[1]
    rows = re.findall(r"^\| (`.*?`) \|", table, flags=re.M)
    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row)) == sorted(tracking.__all__)


def test_the_citation_keeps_the_rules_of_its_format() -> None:
    """What the Citation File Format 1.2.0 asks for, and the facts that stand elsewhere too."""
    import yaml

    about = yaml.safe_load((ROOT / ".github" / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"cff-version", "message", "title", "authors"} <= set(about)
    allowed = {"abstract", "type", "version", "license", "keywords", "date-released", "doi", "url", "repository-code"}
    assert set(about) <= {"cff-version", "message", "title", "authors"} | allowed
    assert about["cff-version"] == "1.2.0"
    assert about["type"] in ("software", "dataset")
    assert about["authors"]
    for author in about["authors"]:  # an entity has a name, a person given and family names
        assert "name" in author or {"given-names", "family-names"} <= set(author)
    assert all(isinstance(about[key], str) and about[key] for key in ("message", "title", "version", "license"))
    assert len(set(about["keywords"])) == len(about["keywords"]) > 0
    assert (about["version"], about["license"]) == (project["version"], project["license"])
    assert set(about["keywords"]) <= set(project["keywords"])


def test_links_lead_somewhere() -> None:
    local = [place for place in re.findall(r"\]\(([^)]+)\)", README) if not place.startswith("http")]
    assert local
    assert all((ROOT / place).is_file() for place in local)


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
