"""Linking: which spells of which components are one function, solved for a whole series at once.

1. **Presence** says where each component is on (`tracking.lifelines.presence`).
2. Spells of one component with a few silent steps between are joined where they are alike.
3. **Swaps** cut two spells at once (`tracking.lifelines.swaps`).
4. All beginnings and ends are **explained** together (`tracking.lifelines.explanations`).

A **track** is what hand-offs and swaps make of spells: one function, whoever carries it::

    a0.h3   ───────track 0──────╮              ╭── track 1
    a0.h7       ╭──track 1──────│──────────────╯
    a0.h5       │               ╰───track 0───────────────
              birth         hand-off        hand-off

Times are numbers of steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from tracking.lifelines.effect_jumps import effect_jumps
from tracking.lifelines.explanations import Explained, explain, make_scene
from tracking.lifelines.likeness import Likeness, learn_likeness
from tracking.lifelines.presence import Presence, Spell, presence_of, spells_of
from tracking.lifelines.series import Series
from tracking.lifelines.swaps import Swap, find_swaps
from tracking.lifelines.windows import SIZE, make_windows, rows_of

__all__ = ["Linked", "link_series"]


@dataclass(frozen=True)
class Linked:
    """The spells of a series, what explains each of their ends, and the track that each is part of."""

    series: Series
    presence: Presence
    spells: tuple[Spell, ...]
    events: tuple[Explained, ...]
    track: Int[np.ndarray, "spell"]

    def component(self, spell: int) -> int:
        return self.spells[spell].component


def link_series(series: Series, *, max_gap: int = 2, seed: int = 0) -> Linked:
    """Link a series and explain everything that begins or ends in it.

    Args:
        series: what each component does at each step.
        max_gap: steps for which one may be silent without having ended.
        seed: of the choice of windows that likeness is learned from.
    """
    presence = presence_of(series, max_gap=max_gap)
    spells = spells_of(series, presence)
    if not spells:
        return Linked(series, presence, (), (), np.zeros(0, dtype=np.int64))
    likeness = learn_likeness(series, spells, np.random.default_rng(seed))
    spells = _joined(series, spells, likeness, max_gap)
    jumps = effect_jumps(series, presence.on)
    swaps = find_swaps(series, spells, likeness)
    pieces, exchanged = _cut(spells, swaps)
    scene = make_scene(series, pieces, likeness, jumps, max_gap)
    events = sorted([*exchanged, *explain(scene)], key=lambda one: (one.frame, one.kind, one.before, one.after))
    return Linked(series, presence, tuple(pieces), tuple(events), _tracks(pieces, events))


def _joined(series: Series, spells: Sequence[Spell], likeness: Likeness, max_gap: int) -> list[Spell]:
    """The same component, back after a few silent steps and doing the same, was never away."""
    found: list[Spell] = []
    n_components = len(series.nodes)
    for one in spells:
        last = found[-1] if found else None
        if last is None or last.component != one.component or one.first - last.last > max_gap + 2:
            found.append(one)
            continue
        sides = [
            make_windows(series, rows_of(n_components, [one.component], [frames]))
            for frames in (last.frames[-SIZE:], one.frames[:SIZE])
        ]
        if likeness.ratio(*sides)[0] > 0:
            frames = np.r_[last.frames, one.frames]
            contrast = (last.contrast[0], one.contrast[1])
            sure = (last.probability + one.probability) / 2
            found[-1] = Spell(one.component, frames, last.begins, one.ends, contrast, sure)
        else:
            found.append(one)
    return found


def _cut(spells: Sequence[Spell], swaps: Sequence[Swap]) -> tuple[list[Spell], list[Explained]]:
    """Spells in pieces, and the two hand-offs that each swap is; ends at a swap ask for nothing more."""
    at: dict[int, list[int]] = {}
    for swap in swaps:
        for number, place in zip((swap.one, swap.other), swap.place, strict=True):
            at.setdefault(number, []).append(place)
    pieces: list[Spell] = []
    where: dict[tuple[int, int], int] = {}  # (spell, place of a cut) to the piece that begins there
    for number, one in enumerate(spells):
        places = sorted(at.get(number, []))
        for part, (start, end) in enumerate(zip([0, *places], [*places, len(one.frames)], strict=True)):
            where[number, start] = len(pieces)
            begins, ends = one.begins and part == 0, one.ends and part == len(places)
            pieces.append(replace(one, frames=one.frames[start:end], begins=begins, ends=ends))
    events = []
    for swap in swaps:
        new = [where[number, place] for number, place in zip((swap.one, swap.other), swap.place, strict=True)]
        share = float(1 / (1 + np.exp(-min(swap.gain, 30.0))))
        for old, other in ((new[0] - 1, new[1]), (new[1] - 1, new[0])):
            frames = pieces[old].last, pieces[other].first
            stay = ("", (old,))
            said = (swap.gain, swap.gain, stay, -swap.stay, share, True)
            events.append(Explained("hand-off", (old,), (other,), *frames, *said))
    return pieces, events


def _tracks(pieces: Sequence[Spell], events: Sequence[Explained]) -> Int[np.ndarray, "spell"]:
    """The number of each spell's track, in the order in which tracks begin."""
    carries_on = {one.after[0]: one.before[0] for one in events if one.kind == "hand-off"}
    root = np.arange(len(pieces))
    for place in range(len(pieces)):
        one = place
        while one in carries_on:
            one = carries_on[one]
        root[place] = one
    order = sorted(set(root.tolist()), key=lambda one: (pieces[one].first, pieces[one].component))
    number = {one: place for place, one in enumerate(order)}
    return np.array([number[one] for one in root.tolist()], dtype=np.int64)
