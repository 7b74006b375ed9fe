"""Drawing plan: what of a timeline is drawn, in which order, colour and words.

The page and the figures show the same things: each role lifeline is a **lane**, each component that carries the role a
**track** in it; each number over training is a **curve**, and curves of one unit share a **family**.  This module turns
tables into these, and draws nothing itself.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from tracking.history.history import History
from tracking.results.results import RunTimeline

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "DrawnCurve",
    "Lane",
    "Scale",
    "Track",
    "carrier_colours",
    "curves",
    "first_formations",
    "lanes",
    "measured_as",
    "role_colours",
    "scale_of",
    "short_number",
    "spans_decades",
    "unit_of",
]

# Okabe and Ito's palette, which people with any common colour blindness can tell apart; yellow is too pale on white.
COLOURS = {
    "induction": "#D55E00",
    "previous-token": "#0072B2",
    "duplicate-token": "#009E73",
    "first-token": "#CC79A7",
    "self": "#E69F00",
    "local": "#56B4E9",
}
SPARE = ("#882255", "#44AA99", "#999933", "#6A5ACD", "#8C564B", "#7F7F7F")
UNITS = {
    "loss": "loss (nats)",
    "in_context_learning_score": "in-context learning (nats)",
    "faithfulness": "faithfulness",
}
UNITS |= {"n_edges": "edges in the circuit", "task_metric": "task metric", "bias": "bias (logit difference)"}
UNITS |= {"memorization": "memorisation (log probability)", "ngram": "n-gram statistics (minus divergence, nats)"}
# What a model knows by heart, prefers or has from the statistics of neighbouring tokens is no skill: axes of their own.
KINDS = {"memorization": "memorization", "ngram": "ngram", "gender_pronoun": "bias"}


@dataclass(frozen=True)
class Track:
    """One component in one role: the places (indices of the run's steps) at which it carries it."""

    component: str
    places: tuple[int, ...]
    strength: tuple[float, ...]
    confidence: tuple[float, ...]

    @property
    def intervals(self) -> tuple[tuple[int, int], ...]:
        """(first, last) place of each unbroken stretch."""
        cuts = [i for i in range(1, len(self.places)) if self.places[i] != self.places[i - 1] + 1]
        starts, ends = [0, *cuts], [*(cut - 1 for cut in cuts), len(self.places) - 1]
        return tuple((self.places[start], self.places[end]) for start, end in zip(starts, ends, strict=True))


@dataclass(frozen=True)
class Lane:
    """One lifeline and the components that carry it, the earliest first."""

    lifeline: str
    role: str
    tracks: tuple[Track, ...]

    def strongest(self, limit: int) -> tuple[Track, ...]:
        """The first track and those with the largest scores, in the order of the lane."""
        ranked = [self.tracks[0], *sorted(self.tracks[1:], key=lambda track: -max(track.strength))][:limit]
        return tuple(track for track in self.tracks if track in ranked)


@dataclass(frozen=True)
class DrawnCurve:
    """One number over training; `family` is shared by curves that belong on one axis.

    A `minor` curve is the same on corrupted prompts, drawn fainter; `own` numbers are the trainer's, such as its
    learning rate, and shown on request.
    """

    name: str
    label: str
    family: str
    steps: tuple[int, ...]
    values: tuple[float, ...]
    errors: tuple[float, ...]
    minor: bool = False

    @property
    def own(self) -> bool:
        return self.name.startswith("training/") and self.family != "loss"


def lanes(run: RunTimeline) -> tuple[Lane, ...]:
    """The role lifelines of a run, in the order of its table; lifelines of single components only where all are."""
    table = run.table("lifelines")
    table = table[table["role"].notna() & (table["role"] != "")]
    of_roles = table.groupby("lifeline")["component"].transform(lambda names: (names != names.name).any())
    table = table[of_roles.astype(bool)] if len(table) and of_roles.any() else table
    place = {step: index for index, step in enumerate(run.history.steps)}
    found = []
    for lifeline, rows in table.groupby("lifeline", sort=False):
        tracks = []
        for component, some in rows.sort_values("step", kind="stable").groupby("component", sort=False):
            places = tuple(place[step] for step in some["step"].tolist())
            tracks.append(Track(str(component), places, tuple(some["strength"]), tuple(some["confidence"])))
        tracks.sort(key=lambda track: (track.places[0], -max(track.strength)))
        found.append(Lane(str(lifeline), str(rows["role"].iloc[0]), tuple(tracks)))
    return tuple(found)


def measured_as(run: RunTimeline, lane: Lane) -> tuple[str, str] | None:
    """(task, measure) of the scores behind a lane; None where its strength is no score of the history."""
    track = lane.tracks[0]
    step = run.history.steps[track.places[0]]
    for task, measure in run.history.measures:
        record = run.history.records.get((step, task))
        if measure != lane.role or record is None or measure not in record.scores:
            continue
        names = [node.name for node in record.scores[measure].nodes]
        if track.component in names and record.scores[measure][track.component] == track.strength[0]:
            return task, measure
    return None


def first_formations(run: RunTimeline, lane: Lane) -> "pd.DataFrame":
    """One row a clock, definition and rise: the lifeline's own, else that of its first component."""
    table = run.table("formation")
    table = table[table["lifeline"] == lane.lifeline]
    whole = table["component"].isna() | (table["component"] == "")
    order = table.assign(own=~whole, row=range(len(table))).sort_values(["own", "interval_after", "row"])
    return order.drop_duplicates(["clock", "definition", "rise"]).sort_values("row").drop(columns=["own", "row"])


def role_colours(roles: Iterable[str]) -> dict[str, str]:
    """A colour for every role: the same in every figure and page where the role is a known one."""
    found, spare = {}, iter(SPARE * 20)
    for role in dict.fromkeys(roles):
        found[role] = COLOURS.get(role) or next(spare)
    return found


def carrier_colours(found: Iterable[Lane], history: History, step: int) -> dict[str, str]:
    """The colour of each component that carries a role at a step; the first lane wins where it carries several."""
    found = tuple(found)
    colours, place = role_colours(lane.role for lane in found), history.steps.index(step)
    carried = [
        (track.component, colours[lane.role]) for lane in found for track in lane.tracks if place in track.places
    ]
    return dict(reversed(carried))


def curves(history: History) -> tuple[DrawnCurve, ...]:
    """Every metric of a history, and the number of edges of each task's circuit, as curves."""
    found = []
    table = history.to_frame("metrics").sort_values(["name", "step"], kind="stable")
    parts = {name: _parts(str(name)) for name in table["name"].unique()}
    shorts = [short for _, short, _, _ in parts.values()]
    tasks = {
        family: {task for task, _, own, _ in parts.values() if own == family} for _, _, family, _ in parts.values()
    }
    for name, rows in table.groupby("name", sort=True):
        task, short, family, rest = parts[name]
        if short == "n_edges":
            continue
        several = len(tasks[family]) > 1
        label = f"{rest} ({task})" if rest and several and shorts.count(short) > 1 else rest or task
        if short == "metric_clean" and several:
            label = task
        data = (tuple(rows["step"]), tuple(rows["value"]), tuple(rows["std_error"]))
        found.append(DrawnCurve(str(name), label, family, *data, minor=short == "metric_corrupted"))
    for task in history.tasks:
        sizes = [(step, r.circuit) for (step, at), r in sorted(history.records.items()) if at == task and r.circuit]
        sizes = [(step, circuit.n_edges) for step, circuit in sizes if circuit.status != "not_performed"]
        if sizes:
            steps, values = zip(*sizes, strict=True)
            nothing = (0.0,) * len(steps)
            found.append(DrawnCurve(f"{task}/n_edges", task, "n_edges", steps, tuple(map(float, values)), nothing))
    return tuple(sorted(found, key=_rank))


def _parts(name: str) -> tuple[str, str, str, str]:
    """Task, short name, the axis it belongs on, and what tells it from the others there."""
    task, _, short = name.rpartition("/")
    if "loss" in short:
        return task, short, "loss", short.replace("loss", "").strip("_").replace("_", " ")
    if short in ("metric_clean", "metric_corrupted"):
        kind = next((kind for start, kind in KINDS.items() if task.startswith(start)), "task_metric")
        return task, short, kind, short.removeprefix("metric_")
    return task, short, short, ""


def _rank(curve: DrawnCurve) -> tuple[int, str, str]:
    """Loss first, then what the model can do, then its circuit; the trainer's own numbers last."""
    order = ["loss", "in_context_learning_score", "task_metric", *KINDS.values(), "", "faithfulness", "n_edges"]
    place = order.index(curve.family) if curve.family in order else order.index("")
    return (len(order) if curve.own else place), curve.family, curve.name


def unit_of(family: str) -> str:
    return UNITS.get(family, family.replace("_", " "))


@dataclass(frozen=True)
class Scale:
    """How time is laid out: `linear`; `log`; `log1p`, which is log(1 + t / constant) and shows step 0 too; or `even`,
    with one distance between any two neighbouring checkpoints.
    """

    kind: Literal["linear", "log", "log1p", "even"]
    constant: float = 1.0


def scale_of(times: Sequence[float | int], wanted: Literal["linear", "log", "even"] | None = None) -> Scale:
    """The layout in which the checkpoints can be seen, or the one of the kind that is wanted.

    Of log(1 + t/c), the c that puts the median checkpoint in the middle is m² / (M - 2m), with m the median and M the
    last; where M < 4m, a linear axis is even enough.  Where half of the checkpoints would still stand in a sixth of the
    axis, they were saved densely because something happens there, and are laid out evenly.
    """
    if wanted == "even" and len(times) > 1:
        return Scale("even")
    positive = [float(time) for time in times if time > 0]
    if len(positive) < 2 or wanted == "linear":
        return Scale("linear")
    middle, last, first = float(np.median(np.array(times, dtype=float))), max(positive), min(positive)
    if wanted is None and last < 4 * middle:
        scale = Scale("linear")
    elif len(positive) == len(times) and last > 100 * first:
        scale = Scale("log")
    else:
        even = middle**2 / (last - 2 * middle) if last > 2 * middle else last
        scale = Scale("log1p", max(even, first))
    return Scale("even") if wanted is None and _densest_half(times, scale) < 1 / 6 else scale


def _densest_half(times: Sequence[float | int], scale: Scale) -> float:
    """The smallest share of the axis that holds half of the checkpoints."""
    at = np.array(times, dtype=float)
    if scale.kind != "linear":
        at = np.log(at) if scale.kind == "log" else np.log1p(at / scale.constant)
    half = len(at) // 2
    return float((at[half:] - at[: len(at) - half]).min() / (at[-1] - at[0])) if half >= 4 else 1.0


def spans_decades(values: np.ndarray) -> bool:
    """Whether scores need a logarithmic axis: none negative, and the largest far above what is usual."""
    known = values[np.isfinite(values)]
    return bool(len(known) and known.min() >= 0 and known.max() > 20 * max(1.0, float(np.median(known))))


def short_number(value: float | int) -> str:
    """Four significant digits at most, with k, M, B or T.

    >>> short_number(2_100_000_000), short_number(1454000), short_number(0.5369e9), short_number(256)
    ('2.1B', '1.454M', '536.9M', '256')
    """
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size and not (letter == "k" and abs(value) < 1e4):
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
