"""What training programs leave beside checkpoints is found, written by the programs themselves, and runs nothing."""

import json
import os
import pickle
import resource
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from tracking.checkpoints.beside import curves_beside, hyperparameters_beside
from tracking.checkpoints.runs import Run


def test_the_trainer_of_transformers(tmp_path: Path) -> None:
    from transformers import TrainingArguments

    options: dict[str, Any] = {"learning_rate": 3e-4, "weight_decay": 0.1, "lr_scheduler_type": "cosine", "seed": 7}
    place = tmp_path / "out" / "checkpoint-20"
    place.mkdir(parents=True)
    (place / "model.safetensors").write_bytes(b"")
    torch.save(TrainingArguments(str(tmp_path), use_cpu=True, **options), place / "training_args.bin")
    log = [{"step": 10, "loss": 3.0}, {"step": 20, "loss": 2.0}, {"step": 20, "eval_loss": 2.1}]
    (place / "trainer_state.json").write_text(json.dumps({"log_history": log, "max_steps": 20, "global_step": 20}))
    found = hyperparameters_beside(tmp_path / "out")
    assert {name: found[name] for name in options} == options
    assert found["max_steps"] in (-1, 20)
    assert not {"output_dir", "logging_steps", "save_steps"} & set(found)
    assert curves_beside(tmp_path / "out") == [{"step": 10, "loss": 3.0}, {"step": 20, "loss": 2.0, "eval_loss": 2.1}]
    run = Run.open(tmp_path / "out")
    assert run.hyperparameters["learning_rate"] == 3e-4
    assert [entry.get("eval_loss") for entry in run.log] == [None, 2.1]


class Trap:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.place),)


def test_a_pickle_of_arguments_runs_nothing(tmp_path: Path) -> None:
    for number, content in enumerate((Trap(tmp_path / "run"), {"learning_rate": 1.0, "x": Trap(tmp_path / "run")})):
        place = tmp_path / str(number)
        place.mkdir()
        (place / "training_args.bin").write_bytes(pickle.dumps(content))
        assert hyperparameters_beside(place) == ({"learning_rate": 1.0} if number else {})
        torch.save(content, place / "training_args.bin")
        assert hyperparameters_beside(place).get("learning_rate") == (1.0 if number else None)
    assert not (tmp_path / "run").exists()


def test_lightning(tmp_path: Path) -> None:
    light = pytest.importorskip("lightning")
    place = tmp_path / "lightning_logs" / "version_0"
    place.mkdir(parents=True)
    from lightning.pytorch.core.saving import save_hparams_to_yaml

    save_hparams_to_yaml(str(place / "hparams.yaml"), {"lr": 0.01, "model": {"depth": 2}, "path": Path("x")})
    found = hyperparameters_beside(tmp_path)
    assert (found["lr"], found["model.depth"]) == (0.01, 2)
    assert light


def test_weights_and_biases_and_nanogpt(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("wandb_version: 1\nlearning_rate:\n  desc: null\n  value: 0.002\n")
    (tmp_path / "train_gpt2.py").write_text(
        "import os\nbatch_size = 12\nblock_size = 1024\ntokens = batch_size * block_size\nout_dir = 'out'\n"
        "beta2 = 0.99\nlearning_rate = 9\nname = os.getcwd()\nexec('raise SystemExit')\n"
    )
    assert hyperparameters_beside(tmp_path) == {
        "learning_rate": 0.002, "batch_size": 12, "block_size": 1024, "tokens": 12288, "beta2": 0.99
    }  # fmt: skip


def test_what_is_damaged_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{[")
    (tmp_path / "hparams.yaml").write_text("- 1\n- 2\n")
    (tmp_path / "train_a.py").write_text("this is no Python")
    (tmp_path / "training_args.bin").write_bytes(b"\x80\x04nothing")
    (tmp_path / "trainer_state.json").write_text("{")
    assert hyperparameters_beside(tmp_path) == {}
    assert curves_beside(tmp_path) == []


def test_a_pickle_takes_no_memory_for_what_it_says_of_itself(tmp_path: Path) -> None:
    places = b"r\xff\xff\xff\x7f"  # the memo's place two billion
    (tmp_path / "training_args.bin").write_bytes(
        b"\x80\x02}" + places + b"X\x0d\x00\x00\x00learning_rate" + b"G" + struct.pack(">d", 0.1) + b"s."
    )
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (held + 10**9, hard))
    try:
        assert hyperparameters_beside(tmp_path) == {"learning_rate": 0.1}
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
