"""Conditions: when an intervention begins, by a rule over a measure of the model in training."""

import re
from dataclasses import dataclass

from tracking.interventions.components import head_or_mlp

__all__ = ["EVERY", "MEASURES", "NUMBER", "Condition"]

EVERY = 10
"""Steps between two looks at a condition that names no step."""
MEASURES = ("previous-token", "duplicate-token", "induction", "first-token", "self", "local")
MEASURES += ("loss_first_half", "loss_second_half", "in_context_learning_score", "effective_rank", "probe_accuracy")
"""What a condition may be over: head scores, losses and geometry on repeated random tokens."""
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


@dataclass(frozen=True)
class Condition:
    """A rule over one measure: `over` the heads (or of one `component`), below or above `level`, at step `at`."""

    measure: str
    level: float
    above: bool = False
    over: str = "max"
    component: str | None = None
    at: int | None = None

    def __post_init__(self) -> None:
        if self.over not in ("max", "min", "mean"):
            raise ValueError(f"expected max, min or mean over the heads, got {self.over!r}")
        if self.component is not None:
            head_or_mlp(self.component)

    @staticmethod
    def parse(text: str) -> "Condition":
        """
        >>> Condition.parse("induction<0.2 at 400")
        Condition(measure='induction', level=0.2, above=False, over='max', component=None, at=400)

        Raises:
            ValueError: the text is no condition.
        """
        pattern = rf"(?:([\w.]+):)?([\w-]+)\s*([<>])\s*({NUMBER})(?:\s+at\s+(\d+))?"
        if not (match := re.fullmatch(pattern, text.strip())):
            raise ValueError(f"cannot read the condition {text!r}; expected one such as 'induction<0.2 at 400'")
        where, measure, sign, level, at = match.groups()
        over = where if where in ("max", "min", "mean") else "max"
        component = None if where in (None, "max", "min", "mean") else where
        return Condition(measure, float(level), sign == ">", over, component, None if at is None else int(at))

    @property
    def spec(self) -> str:
        where = f"{self.component}:" if self.component else "" if self.over == "max" else f"{self.over}:"
        at = "" if self.at is None else f" at {self.at}"
        return f"{where}{self.measure}{'>' if self.above else '<'}{self.level!r}{at}"

    def due(self, step: int) -> bool:
        """Whether it is to be looked at before the update of this step."""
        return step % EVERY == 0 if self.at is None else step == self.at

    def holds(self, value: float) -> bool:
        return value > self.level if self.above else value < self.level
