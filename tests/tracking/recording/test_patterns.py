"""Attention patterns are kept on request, once, and are those of the model; the history keeps how it was made."""

from pathlib import Path

import numpy as np

from circuits.loading import load_model
from tracking.history.history import History
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
