"""A branch differs from its parent by its interventions alone, from the step at which they begin."""

import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from circuits.checkpoint import checkpoint_hash, read_weights
from circuits.heads import KINDS, scores_and_losses
from circuits.loading import load_model, open_module, save_checkpoint
from tests.tracking.forecasting.test_early_warning import warned
from tracking.checkpoints.runs import Run
from tracking.experiments.branching import branch
from tracking.forecasting.early_warning import learn_precursor
from tracking.interventions.actions import ACTIONS, ADJUSTABLE, ORDERS
from tracking.interventions.activations import PATTERNS
from tracking.interventions.applying import LOG, standing_at, stepping_in
from tracking.interventions.conditions import MEASURES, Condition
from tracking.interventions.interventions import Intervention
from tracking.interventions.weights import own_weights
from tracking.recording.recording import record
from tracking.training.data_order import ordered_batch
from tracking.training.sequences import Repeats, batch
from tracking.training.training import STATE, TrainingConfig, load_state, train

CONFIG = TrainingConfig(
    steps=16, checkpoints="0..16:4", d_model=16, n_heads=2, vocabulary=16, context_length=12, batch_size=4,
    longest_period=6, warmup_steps=3, clip_norm=1.0, schedule="cosine",
)  # fmt: skip


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "parent"
    train(CONFIG, folder)
    return folder


def hashes(run: Run | Path | str) -> dict[int, str]:
    run = run if isinstance(run, Run) else Run.open(run)
    return {checkpoint.step: checkpoint_hash(checkpoint.source) for checkpoint in run.checkpoints}


def entries(run: Run) -> list[dict]:
    return [json.loads(line) for line in (Path(run.source) / LOG).read_text().splitlines()]


def content(run: Path) -> dict[str, bytes]:
    files = {str(path.relative_to(run)): path for path in sorted(run.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items()}


def test_a_branch_without_intervention_is_its_parent(parent: Path, tmp_path: Path) -> None:
    made = branch(parent, at=8, out=tmp_path / "same")
    assert hashes(made.run) == hashes(made.control) == hashes(parent)
    assert (made.compared, made.different, made.exact) == ((12, 16), (), True)
    assert made.run.log == Run.open(parent).log
    assert "bit for bit parent at all 2 checkpoints after it, to step 16" in made.sentences[-1]


@pytest.mark.parametrize(
    "text",
    [
        "ablate a0.h1", "ablate a1 mean", "clamp a0.h1 to previous-token", "clamp a1.h0 to PARENT@16:a1.h1",
        "freeze a1.h1", "mask-gradient a0.h0", "graft a0.h0 with PARENT@16:a0.h1", "reinitialise a1.h0",
        "set repeat_probability=0", "set burstiness=0.5", "set zipf_exponent=1", "set corrupted_fraction=0.5",
        "set learning_rate=0.01", "set weight_decay=0.5", "set batch_size=8", "reorder reversed", "reorder shuffled",
        "reorder repeats-first", "set learning_rate=0.01 when induction<2",
    ],
)  # fmt: skip
def test_each_intervention_changes_what_follows_and_nothing_before(parent: Path, tmp_path: Path, text: str) -> None:
    spec = f"{text.replace('PARENT', str(parent))} {'at' if text.startswith(('graft', 'rein')) else 'from'} 9"
    spec = spec if "when" not in text else f"{text} at 9"
    made = branch(parent, at=4, interventions=[spec], until=12, out=tmp_path / "other")
    theirs, ours = hashes(parent), hashes(made.run)
    assert (ours[4], ours[8]) == (theirs[4], theirs[8])
    assert ours[12] != theirs[12]
    assert made.run.steps == (0, 4, 8, 12)
    assert made.different == ()
    about = json.loads((Path(made.run.source) / "run.json").read_text())
    assert about["parent"] == {"run": str(parent), "step": 4, "checkpoint": theirs[4]}
    assert about["interventions"] == [made.interventions[0].spec]
    assert about["hyperparameters"]["intervention"] == made.interventions[0].spec


def test_until_the_end_of_an_intervention_and_no_further(parent: Path, tmp_path: Path) -> None:
    made = branch(parent, at=4, interventions=["freeze a1.h1 until 12"], out=tmp_path / "frozen")
    at = {step: read_weights(Path(made.run[step].source)) for step in made.run.steps}
    state = load_state(CONFIG, made.run[16].source)
    model = open_module(state.module)
    names = {id(weight): name for name, weight in state.module.named_parameters()}
    for weight, mask in own_weights(model, "a1.h1"):
        name = names[id(weight)]
        assert torch.equal(at[4][name][mask], at[12][name][mask])
        assert (at[12][name][mask] != at[16][name][mask]).any()
    assert entries(made.run) == [
        {"step": 4, "event": "begins", "intervention": "freeze a1.h1 from 4 until 12"},
        {"step": 12, "event": "ends", "intervention": "freeze a1.h1 from 4 until 12"},
    ]


@pytest.mark.parametrize("stop", [4, 5, 9, 13, 16])
def test_a_branch_that_was_stopped_is_the_same(parent: Path, tmp_path: Path, stop: int) -> None:
    given = [
        "ablate a0.h1 until 10", "set learning_rate=0.01 when induction<2 at 6", "reinitialise a1.h0 at 13",
        "freeze a1.h1 from 7", "reorder shuffled from 6",
    ]  # fmt: skip

    class StopError(Exception):
        pass

    def progress(stage: str, step: int, steps: int) -> None:
        if stage == "branch" and step == stop:
            raise StopError

    branch(parent, at=4, interventions=given, out=tmp_path / "a" / "run")
    with pytest.raises(StopError):
        branch(parent, at=4, interventions=given, out=tmp_path / "b" / "run", progress=progress)
    branch(parent, at=4, interventions=given, out=tmp_path / "b" / "run")
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_conditions_fire_once_or_are_held_back_and_both_are_logged(parent: Path, tmp_path: Path) -> None:
    given = ["set learning_rate=0.01 when induction<2 at 6", "freeze a0 when a1.h0:induction>2 at 8"]
    given += ["set weight_decay=0.3 when loss_first_half>0"]
    made = branch(parent, at=4, interventions=given, out=tmp_path / "run")
    events = [(entry["step"], entry["event"]) for entry in entries(made.run)]
    assert events == [(6, "fired"), (6, "begins"), (8, "not fired"), (10, "fired"), (10, "begins")]
    rates = {entry["step"]: entry["learning_rate"] for entry in made.run.log}
    assert rates[5] == CONFIG.learning_rate_at(5)
    assert rates[6] == replace(CONFIG, learning_rate=0.01).learning_rate_at(6)
    assert any("Step 8: not fired" in sentence for sentence in made.sentences)


def test_an_intervention_hangs_on_a_warning_that_was_learned(parent: Path, tmp_path: Path) -> None:
    """A number that rises before the formation in finished runs; the branch steps in where its own crosses the bar."""
    known, name = warned(30, ahead=1.5), "repeated-tokens/effective_rank"
    known = replace(known, series=known.series.replace({"name": {"signal": name}}))
    learned = learn_precursor(known, role="induction", signal=name)
    assert learned.rule.startswith("effective_rank>0.")
    made = branch(parent, at=4, interventions=[f"freeze a0 when {learned.rule}"], out=tmp_path / "run")
    first = entries(made.run)[0]
    assert first["event"] == "fired"
    assert first["measured"] > float(learned.rule.partition(">")[2])
    never = branch(parent, at=4, interventions=["freeze a0 when effective_rank>1000"], out=tmp_path / "never")
    assert not [entry for entry in entries(never.run) if entry["event"] == "begins"]


def test_what_a_condition_may_be_over_is_what_is_measured_of_a_model(parent: Path) -> None:
    scores, numbers = scores_and_losses(load_model(Run.open(parent)[4].source), kinds=tuple(KINDS), n_prompts=4)
    assert {*scores, *numbers} == set(MEASURES)


KILLED = """
import sys, torch
from tracking.experiments.branching import branch
torch.set_num_threads(1)
made = branch(sys.argv[1], at=4, interventions=sys.argv[3:], out=sys.argv[2],
              progress=lambda stage, step, steps: print(stage, step, flush=True))
"""


@pytest.mark.slow
def test_a_branch_whose_process_is_killed_goes_on_as_if_it_had_not_been(parent: Path, tmp_path: Path) -> None:
    given = ["ablate a0.h1 until 14", "set learning_rate=0.01 when induction<2 at 6", "reinitialise a1.h0 at 13"]
    command = [sys.executable, "-c", KILLED, str(parent), str(tmp_path / "b" / "run"), *given]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("branch 10"):
                process.kill()
                break
    assert process.wait() == -signal.SIGKILL
    assert 16 not in Run.open(tmp_path / "b" / "run").steps
    branch(parent, at=4, interventions=given, out=tmp_path / "a" / "run")
    branch(parent, at=4, interventions=given, out=tmp_path / "b" / "run")
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_a_graft_finds_the_head_that_does_the_same(parent: Path, tmp_path: Path) -> None:
    """The other checkpoint is this one with the heads of layer 1 in the other order."""
    state = load_state(CONFIG, Run.open(parent)[8].source)
    model = open_module(state.module)
    first, second = own_weights(model, "a1.h0"), own_weights(model, "a1.h1")
    with torch.no_grad():
        for (weight, mine), (_, theirs) in zip(first, second, strict=True):
            weight[mine], weight[theirs] = weight[theirs].clone(), weight[mine].clone()
    save_checkpoint(state.module, CONFIG.model, tmp_path / "swapped")
    made = branch(parent, at=8, interventions=[f"graft a1.h0 with {tmp_path / 'swapped'}"], out=tmp_path / "run")
    assert made.interventions[0].spec == f"graft a1.h0 with {tmp_path / 'swapped'}:a1.h1 at 8"
    grafted, own = (open_module(load_state(CONFIG, made.run[8].source).module) for _ in range(2))
    with stepping_in(grafted, made.interventions):
        pass
    assert all(
        torch.equal(weight, own.module.get_parameter(name)) for name, weight in grafted.module.named_parameters()
    )


def test_a_condition_may_wait_to_put_weights_in(parent: Path, tmp_path: Path) -> None:
    given = [f"graft a0.h0 with {parent}@16:a0.h1 when induction<2"]
    made = branch(parent, at=4, interventions=given, out=tmp_path / "run")
    assert [(entry["step"], entry["event"]) for entry in entries(made.run)] == [(10, "fired"), (10, "done")]
    assert hashes(made.run)[8] == hashes(parent)[8]
    assert hashes(made.run)[12] != hashes(parent)[12]
    assert Intervention.parse(made.interventions[0].spec) == made.interventions[0]


def test_a_branch_of_a_branch_keeps_what_was_in_force(parent: Path, tmp_path: Path) -> None:
    first = branch(parent, at=4, interventions=["ablate a0.h1 until 14", "set weight_decay=0.3 when induction<2 at 6"],
                   out=tmp_path / "first")  # fmt: skip
    second = branch(first.run, at=8, interventions=["freeze a1"], out=tmp_path / "second")
    assert second.different == ()
    assert hashes(second.control) == hashes(first.run)
    assert hashes(second.run)[16] != hashes(first.run)[16]
    assert [(entry["step"], entry["event"]) for entry in entries(second.run)] == [
        (4, "begins"), (6, "fired"), (6, "begins"), (8, "begins"), (14, "ends"),
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"contradict each other: both say what a0\.h1 gives"):
        branch(first.run, at=8, interventions=["clamp a0 to induction"], out=tmp_path / "third")


def test_a_branch_may_go_on_beyond_its_parent_where_the_schedule_says_how(parent: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the cosine schedule of 'parent' ends at step 16, got 20"):
        branch(parent, at=8, until=20, out=tmp_path / "longer")
    steady = train(replace(CONFIG, schedule="constant"), tmp_path / "steady")
    made = branch(steady, at=8, until=20, checkpoints="0..20:2", out=tmp_path / "longer")
    assert made.run.steps == (0, 4, 8, 10, 12, 14, 16, 18, 20)
    assert made.compared == (12, 16)
    assert made.different == ()


def test_other_batch_sizes_leave_the_tokens_of_checkpoints_unsaid(parent: Path, tmp_path: Path) -> None:
    made = branch(parent, at=8, interventions=["set batch_size=8"], out=tmp_path / "wide")
    assert made.run.tokens_per_step is None
    assert [entry["tokens"] for entry in made.run.log][7:11] == [7 * 48, 8 * 48, 8 * 48 + 96, 8 * 48 + 192]


def test_a_history_of_a_branch_sees_what_stood_in(parent: Path, tmp_path: Path) -> None:
    from tracking.history.history import History

    given = ["clamp a0.h1 to previous-token until 12", "ablate a1.h0 until 12"]
    made = branch(parent, at=4, interventions=given, out=tmp_path / "run")
    assert [len(standing_at(checkpoint)) for checkpoint in made.run.checkpoints] == [0, 0, 2, 2, 0]
    record(made.run, tmp_path / "history", n_prompts=8)
    history = History.open(tmp_path / "history")
    assert history.failures == ()
    score = history.score("previous-token").value.sel(component="a0.h1")
    assert np.isclose(score, 1.0).tolist() == [False, False, True, True, False]
    edges = history.edge_scores("induction").value
    silent = np.abs(edges.sel(writer="a1.h0")).max("reader") == 0
    assert silent.values.tolist() == [False, False, True, True, False]
    assert "ablate a1.h0" in str(history.records[8, "induction"].provenance["interventions"])


# -- what is refused ----------------------------------------------------------------------------------------------


def test_no_optimiser_state_is_said_and_the_inexact_branch_is_recorded(parent: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(parent, bare)
    (bare / "checkpoints" / "step000008" / STATE).unlink()
    with pytest.raises(FileNotFoundError, match=r"step 8 keeps no optimiser state and no random state .* inexact=True"):
        branch(bare, at=8, out=tmp_path / "out")
    made = branch(bare, at=8, out=tmp_path / "out", inexact=True)
    assert not made.exact
    assert made.different == (12, 16)
    assert hashes(made.run) == hashes(made.control)
    assert hashes(made.run)[8] == hashes(parent)[8]
    assert json.loads((tmp_path / "out" / "run.json").read_text())["exact"] is False
    assert "Not exact" in " ".join(made.sentences)
    assert not (bare / "checkpoints" / "step000008" / STATE).exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"at": 7}, "no checkpoint at step 7 of .*; the nearest are 4 and 8"),
        ({"at": 8, "until": 8}, "expected an end after the branching at step 8, got until 8"),
        ({"at": 8, "interventions": ["ablate a5.h0"]}, "the model has no component a5.h0"),
        ({"at": 8, "interventions": ["ablate a0.h0 from 4"]}, "begins at step 4; the branch runs from step 8 to 16"),
        ({"at": 8, "interventions": ["ablate a0.h0 from 16"]}, "begins at step 16; the branch runs from step 8 to 16"),
        ({"at": 8, "interventions": ["freeze a0 when entropy<2"]}, "a condition over 'entropy', which is not measured"),
        ({"at": 8, "interventions": ["ablate a0", "clamp a0.h1 to induction"]}, "contradict each other"),
        ({"at": 8, "interventions": ["set repeat_probability=2"]}, "expected repeat_probability between 0 and 1"),
        (
            {"at": 8, "interventions": ["set shortest_period=7"]},
            "'set shortest_period=7 from 8' cannot be done",
        ),
        (
            {"at": 8, "interventions": ["graft a0.h0 with PARENT@16:a3.h0"]},
            "cannot graft a3.h0 into a0.h0: the model",
        ),
        ({"at": 8, "interventions": ["clamp a0.h0 to PARENT@16:a3.h0"]}, "that checkpoint has no head a3.h0"),
        ({"at": 8, "interventions": ["graft a0 with PARENT@16"]}, "must name one component to take"),
        (
            {"at": 8, "interventions": ["graft a0.h0 with PARENT@5"]},
            "no checkpoint at step 5 of .*are 4 and 8",
        ),
        ({"at": 8, "interventions": ["freeze a0 when induction<1 at 4"]}, "looked at at step 4, before it may hold"),
        ({"at": 20}, "no checkpoint at step 20 of .*; the nearest are 12 and 16"),
        ({"at": 8, "interventions": ["set batch_size=none"]}, "expected batch_size to be a whole number"),
    ],
)
def test_requests_that_cannot_be(parent: Path, tmp_path: Path, options: dict, words: str) -> None:
    given = [text.replace("PARENT", str(parent)) for text in options.get("interventions", ())]
    with pytest.raises(ValueError, match=words):
        branch(parent, out=tmp_path / "out", **{**options, "interventions": given})
    assert not (tmp_path / "out").exists()


def test_folders_that_hold_something_else_are_left_alone(parent: Path, tmp_path: Path) -> None:
    branch(parent, at=8, until=12, interventions=["freeze a0"], out=tmp_path / "run")
    before, theirs = content(tmp_path / "run"), content(parent)
    with pytest.raises(ValueError, match=r"holds a branch with freeze a0 .* a branch with freeze a1 .*; choose"):
        branch(parent, at=8, until=12, interventions=["freeze a1"], out=tmp_path / "run")
    with pytest.raises(ValueError, match=r"holds a branch of .*parent at step 8, and this is a branch of .* step 12"):
        branch(parent, at=12, interventions=["freeze a0"], out=tmp_path / "run")
    with pytest.raises(ValueError, match="holds a run that is no branch"):
        branch(parent, at=8, interventions=["freeze a1"], out=parent)
    assert content(tmp_path / "run") == before
    assert content(parent) == theirs


def test_runs_that_do_not_say_how_they_were_trained(parent: Path, tmp_path: Path) -> None:
    shutil.copytree(parent / "checkpoints", tmp_path / "plain" / "checkpoints")
    with pytest.raises(
        ValueError, match=r"does not say how it was trained .*; put tracking.interventions.applying.stepping_in around"
    ):
        branch(tmp_path / "plain", at=8, out=tmp_path / "out")


# -- other orders of the data -------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["reversed", "shuffled", "repeats-first", "repeats-last"])
def test_reordering_deals_every_sequence_of_the_window_once(order: str) -> None:
    repeats, window = Repeats(vocabulary=99, length=12, repeat_probability=0.5, longest_period=6), (5, 12)
    usual = np.concatenate([batch(repeats, 4, seed=3, index=index) for index in range(*window)])
    given = {"order": order, "window": window, "data_seed": 3}
    other = np.concatenate([ordered_batch(repeats, 4, index=index, **given) for index in range(*window)])  # type: ignore
    assert sorted(usual.tolist()) == sorted(other.tolist())
    assert usual.tolist() != other.tolist()


def test_repeats_first_is_a_curriculum_and_repeats_last_its_reverse() -> None:
    from tracking.training.data_order import repeated_share

    repeats = Repeats(repeat_probability=0.5)
    for order, sign in (("repeats-first", -1), ("repeats-last", 1)):
        rows = [ordered_batch(repeats, 8, order=order, window=(0, 9), index=i, data_seed=0) for i in range(9)]  # type: ignore
        share = np.concatenate([repeated_share(each) for each in rows])
        assert (sign * np.diff(share) >= 0).all()


# -- the command line ---------------------------------------------------------------------------------------------


def test_the_verb_is_the_call(parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tracking.cli.cli import run

    given = ["branch", str(parent), "--at", "8", "--intervene", "freeze a1", "--intervene", "ablate a0.h1 until 12"]
    assert run([*given, "--out", str(tmp_path / "a")]) == 0
    said = capsys.readouterr().out
    assert "freeze a1 from 8; ablate a0.h1 from 8 until 12" in said
    assert "The control is bit for bit parent at all 2 checkpoints after it, to step 16." in said
    branch(parent, at=8, interventions=["freeze a1", "ablate a0.h1 until 12"], out=tmp_path / "b")
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")
    assert run([*given, "--out", str(tmp_path / "a"), "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["different"] == []
    assert about["interventions"][0] == "freeze a1 from 8"


def test_the_help_names_every_intervention_in_sentences_that_can_be_said() -> None:
    from tracking.cli.cli import branch as verb

    told = str(verb.__doc__).partition("Example:")[0]
    rules, sentences = [], []
    for said in re.findall(r"`([^`]+)`", told):
        word = said.split()[0]
        (sentences if word in ACTIONS else rules).append(said.removeprefix("when "))
    assert {Intervention.parse(said).action for said in sentences} == set(ACTIONS)
    assert {Condition.parse(rule).over for rule in rules} == {"max", "mean"}
    for name in (*ADJUSTABLE, *PATTERNS, *ORDERS):
        assert re.search(rf"\b{name}\b", told), name


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--at", "7"], "no checkpoint at step 7"),
        (["--at", "8", "--intervene", "ablat a0"], "did you mean ablate?"),
        (["--at", "8", "--intervene", "ablate a9.h0"], "the model has no component a9.h0"),
        (["--at", "8", "--until", "4"], "expected an end after the branching"),
    ],
)
def test_a_wrong_request_is_one_sentence(
    parent: Path, tmp_path: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from tracking.cli.cli import run

    assert run(["branch", str(parent), *options, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert said.out == ""
    assert "Traceback" not in said.err
