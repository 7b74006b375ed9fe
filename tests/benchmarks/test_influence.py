"""Predicted shifts against retrained ones: six planted sources of demo-sized runs.

Question: when a source's weight changes by a twentieth, does the date of induction move as `why` predicts?  Each seed
trains one run (about 15 s of one core), asks once (40 s) and retrains twelve branches (9 s each).  `SEEDS` seeds are
looked at, three by default.  The interval was made on seeds 0 to 3; seed 4 was looked at afterwards.

Measured (seeds 0 to 4): Spearman 1.00 in each; the sign right in 57 of 57 told; covered 56 of 59 (seed 4: 12 of 12).
`why` takes 2.1 to 2.3 times the CPU time of the training.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from circuits.loading import load_model
from tracking.checkpoints.runs import Run
from tracking.experiments.branching import branch
from tracking.influence.influence import Shift, why
from tracking.influence.opened import open_run
from tracking.influence.targets import date_of, values_at
from tracking.influence.verification import shifted_date
from tracking.training.hyperparameters import TrainingConfig
from tracking.training.training import reproducible, train

SEEDS = range(int(os.environ.get("SEEDS", "3")))
FACTORS = (1.05, 0.95)
SIX = {
    "steps": 500,
    "checkpoints": "0..100:20,100..500:10",
    "sources": {
        "random": {"kind": "random", "weight": 0.08},
        "repeats": {"kind": "repeats", "weight": 0.6, "shortest_period": 4, "longest_period": 12},
        "noisy": {"kind": "noisy-repeats", "weight": 0.08},
        "runs": {"kind": "runs", "weight": 0.08},
        "bigram": {"kind": "bigram", "weight": 0.08},
        "trigram": {"kind": "trigram", "weight": 0.08},
    },
}


@dataclass(frozen=True)
class Retrained:
    """One branch: what was predicted for it, with its interval, and what was found."""

    source: str
    predicted: float
    low: float
    high: float
    actual: float

    @property
    def told(self) -> bool:
        return self.low > 0 or self.high < 0


def retrained(run: Run, shifts: tuple[Shift, ...]) -> list[Retrained]:
    with reproducible():
        opened = open_run(run, "induction", threshold=None, n_prompts=64, seed=0)
        found = []
        for factor in FACTORS:
            share = (factor - 1) / 0.1
            for each in shifts:
                low, high = sorted((share * each.low, share * each.high))
                actual = shifted_date(opened, each.source, factor, each.window) - opened.date.step
                found.append(Retrained(each.source, share * each.shift_steps, low, high, actual))
    return found


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[list[Retrained], float]]:
    """By seed: the branches, and how many times the training's own time the answer took."""
    found = {}
    for seed in SEEDS:
        begun = time.process_time()
        run = train(TrainingConfig.from_dict({**SIX, "seed": seed}), tmp_path_factory.mktemp("six") / str(seed))
        trained = time.process_time()
        answer = why(run)
        asked = time.process_time()
        found[seed] = retrained(run, answer.shifts), (asked - trained) / (trained - begun)
    return found


def test_predicted_shifts_rank_as_retrained_ones(measured: dict) -> None:
    for seed, (branches, cost) in measured.items():
        ranks = stats.spearmanr([b.predicted for b in branches], [b.actual for b in branches]).statistic
        print(f"seed {seed}: Spearman {ranks:.2f}, {cost:.1f} times the time of training")
        for each in branches:
            print(f"  {each}")
        assert ranks >= 0.8
        assert cost <= 4


def test_told_effects_have_the_right_sign_and_intervals_cover(measured: dict) -> None:
    branches = [each for found, _ in measured.values() for each in found]
    told = [each for each in branches if each.told]
    right = np.mean([np.sign(each.predicted) == np.sign(each.actual) for each in told])
    covered = np.mean([each.low <= each.actual <= each.high for each in branches])
    print(f"sign right in {right:.0%} of {len(told)}, covered {covered:.0%} of {len(branches)}")
    assert right >= 0.9
    assert covered >= 0.8


def test_the_source_that_makes_induction_possible_is_first_and_without_it_nothing_forms(tmp_path: Path) -> None:
    """Random tokens and a chain alone teach nothing of repeats; what comes after the date moves it by nothing.

    Measured (seed 0): induction at step 269.4; a tenth more repeats moves it by -4.7 (-6.4 to -2.7), of the chain by
    3.4, of random tokens by 1.3, of what comes after it by 0.  In the branch no head's score is above .083.
    """
    sources = {name: SIX["sources"][name] for name in ("random", "repeats", "bigram")}  # type: ignore[index]
    sources["late"] = {"kind": "runs", "weight": "0:0, 380:0, 381:0.5"}
    shorter = {**SIX, "steps": 400, "checkpoints": "0..400:20", "sources": sources}
    run = train(TrainingConfig.from_dict(shorter), tmp_path / "one")
    found = why(run)
    for each in found.shifts:
        print(f"  {each}")
    assert found.date < 380
    assert found.shifts[0].source == "repeats"
    assert found.shifts[0].high < 0
    assert [(each.shift_steps, each.told) for each in found.shifts if each.source == "late"] == [(0, False)]
    made = branch(run, at=0, interventions=["reweight repeats by 0"], out=tmp_path / "without")
    opened = open_run(run, "induction", threshold=None, n_prompts=64, seed=0)
    scores = {each.step: values_at(opened.curve, load_model(each.source).module) for each in made.run.checkpoints}
    print(f"date {found.date:.1f}; without repeats the largest score is {max(map(np.max, scores.values())):.3f}")
    assert date_of(opened.curve, scores) is None
    assert made.different == ()  # the control is the run


def test_a_source_whose_weight_does_not_matter_is_said_to_have_no_effect(tmp_path: Path) -> None:
    """Two sources of one chain: which of them a sequence is from changes nothing but which sequences there are."""
    small = {"steps": 60, "checkpoints": "0..60:5", "n_layers": 1, "n_heads": 2, "d_model": 16, "vocabulary": 12}
    small |= {"context_length": 12, "batch_size": 16, "warmup_steps": 10, "learning_rate": 0.01}
    told = []
    for seed in range(8):
        sources = {name: {"kind": "bigram"} for name in ("one", "other")}
        run = train(TrainingConfig.from_dict({**small, "sources": sources, "seed": seed}), tmp_path / str(seed))
        told.append(any(each.told for each in why(run, role="loss").shifts))
    print(f"told in {sum(told)} of {len(told)} runs in which there is nothing to tell")
    assert sum(told) <= 2
