"""One test a claim, chosen by counts; p is never below what controls allow, and uniform where nothing is special."""

from dataclasses import replace
from math import comb

import numpy as np
import pytest

from circuits.graph import Estimate as Est
from circuits.graph import Node, NodeScores
from tests.examples import history_from_drawing
from tracking.formation.formation import formation_table
from tracking.formation.function_tests import Rotated, function_test, other_sets
from tracking.history.history import History
from tracking.history.records import Record

NAMES = [f"a{layer}.h{head}" for layer in range(2) for head in range(4)]
HEADS = [Node.parse(name) for name in NAMES]


def rotated(effects: np.ndarray, exact: bool = True) -> Rotated:
    return Rotated(effects, np.random.default_rng(1).normal(size=(99, len(effects))), exact)


def test_a_single_head_of_eight_has_power_by_rotations() -> None:
    effects = np.full(8, 5.0)
    test = function_test(HEADS[5:6], NAMES, effects, rotated=rotated(effects))
    assert (test.kind, test.p_value, test.n, test.smallest_p) == ("rotations", 0.01, 99, 0.01)


def test_without_rotations_a_single_head_of_eight_is_not_testable() -> None:
    test = function_test(HEADS[5:6], NAMES, np.arange(8.0))
    assert (test.kind, test.n, np.isnan(test.p_value)) == ("not testable", 3, True)


def test_a_set_is_tested_against_all_other_sets_of_its_span() -> None:
    effects = np.array([5.0, 0, 0, 0, 0, 5.0, 0, 0])
    test = function_test([HEADS[0], HEADS[5]], NAMES, effects, rotated=rotated(effects))
    assert (test.kind, test.n) == ("other sets", comb(8, 2) - 1)
    assert test.p_value == test.smallest_p == 1 / 28


def test_components_without_an_effect_are_no_controls() -> None:
    """Nothing is known of a1.h2 and a1.h3: they do not count as heads that have less effect."""
    effects = np.array([5.0, 0, 0, 0, 0, 5.0, np.nan, np.nan])
    test = function_test([HEADS[0], HEADS[5]], NAMES, effects)
    assert (test.kind, test.n) == ("not testable", comb(6, 2) - 1)
    effects[6] = 0.0
    test = function_test([HEADS[0], HEADS[5]], NAMES, effects)
    assert (test.n, test.p_value) == (comb(7, 2) - 1, 1 / 21)
    assert function_test([HEADS[0], HEADS[7]], NAMES, effects).kind == "not testable"


def test_a_set_with_too_few_others_is_tested_by_what_it_writes() -> None:
    effects = np.full(8, 5.0)
    test = function_test(HEADS[4:8], NAMES, effects, rotated=rotated(effects))
    assert (test.kind, test.p_value) == ("rotations", 0.01)
    assert function_test(HEADS[4:8], NAMES, effects).kind == "not testable"


def test_rotations_of_heads_that_cannot_be_turned_are_no_test() -> None:
    turned = rotated(np.full(8, 5.0))
    turned.draws[:, 2] = np.nan
    assert function_test(HEADS[2:3], NAMES, turned.effects, rotated=turned).kind == "not testable"


def test_other_sets_are_different_and_never_the_set_itself() -> None:
    components = [Node.head(layer, head) for layer in range(3) for head in range(12)]
    nodes = [components[1], components[14], components[30]]
    sets = other_sets(nodes, components)
    drawn = sets.draw(0)
    assert sets.count == comb(36, 3) - 1 > 2000
    assert len(drawn) == len(set(drawn)) == 199
    assert (1, 14, 30) not in drawn
    few = other_sets(components[:2], components)
    assert len(few.draw(0)) == few.count == comb(12, 2) - 1


@pytest.mark.parametrize("size", [1, 3])
def test_p_is_uniform_where_no_component_is_special(size: int) -> None:
    names = [f"a0.h{head}" for head in range(24)]
    nodes = [Node.parse(name) for name in names]
    generator = np.random.default_rng(0)
    values = [function_test(nodes[:size], names, generator.normal(size=24)).p_value for _ in range(400)]
    assert np.mean(np.array(values) <= 0.2) == pytest.approx(0.2, abs=0.06)


def test_the_function_clock_reads_the_draws_of_a_history() -> None:
    plain = history_from_drawing("a0.h0 previous-token ....##############\na1.h0 induction ......############")
    heads, records = plain.graph.heads, {}
    generator = np.random.default_rng(0)
    draws = generator.normal(size=(99, len(heads)))
    for key, record in plain.records.items():
        effect = np.where([node.name == "a1.h0" for node in heads], 4.0 * (key[0] >= 700), 0.0)
        per_prompt = effect + 0.1 * generator.normal(size=(16, len(heads)))
        scores = {
            "attribution": NodeScores(heads, Est.from_prompts(per_prompt), "attribution", record.task),
            "rotation": NodeScores(heads, Est(draws.mean(0), draws.std(0), draws, 16), "rotation", record.task),
        }
        records[key] = Record(record.step, record.task, record.tokens, {**record.scores, **scores}, record.circuit)
    history = History(plain.name, plain.graph, records)
    assert "rotation" not in {measure for _, measure in history.measures}
    row = formation_table(history, definitions=["half-rise"])["a1.h0", "function", "half-rise"]
    assert (row.control, row.p_value, row.n_controls) == ("first-order rotations", 0.01, 99)
    assert "99 rotations of what is written, to first order" in row.status
    key, record = max(records.items())
    own = record.scores["attribution"].estimate
    exact = NodeScores(heads, replace(own, folds=9.0 + draws), "exact-rotation", record.task)
    there = {**records, key: replace(record, scores={**record.scores, "exact-rotation": exact})}
    table = formation_table(History(plain.name, plain.graph, there), definitions=["half-rise"])
    row = table["a1.h0", "function", "half-rise"]
    assert (row.control, row.p_value) == ("rotations", 1.0)  # what was measured exactly is what is told
