"""A series that runs backwards, or whose ends are exchanged, is named; what cannot be told is said to be unchecked."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.tracking.checkpoints.test_audit import EVEN, LOG, series, weights_of
from tracking.checkpoints.audit import Audit, audit
from tracking.checkpoints.direction import check_direction
from tracking.checkpoints.weight_faults import Trajectory
from tracking.cli.cli import run as formation
from tracking.training.training import TrainingConfig, train

STEPS = (0, 40, 80, 120, 160, 200)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = TrainingConfig(
        steps=200, checkpoints="0..200:40", d_model=16, n_heads=2, batch_size=16, learning_rate=0.01
    )
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(config, folder)
    return folder


def place(folder: Path, step: int) -> Path:
    return folder / "checkpoints" / f"step{step:06d}" / "model.safetensors"


def put(trained: Path, folder: Path, weights: dict[int, int]) -> Path:
    """The run with these weights (of which step) under these steps; other checkpoints are left out."""
    shutil.copytree(trained, folder)
    for step in STEPS:
        if step in weights:
            shutil.copy(place(trained, weights[step]), place(folder, step))
        else:
            shutil.rmtree(place(folder, step).parent)
    return folder


FAULTS: dict[str, tuple[dict[int, int], str]] = {
    "reversed": (dict(zip(STEPS, STEPS[::-1], strict=True)), "reversed"),
    "last two": ({**dict(zip(STEPS, STEPS, strict=True)), 160: 200, 200: 160}, "exchanged"),
    "first two": ({**dict(zip(STEPS, STEPS, strict=True)), 0: 40, 40: 0}, "exchanged"),
    "short and reversed": ({0: 200, 200: 0}, "reversed"),
    "the last at step 0 of three": ({0: 200, 40: 40, 80: 80}, "exchanged"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_or_its_claim_is_not_checked(trained: Path, tmp_path: Path, fault: str) -> None:
    weights, kind = FAULTS[fault]
    folder = put(trained, tmp_path / "run", weights)
    by_loss = audited(folder)
    assert kind in {finding.kind for finding in by_loss.findings}
    assert not by_loss.passed
    by_weights = audit(folder)
    assert not by_weights.passed or by_weights.unchecked


def audited(folder: Path) -> Audit:
    from tracking.checkpoints.runs import Run
    from tracking.cli.checkpoints import _own_batch

    opened = Run.open(folder)
    return audit(opened, loss=_own_batch(opened))


def test_a_sound_run_passes_and_its_direction_is_checked(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert formation(["audit", str(trained), "--loss"]) == 0
    said = capsys.readouterr().out
    assert "\tchecked\tNA\twhether the series runs forwards: the loss goes from" in said
    assert "\tchecked\tNA\twhether steps 160 and 200 are in their order" in said
    assert "alone has gains" in " ".join(audit(trained).checked)
    assert list(audited(trained).losses) == list(STEPS)


@pytest.mark.parametrize("seed", range(200, 210))
@pytest.mark.parametrize(("steps", "speed"), [(EVEN, "steady"), (LOG, "warm-up")])
def test_ends_of_a_sound_series_give_no_alarm(tmp_path: Path, seed: int, steps: tuple[int, ...], speed: str) -> None:
    folder = series(tmp_path, seed=seed, steps=steps, speed=speed)
    assert audit(folder).findings == ()
    first, second = (weights_of(folder, step) for step in steps[-2:])
    kept = first.read_bytes()
    shutil.copy(second, first)
    second.write_bytes(kept)
    found = audit(folder)
    claim = f"whether steps {steps[-2]} and {steps[-1]} are in their order"
    assert not found.passed or any(claim in sentence for sentence in found.unchecked)


def path_of(steps: tuple[int, ...]) -> Trajectory:
    between = np.abs(np.subtract.outer(steps, steps)).astype(float)
    return Trajectory(steps, np.ones(len(steps)), between, np.ones_like(between))


@pytest.mark.parametrize(
    ("losses", "logged", "kind"),
    [
        ((4.0, 3.0, 2.0, 1.5, 1.4), (), None),
        ((1.4, 1.5, 2.0, 3.0, 4.0), (), "reversed"),
        ((1.4, 1.5, 2.0, 3.0, 4.0), (1.0, 1.5, 2.0, 3.0, 5.0), None),  # the training diverged, and its log says so
        ((4.0, 3.0, 2.0, 1.5, 2.9), (), "exchanged"),
        ((1.0, 4.0, 3.0, 2.0, 1.5), (), "exchanged"),
    ],
)
def test_losses_tell_the_direction(losses: tuple[float, ...], logged: tuple[float, ...], kind: str | None) -> None:
    steps: tuple[int, ...] = (0, 10, 20, 30, 40)
    by_step: dict[int, float] = dict(zip(steps, losses, strict=True))
    found = check_direction(path_of(steps), losses=by_step, logged=dict(zip(steps, logged, strict=False)))
    assert [finding.kind for finding in found.findings] == ([] if kind is None else [kind])


def test_initial_gains_tell_the_direction() -> None:
    path = path_of((0, 10, 20, 30))
    none: dict[int, float] = {}
    assert "alone has gains" in check_direction(path, initial=(0,), losses=none, logged=none).checked[0]
    assert check_direction(path, initial=(30,), losses=none, logged=none).findings[0].kind == "reversed"
    assert "--loss" in check_direction(path, losses=none, logged=none).unchecked[0]
    assert "fewer than two" in check_direction(path.only([0]), losses=none, logged=none).unchecked[0]
