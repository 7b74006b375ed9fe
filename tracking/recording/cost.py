"""Recording cost: what a recording will take, told before anything is measured.

Question: how many passes, how much time, memory and disk?  One checkpoint is read and one forward pass over a batch of
a task's prompts is timed on this machine; everything else follows from counts.  A **pass** is one forward pass over all
prompts of a unit; a backward pass counts as two.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracking.checkpoints.hub import Downloads
from tracking.checkpoints.runs import Run
from tracking.history.records import settings_digest
from tracking.recording.checkpoint_loop import stands
from tracking.recording.measuring import Settings
from tracking.recording.model_slot import ModelSlot
from tracking.recording.unit_progress import passes_of

if TYPE_CHECKING:
    from circuits.model import Model

__all__ = ["RecordingCost", "recording_cost"]

BATCH = 16
EDGE_BYTES, RECORD_BYTES = 25, 16_000
"""On disk, of one edge with its error and eight folds, and of a record beside its edges."""


@dataclass(frozen=True)
class RecordingCost:
    """What is left to be measured, and what that takes.

    Attributes:
        checkpoints: of which something is missing.
        missing: records that are missing, by unit.
        passes: over all prompts of a unit, for one checkpoint.
        seconds: of one checkpoint, by unit, on this machine.
        reading: seconds that reading a checkpoint into the model takes.
        memory: bytes of one process.
        disk: bytes that the history grows by.
    """

    checkpoints: int
    missing: Mapping[str, int]
    passes: Mapping[str, float]
    seconds: Mapping[str, float]
    reading: float
    memory: int
    disk: int

    @property
    def total_seconds(self) -> float:
        """Of the whole recording by one process."""
        return self.checkpoints * self.reading + sum(n * self.seconds[unit] for unit, n in self.missing.items())

    def sentences(self) -> list[str]:
        """One line a unit, and the sums."""
        lines = [
            f"{unit}: {self.missing[unit]} of its records are missing, about {self.passes[unit]:.0f} passes and "
            f"{_duration(self.seconds[unit])} each"
            for unit in self.passes
        ]
        return [
            *lines,
            f"together: {self.checkpoints} checkpoints, about {_duration(self.total_seconds)} by one process at the "
            f"speed of this machine now, {_size(self.memory)} of memory, {_size(self.disk)} of disk",
        ]


def recording_cost(run: Run, out: "str | Path", settings: Settings, **how: Any) -> RecordingCost:
    """What it takes to record a run into a folder.

    Args:
        how: `device`, `threads` and `config`, as `record` takes them.

    Raises:
        ValueError: no checkpoint can be read, or a task does not suit the model.
    """
    place, made = Path(out), settings_digest(settings.to_dict())
    missing = {unit: sum(not stands(place, step, unit, settings=made) for step in run.steps) for unit in settings.units}
    slot = ModelSlot(settings, **how)
    with closing(Downloads(place, None)) as downloads:
        model, reading = _first_model(run, slot, downloads)
    slot.begin(model)
    passes = {unit: passes_of(unit, model, settings) for unit in settings.units}
    tokens = {name: task.clean.shape[1] for name, task in slot.tasks.items()}
    slowest = max(tokens, key=lambda name: tokens[name])
    task = slot.tasks[slowest]
    spent = _timed(lambda: model.logits(task.clean[:BATCH]))
    a_token = spent / (len(task.clean[:BATCH]) * tokens[slowest])
    length = {unit: tokens.get(unit, max(tokens.values())) for unit in settings.units}
    seconds = {unit: passes[unit] * settings.n_prompts * length[unit] * a_token for unit in settings.units}
    weights = sum(weight.numel() * weight.element_size() for weight in model.module.parameters())
    writes = len(model.graph.writers) * BATCH * max(tokens.values()) * model.d_model * 4
    edges = sum(missing[name] for name in settings.tasks) * model.graph.n_edges
    disk = EDGE_BYTES * edges + RECORD_BYTES * sum(missing.values())
    return RecordingCost(max(missing.values()), missing, passes, seconds, reading, 2 * weights + 3 * writes, disk)


def _first_model(run: Run, slot: ModelSlot, downloads: Downloads) -> "tuple[Model, float]":
    """A model of the first checkpoint that can be read, and the seconds it took to fill it again."""
    reason = ""
    for checkpoint in run.checkpoints:
        try:
            begun = time.perf_counter()
            reading = slot.read(checkpoint, weights=True, downloads=downloads)
            read = time.perf_counter() - begun
            model = slot.load(reading, None)
            begun = time.perf_counter()
            if reading.loaded is not None:
                model.swap_weights(reading.loaded.weights)
            return model, read + time.perf_counter() - begun
        except (ValueError, OSError) as error:
            reason = reason or str(error)
    raise ValueError(f"none of the {len(run)} checkpoints of {run.name!r} can be read: {reason}")


def _timed(work: Callable[[], Any]) -> float:
    """Seconds of the second of two times: the first also warms up."""
    for _ in range(2):
        begun = time.perf_counter()
        work()
    return time.perf_counter() - begun


def _duration(seconds: float) -> str:
    """
    >>> _duration(0.04), _duration(75.0), _duration(8000.0)
    ('0.04 s', '75 s', '2.2 h')
    """
    if seconds < 120:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _size(n_bytes: int) -> str:
    """
    >>> _size(2_400_000), _size(3_100_000_000)
    ('2.4 MB', '3.1 GB')
    """
    return f"{n_bytes / 1e6:.2g} MB" if n_bytes < 1e9 else f"{n_bytes / 1e9:.2g} GB"
