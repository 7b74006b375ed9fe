"""Fuzzing: files of every kind that people bring, each wrong in a place or two, and what reading them may do.

A case starts from a valid file and changes one or two places deep inside it (`tests.robustness.changing`), or a few
bytes; records get the checksum that belongs to the changed header, so that they pass the first check.  What is read is
used as far as that is quick: a configuration is trained for two steps, a history is made into its tables.  Reading may
succeed or refuse in one sentence (ValueError, or OSError for what is no file); anything else is a fault.
"""

import contextlib
import json
import os
import random
import struct
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from tests.robustness.changing import (
    bytes_changed,
    json_changed,
    lines_changed,
    table_changed,
    toml_changed,
    tree_changed,
)
from tracking.checkpoints.audit import audit_files
from tracking.checkpoints.runs import Run
from tracking.cli.terminal import sentence_of
from tracking.datasets.synthetic import history_from_drawing
from tracking.experiments.planning import read_space, read_sweep
from tracking.history.history import History
from tracking.history.importing import import_history
from tracking.history.record_header import header_checksum
from tracking.results.exports import export_timeline
from tracking.results.timeline import build_timeline, load_timeline
from tracking.training.hyperparameters import TrainingConfig

__all__ = ["KINDS", "Kind", "Result", "make", "place_of", "run_case", "summary"]

ROOT = Path(__file__).parents[2]
DRAWING = """
a0.h0 previous-token ...3####
a1.h1 induction      .....5##
"""
CONFIG = """
name = "small"
steps = 40
checkpoints = "0..40:10"
seed = 1
data_seed = 2
n_layers = 2
d_model = 16
n_heads = 2
attn_only = true
positions = "rotary"
normalization = "LN"
init_scale = 0.1
batch_size = 4
optimizer = "adam"
learning_rate = 0.003
warmup_steps = 10
schedule = "wsd"
decay_fraction = 0.2
weight_decay = 0.01
beta1 = 0.9
clip_norm = 1.0
label_smoothing = 0.1
z_loss = 0.001
dropout = 0.1
vocabulary = 32
context_length = 16
repeat_probability = 0.9
shortest_period = 3
longest_period = 6
zipf_exponent = 0.5
burstiness = 0.1
sources = {a = {kind = "repeats", weight = "0:1, 20:0.5"}, b = {kind = "random", weight = 2.0, loss_weight = 0.5}}
"""
SWEEP = """
seeds = 3
n_prompts = 8
tasks = ["induction"]
base = {steps = 40, checkpoints = "0..40:10", d_model = 16, n_heads = 2, optimizer = "adamw"}
grid = {learning_rate = [0.1, 0.3], warmup_steps = [5, 10]}
settings = [{schedule = "cosine"}, {dropout = 0.1, n_layers = 3}]
random = {draws = 2, seed = 1, weight_decay = {low = 0.1, high = 0.5, scale = "log"}, batch_size = [4, 8]}
"""
SPACE = """
n_prompts = 8
tasks = ["induction"]
base = {steps = 40, checkpoints = "0..40:10", d_model = 16, schedule = "linear", weight_decay = 0.1, beta1 = 0.9}
[space]
learning_rate = {low = 0.1, high = 0.5, scale = "log"}
n_heads = [2, 4]
warmup_steps = {low = 1, high = 9}
optimizer = ["adam", "sgd"]
batch_size = [4, 8, 16]
zipf_exponent = [0.5, 1.0]
"""
WORDS = (
    ("adam", "adamw", "sgd", "muon"), ("LN", "RMS", "none", "LNPre", "RMSPre"), ("rotary", "standard"),
    ("constant", "linear", "cosine", "wsd"), ("linear", "log"), ("repeats", "random"), ("induction", "ioi"),
    ("0..40:10", "0..40:20", "all", "log:5", "0,40", "last:2"), ("0:1, 20:0.5", "0:1, 30:2", "0:0, 1:1"),
)  # fmt: skip


FIRST = (
    "circuits/checkpoint.py", "circuits/decoding.py", "circuits/distributed_files.py", "circuits/formats.py",
    "tracking/checkpoints/run_files.py", "tracking/experiments/planning.py", "tracking/history/folder.py",
    "tracking/history/importing.py", "tracking/history/record_header.py", "tracking/history/records.py",
    "tracking/history/tables.py",
    "tracking/training/hyperparameters.py",
)  # fmt: skip
"""Modules that look at the form of a file, its columns or its options: what is refused there came no further."""


@dataclass(frozen=True)
class Kind:
    """A file within the seedbed, how it may be changed, and how it is read."""

    place: str
    change: Callable[[random.Random, bytes], bytes]
    read: Callable[[Path], object]


def record_changed(rng: random.Random, content: bytes) -> bytes:
    """The header of a record changed, and given the checksum that it then has."""
    (length,) = struct.unpack("<Q", content[:8])
    entries = json.loads(content[8 : 8 + length])
    if rng.random() < 0.9:
        header = tree_changed(
            rng, json.loads(entries["__metadata__"]["record"]), (("performed", "not_performed", "unknown", "failed"),)
        )
        if isinstance(header, dict):
            header["checksum"] = header_checksum(header)
        entries["__metadata__"]["record"] = json.dumps(header)
    else:
        entries = tree_changed(rng, entries)
    text = json.dumps(entries).encode(errors="surrogatepass")
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


class _LeftOutError(ValueError):
    """A record is left out of its history; `place` is what found it wrong."""

    @property
    def place(self) -> str:
        first = "is damaged" in str(self)
        return "tracking/history/record_header.py" if first else "tracking/history/record_folders.py"


def read_configuration(place: Path) -> object:
    """A configuration is written down as it is read, and trained for two steps where it is small."""
    config = TrainingConfig.from_toml(place)
    assert TrainingConfig.from_dict(config.to_dict()) == config
    size = config.n_layers * config.d_model**2 + config.batch_size * config.context_length * config.vocabulary
    if size < 300_000:
        from tracking.training.training import train

        with TemporaryDirectory() as folder:
            return train(replace(config, steps=min(2, config.steps), checkpoints="last:1"), folder).log
    return config


def read_plan(place: Path) -> object:
    plan = read_sweep(place)
    return [run.config.model for run in plan.runs[:20]], plan.recording


def read_search(place: Path) -> object:
    space, rng = read_space(place), np.random.default_rng(0)
    return [space.config({name: one.draw(rng) for name, one in space.choices.items()}, seed=0) for _ in range(3)]


def read_history(place: Path) -> object:
    """Everything of a history, as the tables ask for it."""
    folder = place.parent if place.name == "history.json" else place.parent.parent
    history = History.open(folder)
    if history.damaged:
        raise _LeftOutError(history.damaged[0].reason)
    tables = [history.to_frame(table) for table in ("scores", "edges", "metrics")]
    return tables, repr(history), history.tokens, history.faults, history.merges, history.measures


def link_history(place: Path) -> object:
    """Everything that is found in a history one of whose records is wrong."""
    history = History.open(place.parent.parent)
    found = build_timeline(history)
    if history.damaged:
        raise _LeftOutError(history.damaged[0].reason)
    return found


def read_timeline(place: Path) -> object:
    """An exported timeline, exported again."""
    from tracking.viewer.report import report

    timeline = load_timeline(place)
    with TemporaryDirectory() as folder:
        report(timeline, Path(folder) / "page.html")
        return export_timeline(timeline, folder, formats=("json", "csv", "trace", "graphml", "lineage"))


def read_run(place: Path) -> object:
    folder = next(path for path in place.parents if path.name == "run")
    run = Run.open(folder)
    return run, audit_files(run).findings


CONFIGURED = partial(toml_changed, words=WORDS)
KINDS: dict[str, Kind] = {
    "configuration": Kind("config.toml", CONFIGURED, read_configuration),
    "sweep": Kind("sweep.toml", CONFIGURED, read_plan),
    "space": Kind("space.toml", CONFIGURED, read_search),
    "history": Kind("history/history.json", json_changed, read_history),
    "record": Kind("history/records/*.safetensors", record_changed, read_history),
    "linked record": Kind("history/records/*.safetensors", record_changed, link_history),
    "timeline": Kind("export/timeline.json", json_changed, read_timeline),
    "run": Kind("run/run.json", json_changed, read_run),
    "log": Kind("run/log.jsonl", lines_changed, read_run),
    "index": Kind("run/checkpoints/step2/model.safetensors.index.json", json_changed, read_run),
    "model": Kind("run/checkpoints/step2/config.json", json_changed, read_run),
    "table": Kind("scores.csv", table_changed(","), import_history),
    "tabs": Kind("scores.tsv", table_changed("\t"), import_history),
}
"""Files of ours; `tests.robustness.all_kinds` has those of others too."""


def make(folder: Path) -> None:
    """One valid file of every kind of here."""
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


@dataclass(frozen=True)
class Result:
    """What one case did: `refused` with a sentence, `read`, or a fault; `place` is where in the product it ended."""

    kind: str
    seed: int
    outcome: str
    text: str = ""
    place: str = ""
    seconds: float = 0.0

    @property
    def at_first(self) -> bool:
        """Whether the first check refused it."""
        return self.outcome == "refused" and self.place.partition(":")[0] in FIRST

    def taking(self, seconds: float) -> "Result":
        return replace(self, seconds=seconds)


def place_of(kind: Kind, seedbed: Path) -> Path:
    return sorted(seedbed.glob(kind.place))[0]


def run_case(name: str, kind: Kind, seed: int, seedbed: Path) -> Result:
    """Change the file, read it, and put it back."""
    rng = random.Random(f"{name} {seed}")
    place = place_of(kind, seedbed)
    content = place.read_bytes()
    how = rng.random()
    try:
        if how < 0.02:
            place.unlink()
            os.mkfifo(place) if how < 0.01 else place.mkdir()
        else:
            place.write_bytes(kind.change(rng, content) if how < 0.95 else bytes_changed(rng, content))
        kind.read(place)
    except (ValueError, OSError) as error:
        said = sentence_of(error)
        return Result(name, seed, "refused" if said else "fault", said, _product_place(error))
    except Exception as error:
        return Result(name, seed, "fault", f"{type(error).__name__}: {error}", _product_place(error))
    finally:
        if place.is_dir():
            place.rmdir()
        else:
            with contextlib.suppress(FileNotFoundError):
                place.unlink()
        place.write_bytes(content)
    return Result(name, seed, "read")


def _product_place(error: BaseException) -> str:
    """The innermost line of the product that an error came through."""
    if isinstance(error, _LeftOutError):
        return error.place
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(str(ROOT))]
    own = [frame for frame in frames if not frame.filename.startswith(str(ROOT / "tests"))]
    return f"{Path(own[-1].filename).relative_to(ROOT)}:{own[-1].lineno}" if own else ""


def summary(results: list[Result]) -> pd.DataFrame:
    """How many cases of each kind were read, refused, or faults, which share was refused by the first check, and the
    CPU time of all and of the slowest."""
    rows = [(each.kind, each.outcome, each.at_first, each.seconds) for each in results]
    frame = pd.DataFrame(rows, columns=["kind", "outcome", "at_first", "seconds"])
    counts = pd.crosstab(frame["kind"], frame["outcome"])
    by_kind = frame.groupby("kind")
    seconds = by_kind["seconds"].agg(["sum", "max"]).round(2)
    return counts.assign(at_first=by_kind["at_first"].mean().round(3)).join(seconds)
