"""Known events are told by the commands as by the functions, and weights that move in a series are a hand-off."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from circuits.loading import save_checkpoint
from tests.known_events import events_by_command, f1, simulated_events, tables_of
from tests.models import CONTEXT, INDUCTION, induction_module
from tracking.cli.cli import run
from tracking.datasets.simulated import LEVELS, count_events, found_events, simulate
from tracking.lifelines.linking import link_series


def test_the_commands_tell_what_the_function_tells(tmp_path: Path) -> None:
    level = replace(LEVELS["default"], freedom=4.0, flickering=4)
    simulated = simulate(level, 7, n_layers=4, n_heads=8, n_steps=40)
    found = simulated_events(
        events_by_command(*tables_of(simulated.series), tmp_path, "--all-events"), simulated.series
    )
    truth = found_events(link_series(simulated.series))
    counts = np.sum(list(count_events(found, truth).values()), axis=0)
    assert len(truth) > 5
    assert f1(counts) >= 0.95


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of the induction model: at step 700 its two heads of layer 1, one of which is idle, change places."""
    folder = tmp_path_factory.mktemp("moved")
    for step in range(0, 1400, 100):
        module = induction_module(sharpness=6.0 + 1e-4 * step)
        if step >= 700:
            with torch.no_grad():
                for slot in "qkv":
                    weight = module.get_parameter(f"layers.1.attn.{slot}.weight")
                    weight.copy_(weight.roll(CONTEXT, dims=0))
                weight = module.get_parameter("layers.1.attn.o.weight")
                weight.copy_(weight.roll(CONTEXT, dims=1))
        save_checkpoint(module, INDUCTION, folder / f"checkpoint-{step}")
    return folder


def test_a_head_whose_weights_move_to_another_hands_on_and_patching_says_so(run_folder: Path, tmp_path, capsys) -> None:
    history = str(tmp_path / "history")
    assert run(["record", str(run_folder), "--task", "induction", "--n-prompts", "8", "--out", history]) == 0
    capsys.readouterr()
    assert run(["track", history, "--json", "--verify-events", str(run_folder)]) == 0
    found = json.loads(capsys.readouterr().out)
    told = {(e["event"], e["components_before"], e["components_after"]) for e in found["events"]}
    assert told == {("hand-off", "a1.h1", "a1.h0")}
    assert {(e["step_before"], e["step_after"]) for e in found["events"]} == {(600, 700)}
    assert {(check["component"], check["verdict"]) for check in found["checks"]} == {("a1.h1", "own weights")}
