"""Rotated corruption: does it matter what a head writes, or only that its output is disturbed?

Corrupting a head changes its output at each position by Δ.  The control disturbs it as much, in as many directions and
as strongly in each, but without the content: Δ turned at random within the head's own output space,

    Δ' = Δ C^(-1/2) R C^(1/2),    C = Σ Δᵀ Δ over prompts and positions,    R a random rotation,

which keeps the covariance of the differences, and with it their summed norm in the stream.  Under the null hypothesis
that the orientation of Δ is nothing to the layers that read it, Δ is one more such draw, so

    p = (1 + draws with at least that effect) / (1 + draws),

which is never below 1 / (1 + draws).  Each head is tested by itself, so eight heads are as good as a thousand; the test
says that the *content* matters, not that this head is special.

Axes: `draw` the random rotations, the same ones for every head, so that draws of several heads may be added.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.display import table_html
from circuits.graph import Estimate, Node, NodeScores, p_value
from circuits.model import Model
from circuits.patching import CachedRun, after_attention_change, metric_of, stream_batches
from circuits.tasks.task import Task
from circuits.writes import Trace, record

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["EXACT_ROTATION", "N_DRAWS", "ROTATION", "RotationSums", "RotationTest", "rotation_test", "rotations"]

N_DRAWS = 99
ROTATION = "rotation"
"""The measure whose folds are the first-order effects of rotated corruption, draw by draw."""
EXACT_ROTATION = "exact-rotation"
"""The measure whose value is the exact effect of corruption, and whose folds are those of rotated corruption."""
TINY = 1e-7
"""Directions with less than this share of the largest one's variance are not turned."""


@lru_cache(maxsize=8)
def rotations(rank: int, n_draws: int = N_DRAWS, seed: int = 0) -> Float[np.ndarray, "draw rank rank"]:
    """Rotations drawn uniformly (Haar measure on the orthogonal group)."""
    normal = np.random.default_rng((seed, rank)).normal(size=(n_draws, rank, rank))
    q, r = np.linalg.qr(normal)
    return q * np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :]


@dataclass
class RotationSums:
    """Collects, a batch of prompts at a time, what the first-order effects of rotated corruption hang on: of each head
    C = Σ Δᵀ Δ and Σ Δᵀ g, where g is the gradient at the head's output."""

    spread: dict[int, Float[Tensor, "head d_head d_head"]] = field(default_factory=dict)
    slope: dict[int, Float[Tensor, "head d_head d_head"]] = field(default_factory=dict)
    n_prompts: int = 0

    def add(
        self, layer: int, moved: Float[Tensor, "prompt pos head d_head"], slope: Float[Tensor, "prompt pos head d_head"]
    ) -> None:
        """One layer's differences (zero in the padding) and gradients."""
        by_head = moved.flatten(0, 1).movedim(0, -1)
        spread = (by_head @ by_head.transpose(1, 2)).double().cpu()
        crossed = (by_head @ slope.flatten(0, 1).movedim(0, 1)).double().cpu()
        self.spread[layer] = self.spread[layer] + spread if layer in self.spread else spread
        self.slope[layer] = self.slope[layer] + crossed if layer in self.slope else crossed
        self.n_prompts += len(moved) if layer == 0 else 0

    def scores(self, model: Model, task: str, *, n_draws: int = N_DRAWS, seed: int = 0) -> NodeScores:
        """Mean first-order effect of rotated corruption of each head, its spread over draws, and the draws as folds;
        NaN where the differences have fewer than two directions, so that there is nothing to turn."""
        draws = np.full((n_draws, len(model.graph.heads)), np.nan)
        for place, node in enumerate(model.graph.heads):
            turned = _turned(self.spread[node.layer][node.index].numpy(), n_draws, seed)
            if turned is not None:
                slope = self.slope[node.layer][node.index].numpy() / self.n_prompts
                draws[:, place] = np.einsum("nij,ij->n", turned, slope)
        value, error = draws.mean(axis=0), draws.std(axis=0, ddof=1)
        return NodeScores(model.graph.heads, Estimate(value, error, draws, self.n_prompts), ROTATION, task)


def _turned(
    spread: Float[np.ndarray, "d_head d_head"], n_draws: int, seed: int
) -> Float[np.ndarray, "draw d_head d_head"] | None:
    """C^(-1/2) R C^(1/2) of each draw within the span of the differences; `None` where it is a line or nothing."""
    variance, axes = np.linalg.eigh(spread)
    kept = variance > TINY * max(variance[-1], 0)
    if kept.sum() < 2:
        return None
    root, axes = np.sqrt(variance[kept]), axes[:, kept]
    middle = rotations(int(kept.sum()), n_draws, seed) / root[:, None] * root
    return axes @ middle @ axes.T


@dataclass(frozen=True)
class RotationTest:
    """Exact effects of corrupting each head, beside those of its rotated corruptions; `draws` is NaN where a head's
    differences lie on a line."""

    effects: NodeScores
    draws: Float[np.ndarray, "draw node"]

    _repr_html_ = table_html

    @property
    def scores(self) -> NodeScores:
        """The effects, with the draws as folds."""
        of = self.effects.estimate
        return NodeScores(
            self.effects.nodes, Estimate(of.value, of.std_error, self.draws, of.n_prompts), EXACT_ROTATION,
            self.effects.task,
        )  # fmt: skip

    def to_frame(self) -> "pd.DataFrame":
        """Columns: component, effect, std_error, rotated (root mean square effect of the draws), ratio, p_value,
        n_controls, smallest_p, status."""
        import pandas as pd

        rows = []
        for place, node in enumerate(self.effects.nodes):
            effect, drawn = self.effects.values[place], self.draws[:, place]
            testable = bool(np.isfinite(drawn).all())
            size = float(np.sqrt(np.mean(drawn**2))) if testable else np.nan
            p = p_value(effect, drawn) if testable else np.nan
            status = "tested" if testable else "not testable: its differences lie on a line"
            rows.append((node.name, effect, self.effects.std_error[place], size, effect / size if size else np.nan, p,
                         len(drawn), 1 / (1 + len(drawn)), status))  # fmt: skip
        columns = ["component", "effect", "std_error", "rotated", "ratio", "p_value", "n_controls", "smallest_p"]
        return pd.DataFrame(rows, columns=[*columns, "status"])


@torch.no_grad()
def rotation_test(
    model: Model,
    task: Task,
    *,
    heads: Sequence[str] | None = None,
    n_draws: int = N_DRAWS,
    seed: int = 0,
    batch_size: int = 16,
) -> RotationTest:
    """The effect of corrupting each head against that of the same difference, turned at random, exactly: every draw is
    a patched run from the head's layer on.

    Raises:
        ValueError: no such head, no draw, or a task that does not suit the model.
    """
    task.check(model)
    nodes = tuple(Node.parse(name) for name in heads) if heads is not None else model.graph.heads
    if unknown := [node.name for node in nodes if node not in model.graph.heads]:
        raise ValueError(f"expected heads such as 'a0.h1', got {unknown[0]!r}")
    if n_draws < 1:
        raise ValueError(f"expected at least one draw, got n_draws={n_draws}")
    runs = []
    for start in range(0, len(task), batch_size):
        part = task.rows(slice(start, start + batch_size))
        runs.append((part, CachedRun(model, part.clean, part.positions), differences_of_heads(model, part)))
    effects, draws = np.empty((len(task), len(nodes))), np.full((n_draws, len(nodes)), np.nan)
    for place, node in enumerate(nodes):
        moved = [each[2][node.layer][:, :, node.index] for each in runs]
        spread = sum((part.flatten(0, 1).T @ part.flatten(0, 1)).double() for part in moved)
        turned = _turned(np.asarray(torch.as_tensor(spread).cpu()), n_draws, seed)
        maps = [np.eye(moved[0].shape[-1])[None], *([turned] if turned is not None else [])]
        found = _effects(model, node, [each[:2] for each in runs], moved, np.concatenate(maps))
        effects[:, place] = found[0]
        if turned is not None:
            draws[:, place] = found[1:].mean(axis=1)
    scores = NodeScores(nodes, Estimate.from_prompts(effects), "patching", task.name)
    return RotationTest(scores, draws)


def _effects(
    model: Model,
    node: Node,
    runs: "list[tuple[Task, CachedRun]]",
    moved: list[Tensor],
    maps: Float[np.ndarray, "row d_head d_head"],
) -> Float[np.ndarray, "row prompt"]:
    """The metric lost when the head's output changes by each map of its difference."""
    weight = model.parts.blocks[node.layer].attention.output_weight[node.index]
    found = []
    for (task, run), change in zip(runs, moved, strict=True):
        measure, before = metric_of(model, task, run.final)
        rows = []
        for batch in stream_batches(np.arange(len(maps)), run.final):
            turned = torch.einsum("bpi,nij->nbpj", change, torch.as_tensor(maps[batch]).to(change))
            rows.append((before - measure(after_attention_change(model, run, node.layer, turned @ weight))).cpu())
        found.append(torch.cat(rows).double().numpy())
    return np.concatenate(found, axis=1)


def differences_of_heads(model: Model, task: Task) -> list[Float[Tensor, "prompt pos head d_head"]]:
    """Of each layer, how the heads' outputs differ between clean and corrupted prompts; zero in the padding."""
    return moved_heads(record(model, task.clean)[0], record(model, task.corrupted)[0], task)


def moved_heads(clean: Trace, other: Trace, task: Task) -> list[Float[Tensor, "prompt pos head d_head"]]:
    width, device = clean.embedded.shape[1], clean.embedded.device
    real = (torch.arange(width) < task.lengths[:, None]).to(device)[..., None, None]
    return [(first - second) * real for first, second in zip(clean.heads, other.heads, strict=True)]
