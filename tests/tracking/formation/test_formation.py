"""Dates are where the curves rise, intervals hold the truth as often as they say, and what never forms has no date."""

from functools import cache
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from circuits.graph import Estimate, Node
from tests.examples import BY_NAME, EXAMPLES, WIRING, Example
from tracking.datasets.synthetic import PlantedRise, history_from_drawing, rising_history
from tracking.formation.dating import DEFINITIONS
from tracking.formation.formation import FormationTable, formation_table, tokens_at
from tracking.formation.precedence import order
from tracking.history.columns import COLUMNS
from tracking.history.history import History
from tracking.history.records import Record
from tracking.lifelines.lifelines import Lifelines, link_lifelines
from tracking.results.findings import findings

DATED = ("threshold", "half-rise", "logistic")
RUN = 1000


def spaced(share: float) -> list[int]:
    """Checkpoints a share of the run apart."""
    return [round(step) for step in np.linspace(0, RUN, round(1 / share) + 1)]


def table_of(history: History, **options) -> FormationTable:
    return formation_table(history, clocks=("form",), **options)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_every_row_is_in_order(example: Example) -> None:
    """onset <= midpoint <= plateau, low <= midpoint <= high, and the date lies in its interval."""
    table = formation_table(example.history(wiring=True), definitions=DEFINITIONS, n_resamples=50)
    assert list(table.to_frame().columns) == list(COLUMNS["formation"])
    for row in table.formations:
        if row.censored == "no":
            assert row.onset <= row.midpoint
            assert np.isnan(row.plateau) or row.midpoint <= row.plateau
            assert row.low <= row.midpoint <= row.high
            assert row.interval_before <= row.midpoint <= row.interval_after
        else:
            assert np.isnan(row.midpoint)
            assert np.isnan(row.interval_before if row.censored == "left" else row.interval_after)
        if np.isfinite(row.share_gap):
            assert row.share_prompts + row.share_jitter + row.share_gap == pytest.approx(1)


BAR = 0.4


@cache
def coverage(share: float, seeds: int, family: int = 5) -> dict[str, tuple[float, float, float]]:
    """For each definition: how often its 90 % interval holds the truth, its median width in ln(step), how often given.

    Rises of all widths from abrupt to gradual, at a noise of two or five hundredths; `family` of seeds.
    """
    held: dict[str, list[bool]] = {name: [] for name in DATED}
    widths: dict[str, list[float]] = {name: [] for name in DATED}
    for seed in range(seeds):
        rng = np.random.default_rng([family, seed])
        middle, width = rng.uniform(0.2 * RUN, 0.6 * RUN), np.exp(rng.uniform(np.log(0.01), np.log(0.12)))
        rise = PlantedRise("a1.h0", "induction", middle, width)
        history = rising_history([rise], spaced(share), noise=(0.02, 0.05)[seed % 2], seed=1000 * family + seed)
        role = Lifelines(link_lifelines(history, thresholds=BAR).roles, ())
        table = table_of(history, lifelines=role, definitions=DATED)
        at_bar = middle * np.exp(width * np.log((BAR - 0.05) / (0.85 - BAR)))
        for name in DATED:
            row, truth = table["induction", "form", name], at_bar if name == "threshold" else middle
            if row.formed:
                held[name].append(row.low <= truth <= row.high)
                widths[name].append(np.log(row.high / row.low))
    return {
        name: (float(np.mean(held[name])), float(np.median(widths[name])), len(held[name]) / seeds)
        for name in DATED
        if held[name]
    }


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_intervals_hold_the_truth_about_as_often_as_they_say(share: float) -> None:
    """The benchmark does it with 200 seeds and other kinds of curve."""
    found = coverage(share, 40)
    assert found["threshold"][2] == 1
    for name in found:
        assert found[name][0] >= 0.8


def test_fewer_checkpoints_widen() -> None:
    assert coverage(0.05, 40)["threshold"][1] < coverage(0.2, 40)["threshold"][1]


def test_half_of_a_rise_is_dated_only_where_its_plateau_was_seen() -> None:
    seen = history_from_drawing("a1.h0 induction ......37##########", noise=0.01)
    rising = history_from_drawing("a1.h0 induction ......33445566778899#", noise=0.01)
    for name in ("half-rise", "logistic"):
        assert table_of(seen, definitions=[name])["induction", "form", name].formed
        row = table_of(rising, definitions=[name])["induction", "form", name]
        assert (row.state, row.censored) == ("not datable by this definition", "right")
        assert np.isnan(row.interval_before)
    assert table_of(rising, definitions=["threshold"])["induction", "form", "threshold"].state == "formed, still rising"


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_a_thinner_schedule_has_the_interval_of_a_denser_one_inside(definition: str) -> None:
    rise = PlantedRise("a1.h0", "induction", 330.0, 0.02)
    intervals = []
    for share in (0.01, 0.02, 0.05, 0.1):
        history = rising_history([rise], spaced(share), noise=0.0, n_folds=0)
        row = table_of(history, thresholds=0.45, definitions=[definition])["induction", "form", definition]
        intervals.append((row.interval_before, row.interval_after))
    for (low, high), (wider_low, wider_high) in pairwise(intervals):
        assert wider_low <= low <= 330 <= high <= wider_high


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_what_never_forms_is_censored_and_not_dated_at_the_end(definition: str) -> None:
    for seed in range(20):
        history = rising_history([PlantedRise("a1.h0", "induction", np.inf)], spaced(0.02), noise=0.03, seed=seed)
        row = table_of(history, definitions=[definition])["induction", "form", definition]
        assert (row.censored, row.interval_before) == ("right", RUN)


def test_what_was_there_from_the_start_is_censored_on_the_left() -> None:
    history = BY_NAME["there all along"].history()
    for definition in DEFINITIONS:
        row = table_of(history, definitions=[definition])["previous-token", "form", definition]
        assert (row.censored, row.interval_after) == ("left", 0)


def test_definitions_agree_on_a_symmetric_rise_and_differ_where_they_should() -> None:
    history = rising_history([PlantedRise("a1.h0", "induction", 300.0, 0.15)], spaced(0.01), noise=0.01)
    table = table_of(history, thresholds=0.2, definitions=DEFINITIONS)
    dates = {name: table["induction", "form", name].midpoint for name in DEFINITIONS}
    for name in ("half-rise", "logistic", "change-point"):
        assert dates[name] == pytest.approx(300, rel=0.03)
    # .2 is reached where .05 + .8 / (1 + exp(-x / .15)) = .2, x = -.15 ln(4.33)
    assert dates["threshold"] == pytest.approx(300 * np.exp(-0.15 * np.log(0.65 / 0.15)), rel=0.03)


def test_a_role_that_is_lost_and_comes_back_is_dated_rise_by_rise() -> None:
    history = history_from_drawing("a1.h0 induction .....5########5.......5#########", noise=0.01)
    table = table_of(history, definitions=["threshold"])
    rows = [row for row in table.formations if row.lifeline == "induction"]
    assert [(row.rise, row.n_rises, row.state) for row in rows] == [(1, 2, "formed and lost"), (2, 2, "formed")]
    assert [row.interval_before for row in rows] == [400, 2100]
    assert 1400 <= rows[0].lost_low <= rows[0].lost <= rows[0].lost_high <= 1600


def test_a_curve_that_sags_is_dated_at_its_rise() -> None:
    history = history_from_drawing("a1.h0 induction .....5####997766555444433333", noise=0.01)
    row = table_of(history, definitions=["threshold"])["induction", "form", "threshold"]
    assert 400 <= row.low <= row.high <= 500
    assert (row.interval_before, row.interval_after, row.rise) == (400, 500, 1)


STATES = {
    "there all along": ("#############", "there from the start", "left"),
    "there and lost": ("######.......", "there from the start and lost", "left"),
    "formed": (".....########", "formed", "no"),
    "formed and lost": ("...######....", "formed and lost", "no"),
    "one snapshot": ("......#......", "never", "right"),
    "the last snapshot": ("............#", "pending", "right"),
    "never": (".....33......", "never", "right"),
}


@pytest.mark.parametrize("name", STATES)
def test_states_dates_carriers_and_sentences_agree(name: str) -> None:
    drawing, state, censored = STATES[name]
    history = history_from_drawing(f"a1.h0 induction {drawing}", noise=0.01)
    lifelines = link_lifelines(history)
    row = table_of(history, lifelines=lifelines, definitions=["threshold"])["induction", "form", "threshold"]
    assert (row.state, row.censored) == (state, censored)
    carried = np.array([bool(nodes) for nodes in lifelines["induction"].nodes])
    assert carried.any() == (state not in ("never", "pending"))
    if row.formed:
        assert lifelines["induction"].steps[int(carried.argmax())] == row.interval_after
    (*others, sentence) = findings(history, lifelines, table_of(history, lifelines=lifelines))[:1]
    assert not others
    assert ("does not hold" in sentence or "No component" in sentence) == (state == "never")


def test_the_date_at_other_bars_stands_beside_it() -> None:
    history = rising_history([PlantedRise("a1.h0", "induction", 300.0, 0.3)], spaced(0.01), noise=0.005)
    row = table_of(history, thresholds=0.3, definitions=["threshold"])["induction", "form", "threshold"]
    for share, date in ((2 / 3, row.at_two_thirds), (1, row.midpoint), (4 / 3, row.at_four_thirds)):
        at = share * 0.3 - 0.05
        assert date == pytest.approx(300 * np.exp(0.3 * np.log(at / (0.8 - at))), rel=0.04)


def test_without_a_known_error_only_the_checkpoints_are_stated() -> None:
    history = rising_history([PlantedRise("a1.h0", "induction", 300.0, 0.3)], spaced(0.05), noise=0.01, n_folds=0)
    row = table_of(history, definitions=["threshold"])["induction", "form", "threshold"]
    assert not row.error_known
    assert (row.low, row.high) == (row.interval_before, row.interval_after)
    assert np.isnan(row.share_gap)


def test_noise_about_the_bar_is_not_told_as_a_formation() -> None:
    rng = np.random.default_rng(0)
    noise = 0.12 * rng.standard_normal((30, 40))
    for step in range(1, 40):
        noise[:, step] = 0.8 * noise[:, step - 1] + 0.6 * noise[:, step]
    rows = [
        {"step": 100 * step, "component": f"a{head // 8}.h{head % 8}", "measure": "induction", "value": value}
        for head, curve in enumerate(0.1 + noise)
        for step, value in enumerate(curve, start=1)
    ]
    table = formation_table(History.from_frame(pd.DataFrame(rows).assign(std_error=0.02)))
    assert not any(row.formed for row in table.formations)
    assert any(row.state == "not told from noise" for row in table.formations)


def test_the_role_is_dated_through_its_hand_offs_and_each_head_on_its_own() -> None:
    drawing = "a1.h0 induction .....########............\na1.h1 induction .............############"
    table = table_of(history_from_drawing(drawing), definitions=["threshold"])
    dates = {row.lifeline: (row.interval_before, row.interval_after) for row in table.formations}
    assert dates == {"induction": (400, 500), "a1.h0": (400, 500), "a1.h1": (1200, 1300)}


def test_three_clocks_of_each_head() -> None:
    """Form by score, function by the effect that leaves the head, behaviour by the task's metric."""
    drawing = "a0.h0 previous-token ....##############\na1.h0 induction ......############"
    history = with_metric(history_from_drawing(drawing, wiring=WIRING), [0.0] * 8 + [1.0] * 10)
    table = formation_table(history, definitions=["change-point"])
    for head in ("a0.h0", "a1.h0"):
        assert [row.clock for row in table.formations if row.lifeline == head] == ["form", "function", "behaviour"]
    assert table["a1.h0", "behaviour", "change-point"].interval_after == 800
    assert table["a0.h0", "form", "change-point"].interval_after == 400
    needed = table["a1.h0", "function", "change-point"]
    assert needed.n_controls is not None
    assert needed.smallest_p == 1 / (needed.n_controls + 1)
    assert (needed.control, np.isnan(needed.p_value)) == ("not testable", True)
    assert "not testable" in needed.status
    assert (needed.layer, needed.head) == (1, 0)


def with_metric(history: History, values: list[float]) -> History:
    rng = np.random.default_rng(0)
    records: dict[tuple[int, str], Record] = {}
    for (key, record), value in zip(history.records.items(), values, strict=True):
        noisy = Estimate.from_prompts(value + 0.05 * rng.normal(size=64))
        metrics = {"metric_clean": noisy, "metric_corrupted": Estimate.from_prompts(np.zeros(64))}
        shown = {"scores": record.scores, "circuit": record.circuit, "metrics": metrics}
        records[key] = Record(record.step, record.task, record.tokens, **shown)
    return History(history.name, history.graph, records)


def test_order_is_told_where_it_can_be() -> None:
    rises_ = [PlantedRise("a0.h0", "previous-token", 200.0, 0.05), PlantedRise("a1.h0", "induction", 400.0, 0.05)]
    told = order(rising_history(rises_, spaced(0.02)), "previous-token", "induction")
    assert told.probability > 0.99
    assert told.low <= 200 <= told.high
    assert told.sentence.startswith("previous-token formed ")
    turned = order(rising_history(rises_, spaced(0.02)), "induction", "previous-token")
    assert turned.probability == pytest.approx(1 - told.probability, abs=0.02)
    assert list(told.to_frame().columns[:3]) == ["run", "first", "second"]


def test_order_within_one_checkpoint_interval_cannot_be_told() -> None:
    rises_ = [PlantedRise("a0.h0", "previous-token", 480.0, 0.01), PlantedRise("a1.h0", "induction", 490.0, 0.01)]
    told = order(rising_history(rises_, spaced(0.2)), "previous-token", "induction")
    assert 0.3 < told.probability < 0.7
    assert told.sentence.startswith("The order of previous-token and induction cannot be told")


def test_order_against_what_never_forms() -> None:
    rises_ = [PlantedRise("a0.h0", "previous-token", 480.0), PlantedRise("a1.h0", "induction", np.inf)]
    history = rising_history(rises_, spaced(0.02))
    told = order(history, "previous-token", "induction")
    assert told.probability == 1
    assert np.isnan(told.lag)
    with pytest.raises(ValueError, match="no lifeline 'nonsense'"):
        order(history, "previous-token", "nonsense")


def test_the_same_seed_gives_the_same_table() -> None:
    history = BY_NAME["birth"].history()
    first, again = (formation_table(history, seed=3).to_frame() for _ in range(2))
    pd.testing.assert_frame_equal(first, again, check_exact=True)


def test_tokens() -> None:
    history = BY_NAME["birth"].history()
    assert tokens_at(history, 150.0) == 150 * 2048
    frame = history.to_frame().drop(columns="tokens")
    with pytest.raises(ValueError, match="how many tokens"):
        tokens_at(History.from_frame(frame), 100.0)


def test_log_spaced_checkpoints_are_handled_as_such() -> None:
    """Between checkpoints the date lies in the middle of the logarithms, not of the steps."""
    steps = [0, *(2**power for power in range(16))]
    history = rising_history([PlantedRise("a1.h0", "induction", 700.0, 0.01)], steps, noise=0.0, n_folds=0)
    row = table_of(history, definitions=["half-rise"])["induction", "form", "half-rise"]
    assert (row.interval_before, row.interval_after) == (512, 1024)
    assert row.midpoint == pytest.approx(np.sqrt(512 * 1024))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"definitions": ["halfrise"]}, "expected a list of definitions among"),
        ({"definitions": "half-rise"}, "expected a list of definitions among"),
        ({"clocks": ["wall"]}, "expected a list of clocks among"),
        ({"confidence": 1.5}, "expected a confidence between 0 and 1"),
        ({"n_resamples": 0}, "expected at least one resample"),
    ],
)
def test_a_wrong_request_gets_a_sentence(options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        formation_table(BY_NAME["birth"].history(), **options)


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_short_histories_give_honest_rows(columns: int) -> None:
    history = history_from_drawing("a1.h0 induction " + ".##"[-columns:], noise=0.01)
    for row in formation_table(history, definitions=DEFINITIONS).formations:
        assert row.censored in ("left", "right") or columns == 3


def test_a_component_that_is_missing_from_half_of_the_steps() -> None:
    drawing = "a1.h0 induction ?.?.?.?.?#?#?#?#?#?#"
    row = table_of(history_from_drawing(drawing), definitions=["threshold"])["induction", "form", "threshold"]
    assert (row.interval_before, row.interval_after) == (700, 900)
    assert link_lifelines(history_from_drawing(drawing))["induction"].components == (Node.head(1, 0),)
