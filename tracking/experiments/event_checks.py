"""Event checks: what patching says of an event: did the components change, and was it their own doing?

The two checkpoints around an event are loaded, and prompts that nobody recorded are run through them.  Two questions
are put to every event:

- Is it so?  The effect of corrupting each component that stopped or began, before and after (activation patching).
- Whose doing is it?  When one head dies, heads that read from it lose their effect too.  So the components of the event
  are patched between the two checkpoints, weights and all, and then those of every other event at the same time:

      rest of the model   component's own weights   effect
      before              before                    E00
      before              after                     E01     own share = ((E01 − E00) + (E11 − E10)) / 2 (E11 − E00)
      after               before                    E10
      after               after                     E11

  A share near 1 says that the component's own weights make the change, one near 0 that the rest does.  Where neither
  the component's own weights nor those of one other event make most of it alone, cause and consequence are not told
  apart, and that is said.

Axes: `prompt`.

References:
    How to use and interpret activation patching (Heimersheim & Nanda, 2024), https://arxiv.org/abs/2404.15255
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float

from circuits.graph import Node
from tracking.checkpoints.hub import Downloads
from tracking.checkpoints.runs import Run
from tracking.lifelines.events import Event
from tracking.recording.measuring import Settings
from tracking.recording.model_slot import ModelSlot

if TYPE_CHECKING:
    import pandas as pd

    from circuits.model import Model

__all__ = ["EventCheck", "Verdict", "checks_frame", "verify_events"]

Verdict = Literal["own weights", "consequence", "not told apart", "not seen"]
CLEAR = 2.0  # standard errors that a change of effect must reach
MOST = 0.5  # share of a change that is most of it
AT_ONCE = 3  # checkpoints within which one event may be a consequence of another
CHANGES = {"birth", "death", "hand-off", "split", "merge", "lead change"}
"""Kinds of events that say that an effect changes; a switch says what a component does, not how much."""


@dataclass(frozen=True)
class EventCheck:
    """What patching says of one event.

    Attributes:
        event: the event.
        component: whose effect was measured: what stopped, or else what began.
        steps: the checkpoints that were compared.
        before: its effect at the first, in the metric of the task.
        after: its effect at the second.
        std_error: of the difference, prompt by prompt.
        own: share of the change that the weights of the event's own components make.
        cause: another event's component whose weights make more of the change, where there is one.
        others: the share that those make.
        verdict: what follows.
    """

    event: Event
    component: Node
    steps: tuple[int, int]
    before: float
    after: float
    std_error: float
    own: float
    cause: Node | None
    others: float
    verdict: Verdict

    def __str__(self) -> str:
        change = f"the effect of {self.component} goes from {self.before:.2f} to {self.after:.2f}"
        change += f" (± {self.std_error:.2f}) between steps {self.steps[0]} and {self.steps[1]}"
        what = f"{self.event}: {change}"
        match self.verdict:
            case "own weights":
                return f"{what}; its own weights make {self.own:.0%} of that."
            case "consequence":
                return f"{what}; it is a consequence: the weights of {self.cause} make {self.others:.0%} of that."
            case "not seen":
                return f"{what}, which is no clear change on other prompts."
        rest = f", those of {self.cause} {self.others:.0%}" if self.cause is not None else ""
        return (
            f"{what}; cause and consequence are not told apart (its own weights make {self.own:.0%} of the change"
            f"{rest})."
        )


def verify_events(
    events: Sequence[Event], run: Run, *, task: str = "induction", n_prompts: int = 64, seed: int = 1000
) -> tuple[EventCheck, ...]:
    """Check events by patching, each with the checkpoints around it.

    Args:
        events: the events of one run (`Lifelines.events`).
        run: the run with its checkpoints; those that a history was recorded from.
        task: the task whose metric is lost.
        n_prompts: prompts that the effects are means over.
        seed: of the prompts; not the seed of the recording, so that they are others.

    Raises:
        ValueError: the run has no checkpoint at an event's step, or the task does not suit the model.
    """
    bench = _Bench(run, task, n_prompts, seed)
    changes = [event for event in events if event.event in CHANGES]
    return tuple(_check(bench, event, changes) for event in changes)


def checks_frame(checks: Sequence[EventCheck]) -> "pd.DataFrame":
    """Columns: event, lifeline, component, steps, effects, shares and verdict, one row a check."""
    import pandas as pd

    names = ("before", "after", "std_error", "own", "others", "verdict")
    rows = [
        {
            "event": check.event.event,
            "lifeline": check.event.lifeline,
            "component": check.component.name,
            "step_before": check.steps[0],
            "step_after": check.steps[1],
            "cause": check.cause.name if check.cause is not None else None,
            **{name: getattr(check, name) for name in names},
        }
        for check in checks
    ]
    return pd.DataFrame(rows)


class _Bench:
    """Two models of one run, filled with any two of its checkpoints, and the prompts."""

    def __init__(self, run: Run, task: str, n_prompts: int, seed: int) -> None:
        self.run, self.task_name = run, task
        settings = Settings((task,), n_prompts, seed)
        self.slots = ModelSlot(settings), ModelSlot(settings)
        self.downloads = Downloads(Path("events"), None)  # the hub's own cache

    def pair(self, event: Event) -> "tuple[Model, Model]":
        """The models at the checkpoints around an event."""
        models = []
        for slot, step in zip(self.slots, self.around(event), strict=True):
            model = slot.load(slot.read(self.run[step], weights=True, downloads=self.downloads), None)
            slot.begin(model)
            models.append(model)
        return models[0], models[1]

    def around(self, event: Event) -> tuple[int, int]:
        """The checkpoint before the last one without it, and the one after the first one with it: a change may take a
        few."""
        first, last = self.place(event.step_before), self.place(event.step_after)
        return self.run.steps[max(first - 1, 0)], self.run.steps[min(last + 1, len(self.run) - 1)]

    def place(self, step: int) -> int:
        """Raises the run's own sentence where it has no such step."""
        return self.run.steps.index(self.run[step].step)

    def at_once(self, one: Event, other: Event) -> bool:
        """Whether so few checkpoints lie between two events that the one may be a consequence of the other."""
        return abs(self.place(one.step_after) - self.place(other.step_after)) <= AT_ONCE

    def effect(self, model: "Model", node: Node) -> Float[np.ndarray, "prompt"]:
        """What corrupting what the component writes takes from the metric, prompt by prompt."""
        from circuits.evaluation import Judge

        judge = Judge(model, self.slots[0].tasks[self.task_name])
        kept = model.graph.edge_mask.copy()
        kept[model.graph.writer_index[node]] = False
        return judge.clean - judge.values(kept)


def _check(bench: _Bench, event: Event, events: Sequence[Event]) -> EventCheck:
    steps = bench.around(event)
    before, after = bench.pair(event)
    node = (event.stopped or event.began or event.components_after or event.components_before)[0]
    first, last = bench.effect(before, node), bench.effect(after, node)
    change = last - first
    error = float(change.std(ddof=1) / np.sqrt(len(change)))
    whole = float(change.mean())

    def share_of(nodes: Sequence[Node]) -> float:
        """The share of the change that the weights of these components make."""
        with _exchanged(before, after, nodes):
            moved = bench.effect(before, node).mean() - first.mean(), last.mean() - bench.effect(after, node).mean()
        return float(np.mean(moved)) / whole if whole else 0.0

    own = _components(event)
    mine = share_of(own)
    rivals = [other for other in events if other is not event and bench.at_once(event, other)]
    apart = {tuple(node for node in _components(other) if node not in own) for other in rivals}
    shares = {nodes: share_of(nodes) for nodes in sorted(apart) if nodes}
    best = max(shares, key=lambda nodes: shares[nodes], default=())
    others = shares.get(best, 0.0)
    verdict = _verdict(abs(whole) > CLEAR * error, mine, others)
    cause = best[0] if best and others > 0 else None
    values = float(first.mean()), float(last.mean())
    return EventCheck(event, node, steps, *values, error, mine, cause, others, verdict)


def _components(event: Event) -> list[Node]:
    """Everything that an event names, each once."""
    named = (*event.stopped, *event.began) or (*event.components_before, *event.components_after)
    return list(dict.fromkeys(named))


def _verdict(clear: bool, own: float, others: float) -> Verdict:
    if not clear:
        return "not seen"
    if own >= MOST and own > others:
        return "own weights"
    return "consequence" if others >= MOST and own < MOST else "not told apart"


@contextmanager
def _exchanged(before: "Model", after: "Model", nodes: Sequence[Node]) -> "Iterator[None]":
    """Within, the two models have each other's weights of these components."""
    import torch

    from tracking.interventions.weights import own_weights

    def exchange() -> None:
        with torch.no_grad():
            for node in nodes:
                for (one, mask), (other, _) in zip(own_weights(before, node), own_weights(after, node), strict=True):
                    kept = one[mask].clone()
                    one[mask] = other[mask]
                    other[mask] = kept

    exchange()
    try:
        yield
    finally:
        exchange()
