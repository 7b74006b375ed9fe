"""What does not belong where it stands is named from one small sketch a checkpoint, and nothing else is."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.tracking.checkpoints import test_audit as planted
from tests.tracking.checkpoints.test_audit import EVEN, LOG, series, weights_of
from tracking.checkpoints.sketches import WeightSketch, sketch_of
from tracking.checkpoints.weight_faults import Trajectory, trajectory_of, weight_faults

FAULTS: dict[Callable[..., tuple[int, ...]], str] = {
    planted.relabelled: "misplaced", planted.relabelled_first: "misplaced", planted.exchanged: "exchanged",
    planted.another_run: "jump", planted.another_start: "jump", planted.two_runs: "two runs",
    planted.zeroed: "empty", planted.random: "stranger", planted.scaled: "norm",
}  # fmt: skip


def path_of(folder: Path, steps: tuple[int, ...] = EVEN) -> Trajectory:
    kept = {step: sketch_of(load_file(weights_of(folder, step))).to_dict() for step in steps}
    return trajectory_of({step: WeightSketch.from_dict(about) for step, about in kept.items()})


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_sketch_is_enough_to_name_a_fault(tmp_path: Path, fault: Callable[..., tuple[int, ...]]) -> None:
    steps = fault(series(tmp_path / "run"))
    found = weight_faults(path_of(tmp_path / "run"))
    assert [finding.kind for finding in found] == [FAULTS[fault]]
    assert found[0].steps == steps


@pytest.mark.parametrize("seed", range(100, 110))
@pytest.mark.parametrize(("steps", "speed"), [(EVEN, "steady"), (LOG, "warm-up")])
def test_a_sound_series_has_no_fault(tmp_path: Path, seed: int, steps: tuple[int, ...], speed: str) -> None:
    assert weight_faults(path_of(series(tmp_path, seed=seed, steps=steps, speed=speed), steps)) == []


def test_a_long_gap_says_nothing() -> None:
    """Far apart, checkpoints of one run may have nothing in common."""
    cosines = np.full((4, 4), 0.9)
    cosines[0, 1:] = cosines[1:, 0] = 0.0
    about = np.ones(4), np.sqrt(2 - 2 * np.minimum(cosines, 1)), cosines
    assert [f.kind for f in weight_faults(Trajectory((0, 100, 200, 300), *about))] == ["jump"]
    assert weight_faults(Trajectory((0, 9000, 9100, 9200), *about)) == []


def test_a_large_matrix_is_sketched_from_some_of_its_numbers() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(500, 700, generator=generator) for _ in range(2))
    found = [sketch_of({"w": weight, "b": weight[0]}) for weight in (first, first + 0.1 * second, second)]
    path = trajectory_of(dict(enumerate(found)))
    assert path.norms[0] == pytest.approx(float(first.norm()), rel=0.02)
    assert path.distances[0, 1] == pytest.approx(float(0.1 * second.norm()), rel=0.1)
    assert path.cosines[0, 2] == pytest.approx(0.0, abs=0.1)


def test_what_is_no_sketch_is_said() -> None:
    with pytest.raises(ValueError, match="expected a sketch of weights"):
        WeightSketch.from_dict({"norm": 1.0, "sketch": "AAAA"})
