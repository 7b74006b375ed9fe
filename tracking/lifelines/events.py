"""Events: what a lifeline is, what can happen to one, and which rows of the tables that is.

A **role lifeline** is one role, whoever carries it; a **component lifeline** is one component, whatever it does.  An
**event** lies between two snapshots and says which components were there before and after it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from circuits.graph import Node

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Event", "EventKind", "Lifeline", "Lifelines"]

EventKind = Literal["birth", "death", "switch", "hand-off", "split", "merge"]


@dataclass(frozen=True)
class Lifeline:
    """One role or one component through training.

    `nodes[i]` are the carriers at `steps[i]` and `shares[i]` their scores; `strength[i]` is the score of the strongest
    component there, carrier or not, and `confidence[i]` the probability that it is above `threshold`.  In a component
    lifeline the carrier is the component itself, and `roles[i]` what it mainly does (empty where nothing).
    """

    run: str
    lifeline: str
    kind: Literal["role", "component"]
    role: str
    steps: tuple[int, ...]
    nodes: tuple[tuple[Node, ...], ...]
    strength: tuple[float, ...]
    confidence: tuple[float, ...]
    shares: tuple[tuple[float, ...], ...] = ()
    roles: tuple[str, ...] = ()
    task: str = ""
    measure: str = ""
    threshold: float = float("nan")

    @property
    def components(self) -> tuple[Node, ...]:
        """Every component that ever carries it, in the order of first appearance."""
        return tuple(dict.fromkeys(node for nodes in self.nodes for node in nodes))

    def carriers(self, step: int) -> tuple[Node, ...]:
        """Who carries it at a step.

        Raises:
            KeyError: the lifeline has no such step.
        """
        if step not in self.steps:
            raise KeyError(f"no step {step} in lifeline {self.lifeline!r}; it has {', '.join(map(str, self.steps))}")
        return self.nodes[self.steps.index(step)]


@dataclass(frozen=True)
class Event:
    """What happened to a lifeline between two steps, and how surely.

    `confidence` of a role's event is the share of at least 100 resamples of the prompts that tell it again: the same
    kind and components, in the same interval between snapshots or a neighbouring one.  Scores without prompt folds
    have the probability by normal noise instead, and chains of nameless components that of their links.
    """

    run: str
    lifeline: str
    event: EventKind
    step_before: int
    step_after: int
    role_before: str
    role_after: str
    components_before: tuple[Node, ...]
    components_after: tuple[Node, ...]
    confidence: float

    def __str__(self) -> str:
        before, after = (" and ".join(node.name for node in nodes) for nodes in self._sides)
        between = f"between steps {self.step_before} and {self.step_after}"
        match self.event:
            case "birth":
                what = f"{after} took up {self.role_after}"
            case "death":
                what = f"{before} gave up {self.role_before}"
            case "switch":
                what = f"{before} switched from {self.role_before} to {self.role_after}"
            case "hand-off":
                what = f"{before} handed {self.role_after} to {after}"
            case "split":
                what = f"{self.role_after} of {before} split over {after}"
            case _:
                what = f"{self.role_before} of {before} merged into {after}"
        return f"{what} {between} (confidence {self.confidence:.2f})"

    @property
    def _sides(self) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
        return self.components_before, self.components_after


@dataclass(frozen=True)
class Lifelines:
    """All lifelines and events of a run (or of several, joined by `tracking.lifelines.alignment`)."""

    lifelines: tuple[Lifeline, ...]
    events: tuple[Event, ...]

    def __repr__(self) -> str:
        roles = ", ".join(line.lifeline for line in self.roles) or "no role"
        return f"<Lifelines of {roles}: {len(self.components)} components, {len(self.events)} events>"

    def __getitem__(self, label: str) -> Lifeline:
        """The lifeline of that label.

        Raises:
            KeyError: there is none; the message names those there are.
        """
        for lifeline in self.lifelines:
            if lifeline.lifeline == label:
                return lifeline
        known = ", ".join(lifeline.lifeline for lifeline in self.lifelines) or "none"
        raise KeyError(f"no lifeline {label!r}; there are {known}")

    @property
    def roles(self) -> tuple[Lifeline, ...]:
        return tuple(lifeline for lifeline in self.lifelines if lifeline.kind == "role")

    @property
    def components(self) -> tuple[Lifeline, ...]:
        return tuple(lifeline for lifeline in self.lifelines if lifeline.kind == "component")

    def lifelines_frame(self) -> "pd.DataFrame":
        """Columns: run, lifeline, role, step, component, strength, confidence; one row a carrier and step."""
        import pandas as pd

        columns = ["run", "lifeline", "role", "step", "component", "strength", "confidence"]
        rows = [row for lifeline in self.lifelines for row in _rows(lifeline)]
        frame = pd.DataFrame(rows, columns=columns)
        return frame.astype({"step": "int64", "strength": "float64", "confidence": "float64"})

    def events_frame(self) -> "pd.DataFrame":
        """Columns: run, lifeline, event, step_before, step_after, role_before, role_after, components_before,
        components_after (names joined by commas), confidence.
        """
        import pandas as pd

        columns = ["run", "lifeline", "event", "step_before", "step_after", "role_before", "role_after"]
        columns += ["components_before", "components_after", "confidence"]
        rows = []
        for event in self.events:
            before, after = (",".join(node.name for node in nodes) for nodes in event._sides)
            rows.append(
                (event.run, event.lifeline, event.event, event.step_before, event.step_after)
                + (event.role_before, event.role_after, before, after, event.confidence)
            )
        frame = pd.DataFrame(rows, columns=columns)
        return frame.astype({"step_before": "int64", "step_after": "int64", "confidence": "float64"})

    def to_frame(self, table: Literal["lifelines", "events"] = "lifelines") -> "pd.DataFrame":
        return self.lifelines_frame() if table == "lifelines" else self.events_frame()


def _rows(lifeline: Lifeline) -> Iterable[tuple]:
    for index, step in enumerate(lifeline.steps):
        role = lifeline.roles[index] if lifeline.roles else lifeline.role
        for node, share in zip(lifeline.nodes[index], lifeline.shares[index], strict=True):
            yield lifeline.run, lifeline.lifeline, role, step, node.name, share, lifeline.confidence[index]
