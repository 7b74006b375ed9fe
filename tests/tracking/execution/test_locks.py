"""One process has a claim at a time, and a dead one has none."""

import subprocess
import sys
import time
from pathlib import Path

import filelock
import pytest

from tracking.execution import locks
from tracking.execution.locks import HeldError, claim, held

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


HELD = """
import sys, time
from tracking.execution.locks import held
with held(sys.argv[1], "train"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_writer_is_told_who_holds_the_folder_and_takes_over_when_it_is_dead(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HELD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(HeldError, match=rf"written by process {other.pid} \(train\), since 20.*; wait until"):
            enter(tmp_path)
        other.kill()
        other.wait()
        enter(tmp_path)


def enter(folder: Path) -> None:
    with held(folder, "sweep"):
        pass


def test_a_folder_is_free_when_its_writer_is_done(tmp_path: Path) -> None:
    for _ in range(2):
        enter(tmp_path / "run")
    with held(tmp_path / "run", "train"), pytest.raises(HeldError):
        enter(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run" / ".locks").iterdir()] == ["writer"]


def test_a_writer_on_another_machine_holds_while_it_gives_signs_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where locks do not reach from one machine to the other, each of them has its own."""
    monkeypatch.setattr(locks, "SIGN_OF_LIFE", 0.05)
    monkeypatch.setattr(locks, "SILENT", 0.6)
    with held(tmp_path, "train"):
        (tmp_path / ".locks" / "writer").unlink()  # the other machine's lock is another one
        with monkeypatch.context() as there:
            there.setattr(locks, "this_host", lambda: "node2")
            for _ in range(3):
                with pytest.raises(HeldError, match=r"on .* \(train\), since"):
                    enter(tmp_path)
                time.sleep(0.4)
    said = tmp_path / ".locks" / "writer.json"
    said.write_bytes(b'{"host": "node3", "process": 1, "since": "yesterday", "doing": "train"}')
    with pytest.raises(HeldError, match="on node3"):
        enter(tmp_path)
    time.sleep(0.7)
    enter(tmp_path)
