"""Tracklets: which detections of one unit are one stretch of work, and where two units exchange theirs.

The detections of a unit are strung together over gaps.  At every detection the windows before and after it are
compared: what that says of stretches that go on, against what it says of different units, calibrates the evidence for
everything else.  A string is cut where a gap separates unlike things, and where two units plainly swap.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int

from tracking.lifelines.windows import Detections, Evidence, Windows, calibrate, make_windows

__all__ = ["Around", "Swap", "Tracklet", "calibrated", "cut", "strings_of", "windows_around"]

SWAP_PRIOR = np.log(1e-5)  # of any two units in any one frame
GAP_PRIOR = 3 * np.log(10)  # that a unit silent for one frame was only missed; a hundredth of that for each frame more
UNTAUGHT = np.array([3.0, -1.0, 0.0, -3.0, 0.0])  # weights where a series is too short to learn from


@dataclass(frozen=True)
class Tracklet:
    """A stretch of one unit's detections; `begins` and `ends` say whether its ends have yet to be explained."""

    unit: int
    members: Int[np.ndarray, "member"]
    begins: bool = True
    ends: bool = True


@dataclass(frozen=True)
class Around:
    """For every detection but the first of its string: the one before it, and the windows on either side.

    `stay` is the log likelihood ratio that the unit goes on with what it did.
    """

    detection: Int[np.ndarray, "place"]
    previous: Int[np.ndarray, "place"]
    before: Windows
    after: Windows


@dataclass(frozen=True)
class Swap:
    """Detections `first` and `second` are the first ones after their units exchanged what they do."""

    first: int
    second: int
    before_first: int
    before_second: int
    gain: float


def strings_of(detections: Detections, max_gap: int) -> list[Tracklet]:
    """The detections of each unit, in pieces where it is silent for more than `max_gap` frames."""
    if not len(detections.unit):
        return []
    order = np.lexsort((detections.frame, detections.unit))
    unit, frame = detections.unit[order], detections.frame[order]
    cuts = np.flatnonzero((np.diff(unit) != 0) | (np.diff(frame) > max_gap + 1)) + 1
    return [Tracklet(int(detections.unit[some[0]]), some) for some in np.split(order, cuts)]


def windows_around(detections: Detections, strings: list[Tracklet], size: int) -> Around:
    """Windows of up to `size` detections before and from each detection on."""
    where, previous, before, after = [], [], [], []
    for string in strings:
        for place in range(1, len(string.members)):
            where.append(string.members[place])
            previous.append(string.members[place - 1])
            before.append(string.members[max(0, place - size) : place])
            after.append(string.members[place : place + size])
    windows = make_windows(detections, before), make_windows(detections, after)
    return Around(np.array(where, dtype=np.int64), np.array(previous, dtype=np.int64), *windows)


def calibrated(detections: Detections, around: Around, *, seed: int = 0) -> Evidence:
    """Learn from the run: a unit's windows before and after, against those of two units in one frame."""
    rng = np.random.default_rng(seed)
    noise = detections.noise
    full = np.flatnonzero((around.before.count >= 3) & (around.after.count >= 3))
    frame, unit = detections.frame[around.detection], detections.unit[around.detection]
    kind = detections.kind[unit]
    left, right = [np.array([], dtype=int)], [np.array([], dtype=int)]
    for t in np.unique(frame[full]):
        here = full[frame[full] == t]
        a, b = rng.choice(here, 60), rng.choice(here, 60)
        unlike = (a != b) & (kind[a] == kind[b])
        left.append(a[unlike])
        right.append(b[unlike])
    a, b = np.concatenate(left), np.concatenate(right)
    same = rng.permutation(full)[:3000]
    if len(same) < 20 or len(a) < 20:
        return Evidence(noise, UNTAUGHT)
    return calibrate(noise, (around.before[same], around.after[same]), (around.before[a], around.after[b]))


def cut(
    detections: Detections, strings: list[Tracklet], around: Around, evidence: Evidence, size: int
) -> tuple[list[Tracklet], list[Swap], Float[np.ndarray, "place"]]:
    """Tracklets, the swaps between them, and how likely each unit goes on where it does (log odds)."""
    stay = evidence.ratio(around.before, around.after)
    gap = detections.frame[around.detection] - detections.frame[around.previous] - 1
    odds = stay + np.where(gap > 0, GAP_PRIOR - 2 * np.log(10) * (gap - 1), -SWAP_PRIOR / 2)
    swaps = _swaps(detections, around, evidence, stay, size)
    exchanged = {detection for swap in swaps for detection in (swap.first, swap.second)}
    parted = {int(around.detection[place]) for place in np.flatnonzero((gap > 0) & (odds < 0))}
    pieces = []
    for string in strings:
        at = [place for place, member in enumerate(string.members) if int(member) in exchanged | parted]
        parts = np.split(string.members, at)
        after = [*(int(part[0]) for part in parts[1:]), -1]
        pieces += [
            Tracklet(string.unit, part, int(part[0]) not in exchanged, following not in exchanged)
            for part, following in zip(parts, after, strict=True)
        ]
    return pieces, swaps, odds


def _swaps(detections: Detections, around: Around, evidence: Evidence, stay: np.ndarray, size: int) -> list[Swap]:
    """The plainest swaps, no two of them of one unit within a window of each other."""
    frame, unit = detections.frame[around.detection], detections.unit[around.detection]
    doubtful = (stay < 3) & (around.before.count >= 2) & (around.after.count >= 2) & detections.movable[unit]
    found: list[tuple[float, int, int]] = []
    for t in np.unique(frame[doubtful]):
        here = np.flatnonzero(doubtful & (frame == t))
        rows, columns = (grid.ravel() for grid in np.meshgrid(here, here, indexing="ij"))
        cross = evidence.ratio(around.before[rows], around.after[columns]).reshape(len(here), len(here))
        gain = cross + cross.T - stay[here][:, None] - stay[here][None, :] + SWAP_PRIOR
        alike = detections.kind[unit[here]][:, None] == detections.kind[unit[here]][None, :]
        found += [
            (float(gain[a, b]), int(here[a]), int(here[b])) for a, b in np.argwhere(np.triu(alike & (gain > 0), 1))
        ]
    swaps: list[Swap] = []
    taken: list[tuple[int, int]] = []
    for gain, a, b in sorted(found, key=lambda one: (-one[0], one[1:])):
        pair, t = (int(unit[a]), int(unit[b])), int(frame[a])
        if not any(abs(t - when) < size and which in pair for when, which in taken):
            taken += [(t, which) for which in pair]
            ends = (int(around.previous[a]), int(around.previous[b]))
            swaps.append(Swap(int(around.detection[a]), int(around.detection[b]), *ends, gain))
    return swaps


def neighbours(tracklet: Tracklet) -> list[tuple[int, int]]:
    """Each two successive detections of a tracklet."""
    return [(int(earlier), int(later)) for earlier, later in pairwise(tracklet.members)]
