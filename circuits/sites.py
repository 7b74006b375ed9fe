"""Site effects: what each place inside the layers carries, head by head and position by position.

A **site** is a tensor of the forward pass: `resid_pre` (the stream before a layer), `attn_out`, `mlp_out`, `z` (head
outputs), `q`, `k`, `v` of each head (before rotation), and `pattern` (attention weights, by query position).
`site_patching` sets each to another run's value, exactly; `site_attribution` says to first order what that would do.

Axes: `layer`; `head` where the site has heads (else one); `pos` positions where asked for (else one); `prompt`.

References:
    How to use and interpret activation patching (Heimersheim & Nanda, 2024), https://arxiv.org/abs/2404.15255
    AtP*: An efficient and scalable method for localizing LLM behaviour to components (Kramár et al., 2024),
    https://arxiv.org/abs/2403.00745
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.display import table_html
from circuits.gradients import check_gradient
from circuits.graph import Estimate
from circuits.model import WATCHES_PATTERN, Model
from circuits.moments import Moments
from circuits.tasks.task import Task, answer_logits

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SITES", "SiteScores", "site_attribution", "site_patching"]

SITES = ("resid_pre", "attn_out", "mlp_out", "z", "q", "k", "v", "pattern")
HEADED = {"z", "q", "k", "v", "pattern"}
BASELINES = ("corrupted", "zero", "mean", "resample")
BUDGET = 32 << 20
"""Bytes that the streams of one batch of patched runs may take."""


@dataclass(frozen=True)
class SiteScores:
    """One measure of every place of a site; `estimate` has axes `layer head pos`, of size one where not told apart."""

    site: str
    estimate: Estimate
    measure: str
    task: str
    has_heads: bool
    by_position: bool

    @property
    def values(self) -> Float[np.ndarray, "layer head pos"]:
        return self.estimate.value

    @property
    def std_error(self) -> Float[np.ndarray, "layer head pos"]:
        return self.estimate.std_error

    _repr_html_ = table_html

    def to_frame(self) -> "pd.DataFrame":
        """Columns: task, measure, site, layer, head, position, value, std_error."""
        import pandas as pd

        places = np.array(list(np.ndindex(self.values.shape)))
        frame = pd.DataFrame({"task": self.task, "measure": self.measure, "site": self.site, "layer": places[:, 0]})
        frame["head"] = places[:, 1] if self.has_heads else pd.NA
        frame["position"] = places[:, 2] if self.by_position else pd.NA
        return frame.assign(value=self.values.ravel(), std_error=self.std_error.ravel())


@torch.no_grad()
def site_patching(
    model: Model,
    task: Task,
    site: str,
    *,
    denoise: bool = False,
    by_position: bool = False,
    baseline: str = "corrupted",
    seed: int = 0,
    batch_size: int = 16,
) -> SiteScores:
    """The exact effect of patching each place of a site.

    Noising (the default) runs the clean prompts with the place set to its baseline: metric(clean) − metric(patched).
    Denoising runs the corrupted prompts with the place set to its clean value: metric(patched) − metric(corrupted).

    Args:
        baseline: what a place is set to when noising: its value on the `corrupted` prompt, `zero`, its `mean` over
            the corrupted prompts at that position, or its value on another clean prompt of equal length
            (`resample`, drawn with `seed`).

    Raises:
        ValueError: an unknown site or baseline, denoising with another baseline than `corrupted`, or a task that does
            not suit the model.
    """
    _check(model, task, site, baseline)
    if denoise and baseline != "corrupted":
        raise ValueError(f"expected baseline 'corrupted' when denoising, got {baseline!r}")
    other = _other_prompts(task, baseline, seed)
    mean = _mean_site(model, task, site, batch_size) if baseline == "mean" else None
    moments = Moments()
    for start in range(0, len(task), batch_size):
        rows = slice(start, start + batch_size)
        part, source = task.rows(rows), other[rows]
        run, given = (part.corrupted, part.clean) if denoise else (part.clean, source)
        values = capture(model, given, site) if mean is None else _spread(mean, run)
        if baseline == "zero":
            values = {layer: torch.zeros_like(value) for layer, value in values.items()}
        effects = _patch_everywhere(model, part, site, run, values, by_position)
        moments.add(effects.double().cpu().numpy() * (-1 if denoise else 1))
    name = f"{'denoising' if denoise else 'noising'}-{baseline}"
    return SiteScores(site, moments.estimate(), name, task.name, site in HEADED, by_position)


def site_attribution(
    model: Model,
    task: Task,
    site: str,
    *,
    by_position: bool = False,
    recompute_attention: bool = False,
    drop_gradients: bool = False,
    baseline: str = "corrupted",
    seed: int = 0,
    batch_size: int = 16,
) -> SiteScores:
    """The first-order effect of patching each place of a site: ⟨a(clean) − a(baseline), ∂metric/∂a⟩.

    Two corrections make this AtP*:

    Args:
        recompute_attention: for `q` and `k`, the pattern is computed anew with the patched query or key and only what
            comes after it is taken to first order, since a saturated softmax has next to no gradient.
        drop_gradients: the mean of `|effect|` over passes in each of which one layer writes as it does but sends no
            gradient back (GradDrop): effects that cancel along different paths then show. Σ / (layers − 1).

    Raises:
        ValueError: an unknown site or baseline, a metric without gradient, or a task that does not suit the model.
    """
    _check(model, task, site, baseline)
    check_gradient(model, task)
    if recompute_attention and site not in ("q", "k"):
        raise ValueError(f"expected site 'q' or 'k' to recompute attention for, got {site!r}")
    n_layers, other = model.graph.n_layers, _other_prompts(task, baseline, seed)
    if drop_gradients and n_layers < 2:
        raise ValueError("expected at least two layers to drop the gradients of one, got one")
    mean = _mean_site(model, task, site, batch_size) if baseline == "mean" else None
    moments = Moments()
    for start in range(0, len(task), batch_size):
        rows = slice(start, start + batch_size)
        part = task.rows(rows)
        values = capture(model, other[rows], site) if mean is None else _spread(mean, part.clean)
        if baseline == "zero":
            values = {layer: torch.zeros_like(value) for layer, value in values.items()}
        effects = []
        for dropped in range(n_layers) if drop_gradients else (None,):
            effect = _first_order(model, part, site, values, dropped, recompute_attention)
            effects.append(effect if by_position else effect.sum(-1, keepdim=True))
        total = effects[0] if not drop_gradients else torch.stack(effects).abs().sum(0) / (n_layers - 1)
        moments.add(total.detach().double().cpu().numpy())
    extra = ("-recomputed" if recompute_attention else "") + ("-graddrop" if drop_gradients else "")
    name = f"attribution{extra}-{baseline}"
    return SiteScores(site, moments.estimate(), name, task.name, site in HEADED, by_position)


def _check(model: Model, task: Task, site: str, baseline: str) -> None:
    task.check(model)
    if site not in SITES or (site == "mlp_out" and not model.graph.mlp):
        raise ValueError(f"expected a site among {', '.join(SITES)} that the model has, got {site!r}")
    if baseline not in BASELINES:
        raise ValueError(f"expected a baseline among {', '.join(BASELINES)}, got {baseline!r}")


def _other_prompts(task: Task, baseline: str, seed: int) -> Tensor:
    """The prompts whose values are patched in."""
    if baseline != "resample":
        return task.corrupted
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.arange(len(task))
    for length in task.lengths.unique().tolist():
        alike = (task.lengths == length).nonzero()[:, 0]
        order = alike[torch.randperm(len(alike), generator=generator)]
        chosen[order] = order.roll(1)  # a cycle: nobody gets its own, unless it is alone
    return task.clean[chosen]


@torch.no_grad()
def capture(model: Model, tokens: Tensor, site: str) -> dict[int, Tensor]:
    """The site's value in each layer."""
    found: dict[int, Tensor] = {}

    def keep(place: str, layer: int, x: Tensor) -> Tensor:
        if place == site:
            found[layer] = x
        return x

    watches = WATCHES_PATTERN if site == "pattern" else frozenset()
    model.run(model.stream(model.embed(tokens)), tap=keep, watches=watches)
    return found


def _mean_site(model: Model, task: Task, site: str, batch_size: int) -> dict[int, Tensor]:
    """The site's mean at each position over the corrupted prompts' real tokens, one row."""
    total: dict[int, Tensor] = {}
    real = torch.arange(task.corrupted.shape[1]) < task.lengths[:, None]
    for start in range(0, len(task), batch_size):
        rows = slice(start, start + batch_size)
        for layer, value in capture(model, task.corrupted[rows], site).items():
            weight = real[rows].to(value)
            rule = "bp,bhp...->hp..." if site == "pattern" else "bp,bp...->p..."
            summed = torch.einsum(rule, weight, value)[None]
            total[layer] = total[layer] + summed if layer in total else summed
    count = real.sum(0).clamp(min=1).to(model.device)
    shape = (1, 1, -1, 1) if site == "pattern" else (1, -1)
    return {
        layer: value / count.view(*shape, *[1] * (value.ndim - len(shape))).to(value) for layer, value in total.items()
    }


def _spread(mean: dict[int, Tensor], tokens: Tensor) -> dict[int, Tensor]:
    return {layer: value.expand(len(tokens), *value.shape[1:]) for layer, value in mean.items()}


def _metric(model: Model, task: Task, final: Tensor, clean_logits: Tensor | None) -> Tensor:
    """The metric of (row, prompt) final streams."""
    rows, n_prompts = final.shape[:2]
    at = task.positions.to(final.device)
    last = final[:, torch.arange(n_prompts), at].flatten(0, 1)
    reference = None if clean_logits is None else clean_logits.repeat(rows, 1)
    return task.rows(torch.arange(n_prompts).repeat(rows)).values(model.read_out(last), reference).view(rows, n_prompts)


def _patch_everywhere(
    model: Model, task: Task, site: str, run: Tensor, values: dict[int, Tensor], by_position: bool
) -> Float[Tensor, "prompt layer head pos"]:
    """metric(run) − metric(run with one place patched)."""
    clean_logits = answer_logits(model, task.clean, task.positions) if task.metric.needs_clean else None
    streams = capture(model, run, "resid_pre")
    final = model.run(model.stream(model.embed(run)))
    before = _metric(model, task, final[None], clean_logits)[0]
    n_heads = model.graph.n_heads if site in HEADED else 1
    n_places = run.shape[1] if by_position else 1
    effects = torch.zeros(len(task), model.graph.n_layers, n_heads, n_places, dtype=before.dtype, device=model.device)
    choices = [(head, place) for head in range(n_heads) for place in range(n_places)]
    size = max(1, BUDGET // (streams[0].numel() * streams[0].element_size()))
    for layer, value in values.items():
        for first in range(0, len(choices), size):
            chosen = choices[first : first + size]
            mask = _mask(site, value, chosen, by_position)
            after = _metric(model, task, _run_patched(model, site, layer, streams[layer], value, mask), clean_logits)
            for row, (head, place) in enumerate(chosen):
                effects[:, layer, head, place] = before - after[row]
    return effects


def _mask(site: str, value: Tensor, chosen: list[tuple[int, int]], by_position: bool) -> Tensor:
    """(row, 1, ...) True where the row patches; the axes of a prompt's value follow."""
    mask = torch.zeros(len(chosen), 1, *value.shape[1:], dtype=torch.bool, device=value.device)
    for row, (head, place) in enumerate(chosen):
        positions = slice(place, place + 1) if by_position else slice(None)
        if site == "pattern":
            mask[row, :, head, positions] = True
        elif site in HEADED:
            mask[row, :, positions, head] = True
        else:
            mask[row, :, positions] = True
    return mask


def _run_patched(model: Model, site: str, layer: int, stream: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    rows = len(mask)

    def patch(place: str, at: int, x: Tensor) -> Tensor:
        if (place, at) != (site, layer):
            return x
        return torch.where(mask, value, x.view(rows, -1, *x.shape[1:])).flatten(0, 1)

    start = stream.expand(rows, *stream.shape).flatten(0, 1)
    watches = WATCHES_PATTERN if site == "pattern" else frozenset()
    final = model.run(start, first=layer, tap=patch, watches=watches)
    return final.view(rows, *stream.shape)


def _first_order(
    model: Model, task: Task, site: str, values: dict[int, Tensor], dropped: int | None, recompute: bool
) -> Float[Tensor, "prompt layer head pos"]:
    clean_logits = answer_logits(model, task.clean, task.positions) if task.metric.needs_clean else None
    wanted = "pattern" if recompute else site
    seen: dict[int, Tensor] = {}
    finished: dict[tuple[str, int], Tensor] = {}

    def keep(place: str, layer: int, x: Tensor) -> Tensor:
        if recompute and place in ("q", "k"):
            finished[place, layer] = x.detach()
        if place == wanted:
            seen[layer] = x
        return x.detach() if layer == dropped and place in ("attn_out", "mlp_out") else x

    watches = WATCHES_PATTERN if wanted == "pattern" else frozenset()
    with torch.enable_grad():
        start = model.embed(task.clean).detach().requires_grad_()
        final = model.run(model.stream(start), tap=keep, watches=watches)
        values_now = _metric(model, task, final[None], clean_logits)[0]
        if not values_now.requires_grad:
            raise ValueError(f"metric {task.metric.name!r} has no gradient to attribute")
        found = torch.autograd.grad(values_now.sum(), list(seen.values()), allow_unused=True)
    effects = []
    for (layer, clean), gradient in zip(seen.items(), found, strict=True):
        gradient = torch.zeros_like(clean) if gradient is None else gradient
        if recompute:
            effects.append(_recomputed(model, layer, site, finished, values[layer], clean.detach(), gradient))
        else:
            effects.append(_by_place(site, (clean.detach() - values[layer]) * gradient))
    return torch.stack(effects, dim=1)


def _by_place(site: str, product: Tensor) -> Float[Tensor, "prompt head pos"]:
    if site == "pattern":
        return product.sum(-1)
    return product.sum(-1).transpose(1, 2) if site in HEADED else product.sum(-1)[:, None]


def _recomputed(
    model: Model,
    layer: int,
    site: str,
    finished: dict[tuple[str, int], Tensor],
    other: Tensor,
    pattern: Tensor,
    gradient: Tensor,
) -> Float[Tensor, "prompt head pos"]:
    """⟨pattern − pattern with the patched query or key, ∂metric/∂pattern⟩; a key is patched at one position at a
    time, and a query moves its own row only."""
    attention = model.parts.blocks[layer].attention
    q, k = (attention.finish(slot, finished[slot, layer]) for slot in ("q", "k"))
    patched = attention.finish("q" if site == "q" else "k", other)
    scores = attention.scores(patched, k) if site == "q" else attention.scores(q, patched)
    if site == "q":
        return ((pattern - attention.pattern(scores)) * gradient).sum(-1)
    before, effects = attention.scores(q, k), []
    for place in range(k.shape[1]):
        column = before.clone()
        column[..., place] = scores[..., place]
        effects.append(((pattern - attention.pattern(column)) * gradient).sum((-1, -2)))
    return torch.stack(effects, dim=-1)
