"""Exact patching: what corrupting one component or one edge changes.

**Noising** runs the clean prompts and sets something to what it is in the baseline run; the effect is the metric lost.
**Denoising** runs the corrupted prompts and restores something to what it is in the clean run; the effect is the metric
regained.  Both are positive where the component helps.  This is the slow oracle of `circuits.attribution`.

Edges into one reader do not influence each other, so they are one batch, which starts at that reader's layer.

Axes: `row` one patched edge or node of a batch; `writer`, `reader` as in `circuits.graph`.

References:
    How to use and interpret activation patching (Heimersheim & Nanda, 2024), https://arxiv.org/abs/2404.15255
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.graph import SLOTS, EdgeScores, Node, NodeScores, Reader
from circuits.model import Model
from circuits.moments import Moments
from circuits.tasks.task import Task
from circuits.writes import Baseline, Trace, baseline_trace, differences, mean_trace, record

__all__ = ["CachedRun", "activation_patching", "after_attention_change", "edge_patching", "metric_of", "path_patching"]
__all__ += ["run_circuit", "run_masked", "stream_batches"]

BUDGET = 64 << 20
"""Bytes that the streams of one batch of patched runs may take."""


class CachedRun:
    """One unpatched run, kept so that patched ones can start in its middle: what enters each layer, each layer's
    finished queries, keys and values, head outputs, and what layers write."""

    def __init__(self, model: Model, tokens: Tensor, answers: Tensor | None = None) -> None:
        self.model = model
        self.answers = answers
        self.streams: list[Tensor] = []
        self.z: list[Tensor] = []
        self.mlp_in: list[Tensor] = []
        self.mlp_out: list[Tensor] = []
        self.attention_out: list[Tensor] = []
        self.qkv: list[dict[str, Tensor]] = []
        self.final: Tensor = model.run(model.stream(model.embed(tokens)), tap=self._keep, answers=answers)

    def _keep(self, place: str, layer: int, x: Tensor) -> Tensor:
        if place in ("q", "k", "v"):
            if place == "q":
                self.qkv.append({})
            self.qkv[layer][place] = self.model.parts.blocks[layer].attention.finish(place, x)  # type: ignore[arg-type]
        kept = {
            "resid_pre": self.streams,
            "z": self.z,
            "mlp_in": self.mlp_in,
            "mlp_out": self.mlp_out,
            "attn_out": self.attention_out,
        }
        if place in kept:
            kept[place].append(x)
        return x


@torch.no_grad()
def edge_patching(
    model: Model,
    task: Task,
    *,
    baseline: Baseline = "corrupted",
    into: Sequence[str] | None = None,
    only: Bool[np.ndarray, "writer reader"] | None = None,
    batch_size: int = 16,
) -> EdgeScores:
    """metric(clean) − metric(clean with that one edge set to the baseline), for every edge.

    Args:
        baseline: `corrupted`, `zero` or `mean` (over the corrupted prompts, by position).
        into: readers such as `a1.h0<k>` whose edges are wanted; all by default, and the others' scores are zero.
        only: the edges that are wanted, in place of all.
        batch_size: prompts at a time; does not change the scores.

    Raises:
        ValueError: the task does not suit the model.
    """
    task.check(model)
    graph, moments = model.graph, Moments()
    wanted = graph.edge_mask if only is None else graph.edge_mask & only
    if unknown := [name for name in into or () if Reader.parse(name) not in graph.reader_index]:
        raise ValueError(f"expected readers such as 'a1.h0<k>', 'm0' or 'logits', got {unknown[0]!r}")
    mean = mean_trace(model, task, batch_size=batch_size) if baseline == "mean" else None
    for start in range(0, len(task), batch_size):
        part = task.rows(slice(start, start + batch_size))
        run = CachedRun(model, part.clean, part.positions)
        clean = record(model, part.clean, part.positions)[0]
        moved = differences(model, clean, baseline_trace(model, part, clean, baseline, mean))
        measure, before = metric_of(model, part, run.final)
        effects = torch.zeros(len(part), len(graph.writers), len(graph.readers), dtype=model.dtype)
        for index, reader in enumerate(graph.readers):
            if into is not None and reader.name not in into:
                continue
            writers = np.flatnonzero(wanted[:, index])
            for rows in stream_batches(writers, clean.embedded):
                after = measure(_patched_final(model, run, reader, moved[torch.as_tensor(rows)]))
                effects[:, torch.as_tensor(rows), index] = (before - after).T.cpu()
        moments.add(effects.numpy().astype(np.float64))
    return EdgeScores(graph, moments.estimate(), _named("edge-patching", baseline), task.name)


@torch.no_grad()
def activation_patching(
    model: Model, task: Task, *, baseline: Baseline = "corrupted", batch_size: int = 16
) -> NodeScores:
    """metric(clean) − metric(clean with what that writer writes set to the baseline), for every writer.

    Raises:
        ValueError: the task does not suit the model.
    """
    task.check(model)
    graph, moments = model.graph, Moments()
    mean = mean_trace(model, task, batch_size=batch_size) if baseline == "mean" else None
    for start in range(0, len(task), batch_size):
        part = task.rows(slice(start, start + batch_size))
        run = CachedRun(model, part.clean, part.positions)
        clean = record(model, part.clean, part.positions)[0]
        moved = differences(model, clean, baseline_trace(model, part, clean, baseline, mean))
        measure, before = metric_of(model, part, run.final)
        effects = torch.zeros(len(part), len(graph.writers), dtype=model.dtype)
        for group in graph.writer_groups.values():
            for rows in stream_batches(np.array(group), clean.embedded):
                final = _after_writers(model, run, graph.writers[rows[0]].layer, rows, moved)
                effects[:, torch.as_tensor(rows)] = (before - measure(final)).T.cpu()
        moments.add(effects.numpy().astype(np.float64))
    return NodeScores(graph.writers, moments.estimate(), _named("activation-patching", baseline), task.name)


@torch.no_grad()
def path_patching(
    model: Model,
    task: Task,
    receiver: str | Reader,
    *,
    through_mlps: bool = True,
    baseline: Baseline = "corrupted",
    batch_size: int = 16,
) -> NodeScores:
    """metric(clean) − metric(clean where `receiver` reads what it would if one sender were set to the baseline), for
    every writer before the receiver.

    The sender's change reaches the receiver along the stream and, if `through_mlps`, through the MLPs between; all
    other heads write what they write on the clean prompt. From the receiver on, everything runs. Without the MLPs
    this is `edge_patching` into the receiver.

    Args:
        receiver: a reader such as `a1.h0<k>`, `m1` or `logits`.

    Raises:
        ValueError: no such reader, or a task that does not suit the model.

    References:
        Localizing Model Behavior with Path Patching (Goldowsky-Dill et al., 2023), https://arxiv.org/abs/2304.05969
    """
    task.check(model)
    graph, moments = model.graph, Moments()
    reader = Reader.parse(receiver) if isinstance(receiver, str) else receiver
    if reader not in graph.reader_index:
        raise ValueError(f"expected a reader such as 'a1.h0<k>', 'm0' or 'logits', got {receiver}")
    senders = np.flatnonzero(graph.edge_mask[:, graph.reader_index[reader]])
    mean = mean_trace(model, task, batch_size=batch_size) if baseline == "mean" else None
    for start in range(0, len(task), batch_size):
        part = task.rows(slice(start, start + batch_size))
        run = CachedRun(model, part.clean, part.positions)
        clean = record(model, part.clean, part.positions)[0]
        moved = differences(model, clean, baseline_trace(model, part, clean, baseline, mean))
        measure, before = metric_of(model, part, run.final)
        effects = torch.zeros(len(part), len(senders), dtype=model.dtype)
        for rows in stream_batches(np.arange(len(senders)), clean.embedded):
            away = moved[torch.as_tensor(senders[rows])]
            if through_mlps:
                away = _through_mlps(model, run, reader, [graph.writers[i] for i in senders[rows]], away)
            effects[:, torch.as_tensor(rows)] = (before - measure(_patched_final(model, run, reader, away))).T.cpu()
        moments.add(effects.numpy().astype(np.float64))
    name = _named(f"path-patching to {reader}", baseline)
    return NodeScores(tuple(graph.writers[i] for i in senders), moments.estimate(), name, task.name)


def _through_mlps(
    model: Model, run: CachedRun, reader: Reader, senders: list[Node], moved: Float[Tensor, "row prompt pos d_model"]
) -> Float[Tensor, "row prompt pos d_model"]:
    """How far the stream at `reader` is from the clean one when MLPs between see each row's sender moved."""

    def sent(kind: str, layer: int) -> Tensor:
        rows = torch.tensor([(node.kind, node.layer) == (kind, layer) for node in senders], device=moved.device)
        return moved * rows.view(-1, 1, 1, 1)

    away = sent("input", -1)
    for layer, block in enumerate(model.parts.blocks):
        if reader.node.kind == "head" and reader.node.layer == layer:
            break
        after = away + sent("head", layer)
        seen = away if model.graph.parallel else after
        if reader.node == Node.mlp(layer):
            return seen
        away = after
        if block.mlp is not None:
            read = run.mlp_in[layer] - seen
            changed = run.mlp_out[layer] - block.mlp(block.mlp.norm(read) if block.mlp.norm else read)
            own = torch.tensor([node == Node.mlp(layer) for node in senders], device=moved.device)
            away = away + torch.where(own.view(-1, 1, 1, 1), moved, changed)
    return away


def _named(method: str, baseline: Baseline) -> str:
    return method if baseline == "corrupted" else f"{method}-{baseline}"


Measure = Callable[[Float[Tensor, "*row prompt pos d_model"]], Float[Tensor, "*row prompt"]]


def metric_of(model: Model, task: Task, final: Tensor) -> tuple[Measure, Float[Tensor, "prompt"]]:
    """A function from final streams to metrics of each prompt, and the metric of `final`, the clean run's."""
    at = task.positions.to(model.device)
    prompts = torch.arange(len(task), device=model.device)
    clean_logits = model.read_out(final[prompts, at])
    model.check_finite(clean_logits)

    def measure(streams: Tensor) -> Tensor:
        rows = streams.shape[:-3].numel()
        logits = model.read_out(streams[..., prompts, at, :]).reshape(rows * len(task), -1)
        again = torch.arange(len(task)).repeat(rows)
        reference = clean_logits.repeat(rows, 1) if task.metric.needs_clean else None
        return task.rows(again).values(logits, reference).view(*streams.shape[:-3], len(task))

    return measure, measure(final)


def stream_batches(rows: np.ndarray, stream: Float[Tensor, "prompt pos d_model"]) -> Iterator[np.ndarray]:
    size = max(1, BUDGET // (stream.numel() * stream.element_size() * 4))
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _patched_final(
    model: Model, run: CachedRun, reader: Reader, moved: Float[Tensor, "row prompt pos d_model"]
) -> Float[Tensor, "row prompt pos d_model"]:
    """The final stream when `reader` reads the clean stream less `moved`, and nothing else does."""
    layer, node = reader.node.layer, reader.node
    if node.kind == "logits":
        return run.final - moved
    block, rows = model.parts.blocks[layer], moved.shape[0]
    if node.kind == "mlp":
        assert block.mlp is not None
        read = run.mlp_in[layer] - moved
        out = _mlp_out(model, run, layer, read)
        after = run.streams[layer] + run.attention_out[layer] + out
        return _run_on(model, run, after, layer + 1)
    assert reader.slot is not None
    attention, head = block.attention, node.index
    read = run.streams[layer] - moved
    normed = attention.norm(read) if attention.norm else read
    own = attention.finish(reader.slot, attention.project_heads(reader.slot, normed[None], [head]))
    qkv = {slot: value[..., head : head + 1, :].expand_as(own) for slot, value in run.qkv[layer].items()}
    q, k, v = ((qkv | {reader.slot: own})[slot].flatten(0, 1) for slot in SLOTS)
    z = run.z[layer].expand(rows, *run.z[layer].shape).clone()
    z[..., head : head + 1, :] = attention.mix_one(head, q, k, v).view_as(own)
    return _run_on(model, run, *_after_attention(model, run, layer, attention.write(z)))


def _after_attention(
    model: Model, run: CachedRun, layer: int, written: Float[Tensor, "row prompt pos d_model"]
) -> tuple[Tensor, int]:
    """The stream after the layer when its attention writes `written`."""
    mlp, x = model.parts.blocks[layer].mlp, run.streams[layer]
    if mlp is None:
        return x + written, layer + 1
    if model.graph.parallel:
        return x + written + run.mlp_out[layer], layer + 1
    read = x + written
    return read + _mlp_out(model, run, layer, read), layer + 1


def _mlp_out(model: Model, run: CachedRun, layer: int, read: Float[Tensor, "row prompt pos d_model"]) -> Tensor:
    answers = None if run.answers is None else run.answers.repeat(len(read))
    return model.mlp_out(layer, read.flatten(0, 1), answers).view_as(read)


def after_attention_change(
    model: Model, run: CachedRun, layer: int, less: Float[Tensor, "row prompt pos d_model"]
) -> Float[Tensor, "row prompt pos d_model"]:
    """The final stream when what the layer's attention writes is less by `less`."""
    return _run_on(model, run, *_after_attention(model, run, layer, run.attention_out[layer] - less))


def _run_on(model: Model, run: CachedRun, x: Float[Tensor, "row prompt pos d_model"], first: int) -> Tensor:
    answers = None if run.answers is None else run.answers.repeat(len(x))
    return model.run(x.flatten(0, 1), first=first, answers=answers).view_as(x)


def _after_writers(model: Model, run: CachedRun, layer: int, rows: np.ndarray, moved: Tensor) -> Tensor:
    """The final stream when one writer a row (all of one kind and layer) writes less by `moved`."""
    less, kind = moved[torch.as_tensor(rows)], model.graph.writers[rows[0]].kind
    if kind == "input":
        return _run_on(model, run, run.streams[0] - less, 0)
    if kind == "mlp":
        after = run.streams[layer] + run.attention_out[layer] + run.mlp_out[layer]
        return _run_on(model, run, after - less, layer + 1)
    return after_attention_change(model, run, layer, less)


def run_circuit(
    model: Model, tokens: Tensor, base: Trace, kept: Bool[np.ndarray, "writer reader"], answers: Tensor | None = None
) -> Float[Tensor, "prompt pos d_model"]:
    """The final stream when every edge outside `kept` carries what its writer writes in `base`.

    Reader r reads base stream + Σ over kept (w, r) of (what w writes now − what w writes in base).  Inputs of heads
    are made for one slot of one layer at a time.
    """
    with torch.no_grad():
        keep = torch.as_tensor(kept, dtype=model.dtype, device=model.device)
        return run_masked(model, tokens, base, keep, answers)


def run_masked(
    model: Model, tokens: Tensor, base: Trace, keep: Float[Tensor, "writer reader"], answers: Tensor | None = None
) -> Float[Tensor, "prompt pos d_model"]:
    """The same with a part, from 0 to 1, of each edge kept; differentiable in `keep`.  Right at `answers` alone, where
    they are given."""
    graph, differentiable = model.graph, torch.is_grad_enabled() and keep.requires_grad
    embedded = model.embed(tokens)
    shape = embedded.shape
    n_written = 1 if differentiable else len(graph.writers)
    moved = torch.empty(n_written, *shape, dtype=model.dtype, device=model.device)
    moved[0] = embedded - base.embedded
    stream = model.stream(base.embedded)
    per_block = graph.n_heads + int(graph.mlp)

    def inputs(columns: slice, written: int) -> Float[Tensor, "read prompt pos d_model"]:
        return (keep[:written, columns].T @ moved[:written].flatten(1)).view(-1, *shape) + stream

    for layer, block in enumerate(model.parts.blocks):
        attention, start = block.attention, 1 + layer * per_block
        first = graph.reader_index[Reader(graph.heads[layer * graph.n_heads], "q")]
        qkv = []
        for place, slot in enumerate(SLOTS):
            read = inputs(slice(first + place * graph.n_heads, first + (place + 1) * graph.n_heads), start)
            read = attention.norm(read) if attention.norm else read
            qkv.append(attention.finish(slot, attention.project_heads(slot, read, list(range(graph.n_heads)))))
        z = attention.share(attention.mix(*qkv)) - base.heads[layer]
        by_head = z.movedim(-2, 0).reshape(graph.n_heads, -1, z.shape[-1])
        if differentiable:
            moved = torch.cat([moved, (by_head @ attention.output_weight).view(-1, *shape)])
        else:
            heads = moved[start : start + graph.n_heads].view(graph.n_heads, -1, shape[-1])
            torch.bmm(by_head, attention.output_weight, out=heads)
        before = stream
        stream = stream + torch.einsum("bphd,hdm->bpm", base.heads[layer], attention.output_weight)
        if attention.output_bias is not None:
            stream = stream + attention.output_bias
        if block.mlp is not None:
            after, stream = stream, before if graph.parallel else stream
            column = first + 3 * graph.n_heads
            read = inputs(slice(column, column + 1), start if graph.parallel else start + graph.n_heads)[0]
            out = model.mlp_out(layer, read, answers)
            if differentiable:
                moved = torch.cat([moved, (out - base.mlps[layer])[None]])
            else:
                moved[start + graph.n_heads] = out - base.mlps[layer]
            stream = after + base.mlps[layer]
    return inputs(slice(len(graph.readers) - 1, None), len(graph.writers))[0]
