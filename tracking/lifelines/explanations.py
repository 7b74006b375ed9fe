"""Explanations of beginnings and ends: hand-off, split, merge, birth, death, all of a series weighed together.

Every beginning of a spell and every end asks for one explanation.  A hand-off explains one of each at once:

    a ───────╮              end of a:        death, merge into a living one, or hand-off to b
    b        ╰────────      beginning of b:  birth, split from a living one, or hand-off from a
    c ────────────────      lives on: may have given half of what it does to b, or taken in a

What each is worth is in nats against a death or a birth.  A hand-off is compared with the best *separate* explanations
of its two ends, in one assignment over the whole series; the next best explanation and its distance are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from tracking.lifelines.effect_jumps import Jumps, conserved, shared_life
from tracking.lifelines.likeness import Likeness
from tracking.lifelines.presence import Spell
from tracking.lifelines.priors import OVERLAP, PRIORS, Priors, nearness
from tracking.lifelines.series import Series
from tracking.lifelines.windows import SIZE, Windows, make_windows, rows_of
from tracking.matching.assignment import assign

__all__ = ["Explained", "Scene", "explain", "make_scene"]

NONE = -1e6
Rival = tuple[str, tuple[int, ...], float]  # kind, spells, what it is worth
MOST = 30.0
FULL = 0.75  # of the usual effect of a spell, from which on it is at full strength
SETTLE = 2  # steps after a task is first done in which what begins is an artefact of that
ALIKE = 3.0  # nats that likeness alone may say for a split or merge where effects are known: many heads are alike
CROWD = 1.2  # log of the number of beginnings at one step from which on none of them is a copy


@dataclass(frozen=True)
class Scene:
    """The spells of a series as arrays; `heads` and `tails` are the windows at full strength at either end."""

    series: Series
    likeness: Likeness
    jumps: Jumps
    max_gap: int
    spells: Sequence[Spell]
    component: Int[np.ndarray, "spell"]
    first: Int[np.ndarray, "spell"]
    last: Int[np.ndarray, "spell"]
    heads: Windows
    tails: Windows

    @property
    def priors(self) -> Priors:
        return PRIORS[self.series.basis]

    @property
    def movable(self) -> Bool[np.ndarray, "spell"]:
        return self.series.movable[self.component]

    def windows(self, members: Sequence[int] | np.ndarray, frames: Sequence[np.ndarray]) -> Windows:
        rows = rows_of(len(self.series.nodes), self.component[np.asarray(members, dtype=int)], frames)
        return make_windows(self.series, rows)


@dataclass(frozen=True)
class Explained:
    """One event between two steps, by numbers of spells.

    `worth` is in nats against the plainest explanation (birth or death), `margin` how much worse the next best one is,
    `alternative` its kind with the spells involved, `ratio` the likeness and `share` the posterior probability; `swap`
    tells a hand-off that is half of an exchange.
    """

    kind: str
    before: tuple[int, ...]
    after: tuple[int, ...]
    frame_before: int
    frame: int
    worth: float
    margin: float
    alternative: tuple[str, tuple[int, ...]]
    ratio: float
    share: float
    swap: bool = False


def make_scene(series: Series, spells: Sequence[Spell], likeness: Likeness, jumps: Jumps, max_gap: int) -> Scene:
    component = np.array([one.component for one in spells], dtype=np.int64)
    first = np.array([one.first for one in spells], dtype=np.int64)
    last = np.array([one.last for one in spells], dtype=np.int64)
    sides = []
    for backwards in (False, True):
        frames = [_full_strength(series, one, backwards) for one in spells]
        sides.append(make_windows(series, rows_of(len(series.nodes), component, frames)))
    return Scene(series, likeness, jumps, max_gap, spells, component, first, last, sides[0], sides[1])


def _full_strength(series: Series, spell: Spell, backwards: bool) -> np.ndarray:
    """Up to a window of the ten steps at this end at which the spell is at full strength."""
    some = (spell.frames[::-1] if backwards else spell.frames)[:10]
    effect = series.effect[:, spell.component]
    strong = some[effect[some] >= FULL * np.median(effect[spell.frames])]
    return np.sort((strong if len(strong) >= 2 else some)[:SIZE])


def open_ends(scene: Scene, shortest: int = 3) -> tuple[Int[np.ndarray, "end"], Int[np.ndarray, "start"]]:
    """Spells whose end, and whose beginning, is to be explained."""
    series, spells = scene.series, scene.spells
    n_steps = len(series.steps)
    listed = series.basis == "detection"
    size = np.array([len(one.frames) for one in spells], dtype=np.int64)
    real = (size >= shortest) | (not listed and n_steps < 2 * shortest)
    ends = np.array([one.ends for one in spells], dtype=bool)
    begins = np.array([one.begins for one in spells], dtype=bool)
    settle = SETTLE if series.basis == "effect" else 0
    artefact = np.zeros(len(spells), dtype=bool)
    for start in series.starts:
        artefact |= (scene.first >= start) & (scene.first <= start + settle)
    fresh = begins & (scene.first > series.first + int(listed)) & ~artefact & (size >= min(2, n_steps - 1))
    over = ends & (scene.last < n_steps - 1 - (scene.max_gap if listed else 0)) & (scene.last >= series.first)
    early = scene.first <= series.first
    return np.flatnonzero((real | early) & over), np.flatnonzero((real | (scene.last == n_steps - 1)) & fresh)


@dataclass(frozen=True)
class _Single:
    """The best single explanation of each beginning (split) or end (merge) by one that lives on."""

    worth: Float[np.ndarray, "open"]
    partner: Int[np.ndarray, "open"]
    ratio: Float[np.ndarray, "open"]
    second: Float[np.ndarray, "open"]

    @staticmethod
    def of(scored: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> "_Single":
        """From (candidates, worth, ratio) of each."""
        worth, partner = np.full(len(scored), NONE), np.full(len(scored), -1)
        ratio, second = np.zeros(len(scored)), np.full(len(scored), NONE)
        for place, (able, score, alike) in enumerate(scored):
            if len(able):
                best = int(score.argmax())
                worth[place], partner[place], ratio[place] = score[best], able[best], alike[best]
                second[place] = np.sort(score)[-2] if len(score) > 1 else NONE
        return _Single(worth, partner, ratio, second)


def explain(scene: Scene) -> list[Explained]:
    """One explanation for every open beginning and end."""
    ends, starts = open_ends(scene)
    gain, ratio = _hand_offs(scene, ends, starts)
    split, merge = _splits(scene, starts), _merges(scene, ends)
    spare = np.maximum(merge.worth, 0)[:, None] + np.maximum(split.worth, 0)[None, :]
    partner = assign(gain - spare)
    weight = np.exp(np.clip(gain, NONE, MOST))
    at_start = 1 + weight.sum(axis=0) + np.exp(np.clip(split.worth, NONE, MOST))
    at_end = 1 + weight.sum(axis=1) + np.exp(np.clip(merge.worth, NONE, MOST))
    taken = {int(j): i for i, j in enumerate(partner) if j >= 0}
    found = []
    for j, b in enumerate(starts.tolist()):
        rivals: list[Rival] = [("birth", (), 0.0)]
        if split.partner[j] >= 0:
            rivals.append(("split", (int(split.partner[j]),), float(split.worth[j])))
        rivals += [("hand-off", (int(ends[i]),), float(gain[i, j])) for i in range(len(ends)) if gain[i, j] > NONE]
        if j in taken:
            i = taken[j]
            a = int(ends[i])
            rivals = [one for one in rivals if one[:2] != ("hand-off", (a,))]
            rivals += [("merge", (int(merge.partner[i]),), float(merge.worth[i]))] if merge.partner[i] >= 0 else []
            rivals += [("hand-off", (int(starts[k]),), float(gain[i, k])) for k in range(len(starts)) if k != j]
            share = float(weight[i, j] / max(at_start[j], at_end[i]))
            frames = _passing(scene, a, b)
            found.append(_told("hand-off", (a,), (b,), frames, float(gain[i, j]), rivals, float(ratio[i, j]), share))
        elif split.worth[j] > 0:
            parent = int(split.partner[j])
            rivals = [one for one in rivals if one[0] != "split"] + [("split", (), float(split.second[j]))]
            share = float(np.exp(min(split.worth[j], MOST)) / at_start[j])
            frames = int(scene.first[b]) - 1, int(scene.first[b])
            worth, alike = float(split.worth[j]), float(split.ratio[j])
            found.append(_told("split", (parent,), (parent, b), frames, worth, rivals, alike, share))
        else:
            frames = int(scene.first[b]) - 1, int(scene.first[b])
            found.append(_told("birth", (), (b,), frames, 0.0, rivals[1:], 0.0, float(1 / at_start[j])))
    for i, a in enumerate(ends.tolist()):
        if partner[i] >= 0:
            continue
        rivals = [("death", (), 0.0)]
        rivals += [("hand-off", (int(starts[j]),), float(gain[i, j])) for j in range(len(starts)) if gain[i, j] > NONE]
        frames = int(scene.last[a]), int(scene.last[a]) + 1
        if merge.worth[i] > 0:
            into = int(merge.partner[i])
            rivals += [("merge", (), float(merge.second[i]))]
            share = float(np.exp(min(merge.worth[i], MOST)) / at_end[i])
            worth, alike = float(merge.worth[i]), float(merge.ratio[i])
            found.append(_told("merge", (a, into), (into,), frames, worth, rivals, alike, share))
        else:
            rivals += [("merge", (int(merge.partner[i]),), float(merge.worth[i]))] if merge.partner[i] >= 0 else []
            found.append(_told("death", (a,), (), frames, 0.0, rivals[1:], 0.0, float(1 / at_end[i])))
    return found


def _passing(scene: Scene, a: int, b: int) -> tuple[int, int]:
    """The steps between which a hand-off passes: where one is silent, or, while both are on, larger than the other."""
    old, new = scene.spells[a], scene.spells[b]
    if new.first > old.last:
        return old.last, new.first
    both = np.arange(new.first, old.last + 1)
    effect = scene.series.effect
    larger = effect[both, new.component] >= effect[both, old.component]
    at = int(both[np.argmax(larger)]) if larger.any() else int(both[-1]) + 1
    return at - 1, at


def _told(
    kind: str,
    before: tuple[int, ...],
    after: tuple[int, ...],
    frames: tuple[int, int],
    worth: float,
    rivals: Sequence[Rival],
    ratio: float,
    share: float,
) -> Explained:
    """With the best of the rivals as the alternative."""
    best = max(rivals, key=lambda one: one[2], default=("", (), -12.0))
    plain = {"birth": "split", "death": "merge"}.get(kind, "")
    name = best[0] if best[2] > NONE else plain
    margin = worth - max(best[2], -12.0)
    return Explained(kind, before, after, *frames, worth, margin, (name, best[1]), ratio, share)


def _hand_offs(
    scene: Scene, ends: np.ndarray, starts: np.ndarray
) -> tuple[Float[np.ndarray, "end start"], Float[np.ndarray, "end start"]]:
    """What each hand-off is worth against a death and a birth, and how alike the two are."""
    gain, alike = np.full((len(ends), len(starts)), NONE), np.zeros((len(ends), len(starts)))
    if not gain.size:
        return gain, alike
    series, priors, component = scene.series, scene.priors, scene.component
    i, j = (grid.ravel() for grid in np.meshgrid(np.arange(len(ends)), np.arange(len(starts)), indexing="ij"))
    a, b = ends[i], starts[j]
    later = scene.first[b] - scene.last[a]
    sharp, gap, overlap = priors.timing
    gapped, overlaps = (later > 1) & (later <= scene.max_gap + 1), (later <= 0) & (later > -OVERLAP)
    timing = np.select([later == 1, gapped, overlaps], [sharp, gap / max(scene.max_gap, 1), overlap / OVERLAP], 0.0)
    able = (timing > 0) & scene.movable[a] & scene.movable[b] & (component[a] != component[b])
    able &= (scene.first[a] < scene.first[b]) & (scene.last[a] < scene.last[b])
    a, b, i, j, timing = (array[able] for array in (a, b, i, j, timing))
    if not len(a):
        return gain, alike
    ratio = scene.likeness.ratio(scene.tails[a], scene.heads[b])
    total = ratio + np.log(timing / _chance(scene, starts)[j]) + nearness(series, component[a], component[b])
    total += priors.strict + _hand_off_prior(len(ends), len(starts), priors.handed)
    if series.basis != "detection":  # the effect is about as large
        change = np.log(np.maximum(scene.heads.effect[b], 1e-9) / np.maximum(scene.tails.effect[a], 1e-9))
        total += conserved(change, 0.8, 0.0, keeps=0.9, width=0.82, most=2.0)
    for place, (old, new) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
        if scene.first[new] <= scene.last[old] and series.basis != "role":  # scores of roles do not add
            sides = [(int(component[k]), scene.spells[k].frames) for k in (old, new)]
            total[place] += shared_life(series, *sides)
    gain[i, j], alike[i, j] = total, ratio
    return gain, alike


def _hand_off_prior(n_ends: int, n_starts: int, handed: float) -> float:
    """Log odds of one end and one beginning belonging together against a birth: no more are handed on than end."""
    expected = handed * min(n_ends, n_starts)
    return float(np.log(expected / (n_ends * n_starts) / max(1 - expected / n_starts, 0.05)))


def _chance(scene: Scene, starts: np.ndarray) -> Float[np.ndarray, "start"]:
    """How likely something else begins at the same step: where many begin at once, none of them tells much."""
    n_steps = len(scene.series.steps)
    at = np.bincount(scene.first[starts], minlength=n_steps).astype(float)
    others = at[scene.first[starts]] - 1
    return (1 + others) / (n_steps + max(len(starts) - 1, 0))


def _splits(scene: Scene, starts: np.ndarray) -> _Single:
    """For each beginning the best one that lives on and may have given it half of what it does."""
    series, priors, component, jumps = scene.series, scene.priors, scene.component, scene.jumps
    scored = []
    for b in starts.tolist():
        step = int(scene.first[b])
        until = step + OVERLAP - 2
        lives = (scene.first < step - 1) & (
            scene.last > (until if series.basis == "detection" else min(until, len(series.steps) - 2))
        )
        able = np.flatnonzero(lives & scene.movable & (component != component[b]))
        if not len(able) or not scene.movable[b]:
            scored.append((able[:0], np.zeros(0), np.zeros(0)))
            continue
        head = _full_strength(series, scene.spells[b], False)
        around = [scene.spells[k].frames for k in able.tolist()]
        around = [some[(some >= head.min() - 2) & (some <= head.max() + 2)][: SIZE + 2] for some in around]
        own = np.full(len(able), b)
        tolerance = max(0.1, priors.copy) if series.grows else 0.1
        ratio = scene.likeness.ratio(
            scene.windows(able, around), scene.heads[own], tolerance=tolerance, fewer_edges=0.15
        )
        past = [(scene.spells[k].component, scene.spells[k].frames) for k in able.tolist()]
        size = np.array([np.median(series.effect[some[some < step][-SIZE:], one]) for one, some in past])
        young = scene.spells[b].frames[:3]
        share = np.clip(np.median(series.effect[young, component[b]]) / np.maximum(size, 1e-9), 0.05, 0.9)
        add_up = conserved(
            jumps.size[step, component[able]], jumps.at(step)[component[able]], np.log1p(-share), keeps=priors.conserve
        )
        add_up = np.where(ratio > 0, add_up, np.minimum(add_up, 1.0))  # a loss speaks for a split only of what is alike
        says = ratio if series.basis == "detection" else np.minimum(ratio, ALIKE)
        crowd = np.log(max(1, int((np.abs(scene.first[starts] - step) <= 1).sum())))
        prior = np.log(priors.copied / len(able)) - (crowd if crowd > CROWD else 0)
        scored.append((able, says + add_up + nearness(series, component[able], component[own]) + prior, ratio))
    return _Single.of(scored)


def _merges(scene: Scene, ends: np.ndarray) -> _Single:
    """For each end the best one that lives on and may have taken it in; not one that itself has just begun."""
    series, priors, component, jumps = scene.series, scene.priors, scene.component, scene.jumps
    scored = []
    for a in ends.tolist():
        step = int(scene.last[a]) + 1
        grown = (scene.first < step - OVERLAP) | (scene.first <= series.first)
        lives = grown & (scene.first < step - 2) & (scene.last > step + 1)
        able = np.flatnonzero(lives & scene.movable & (component != component[a]))
        if not len(able) or not scene.movable[a]:
            scored.append((able[:0], np.zeros(0), np.zeros(0)))
            continue
        frames = [scene.spells[k].frames for k in able.tolist()]
        before = scene.windows(able, [some[some < step][-SIZE:] for some in frames])
        after = scene.windows(able, [some[some >= step][:SIZE] for some in frames])
        gone = scene.tails[np.full(len(able), a)]
        adds = _absorbed(scene, before, after, gone)
        last = scene.spells[a].frames[-3:]
        share = np.clip(np.median(series.effect[last, component[a]]) / np.maximum(before.effect, 1e-9), 0.05, 5.0)
        step = min(step, len(series.steps) - 1)
        jump, noise = jumps.size[step, component[able]], jumps.at(step)[component[able]]
        add_up = conserved(jump, noise, np.log1p(share), keeps=priors.conserve)
        if series.grows:
            score = adds + np.minimum(add_up, 1.5)
        else:  # scores of roles do not add: one that was absorbed was a copy
            alike = scene.likeness.ratio(before, gone)
            score = np.maximum(np.minimum(alike, ALIKE), np.minimum(adds, 2.0)) + add_up
        scored.append((able, score + np.log(priors.absorbed / len(able)), adds))
    return _Single.of(scored)


def _absorbed(scene: Scene, before: Windows, after: Windows, gone: Windows) -> Float[np.ndarray, "pair"]:
    """Log likelihood ratio of the later window being a sum of the earlier one and the one that is gone."""
    like, grows, n_features = scene.likeness, scene.series.grows, scene.series.features.shape[2]
    variance = like.noise * (like.scale[before.component] * (1 / before.count + 1 / after.count))[:, None]
    variance = variance + (0.05 * like.spread) ** 2

    def fit(base: np.ndarray, least: float, most: float) -> np.ndarray:
        scale = (after.features * base).sum(axis=1) / np.maximum((base * base).sum(axis=1), 1e-12)
        scale = np.clip(scale, least, most)[:, None] if grows else 1.0
        length = ((after.features - scale * base) ** 2 / variance).sum(axis=1)
        return -(4.0 + n_features) / 2 * np.log1p(length / 4.0)

    weight = (gone.effect / np.maximum(gone.effect + before.effect, 1e-12))[:, None]
    both = before.features + gone.features if grows else (1 - weight) * before.features + weight * gone.features
    features = fit(both, 0.5, 1.1) - fit(before.features, 0.3, 2.0)
    sums = before.edges.multiply(before.strength[:, None]) + gone.edges.multiply(gone.strength[:, None])
    length = np.sqrt(np.asarray(sums.multiply(sums).sum(axis=1)).ravel())
    like_both = np.asarray(after.edges.multiply(sums).sum(axis=1)).ravel() / np.maximum(length, 1e-12)
    like_before = np.asarray(after.edges.multiply(before.edges).sum(axis=1)).ravel()
    return np.clip(features + 10 * (like_both - like_before), -12, 12)
