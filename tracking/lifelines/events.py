"""Events: what a lifeline is, what can happen to one, and which rows of the tables that is.

A **role lifeline** is one role, whoever carries it; a **component lifeline** is one component, whatever it does.  An
**event** lies between two snapshots and says which components were there before and after it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from circuits.graph import Node
from tracking.history.columns import frame_of
from tracking.history.history import History

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CONSEQUENCE", "EVENT_KINDS", "SILENT", "Event", "EventKind", "Lifeline", "Lifelines"]

NAN = float("nan")
CONSEQUENCE = "consequence of "  # the alternative of one that may follow from what befell another component
SILENT = "silent"  # the alternative of an end that too few checkpoints follow: it may only be silent
NAMELESS = "a function"  # in the words of an event that no role names


@dataclass(frozen=True)
class EventKind:
    """One kind of event.

    Attributes:
        about: what it is.
        words: a clause with the places {before}, {after}, {role_before} and {role_after}.
        verb: what stands between the components before and those after, where a mark is explained in few words.
        changes: whether something other than a beginning or an end happened: such events stand in the findings.
        find: finds them in a history and its role lifelines; linking itself finds those that need no such function.
    """

    about: str
    words: str
    verb: str
    changes: bool = True
    find: "Callable[[History, Sequence[Lifeline]], Iterable[Event]] | None" = None


EVENT_KINDS: dict[str, EventKind] = {
    "birth": EventKind("a component begins to carry a role", "{after} took up {role_after}", "takes it up", False),
    "death": EventKind("a component ceases to carry a role", "{before} gave up {role_before}", "gives it up", False),
    "switch": EventKind(
        "the same component goes over to another role",
        "{before} switched from {role_before} to {role_after}",
        "switches",
    ),
    "hand-off": EventKind(
        "one component stops and another carries the role on", "{before} handed {role_after} to {after}", "hands it to"
    ),
    "lead change": EventKind(
        "several carry a role throughout, and another comes to matter most",
        "{before} gave the lead in {role_after} to {after}",
        "gives the lead to",
    ),
    "split": EventKind(
        "another component joins, as a copy of one that stays",
        "{role_after} of {before} split over {after}",
        "splits into",
    ),
    "merge": EventKind(
        "a component is absorbed by one that stays", "{role_before} of {before} merged into {after}", "merges into"
    ),
}
"""Every kind of event by name, with its words; an event of another kind is refused."""


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

    `confidence` is the share of such events that are right, on series of known truth (`tracking.lifelines.confidence`).

    What it rests on: the components that `stopped` and those that `began`, each with its strength before and after;
    `measure` says what these strengths are of.  `alternative` is the next best explanation (a kind of event, `nothing`,
    or `consequence of` another component that changes at that time), and `margin` how much worse the next best kind of
    event is, in nats.  Empty or NaN where not known.

    Raises:
        ValueError: there is no such kind of event.
    """

    run: str
    lifeline: str
    event: str
    step_before: int
    step_after: int
    role_before: str
    role_after: str
    components_before: tuple[Node, ...]
    components_after: tuple[Node, ...]
    confidence: float
    stopped: tuple[Node, ...] = ()
    stopped_from: float = NAN
    stopped_to: float = NAN
    began: tuple[Node, ...] = ()
    began_from: float = NAN
    began_to: float = NAN
    measure: str = ""
    alternative: str = ""
    margin: float = NAN

    def __post_init__(self) -> None:
        if self.event not in EVENT_KINDS:
            raise ValueError(f"expected a kind of event among {', '.join(EVENT_KINDS)}, got {self.event!r}")

    def __str__(self) -> str:
        before, after = (" and ".join(map(str, nodes)) for nodes in (self.components_before, self.components_after))
        roles = {"role_before": self.role_before or NAMELESS, "role_after": self.role_after or NAMELESS}
        what = EVENT_KINDS[self.event].words.format(before=before, after=after, **roles)
        what += " perhaps" if self.alternative == SILENT else ""
        return f"{what} between steps {self.step_before} and {self.step_after} (confidence {self.confidence:.2f})"


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
        """The table `lifelines`: one row a carrier and step."""
        return frame_of((row for lifeline in self.lifelines for row in _carried(lifeline)), "lifelines")

    def events_frame(self) -> "pd.DataFrame":
        """The table `events`."""
        return frame_of(self.events, "events")

    def to_frame(self, table: Literal["lifelines", "events"] = "lifelines") -> "pd.DataFrame":
        return self.lifelines_frame() if table == "lifelines" else self.events_frame()


class _Carried(NamedTuple):
    """A row of the table of lifelines."""

    run: str
    lifeline: str
    role: str
    step: int
    component: str
    strength: float
    confidence: float


def _carried(lifeline: Lifeline) -> Iterator[_Carried]:
    for index, step in enumerate(lifeline.steps):
        role = lifeline.roles[index] if lifeline.roles else lifeline.role
        for node, share in zip(lifeline.nodes[index], lifeline.shares[index], strict=True):
            yield _Carried(lifeline.run, lifeline.lifeline, role, step, str(node), share, lifeline.confidence[index])
