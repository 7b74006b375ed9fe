"""How near does recording come to its floor at the shape of Pythia-160m, and how soon does it say anything?

Three checkpoints of random weights in GPT-NeoX's shape (12 layers, 12 heads, width 768, 50,304 tokens) are recorded by
EAP and by the default.  The floor is that of `tests.benchmarks.recording_floor`.  Times are the process's own, on one
thread.  What is printed by `--dry-run` beforehand is held to what the recording then takes.

    pytest -o addopts= -s tests/benchmarks/test_large_model.py

`FORMATION_BENCHMARK_PROMPTS=16` measures with as many prompts (8 unless said).
"""

import os
import shutil
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import transformers

from tests.benchmarks.recording_floor import Passes, beside_the_floor, passes_of, save_series
from tracking.checkpoints.runs import Run
from tracking.recording.cost import recording_cost
from tracking.recording.measuring import Settings
from tracking.recording.recording import record

PROMPTS = int(os.environ.get("FORMATION_BENCHMARK_PROMPTS", "8"))
CHECKPOINTS = 3
PYTHIA_160M = transformers.AutoConfig.for_model(
    "gpt_neox", hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072,
    vocab_size=50304, max_position_embeddings=2048, rotary_pct=0.25, use_parallel_residual=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = save_series(PYTHIA_160M, tmp_path_factory.mktemp("series"), CHECKPOINTS)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def passes(series: Path) -> Passes:
    return passes_of(series, PROMPTS)


@pytest.mark.parametrize(("method", "at_most"), [("eap", 1.4), ("auto", 6.0)])
def test_beside_the_floor(series: Path, passes: Passes, tmp_path: Path, method: str, at_most: float) -> None:
    """The first checkpoint makes the model; the one after it is held to the floor of EAP."""
    ours, least = beside_the_floor(series, tmp_path / "h", passes, method=method)
    ratio = ours[1] / (least / CHECKPOINTS)
    print(f"\n  {method}, {PROMPTS} prompts: {ratio:.2f} × the floor of EAP (at most {at_most}), {ours[1]:.1f} s each")
    assert ratio <= at_most


def test_the_first_word_comes_soon_and_the_estimate_holds(series: Path, tmp_path: Path) -> None:
    """Wall-clock time, which `--dry-run` speaks of; the machine should have nothing else to do."""
    cost = recording_cost(Run.open(series), tmp_path / "h", Settings(n_prompts=PROMPTS), threads=1)
    begun, words = time.perf_counter(), []

    def word(what: str, done: int, total: int) -> None:
        if done:
            words.append(time.perf_counter() - begun)

    record(series, tmp_path / "h", n_prompts=PROMPTS, threads=1, progress=word)
    took = time.perf_counter() - begun
    gaps = max(after - before for before, after in pairwise(words))
    print(f"\n  first word after {words[0]:.1f} s, at most {gaps:.1f} s between two")
    print(f"  reckoned with {cost.total_seconds:.0f} s, took {took:.0f} s")
    assert words[0] <= 0.25 * took
    assert gaps <= 0.25 * took
    assert 0.3 <= cost.total_seconds / took <= 3
