"""A merged checkpoint names its parents, in its history and in words."""

import shutil
from pathlib import Path

import pytest

from tests.tracking.recording.test_recording import CONFIG
from tracking.checkpoints.merges import parents_of
from tracking.history.history import History
from tracking.recording.recording import record
from tracking.results.timeline import build_timeline
from tracking.training.training import train

LINEAR = """
models:
  - model: runs/ingredient1
    parameters: {weight: 0.5}
  - model: runs/ingredient2
    parameters: {weight: 0.5}
merge_method: linear
dtype: float32
"""
SLICES = """
slices:
  - sources:
      - {model: a/base, layer_range: [0, 2]}
      - {model: b/other, layer_range: [0, 2]}
merge_method: slerp
base_model: a/base
"""


@pytest.mark.parametrize(
    ("recipe", "parents"), [(LINEAR, ("runs/ingredient1", "runs/ingredient2")), (SLICES, ("a/base", "b/other"))]
)
def test_a_recipe_names_the_parents(tmp_path: Path, recipe: str, parents: tuple[str, ...]) -> None:
    assert parents_of(tmp_path) == ()
    (tmp_path / "mergekit_config.yml").write_text(recipe)
    assert parents_of(tmp_path) == parents


def test_a_damaged_recipe_is_said(tmp_path: Path) -> None:
    (tmp_path / "mergekit_config.yml").write_text("models: [")
    with pytest.raises(ValueError, match="is no recipe of mergekit"):
        parents_of(tmp_path)


def test_a_history_names_them_too(tmp_path: Path) -> None:
    run = train(CONFIG, tmp_path / "run")
    soup = Path(run[6].source)
    (soup / "mergekit_config.yml").write_text(LINEAR)
    shutil.rmtree(run[2].source)
    record(tmp_path / "run", tmp_path / "history", n_prompts=8)
    history = History.open(tmp_path / "history")
    assert history.merges == {6: ("runs/ingredient1", "runs/ingredient2")}
    sentences = build_timeline(history, thresholds={"induction": 0.0}).runs[0].sentences
    assert "Step 6 is no step of training: it is made of runs/ingredient1 and runs/ingredient2." in sentences
