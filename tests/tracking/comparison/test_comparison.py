"""Effects that were planted are found, those that were not are not, and what cannot be told is said not to be."""

import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import shared_path
from tests.sweeps import formation_rows, grid, sweep, times
from tracking.cli.cli import run
from tracking.comparison.comparison import compare, compare_formation, curves
from tracking.comparison.paired_runs import compare_arms, compare_pairs, describe_arms, describe_pairs, paired_settings
from tracking.comparison.run_set import LAW, RunSet, formation_times, run_set, varying
from tracking.comparison.scaling import BATCH_CONTEXT, describe_scaling, scaling_law, scaling_laws
from tracking.comparison.time_ratio import estimate_effect
from tracking.comparison.traits import describe_shifts, run_traits, trait_shifts
from tracking.datasets.synthetic import PlantedRise, history_from_drawing, rising_history
from tracking.history.columns import COLUMNS
from tracking.history.history import History

RATES = [1e-3, 3e-3]


@pytest.fixture(scope="module")
def two_by_two() -> RunSet:
    """Learning rate matters (exponent -.6), repeat probability does not; six seeds."""
    settings = grid(6, learning_rate=RATES, repeat_probability=[0.5, 0.9])
    return sweep(settings, np.random.default_rng(0), effects={"learning_rate": -0.6})


def test_the_planted_effect_is_found_and_the_other_is_not(two_by_two: RunSet) -> None:
    found = compare_formation(two_by_two, by=["learning_rate", "repeat_probability"])
    rate, repeat = found.effects.to_dict("records")
    assert rate["contrast"] == "0.003 : 0.001"
    assert rate["low"] < -0.6 * np.log(3) < rate["high"] < 0
    assert rate["q_value"] < 0.05
    assert repeat["low"] < 0 < repeat["high"]
    assert "earlier for learning_rate 0.003 : 0.001" in found.sentences[0]
    assert "No effect of repeat_probability on induction" in found.sentences[1]
    assert "would have been seen with probability .8" in found.sentences[1]
    asked = {"hyperparameter", "role", "clock", "definition", "estimate", "low", "high", "p_value", "n_runs"}
    assert asked <= set(json.loads(json.dumps(found.to_dict()))["effects"][0])


def test_a_relabelling_of_runs_and_order_changes_nothing(two_by_two: RunSet) -> None:
    names = dict(zip(two_by_two.runs, reversed([f"x{run}" for run in two_by_two.runs]), strict=True))
    table = two_by_two.formation.assign(run=two_by_two.formation["run"].map(names))
    again = RunSet(table, {names[run]: values for run, values in two_by_two.settings.items()})
    first = compare_formation(two_by_two, by="learning_rate").effects
    second = compare_formation(again, by="learning_rate").effects
    assert second["estimate"][0] == pytest.approx(first["estimate"][0], abs=0.01)


def test_a_silent_run_is_a_run_that_did_not_form(two_by_two: RunSet) -> None:
    silent = two_by_two.runs[0]
    table = two_by_two.formation[two_by_two.formation["run"] != silent]
    less = RunSet(table, two_by_two.settings, two_by_two.last_step, two_by_two.tokens_per_step)
    times = formation_times(less, table).set_index("run")
    assert times.loc[silent].tolist() == [400.0, np.inf]
    assert compare_formation(less, by="learning_rate").effects["n_runs"][0] == 24


def test_batch_sizes_are_compared_in_tokens() -> None:
    """Formation at one number of tokens: in steps it halves with each doubling of the batch, in tokens not."""
    runs = sweep(grid(6, batch_size=[16, 32, 64]), np.random.default_rng(1), effects={"batch_size": -1.0}, between=0.15)
    in_tokens, in_steps = (compare_formation(runs, by="batch_size", unit=unit).effects for unit in ("auto", "steps"))
    assert (in_tokens["unit"][0], in_tokens["contrast"][0]) == ("tokens", "per doubling")
    assert in_tokens["low"][0] < 0 < in_tokens["high"][0]
    assert in_steps["low"][0] < -np.log(2) < in_steps["high"][0] < 0


def test_shares_and_curves_count_runs(two_by_two: RunSet) -> None:
    formed = compare_formation(two_by_two, by="learning_rate").formed
    assert formed["n_runs"].tolist() == [12, 12]
    assert ((formed["low"] <= formed["share"]) & (formed["share"] <= formed["high"])).all()
    assert formed["median_time"][0] > formed["median_time"][1]
    table = curves(two_by_two, by="learning_rate", n_resamples=20)
    for _, curve in table.groupby("value"):
        assert curve["formed"].is_monotonic_increasing
        assert ((curve["low"] <= curve["formed"] + 1e-9) & (curve["formed"] <= curve["high"] + 1e-9)).all()


def test_a_setting_where_nothing_forms_is_data() -> None:
    settings = grid(6, learning_rate=RATES)
    runs = sweep(settings, np.random.default_rng(2), effects={"learning_rate": -4.0}, between=0.05)
    found = compare_formation(runs, by="learning_rate")
    row = found.effects.to_dict("records")[0]
    assert row["estimate"] == -np.inf
    assert row["high"] < -0.5
    assert found.to_dict()["effects"][0]["low"] is None
    assert any("forms in none of the 6 runs with learning_rate 0.001" in sentence for sentence in found.sentences)


def test_where_nothing_forms_at_all_nothing_is_claimed() -> None:
    runs = sweep(grid(4, learning_rate=RATES), np.random.default_rng(2), horizon=10.0)
    found = compare_formation(runs, by="learning_rate")
    assert found.effects["p_value"][0] == 1
    assert "nothing can be said" in found.sentences[0]


def test_too_few_runs_prove_nothing_however_far_apart_they_are() -> None:
    runs = sweep(grid(2, learning_rate=RATES), np.random.default_rng(2), effects={"learning_rate": -2.0}, between=0.01)
    found = compare_formation(runs, by="learning_rate")
    assert found.effects["smallest_p"][0] == found.effects["p_value"][0] == 0.5
    assert found.sentences[0].startswith("Too few runs to tell whether learning_rate moves induction")
    assert "with 4 runs in 2 pairs that share their seed no p-value below 0.5 is possible" in found.sentences[0]


def test_what_always_changes_together_is_said_to() -> None:
    settings = [{**one, "warmup_steps": int(one["learning_rate"] * 1e5)} for one in grid(5, learning_rate=RATES)]
    found = compare_formation(sweep(settings, np.random.default_rng(3)), by="learning_rate")
    assert any("cannot be told apart" in sentence for sentence in found.sentences)


def test_names_are_compared_with_the_first() -> None:
    runs = sweep(grid(5, optimizer=["adamw", "adam", "sgd"]), np.random.default_rng(4))
    found = compare_formation(runs, by="optimizer")
    assert found.effects["contrast"].tolist() == ["adamw : adam", "sgd : adam"]
    assert (found.effects["n_runs"] == 10).all()


def test_seeds_and_schedules_are_no_hyperparameters(two_by_two: RunSet) -> None:
    assert varying(two_by_two.settings) == ("learning_rate", "repeat_probability")


def test_power_is_what_it_says() -> None:
    """A planted effect as large as the sentence says is found eight times in ten."""
    rng, seen = np.random.default_rng(5), 0
    flat = [compare_formation(sweep(grid(8, a=[1.0, 2.0]), rng), by="a", n_permutations=399) for _ in range(5)]
    size = float(np.median([found.effects["detectable"][0] for found in flat]))
    for _ in range(120):
        low, high, value, runs = times([0.0, 1.0] * 8, rng, effect=size, horizon=1e4)
        seen += estimate_effect(low, high, value, runs=runs, n_permutations=199, interval=False).p_value <= 0.05
    assert 0.65 <= seen / 120 <= 0.95


def test_runs_without_any_date_are_refused(two_by_two: RunSet) -> None:
    empty = RunSet(two_by_two.formation.iloc[:0], two_by_two.settings, two_by_two.last_step)
    with pytest.raises(ValueError, match="no role is dated"):
        compare_formation(empty, by="learning_rate")


@pytest.mark.parametrize(
    ("settings", "by", "words"),
    [
        (grid(1, a=[1]), "a", "at least two runs"),
        (grid(3, a=[1]), "a", "'a' is 1 in all runs"),
        (grid(3, learning_rate=[1, 2]), "learning_rat", "did you mean learning_rate"),
    ],
)
def test_what_cannot_be_compared_is_refused(settings, by: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        compare_formation(sweep(settings, np.random.default_rng(0)), by=by)


def test_histories_of_one_run_are_refused() -> None:
    history = rising_history([PlantedRise("a1.h0", "induction", 100.0)], range(0, 401, 20))
    with pytest.raises(ValueError, match="two histories are of run"):
        run_set([history, history])


def test_functions_without_a_name_are_not_taken_for_those_of_other_runs() -> None:
    """Circuits alone: "function A" is the first to appear in its own run, and need not be that of another."""
    drawn = history_from_drawing(
        "a0.h0 previous-token ..####\na1.h0 induction ...###", wiring={"induction": ["previous-token"]}
    )
    records = {key: replace(record, scores={}) for key, record in drawn.records.items()}
    with pytest.raises(ValueError, match=r"no role's name \(function A"):
        run_set([replace(drawn, records=records, name=name) for name in "ab"])


@pytest.fixture(scope="module")
def sweep_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten histories on disk, as a sweep leaves them: induction at 100 or 200 as the learning rate is high or low."""
    folder, rng = tmp_path_factory.mktemp("sweep"), np.random.default_rng(6)
    for place in range(10):
        rate, middle = RATES[place % 2], float(np.exp(rng.normal(0, 0.1)) * (100 if place % 2 else 200))
        rises = [PlantedRise("a1.h0", "induction", middle), PlantedRise("a0.h0", "previous-token", 0.8 * middle)]
        rises += [PlantedRise("a1.h1", "induction", middle)] if place % 2 else []
        history = rising_history(rises, range(0, 401, 40), n_folds=4, seed=place, name=f"run{place}")
        history = replace(history, hyperparameters={"learning_rate": rate, "seed": place})
        history.save(folder / "histories" / history.name)
    return folder


@pytest.fixture(scope="module")
def histories(sweep_folder: Path) -> list[History]:
    return [History.open(place) for place in sorted((sweep_folder / "histories").iterdir())]


def test_histories_go_in_as_they_are(histories: list[History]) -> None:
    found = compare(histories, by="learning_rate", n_permutations=499).effects
    form = found[found["clock"] == "form"].set_index("role")
    assert set(form.index) == {"induction", "previous-token"}
    for role in form.index:
        assert form.loc[role, "low"] < -np.log(2) < form.loc[role, "high"] < 0


def test_what_else_shifts_is_found_and_what_does_not_is_not(histories: list[History]) -> None:
    settings = {history.name: history.hyperparameters for history in histories}
    shifts = trait_shifts(run_traits(histories), settings, by="learning_rate")
    table = shifts.set_index(["role", "clock", "trait"])
    heads = table.loc[("induction", "form", "heads")]
    assert heads["estimate"] == pytest.approx(1, abs=0.2)
    assert heads["q_value"] < 0.05
    lag = table.loc[("induction, previous-token", "form", "lag, ln ratio of steps")]
    assert lag["p_value"] > 0.05
    said = describe_shifts(shifts)
    assert said[0].startswith("induction: heads (form) differs by +1")
    assert said[-1].startswith(f"Besides formation, {len(table)} traits")


def drawn_with_effects(effects: dict[str, float], layers: dict[str, str]) -> History:
    """Heads that all look like induction heads from the middle on; corrupting each costs what `effects` says."""
    rows = [
        (step, "probe", measure, head, value if step >= 200 else 0.0)
        for step in range(0, 401, 40)
        for head, effect in effects.items()
        for measure, value in (("induction", 0.8), ("patching", effect))
    ]
    table = pd.DataFrame(rows, columns=["step", "task", "measure", "component", "value"])
    table["component"] = table["component"].map(layers)
    return History.from_frame(table, name="drawn")


def test_traits_are_told_by_the_clock_they_are_about() -> None:
    """Three heads look like it; two are needed equally, in layers 1 and 3, the third hardly."""
    history = drawn_with_effects({"a": 2.0, "b": 2.0, "c": 0.1}, {"a": "a1.h0", "b": "a3.h1", "c": "a3.h0"})
    found = run_traits([history]).set_index(["role", "clock", "trait"])["value"]
    assert found["induction", "form", "heads"] == 3
    assert found["induction", "form", "mean layer"] == pytest.approx(7 / 3)
    assert found["induction", "function", "effective number of heads"] == pytest.approx(4.1**2 / 8.01)
    assert found["induction", "function", "mean layer"] == pytest.approx((2 + 6 + 0.3) / 4.1)
    assert found["induction", "function", "redundant heads"] == 1
    assert found["induction", "function", "lag behind form, ln ratio of steps"] == pytest.approx(0, abs=0.05)


def test_order_is_told_only_where_the_intervals_allow_it() -> None:
    for middle, order in ((100.0, -1), (220.0, 0), (330.0, 1)):
        rises = [PlantedRise("a1.h0", "induction", middle), PlantedRise("a0.h0", "previous-token", 220.0)]
        history = rising_history(rises, range(0, 401, 40), noise=0.005)
        found = run_traits([history]).set_index(["role", "clock", "trait"])["value"]
        assert found["induction, previous-token", "form", "order"] == -order
        lag = found["induction, previous-token", "form", "lag, ln ratio of steps"]
        assert lag == pytest.approx(math.log(220 / middle), abs=0.1)


def test_roles_of_one_task_share_its_behaviour_once(two_by_two: RunSet) -> None:
    """Also where some runs do not have one of the roles."""
    from tracking.comparison.run_set import _without_repeats

    behaviour = two_by_two.formation.assign(clock="behaviour")
    other = behaviour.assign(role="previous-token").iloc[3:]
    kept = _without_repeats(pd.concat([other, behaviour], ignore_index=True))
    assert set(kept["role"]) == {"induction"}
    moved = other.assign(interval_after=other["interval_after"] + 1)
    assert set(_without_repeats(pd.concat([moved, behaviour], ignore_index=True))["role"]) == set(other["role"]) | {
        "induction"
    }


def test_trait_shifts_keep_their_level() -> None:
    settings = {f"r{place}": {"a": place % 2, "b": place // 8} for place in range(16)}
    rng, low = np.random.default_rng(7), 0
    for _ in range(300):
        values = rng.standard_t(4, size=16) + 3.0 * np.repeat([0, 1], 8)
        traits = pd.DataFrame({"run": list(settings), "role": "r", "clock": "form", "trait": "x", "value": values})
        low += trait_shifts(traits, settings, by="a", n_permutations=199)["p_value"][0] <= 0.05
    assert 0.02 <= low / 300 <= 0.09


def test_the_command_compares_a_sweep(
    sweep_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = tmp_path / "rates.png"
    arguments = ["compare", "--by", "learning_rate"]
    assert run([*arguments, str(sweep_folder), "--figure", str(figure), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {row["role"] for row in said["effects"]} == {"induction", "previous-token"}
    assert {"formed", "shifts", "scaling", "pairs", "sentences", "unit"} <= set(said)
    assert {row["quantity"] for row in said["scaling"]} == {"exponent of learning_rate"}
    assert any("times earlier for learning_rate 0.003 : 0.001" in sentence for sentence in said["sentences"])
    assert figure.read_bytes().startswith(b"\x89PNG")
    few = [str(sweep_folder / "histories" / f"run{place}") for place in range(4)]
    assert run([*arguments, *few]) == 0
    piped = pd.read_csv(io.StringIO(capsys.readouterr().out), sep="\t")
    assert set(piped["role"]) == {"induction", "previous-token"}
    assert (piped["verdict"] == "too few runs").all()
    monkeypatch.setenv("COLUMNS", "80")
    assert run([*arguments, *few]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert re.search(r"^learning_rate 0.003 : 0.001, 4 runs, too few for a p-value below 0.33", out, flags=re.MULTILINE)
    assert re.search(r"^  induction by form +x", out, flags=re.MULTILINE)
    assert out.count("too few") == 1
    assert "exponent" not in out
    monkeypatch.setenv("COLUMNS", "240")
    assert run([*arguments, *few, "--details"]) == 0
    out = capsys.readouterr().out
    assert "Too few runs to tell whether learning_rate moves induction" in out
    assert "corrected after Benjamini and Hochberg" in out
    assert "exponent of learning_rate" in out


def test_the_command_forecasts_a_sweep(sweep_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measure = "best previous-token"
    arguments = ["forecast", str(sweep_folder), "--seen", "0.1", "--metric", measure, "--unlike", measure]
    assert run([*arguments, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {"predictions", "scores", measure, "alarms", "sentences"} <= set(said)
    assert any("median of the other runs" in sentence for sentence in said["sentences"])


def test_the_commands_tell_what_comes_first_and_warn_of_it(
    sweep_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    curves = ["--curve", "best previous-token", "--curve", "induction by form"]
    assert run(["leads", str(sweep_folder), *curves, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["leads"][0]["first"] == "best previous-token"
    live = rising_history(
        [PlantedRise("a0.h0", "previous-token", 80.0)], range(0, 401, 40), n_folds=4, seed=20, name="live"
    )
    live.save(tmp_path / "live")
    assert run(["watch", str(tmp_path / "live"), "--like", str(sweep_folder), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {"precursor", "alarms", "sentences"} <= set(said)
    assert "live was looked at until step 400" in said["sentences"][-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["leads", "{sweep}", "--curve", "best induction"], "at least two curves"),
        (["leads", "{sweep}", "--curve", "a", "--curve", "b", "--unit", "epochs"], "expected --unit"),
        (["compare", "{sweep}", "--by", "learning_rate", "--rise", "second"], "expected --rise"),
        (["forecast", "{sweep}", "--register", "x", "--settle", "x"], "one of --register and --settle"),
        (["compare", "nowhere", "--by", "a"], "no such folder"),
        (["compare", "{sweep}", "--by", "learning_rat"], "did you mean learning_rate"),
        (["compare", "{sweep}/histories/run0", "--by", "learning_rate"], "at least two runs"),
        (["compare", "{sweep}", "--by", "learning_rate", "--unit", "epochs"], "expected --unit"),
        (["compare", "{sweep}", "--by", "learning_rate", "--figure", "rates.doc"], "expected --figure"),
        (["compare", "{sweep}/histories/run0", "{sweep}/histories/run0", "--by", "learning_rate"], "two histories"),
        (["compare", "{sweep}/runs", "--by", "learning_rate"], "no such folder"),
        (["compare", "{sweep}", "--by", "learning_rate", "--unit", "steps", "--definition", "eye"], "eye"),
        (["forecast", "{sweep}", "--seen", "2"], "between 0 and 1"),
        (["forecast", "{sweep}", "--leave", "week"], "expected --leave"),
        (["sweep", "nowhere.toml", "--out", "x"], "no such file"),
        (["design", "nowhere.toml", "--goal", "x", "--out", "x"], "no such file"),
    ],
)
def test_a_wrong_request_is_one_sentence(
    arguments: list[str], words: str, sweep_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([part.replace("{sweep}", str(sweep_folder)) for part in arguments]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""


# Two arms of paired runs ------------------------------------------------------------------------------------------


def arm_metrics(differences: list[float]) -> tuple[pd.DataFrame, dict[str, str], dict[str, str]]:
    rows, arms, pairs = [], {}, {}
    for pair, difference in enumerate(differences):
        for arm, shift, spacing in (("base", 0.0, 10), ("other", difference, 7)):
            run = f"{pair}{arm}"
            arms[run], pairs[run] = arm, str(pair)
            rows += [(run, x, "acc", 0.01 * x + pair + shift) for x in range(0, 100, spacing)]
    table = pd.DataFrame(rows, columns=["run", "tokens", "name", "value"])
    return table, arms, pairs


def test_arms_are_compared_at_equal_tokens() -> None:
    table, arms, pairs = arm_metrics([0.1, 0.2, 0.3])
    row = compare_arms(table, arms=arms, pairs=pairs, baseline="base").to_dict("records")[0]
    assert row["difference"] == pytest.approx(0.2)
    assert (row["n_pairs"], row["n_higher"], row["p_value"]) == (3, 3, 0.25)


def test_one_pair_says_nothing_of_chance() -> None:
    table, arms, pairs = arm_metrics([0.1])
    found = compare_arms(table, arms=arms, pairs=pairs, baseline="base")
    assert "says nothing of chance" in describe_arms(found, arm="other", baseline="base")[0]


def test_runs_alike_in_all_else_pair_up() -> None:
    settings = {
        f"{size}-{rate}-{seed}": {"batch_size": size, "learning_rate": rate, "seed": seed, "steps": 6400 // size}
        for size in (16, 32, 64)
        for rate in RATES
        for seed in range(2)
        if (size, rate, seed) != (64, 3e-3, 1)
    }
    found = paired_settings(settings, by="batch_size")
    assert [(base, other, len(arms) // 2) for base, other, arms, _ in found] == [("16", "32", 4), ("16", "64", 3)]
    for base, other, arms, pairs in found:
        for pair in set(pairs.values()):
            runs = [run for run in pairs if pairs[run] == pair]
            assert sorted(arms[run] for run in runs) == [base, other]
            assert len({(settings[run]["learning_rate"], settings[run]["seed"]) for run in runs}) == 1
    assert paired_settings({"a": {"x": 1, "seed": 0}, "b": {"x": 2, "seed": 1}}, by="x") == []


def test_pairs_of_a_sweep_are_compared_metric_by_metric() -> None:
    table, arms, pairs = arm_metrics([0.1, 0.2, 0.3, 0.2, 0.1, 0.2])
    settings = {run: {"batch_size": 16 if arms[run] == "base" else 64, "seed": int(pairs[run])} for run in arms}
    table = pd.concat([table, table.assign(name="training/batch_size", value=1.0)], ignore_index=True)
    found = compare_pairs(table, settings, by="batch_size")
    assert found[["hyperparameter", "contrast", "name", "n_pairs"]].values.tolist() == [
        ["batch_size", "64 : 16", "acc", 6]
    ]
    assert "acc is higher with batch_size 64 than with batch_size 16 in 6 of 6 pairs" in describe_pairs(found)[0]
    assert compare_pairs(table, {run: {**one, "seed": run} for run, one in settings.items()}, by="batch_size").empty
    assert describe_pairs(found.iloc[:0]) == []


def test_more_than_two_arms_are_refused() -> None:
    table, arms, pairs = arm_metrics([0.1])
    with pytest.raises(ValueError, match="expected two arms"):
        compare_arms(table, arms={**arms, "x": "third"}, pairs=pairs, baseline="base")


def pythia() -> pd.DataFrame:
    return pd.read_csv(shared_path("data/pythia_evals/pythia_v1_evals.csv.gz"))


def test_pythia_smaller_batches_are_ahead_and_that_proves_little() -> None:
    """Five sizes, one run in each arm, evaluated five-shot (the variants' scores are of that level)."""
    variants = {
        "pythia-70m-0.25MtokBS": ("pythia-70m", 0.25),
        "pythia-160m-0.5MtokBS": ("pythia-160m", 0.5),
        "pythia-410m-0.5MtokBS": ("pythia-410m", 0.5),
        "pythia-1b-0.5MtokBS": ("pythia-1b-bf16", 0.5),
        "pythia-1.4b-1MtokBS": ("pythia-1.4b", 1.0),
    }
    table = pythia()
    batch = {name: size for name, (_, size) in variants.items()} | {base: 2.0 for base, _ in variants.values()}
    table = table[table["model"].isin(batch) & (table["shots"] != "zero-shot") & (table["task"] == "lambada_openai")]
    table = table.assign(
        run=table["model"],
        name=table["task"] + "/" + table["metric"],
        tokens=table["step"] * table["model"].map(batch) * 2**20,
    )
    arms = {name: "smaller batch" for name in variants} | {base: "2M batch" for base, _ in variants.values()}
    pairs = {name: base for name, (base, _) in variants.items()} | {base: base for base, _ in variants.values()}
    found = compare_arms(table, arms=arms, pairs=pairs, baseline="2M batch", span=(0.0, 1e11))
    rows = found.set_index("name")
    assert rows.loc["lambada_openai/acc", ["n_pairs", "n_higher"]].tolist() == [5, 5]
    assert rows.loc["lambada_openai/ppl", ["n_pairs", "n_higher"]].tolist() == [5, 0]
    assert rows.loc["lambada_openai/acc", "p_value"] == 0.0625
    said = describe_arms(found, arm="smaller batch", baseline="2M batch")
    assert all("in 5 of 5 pairs" in sentence and "a hint, no proof" in sentence for sentence in said)


def test_pythia_pronoun_intervention_moves_nothing() -> None:
    table = pythia()
    table = table[table["shots"].isin(["baseline", "intervention"])]
    table = table.assign(run=table["model"] + "/" + table["shots"], name=table["task"] + "/" + table["metric"])
    table = table[table["name"] == "crows_pairs_english/pct_stereotype"]
    arms = {run: run.rpartition("/")[2] for run in table["run"].unique()}
    pairs = {run: run.rpartition("/")[0] for run in table["run"].unique()}
    found = compare_arms(table, arms=arms, pairs=pairs, baseline="baseline", clock="step")
    row = found.to_dict("records")[0]
    assert row["n_pairs"] == 4
    assert abs(row["difference"]) < 0.005
    assert row["low"] < 0 < row["high"]
    sentence = describe_arms(found, arm="intervention", baseline="baseline")[0]
    assert sentence.startswith("No effect of intervention on crows_pairs_english/pct_stereotype seen")


def test_drawn_rows_have_the_columns_of_the_formation_table() -> None:
    assert tuple(formation_rows("a", np.array([1.0]), np.array([2.0]))) == COLUMNS["formation"]


# Scaling ----------------------------------------------------------------------------------------------------------


def test_a_planted_exponent_is_fitted_in_tokens() -> None:
    """ln steps fall by .5 for each ln batch, so ln tokens rise by .5: the published exponent."""
    settings = [{**one, "context_length": 32} for one in grid(6, batch_size=[16, 32, 64, 128])]
    runs = sweep(settings, np.random.default_rng(8), effects={"batch_size": -0.5}, between=0.1, within=0.05)
    table = scaling_law(runs).set_index("quantity")
    row = table.loc["exponent of batch_size * context_length"]
    assert row["low"] < 0.5 < row["high"]
    assert row["p_value"] < 0.01
    tokens = math.exp(5) * math.exp(np.log([16, 32, 64, 128]).mean() * 0.5) * 32
    law = LAW * math.sqrt(32)
    assert table.loc["ln(N / law)", "estimate"] == pytest.approx(math.log(tokens / law), abs=0.1)
    said = describe_scaling(table.reset_index())
    assert "the published 1/2 lies within it" in said[0]
    assert "fewer tokens than the published law" in said[1]


def test_an_exponent_is_fitted_with_what_else_varies_taken_out() -> None:
    """The optimiser moves formation by far more than the batch does; the exponent is as sure as without that."""
    settings = [{**one, "context_length": 32} for one in grid(4, batch_size=[16, 32, 64], optimizer=["adam", "sgd"])]
    runs = sweep(settings, np.random.default_rng(10), effects={"batch_size": -0.5}, between=0.1, within=0.05)
    slow = runs.formation["run"].map(lambda run: 2.0 if runs.settings[run]["optimizer"] == "sgd" else 1.0)
    columns = ["interval_before", "interval_after"]
    moved = replace(runs, formation=runs.formation.assign(**{name: runs.formation[name] * slow for name in columns}))
    plain, other = (scaling_law(one).set_index("quantity").loc["exponent of " + BATCH_CONTEXT] for one in (runs, moved))
    assert other["estimate"] == pytest.approx(plain["estimate"], abs=0.02)
    assert plain["estimate"] == pytest.approx(0.5, abs=0.1)
    assert other["high"] - other["low"] < 1.5 * (plain["high"] - plain["low"])


def test_every_role_and_clock_is_fitted_over_what_varies_and_only_once() -> None:
    """Width and heads grow together here, so that their exponents cannot be told apart: one of them is fitted."""
    settings = [
        {**one, "context_length": 32, "n_heads": one["d_model"] // 16}
        for one in grid(4, batch_size=[16, 64], d_model=[32, 64])
    ]
    runs = sweep(settings, np.random.default_rng(9), effects={"d_model": -0.8}, between=0.1, within=0.05)
    table = scaling_laws(runs, n_permutations=199)
    names = ["batch_size * context_length", "d_model"]
    assert table["quantity"].tolist() == [*(f"exponent of {name}" for name in names), "ln(N / law)"]
    width = table.set_index("quantity").loc["exponent of d_model"]
    assert width["low"] < -0.8 < width["high"] < 0
    assert describe_scaling(table)[1].startswith("Of induction (form, half-rise) in tokens, the exponent of d_model")
    other = replace(runs, formation=runs.formation.assign(role="previous-token"))
    assert not scaling_laws(other, n_permutations=99)["quantity"].str.contains("law").any()
    assert scaling_laws(replace(runs, tokens_per_step={})).empty


@pytest.mark.parametrize(
    ("by", "words"), [("d_model", "known and above 0"), ("context_length", "the same in all runs")]
)
def test_what_does_not_vary_has_no_exponent(by: str, words: str) -> None:
    settings = [{**one, "context_length": 32} for one in grid(3, batch_size=[16, 32])]
    with pytest.raises(ValueError, match=words):
        scaling_law(sweep(settings, np.random.default_rng(0)), by=[by])
