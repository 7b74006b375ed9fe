"""Formation sentences: a row of the table in words.

How is a date told to people?  Words are made from values, at the very end; nothing reads them.
"""

import math

from tracking.formation.table import Formation, FormationTable

__all__ = ["counted", "describe", "status_of"]


def status_of(row: Formation) -> str:
    """The other columns in words: what became of it, what is known beside the date, and by which numbers."""
    parts = [_state(row)]
    if row.formed and not row.error_known:
        parts.append("no error known: low and high are the checkpoints around it")
    if row.n_controls is not None:
        parts.append(controls(row))
    if row.measure and row.clock == "behaviour":
        parts.append(row.measure)
    return "; ".join(parts)


def _state(row: Formation) -> str:
    match row.state:
        case "formed" if row.n_rises > 1:
            return f"formed, rise {row.rise} of {row.n_rises}"
        case "there from the start":
            return "there at the first checkpoint already"
        case "never" if row.clock == "form" and math.isfinite(row.bar):
            return f"never: no component reaches the threshold of {row.bar:.3g}"
        case "never":
            return "never: not formed by the last checkpoint"
        case "not told from noise":
            return "not told from noise by the last checkpoint"
        case _:
            return row.state


def controls(row: Formation) -> str:
    """`p = 0.01 against 99 rotations of what is written (smallest possible 0.01)`."""
    if row.control == "not testable":
        return f"not testable: {counted(row)} in the same layers"
    return f"p = {row.p_value:.3g} against {counted(row)} (smallest possible {row.smallest_p:.3g})"


def counted(row: Formation) -> str:
    """The controls and how many they are."""
    if row.control == "rotations":
        return f"{row.n_controls} rotations of what is written"
    return f"{row.n_controls} other set{'' if row.n_controls == 1 else 's'} of the same size"


def describe(table: FormationTable) -> list[str]:
    """The dates of all role lifelines in whole sentences, for people."""
    return [_sentence(row, table.confidence) for row in table.formations if not row.component]


def _sentence(row: Formation, confidence: float) -> str:
    rise = f", rise {row.rise} of {row.n_rises}" if row.rise > 1 else ""
    what = f"{row.lifeline} by {row.clock} ({row.definition}{rise})"
    if row.censored == "left":
        return f"{what} was there at the first checkpoint, step {row.interval_after:.0f}."
    if row.censored == "right":
        return f"{what} had not formed by the last checkpoint, step {row.interval_before:.0f}."
    seen = f"between the checkpoints {row.interval_before:.0f} and {row.interval_after:.0f}"
    if not row.error_known:
        return f"{what} formed {seen}."
    return (
        f"{what} formed at step {row.midpoint:.0f} ({confidence:.0%} interval {row.low:.0f} to {row.high:.0f}), {seen}."
    )
