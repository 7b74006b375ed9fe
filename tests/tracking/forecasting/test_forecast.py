"""Forecasts use the past alone, beat the baselines where something can be predicted, and say so where nothing can."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.conftest import shared_path
from tests.sweeps import grid, sweep
from tracking.comparison.run_set import RunSet, law_tokens
from tracking.forecasting.forecast import forecast_metric, forecast_runs
from tracking.forecasting.outliers import unlike_the_others
from tracking.forecasting.ridge import Prediction, fit_ridge


def told(seed: int = 0, *, clue: float = 1.0, effects: dict[str, float] | None = None, **options) -> RunSet:
    """Sixteen runs; "clue" is measured with noise from the start and is ln T itself, or nothing where `clue` is 0."""
    rng = np.random.default_rng(seed)
    settings = options.pop("settings", grid(8, learning_rate=[1e-3, 3e-3]))
    runs = sweep(settings, rng, effects=effects, **options)
    rows = []
    for run, part in runs.formation.groupby("run"):
        row = part.iloc[0]
        end = runs.last_step[str(run)] * 1.5 if row["censored"] == "right" else row["interval_after"]
        level = clue * np.log(end) + (1 - clue) * rng.normal()
        rows += [(run, "clue", step, level + 0.05 * rng.normal()) for step in range(0, 401, 10)]
        rows += [(run, "training/loss", step, 4 - 0.001 * step + 0.1 * level) for step in range(0, 401, 10)]
    return replace(runs, series=pd.DataFrame(rows, columns=["run", "name", "step", "value"]))


def score(found, predictor: str = "forecast") -> dict:
    return found.scores.set_index("predictor").loc[predictor].to_dict()


def test_a_clue_is_used_and_the_intervals_hold() -> None:
    found = forecast_runs(told(), seen=0.15)
    mine, median = score(found), score(found, "median")
    assert mine["log_error"] < 0.5 * median["log_error"]
    assert mine["gain_low"] > 0
    assert mine["coverage"] >= 0.75
    assert "below the median of the other runs" in found.sentences[0]
    assert "law" not in set(found.scores["predictor"])


def test_the_published_law_is_a_baseline_where_batch_and_context_are_known() -> None:
    """Told from far too late a date, which counts as the end of the run."""
    settings = [{**one, "batch_size": 64, "context_length": 32} for one in grid(8, learning_rate=[1e-3, 3e-3])]
    found = forecast_runs(told(settings=settings), seen=0.15)
    mine = score(found)
    assert mine["law_gain"] == pytest.approx(1 - mine["log_error"] / score(found, "law")["log_error"])
    assert 0 < mine["law_low"] <= mine["law_gain"] <= mine["law_high"]
    assert "below the published law" in found.sentences[0]


def test_without_a_clue_it_says_that_it_is_no_better() -> None:
    said = [forecast_runs(told(seed, clue=0.0), seen=0.15).sentences[0] for seed in range(5)]
    modest = ("no better than the median", "worse than the median")
    assert sum(any(words in sentence for words in modest) for sentence in said) >= 4


def test_settings_alone_foretell_what_settings_do() -> None:
    known = told(clue=0.0, effects={"learning_rate": -0.6}, between=0.05, within=0.05)
    assert score(forecast_runs(known, seen=0.1))["gain"] > 0.5


def test_the_future_is_not_looked_at() -> None:
    """Whatever happens after the cut may be scrambled; not one digit of a forecast changes."""
    known = told()
    rng = np.random.default_rng(1)
    late = known.series["step"] > 0.15 * 400
    scrambled = known.series.assign(value=known.series["value"].where(~late, rng.normal(size=len(known.series)) * 1e3))
    first = forecast_runs(known, seen=0.15).predictions
    second = forecast_runs(replace(known, series=scrambled), seen=0.15).predictions
    pd.testing.assert_frame_equal(first, second)


def test_a_run_does_not_foretell_itself() -> None:
    """Moving one run's own date moves the truth it is judged by, not what was predicted of it."""
    known = told()
    run = forecast_runs(known, seen=0.15).predictions["run"].iloc[0]
    table = known.formation.copy()
    table.loc[table["run"] == run, ["interval_before", "interval_after"]] = [300.0, 330.0]
    moved = replace(known, formation=table)
    first, second = (forecast_runs(k, seen=0.15).predictions.set_index("run") for k in (known, moved))
    columns = ["midpoint", "low", "high"]
    assert first.loc[[run], columns].iloc[0].tolist() == second.loc[[run], columns].iloc[0].tolist()


def test_whether_it_forms_is_predicted() -> None:
    """Half of the runs never form; the clue says which."""
    found = forecast_runs(told(horizon=150.0, between=0.5), seen=0.05)
    assert score(found)["brier"] < 0.6 * score(found, "median")["brier"]
    assert score(found)["brier_low"] > 0
    assert "where the share of the other runs has" in found.sentences[0]
    nothing = forecast_runs(told(horizon=150.0, between=0.5, clue=0.0), seen=0.05)
    assert "no better than" in nothing.sentences[0].partition("Whether it forms")[2]


def test_intervals_keep_their_promise() -> None:
    found = [forecast_runs(told(seed, clue=0.5), seen=0.15) for seed in range(8)]
    assert 0.85 <= np.mean([score(one)["coverage"] for one in found]) <= 0.97
    assert np.mean([score(one, "median")["coverage"] for one in found]) >= 0.8


def test_leaving_settings_out_learns_from_other_settings_only() -> None:
    settings = grid(3, learning_rate=[1e-3, 2e-3, 4e-3, 8e-3])
    known = told(settings=settings, clue=0.0, effects={"learning_rate": -0.3}, between=0.03, within=0.03)
    by_run, by_setting = (score(forecast_runs(known, seen=0.1, leave=leave)) for leave in ("run", "setting"))
    assert by_setting["log_error"] >= by_run["log_error"]
    assert by_setting["coverage"] >= 0.8


def test_where_a_metric_ends_is_predicted() -> None:
    found = forecast_metric(told(), "training/loss", seen=0.2)
    table = found.scores.set_index("predictor")
    assert set(table.index) == {"forecast", "median", "mean", "last seen"}
    assert table.loc["forecast", "gain_low"] > 0
    assert table.loc["forecast", "coverage"] >= 0.75


def test_the_published_law() -> None:
    assert law_tokens({"batch_size": 100, "context_length": 100}) == pytest.approx(10**7.7)
    assert np.isnan(law_tokens({"batch_size": 100}))


@pytest.mark.parametrize(
    ("options", "words"),
    [({"seen": 1.5}, "between 0 and 1"), ({"settings": grid(2, learning_rate=[1, 2])}, "at least 5 runs")],
)
def test_what_cannot_be_foretold_is_refused(options, words: str) -> None:
    seen = options.pop("seen", 0.2)
    with pytest.raises(ValueError, match=words):
        forecast_runs(told(**options), seen=seen)
    with pytest.raises(ValueError, match="expected 'los' in at least"):
        forecast_metric(told(), "los")


def test_the_spread_is_that_of_runs_left_out_of_fit_and_choice() -> None:
    """Each run by the fit that is chosen without it, against the errors written out; never below the fit's own."""
    rng = np.random.default_rng(2)
    table, y = {"x": rng.normal(size=12), "z": rng.normal(size=12)}, rng.normal(size=12)
    one = [fit_ridge(table, y, groups=[group], honest=False) for group in ((), ("x",), ("z",))]
    both = fit_ridge(table, y, groups=[(), ("x",), ("z",)])
    assert both.spread >= min(fit.spread for fit in one)
    single = fit_ridge(table, y, groups=[()])
    errors = [y[run] - np.delete(y, run).mean() for run in range(12)]
    assert single.spread == pytest.approx(np.sqrt(np.mean(np.square(errors))))


def test_the_best_of_many_choices_is_not_believed() -> None:
    """Twelve columns of noise: some fit well by chance, and the spread must not fall for it."""
    ratios, covered = [], []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        table = {f"x{place}": rng.normal(size=13) for place in range(12)}
        y = rng.normal(size=13)
        train = {name: values[:12] for name, values in table.items()}
        groups = [(), *([name] for name in table), list(table)]
        quick, fit = (fit_ridge(train, y[:12], groups=groups, honest=honest) for honest in (False, True))
        ratios.append(quick.spread / fit.spread)
        low, high = fit.predict({name: float(values[12]) for name, values in table.items()}).interval(0.9)
        covered.append(low < y[12] < high)
    assert np.median(ratios) < 0.9
    assert np.mean(covered) >= 0.8


def test_more_columns_than_runs_do_not_look_good_by_passing_through_all_of_them() -> None:
    """A fit that passes through every run says nothing of one that is left out, and is not chosen."""
    rng = np.random.default_rng(3)
    table = {f"x{place}": rng.normal(size=10) for place in range(40)}
    y = rng.normal(size=10)
    for group in ([], list(table)):
        fit = fit_ridge(table, y, groups=[group], honest=False)
        errors = []
        for run in range(10):
            rest = np.delete(np.arange(10), run)
            x = np.column_stack([(values - values.mean()) / values.std() for values in table.values()])
            x = x if group else np.zeros((10, 1))
            mean, offset = x[rest].mean(axis=0), y[rest].mean()
            centred = x[rest] - mean
            beta = np.linalg.solve(
                centred.T @ centred + fit.penalty * np.eye(x.shape[1]), centred.T @ (y[rest] - offset)
            )
            errors.append(y[run] - offset - (x[run] - mean) @ beta)
        assert fit.spread == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=1e-6)


def test_a_prediction_known_to_lie_above_a_floor() -> None:
    said = Prediction(0.0, 1.0, 5.0)
    for floor in (-1.0, 0.5, 3.0, 30.0):
        above = said.above(floor)
        low, high = above.interval(0.9)
        assert floor <= low <= above.middle <= high
        if floor < 30:
            assert above.below(low) == pytest.approx(0.05)
            assert above.below(high) == pytest.approx(0.95)
        assert above.below(floor) == 0
    assert said.above(-50.0).interval(0.9) == pytest.approx(said.interval(0.9))


def test_nothing_is_foretold_before_the_cut() -> None:
    said = forecast_runs(told(between=0.6), seen=0.3).predictions
    said = said[said["predictor"] == "forecast"]
    assert (said[["low", "midpoint", "high"]].min(axis=1) >= said["cut"] * (1 - 1e-9)).all()


# Runs unlike the others -------------------------------------------------------------------------------------------


def wandering(
    seed: int, n_runs: int = 10, n_steps: int = 27, smooth: float = 0.0, tails: float = np.inf
) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(n_steps, n_runs)) if np.isinf(tails) else rng.standard_t(tails, size=(n_steps, n_runs))
    for step in range(1, n_steps):
        noise[step] = smooth * noise[step - 1] + np.sqrt(1 - smooth**2) * noise[step]
    rows = [(f"r{run}", "loss", 10 * step, noise[step, run]) for step in range(n_steps) for run in range(n_runs)]
    return pd.DataFrame(rows, columns=["run", "name", "step", "value"])


@pytest.mark.parametrize("smooth", [0.0, 0.9])
def test_false_alarms_are_as_rare_as_stated(smooth: float) -> None:
    alarms = [unlike_the_others(wandering(seed, smooth=smooth), "loss")["alarm"].notna().mean() for seed in range(50)]
    assert np.mean(alarms) <= 0.075


def test_an_alarm_needs_no_later_step() -> None:
    table = wandering(0)
    table.loc[(table["run"] == "r3") & (table["step"] == 150), "value"] = 100.0
    found = unlike_the_others(table, "loss").set_index("run")
    assert found.loc["r3", "alarm"] == 150
    # At that step, with nothing later known, the distance is the same.
    past = unlike_the_others(table[table["step"] <= 150], "loss").set_index("run")
    assert past.loc["r3", "distance"] == found.loc["r3", "distance"]
    assert past.loc["r3", "alarm"] == 150


def test_too_few_runs_have_no_others() -> None:
    with pytest.raises(ValueError, match="at least 5 runs"):
        unlike_the_others(wandering(0, n_runs=4), "loss")


def test_polypythia_outliers_are_told_when_they_leave_and_not_before() -> None:
    """Seeds 3 and 4 diverge. The score of each checkpoint separates them from the other eight at the very step at which
    they fall, 83,000 and 123,000, with no false alarm; before that it says nothing of them."""
    table = pd.read_csv(shared_path("data/polypythias_maps/training_maps.tsv"), sep="\t", index_col=0)
    series = table.rename(columns={"seed": "run", "score": "value"}).assign(name="score")
    found = unlike_the_others(series, "score").set_index("run")["alarm"].dropna()
    assert found.to_dict() == {3: 83_000, 4: 123_000}
    assert unlike_the_others(series[series["step"] < 83_000], "score")["alarm"].isna().all()
