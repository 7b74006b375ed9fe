"""Resampled events: how often an event is found again when other prompts had been drawn.

Scores come with the means of prompt folds.  Folds are drawn with replacement, the same draw at every checkpoint and for
every component, and the events are told anew from each draw.  The share of draws that tell an event again is its
**confidence**: the same kind, the same components, in the same interval between snapshots or a neighbouring one.  It
speaks of the prompts alone; another seed of the training would be another run.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from tracking.lifelines.events import Event
from tracking.lifelines.leading_head import Leads
from tracking.lifelines.roles import RoleScores

__all__ = ["N_DRAWS", "found_again"]

N_DRAWS = 100
Tell = Callable[[Sequence[RoleScores], Sequence[Leads]], list[Event]]


def found_again(
    events: Sequence[Event], roles: Sequence[RoleScores], leads: Sequence[Leads], tell: Tell, *, seed: int = 0
) -> list[Event]:
    """The events with the share of draws that tell them again as confidence.

    Events of roles without folds keep the confidence that they have.

    Args:
        events: what the scores tell as they are.
        roles: the scores.
        leads: those that the lead in each role is read from.
        tell: tells the events of other scores.
        seed: of the draws.
    """
    folded = {role.label: len(role.folds) > 1 for role in roles}
    sizes = {len(one.folds) for one in (*roles, *leads) if len(one.folds) > 1}
    if not events or not any(folded.values()):
        return list(events)
    draws = {size: _draws(size, seed) for size in sizes}
    again = np.zeros(len(events))
    for draw in range(N_DRAWS):
        weights = {size: drawn[draw] for size, drawn in draws.items()}
        told = tell(_drawn(roles, weights), _drawn(leads, weights))
        by_what: dict[tuple, list[Event]] = {}
        for event in told:
            by_what.setdefault(_what(event), []).append(event)
        again += [any(_near(event, other) for other in by_what.get(_what(event), ())) for event in events]
    return [
        replace(event, confidence=share) if _rests_on(event, folded) else event
        for event, share in zip(events, (again / N_DRAWS).tolist(), strict=True)
    ]


def _draws(n_folds: int, seed: int) -> Float[np.ndarray, "draw fold"]:
    """What each draw adds to the folds' equal weights, widened so that its variance is that of a mean of folds."""
    weights = np.random.default_rng(seed).multinomial(n_folds, np.full(n_folds, 1 / n_folds), N_DRAWS) / n_folds
    return np.sqrt(n_folds / (n_folds - 1)) * (weights - 1 / n_folds)


def _drawn(scores: Sequence, weights: Mapping[int, np.ndarray]) -> list:
    return [one.resampled(weights[len(one.folds)]) if len(one.folds) in weights else one for one in scores]


def _what(event: Event) -> tuple:
    """What makes two events the same; a lead may pass as the one component stops, and so be told as a hand-off."""
    kind = "hand-off" if event.event == "lead change" else event.event
    return kind, event.role_before, event.role_after, event.components_before, event.components_after


def _near(event: Event, other: Event) -> bool:
    """Whether the intervals share a snapshot: the same, or neighbours."""
    return max(event.step_before, other.step_before) <= min(event.step_after, other.step_after)


def _rests_on(event: Event, folded: Mapping[str, bool]) -> bool:
    """Whether the scores that the event was told from have folds."""
    labels = (event.role_before, event.role_after) if event.event == "switch" else (event.lifeline,)
    return all(folded[label] for label in labels)
