"""How far is each method from the physical floor, the passes that no method can do without?

The floor of EAP is one clean forward, one corrupted forward and one backward pass to the embeddings of the same raw
Hugging Face model, without hooks, same batch and threads, in the same run.  The vocabulary has 5,000 tokens, so that
unembedding every position, which the raw model does and no method needs, weighs little in the floor.  Ratios are
printed at the end of the run.

    pytest -o addopts= tests/benchmarks/test_circuits_speed.py

`FORMATION_BENCHMARK_DEVICE=cuda` measures on a GPU, and prints the share of the chip's matrix rate that the passes
reach (set `FORMATION_PEAK_TFLOPS` to the rate of the data type).
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from circuits.architectures import NativeConfig, as_bridge, native_module
from circuits.attribution import edge_attribution_patching
from circuits.circuit import select_top
from circuits.composition import composition_scores
from circuits.discovery import find_circuit
from circuits.evaluation import Judge
from circuits.graph import Reader
from circuits.loading import load_model, save_checkpoint
from circuits.patching import edge_patching
from circuits.tasks.task import Task

DEVICE = os.environ.get("FORMATION_BENCHMARK_DEVICE", "cpu")
ROUNDS = 3
VOCABULARY = 5000
RATIOS: dict[str, str] = {}


@pytest.fixture(scope="session", autouse=True)
def report() -> Iterator[None]:
    torch.set_num_threads(1)
    yield
    cores, threads = os.cpu_count(), torch.get_num_threads()
    print(f"\n\non {DEVICE}, {cores} cores, {threads} thread, torch {torch.__version__}")
    for name, ratio in RATIOS.items():
        print(f"  {name}: {ratio}")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of GPT-2 small's shape with random weights."""
    path = tmp_path_factory.mktemp("gpt2")
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(transformers.GPT2Config(vocab_size=VOCABULARY)).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def raw(folder: Path) -> Any:
    module: Any = transformers.AutoModelForCausalLM.from_pretrained(folder)
    return module.eval().requires_grad_(False).to(DEVICE)


@pytest.fixture(scope="session")
def model(folder: Path) -> Any:
    return load_model(folder, device=DEVICE)


def make_task(n_prompts: int, n_tokens: int) -> Task:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randint(VOCABULARY, shape, generator=generator)

    return Task.from_tokens(draw(n_prompts, n_tokens), draw(n_prompts, n_tokens), draw(n_prompts), draw(n_prompts))


def forward(raw: Any, tokens: torch.Tensor) -> None:
    with torch.no_grad():
        raw(tokens.to(DEVICE))


def forward_and_back(raw: Any, task: Task) -> None:
    embedded = raw.get_input_embeddings()(task.clean.to(DEVICE)).detach().requires_grad_()
    logits = raw(inputs_embeds=embedded).logits[:, -1]
    right, wrong = task.correct.to(DEVICE), task.incorrect.to(DEVICE)
    (logits.gather(1, right) - logits.gather(1, wrong)).sum().backward()


def seconds(function: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """The best of a few rounds, after one that warms up.

    On one thread of a CPU this is the process's own time, so that whatever else the machine does counts little.
    """
    return together([function], rounds)[0]


def together(functions: list[Callable[[], Any]], rounds: int = ROUNDS) -> list[float]:
    """The best of each, rounds taken in turn, so that all meet the same machine."""
    clock = time.process_time if DEVICE == "cpu" else time.perf_counter
    best = [float("inf")] * len(functions)
    for number in range(rounds + 1):
        for index, function in enumerate(functions):
            if DEVICE != "cpu":
                torch.cuda.synchronize()
            start = clock()
            function()
            if DEVICE != "cpu":
                torch.cuda.synchronize()
            if number:
                best[index] = min(best[index], clock() - start)
    return best


def compare(
    benchmark: Any, name: str, function: Callable[[], Any], parts: dict[Callable[[], Any], int], most: float
) -> float:
    """Time beside the floor, which is the sum of some parts, each so many times; the floor's seconds."""
    best, *times = together([function, *parts])
    floor = sum(count * time for count, time in zip(parts.values(), times, strict=True))
    benchmark.pedantic(function, rounds=1)
    benchmark.extra_info["ratio"] = best / floor
    RATIOS[name] = f"{best / floor:.2f} × its floor ({best:.3f} s against {floor:.3f} s; at most {most})"
    assert best <= most * floor
    return floor


SIZES = pytest.mark.parametrize(("n_prompts", "n_tokens"), [(4, 16), (16, 64)], ids=["4x16", "16x64"])


@SIZES
def test_eap(benchmark: Any, raw: Any, model: Any, n_prompts: int, n_tokens: int) -> None:
    task = make_task(n_prompts, n_tokens)
    parts = {lambda: forward(raw, task.corrupted): 1, lambda: forward_and_back(raw, task): 1}
    name = f"EAP of {model.graph.n_edges} edges, {n_prompts} × {n_tokens} tokens"
    floor = compare(benchmark, name, lambda: edge_attribution_patching(model, task), parts, 1.5)
    if DEVICE != "cpu":
        _matrix_rate(raw, name, floor, n_prompts * n_tokens)


@SIZES
def test_eap_ig(benchmark: Any, raw: Any, model: Any, n_prompts: int, n_tokens: int) -> None:
    task = make_task(n_prompts, n_tokens)
    parts = {lambda: forward(raw, task.clean): 1, lambda: forward_and_back(raw, task): 5}
    name = f"EAP-IG in 5 steps, {n_prompts} × {n_tokens} tokens"
    compare(benchmark, name, lambda: edge_attribution_patching(model, task, steps=5), parts, 1.5)


def _matrix_rate(raw: Any, name: str, floor: float, n_tokens: int) -> None:
    """Two multiplications and additions a weight in each of two forward passes, and as many back to the inputs."""
    weights = sum(weight.numel() for weight in raw.parameters()) - raw.config.vocab_size * raw.config.n_embd
    reached = 3 * 2 * (weights + raw.config.vocab_size * raw.config.n_embd) * n_tokens / floor / 1e12
    peak = float(os.environ.get("FORMATION_PEAK_TFLOPS", "nan"))
    RATIOS[f"{name}: matrix rate of the passes"] = f"{reached:.1f} TFLOP/s, {reached / peak:.1%} of the chip's"


@SIZES
def test_exact_patching(benchmark: Any, raw: Any, model: Any, n_prompts: int, n_tokens: int) -> None:
    """Some edges into readers of several layers, each counted as often as its like: the mean over all edges without
    running them all."""
    task, graph = make_task(n_prompts, n_tokens), model.graph
    floor = seconds(lambda: forward(raw, task.clean), 1)
    nothing, spent, edges = np.zeros_like(graph.edge_mask), 0.0, 0.0
    start = seconds(lambda: edge_patching(model, task, only=nothing), 1)
    for layer in (2, 6, 10):
        for name, times in ((f"a{layer}.h{layer}<{'qkv'[layer % 3]}>", 36), (f"m{layer}", 1)):
            column = graph.reader_index[Reader.parse(name)]
            writers = np.flatnonzero(graph.edge_mask[:, column])
            some, only = writers[:: -(-len(writers) // 8)], nothing.copy()
            only[some, column] = True
            more = seconds(lambda only=only: edge_patching(model, task, only=only), 1) - start
            spent += times * len(writers) * max(0.0, more) / len(some)
            edges += times * len(writers)
    ratio = spent / edges / floor
    benchmark.pedantic(lambda: edge_patching(model, task, only=nothing), rounds=1)
    benchmark.extra_info["forwards_an_edge"] = ratio
    RATIOS[f"exact patching, {n_prompts} × {n_tokens} tokens"] = f"{ratio:.2f} forwards an edge (at most 0.4)"
    assert ratio <= 0.4


def test_find_circuit(benchmark: Any, raw: Any, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task(4, 16)
    scores = edge_attribution_patching(model, task)
    floor = seconds(lambda: forward(raw, task.clean))
    passes = 0
    counted = type(model).read_out

    def count(self: Any, x: torch.Tensor, rules: Any = None) -> torch.Tensor:
        nonlocal passes
        passes += 1
        return counted(self, x, rules)

    judge, kept = Judge(model, task), select_top(scores, 2000).kept
    one, again = together([lambda: judge.values(kept), lambda: forward(raw, task.clean)])
    RATIOS["one edge-ablated forward"] = f"{one / again:.2f} forwards"
    monkeypatch.setattr(type(model), "read_out", count)
    find_circuit(model, task, scores=scores, alpha=0.99)
    monkeypatch.undo()
    best = seconds(lambda: find_circuit(model, task, scores=scores, alpha=0.99), 2)
    benchmark.pedantic(lambda: find_circuit(model, task, scores=scores, alpha=0.99), rounds=1)
    RATIOS["find_circuit beyond its scores"] = (
        f"{passes} forward passes (at most 12), {best / floor:.1f} forwards of time"
    )
    assert passes <= 12


def test_composition(benchmark: Any, tmp_path: Path) -> None:
    config = NativeConfig(n_layers=6, n_heads=8, d_head=64, d_model=512, d_vocab=100)
    save_checkpoint(native_module(config), config, tmp_path)
    model = load_model(tmp_path)
    bridge = as_bridge(model)
    bridge.enable_compatibility_mode(disable_warnings=True)
    theirs, ours = together(
        [
            lambda: [bridge.all_composition_scores(kind) for kind in "QKV"],
            lambda: [composition_scores(model, kind) for kind in "qkv"],
        ]
    )
    benchmark.pedantic(lambda: composition_scores(model, "k"), rounds=1)
    RATIOS["composition of 6 × 8 heads × 512"] = f"{theirs / ours:.0f} times faster than TransformerLens (at least 8)"
    assert theirs >= 8 * ours


def test_swapping_weights(benchmark: Any, model: Any, folder: Path) -> None:
    file = folder / "model.safetensors"
    parts: dict[Callable[[], Any], int] = {lambda: file.read_bytes(): 1}
    compare(benchmark, "swapping weights in place", lambda: model.swap_weights(folder), parts, 1.2)


MEMORY = """
import sys
from pathlib import Path

import torch

from circuits.attribution import edge_attribution_patching
from circuits.loading import load_model
from tests.benchmarks.test_circuits_speed import forward, forward_and_back, make_task

torch.set_num_threads(1)
folder, what, size = sys.argv[1], sys.argv[2], (int(sys.argv[3]), int(sys.argv[4]))
task = make_task(*size)
model = load_model(folder)
for number in range(3):
    if number == 1:
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here, not from loading
    if what == "floor":
        forward(model.module, task.corrupted), forward_and_back(model.module, task)
    else:
        edge_attribution_patching(model, task, steps=int(what))
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(DEVICE != "cpu" or not Path("/proc/self/clear_refs").exists(), reason="reads the peak in /proc")
@SIZES
@pytest.mark.parametrize("steps", [1, 5])
def test_memory(folder: Path, steps: int, n_prompts: int, n_tokens: int) -> None:
    """Peak memory of a process that does the method, over that of one that does only the floor's passes."""

    def peak(what: str) -> float:
        arguments = [sys.executable, "-c", MEMORY, str(folder), what, str(n_prompts), str(n_tokens)]
        done = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
        return int(done.stdout.split()[-1]) / 1024

    extra = peak(str(steps)) - peak("floor")
    name = "EAP" if steps == 1 else f"EAP-IG in {steps} steps"
    RATIOS[f"extra peak memory of {name}, {n_prompts} × {n_tokens} tokens"] = f"{extra:.0f} MB"
    if (n_prompts, steps) == (4, 1):
        assert extra <= 180
