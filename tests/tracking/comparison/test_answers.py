"""One line says how much, how surely and on how many runs; what would be absurd as a number is words."""

import math

import numpy as np
import pandas as pd
import pytest

from tests.sweeps import grid, sweep
from tracking.comparison.answers import VERDICTS, answer, at_a_glance, factor, ranking, sentence
from tracking.comparison.comparison import compare_formation

ROW = {
    "hyperparameter": "learning_rate", "contrast": "0.003 : 0.001", "role": "induction", "clock": "form",
    "definition": "half-rise", "estimate": math.log(0.76), "low": math.log(0.7), "high": math.log(0.83), "span": 1.0,
    "p_value": 0.002, "q_value": 0.004, "smallest_p": 0.001, "n_runs": 24, "n_formed": 24, "n_blocks": 0,
    "blocked_by": "", "confounded": "", "shrunk": False, "n_several": 0, "detectable": 0.2, "method": "exchange",
    "verdict": "moves it",
}  # fmt: skip


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((math.log(0.76), math.log(0.7), math.log(0.83)), "x0.76 (0.70 to 0.83)"),
        ((-math.inf, -math.inf, math.log(0.3)), "earlier, at most x0.30"),
        ((math.inf, -math.inf, math.inf), "later, with no bound on how much"),
        ((0.0, -math.inf, math.log(2)), "x1.00 (at most 2.00)"),
        ((0.0, -20.0, 20.0), "x1.00 (no bound on either side)"),
        ((math.nan, 0.0, 0.0), "not estimated"),
    ],
)
def test_a_factor_or_words(numbers: tuple[float, float, float], words: str) -> None:
    assert factor(*numbers) == words


def test_every_verdict_has_its_line_and_its_sentence() -> None:
    said = {
        "moves it": "learning_rate 0.003 : 0.001: induction by form x0.76 (0.70 to 0.83), 24 runs",
        "no effect seen": "no effect seen",
        "too few runs": "too few for a p-value below 0.001",
        "cannot be told apart": "together with weight_decay",
        "never forms": "forms in none of 24 runs",
    }
    whole = {
        "moves it": "1.32 times earlier",
        "no effect seen": "would have been seen with probability .8",
        "too few runs": "add seeds",
        "cannot be told apart": "learning_rate and weight_decay move together in these runs: their effects",
        "never forms": "nothing can be said",
    }
    for verdict in VERDICTS:
        row = {**ROW, "verdict": verdict, "confounded": "weight_decay"}
        assert said[verdict] in answer(row)
        assert whole[verdict] in sentence(row, 0.9)


def test_pairs_and_student_are_said() -> None:
    row = {**ROW, "n_runs": 16, "n_blocks": 8, "blocked_by": "seed", "method": "Student's t"}
    assert "16 runs in 8 pairs that share their seed" in sentence(row, 0.9)
    assert "by Student's t" in sentence(row, 0.9)


def test_hyperparameters_are_ranked_only_where_their_effects_can_be_told_apart() -> None:
    settings = grid(6, learning_rate=[1e-3, 3e-3], weight_decay=[0.1, 0.2])
    effects = {"learning_rate": -0.8}
    found = compare_formation(sweep(settings, np.random.default_rng(0), effects=effects, between=0.1), by=list(effects))
    both = compare_formation(
        sweep(settings, np.random.default_rng(0), effects=effects, between=0.1), by=["learning_rate", "weight_decay"]
    )
    assert not ranking(found.effects)
    assert ranking(both.effects) == ["Over the range tried learning_rate moves induction (form, half-rise) most."]
    joined = [{**one, "weight_decay": 100 * one["learning_rate"]} for one in settings]
    runs = sweep(joined, np.random.default_rng(0), effects=effects, between=0.1)
    told = compare_formation(runs, by=["learning_rate", "weight_decay"])
    assert ranking(told.effects) == [
        "Which hyperparameter moves induction (form, half-rise) most is not ranked: learning_rate and weight_decay "
        "move together in these runs."
    ]
    assert any("together with weight_decay" in line for line in told.answers)
    assert isinstance(told.effects, pd.DataFrame)


@pytest.mark.parametrize("seeds", [1, 6])
def test_the_answers_fit_in_eighty_columns(seeds: int) -> None:
    """What moves a role comes first; what is the same for all roles stands in the heading."""
    settings = grid(seeds, learning_rate=[1e-3, 3e-3], weight_decay=[0.1, 0.2])
    runs = sweep(settings, np.random.default_rng(0), effects={"learning_rate": -0.8}, between=0.1)
    lines = at_a_glance(compare_formation(runs, by=["weight_decay", "learning_rate"]).effects)
    assert max(map(len, lines)) <= 80
    if seeds == 1:
        assert lines[0] == "weight_decay 0.2 : 0.1, 4 runs, too few for a p-value below 0.33"
    else:
        assert lines[0].startswith("learning_rate 0.003 : 0.001, 24 runs")
        assert lines[1].startswith("  induction by form            x0.4")
        assert lines[3].endswith("no effect seen")


def test_a_role_that_never_forms_stands_below_those_that_do() -> None:
    rows = [{**ROW, "verdict": "never forms", "role": "self", "n_runs": 20}, ROW]
    assert at_a_glance(pd.DataFrame(rows)) == [
        "learning_rate 0.003 : 0.001, 24 runs",
        "  induction by form            x0.76 (0.70 to 0.83)",
        "  self by form                 forms in none, 20 runs",
    ]
