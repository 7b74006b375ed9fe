"""A run is found wherever its checkpoints lie, and a selection of steps means what it says."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracking.checkpoints.runs import Run, parse_step, parse_tokens, select_steps


def plant(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "model.safetensors").write_bytes(b"")


@pytest.mark.parametrize(
    ("name", "step", "tokens"),
    [
        ("checkpoint-500", 500, None),
        ("step1000", 1000, None),
        ("step1000-tokens4B", 1000, 4e9),
        ("stage1-step150-tokens630M", 150, 630e6),
        ("stage2-ingredient1-step1000-tokens3B", 1000, 3e9),
        ("global_step20", 20, None),
        ("step000123", 123, None),
        ("epoch=3-step=900.ckpt", 900, None),
        ("iter_0000700", 700, None),
        ("model_step_12.pt", 12, None),
        ("42", 42, None),
        ("ckpt.pt", None, None),
        ("pytorch_model-00001-of-00002.bin", None, None),
    ],
)
def test_names_tell_steps(name: str, step: int | None, tokens: float | None) -> None:
    assert parse_step(name) == step
    assert parse_tokens(name) == tokens


def test_a_run_with_everything(tmp_path: Path) -> None:
    plant(tmp_path / "checkpoints", "step000000", "step000020", "step000003", ".step000021.part")
    about = {"name": "small", "hyperparameters": {"lr": 0.003}, "tokens_per_step": 64, "model": {"n_layers": 2}}
    (tmp_path / "run.json").write_text(json.dumps(about))
    (tmp_path / "log.jsonl").write_text('{"step": 0, "loss": 4.0}\n{"step": 1, "loss": 3.9}\n{"step": 2, "lo')
    run = Run.open(tmp_path)
    assert (run.name, run.steps, run.tokens_per_step) == ("small", (0, 3, 20), 64)
    assert [checkpoint.tokens for checkpoint in run.checkpoints] == [0.0, 192.0, 1280.0]
    assert (run.hyperparameters, run.model) == ({"lr": 0.003}, {"n_layers": 2})
    assert [entry["loss"] for entry in run.log] == [4.0, 3.9]
    assert run[20].source == str(tmp_path / "checkpoints" / "step000020")


def test_a_plain_folder_is_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "Läufe mit Leerzeichen"
    plant(folder, "checkpoint-1000", "checkpoint-500")
    (folder / "logs2024").mkdir()
    (folder / "README.md").write_text("notes")
    state = {"log_history": [{"step": 500, "loss": 3.0}, {"step": 1000, "loss": 2.0}]}
    (folder / "checkpoint-1000" / "trainer_state.json").write_text(json.dumps(state))
    run = Run.open(folder)
    assert (run.name, run.steps) == ("Läufe mit Leerzeichen", (500, 1000))
    assert [entry["loss"] for entry in run.log] == [3.0, 2.0]


def test_files_are_checkpoints_too(tmp_path: Path) -> None:
    for name in ("epoch=0-step=10.ckpt", "epoch=1-step=20.ckpt", "notes-30.txt"):
        (tmp_path / name).write_bytes(b"")
    assert Run.open(tmp_path).steps == (10, 20)


def test_one_checkpoint_is_a_run(tmp_path: Path) -> None:
    plant(tmp_path, "checkpoint-500", "final")
    assert [(c.step, c.source) for c in Run.open(tmp_path / "checkpoint-500").checkpoints] == [
        (500, str(tmp_path / "checkpoint-500"))
    ]
    assert Run.open(tmp_path / "final").steps == (0,)


def test_a_trainer_folder_with_the_last_model_beside_its_checkpoints(tmp_path: Path) -> None:
    plant(tmp_path / "out", "checkpoint-10", "checkpoint-20")
    (tmp_path / "out" / "model.safetensors").write_bytes(b"")
    assert Run.open(tmp_path / "out").steps == (10, 20)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        Run.open(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no checkpoints in .*expected folders or files.*it is empty"):
        Run.open(tmp_path)
    plant(tmp_path, "step300", "step400")
    with pytest.raises(ValueError, match=r"no checkpoint at step 350; the nearest are 300 and 400"):
        Run.open(tmp_path, steps="350")
    with pytest.raises(ValueError, match="no checkpoint at step 1"):
        Run.open(tmp_path)[1]
    (tmp_path / "run.json").write_text("[")
    with pytest.raises(ValueError, match=r"run\.json is damaged"):
        Run.open(tmp_path)


def test_two_checkpoints_of_one_step_are_not_guessed_between(tmp_path: Path) -> None:
    plant(tmp_path, "step300", "checkpoint-300")
    with pytest.raises(ValueError, match=r"two checkpoints .* have step 300: checkpoint-300 and step300"):
        Run.open(tmp_path)


@pytest.mark.parametrize(
    ("wanted", "steps"),
    [
        ("all", tuple(range(0, 1001, 50))),
        ("0,100,1000", (0, 100, 1000)),
        ("first:3", (0, 50, 100)),
        ("last:2", (950, 1000)),
        ("100..250", (100, 150, 200, 250)),
        ("..100", (0, 50, 100)),
        ("900..", (900, 950, 1000)),
        ("0..1000:500", (0, 500, 1000)),
        ("linear:3", (0, 500, 1000)),
        ("linear:1", (1000,)),
        ("log:99", tuple(range(0, 1001, 50))),
    ],
)
def test_a_selection(wanted: str, steps: tuple[int, ...]) -> None:
    assert select_steps(range(0, 1001, 50), wanted) == steps


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("some", "cannot read the steps 'some'"),
        ("", "cannot read"),
        ("-5", "cannot read"),
        ("7..9", "no checkpoint has a step in 7..9"),
        ("log:0", "at least one step"),
    ],
)
def test_a_selection_that_cannot_be_met(wanted: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        select_steps(range(0, 1001, 50), wanted)


@given(st.sets(st.integers(0, 10**6), min_size=1), st.integers(2, 40), st.sampled_from(["log", "linear"]))
def test_a_spread_has_its_count_and_both_ends(steps: set[int], count: int, how: str) -> None:
    chosen = select_steps(steps, f"{how}:{count}")
    assert len(chosen) == min(count, len(steps))
    assert set(chosen) <= steps
    assert chosen[-1] == max(steps)
    assert chosen[0] == min(steps)


def test_steps_and_tokens_can_be_corrected(tmp_path: Path) -> None:
    plant(tmp_path, "checkpoint_1", "checkpoint_2", "stage2-checkpoint_2")
    with pytest.raises(ValueError, match=r"have step 2.*step_pattern"):
        Run.open(tmp_path)
    run = Run.open(tmp_path, step_pattern=r"^checkpoint_(\d+)", steps_per_checkpoint=500, tokens_per_step=10.0)
    assert [(checkpoint.step, checkpoint.tokens) for checkpoint in run.checkpoints] == [(500, 5e3), (1000, 1e4)]
    with pytest.raises(ValueError, match="cannot read the step_pattern"):
        Run.open(tmp_path, step_pattern="(")
    with pytest.raises(ValueError, match="with one group"):
        Run.open(tmp_path, step_pattern="step")
