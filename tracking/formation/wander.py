"""Wander: whether a rise is more than curves like it make by chance.

Question: had none of these components come to do anything, how often would one of them still rise so high?

A score follows its own past, so a curve that nothing moves still drifts up and down: y_t = c + ρ (y_{t-1} - c) + u_t.
All curves of a measure share ρ, the median of their correlations (corrected as Kendall's) plus 1.64 of its standard
errors.  The scale of a curve is the root mean square of its innovations u away from its own lasting changes of state,
so that a real rise does not hide itself.  Innovations of all curves, each divided by its scale, are drawn anew into
runs that only wander.  A rise, from the mean before it to the highest value that the next checkpoint confirms, has the
family-wise

    p = 1 - Π_j (1 - P(s_j R ≥ rise)),    R the rises of the drawn runs, with a Pareto tail beyond them,

over all curves j that could have carried it.  A rise must also have brought a **new level**: while it holds the bar,
y_t - ρ y_{t-1} lies above its mean before, which a curve on its way back would not show.  The larger of both is the p.

Axes: `curve` the components of one measure, `step` the checkpoints.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from tracking.lifelines.states import holds

__all__ = ["FEWEST", "Wander", "family_p", "level_of_no_wander", "wander_of"]

FEWEST = 20  # checkpoints from which on wander and training can be told apart
LASTING = 5  # checkpoints
AROUND = 2  # checkpoints next to a change of state, whose innovations are the change
N_DRAWN = 4000
INFLATION = 1.1  # scales are estimates


@dataclass(frozen=True)
class Wander:
    """How far curves drift: `scale` of each (NaN where too little of it is quiet), `past` the correlation ρ.

    `rises` are sorted rises of drawn runs, and `tops` their sorted highest confirmed values, in scales.
    """

    past: float
    scale: Float[np.ndarray, "curve"]
    rises: Float[np.ndarray, "drawn"]
    tops: Float[np.ndarray, "drawn"]


def wander_of(
    values: Float[np.ndarray, "curve step"], lasting: Bool[np.ndarray, "curve step"], *, seed: int = 0
) -> Wander | None:
    """The wander of the curves of one measure; None where nothing is quiet for long enough to tell.

    Args:
        values: the curves.
        lasting: where each has its bar and keeps it.
        seed: of the drawn runs.
    """
    if values.shape[1] < FEWEST:
        return None
    past = _past(values, lasting)
    if past is None:
        return None
    scale, pool = np.full(len(values), np.nan), []
    for place, (curve, on) in enumerate(zip(values, lasting, strict=True)):
        quiet = _quiet(curve[1:] - past * curve[:-1], on)
        if quiet is None:
            continue
        innovations, n_levels = quiet
        loss = len(innovations) / max(len(innovations) - 1.5 * n_levels, 1)
        own = np.sqrt(np.mean(innovations**2) * loss)
        if own > 1e-12:
            scale[place] = own / np.sqrt(1 - past**2)
            pool.append(np.clip(innovations / own, -30, 30))
    if not pool:
        return None
    rises, tops = _drawn(np.concatenate(pool), past, values.shape[1], np.random.default_rng(seed))
    return Wander(past, scale, rises, tops)


def _past(values: np.ndarray, lasting: np.ndarray) -> float | None:
    """ρ: a little more than the curves' typical correlation, of stretches before anything lasting happened."""
    found = []
    for curve, on in zip(values, lasting, strict=True):
        until = int(on.argmax()) if on.any() else len(curve)
        stretch = curve[:until] - curve[:until].mean() if until >= FEWEST else np.zeros(1)
        power = float((stretch**2).sum())
        if power > 1e-20:
            n = len(stretch)
            found.append((float((stretch[1:] * stretch[:-1]).sum()) / power * n + 1) / (n - 4))
    if not found:
        return None
    middle = float(np.median(found))
    error = 1.25 * np.sqrt((1 - min(middle, 0.95) ** 2) / values.shape[1] / len(found))
    return float(np.clip(middle + 1.64 * error, 0, 1 - 1 / max(values.shape[1], 33)))


def _quiet(moves: np.ndarray, on: np.ndarray) -> tuple[np.ndarray, int] | None:
    """Innovations away from at most two lasting changes, about the level of each state; and the number of levels."""
    changes = np.flatnonzero(on[1:] != on[:-1]) + 1
    keep = np.ones(len(moves), dtype=bool)
    if len(changes) <= 2:
        for change in changes:
            keep[max(change - 1 - AROUND, 0) : change + AROUND] = False
    parts = [moves[keep & (on[1:] == state)] for state in (False, True)]
    parts = [part - np.median(part) for part in parts if len(part) >= 4]
    innovations = np.concatenate(parts) if parts else np.empty(0)
    return (innovations, len(parts)) if len(innovations) >= 6 else None


def _drawn(pool: np.ndarray, past: float, n_steps: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Sorted rises, and sorted highest confirmed values, of runs that only wander, in units of their scale."""
    warm_up = int(min(200, 5 / (1 - past)))
    moves = rng.choice(pool, (n_steps + warm_up, N_DRAWN)) * np.sqrt(1 - past**2)
    runs = np.empty_like(moves)
    runs[0] = moves[0] / np.sqrt(1 - past**2)
    for index in range(1, len(moves)):
        runs[index] = past * runs[index - 1] + moves[index]
    runs = runs[warm_up:]
    tops = np.minimum(runs[:-1], runs[1:]).max(axis=0)
    # The level before a rise is itself a draw.
    before = runs[: max(3, n_steps // 4)].mean(axis=0)
    return np.sort(INFLATION * np.maximum(tops - before, 1e-9)), np.sort(INFLATION * np.maximum(tops, 1e-9))


def _beyond(sorted_draws: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """P(draw ≥ size), with a Pareto tail above the top fiftieth of the draws."""
    n = len(sorted_draws)
    p = (n - np.searchsorted(sorted_draws, sizes)) / n
    cut = sorted_draws[int(0.98 * n)]
    tail = np.log(sorted_draws[int(0.98 * n) :] / max(cut, 1e-9)).mean()
    power = 1 / max(float(tail), 1e-3)
    return np.where(sizes > cut, 0.02 * (np.maximum(sizes, 1e-9) / max(cut, 1e-9)) ** -power, p)


def _any(p: np.ndarray, share: float) -> float:
    """P(at least one), where only a share of the family could be judged."""
    return float(-np.expm1(np.log1p(-np.minimum(p, 1 - 1e-12)).sum() / share))


def family_p(
    values: Float[np.ndarray, "curve step"], bar: float, *, floor: float = 0.0, seed: int = 0
) -> Float[np.ndarray, "curve"]:
    """For each curve that rises to its bar, the family-wise p of its first rise; NaN for others, and where untold."""
    n_curves, n_steps = values.shape
    found = np.full(n_curves, np.nan)
    if n_steps < FEWEST:
        return found
    level = floor + 0.8 * (bar - floor)
    lasting = holds(values, np.arange(n_steps, dtype=float), level, floor=level, dwell=LASTING - 1.0)
    wander = wander_of(values, lasting, seed=seed)
    if wander is None:
        return found
    judged = np.isfinite(wander.scale)
    tops = np.minimum(values[:, :-1], values[:, 1:]).max(axis=1)
    for place in np.flatnonzero((tops >= level) & (values[:, 0] < bar)):
        until = (
            int((values[place] >= bar).argmax())
            if lasting[place, 0] or not lasting[place].any()
            else int(lasting[place].argmax())
        )
        rise = tops[place] - values[place, : max(until, 1)].mean()
        scales = wander.scale[judged]
        by_height = _any(_beyond(wander.rises, rise / scales), float(judged.mean()))
        own = wander.scale[place] if judged[place] else scales.max()
        by_level = _new_level(values[place], lasting[place], wander.past, own * np.sqrt(1 - wander.past**2))
        found[place] = max(by_height, by_level) if by_level else min(2 * by_height, 1.0)
    return found


def _new_level(curve: np.ndarray, on: np.ndarray, past: float, scale: float) -> float:
    """One-sided p that the stretch with the bar is that of a curve on its way back to the level before.

    1 where nothing lasts: a stretch shorter than five checkpoints cannot be told from wander.  0 where training ends
    before five were seen.
    """
    if not on.any() or on[0]:
        return 1.0
    first = int(on.argmax())
    moves, index = curve[1:] - past * curve[:-1], np.arange(1, len(curve))
    with_it, before = moves[(index > first + AROUND) & on[1:]], moves[index < first - AROUND + 1]
    if len(with_it) < 3:  # where training ends so soon, the height alone decides, at twice its p
        return 0.0 if on[-1] else 1.0
    if len(before) < 2:
        before = np.array([(1 - past) * curve[: max(first, 1)].mean()])
    t = (with_it.mean() - before.mean()) / (scale * np.sqrt(1 / len(with_it) + 1 / len(before)))
    return float(stats.t.sf(t, max(len(with_it) + len(before) - 2, 2)))


def level_of_no_wander(values: Float[np.ndarray, "curve step"], *, rate: float = 0.05, seed: int = 0) -> float:
    """The level that no curve of a measure holds by wander, but with probability `rate`; NaN where it cannot be told.

    It is what a measure without a known bar is offered.
    """
    n_curves, n_steps = values.shape
    if n_steps < FEWEST or n_curves < 8:
        return float("nan")
    changed = np.zeros(values.shape, dtype=bool)
    for place, curve in enumerate(values):
        split = _best_split(curve)
        on = np.arange(n_steps) >= split
        moves = curve[1:] - 0.5 * curve[:-1]
        scale = float(np.sqrt(np.mean((moves - np.median(moves)) ** 2)))
        if split and scale > 0 and _new_level(curve, on, 0.5, scale) <= rate / n_curves:
            changed[place] = on
    wander = wander_of(values, changed, seed=seed)
    if wander is None:
        return float("nan")
    judged = np.isfinite(wander.scale)
    scale = wander.scale[judged]
    centre = np.array([curve[~on].mean() for curve, on in zip(values[judged], changed[judged], strict=True)])
    low, high = float(np.median(values)), float(centre.max() + 200 * scale.max())
    for _ in range(40):
        middle = (low + high) / 2
        chance = _any(_beyond(wander.tops, (middle - centre) / scale), float(judged.mean()))
        low, high = (middle, high) if chance > rate else (low, middle)
    return high


def _best_split(curve: np.ndarray) -> int:
    """Where two levels, the second higher, fit the curve best; 0 where nowhere."""
    n, k = len(curve), np.arange(LASTING, len(curve) - LASTING + 1)
    if not len(k):
        return 0
    sums = np.cumsum(curve)
    before, after = sums[k - 1] / k, (sums[-1] - sums[k - 1]) / (n - k)
    gain = np.where(after > before, k * (n - k) * (after - before) ** 2, -1.0)
    return int(k[gain.argmax()]) if gain.max() > 0 else 0
