"""Goals: what the next runs should bring about, and how far from it a run is.

A goal is a sentence:

    induction midpoint < 300                      a role by a step (or onset, plateau); > holds it back
    previous-token midpoint = 250                 at a step
    induction midpoint by function < 300          by another clock than form
    minimise training/loss                        a recorded number at its end; also maximise, <, > and =
    minimise bias subject to training/loss < 2.1  the first counts where all that follow are kept (joined by "and")
    ... subject to training/loss < control        no worse than runs in which nothing is chosen
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from circuits.suggestions import suggest
from tracking.formation.clocks import CLOCKS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Goal", "parse_goal"]

Direction = Literal["below", "above", "at"]
DATES = ("onset", "midpoint", "plateau")
SIGNS: dict[str, Direction] = {"<": "below", ">": "above", "=": "at"}
EXPECTED = "expected a goal such as 'induction midpoint < 300' or 'minimise training/loss subject to bias < 0.5'"
NEAR = 0.1
"""A date or number is *at* its target within this share of it."""


@dataclass(frozen=True)
class Goal:
    """One quantity, where it should be, and what must hold beside it.

    `quantity` is a date (then `subject` is a role) or "end" (then it is a metric); `target` is NaN where the smallest
    or largest is wanted, and where it is still to be read off the control (`beside_control`).
    """

    subject: str
    quantity: str
    direction: Direction
    target: float = math.nan
    clock: str = "form"
    conditions: tuple["Goal", ...] = ()
    beside_control: bool = False

    @property
    def is_date(self) -> bool:
        return self.quantity in DATES

    def value(self, formation: "pd.DataFrame", series: "pd.DataFrame", *, definition: str | None = None) -> float:
        """What one run gave: a step (infinite where the role did not form), or the metric at its end (NaN: unknown)."""
        if not self.is_date:
            part = series[series["name"] == self.subject].dropna(subset=["value"]).sort_values("step")
            return float(part["value"].tail(2).mean()) if len(part) else math.nan
        rows = formation[(formation["role"] == self.subject) & (formation["clock"] == self.clock)]
        known = rows["definition"].drop_duplicates().tolist()
        leading = definition or next((name for name in ("threshold", *known) if name in known), "")
        rows = rows[(rows["definition"] == leading) & (rows["censored"] != "right")].sort_values("rise")
        if not len(rows):
            return math.inf
        row = rows.iloc[-1]  # the rise that lasts
        return float(row["interval_after"] if row["censored"] == "left" else row[self.quantity])

    def cost(self, value: float, *, last_step: float) -> float:
        """What is to be made small: ln steps for dates, where never is twice the run; the number itself for metrics."""
        if math.isnan(value):
            return math.inf
        y = math.log(max(min(value, 2 * last_step), 0.5)) if self.is_date else value
        if self.direction == "at":
            return abs(y - (math.log(self.target) if self.is_date else self.target))
        return y if self.direction == "below" else -y

    def met(self, value: float) -> bool:
        """Whether the target is met; without one, never."""
        if math.isnan(value) or math.isnan(self.target):
            return False
        if self.direction == "at":
            return abs(value - self.target) <= NEAR * abs(self.target)
        return value < self.target if self.direction == "below" else value > self.target

    def beyond(self, value: float, bound: float) -> float:
        """By how much a value is on the wrong side of a bound; 0 or less where it is on the right one."""
        if self.direction == "at":
            return abs(value - bound) - NEAR * abs(bound)
        return value - bound if self.direction == "below" else bound - value

    @property
    def beside_controls(self) -> bool:
        """Whether a condition names the control."""
        return any(each.beside_control for each in self.conditions)

    def __str__(self) -> str:
        sign = {"below": "<", "above": ">", "at": "="}[self.direction]
        what = f"{self.subject} {self.quantity} by {self.clock}" if self.is_date else self.subject
        if self.beside_control:
            return f"{what} {sign} control"
        if math.isnan(self.target):
            return f"{'minimise' if self.direction == 'below' else 'maximise'} {what}"
        return f"{what} {sign} {self.target:g}"


def parse_goal(text: str, *, roles: Sequence[str]) -> Goal:
    """The goal that a sentence states.

    Args:
        roles: those that a run can form; a date must be of one of them.

    >>> str(parse_goal("induction midpoint < 300", roles=["induction"]))
    'induction midpoint by form < 300'

    Raises:
        ValueError: it cannot be read, or is about a role that does not exist (the message names the nearest).
    """
    first, *rest = re.split(r"\s+subject to\s+", text.strip(), maxsplit=1)
    goal = _one(first, roles)
    conditions = tuple(_one(part, roles) for part in re.split(r"\s+and\s+", rest[0])) if rest else ()
    if goal.beside_control:
        raise ValueError(f"expected 'control' after 'subject to' only, got {first!r}")
    if loose := [each for each in conditions if math.isnan(each.target) and not each.beside_control]:
        raise ValueError(f"expected a condition with <, > or = and a number, got {loose[0]}")
    return Goal(goal.subject, goal.quantity, goal.direction, goal.target, goal.clock, conditions)


def _one(text: str, roles: Sequence[str]) -> Goal:
    if match := re.fullmatch(r"(minimi[sz]e|maximi[sz]e)\s+(.+)", text.strip()):
        direction, target, what = ("below" if match[1].startswith("min") else "above"), math.nan, match[2]
    elif match := re.fullmatch(r"(.+?)\s*([<>=])\s*([-+.\deE]+|control)(?:\s+steps)?", text.strip()):
        direction, what = SIGNS[match[2]], match[1]
        try:
            target = math.nan if match[3] == "control" else float(match[3])
        except ValueError as error:
            raise ValueError(f"cannot read the number in {text!r}; {EXPECTED}") from error
    else:
        raise ValueError(f"cannot read the goal {text!r}; {EXPECTED}")
    beside_control = bool(re.fullmatch(r".+[<>]\s*control", text.strip()))
    dated = re.fullmatch(rf"(\S+)\s+({'|'.join(DATES)})(?:\s+by\s+(\S+))?", what.strip())
    if dated is None:
        if " " in what.strip():
            raise ValueError(f"cannot read the goal {text!r}; {EXPECTED}")
        return Goal(what.strip(), "end", direction, target, beside_control=beside_control)
    role, quantity, clock = dated[1], dated[2], dated[3] or "form"
    if role not in roles:
        raise ValueError(f"no role {role!r}; {suggest(role, roles)}")
    if clock not in CLOCKS:
        raise ValueError(f"expected one of the clocks {', '.join(CLOCKS)} after 'by', got {clock!r}")
    if not math.isnan(target) and target <= 0:
        raise ValueError(f"expected a step above 0 in {text!r}, got {target:g}")
    return Goal(role, quantity, direction, target, clock, beside_control=beside_control)
