"""Confidence of events: the share of events like this one that are right.

A posterior that a method gives itself is surer than it should be.  So what an event rests on (how much better it is
than the next best explanation, how alike the components are, how long they last, how clear the effect is, what else
happens at the same time) is put into a logistic regression, fitted on families of series with known truth, each of the
same weight: surgery on a trained run, simulated series, and series with flicker.  What it says is judged on families
that it was not fitted on (`tests/benchmarks/test_linking.py`).

An end that only one or two checkpoints follow is *perhaps* one: silence that short may still end.

Axes: `event`, `term`.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import minimize
from scipy.special import expit

from tracking.lifelines.explanations import Explained
from tracking.lifelines.linking import Linked
from tracking.lifelines.priors import OVERLAP

__all__ = ["TERMS", "cause_of", "confidence_of", "fit_weights", "silence", "terms_of"]

TERMS = (
    "one", "birth", "death", "split or merge", "swap", "margin, single", "margin, hand-off", "margin, split or merge",
    "likeness", "duration", "effect", "seen inside", "seen outside", "rivals", "posterior", "consequence", "slight",
)  # fmt: skip
WEIGHTS = np.array(
    [1.26, -0.42, -0.77, -1.05, 0.03, 0.0, 1.04, 0.27, 0.76, 0.34, -0.15, 0.10, -1.51, 0.0, 2.19, -0.90, -2.69]
)
RIDGE = 1.5
AGAINST = ("seen outside", "rivals", "consequence", "slight")  # terms that never speak for an event ...
FOR = (
    "margin, single",
    "margin, hand-off",
    "margin, split or merge",
    "likeness",
    "duration",
    "posterior",
)  # ... or never against
SILENCE = (0.6, 0.8)  # share of ends that stay ends, when one or two checkpoints follow
MOST = 0.99
AT_ONCE = 3  # steps within which one event may be a consequence of another
PLAIN = 0.5  # effect, in units of the large ones, that is none of the slight ones
LONG = 10  # steps in which a rise or fall is over


def confidence_of(linked: Linked, events: Sequence[Explained] | None = None) -> Float[np.ndarray, "event"]:
    """The probability of each event."""
    events = linked.events if events is None else events
    if not events:
        return np.empty(0)
    sure = np.minimum(expit(terms_of(linked, events) @ WEIGHTS), MOST)
    return sure * [silence(linked, one) for one in events]


def silence(linked: Linked, event: Explained) -> float:
    """The share of ends so near to the last checkpoint that stay ends."""
    after = len(linked.series.steps) - 1 - event.frame_before
    return SILENCE[after - 1] if event.kind in ("death", "merge") and 0 < after <= len(SILENCE) else 1.0


def terms_of(linked: Linked, events: Sequence[Explained]) -> Float[np.ndarray, "event term"]:
    """What the confidence of each event rests on, every term of the order of one."""
    spells, effect = linked.spells, linked.series.effect
    size = [float(np.median(effect[one.frames, one.component])) for one in spells]
    usual = max(float(np.median(size)), 1e-9) if size else 1.0
    frames = np.array([event.frame for event in events])
    caused = [cause_of(linked, event, events) is not None for event in events]
    rows = []
    for event, cause in zip(events, caused, strict=True):
        own = event.before[0] if event.kind in ("death", "merge") else event.after[-1]
        spell = spells[own]
        margin = float(np.clip(event.margin, -6, 10)) / 5
        single, pair = event.kind in ("birth", "death"), event.kind == "hand-off"
        rivals = int((np.abs(frames - event.frame) <= OVERLAP).sum()) - 1
        inside = len(spell.frames) / (spell.last - spell.first + 1)
        posterior = float(np.clip(event.share, 1e-3, 0.999))
        rows.append(
            [
                1.0,
                event.kind == "birth",
                event.kind == "death",
                not single and not pair,
                event.swap,
                margin * single,
                margin * pair,
                margin * (not single and not pair),
                float(np.clip(event.ratio, -3, 10)) / 5 * pair,
                min(float(np.log(len(spell.frames))), 3.5) - 2.5,
                float(np.clip(np.log(max(size[own], 1e-9) / usual), -2, 1)),
                np.log(max(1 - inside, 0.02)) + 3,
                _outside(linked, event, spell.component),
                min(rivals, 8) / 4,
                float(np.clip(np.log(posterior / (1 - posterior)) / 4, -1.7, 1.7)),
                cause,
                _slight(linked, own, event),
            ]
        )
    return np.array(rows, dtype=float).reshape(len(events), len(TERMS))


def _outside(linked: Linked, event: Explained, component: int) -> float:
    """How often the component shows up near the event without being on."""
    low, high = max(0, event.frame - 12), event.frame + 13
    off = ~linked.presence.on[low:high, component]
    shows = linked.series.seen if linked.series.basis == "detection" else linked.presence.weak
    return float((shows[low:high, component] & off).sum() / max(int(off.sum()), 1))


def cause_of(linked: Linked, event: Explained, events: Sequence[Explained]) -> int | None:
    """The component whose change at the same time the event may be no more than a consequence of; None for none.

    A birth or a death may be one where something else happened at that step, in an earlier layer or with a larger
    effect: what reads from a component loses its effect with it, and what backs it up gains.
    """
    if event.kind not in ("birth", "death") or linked.series.basis != "effect":
        return None
    own = linked.component((event.after or event.before)[0])
    layer = linked.series.layer
    best, most = None, _change(linked, own, event)
    for other in events:
        if other is event or abs(other.frame - event.frame) > AT_ONCE:
            continue
        for spell in {*other.before, *other.after}:
            component = linked.component(spell)
            change = _change(linked, component, other)
            earlier = layer[component] < layer[own]
            if component != own and change > most and (earlier or other.kind not in ("birth", "death")):
                best, most = component, change
    return best


def _slight(linked: Linked, spell: int, event: Explained) -> float:
    """By how many e-folds the effect on the side where a birth or death has one is less than a plain one.

    A rise may be slow, so the ten steps on that side count, most of all the largest of them.
    """
    if event.kind not in ("birth", "death") or linked.series.basis != "effect":
        return 0.0
    own = linked.spells[spell]
    near = own.frames[:LONG] if event.kind == "birth" else own.frames[-LONG:]
    level = float(np.quantile(linked.series.effect[near, own.component], 0.75))
    return float(np.clip(np.log(PLAIN / max(level, 1e-9)), 0.0, 2.0))


def _change(linked: Linked, component: int, event: Explained) -> float:
    effect = linked.series.effect[:, component]
    before, after = effect[max(0, event.frame - 3) : event.frame], effect[event.frame : event.frame + 3]
    return float(abs(np.median(after) - np.median(before))) if len(before) and len(after) else 0.0


def fit_weights(
    terms: Float[np.ndarray, "event term"], right: Bool[np.ndarray, "event"], family: Sequence[str]
) -> Float[np.ndarray, "term"]:
    """Ridge logistic regression in which every family counts the same."""
    names = np.asarray(family)
    weight = np.zeros(len(names))
    for name in np.unique(names):
        weight[names == name] = 300 / (names == name).sum()
    sign = np.where(right, 1.0, -1.0)
    ridge = RIDGE * np.r_[0.0, np.ones(terms.shape[1] - 1)]

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (terms @ w)
        slope = terms.T @ (-weight * sign * expit(-margin)) + ridge * w
        return float((weight * np.logaddexp(0, -margin)).sum() + 0.5 * (ridge * w**2).sum()), slope

    bounds = [(0 if name in FOR else None, 0 if name in AGAINST else None) for name in TERMS]
    return minimize(loss, np.zeros(terms.shape[1]), jac=True, method="L-BFGS-B", bounds=bounds).x
