"""Influence targets: the date that data is asked to explain, as a function of the weights of two checkpoints.

When does a curve of this run cross its bar, and how does that step move when the weights move?  With y_a < bar ≤ y_b at
the kept steps a and b around the crossing,

    τ = a + (b − a) (bar − y_a) / (y_b − y_a)

so that ∂τ/∂θ_a = ∂τ/∂y_a · ∂y/∂θ there, and likewise at b.  The curves are those of a history: the score of a role
(of its strongest head), of one head, the metric of a task (clean less corrupted prompts), or a loss.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from circuits.graph import Node
from circuits.heads import KINDS
from circuits.loading import open_module
from circuits.model import WATCHES_PATTERN, Model
from circuits.tasks.induction import repeated_tokens
from circuits.tasks.registry import TASKS, make_task
from circuits.tasks.task import Task
from tracking.influence.unrolled import flat
from tracking.lifelines.roles import ROLE_THRESHOLDS
from tracking.lifelines.states import holds, log_steps
from tracking.training.hyperparameters import TrainingConfig
from tracking.training.objective import sequence_costs
from tracking.training.source_tasks import SOURCE_TASK, source_task
from tracking.training.training import data_batch

__all__ = ["Crossing", "TargetCurve", "bend_of", "cotangents", "curve_named", "date_of", "values_at"]

PROBE_SEED = 2**20
"""Of the data on which a loss is measured: no training begins there."""

Values = Callable[[Model], Float[Tensor, "component"]]


@dataclass(frozen=True)
class TargetCurve:
    """What is measured: one value a component, of which the largest counts; `components` names them.

    `bar` is None where it is to be half way between the first and the last value; `falling` where it is crossed from
    above, as a loss is.
    """

    name: str
    values: Values
    components: tuple[str, ...] = ("",)
    bar: float | None = None
    falling: bool = False


@dataclass(frozen=True)
class Crossing:
    """A crossing: `step` lies between the kept steps `before` and `after`, and `component` is the one that crosses."""

    step: float
    bar: float
    before: int
    after: int
    y_before: float
    y_after: float
    component: int


def curve_named(
    name: str,
    model: Model,
    config: TrainingConfig | None,
    *,
    threshold: float | None = None,
    n_prompts: int = 64,
    seed: int = 0,
) -> TargetCurve:
    """A role (`induction`), a head's score (`a1.h0:induction`), a task (`task/induction`, `task/source:NAME`) or a loss
    (`loss`, `loss/SOURCE`).

    Args:
        config: how the embedded trainer made the run; without it there are no tasks of sources and no losses.

    Raises:
        ValueError: there is no such curve.
    """
    what, _, which = name.partition("/")
    if config is not None and what == "task" and which.startswith(SOURCE_TASK):
        asked = source_task(which, config.to_dict(), n_prompts=n_prompts, seed=seed)
        return TargetCurve(name, lambda of: _task_value(of, asked)[None], bar=threshold)
    head, _, kind = name.rpartition(":")
    heads = tuple(node.name for node in model.graph.heads)
    if kind in KINDS:
        if head and head not in heads:
            raise ValueError(f"no head {head!r} in this model; there are {', '.join(heads)}")
        chosen = [heads.index(head)] if head else list(range(len(heads)))
        probes = repeated_tokens(model, n_prompts=n_prompts, seed=seed)

        def scores(of: Model) -> Tensor:
            return torch.cat([_patterns(of, rows, kind, period) for period, rows in probes]).mean(0)[chosen]

        bar = ROLE_THRESHOLDS.get(kind) if threshold is None else threshold
        return TargetCurve(name, scores, tuple(heads[place] for place in chosen), bar)
    if what == "task" and which in TASKS:
        task = make_task(which, model, n_prompts=n_prompts, seed=seed)
        return TargetCurve(name, lambda of: _task_value(of, task)[None], bar=threshold)
    numbers = {source.name: number for number, source in enumerate(config.sources if config else ())}
    if config is not None and what == "loss" and (not which or which in numbers):
        return TargetCurve(name, _loss(config, numbers.get(which)), bar=threshold, falling=True)
    tasks = [f"task/{each}" for each in TASKS]
    own = [f"task/{SOURCE_TASK}NAME", "loss", *(f"loss/{each}" for each in numbers)] if config else []
    raise ValueError(
        f"no curve {name!r}; expected a role among {', '.join(KINDS)}, one of a head as in a1.h0:induction, or one of "
        f"{', '.join(tasks + own)}"
    )


def _patterns(model: Model, tokens: Tensor, kind: str, period: int) -> Float[Tensor, "prompt head"]:
    kept: list[Tensor] = []

    def keep(place: str, layer: int, x: Tensor) -> Tensor:
        if place == "pattern":
            kept.append(x)
        return x

    model.run(model.stream(model.embed(tokens)), tap=keep, watches=WATCHES_PATTERN)
    return KINDS[kind](torch.stack(kept).transpose(1, 2), period).flatten(0, 1).T


def _task_value(model: Model, task: Task) -> Tensor:
    def values(tokens: Tensor) -> Tensor:
        final = model.run(model.stream(model.embed(tokens)))
        return task.values(model.read_out(final[torch.arange(len(final)), task.positions]))

    return values(task.clean).mean() - values(task.corrupted).mean()


def _loss(config: TrainingConfig, source: int | None) -> Values:
    batch = data_batch(replace(config, data_seed=PROBE_SEED, batch_size=max(config.batch_size, 256)), 0)
    rows = np.ones(len(batch.source), dtype=bool) if source is None else batch.source == source
    if not rows.any():
        raise ValueError(
            f"no sequence of source {config.sources[source or 0].name!r} at step 0, on which to measure a loss"
        )
    tokens, counted = torch.from_numpy(batch.tokens[rows]), torch.from_numpy(batch.counted[rows])
    return lambda of: sequence_costs(of.read_out(of.run(of.stream(of.embed(tokens)))), tokens, counted=counted)[
        0
    ].mean()[None]


@torch.no_grad()
def values_at(curve: TargetCurve, module: nn.Module) -> Float[np.ndarray, "component"]:
    """The curve of every component, as the module's weights stand."""
    return curve.values(open_module(module)).double().cpu().numpy()


def date_of(curve: TargetCurve, measured: Mapping[int, Float[np.ndarray, "component"]]) -> Crossing | None:
    """The first crossing of the bar that is held; None where there is none, or where it was crossed at the first step.

    Raises:
        ValueError: the curve has no bar of its own and does not move.
    """
    steps = sorted(measured)
    sign = -1.0 if curve.falling else 1.0
    best = np.array([(sign * measured[step]).max() for step in steps])
    if curve.bar is None and not abs(best[-1] - best[0]) > 0:
        raise ValueError(f"{curve.name} does not move from step {steps[0]} to {steps[-1]}; give a threshold")
    bar = (best[0] + best[-1]) / 2 if curve.bar is None else sign * curve.bar
    has = holds(best, log_steps(np.array(steps, dtype=float)), bar, floor=min(best[0], bar))
    crossed = np.flatnonzero(has[1:] & ~has[:-1]) + 1
    for place in crossed[:1]:
        before, after = steps[place - 1], steps[place]
        component = int((sign * measured[after]).argmax())
        low, high = sign * measured[before][component], sign * measured[after][component]
        step = before + (after - before) * float((bar - low) / (high - low))
        return Crossing(step, float(bar), before, after, float(low), float(high), component)
    return None


def bend_of(curve: TargetCurve, date: Crossing, measured: Mapping[int, Float[np.ndarray, "component"]]) -> float:
    """The size of y″ / y′ at the date, per step, of the component that crosses: how fast its slope changes.

    From one stretch between kept steps to the next; 0 where nothing is kept beyond.
    A date that moves by Δ along a curve so bent moves by up to ½ Δ² times this more or less than a straight line says.
    """
    steps = sorted(measured)
    value = [float(measured[step][date.component]) for step in steps]
    place = steps.index(date.before)
    found = []
    for at in range(max(place - 1, 0), min(place + 2, len(steps) - 1)):
        slope = (value[at + 1] - value[at]) / (steps[at + 1] - steps[at])
        found.append(((steps[at] + steps[at + 1]) / 2, slope))
    (first, low), (last, high) = found[0], found[-1]
    own = (value[place + 1] - value[place]) / (steps[place + 1] - steps[place])
    return abs((high - low) / (last - first) / own) if last > first and own else 0.0


def cotangents(
    curve: TargetCurve, date: Crossing, module_at: Callable[[int], nn.Module]
) -> dict[int, Float[Tensor, "weight"]]:
    """∂τ/∂θ at the two kept steps around the date."""
    gap, rise = date.after - date.before, date.y_after - date.y_before
    sign = -1.0 if curve.falling else 1.0
    slopes = {
        date.before: -gap * (date.y_after - date.bar) / rise**2,
        date.after: -gap * (date.bar - date.y_before) / rise**2,
    }
    found = {}
    for step, slope in slopes.items():
        module = module_at(step)
        weights = list(module.parameters())
        with sdpa_kernel(SDPBackend.MATH):
            value = sign * slope * curve.values(open_module(module))[date.component]
            found[step] = flat(torch.autograd.grad(value, weights, materialize_grads=True))
    return found


def nodes_of(curve: TargetCurve, date: Crossing) -> Sequence[Node]:
    """The component that crosses, where the curve is one of heads."""
    name = curve.components[date.component]
    return [Node.parse(name)] if name else []
