"""Forks: runs that are one up to a step, and the histories of those that go on from another's checkpoint.

Question: where do two histories part, and how does a run that begins from a checkpoint of another (fine-tuning, an
adapter, another mixture of data) go on with its history?  ::

    trunk    0 ──── 1000 ──── 2000 ──── 3000
    branch                      └────── 2500 ──── 3000

Up to the fork both are the same weights.  After it a component is still the same component: it has the same place in
the same model, whatever it does there.
"""

import os
from dataclasses import replace
from pathlib import Path

from circuits.files import write_beside
from tracking.checkpoints.names import FIRST, Fork, Stage
from tracking.checkpoints.runs import NoSuchStepError, Run
from tracking.history.history import History

__all__ = ["copy_records", "going_on", "parent_and_step", "parted_at"]


def parted_at(first: History, second: History) -> int | None:
    """The last step up to which two histories are of the same weights; None where they never were in training.

    Hashes of the checkpoints tell it; where there are none, what the histories say of their parents.  Equal weights at
    step 0 alone are one initialisation and no common history.
    """
    last = None
    for step in sorted({*first.steps} & {*second.steps}):
        hashes = [_hash_at(history, step) for history in (first, second)]
        if None in hashes:
            continue
        if hashes[0] != hashes[1]:
            return last or None
        last = step
    return _declared(first, second) if last is None else last or None


def _hash_at(history: History, step: int) -> str | None:
    told = (record.provenance.get("hash") for (at, _), record in history.records.items() if at == step)
    return next((str(digest) for digest in told if digest), None)


def _declared(first: History, second: History) -> int | None:
    if first.parent is not None and second.parent is not None and first.parent.parent == second.parent.parent:
        return min(first.parent.step, second.parent.step)
    for one, other in ((first, second), (second, first)):
        if one.parent is not None and one.parent.parent == other.name:
            return one.parent.step
    return None


def parent_and_step(text: str) -> tuple[Path, int]:
    """`HISTORY@STEP` in parts.

    Raises:
        ValueError: it is not of that form.
    """
    folder, at, step = text.rpartition("@")
    if not (at and folder and step.isdigit()):
        raise ValueError(f"expected a parent such as base-history@143000, a history's folder and a step, got {text!r}")
    return Path(folder), int(step)


def going_on(run: Run, trunk: History, step: int) -> Run:
    """The run with its steps, tokens and stages counted on from a step of its parent's history.

    Its own step 0 is the parent's checkpoint, and left out.

    Raises:
        NoSuchStepError: the parent has no such step.
        ValueError: nothing of the run comes after it.
    """
    if step not in trunk.steps:
        raise NoSuchStepError("snapshot", step, trunk.steps, f"history {trunk.name!r}")
    seen = trunk.tokens[step]
    own = [c for c in run.checkpoints if c.step > 0]
    if not own:
        raise ValueError(f"{run.name!r} has no checkpoint after step 0, which is its parent's step {step}")
    stages = [replace(each, last_step=min(each.last_step, step)) for each in trunk.stages if each.first_step <= step]
    stages = stages or [Stage(FIRST, trunk.steps[0], step)]
    shifted = [replace(each, **{name: getattr(each, name) + step for name in ("first_step", "last_step", "begins")})
               for each in run.stages]  # fmt: skip
    stages += shifted or [Stage(run.name, own[0].step + step, own[-1].step + step, step)]
    checkpoints = tuple(
        replace(
            c,
            step=c.step + step,
            tokens=None if seen is None or c.tokens is None else c.tokens + seen,
            stage=c.stage or run.name,
            stage_step=c.step if c.stage_step is None else c.stage_step,
        )
        for c in own
    )
    return replace(
        run,
        checkpoints=checkpoints,
        hyperparameters={**trunk.hyperparameters, **run.hyperparameters},
        log=tuple({**entry, "step": entry["step"] + step} for entry in run.log if entry["step"] > 0),
        stages=tuple(stages),
        parent=Fork(trunk.name, step),
    )


def copy_records(source: Path, folder: Path, *, steps: "set[int]") -> None:
    """The records of some steps in another history's folder: linked, so that they are on disk once, where it can."""
    for file in sorted((source / "records").glob("[!.]*.safetensors")):
        target = folder / "records" / file.name
        if int(file.name.partition(".")[0]) not in steps or target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file, target)
        except OSError:  # another disk, or one without links
            write_beside(target, file.read_bytes())
