"""Prior beliefs of the linking: what may happen to a function at all, how soon, and how far away.

One set for all histories, but for those in which what a component does is seen only where it is listed: there an end
next to a beginning is more often a hand-off.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from tracking.lifelines.series import Basis, Series

__all__ = ["OVERLAP", "PRIORS", "Priors", "nearness"]

OVERLAP = 8
NEAR = (0.6, 0.35, 0.03)  # shares of moves within a layer, to one of the next, to one further away
FURTHER = 0.1  # of the last, for any layer beyond


@dataclass(frozen=True)
class Priors:
    """How likely each explanation of a beginning or an end is before anything is seen.

    Attributes:
        handed: share of hand-offs among as many beginnings as there are ends, or the other way round.
        copied: splits for each birth.
        absorbed: merges for each death.
        strict: nats by which a likeness that was learned from windows side by side is too strict with two that a change
            lies between.
        timing: shares of hand-offs that are sharp, have a gap, have an overlap.
        conserve: share of splits and merges in which effects add up.
        copy: how far a copy may lie from what it was copied from, in units of the features' spread.
    """

    handed: float
    copied: float
    absorbed: float
    strict: float = 0.0
    timing: tuple[float, float, float] = (0.5, 0.15, 0.35)
    conserve: float = 0.85
    copy: float = 0.12


MEASURED = Priors(handed=0.75, copied=0.75, absorbed=0.4, conserve=0.92)
LISTED = Priors(handed=0.75, copied=1.0, absorbed=0.13, strict=1.8, conserve=0.35)
PRIORS: dict[Basis, Priors] = {"effect": MEASURED, "role": MEASURED, "detection": LISTED}


def nearness(series: Series, a: Int[np.ndarray, "pair"], b: Int[np.ndarray, "pair"]) -> Float[np.ndarray, "pair"]:
    """Log of how much likelier a move from `a` to `b` is than one to any component."""
    layer = series.layer
    share = np.array([*NEAR, *[NEAR[-1] * FURTHER] * (int(np.ptp(layer)) + 2)])
    apart = np.abs(layer[a] - layer[b])
    return np.log(share[apart] * len(np.unique(layer)) / np.where(apart > 0, 2, 1))
