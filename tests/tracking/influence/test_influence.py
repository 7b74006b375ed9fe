"""Which data moved a date: what is predicted is what retraining finds, and what cannot be asked is said."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from circuits.loading import load_model
from tracking.checkpoints.runs import Run
from tracking.cli.cli import run as formation
from tracking.experiments.branching import branch
from tracking.influence.influence import why
from tracking.influence.opened import open_run
from tracking.influence.targets import bend_of, date_of, values_at
from tracking.influence.verification import Proof, linear_range, shifted_date
from tracking.training.hyperparameters import TrainingConfig
from tracking.training.training import reproducible, train

OPTIONS = {
    "steps": 60, "checkpoints": "0..60:5", "n_layers": 1, "n_heads": 2, "d_model": 16, "vocabulary": 12,
    "context_length": 12, "batch_size": 16, "warmup_steps": 10, "learning_rate": 0.01,
    "sources": {
        "noise": {"kind": "random", "weight": 1.0},  # not in the order of the alphabet, as in run.json
        "chain": {"kind": "bigram", "weight": 1.0},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("influence") / "small"
    train(TrainingConfig.from_dict(OPTIONS), folder)
    return folder


def test_what_is_foretold_is_found(run: Path) -> None:
    """The chain is learned earlier when it counts more; both shares being a half, the noise does the opposite."""
    found = why(run, role="loss/chain", verify=2)
    shifts = {each.source: each for each in found.shifts}
    assert shifts["chain"].shift_steps < 0 < shifts["noise"].shift_steps
    assert shifts["chain"].shift_steps == pytest.approx(-shifts["noise"].shift_steps, rel=1e-5)
    for each in found.shifts:
        assert each.verified_shift == pytest.approx(each.shift_steps, rel=0.15)
        assert each.low <= each.shift_steps <= each.high
    assert all(proof.holds for proof in found.proofs)
    assert linear_range(found.proofs) == (1.1, 1.1)


def test_a_branch_without_a_change_is_the_run(run: Path) -> None:
    opened = open_run(Run.open(run), "loss/chain", threshold=None, n_prompts=8, seed=0)
    with reproducible():
        assert shifted_date(opened, "chain", 1.0, (0, 30)) == opened.date.step


def test_the_only_source_that_teaches_it_is_first_and_one_that_comes_too_late_does_nothing(tmp_path: Path) -> None:
    """Without the chain its loss never falls, in a branch as a user makes it."""
    late = {"kind": "trigram", "weight": "0:0, 50:0, 60:1"}
    sources = {**OPTIONS["sources"], "late": late}  # type: ignore[dict-item]
    train(TrainingConfig.from_dict({**OPTIONS, "sources": sources}), tmp_path / "late")
    opened = open_run(Run.open(tmp_path / "late"), "loss/chain", threshold=2.0, n_prompts=8, seed=0)
    assert opened.date.step < 50
    shifts = {each.source: each for each in why(tmp_path / "late", role="loss/chain", threshold=2.0).shifts}
    assert shifts["chain"].shift_steps == min(each.shift_steps for each in shifts.values())
    assert shifts["chain"].high < 0
    assert (shifts["late"].shift_steps, shifts["late"].told) == (0, False)
    for source, forms in (("chain", False), ("late", True)):
        out = tmp_path / f"without-{source}"
        made = branch(tmp_path / "late", at=0, interventions=[f"reweight {source} by 0"], until=50, out=out)
        losses = {each.step: values_at(opened.curve, load_model(each.source).module) for each in made.run.checkpoints}
        date = date_of(opened.curve, losses)
        assert (date is not None) is forms
    assert date is not None
    assert date.step == opened.date.step


def test_branches_cannot_reweight_what_is_not_there(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no source 'chains' in this training; there are chain, noise"):
        branch(run, at=0, interventions=["reweight chains by 0"], out=tmp_path / "branch")


def test_windows_add_up_to_the_whole(run: Path) -> None:
    whole = {each.source: each.shift_steps for each in why(run, role="loss/chain").shifts}
    parts = why(run, role="loss/chain", by="window", windows=3).to_frame()
    assert parts.groupby("source").shift_steps.sum().to_dict() == pytest.approx(whole)
    assert len(parts) == 6


def test_products_rank_the_sources_alike(run: Path) -> None:
    exact, rough = (why(run, role="loss/chain", method=method) for method in ("unrolled", "products"))
    signs = [{each.source: np.sign(each.shift_steps) for each in found.shifts} for found in (exact, rough)]
    assert signs[0] == signs[1]


def test_the_top_sequences_are_of_the_data(run: Path) -> None:
    found = why(run, role="loss/chain", by="example")
    assert len(found.top) == 10
    assert all(len(each.tokens) == 12 and each.step < found.date + 5 for each in found.top)
    sizes = [abs(each.shift_steps) for each in found.top]
    assert sizes == sorted(sizes, reverse=True)


def test_several_seeds_give_their_mean(run: Path, tmp_path: Path) -> None:
    train(TrainingConfig.from_dict({**OPTIONS, "seed": 1}), tmp_path / "other")
    both = why([run, tmp_path / "other"], role="loss/chain")
    single = [why(each, role="loss/chain") for each in (run, tmp_path / "other")]
    mean = np.mean([found.to_frame().set_index("source").shift_steps["chain"] for found in single])
    assert both.to_frame().set_index("source").shift_steps["chain"] == pytest.approx(mean)
    assert both.runs == ("small", "other")


def test_the_command_prints_what_the_function_finds(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert formation(["why", str(run), "--role", "loss/chain", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    found = why(run, role="loss/chain")
    assert [row["shift_steps"] for row in printed["sources"]] == [each.shift_steps for each in found.shifts]
    assert {"source", "window", "shift_steps", "low", "high", "verified_shift"} == set(printed["sources"][0])
    assert "estimates" in printed["sentences"][-1]


def test_a_date_that_never_comes_says_how_near_it_was(run: Path) -> None:
    with pytest.raises(ValueError, match=r"induction never crosses its bar of 0.3 in 'small'.*nearest at step"):
        why(run)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"role": "inductions"}, "no curve 'inductions'; expected a role among"),
        ({"role": "loss/chains"}, "no curve 'loss/chains'.*, loss, loss/chain, loss/noise"),
        ({"role": "task/source:chains"}, "no source for task 'source:chains'; there are source:chain"),
        ({"role": "a7.h0:induction"}, "no head 'a7.h0' in this model"),
        ({"role": "loss/chain", "by": "head"}, "expected by to be one of source, window, example"),
        ({"role": "loss/chain", "method": "magic"}, "expected a method among unrolled, products"),
        ({"role": "loss/chain", "threshold": 9.0}, "at its bar of 9 at the first checkpoint"),
        ({"role": "loss/chain", "threshold": 0.01}, "never crosses its bar of 0.01.*give a threshold below that"),
    ],
)
def test_what_cannot_be_asked_is_said(run: Path, options: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        why(run, **options)


def test_without_states_the_other_method_remains(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "bare")
    for place in (tmp_path / "bare").rglob("training_state.safetensors"):
        place.unlink()
    with pytest.raises(ValueError, match=r"keeps no training state.*method='products'"):
        why(tmp_path / "bare", role="loss/chain")
    assert why(tmp_path / "bare", role="loss/chain", method="products").shifts


def test_the_command_says_it_too(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert formation(["why", str(run)]) != 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "so there is no date to explain" in printed.err


def test_half_precision_is_refused(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "half")
    for place in (tmp_path / "half").rglob("model.safetensors"):
        tensors = {name: tensor.half() for name, tensor in load_file(place).items()}
        place.unlink()
        save_file(tensors, place)
    with pytest.raises(ValueError, match="float16; influence needs float32"):
        why(tmp_path / "half", role="loss/chain")


def test_data_that_run_json_does_not_tell_is_refused(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "other")
    about = json.loads((tmp_path / "other" / "run.json").read_text())
    about["hyperparameters"]["sources.chain.seed"] = 5
    (tmp_path / "other" / "run.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"training 'small' again from step \d+ does not lead to its checkpoint"):
        why(tmp_path / "other", role="loss/chain")


def test_a_run_without_its_options_is_refused(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "unknown")
    about = json.loads((tmp_path / "unknown" / "run.json").read_text())
    (tmp_path / "unknown" / "run.json").write_text(json.dumps({**about, "hyperparameters": {}}))
    with pytest.raises(ValueError, match="does not say how it was trained"):
        why(tmp_path / "unknown", role="loss/chain")


def test_a_crossing_that_is_not_held_is_no_date(run: Path) -> None:
    opened = open_run(Run.open(run), "loss/chain", threshold=None, n_prompts=8, seed=0)
    falling = {step: np.array([2.0 if step < 20 else 1.0]) for step in range(0, 50, 5)}
    spike = {step: np.array([1.0 if step == 20 else 2.0]) for step in range(0, 50, 5)}
    curve = replace(opened.curve, bar=1.5)
    found = date_of(curve, falling)
    assert found is not None
    assert found.step == pytest.approx(17.5)
    assert date_of(curve, spike) is None


def test_a_bent_curve_has_a_bend_and_a_straight_one_none(run: Path) -> None:
    opened = open_run(Run.open(run), "loss/chain", threshold=None, n_prompts=8, seed=0)
    steps, curve = range(0, 50, 5), replace(opened.curve, bar=0.25, falling=False)
    straight = {step: np.array([step / 100]) for step in steps}
    bent = {step: np.array([(step / 50) ** 2]) for step in steps}
    dates = [date_of(curve, each) for each in (straight, bent)]
    assert dates[0] is not None
    assert dates[1] is not None
    assert bend_of(curve, dates[0], straight) == pytest.approx(0, abs=1e-9)
    middle = (dates[1].before + dates[1].after) / 2
    assert bend_of(curve, dates[1], bent) == pytest.approx(1 / middle)  # y'' / y' of t² is 1 / t


def test_the_range_of_the_straight_line_ends_where_it_broke() -> None:
    def proof(factor: float, actual: float) -> Proof:
        return Proof("a", (0, 10), factor, (factor - 1) * 100, actual)

    assert linear_range([proof(1.1, 10.0), proof(0.9, -9.0), proof(1.3, 80.0), proof(2.0, 100.0)]) == (0.9, 1.1)
    assert linear_range([proof(1.1, math.inf)]) is None


def test_an_estimate_says_that_it_is_one(run: Path) -> None:
    said = why(run, role="loss/chain").sentences
    assert said[0].startswith("loss/chain crosses")
    assert "estimates" in said[-1]
