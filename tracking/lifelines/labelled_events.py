"""Events of a linked series: what each explanation of a beginning or an end says in steps, components and roles.

An event names the role of the track that it befalls, as far as scores give it one, and what it rests on: which
component stopped and which began, from which effect to which, the next best explanation and how much worse that is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from circuits.graph import Node
from tracking.lifelines.confidence import cause_of, confidence_of, silence
from tracking.lifelines.events import CONSEQUENCE, SILENT, Event
from tracking.lifelines.explanations import Explained
from tracking.lifelines.labels import RoleTable, Switch, switches_of
from tracking.lifelines.linking import Linked
from tracking.lifelines.roles import COMMON_ROLES

__all__ = ["Labelled", "events_of"]

NEAR = 5  # steps of a spell that say its role at one end
SIDE = 3  # steps on either side of an event whose effects are told
SURE = 0.98  # the most that is said of what scores alone show


@dataclass(frozen=True)
class Labelled:
    """A linked series with the roles of its spells, and under which lifeline's name what befalls each is told."""

    run: str
    linked: Linked
    table: RoleTable
    labels: Sequence[Sequence[int]]
    name_of: Callable[[int, str], str]

    def role(self, spell: int, *, at_end: bool) -> str:
        """The role of a spell at one end, or the one that it mostly has; empty where it has none."""
        own = list(self.labels[spell])
        near = [one for one in (own[-NEAR:] if at_end else own[:NEAR]) if one >= 0] or [one for one in own if one >= 0]
        return self.table.roles[max(dict.fromkeys(near), key=near.count)].label if near else ""

    def node(self, spell: int) -> Node:
        return self.linked.series.nodes[self.linked.component(spell)]


def events_of(labelled: Labelled) -> list[Event]:
    """Everything that happened, in the order of steps."""
    linked = labelled.linked
    events = [
        _explained(labelled, one, float(sure)) for one, sure in zip(linked.events, confidence_of(linked), strict=True)
    ]
    events += [_switched(labelled, one) for one in switches_of(labelled.table, linked.spells, labelled.labels)]
    events += _formed(labelled)
    return sorted(events, key=lambda event: (event.step_after, event.event, event.lifeline, str(event)))


def _explained(labelled: Labelled, event: Explained, sure: float) -> Event:
    steps, kind = labelled.linked.series.steps, event.kind
    before = tuple(labelled.node(one) for one in event.before)
    after = tuple(labelled.node(one) for one in event.after)
    old = labelled.role(event.before[0], at_end=True) if event.before else ""
    new = labelled.role(event.after[-1], at_end=False) if event.after else ""
    if kind in ("hand-off", "split"):  # one function: a role that only one side shows is that of both
        old = new = new or old
    if kind == "merge":
        new = old
    own = event.before[0] if kind in ("death", "merge") else event.after[-1]
    ended = event.before[:1] if kind in ("death", "hand-off", "merge") else ()
    begun = event.after[-1:] if kind in ("birth", "hand-off", "split") else ()
    return Event(
        labelled.run,
        labelled.name_of(own, old or new),
        kind,
        steps[event.frame_before],
        steps[event.frame],
        old,
        new,
        before,
        after,
        sure,
        **_rests_on(labelled, event, ended, begun),
        alternative=_alternative(labelled, event),
        margin=event.margin,
    )


def _rests_on(labelled: Labelled, event: Explained, ended: tuple[int, ...], begun: tuple[int, ...]) -> Mapping:
    series = labelled.linked.series
    found: dict = {"measure": series.measure}
    for word, spells in (("stopped", ended), ("began", begun)):
        if spells:
            component = labelled.linked.component(spells[0])
            at = event.frame_before + 1 if word == "stopped" else event.frame
            effect = series.effect[:, component] * series.unit
            found[word] = (series.nodes[component],)
            found[f"{word}_from"] = float(np.median(effect[max(0, at - SIDE) : at]))
            found[f"{word}_to"] = float(np.median(effect[at : at + SIDE]))
    return found


def _alternative(labelled: Labelled, event: Explained) -> str:
    """The next best explanation in words, as `death`, `split from a1.h0` or `consequence of a0.h2`."""
    if silence(labelled.linked, event) < 1:
        return SILENT
    cause = cause_of(labelled.linked, event, labelled.linked.events)
    if cause is not None:
        return CONSEQUENCE + labelled.linked.series.nodes[cause].name
    kind, spells = event.alternative
    link = {"split": "split from", "merge": "merge into", "hand-off": "hand-off with"}.get(kind)
    if not kind:
        return "nothing"
    return f"{link} {labelled.node(spells[0])}" if link and spells else kind


def _switched(labelled: Labelled, switch: Switch) -> Event:
    series, table = labelled.linked.series, labelled.table
    node = (series.nodes[switch.component],)
    old, new = table.roles[switch.old], table.roles[switch.new]
    steps = series.steps[switch.frame_before], series.steps[switch.frame]
    score = table.score[:, switch.component]
    sides = (
        slice(max(0, switch.frame_before - SIDE + 1), switch.frame_before + 1),
        slice(switch.frame, switch.frame + SIDE),
    )
    ahead = [float(np.mean(score[sides[0], switch.old] - score[sides[0], switch.new]))]
    ahead.append(float(np.mean(score[sides[1], switch.new] - score[sides[1], switch.old])))
    noise = 0.05 + max(_noise(table, switch.component, role) for role in (switch.old, switch.new))
    values = [
        _mean_score(table, role, node[0], series.steps[side]) for role in (switch.old, switch.new) for side in sides
    ]
    return Event(
        labelled.run, labelled.name_of(switch.spell, ""), "switch", *steps, old.label, new.label, node, node,
        float(min(ndtr(min(ahead) / noise), SURE)),
        stopped=node, stopped_from=values[0], stopped_to=values[1], began=node, began_from=values[2],
        began_to=values[3], measure=f"{old.role},{new.role}", alternative="nothing", margin=min(ahead) / noise,
    )  # fmt: skip


def _mean_score(table: RoleTable, role: int, node: Node, steps: tuple[int, ...]) -> float:
    known = table.roles[role]
    rows = [row for row, step in enumerate(known.steps) if step in steps]
    return float(np.mean(known.value[rows, known.nodes.index(node)]))


def _noise(table: RoleTable, component: int, role: int) -> float:
    bends = np.abs(np.diff(table.score[:, component, role], n=2))
    return float(np.median(bends)) if len(bends) else 0.0


def _formed(labelled: Labelled) -> list[Event]:
    """Births before the task was done: no effect shows them, so they are read from the score of the role.

    A spell that is there when the task is first done, and has a role, began when the score of that role came to hold
    its bar.
    """
    linked, table = labelled.linked, labelled.table
    series, events = linked.series, []
    if series.basis != "effect":
        return events
    settled = max(series.starts, default=0) + NEAR
    handed = {one.after[-1] for one in linked.events if one.kind != "death"}
    for number, spell in enumerate(linked.spells):
        role = labelled.role(number, at_end=False)
        if number in handed or not role or spell.first > settled:
            continue
        place = next(index for index, one in enumerate(table.roles) if one.label == role)
        has, score = table.has[:, spell.component, place], table.score[:, spell.component, place]
        begin = int(np.argmax(has)) if has.any() else 0
        if table.roles[place].role in COMMON_ROLES or not 0 < begin <= settled or spell.last < begin or settled == NEAR:
            continue
        low, high = float(np.median(score[:begin][-SIDE:])), float(np.median(score[begin:][:SIDE]))
        noise = 0.03 + _noise(table, spell.component, place)
        node = (series.nodes[spell.component],)
        steps = series.steps[begin - 1], series.steps[begin]
        sure = float(min(ndtr((high - low) / noise - 1), SURE))
        events.append(
            Event(labelled.run, labelled.name_of(number, role), "birth", *steps, "", role, (), node, sure, began=node,
                  began_from=low, began_to=high, measure=table.roles[place].role, alternative="nothing",
                  margin=(high - low) / noise)
        )  # fmt: skip
    return events
