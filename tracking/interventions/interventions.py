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
    reweight bigrams by 1.1 from 100 until 200    sequences of a source of data count more, or less

each followed by `from STEP`, `until STEP` (that step is the first without), `at STEP`, or `when CONDITION`.  `a0` is
every head of layer 0; commas join components.  A condition is a rule over measures of the model in training:

    set repeat_probability=0.9 when induction<0.2 at 400

holds where no head's induction score has reached .2 at step 400; without `at` it is looked at every ten steps until it
holds once.  For several heads the largest score counts, unless `mean:` or `min:` stands before the measure, or the name
of one head, `a1.h0:induction`.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from circuits.graph import ModelGraph, Node
from circuits.suggestions import suggest
from tracking.interventions.actions import ACTIONS, ADJUSTABLE, Action
from tracking.interventions.components import head_or_mlp, named
from tracking.interventions.conditions import NUMBER, Condition

__all__ = ["Intervention", "check_interventions", "contradiction"]

KEYWORDS = ("from", "until", "at", "when", "to", "with", "by", "seed")


@dataclass(frozen=True)
class Intervention:
    """One change to a training, in force from step `start` to before step `end`, or from when its condition holds.

    Args:
        action: see the module's list.
        components: names of heads and MLPs; `a0` is every head of layer 0.
        how: `zero` or `mean` (ablate), the pattern or checkpoint (clamp), the checkpoint (graft), the order (reorder).
        options: what `set` changes, as (name, value), or the source that `reweight` reweights, with its factor.
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
            raise ValueError(f"no action {self.action!r}; {suggest(self.action, ACTIONS)}")
        object.__setattr__(self, "how", self.how or self.kind.usual)
        for name in self.components:
            head_or_mlp(f"{name}.h0" if re.fullmatch(r"a\d+", name) else name)
        _check_form(self)
        _check_time(self)

    @property
    def kind(self) -> Action:
        """What its action does, from the table `ACTIONS`."""
        return ACTIONS[self.action]

    @staticmethod
    def parse(text: str) -> "Intervention":
        """The intervention that a sentence tells.

        Raises:
            ValueError: the sentence cannot be read; the message says where and names what is nearest.
        """
        action, *words = re.sub(r",\s+", ",", text).split() or [""]
        action = "reinitialise" if action == "reinitialize" else action
        if action not in ACTIONS:
            raise ValueError(f"cannot read the intervention {text!r}: no action {action!r}; {suggest(action, ACTIONS)}")
        try:
            return Intervention(action, **_read(action, words))
        except ValueError as error:
            raise ValueError(f"cannot read the intervention {text!r}: {error}") from error

    @property
    def spec(self) -> str:
        """The sentence; parsing it gives an equal intervention."""
        sign = " by " if self.kind.trainer == "factors" else "="
        options = (f"{name}{sign}{_text(value)}" for name, value in self.options)
        parts = [self.action, ",".join(self.components), *options]
        parts += [self.kind.linking, self.how] if self.how != self.kind.usual else []
        parts += [f"seed {self.seed}"] if self.seed else []
        word = "at" if self.kind.once and self.condition is None else "from"
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
        if self.kind.once:
            return step == begin
        return begin <= step and (self.end is None or step < self.end)

    @property
    def window(self) -> tuple[int, int | float]:
        """[first, last) of the steps that it may affect."""
        begin = max(self.start or 0, (self.condition.at or 0) if self.condition is not None else 0)
        if self.kind.once and self.condition is None:
            return begin, begin + 1
        return begin, float("inf") if self.end is None else self.end


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
            if each.kind.heads_only and node.kind != "head":
                raise ValueError(f"cannot {each.action} {node}: only heads have an attention pattern")
        if each.condition is not None:
            if each.condition.measure not in measures:
                name = each.condition.measure
                near = suggest(name, measures)
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
    trainers = {first.kind.trainer, second.kind.trainer}
    if trainers == {"options"}:
        names = [name for name, _ in first.options if name in dict(second.options)]
        return f"both set {names[0]}" if names else ""
    if trainers == {"factors"}:
        names = [name for name, _ in first.options if name in dict(second.options)]
        return f"both reweight {names[0]}" if names else ""
    if trainers == {"order"}:
        return "both order the data"
    if trainers == {"options", "order"}:
        return _mixed_order(*sorted((first, second), key=lambda each: each.kind.trainer == "order"))
    shared = [node.name for node in first.nodes(graph) if node in second.nodes(graph)]
    if not shared or not first.kind.settles or first.kind.settles != second.kind.settles:
        return ""
    if first.kind.settles == "output":
        return f"both say what {shared[0]} gives"
    if bool(first.kind.once) != bool(second.kind.once):
        return f"{shared[0]} is to stay as it is and to get other weights"
    return f"both say which weights {shared[0]} has"


def _mixed_order(setting: Intervention, order: Intervention) -> str:
    """Why options cannot change while sequences are dealt out in another order; empty where they can."""
    names = [name for name, _ in setting.options if ADJUSTABLE[name] == "data"]
    begin, last = setting.window
    sure = setting.condition is None or setting.condition.at is not None
    if names and not (sure and begin <= order.window[0] and order.window[1] <= last):
        return f"{names[0]} changes among the sequences that are dealt out in another order"
    return ""


def _check_form(given: Intervention) -> None:
    """What each action must and may have."""
    if given.kind.of_model and not given.components:
        raise ValueError(f"{given.action} needs a component such as a0.h1, m0 or a0 (every head of layer 0)")
    if given.components and not given.kind.of_model:
        raise ValueError(f"{given.action} takes no component, got {', '.join(given.components)}")
    if (given.kind.trainer in ("options", "factors")) != bool(given.options):
        raise ValueError("expected options as NAME=VALUE with 'set', and SOURCE by FACTOR with 'reweight'")
    for name, value in given.options:
        if given.kind.trainer == "factors":
            if value is None or not value >= 0:
                raise ValueError(f"expected a factor from 0 on for source {name!r}, got {value}")
        elif name not in ADJUSTABLE:
            raise ValueError(f"no option {name!r} that can be changed in training; {suggest(name, ADJUSTABLE)}")
    given.kind.check_way(given.action, given.how)


def _check_time(given: Intervention) -> None:
    if (given.start or 0) < 0:
        raise ValueError(f"expected a step from 0 on, got {given.start}")
    if given.end is not None and given.end <= given.window[0]:
        raise ValueError(f"expected an end after the start, got until {given.end} from {int(given.window[0])}")
    if given.condition is not None and given.condition.at is not None and given.condition.at < (given.start or 0):
        raise ValueError(
            f"the condition is looked at at step {given.condition.at}, before it may hold, from step {given.start} on"
        )
    if given.kind.once and given.end is not None:
        raise ValueError(f"{given.action} happens at once, at a step; it has no end")


def _read(action: str, words: list[str]) -> dict[str, Any]:
    """The fields that the words after the action tell."""
    clauses = _clauses(words)
    plain, kind = clauses.pop(""), ACTIONS[action]
    fields: dict[str, Any] = {}
    if kind.trainer == "options":
        fields["options"], plain = tuple(_option(word) for word in plain), []
    elif kind.trainer == "factors":
        if len(plain) != 1 or not re.fullmatch(NUMBER, " ".join(clauses.get("by", [""]))):
            raise ValueError("expected a source and a factor, as in 'reweight bigrams by 1.1'")
        fields["options"] = ((plain.pop(), float(clauses.pop("by")[0])),)
    elif kind.of_model and plain:
        fields["components"] = tuple(name for name in plain.pop(0).split(",") if name)
    if len(plain) == 1 and kind.ways:
        fields["how"] = plain.pop(0)
    if plain:
        raise ValueError(f"cannot make sense of {' '.join(plain)!r}; {suggest(plain[0], KEYWORDS)}")
    for word, rest in clauses.items():
        if word in ("to", "with", "by"):
            if word != kind.linking or "how" in fields:
                wrong = f"{action} takes no {word!r}" if word != kind.linking else f"{fields['how']!r} is too much"
                raise ValueError(wrong)
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
            if word == "at" and not kind.once:
                raise ValueError(f"{action} lasts: say 'from {rest[0]}', and 'until' where it ends")
    return fields


def _clauses(words: list[str]) -> dict[str, list[str]]:
    """The words by the keyword that they follow; those before any under the empty one."""
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
    return clauses


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
