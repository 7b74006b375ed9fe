"""Clocks: which curve each clock of a lifeline reads.

- **form**: does it look like one?  The score of the role; for a role lifeline that of its strongest carrier.
- **function**: does the model need it?  The effect of corrupting the carriers: a node measure where one was recorded
  (`FUNCTION_MEASURES`), else the sum of the edges that leave them.
- **behaviour**: can the model do the task?  The task's metric (`BEHAVIOUR_METRICS`).  Where chance and ceiling of it
  are known, the task is done half way between them; the bar is above chance by more than the error of the metric.
  Where there is no ceiling, as of a difference of logits, the metric is that on clean prompts less that on corrupted
  ones, and what does not come above chance by more than its error is no rise.

Function and behaviour are read on one task: that of the role's name, or which the role serves (`SERVES`), else that on
which its scores were taken, else the only one there is.

A curve keeps its prompt folds, so that its dates can be resampled over prompts, with the same draw at every checkpoint
and for every curve.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import dropwhile, takewhile
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from circuits.graph import Node
from tracking.formation.curves import Curve, curve_of
from tracking.formation.function_tests import Rotated, function_test
from tracking.formation.wander import family_p
from tracking.history.history import History
from tracking.lifelines.lifelines import Lifeline
from tracking.lifelines.paths import Noise, noise_of_curves, paths_of
from tracking.lifelines.score_noise import spans_decades

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["BEHAVIOUR_METRICS", "CLOCKS", "FUNCTION_MEASURES", "Clock", "Curve", "Level", "Measured"]
__all__ += ["behaviour", "form", "function", "metric_lifelines"]

FALLS = re.compile(r"loss|perplexity|ppl|error|bits_per|surprisal|cross_entropy|in_context_learning_score", re.I)
"""Numbers that fall as the model learns."""
FUNCTION_MEASURES = ("ablation", "patching", "attribution")
TRAINING = "training"  # what the training's own log says
SERVES = {"previous-token": "induction"}
"""Roles that do a part of what another one does."""
SURE = 1.645  # standard errors above chance, one-sided 5 %
# (metric, metric to take off or None, sign): losses fall as the model learns.
BEHAVIOUR_METRICS: tuple[tuple[str, str | None, int], ...] = (
    ("metric_clean", "metric_corrupted", 1),
    ("metric_clean", None, 1),
    ("accuracy", None, 1),
    ("loss_second_half", "loss_first_half", -1),
    ("in_context_learning_score", None, -1),
    ("loss_second_half", None, -1),
    ("loss", None, -1),
)


@dataclass(frozen=True)
class Level:
    """One measure of all components on the scale on which it is compared, and what it is beneath its noise.

    `bar` turns a threshold into that scale: log(1 + score) for scores that span decades, whose fluctuations grow with
    them.  A component that was not measured at every step keeps its measured values as its path.
    """

    steps: Float[np.ndarray, "step"]
    names: tuple[str, ...]
    value: Float[np.ndarray, "component step"]
    error: Float[np.ndarray, "component step"]
    folds: Float[np.ndarray, "fold component step"]
    path: Float[np.ndarray, "component step"]
    noise: Noise
    logarithmic: bool

    def bar(self, threshold: float) -> float:
        return float(np.log1p(threshold)) if self.logarithmic else threshold


@dataclass(frozen=True)
class Measured:
    """A history whose arrays, once asked for, are kept: every clock of every lifeline reads the same few."""

    history: History
    kept: dict[tuple[str, str], "xr.Dataset | None"] = field(default_factory=dict)
    levels: dict[tuple[str, str], Level] = field(default_factory=dict)
    wander: dict[tuple[str, str, float], Float[np.ndarray, "component"]] = field(default_factory=dict)
    counted: dict[tuple[str, str], int | None] = field(default_factory=dict)

    def score(self, measure: str, task: str) -> "xr.Dataset":
        if (task, measure) not in self.kept:
            self.kept[task, measure] = self.history.score(measure, task=task)
        found = self.kept[task, measure]
        assert found is not None
        return found

    def level(self, measure: str, task: str) -> Level:
        """A measure with the paths of its components."""
        if (task, measure) not in self.levels:
            self.levels[task, measure] = _level(self.score(measure, task))
        return self.levels[task, measure]

    def wander_p(self, measure: str, task: str, bar: float) -> Float[np.ndarray, "component"]:
        """For each component the family-wise p that its rise to the bar is wander; NaN where that cannot be told."""
        key = (task, measure, bar)
        if key not in self.wander:
            level = self.level(measure, task)
            found = np.full(len(level.names), np.nan)
            whole = np.flatnonzero(np.isfinite(level.value).all(axis=1))
            if len(whole):
                found[whole] = family_p(level.value[whole], bar)
            self.wander[key] = found
        return self.wander[key]

    def effects(self, task: str) -> "xr.Dataset | None":
        """Node effects of a task: a recorded measure, or the sum of what its edges carry."""
        if (task, "") not in self.kept:
            self.kept[task, ""] = _effects(self.history, task)
        return self.kept[task, ""]

    def prompts(self, measure: str, task: str) -> int | None:
        """Over how many prompts a measure, a metric or the edge scores (no measure) of a task are means."""
        if (task, measure) not in self.counted:
            self.counted[task, measure] = _prompts(self.history, measure, task)
        return self.counted[task, measure]

    def task_of(self, lifeline: Lifeline) -> str | None:
        """The task on which a role's function and behaviour are read; None where several are and nothing tells which.

        That of its name, or of the role that it serves; else its own; else the only one.
        """
        tasks = [name for name in self.history.tasks if self.effects(name) is not None]
        tasks = tasks or sorted({name.rpartition("/")[0] for name in self.history.metrics} - {TRAINING})
        for asked in filter(None, (lifeline.role, SERVES.get(lifeline.role), lifeline.task)):
            named = [name for name in tasks if _alike(name, asked)]
            if named:
                return named[0]
        return tasks[0] if len(tasks) == 1 else None


def _alike(task: str, role: str) -> bool:
    """`duplicate_token` is the task of the role duplicate-token, and `induction-long` one of induction."""
    one, other = task.replace("_", "-"), role.replace("_", "-")
    return one.startswith(other) or other.startswith(one)


def _prompts(history: History, measure: str, task: str) -> int | None:
    found = 0
    for (_, name), record in history.records.items():
        if name != task:
            continue
        estimates = [scores.estimate for label, scores in record.scores.items() if label == measure]
        estimates += [estimate for label, estimate in record.metrics.items() if label == measure]
        estimates += [record.circuit.scores.estimate] if not measure and record.circuit else []
        found = max(found, *(estimate.n_prompts for estimate in estimates), 0)
    return found or None


def _level(data: "xr.Dataset") -> Level:
    value, error, folds = data.value.values.T, data.std_error.values.T, np.moveaxis(data.folds.values, 1, -1)
    value = np.where(np.isfinite(value), value, np.nan)
    if logarithmic := spans_decades(data.value.values):
        error, value, folds = error / (1 + value), np.log1p(value), np.log1p(np.maximum(folds, 0))
    path, nugget = value.copy(), np.zeros(len(value))
    roughness = np.zeros(len(value))
    whole = np.flatnonzero(np.isfinite(value).all(axis=1))
    if len(whole):
        known = folds[:, whole][np.isfinite(folds[:, whole]).all(axis=(1, 2))]
        noise = noise_of_curves(value[whole], known)
        path[whole], nugget[whole], roughness[whole] = paths_of(value[whole], noise), noise.nugget, noise.roughness
    steps, names = data.step.values.astype(float), tuple(data.component.values.tolist())
    return Level(steps, names, value, error, folds, path, Noise(nugget, roughness), logarithmic)


def form(measured: Measured, lifeline: Lifeline, node: Node | None = None, seed: int = 0) -> Curve | None:
    """The score of one component, whose role `lifeline` is, or of the role's strongest carrier at each step.

    Who carries the role where is what its lifeline says; before a stretch in which somebody does, the curve is that of
    the component which begins it.
    """
    if not lifeline.measure:
        return _plain(lifeline)
    level = measured.level(lifeline.measure, lifeline.task)
    carried = dict(zip(lifeline.steps, lifeline.nodes, strict=True))
    nodes = [carried.get(int(step), ()) for step in level.steps]
    if node is not None:
        best = np.full(len(level.steps), level.names.index(node.name) if node.name in level.names else -1)
    else:
        best = _strongest(level, nodes)
    at = np.arange(len(best))
    at = at[(best >= 0) & np.isfinite(level.path[best, at])]
    if not len(at):
        return None
    best, folds = best[at], level.folds[:, best[at], at]
    bar = level.bar(lifeline.threshold)
    return Curve(
        steps=level.steps[at],
        value=level.value[best, at],
        std_error=level.error[best, at],
        folds=folds[np.isfinite(folds).all(axis=1)],
        path=level.path[best, at],
        nugget=float(np.median(level.noise.nugget[best])),
        roughness=float(np.median(level.noise.roughness[best])),
        bar=bar,
        bar_kind="role threshold",
        has=np.array([bool(nodes[place]) if node is None else node in nodes[place] for place in at]),
        p_wander=_wander_p(measured, lifeline, node, bar),
        measure=f"{lifeline.task}/{lifeline.measure}",
        n_prompts=measured.prompts(lifeline.measure, lifeline.task),
        logarithmic=level.logarithmic,
        family=level.path[:, at] if node is None else None,
    )


def _strongest(level: Level, nodes: Sequence[tuple[Node, ...]]) -> Int[np.ndarray, "step"]:
    """The component that a role's curve follows at each step; -1 where nothing was measured."""
    place = {name: index for index, name in enumerate(level.names)}
    path = np.nan_to_num(level.path, nan=-np.inf)
    best = np.full(path.shape[1], -1)
    for step, here in enumerate(nodes):
        known = [place[one.name] for one in here if one.name in place]
        if known:
            best[step] = known[int(path[known, step].argmax())]
    if not (best >= 0).any():  # nobody ever does: the highest of all
        return np.where(np.isfinite(path).any(axis=0), path.argmax(axis=0), -1)
    following = -1
    for step in range(len(best) - 1, -1, -1):
        following = best[step] = best[step] if best[step] >= 0 else following
    last = int(best[best >= 0][-1])
    return np.where(best >= 0, best, last)


def _wander_p(measured: Measured, lifeline: Lifeline, node: Node | None, bar: float) -> float:
    """Of one component, or the least of those that carry a role before it is first lost."""
    p = dict(
        zip(
            measured.level(lifeline.measure, lifeline.task).names,
            measured.wander_p(lifeline.measure, lifeline.task, bar).tolist(),
            strict=True,
        )
    )
    if node is not None:
        return p.get(node.name, float("nan"))
    first = dropwhile(lambda nodes: not nodes, lifeline.nodes)
    found = [p.get(one.name, np.nan) for nodes in takewhile(bool, first) for one in nodes]
    known = [one for one in found if np.isfinite(one)]
    return min(known) if known else float("nan")


def _plain(lifeline: Lifeline) -> Curve | None:
    """A lifeline without a measure has its strength alone."""
    strength = np.array(lifeline.strength)
    return curve_of(np.array(lifeline.steps), strength, np.full(len(strength), np.nan), np.empty((0, len(strength))))


def function(measured: Measured, lifeline: Lifeline, node: Node | None = None, seed: int = 0) -> Curve | None:
    """The joint effect of corrupting the carriers, or one, with its p-value against as many others at a time."""
    nodes = lifeline.components if node is None else (node,)
    task = measured.task_of(lifeline)
    data = measured.effects(task) if task else None
    if task is None or data is None or not nodes:
        return None
    names = data.component.values.tolist()
    places = [names.index(node.name) for node in nodes if node.name in names]
    if not places:
        return None
    value, folds = data.value.values, data.folds.values
    total, parts = value[:, places].sum(axis=1), folds[..., places].sum(axis=2)
    error = _error(parts) if len(parts) > 1 else np.sqrt((data.std_error.values[:, places] ** 2).sum(axis=1))
    curve = curve_of(data.step.values, total, error, parts)
    known = np.flatnonzero(np.isfinite(total))
    if len(known):
        # Judged where the nodes do most: late snapshots tell, a single one would be chosen for its noise.
        late = known[-max(1, len(known) // 4) :]
        effects = np.nanmean(value[late], axis=0)
        rotated = _rotated(measured, task, data.step.values[late], names)
        controls = function_test(
            [Node.parse(names[place]) for place in places], names, effects, rotated=rotated, seed=seed
        )
        measure = _effect_measure(measured.history, task)
        about = f"{task}/{measure or 'edges'}", measured.prompts(measure, task), controls
        curve = curve and replace(curve, measure=about[0], n_prompts=about[1], controls=about[2])
    return curve


def _rotated(measured: Measured, task: str, steps: np.ndarray, names: list[str]) -> Rotated | None:
    """Effects and those of rotated corruptions, exact ones where any of the steps has them and else first order, each a
    mean over the steps where both were recorded; the rotations are the same at every step, so that draws have means."""
    for own, turned in (("exact-rotation", "exact-rotation"), ("attribution", "rotation")):
        try:
            effects = measured.score(own, task).reindex(component=names)
            draws = measured.score(turned, task).reindex(component=names)
        except KeyError:
            continue
        known = [each.step.values[each.value.notnull().any("component").values] for each in (effects, draws)]
        both = [step for step in steps.tolist() if all(step in each for each in known)]
        found = draws.folds.sel(step=both).values
        if both and len(found):
            exact = own == turned
            return Rotated(effects.value.sel(step=both).values.mean(axis=0), found.mean(axis=1), exact)
    return None


def _effect_measure(history: History, task: str) -> str:
    """The node measure that says what corrupting a component does; none where it is read from the edges."""
    return next((measure for measure in FUNCTION_MEASURES if (task, measure) in history.measures), "")


def _effects(history: History, task: str) -> "xr.Dataset | None":
    if measure := _effect_measure(history, task):
        return history.score(measure, task=task)
    if not any(record.circuit for (_, name), record in history.records.items() if name == task):
        return None
    edges = history.edge_scores(task)
    summed = edges[["value", "folds"]].sum("reader", skipna=False).rename(writer="component")
    error = np.sqrt((edges.std_error**2).sum("reader")).rename(writer="component")
    keep = [name not in ("input",) for name in summed.component.values.tolist()]
    return summed.assign(std_error=error).isel(component=np.flatnonzero(keep))


def behaviour(measured: Measured, lifeline: Lifeline, node: Node | None = None, seed: int = 0) -> Curve | None:
    """The metric of the lifeline's task; that of the task its scores were taken on, where the other has none."""
    history = measured.history
    known = set(history.metrics)
    if lifeline.lifeline in known:
        return _metric(history, lifeline.lifeline, None, -1 if FALLS.search(lifeline.lifeline) else 1)
    for task in dict.fromkeys((measured.task_of(lifeline), lifeline.task)):
        for name, less, sign in BEHAVIOUR_METRICS:
            if f"{task}/{name}" in known and (less is None or f"{task}/{less}" in known):
                curve = _metric(history, f"{task}/{name}", f"{task}/{less}" if less else None, sign)
                return curve and replace(curve, n_prompts=measured.prompts(name, str(task)))
    return None


def metric_lifelines(history: History) -> list[Lifeline]:
    """One lifeline without carriers for every number that came from elsewhere, to be dated by behaviour alone.

    These are the metrics of tasks of which nothing else was measured; what the training's own log says is one of them
    only in a history that has no components at all.
    """
    alone = not history.measures
    measured = {task for (_, task), record in history.records.items() if record.measures or record.has_circuit}
    found = []
    for name in history.metrics:
        task = name.rpartition("/")[0]
        if task in measured or (task == TRAINING and not alone):
            continue
        steps = tuple(step for (step, own), record in sorted(history.records.items()) if own == task)
        nothing = (float("nan"),) * len(steps)
        found.append(Lifeline(history.name, name, "role", name, steps, ((),) * len(steps), nothing, nothing, task=task))
    return found


def _metric(history: History, name: str, less: str | None, sign: int) -> Curve | None:
    """A metric with its bar, where chance and ceiling are known; without a ceiling, less the other one."""
    data, (chance, ceiling) = history.metric(name), history.levels_of(name)
    value, error, folds = data.value.values, data.std_error.values, data.folds.values
    if chance is not None and ceiling is not None:
        sign, less = (1 if ceiling > chance else -1), None
    if less is not None:
        other = history.metric(less)
        value, folds = value - other.value.values, folds - other.folds.values
        error = _error(folds) if len(folds) > 1 else np.sqrt(error**2 + other.std_error.values**2)
        chance = 0.0
    curve = curve_of(data.step.values, sign * value, error, sign * folds)
    if curve is None:
        return None
    curve = replace(curve, measure=name if less is None else f"{name} minus {less}", falls=sign < 0)
    if chance is not None:
        curve = replace(curve, floor=sign * chance, least=sign * chance + SURE * curve.typical_error)
    if chance is None or ceiling is None:
        return curve
    return replace(curve, bar=max(sign * (chance + ceiling) / 2, curve.least), bar_kind="half way from chance")


def _error(folds: np.ndarray) -> np.ndarray:
    return folds.std(axis=0, ddof=1) / np.sqrt(len(folds))


@dataclass(frozen=True)
class Clock:
    """One thing that forms.

    Attributes:
        about: the question that it answers.
        read: the curve of a role lifeline, or of one component in that role; None where the history cannot show it.
            The last argument is the seed of what it draws.
        needs_carriers: whether a role that nobody ever carries has no such curve.
    """

    about: str
    read: Callable[[Measured, Lifeline, Node | None, int], Curve | None]
    needs_carriers: bool = True


CLOCKS: dict[str, Clock] = {
    "form": Clock("it looks like one", form, needs_carriers=False),
    "function": Clock("the model needs it", function),
    "behaviour": Clock("the task is done", behaviour),
}
"""Every clock by name, in the order of the table; one more entry is one more clock."""
