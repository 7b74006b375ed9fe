"""Figures of many runs show every setting and every effect of the tables, and say what they are."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.sweeps import grid, sweep
from tests.tracking.drawing.test_figures import texts
from tests.tracking.forecasting.test_forecast import told
from tracking.comparison.comparison import Comparison, compare_formation, curves
from tracking.comparison.run_set import RunSet
from tracking.forecasting.forecast import forecast_metric, forecast_runs

pytest.importorskip("matplotlib")

from tracking.drawing.figures_comparison import plot_comparison
from tracking.drawing.figures_forecast import plot_forecast


@pytest.fixture(scope="module")
def runs() -> RunSet:
    """Two hyperparameters, one of which matters; two roles by two clocks."""
    settings = grid(3, learning_rate=[1e-3, 2e-3, 4e-3], optimizer=["adam", "sgd"])
    found = sweep(settings, np.random.default_rng(0), effects={"learning_rate": -0.6}, between=0.1)
    parts = [
        found.formation.assign(role=role, lifeline=role, clock=clock)
        for role in ("induction", "previous-token")
        for clock in ("form", "behaviour")
    ]
    return RunSet(pd.concat(parts, ignore_index=True), found.settings, found.last_step, found.tokens_per_step)


BY = ["learning_rate", "optimizer"]


@pytest.fixture(scope="module")
def comparison(runs: RunSet) -> Comparison:
    return compare_formation(runs, by=BY, n_permutations=199)


def test_every_setting_and_effect_is_drawn_and_the_caption_says_what_they_are(
    runs: RunSet, comparison: Comparison, tmp_path: Path
) -> None:
    figure = plot_comparison(runs, by=BY, comparison=comparison)
    shown = " ".join(texts(figure).split())
    keys = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert keys == ["0.001", "0.002", "0.004", "adam", "sgd"]
    for words in ("per doubling", "sgd against adam", "by learning rate", "by optimizer", "18 runs", "3 seeds"):
        assert words in shown
    assert "half-rise" in figure.texts[-1].get_text()
    forest = figure.axes[-1]
    points = [line for line in forest.lines if line.get_marker() == "o"]
    assert sorted(float(np.asarray(line.get_xdata())[0]) for line in points) == pytest.approx(
        sorted(comparison.effects["estimate"])
    )
    filled = [line.get_markerfacecolor() != "white" for line in points]
    assert sum(filled) == (comparison.effects["q_value"] <= 0.05).sum() == 4
    figure.savefig(tmp_path / "figure.pdf")


def test_a_curve_is_the_share_of_runs_that_have_formed_it(runs: RunSet, comparison: Comparison) -> None:
    table = curves(runs, by="optimizer", n_resamples=20)
    table = table[(table["role"] == "induction") & (table["clock"] == "form") & (table["value"] == "adam")]
    figure = plot_comparison(
        runs, by="optimizer", comparison=compare_formation(runs, by="optimizer", n_permutations=99)
    )
    drawn = figure.axes[0].lines[0]
    assert np.asarray(drawn.get_ydata())[1:-1] == pytest.approx(table["formed"].to_numpy())
    assert np.asarray(drawn.get_xdata())[1:-1] == pytest.approx(table["time"].to_numpy())


def test_a_setting_where_nothing_forms_is_a_line_at_nothing_with_a_band() -> None:
    settings = grid(6, learning_rate=[1e-3, 3e-3])
    none = sweep(settings, np.random.default_rng(2), effects={"learning_rate": -4.0}, between=0.05)
    table = curves(none, by="learning_rate", n_resamples=20)
    silent = table[table["value"] == 1e-3]
    assert (silent["formed"] == 0).all()
    assert silent["high"].min() > 0.25
    figure = plot_comparison(none, by="learning_rate")
    assert len(figure.axes[0].lines) >= 2
    assert "0 to" in texts(figure)


def test_what_is_not_there_cannot_be_drawn(runs: RunSet, comparison: Comparison) -> None:
    with pytest.raises(ValueError, match="no role that forms 'inductoin' among these runs; there are induction"):
        plot_comparison(runs, by="optimizer", role="inductoin", comparison=comparison)
    with pytest.raises(ValueError, match="no definition 'eye'"):
        plot_comparison(runs, by="optimizer", definition="eye", comparison=comparison)
    early = sweep(grid(4, learning_rate=[1e-3, 3e-3]), np.random.default_rng(2), horizon=10.0)
    with pytest.raises(ValueError, match="nothing to draw"):
        plot_comparison(early, by="learning_rate")


def test_what_was_foretold_stands_beside_what_became_of_it(tmp_path: Path) -> None:
    found = forecast_runs(told(), seen=0.15)
    figure = plot_forecast(found)
    shown = " ".join(texts(figure).split())
    for words in ("induction, form", "forecast", "median", "16 runs", "step 60", "90% intervals"):
        assert words in shown
    mine = found.predictions[found.predictions["predictor"] == "forecast"]
    formed = mine[np.isfinite(mine["seen_after"])]
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    drawn = np.concatenate([np.asarray(line.get_ydata()) for line in dots])
    assert sorted(drawn) == pytest.approx(sorted(formed["midpoint"]))
    figure.savefig(tmp_path / "figure.png")


def test_a_forecast_of_nothing_is_not_drawn() -> None:
    with pytest.raises(ValueError, match="expected a forecast of at least one role"):
        plot_forecast(forecast_metric(told(), "training/loss"))


def test_a_figure_shows_itself_in_a_notebook_that_never_imported_pyplot() -> None:
    from IPython.core.formatters import DisplayFormatter

    formatter = DisplayFormatter()
    formatter.active_types = ["text/plain", "image/png"]
    data, _ = formatter.format(plot_forecast(forecast_runs(told(), seen=0.15)))
    assert data["image/png"].startswith(b"\x89PNG")
