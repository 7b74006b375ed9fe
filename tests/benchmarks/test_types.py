"""What users import is typed: every public name is known to a type checker.

Question: which names would a user's editor not know?  It takes minutes, and stands beside the suite because in an
environment that lies within the checkout pyright has called names unknown that it knows elsewhere.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("package", ["circuits", "tracking"])
def test_a_type_checker_knows_everything_that_can_be_imported(package: str) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [*command, "--verifytypes", package, "--ignoreexternal"],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
    )
    found = json.loads(done.stdout)["typeCompleteness"]
    assert [symbol["name"] for symbol in found["symbols"] if symbol["isExported"] and not symbol["isTypeKnown"]] == []
    assert found["completenessScore"] == 1
