"""Writer outputs: what each writer wrote on these prompts, and how far that is from what it writes on others.

Head outputs are kept before W_O, which is d_model / d_head times smaller than what they write; the differences between
two runs are multiplied out for a few prompts at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.model import Model, Tap
from circuits.tasks.task import Task

__all__ = ["Baseline", "BothRuns", "Trace", "baseline_trace", "differences", "joined", "record"]

Baseline = str
"""`corrupted`, `zero` or `mean`: what a patched writer is set to."""


@dataclass(frozen=True)
class Trace:
    """The writes of one run: the embedding, each layer's heads (`Attention.share`: times W_O it is what they write),
    each layer's MLP."""

    embedded: Float[Tensor, "prompt pos d_model"]
    heads: tuple[Float[Tensor, "prompt pos head d_head"], ...]
    mlps: tuple[Float[Tensor, "prompt pos d_model"], ...]

    def rows(self, rows: "slice | Tensor") -> "Trace":
        return Trace(
            self.embedded[rows], tuple(head[rows] for head in self.heads), tuple(mlp[rows] for mlp in self.mlps)
        )


def joined(traces: Sequence[Trace]) -> Trace:
    """The traces of several batches of one task as one."""
    if len(traces) == 1:
        return traces[0]
    layers, mlps = range(len(traces[0].heads)), range(len(traces[0].mlps))
    return Trace(
        torch.cat([trace.embedded for trace in traces]),
        tuple(torch.cat([trace.heads[layer] for trace in traces]) for layer in layers),
        tuple(torch.cat([trace.mlps[layer] for trace in traces]) for layer in mlps),
    )


@dataclass(frozen=True)
class BothRuns:
    """What the clean and the corrupted run of some prompts left behind, so that nobody need run them again: the
    corrupted run's writes, and both runs' logits where the answer is read."""

    task: Task
    corrupted: Trace
    clean_logits: Float[Tensor, "prompt d_vocab"]
    corrupted_logits: Float[Tensor, "prompt d_vocab"]

    def split(self, size: int) -> "list[BothRuns]":
        """The same, at most so many prompts at a time."""
        parts = [slice(start, start + size) for start in range(0, len(self.task), size)]
        return [
            BothRuns(self.task.rows(at), self.corrupted.rows(at), self.clean_logits[at], self.corrupted_logits[at])
            for at in parts
        ]


class WriteRecorder:
    """Taps a run and keeps what its writers write; `trace` is whole when the run is over."""

    def __init__(self, model: Model, embedded: Tensor, then: Tap | None = None) -> None:
        self.model = model
        self.embedded: Tensor = embedded.detach()
        self.then = then
        self.heads: list[Tensor] = []
        self.mlps: list[Tensor] = []

    def __call__(self, place: str, layer: int, x: Tensor) -> Tensor:
        if place == "z":
            self.heads.append(self.model.parts.blocks[layer].attention.share(x.detach()))
        elif place == "mlp_out":
            self.mlps.append(x.detach())
        return x if self.then is None else self.then(place, layer, x)

    @property
    def trace(self) -> Trace:
        return Trace(self.embedded, tuple(self.heads), tuple(self.mlps))


@torch.no_grad()
def record(
    model: Model, tokens: Tensor, answers: Tensor | None = None
) -> tuple[Trace, Float[Tensor, "prompt pos d_model"]]:
    """The writes on these tokens, and the final stream; where `answers` are given, right at those positions alone as
    far as what the last MLP writes goes."""
    embedded = model.embed(tokens)
    recorder = WriteRecorder(model, embedded)
    final = model.run(model.stream(embedded), tap=recorder, answers=answers)
    return recorder.trace, final


def baseline_trace(model: Model, task: Task, clean: Trace, baseline: Baseline, mean: Trace | None = None) -> Trace:
    """What writers are set to where they are patched, for the prompts of `clean`.

    `corrupted` is what they write on the corrupted prompts, `zero` nothing, `mean` the mean over a reference set at
    each position (`mean`: one row).
    """
    if baseline == "corrupted":
        return record(model, task.corrupted, task.positions)[0]
    if baseline == "zero":
        return Trace(
            torch.zeros_like(clean.embedded),
            tuple(torch.zeros_like(head) for head in clean.heads),
            tuple(torch.zeros_like(mlp) for mlp in clean.mlps),
        )
    if baseline != "mean":
        raise ValueError(f"expected baseline 'corrupted', 'zero' or 'mean', got {baseline!r}")
    assert mean is not None
    width = clean.embedded.shape[1]
    return Trace(
        mean.embedded[:, :width].expand_as(clean.embedded),
        tuple(m[:, :width].expand_as(head) for m, head in zip(mean.heads, clean.heads, strict=True)),
        tuple(m[:, :width].expand_as(mlp) for m, mlp in zip(mean.mlps, clean.mlps, strict=True)),
    )


@torch.no_grad()
def mean_trace(model: Model, task: Task, *, batch_size: int) -> Trace:
    """The mean write at each position over the task's corrupted prompts, counting real tokens only."""
    total: list[Tensor] | None = None
    width = task.corrupted.shape[1]
    real = (torch.arange(width) < task.lengths[:, None]).to(model.device)
    for start in range(0, len(task), batch_size):
        rows = slice(start, start + batch_size)
        trace, _ = record(model, task.corrupted[rows])
        weight = real[rows].to(model.dtype)
        parts = [trace.embedded, *trace.heads, *trace.mlps]
        sums = [torch.einsum("bp,bp...->p...", weight, part) for part in parts]
        total = sums if total is None else [first + second for first, second in zip(total, sums, strict=True)]
    assert total is not None
    count = real.sum(0).clamp(min=1).to(model.dtype)
    means = [(part / count.view(-1, *[1] * (part.ndim - 1)))[None] for part in total]
    n_layers = model.graph.n_layers
    return Trace(means[0], tuple(means[1 : 1 + n_layers]), tuple(means[1 + n_layers :]))


@torch.no_grad()
def differences(
    model: Model,
    first: Trace,
    second: Trace | None,
    *,
    centred: bool = False,
    n_layers: int | None = None,
    out: Float[Tensor, "entry"] | None = None,
) -> Float[Tensor, "writer prompt pos d_model"]:
    """What each writer writes in `first` more than in `second` (than nothing, where that is `None`).

    `centred` takes the mean over d_model away, which no layer norm lets through; `out` is memory to write into.
    """
    graph, shape = model.graph, first.embedded.shape
    layers = graph.n_layers if n_layers is None else n_layers
    per_block = graph.n_heads + int(graph.mlp)
    whole = (1 + layers * per_block, *shape)
    if out is None:
        out = torch.empty(prod(whole), dtype=first.embedded.dtype, device=first.embedded.device)
    out = out[: prod(whole)].view(whole)
    out[0] = first.embedded if second is None else first.embedded - second.embedded
    for layer in range(layers):
        start = 1 + layer * per_block
        z = first.heads[layer] if second is None else first.heads[layer] - second.heads[layer]
        weight = model.parts.blocks[layer].attention.output_weight
        if centred:
            weight = weight - weight.mean(-1, keepdim=True)
        by_head = z.movedim(-2, 0).reshape(graph.n_heads, -1, z.shape[-1])
        torch.bmm(by_head, weight, out=out[start : start + graph.n_heads].view(graph.n_heads, -1, shape[-1]))
        if graph.mlp:
            mlp = first.mlps[layer]
            out[start + graph.n_heads] = mlp if second is None else mlp - second.mlps[layer]
            if centred:
                out[start + graph.n_heads] -= out[start + graph.n_heads].mean(-1, keepdim=True)
    if centred:
        out[0] -= out[0].mean(-1, keepdim=True)
    return out
