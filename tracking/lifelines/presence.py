"""Presence of components: off, weak or on at every step, and the spells of being on.

Only a spell has a beginning and an end that something must explain.  An effect just above a bar that falls just
below it has not ended; it was weak all along::

    effect   ─────╮        ╭──╮   ╭─────   strong on one side, nothing on the other: real
             .    ╰────────╯  ╰───╯        bridged: a dip of up to `max_gap` steps
    high ┄┄┄┄┄┄┄┄┄┄┄╭╮┄╭╮┄╭╮┄┄┄┄┄┄┄┄┄┄┄    crosses the bar, with no contrast between the sides: weak, no event
    low  ┄┄┄┄┄┄┄╭╮╭╯╰──╯╰──╯╰╮╭╮┄┄┄┄┄┄┄

Where components are only listed or not, a hidden Markov model with a state for each rate of being listed says which
silence is a missed detection and which listing is a flicker.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from tracking.lifelines.series import Basis, Series

__all__ = ["Bar", "Presence", "Spell", "presence_of", "spells_of"]


@dataclass(frozen=True)
class Bar:
    """When an effect is on, and which of its ends are real.

    Attributes:
        high: it comes on at this effect.
        low: it goes off below this one.
        edge: a spell begins and ends where the raw effect crosses this one.
        contrast: how many times the other side the spell must stand above.
        strong: in units of `high`, what a spell must reach for that contrast to count.
        sharp: the fall within four steps that makes up for a lesser contrast ...
        clear: ... where the spell reaches this, in units of `high`.
    """

    high: float
    low: float
    edge: float
    contrast: float = 4.0
    strong: float = 2.0
    sharp: float = 2.5
    clear: float = 1.2


BARS: dict[Basis, Bar] = {
    "effect": Bar(0.08, 0.03, float(np.sqrt(0.08 * 0.03))),
    "role": Bar(1.0, 0.6, 1.0, contrast=3.0, strong=1.2, sharp=2.0),
}
RATES = np.array([0.004, 0.1, 0.3, 0.55, 0.96])  # how often a component is listed: off, three kinds of weak, on
COMES, GOES = 0.012, 0.012
NEARBY = 4  # steps on either side of a boundary that tell whether it is sharp
FAR = 10  # steps of the other side that a spell is compared with


@dataclass(frozen=True)
class Presence:
    """`on` and `weak` of each component at each step, and the probability of being on."""

    on: Bool[np.ndarray, "step component"]
    weak: Bool[np.ndarray, "step component"]
    probability: Float[np.ndarray, "step component"]


@dataclass(frozen=True)
class Spell:
    """One component on, at the steps `frames` at which it was seen.

    `begins` and `ends` say whether that side asks for an explanation; `contrast` is by how many times the effect there
    exceeds that of the other side of (beginning, end), 1 where there is none.
    """

    component: int
    frames: Int[np.ndarray, "frame"]
    begins: bool = True
    ends: bool = True
    contrast: tuple[float, float] = (1.0, 1.0)
    probability: float = 1.0

    @property
    def first(self) -> int:
        return int(self.frames[0])

    @property
    def last(self) -> int:
        return int(self.frames[-1])


def presence_of(series: Series, *, max_gap: int = 2) -> Presence:
    """Which components are on, weak or off at each step."""
    if series.basis == "detection":
        return _listed_states(series.seen)
    bar = BARS[series.basis]
    effect = series.effect
    smooth = _median_of_three(effect)
    known = np.where(smooth >= bar.high, 1, np.where(smooth <= bar.low, 0, -1))
    state = _held(known)
    for component in np.flatnonzero((known == 1).any(axis=0)):
        _sharpen(state[:, component], effect[:, component], bar.edge)
        _bridge(state[:, component], max_gap)
    on = state == 1
    return Presence(on, ~on & (smooth > bar.low), on.astype(float))


def spells_of(series: Series, presence: Presence, *, shortest: int = 3) -> list[Spell]:
    """All spells of all components, in the order of components and of time.

    One of fewer than `shortest` steps counts only where it touches the beginning or the end of the series.
    """
    found = []
    n_steps = len(series.steps)
    for component, start, end in _runs(presence.on):
        frames = np.arange(start, end)
        frames = frames[series.seen[start:end, component] | (series.basis != "detection")]
        least = 2 if series.basis == "detection" else 1
        at_border = len(frames) >= least and (start <= least - 1 or end >= n_steps - least + 1)
        if len(frames) >= shortest or at_border:
            sure = float(presence.probability[frames, component].mean())
            plain = Spell(component, frames, probability=sure)
            found.append(plain if series.basis == "detection" else _judged(series, presence, plain, start, end))
    return found


def _median_of_three(effect: np.ndarray) -> np.ndarray:
    padded = np.vstack([effect[:1], effect, effect[-1:]])
    return np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0)


def _held(known: Int[np.ndarray, "step component"]) -> Int[np.ndarray, "step component"]:
    """Between the two levels the last clear state holds; before any, the first one."""
    n_steps, n_components = known.shape
    state = np.zeros_like(known)
    first = np.where((known >= 0).any(axis=0), known[(known >= 0).argmax(axis=0), np.arange(n_components)], 0)
    last = first
    for step in range(n_steps):
        last = np.where(known[step] >= 0, known[step], last)
        state[step] = last
    return state


def _sharpen(state: np.ndarray, effect: np.ndarray, edge: float) -> None:
    """Move each boundary to where the raw effect crosses the edge; in place."""
    for step in (np.flatnonzero(np.diff(state) == 1) + 1).tolist():
        place = step
        while place > 0 and effect[place - 1] >= edge and state[place - 1] == 0:
            place -= 1
        state[place:step] = 1
    for step in (np.flatnonzero(np.diff(state) == -1) + 1).tolist():
        place = step
        while place > 0 and effect[place - 1] < edge and state[place - 1] == 1:
            place -= 1
        state[place:step] = 0


def _bridge(state: np.ndarray, max_gap: int) -> None:
    """Fill dips of up to `max_gap` steps inside; in place."""
    on = np.flatnonzero(state)
    for left, right in zip(on[:-1].tolist(), on[1:].tolist(), strict=True):
        if right - left - 1 <= max_gap:
            state[left:right] = 1


def _runs(on: Bool[np.ndarray, "step component"]) -> Iterator[tuple[int, int, int]]:
    """(component, first step, step after the last) of every run of being on."""
    edges = np.diff(np.pad(on.T.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    starts, ends = np.argwhere(edges == 1), np.argwhere(edges == -1)
    for (component, start), (_, end) in zip(starts.tolist(), ends.tolist(), strict=True):
        yield component, start, end


def _judged(series: Series, presence: Presence, spell: Spell, start: int, end: int) -> Spell:
    """With whether its ends are real: far above what is on the other side, or falling to it at once."""
    effect, bar = series.effect[:, spell.component], BARS[series.basis]
    on = presence.on[:, spell.component]
    own = float(np.median(effect[start:end]))
    before, after = np.arange(start - 1, -1, -1), np.arange(end, len(effect))
    sides = [(before, effect[start : start + NEARBY]), (after, effect[max(start, end - NEARBY) : end])]
    real, contrasts = [], []
    for places, near in sides:
        off = places[: int(np.argmax(on[places])) if on[places].any() else len(places)][:FAR]
        if not len(off):
            real.append(True)
            contrasts.append(1.0)
            continue
        jump = float(np.median(near)) >= bar.sharp * float(np.median(effect[off[:NEARBY]]))
        contrast = own / max(float(np.median(effect[off])), 1e-12)
        enough = own >= bar.strong * bar.high or (jump and own >= bar.clear * bar.high)
        real.append(bool(enough and (contrast >= bar.contrast or (jump and contrast >= bar.sharp))))
        contrasts.append(contrast)
    return Spell(spell.component, spell.frames, real[0], real[1], (contrasts[0], contrasts[1]), 1.0)


def _listed_states(seen: Bool[np.ndarray, "step component"]) -> Presence:
    """Most likely states; how often what is on is missed is then estimated once from the series itself."""
    found = _viterbi(seen, RATES)
    if found.on.any():
        missed = float(np.clip(1 - seen[found.on].mean(), 0.005, 0.12))
        found = _viterbi(seen, np.r_[RATES[:-1], 1 - missed])
    return found


def _transitions() -> Float[np.ndarray, "state state"]:
    moves = np.full((5, 5), 1e-4)
    moves[0, 4], moves[4, 0] = COMES, GOES
    moves[0, 1:4], moves[1:4, 0], moves[1:4, 4], moves[4, 1:4], moves[1:4, 1:4] = 7e-4, 1e-3, 1e-3, 7e-4, 2e-3
    np.fill_diagonal(moves, 0)
    np.fill_diagonal(moves, 1 - moves.sum(axis=1))
    return moves


def _viterbi(seen: np.ndarray, rates: np.ndarray) -> Presence:
    """The most likely states, and the probability of being on by passing forward and backward."""
    moves, start = _transitions(), np.array([0.6, 0.02, 0.02, 0.02, 0.34])
    emit = np.where(seen[:, :, None], rates, 1 - rates)
    steps, log_moves, log_emit = range(1, len(seen)), np.log(moves), np.log(emit)
    best, back = np.log(start) + log_emit[0], np.zeros(emit.shape, dtype=np.int64)
    forward, backward = np.ones_like(emit), np.ones_like(emit)
    forward[0] = start * emit[0]
    for step in steps:
        paths = best[:, :, None] + log_moves
        back[step] = paths.argmax(axis=1)
        best = paths.max(axis=1) + log_emit[step]
        ahead = (forward[step - 1] @ moves) * emit[step]
        forward[step] = ahead / ahead.sum(axis=1, keepdims=True)
        behind = (emit[-step] * backward[-step]) @ moves.T
        backward[-step - 1] = behind / behind.sum(axis=1, keepdims=True)
    both = forward * backward
    state = np.zeros(seen.shape, dtype=np.int64)
    state[-1] = best.argmax(axis=1)
    for step in reversed(steps):
        state[step - 1] = np.take_along_axis(back[step], state[step][:, None], axis=1)[:, 0]
    return Presence(state == 4, (state > 0) & (state < 4), both[..., 4] / both.sum(axis=2))
