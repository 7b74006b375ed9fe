"""Confidence is the share that is right on a generator that it was not fitted on."""

import numpy as np

from tests.tracking.lifelines.test_explanations import LIVING, ONE, STEADY
from tests.tracking.lifelines.test_presence import series_of_effects
from tracking.datasets.simulated import LEVELS, count_events, found_events, simulate
from tracking.lifelines.confidence import TERMS, confidence_of, fit_weights, silence, terms_of
from tracking.lifelines.linking import link_series


def test_what_is_told_at_nine_tenths_is_right_so_often() -> None:
    sure, right = [], []
    for seed in (900, 901):
        for level in ("default", "hard"):
            run = simulate(LEVELS[level], seed)
            linked = link_series(run.series)
            for one, certain in zip(found_events(linked), confidence_of(linked), strict=True):
                sure.append(certain)
                right.append(sum(count[0] for count in count_events([one], run.events).values()) == 1)
    high = np.array(sure) >= 0.9
    assert high.mean() > 0.5
    assert np.array(right)[high].mean() >= 0.9


def test_an_end_just_before_the_last_checkpoint_is_less_sure() -> None:
    told = []
    for after in (1, 2, 6):
        drawing = f"a0.h0 {'#' * (24 - after)}{'.' * after}\n{LIVING}"
        linked = link_series(series_of_effects(drawing, features={"a0.h0": ONE, **STEADY}, noise=0.01))
        (event,) = linked.events
        assert event.kind == "death"
        told.append((silence(linked, event), float(confidence_of(linked)[0])))
    assert [share for share, _ in told] == [0.6, 0.8, 1.0]
    assert 0.5 <= told[0][1] < told[1][1] < told[2][1]


def test_weights_are_learned_with_the_signs_that_terms_can_have() -> None:
    rng = np.random.default_rng(0)
    terms = rng.normal(size=(400, len(TERMS)))
    right = terms[:, TERMS.index("posterior")] + 0.5 * rng.normal(size=400) > 0
    weights = dict(zip(TERMS, fit_weights(terms, right, ["one"] * 400), strict=True))
    assert weights["posterior"] > 2
    assert weights["slight"] <= 0


def test_terms_have_one_row_for_each_event() -> None:
    linked = link_series(simulate("easy", 1).series)
    assert terms_of(linked, linked.events).shape == (len(linked.events), len(TERMS))
