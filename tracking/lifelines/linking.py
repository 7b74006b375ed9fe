"""Linking: which detection carries on which, over a whole series at once.

1. The detections of one unit make **tracklets** (`tracking.lifelines.tracklets`), cut where two units swap.
2. Every beginning and every end of a tracklet is explained, all of them together in one assignment: a *hand-off* takes
   one end and one beginning (sharp, after a gap, or with an overlap); a beginning may otherwise be a *birth*, or a
   *split* from a unit that lives on; an end a *death*, or a *merge* into a unit that lives on.

What speaks for each is a log likelihood ratio that the run itself calibrates (`tracking.lifelines.windows`), and a
prior. Without skips and overlaps linking frame by frame would be the best there is; the assignment over all frames is
what lets a missed detection, a gap and an overlap be one history instead of a death and a birth.  Times are frame
numbers.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit

from tracking.lifelines.tracklets import Tracklet, calibrated, cut, neighbours, strings_of, windows_around
from tracking.lifelines.windows import Detections, Evidence, Windows, make_windows
from tracking.matching.assignment import assign

__all__ = ["Change", "Link", "Links", "Settings", "link_detections"]

NONE = -1e6


@dataclass(frozen=True)
class Settings:
    """Prior beliefs, one set for all data.

    Attributes:
        window: detections that are averaged before they are compared.
        max_gap: frames for which a unit may be silent without having ended.
        overlap: frames for which both may be there while the one hands over to the other.
        begins: weights of a hand-off, a split and a birth at a beginning (chosen by event F1 on simulated truth: a
            likeness, learned from windows side by side, is too strict with those that a change lies between).
        ends: weights of a merge and a death at an end.
        timing: shares of hand-offs that are sharp, have a gap, have an overlap.
        near: shares of moves to a unit of the same layer, the next, one further away.
        copy: how far, in lengths of a feature vector, a copy may lie from what it was copied from.
        shortest: detections below which a tracklet is taken for a false detection, and has no events.
    """

    window: int = 5
    max_gap: int = 2
    overlap: int = 8
    begins: tuple[float, float, float] = (0.7, 0.02, 0.15)
    ends: tuple[float, float] = (0.02, 0.3)
    timing: tuple[float, float, float] = (0.5, 0.15, 0.35)
    near: tuple[float, float, float] = (0.6, 0.35, 0.03)
    copy: float = 0.12
    shortest: int = 3


@dataclass(frozen=True)
class Link:
    """Detection `after` carries on what detection `before` did, with that probability."""

    before: int
    after: int
    confidence: float


@dataclass(frozen=True)
class Change:
    """An event: units before and after, and the frames between which it happened.

    `frame` is that of the first detection after it, and `frame_before` that of the last one before it.
    """

    kind: Literal["birth", "death", "hand-off", "split", "merge"]
    frame_before: int
    frame: int
    before: tuple[int, ...]
    after: tuple[int, ...]
    confidence: float


@dataclass(frozen=True)
class Links:
    """All links and changes; `chain` numbers for each detection the function that it is part of, 0 first seen."""

    links: tuple[Link, ...]
    changes: tuple[Change, ...]
    chain: Int[np.ndarray, "detection"] = field(repr=False)


@dataclass(frozen=True)
class _Scene:
    """The tracklets as arrays."""

    detections: Detections
    evidence: Evidence
    settings: Settings
    pieces: list[Tracklet]
    unit: Int[np.ndarray, "piece"]
    first: Int[np.ndarray, "piece"]
    last: Int[np.ndarray, "piece"]
    heads: Windows
    tails: Windows

    @staticmethod
    def of(detections: Detections, evidence: Evidence, settings: Settings, pieces: list[Tracklet]) -> "_Scene":
        norm = np.linalg.norm(detections.features, axis=1)
        heads = [_in_full(piece.members, norm, settings.window) for piece in pieces]
        tails = [_in_full(piece.members[::-1], norm, settings.window) for piece in pieces]
        return _Scene(
            detections,
            evidence,
            settings,
            pieces,
            np.array([piece.unit for piece in pieces], dtype=np.int64),
            np.array([detections.frame[piece.members[0]] for piece in pieces], dtype=np.int64),
            np.array([detections.frame[piece.members[-1]] for piece in pieces], dtype=np.int64),
            make_windows(detections, heads),
            make_windows(detections, tails),
        )

    @property
    def movable(self) -> np.ndarray:
        return self.detections.movable[self.unit]

    def open_ends(self) -> tuple[np.ndarray, np.ndarray]:
        """Tracklets whose end, and whose beginning, is to be explained; one near the last frame may only be missed."""
        real = np.array([len(piece.members) >= self.settings.shortest for piece in self.pieces], dtype=bool)
        ends = np.array([piece.ends for piece in self.pieces], dtype=bool)
        begins = np.array([piece.begins for piece in self.pieces], dtype=bool)
        seen_to_end = self.last < self.detections.n_frames - self.settings.max_gap
        return np.flatnonzero(real & ends & seen_to_end), np.flatnonzero(real & begins & (self.first > 0))

    def nearness(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Log of how much more likely a move is to a unit so far away than to any unit."""
        layer = self.detections.layer
        share = np.array([*self.settings.near, *[self.settings.near[-1] / 10] * (int(np.ptp(layer)) + 1)])
        apart = np.abs(layer[self.unit[a]] - layer[self.unit[b]])
        sides = np.where(apart > 0, 2, 1)
        return np.log(share[apart] * len(np.unique(layer)) / sides)

    def index_at(self, piece: int, frame: int) -> int:
        """How many detections of a tracklet lie before a frame."""
        return int(np.searchsorted(self.detections.frame[self.pieces[piece].members], frame))


def link_detections(detections: Detections, settings: Settings | None = None, *, seed: int = 0) -> Links:
    """Link a series and say what happened in it.

    Args:
        detections: the active units of every frame.
        settings: priors; the defaults serve all levels of noise.
        seed: of the choice of pairs that the evidence is calibrated on.
    """
    settings = settings or Settings()
    strings = strings_of(detections, settings.max_gap)
    if not strings:
        return Links((), (), np.zeros(0, dtype=np.int64))
    around = windows_around(detections, strings, settings.window)
    evidence = calibrated(detections, around, seed=seed)
    pieces, swaps, odds = cut(detections, strings, around, evidence, settings.window)
    sure = dict(zip(around.detection.tolist(), expit(odds).tolist(), strict=True))
    links = [Link(a, b, sure[b]) for piece in pieces for a, b in neighbours(piece)]
    changes = []
    for swap in swaps:
        certain = float(expit(swap.gain))
        links += [Link(swap.before_first, swap.second, certain), Link(swap.before_second, swap.first, certain)]
        for old, new in ((swap.before_first, swap.second), (swap.before_second, swap.first)):
            frames = int(detections.frame[old]), int(detections.frame[new])
            units = (int(detections.unit[old]),), (int(detections.unit[new]),)
            changes.append(Change("hand-off", *frames, *units, certain))
    going_on = [(link.before, link.after) for link in links]
    found = _explain(_Scene.of(detections, evidence, settings, pieces))
    links += found[0]
    changes += found[1]
    chain = _chains(len(detections.unit), going_on + [(link.before, link.after) for link in found[2]], detections)
    changes.sort(key=lambda change: (change.frame, change.kind, change.before, change.after))
    return Links(tuple(links), tuple(changes), chain)


def _in_full(members: np.ndarray, norm: np.ndarray, size: int) -> np.ndarray:
    """Up to `size` of the ten detections at this end of a tracklet that show it at full strength."""
    some = members[:10]
    strong = some[norm[some] >= 0.75 * np.median(norm[members])]
    return (strong if len(strong) >= 2 else some)[:size]


def _explain(scene: _Scene) -> tuple[list[Link], list[Change], list[Link]]:
    """Links and changes at the ends of tracklets, and those of the links that carry a function on."""
    ends, starts = scene.open_ends()
    gain = _hand_offs(scene, ends, starts)
    split, parent = _splits(scene, starts)
    merge, into = _merges(scene, ends)
    spare = np.maximum(merge, 0)[:, None] + np.maximum(split, 0)[None, :]
    partner = assign(gain - spare)
    taken = {int(j): int(i) for i, j in enumerate(partner) if j >= 0}
    weight = np.exp(np.clip(gain, NONE, 30))
    at_start = 1 + weight.sum(axis=0) + np.exp(np.clip(split, NONE, 30))
    at_end = 1 + weight.sum(axis=1) + np.exp(np.clip(merge, NONE, 30))
    links, changes, carried = [], [], []
    for j, b in enumerate(starts.tolist()):
        if j in taken:
            i = taken[j]
            sure = float(weight[i, j] / max(at_start[j], at_end[i]))
            link, change = _moved(scene, int(ends[i]), b, sure, "hand-off")
            carried.append(link)
        elif split[j] > 0:
            link, change = _moved(scene, int(parent[j]), b, float(np.exp(min(split[j], 30)) / at_start[j]), "split")
        else:
            frames = int(scene.first[b]) - 1, int(scene.first[b])
            changes.append(Change("birth", *frames, (), (int(scene.unit[b]),), float(1 / at_start[j])))
            continue
        links.append(link)
        changes.append(change)
    for i, a in enumerate(ends.tolist()):
        if partner[i] >= 0:
            continue
        if merge[i] > 0:
            link, change = _merged(scene, a, int(into[i]), float(np.exp(min(merge[i], 30)) / at_end[i]))
            links.append(link)
            changes.append(change)
        else:
            frames = int(scene.last[a]), int(scene.last[a]) + 1
            changes.append(Change("death", *frames, (int(scene.unit[a]),), (), float(1 / at_end[i])))
    return links, changes, carried


def _moved(scene: _Scene, a: int, b: int, sure: float, kind: Literal["hand-off", "split"]) -> tuple[Link, Change]:
    """From the last detection of `a` before `b` begins to the first of `b`."""
    old = int(scene.pieces[a].members[scene.index_at(a, int(scene.first[b])) - 1])
    new = int(scene.pieces[b].members[0])
    units = int(scene.unit[a]), int(scene.unit[b])
    after = (units[1],) if kind == "hand-off" else units
    frames = int(scene.detections.frame[old]), int(scene.first[b])
    return Link(old, new, sure), Change(kind, *frames, (units[0],), after, sure)


def _merged(scene: _Scene, a: int, c: int, sure: float) -> tuple[Link, Change]:
    old = int(scene.pieces[a].members[-1])
    new = int(scene.pieces[c].members[scene.index_at(c, int(scene.last[a]) + 1)])
    units = int(scene.unit[a]), int(scene.unit[c])
    frames = int(scene.last[a]), int(scene.last[a]) + 1
    return Link(old, new, sure), Change("merge", *frames, units, (units[1],), sure)


def _hand_offs(scene: _Scene, ends: np.ndarray, starts: np.ndarray) -> Float[np.ndarray, "end start"]:
    """What each hand-off is worth against a death and a birth, in nats."""
    gain = np.full((len(ends), len(starts)), NONE)
    if not gain.size:
        return gain
    settings, kind = scene.settings, scene.detections.kind
    i, j = (grid.ravel() for grid in np.meshgrid(np.arange(len(ends)), np.arange(len(starts)), indexing="ij"))
    a, b = ends[i], starts[j]
    later = scene.first[b] - scene.last[a]
    sharp, gap, overlap = settings.timing
    timing = np.select(
        [later == 1, (later > 1) & (later <= settings.max_gap + 1), (later <= 0) & (later > -settings.overlap)],
        [sharp, gap / max(settings.max_gap, 1), overlap / max(settings.overlap, 1)],
        0.0,
    )
    able = scene.movable[a] & (kind[scene.unit[a]] == kind[scene.unit[b]]) & (scene.unit[a] != scene.unit[b])
    fine = (timing > 0) & able & (scene.first[a] < scene.first[b])
    a, b, i, j, timing = (array[fine] for array in (a, b, i, j, timing))
    ratio = scene.evidence.ratio(scene.tails[a], scene.heads[b])
    prior = np.log(settings.begins[0] / settings.begins[2] / len(ends))
    gain[i, j] = ratio + np.log(scene.detections.n_frames * timing) + scene.nearness(a, b) + prior
    return gain


def _splits(scene: _Scene, starts: np.ndarray) -> tuple[Float[np.ndarray, "start"], Int[np.ndarray, "start"]]:
    """For each beginning the best unit that lives on and that it may be a copy of, and what that is worth."""
    settings, kind = scene.settings, scene.detections.kind
    worth, parent = np.full(len(starts), NONE), np.full(len(starts), -1)
    for place, b in enumerate(starts):
        t = int(scene.first[b])
        lives = (scene.first < t - 1) & (scene.last > t + settings.overlap - 2) & scene.movable
        able = np.flatnonzero(lives & (kind[scene.unit] == kind[scene.unit[b]]) & (scene.unit != scene.unit[b]))
        if not scene.movable[b] or not len(able):
            continue
        at = [scene.index_at(int(c), t) for c in able]
        half = settings.window // 2
        around = [scene.pieces[c].members[max(0, k - half) : k + 2 * half] for c, k in zip(able, at, strict=True)]
        windows = make_windows(scene.detections, around)
        own = np.full(len(able), b)
        ratio = scene.evidence.ratio(windows, scene.heads[own], tolerance=settings.copy, fewer_edges=0.15)
        score = ratio + scene.nearness(able, own) + np.log(settings.begins[1] / settings.begins[2] / len(able))
        worth[place], parent[place] = score.max(), able[score.argmax()]
    return worth, parent


def _merges(scene: _Scene, ends: np.ndarray) -> tuple[Float[np.ndarray, "end"], Int[np.ndarray, "end"]]:
    """For each end the best unit that may have taken it in, and what that is worth.

    A unit that itself began within an overlap before is no candidate: that is a hand-off.
    """
    settings, size = scene.settings, scene.settings.window
    worth, into = np.full(len(ends), NONE), np.full(len(ends), -1)
    for place, a in enumerate(ends):
        t = int(scene.last[a]) + 1
        lives = (scene.first < t - settings.overlap) & (scene.last > t + 2) & scene.movable
        able = np.flatnonzero(lives & (scene.unit != scene.unit[a])) if scene.movable[a] else np.array([], dtype=int)
        at = [scene.index_at(int(c), t) for c in able]
        before = [scene.pieces[c].members[max(0, k - size) : k] for c, k in zip(able, at, strict=True)]
        after = [scene.pieces[c].members[k : k + size] for c, k in zip(able, at, strict=True)]
        known = [k for k in range(len(able)) if min(len(before[k]), len(after[k])) >= 2]
        if not known:
            continue
        old, new = (make_windows(scene.detections, [some[k] for k in known]) for some in (before, after))
        score = _absorbed(scene.evidence, old, new, scene.tails[np.full(len(known), a)])
        score = score + np.log(settings.ends[0] / settings.ends[1] / len(known))
        worth[place], into[place] = score.max(), able[known[int(score.argmax())]]
    return worth, into


def _absorbed(evidence: Evidence, before: Windows, after: Windows, gone: Windows) -> Float[np.ndarray, "pair"]:
    """Log likelihood ratio of the later window being a sum of the earlier one and the one that is gone.

    For features, half the squared residual that the sum saves, each up to scale; for edges, how much more the sum
    looks like what is seen, at ten nats for a cosine of one.
    """

    def residual(base: np.ndarray, least: float, most: float) -> np.ndarray:
        scale = (after.features * base).sum(axis=1) / np.maximum((base * base).sum(axis=1), 1e-12)
        scale = np.clip(scale, least, most)[:, None]
        return ((after.features - scale * base) ** 2 / evidence.noise).sum(axis=1)

    saved = residual(before.features, 0.3, 2.0) - residual(before.features + gone.features, 0.5, 1.1)
    features = np.clip(saved / (2 * (1 / before.count + 1 / after.count)), -12, 12)
    both = before.edges.multiply(before.strength[:, None]) + gone.edges.multiply(gone.strength[:, None])
    length = np.sqrt(np.asarray(both.multiply(both).sum(axis=1)).ravel())
    like_both = np.asarray(after.edges.multiply(both).sum(axis=1)).ravel() / np.maximum(length, 1e-12)
    like_before = np.asarray(after.edges.multiply(before.edges).sum(axis=1)).ravel()
    return np.clip(features + 10 * (like_both - like_before), -12, 12)


def _chains(size: int, links: list[tuple[int, int]], detections: Detections) -> np.ndarray:
    """The number of each detection's chain, in order of first appearance."""
    from scipy import sparse
    from scipy.sparse.csgraph import connected_components

    pairs = np.array(links, dtype=int).reshape(-1, 2)
    graph = sparse.csr_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    label = connected_components(graph, directed=False)[1]
    order = np.lexsort((detections.unit, detections.frame))
    seen = dict.fromkeys(label[order].tolist())
    number = {old: new for new, old in enumerate(seen)}
    return np.array([number[one] for one in label.tolist()], dtype=np.int64)
