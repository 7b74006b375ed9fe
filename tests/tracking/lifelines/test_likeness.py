"""Two windows of one component are alike, those of two components are not, and noise does not change that."""

import numpy as np
import pytest

from tests.tracking.lifelines.test_presence import series_of_effects
from tracking.lifelines.likeness import learn_likeness
from tracking.lifelines.presence import presence_of, spells_of
from tracking.lifelines.series import Series
from tracking.lifelines.windows import SIZE, make_windows, rows_of


def heads(noise: float) -> Series:
    rng = np.random.default_rng(3)
    names = [f"a0.h{head}" for head in range(8)]
    features = {name: rng.uniform(0, 1.5, size=3) for name in names}
    return series_of_effects("\n".join(f"{name} {'#' * 30}" for name in names), features=features, noise=noise)


@pytest.mark.parametrize("noise", [0.01, 0.05])
def test_one_component_is_like_itself_and_unlike_others(noise: float) -> None:
    series = heads(noise)
    likeness = learn_likeness(series, spells_of(series, presence_of(series)), np.random.default_rng(0))
    early, late = (
        make_windows(series, rows_of(8, range(8), [np.arange(start, start + SIZE)] * 8)) for start in (2, 20)
    )
    same = likeness.ratio(early, late)
    other = likeness.ratio(early, late[np.roll(np.arange(8), 1)])
    assert (same > 1).all()
    assert np.median(other) < 0


def test_a_window_is_a_trimmed_mean_of_features_and_the_median_of_effects() -> None:
    series = heads(0.0)
    series.features[10, 0] = 100.0
    window = make_windows(series, rows_of(8, [0], [np.arange(8, 13)]))
    assert np.allclose(window.features, series.features[0, 0])
    assert window.effect.tolist() == [1.0]
    assert window.time.tolist() == [10.0]
