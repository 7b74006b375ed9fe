"""Answers: what a comparison of runs comes to, one line for each hyperparameter and role, and in whole sentences.

A line is a factor with its interval and the number of runs, `x0.76 (0.70 to 0.83), 24 runs`: formation takes .76 times
as long.  A sentence says more of what it rests on.  Numbers that would be absurd (a factor of a million, an interval
without end) are words.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tracking.comparison.permutation import ENOUGH
from tracking.formation.sentences import p_text, p_words

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["VERDICTS", "answer", "at_a_glance", "factor", "ranking", "sentence", "times", "verdict", "what"]

VERDICTS = ("moves it", "no effect seen", "too few runs", "cannot be told apart", "never forms")
FAR = math.log(1000)
"""Log ratios beyond this are words."""
Row = Mapping[str, Any]


def verdict(row: Row) -> str:
    """One of `VERDICTS`, of a row of the effects."""
    if not row["n_formed"]:
        return "never forms"
    if row["confounded"]:
        return "cannot be told apart"
    if row["smallest_p"] > ENOUGH or math.isnan(row["estimate"]):
        return "too few runs"
    return "moves it" if row["q_value"] <= ENOUGH else "no effect seen"


def factor(estimate: float, low: float, high: float) -> str:
    """A log ratio and its interval as factors.

    >>> factor(math.log(0.76), math.log(0.7), math.log(0.83))
    'x0.76 (0.70 to 0.83)'
    """
    if math.isnan(estimate):
        return "not estimated"
    bounded = abs(low) < FAR, abs(high) < FAR
    if abs(estimate) >= FAR:
        side, end = ("earlier", high) if estimate < 0 else ("later", low)
        if abs(end) >= FAR or end * estimate < 0:
            return f"{side}, with no bound on how much"
        return f"{side}, at {'most' if estimate < 0 else 'least'} x{_factor(end)}"
    if all(bounded):
        return f"x{_factor(estimate)} ({_factor(low)} to {_factor(high)})"
    if any(bounded):
        return f"x{_factor(estimate)} (at {f'least {_factor(low)}' if bounded[0] else f'most {_factor(high)}'})"
    return f"x{_factor(estimate)} (no bound on either side)"


def _factor(log_ratio: float) -> str:
    value = math.exp(log_ratio)
    return f"{value:.2f}" if 0.1 <= value < 10 else f"{value:.2g}" if value < 100 else f"{value:.0f}"


def times(log_ratio: float) -> str:
    return "any number of" if log_ratio >= FAR else "0" if log_ratio <= -FAR else f"{math.exp(log_ratio):.3g}"


def what(row: Row) -> str:
    return f"{row['role']} ({row['clock']}, {row['definition']})"


def where(row: Row) -> str:
    name, contrast = row["hyperparameter"], row["contrast"]
    return f"{contrast} of {name}" if contrast.startswith("per") else f"{name} {contrast}"


def number_of_runs(row: Row) -> str:
    """`16 runs in 8 pairs that share their seed`."""
    if not row["n_blocks"]:
        return f"{row['n_runs']} runs"
    kind = "pairs" if row["n_runs"] == 2 * row["n_blocks"] else "blocks"
    return f"{row['n_runs']} runs in {row['n_blocks']} {kind} that share their {row['blocked_by']}"


def answer(row: Row) -> str:
    """One line: what, the factor with its interval, the runs it rests on, and what that amounts to."""
    if row["verdict"] == "never forms":
        return f"{where(row)}: {row['role']} by {row['clock']} {_amounts_to(row)} of {row['n_runs']} runs"
    size = f"{_size(row)}, {row['n_runs']} runs{_amounts_to(row)}"
    return f"{where(row)}: {row['role']} by {row['clock']} {size}"


def at_a_glance(effects: "pd.DataFrame") -> list[str]:
    """The answers under a heading for each hyperparameter, which says the runs; what moves a role comes first."""
    several = effects["definition"].nunique() > 1
    order = {verdict: place for place, verdict in enumerate(VERDICTS)}
    found = []
    rows = sorted(effects.to_dict("records"), key=lambda row: order[row["verdict"]])
    for place in dict.fromkeys(map(where, rows)):
        part = [row for row in rows if where(row) == place]
        few = all(row["verdict"] == "too few runs" for row in part)
        found.append(f"{place}, {number_of_runs(part[0])}{_amounts_to(part[0]) if few else ''}")
        for row in part:
            name = f"{row['role']} by {row['clock']}" + (f", {row['definition']}" if several else "")
            never = row["verdict"] == "never forms"
            said = f"{'' if never else _size(row)}{'' if few else _amounts_to(row)}"
            said += "" if row["n_runs"] == part[0]["n_runs"] else f", {row['n_runs']} runs"
            found.append(f"  {name:28s} {said}")
    return found


def _amounts_to(row: Row) -> str:
    """What a line says after the factor."""
    return {
        "moves it": "",
        "no effect seen": ", no effect seen",
        "too few runs": f", too few for a p-value below {p_text(row['smallest_p'])}",
        "cannot be told apart": f", together with {_listed(row['confounded'].split(', '))}",
        "never forms": "forms in none",
    }[row["verdict"]]


def sentence(row: Row, confidence: float) -> str:
    """What one effect rests on."""
    name, about, runs = row["hyperparameter"], what(row), number_of_runs(row)
    kind = row["verdict"]
    if kind == "never forms":
        return f"{about} formed in none of {row['n_runs']} runs, so nothing can be said of what moves it."
    if kind == "too few runs":
        few = (
            f"Too few runs to tell whether {name} moves {about}: with {runs} no p-value below "
            f"{p_text(row['smallest_p'])} is possible; add seeds."
        )
        return few if math.isnan(row["estimate"]) else f"{few[:-1]} (so far {_size(row)})."
    p = p_words(row["p_value"]) + (" by Student's t" if row["method"] == "Student's t" else "")
    if kind == "cannot be told apart":
        names = [name, *row["confounded"].split(", ")]
        return (
            f"{_listed(names)} move together in these runs: their effects on {about} cannot be told apart; together "
            f"{_size(row)} for {where(row)} ({p}; {runs})."
        )
    shrunk = "; too few runs to take out all else that varies, which is shrunk" if row["shrunk"] else ""
    several = f"; {row['n_several']} of them rise more than once" if row["n_several"] else ""
    if kind == "moves it":
        later = row["estimate"] > 0
        side = f"{times(abs(row['estimate']))} times {'later' if later else 'earlier'}"
        if abs(row["estimate"]) >= FAR:
            side = f"{'later' if later else 'earlier'}, by more than can be bounded,"
        ends = (row["low"], row["high"]) if later else (-row["high"], -row["low"])
        return (
            f"{about} forms {side} for {where(row)} ({confidence:.0%} interval {times(ends[0])} to {times(ends[1])} "
            f"times; {p}, {p_text(row['q_value'])} after correction; {runs}{several}{shrunk})."
        )
    power = "no effect can be ruled out, for too little forms on one side"
    if row["detectable"] < FAR:
        power = f"an effect of more than {_percent(row['detectable'])} would have been seen with probability .8"
    return f"No effect of {name} on {about} seen ({where(row)}: {_size(row)}, {p}, {runs}{several}{shrunk}); {power}."


def ranking(effects: "pd.DataFrame") -> list[str]:
    """Which of several hyperparameters moves each role most over the range that was tried, or why that is not told."""
    found = []
    for (role, clock, definition), part in effects.groupby(["role", "clock", "definition"], sort=False):
        rows = [row for row in part.to_dict("records") if row["verdict"] not in ("never forms", "too few runs")]
        names = list(dict.fromkeys(row["hyperparameter"] for row in rows))
        if len(names) < 2:
            continue
        about = what({"role": role, "clock": clock, "definition": definition})
        together = [row for row in rows if row["verdict"] == "cannot be told apart"]
        if together:
            known = list(dict.fromkeys(n for row in together for n in row["confounded"].split(", ")))
            said = _listed([together[0]["hyperparameter"], *(n for n in known if n != together[0]["hyperparameter"])])
            found.append(f"Which hyperparameter moves {about} most is not ranked: {said} move together in these runs.")
            continue
        rows.sort(key=lambda row: -abs(row["estimate"] * row["span"]))
        first, second = rows[0], next(row for row in rows if row["hyperparameter"] != rows[0]["hyperparameter"])
        least = min(abs(first["low"]), abs(first["high"])) * first["span"] if first["verdict"] == "moves it" else 0.0
        most = max(abs(second["low"]), abs(second["high"])) * second["span"]
        if least > most:
            found.append(f"Over the range tried {first['hyperparameter']} moves {about} most.")
    return found


def _size(row: Row) -> str:
    return factor(row["estimate"], row["low"], row["high"])


def _percent(log_ratio: float) -> str:
    ratio = math.expm1(log_ratio)
    return f"{ratio:.0%}" if ratio < 3 else f"{1 + ratio:.0f} times"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
