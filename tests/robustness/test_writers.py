"""Several writers on one history lose nothing and mix nothing, and workers do not outlive who started them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from circuits.graph import ModelGraph
from tracking.history.folder import create_history
from tracking.history.history import History
from tracking.history.records import Record, settings_digest, write_record

GRAPH = ModelGraph(2, 2, mlp=False)
ROUNDS = 20


def test_of_two_recorders_with_other_settings_one_is_refused(tmp_path: Path) -> None:
    def make(place: Path, n_prompts: int) -> bool:
        try:
            create_history(place, "run", GRAPH, settings={"tasks": ["induction"], "n_prompts": n_prompts})
        except ValueError as error:
            return "choose another folder" not in str(error)
        return True

    with ThreadPoolExecutor(4) as pool:
        for number in range(ROUNDS):
            place = tmp_path / str(number)
            assert sum(pool.map(make, [place] * 4, range(4))) == 1


def test_tasks_that_come_at_once_are_all_there(tmp_path: Path) -> None:
    def add(place: Path, task: str) -> None:
        create_history(place, "run", GRAPH, settings={"tasks": [task]})

    tasks = ["ioi", "greater-than", "docstring", "induction"]
    with ThreadPoolExecutor(4) as pool:
        for number in range(ROUNDS):
            place = tmp_path / str(number)
            create_history(place, "run", GRAPH, settings={"tasks": []})
            list(pool.map(add, [place] * 4, tasks))
            assert sorted(json.loads((place / "history.json").read_text())["settings"]["tasks"]) == sorted(tasks)


def test_a_record_of_other_settings_is_refused_when_written_and_left_out_when_read(tmp_path: Path) -> None:
    create_history(tmp_path / "a", "run", GRAPH, settings={"seed": 1})
    create_history(tmp_path / "b", "run", GRAPH, settings={"seed": 2})
    place = write_record(tmp_path / "a", Record(3, "induction"), settings=settings_digest({"seed": 1}))
    with pytest.raises(ValueError, match="holds a history with other settings"):
        write_record(tmp_path / "b", Record(3, "induction"), settings=settings_digest({"seed": 1}))
    (tmp_path / "b" / "records" / place.name).write_bytes(place.read_bytes())
    (left,) = History.open(tmp_path / "b").damaged
    assert "recorded with other settings" in left.reason
    assert History.open(tmp_path / "a").damaged == ()


@pytest.mark.parametrize("task", ["eval/hellaswag", "..", "a\nb", "IOI", "ioi", "ä" * 3000, ".hidden", "a~b", "%2F"])
def test_a_name_is_data_and_never_a_path(tmp_path: Path, task: str) -> None:
    create_history(tmp_path / "h", "run", GRAPH)
    write_record(tmp_path / "h", Record(3, task))
    assert History.open(tmp_path / "h").tasks == (task,)
    assert [path.name for path in tmp_path.iterdir()] == ["h"]
    assert len(list((tmp_path / "h" / "records").iterdir())) == 1


PARENT = """
import os, sys, time
from tracking.execution.pool import ProcessPool

def busy(unit):
    with open(unit, "w") as file:
        file.write(str(os.getpid()))
    time.sleep(60)

if __name__ == "__main__":
    pool = ProcessPool(busy, 1)
    pool.add_worker()
    pool.poll()
    pool.submit(1, sys.argv[1])
    time.sleep(60)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_workers_end_with_their_parent(tmp_path: Path, how: signal.Signals) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    said = tmp_path / "worker"
    command = [sys.executable, str(tmp_path / "parent.py"), str(said)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as parent:
        worker = int(soon(lambda: said.exists() and said.read_text()))
        parent.send_signal(how)
        parent.wait()
        soon(lambda: not Path(f"/proc/{worker}").exists())
        assert parent.stderr is not None
        assert "Traceback" not in parent.stderr.read()


def soon(said: Callable[[], object], seconds: float = 60.0) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := said():
            return str(found)
        time.sleep(0.05)
    raise AssertionError("it did not happen")


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    create_history(tmp_path, "run", GRAPH)
    (tmp_path / "records").mkdir(exist_ok=True)
    os.mkfifo(tmp_path / "records" / "000000003.induction.safetensors")
    (left,) = History.open(tmp_path).damaged
    assert "is a pipe, which is not opened" in left.reason
