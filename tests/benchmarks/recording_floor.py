"""The floor of recording: what no recorder can do without, a checkpoint at a time, beside the recording itself.

The floor of one checkpoint is reading its file, one forward pass over the probe's sequences, and the floor of EAP on
one task (`tests.benchmarks.test_circuits_speed`): passes of the raw Hugging Face model, without hooks, same prompts and
threads, one checkpoint of the floor after one of the recording, so that both meet the same machine.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from circuits.loading import load_model
from circuits.tasks.induction import repeated_tokens
from circuits.tasks.registry import make_task
from circuits.tasks.task import Task
from tests.benchmarks.test_circuits_speed import forward, forward_and_back
from tracking.recording.recording import record

__all__ = ["Passes", "beside_the_floor", "passes_of", "save_series"]

BATCH = 16


def save_series(config: Any, folder: Path, n_checkpoints: int) -> Path:
    """Checkpoints of random weights, each a little further from the first."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = transformers.AutoModelForCausalLM.from_config(config)
    for number in range(n_checkpoints):
        module.save_pretrained(folder / f"checkpoint-{number}")
        with torch.no_grad():
            for weight in module.parameters():
                weight.mul_(1.001)
    return folder


@dataclass(frozen=True)
class Passes:
    """The raw model, the probe's sequences and the task, as recording makes them."""

    raw: Any
    probe: list[torch.Tensor]
    task: Task

    def run(self, checkpoint: Path) -> None:
        """The floor of one checkpoint."""
        (checkpoint / "model.safetensors").read_bytes()
        for tokens in self.probe:
            forward(self.raw, tokens)
        for start in range(0, len(self.task), BATCH):
            part = self.task.rows(slice(start, start + BATCH))
            forward(self.raw, part.corrupted)
            forward_and_back(self.raw, part)


def passes_of(series: Path, n_prompts: int) -> Passes:
    model = load_model(series / "checkpoint-0")
    raw: Any = transformers.AutoModelForCausalLM.from_pretrained(series / "checkpoint-0")
    probe = [tokens for _, tokens in repeated_tokens(model, n_prompts=n_prompts, seed=0)]
    return Passes(raw.eval().requires_grad_(False), probe, make_task("induction", model, n_prompts=n_prompts, seed=0))


def beside_the_floor(series: Path, folder: Path, passes: Passes, **options: Any) -> tuple[list[float], float]:
    """Seconds that each checkpoint took, and after the last, and those of the floor of all of them."""
    ours, least, begun = [], 0.0, time.process_time()

    def next_checkpoint(event: Mapping[str, Any]) -> None:
        nonlocal least, begun
        time.sleep(2)  # the next checkpoint is being read
        ours.append(time.process_time() - begun)
        start = time.process_time()
        passes.run(series / f"checkpoint-{event['step']}")
        begun = time.process_time()
        least += begun - start

    record(series, folder, n_prompts=len(passes.task), threads=1, events=next_checkpoint, **options)
    return [*ours, time.process_time() - begun], least
