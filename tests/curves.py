"""Score curves with a known date: kinds of rises, kinds of noise, and runs in which nothing forms.

A **kind** is a noiseless score as a function of x = ln(step), its time drawn at random.  A **noise** is what the
prompts and the checkpoints add.  A **null** is a run whose heads only wander.

    logistic      _/‾   sudden     _|‾   overshoot  _/\\_   rising at end  __/
    power-law     _(‾   two-stage  _/_/  slow sag   _/‾-    hump           _/\\_
    linear-time   _)‾   drift up   _/-   comes back _/\\/‾
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from circuits.graph import Estimate, ModelGraph, NodeScores
from tracking.history.history import History
from tracking.history.records import Record
from tracking.lifelines.states import holds

STEPS = np.unique(np.round(np.geomspace(10, 10_000, 40))).astype(int)
BASE, HEIGHT, CARRIER = 0.05, 0.8, 4
GRID = np.linspace(np.log(8), np.log(12_000), 1800)
PROBE, ROLE = "repeated-tokens", "induction"
GRAPH = ModelGraph(2, 4, mlp=False)
Curve = Callable[[np.ndarray], np.ndarray]


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(z, -60, 60)))


def score_curve(kind: str, rng: np.random.Generator) -> Curve:
    """A curve of that kind, its time drawn so that what it does is seen."""
    m = rng.uniform(np.log(60), np.log(900 if kind in LOSSES else 1500))
    if kind == "rising at end":
        m = np.log(10_000) - rng.uniform(-0.3, 0.5)
    return lambda x: BASE + SHAPES[kind](x - m)


SHAPES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "logistic": lambda d: HEIGHT * sigmoid(d / 0.15),
    "power-law": lambda d: HEIGHT * np.where(d > 0, 1 - np.exp(-0.7 * np.maximum(d, 0)), 0),
    "linear-time": lambda d: HEIGHT * np.clip((np.exp(d) - 1) / 4, 0, 1),
    "two-stage": lambda d: 0.3 * sigmoid(d / 0.08) + 0.5 * sigmoid((d - 1.5) / 0.08),
    "overshoot": lambda d: HEIGHT * sigmoid(d / 0.12) * (1 - 0.45 * sigmoid((d - 1.2) / 0.3)),
    "slow sag": lambda d: HEIGHT * sigmoid(d / 0.12) * (1 - 0.06 * np.maximum(d - 0.5, 0)),
    "drift up": lambda d: (0.45 + 0.09 * np.maximum(d, 0)) * sigmoid(d / 0.12),
    "sudden": lambda d: HEIGHT * (d >= 0),
    "rising at end": lambda d: HEIGHT * sigmoid(d / 0.4),
    "hump": lambda d: 0.7 * sigmoid(d / 0.12) * (1 - sigmoid((d - 1.3) / 0.15)),
    "comes back": lambda d: 0.7 * sigmoid(d / 0.12) * (1 - sigmoid((d - 1.0) / 0.1)) + 0.7 * sigmoid((d - 2.0) / 0.15),
    "gompertz": lambda d: HEIGHT * np.exp(-np.exp(-np.clip(d / 0.25, -6, 60))),
    "dip first": lambda d: 0.6 * sigmoid(d / 0.1) - 0.04 * np.exp(-(((d + 0.6) / 0.3) ** 2)),
}
LOSSES = ("hump", "comes back")
ASIDE = ("gompertz", "dip first")
"""Nothing was tuned on these."""
KINDS = tuple(kind for kind in SHAPES if kind not in (*LOSSES, *ASIDE))
HALF_LEVELS: dict[str, tuple[float, ...]] = {
    **dict.fromkeys(("logistic", "power-law", "linear-time", "sudden", "slow sag", "gompertz"), (BASE + HEIGHT / 2,)),
    "two-stage": (BASE + 0.15, BASE + 0.3 + 0.25),
    "overshoot": (BASE + 0.55 * HEIGHT / 2,),
    "dip first": (BASE + 0.3,),
}
"""Half of each rise, where the plateau after it is a level of its own; kinds without one have none."""


@dataclass(frozen=True)
class Noise:
    """Standard deviations, and correlations from one checkpoint to the next."""

    checkpoint_sd: float = 0.0
    own_past: float = 0.0
    prompts: int = 64
    prompt_sd: float = 0.15
    prompt_past: float = 0.9
    amplitude: float = 0.3


NOISES = {"prompts": Noise(), "white": Noise(0.03), "own past": Noise(0.03, 0.9)}


def correlated(rng: np.random.Generator, past: float, shape: tuple[int, ...]) -> np.ndarray:
    """Normal noise of variance 1 that follows its own past along the first axis."""
    out = rng.standard_normal(shape)
    for index in range(1, shape[0]):
        out[index] = past * out[index - 1] + np.sqrt(1 - past**2) * out[index]
    return out


@dataclass(frozen=True)
class Run:
    """Scores of eight heads on every prompt, one of them following `curve`, with the `wander` of its checkpoints."""

    curve: Curve
    steps: np.ndarray
    scores: np.ndarray  # step, head, prompt
    wander: np.ndarray  # step

    def thinned(self, every: int, start: int = 0) -> "Run":
        kept = slice(start, None, every)
        return Run(self.curve, self.steps[kept], self.scores[kept], self.wander[kept])

    def history(self, n_folds: int = 8) -> History:
        """As `formation record` makes it, with prompt folds."""
        records = {}
        for step, scores in zip(self.steps.tolist(), self.scores, strict=True):
            folds = np.stack([scores[:, fold::n_folds].mean(axis=1) for fold in range(n_folds)])
            error = scores.std(axis=1, ddof=1) / np.sqrt(scores.shape[1])
            estimate = Estimate(scores.mean(axis=1), error, folds, scores.shape[1])
            measured = {ROLE: NodeScores(tuple(GRAPH.components), estimate, ROLE, PROBE)}
            records[step, PROBE] = Record(step, PROBE, scores=measured)
        return History("run", GRAPH, records)

    def table(self) -> pd.DataFrame:
        """As somebody else's table has it, with standard errors alone."""
        names = [node.name for node in GRAPH.components]
        columns = {
            "step": np.repeat(self.steps, len(names)),
            "component": names * len(self.steps),
            "value": self.scores.mean(axis=2).ravel(),
            "std_error": (self.scores.std(axis=2, ddof=1) / np.sqrt(self.scores.shape[2])).ravel(),
        }
        return pd.DataFrame({**columns, "measure": ROLE, "task": PROBE})


def run_of(kind: str, noise: Noise, seed: int, *, family: int = 0, steps: np.ndarray = STEPS) -> Run:
    rng = np.random.default_rng([family, seed, sum(map(ord, kind))])
    curve = score_curve(kind, rng)
    mean = np.full((len(steps), len(GRAPH.components)), BASE)
    mean[:, CARRIER] = curve(np.log(steps))
    amplitude = 1 + noise.amplitude * rng.standard_normal((1, mean.shape[1], noise.prompts))
    prompts = noise.prompt_sd * correlated(rng, noise.prompt_past, (*mean.shape, noise.prompts))
    wander = noise.checkpoint_sd * correlated(rng, noise.own_past, (*mean.shape, 1))
    lasting = wander[:, CARRIER, 0] if noise.own_past else np.zeros(len(steps))
    return Run(curve, steps, mean[..., None] * amplitude + prompts + wander, lasting)


@dataclass(frozen=True)
class Truth:
    """ln(step) of every rise to a bar and of every loss of it, of the curve itself."""

    rises: tuple[float, ...]
    losses: tuple[float, ...]
    from_start: bool


def truth_of(run: Run, bar: float, *, along_path: bool) -> Truth:
    """What really happened: to the noiseless curve, or along this run's path, wander of its own included."""
    curve = run.curve(GRID)
    if along_path:
        curve = curve + np.interp(GRID, np.log(run.steps), run.wander)
    has = holds(curve[None], GRID, bar)[0]
    rises, losses = [], []
    for place in np.flatnonzero(has[1:] != has[:-1]) + 1:
        level, left, right = (bar if has[place] else 0.8 * bar), curve[place - 1], curve[place]
        part = np.clip((level - left) / (right - left), 0, 1) if right != left else 1.0
        (rises if has[place] else losses).append(float(GRID[place - 1] + part * (GRID[place] - GRID[place - 1])))
    return Truth(tuple(rises), tuple(losses), bool(has[0]))


def half_way(run: Run, level: float) -> float:
    """ln(step) at which the run's path comes half way from its own level before a rise to its own plateau.

    `level` is half way of the noiseless curve; wander shifts the levels on either side as well.
    """
    curve, x = run.curve(GRID), np.log(run.steps)
    if not (curve >= level).any():
        return float("nan")
    at = GRID[(curve >= level).argmax()]
    before, after = run.wander[x < at], run.wander[x > (at + x[-1]) / 2]
    level += (before.mean() + after.mean()) / 2 if len(before) and len(after) else 0.0
    above = curve + np.interp(GRID, x, run.wander) >= level
    return float(GRID[above.argmax()]) if above.any() else float("nan")


def _t3(rng: np.random.Generator, past: float, shape: tuple[int, int]) -> np.ndarray:
    moves = rng.standard_t(3, (shape[0] + 60, shape[1])) / np.sqrt(3)
    out = np.zeros_like(moves)
    for index in range(1, len(moves)):
        out[index] = past * out[index - 1] + np.sqrt(1 - past**2) * moves[index]
    return out[60:]


def _spread(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return np.abs(rng.standard_t(3, (1, shape[1]))) / 1.1


def _bursts(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Stretches in which every head is four times as unsteady, and swings that all of them share."""
    loud = np.where(correlated(rng, 0.7, (shape[0], 1)) > 1, 4.0, 1.0)
    return loud * (0.6 * correlated(rng, 0.5, shape) + 0.4 * correlated(rng, 0.5, (shape[0], 1)))


NULLS: dict[str, Callable[[np.random.Generator, tuple[int, int]], np.ndarray]] = {
    "white": lambda rng, shape: rng.standard_normal(shape),
    "own past": lambda rng, shape: correlated(rng, 0.9, shape),
    "heavy tails": lambda rng, shape: correlated(rng, 0.9, shape) * _spread(rng, shape),
    "heavy tails, white": lambda rng, shape: rng.standard_normal(shape) * _spread(rng, shape),
    "t3": lambda rng, shape: _t3(rng, 0.0, shape),
    "t3, own past": lambda rng, shape: _t3(rng, 0.9, shape),
    "random walk": lambda rng, shape: rng.standard_normal(shape).cumsum(axis=0) / np.sqrt(shape[0]) * 2,
    "bursts": _bursts,
}
"""Noise (step, head) of runs in which nothing forms, of standard deviation about 1; *bursts* was kept aside."""
