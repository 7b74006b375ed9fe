"""Killing: verbs that are ended again and again at a random moment, and then left to end.

What a verb wrote is then what it writes undisturbed, and what it was given is as it was.
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

from circuits.files import is_part
from tests.robustness.processes import Verb, members
from tracking.history.history import History

__all__ = ["VERBS", "kill_again_and_again", "make_given", "tables", "training"]

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


def make_given(folder: Path) -> None:
    """A folder with a configuration, a sweep, a space, a run and its history."""
    for name, text in (("config", CONFIG), ("sweep", SWEEP), ("space", SPACE)):
        (folder / f"{name}.toml").write_text(text)
    run_out(["train", folder / "config.toml", "--out", folder / "run"], folder)
    run_out(["record", folder / "run", "--out", folder / "history", "--n-prompts", "8"], folder)


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


def files(folder: Path) -> dict[str, str]:
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


def kill_again_and_again(given: Path, folder: Path, name: str, kills: int, seed: str) -> tuple[int, int, float]:
    """End a verb so many times, and every second time one of its workers where it has any.

    Returns:
        How many kills came while it worked, how often what it writes was read meanwhile, and the seconds that it takes
        undisturbed.
    """
    arguments, outcome = VERBS[name]
    rng, said = random.Random(f"{seed} {name}"), folder / "said"

    def start(out: Path) -> Verb:
        out.mkdir(exist_ok=True)
        return Verb([part.format(given=given, out=out) for part in arguments], said)

    whole = start(folder / "whole")
    assert whole.wait() == 0, whole.text()
    seconds, expected = whole.seconds, outcome(folder / "whole")
    out, before = folder / "out", _without_locks(given)
    landed = read = 0
    for number in range(kills):
        verb = start(out)
        end = time.monotonic() + rng.uniform(0.05, 1.0) * seconds
        while verb.process.is_alive() and time.monotonic() < end:
            read += _read(out)
            verb.process.join(0.05)
        workers = [process for process in members(verb.process.pid) if process != verb.process.pid]
        if number % 2 and workers:
            os.kill(rng.choice(workers), SIGNALS[number % 3])
            landed += 1
        else:
            verb.end(SIGNALS[number % 3])
            landed += verb.wait() != 0
        code = verb.wait()
        assert "Traceback" not in verb.text(), verb.text()
        assert "BrokenPipe" not in verb.text(), verb.text()
        assert ends_soon(verb.process.pid)
        if code == 0:
            assert outcome(out) == expected
            shutil.rmtree(out)
    verb = start(out)
    assert verb.wait() == 0, verb.text()
    assert outcome(out) == expected
    assert not [path for path in out.rglob("*") if is_part(path.name)]
    assert _without_locks(given) == before
    return landed, read, seconds


def _without_locks(folder: Path) -> dict[str, str]:
    return {path: found for path, found in files(folder).items() if ".locks" not in path}


def _read(out: Path) -> int:
    """How many histories there are to be read; none of them has a damaged record."""
    places = list(out.glob("**/history.json"))
    for place in places:
        assert History.open(place.parent).damaged == ()
    return len(places)


def ends_soon(session: int, seconds: float = 10.0) -> bool:
    """Whether every process of a session ends, workers included."""
    end = time.monotonic() + seconds
    while members(session):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
