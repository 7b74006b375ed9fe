"""Does the embedded trainer show what the literature has seen on each kind of data source?

    pytest -o addopts= -s tests/benchmarks/test_known_outcomes.py

Each test trains from one seed, takes about a minute of one core, and says in its docstring what came out.

References:
    Quantifying Memorization Across Neural Language Models (Carlini et al., 2022), https://arxiv.org/abs/2202.07646
    Neural Networks Learn Statistics of Increasing Complexity (Belrose et al., 2024), https://arxiv.org/abs/2402.04362
    Grokking: Generalization Beyond Overfitting on Small Algorithmic Datasets (Power et al., 2022),
    https://arxiv.org/abs/2201.02177
    Data Distributional Properties Drive Emergent In-Context Learning in Transformers (Chan et al., 2022),
    https://arxiv.org/abs/2205.05055
    The Transient Nature of Emergent In-Context Learning in Transformers (Singh et al., 2023),
    https://arxiv.org/abs/2311.08360
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Bool, Int
from scipy import stats
from torch import nn

from circuits.loading import load_model
from tracking.checkpoints.runs import Run
from tracking.influence.targets import curve_named, date_of, values_at
from tracking.training.hyperparameters import TrainingConfig
from tracking.training.problem_kinds import ModularArithmetic, PlantedStrings
from tracking.training.training import train

Tokens = Int[np.ndarray, "sequence pos"]


def trained(folder: Path, **options: Any) -> tuple[TrainingConfig, Run]:
    config = TrainingConfig.from_dict(options)
    return config, train(config, folder)


def curve(run: Run, measure: Callable[[nn.Module], Any]) -> dict[int, Any]:
    """What is measured at each checkpoint, by step."""
    return {each.step: measure(load_model(each.source).module) for each in run.checkpoints}


@torch.no_grad()
def likeliest(module: nn.Module, tokens: Tokens) -> Int[np.ndarray, "sequence"]:
    """The likeliest token after each sequence."""
    return module(torch.from_numpy(np.ascontiguousarray(tokens)))[:, -1].argmax(-1).numpy()


def are_right(
    module: nn.Module, *, tokens: Tokens, correct: Int[np.ndarray, "sequence"]
) -> Bool[np.ndarray, "sequence"]:
    return likeliest(module, tokens) == correct


def first_step(values: dict[int, float], bar: float) -> float:
    """The first step at which the bar is reached; infinite where it never is."""
    return min((step for step, value in values.items() if value >= bar), default=np.inf)


def test_strings_that_stand_more_often_are_memorised_earlier(tmp_path: Path) -> None:
    """A string is extractable when greedy decoding continues its first half with its second.

    Measured (seed 0, four strings of each multiplicity in a thousand sequences): first at step 25 for 100, 50 to 75
    for 30, 125 to 175 for 10, and 200 to 600 for 3, one of which never is; Spearman -.98.
    """
    multiplicities = np.repeat([3, 10, 30, 100], 4)
    config, run = trained(
        tmp_path / "planted",
        steps=1500, checkpoints="0..1500:25", attn_only=False, context_length=16,
        sources={"planted": {
            "kind": "planted-strings", "string_length": 8, "multiplicities": multiplicities.tolist(),
        }},
    )  # fmt: skip
    (source,) = config.sources
    assert isinstance(source.made, PlantedStrings)
    strings = source.made.strings(config.shape)

    def extracted(module: nn.Module) -> np.ndarray:
        tokens = strings[:, :4]
        for _ in range(4):
            tokens = np.concatenate([tokens, likeliest(module, tokens)[:, None]], axis=1)
        return (tokens == strings).all(axis=1)

    known = curve(run, extracted)
    dates = [first_step({step: float(row[place]) for step, row in known.items()}, 1) for place in range(len(strings))]
    ranks = stats.spearmanr(multiplicities, dates).statistic
    print(f"first extractable at {dates}, by multiplicities {multiplicities.tolist()}")
    print(f"Spearman {ranks:.2f}")
    assert ranks <= -0.9


@pytest.mark.parametrize("seed", [2, 3])
def test_bigrams_come_before_trigrams_before_induction(tmp_path: Path, seed: int) -> None:
    """The date of a source is half way of its task's metric; induction is also dated by its role's bar.

    The order of trigrams and induction is the mixture's doing, by either clock.  With equal weights induction comes
    first (bigrams, trigrams, the induction head and repeats at 52, 289, 225 and 275 on seed 0, and at 53, 267, 234 and
    263 on seed 1); with weights 1, 2 and 0.5 trigrams do (50, 151, 316 and 412 on seed 1).  From share 1/3 to 4/7 the
    date of trigrams falls as the share to the power -1.1, as if so many of their sequences had to be seen; from 1/3 to
    1/7 that of the head rises with a power of -0.4 only.  So the order turns where trigrams weigh about 1.25 times what
    bigrams and repeats do; at 1.5 times trigrams were predicted at 209, the head at 244.

    Measured there (seeds 2 and 3, looked at after the prediction): bigrams 42 and 44, trigrams 198 and 204, the head
    210 and 242, repeats 233 and 256.
    """
    config, run = trained(
        tmp_path / "mixture",
        steps=360, checkpoints="0..360:20", seed=seed, attn_only=False, vocabulary=16,
        sources={
            "bigram": {"kind": "bigram"},
            "trigram": {"kind": "trigram", "weight": 1.5},
            "repeats": {"kind": "repeats", "shortest_period": 6, "longest_period": 12},
        },
    )  # fmt: skip
    model, dates = load_model(run.checkpoints[0].source), {}
    for name in ("task/source:bigram", "task/source:trigram", "task/source:repeats", "induction"):
        asked = curve_named(name, model, config, n_prompts=128)
        found = date_of(asked, curve(run, partial(values_at, asked)))
        dates[name] = np.inf if found is None else found.step
    print(dates)
    assert dates["task/source:bigram"] < dates["task/source:trigram"] < dates["induction"]
    assert dates["induction"] <= dates["task/source:repeats"] < np.inf


def test_held_out_sums_come_the_later_the_fewer_are_trained_on(tmp_path: Path) -> None:
    """Both are dated where accuracy first reaches 0.9; the delay is the steps between them.

    Measured (seed 0, modulus 23): trained ones at step 450, 450 and 525 for fractions .9, .8 and .7, held-out ones 25,
    75 and 625 steps later.  At .65 held-out accuracy was at most .60 within 3000 steps.
    """
    delays = {}
    for fraction in (0.9, 0.8, 0.7):
        config, run = trained(
            tmp_path / str(fraction),
            steps=1200, checkpoints="0..1200:25", n_layers=1, d_model=64, n_heads=4, attn_only=False,
            positions="standard", normalization="none", batch_size=128, learning_rate=2e-3, weight_decay=1.0,
            beta2=0.98, vocabulary=24, context_length=4,
            sources={"sums": {"kind": "modular-arithmetic", "modulus": 23, "fraction": fraction}},
        )  # fmt: skip
        (source,) = config.sources
        assert isinstance(source.made, ModularArithmetic)
        pairs = np.concatenate(source.made.split())
        n_trained = len(source.made.split()[0])
        tokens = np.concatenate([pairs, np.full((len(pairs), 1), 23)], axis=1)
        right = curve(run, partial(are_right, tokens=tokens, correct=pairs.sum(axis=1) % 23))
        learned = first_step({step: row[:n_trained].mean() for step, row in right.items()}, 0.9)
        understood = first_step({step: row[n_trained:].mean() for step, row in right.items()}, 0.9)
        best = max(row[n_trained:].mean() for row in right.values())
        delays[fraction] = understood - learned
        print(f"{fraction:.0%} trained on: {learned}, held-out {understood} (best {best:.2f})", flush=True)
    assert delays[0.9] < delays[0.8] < delays[0.7]
    assert delays[0.8] < np.inf


def test_only_bursty_data_makes_labels_be_taken_from_the_context_and_only_for_a_while(tmp_path: Path) -> None:
    """Questions give a class another label than training did, and show a second label with a second class.

    In-context classification proper, the label of the *same* class, did not come in any mixture that was tried (one
    seed each).  A model that knows a class half by heart need not look for it: among the labels in the context, of
    which two stand out, it says the one that memory prefers.  With 512 classes, always bursty, with repeats as half of
    the data up to step 400, bursty sequences are right in .96 at step 160 while a relabelled class gets the right label
    in .39 and the other one in .55, to step 1200.  With 5000 classes, two copies and four pairs, where memory comes
    later (not bursty: right in .10 at step 86, .40 at 1300), it is .51 and .46 at step 86, and .43 and .54 at the end:
    never more than which labels are there.  What is tested is therefore that labels are taken from the context at all,
    more than one in eight by guessing, and for a while only.

    Measured (seed 2): bursty, right in .47 at step 50, .34 at 100, .13 at 200 and .08 at 400; without burstiness .07 at
    step 50, by guessing, and 0 from 100 on.
    """
    right = {}
    for burstiness in (0.9, 0.0):
        config, run = trained(
            tmp_path / str(burstiness),
            steps=400, checkpoints="0..400:50", seed=2, attn_only=False, vocabulary=264, context_length=18,
            sources={"classes": {
                "kind": "in-context-classification", "n_classes": 256, "n_labels": 8, "burstiness": burstiness,
            }},
        )  # fmt: skip
        (source,) = config.sources
        questions = source.made.ask(np.random.default_rng(0), 512, config.shape)
        assert questions is not None
        answers = curve(run, partial(are_right, tokens=questions.clean, correct=questions.correct))
        right[burstiness] = {step: float(row.mean()) for step, row in answers.items()}
        print(f"burstiness {burstiness}: right {right[burstiness]}", flush=True)
    peak = max(right[0.9].values())
    assert peak > 0.25
    assert right[0.9][400] < peak / 2
    assert max(right[0.0].values()) < 0.2
