"""Kills, writers and readers: whatever becomes of the processes, nothing is lost, mixed or left half written.

Every verb is killed again and again at a random moment, by each of three signals in turn, and then left to end: what it
wrote is what it writes undisturbed.  Several writers work on one history while it is read, and several trainings on one
folder.

Run: ROBUSTNESS_KILLS=100 ROBUSTNESS_ROUNDS=50 python -m pytest tests/benchmarks/test_robustness.py -s
"""

import hashlib
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from circuits.files import is_part
from tests.robustness.processes import Verb, members
from tracking.history.history import History

KILLS = int(os.environ.get("ROBUSTNESS_KILLS", "100"))
ROUNDS = int(os.environ.get("ROBUSTNESS_ROUNDS", "50"))
SEED = os.environ.get("ROBUSTNESS_SEED", "0")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)

CONFIG = """
steps = 60
checkpoints = "0..60:6"
d_model = 16
n_heads = 2
batch_size = 8
learning_rate = 0.01
"""
SHORT = CONFIG.replace("60", "12").replace("12:6", "12:4")
SWEEP = f"seeds = 3\nn_prompts = 4\ntasks = ['induction']\n[base]{SHORT}"
SPACE = f"n_prompts = 4\ntasks = ['induction']\n[base]{SHORT}[space]\nlearning_rate = [0.001, 0.003, 0.01]\n"


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration, a sweep, a space, a run and its history."""
    folder = tmp_path_factory.mktemp("given")
    for name, text in (("config", CONFIG), ("sweep", SWEEP), ("space", SPACE)):
        (folder / f"{name}.toml").write_text(text)
    run_out(["train", folder / "config.toml", "--out", folder / "run"], folder)
    run_out(["record", folder / "run", "--out", folder / "history", "--n-prompts", "8"], folder)
    return folder


def run_out(arguments: Sequence[object], folder: Path) -> float:
    """Seconds that the verb takes when nobody disturbs it."""
    verb = Verb([*map(str, arguments)], folder / "said")
    code = verb.wait()
    assert code == 0, verb.text()
    return verb.seconds


def tables(folder: Path) -> object:
    history = History.open(folder)
    assert history.damaged == ()
    return [history.to_frame(name).to_csv(index=False) for name in ("scores", "edges", "metrics")]


def histories(folder: Path) -> object:
    return {place.parent.name: tables(place.parent) for place in sorted(folder.glob("**/history.json"))}


def training(folder: Path) -> object:
    """Weights of every checkpoint, and the log without a line twice."""
    weights = {str(path.relative_to(folder)): digest(path) for path in sorted(folder.glob("**/model.safetensors"))}
    logs = {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.glob("**/log.jsonl"))}
    for text in logs.values():
        steps = [json.loads(line)["step"] for line in text.splitlines()]
        assert steps == sorted({*steps})
    return weights, logs


def files(folder: Path) -> object:
    return {str(path.relative_to(folder)): digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


RECORD = ["record", "{given}/run", "--out", "{out}/h", "--n-prompts", "8"]
VERBS: dict[str, tuple[list[str], Callable[[Path], object]]] = {
    "train": (["train", "{given}/config.toml", "--out", "{out}/run"], training),
    "record": (RECORD, histories),
    "record by two": ([*RECORD, "--workers", "2"], histories),
    "sweep": (["sweep", "{given}/sweep.toml", "--out", "{out}/s", "--workers", "2"], histories),
    "branch": (
        ["branch", "{given}/run", "--at", "30", "--intervene", "ablate a0.h1", "--out", "{out}/b", "--checkpoints"]
        + ["30..60:10"],
        training,
    ),
    "design": (
        ["design", "{given}/space.toml", "--goal", "induction midpoint < 300", "--budget", "3", "--out", "{out}/d"],
        histories,
    ),
    "export": (["export", "{given}/history", "--out", "{out}", "--format", "json,csv,parquet,trace"], files),
    "report": (["report", "{given}/history", "--out", "{out}/page.html"], files),
    "track": (["track", "{given}/history", "--json"], files),
}


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_that_is_killed_ends_as_one_that_is_not(given: Path, tmp_path: Path, name: str) -> None:
    arguments, outcome = VERBS[name]
    rng, said = random.Random(f"{SEED} {name}"), tmp_path / "said"

    def start(out: Path) -> Verb:
        out.mkdir(exist_ok=True)
        return Verb([part.format(given=given, out=out) for part in arguments], said)

    whole = start(tmp_path / "whole")
    assert whole.wait() == 0, whole.text()
    seconds, expected = whole.seconds, outcome(tmp_path / "whole")
    out, before = tmp_path / "out", files(given)
    landed = 0
    for number in range(KILLS):
        verb = start(out)
        verb.process.join(rng.uniform(0.05, 1.0) * seconds)
        verb.end(SIGNALS[number % len(SIGNALS)])
        code = verb.wait()
        landed += code != 0
        assert "Traceback" not in verb.text()
        assert ends_soon(verb.process.pid)
        if code == 0:
            assert outcome(out) == expected
            shutil.rmtree(out)
    verb = start(out)
    assert verb.wait() == 0, verb.text()
    assert outcome(out) == expected
    assert not [path for path in out.rglob("*") if is_part(path.name)]
    assert {path: found for path, found in files(given).items() if ".locks" not in path} == {  # type: ignore
        path: found
        for path, found in before.items()  # type: ignore
        if ".locks" not in path
    }
    print(f"\n{name}: {landed} of {KILLS} kills came while it worked ({seconds:.1f} s undisturbed)")


def ends_soon(session: int, seconds: float = 10.0) -> bool:
    """Whether every process of a session ends, workers included."""
    end = time.monotonic() + seconds
    while members(session):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


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
