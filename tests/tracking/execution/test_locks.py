"""One process has a claim at a time, and a dead one has none."""

import subprocess
import sys
from pathlib import Path

import filelock
import pytest

from tracking.execution.locks import claim

HOLD = """
import sys, time
from pathlib import Path
from tracking.execution.locks import claim
with claim(Path(sys.argv[1])) as held:
    print(held, flush=True)
    time.sleep(60)
"""


def test_a_claim_is_one_processs_at_a_time_and_ends_with_it(tmp_path: Path) -> None:
    place = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(place)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        with claim(place) as held:
            assert not held
        other.kill()
    with claim(place, wait=True) as held:
        assert held


def test_two_claims_in_one_process_exclude_each_other(tmp_path: Path) -> None:
    with claim(tmp_path / "lock") as first:
        with claim(tmp_path / "lock") as second:
            assert (first, second) == (True, False)
        with claim(tmp_path / "lock") as third:
            assert not third
    with claim(tmp_path / "lock") as again:
        assert again


def test_where_no_lock_can_be_made_nobody_else_has_it(tmp_path: Path) -> None:
    with claim(tmp_path / "no such folder" / "lock") as held:
        assert held
    assert not list(tmp_path.iterdir())


def test_a_file_system_without_locks_has_claims_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracking.execution.locks.FileLock", filelock.SoftFileLock)
    with claim(tmp_path / "lock") as first, claim(tmp_path / "lock") as second:
        assert (first, second) == (True, False)
