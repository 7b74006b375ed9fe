"""IOI task: the one who is not repeated (When Mary and John went to the store, John gave a drink to → Mary).

The corrupted prompt has a third name where the subject comes again, so that nothing tells the two apart; the control
has it in the clean prompt too.

References:
    Interpretability in the Wild: a Circuit for Indirect Object Identification in GPT-2 small (Wang et al., 2022),
    https://arxiv.org/abs/2211.00593
"""

from functools import partial

import torch

from circuits.model import Model
from circuits.tasks.task import Task
from circuits.tasks.text import Pair, pick, task_from_pairs, usable

__all__ = ["ioi_task"]

NAMES = [
    "Mary",
    "John",
    "Tom",
    "James",
    "Dan",
    "Martin",
    "Amy",
    "Sarah",
    "Anna",
    "David",
    "Paul",
    "Mark",
    "Laura",
    "Alice",
    "Bob",
    "Emma",
    "Peter",
    "Jack",
    "Kate",
    "Lucy",
    "Michael",
    "Robert",
    "Susan",
    "Karen",
    "George",
    "Henry",
    "Jane",
    "Helen",
    "Kevin",
    "Brian",
    "Simon",
    "Adam",
    "Ben",
    "Sam",
    "Max",
    "Leo",
]
PLACES = ["store", "school", "park", "office", "house", "garden", "hospital", "station"]
OBJECTS = ["drink", "book", "ring", "bone", "snack", "ball", "letter", "computer"]
TEMPLATES = (
    "When {A} and {B} went to the {place}, {S} gave a {object} to",
    "Then, {A} and {B} went to the {place}. {S} gave a {object} to",
    "After {A} and {B} went to the {place}, {S} gave a {object} to",
    "While {A} and {B} were at the {place}, {S} gave a {object} to",
)


def ioi_task(model: Model, *, n_prompts: int = 64, seed: int = 0, order: str = "mixed", fresh: bool = False) -> Task:
    """Indirect object identification, logit(indirect object) − logit(subject).

    Args:
        order: `ABBA` (the subject is named second), `BABA` (first), or `mixed`.
        fresh: the control: no name comes twice.

    Raises:
        ValueError: an unknown order, or too few names that are single tokens.
    """
    if order not in ("ABBA", "BABA", "mixed"):
        raise ValueError(f"expected order 'ABBA', 'BABA' or 'mixed', got {order!r}")
    names, dropped = usable(model, NAMES, name="ioi", least=4)

    def draw(generator: torch.Generator) -> Pair:
        indirect, subject, third, fourth = pick(generator, names, 4)
        (template,), (place,), (thing,) = (pick(generator, words) for words in (TEMPLATES, PLACES, OBJECTS))
        swap = order == "BABA" or (order == "mixed" and bool(torch.randint(2, (1,), generator=generator)))
        first, second = (subject, indirect) if swap else (indirect, subject)
        fill = partial(template.format, A=first, B=second, place=place, object=thing)
        return fill(S=fourth if fresh else subject), fill(S=third), [indirect], [subject]

    control = None if fresh else partial(ioi_task, model, n_prompts=n_prompts, seed=seed, order=order, fresh=True)
    name = "ioi_control" if fresh else "ioi"
    return task_from_pairs(model, draw, name=name, n_prompts=n_prompts, seed=seed, dropped=dropped, control=control)
