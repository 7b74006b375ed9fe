"""How near does recording a series come to what no recorder can do without, and how far is it from a plain loop?

The floor is that of `tests.benchmarks.recording_floor`.  Times are the process's own on one thread; reading the next
checkpoint, which the recording does meanwhile, is counted in full.  EAP is what the floor is of; EAP-IG, the default,
goes forward and back six times in place of once.  The plain loop is what TransformerLens alone offers: load, run with a
cache, patch every head and MLP, next.  The weights are random, so the model does not do the task and no circuit is
looked for.

    pytest -o addopts= -s tests/benchmarks/test_recording_speed.py

A history of 154 checkpoints × 5 tasks × 32,491 edges × 8 folds is opened and read by a process of its own.

`FORMATION_BENCHMARK_CHECKPOINTS=20` and `FORMATION_BENCHMARK_PROMPTS=64` measure at the full scale (10 GB of disk).
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from circuits.circuit import Circuit
from circuits.graph import EdgeScores, Estimate, ModelGraph
from circuits.tasks.task import Task
from tests.benchmarks.recording_floor import Passes, beside_the_floor, passes_of, save_series
from tracking.history.history import History, create_history
from tracking.history.records import Record, write_record
from tracking.recording.recording import record

CHECKPOINTS = int(os.environ.get("FORMATION_BENCHMARK_CHECKPOINTS", "4"))
PROMPTS = int(os.environ.get("FORMATION_BENCHMARK_PROMPTS", "8"))


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Checkpoints of GPT-2 small's shape."""
    folder = save_series(transformers.GPT2Config(), tmp_path_factory.mktemp("series"), CHECKPOINTS)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def passes(series: Path) -> Passes:
    return passes_of(series, PROMPTS)


def test_recording_a_series(series: Path, passes: Passes, tmp_path: Path) -> None:
    """The first checkpoint makes the model, which a short series pays for; so the others are told apart."""
    ours, least = beside_the_floor(series, tmp_path / "h", passes, method="eap")
    assert History.open(tmp_path / "h").records[0, "induction"].status == "not_performed"
    whole, further = sum(ours), sum(ours[1:-1]) / (len(ours) - 2) * CHECKPOINTS
    print(
        f"\n  recording {CHECKPOINTS} checkpoints by EAP, {PROMPTS} prompts: {whole / least:.2f} × the floor "
        f"({whole:.1f} s against {least:.1f} s); each after the first {further / least:.2f} × (at most 1.4)"
    )
    assert (whole if CHECKPOINTS >= 20 else further) <= 1.4 * least


def test_recording_by_default(series: Path, passes: Passes, tmp_path: Path) -> None:
    """EAP-IG's own floor is six times forward and back and the probe, which is more than twice that of EAP."""
    ours, least = beside_the_floor(series, tmp_path / "h", passes, steps="first:3")
    further = sum(ours[1:-1]) / (len(ours) - 2) * 3
    print(f"\n  by EAP-IG: each after the first {further / least:.2f} × the floor of EAP")
    assert further <= 5 * least


def plain(folder: Path, probe: list[torch.Tensor], task: Task, share: int) -> float:
    """One checkpoint of the plain loop; of its patched passes, which all take the same time, one in `share` is run."""
    from transformer_lens.model_bridge import TransformerBridge

    start = time.process_time()
    bridge: Any = TransformerBridge.boot_transformers(str(folder), device="cpu")
    with torch.no_grad():
        for tokens in probe:
            logits, cache = bridge.run_with_cache(tokens)
            logits.log_softmax(-1)
            _ = [cache[f"blocks.{layer}.attn.hook_pattern"] for layer in range(12)]
        _, other = bridge.run_with_cache(task.corrupted)
        before = time.process_time()
        spent = before - start
        layers = range(0, 12, share)
        for layer in layers:
            places = [("attn.hook_z", head) for head in range(12)] + [("hook_mlp_out", None)]
            for name, head in places:
                hook = f"blocks.{layer}.{name}"

                def patch(x: torch.Tensor, hook: Any, place: str = hook, head: int | None = head) -> torch.Tensor:
                    if head is None:
                        return other[place]
                    x = x.clone()
                    x[:, :, head] = other[place][:, :, head]
                    return x

                bridge.run_with_hooks(task.clean, fwd_hooks=[(hook, patch)])
    return spent + (time.process_time() - before) * 12 / len(layers)


def test_the_plain_loop(series: Path, passes: Passes, tmp_path: Path) -> None:
    ours, theirs = 0.0, 0.0
    for number in range(2):
        start = time.process_time()
        record(series, tmp_path / f"{number}", n_prompts=PROMPTS, threads=1, method="eap", steps=f"{number}")
        ours += time.process_time() - start
        theirs += plain(series / f"checkpoint-{number}", passes.probe, passes.task, share=12)
    print(f"\n  two checkpoints, each from nothing: {theirs / ours:.1f} times faster than the plain loop (at least 8)")
    assert theirs >= 8 * ours


READING = """
import sys, time
from tracking.history.history import History

times = [time.perf_counter()]
history = History.open(sys.argv[1])
history.steps, history.tasks
times.append(time.perf_counter())
history.edge_scores("a").value.sel(writer="a5.h1").values
times.append(time.perf_counter())
history.edge_scores("b").folds.sel(writer="a5.h1").values
times.append(time.perf_counter())
print(*[after - before for before, after in zip(times, times[1:])])
"""


def test_reading_one_series(tmp_path: Path) -> None:
    graph = ModelGraph(n_layers=12, n_heads=12, mlp=True)
    create_history(tmp_path, "big", graph)
    generator = np.random.default_rng(0)
    for step in range(154):
        folds = generator.normal(size=(8, *graph.edge_mask.shape)) * graph.edge_mask
        estimate = Estimate(folds.mean(0), folds.std(0), folds, 64)
        for task in "abcde":
            scores = EdgeScores(graph, estimate, "eap", task)
            write_record(tmp_path, Record(step, task, circuit=Circuit(scores, graph.edge_mask, None, "unknown")))
    size = sum(file.stat().st_size for file in tmp_path.rglob("*.safetensors")) / 1e6
    command = [sys.executable, "-c", READING, str(tmp_path)]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() for _ in range(3)]
    opening, value, folds = (min(float(run[part]) for run in runs) for part in range(3))
    print(f"\n  {size:.0f} MB opened in {opening:.2f} s, a series read in {value:.3f} s, with its folds {folds:.3f} s")
    assert size <= 700
    assert opening < 1
    assert value < 0.2
