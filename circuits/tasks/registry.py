"""Which task is meant by this name?"""

import difflib
from collections.abc import Callable

from circuits.tasks.induction import induction_task
from circuits.tasks.task import Task
from circuits.transformer import Model

__all__ = ["TASKS", "make_task"]

TASKS: dict[str, Callable[..., Task]] = {"induction": induction_task}


def make_task(name: str, model: Model, *, n_prompts: int = 64, seed: int = 0) -> Task:
    """The task of that name for this model.

    Raises:
        ValueError: no task of that name; the message says which is nearest and which there are.
    """
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, n=1, cutoff=0.0)[0]
        raise ValueError(f"no task {name!r}; the nearest is {near!r}, and there are {', '.join(TASKS)}")
    return TASKS[name](model, n_prompts=n_prompts, seed=seed)
