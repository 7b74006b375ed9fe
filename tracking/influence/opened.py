"""A run opened for influence: how it was trained, the states it keeps, the curve in question and its date.

What must be there before it can be asked which data moved a date, and what is said where it is not?
"""

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from circuits.checkpoint import locate, read_weights
from circuits.loading import load_model
from tracking.checkpoints.run_files import read_run_file
from tracking.checkpoints.runs import Run
from tracking.influence.seen_data import SeenData, drawn_data, given_data
from tracking.influence.targets import Crossing, TargetCurve, curve_named, date_of, values_at
from tracking.influence.unrolled import flat
from tracking.training.hyperparameters import TrainingConfig
from tracking.training.training import STATE, TrainingState, load_state, reproducible, training_step

__all__ = ["OpenedRun", "open_run"]

SAME = 0.01
"""Largest share of the way between two checkpoints by which a training done again may be off: rounding grows."""
TINY = 1e-30


@dataclass(frozen=True)
class OpenedRun:
    """`measured` holds the curve at every kept step; `states` the steps from which training can be gone through again;
    `config` is None where the run is not of the embedded trainer and its data was given."""

    run: Run
    config: TrainingConfig | None
    data: SeenData
    curve: TargetCurve
    measured: dict[int, np.ndarray]
    date: Crossing
    states: tuple[int, ...]

    @property
    def trained(self) -> TrainingConfig:
        """How the embedded trainer made it.

        Raises:
            ValueError: it did not, or the data was given instead.
        """
        if self.config is None:
            raise ValueError(
                f"only a run of the embedded trainer, with its own data, can be gone through again, which "
                f"{self.run.name!r} with given data is not; method='products' needs only checkpoints and data"
            )
        return self.config

    @property
    def from_the_start(self) -> bool:
        """Whether training can be gone through again from its first checkpoint on."""
        return bool(self.states) and min(self.states) <= min(self.run.steps)

    def state_at(self, step: int) -> TrainingState:
        return load_state(self.trained, self.run[step].source)

    def module_at(self, step: int) -> nn.Module:
        return load_model(self.run[step].source).module.requires_grad_(True)


def open_run(
    run: Run, curve: str, *, threshold: float | None, n_prompts: int, seed: int, data: "str | Path | None" = None
) -> OpenedRun:
    """A run and the date of one of its curves, ready to be gone back through.

    Args:
        data: a file of what it was trained on (`seen_data`), for a run that does not say.

    Raises:
        ValueError: the run does not say how it was trained, is in half precision, has interventions, or its curve
            is unknown or never crosses its bar, or training it again does not give its checkpoints.
    """
    config = _configuration(run) if data is None else None
    _check_precision(run)
    model = load_model(run.checkpoints[0].source)
    seen = drawn_data(config) if config else given_data(str(data), run, vocabulary=model.d_vocab)
    asked = curve_named(curve, model, config, threshold=threshold, n_prompts=n_prompts, seed=seed)
    measured = {each.step: values_at(asked, load_model(each.source).module) for each in run.checkpoints}
    date = date_of(asked, measured)
    if date is None:
        raise ValueError(_never(asked, measured, run.name))
    states = tuple(each.step for each in run.checkpoints if (Path(each.source) / STATE).is_file())
    opened = OpenedRun(run, config, seen, asked, measured, date, states if config else ())
    _check_replay(opened)
    return opened


def _check_replay(opened: OpenedRun) -> None:
    """Raises:
    ValueError: the training, done again over the shortest stretch between two checkpoints, does not lead from the one
        to the other: the data or the arithmetic is another.
    """
    kept = [*opened.run.steps]
    gaps = [(after - step, step) for step, after in itertools.pairwise(kept) if step in opened.states]
    if not gaps:
        return
    gap, begin = min(gaps)
    with reproducible():
        state = opened.state_at(begin)
        before = flat([weight.detach() for weight in state.module.parameters()]).clone()
        while state.step < begin + gap:
            state, _ = training_step(state, opened.trained)
        again = flat([weight.detach() for weight in state.module.parameters()])
    there = flat([weight.detach() for weight in opened.module_at(begin + gap).parameters()])
    off = float((again - there).norm() / (there - before).norm().clamp(min=TINY))
    if not off < SAME:
        raise ValueError(
            f"training {opened.run.name!r} again from step {begin} does not lead to its checkpoint at step "
            f"{begin + gap} (the weights are off by {off:.1%} of the way); it was trained by another version, or on "
            "other data than run.json says, so train it anew"
        )


def _configuration(run: Run) -> TrainingConfig:
    known = {key: value for key, value in run.hyperparameters.items() if key != "intervention"}
    if not known:
        raise ValueError(
            f"{run.name!r} does not say how it was trained (no hyperparameters in run.json), so its data is not known; "
            "give the sequences that it saw (data=, --data FILE), from which method='products' can tell"
        )
    try:
        config = TrainingConfig.from_dict(known)
    except ValueError as error:
        raise ValueError(
            f"run.json of {run.name!r} does not say what it was trained on: {error}; give the sequences that it saw "
            "(data=, --data FILE), from which method='products' can tell"
        ) from error
    if interventions := read_run_file(run.source).interventions:
        raise ValueError(
            f"{run.name!r} was trained with interventions ({'; '.join(interventions)}), through which "
            "gradients do not go; ask its parent"
        )
    return config


def _check_precision(run: Run) -> None:
    """Raises:
    ValueError: the weights are in half precision.
    """
    weights = next(iter(read_weights(locate(run.checkpoints[0].source)).values()))
    if weights.dtype in (torch.float16, torch.bfloat16):
        raise ValueError(
            f"{run.name!r} keeps its weights in {str(weights.dtype).removeprefix('torch.')}; influence needs float32 "
            "or better, since the effects of single sequences are lost in half precision"
        )


def _never(curve: TargetCurve, measured: dict[int, np.ndarray], name: str) -> str:
    sign = -1.0 if curve.falling else 1.0
    best = {step: float((sign * values).max()) for step, values in measured.items()}
    first, top = min(measured), max(best, key=lambda step: best[step])
    bar = "half way between its first and last value" if curve.bar is None else f"{curve.bar:g}"
    if curve.bar is not None and best[first] >= sign * curve.bar:
        return (
            f"{curve.name} is at its bar of {bar} at the first checkpoint of {name!r} already; choose another threshold"
        )
    which = curve.components[int((sign * measured[top]).argmax())]
    where = f" in {which}" if which else ""
    return (
        f"{curve.name} never crosses its bar of {bar} in {name!r} and stays there, so there is no date to explain; it "
        f"comes nearest at step {top}{where}, with {sign * best[top]:.3g}: give a threshold below that"
    )
