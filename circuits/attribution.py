"""Attribution patching: what corrupting each component or edge would change, to first order, all at once.

The effect of an edge from writer w to reader r is ⟨a_w(clean) − a_w(corrupted), ∂metric/∂(input of r)⟩, positive where
corrupting lowers the metric.  A reader's input is the stream before the norm that stands in front of it.

Cost: one corrupted and one clean forward pass and one backward pass to activations (`circuits.gradients`).

References:
    Attribution Patching Outperforms Automated Circuit Discovery (Syed et al., 2023), https://arxiv.org/abs/2310.10348
    Have Faith in Faithfulness (Hanna et al., 2024), https://arxiv.org/abs/2403.17806
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.gradients import add_reads, check_gradient, contract, forward_and_back, gradients_at_reads
from circuits.graph import EdgeScores, NodeScores
from circuits.model import Model
from circuits.moments import Moments
from circuits.rotations import RotationSums, moved_heads
from circuits.rules import Rules
from circuits.tasks.task import Task, answer_logits
from circuits.writes import Baseline, BothRuns, Trace, WriteRecorder, baseline_trace, differences, mean_trace, record

__all__ = ["Attributed", "attribute", "attribution_patching", "edge_attribution_patching"]


@dataclass(frozen=True)
class Attributed:
    """First-order effects of all edges and of all writers, what the runs behind them left, and the effects of the
    heads' rotated corruptions (`circuits.rotations`) where gradients at what they write were taken."""

    edges: EdgeScores
    nodes: NodeScores
    runs: tuple[BothRuns, ...]
    rotation: NodeScores | None = None


def attribute(
    model: Model, task: Task, *, steps: int = 1, most_steps: int | None = None, batch_size: int = 16
) -> Attributed:
    """What `edge_attribution_patching` and `attribution_patching` give, and the runs that a judge needs, each pass made
    once.

    At the clean prompts (one step) a writer's effect is the sum of its edges' effects, prompt by prompt, since all that
    it does passes along them.  With more steps the run on the clean prompts, which EAP-IG's own points leave out, gives
    the writers' effects, and the first point is the corrupted run.

    Args:
        steps: integration points; 1 is EAP.
        most_steps: where given, the points are doubled, up to so many, until the scores have converged: what the
            edges from `input` carry adds up to the gap within `TOLERANCE` of the prompts' gaps, and doubling left the
            largest edges the same.

    Raises:
        ValueError: the metric has no gradient, the task does not suit the model, or there is no step.
    """
    if steps < 1:
        raise ValueError(f"expected at least one step, got steps={steps}")
    check_gradient(model, task)
    graph, edges, nodes, runs = model.graph, Moments(), Moments(), []
    content = RotationSums() if steps > 1 else None
    for start in range(0, len(task), batch_size):
        part = task.rows(slice(start, start + batch_size))
        scores, effects, run = (
            _at_once(model, part) if content is None else _at_several(model, part, steps, most_steps or steps, content)
        )
        scores = scores.double().cpu().numpy() * graph.edge_mask
        edges.add(scores)
        nodes.add(scores.sum(-1) if effects is None else effects.double().cpu().numpy())
        runs.append(run)
    return Attributed(
        EdgeScores(graph, edges.estimate(), "eap" if steps == 1 else "eap-ig", task.name),
        NodeScores(graph.writers, nodes.estimate(), "attribution-patching", task.name),
        tuple(runs),
        content.scores(model, task.name) if content is not None else None,
    )


def _at_once(model: Model, task: Task) -> tuple[Float[Tensor, "prompt writer reader"], None, BothRuns]:
    gradients, clean, _ = gradients_at_reads(model, task, (1.0,))
    other, final = record(model, task.corrupted, task.positions)
    assert gradients.logits is not None
    with torch.no_grad():
        logits = model.read_out(final[torch.arange(len(final)), task.positions.to(final.device)])
    return contract(model, task, gradients, clean, other), None, BothRuns(task, other, gradients.logits, logits)


TOLERANCE = 0.05
"""The share of the gaps between clean and corrupted metrics, each taken as positive, by which converged scores may miss
their sum."""
STABLE = 0.9
"""The share of the largest edges that doubling the steps must leave among the largest."""


def _at_several(
    model: Model, task: Task, steps: int, most_steps: int, content: RotationSums
) -> tuple[Float[Tensor, "prompt writer reader"], Float[Tensor, "prompt writer"], BothRuns]:
    slopes, clean, clean_logits = _gradients_at_writes(model, task, None)
    known, points = (clean, clean_logits), tuple(k / steps for k in range(steps))
    gradients, _, other = gradients_at_reads(model, task, points, known=known)
    assert other is not None
    assert gradients.corrupted_logits is not None
    run = BothRuns(task, other, clean_logits, gradients.corrupted_logits)
    scores, stable = contract(model, task, gradients, clean, other), False
    reference = clean_logits if task.metric.needs_clean else None
    gap = task.values(run.clean_logits, reference) - task.values(run.corrupted_logits, reference)
    while 2 * steps <= most_steps and not (stable and _complete(scores, gap)):
        # The points of twice as many steps are those that are there and those halfway between.
        between, _, _ = gradients_at_reads(model, task, tuple((k + 0.5) / steps for k in range(steps)), known=known)
        finer = (scores + contract(model, task, between, clean, other)) / 2
        scores, stable, steps = finer, _same_largest(scores.sum(0), finer.sum(0)), 2 * steps
    return scores, _effects_of_writes(model, task, slopes, clean, other, content), run


def _complete(scores: Float[Tensor, "prompt writer reader"], gap: Float[Tensor, "prompt"]) -> bool:
    """Whether the effects of the edges from `input` add up to the gap (completeness of integrated gradients), within a
    share of what the prompts' gaps are: their sum is next to nothing where the model does not do the task."""
    return float((scores[:, 0].sum() - gap.sum()).abs()) <= TOLERANCE * float(gap.abs().sum())


def _same_largest(before: Float[Tensor, "writer reader"], after: Float[Tensor, "writer reader"]) -> bool:
    """Whether the largest tenth of the edges is nearly the same."""
    count = max(1, int((after != 0).sum()) // 10)
    first, second = (set(x.abs().flatten().topk(count).indices.tolist()) for x in (before, after))
    return len(first & second) >= STABLE * count


def edge_attribution_patching(
    model: Model,
    task: Task,
    *,
    steps: int = 1,
    points: Sequence[float] | None = None,
    path: str = "inputs",
    baseline: Baseline = "corrupted",
    rules: Rules | None = None,
    at_positions: Sequence[int] | None = None,
    batch_size: int = 16,
) -> EdgeScores:
    """The first-order effect of every edge.

    Args:
        steps: 1 takes the gradient on the clean prompts (EAP); more averages it over embeddings at
            corrupted + k/steps · (clean − corrupted), k = 0 ... steps − 1 (EAP-IG, inputs).
        path: what is moved from corrupted to clean: `inputs`, or `activations`, which moves what one layer's heads or
            one MLP write, k/steps of the way, k = 1 ... steps, and takes the gradients of that layer's edges there
            (2 · layers + 1 times the passes).
        points: the places between corrupted (0) and clean (1) where gradients are taken, instead of `steps`; `(0, 1)`
            is the method called clean-corrupted.
        baseline: what edges would be set to: the corrupted prompt's writes, zero, or the mean over corrupted prompts.
        rules: a changed backward pass, such as `RelP()` or `GIM()`.
        at_positions: count only what passes from one node to the next at these positions; negative ones are counted
            back from where the answer is read (-1).
        batch_size: prompts at a time; does not change the scores.

    Raises:
        ValueError: the metric has no gradient, or the task does not suit the model.
    """
    if path not in ("inputs", "activations"):
        raise ValueError(f"expected path 'inputs' or 'activations', got {path!r}")
    if steps < 1:
        raise ValueError(f"expected at least one step, got steps={steps}")
    where = tuple(points) if points is not None else ((1.0,) if steps == 1 else tuple(k / steps for k in range(steps)))
    name = "eap" if where == (1.0,) else "eap-ig"
    name = rules.name if rules is not None else "eap-ig-activations" if path == "activations" else name
    measure = name if baseline == "corrupted" else f"{name}-{baseline}"
    check_gradient(model, task)
    graph, moments = model.graph, Moments()
    mean = mean_trace(model, task, batch_size=batch_size) if baseline == "mean" else None
    for start in range(0, len(task), batch_size):
        part = task.rows(slice(start, start + batch_size))
        if path == "activations":
            scores = _along_activations(model, part, steps, baseline, mean, rules, at_positions)
            moments.add(scores.double().cpu().numpy() * graph.edge_mask)
            continue
        gradients, clean, corrupted = gradients_at_reads(model, part, where, rules=rules)
        if baseline == "corrupted":
            other = corrupted if corrupted is not None else record(model, part.corrupted, part.positions)[0]
        else:
            other = baseline_trace(model, part, clean, baseline, mean)
        scores = contract(model, part, gradients, clean, other, at_positions=at_positions)
        moments.add(scores.double().cpu().numpy() * graph.edge_mask)
    return EdgeScores(graph, moments.estimate(), measure, task.name)


def attribution_patching(
    model: Model,
    task: Task,
    *,
    baseline: Baseline = "corrupted",
    rules: Rules | None = None,
    content: RotationSums | None = None,
    batch_size: int = 16,
) -> NodeScores:
    """The first-order effect of every writer: ⟨a(clean) − a(corrupted), ∂metric/∂a⟩ at the clean prompts.
    For places inside layers, positions, and corrections for saturated attention, see `circuits.sites`.  `content`
    collects on the way what rotated corruptions hang on (`circuits.rotations`).

    Raises:
        ValueError: the metric has no gradient, or the task does not suit the model.
    """
    check_gradient(model, task)
    moments = Moments()
    mean = mean_trace(model, task, batch_size=batch_size) if baseline == "mean" else None
    for start in range(0, len(task), batch_size):
        part = task.rows(slice(start, start + batch_size))
        slopes, clean, _ = _gradients_at_writes(model, part, rules)
        other = baseline_trace(model, part, clean, baseline, mean)
        moments.add(_effects_of_writes(model, part, slopes, clean, other, content).double().cpu().numpy())
    name = "attribution-patching" if rules is None else rules.name
    measure = name if baseline == "corrupted" else f"{name}-{baseline}"
    return NodeScores(model.graph.writers, moments.estimate(), measure, task.name)


def _along_activations(
    model: Model,
    task: Task,
    steps: int,
    baseline: Baseline,
    mean: Trace | None,
    rules: Rules | None,
    at_positions: Sequence[int] | None,
) -> Float[Tensor, "prompt writer reader"]:
    """Each group of writers (input, a layer's heads, its MLP) with gradients averaged over its own path."""
    graph = model.graph
    clean, _ = record(model, task.clean)
    other = baseline_trace(model, task, clean, baseline, mean)
    moved = differences(model, clean, other)
    clean_logits = answer_logits(model, task.clean, task.positions) if task.metric.needs_clean else None
    scores = torch.zeros(len(task), len(graph.writers), len(graph.readers), dtype=model.dtype, device=model.device)
    for (kind, layer), rows in graph.writer_groups.items():
        total = None
        away = moved[rows].sum(0)
        for step in range(1, steps + 1):
            back = (1 - step / steps) * away

            def change(place: str, at: int, x: Tensor, back: Tensor = back, kind: str = kind, layer: int = layer):
                return x - back if at == layer and place == {"head": "attn_out", "mlp": "mlp_out"}.get(kind) else x

            embedded = clean.embedded - back if kind == "input" else clean.embedded
            reads, _, _ = forward_and_back(model, task, embedded, clean_logits, rules=rules, change=change)
            total = add_reads(model, total, reads, 1 / steps, rules)
        assert total is not None
        scores[:, rows] = contract(model, task, total, clean, other, at_positions=at_positions)[:, rows]
    return scores


Slopes = dict[tuple[str, int], Float[Tensor, "prompt pos d_model"]]
"""The gradient at what the embedding and each layer's attention and MLP write."""


def _gradients_at_writes(
    model: Model, task: Task, rules: Rules | None
) -> tuple[Slopes, Trace, Float[Tensor, "prompt d_vocab"]]:
    """Gradients at the clean prompts' writes, the writes, and the logits at the answers."""
    clean_logits = answer_logits(model, task.clean, task.positions) if task.metric.needs_clean else None
    written: dict[tuple[str, int], Tensor] = {}

    def capture(place: str, layer: int, x: Tensor) -> Tensor:
        if place in ("attn_out", "mlp_out"):
            written[place, layer] = x
        return x

    with torch.enable_grad():
        start = model.embed(task.clean).detach().requires_grad_()
        recorder = WriteRecorder(model, start, capture)
        final = model.run(model.stream(start), tap=recorder, rules=rules, answers=task.positions)
        logits = model.read_out(final[torch.arange(len(final)), task.positions.to(final.device)], rules)
        model.check_finite(logits.detach())
        written["input", 0] = start
        values = task.values(logits, clean_logits)
        if not values.requires_grad:
            raise ValueError(f"metric {task.metric.name!r} has no gradient to attribute")
        found = torch.autograd.grad(values.sum(), list(written.values()), allow_unused=True)
    slopes = {key: torch.zeros_like(x) if g is None else g for (key, x), g in zip(written.items(), found, strict=True)}
    return slopes, recorder.trace, logits.detach()


@torch.no_grad()
def _effects_of_writes(
    model: Model, task: Task, gradient: Slopes, clean: Trace, other: Trace, content: RotationSums | None = None
) -> Float[Tensor, "prompt writer"]:
    graph = model.graph
    effects = [((clean.embedded - other.embedded) * gradient["input", 0]).sum((1, 2))[:, None]]
    for layer, moved in enumerate(moved_heads(clean, other, task)):
        weight = model.parts.blocks[layer].attention.output_weight
        small = torch.einsum("bpd,hkd->bphk", gradient["attn_out", layer], weight)
        effects.append(torch.einsum("bphk,bphk->bh", moved, small))
        if content is not None:
            content.add(layer, moved, small)
        if graph.mlp:
            changed = clean.mlps[layer] - other.mlps[layer]
            effects.append((changed * gradient["mlp_out", layer]).sum((1, 2))[:, None])
    return torch.cat(effects, dim=1)
