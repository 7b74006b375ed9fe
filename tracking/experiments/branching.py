"""Branches: what a training would have become, had one thing been different from a step on.

An **exact branch** goes on from a checkpoint with the same weights, optimiser state, random state and position in the
data, changed by its interventions alone.  It is an ordinary run: its folder holds the parent's checkpoints up to the
branching (linked, not copied, where the disk can), its own from there on, the parent and the interventions in
`run.json`, and in `interventions.jsonl` when each of them began, ended, or was held back by its condition.  Beside it
stands the **control**, the same branch without the new interventions; where exactness holds it is bit for bit the
parent, and that is checked at every checkpoint they share.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from circuits.checkpoint import checkpoint_hash, copy_weights, read_weights
from circuits.files import folder_beside, write_beside
from circuits.loading import load_model, open_module
from circuits.model import Model
from tracking.checkpoints.run_files import read_run_file
from tracking.checkpoints.runs import Run
from tracking.execution.locks import held
from tracking.execution.pool import Progress
from tracking.experiments.training_hooks import StepsAround, read_log
from tracking.interventions.applying import LOG, stepping_in
from tracking.interventions.components import Donor
from tracking.interventions.conditions import MEASURES
from tracking.interventions.interventions import Intervention, check_interventions
from tracking.training.sources import loss_weights
from tracking.training.training import (
    STATE,
    TrainingConfig,
    begin_run,
    load_state,
    reproducible,
    save_state,
    start_state,
    train,
    train_held,
)

__all__ = ["Branch", "branch", "train_with"]


@dataclass(frozen=True)
class Branch:
    """A branch and its control.

    `compared` are the steps after the branching at which control and parent both have a checkpoint, and `different`
    those of them at which the weights are not the same.
    """

    run: Run
    control: Run
    parent: Run
    at: int
    interventions: tuple[Intervention, ...]
    exact: bool
    compared: tuple[int, ...]
    different: tuple[int, ...]
    firings: tuple[Mapping[str, Any], ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """What was done and whether the control is the parent."""
        what = "; ".join(map(str, self.interventions)) or "no intervention"
        said = [f"{self.run.name}: {self.parent.name} from step {self.at} on, with {what}."]
        for entry in self.firings:
            if "measured" in entry:
                said.append(f"Step {entry['step']}: {entry['event']}: {entry['measured']} ({entry['intervention']}).")
        if not self.exact:
            said.append(
                "Not exact: the checkpoint keeps no optimiser state, and branch and control began with a new one."
            )
        if not self.compared:
            said.append(f"{self.parent.name} has no checkpoint after step {self.at} that the control could be held to.")
        elif self.different:
            said.append(
                f"The control differs from {self.parent.name} from step {self.different[0]} on "
                "(another machine or version, or an inexact branch): compare the branch with the control alone."
            )
        else:
            last, n = max(self.compared), len(self.compared)
            said.append(
                f"The control is bit for bit {self.parent.name} at all {n} checkpoints after it, to step {last}."
            )
        return tuple(said)


def branch(
    run: "Run | str | Path",
    *,
    at: int,
    interventions: "Sequence[Intervention | str]" = (),
    until: int | None = None,
    out: "str | Path",
    inexact: bool = False,
    checkpoints: str | None = None,
    progress: Progress | None = None,
) -> Branch:
    """Go on from a checkpoint, changed only by the interventions; a branch that was stopped goes on.

    Args:
        at: a step of which the run keeps a checkpoint.
        interventions: values or sentences (see `tracking.interventions.interventions`); one that names no start begins
            at `at`.
        until: the last step; that of the run unless said.
        out: folder of the branch; `out/control` is the control.
        inexact: begin with a new optimiser where the checkpoint keeps no state of the old one; `run.json` then says
            `"exact": false`.
        checkpoints: which steps to keep from `at` on, if not those of the run's own schedule.
        progress: called with ("control" or "branch", step, steps).

    Raises:
        FileNotFoundError: no such run, or its checkpoint keeps no optimiser state.
        HeldError: another process writes into `out`.
        ValueError: no checkpoint at that step, the run does not say how it was trained, `out` holds something else, or
            the interventions cannot be done, or not together.

    Example::

        made = branch("runs/a", at=300, interventions=["ablate a1.h2 until 400"], out="runs/b")
        made.sentences
    """
    run, out = run if isinstance(run, Run) else Run.open(run), Path(out)
    config = _configuration(run, until, checkpoints)
    source, end = run[at].source, config.steps if until is None else until
    if end <= at:
        raise ValueError(f"expected an end after the branching at step {at}, got until {end}")
    _check_state(config, source, at, inexact)
    model = load_model(source)
    inherited = tuple(Intervention.parse(text) for text in _about(run.source).get("interventions", ()))
    new = tuple(_settled(each, at, end, model) for each in interventions)
    check_interventions([*inherited, *new], model.graph, measures=MEASURES)
    _check_options(config, [*inherited, *new])
    parent = {"run": str(Path(run.source).resolve()), "step": at, "checkpoint": checkpoint_hash(source)}
    about = {"parent": parent, "exact": (Path(source) / STATE).is_file()}

    name, folders = out.resolve().name, {"branch": out, "control": out / "control"}
    names = {"branch": replace(config, name=name), "control": replace(config, name=f"{name}-control")}
    chosen = {"branch": inherited + new, "control": inherited}

    def grow(stage: str) -> Run:
        def show(what: str, step: int, steps: int) -> None:
            if progress is not None:
                progress(stage, step, steps)

        entries = _entries(chosen[stage], about)
        with StepsAround(folders[stage] / LOG, chosen[stage], end) as around:
            return train_held(names[stage], folders[stage], until=end, around_step=around, about=entries, progress=show)

    with held(out, "branch"):
        for stage, folder in folders.items():  # before anything is trained, and the folder that was asked for first
            _begin(run, at, folder, names[stage], chosen[stage], about)
        control, made = grow("control"), grow("branch")
    compared = tuple(step for step in control.steps if step > at and step in run.steps)
    hashes = [(checkpoint_hash(run[step].source), checkpoint_hash(control[step].source)) for step in compared]
    different = tuple(step for step, (theirs, ours) in zip(compared, hashes, strict=True) if theirs != ours)
    firings = tuple(read_log(out / LOG))
    return Branch(made, control, run, at, new, about["exact"], compared, different, firings)


def train_with(
    config: TrainingConfig,
    out: "str | Path",
    interventions: "Sequence[Intervention | str]",
    *,
    until: int | None = None,
) -> Run:
    """What `train` does, with interventions from the first step on; a run that was stopped goes on.

    Raises:
        ValueError: the interventions cannot be done, or not together, or `out` holds another run.
    """
    if not interventions:
        return train(config, out, until=until)
    with reproducible():
        model = open_module(start_state(config).module)
    chosen = tuple(_settled(each, 0, config.steps, model) for each in interventions)
    check_interventions(chosen, model.graph, measures=MEASURES)
    _check_options(config, chosen)
    with held(out, "train"), StepsAround(Path(out) / LOG, chosen, config.steps) as around:
        return train_held(config, Path(out), until=until, around_step=around, about=_entries(chosen, {}))


# -- where a branch begins ----------------------------------------------------------------------------------------


def _configuration(run: Run, until: int | None, checkpoints: str | None) -> TrainingConfig:
    known = {key: value for key, value in run.hyperparameters.items() if key != "intervention"}
    try:
        config = TrainingConfig.from_dict(known)
    except ValueError as error:
        raise ValueError(f"run.json of {run.name!r} does not say how to go on with it: {error}") from error
    if not known:
        raise ValueError(
            f"{run.name!r} does not say how it was trained (no hyperparameters in run.json), so it cannot be gone on "
            "with; put tracking.interventions.applying.stepping_in around the steps of your own loop instead"
        )
    if until is not None and until > config.steps:
        if config.schedule != "constant":
            raise ValueError(f"the {config.schedule} schedule of {run.name!r} ends at step {config.steps}, got {until}")
        config = replace(config, steps=until)
    return config if checkpoints is None else replace(config, checkpoints=checkpoints)


def _check_state(config: TrainingConfig, source: str, at: int, inexact: bool) -> None:
    if not (Path(source) / STATE).is_file():
        if not inexact:
            raise FileNotFoundError(
                f"the checkpoint of step {at} keeps no optimiser state and no random state (no {STATE} in {source}), "
                "so that no exact branch can begin there; inexact=True (--inexact) begins with a new optimiser, and "
                "the branch says so"
            )
        return
    with reproducible():
        load_state(config, source)


def _settled(given: "Intervention | str", at: int, end: int, model: Model) -> Intervention:
    """With a start, and with every checkpoint and component that it leaves open."""
    each = Intervention.parse(given) if isinstance(given, str) else given
    each = replace(each, start=at) if each.start is None else each
    begin = each.window[0]
    if begin < at or begin >= end:
        raise ValueError(f"'{each}' begins at step {begin}; the branch runs from step {at} to {end}")
    if each.kind.takes_checkpoint and each.how not in each.kind.ways:
        each = replace(each, how=_located(each, model))
        with stepping_in(_copied(model), [each]):  # whether it can be done
            pass
    return each


def _copied(model: Model) -> Model:
    return open_module(deepcopy(model.module))


def _check_options(config: TrainingConfig, interventions: Sequence[Intervention]) -> None:
    """Whether every change of options gives a configuration, in the order in which they are made."""
    for each in interventions:
        if each.kind.trainer == "factors":
            loss_weights(config.sources, each.start or 0, {name: float(value or 0) for name, value in each.options})
        if each.kind.trainer == "order" and config.sources:
            raise ValueError(f"'{each}' cannot be done: data from named sources has no other order")
    setting = [each for each in interventions if each.kind.trainer == "options"]
    for number, each in enumerate(setting):
        (low, high), changed = each.window, config
        for other in [*setting[:number], each]:
            begin, last = other.window
            if max(low, begin) < min(high, last):
                try:
                    changed = TrainingConfig.from_dict({**changed.to_dict(), **dict(other.options)})
                except ValueError as error:
                    raise ValueError(f"'{each}' cannot be done: {error}") from error


def _located(each: Intervention, model: Model) -> str:
    """The checkpoint by its folder, and the component of it that is meant."""
    source = Donor.parse(each.how)
    place = str(Path(source.checkpoint).resolve())
    component = source.component
    if component is None:
        mine, *more = each.nodes(model.graph)
        if more:
            raise ValueError(f"'{each}' must name one component to take, or be said once for each component")
        component = _counterpart(model, mine.name, place)
    return f"{place}:{component}"


def _counterpart(model: Model, component: str, place: str) -> str:
    """The component of another checkpoint that is the same by what it does, as the linking layer tells."""
    from tracking.matching.matching import match

    found = match(_snapshot(model), _snapshot(load_model(place)), same_run=False)
    partner = {pair.before.name: pair.after.name for pair in found.pairs}.get(component)
    if partner is None:
        raise ValueError(f"no component of {place} is the counterpart of {component}; name one, as in {place}:a1.h0")
    return partner


def _snapshot(model: Model) -> Any:
    from tracking.checkpoints.runs import Checkpoint
    from tracking.history.history import Snapshot
    from tracking.recording.measuring import Settings, make_tasks, measure

    settings, here = Settings(), Checkpoint(0, str(model.source))
    tasks = make_tasks(settings, model)
    return Snapshot(0, None, {unit: measure(unit, model, tasks, settings, here, {}) for unit in settings.units})


def _entries(chosen: Sequence[Intervention], about: Mapping[str, Any]) -> dict[str, Any]:
    specs = [each.spec for each in chosen]
    entries: dict[str, Any] = {**about, "interventions": specs}
    entries["hyperparameters"] = {"intervention": "; ".join(specs) or "none"}
    if any("batch_size" in dict(each.options) for each in chosen):
        entries["tokens_per_step"] = None
    return entries


def _begin(
    run: Run, at: int, folder: Path, config: TrainingConfig, chosen: Sequence[Intervention], about: Mapping[str, Any]
) -> None:
    """`run.json`, and the parent's checkpoints and logs up to the branching, where they are not there yet."""
    asked = json.loads(json.dumps(_entries(chosen, about)))
    if (folder / "run.json").is_file():
        known = _about(folder)
        for key in ("parent", "interventions", "exact"):
            if known.get(key) != asked[key]:
                there, here = (_said(key, entries.get(key)) for entries in (known, asked))
                raise ValueError(f"{folder} holds {there}, and this is {here}; choose another folder")
    begin_run(config, folder, asked)
    for checkpoint in run.checkpoints:
        place = folder / "checkpoints" / f"step{checkpoint.step:06d}"
        if checkpoint.step <= at and not place.is_dir():
            _link(Path(checkpoint.source), place)
    place = folder / "checkpoints" / f"step{at:06d}"
    if not (place / STATE).is_file():
        _new_state(config, at, place)
    for name, entries in (("log.jsonl", run.log), (LOG, read_log(Path(run.source) / LOG))):
        if not (folder / name).is_file():
            lines = [json.dumps(entry) + "\n" for entry in entries if entry["step"] < at]
            write_beside(folder / name, "".join(lines).encode())


def _said(key: str, value: Any) -> str:
    """One entry of `run.json`, in words."""
    if key == "parent":
        return f"a branch of {value['run']} at step {value['step']}" if value else "a run that is no branch"
    if key == "interventions":
        return f"a branch with {'; '.join(value or ()) or 'no intervention'}"
    return "an exact branch" if value else "an inexact branch"


def _link(source: Path, place: Path) -> None:
    def link(first: str, second: str) -> None:
        try:
            os.link(first, second)
        except OSError:
            shutil.copy2(first, second)

    with folder_beside(place) as beside:
        shutil.copytree(source, beside, copy_function=link)


def _new_state(config: TrainingConfig, at: int, place: Path) -> None:
    """The checkpoint again, with the state of an optimiser that has seen nothing."""
    with reproducible():
        state = start_state(config)
        copy_weights(state.module, read_weights(place), place)
        save_state(replace(state, step=at), config.model, place)


def _about(folder: "str | Path") -> Mapping[str, Any]:
    try:
        return msgspec.to_builtins(read_run_file(folder))
    except ValueError as error:
        raise ValueError(f"{error}; choose another folder") from error
