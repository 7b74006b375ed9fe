"""Read gradients: the gradient at every read of the stream, and what it makes of a difference in what is written.

Gradients are taken at queries, keys and values; each head's gradient at the stream is Wᵀg followed by the backward pass
of the norm in closed form: with n̂ the normed stream and 1/σ its inverse scale,

    grad = (gain ⊙ Wᵀg − mean − n̂ ⟨gain ⊙ Wᵀg, n̂⟩ / d_model) / σ,    ⟨gain ⊙ Wᵀg, n̂⟩ = ⟨g, W(gain ⊙ n̂)⟩

where W(gain ⊙ n̂) is the query itself without bias.  So what is kept of a pass, `SlotGradient`, lives in the small
space of a head, is summed over integration steps there, and is multiplied out once, for a few prompts at a time.

Axes: `writer`, `reader` as in `circuits.graph`; `step` an integration point.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.graph import SLOTS, Reader, Slot
from circuits.model import Model, Tap
from circuits.rules import Rules
from circuits.tasks.task import Task, answer_logits
from circuits.writes import Trace, WriteRecorder, differences, record

__all__ = ["Gradients", "SlotGradient", "add_reads", "check_gradient", "contract", "forward_and_back"]
__all__ += ["gradients_at_reads"]

BUDGET = 64 << 20
"""Bytes that the differences of all writers may take at once."""
LAYERS = 2
"""Layers whose readers are multiplied at once."""
LANES = 16
"""Rows of writers come in multiples of this, which matrix products are made in."""


@dataclass
class SlotGradient:
    """The gradient at the stream of every head's read through one slot of one layer, not yet multiplied out:
    gain ⊙ Wᵀ `small` − Σ_step `along` · `direction`."""

    small: Float[Tensor, "prompt pos head d_head"]
    along: list[Float[Tensor, "prompt pos head"]] = field(default_factory=list)
    direction: list[Float[Tensor, "prompt pos d_model"]] = field(default_factory=list)


@dataclass
class Gradients:
    """Gradients at every read, summed over integration points; `logits` and `corrupted_logits` are the clean and the
    corrupted prompts' at their answers, where a pass went there."""

    slots: dict[tuple[int, Slot], SlotGradient]
    mlps: dict[int, Float[Tensor, "prompt pos d_model"]]
    final: Float[Tensor, "prompt d_model"]
    logits: Float[Tensor, "prompt d_vocab"] | None = None
    corrupted_logits: Float[Tensor, "prompt d_vocab"] | None = None


def check_gradient(model: Model, task: Task) -> None:
    """Raises:
    ValueError: the task does not suit the model, or its metric has no gradient.
    """
    task.check(model)
    if not task.metric.differentiable:
        raise ValueError(
            f"metric {task.metric.name!r} has no gradient to attribute; use exact patching (edge_patching, "
            "activation_patching) or a metric such as 'logit_difference'"
        )


def gradients_at_reads(
    model: Model,
    task: Task,
    points: Sequence[float],
    *,
    rules: Rules | None = None,
    known: tuple[Trace, Float[Tensor, "prompt d_vocab"]] | None = None,
) -> tuple[Gradients, Trace, Trace | None]:
    """Gradients averaged over points between the corrupted (0) and the clean (1) embeddings, and both runs' writes
    (`None` for the corrupted one where no pass went there).  `known` is what an earlier clean run left: its writes, and
    its logits at the answers."""
    with torch.no_grad():
        clean_embedded = model.embed(task.clean)
        corrupted_embedded = model.embed(task.corrupted) if any(point != 1 for point in points) else None
    clean, clean_answers = known if known is not None else (None, None)
    clean_logits = clean_answers if task.metric.needs_clean else None
    if task.metric.needs_clean and clean_logits is None:
        clean_logits = answer_logits(model, task.clean, task.positions)
    total: Gradients | None = None
    corrupted, corrupted_answers = None, None
    for point in points:
        embedded = clean_embedded
        if point != 1:
            assert corrupted_embedded is not None
            embedded = corrupted_embedded + point * (clean_embedded - corrupted_embedded)
        reads, trace, logits = forward_and_back(model, task, embedded, clean_logits, rules=rules)
        if point == 1:
            clean, clean_answers = trace, logits
        if point == 0:
            corrupted, corrupted_answers = trace, logits
        total = add_reads(model, total, reads, 1 / len(points), rules)
    assert total is not None
    total.logits, total.corrupted_logits = clean_answers, corrupted_answers
    return total, clean if clean is not None else record(model, task.clean, task.positions)[0], corrupted


Reads = dict[tuple[str, int], tuple[Tensor, Tensor]]
"""(value, gradient) at each captured place; `resid_pre` comes without gradient."""


def forward_and_back(
    model: Model,
    task: Task,
    embedded: Tensor,
    clean_logits: Tensor | None,
    *,
    rules: Rules | None = None,
    change: Tap | None = None,
) -> tuple[Reads, Trace, Float[Tensor, "prompt d_vocab"]]:
    """One forward pass from `embedded` and one backward pass to the reads, with the logits at the answers; `change` may
    alter what layers write."""
    captured: dict[tuple[str, int], Tensor] = {}
    streams: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}

    def capture(place: str, layer: int, x: Tensor) -> Tensor:
        if place in ("q", "k", "v", "mlp_in"):
            captured[place, layer] = x = x.view_as(x)
        elif place == "resid_pre":
            streams[place, layer] = (x.detach(), x.detach())
        return x if change is None else change(place, layer, x)

    with torch.enable_grad():
        start = embedded.detach().requires_grad_()
        recorder = WriteRecorder(model, embedded, capture)
        final = model.run(model.stream(start), tap=recorder, rules=rules, answers=task.positions)
        last = final[torch.arange(len(final)), task.positions.to(final.device)]
        logits = model.read_out(last, rules)
        model.check_finite(logits.detach())
        values = task.values(logits, clean_logits)
        if not values.requires_grad:
            raise ValueError(f"metric {task.metric.name!r} has no gradient to attribute")
        captured["final", model.graph.n_layers] = last
        # In the first layer and at the last position some reads may not reach the metric.
        found = torch.autograd.grad(values.sum(), list(captured.values()), allow_unused=True)
    gradients = (torch.zeros_like(x) if g is None else g for x, g in zip(captured.values(), found, strict=True))
    reads = {key: (x.detach(), g) for (key, x), g in zip(captured.items(), gradients, strict=True)}
    return streams | reads, recorder.trace, logits.detach()


@torch.no_grad()
def add_reads(
    model: Model, total: Gradients | None, reads: Reads, weight: float, rules: Rules | None = None
) -> Gradients:
    """Add one pass, turned into its small form."""
    n_layers, frozen = model.graph.n_layers, rules is not None and rules.freezes_norms
    if total is None:
        total = Gradients({}, {}, torch.zeros_like(reads["final", n_layers][1]))
    total.final += weight * reads["final", n_layers][1]
    for layer in range(n_layers):
        stream = reads["resid_pre", layer][0]
        for slot, one in _slot_gradients(model, layer, stream, reads, weight, frozen).items():
            if (layer, slot) not in total.slots:
                total.slots[layer, slot] = one
            else:
                total.slots[layer, slot].small += one.small
                total.slots[layer, slot].along += one.along
                total.slots[layer, slot].direction += one.direction
        if model.graph.mlp:
            gradient = weight * reads["mlp_in", layer][1]
            total.mlps[layer] = total.mlps[layer] + gradient if layer in total.mlps else gradient
    return total


def _slot_gradients(
    model: Model, layer: int, stream: Tensor, reads: Reads, weight: float, frozen: bool
) -> dict[Slot, SlotGradient]:
    attention = model.parts.blocks[layer].attention
    found: dict[Slot, SlotGradient] = {}
    inverse = attention.norm.inverse_scale(stream) if attention.norm else None
    hat = None
    if attention.norm is not None and inverse is not None and attention.norm.kind != "none":
        hat = attention.norm.centred(stream) * inverse
    offsets = _offsets(model, layer) if hat is not None and not frozen else (None, None, None)
    for slot, offset in zip(SLOTS, offsets, strict=True):
        value, gradient = reads[slot, layer]
        gradient = gradient * weight
        spanning = (
            {"q": attention.query_norm, "k": attention.key_norm}.get(slot) if attention.norm_spans_heads else None
        )
        if spanning is not None:
            found[slot] = _through_spanning_norm(model, layer, slot, stream, value, gradient, frozen)
        elif hat is None or inverse is None:
            found[slot] = SlotGradient(gradient)
        else:
            small = gradient * inverse[..., None]
            if frozen:
                found[slot] = SlotGradient(small)
                continue
            unbiased = value if offset is None else value - offset
            along = (small * unbiased).sum(-1) / stream.shape[-1]
            found[slot] = SlotGradient(small, [along], [hat])
    return found


def _offsets(model: Model, layer: int) -> Sequence[Float[Tensor, "head d_head"] | None]:
    """W · (bias of the norm) + (bias of the map): what queries, keys and values are without their normed stream."""
    attention = model.parts.blocks[layer].attention
    if attention.norm is not None and attention.norm.bias is not None:
        return [part[0, 0] for part in attention.project(attention.norm.bias[None, None])]
    biases = [attention.bias(slot) for slot in SLOTS]
    return [
        bias if bias is None or slot == "q" else bias.repeat_interleave(attention.group, dim=0)
        for slot, bias in zip(SLOTS, biases, strict=True)
    ]


def _through_spanning_norm(
    model: Model, layer: int, slot: Slot, stream: Tensor, value: Tensor, gradient: Tensor, frozen: bool
) -> SlotGradient:
    """Backward through an RMS norm over all heads' projections u (OLMo 2): with û = u / rms and D its width,
    ∂/∂u = (gain ⊙ g − û ⟨g, value⟩ / D) / rms, for each head's g on its own."""
    attention = model.parts.blocks[layer].attention
    norm = attention.query_norm if slot == "q" else attention.key_norm
    if norm is None or norm.gain is None:
        raise ValueError(f"expected a norm with a gain over the heads of layer {layer}, got none")
    weight, bias = attention.weight(slot).flatten(0, 1), attention.bias(slot)
    projected = stream @ weight.T + (0 if bias is None else bias.flatten())
    inverse = norm.inverse_scale(projected)
    gain = norm.gain.view(-1, attention.d_head)
    if slot == "k":
        gain = gain.repeat_interleave(attention.group, dim=0)
    small = gradient * gain * inverse[..., None]
    if frozen:
        return SlotGradient(small)
    along = (gradient * value).sum(-1) * inverse / projected.shape[-1]
    return SlotGradient(small, [along], [(projected * inverse) @ weight])


@torch.no_grad()
def contract(
    model: Model,
    task: Task,
    gradients: Gradients,
    clean: Trace,
    other: Trace | None,
    *,
    at_positions: Sequence[int] | None = None,
) -> Float[Tensor, "prompt writer reader"]:
    """⟨difference of each writer, gradient at each reader⟩, summed over positions (those of `at_positions` where
    given, counted back from each prompt's answer where negative), prompt by prompt."""
    graph = model.graph
    n_prompts, n_positions, width = clean.embedded.shape
    scores = torch.zeros(n_prompts, len(graph.writers), len(graph.readers), dtype=model.dtype, device=model.device)
    positions = task.positions.to(model.device)
    per_token = len(graph.writers) * width * clean.embedded.element_size()
    tokens = max(1, BUDGET // per_token)
    rows, span = min(n_prompts, max(1, tokens // n_positions)), min(n_positions, tokens)
    centred = all(block.attention.norm and block.attention.norm.kind == "layer" for block in model.parts.blocks)
    centred = centred and model.parts.final_norm.kind == "layer"
    n_readers = min(LAYERS, graph.n_layers) * (3 * graph.n_heads + int(graph.mlp))
    # The same memory serves all prompts in turn; getting it anew each time takes as long as filling it.
    written, read = (scores.new_empty(count * rows * span * width) for count in (len(graph.writers), n_readers))
    for row in range(0, n_prompts, rows):
        for place in range(0, n_positions, span):
            at = (slice(row, row + rows), slice(place, place + span))
            parts = (_cut(clean, at), None if other is None else _cut(other, at))
            moved = differences(model, *parts, centred=centred, out=written)
            if at_positions is not None:
                moved *= _chosen(positions, at_positions, n_positions)[at][None, ..., None].to(moved)
            for first in range(0, graph.n_layers, LAYERS):
                layers = range(first, min(first + LAYERS, graph.n_layers))
                _contract_layers(model, layers, gradients, at, moved, scores[at[0]], read)
            inside = (positions[at[0]] >= place) & (positions[at[0]] < place + span)
            picked = (positions[at[0]] - place).clamp(0, moved.shape[2] - 1)
            last = moved[:, torch.arange(moved.shape[1]), picked] * inside[:, None]
            scores[at[0], :, -1] += torch.einsum("wbd,bd->bw", last, gradients.final[at[0]])
    return scores


def _contract_layers(
    model: Model,
    layers: range,
    gradients: Gradients,
    at: tuple[slice, slice],
    moved: Tensor,
    scores: Tensor,
    space: Float[Tensor, "entry"],
) -> None:
    """Add the readers of some layers, multiplied by all writers up to the last of these layers; what a reader then has
    of writers that come after it is no edge.  No copy is made of `moved` and of the readers' gradients, which are
    written into `space`."""
    graph = model.graph
    per_layer = 3 * graph.n_heads + int(graph.mlp)
    first = graph.reader_index[Reader(graph.heads[layers[0] * graph.n_heads], "q")]
    shape = (len(layers) * per_layer, *moved.shape[1:])
    full = space[: prod(shape)].view(shape)
    for place, layer in enumerate(layers):
        _at_stream(model, layer, gradients, at, full[place * per_layer : (place + 1) * per_layer])
    n_writers = 1 + (layers[-1] + 1) * (graph.n_heads + int(graph.mlp))
    n_writers = min(-(-n_writers // LANES) * LANES, len(moved))
    left, right = full.flatten(2).transpose(0, 1), moved[:n_writers].flatten(2).permute(1, 2, 0)
    scores[:, :n_writers, first : first + len(full)] += torch.bmm(left, right).transpose(1, 2)


def _at_stream(
    model: Model,
    layer: int,
    gradients: Gradients,
    at: tuple[slice, slice],
    out: Float[Tensor, "reader prompt pos d_model"],
) -> None:
    """Write the gradients at the stream of one layer's readers into `out`."""
    graph, attention = model.graph, model.parts.blocks[layer].attention
    n_heads, width = graph.n_heads, out.shape[-1]
    gain = attention.norm.gain if attention.norm else None
    for place, slot in enumerate(SLOTS):
        gradient = gradients.slots[layer, slot]
        weight = attention.weight(slot)
        if slot != "q" and attention.group > 1:
            weight = weight.repeat_interleave(attention.group, dim=0)
        small = gradient.small[at].movedim(-2, 0).reshape(n_heads, -1, attention.d_head)
        target = out[place * n_heads : (place + 1) * n_heads].view(n_heads, -1, width)
        torch.bmm(small, weight, out=target)
        if gain is not None:
            target *= gain
        for along, direction in zip(gradient.along, gradient.direction, strict=True):
            along = along[at].movedim(-1, 0).reshape(n_heads, -1, 1)
            target.addcmul_(along, direction[at].reshape(1, -1, width), value=-1)
    if graph.mlp:
        out[-1] = gradients.mlps[layer][at]


def _cut(trace: Trace, at: tuple[slice, slice]) -> Trace:
    return Trace(trace.embedded[at], tuple(head[at] for head in trace.heads), tuple(mlp[at] for mlp in trace.mlps))


def _chosen(answers: Tensor, at_positions: Sequence[int], n_positions: int) -> Bool[Tensor, "prompt pos"]:
    """True at the chosen positions; -1 is where the answer is read, -2 the token before."""
    place = torch.arange(n_positions, device=answers.device)[None]
    chosen = torch.zeros(len(answers), n_positions, dtype=torch.bool, device=answers.device)
    for position in at_positions:
        chosen |= place == (position if position >= 0 else answers[:, None] + 1 + position)
    return chosen
