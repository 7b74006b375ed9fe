"""What does the recorder cost on the demo's training, at its default budget?

Run with `pytest tests/benchmarks/test_live_cost.py -s`.
"""

import time
from pathlib import Path

import pytest

from tracking.live import Recorder
from tracking.schedules import Schedule
from tracking.training import TrainingConfig, reproducible, start_state, training_step

STEPS = 400


def seconds(recorder: Recorder | None) -> float:
    config = TrainingConfig(steps=STEPS)
    with reproducible():
        state = start_state(config)
        state, loss = training_step(state, config)  # what is loaded once is loaded
        begun = time.process_time()
        for _ in range(STEPS):
            if recorder is not None:
                recorder(state.step, state.module, loss=loss)
            state, loss = training_step(state, config)
        return time.process_time() - begun


@pytest.mark.parametrize("tasks", [(), ("induction",)], ids=["scores", "scores and circuit"])
def test_the_default_budget_is_a_tenth_of_the_training(tmp_path: Path, tasks: tuple[str, ...]) -> None:
    alone = min(seconds(None) for _ in range(2))
    Recorder(tmp_path / "first")(0, start_state(TrainingConfig()).module)  # what is loaded once a process is loaded
    recorder = Recorder(tmp_path / "history", tasks=tasks, clock=time.process_time)
    watched = seconds(recorder)
    steps = recorder.history.steps
    slope = [step for step in steps if 150 <= step <= 300]
    print(
        f"\n{', '.join(tasks) or 'scores'}: alone {alone:.2f} s, with recorder {watched:.2f} s "
        f"(+{watched / alone - 1:.1%}; by its own count {recorder.pace.share:.1%}); "
        f"{len(steps)} measurements, {len(slope)} of them between steps 150 and 300: {slope}"
    )
    assert recorder.pace.share <= Schedule().budget + max(recorder.pace.costs) / recorder.pace.training
    assert watched <= 1.2 * alone  # the budget, and the noise of a shared machine
