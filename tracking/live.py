"""How is a history recorded from inside somebody else's training loop, without touching the training?

    with Recorder("histories/mine") as recorder:
        for step, batch in enumerate(batches):
            recorder(step, model, loss=loss)
            ...

Every call decides whether this step is worth measuring (`tracking.schedules`).  What is measured is a copy: the first
call makes one, in evaluation mode and without hooks and gradients, and later calls write the current weights into it.
So the training's weights, gradients, modes, hooks and random states are never touched, and training gives bit for bit
the same weights with and without a recorder.  The records are those of `tracking.recording`, in an ordinary history.

A training that was stopped and goes on may call with steps that were recorded already: where the weights are the same
the record stands; where they are not, everything from that step on is set aside, in a folder beside the records.
"""

import copy
import hashlib
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from circuits.model import open_module, save_module
from circuits.transformer import Model
from tracking.history import History, create_history
from tracking.interventions import Intervention
from tracking.measuring import PROBE, Settings, make_tasks, measure
from tracking.records import Record, write_record
from tracking.runs import Checkpoint
from tracking.schedules import Pace, Schedule
from tracking.standins import measured_under

__all__ = ["Recorder", "Sink"]

LOADED = ("circuits.heads", "circuits.discovery", "circuits.tasks.registry", "tracking.measuring")
Sink = Callable[[int, Mapping[str, float]], None]
"""Takes the step and numbers by name; called in order of step."""


@dataclass(frozen=True)
class State:
    """The weights of one step, copied."""

    step: int
    tokens: float | None
    weights: Mapping[str, Tensor]


class Recorder:
    """Records a history from inside a training loop; call it once a step.

    Args:
        folder: of the history; one that this recorder began goes on.
        tasks: tasks whose circuit is found at every measurement; by default only head scores and losses are measured,
            which takes a few milliseconds on a small model.
        name: of the run; that of the folder unless said.
        n_prompts, seed: the prompts, the same at every step.
        schedule: how often to measure; `Schedule(budget=0.1)` takes at most a tenth of the training's own time.
        checkpoints: a folder, into which the weights are saved where something moved.
        sinks: where to send the numbers besides (`tracking.sinks`).
        hyperparameters: of the run, for comparing runs.
        tokens_per_step: to tell the tokens seen, where calls do not.
        clock: seconds; for tests.
    """

    def __init__(
        self,
        folder: "str | Path",
        *,
        tasks: Sequence[str] = (),
        name: str | None = None,
        n_prompts: int = 32,
        seed: int = 0,
        schedule: Schedule | None = None,
        checkpoints: "str | Path | None" = None,
        sinks: Sequence[Sink] = (),
        hyperparameters: Mapping[str, Any] | None = None,
        tokens_per_step: int | float | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.folder = Path(folder)
        self.pace = Pace(schedule or Schedule())
        self._settings = Settings(tuple(tasks) or ("induction",), n_prompts, seed)
        self._units = (PROBE, *tasks)
        self._name, self._hyperparameters = name or self.folder.resolve().name, dict(hyperparameters or {})
        self._checkpoints = None if checkpoints is None else Path(checkpoints)
        self._sinks, self._tokens_per_step, self._clock = tuple(sinks), tokens_per_step, clock
        self._model: Model | None = None
        self._tasks: dict[str, Any] = {}
        self._left: float | None = None
        self._known: dict[int, str] = {}
        self._before: tuple[int, dict[str, float]] | None = None
        self._between: list[State] = []
        for module in LOADED:  # now, and not in the middle of the training
            import_module(module)

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the copy and of the states that were kept; a later call begins anew."""
        self._model, self._left, self._between = None, None, []

    @property
    def history(self) -> History:
        """What was recorded so far."""
        return History.open(self.folder)

    def __call__(
        self,
        step: int,
        model: nn.Module,
        *,
        loss: "float | Tensor | None" = None,
        tokens: int | float | None = None,
        force: bool = False,
        interventions: Sequence[Intervention] = (),
    ) -> bool:
        """Measure the model now, if now is the time for it; says whether it was.

        Args:
            step: updates done so far.
            model: native or Hugging Face, as it is or wrapped for several devices or by the compiler.
            loss: of the training; a fall calls for a measurement.
            tokens: seen so far.
            force: measure whatever the schedule says.
            interventions: ablations and clamps that stand around this training, to be measured under.

        Raises:
            ValueError: the parts of the model cannot be told apart, or the folder holds another history.
        """
        entered = self._clock()
        if self._left is not None:
            self.pace.training += entered - self._left
        with untouched():
            if tokens is None and self._tokens_per_step is not None:
                tokens = step * self._tokens_per_step
            tokens = None if tokens is None else float(tokens)
            level = float(loss.detach()) if isinstance(loss, Tensor) else loss
            due = force or step in self._known or self.pace.due(step, level)
            if due:
                module = unwrapped(model)
                self._measure(State(step, tokens, module.state_dict()), module, interventions)
            else:
                self._keep(step, tokens, model)
        self._left = self._clock()
        self.pace.spent += self._left - entered
        return due

    # -- measuring ------------------------------------------------------------------------------------------------

    def _measure(self, now: State, module: nn.Module, interventions: Sequence[Intervention]) -> None:
        if self._model is None:
            self._begin(module)
        found = [self._record(now, interventions)]
        before, values = self._before, found[0][1]
        movement = None if before is None else _movement(before[1], values)
        if before is not None and movement is not None and movement > self.pace.schedule.moved:
            found += self._look_back(before, (now.step, values), interventions)
        self.pace.measured(now.step, movement)
        self._between.clear()
        last = before[1] if before is not None else None
        for state, each in sorted(found, key=lambda pair: pair[0].step):
            moved = last is not None and _movement(last, each) > self.pace.schedule.moved
            if moved and self._checkpoints is not None:
                self._save(state)
            for sink in self._sinks:
                sink(state.step, {**each, "moved": float(moved)})
            last = each
        self._before = (now.step, values)

    def _record(self, state: State, interventions: Sequence[Intervention]) -> tuple[State, dict[str, float]]:
        """One measurement, written unless it is there; gives its numbers."""
        assert self._model is not None
        entered = self._clock()
        digest = _write_into(self._model.module, state.weights)
        if self._known.get(state.step, digest) != digest:
            self._set_aside(state.step)
        if state.step in self._known:
            records = self.history[state.step].records.values()
            return state, {name: value for record in records for name, value in _numbers(record).items()}
        standing = [each.spec for each in interventions]
        provenance: dict[str, Any] = {"weights": digest, "live": True}
        provenance |= {"interventions": standing} if standing else {}
        here, values = Checkpoint(state.step, "", state.tokens), {}
        with measured_under(self._model, interventions):
            for unit in self._units:
                record = measure(unit, self._model, self._tasks, self._settings, here, provenance)
                write_record(self.folder, record)
                values |= _numbers(record)
        self.pace.costs.append(self._clock() - entered)
        return state, values

    def _look_back(
        self,
        before: tuple[int, dict[str, float]],
        now: tuple[int, dict[str, float]],
        interventions: Sequence[Intervention],
    ) -> list[tuple[State, dict[str, float]]]:
        """Measure what was kept between two measurements, halving the gap that moved most, while it can be paid."""
        found: list[tuple[State, dict[str, float]]] = []
        places = [before, now]
        kept = list(self._between)
        while kept and self.pace.affordable(len(found) + 2):
            gaps = []
            for left, right in pairwise(places):
                inside = [state for state in kept if left[0] < state.step < right[0]]
                if inside:
                    gaps.append((_movement(left[1], right[1]), inside))
            movement, inside = max(gaps, key=lambda gap: gap[0], default=(0.0, []))
            if movement <= self.pace.schedule.moved:
                break
            state = inside[len(inside) // 2]
            kept.remove(state)
            found.append(self._record(state, interventions))
            places = sorted([*places, (state.step, found[-1][1])], key=lambda place: place[0])
        return found

    def _keep(self, step: int, tokens: float | None, model: nn.Module) -> None:
        """Copy the weights of a step between two measurements, evenly spread over the gap."""
        lookback = self.pace.schedule.lookback
        if not lookback or self.pace.last is None:
            return
        spacing = max(1, self.pace.gap // (lookback + 1))
        last = self._between[-1].step if self._between else self.pace.last
        if step - last >= spacing:
            weights = {name: weight.detach().clone() for name, weight in unwrapped(model).state_dict().items()}
            self._between = [*self._between, State(step, tokens, weights)][-lookback:]

    # -- beginning and going on -----------------------------------------------------------------------------------

    def _begin(self, module: nn.Module) -> None:
        self._model = open_module(_replica(module))
        self._tasks = make_tasks(self._settings, self._model)
        settings = {**self._settings.to_dict(), "tasks": list(self._units[1:]), "live": True}
        create_history(
            self.folder, self._name, self._model.graph, hyperparameters=self._hyperparameters, settings=settings
        )
        for (step, _), record in self.history.records.items():
            self._known[step] = str(record.provenance.get("weights"))

    def _set_aside(self, step: int) -> None:
        """Records from `step` on belong to a training that went another way."""
        number = len(list(self.folder.glob("set-aside-*")))
        place = self.folder / f"set-aside-{number}"
        place.mkdir()
        for file in sorted((self.folder / "records").glob("*.safetensors")):
            if int(file.name.partition(".")[0]) >= step:
                file.rename(place / file.name)
        self._known = {known: digest for known, digest in self._known.items() if known < step}

    def _save(self, state: State) -> None:
        assert self._model is not None
        assert self._checkpoints is not None
        _write_into(self._model.module, state.weights)
        save_module(self._model.module, self._checkpoints / f"step{state.step:06d}")


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside of what several devices or the compiler need around it."""
    while True:
        inner = getattr(model, "_orig_mod", None) or (getattr(model, "module", None) if _is_wrapper(model) else None)
        if inner is None:
            return model
        model = inner


def _is_wrapper(model: nn.Module) -> bool:
    return isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel)


def _replica(module: nn.Module) -> nn.Module:
    """A copy that shares nothing with the module: no hooks, no gradients, in evaluation mode."""
    replica = copy.deepcopy(module)
    for part in replica.modules():
        part.__dict__.pop("forward", None)  # what other libraries wrap around it on this one object
        for name, hooks in part.__dict__.items():
            if "hooks" in name and isinstance(hooks, dict):
                hooks.clear()
    return replica.requires_grad_(False).eval()


@torch.no_grad()
def _write_into(module: nn.Module, weights: Mapping[str, Tensor]) -> str:
    """Copy every weight; gives a digest of at most a few thousand entries of each."""
    digest = hashlib.sha256()
    for name, own in module.state_dict().items():
        given = weights[name]
        own.copy_(given)
        entries = given.detach().flatten()[:: max(1, given.numel() // 4096)]
        digest.update(name.encode() + entries.to("cpu", torch.float64).numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def untouched() -> Iterator[None]:
    """Whatever draws random numbers within, the caller's random states are as they were."""
    python, legacy = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    kind = "cuda" if devices else "cpu"
    try:
        with torch.random.fork_rng(devices=devices), torch.autocast(kind, enabled=False):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)


def _numbers(record: Record) -> dict[str, float]:
    """The scores of every head and the metrics, by name."""
    found = {
        f"{name}/{node}": float(value)
        for name, scores in record.scores.items()
        for node, value in zip(scores.nodes, scores.values, strict=True)
    }
    return found | {name: float(estimate.value) for name, estimate in record.metrics.items()}


def _movement(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """The largest change: of head scores as they are, of losses relatively."""
    changes = [0.0]
    for name in before.keys() & after.keys():
        if name.startswith("loss_"):
            changes.append(abs(after[name] - before[name]) / max(abs(before[name]), 1e-9))
        elif "/" in name and not name.startswith("attribution/"):
            changes.append(abs(after[name] - before[name]))
    return max(change for change in changes if change == change)
