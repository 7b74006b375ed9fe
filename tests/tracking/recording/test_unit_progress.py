"""Within a checkpoint every run of the model is progress, and what a unit took once is what it is expected to take."""

from pathlib import Path

from tests.tracking.recording.test_recording import CONFIG
from tracking.recording.recording import record
from tracking.training.training import train


def test_every_unit_goes_from_nothing_to_all(tmp_path: Path) -> None:
    train(CONFIG, tmp_path / "run")
    seen: list[tuple[str, int, int]] = []
    record(tmp_path / "run", tmp_path / "history", n_prompts=8, steps="0,2,4",
           progress=lambda what, done, total: seen.append((what, done, total)))  # fmt: skip
    assert {what for what, _, _ in seen} == {"recording", "repeated-tokens", "induction"}
    for unit in ("repeated-tokens", "induction"):
        own = [(done, total) for what, done, total in seen if what == unit]
        begun = [place for place, (done, _) in enumerate(own) if done == 0]
        assert len(begun) == 3
        for first, last in zip(begun, [*begun[1:], len(own)], strict=True):
            shares = [done / total for done, total in own[first:last]]
            assert shares == sorted(shares)
            assert shares[-1] == 1.0
            assert len(shares) > 2
        assert own[begun[1]][1] == own[begun[2]][1]  # the probe and a task that is not done take the same every time
