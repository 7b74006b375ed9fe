"""What a source teaches can be asked of a model, recorded, and dated."""

from pathlib import Path

import pytest

from tracking.cli.cli import run as formation
from tracking.formation.clocks import CLOCKS, Measured
from tracking.history.history import History
from tracking.influence.influence import why
from tracking.lifelines.lifelines import link_lifelines
from tracking.recording.recording import record
from tracking.training.hyperparameters import TrainingConfig
from tracking.training.source_tasks import data_options, source_task
from tracking.training.training import train

OPTIONS = {
    "steps": 60, "checkpoints": "0..60:10", "n_layers": 1, "n_heads": 2, "d_model": 16, "vocabulary": 12,
    "context_length": 12, "batch_size": 16, "warmup_steps": 10, "learning_rate": 0.01,
    "sources": {"chain": {"kind": "bigram"}, "noise": {"kind": "random", "weight": 0.5}},
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources") / "small"
    train(TrainingConfig.from_dict(OPTIONS), folder)
    return folder


@pytest.fixture(scope="module")
def history(run: Path, tmp_path_factory: pytest.TempPathFactory) -> History:
    out = tmp_path_factory.mktemp("recorded") / "history"
    assert not record(run, out, tasks=["source:chain"], n_prompts=16).failed
    return History.open(out)


def test_the_model_learns_what_the_source_teaches(history: History) -> None:
    clean, corrupted = (history.metric(f"source:chain/metric_{which}").value for which in ("clean", "corrupted"))
    gained = (clean - corrupted).values
    assert abs(gained[0]) < 0.5
    assert gained[-1] > 2


def test_its_rise_is_a_behaviour_clock(history: History) -> None:
    role = link_lifelines(history).roles[0]
    curve = CLOCKS["behaviour"].read(Measured(history), role, None, 0)
    assert curve is not None
    assert curve.measure == "source:chain/metric_clean minus source:chain/metric_corrupted"
    assert curve.value[-1] - curve.value[0] > 2


def test_its_date_can_be_asked_about(run: Path) -> None:
    shifts = {each.source: each.shift_steps for each in why(run, role="task/source:chain").shifts}
    assert shifts["chain"] < 0 < shifts["noise"]


def test_prompts_depend_on_the_seed_alone_and_have_two_answers() -> None:
    one, same, other = (source_task("source:chain", OPTIONS, n_prompts=20, seed=seed) for seed in (0, 0, 1))
    assert len(one) == 20
    assert (one.clean == same.clean).all()
    assert (one.clean != other.clean).any()
    assert (one.correct != one.incorrect).all()


def test_hyperparameters_of_other_tasks_are_left_alone() -> None:
    given = TrainingConfig.from_dict(OPTIONS).to_dict()
    assert data_options(["induction"], given) == {}
    kept = data_options(["induction", "source:chain"], given)
    assert {key.partition(".")[0] for key in kept} == {"vocabulary", "context_length", "sources"}


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("source:chains", "no source for task 'source:chains'; there are source:chain$"),
        ("source:noise", "nothing can be asked of task 'source:noise'; there are source:chain$"),
    ],
)
def test_what_cannot_be_asked_is_said(name: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        source_task(name, OPTIONS)


def test_a_run_without_sources_says_so(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(TrainingConfig.from_dict({**OPTIONS, "sources": {}, "steps": 1, "checkpoints": "0"}), tmp_path / "plain")
    words = ["record", str(tmp_path / "plain"), "--task", "source:chain", "--out", str(tmp_path / "history")]
    assert formation(words) != 0
    assert "this training has no sources of which anything can be asked" in capsys.readouterr().err
