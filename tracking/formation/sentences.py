"""Formation sentences: a row of the table in words.

How is a date told to people?  Words are made from values, at the very end; nothing reads them.
"""

import math

from tracking.formation.table import Formation

__all__ = ["controls", "counted", "other_bars", "p_text", "p_words", "span_text", "status_of"]


def p_text(p: float) -> str:
    """A p-value, or one that is corrected, in two digits; nothing where there is none.

    >>> p_text(0.0123), p_text(2.8e-5), p_text(1.0)
    ('0.012', '<0.0001', '1')
    """
    if p != p:
        return ""
    return f"{p:.2g}" if p >= 1e-4 else "<0.0001"


def p_words(p: float, smallest: float = math.nan) -> str:
    """A p-value in a sentence, with the smallest that could have come out where one is known.

    >>> p_words(0.05, 0.01), p_words(2.8e-5)
    ('p = 0.05, smallest possible 0.01', 'p < 0.0001')
    """
    least = f", smallest possible {p_text(smallest)}" if smallest > 0 else ""
    return f"p {f'= {p_text(p)}' if p >= 1e-4 else '< 0.0001'}{least}"


def span_text(low: float, high: float) -> str:
    """An interval in whole steps.

    >>> span_text(1245.6, 1249.4)
    '1,246 to 1,249'
    """
    return f"{low:,.0f} to {high:,.0f}"


def status_of(row: Formation) -> str:
    """The other columns in words: what became of it, what is known beside the date, and by which numbers."""
    parts = [_state(row)]
    if row.censored == "no" and not row.error_known:
        parts.append("no error known: low and high are the checkpoints around it")
    if row.n_controls is not None:
        parts.append(controls(row))
    elif row.clock == "form" and row.censored == "no" and math.isfinite(row.bar) and row.bar_kind == "role threshold":
        untold = "too few checkpoints to tell it from wander"
        parts.append(f"{p_words(row.p_value)} that it is wander" if math.isfinite(row.p_value) else untold)
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
    """`p = 0.01, smallest possible 0.01, against 99 rotations of what is written`."""
    if row.control == "not testable":
        return f"not testable: {counted(row)} in the same layers"
    return f"{p_words(row.p_value, row.smallest_p)}, against {counted(row)}"


def counted(row: Formation) -> str:
    """The controls and how many they are."""
    if row.control in ("rotations", "first-order rotations"):
        order = ", to first order" if row.control == "first-order rotations" else ""
        return f"{row.n_controls} rotations of what is written{order}"
    return f"{row.n_controls} other set{'' if row.n_controls == 1 else 's'} of the same size"


def other_bars(row: Formation) -> str:
    """How much a date depends on its bar, as a sentence of its own; nothing where it has no bar to vary."""
    if row.censored != "no" or (math.isnan(row.at_two_thirds) and math.isnan(row.at_four_thirds)):
        return ""
    low = "before the first checkpoint" if math.isnan(row.at_two_thirds) else _near(row, row.at_two_thirds)
    high = "never" if math.isnan(row.at_four_thirds) else _near(row, row.at_four_thirds)
    return f"At two and four thirds of its bar: {low} and {high}."


def _near(row: Formation, step: float) -> str:
    """A step, to two digits where the checkpoints around it are all that is known."""
    return f"step {step:.0f}" if row.error_known else f"near step {float(f'{step:.2g}'):.0f}"
