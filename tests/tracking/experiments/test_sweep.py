"""A sweep asks for the runs it says, each is the run that training alone gives, and a failed one costs only itself."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.unlucky import unlucky
from tracking.cli.cli import run
from tracking.execution.scheduling import run_units, worker_pool
from tracking.experiments.planning import Range, read_space, read_sweep
from tracking.experiments.sweep import run_sweep
from tracking.history.history import History

TINY = {"steps": 4, "checkpoints": "0,4", "d_model": 8, "n_heads": 2, "batch_size": 4, "vocabulary": 16}


def test_a_grid_is_every_combination_times_seeds() -> None:
    plan = read_sweep({"seeds": 3, "base": TINY, "grid": {"learning_rate": [1e-3, 3e-3], "n_layers": [1, 2]}})
    assert len(plan.runs) == 12
    assert {(run.config.learning_rate, run.config.n_layers, run.config.seed) for run in plan.runs} == {
        (rate, layers, seed) for rate in (1e-3, 3e-3) for layers in (1, 2) for seed in range(3)
    }
    assert all(run.config.d_model == 8 for run in plan.runs)
    assert plan.runs[0].name == "learning_rate-0.001_n_layers-1_seed-0"


def test_grid_list_and_draws_add_up() -> None:
    given = {
        "seeds": [5],
        "grid": {"batch_size": [16, 32]},
        "settings": [{"weight_decay": 0.5}],
        "random": {"draws": 4, "learning_rate": {"low": 1e-4, "high": 1e-2, "scale": "log"}, "n_heads": [2, 4]},
    }
    plan = read_sweep(given)
    assert len(plan.runs) == 2 + 1 + 4
    drawn = [run.config.learning_rate for run in plan.runs[3:]]
    assert all(1e-4 <= rate <= 1e-2 for rate in drawn)
    assert len(set(drawn)) == 4
    assert [run.name for run in read_sweep(given).runs] == [run.name for run in plan.runs]


def test_draws_are_even_on_their_scale() -> None:
    rng = np.random.default_rng(0)
    logs = np.log10([Range(1e-4, 1e-2, "log").draw(rng) for _ in range(500)])
    assert np.mean(logs) == pytest.approx(-3, abs=0.1)
    assert {Range(2.0, 4.0, whole=True).draw(rng) for _ in range(100)} == {2, 3, 4}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[grid]\nlearning_rat = [1, 2]", "did you mean learning_rate"),
        ("[gird]\nlearning_rate = [1, 2]", "did you mean grid"),
        ("learning_rate = [1, 2]", "belongs under"),
        ("seeds = 1", "at least two runs"),
        ("[grid]\nlearning_rate = [1, 1]", "more than once"),
        ("[grid]\nn_heads = [3]\n", "cannot be trained"),
        ("[random]\nlearning_rate = [1]", "draws = N"),
        ("[random]\ndraws = 2\nlearning_rate = {low = 2, high = 1}", "low < high"),
        ("seeds = = 1", "no TOML"),
        ("seeds = 'three'", "seeds = 6"),
        ("seeds = 0", "seeds = 6"),
        ("seeds = 2\ntasks = [3]", "a list of names"),
        ("seeds = 2\nn_prompts = 'many'", "a number of prompts"),
        ("settings = 3", r"expected \[\[settings\]\]"),
        ("grid = 3", r"expected a section \[grid\]"),
        ("[grid]\nlearning_rate = []", "at least one value of learning_rate"),
        ("[random]\ndraws = 'x'\nlearning_rate = [1]", "draws = N"),
        ("seeds = 2\n[base]\nsteps = 20", "such as checkpoints='0..20:1'"),
    ],
)
def test_a_wrong_plan_is_one_sentence(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "sweep.toml").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_sweep(tmp_path / "sweep.toml")


def test_what_cannot_be_recorded_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    plan = {"seeds": 2, "base": TINY}
    with pytest.raises(ValueError, match="no task 'indction'; did you mean induction"):
        run_sweep({**plan, "tasks": ["indction"]}, tmp_path)
    with pytest.raises(ValueError, match="at least 2 prompts"):
        run_sweep({**plan, "n_prompts": 1}, tmp_path)
    assert not (tmp_path / "runs").exists()


def test_a_space_has_something_to_choose() -> None:
    with pytest.raises(ValueError, match=r"\[space\] with at least one"):
        read_space({"base": TINY})
    with pytest.raises(ValueError, match="did you mean learning_rate"):
        read_space({"space": {"learning_rat": [1, 2]}})
    assert read_space({"space": {"n_heads": {"low": 1, "high": 8}}}).choices["n_heads"] == Range(
        1.0, 8.0, "linear", True
    )


def test_each_run_is_that_of_training_alone_and_a_bad_one_costs_itself(tmp_path: Path) -> None:
    from tracking.training.training import train

    plan = read_sweep({"seeds": 2, "n_prompts": 4, "base": TINY, "grid": {"learning_rate": [1e-3, 1e30]}})
    result = run_sweep(plan, tmp_path)
    assert sorted(result.failed) == ["learning_rate-1e+30_seed-0", "learning_rate-1e+30_seed-1"]
    assert "smaller learning rate" in result.failed["learning_rate-1e+30_seed-0"]
    assert [history.name for history in result.histories()] == list(result.done)
    alone = train(plan.runs[1].config, tmp_path / "alone")
    last = Path(alone.checkpoints[-1].source).name
    places = [folder / "checkpoints" / last for folder in (tmp_path / "alone", tmp_path / "runs" / plan.runs[1].name)]
    assert (places[0] / "model.safetensors").read_bytes() == (places[1] / "model.safetensors").read_bytes()
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "histories").rglob("*.safetensors")}
    again = run_sweep(plan, tmp_path)
    assert again.done == result.done
    assert written == {path: path.stat().st_mtime_ns for path in (tmp_path / "histories").rglob("*.safetensors")}


@pytest.mark.slow
def test_the_command_gives_by_processes_what_one_process_gives(tmp_path: Path, capsys) -> None:
    plan = {"seeds": 2, "n_prompts": 4, "base": TINY}
    one = run_sweep(plan, tmp_path / "one")
    options = "\n".join(f"{key} = {json.dumps(value)}" for key, value in TINY.items())
    (tmp_path / "sweep.toml").write_text(f"seeds = 2\nn_prompts = 4\n[base]\n{options}\n")
    arguments = ["sweep", str(tmp_path / "sweep.toml"), "--out", str(tmp_path / "two"), "--workers", "2", "--json"]
    assert run(arguments) == 0
    said = json.loads(capsys.readouterr().out)
    assert [Path(folder).name for folder in said["histories"]] == list(one.done)
    for name in one.done:
        first, second = (History.open(tmp_path / side / "histories" / name) for side in ("one", "two"))
        assert first.to_frame().equals(second.to_frame())


def test_the_command_names_what_failed(tmp_path: Path, capsys) -> None:
    options = "\n".join(f"{key} = {json.dumps(value)}" for key, value in TINY.items())
    (tmp_path / "sweep.toml").write_text(f"seeds = 2\n[base]\n{options}\nlearning_rate = 1e30\n")
    assert run(["sweep", str(tmp_path / "sweep.toml"), "--out", str(tmp_path / "out")]) == 1
    assert "not done: seed-0: the loss is" in capsys.readouterr().err


def test_a_killed_process_costs_its_unit() -> None:
    with worker_pool(unlucky, workers=2) as pool:
        found = run_units({str(unit): unit for unit in range(6)}, pool)
    assert list(found) == ["0", "1", "2", "3", "4", "5"]
    assert found["1"].reason == "its process was ended by signal 9"
    assert found["2"].reason == "two is no number"
    assert {name: outcome.value for name, outcome in found.items() if not outcome.failed} == {
        "0": 0, "3": 9, "4": 16, "5": 25,
    }  # fmt: skip


def test_no_workers_no_work() -> None:
    with pytest.raises(ValueError, match="at least one worker"), worker_pool(unlucky, workers=0):
        pass
