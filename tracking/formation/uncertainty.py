"""Parts of a date's uncertainty: what its interval is made of, and how far the date depends on its bar.

Question: would more prompts, denser checkpoints or another bar move this date?

The variance of the date in ln(step) over draws is split in order: with the prompts drawn alone, with the jitter of the
checkpoints drawn as well, and with the place between two checkpoints drawn too.
"""

import numpy as np
from jaxtyping import Float

from tracking.formation.crossings import crossing
from tracking.formation.curves import Curve
from tracking.formation.dating import Case, Date
from tracking.formation.passages import visits
from tracking.lifelines.states import holds, stretches

__all__ = ["SENSITIVITY", "sensitivity", "shares"]

SENSITIVITY = {"at_two_thirds": 2 / 3, "at_four_thirds": 4 / 3}


def shares(case: Case, date: Date) -> dict[str, float]:
    """Which part of the variance of a date the prompts, the jitter and the gaps between checkpoints make."""
    whole = _variance(date.passage.drawn)
    if not whole > 0 or not np.isfinite(date.bar):
        return {}
    steady, prompts = (_variance(_middle(case, draws, date)) for draws in (case.draws.all, case.draws.prompts))
    prompts = min(prompts, steady)
    if not steady > 0:
        return {}
    parts = np.maximum([prompts, steady - prompts, whole - steady], 0)
    return dict(zip(("share_prompts", "share_jitter", "share_gap"), (parts / parts.sum()).tolist(), strict=True))


def _middle(case: Case, draws: Float[np.ndarray, "draw step"], date: Date) -> Float[np.ndarray, "draw"]:
    """The date in each draw, taken in the middle of what its checkpoints leave open."""
    curve = case.curve
    has = curve.states if curve.bar is not None and date.bar == curve.bar else None
    found = visits(curve.path, draws, curve.x, date.bar, floor=curve.floor, has=has)
    same = [visit.rise.drawn for visit in found if visit.rise is not None and visit.rise.after == date.passage.after]
    return same[0] if same else np.full(len(draws), np.nan)


def _variance(times: np.ndarray) -> float:
    """Of the middle of the times, which a few draws that rise elsewhere do not move."""
    seen = times[np.isfinite(times)]
    if len(seen) < 2:
        return 0.0
    low, high = np.quantile(seen, [0.05, 0.95])
    return float(((high - low) / 3.29) ** 2)


def sensitivity(case: Case, rise: int) -> dict[str, float]:
    """The dates at two and four thirds of the bar, of the stretch that overlaps the one in question.

    Those of a role are of whoever carries it at that bar.
    """
    curve = case.curve
    assert curve.bar is not None
    own = visits(curve.path, curve.path[None], curve.x, curve.bar, floor=curve.floor, has=curve.states)
    own_at = own[rise - 1].rise if rise <= len(own) else None
    if own_at is None:
        return dict.fromkeys(SENSITIVITY, float("nan"))
    found = {}
    for name, share in SENSITIVITY.items():
        times = _rises_to(curve, _scaled(case, share))
        beyond = [at for at in times if (at >= own_at.at if share > 1 else at <= own_at.at)]
        found[name] = float(np.exp(min(beyond) if share > 1 else max(beyond))) if beyond else float("nan")
    return found


def _rises_to(curve: Curve, bar: float) -> list[float]:
    """ln(step) of every rise to a bar, of the curve or of any of those that could carry its role."""
    paths = curve.path[None] if curve.family is None else curve.family
    has, times = holds(paths, curve.x, bar, floor=curve.floor), []
    for stretch in stretches(np.asarray(has.any(axis=0))):
        if stretch.born:
            begin = np.flatnonzero(has[:, stretch.start] & np.isfinite(paths[:, stretch.start - 1]))
            after = np.full(len(begin), stretch.start)
            at = crossing(paths[begin], after, np.full(len(begin), bar), curve.x)
            times.append(float(at.min()) if len(at) else float(curve.x[stretch.start]))
    return times


def _scaled(case: Case, share: float) -> float:
    """That share of the bar above its floor, on the scale of the curve."""
    curve = case.curve
    assert curve.bar is not None
    if curve.logarithmic:
        return float(np.log1p(share * np.expm1(curve.bar)))
    return curve.floor + share * (curve.bar - curve.floor)
