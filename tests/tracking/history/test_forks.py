"""Runs that are one up to a step: measured once up to there, and every component itself after it."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tracking.checkpoints.names import Fork
from tracking.checkpoints.runs import Run
from tracking.comparison.comparison import compare
from tracking.history.forks import going_on, parent_and_step, parted_at
from tracking.history.history import History
from tracking.history.records import Record
from tracking.lifelines.alignment import align_runs
from tracking.matching.matching import match
from tracking.recording.recording import record, share_records
from tracking.results.exports import export_timeline
from tracking.results.timeline import build_timeline, load_timeline
from tracking.training.training import TrainingConfig, train

CONFIG = TrainingConfig(
    name="base", steps=6, checkpoints="0..6:2", d_model=16, n_heads=2, vocabulary=24, context_length=12, batch_size=4,
    longest_period=6,
)  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    train(CONFIG, folder)
    return folder


def tuned(base: Path, folder: Path, *, at: int, seed: int, steps: tuple[int, ...] = (0, 1, 2)) -> Path:
    """A folder of checkpoints that go on from one of the base's, as fine-tuning would write it."""
    rng = np.random.default_rng(seed)
    for step in steps:
        place = folder / f"checkpoint-{step}"
        shutil.copytree(base / "checkpoints" / f"step{at:06d}", place)
        weights = load_file(place / "model.safetensors")
        moved = {n: w + np.float32(0.01 * step) * rng.normal(size=w.shape).astype(w.dtype) for n, w in weights.items()}
        save_file(moved, place / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def tree(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The base's history, and those of two runs that go on from its step 4."""
    home = tmp_path_factory.mktemp("tree")
    found = {"base": home / "base"}
    record(base, found["base"], n_prompts=8)
    for seed, name in enumerate(("sft", "dpo")):
        found[name] = home / name
        record(tuned(base, home / f"run-{name}" / name, at=4, seed=seed), found[name], n_prompts=8,
               parent=f"{found['base']}@4")  # fmt: skip
    return found


def test_a_child_goes_on_where_its_parent_ended(tree: dict[str, Path]) -> None:
    history = History.open(tree["sft"])
    assert history.parent == Fork("base", 4)
    assert history.steps == (0, 2, 4, 5, 6)
    assert [(s.name, s.first_step, s.last_step, s.begins) for s in history.stages] == [
        ("pretraining", 0, 4, 0),
        ("sft", 5, 6, 4),
    ]
    assert history.hyperparameters["d_model"] == 16
    scores = history.to_frame("scores")
    assert set(scores["stage"]) == {"pretraining", "sft"}


def test_common_history_is_measured_and_stored_once(base: Path, tree: dict[str, Path]) -> None:
    for place in sorted((tree["base"] / "records").glob("00000000[024].*")):
        assert (tree["sft"] / "records" / place.name).stat().st_ino == place.stat().st_ino
    assert not list((tree["sft"] / "records").glob("000000006.training*"))


def test_histories_know_where_they_part(tree: dict[str, Path]) -> None:
    base, sft, dpo = (History.open(tree[name]) for name in ("base", "sft", "dpo"))
    assert parted_at(base, sft) == 4
    assert parted_at(sft, dpo) == 4
    assert parted_at(sft, sft) == 6
    other = replace(base, records={key: r for key, r in base.records.items() if key[0] == 0})
    assert parted_at(other, replace(sft, parent=None)) is None  # one initialisation is no common history


def test_without_hashes_the_parents_tell(tree: dict[str, Path]) -> None:
    def nameless(history: History) -> History:
        records = {key: Record(*key) for key in history.records}
        return replace(history, records=records)

    base, sft, dpo = (nameless(History.open(tree[name])) for name in ("base", "sft", "dpo"))
    assert (parted_at(base, sft), parted_at(sft, dpo)) == (4, 4)
    assert parted_at(base, replace(dpo, parent=None)) is None


def test_after_a_fork_every_component_is_itself(tree: dict[str, Path]) -> None:
    sft, dpo = History.open(tree["sft"]), History.open(tree["dpo"])
    matching = match(sft, dpo)
    assert [(pair.before, pair.confidence) for pair in matching.pairs] == [(p.after, 1.0) for p in matching.pairs]
    assert len(matching.pairs) == len(sft.graph.components)
    remarks = align_runs([sft, dpo], thresholds={"induction": 0.0}).remarks
    assert "one run up to step 4, so that each component is itself in both" in remarks[0]


def test_a_comparison_says_what_is_one_observation(tree: dict[str, Path]) -> None:
    histories = [History.open(tree[name]) for name in ("base", "sft", "dpo")]
    rates = [replace(h, hyperparameters={"rate": i}) for i, h in enumerate(histories)]
    found = compare(rates, by="rate")
    assert "'base' and 'sft' are one run up to step 4, and 2 more pairs are" in found.sentences[-1]


def test_a_timeline_keeps_the_parent(tree: dict[str, Path], tmp_path: Path) -> None:
    timeline = build_timeline(History.open(tree["sft"]), thresholds={"induction": 0.0})
    export_timeline(timeline, tmp_path, formats=("json",))
    assert load_timeline(tmp_path).runs[0].history.parent == Fork("base", 4)


def test_ingredients_have_their_trunk_as_parent(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "soup"
    for step in (2, 4):
        shutil.copytree(base / "checkpoints" / f"step{step:06d}", folder / f"stage1-step{step}")
    for name in ("ingredient1", "ingredient2"):
        shutil.copytree(base / "checkpoints" / "step000006", folder / f"stage2-{name}-step1")
    runs = Run.open_variants(folder)
    assert [(run.name, run.steps, run.parent) for run in runs] == [
        (f"soup {name}", (2, 4, 5), Fork("soup", 4)) for name in ("ingredient1", "ingredient2")
    ]
    pairs = [(run, tmp_path / str(run.variant)) for run in runs]
    summaries = [record(run, place, n_prompts=8) for run, place in share_records(pairs)]
    assert [len(summary.skipped) for summary in summaries] == [0, 4]


def test_what_cannot_go_on_is_said(base: Path, tree: dict[str, Path], tmp_path: Path) -> None:
    trunk, run = History.open(tree["base"]), Run.open(tuned(base, tmp_path / "x", at=4, seed=0))
    with pytest.raises(ValueError, match="no snapshot at step 3 of history 'base'; the nearest are 2 and 4"):
        going_on(run, trunk, 3)
    with pytest.raises(ValueError, match="has no checkpoint after step 0, which is its parent's step 4"):
        going_on(run.select("0"), trunk, 4)
    with pytest.raises(ValueError, match="expected a parent such as base-history@143000"):
        parent_and_step("base-history")
    with pytest.raises(ValueError, match="was recorded with n_prompts 8, and this run is to be with 4"):
        record(run, tmp_path / "h", n_prompts=4, parent=f"{tree['base']}@4")


def test_all_variants_by_one_command(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from tracking.cli.cli import run as formation

    shutil.copytree(base / "checkpoints" / "step000002", tmp_path / "soup" / "stage1-step2")
    for name in ("ingredient1", "ingredient2"):
        shutil.copytree(base / "checkpoints" / "step000004", tmp_path / "soup" / f"stage2-{name}-step1")
    asked = ["record", str(tmp_path / "soup"), "--out", str(tmp_path / "out"), "--n-prompts", "4", "--method", "eap"]
    assert formation([*asked, "--variant", "ingredient3"]) == 2
    assert "no variant 'ingredient3'; it has ingredient1, ingredient2" in capsys.readouterr().err
    assert formation([*asked, "--variant", "all", "--hyperparameter", "mixture=1"]) == 0
    histories = [History.open(tmp_path / "out" / "histories" / name) for name in ("ingredient1", "ingredient2")]
    assert [history.steps for history in histories] == [(2, 3), (2, 3)]
    assert all(history.hyperparameters["mixture"] == 1 for history in histories)
    assert parted_at(*histories) == 3  # the two ingredients of this test have equal weights
