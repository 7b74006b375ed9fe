"""A small GPT-NeoX trained on repeats, as a series of Hugging Face checkpoints, and two of its heads exchanged.

Blocks are parallel and have MLPs, positions are rotary on half of each head, queries, keys and values of a head lie
together in one matrix: what a real GPT-NeoX run has, in a size that trains in minutes.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from tracking.training.sequences import Repeats, batch

__all__ = ["exchange_heads", "train_neox"]

DATA = Repeats(vocabulary=48, length=48, repeat_probability=0.95, shortest_period=10, longest_period=16)
SIZE: dict[str, Any] = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 6, "intermediate_size": 192}
REST: dict[str, Any] = {"max_position_embeddings": 64, "rotary_pct": 0.5, "initializer_range": 0.1}


def train_neox(folder: Path, *, steps: int, every: int, first: int = 0, seed: int = 0, rate: float = 3e-3) -> Path:
    """Train, and keep the state of every `every`-th step from `first` on as `checkpoint-STEP`."""
    torch.manual_seed(seed)
    config = GPTNeoXConfig(vocab_size=DATA.vocabulary, bos_token_id=0, eos_token_id=0, **SIZE, **REST)
    model = GPTNeoXForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    for step in range(steps + 1):
        if step >= first and step % every == 0:
            model.save_pretrained(folder / f"checkpoint-{step}")
        tokens = torch.from_numpy(batch(DATA, 64, seed=seed, index=step))
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 100)
        logits = model(tokens).logits
        loss = cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)
    return folder


def exchange_heads(folder: Path, out: Path, *, layer: int, heads: tuple[int, int], step: int) -> Path:
    """The same series, but that two heads of a layer have changed places from `step` on."""
    for place in folder.glob("checkpoint-*"):
        shutil.copytree(place, out / place.name)
        if int(place.name.rpartition("-")[2]) >= step:
            file = out / place.name / "model.safetensors"
            weights = load_file(file)
            prefix = f"gpt_neox.layers.{layer}.attention."
            size = SIZE["hidden_size"] // SIZE["num_attention_heads"]
            for name, width, axis in (
                ("query_key_value.weight", 3 * size, 0),
                ("query_key_value.bias", 3 * size, 0),
                ("dense.weight", size, 1),
            ):
                whole = weights[prefix + name]
                one, other = (whole.narrow(axis, head * width, width).clone() for head in heads)
                whole.narrow(axis, heads[0] * width, width).copy_(other)
                whole.narrow(axis, heads[1] * width, width).copy_(one)
            save_file(weights, file, metadata={"format": "pt"})
    return out
