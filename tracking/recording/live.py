"""Live recording: a history recorded inside somebody else's training loop, without touching the training.

    with Recorder("histories/mine") as recorder:
        for step, batch in enumerate(batches):
            recorder(step, model, loss=loss)
            ...

Every call decides whether this step is worth measuring (`tracking.recording.schedules`).  What is measured is a copy:
the first call makes one, in evaluation mode and without hooks and gradients, and later calls write the current weights
into it. So the training's weights, gradients, modes, hooks and random states are never touched, and training gives bit
for bit the same weights with and without a recorder.  The records are those of `tracking.recording.recording`, in an
ordinary history.

A training that was stopped and goes on may call with steps that were recorded already: where the weights are the same
the record stands; where they are not, everything from that step on is set aside, in a folder beside the records.

The first state and, by `close`, the last one are measured whatever the budget.  What the budget allows is said once it
is known: as a log message, and as a warning where it is fewer than ten checkpoints.

A request that cannot be met is refused at the first call.  From then on nothing that goes wrong with a recording (a
full disk, a sink whose server is away, weights that are no longer finite) ends the training: it is said once, in a
warning, the step is left out, and the next one is tried again.
"""

import logging
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from circuits.adapters import Adapter
from circuits.graph import Estimate
from circuits.loading import open_module, save_module
from circuits.model import Model
from circuits.scoring import method_within
from tracking.checkpoints.runs import Checkpoint
from tracking.history.history import History, create_history
from tracking.history.patterns import FolderPatterns, patterns_place, write_patterns
from tracking.history.records import Record, write_record
from tracking.interventions.applying import measured_under
from tracking.interventions.interventions import Intervention
from tracking.recording.measuring import PROBE, TRAINING, Settings, make_tasks, measure
from tracking.recording.patterns import patterns_of
from tracking.recording.replicas import replica_of, untouched, unwrapped, version_of, write_into
from tracking.recording.schedules import Pace, Schedule
from tracking.recording.sinks import Sink
from tracking.training.source_tasks import data_options

__all__ = ["Recorder"]

log: logging.Logger = logging.getLogger(__name__)
FEW = 10
"""Checkpoints that are too few to date anything by."""
MOST_FORWARDS = 40
"""Forward passes over a task's prompts that scoring its edges may take."""
LOADED = ("circuits.heads", "circuits.discovery", "circuits.tasks.registry", "tracking.recording.measuring")
"""Takes the step and numbers by name; called in order of step."""


@dataclass(frozen=True)
class WeightsCopy:
    """The weights of one step, copied."""

    step: int
    tokens: float | None
    weights: Mapping[str, Tensor]


class Recorder:
    """Records a history from inside a training loop; call it once a step, in one process only.

    Beside the training it needs the memory of one more copy of the weights, and of `Schedule.lookback` copies of states
    between two measurements, all on the model's own device.

    Args:
        out: folder of the history; one that this recorder began goes on.
        tasks: tasks whose circuit is found at every measurement; by default only head scores and losses are measured,
            which takes a few milliseconds on a small model.
        name: of the run; that of the folder unless said.
        n_prompts, seed: the prompts, the same at every step.
        method: how edges are scored, as in `find_circuit`; `auto` is the most exact one within `MOST_FORWARDS` forward
            passes, since the training waits.
        patterns: also keep the attention patterns of every head on so many prompts at each measurement, to look at.
        adapter: where the parts of a model of one's own lie (`circuits.adapters`).
        schedule: how often to measure; by default at most a tenth of the training's own time goes into it.
        checkpoints: a folder, into which the weights are saved where something moved.
        sinks: where to send the numbers besides (`tracking.recording.sinks`).
        hyperparameters: of the run, for comparing runs.
        tokens_per_step: to tell the tokens seen, where calls do not.
        clock: gives the time in seconds.

    Raises:
        ValueError: a task is named twice, or there are too few prompts.
    """

    def __init__(
        self,
        out: "str | Path",
        *,
        tasks: Sequence[str] = (),
        name: str | None = None,
        n_prompts: int = 64,
        seed: int = 0,
        method: str = "auto",
        patterns: int = 0,
        adapter: Adapter | None = None,
        schedule: Schedule | None = None,
        checkpoints: "str | Path | None" = None,
        sinks: Sequence[Sink] = (),
        hyperparameters: Mapping[str, Any] | None = None,
        tokens_per_step: int | float | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.folder: Path = Path(out)
        self._adapter, self._patterns = adapter, patterns
        self.pace: Pace = Pace(schedule or Schedule())
        tasks = tuple(tasks.split(",")) if isinstance(tasks, str) else tuple(tasks)
        data = data_options(tasks, hyperparameters or {})
        self._settings = Settings(tasks or ("induction",), n_prompts, seed, method, data=data)
        self._units = (PROBE, *tasks)
        self._name, self._hyperparameters = name or self.folder.resolve().name, dict(hyperparameters or {})
        self._checkpoints = None if checkpoints is None else Path(checkpoints)
        self._sinks, self._tokens_per_step, self._clock = tuple(sinks), tokens_per_step, clock
        self._model: Model | None = None
        self._tasks: dict[str, Any] = {}
        self._left: float | None = None
        self._digest: str | None = None
        self._known: dict[int, str] = {}
        self._warned: set[str] = set()
        self._before: tuple[int, dict[str, float]] | None = None
        self._between: list[WeightsCopy] = []
        self._seen: tuple[int, nn.Module, int] | None = None
        self._stride, self._told, self._n_measured = 1, False, 0
        for module in LOADED:  # now, and not in the middle of the training
            import_module(module)

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *error: object) -> None:
        self.close(measure=error[0] is None)

    def close(self, *, measure: bool = True) -> None:
        """Measure the last state, unless it was; then let go of the copy and of the states that were kept.

        A later call begins anew.  If the weights changed after the last call, they are those of as many updates later
        as lay between the last two calls.

        Args:
            measure: whether to; not where the training ended with an error.
        """
        if measure and self._seen is not None and self._model is not None:
            step, module, version = self._seen
            step += self._stride if version_of(module) != version else 0
            if step != self.pace.last:
                self(step, module, force=True)
            calls = self.pace.calls
            if self._n_measured < FEW <= calls:
                self._warn(
                    "few",
                    f"{self._n_measured} of {calls} states were measured at a budget of "
                    f"{self.pace.schedule.budget:.0%}; Schedule(budget=...) allows more, "
                    "Schedule(at_least=..., total=...) promises some",
                )
        self._model, self._left, self._between, self._seen = None, None, [], None

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
        metrics: Mapping[str, float] | None = None,
        force: bool = False,
        interventions: Sequence[Intervention] = (),
    ) -> bool:
        """Measure the model now, if now is the time for it; says whether it was.

        Args:
            step: updates done so far.
            model: native or Hugging Face, as it is or wrapped for several devices (data parallel) or by the compiler.
            loss: of the training, in nats; a fall calls for a measurement.  On an accelerator it is looked at every
                tenth step only, since to look is to wait for the device.
            tokens: seen so far.
            metrics: further numbers of this step, such as evaluations, by name; kept with it, measured or not.  The
                loss is kept where the step is measured.
            force: measure whatever the schedule says.
            interventions: ablations and clamps that stand around this training, to be measured under.

        Raises:
            ValueError: at the first call, the parts of the model cannot be told apart, its weights are spread over
                processes, or the folder holds another history; at any, a step below 0 or an intervention on a
                component that the model does not have.
            OSError: at the first call, the folder cannot be written to.
        """
        if step != int(step) or step < 0:
            raise ValueError(f"expected the number of updates done so far as step, got {step}")
        entered, step = self._clock(), int(step)
        if self._left is not None:
            self.pace.training += entered - self._left
            self.pace.calls += 1
        with untouched():
            if tokens is None and self._tokens_per_step is not None:
                tokens = step * self._tokens_per_step
            tokens = None if tokens is None else float(tokens)
            due = force or step in self._known or self.pace.due(step, _level(loss, step))
            if due:
                due = self._try_to_measure(step, tokens, unwrapped(model), interventions)
            else:
                self._keep(step, tokens, model)
            self._note(step, tokens, loss if due else None, metrics)
        if self._seen is not None and step > self._seen[0]:
            self._stride = step - self._seen[0]
        self._seen = (step, model, version_of(model))
        self._say_plan()
        self._left = self._clock()
        self.pace.spent += self._left - entered
        return due

    def _note(
        self, step: int, tokens: float | None, loss: "float | Tensor | None", metrics: Mapping[str, float] | None
    ) -> None:
        """What the training says of itself, as a record of its own."""
        level = float(loss.detach().float().mean()) if isinstance(loss, Tensor) else loss
        found = {**({} if level is None else {"loss": level}), **(metrics or {})}
        values = {name: Estimate.exact(float(value)) for name, value in found.items() if math.isfinite(value)}
        if values and self._model is not None:
            try:
                write_record(self.folder, Record(step, TRAINING, tokens, metrics=values))
            except OSError as error:
                self._warn("training", f"the numbers of step {step} were not written: {error}")

    def _say_plan(self) -> None:
        """Once, as soon as it is known what the budget allows."""
        if self._told or not (plan := self.pace.plan()):
            return
        self._told, expected = True, self.pace.expected()
        log.info("%s: %s", self._name, plan)
        total = self.pace.schedule.total or 0
        if expected is not None and expected < FEW <= total:
            self._warn("plan", f"{plan}; Schedule(at_least={FEW}, total={total}) measures as many whatever they cost")

    # -- measuring ------------------------------------------------------------------------------------------------

    def _try_to_measure(
        self, step: int, tokens: float | None, module: nn.Module, interventions: Sequence[Intervention]
    ) -> bool:
        """Measure; from the second time on, what goes wrong is the recording's loss and not the training's."""
        first = self._model is None
        if self._model is None:
            self._model = self._begin(module)
        for each in interventions:
            each.nodes(self._model.graph)
        try:
            self._measure(WeightsCopy(step, tokens, module.state_dict()), interventions)
        except Exception as error:
            if first:
                self._model = None
                raise
            self._between.clear()
            self.pace.measured(step, None)
            self._warn(type(error).__name__, f"step {step} was not recorded in {self.folder}: {error}")
            return False
        return True

    def _warn(self, kind: str, what: str) -> None:
        """Once for everything of one kind."""
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(f"{what} (the training goes on; this is said once)", RuntimeWarning, stacklevel=2)

    def _measure(self, now: WeightsCopy, interventions: Sequence[Intervention]) -> None:
        found = [self._record(now, interventions)]
        self._n_measured += 1
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
            self._send(state.step, {**each, "moved": float(moved)})
            last = each
        self._before = (now.step, values)

    def _send(self, step: int, values: Mapping[str, float]) -> None:
        for number, sink in enumerate(self._sinks):
            try:
                sink(step, values)
            except Exception as error:
                name = getattr(sink, "__qualname__", type(sink).__name__).partition(".")[0]
                self._warn(f"sink {number}", f"the numbers of step {step} did not go to {name}: {error}")

    def _record(
        self, state: WeightsCopy, interventions: Sequence[Intervention]
    ) -> tuple[WeightsCopy, dict[str, float]]:
        """One measurement, written unless it is there; gives its numbers."""
        assert self._model is not None
        entered = self._clock()
        digest = write_into(self._model.module, state.weights)
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
                write_record(self.folder, record, settings=self._digest)
                values |= _numbers(record)
            if self._patterns:
                kept = patterns_of(self._model, next(iter(self._tasks.values())), n_prompts=self._patterns)
                write_patterns(self.folder, state.step, kept)
        self.pace.costs.append(self._clock() - entered)
        return state, values

    def _look_back(
        self,
        before: tuple[int, dict[str, float]],
        now: tuple[int, dict[str, float]],
        interventions: Sequence[Intervention],
    ) -> list[tuple[WeightsCopy, dict[str, float]]]:
        """Measure what was kept between two measurements, halving the gap that moved most, while it can be paid."""
        found: list[tuple[WeightsCopy, dict[str, float]]] = []
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
            self._between = [*self._between, WeightsCopy(step, tokens, weights)][-lookback:]

    # -- beginning and going on -----------------------------------------------------------------------------------

    def _begin(self, module: nn.Module) -> Model:
        model = open_module(replica_of(module), adapter=self._adapter)
        if self._settings.method == "auto":
            self._settings = replace(self._settings, method=method_within(model.graph, MOST_FORWARDS))
        self._tasks = make_tasks(self._settings, model) if len(self._units) > 1 or self._patterns else {}
        settings = {**self._settings.to_dict(), "tasks": list(self._units[1:]), "live": True}
        about = {"hyperparameters": self._hyperparameters, "settings": settings}
        self._digest = create_history(self.folder, self._name, model.graph, **about)
        found: dict[int, dict[str, str]] = {}
        for (step, unit), record in self.history.records.items():
            found.setdefault(step, {})[unit] = str(record.provenance.get("weights"))
        # A process that was killed may have written some units of its last step and not the others.
        whole = {step: digests for step, digests in found.items() if set(self._units) <= set(digests)}
        self._known = {step: digests[PROBE] for step, digests in whole.items()}
        return model

    def _set_aside(self, step: int) -> None:
        """Records from `step` on belong to a training that went another way."""
        number = len(list(self.folder.glob("set-aside-*")))
        place = self.folder / f"set-aside-{number}"
        place.mkdir()
        for file in sorted((self.folder / "records").glob("*.safetensors")):
            if int(file.name.partition(".")[0]) >= step:
                file.rename(place / file.name)
        for kept in [known for known in FolderPatterns(self.folder / "patterns") if known >= step]:
            patterns_place(self.folder, kept).unlink()
        self._known = {known: digest for known, digest in self._known.items() if known < step}

    def _save(self, state: WeightsCopy) -> None:
        assert self._model is not None
        assert self._checkpoints is not None
        write_into(self._model.module, state.weights)
        save_module(self._model.module, self._checkpoints / f"step{state.step:06d}")


def _level(loss: "float | Tensor | None", step: int) -> float | None:
    """The loss as a number; the mean where several devices give one each."""
    if not isinstance(loss, Tensor):
        return loss
    return None if loss.device.type != "cpu" and step % 10 else float(loss.detach().float().mean())


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
