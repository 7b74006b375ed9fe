"""Training can be stopped anywhere and is the same run; what was asked wrongly gets a sentence."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circuits.checkpoint import checkpoint_hash
from circuits.loading import load_model
from tracking.checkpoints.runs import Run
from tracking.training.optimizers import gradient_noise
from tracking.training.sequences import Repeats, batch
from tracking.training.training import TrainingConfig, load_state, start_state, train, training_step

CONFIG = TrainingConfig(
    steps=12, checkpoints="0..12:4", d_model=16, n_heads=2, vocabulary=16, context_length=12, batch_size=4,
    longest_period=6, warmup_steps=3, clip_norm=1.0, schedule="cosine",
)  # fmt: skip


class StopError(Exception):
    pass


def stop_at(last: int):
    def progress(what: str, step: int, steps: int) -> None:
        if step == last:
            raise StopError

    return progress


def content(run: Path) -> dict[str, str | bytes]:
    files = {str(path.relative_to(run)): path for path in sorted(run.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name != "run.json"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    train(CONFIG, folder)
    return folder


def test_a_run_is_what_runs_open(whole: Path) -> None:
    run = Run.open(whole)
    assert run.steps == (0, 4, 8, 12)
    assert run.tokens_per_step == 48
    assert run.hyperparameters["learning_rate"] == 3e-3
    assert [entry["step"] for entry in run.log] == list(range(13))
    hashes = {checkpoint_hash(checkpoint.source) for checkpoint in run.checkpoints}
    assert len(hashes) == 4
    model = load_model(run[12].source)
    assert (model.graph.n_layers, model.graph.n_heads, model.graph.mlp) == (2, 2, False)


@pytest.mark.parametrize("stop", [0, 1, 3, 4, 7, 11, 12])
def test_stop_and_resume_is_no_stop(whole: Path, tmp_path: Path, stop: int) -> None:
    with pytest.raises(StopError):
        train(CONFIG, tmp_path, progress=stop_at(stop))
    torch.manual_seed(stop)  # whatever the process did in between
    train(CONFIG, tmp_path)
    assert content(tmp_path) == content(whole)


def test_training_again_changes_nothing(whole: Path) -> None:
    before = content(whole)
    train(CONFIG, whole)
    assert content(whole) == before


def test_damage_to_the_last_checkpoint_costs_its_steps_alone(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(StopError):
        train(CONFIG, tmp_path, progress=stop_at(9))
    place = tmp_path / "checkpoints" / "step000008" / "training_state.safetensors"
    place.write_bytes(place.read_bytes()[:100])
    train(CONFIG, tmp_path)
    assert content(tmp_path) == content(whole)


@pytest.mark.slow
def test_kill_and_resume_is_no_stop(tmp_path: Path) -> None:
    config = replace(CONFIG, steps=400, checkpoints="0..400:10")
    train(config, tmp_path / "whole")
    code = (
        f"from tracking.training.training import TrainingConfig, train; train({config!r}, {str(tmp_path / 'killed')!r})"
    )
    for reached in (0, 130, 260):
        child = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[3], env=os.environ)
        places = tmp_path / "killed" / "checkpoints"
        while child.poll() is None and not any(places.glob(f"step{reached // 100:04d}*")):
            time.sleep(0.005)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    train(config, tmp_path / "killed")
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_a_state_goes_on_exactly(whole: Path) -> None:
    here = load_state(CONFIG, whole / "checkpoints" / "step000004")
    for _ in range(4):
        here, _ = training_step(here, CONFIG)
    there = load_state(CONFIG, whole / "checkpoints" / "step000008")
    assert here.step == there.step == 8
    for first, second in zip(here.module.parameters(), there.module.parameters(), strict=True):
        assert torch.equal(first, second)


def test_seeds_are_of_weights_and_of_data() -> None:
    first, second = start_state(CONFIG), start_state(replace(CONFIG, data_seed=1))
    for one, other in zip(first.module.parameters(), second.module.parameters(), strict=True):
        assert torch.equal(one, other)
    assert training_step(first, CONFIG)[1] != training_step(second, replace(CONFIG, data_seed=1))[1]


def test_another_configuration_is_refused(whole: Path) -> None:
    with pytest.raises(ValueError, match=r"holds a run with seed 0 \(asked: 1\); choose another folder"):
        train(replace(CONFIG, seed=1), whole)


def test_checkpoints_of_nobody_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "step3").mkdir(parents=True)
    with pytest.raises(ValueError, match="some other training"):
        train(CONFIG, tmp_path)


def test_a_diverging_run_is_said_and_keeps_its_checkpoints(tmp_path: Path) -> None:
    config = replace(CONFIG, optimizer="sgd", learning_rate=1e30, warmup_steps=0, clip_norm=None)
    with pytest.raises(ValueError, match=r"the loss is (nan|inf) at step \d+; try a smaller learning rate"):
        train(config, tmp_path)
    assert Run.open(tmp_path).steps[0] == 0


def test_options_from_toml(tmp_path: Path) -> None:
    place = tmp_path / "small.toml"
    place.write_text(
        'steps = 20\ncheckpoints = "0..20:5"\n[optimiser]\nlearning_rate = 1e-3\n[data]\nburstiness = 0.5\n'
    )
    config = TrainingConfig.from_toml(place, {"seed": "7", "clip_norm": "none", "attn_only": "false"})
    expected = TrainingConfig(
        steps=20, checkpoints="0..20:5", learning_rate=1e-3, burstiness=0.5, seed=7, attn_only=False
    )
    assert config == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"learning_rat": 1}, "no training option 'learning_rat'; did you mean learning_rate"),
        ({"learning_rate": "fast"}, "expected learning_rate to be a number, got 'fast'"),
        ({"steps": 1.5}, "expected steps to be a whole number"),
        ({"steps": True}, "expected steps to be a whole number"),
        ({"steps": 0}, "expected steps above 0"),
        ({"optimizer": "lion"}, "expected optimizer to be one of adamw, adam, sgd"),
        ({"checkpoints": "0,900"}, r"checkpoints='0,900' does not suit 600 steps \(no checkpoint at step 900"),
        ({"n_heads": 3}, "a d_model that 3 heads divide"),
        ({"repeat_probability": 1.5}, "expected repeat_probability between 0 and 1"),
        ({"longest_period": 2}, "shortest_period <= longest_period"),
    ],
)
def test_options_that_cannot_be(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TrainingConfig.from_dict(options)


def test_files_that_are_no_options(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        TrainingConfig.from_toml(tmp_path / "nowhere.toml")
    (tmp_path / "bad.toml").write_text("steps = ")
    with pytest.raises(ValueError, match=r"bad\.toml is no TOML"):
        TrainingConfig.from_toml(tmp_path / "bad.toml")


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(0, 5))
def test_repeats_repeat_with_periods_in_the_range(index: int, shortest: int, more: int) -> None:
    repeats = Repeats(64, 40, 1.0, shortest, shortest + more)
    for row in batch(repeats, 8, seed=0, index=index):
        assert any((row[p:] == row[:-p]).all() for p in range(shortest, shortest + more + 1))


def test_repeats_have_the_shares_they_are_told() -> None:
    repeats = Repeats(10**6, 30, 0.6, 5, 9, corrupted_fraction=0.25)
    rows = batch(repeats, 4000, seed=1, index=0)
    same = np.stack([(rows[:, p:] == rows[:, :-p])[:, :20].mean(1) for p in range(5, 10)]).max(0)
    assert abs((same > 0).mean() - 0.6) < 0.03
    # Both ends of a pair must be spared, unless the first lies in the fresh part.
    assert 0.5 < same[same > 0].mean() < 0.8
    ranks = np.bincount(batch(Repeats(8, 50, 0.0, zipf_exponent=1.0), 4000, seed=1, index=0).ravel(), minlength=8)
    np.testing.assert_allclose(ranks / ranks.sum(), (1 / np.arange(1, 9)) / (1 / np.arange(1, 9)).sum(), atol=0.01)


def test_bursty_sequences_hold_fewer_tokens() -> None:
    counts = [
        np.mean([len(set(row)) for row in batch(Repeats(64, 32, 0.0, burstiness=b), 200, seed=0, index=0).tolist()])
        for b in (0.0, 0.5, 1.0)
    ]
    assert counts[0] > counts[1] > counts[2]


def test_a_batch_depends_on_its_place_alone() -> None:
    first, again = (batch(Repeats(), 3, seed=2, index=9) for _ in range(2))
    assert (first == again).all()
    assert (first != batch(Repeats(), 3, seed=2, index=10)).any()
    assert (first != batch(Repeats(), 3, seed=3, index=9)).any()


def test_every_line_of_the_log_is_whole(whole: Path) -> None:
    lines = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert all({"step", "tokens", "loss", "learning_rate"} == set(line) - {"gradient_noise"} for line in lines)
    noise = {line["step"]: line["gradient_noise"] for line in lines if "gradient_noise" in line}
    assert set(noise) == {step for step in Run.open(whole).steps if step > 0}
    assert all(value > 0 for value in noise.values())


def test_the_noise_of_gradients_is_their_variance_over_their_squared_mean() -> None:
    weight = torch.nn.Parameter(torch.zeros(2000))
    optimizer, generator = torch.optim.Adam([weight], 0.0, (0.9, 0.9)), torch.Generator().manual_seed(0)
    assert gradient_noise(optimizer) is None
    for _ in range(200):
        weight.grad = 2.0 + torch.randn(2000, generator=generator)
        optimizer.step()
    # The mean of some ten gradients keeps a twentieth of their variance.
    assert gradient_noise(optimizer) == pytest.approx((1 - 1 / 19) / (4 + 1 / 19), rel=0.1)
    assert gradient_noise(torch.optim.SGD([weight], 0.1)) is None
