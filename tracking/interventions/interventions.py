"""Interventions: what is changed in a training, where, and from which step to which.

An **intervention** is one sentence, in text or as a frozen `Intervention`:

    ablate a0.h1 mean until 400                   the component's output is replaced by zero, or by its mean
    clamp a0.h0 to previous-token                 a head's attention pattern is given: previous-token, induction,
    clamp a1.h2 to runs/a@400:a1.h0                 duplicate-token, or that of a head of another checkpoint
    freeze a1.h0 from 100                         the component's weights stay as they are
    mask-gradient a1.h0                           they get no gradient (weight decay and momentum go on)
    graft a1.h0 with runs/b@600 at 300            they become those of the matching, or a named, component elsewhere
    reinitialise a1.h0 seed 3 at 300              they are drawn anew
    set repeat_probability=0 until 300            options of the data or of the optimiser are changed
    reorder repeats-first until 200               the same sequences come in another order

each followed by `from STEP`, `until STEP` (that step is the first without), `at STEP`, or `when CONDITION`.  `a0` is
every head of layer 0; commas join components.  A condition is a rule over measures of the model in training:

    set repeat_probability=0.9 when induction<0.2 at 400

holds where no head's induction score has reached .2 at step 400; without `at` it is looked at every ten steps until it
holds once.  For several heads the largest score counts, unless `mean:` or `min:` stands before the measure, or the name
of one head, `a1.h0:induction`.
"""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from circuits.graph import ModelGraph, Node

__all__ = ["ADJUSTABLE", "EVERY", "Condition", "Intervention", "check_interventions", "contradiction", "named"]

ACTIONS = {
    "ablate": "zero",
    "clamp": "",
    "freeze": "",
    "mask-gradient": "",
    "graft": "",
    "reinitialise": "",
    "set": "",
    "reorder": "",
}
"""Every action, with its usual way."""
AT_ONCE = ("graft", "reinitialise")
PATTERNS = ("previous-token", "induction", "duplicate-token")
ORDERS = ("reversed", "shuffled", "repeats-first", "repeats-last")
ADJUSTABLE = (
    "repeat_probability",
    "shortest_period",
    "longest_period",
    "corrupted_fraction",
    "zipf_exponent",
    "burstiness",
    "learning_rate",
    "weight_decay",
    "batch_size",
    "clip_norm",
)
OF_DATA = ADJUSTABLE[:6] + ("batch_size",)
KEYWORDS = ("from", "until", "at", "when", "to", "with", "seed")
EVERY = 10
"""Steps between two looks at a condition that names no step."""
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


@dataclass(frozen=True)
class Condition:
    """A rule over one measure: `over` the heads (or of one `component`), below or above `level`, at step `at`."""

    measure: str
    level: float
    above: bool = False
    over: str = "max"
    component: str | None = None
    at: int | None = None

    def __post_init__(self) -> None:
        if self.over not in ("max", "min", "mean"):
            raise ValueError(f"expected max, min or mean over the heads, got {self.over!r}")
        if self.component is not None:
            _node(self.component)

    @staticmethod
    def parse(text: str) -> "Condition":
        """
        >>> Condition.parse("induction<0.2 at 400")
        Condition(measure='induction', level=0.2, above=False, over='max', component=None, at=400)

        Raises:
            ValueError: the text is no condition.
        """
        pattern = rf"(?:([\w.]+):)?([\w-]+)\s*([<>])\s*({NUMBER})(?:\s+at\s+(\d+))?"
        if not (match := re.fullmatch(pattern, text.strip())):
            raise ValueError(f"cannot read the condition {text!r}; expected one such as 'induction<0.2 at 400'")
        where, measure, sign, level, at = match.groups()
        over = where if where in ("max", "min", "mean") else "max"
        component = None if where in (None, "max", "min", "mean") else where
        return Condition(measure, float(level), sign == ">", over, component, None if at is None else int(at))

    @property
    def spec(self) -> str:
        where = f"{self.component}:" if self.component else "" if self.over == "max" else f"{self.over}:"
        at = "" if self.at is None else f" at {self.at}"
        return f"{where}{self.measure}{'>' if self.above else '<'}{self.level!r}{at}"

    def due(self, step: int) -> bool:
        """Whether it is to be looked at before the update of this step."""
        return step % EVERY == 0 if self.at is None else step == self.at

    def holds(self, value: float) -> bool:
        return value > self.level if self.above else value < self.level


@dataclass(frozen=True)
class Intervention:
    """One change to a training, in force from step `start` to before step `end`, or from when its condition holds.

    Args:
        action: see the module's list.
        components: names of heads and MLPs; `a0` is every head of layer 0.
        how: `zero` or `mean` (ablate), the pattern or checkpoint (clamp), the checkpoint (graft), the order (reorder).
        options: what `set` changes, as (name, value).
        seed: of `reinitialise` and of `reorder shuffled`.
        start: the first step whose update is affected; None is where the branch begins.
        end: the first step that is not; None is never.

    >>> Intervention.parse("ablate a0.h1 mean from 100 until 400")
    Intervention('ablate a0.h1 mean from 100 until 400')
    """

    action: str
    components: tuple[str, ...] = ()
    how: str = ""
    options: tuple[tuple[str, "float | int | None"], ...] = ()
    seed: int = 0
    start: int | None = None
    end: int | None = None
    condition: Condition | None = None

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(f"no action {self.action!r}; {_near(self.action, ACTIONS)}")
        object.__setattr__(self, "how", self.how or ACTIONS[self.action])
        for name in self.components:
            _node(f"{name}.h0" if re.fullmatch(r"a\d+", name) else name)
        _check_form(self)
        _check_time(self)

    @staticmethod
    def parse(text: str) -> "Intervention":
        """The intervention that a sentence tells.

        Raises:
            ValueError: the sentence cannot be read; the message says where and names what is nearest.
        """
        action, *words = re.sub(r",\s+", ",", text).split() or [""]
        action = "reinitialise" if action == "reinitialize" else action
        if action not in ACTIONS:
            raise ValueError(f"cannot read the intervention {text!r}: no action {action!r}; {_near(action, ACTIONS)}")
        try:
            return Intervention(action, **_read(action, words))
        except ValueError as error:
            raise ValueError(f"cannot read the intervention {text!r}: {error}") from error

    @property
    def spec(self) -> str:
        """The sentence; parsing it gives an equal intervention."""
        parts = [self.action, ",".join(self.components), *(f"{name}={_text(value)}" for name, value in self.options)]
        linking = {"clamp": "to", "graft": "with"}.get(self.action, "")
        parts += [linking, self.how if self.how != ACTIONS[self.action] else ""]
        parts += [f"seed {self.seed}"] if self.seed else []
        word = "at" if self.action in AT_ONCE and self.condition is None else "from"
        parts += [f"{word} {self.start}"] if self.start is not None else []
        parts += [f"until {self.end}"] if self.end is not None else []
        parts += [f"when {self.condition.spec}"] if self.condition is not None else []
        return " ".join(part for part in parts if part)

    def __str__(self) -> str:
        return self.spec

    def __repr__(self) -> str:
        return f"Intervention({self.spec!r})"

    def nodes(self, graph: ModelGraph) -> tuple[Node, ...]:
        """The heads and MLPs that it names.

        Raises:
            ValueError: the model has no such component; the message names the nearest.
        """
        return tuple(dict.fromkeys(node for name in self.components for node in named(name, graph)))

    def in_force(self, step: int, fired: int | None = None) -> bool:
        """Whether the update of `step` is affected, given the step at which its condition held, if any."""
        begin = self.start or 0
        if self.condition is not None:
            if fired is None:
                return False
            begin = max(begin, fired)
        if self.action in AT_ONCE:
            return step == begin
        return begin <= step and (self.end is None or step < self.end)

    @property
    def window(self) -> tuple[int, int | float]:
        """[first, last) of the steps that it may affect."""
        begin = max(self.start or 0, (self.condition.at or 0) if self.condition is not None else 0)
        if self.action in AT_ONCE and self.condition is None:
            return begin, begin + 1
        return begin, float("inf") if self.end is None else self.end


def named(name: str, graph: ModelGraph) -> tuple[Node, ...]:
    """The component of that name, or every head of the layer.

    Raises:
        ValueError: the model has no such component; the message names the nearest.
    """
    known = {node.name: (node,) for node in graph.components}
    known |= {
        f"a{layer}": tuple(node for node in graph.heads if node.layer == layer) for layer in range(graph.n_layers)
    }
    if name not in known:
        alike = [other for other in known if other[0] == name[0]]
        near = f"; {_near(name, alike)} It" if alike else ": it"
        mlps = "each with an MLP" if graph.mlp else "and no MLPs"
        sizes = f"{graph.n_layers} layers of {graph.n_heads} heads, {mlps}"
        raise ValueError(f"the model has no component {name}{near} has {sizes}")
    return known[name]


def check_interventions(
    interventions: Sequence[Intervention], graph: ModelGraph, *, measures: Iterable[str] = ()
) -> None:
    """Whether these can be done together on this model.

    Raises:
        ValueError: a component is not there, a condition is over something that is not measured, or two contradict
            each other.
    """
    measures = tuple(measures)
    for each in interventions:
        for node in each.nodes(graph):
            if each.action == "clamp" and node.kind != "head":
                raise ValueError(f"cannot clamp {node}: only heads have an attention pattern")
        if each.condition is not None:
            if each.condition.measure not in measures:
                name = each.condition.measure
                near = _near(name, measures)
                raise ValueError(f"a condition over {name!r}, which is not measured in training; {near}")
            if each.condition.component is not None:
                named(each.condition.component, graph)
    for first, second in combinations(interventions, 2):
        if why := contradiction(first, second, graph):
            raise ValueError(f"'{first}' and '{second}' contradict each other: {why}; end one before the other starts")


def contradiction(first: Intervention, second: Intervention, graph: ModelGraph) -> str:
    """Why two interventions cannot both be in force; empty where they can."""
    (low, high), (start, end) = first.window, second.window
    if max(low, start) >= min(high, end):
        return ""
    kinds = {first.action, second.action}
    shared = [node.name for node in first.nodes(graph) if node in second.nodes(graph)]
    if kinds == {"set"}:
        names = [name for name, _ in first.options if name in dict(second.options)]
        return f"both set {names[0]}" if names else ""
    if kinds == {"reorder"}:
        return "both order the data"
    if kinds == {"set", "reorder"}:
        setting, order = (first, second) if first.action == "set" else (second, first)
        names = [name for name, _ in setting.options if name in OF_DATA]
        begin, last = setting.window
        sure = setting.condition is None or setting.condition.at is not None
        if names and not (sure and begin <= order.window[0] and order.window[1] <= last):
            return f"{names[0]} changes among the sequences that are dealt out in another order"
        return ""
    if not shared:
        return ""
    if kinds <= {"ablate", "clamp"}:
        return f"both say what {shared[0]} gives"
    if "freeze" in kinds and kinds & set(AT_ONCE):
        return f"{shared[0]} is to stay as it is and to get other weights"
    if kinds <= {"freeze", "graft", "reinitialise"}:
        return f"both say which weights {shared[0]} has"
    return ""


def _check_form(given: Intervention) -> None:
    """What each action must and may have."""
    of_model = given.action not in ("set", "reorder")
    if of_model and not given.components:
        raise ValueError(f"{given.action} needs a component such as a0.h1, m0 or a0 (every head of layer 0)")
    if given.components and not of_model:
        raise ValueError(f"{given.action} takes no component, got {', '.join(given.components)}")
    if (given.action == "set") != bool(given.options):
        raise ValueError("expected options as NAME=VALUE with 'set', and with nothing else")
    for name, _ in given.options:
        if name not in ADJUSTABLE:
            raise ValueError(f"no option {name!r} that can be changed in training; {_near(name, ADJUSTABLE)}")
    if given.action == "ablate" and given.how not in ("zero", "mean"):
        raise ValueError(f"no ablation {given.how!r}; {_near(given.how, ('zero', 'mean'))}")
    if given.action == "reorder" and given.how not in ORDERS:
        raise ValueError(f"no order {given.how!r}; {_near(given.how, ORDERS)}")
    if given.action == "clamp" and given.how not in PATTERNS and "@" not in given.how and "/" not in given.how:
        near = _near(given.how, PATTERNS)
        raise ValueError(f"no pattern {given.how!r}; {near} (a checkpoint is written runs/a@400:a1.h0)")
    if given.action == "graft" and not given.how:
        raise ValueError("graft needs a checkpoint to take from: 'graft a1.h0 with runs/b@600'")
    if given.action in ("freeze", "mask-gradient", "reinitialise", "set") and given.how:
        raise ValueError(f"{given.action} takes no {given.how!r}")


def _check_time(given: Intervention) -> None:
    if (given.start or 0) < 0:
        raise ValueError(f"expected a step from 0 on, got {given.start}")
    if given.end is not None and given.end <= given.window[0]:
        raise ValueError(f"expected an end after the start, got until {given.end} from {int(given.window[0])}")
    if given.condition is not None and given.condition.at is not None and given.condition.at < (given.start or 0):
        raise ValueError(
            f"the condition is looked at at step {given.condition.at}, before it may hold, from step {given.start} on"
        )
    if given.action in AT_ONCE and given.end is not None:
        raise ValueError(f"{given.action} happens at once, at a step; it has no end")


def _read(action: str, words: list[str]) -> dict[str, Any]:
    """The fields that the words after the action tell."""
    clauses: dict[str, list[str]] = {"": []}
    inside = ""
    for word in words:
        if word in KEYWORDS and not (word == "at" and inside == "when"):
            if word in clauses:
                raise ValueError(f"{word!r} stands twice")
            clauses[word], inside = [], word
        else:
            clauses[inside].append(word)
    for word, rest in clauses.items():
        if word and (not rest or (len(rest) > 1 and word != "when")):
            raise ValueError(f"expected one word after {word!r}, got {' '.join(rest) or 'none'}")
    plain = clauses.pop("")
    fields: dict[str, Any] = {}
    if action == "set":
        fields["options"] = tuple(_option(word) for word in plain)
        plain = []
    elif action != "reorder" and plain:
        fields["components"] = tuple(name for name in plain.pop(0).split(",") if name)
    if len(plain) == 1 and action in ("ablate", "clamp", "reorder"):
        fields["how"] = plain.pop(0)
    if plain:
        raise ValueError(f"cannot make sense of {' '.join(plain)!r}; {_near(plain[0], KEYWORDS)}")
    linking = {"clamp": "to", "graft": "with"}.get(action)
    for word, rest in clauses.items():
        if word in ("to", "with"):
            if word != linking or "how" in fields:
                raise ValueError(f"{action} takes no {word!r}" if word != linking else f"{fields['how']!r} is too much")
            fields["how"] = rest[0]
        elif word == "when":
            fields["condition"] = Condition.parse(" ".join(rest))
        elif word == "seed":
            fields["seed"] = _whole("seed", rest[0])
        elif word == "until":
            fields["end"] = _whole("until", rest[0])
        elif "start" in fields:
            raise ValueError("'from' and 'at' both say when it starts")
        else:
            fields["start"] = _whole(word, rest[0])
            if word == "at" and action not in AT_ONCE:
                raise ValueError(f"{action} lasts: say 'from {rest[0]}', and 'until' where it ends")
    return fields


def _option(word: str) -> tuple[str, float | int | None]:
    name, equals, text = word.partition("=")
    if not equals or not (text == "none" or re.fullmatch(NUMBER, text)):
        raise ValueError(f"expected NAME=NUMBER after 'set', got {word!r}")
    if text == "none":
        return name, None
    return name, int(text) if re.fullmatch(r"[-+]?\d+", text) else float(text)


def _text(value: float | int | None) -> str:
    return "none" if value is None else repr(value)


def _whole(word: str, text: str) -> int:
    if not text.isdigit():
        raise ValueError(f"expected a whole number after {word!r}, got {text!r}")
    return int(text)


def _node(name: str) -> Node:
    node = Node.parse(name)
    if node.kind not in ("head", "mlp"):
        raise ValueError(f"expected a head or an MLP, such as a1.h0 or m0, got {name!r}")
    return node


def _near(name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
