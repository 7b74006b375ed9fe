"""Further kinds of files to fuzz: what other programs leave, and what is joined to a history or judged later."""

import gzip
import hashlib
import io
import json
import os
import pickle
import random
import re
import shutil
from contextlib import suppress
from datetime import date
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import yaml

from circuits.curves import read_mib_graph
from circuits.decoding import read_json
from circuits.lora import lora_config
from circuits.model import Model
from circuits.tasks.from_table import table_task
from tests.robustness.changing import (
    bytes_changed,
    json_changed,
    lines_changed,
    near,
    rows_changed,
    table_changed,
    text_changed,
    tree_changed,
)
from tests.robustness.fuzzing import Kind
from tests.tracking.forecasting.test_forecast import told
from tracking.checkpoints.beside import curves_beside, hyperparameters_beside
from tracking.checkpoints.merges import parents_of
from tracking.checkpoints.runs import Run
from tracking.comparison.run_set import RunSet
from tracking.forecasting.register import settle
from tracking.history.importing import import_history, import_runs
from tracking.history.joining import join_table

__all__ = ["KINDS", "make"]

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
NAMES = [
    "step0-tokens0B",
    "step100-tokens1B",
    "stage1-step200-tokens2B",
    "stage1-step300-tokens3B",
    "stage2-ingredient1-step50-tokens4B",
    "stage2-ingredient2-step50-tokens4B",
    "stage2-ingredient2-step90-tokens5B",
    "main",
]


def yaml_changed(rng: random.Random, content: bytes) -> bytes:
    if rng.random() < 0.7:
        return yaml.safe_dump(tree_changed(rng, yaml.safe_load(content)), allow_unicode=True).encode(errors="replace")
    return text_changed(rng, content)


def gzip_changed(rng: random.Random, content: bytes) -> bytes:
    return gzip.compress(table_changed(",")(rng, gzip.decompress(content)))


def parquet_changed(rng: random.Random, content: bytes) -> bytes:
    """Rows changed as those of a text; columns of numbers stay numbers where they can, and some become lists."""
    frame, file = pd.read_parquet(io.BytesIO(content)), io.BytesIO()
    rows = rows_changed(
        rng, [list(map(str, frame.columns)), *(list(map(str, row)) for row in frame.itertuples(index=False))]
    )
    rows = [row for row in rows if len(row) == len(rows[0])]
    changed = pd.DataFrame(
        rows[1:], columns=[f"{name}{n}" if name in rows[0][:n] else name for n, name in enumerate(rows[0])]
    )
    for name in changed:
        with suppress(ValueError, OverflowError):
            changed[name] = pd.to_numeric(changed[name])
        if rng.random() < 0.01:
            changed[name] = [[str(value)] for value in changed[name]]
    changed.to_parquet(file)
    return file.getvalue()


def register_changed(rng: random.Random, content: bytes) -> bytes:
    """A register whose contents changed, with the hash that it then has."""
    about = json.loads(content)
    about.pop("sha256")
    return hashed(tree_changed(rng, about, (("form", "function", "behaviour"), ("threshold", "changepoint"))))


def hashed(about: Any) -> bytes:
    text = json.dumps(about, sort_keys=True, separators=(",", ":"))
    return json.dumps({**about, "sha256": hashlib.sha256(text.encode()).hexdigest()}).encode()


def names_changed(rng: random.Random, content: bytes) -> bytes:
    """Names of checkpoints: another number, one more of a kind, one fewer, parts exchanged, doubled, or very long."""
    names = json.loads(content)
    place = rng.randrange(len(names))
    how = rng.random()
    if how < 0.35 and (numbers := list(re.finditer(r"\d+", names[place]))):
        one = rng.choice(numbers)
        names[place] = f"{names[place][: one.start()]}{abs(near(rng, int(one[0])))}{names[place][one.end() :]}"
    elif how < 0.55:
        names.append(re.sub(r"\d+(?!.*\d)", lambda found: str(int(found[0]) + rng.choice([1, 7, 100])), names[place]))
    elif how < 0.7:
        del names[place]
    elif how < 0.8:
        names[place] += rng.choice(["-hf", "-tokens2B", ".safetensors", "_final", "-unsharded"])
    else:
        parts = names[place].split("-")
        odd = [
            *parts,
            "step" + "9" * rng.choice([1, 30, 200]),
            "stage",
            "tokens1e400B",
            "",
            "ü",
            ".",
            "seed-",
            "step-1",
        ]
        parts.insert(rng.randrange(len(parts) + 1), rng.choice(odd))
        names[place] = "-".join(parts)[:200] or "x"
    return json.dumps(names).encode()


def pickle_changed(rng: random.Random, content: bytes) -> bytes:
    """Settings changed, of other classes, or a pickle that would do something if it were obeyed."""
    if rng.random() < 0.6:
        return pickle.dumps(tree_changed(rng, pickle.loads(content)))
    return rng.choice(
        [
            pickle.dumps(Obeyed()),
            pickle.dumps({"learning_rate": Obeyed(), "max_steps": 3}),
            pickle.dumps({"path": Path("a"), "when": date(2020, 1, 1), "set": {1, 2}, "kind": Letters}),
            b"\x80\x04]r\xff\xff\xff\x7f.",  # a memo of two billion places
            b"\x80\x05\x96" + (10**12).to_bytes(8, "little") + b"abc.",  # a terabyte of bytes
            b"\x80\x04" + b"(" * 100_000 + b"t" * 100_000 + b".",
            b"\x80\x04\x8c\x03a\xed\xa0.",
            bytes_changed(rng, content),
        ]
    )


class Obeyed:
    """Unpickled as it asks to be, it runs a program."""

    def __reduce__(self) -> Any:
        return os.system, ("touch obeyed",)


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


KINDS: dict[str, Kind] = {
    "edges": Kind("edges.csv", table_changed(","), import_edges),
    "metrics": Kind("metrics.csv", table_changed(","), import_history),
    "runs": Kind("runs.csv", table_changed(","), import_by_run),
    "parquet": Kind("scores.parquet", parquet_changed, import_history),
    "gzip": Kind("scores.csv.gz", gzip_changed, import_history),
    "joined table": Kind("metrics.csv", table_changed(","), read_joined),
    "harness": Kind("results_step20.json", json_changed, read_joined),
    "adapter": Kind("adapter/adapter_config.json", json_changed, read_adapter),
    "recipe": Kind("merge/mergekit_config.yml", yaml_changed, lambda place: parents_of(place.parent)),
    "trainer": Kind("beside/trainer_state.json", json_changed, read_beside),
    "yaml": Kind("beside/hparams.yaml", yaml_changed, read_beside),
    "settings": Kind("beside/config_a.py", text_changed, read_beside),
    "arguments": Kind("beside/training_args.bin", pickle_changed, read_beside),
    "register": Kind("register.json", register_changed, read_register),
    "task": Kind("task.jsonl", lines_changed, read_task),
    "benchmark graph": Kind("graph.json", json_changed, read_mib_graph),
    "names": Kind("names.json", names_changed, read_names),
}


def make(folder: Path) -> None:
    """One valid file of every kind of here, in a seedbed that `fuzzing.make` made."""
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
    (folder / "register.json").write_bytes(hashed(about))
