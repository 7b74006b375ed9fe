"""Recording summary: what came of every unit, as one event a checkpoint and one summary at the end.

Question: which units were measured, which were there already, which failed, and how long will the others take?
Whoever measures (`tracking.recording.checkpoint_loop`, in this process or in others) tells the ledger; nothing is added
up anywhere else.
"""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from tracking.checkpoints.weight_faults import Finding
from tracking.execution.pool import Progress

__all__ = ["Events", "Ledger", "RecordingSummary", "UnitResult", "UnitState"]

Events = Callable[[Mapping[str, Any]], None]
UnitState = Literal["done", "skipped", "failed", "changed"]


@dataclass(frozen=True)
class UnitResult:
    """What came of one unit of one checkpoint; `reason` says why it failed.  One that is `changed` is `skipped` too."""

    step: int
    unit: str
    state: UnitState
    reason: str = ""


@dataclass(frozen=True)
class RecordingSummary:
    """What one call of `record` did, by (step, task).

    `failed` adds the reason.  `changed` names what was recorded earlier from other weights than the checkpoint holds
    now; it is left as it was.  `faults` are of the whole history: checkpoints that do not belong where they stand.
    """

    folder: str
    done: tuple[tuple[int, str], ...] = ()
    skipped: tuple[tuple[int, str], ...] = ()
    failed: tuple[tuple[int, str, str], ...] = ()
    changed: tuple[tuple[int, str], ...] = ()
    faults: tuple[Finding, ...] = ()


class Ledger:
    """The results of one recording so far.

    Args:
        units: names of all units in order, for the order of the summary.
        counted: how many units of a checkpoint progress counts.
        total: checkpoints in all.
        progress: called with ("recording", units that are over, units).
        events: called once a checkpoint; the same is a line of the history's own log.
    """

    def __init__(
        self, folder: Path, units: Sequence[str], *, counted: int, total: int, progress: Progress, events: Events
    ) -> None:
        self.folder = folder
        self.order: dict[str, int] = {unit: place for place, unit in enumerate(units)}
        self.total = total
        self.counted = counted
        self.progress = progress
        self.events = events
        self.results: list[UnitResult] = []
        self.checkpoints: int = 0
        self.units: int = 0
        self.begun: float = time.monotonic()

    def show(self, units_over: int = 0) -> None:
        """So many more units are over."""
        self.units += units_over
        self.progress("recording", self.units, self.total * self.counted)

    def checkpoint_over(self, step: int, results: Sequence[UnitResult]) -> None:
        """All units of a checkpoint are over."""
        self.results += results
        self.checkpoints += 1
        seconds = time.monotonic() - self.begun

        def named(state: UnitState) -> list[str]:
            return [result.unit for result in results if result.state == state]

        event = {
            "event": "checkpoint",
            "step": step,
            "done": named("done"),
            "skipped": named("skipped"),
            "failed": {result.unit: result.reason for result in results if result.state == "failed"},
            "number": self.checkpoints,
            "total": self.total,
            "checkpoints_per_second": round(self.checkpoints / max(seconds, 1e-9), 3),
            "seconds_left": round(seconds / self.checkpoints * (self.total - self.checkpoints), 1),
        }
        if (event["done"] or event["failed"]) and (self.folder / "history.json").is_file():
            line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "process": os.getpid(), **event}
            with open(self.folder / "recording.jsonl", "a") as log:
                log.write(json.dumps(line) + "\n")
        self.events(event)

    def summary(self) -> RecordingSummary:
        """In order of step and unit, whoever measured what."""
        found = sorted(self.results, key=lambda result: (result.step, self.order[result.unit]))

        def of(state: UnitState) -> tuple[tuple[int, str], ...]:
            return tuple((result.step, result.unit) for result in found if result.state == state)

        failed = tuple((result.step, result.unit, result.reason) for result in found if result.state == "failed")
        return RecordingSummary(str(self.folder), of("done"), of("skipped"), failed, of("changed"))
