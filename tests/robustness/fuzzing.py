"""Fuzzing: files of every kind that people bring, each wrong in one place, and what reading them may do.

A case starts from a valid file and changes one or two places deep inside it (a value's type, a key, a number's size, a
name), or a few bytes; records get the checksum that belongs to the changed header, so that they pass the first check.
Reading may succeed or refuse in one sentence (ValueError, or OSError for what is no file); anything else is a fault.
"""

import contextlib
import copy
import json
import os
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tracking.checkpoints.audit import audit_files
from tracking.checkpoints.runs import Run
from tracking.datasets.synthetic import history_from_drawing
from tracking.experiments.planning import read_space, read_sweep
from tracking.history.history import History
from tracking.history.importing import import_history
from tracking.history.record_header import header_checksum
from tracking.results.exports import export_timeline
from tracking.results.timeline import build_timeline, load_timeline
from tracking.training.hyperparameters import TrainingConfig

DRAWING = """
a0.h0 previous-token ...3####
a1.h1 induction      .....5##
"""
CONFIG = """
steps = 40
learning_rate = 0.003
n_layers = 2
checkpoints = "0..40:10"
attn_only = true
optimizer = "adam"
"""
SWEEP = """
seeds = 3
tasks = ["induction"]
[base]
steps = 40
checkpoints = "0..40:10"
[grid]
learning_rate = [0.1, 0.3]
[random]
draws = 2
seed = 1
weight_decay = {low = 0.1, high = 0.5, scale = "log"}
"""
SPACE = """
[base]
steps = 40
checkpoints = "0..40:10"
[space]
learning_rate = {low = 0.1, high = 0.5}
n_heads = [2, 4]
"""
LITERALS = [
    '"2"',
    "-1",
    "0",
    "1e400",
    "nan",
    "inf",
    "[]",
    "{}",
    "[[1]]",
    "true",
    '""',
    "1979-05-27",
    "100000000",
    "2.5",
]
LITERALS += [
    '["a", 1]',
    '{low = 1, high = "x"}',
    "9" * 40,
    '"\\u0000"',
    '"all"',
    '"0..99999999"',
    "'''\n\n'''",
    "[",
    "x",
]
ODD: list[Any] = ["2", "", "..", "a/b", "\x00", "x" * 5000, "=1+1", "a9999999.h0", "logits", "\ud800", "ü", None, True]
ODD += [
    -1,
    0,
    1.5,
    10**9,
    10**30,
    1e308,
    float("nan"),
    float("inf"),
    [],
    {},
    [1, "x"],
    {"a": 1},
    [[[]]],
    "nan",
    "a1.h1",
]


@dataclass(frozen=True)
class Kind:
    """A file within the seedbed, how it may be changed, and how it is read."""

    place: str
    change: Callable[[random.Random, bytes], bytes]
    read: Callable[[Path], object]


def json_changed(rng: random.Random, content: bytes) -> bytes:
    value = json.loads(content)
    for _ in range(rng.choice([1, 1, 2])):
        value = _changed(rng, value)
    return json.dumps(value).encode(errors="surrogatepass")


def _changed(rng: random.Random, value: Any) -> Any:
    """The value with one place changed; deep places are as likely as shallow ones."""
    value = copy.deepcopy(value)
    inside, key = rng.choice(list(_places(value)))
    how = rng.random()
    alike = [one for one in ODD if type(one) is type(inside[key])]
    if how < 0.4 and alike:  # of its type, so that it is looked at by more than its type
        inside[key] = copy.deepcopy(rng.choice(alike))
    elif how < 0.6:
        inside[key] = copy.deepcopy(rng.choice(ODD))
    elif how < 0.7:
        del inside[key]
    elif isinstance(inside, dict) and how < 0.85:
        inside[f"{key}s"] = inside.pop(key)
    elif isinstance(inside, list):
        inside.append(copy.deepcopy(inside[key]))
    else:
        inside[key] = str(inside[key])
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    for key in keys:
        yield value, key
        yield from _places(value[key])


def lines_changed(rng: random.Random, content: bytes) -> bytes:
    """One line of a log."""
    lines = content.splitlines()
    place = rng.randrange(len(lines))
    lines[place] = json_changed(rng, lines[place])
    return b"\n".join(lines) + b"\n"


def toml_changed(rng: random.Random, content: bytes) -> bytes:
    lines = content.decode().splitlines()
    place = rng.choice([number for number, line in enumerate(lines) if "=" in line])
    key, _, value = lines[place].partition(" = ")
    how = rng.random()
    lines[place] = (
        f"{key} = {rng.choice(LITERALS)}" if how < 0.8 else f"{key}s = {value}" if how < 0.9 else lines[place] * 2
    )
    return "\n".join(lines).encode() + b"\n"


def csv_changed(rng: random.Random, content: bytes) -> bytes:
    rows = [line.split(",") for line in content.decode().splitlines()]
    row = rng.randrange(len(rows)) if rng.random() < 0.9 else 0
    column = rng.randrange(len(rows[row]))
    text = str(rng.choice(ODD)).encode(errors="replace").decode()
    rows[row][column] = text if rng.random() < 0.8 else f'"{text}'
    if rng.random() < 0.1:
        del rows[row][column]
    return "\n".join(",".join(cells) for cells in rows).encode() + b"\n"


def tabs_changed(rng: random.Random, content: bytes) -> bytes:
    return csv_changed(rng, content.replace(b"\t", b",")).replace(b",", b"\t")


def record_changed(rng: random.Random, content: bytes) -> bytes:
    """The header of a record changed, and given the checksum that it then has."""
    (length,) = struct.unpack("<Q", content[:8])
    entries = json.loads(content[8 : 8 + length])
    if rng.random() < 0.8:
        header = _changed(rng, json.loads(entries["__metadata__"]["record"]))
        if isinstance(header, dict):
            header["checksum"] = header_checksum(header)
        entries["__metadata__"]["record"] = json.dumps(header)
    else:
        entries = _changed(rng, entries)
    text = json.dumps(entries).encode(errors="surrogatepass")
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def read_history(place: Path) -> object:
    """Everything of a history, as the tables ask for it."""
    folder = place.parent if place.name == "history.json" else place.parent.parent
    history = History.open(folder)
    tables = [history.to_frame(table) for table in ("scores", "edges", "metrics")]
    return tables, repr(history), history.tokens


def link_history(place: Path) -> object:
    """Everything that is found in a history one of whose records is wrong."""
    return build_timeline(History.open(place.parent.parent))


def read_run(place: Path) -> object:
    folder = next(path for path in place.parents if path.name == "run")
    run = Run.open(folder)
    return run, audit_files(run).findings


KINDS = {
    "configuration": Kind("config.toml", toml_changed, TrainingConfig.from_toml),
    "sweep": Kind("sweep.toml", toml_changed, read_sweep),
    "space": Kind("space.toml", toml_changed, read_space),
    "history": Kind("history/history.json", json_changed, read_history),
    "record": Kind("history/records/*.safetensors", record_changed, read_history),
    "linked record": Kind("history/records/*.safetensors", record_changed, link_history),
    "timeline": Kind("export/timeline.json", json_changed, load_timeline),
    "run": Kind("run/run.json", json_changed, read_run),
    "log": Kind("run/log.jsonl", lines_changed, read_run),
    "index": Kind("run/checkpoints/step2/model.safetensors.index.json", json_changed, read_run),
    "model": Kind("run/checkpoints/step2/config.json", json_changed, read_run),
    "table": Kind("scores.csv", csv_changed, import_history),
    "tabs": Kind("scores.tsv", tabs_changed, import_history),
}


def make_seedbed(folder: Path) -> None:
    """One valid file of every kind."""
    import torch
    from safetensors.torch import save_file

    history = history_from_drawing(DRAWING, noise=0.02, n_folds=4, name="run")
    history.save(folder / "history")
    export_timeline(build_timeline(history), folder / "export", formats=("json",))
    for name, text in (("config", CONFIG), ("sweep", SWEEP), ("space", SPACE)):
        (folder / f"{name}.toml").write_text(text)
    scores = history.to_frame("scores")
    scores.to_csv(folder / "scores.csv", index=False)
    scores.to_csv(folder / "scores.tsv", index=False, sep="\t")
    for step in range(3):
        place = folder / "run" / "checkpoints" / f"step{step}"
        place.mkdir(parents=True)
        weights = {"a": torch.randn(4, 4), "b": torch.randn(4)}
        for number, (name, weight) in enumerate(weights.items()):
            save_file({name: weight}, place / f"model-{number}.safetensors")
        names = {name: f"model-{number}.safetensors" for number, name in enumerate(weights)}
        (place / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
        (place / "config.json").write_text(json.dumps({"model_type": "gpt2", "rope_theta": 10000, "n_layer": 2}))
    about = {"name": "run", "tokens_per_step": 64, "hyperparameters": {"learning_rate": 0.1}, "model": {"n_layers": 2}}
    (folder / "run" / "run.json").write_text(json.dumps(about))
    (folder / "run" / "log.jsonl").write_text("".join(json.dumps({"step": n, "loss": 1.0}) + "\n" for n in range(3)))


def bytes_changed(rng: random.Random, content: bytes) -> bytes:
    how = rng.randrange(5)
    place = rng.randrange(max(1, len(content)))
    if how == 0:
        return content[:place]
    if how == 1:
        return content[:place] + bytes([rng.randrange(256)]) + content[place + 1 :]
    if how == 2:
        return b"\xef\xbb\xbf" + content
    return content[:place] + rng.choice([b"\xff\xfe", b"\x00", b"[" * 100_000, b"\r", b"9" * 5000]) + content[place:]


@dataclass(frozen=True)
class Result:
    """What one case did: `refused` with a sentence, `read`, or a fault."""

    kind: str
    seed: int
    outcome: str
    text: str = ""


def place_of(kind: Kind, seedbed: Path) -> Path:
    return sorted(seedbed.glob(kind.place))[0]


def run_case(name: str, seed: int, seedbed: Path) -> Result:
    """Change the file, read it, and put it back."""
    kind, rng = KINDS[name], random.Random(f"{name} {seed}")
    place = place_of(kind, seedbed)
    content = place.read_bytes()
    how = rng.random()
    try:
        if how < 0.02:
            place.unlink()
            os.mkfifo(place) if how < 0.01 else place.mkdir()
        else:
            place.write_bytes(kind.change(rng, content) if how < 0.85 else bytes_changed(rng, content))
        kind.read(place)
    except (ValueError, OSError) as error:
        sentence = str(error)
        short = 0 < len(sentence) < 6000
        return Result(name, seed, "refused" if short else "fault", sentence)
    except Exception as error:
        return Result(name, seed, "fault", f"{type(error).__name__}: {error}")
    finally:
        if place.is_dir():
            place.rmdir()
        else:
            with contextlib.suppress(FileNotFoundError):
                place.unlink()
        place.write_bytes(content)
    return Result(name, seed, "read")


def summary(results: list[Result]) -> pd.DataFrame:
    """How many cases of each kind were read, refused, or faults."""
    frame = pd.DataFrame([(result.kind, result.outcome) for result in results], columns=["kind", "outcome"])
    return frame.value_counts().unstack(fill_value=0)
