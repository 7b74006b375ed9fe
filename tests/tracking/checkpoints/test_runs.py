"""A run is found wherever its checkpoints lie, and a selection of steps means what it says."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracking.checkpoints.runs import Run, select_steps


def plant(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "model.safetensors").write_bytes(b"")


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
    with pytest.raises(ValueError, match=r"no checkpoint at step 350 of .*; the nearest are 300 and 400"):
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
    plant(tmp_path, "checkpoint_1", "checkpoint_2", "other-checkpoint_2")
    with pytest.raises(ValueError, match=r"have step 2.*step_pattern"):
        Run.open(tmp_path)
    run = Run.open(tmp_path, step_pattern=r"^checkpoint_(\d+)", steps_per_checkpoint=500, tokens_per_step=10.0)
    assert [(checkpoint.step, checkpoint.tokens) for checkpoint in run.checkpoints] == [(500, 5e3), (1000, 1e4)]
    with pytest.raises(ValueError, match="cannot read the step_pattern"):
        Run.open(tmp_path, step_pattern="(")
    with pytest.raises(ValueError, match="with one group"):
        Run.open(tmp_path, step_pattern="step")


def test_stages_are_one_run_in_order(tmp_path: Path) -> None:
    plant(tmp_path, "stage1-step100-tokens1B", "stage1-step200-tokens2B", "stage2-step100-tokens1B")
    run = Run.open(tmp_path)
    assert [(c.step, c.tokens, c.stage) for c in run.checkpoints] == [
        (100, 1e9, "stage1"), (200, 2e9, "stage1"), (300, 3e9, "stage2")
    ]  # fmt: skip
    assert run.select("last:1").stages == run.stages
    alone = Run.open(tmp_path, stage="stage2")
    assert (alone.steps, alone.stages) == ((100,), ())
    with pytest.raises(ValueError, match="no stage 'stage3'; it has stage1, stage2"):
        Run.open(tmp_path, stage="stage3")


def test_variants_are_several_runs(tmp_path: Path) -> None:
    plant(tmp_path, "stage1-step100", "stage2-ingredient1-step50", "stage2-ingredient2-step50")
    with pytest.raises(ValueError, match=r"holds 2 runs, ingredient1, ingredient2; .*--variant ingredient1"):
        Run.open(tmp_path)
    with pytest.raises(ValueError, match="no variant 'ingredient3'; it has ingredient1, ingredient2"):
        Run.open(tmp_path, variant="ingredient3")
    one = Run.open(tmp_path, variant="ingredient2")
    assert [c.name for c in one.checkpoints] == ["stage1-step100", "stage2-ingredient2-step50"]
    both = Run.open_variants(tmp_path)
    assert [run.name for run in both] == [f"{tmp_path.name} ingredient1", f"{tmp_path.name} ingredient2"]
    assert both[0].checkpoints[0] == both[1].checkpoints[0]


def test_what_steps_count_is_known(tmp_path: Path) -> None:
    plant(tmp_path, "chck_1M", "chck_10M")
    assert (Run.open(tmp_path).steps, Run.open(tmp_path).step_unit) == ((10**6, 10**7), "words")
