"""Source tasks: what a source of training data teaches, asked of a model.

Has the model learned what this source has to teach?  A kind of source makes paired prompts (`source_kind`), of which
the clean one tells the answer and the corrupted one another.  The metric is the logit of the right answer less that of
the other: 0 is chance.  Recorded as `source:NAME`, its rise is a behaviour clock.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from circuits.tasks.task import Task
from tracking.training.hyperparameters import TrainingConfig

__all__ = ["SOURCE_TASK", "data_options", "source_task"]

SOURCE_TASK = "source:"
"""A task of this name and the source's."""
SPARE = 2
"""Questions drawn for each that is kept: where both prompts have one answer, nothing is asked."""


def data_options(tasks: Sequence[str], hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Of a run's hyperparameters, those of which the source tasks among `tasks` are made; none where there are none."""
    if not any(task.startswith(SOURCE_TASK) for task in tasks):
        return {}
    wanted = ("vocabulary", "context_length", "sources")
    return {key: value for key, value in hyperparameters.items() if key.partition(".")[0] in wanted}


def source_task(name: str, options: Mapping[str, Any], *, n_prompts: int = 64, seed: int = 0) -> Task:
    """The task `source:NAME` of a training with these options.

    Raises:
        ValueError: the training has no such source, or there is nothing to ask of it.
    """
    config, wanted = TrainingConfig.from_dict(options), name.removeprefix(SOURCE_TASK)
    made = {source.name: source.made for source in config.sources}
    rng = np.random.default_rng(seed)
    asked = {known: kind.ask(rng, 1, config.shape) is not None for known, kind in made.items()}
    if not asked.get(wanted):
        known = ", ".join(f"{SOURCE_TASK}{each}" for each, told in asked.items() if told)
        there = f"there are {known}" if known else "this training has no sources of which anything can be asked"
        why = "nothing can be asked of" if wanted in asked else "no source for"
        raise ValueError(f"{why} task {name!r}; {there}")
    questions = made[wanted].ask(np.random.default_rng(seed), SPARE * n_prompts, config.shape)
    assert questions is not None
    kept = np.flatnonzero(questions.correct != questions.incorrect)[:n_prompts]
    rows = (questions.clean, questions.corrupted, questions.correct, questions.incorrect)
    return Task.from_tokens(*(torch.from_numpy(np.ascontiguousarray(part[kept])) for part in rows), name=name)
