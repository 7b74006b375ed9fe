"""Table columns: name, kind and meaning of every column of the six tables.

The tables have these columns in Python, Parquet, CSV and JSON.  The JSON Schema, the reference and the page take them
from here.  What is not known is missing: null, an empty cell, NaN or None.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BAR_KINDS", "CENSORINGS", "COLUMNS", "MEASURED", "STATES", "TABLES", "BarKind", "Censoring", "Column"]
__all__ += ["CONTROLS", "STAGE", "Control", "State", "Table", "frame_of", "kind_of", "typed"]

ColumnKind = Literal["text", "integer", "number", "flag"]

State = Literal[
    "formed",
    "formed, still rising",
    "formed and lost",
    "there from the start",
    "there from the start and lost",
    "pending",
    "never",
    "not datable by this definition",
    "not told from noise",
]
"""What became of a lifeline by one clock and one definition; *pending*: above its bar at the last checkpoint alone."""
STATES: tuple[State, ...] = get_args(State)

BarKind = Literal["role threshold", "half of plateau", "half way from chance", "none"]
"""What the level is that a curve has to reach."""
BAR_KINDS: tuple[BarKind, ...] = get_args(BarKind)
Control = Literal["", "other sets", "rotations", "first-order rotations", "not testable"]
CONTROLS: tuple[Control, ...] = get_args(Control)

Censoring = Literal["no", "left", "right"]
CENSORINGS: tuple[Censoring, ...] = get_args(Censoring)


@dataclass(frozen=True)
class Column:
    """One column; `values` is the closed list of its values, empty where any value of its kind may stand."""

    name: str
    kind: ColumnKind
    about: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """One table: what one row of it is, and its columns in order."""

    about: str
    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)


def _text(name: str, about: str, values: Sequence[str] = ()) -> Column:
    return Column(name, "text", about, tuple(values))


def _integer(name: str, about: str) -> Column:
    return Column(name, "integer", about)


def _number(name: str, about: str) -> Column:
    return Column(name, "number", about)


def _flag(name: str, about: str) -> Column:
    return Column(name, "flag", about)


RUN = _text("run", "the run's name")
STEP = _integer("step", "of the checkpoint")
TOKENS = _number("tokens", "seen by then, where known")
STAGE = _text("stage", "of training, in runs that have several; the last column of every table, and only of theirs")
MEAN = (_number("value", "the mean over prompts"), _number("std_error", "its standard error over prompts"))

SCORES = Table(
    "One number of one component at one step.",
    (
        RUN,
        STEP,
        TOKENS,
        _text("component", "such as `a1.h0` or `m0`"),
        _text("task", "the task or probe on which it was measured"),
        _text("measure", "such as `induction` (attention) or `eap` (effect)"),
        *MEAN,
    ),
)

EDGES = Table(
    "One edge at one step.",
    (
        RUN,
        STEP,
        _text("task", "whose metric falls"),
        _text("source", "the component that writes"),
        _text("target", "the component that reads"),
        _text("slot", "`q`, `k` or `v` of a head; missing where there is but one input"),
        _number("score", "how much the metric falls when the edge is corrupted; the mean over prompts"),
        _number("std_error", "its standard error over prompts"),
        _flag("in_circuit", "whether the edge is one of the circuit's"),
        _number("inclusion", "the share of resampled prompts that choose it; missing where it cannot be known"),
    ),
)

METRICS = Table(
    "One number of the whole model at one step.",
    (RUN, STEP, TOKENS, _text("name", "task and number, such as `training/loss` or `induction/faithfulness`"), *MEAN),
)

LIFELINES = Table(
    "One carrier of one lifeline at one step.",
    (
        RUN,
        _text("lifeline", "a role, or the name of a component"),
        _text("role", "what it does there; missing where it does nothing that has a name"),
        STEP,
        _text("component", "who carries it"),
        _number("strength", "its score there"),
        _number("confidence", "the probability that its score is above the role's threshold"),
    ),
)

EVENTS = Table(
    "Something that happened to a lifeline between two checkpoints, and what that rests on.",
    (
        RUN,
        _text("lifeline", "to which it happened"),
        _text("event", "birth, death, switch, hand-off, lead change, split or merge"),
        _integer("step_before", "the last checkpoint before it"),
        _integer("step_after", "the first checkpoint after it"),
        _text("role_before", "the role before"),
        _text("role_after", "the role after"),
        _text("components_before", "who carried it before, with commas between them"),
        _text("components_after", "who carried it after"),
        _number("confidence", "the share of such events that are right"),
        _text("stopped", "the components that stop, with commas between them"),
        _number("stopped_from", "the strength of what stops, before"),
        _number("stopped_to", "its strength after"),
        _text("began", "the components that begin"),
        _number("began_from", "the strength of what begins, before"),
        _number("began_to", "its strength after"),
        _text("measure", "what these strengths are of; of what stops and of what begins, where they differ"),
        _text(
            "alternative",
            "the next best explanation: another kind of event, `consequence of` another component, or `nothing`",
        ),
        _number("margin", "how much worse that explains the scores, in nats"),
    ),
)

FORMATION = Table(
    "When one rise of one lifeline formed, by one clock and one definition.",
    (
        RUN,
        _text("lifeline", "a role, or the name of a component"),
        _text("role", "what it does"),
        _text("component", "whose lifeline it is; missing where it is a role's"),
        _integer("layer", "of the component"),
        _integer("head", "its number within the layer; missing where it is no head"),
        _text("clock", "form, function or behaviour"),
        _text("definition", "half-rise, logistic, change-point or threshold"),
        _number("bar", "the level that the curve has to reach"),
        _text("bar_kind", "what that level is", BAR_KINDS),
        _integer("rise", "which rise of the curve is dated, the first being 1"),
        _integer("n_rises", "how many rises the curve shows; 0 where it shows none"),
        _number("onset", "when a tenth of the rise is done, in steps"),
        _number("midpoint", "the date, by this definition"),
        _number("plateau", "when nine tenths are done; missing where no plateau was seen"),
        _number(
            "low", "the lower end of the date's interval, from prompts, jitter of checkpoints and the gaps between them"
        ),
        _number("high", "its upper end"),
        _number("interval_before", "the last checkpoint without it"),
        _number("interval_after", "the first checkpoint with it"),
        _number("at_two_thirds", "the date at two thirds of the bar"),
        _number("at_four_thirds", "the date at four thirds of the bar"),
        _number("share_prompts", "the share of the date's variance that its prompts make"),
        _number("share_jitter", "the share that the jitter from checkpoint to checkpoint makes"),
        _number("share_gap", "the share that the time between two checkpoints makes"),
        _number("lost", "when it was lost again, where it was"),
        _number("lost_low", "the lower end of that time's interval"),
        _number("lost_high", "its upper end"),
        _text("censored", "`no`, `left` (there at the first checkpoint) or `right` (not dated)", CENSORINGS),
        _text("state", "what became of it", STATES),
        _number(
            "p_value", "form: that wander makes such a rise, over all heads; function: that controls have the effect"
        ),
        _integer("n_controls", "how many controls there are"),
        _number("smallest_p", "the smallest p-value that so many controls can give"),
        _text("control", "what the controls are: all claims of one kind rest on one test", CONTROLS),
        _integer("n_prompts", "prompts that the curve is a mean over"),
        _flag("error_known", "whether an error of the scores is known; else `low` and `high` are the checkpoints"),
        _text("status", "the other columns in words, for people"),
    ),
)

TABLES: Mapping[str, Table] = {
    "scores": SCORES,
    "edges": EDGES,
    "metrics": METRICS,
    "lifelines": LIFELINES,
    "events": EVENTS,
    "formation": FORMATION,
}
MEASURED: tuple[Literal["scores", "edges", "metrics"], ...] = ("scores", "edges", "metrics")
COLUMNS: Mapping[str, tuple[str, ...]] = {name: table.names for name, table in TABLES.items()}
_KINDS: Mapping[str, ColumnKind] = {
    column.name: column.kind for table in TABLES.values() for column in (*table.columns, STAGE)
}


def kind_of(column: str) -> ColumnKind:
    """What a column of any of the tables holds: a column means one thing in all of them."""
    return _KINDS[column]


def frame_of(rows: Iterable[Any], table: str) -> "pd.DataFrame":
    """Values whose attributes are a table's columns, as that table: components joined by commas, None as missing."""
    import pandas as pd

    names = COLUMNS[table]
    frame = pd.DataFrame([[_cell(getattr(row, name)) for name in names] for row in rows], columns=list(names))
    return frame.assign(**{name: _of_kind(frame[name]) for name in names if kind_of(name) != "text"})


def _cell(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, tuple) else value


def typed(frame: "pd.DataFrame", table: str) -> "pd.DataFrame":
    """The frame with exactly the table's columns, and `stage` where it has one; no text is None, as CSV cannot tell it
    from empty, no number NaN."""
    import pandas as pd

    columns = {}
    for name in (*COLUMNS[table], *([STAGE.name] if STAGE.name in frame else [])):
        column = frame[name]
        columns[name] = (
            pd.Series(_texts(column), dtype=object)
            if kind_of(name) == "text"
            else _of_kind(column.reset_index(drop=True))
        )
    return pd.DataFrame(columns)


def _of_kind(column: "pd.Series") -> "pd.Series":
    """Numbers and flags: a step is a whole number, a time that was interpolated or resampled is not."""
    import pandas as pd

    kind = kind_of(str(column.name))
    if kind == "flag":
        return column.astype(bool)
    numbers = pd.to_numeric(column).astype("float64")
    return numbers.astype("int64") if kind == "integer" and not numbers.isna().any() else numbers


def _texts(column: "pd.Series") -> np.ndarray:
    """Every value as text; where all are texts, each different one is looked at once."""
    import pandas as pd

    if pd.api.types.infer_dtype(column, skipna=True) != "string":
        return np.array([_as_text(value) for value in column.tolist()], dtype=object)
    codes, different = pd.factorize(column)
    return np.array([*map(_as_text, different.tolist()), None], dtype=object)[
        codes
    ]  # the code of what is missing is -1


def _as_text(value: Any) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, (list, tuple, set, frozenset)):
        return ",".join(str(part) for part in value) or None
    return str(value) or None
