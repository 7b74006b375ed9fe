"""Schedules: when a model in training is worth measuring, within a share of the training's time.

Dense while something moves and sparse on plateaus: after a measurement that differs from the last one by more than
`moved` the gap to the next is cut so that the next differs by about as much (to a half at most, to an eighth at least),
after one that does not it grows by half.  A fall of the loss calls for a measurement at once.  What a measurement is
expected to cost must fit into `budget` times the time that training itself has taken so far, so that what plateaus save
is there to be spent on slopes.
"""

import math
from dataclasses import dataclass, field, replace

__all__ = ["Pace", "Schedule"]


SMOOTHING = 0.9
"""Share of what was known of the loss in its running mean; single batches are noisy."""


@dataclass(frozen=True)
class Schedule:
    """How often to measure.

    Args:
        budget: the share of training time that measuring may take; `inf` is no limit.
        moved: a change in a head score (between 0 and 1) or, relatively, in a loss that counts as a movement.
        first: the gap, in steps, after the first measurement.
        densest, sparsest: bounds of the gap.
        lookback: states between two measurements that are kept in memory, to be measured when it turns out that
            something moved between the two; 0 keeps none.
        at_least: checkpoints that are measured whatever they cost, evenly spread over the training; needs `total`.
        total: updates of the whole training, where that is known.
    """

    budget: float | int = 0.1
    moved: float = 0.05
    first: int = 10
    densest: int = 1
    sparsest: int = 200
    lookback: int = 4
    at_least: int = 0
    total: int | None = None

    def __post_init__(self) -> None:
        if not self.budget > 0:
            raise ValueError(f"expected a budget above 0, such as 0.1 of the training's time, got {self.budget}")
        if not 1 <= self.densest <= self.first <= self.sparsest:
            raise ValueError(
                f"expected 1 <= densest <= first <= sparsest, got {self.densest}, {self.first}, {self.sparsest}"
            )
        if self.lookback < 0 or not self.moved > 0:
            raise ValueError(f"expected moved above 0 and lookback from 0 on, got {self.moved} and {self.lookback}")
        if self.at_least and (self.total is None or not 2 <= self.at_least <= self.total + 1):
            raise ValueError(
                f"expected at_least from 2 on and, as total, how many updates there will be, got at_least="
                f"{self.at_least} and total={self.total}"
            )


@dataclass
class Pace:
    """Where a recording stands in its schedule.

    Times are in seconds; `loss` is the running mean of the loss, `smooth`, as it was at the last measurement.
    """

    schedule: Schedule
    gap: int = 0
    last: int | None = None
    loss: float | None = None
    smooth: float | None = None
    spent: float = 0.0
    training: float = 0.0
    costs: list[float] = field(default_factory=list)
    begun: int = 0
    calls: int = 0

    def __post_init__(self) -> None:
        self.gap = self.schedule.first

    @property
    def share(self) -> float:
        """Time spent on measuring over time spent on training."""
        return self.spent / self.training if self.training else math.inf

    def affordable(self, n: int = 1) -> bool:
        """Whether `n` more measurements fit into the budget; the last few tell what one costs."""
        if math.isinf(self.schedule.budget):
            return True
        recent = self.costs[1:][-5:] or self.costs  # the first one also loads what is needed, and tells less
        expected = n * sum(recent) / len(recent) if recent else 0.0
        return self.spent + expected <= self.schedule.budget * self.training

    def expect(self, total: "int | float") -> None:
        """How many updates there will be, where the schedule does not say."""
        if self.schedule.total is None and math.isfinite(total) and total > 0:
            self.schedule = replace(self.schedule, total=int(total))

    def promised(self, step: int) -> bool:
        """Whether one of the checkpoints that are measured whatever they cost lies at this step, or was passed."""
        number, total = self.schedule.at_least, self.schedule.total
        if not number or total is None or self.last is None:
            return False
        places = (self.begun + at * (total - self.begun) / (number - 1) for at in range(number))
        return any(self.last < math.ceil(place) <= step for place in places)

    def expected(self) -> int | None:
        """How many checkpoints this budget allows over the whole training; None where that is not known yet."""
        total, budget = self.schedule.total, self.schedule.budget
        if total is None or not self.costs or not self.training or self.calls < 5:
            return None
        updates = max(1, total - self.begun)
        recent = self.costs[1:][-5:] or self.costs
        affordable = budget * updates * self.training / self.calls / (sum(recent) / len(recent))
        return min(updates + 1, max(2, self.schedule.at_least, int(min(affordable, updates)) + 1))

    def plan(self) -> str:
        """What will be measured at this budget, as a sentence; empty while that is not known yet."""
        if not self.costs or not self.training or self.calls < 5:
            return ""
        recent = self.costs[1:][-5:] or self.costs
        cost, update = sum(recent) / len(recent), self.training / self.calls
        budget = (
            "no limit" if math.isinf(self.schedule.budget) else f"{self.schedule.budget:.0%} of the training's time"
        )
        found, total = self.expected(), self.schedule.total
        what = f"a measurement takes {cost:.2g} s and an update {update:.2g} s; the budget is {budget}"
        if found is not None:
            return f"{what}: up to {found} checkpoints of {total} updates, the first and the last among them"
        every = max(1, round(cost / (self.schedule.budget * update)))
        return f"{what}: at most one checkpoint in {every} updates, and the first and the last"

    def due(self, step: int, loss: float | None = None) -> bool:
        """Whether to measure at this step; always at the first one, and where that was promised."""
        if loss is not None and math.isfinite(loss):
            self.smooth = loss if self.smooth is None else SMOOTHING * self.smooth + (1 - SMOOTHING) * loss
        if self.last is None or self.promised(step):
            return True
        fell = False
        if self.smooth is not None and self.loss is not None:
            fell = self.loss - self.smooth > self.schedule.moved * abs(self.loss)
        wanted = step - self.last >= self.gap or (fell and step - self.last >= self.schedule.densest)
        return wanted and self.affordable()

    def measured(self, step: int, movement: float | None) -> None:
        """A measurement was made; `movement` is None for the first."""
        if movement is not None and movement > self.schedule.moved:
            share = min(max(self.schedule.moved / movement, 1 / 8), 1 / 2)
            self.gap = max(self.schedule.densest, int(self.gap * share))
        elif movement is not None:
            self.gap = min(self.schedule.sparsest, math.ceil(self.gap * 1.5))
        self.begun = step if self.last is None else self.begun
        self.last, self.loss = step, self.smooth
