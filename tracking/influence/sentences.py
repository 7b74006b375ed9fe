"""Sentences on influence: what was found of a date's data, in words that claim no more than was shown.

How is a shift said, and when is it only an estimate?
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tracking.influence.verification import Proof, linear_range

if TYPE_CHECKING:
    from tracking.influence.influence import Influence, Shift

__all__ = ["describe_influence", "shift_sentence"]


def describe_influence(found: "Influence") -> list[str]:
    """One sentence on the date, one a shift, and one on how far they can be trusted."""
    of = f" in {found.component}" if found.component else ""
    runs = found.runs[0] if len(found.runs) == 1 else f"{len(found.runs)} runs (mean)"
    lines = [f"{found.curve}{of} crosses {found.bar:.3g} at step {found.date:.1f} of {runs}."]
    lines += [shift_sentence(each, found.confidence) for each in found.shifts]
    return [*lines, *_proof_sentences(found.proofs)]


def shift_sentence(shift: "Shift", confidence: float) -> str:
    """A shift, or that none is told."""
    first, last = shift.window
    apart = f"{confidence:.0%} interval {shift.low:+.2f} to {shift.high:+.2f}"
    when = f"{shift.source}, steps {first} to {last}"
    proved = "" if math.isnan(shift.verified_shift) else f"; retrained: {_steps(shift.verified_shift)}"
    if not shift.told:
        return f"{when}: no effect is told ({apart} steps for a tenth more weight{proved})."
    return f"{when}: a tenth more weight moves it by {shift.shift_steps:+.2f} steps ({apart}{proved})."


def _steps(shift: float) -> str:
    return "it never forms" if math.isinf(shift) else f"{shift:+.2f}"


def _proof_sentences(proofs: Sequence[Proof]) -> list[str]:
    if not proofs:
        return ["These are estimates: none was proved by retraining (verify, --verify N)."]
    lines = [
        f"Retrained with {each.source} × {each.factor:g} in steps {each.window[0]} to {each.window[1]}: predicted "
        f"{each.predicted:+.2f}, found {_steps(each.actual)}."
        for each in proofs
    ]
    held = linear_range(proofs)
    if held is None:
        return [*lines, "No predicted shift held: at these sizes the straight line does not."]
    line = f"What was predicted held for weights × {held[0]:g} to × {held[1]:g}"
    beyond = [each for each in proofs if not each.holds and not held[0] <= each.factor <= held[1]]
    return [*lines, f"{line}; not for × {beyond[0].factor:g} ({beyond[0].source})." if beyond else f"{line}."]
