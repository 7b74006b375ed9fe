"""Runs: what was trained, with which hyperparameters, and where its checkpoints lie.

A **run** is a series of checkpoints of one training.  On disk it is a folder: `run.json` (name, hyperparameters, tokens
per step, model), `log.jsonl` (one line a logged step: step, tokens, loss, ...) and `checkpoints/` with one folder or
file for each checkpoint, whose name holds its step.  A plain folder of checkpoints, or a single checkpoint, is a run
too, and so are the revisions of a model on the hub.  The step is read from the name, or from what the checkpoint says
of itself where its name says nothing, and can be corrected.  Nothing here reads weights.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from circuits.decoding import whole_text
from circuits.formats import facts_inside, holds_weights, is_weight_file
from tracking.checkpoints.beside import curves_beside, hyperparameters_beside
from tracking.checkpoints.hub import is_hub_id, revisions
from tracking.checkpoints.names import (
    Checkpoint,
    Fork,
    Stage,
    in_one_path,
    known_series,
    parse_step,
    read_name,
    says_step,
    variants_of,
)
from tracking.checkpoints.run_files import RunFile, read_log, read_run_file

__all__ = ["Checkpoint", "NoSuchStepError", "Run", "in_order", "parse_step", "select_steps"]

StepOf = Callable[[str], int | None]
LOOKED_FOR = "folders or files named with their step, such as checkpoint-500, step1000 or global_step20.pt"


class NoSuchStepError(KeyError, ValueError):
    """There is nothing at that step; says which steps are nearest.

    >>> print(NoSuchStepError("checkpoint", 350, (0, 300, 400), "run 'small'"))
    no checkpoint at step 350 of run 'small'; the nearest are 300 and 400
    """

    def __init__(self, what: str, step: int, known: Sequence[int], where: str = "") -> None:
        self.step = step
        near = " and ".join(map(str, sorted(sorted(known, key=lambda other: abs(other - step))[:2])))
        of = f" of {where}" if where else ""
        super().__init__(f"no {what} at step {step}{of}; the nearest {'are' if 'and' in near else 'is'} {near}")

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Run:
    """One training: its checkpoints in order of step, its hyperparameters, and its log.

    `model` is the architecture as `run.json` tells it (empty where it does not); each entry of `log` has at least
    `step`.  `stages` are its parts in order, empty where it has one; `step_unit` is what its steps count where that is
    something else (`tokens`, `words`, `checkpoints`); `parent` is the run that it is up to a step.
    """

    name: str
    checkpoints: tuple[Checkpoint, ...]
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    tokens_per_step: float | None = None
    model: Mapping[str, Any] = field(default_factory=dict)
    log: tuple[Mapping[str, Any], ...] = ()
    source: str = ""
    stages: tuple[Stage, ...] = ()
    variant: str | None = None
    step_unit: str = "steps"
    parent: Fork | None = None

    def __repr__(self) -> str:
        steps = self.steps
        span = f"{len(steps)} checkpoints from step {steps[0]} to {steps[-1]}" if steps else "no checkpoint"
        return f"<Run {self.name}: {span}{f', in {self.source}' if self.source else ''}>"

    @staticmethod
    def open(
        source: "str | Path",
        *,
        steps: str = "all",
        step_pattern: str | None = None,
        steps_per_checkpoint: int = 1,
        tokens_per_step: float | None = None,
        variant: str | None = None,
        stage: str | None = None,
    ) -> "Run":
        """The run in a folder (with or without `run.json`), that of a single checkpoint, or that of a hub id.

        Args:
            steps: which checkpoints (see `select_steps`).
            step_pattern: regular expression whose first group is the step in a checkpoint's name; names that it does
                not match are left out.
            steps_per_checkpoint: what to multiply the number in a name by, where it counts checkpoints.
            tokens_per_step: in place of what `run.json` and the names say.
            variant: which of several runs under one name (`seed-default`, `ingredient1`), where there are several.
            stage: one stage alone, by its own count of steps, and not all of them as one run.

        Raises:
            FileNotFoundError: there is no such folder, or it holds no checkpoint.
            ValueError: `steps` asks for a step that is not there, two checkpoints have one step, `run.json` is
                damaged, the pattern cannot be read, or no such stage or variant; the message names those there are.
        """
        found = _find(source, _step_reader(step_pattern, steps_per_checkpoint), tokens_per_step)
        return _of_variant(found, stage, variant).select(steps)

    @staticmethod
    def open_variants(source: "str | Path", *, stage: str | None = None, **options: Any) -> "tuple[Run, ...]":
        """Every run under one name: one for each variant, or the only one; options as in `open`.

        Where all have checkpoints in common, their parent is the run of that name up to the last of these.
        """
        pattern, scale = options.pop("step_pattern", None), options.pop("steps_per_checkpoint", 1)
        steps = options.pop("steps", "all")
        found = _find(source, _step_reader(pattern, scale), options.pop("tokens_per_step", None))
        known = variants_of(found.checkpoints) or (None,)
        runs = [_of_variant(found, stage, variant) for variant in known]
        common = [c.step for c in runs[0].checkpoints if c.variant is None] if len(runs) > 1 else []
        fork = Fork(found.name, max(common)) if common else None
        return tuple(replace(run, parent=fork or run.parent).select(steps) for run in runs)

    @property
    def steps(self) -> tuple[int, ...]:
        return tuple(checkpoint.step for checkpoint in self.checkpoints)

    def select(self, steps: str) -> "Run":
        """The same run with the checkpoints that `steps` asks for (see `select_steps`)."""
        try:
            chosen = set(select_steps(self.steps, steps))
        except NoSuchStepError as error:
            raise NoSuchStepError("checkpoint", error.step, self.steps, f"run {self.name!r}") from error
        except ValueError as error:
            raise ValueError(f"{error} (run {self.name!r})") from error
        return replace(self, checkpoints=tuple(c for c in self.checkpoints if c.step in chosen))

    def __getitem__(self, step: int) -> Checkpoint:
        """The checkpoint of a step.

        Raises:
            ValueError: there is none; the message names the nearest.
        """
        for checkpoint in self.checkpoints:
            if checkpoint.step == step:
                return checkpoint
        raise NoSuchStepError("checkpoint", step, self.steps, f"run {self.name!r}")

    def __len__(self) -> int:
        return len(self.checkpoints)


def select_steps(available: Iterable[int], wanted: str) -> tuple[int, ...]:
    """The steps that a selection asks for, in order.

    `all`; a list, `0,1000,5000`; a range, `100..900`, open at either end, with a stride, `0..900:100`; `first:5` and
    `last:5`; `log:20` and `linear:20`, that many spread evenly in log step or in step, the first and last included.
    Commas join selections.

    >>> select_steps(range(0, 1000, 100), "0,300..500,last:1")
    (0, 300, 400, 500, 900)
    >>> select_steps([0, 1, 2, 4, 8, 16, 32, 64], "log:4")
    (0, 1, 8, 64)

    Raises:
        ValueError: a step is not there (the message names the nearest), or the selection cannot be read.
    """
    known = tuple(sorted(set(available)))
    chosen: set[int] = set()
    for part in (part.strip() for part in wanted.split(",")):
        if part == "all":
            chosen.update(known)
        elif part.isdigit():
            if int(part) not in known:
                raise NoSuchStepError("checkpoint", int(part), known)
            chosen.add(int(part))
        elif match := re.fullmatch(r"(first|last|log|linear):(\d+)", part):
            chosen.update(_some(known, match[1], int(match[2])))
        elif match := re.fullmatch(r"(\d*)\.\.(\d*)(?::(\d+))?", part):
            low, high = int(match[1] or 0), int(match[2]) if match[2] else known[-1]
            inside = {s for s in known if low <= s <= high and (s - low) % max(int(match[3] or 1), 1) == 0}
            if not inside:
                raise ValueError(f"no checkpoint has a step in {part}; there are steps from {known[0]} to {known[-1]}")
            chosen.update(inside)
        else:
            raise ValueError(
                f"cannot read the steps {part!r}; expected all, a list such as 0,1000,5000, a range such as 100..900, "
                "first:5, last:5, log:20, linear:20, or auto alone"
            )
    return tuple(sorted(chosen))


def _some(known: tuple[int, ...], how: str, count: int) -> list[int]:
    if count < 1:
        raise ValueError(f"expected to select at least one step, got {how}:{count}")
    if count >= len(known):
        return list(known)
    if how in ("first", "last"):
        return list(known[:count] if how == "first" else known[-count:])
    from scipy.optimize import linear_sum_assignment

    zero = [0] if how == "log" and known[0] == 0 and count > 1 else []
    places = np.array([step for step in known if step not in zero], dtype=float)
    at = np.log(places) if how == "log" and places[0] > 0 else places
    targets = np.linspace(at[0], at[-1], count - len(zero)) if count - len(zero) > 1 else at[-1:]
    _, nearest = linear_sum_assignment((targets[:, None] - at[None, :]) ** 2)
    return zero + [int(places[i]) for i in nearest]


def _step_reader(pattern: str | None, scale: int) -> StepOf:
    if scale < 1:
        raise ValueError(f"expected steps_per_checkpoint from 1 on, got {scale}")
    try:
        compiled = re.compile(pattern) if pattern is not None else None
    except re.error as error:
        raise ValueError(f"cannot read the step_pattern {pattern!r}: {error}") from error
    if compiled is not None and compiled.groups != 1:
        raise ValueError(f"expected a step_pattern with one group, such as 'model_(\\d+)', got {pattern!r}")

    def step_of(name: str) -> int | None:
        if compiled is None:
            step = parse_step(name)
        else:
            match = compiled.search(name)
            step = int(match[1]) if match and match[1].isdigit() else None
        return None if step is None else step * scale

    return step_of


def _find(source: "str | Path", step_of: StepOf, tokens_per_step: float | None) -> Run:
    """Everything under one name, in no order yet: several variants, and stages each by its own count."""
    place = Path(source)
    if is_hub_id(str(source)):
        series = known_series(str(source))
        per_step = tokens_per_step or (series.tokens_per_step if series else None)
        return Run(
            str(source),
            _hub_checkpoints(str(source), step_of),
            dict(series.hyperparameters) if series else {},
            None if per_step is None else float(per_step),
            source=str(source),
            step_unit=series.unit if series else "steps",
        )
    if not place.exists():
        raise FileNotFoundError(f"no such folder: {place}; expected a run, or a folder of checkpoints")
    about = read_run_file(place) if place.is_dir() else RunFile()
    per_step = about.tokens_per_step
    found = _find_checkpoints(place, step_of)
    if tokens_per_step is not None:
        per_step = float(tokens_per_step)
        found = tuple(replace(checkpoint, tokens=None) for checkpoint in found)
    units = {read_name(checkpoint.name).unit for checkpoint in found}
    return Run(
        name=about.name or whole_text(place.resolve().name),
        checkpoints=found,
        hyperparameters=about.hyperparameters or hyperparameters_beside(place),
        tokens_per_step=per_step,
        model=about.model,
        log=read_log(place) or tuple(curves_beside(place)),
        source=str(place),
        step_unit=units.pop() if len(units) == 1 else "steps",
        parent=_parent_of(about),
    )


def _parent_of(about: RunFile) -> Fork | None:
    """The run that `run.json` says this one parted from, by its folder's name."""
    told = about.parent if isinstance(about.parent, Mapping) else {}
    if not (isinstance(told.get("run"), str) and isinstance(told.get("step"), int)):
        return None
    place = Path(told["run"])
    try:
        return Fork(read_run_file(place).name or place.name, told["step"])
    except ValueError:
        return Fork(place.name, told["step"])


def _of_variant(found: Run, stage: str | None, variant: str | None) -> Run:
    """One run of those under a name: one variant, its stages on one path."""
    chosen, known = found.checkpoints, variants_of(found.checkpoints)
    if variant is not None and variant not in known:
        raise ValueError(f"{found.name} has no variant {variant!r}; it has {', '.join(known) or 'none'}")
    if len(known) > 1 and variant is None:
        raise ValueError(
            f"{found.name} holds {len(known)} runs, {', '.join(known)}; take one with variant= (--variant {known[0]}), "
            "or each as a run of its own with --variant all"
        )
    if variant is not None:
        chosen = tuple(c for c in chosen if c.variant in (None, variant))
    if stage is not None:
        stages = [each.name for each in in_one_path(chosen)[1]]
        if stage not in stages:
            raise ValueError(f"{found.name} has no stage {stage!r}; it has {', '.join(stages) or 'none'}")
        chosen = tuple(
            replace(c, stage=None) for c in chosen if c.stage == stage or (c.stage is None and stage == stages[0])
        )
    path, stages = in_one_path(chosen, tokens_per_step=found.tokens_per_step)
    name = found.name if variant is None or len(known) < 2 else f"{found.name} {variant}"
    checkpoints = in_order(path, found.source or found.name)
    return replace(found, name=name, checkpoints=checkpoints, stages=stages, variant=variant)


def _hub_checkpoints(repository: str, step_of: StepOf) -> tuple[Checkpoint, ...]:
    """The revisions whose names tell a step, and only such as are named for it (`v1.0` and dates are not)."""
    names = revisions(repository)
    steps = [
        (name, step_of(name)) for name in names if step_of(name) is not None and not re.match(r"v?\d+[.-]\d", name)
    ]
    found = [_named(step, repository, name, revision=name) for name, step in steps if step is not None]
    if not found:
        raise FileNotFoundError(
            f"{repository} has no revision named with its step; it has {', '.join(names[:5])}; step_pattern= may tell"
        )
    return tuple(found)


def _named(step: int, source: str, name: str, *, revision: str | None = None) -> Checkpoint:
    about = read_name(name)
    return Checkpoint(step, source, about.tokens, revision, about.stage, None, about.variant)


def _find_checkpoints(place: Path, step_of: StepOf) -> tuple[Checkpoint, ...]:
    folder = place / "checkpoints" if (place / "checkpoints").is_dir() else place
    found = _dated(folder, step_of) if folder.is_dir() else []
    if not found and (place.is_file() or (holds_weights(place) and folder == place)):
        step = step_of(place.name)
        step = facts_inside(place).get("step", 0) if step is None else step
        return (_named(step, str(place), place.name),)
    if not found:
        names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
        there = f"it holds {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}" if names else "it is empty"
        raise FileNotFoundError(f"no checkpoints in {folder}: expected {LOOKED_FOR}; {there}")
    return tuple(found)


def in_order(found: Iterable[Checkpoint], where: str) -> tuple[Checkpoint, ...]:
    """Checkpoints by step.

    Raises:
        ValueError: two of them have one step.
    """
    by_step: dict[int, Checkpoint] = {}
    for checkpoint in sorted(found, key=lambda checkpoint: (checkpoint.step, checkpoint.name)):
        if (other := by_step.setdefault(checkpoint.step, checkpoint)) is not checkpoint:
            raise ValueError(
                f"two checkpoints in {where} have step {checkpoint.step}: {other.name} and {checkpoint.name}; move one "
                "of them elsewhere, or tell them apart by step_pattern"
            )
    return tuple(by_step.values())


def _dated(folder: Path, step_of: StepOf) -> list[Checkpoint]:
    """Entries that are checkpoints by their name alone, or by a number in their name and weights inside."""
    found = []
    for entry in folder.iterdir():
        step = step_of(entry.name)
        if step is None or entry.name.startswith(".") or entry.name.endswith(".part"):
            continue
        a_folder = entry.is_dir() and (says_step(entry.name) or holds_weights(entry))
        a_file = entry.is_file() and is_weight_file(entry) and not re.search(r"-of-\d+|mp_rank", entry.name)
        if a_folder or a_file:
            found.append(_named(step, str(entry), entry.name))
    return found
