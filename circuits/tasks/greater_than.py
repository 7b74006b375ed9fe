"""Greater-than task: whether a span of years ends after it began (from the year 1732 to the year 17 → 33 ... 99).

Only years that the tokenizer splits into century and two digits are used. The corrupted prompt begins in year 01, after
which every end is later. The control begins in year 01 too.

References:
    How does GPT-2 compute greater-than? (Hanna et al., 2023), https://arxiv.org/abs/2305.00586
"""

from dataclasses import replace
from functools import partial

import torch

from circuits.model import Model
from circuits.tasks.task import Task
from circuits.tasks.text import encode, pick

__all__ = ["greater_than_task"]

NOUNS = [
    "war",
    "siege",
    "reign",
    "voyage",
    "campaign",
    "conflict",
    "expedition",
    "rebellion",
    "partnership",
    "marriage",
    "famine",
    "trial",
]
CENTURIES = tuple(str(century) for century in range(11, 20))


def greater_than_task(model: Model, *, n_prompts: int = 64, seed: int = 0, fresh: bool = False) -> Task:
    """Probability of later years minus probability of the year itself and earlier ones.

    Raises:
        ValueError: fewer than ten years that the tokenizer splits in two, or no prompts asked for.
    """
    if n_prompts < 1:
        raise ValueError(f"expected at least one prompt, got n_prompts={n_prompts}")
    digits, years = _years(model)
    if len(years) < 10 or "01" not in digits:
        raise ValueError(
            f"task 'greater_than' needs years split as century and two digits; the tokenizer has {len(years)}"
        )
    generator = torch.Generator().manual_seed(seed)
    clean, corrupted, correct, incorrect = [], [], [], []
    for _ in range(n_prompts):
        (year,), (noun,) = pick(generator, years), pick(generator, NOUNS)
        century, start = year[:2], year[2:]
        text = f"The {noun} lasted from the year {{}} to the year {century}"
        corrupted.append(encode(model.tokenizer, text.format(f"{century}01")))
        # A control that began in year 02 still differs from the corrupted prompt, and tells as little.
        began = "02" if fresh and "02" in digits else start
        clean.append(encode(model.tokenizer, text.format(f"{century}{began}")))
        correct.append([token for two, token in digits.items() if two > start])
        incorrect.append([token for two, token in digits.items() if two <= start])
    task = Task.from_tokens(
        clean,
        corrupted,
        correct,
        incorrect,
        metric="probability_difference",
        name="greater_than_control" if fresh else "greater_than",
        control=None if fresh else partial(greater_than_task, model, n_prompts=n_prompts, seed=seed, fresh=True),
    )
    return replace(task, dropped=98 * len(CENTURIES) - len(years))


def _years(model: Model) -> tuple[dict[str, int], list[str]]:
    """Token of each two-digit ending, and the years (02 ... 98 of a century) that are a century and an ending."""
    tokenizer, digits, years = model.tokenizer, {}, []
    for century in CENTURIES:
        prefix = tokenizer(f" {century}", add_special_tokens=False)["input_ids"]
        for ending in range(1, 100):
            two = f"{ending:02}"
            tokens = tokenizer(f" {century}{two}", add_special_tokens=False)["input_ids"]
            if len(tokens) == len(prefix) + 1 and tokens[:-1] == prefix and tokens[-1] != tokenizer.unk_token_id:
                digits.setdefault(two, int(tokens[-1]))
                if 1 < ending < 99:
                    years.append(f"{century}{two}")
    return digits, [year for year in years if year[2:] in digits]
