"""Kills, writers and readers: whatever becomes of the processes, nothing is lost, mixed or left half written.

Every verb is killed again and again at a random moment, by each of three signals in turn, itself or one of its workers,
and then left to end: what it wrote is what it writes undisturbed.  Several writers work on one history while it is
read, and several trainings on one folder.

Run: python -m pytest tests/benchmarks/test_robustness.py -s
"""

import os
import random
import shutil
import time
from pathlib import Path

import pytest

from tests.robustness.killing import VERBS, kill_again_and_again, make_given, tables, training
from tests.robustness.processes import Verb
from tracking.history.history import History

KILLS = int(os.environ.get("ROBUSTNESS_KILLS", "100"))
"""Of all verbs together."""
ROUNDS = int(os.environ.get("ROBUSTNESS_ROUNDS", "50"))
SEED = os.environ.get("ROBUSTNESS_SEED", "0")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given")
    make_given(folder)
    return folder


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_that_is_killed_ends_as_one_that_is_not(given: Path, tmp_path: Path, name: str) -> None:
    kills = -(-KILLS // len(VERBS))
    landed, read, seconds = kill_again_and_again(given, tmp_path, name, kills, SEED)
    print(f"\n{name}: {landed} of {kills} kills came while it worked, {read} readings ({seconds:.1f} s undisturbed)")


def test_writers_of_one_history_lose_and_mix_nothing_while_it_is_read(given: Path, tmp_path: Path) -> None:
    expected, read = tables(given / "history"), 0
    rng = random.Random(f"{SEED} writers")
    for number in range(ROUNDS):
        out = tmp_path / f"h{number}"
        arguments = ["record", str(given / "run"), "--out", str(out), "--n-prompts"]
        sizes = ["8"] * rng.choice([2, 3, 4]) + ["6"]  # the last has other settings
        verbs = [Verb([*arguments, size], tmp_path / f"said{place}") for place, size in enumerate(sizes)]
        while any(verb.process.is_alive() for verb in verbs):
            if (out / "history.json").exists():
                assert History.open(out).damaged == ()
                read += 1
            time.sleep(0.05)
        codes = [verb.wait() for verb in verbs]
        assert not any("Traceback" in verb.text() for verb in verbs)
        first = str(History.open(out).settings["n_prompts"])
        for code, size, verb in zip(codes, sizes, verbs, strict=True):
            assert code == (0 if size == first else 2), verb.text()
        if first == "8":
            assert tables(out) == expected
        shutil.rmtree(out)
    print(f"\n{ROUNDS} rounds of 3 to 5 writers, read {read} times meanwhile")


def test_of_trainings_into_one_folder_one_writes(given: Path, tmp_path: Path) -> None:
    refused = 0
    for number in range(ROUNDS):
        out = tmp_path / f"run{number}"
        verbs = [Verb(["train", given / "config.toml", "--out", out], tmp_path / f"said{i}") for i in range(3)]  # type: ignore
        codes = [verb.wait() for verb in verbs]
        for code, verb in zip(codes, verbs, strict=True):
            assert code == 0 or (code == 2 and "is being written by process" in verb.text()), verb.text()
        refused += sum(code == 2 for code in codes)
        assert 0 in codes
        assert training(out) == training(given / "run")
    print(f"\n{ROUNDS} rounds of 3 trainings into one folder: {refused} refused")
    assert refused
