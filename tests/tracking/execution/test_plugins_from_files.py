"""A task and a score in a file of one's own are entries of the registers, also in other processes."""

import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from circuits.heads import KINDS
from circuits.tasks.registry import TASKS
from tracking.execution.plugins import FILES, add_from_file

OWN = """
def copy_first(model, *, n_prompts=64, seed=0):
    return n_prompts

def two_back(pattern, period):
    return pattern.diagonal(offset=-2, dim1=-2, dim2=-1).mean(-1)
"""


def test_a_function_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    monkeypatch.setenv(FILES, "")
    with patch.dict(TASKS), patch.dict(KINDS):
        assert add_from_file("task", f"{tmp_path}/mine.py:copy_first") == "copy_first"
        assert add_from_file("score", f"{tmp_path}/mine.py:two_back") == "two_back"
        assert TASKS["copy_first"](None, n_prompts=3) == 3  # type: ignore[arg-type]
        code = "from tracking.execution.plugins import load_plugins as load; load()\n"
        code += "from circuits.tasks.registry import TASKS; print('copy_first' in TASKS)"
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert out.stdout.strip() == "True"
        with pytest.raises(ValueError, match=r"mine\.py has no function 'three'; it has copy_first, two_back"):
            add_from_file("task", f"{tmp_path}/mine.py:three")
        with pytest.raises(FileNotFoundError, match="no such file"):
            add_from_file("task", f"{tmp_path}/none.py:x")
        (tmp_path / "mine.py").write_text("induction = print")
        with pytest.raises(ValueError, match="there is a task 'induction' already"):
            add_from_file("task", f"{tmp_path}/mine.py:induction")
