"""Gender-pronoun task: which pronoun the model expects of a profession (The nurse said that → she).

The metric is the pronoun of the stereotype against the other: a bias, not a skill. The corrupted prompt has a man or a
woman, against the stereotype, in place of the profession. The control has words that say nothing of either.

References:
    Investigating Gender Bias in Language Models Using Causal Mediation Analysis (Vig et al., 2020),
    https://arxiv.org/abs/2004.12265
"""

from functools import partial

import torch

from circuits.model import Model
from circuits.tasks.task import Task
from circuits.tasks.text import Pair, pick, task_from_pairs, usable

__all__ = ["gender_pronoun_task"]

SHE = ["nurse", "secretary", "maid", "dancer", "housekeeper", "nanny", "receptionist", "librarian", "teacher"]
HE = ["doctor", "engineer", "soldier", "farmer", "mechanic", "carpenter", "captain", "lawyer", "guard", "king"]
NEITHER = ["person", "child", "adult", "visitor", "neighbor", "friend"]
TEMPLATES = ("The {} said that", "The {} left because", "The {} was late since", "The {} smiled when")


def gender_pronoun_task(model: Model, *, n_prompts: int = 64, seed: int = 0, fresh: bool = False) -> Task:
    """logit of the pronoun of the stereotype − logit of the other.

    Raises:
        ValueError: too few professions that are single tokens.
    """
    words, dropped = usable(model, [*SHE, *HE, *NEITHER], name="gender_pronoun", least=4)
    she, he, neither = ([word for word in group if word in words] for group in (SHE, HE, NEITHER))

    def draw(generator: torch.Generator) -> Pair:
        female = bool(torch.randint(2, (1,), generator=generator)) if she and he else bool(she)
        (word,) = pick(generator, neither if fresh else she if female else he)
        (template,) = pick(generator, TEMPLATES)
        right, wrong = (["she"], ["he"]) if female else (["he"], ["she"])
        return template.format(word), template.format("man" if female else "woman"), right, wrong

    control = None if fresh else partial(gender_pronoun_task, model, n_prompts=n_prompts, seed=seed, fresh=True)
    name = "gender_pronoun" + ("_control" if fresh else "")
    return task_from_pairs(model, draw, name=name, n_prompts=n_prompts, seed=seed, dropped=dropped, control=control)
