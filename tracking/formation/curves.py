"""Curves to date: a number over checkpoints, its path beneath the noise, and draws of how else that could be.

Question: what is known of a number that a clock reads, and with what errors?

A curve keeps its prompt folds, so that its dates can be resampled over prompts, with the same draw at every checkpoint
and for every curve.  Where only standard errors are known, the same prompts were used throughout, so one draw of their
error moves the whole curve.

Axes: `step` the checkpoints that were measured, `fold` the prompt folds, `draw` the draws.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from tracking.formation.function_tests import Controls
from tracking.history.columns import BarKind
from tracking.lifelines.paths import Noise, draw_paths, noise_of_curves, paths_of
from tracking.lifelines.states import holds, log_steps

__all__ = ["Curve", "Draws", "curve_of", "draws_of"]


@dataclass(frozen=True)
class Curve:
    """A number over steps, higher being more formed; snapshots that were not measured are left out.

    Attributes:
        std_error: of each value, over prompts.
        folds: the value on each fold of the prompts; none where they are not known.
        path: the curve beneath the jitter of its checkpoints (`tracking.lifelines.paths`).
        nugget: variance of that jitter.
        roughness: variance of the path's own steps.
        bar: what it has to reach, on its own scale; None where no level is known.
        bar_kind: what that level is.
        floor: the level without what is asked.
        has: where it has its bar; as its lifeline says, where it has one.
        p_wander: family-wise p that its first rise is only wander; NaN where that cannot be told.
        measure: names the number.
        n_prompts: over how many prompts it is a mean, where that is known.
        controls: how matched controls fare, where it is an effect.
        logarithmic: whether the curve is log(1 + number).
        falls: whether the curve is minus the number, which falls as the model learns.
        family: of a role's curve the paths of all that could carry it, on its steps.
        least: what is above chance by more than the error; below it nothing rises.
    """

    steps: Float[np.ndarray, "step"]
    value: Float[np.ndarray, "step"]
    std_error: Float[np.ndarray, "step"]
    folds: Float[np.ndarray, "fold step"]
    path: Float[np.ndarray, "step"]
    nugget: float = 0.0
    roughness: float = 0.0
    bar: float | None = None
    bar_kind: BarKind = "none"
    floor: float = 0.0
    has: Bool[np.ndarray, "step"] | None = None
    p_wander: float = float("nan")
    measure: str = ""
    n_prompts: int | None = None
    controls: Controls | None = None
    logarithmic: bool = False
    falls: bool = False
    family: Float[np.ndarray, "component step"] | None = field(default=None, repr=False)
    least: float = -np.inf

    @property
    def x(self) -> Float[np.ndarray, "step"]:
        return log_steps(self.steps)

    @property
    def error_known(self) -> bool:
        return len(self.folds) > 1 or bool(np.isfinite(self.std_error).mean() > 0.5)

    @property
    def typical_error(self) -> float:
        """The median standard error over prompts; 0 where none is known."""
        known = self.std_error[np.isfinite(self.std_error)]
        return float(np.median(known)) if len(known) else 0.0

    def number(self, level: float) -> float:
        """A level of the curve on the scale of the numbers themselves."""
        level = float(np.expm1(level)) if self.logarithmic else level
        return -level if self.falls else level

    @property
    def noise(self) -> Float[np.ndarray, "step"]:
        """Standard deviation of each value about the path's trend: prompts and jitter."""
        return np.sqrt(np.nan_to_num(self.std_error) ** 2 + self.nugget)

    @property
    def states(self) -> Bool[np.ndarray, "step"]:
        """Where it has its bar; nowhere, where none is known."""
        if self.has is not None:
            return self.has
        if self.bar is None:
            return np.zeros(len(self.steps), dtype=bool)
        return holds(self.path, self.x, self.bar, floor=self.floor)


@dataclass(frozen=True)
class Draws:
    """How else a curve could be: by its prompts alone, and by its prompts and the jitter of its checkpoints."""

    prompts: Float[np.ndarray, "draw step"]
    all: Float[np.ndarray, "draw step"] = field(repr=False)


def curve_of(
    steps: np.ndarray, value: np.ndarray, error: np.ndarray, folds: np.ndarray, **about: object
) -> Curve | None:
    """A curve on its own, without the others of its measure; None where nothing was measured."""
    known = np.isfinite(value)
    if not known.any():
        return None
    value, error, folds = value[known].astype(float), error[known].astype(float), folds[:, known]
    folds = folds[np.isfinite(folds).all(axis=1)]
    noise = noise_of_curves(value[None], folds[:, None])
    kept = {"nugget": float(noise.nugget[0]), "roughness": float(noise.roughness[0]), **about}
    path = paths_of(value[None], noise)[0]
    return Curve(steps[known].astype(float), value, error, folds, path, **kept)  # type: ignore[arg-type]


def draws_of(curve: Curve, n_draws: int, confidence: float, *, seed: tuple[int, int]) -> Draws:
    """The curve on resampled prompts, and with the jitter of its checkpoints drawn as well.

    Fold means are drawn with replacement, widened for the number of folds as Student's t is; the first of the seeds
    draws the prompts, the same for all curves.
    """
    rng, n_folds = np.random.default_rng([*seed, 1]), len(curve.folds)
    if n_folds > 1:
        weights = np.random.default_rng(seed[0]).multinomial(n_folds, np.full(n_folds, 1 / n_folds), n_draws) / n_folds
        wider = np.sqrt(n_folds / (n_folds - 1)) * _small_sample(n_folds, confidence)
        resampled = curve.value + wider * (weights @ curve.folds - curve.folds.mean(axis=0))
    else:
        error = np.where(np.isfinite(curve.std_error), curve.std_error, curve.typical_error)
        resampled = curve.value + error * rng.standard_normal((n_draws, 1))
    noise = Noise(np.array([curve.nugget]), np.array([curve.roughness]))
    smooth, drawn = draw_paths(curve.value[None], resampled[None], noise, rng)
    # A role's path is the highest of its components' paths, which the path of the highest values nearly is.
    apart = curve.path - paths_of(curve.value[None], noise)[0]
    return Draws(smooth[0] + apart, drawn[0] + apart)


def _small_sample(n_folds: int, confidence: float) -> float:
    tail = 0.5 + confidence / 2
    return float(stats.t.ppf(tail, n_folds - 1) / stats.norm.ppf(tail))
