"""Further kinds of files to fuzz: weights in every form, configurations of models, and what is found in one model."""

import io
import json
import random
import struct
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from circuits.circuit import Circuit, load_circuit, save_circuit
from circuits.formats import FORMATS, open_checkpoint, read_tensors
from circuits.graph import EdgeScores, Estimate, ModelGraph
from circuits.loading import load_model, save_checkpoint
from tests.models import INDUCTION, induction_module
from tests.robustness.changing import bytes_changed, json_changed, near, tree_changed
from tests.robustness.fuzzing import Kind, read_run
from tracking.history.patterns import Patterns, read_patterns, write_patterns
from tracking.results.influence_file import read_influence
from tracking.training.hyperparameters import TrainingConfig
from tracking.training.training import STATE, load_state, train

__all__ = ["KINDS", "make"]

STATUSES = (("performed", "not_performed", "overshoots", "unstable", "unknown"),)
ARCHITECTURES = (("gpt2", "llama", "gpt_neox"), ("gelu_new", "relu", "silu"), ("float32", "float64"))
SHORT = TrainingConfig(name="short", steps=2, checkpoints="all", d_model=8, n_heads=2, batch_size=2)
INFLUENCE = {
    "curve": "induction", "component": "a1.h0", "bar": 0.3, "date": 240.0, "runs": ["demo"], "method": "unrolled",
    "confidence": 0.9, "sources": [], "sentences": ["one"],
}  # fmt: skip


def header_changed(name: str | None) -> Callable[[random.Random, bytes], bytes]:
    """Changes of the header of a safetensors file, or of the JSON under a name in its metadata."""

    def change(rng: random.Random, content: bytes) -> bytes:
        (length,) = struct.unpack("<Q", content[:8])
        entries = json.loads(content[8 : 8 + length])
        if name is not None and rng.random() < 0.8:
            about = tree_changed(rng, json.loads(entries["__metadata__"][name]), STATUSES)
            entries["__metadata__"][name] = json.dumps(about)
        elif rng.random() < 0.5:  # its tensors under other names and of other types, as long as they fit
            first = rng.choice([key for key in entries if key != "__metadata__"])
            about = entries.pop(first)
            about["shape"] = rng.choice([about["shape"], about["shape"][::-1], [int(np.prod(about["shape"]))]])
            about["dtype"] = rng.choice([about["dtype"], "I32", "U32"]) if about["dtype"] == "F32" else about["dtype"]
            entries[rng.choice([first, f"{first}.weight", "ü", "x" * 300, "a\x00"])] = about
        else:
            entries = tree_changed(rng, entries)
        text = json.dumps(entries).encode(errors="surrogatepass")
        return struct.pack("<Q", len(text)) + text + content[8 + length :]

    return change


def state_changed(rng: random.Random, content: bytes) -> bytes:
    """A state dictionary with another tensor, other values, or homes within homes; or bytes of it."""
    state = torch.load(io.BytesIO(content), weights_only=True)
    home = rng.choice([state, state["model"]])
    key = rng.choice(list(home))
    how = rng.randrange(6)
    if how == 0:
        home[key] = rng.choice(
            [
                torch.zeros(1).expand(10**6, 10**5),
                torch.zeros(0),
                torch.tensor(1.0),
                torch.ones(2, 2, dtype=torch.complex64),
                torch.eye(3).to_sparse(),
                torch.ones(4, 4).T,
                torch.ones(3, dtype=torch.bool),
                torch.full((4,), float("nan")),
                torch.nn.Parameter(torch.ones(3)),
            ]
        )
    elif how == 1:
        home[rng.choice(["a.b", "", 3, None, (1, 2), "x" * 300, "ü\ud800"])] = home.pop(key)
    elif how == 2:
        home[rng.choice(["step", "iter_num", "model_args", "module", "note"])] = rng.choice(
            [1, -1, "x", {}, None, 10**30]
        )
    elif how == 3:
        state = {rng.choice(["model", "state_dict", "module"]): state}
    elif how == 4:
        state["step"] = near(rng, state["step"])
    else:
        return bytes_changed(rng, content)
    out = io.BytesIO()
    torch.save(state, out, _use_new_zipfile_serialization=rng.random() < 0.7)
    return out.getvalue()


def own_changed(rng: random.Random, content: bytes) -> bytes:
    """What of a configuration the weights leave open, as often as what they do not."""
    if rng.random() < 0.3:
        return json_changed(rng, content)
    about = json.loads(content)
    for name in rng.sample(["seed", "init_scale", "act_fn", "gated_mlp", "d_mlp", "positions", "normalization"], 1):
        given = {"act_fn": ["relu", "silu", "x"], "positions": ["rotary", "standard"], "d_mlp": [8, None, 10**6]}
        given |= {"seed": [1, -1, 10**30], "init_scale": [0.1, 1e30, float("nan")], "gated_mlp": [True, False]}
        about[name] = rng.choice(given.get(name, [None, "LN", "RMS", "layer"]))
    return json.dumps(about).encode()


def distributed_changed(rng: random.Random, content: bytes) -> bytes:
    """The index of a distributed checkpoint with other sizes, offsets, places or names."""
    import pickle

    about = pickle.loads(content)
    tensors = {name: held for name, held in about.state_dict_metadata.items() if hasattr(held, "chunks")}
    name = rng.choice(sorted(tensors))
    held, how = tensors[name], rng.randrange(11)
    if how > 5:  # one tensor fewer, or another number beside them
        gone = rng.choice(list(about.state_dict_metadata))
        del about.state_dict_metadata[gone]
    elif how == 0:
        held.size = torch.Size([abs(near(rng, size)) for size in held.size])
    elif how == 1:
        chunk = rng.choice(held.chunks)
        chunk.sizes = torch.Size([abs(near(rng, size)) for size in chunk.sizes])
    elif how == 2:
        about.state_dict_metadata[rng.choice(["a", "model.", "x" * 300])] = about.state_dict_metadata.pop(name)
    elif how == 3:
        place = rng.choice(list(about.storage_data.values()))
        place.offset, place.length = near(rng, place.offset), near(rng, place.length)
    elif how == 4:
        place = rng.choice(list(about.storage_data.values()))
        place.relative_path = rng.choice(["../../secret", "/etc/passwd", "nothing.distcp", "", "x" * 300])
    else:
        return bytes_changed(rng, content)
    return pickle.dumps(about)


def read_weights(place: Path) -> object:
    """Every tensor of a checkpoint, whole and in part, and what it says of itself."""
    source = place.parent if FORMATS["distributed"].find(place.parent) else place
    opened = open_checkpoint(source)
    for entry in opened.entries:
        entry.part(0, 2)
    return {name: tuple(weight.shape) for name, weight in read_tensors(source).items()}, opened.facts


def read_model(place: Path) -> object:
    model = load_model(place.parent)
    return model.graph


def read_state(place: Path) -> object:
    return load_state(SHORT, place.parent).step


def read_series(place: Path) -> object:
    """The whole audit of a series one of whose configurations is wrong."""
    from tracking.checkpoints.audit import audit

    return audit(place.parents[1]).findings


KINDS: dict[str, Kind] = {
    "safetensors": Kind("run/checkpoints/step1/model-0.safetensors", header_changed(None), read_run),
    "torch file": Kind("weights/step1.pt", state_changed, read_weights),
    "distributed": Kind("distributed/.metadata", distributed_changed, read_weights),
    "own model": Kind("native/step0/config.json", own_changed, read_model),
    "audited model": Kind("native/step0/config.json", json_changed, read_series),
    "hub's model": Kind("hub/step0/config.json", partial(json_changed, words=ARCHITECTURES), read_model),
    "audited hub's model": Kind("hub/step0/config.json", partial(json_changed, words=ARCHITECTURES), read_series),
    "training state": Kind(f"trained/checkpoints/*2/{STATE}", header_changed("training"), read_state),
    "circuit": Kind("found.circuit", header_changed("circuit"), load_circuit),
    "patterns": Kind("history/patterns/*.safetensors", header_changed("words"), read_patterns),
    "influence": Kind("why.json", json_changed, read_influence),
}


def make(folder: Path) -> None:
    """One valid file of every kind of here, in a seedbed that `fuzzing.make` made."""
    from transformers import GPT2Config, GPT2LMHeadModel

    state = {"w": torch.randn(4, 4), "b": torch.randn(4)}
    (folder / "weights").mkdir()
    torch.save({"model": dict(state), "step": 500, "optimizer": {"lr": 0.1}}, folder / "weights" / "step1.pt")
    with warnings.catch_warnings(action="ignore"):
        save: Any = __import__("torch.distributed.checkpoint", fromlist=["save"]).save
        save({"model": state, "step": 500}, checkpoint_id=folder / "distributed", no_dist=True)
    for step in range(2):
        save_checkpoint(induction_module(sharpness=6.0 + step), INDUCTION, folder / "native" / f"step{step}")
    config = GPT2Config(vocab_size=32, n_positions=16, n_embd=8, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(folder / "hub" / "step0")
    train(SHORT, folder / "trained")
    graph = ModelGraph(1, 2)
    nothing = np.zeros(graph.edge_mask.shape)
    scores = EdgeScores(graph, Estimate(nothing, nothing, np.stack([nothing] * 2), 8), "eap", "induction")
    save_circuit(Circuit(scores, graph.edge_mask, None, "not_performed", 0.85), folder / "found.circuit")
    shares = np.zeros((2, 2, 4, 5, 5), dtype=np.uint8)
    write_patterns(
        folder / "history", 0, Patterns(shares, np.arange(10).reshape(2, 5), (("a", "b", "c", "d", "e"),) * 2)
    )
    (folder / "why.json").write_text(json.dumps(INFLUENCE))
