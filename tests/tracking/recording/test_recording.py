"""A run becomes a history; a stop, a bad checkpoint or a repeated command changes nothing of what is measured."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from circuits.checkpoint import checkpoint_hash
from tests import unlucky
from tracking.checkpoints.runs import Run
from tracking.history.history import History
from tracking.recording import model_slot, parallel
from tracking.recording.measuring import Settings, late_steps
from tracking.recording.recording import record
from tracking.recording.summary import RecordingSummary, UnitResult
from tracking.training.training import TrainingConfig, train

CONFIG = TrainingConfig(
    steps=6, checkpoints="0..6:2", d_model=16, n_heads=2, vocabulary=24, context_length=12, batch_size=4,
    longest_period=6,
)  # fmt: skip
UNITS = ("repeated-tokens", "induction")


def content(history: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((history / "records").glob("[!.]*"))}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "Lauf ä"
    train(CONFIG, folder)
    return folder


def measured(run: Path, folder: Path, **options) -> RecordingSummary:
    return record(run, folder, n_prompts=8, **options)


@pytest.fixture(scope="module")
def whole(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    measured(run, folder)
    return folder


@pytest.fixture
def broken(run: Path, tmp_path: Path) -> Callable[[Callable[[Path], None]], Path]:
    """A copy of the run in which something was done to the checkpoint of step 4."""

    def make(do: Callable[[Path], None]) -> Path:
        shutil.copytree(run, tmp_path / run.name)
        do(tmp_path / run.name / "checkpoints" / "step000004")
        return tmp_path / run.name

    return make


def test_what_heads_write_is_tested_exactly_at_the_end_of_the_series(whole: Path) -> None:
    """Four checkpoints, so the last one alone; the effects that are turned are those of patching, on these prompts."""
    history = History.open(whole)
    there = {step: record for (step, task), record in history.records.items() if task == "induction"}
    assert [step for step, record in sorted(there.items()) if "exact-rotation" in record.scores] == [6]
    tested, patched = (there[6].scores[measure] for measure in ("exact-rotation", "patching"))
    assert tested.folds.shape == (99, 4)
    assert tested.values == pytest.approx([patched[node] for node in tested.nodes], abs=1e-6)
    assert late_steps(range(0, 320, 10)) == {270, 310}


def truncate(checkpoint: Path) -> None:
    place = checkpoint / "model.safetensors"
    place.write_bytes(place.read_bytes()[:-40])


def poison(checkpoint: Path) -> None:
    from safetensors.numpy import load_file, save_file

    weights = load_file(checkpoint / "model.safetensors")
    weights["head.weight"][0, 0] = np.nan
    save_file(weights, checkpoint / "model.safetensors")


def widen(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "d_head": 4}))


def deepen(checkpoint: Path) -> None:
    other = checkpoint.parent.parent.parent / "other"
    train(TrainingConfig(steps=1, checkpoints="0", n_layers=1, d_model=16, n_heads=2, vocabulary=24), other)
    shutil.rmtree(checkpoint)
    shutil.copytree(other / "checkpoints" / "step000000", checkpoint)


def empty(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint)
    checkpoint.mkdir()


def test_everything_asked_for_is_there(whole: Path, run: Path) -> None:
    history = History.open(whole)
    assert history.steps == (0, 2, 4, 6)
    assert set(history.tasks) == {*UNITS, "training"}
    assert {"previous-token", "duplicate-token", "induction", "first-token", "self"} <= {
        measure for task, measure in history.measures if task == "repeated-tokens"
    }
    assert ("induction", "attribution") in history.measures
    wanted = {"metric_clean", "metric_corrupted", "n_edges"}
    assert {f"induction/{name}" for name in wanted} <= set(history.metrics)
    halves = {"loss_first_half", "loss_second_half", "in_context_learning_score"}
    assert {f"repeated-tokens/{name}" for name in halves} <= set(history.metrics)
    circuit = history.circuit(6, "induction")
    assert circuit.graph == history.graph
    assert np.isfinite(circuit.scores.std_error[circuit.graph.edge_mask]).all()
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    logged = history.metric("training/loss").value.values
    assert logged.tolist() == [entry["loss"] for entry in lines if entry["step"] % 2 == 0]
    assert history.tokens[4] == 4 * 48
    hashes = {step: history.records[step, "induction"].provenance["hash"] for step in history.steps}
    assert hashes == {step: checkpoint_hash(run / "checkpoints" / f"step{step:06d}") for step in history.steps}
    assert history.settings["n_prompts"] == 8
    assert "torch" in history.settings["versions"]
    assert history.hyperparameters["d_model"] == 16


def test_prompts_are_the_same_at_every_checkpoint(run: Path, whole: Path, tmp_path: Path) -> None:
    measured(run, tmp_path, steps="4")
    for name, here in content(tmp_path).items():
        assert content(whole)[name] == here


@pytest.mark.parametrize("stop", [0, 1, 3])
def test_stop_and_resume_is_no_stop(run: Path, whole: Path, tmp_path: Path, stop: int) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        if what == "recording" and done == len(UNITS) * stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measured(run, tmp_path, progress=interrupt)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("records/*")}
    summary = measured(run, tmp_path)
    assert content(tmp_path) == content(whole)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert (len(summary.skipped), len(summary.done)) == (3 * stop, 12 - 3 * stop)


def test_a_second_call_does_nothing(run: Path, whole: Path) -> None:
    summary = measured(run, whole)
    assert (summary.done, summary.failed, summary.changed) == ((), (), ())
    assert len(summary.skipped) == 12


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (truncate, "cannot be read"),
        (poison, "NaN or infinity"),
        (widen, "shape"),
        (deepen, "its layers or heads are not those"),
        (empty, "no weights in"),
    ],
)
def test_a_bad_checkpoint_costs_itself_alone(run: Path, whole: Path, broken, tmp_path: Path, harm, words: str) -> None:
    damaged = broken(harm)
    summary = measured(damaged, tmp_path / "h", force=True)
    assert [(step, task) for step, task, _ in summary.failed] == [(4, unit) for unit in UNITS]
    assert words in summary.failed[0][2]
    failures = History.open(tmp_path / "h").failures
    assert {failure.reason for failure in failures} == {reason for _, _, reason in summary.failed}
    before, after = content(whole), content(tmp_path / "h")
    assert {name for name in before if before[name] != after[name]} == {
        f"000000004.{unit}.safetensors" for unit in UNITS
    }
    again = measured(damaged, tmp_path / "h", force=True)
    assert again.failed == summary.failed
    shutil.rmtree(damaged / "checkpoints" / "step000004")
    shutil.copytree(run / "checkpoints" / "step000004", damaged / "checkpoints" / "step000004")
    repaired = measured(damaged, tmp_path / "h")
    assert repaired.done == tuple((4, unit) for unit in UNITS)
    assert content(tmp_path / "h") == before


def test_the_first_checkpoint_may_be_the_bad_one(run: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / run.name)
    truncate(tmp_path / run.name / "checkpoints" / "step000000")
    summary = measured(tmp_path / run.name, tmp_path / "h")
    assert {step for step, _, _ in summary.failed} == {0}
    assert {step for step, _ in summary.done} == {0, 2, 4, 6}  # of step 0 the training's own log


def test_nothing_readable_is_an_error(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / run.name)
    for checkpoint in (tmp_path / run.name / "checkpoints").iterdir():
        truncate(checkpoint)
    with pytest.raises(ValueError, match=r"none of the 4 checkpoints .* can be read: .*cannot be read"):
        measured(tmp_path / run.name, tmp_path / "h")
    assert not (tmp_path / "h").exists()


def exchange(checkpoint: Path) -> None:
    shutil.copy(checkpoint.parent / "step000006" / "model.safetensors", checkpoint / "model.safetensors")


@pytest.mark.parametrize(
    ("harm", "words"),
    [(exchange, "2 steps hold the same weights: 4, 6"), (widen, r"configuration at step 4 .*d_head: 4 in place of 8")],
)
def test_a_series_that_is_not_what_it_claims_is_refused(broken, tmp_path: Path, harm, words: str) -> None:
    with pytest.raises(ValueError, match=f"not what it claims to be: .*{words}.*--force"):
        measured(broken(harm), tmp_path / "h")
    assert not (tmp_path / "h").exists()


def test_weights_that_changed_since_are_said(run: Path, broken, tmp_path: Path) -> None:
    measured(run, tmp_path / "h")
    summary = measured(broken(exchange), tmp_path / "h", force=True)
    assert summary.changed == tuple((4, unit) for unit in UNITS)


def test_what_describes_the_history_is_made_anew_from_its_records(run: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "h")
    (tmp_path / "h" / "history.json").unlink()
    summary = measured(run, tmp_path / "h")
    assert (summary.done, len(summary.skipped)) == ((), 12)
    assert content(tmp_path / "h") == content(whole)
    assert (tmp_path / "h" / "history.json").read_bytes() == (whole / "history.json").read_bytes()


def test_other_settings_are_refused(run: Path, whole: Path) -> None:
    before = content(whole)
    with pytest.raises(ValueError, match=r"settings n_prompts 8, and this one has 16; choose another folder"):
        record(run, whole, n_prompts=16)
    with pytest.raises(ValueError, match=r"settings target 0\.85, and this one has 0\.5"):
        measured(run, whole, target=0.5)
    assert content(whole) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tasks": ("inductoin",)}, "no task 'inductoin'; did you mean induction"),
        ({"tasks": ()}, "one or more different tasks, got none"),
        ({"tasks": ("training",)}, "one or more different tasks"),
        ({"target": 1.5}, "target faithfulness"),
        ({"steps": "3"}, "no checkpoint at step 3 of .*; the nearest are 2 and 4"),
        ({"method": "magic"}, "magic"),
        ({"device": "gpu"}, "expected cpu, cuda, cuda:1, mps or auto, got the device 'gpu'"),
        ({"device": "cuda:99"}, "there is no device 'cuda:99' on this machine"),
        ({"dtype": "float12"}, "expected a dtype among float32"),
    ],
)
def test_a_wrong_request_writes_nothing(run: Path, tmp_path: Path, options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        measured(run, tmp_path / "h", **options)
    assert not (tmp_path / "h").exists()


def test_a_vocabulary_too_small_for_the_task_is_one_sentence(tmp_path: Path) -> None:
    small = TrainingConfig(steps=1, checkpoints="all", d_model=8, n_heads=2, vocabulary=2, context_length=12)
    train(small, tmp_path / "run")
    with pytest.raises(ValueError, match="vocabulary"):
        measured(tmp_path / "run", tmp_path / "h")


def test_a_full_disk_is_not_a_bad_checkpoint(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **about: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tracking.recording.checkpoint_loop.write_record", full)
    with pytest.raises(OSError, match="No space left"):
        measured(run, tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A disk of the size asked for; asked again, it is that disk made larger."""
    place = tmp_path / "disk"
    place.mkdir()

    def sized(size: str) -> Path:
        how = f"remount,size={size}" if place.is_mount() else f"size={size}"
        command = ["mount", "-t", "tmpfs", "-o", how, "tmpfs", str(place)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting is not permitted here")
        return place

    yield sized
    if place.is_mount():
        subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_really_full(run: Path, whole: Path, small_disk: Callable[[str], Path]) -> None:
    history = small_disk("48k") / "h"
    with pytest.raises(OSError, match="No space left"):
        measured(run, history)
    kept = content(history)
    assert 0 < len(kept) < 12
    small_disk("2m")
    measured(run, history)
    assert content(history) == content(whole)
    assert kept.items() <= content(whole).items()


def test_shards_make_the_whole(run: Path, whole: Path, tmp_path: Path) -> None:
    for shard in ("2/3", "1/3", "3/3"):
        measured(run, tmp_path, shard=shard)
    assert content(tmp_path) == content(whole)
    assert measured(run, tmp_path / "none", shard="9/9").done == ()
    for wrong in ("0/3", "4/3", "1", "a/b"):
        with pytest.raises(ValueError, match="expected a shard such as 1/4"):
            measured(run, tmp_path, shard=wrong)


def test_events_and_the_log_say_what_was_done(run: Path, tmp_path: Path) -> None:
    events = []
    measured(run, tmp_path, events=events.append)
    assert [(event["step"], event["number"], event["total"]) for event in events] == [
        (0, 1, 4), (2, 2, 4), (4, 3, 4), (6, 4, 4)
    ]  # fmt: skip
    assert events[-1]["seconds_left"] == 0
    lines = [json.loads(line) for line in (tmp_path / "recording.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 2, 4, 6]
    assert set(lines[0]["done"]) == {*UNITS, "training"}


def test_no_workers_no_work(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one worker"):
        measured(run, tmp_path, workers=0)


@pytest.mark.slow
def test_workers_make_the_same_history_though_one_is_killed(
    run: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "came").mkdir()
    monkeypatch.setattr(parallel, "work", unlucky.killed_once)
    events = []
    summary = measured(run, tmp_path / "h", workers=2, events=events.append)
    assert (tmp_path / "killed").exists()
    assert len(list((tmp_path / "came").iterdir())) == 3
    assert content(tmp_path / "h") == content(whole)
    assert (len(summary.done), summary.failed) == (12, ())
    assert sorted(event["step"] for event in events) == [0, 2, 4, 6]


def test_a_worker_reads_a_checkpoint_once_unless_it_changed(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, load = [], model_slot.load_checkpoint
    monkeypatch.setattr(
        model_slot, "load_checkpoint", lambda source, **options: read.append(source) or load(source, **options)
    )
    shutil.copytree(run, tmp_path / run.name)
    opened, how = Run.open(tmp_path / run.name), Settings(n_prompts=8)

    def do(step: int, *units: str) -> dict[tuple[int, str], UnitResult]:
        item = parallel.WorkItem(
            opened.select(str(step)), tmp_path / "h", units, how, (("threads", 1),), False, frozenset()
        )
        return {(result.step, result.unit): result for result in parallel.work(item)}

    for step in (0, 2):
        for unit in UNITS:
            assert do(step, unit)[step, unit].state == "done"
    assert [Path(source).name for source in read] == ["step000000", "step000002"]
    poison(tmp_path / run.name / "checkpoints" / "step000002")
    (tmp_path / "h" / "records" / "000000002.induction.safetensors").unlink()
    assert "NaN" in do(2, *UNITS)[2, UNITS[1]].reason
    assert len(read) == 3


@pytest.mark.slow
def test_a_checkpoint_that_kills_every_worker_costs_itself_alone(
    run: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "work", unlucky.killed_by_step_4)
    summary = measured(run, tmp_path / "h", workers=2)
    assert {(step, unit): reason for step, unit, reason in summary.failed} == dict.fromkeys(
        [(4, unit) for unit in UNITS], "its process was ended by signal 9"
    )
    assert [record.step for record in History.open(tmp_path / "h").failures] == [4, 4]
    repaired = measured(run, tmp_path / "h")
    assert {step for step, _ in repaired.done} == {4}
    assert content(tmp_path / "h") == content(whole)


def recorder(run: Path, folder: Path) -> subprocess.Popen:
    code = f"from tracking.recording.recording import record; record({str(run)!r}, {str(folder)!r}, n_prompts=8)"
    return subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[3])


@pytest.mark.slow
def test_two_recorders_on_one_history_and_a_killed_one(run: Path, whole: Path, tmp_path: Path) -> None:
    killed = recorder(run, tmp_path)
    while killed.poll() is None and not any((tmp_path / "records").glob("*.repeated-tokens.*")):
        time.sleep(0.005)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    both = [recorder(run, tmp_path) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert content(tmp_path) == content(whole)


def randomise(checkpoint: Path) -> None:
    from safetensors.numpy import load_file, save_file

    rng = np.random.default_rng(1)
    weights = load_file(checkpoint / "model.safetensors")
    drawn = {name: rng.normal(size=w.shape).astype(w.dtype) * w.std() for name, w in weights.items()}
    save_file(drawn, checkpoint / "model.safetensors")


def zero(checkpoint: Path) -> None:
    from safetensors.numpy import load_file, save_file

    weights = load_file(checkpoint / "model.safetensors")
    save_file({name: 0 * weight for name, weight in weights.items()}, checkpoint / "model.safetensors")


@pytest.mark.parametrize(
    ("do", "kind", "steps"),
    [
        (lambda run: randomise(run / "checkpoints" / "step000004"), "stranger", {4}),
        (lambda run: zero(run / "checkpoints" / "step000004"), "empty", {4}),
        (lambda run: randomise(run / "checkpoints" / "step000000"), "jump", {0, 2}),
    ],
)
def test_recording_names_what_does_not_belong(
    run: Path, tmp_path: Path, do: Callable[[Path], None], kind: str, steps: set[int]
) -> None:
    shutil.copytree(run, tmp_path / "run")
    do(tmp_path / "run")
    summary = measured(tmp_path / "run", tmp_path / "history")
    assert [(fault.kind, set(fault.steps)) for fault in summary.faults] == [(kind, steps)]
    assert History.open(tmp_path / "history").faults == summary.faults


def test_recording_vouches_for_a_sound_series(run: Path, whole: Path) -> None:
    assert History.open(whole).faults == ()
