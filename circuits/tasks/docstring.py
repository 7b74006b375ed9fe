"""Docstring task: whether the model names the next argument in a docstring, as the definition above orders them.

The corrupted prompt has other argument names in the definition, so that nothing says which comes next; so has the
control in its clean prompts.

References:
    A circuit for Python docstrings in a 4-layer attention-only transformer (Heimersheim & Janiak, 2023),
    https://www.alignmentforum.org/posts/u6KXXmKFbXfWzoAXn
"""

from functools import partial

import torch

from circuits.model import Model
from circuits.tasks.task import Task
from circuits.tasks.text import Pair, pick, task_from_pairs, usable

__all__ = ["docstring_task"]

WORDS = [
    "load",
    "size",
    "files",
    "date",
    "page",
    "text",
    "image",
    "key",
    "item",
    "result",
    "user",
    "group",
    "order",
    "list",
    "model",
    "point",
    "name",
    "state",
    "line",
    "value",
    "test",
    "count",
    "index",
    "path",
    "node",
    "type",
    "data",
    "time",
    "mode",
    "color",
]


def docstring_task(model: Model, *, n_prompts: int = 64, seed: int = 0, fresh: bool = False) -> Task:
    """logit(the third argument) − mean logit of the other names in the prompt.

    Raises:
        ValueError: fewer than sixteen words that are single tokens.
    """
    words, dropped = usable(model, WORDS, name="docstring", least=16)

    def draw(generator: torch.Generator) -> Pair:
        name, first, second, third, fourth, *rest = pick(generator, words, 16)
        others, more, comments = rest[:3], rest[3:6], rest[6:]

        def text(one: str, two: str, three: str) -> str:
            return (
                f"def {name} ( self , {one} , {two} , {three} , {fourth} ) :\n"
                f'    """ {comments[0]} {comments[1]}\n\n'
                f"    :param {first} : {comments[2]} {comments[3]}\n"
                f"    :param {second} : {comments[4]} {comments[0]}\n"
                "    :param"
            )

        defined = text(*more) if fresh else text(first, second, third)
        return defined, text(*others), [third], [first, second, fourth]

    control = None if fresh else partial(docstring_task, model, n_prompts=n_prompts, seed=seed, fresh=True)
    name = "docstring" + ("_control" if fresh else "")
    return task_from_pairs(model, draw, name=name, n_prompts=n_prompts, seed=seed, dropped=dropped, control=control)
