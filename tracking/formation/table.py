"""Formation rows: one date of one lifeline, and the table of all of them.

In each row

- `midpoint` is the date that the definition gives, `onset` and `plateau` are where the curve has come a tenth and nine
  tenths of the way (for *threshold* onset is the date too; for *change-point* all three are the date); a plateau that
  was not seen is missing;
- `interval_before` and `interval_after` are the last checkpoint without and the first with it;
- `low` and `high` bound `midpoint` with the confidence asked for: quantiles over draws of the prompts, of the jitter
  of checkpoints and of what lies between two of them; `share_prompts`, `share_jitter` and `share_gap` say which part
  of the variance each of these makes.  Where no error is known (see `error_known`) they are the checkpoints' interval;
- `at_two_thirds` and `at_four_thirds` are the dates at two and four thirds of the bar, which say how much the date
  depends on it; missing where such a bar is held from the start, or never;
- `lost`, `lost_low` and `lost_high` are when the bar was lost again;
- `censored` is `left` where it was there at the first checkpoint, `right` where it is not dated; then there is no
  date, and the interval is open on that side;
- `state` says what became of it, from the closed list of `tracking.history.columns.State`.

All times are training steps.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from circuits.display import table_html
from circuits.graph import Node
from tracking.history.columns import BarKind, Censoring, Control, State, frame_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Formation", "FormationTable"]

NAN = float("nan")


@dataclass(frozen=True, kw_only=True)
class Formation:
    """One date: a row of the table.  Steps; NaN or None where there is none.

    `component` is empty for a role lifeline.  A row is one `rise` of the curve, of the `n_rises` that it shows; where
    it shows none, `rise` is 1 and `n_rises` 0.  `measure` names the numbers that the curve is made of.
    """

    run: str
    lifeline: str
    role: str
    component: str
    clock: str
    definition: str
    bar: float = NAN
    bar_kind: BarKind = "none"
    rise: int = 1
    n_rises: int = 0
    onset: float = NAN
    midpoint: float = NAN
    plateau: float = NAN
    low: float = NAN
    high: float = NAN
    interval_before: float = NAN
    interval_after: float = NAN
    at_two_thirds: float = NAN
    at_four_thirds: float = NAN
    share_prompts: float = NAN
    share_jitter: float = NAN
    share_gap: float = NAN
    lost: float = NAN
    lost_low: float = NAN
    lost_high: float = NAN
    censored: Censoring = "no"
    state: State = "formed"
    p_value: float = NAN
    n_controls: int | None = None
    smallest_p: float = NAN
    control: Control = ""
    n_prompts: int | None = None
    error_known: bool = False
    status: str = ""
    measure: str = ""

    @property
    def formed(self) -> bool:
        """Whether it has a date, and one that is told from noise."""
        return self.censored == "no" and self.state != "not told from noise"

    @property
    def layer(self) -> int | None:
        """Of the component; None for a role's."""
        return Node.parse(self.component).layer if self.component else None

    @property
    def head(self) -> int | None:
        """The component's number within its layer; None where it is no head."""
        node = Node.parse(self.component) if self.component else None
        return node.index if node is not None and node.kind == "head" else None


@dataclass(frozen=True)
class FormationTable:
    """All dates of a history.

    `false_discovery_rate` bounds the share of rises among those dated that are only noise (Benjamini and Hochberg, over
    all curves; NaN where no error is known).
    """

    formations: tuple[Formation, ...]
    confidence: float
    false_discovery_rate: float = NAN

    def __repr__(self) -> str:
        roles = ", ".join(dict.fromkeys(date.role for date in self.formations if date.role)) or "nothing"
        return f"<FormationTable of {roles}: {len(self.formations)} dates with {self.confidence:.0%} intervals>"

    def __getitem__(self, key: tuple[str, str, str]) -> Formation:
        """The first date of (lifeline, clock, definition).

        Raises:
            KeyError: there is none.
        """
        for formation in self.formations:
            if (formation.lifeline, formation.clock, formation.definition) == key:
                return formation
        raise KeyError(f"no date of {key[0]!r} by clock {key[1]!r} and definition {key[2]!r}")

    @property
    def measures(self) -> dict[str, dict[str, str]]:
        """For each role lifeline and clock the name of the numbers that it is dated by."""
        found: dict[str, dict[str, str]] = {}
        for row in self.formations:
            if not row.component and row.measure:
                found.setdefault(row.lifeline, {})[row.clock] = row.measure
        return found

    _repr_html_ = table_html

    def to_frame(self) -> "pd.DataFrame":
        """The table `formation`, its columns as in `tracking.history.columns`."""
        return frame_of(self.formations, "formation")
