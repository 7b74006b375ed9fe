"""From checkpoints to events, on series whose truth is known because the weights were set by hand."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from circuits.heads import head_scores
from circuits.loading import load_model, save_checkpoint
from tests.models import CIRCUIT, CONTEXT, INDUCTION, induction_module
from tracking.cli.cli import run as command
from tracking.formation.formation import formation_table
from tracking.history.history import History
from tracking.lifelines.lifelines import link_lifelines
from tracking.recording.recording import record

STEPS = tuple(range(0, 1001, 100))


def series(folder: Path, module_at: Callable[[int], nn.Module], steps: tuple[int, ...] = STEPS) -> Path:
    """Checkpoints in `folder`, each with a little noise of its own on every weight."""
    for step in steps:
        module, generator = module_at(step), torch.Generator().manual_seed(step)
        with torch.no_grad():
            for weight in module.parameters():
                weight += 0.01 * torch.randn(weight.shape, generator=generator)
        save_checkpoint(module, INDUCTION, folder / f"step{step}")
    return folder


@torch.no_grad()
def blended(share: float) -> nn.Module:
    """That share of the hand-set weights, the rest of noise."""
    module, generator = induction_module(), torch.Generator().manual_seed(7)
    for weight in module.parameters():
        weight.mul_(share).add_((1 - share) * 0.05 * torch.randn(weight.shape, generator=generator))
    return module


@torch.no_grad()
def swapped() -> nn.Module:
    """The hand-set model with the two heads of layer 0 in each other's place; it computes the same."""
    module = induction_module()
    for name, weight in module.named_parameters():
        if name.startswith("layers.0.attn."):
            axis = 1 if name.endswith("o.weight") else 0
            if name != "layers.0.attn.o.bias":
                weight.copy_(weight.roll(CONTEXT, dims=axis))
    return module


def tracked(checkpoints: Path, folder: Path) -> History:
    summary = record(checkpoints, folder, n_prompts=24)
    assert not summary.failed
    return History.open(folder)


@pytest.fixture(scope="module")
def sudden(tmp_path_factory: pytest.TempPathFactory) -> History:
    folder = tmp_path_factory.mktemp("sudden")
    return tracked(series(folder / "run", lambda step: blended(float(step > 500))), folder / "history")


@pytest.fixture(scope="module")
def swap(tmp_path_factory: pytest.TempPathFactory) -> History:
    folder = tmp_path_factory.mktemp("swap")
    return tracked(series(folder / "run", lambda step: swapped() if step > 500 else induction_module()), folder / "h")


@pytest.mark.parametrize("definition", ["threshold", "half-rise", "logistic", "change-point"])
@pytest.mark.parametrize("role", ["previous-token", "induction"])
def test_a_circuit_that_appears_is_dated_to_its_interval(sudden: History, role: str, definition: str) -> None:
    table = formation_table(sudden)
    for clock in ("form", "behaviour"):
        row = table[role, clock, definition]
        assert row.censored == "no"
        assert (row.interval_before, row.interval_after) == (500, 600)
        assert 500 <= row.midpoint <= 600


def test_who_carries_it_is_known(sudden: History) -> None:
    lines = link_lifelines(sudden)
    assert {node.name for node in lines["previous-token"].components} == {"a0.h0"}
    assert {node.name for node in lines["induction"].components} == {"a1.h1"}
    births = {(event.lifeline, event.step_before, event.step_after) for event in lines.events if event.event == "birth"}
    assert births == {("previous-token", 500, 600), ("induction", 500, 600)}


def test_the_circuit_is_there_after_and_not_before(sudden: History) -> None:
    before, after = sudden.circuit(500, "induction"), sudden.circuit(600, "induction")
    assert before.status == "not_performed"
    assert before.n_edges == 0
    assert after.status == "performed"
    assert {edge.name for edge in after.edges} >= CIRCUIT
    assert after.faithfulness is not None
    assert after.faithfulness.value == pytest.approx(1, abs=0.15)


def test_a_slow_onset_is_between_its_checkpoints(tmp_path: Path) -> None:
    """The share grows over a thousand steps; the truth is where the score, measured densely, is halfway."""
    share = lambda step: float(np.clip((step - 200) / 600, 0, 1))  # noqa: E731
    history = tracked(series(tmp_path / "run", lambda step: blended(share(step))), tmp_path / "history")
    series(tmp_path / "dense", lambda step: blended(share(step)), dense := tuple(range(200, 801, 10)))
    model = load_model(tmp_path / "dense" / f"step{dense[0]}")
    curve = []
    for step in dense:
        model.swap_weights(tmp_path / "dense" / f"step{step}")
        curve.append(head_scores(model, kinds=("induction",), n_prompts=24, seed=0)["induction"]["a1.h1"])
    curve = np.array(curve)
    row = formation_table(history)["induction", "form", "threshold"]
    truth = dense[int((curve >= row.bar).argmax())]
    assert row.interval_before <= truth <= row.interval_after
    assert row.midpoint == pytest.approx(truth, abs=60)


def test_heads_that_change_places_are_one_hand_off(swap: History) -> None:
    lines = link_lifelines(swap)
    (event,) = lines.events
    assert (event.event, event.lifeline) == ("hand-off", "previous-token")
    assert (event.step_before, event.step_after) == (500, 600)
    assert [node.name for node in event.components_before] == ["a0.h0"]
    assert [node.name for node in event.components_after] == ["a0.h1"]
    assert all(nodes for nodes in lines["previous-token"].nodes)


def test_the_function_did_not_change_when_the_heads_did(swap: History) -> None:
    clean = swap.metric("induction/metric_clean").value
    assert float(clean.std("step")) < 0.02 * float(clean.mean("step"))


def test_stopping_keeps_what_was_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Ctrl-C in the middle: one sentence, what was recorded stays, and the same command ends the work."""
    from tracking.recording import checkpoint_loop

    series(tmp_path / "run", lambda step: induction_module(), STEPS[:4])
    real, calls = checkpoint_loop.measure, []

    def interrupted(*arguments, **options):
        calls.append(arguments[0])
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    options = ["record", str(tmp_path / "run"), "--out", str(tmp_path / "history"), "--n-prompts", "8"]
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_loop, "measure", interrupted)
        assert command(options) == 1
    assert "goes on from there" in capsys.readouterr().err
    kept = {path.name: path.read_bytes() for path in (tmp_path / "history" / "records").glob("*.safetensors")}
    assert len(kept) == 3
    assert command(options) == 0
    for name, content in kept.items():
        assert (tmp_path / "history" / "records" / name).read_bytes() == content
    assert History.open(tmp_path / "history").steps == STEPS[:4]


def test_a_role_that_nobody_carries_has_not_formed(sudden: History) -> None:
    """Its score may rise, but below the threshold from which on a head counts."""
    rows = [row for row in formation_table(sudden).formations if row.lifeline == "duplicate-token"]
    assert {row.clock for row in rows} == {"form"}
    for row in rows:
        assert row.censored == "right"
        assert "no component reaches the threshold" in row.status
