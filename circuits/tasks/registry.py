"""Task register: which task is meant by a name."""

from collections.abc import Callable
from typing import Any

from circuits.model import Model
from circuits.suggestions import suggest
from circuits.tasks.docstring import docstring_task
from circuits.tasks.duplicate_token import duplicate_token_task
from circuits.tasks.from_table import table_task
from circuits.tasks.gender_pronoun import gender_pronoun_task
from circuits.tasks.greater_than import greater_than_task
from circuits.tasks.induction import induction_task
from circuits.tasks.ioi import ioi_task
from circuits.tasks.memorization import memorization_task
from circuits.tasks.modular_addition import modular_addition_task
from circuits.tasks.ngram import ngram_task
from circuits.tasks.subject_verb_agreement import subject_verb_agreement_task
from circuits.tasks.task import Task

__all__ = ["TASKS", "make_task"]

TASKS: dict[str, Callable[..., Task]] = {
    "induction": induction_task,
    "ioi": ioi_task,
    "greater_than": greater_than_task,
    "subject_verb_agreement": subject_verb_agreement_task,
    "gender_pronoun": gender_pronoun_task,
    "docstring": docstring_task,
    "duplicate_token": duplicate_token_task,
    "ngram": ngram_task,
    "memorization": memorization_task,
    "modular_addition": modular_addition_task,
    "table": table_task,
}


def make_task(name: str, model: Model, *, n_prompts: int = 64, seed: int = 0, **options: Any) -> Task:
    """The task of that name for this model; `options` are the task's own (`text`, `strings`, `path`, `order`, ...).

    Raises:
        ValueError: no task of that name; the message says which is nearest and which there are.
    """
    if name not in TASKS:
        raise ValueError(f"no task {name!r}; {suggest(name, TASKS)}")
    return TASKS[name](model, n_prompts=n_prompts, seed=seed, **options)
