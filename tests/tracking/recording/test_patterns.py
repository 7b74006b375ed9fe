"""Attention patterns are kept on request, once, and are those of the model; the history keeps how it was made."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from circuits.architectures import native_module
from circuits.loading import load_model
from tracking.experiments.sweep import run_sweep
from tracking.history.history import History
from tracking.recording.live import Recorder
from tracking.recording.measuring import Settings, make_tasks
from tracking.recording.patterns import patterns_of
from tracking.recording.recording import record
from tracking.training.training import TrainingConfig, train

CONFIG = TrainingConfig(
    steps=4, checkpoints="0..4:2", d_model=16, n_heads=2, vocabulary=24, context_length=12, batch_size=4,
    longest_period=6,
)  # fmt: skip


def test_patterns_are_kept_on_request_and_once(tmp_path: Path) -> None:
    train(CONFIG, tmp_path / "run")
    record(tmp_path / "run", tmp_path / "history", n_prompts=4, command="formation record run")
    assert not History.open(tmp_path / "history").patterns
    record(tmp_path / "run", tmp_path / "history", n_prompts=4, patterns=2, command="formation record run")
    history = History.open(tmp_path / "history")
    assert list(history.patterns) == [0, 2, 4]
    (made,) = history.settings["made"]
    assert made["command"] == "formation record run"
    assert made["source"] == str(tmp_path / "run")
    kept = history.patterns[4]
    model = load_model(next((tmp_path / "run" / "checkpoints").glob("*4")))
    task = make_tasks(Settings(n_prompts=4), model)["induction"]
    expected = patterns_of(model, task, n_prompts=2)
    assert np.abs(kept.shares.astype(int) - expected.shares).max() <= 1
    assert kept.shares.shape[:3] == (2, CONFIG.n_layers, 2)
    assert np.abs(kept.shares.sum(axis=-1).astype(int) - 255).max() <= kept.shares.shape[-1]
    assert kept.words == tuple(tuple(map(str, row)) for row in kept.tokens.tolist())
    place = tmp_path / "history" / "patterns" / "000000004.safetensors"
    before = place.stat().st_mtime_ns
    record(tmp_path / "run", tmp_path / "history", n_prompts=4, patterns=2)
    assert place.stat().st_mtime_ns == before


def test_a_sweep_keeps_them_where_its_file_asks(tmp_path: Path) -> None:
    base = CONFIG.to_dict() | {"steps": 2, "checkpoints": "0,2"}
    base.pop("seed")
    result = run_sweep({"base": base, "seeds": 2, "n_prompts": 4, "patterns": 1}, tmp_path)
    assert [list(history.patterns) for history in result.histories()] == [[0, 2], [0, 2]]
    with pytest.raises(ValueError, match="expected patterns = 64, a number of prompts"):
        run_sweep({"base": base, "seeds": 2, "patterns": -1}, tmp_path / "other")


def test_a_live_recorder_keeps_them_and_those_of_another_way_go(tmp_path: Path) -> None:
    module = native_module(replace(CONFIG.model, seed=0))
    recorder = Recorder(tmp_path / "history", n_prompts=4, patterns=2)
    for step in (0, 1):
        recorder(step, module, force=True)
    assert list(recorder.history.patterns) == [0, 1]
    assert recorder.history.patterns[1].shares.shape[:3] == (2, CONFIG.n_layers, 2)
    with torch.no_grad():
        next(module.parameters()).normal_()
    again = Recorder(tmp_path / "history", n_prompts=4, patterns=2)
    again(1, module, force=True)
    assert not np.array_equal(again.history.patterns[1].shares, recorder.history.patterns[0].shares)
    assert list(again.history.patterns) == [0, 1]
