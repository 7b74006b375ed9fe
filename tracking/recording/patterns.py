"""Recording attention patterns: on request, where every head looks on a few prompts, kept to be looked at.

Of the first task the longest prompts of at most `MOST` tokens are taken, or the beginnings of longer ones.  This is a
pass of its own over the checkpoints that are recorded, whoever recorded them; what is there is not done again.
"""

import logging
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tracking.checkpoints.hub import Downloads
from tracking.checkpoints.runs import Run
from tracking.history.patterns import Patterns, patterns_place, write_patterns
from tracking.recording.model_slot import ModelSlot

if TYPE_CHECKING:
    from circuits.model import Model
    from circuits.tasks.task import Task

__all__ = ["patterns_of", "record_patterns"]

log: logging.Logger = logging.getLogger(__name__)
MOST = 32
"""Tokens of a prompt that are kept."""


def record_patterns(run: Run, folder: Path, slot: ModelSlot, *, n_prompts: int) -> None:
    """Keep the patterns of every checkpoint of a run; one that cannot be read is left out, as its records say."""
    with closing(Downloads(folder, None)) as downloads:
        for checkpoint in run.checkpoints:
            if patterns_place(folder, checkpoint.step).is_file():
                continue
            try:
                model = slot.load(slot.read(checkpoint, weights=True, downloads=downloads), None)
            except (ValueError, OSError) as error:
                log.warning("no attention patterns of step %d: %s", checkpoint.step, error)
                continue
            if not slot.tasks:
                slot.begin(model)
            task = next(iter(slot.tasks.values()))
            write_patterns(folder, checkpoint.step, patterns_of(model, task, n_prompts=n_prompts))


def patterns_of(model: "Model", task: "Task", *, n_prompts: int) -> Patterns:
    """The attention of every head on those prompts of a task that are longest and still fit."""
    chosen = task.lengths.where(task.lengths > MOST, -task.lengths).argsort(stable=True)[:n_prompts]
    length = min(int(task.lengths[chosen].min()), MOST)
    tokens = task.clean[chosen, :length]
    shares = model.attention(tokens).float().cpu().numpy()
    rounded = np.rint(255 * np.moveaxis(shares, 2, 0)).astype(np.uint8)
    return Patterns(rounded, tokens.cpu().numpy(), _words(model, tokens.tolist()))


def _words(model: "Model", rows: list[list[int]]) -> tuple[tuple[str, ...], ...]:
    """Tokens as text where the model has a tokenizer, as numbers otherwise."""
    try:
        tokenizer = model.tokenizer
    except ValueError:
        return tuple(tuple(map(str, row)) for row in rows)
    return tuple(tuple(str(tokenizer.decode([token])) for token in row) for row in rows)
