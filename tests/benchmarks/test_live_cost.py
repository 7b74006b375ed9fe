"""What does the recorder cost on the demo's training, at its default budget?

Two trainings go on side by side, the one with a recorder and the other without, in turns of a few steps, so that what
else the machine does falls on both; the cost is the ratio of their CPU times.

Run with `pytest tests/benchmarks/test_live_cost.py -s`.
"""

import time
from pathlib import Path

import pytest

from tracking.recording.live import Recorder
from tracking.training.training import TrainingConfig, TrainingState, reproducible, start_state, training_step

STEPS, TURN = 600, 10


class Side:
    """One of the two trainings, and the CPU seconds that it alone has taken."""

    def __init__(self) -> None:
        self.config = TrainingConfig()
        self.state, self.loss = start_state(self.config), float("nan")
        self.before: float = 0.0
        self.begun: float | None = None

    def seconds(self) -> float:
        return self.before + (0.0 if self.begun is None else time.process_time() - self.begun)

    def go(self, recorder: Recorder | None = None) -> None:
        self.begun = time.process_time()
        for _ in range(TURN):
            if recorder is not None:
                recorder(self.state.step, self.state.module, loss=self.loss)
            self.state, losses = training_step(self.state, self.config)
            self.loss = losses.whole
        self.before, self.begun = self.seconds(), None


def weights(state: TrainingState) -> list[float]:
    return [float(weight.double().sum()) for weight in state.module.parameters()]


@pytest.mark.parametrize(
    ("tasks", "method"),
    [((), "eap-ig"), (("induction",), "eap"), (("induction",), "eap-ig")],
    ids=["scores", "circuit by EAP", "circuit by EAP-IG"],
)
def test_the_default_budget_is_a_tenth_of_the_training(tmp_path: Path, tasks: tuple[str, ...], method: str) -> None:
    Recorder(tmp_path / "first")(0, start_state(TrainingConfig()).module)  # what is loaded once a process is loaded
    with reproducible():
        alone, watched = Side(), Side()
        recorder = Recorder(tmp_path / "history", tasks=tasks, method=method, clock=watched.seconds)
        training_step(start_state(alone.config), alone.config)  # what is loaded once is loaded
        for _ in range(STEPS // TURN):
            alone.go()
            watched.go(recorder)
    assert weights(alone.state) == weights(watched.state)
    steps = recorder.history.steps
    slope = [step for step in steps if 150 <= step <= 300]
    ratio = watched.seconds() / alone.seconds()
    print(
        f"\n{', '.join(tasks) or 'scores'} ({method}): alone {alone.seconds():.2f} s, with {watched.seconds():.2f} s "
        f"({ratio - 1:+.1%}; by its own count {recorder.pace.share:.1%}); "
        f"{len(steps)} measurements, {len(slope)} of them between steps 150 and 300: {slope}"
    )
    assert ratio <= 1.1
