"""Formation sentences: a row of the table in words.

How is a date told to people?  Words are made from values, at the very end; nothing reads them.
"""

import math

from tracking.formation.table import Formation, FormationTable

__all__ = ["counted", "describe", "status_of"]


def status_of(row: Formation) -> str:
    """The other columns in words: what became of it, what is known beside the date, and by which numbers."""
    parts = [_state(row)]
    if row.censored == "no" and not row.error_known:
        parts.append("no error known: low and high are the checkpoints around it")
    if row.n_controls is not None:
        parts.append(controls(row))
    elif row.clock == "form" and row.censored == "no" and math.isfinite(row.bar) and row.bar_kind == "role threshold":
        untold = "too few checkpoints to tell it from wander"
        parts.append(f"p = {row.p_value:.2g} that it is wander" if math.isfinite(row.p_value) else untold)
    if row.measure and row.clock == "behaviour":
        parts.append(row.measure)
    return "; ".join(parts)


def _state(row: Formation) -> str:
    rise = f", rise {row.rise} of {row.n_rises}" if row.n_rises > 1 else ""
    match row.state:
        case "formed" | "formed, still rising" | "formed and lost":
            return f"{row.state}{rise}"
        case "there from the start" | "there from the start and lost":
            return row.state.replace("from the start", "at the first checkpoint already")
        case "pending":
            return "pending: at its bar at the last checkpoint alone"
        case "never" if row.clock == "form" and math.isfinite(row.bar):
            return f"never: no component reaches the threshold of {row.bar:.3g} and holds it"
        case "never":
            return "never: not formed by the last checkpoint"
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
        lost = " and was lost later" if row.state == "there from the start and lost" else ""
        return f"{what} was there at the first checkpoint, step {row.interval_after:.0f}{lost}."
    if row.state == "pending":
        return f"{what} reached its bar after step {row.interval_before:.0f}, at the last checkpoint alone."
    if row.state == "not datable by this definition":
        return f"{what} is there, but this definition cannot say since when."
    if row.censored == "right":
        return f"{what} had not formed by the last checkpoint, step {row.interval_before:.0f}."
    seen = f"between the checkpoints {row.interval_before:.0f} and {row.interval_after:.0f}"
    if row.state == "not told from noise":
        return f"{what} rose {seen}, which is not told from noise."
    after = ", and was lost later" if row.state == "formed and lost" else ""
    if not row.error_known:
        return f"{what} formed {seen}{after}."
    interval = f"{confidence:.0%} interval {row.low:.0f} to {row.high:.0f}"
    return f"{what} formed at step {row.midpoint:.0f} ({interval}), {seen}{after}."
