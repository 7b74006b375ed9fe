"""Information flow: whose writes make up what is read, and whose push the answer's logits directly.

Axes: `writer`, `reader` as in `circuits.graph`.

References:
    Information Flow Routes: Automatically Interpreting Language Models at Scale (Ferrando & Voita, 2024),
    https://arxiv.org/abs/2403.00824
    interpreting GPT: the logit lens (nostalgebraist, 2020) and A Mathematical Framework for Transformer Circuits
    (Elhage et al., 2021), https://transformer-circuits.pub/2021/framework
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.graph import EdgeScores, NodeScores
from circuits.model import Model
from circuits.moments import Moments
from circuits.tasks.task import Task
from circuits.writes import Trace, differences, record

__all__ = ["direct_logit_attribution", "information_flow_routes"]


@torch.no_grad()
def information_flow_routes(
    model: Model,
    tokens: Int[Tensor, "prompt pos"],
    *,
    lengths: Int[Tensor, "prompt"] | None = None,
    batch_size: int = 4,
) -> EdgeScores:
    """How much of what each reader reads comes from each writer: the proximity max(0, ‖x‖₁ − ‖x − a_w‖₁) of a write a_w
    to the stream x there, divided by the sum over writers, mean over each prompt's tokens.

    The queries, keys and values of a layer read the same stream, so their columns are equal.

    Raises:
        ValueError: the tokens do not suit the model.
    """
    model.check_tokens(tokens)
    graph, moments = model.graph, Moments()
    counts = lengths if lengths is not None else torch.full((len(tokens),), tokens.shape[1])
    for start in range(0, len(tokens), batch_size):
        rows = slice(start, start + batch_size)
        writes, streams = _writes_and_streams(model, tokens[rows])
        real = (torch.arange(tokens.shape[1]) < counts[rows, None]).to(writes)
        scores = torch.zeros(len(writes[0]), len(graph.writers), len(graph.readers), dtype=model.dtype)
        for index, reader in enumerate(graph.readers):
            if reader.slot in ("k", "v"):
                continue
            n_writers = int(graph.edge_mask[:, index].sum())
            share = _proximity(writes[:n_writers], streams[reader.node.kind, reader.node.layer])
            value = ((share * real).sum(-1) / real.sum(-1)).T.cpu()
            for column in [index] if reader.slot is None else [index + place * graph.n_heads for place in range(3)]:
                scores[:, :n_writers, column] = value
        moments.add(scores.double().numpy())
    return EdgeScores(graph, moments.estimate(), "information-flow-routes", "none")


def _writes_and_streams(
    model: Model, tokens: Tensor
) -> tuple[Float[Tensor, "writer prompt pos d_model"], dict[tuple[str, int], Tensor]]:
    trace, final = record(model, tokens)
    streams: dict[tuple[str, int], Tensor] = {("logits", -1): final}

    def keep(place: str, layer: int, x: Tensor) -> Tensor:
        if kind := {"resid_pre": "head", "mlp_in": "mlp"}.get(place):
            streams[kind, layer] = x
        return x

    model.run(model.stream(model.embed(tokens)), tap=keep)
    return differences(model, trace, None), streams


def _proximity(
    writes: Float[Tensor, "writer prompt pos d_model"], stream: Float[Tensor, "prompt pos d_model"]
) -> Float[Tensor, "writer prompt pos"]:
    whole = stream.abs().sum(-1)
    near = torch.stack([(whole - (stream - write).abs().sum(-1)).clamp(min=0) for write in writes])
    return near / near.sum(0)


@torch.no_grad()
def direct_logit_attribution(model: Model, task: Task, *, batch_size: int = 16) -> NodeScores:
    """What each writer adds to logit(correct) − logit(incorrect) where the answer is read, through the last norm and
    the unembedding alone, the norm's scale held at the clean run's. With position embeddings, biases and the norm's
    bias, which belong to no writer, the scores add up to the logit difference (before a soft cap).

    Raises:
        ValueError: the task does not suit the model.
    """
    task.check(model)
    moments, norm = Moments(), model.parts.final_norm
    for start in range(0, len(task), batch_size):
        part = task.rows(slice(start, start + batch_size))
        trace, final = record(model, part.clean)
        rows, at = torch.arange(len(part)), part.positions.to(model.device)
        last = Trace(
            trace.embedded[rows, at][:, None],
            tuple(head[rows, at][:, None] for head in trace.heads),
            tuple(mlp[rows, at][:, None] for mlp in trace.mlps),
        )
        writes = norm.centred(differences(model, last, None)[:, :, 0]) * norm.inverse_scale(final[rows, at])
        unembed = model.parts.unembed.weight
        direction = _mean_row(unembed, part.correct) - _mean_row(unembed, part.incorrect)  # type: ignore[arg-type]
        direction = direction if norm.gain is None else direction * norm.gain
        moments.add(torch.einsum("wbd,bd->bw", writes, direction).double().cpu().numpy())
    return NodeScores(model.graph.writers, moments.estimate(), "direct-logit-attribution", task.name)


def _mean_row(table: Float[Tensor, "d_vocab d_model"], tokens: Int[Tensor, "prompt answer"]) -> Tensor:
    tokens = tokens.to(table.device)
    rows = table[tokens.clamp(min=0)] * (tokens >= 0)[..., None]
    return rows.sum(1) / (tokens >= 0).sum(1, keepdim=True).clamp(min=1)
