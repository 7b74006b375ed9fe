"""A run of another trainer is asked why from its checkpoints and the sequences it saw."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tracking.checkpoints.runs import Run
from tracking.cli.cli import run as formation
from tracking.influence.influence import why
from tracking.influence.seen_data import given_data
from tracking.training.hyperparameters import TrainingConfig
from tracking.training.training import STATE, data_batch, train

OPTIONS: dict[str, Any] = {
    "steps": 60, "checkpoints": "0..60:5", "n_layers": 1, "n_heads": 2, "d_model": 16, "vocabulary": 12,
    "context_length": 12, "batch_size": 16, "warmup_steps": 10, "learning_rate": 0.01,
    "sources": {"copies": {"kind": "runs"}, "noise": {"kind": "random"}},
}  # fmt: skip
ROLE = {"role": "self", "threshold": 0.5, "method": "products"}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "run"
    train(TrainingConfig.from_dict(OPTIONS), folder)
    return folder


@pytest.fixture(scope="module")
def theirs(own: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same checkpoints without options and states, and a file of what they saw."""
    folder = tmp_path_factory.mktemp("theirs")
    shutil.copytree(own, folder / "run")
    for place in (folder / "run").rglob(STATE):
        place.unlink()
    (folder / "run" / "run.json").write_text('{"name": "theirs"}')
    config, lines = TrainingConfig.from_dict(OPTIONS), []
    names = [source.name for source in config.sources]
    for step in range(60):
        batch = data_batch(config, step)
        for tokens, source in zip(batch.tokens.tolist(), batch.source, strict=True):
            lines.append(json.dumps({"step": step, "source": names[source], "tokens": tokens}))
    (folder / "seen.jsonl").write_text("\n".join(lines))
    return folder / "run", folder / "seen.jsonl"


def test_what_is_given_tells_what_is_drawn(own: Path, theirs: tuple[Path, Path]) -> None:
    """But for the shares, which are those of the sequences and not of the options."""
    for restrict in (False, True):
        drawn = why(own, restrict=restrict, **ROLE)
        given = why(theirs[0], data=theirs[1], restrict=restrict, **ROLE)
        assert given.date == drawn.date
        assert [each.source for each in given.shifts] == [each.source for each in drawn.shifts]
        shifts = [[each.shift_steps for each in found.shifts] for found in (drawn, given)]
        np.testing.assert_allclose(*shifts, rtol=0.3)


def test_a_sample_of_the_data_tells_the_direction(theirs: tuple[Path, Path], tmp_path: Path) -> None:
    whole = {each.source: each.shift_steps for each in why(theirs[0], data=theirs[1], **ROLE).shifts}
    lines = [line for line in theirs[1].read_text().splitlines() if json.loads(line)["step"] % 3 == 0]
    (tmp_path / "part.jsonl").write_text("\n".join(lines[::2]) + "\n")
    part = {each.source: each.shift_steps for each in why(theirs[0], data=tmp_path / "part.jsonl", **ROLE).shifts}
    assert {name: np.sign(shift) for name, shift in part.items()} == {
        name: np.sign(shift) for name, shift in whole.items()
    }


def test_the_command_takes_the_file(theirs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["why", str(theirs[0]), "--role", "self", "--threshold", "0.5"]
    assert formation([*asked, "--method", "products", "--restrict", "--data", str(theirs[1]), "--json"]) == 0
    assert {row["source"] for row in json.loads(capsys.readouterr().out)["sources"]} == {"copies", "noise"}
    for arguments, said in (
        ([], "its data is not known; give the sequences that it saw (data=, --data FILE)"),
        (["--data", str(theirs[1])], "method='products' needs only checkpoints and data"),
        (["--data", str(theirs[1]), "--method", "products", "--verify", "1"], "can be gone through again"),
        (["--data", str(theirs[1]), "--method", "products", "--role", "loss"], "no curve 'loss'; expected a role"),
    ):
        assert formation([*asked, *arguments]) == 2
        assert said in " ".join(capsys.readouterr().err.split())


def test_another_architecture_is_asked_too(tmp_path: Path) -> None:
    """Three checkpoints of a Hugging Face model, its second layer's attention sharpened towards the token itself."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    module: Any = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_positions=16, n_embd=16, n_layer=2, n_head=2))
    for step in range(0, 60, 20):
        module.save_pretrained(tmp_path / "run" / "checkpoints" / f"step{step:06d}")
        with torch.no_grad():
            module.transformer.h[1].attn.c_attn.weight[:, :32] += 2 * torch.eye(16).repeat(1, 2)
    rng = np.random.default_rng(0)
    rows = [
        {"step": step, "source": "ab"[step % 2], "tokens": rng.integers(20, size=12).tolist()}
        for step in range(60)
        for _ in range(4)
    ]
    (tmp_path / "seen.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = why(tmp_path / "run", data=tmp_path / "seen.jsonl", restrict=True, **{**ROLE, "threshold": 0.5})
    assert found.component.startswith("a1")
    assert all(np.isfinite([each.shift_steps, each.low, each.high]).all() for each in found.shifts)


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        ([], "expected sequences in .*got none"),
        ([{"step": 0, "tokens": [1, 2]}, {"step": 0, "tokens": [1, 2, 3]}], r"of one length.*got \[2, 3\]"),
        ([{"step": 0, "tokens": [1, 99]}], "expected tokens from 0 to 11.*got 99"),
        ([{"step": 0}], "line 1.*tokens"),
    ],
)
def test_data_that_cannot_be_read_is_named(own: Path, tmp_path: Path, lines: list, match: str) -> None:
    (tmp_path / "seen.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ValueError, match=match):
        given_data(tmp_path / "seen.jsonl", Run.open(own), vocabulary=12)
