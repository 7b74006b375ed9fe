"""Further kinds of files to fuzz: what other programs leave, and what is joined to a history or judged later."""

import gzip
import hashlib
import io
import json
import pickle
import random
import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from circuits.curves import read_mib_graph
from circuits.decoding import read_json
from circuits.lora import lora_config
from circuits.model import Model
from circuits.tasks.from_table import table_task
from tests.robustness.fuzzing import (
    KINDS,
    Kind,
    _changed,
    bytes_changed,
    csv_changed,
    json_changed,
    lines_changed,
)
from tests.tracking.forecasting.test_forecast import told
from tracking.checkpoints.beside import curves_beside, hyperparameters_beside
from tracking.checkpoints.merges import parents_of
from tracking.checkpoints.runs import Run
from tracking.comparison.run_set import RunSet
from tracking.forecasting.register import settle
from tracking.history.importing import import_history, import_runs
from tracking.history.joining import join_table

__all__ = ["make_more"]

YAML = """
learning_rate: 0.01
model:
  n_layer: 2
  sizes: [1, 2, 3]
models:
  - model: a/b
  - model: c/d
"""
SETTINGS = """
learning_rate = 6e-4
batch_size = 12 * 4
name = 'run'
decay = learning_rate / 10
"""
BITS = [
    ": ",
    "&a [*a]",
    "!!python/object:os.system x",
    "!!int x",
    "- [",
    "{{",
    "\t",
    "*b",
    "? ",
    "1" * 400,
    "~",
    "\x00",
    "=",
    "/ 0",
]
NAMES = ["step0", "step100", "stage1-step100-tokens1B", "stage2-ingredient1-step50", "step200-seed-1", "main"]


def text_changed(rng: random.Random, content: bytes) -> bytes:
    """One line, or a piece of it, of a text in some language."""
    lines = content.decode().splitlines()
    place = rng.randrange(len(lines))
    at = rng.randrange(len(lines[place]) + 1)
    lines[place] = lines[place][:at] + rng.choice(BITS) + lines[place][at + rng.choice([0, 1, 5]) :]
    return "\n".join(lines).encode()


def gzip_changed(rng: random.Random, content: bytes) -> bytes:
    return gzip.compress(csv_changed(rng, gzip.decompress(content)))


def parquet_changed(rng: random.Random, content: bytes) -> bytes:
    """One column of other values: texts, or one odd value among them, or lists."""
    frame, file = pd.read_parquet(io.BytesIO(content)), io.BytesIO()
    column = rng.choice(list(frame.columns))
    values = frame[column].tolist()
    values[rng.randrange(len(values))] = rng.choice(
        [None, "", -1, 1.5, float("inf"), 10**12, "a9999999.h0", True, b"x"]
    )
    kinds = [type(value) for value in values if value is not None]
    mixed = any(kind is not kinds[0] for kind in kinds)
    frame[column] = (
        [[str(value)] for value in values] if rng.random() < 0.1 else [*map(str, values)] if mixed else values
    )
    frame.to_parquet(file)
    return file.getvalue()


def register_changed(rng: random.Random, content: bytes) -> bytes:
    """A register whose contents changed, with the hash that it then has."""
    about = json.loads(content)
    about.pop("sha256")
    about = _changed(rng, about)
    text = json.dumps(about, sort_keys=True, separators=(",", ":"))
    return json.dumps({**about, "sha256": hashlib.sha256(text.encode()).hexdigest()}).encode()


def names_changed(rng: random.Random, content: bytes) -> bytes:
    """Names of checkpoints: parts exchanged, doubled, or made very long."""
    names = json.loads(content)
    place = rng.randrange(len(names))
    parts = names[place].split("-")
    odd = rng.choice(
        [*parts, "step" + "9" * rng.choice([1, 30, 200]), "stage", "tokens1e400B", "", "ü", ".", "seed-", "step-1"]
    )
    parts.insert(rng.randrange(len(parts) + 1), odd)
    names[place] = "-".join(parts)[:200] or "x"
    return json.dumps(names).encode()


class Letters:
    """A tokenizer whose tokens are letters."""

    def __call__(self, text: str, **_options: Any) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) % 256 for letter in text]}


def read_task(place: Path) -> object:
    model = Model.__new__(Model)
    model._tokenizer = Letters()
    return table_task(model, path=place)


def read_joined(place: Path) -> object:
    """Join to a copy of the history."""
    with TemporaryDirectory() as folder:
        shutil.copytree(place.parent / "history", Path(folder) / "h")
        return join_table(Path(folder) / "h", place)


def read_names(place: Path) -> object:
    names = read_json(place, list[str])
    with TemporaryDirectory() as folder:
        for name in names:
            checkpoint = Path(folder) / name
            if checkpoint.parent == Path(folder) and name not in (".", "..") and len(name.encode()) < 250:
                checkpoint.mkdir(exist_ok=True)
                (checkpoint / "model.safetensors").write_bytes(b"")
        return [repr(run) for run in Run.open_variants(folder)]


def read_adapter(place: Path) -> object:
    about = lora_config(place.parent)
    return None if about is None else (about.scale("h.0.attn.q", 8), parents_of(place.parent))


@cache
def known_runs() -> RunSet:
    return told()


def read_register(place: Path) -> object:
    return settle(known_runs(), place)


def read_beside(place: Path) -> object:
    return hyperparameters_beside(place.parent), curves_beside(place.parent)


def import_by_run(place: Path) -> object:
    return import_runs(place, run_column="run")


def import_edges(place: Path) -> object:
    return import_history(edges=place)


KINDS.update(
    {
        "edges": Kind("edges.csv", csv_changed, import_edges),
        "metrics": Kind("metrics.csv", csv_changed, import_history),
        "runs": Kind("runs.csv", csv_changed, import_by_run),
        "parquet": Kind("scores.parquet", parquet_changed, import_history),
        "gzip": Kind("scores.csv.gz", gzip_changed, import_history),
        "joined table": Kind("metrics.csv", csv_changed, read_joined),
        "harness": Kind("results_step20.json", json_changed, read_joined),
        "adapter": Kind("adapter/adapter_config.json", json_changed, read_adapter),
        "recipe": Kind("merge/mergekit_config.yml", text_changed, lambda place: parents_of(place.parent)),
        "trainer": Kind("beside/trainer_state.json", json_changed, read_beside),
        "yaml": Kind("beside/hparams.yaml", text_changed, read_beside),
        "settings": Kind("beside/config_a.py", text_changed, read_beside),
        "arguments": Kind("beside/training_args.bin", bytes_changed, read_beside),
        "register": Kind("register.json", register_changed, read_register),
        "task": Kind("task.jsonl", lines_changed, read_task),
        "benchmark graph": Kind("graph.json", json_changed, read_mib_graph),
        "names": Kind("names.json", names_changed, read_names),
    }
)


def make_more(folder: Path) -> None:
    """One valid file of every kind of here, in a seedbed that `fuzzing.make_seedbed` made."""
    scores = pd.read_csv(folder / "scores.csv")
    scores.to_parquet(folder / "scores.parquet")
    (folder / "scores.csv.gz").write_bytes(gzip.compress((folder / "scores.csv").read_bytes()))
    pd.concat([scores.assign(run=name) for name in ("a", "b")]).to_csv(folder / "runs.csv", index=False)
    steps = sorted(scores["step"].unique().tolist())
    edges = [(step, "t", "a0.h0", "a1.h1", "k", 0.5, 0.1) for step in steps]
    columns = ["step", "task", "source", "target", "slot", "score", "std_error"]
    pd.DataFrame(edges, columns=columns).to_csv(folder / "edges.csv", index=False)
    metrics = pd.DataFrame({"step": steps, "eval/acc": 0.5, "loss": 2.0, "loss_stderr": 0.1})
    metrics.to_csv(folder / "metrics.csv", index=False)
    results = {"piqa": {"acc,none": 0.5, "acc_stderr,none": 0.01, "alias": "piqa"}}
    harness = {"results": results, "config": {"model_args": f"pretrained=a/b,revision=step{steps[1]}"}}
    files: dict[str, str] = {
        "results_step20.json": json.dumps(harness),
        "adapter/adapter_config.json": json.dumps(
            {
                "peft_type": "LORA",
                "r": 8,
                "lora_alpha": 16,
                "base_model_name_or_path": "base",
                "alpha_pattern": {"q": 4},
            }
        ),
        "merge/mergekit_config.yml": YAML,
        "beside/trainer_state.json": json.dumps({"max_steps": 10, "log_history": [{"step": 1, "loss": 2.0}]}),
        "beside/hparams.yaml": YAML,
        "beside/config_a.py": SETTINGS,
        "task.jsonl": "".join(
            json.dumps({"clean": "abc", "corrupted": "abd", "correct_idx": [number], "incorrect_idx": 2}) + "\n"
            for number in range(3)
        ),
        "graph.json": json.dumps(
            {
                "cfg": {"n_layers": 1, "n_heads": 2, "parallel_attn_mlp": False, "d_model": 8},
                "nodes": {"input": {"in_graph": True}},
                "edges": {"input->a0.h0<q>": {"score": 0.5, "in_graph": True}},
            }
        ),
        "names.json": json.dumps(NAMES),
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "beside" / "training_args.bin").write_bytes(pickle.dumps({"learning_rate": 0.1, "max_steps": 10}))
    first = known_runs().formation.iloc[0]
    about: dict[str, Any] = {"registered": "now", "confidence": 0.9}
    row = {"known_until": 60.0, "midpoint": 80.0, "low": 70.0, "high": 90.0, "others_midpoint": 85.0}
    about["predictions"] = [
        {"run": str(first["run"]), "role": "induction", "clock": "form", "definition": "threshold", **row}
    ]
    text = json.dumps(about, sort_keys=True, separators=(",", ":"))
    (folder / "register.json").write_text(json.dumps({**about, "sha256": hashlib.sha256(text.encode()).hexdigest()}))
