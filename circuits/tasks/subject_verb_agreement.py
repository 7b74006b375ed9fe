"""Agreement task: whether the verb agrees with its subject, not the noun beside it (The keys to the cabinet → are).

The corrupted prompt has the subject in the other number. In the control the subject is a noun whose number cannot be
seen (the fish, the sheep).

References:
    Assessing the Ability of LSTMs to Learn Syntax-Sensitive Dependencies (Linzen et al., 2016),
    https://arxiv.org/abs/1611.01368
    Causal Analysis of Syntactic Agreement Mechanisms in Neural Language Models (Finlayson et al., 2021),
    https://arxiv.org/abs/2106.06087
"""

from functools import partial

import torch

from circuits.model import Model
from circuits.tasks.task import Task
from circuits.tasks.text import Pair, pick, single_tokens, task_from_pairs

__all__ = ["subject_verb_agreement_task"]

SUBJECTS = (
    ("key", "keys"),
    ("teacher", "teachers"),
    ("student", "students"),
    ("doctor", "doctors"),
    ("farmer", "farmers"),
    ("author", "authors"),
    ("picture", "pictures"),
    ("book", "books"),
    ("song", "songs"),
    ("letter", "letters"),
    ("car", "cars"),
    ("door", "doors"),
)
NEITHER = ["fish", "sheep", "deer", "series", "species", "aircraft"]
BESIDE = ["cabinet", "table", "house", "window", "garden", "teacher"]
LINKS = ["to", "near", "behind", "beside"]
VERBS = (("is", "are"), ("was", "were"), ("has", "have"))


def subject_verb_agreement_task(model: Model, *, n_prompts: int = 64, seed: int = 0, fresh: bool = False) -> Task:
    """Mean logit of verbs in the subject's number minus that of verbs in the other.

    Raises:
        ValueError: too few nouns with both numbers, or verbs, that are single tokens.
    """
    words = [word for pair in (*SUBJECTS, *VERBS) for word in pair]
    known, dropped = single_tokens(model.tokenizer, [*words, *NEITHER])
    subjects = [pair for pair in SUBJECTS if set(pair) <= set(known)]
    verbs = [pair for pair in VERBS if set(pair) <= set(known)]
    neither = [word for word in NEITHER if word in known]
    if len(subjects) < 2 or not verbs or (fresh and len(neither) < 2):
        raise ValueError(f"task 'subject_verb_agreement' needs single-token nouns; this tokenizer has {len(subjects)}")

    def draw(generator: torch.Generator) -> Pair:
        subject = subjects[int(torch.randint(len(subjects), (1,), generator=generator))]
        plural = int(torch.randint(2, (1,), generator=generator))
        (link,), (beside,) = pick(generator, LINKS), pick(generator, BESIDE)
        first, second = pick(generator, neither, 2) if fresh else (subject[plural], subject[1 - plural])
        right, wrong = [verb[plural] for verb in verbs], [verb[1 - plural] for verb in verbs]
        return f"The {first} {link} the {beside}", f"The {second} {link} the {beside}", right, wrong

    control = None if fresh else partial(subject_verb_agreement_task, model, n_prompts=n_prompts, seed=seed, fresh=True)
    name = "subject_verb_agreement" + ("_control" if fresh else "")
    return task_from_pairs(model, draw, name=name, n_prompts=n_prompts, seed=seed, dropped=dropped, control=control)
