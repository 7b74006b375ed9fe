"""Training hooks: what stands around each step of a training that is stepped into.

Before every update: conditions that are due are looked at, what begins or ends is written down, grafts and new weights
are put in, and the step gets its options and its tokens.  What lasts stays in place from step to step.  Everything but
the conditions that have held can be told from the step alone, and those are read back from the log, so that a training
that was stopped goes on as if it had not been.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from circuits.files import write_beside
from circuits.heads import KINDS, head_scores, scores_and_losses
from circuits.loading import open_module
from circuits.model import Model
from tracking.interventions.applying import measured_under, read_interventions, stepping_in
from tracking.interventions.conditions import Condition
from tracking.interventions.interventions import Intervention
from tracking.training.data_order import ordered_batch
from tracking.training.training import StepPlan, TrainingConfig, TrainingState

__all__ = ["StepsAround", "read_log"]


class StepsAround:
    """What stands around the steps of one branch: which conditions have held, and what is in force."""

    def __init__(self, log: Path, interventions: Sequence[Intervention], end: int) -> None:
        self._log, self._interventions, self._end = log, tuple(interventions), end
        self._model: Model | None = None
        self._fired: dict[int, int] = {}
        self._lasting: tuple[Intervention, ...] = ()
        self._stack = ExitStack()

    def __enter__(self) -> "StepsAround":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @contextmanager
    def __call__(self, state: TrainingState, config: TrainingConfig) -> Iterator[StepPlan]:
        if not self._interventions:
            yield StepPlan(config)
            return
        if self._model is None:
            self._model = open_module(state.module)
            self._resume(state.step)
        self._look(state.step)
        active = [each for n, each in enumerate(self._interventions) if each.in_force(state.step, self._fired.get(n))]
        self._say(state.step)
        with stepping_in(self._model, [e for e in active if e.kind.once], optimizer=state.optimizer):
            pass
        lasting = tuple(each for each in active if not each.kind.once)
        if lasting != self._lasting:
            self._stack.close()
            self._stack.enter_context(stepping_in(self._model, lasting, optimizer=state.optimizer))
            self._lasting = lasting
        yield self._plan(active, state.step, config)

    def _resume(self, step: int) -> None:
        """What the log says of the steps before; what it says of later ones will be said again."""
        known = [entry for entry in read_log(self._log) if entry["step"] < step]
        write_beside(self._log, "".join(json.dumps(entry) + "\n" for entry in known).encode())
        for number, each in enumerate(self._interventions):
            fired = [e["step"] for e in known if e["event"] == "fired" and e["intervention"] == each.spec]
            self._fired |= {number: fired[-1]} if fired else {}

    def _look(self, step: int) -> None:
        """Every condition that is due; what it finds is logged where it holds, or where this was its one chance."""
        assert self._model is not None
        for number, each in enumerate(self._interventions):
            rule = each.condition
            if rule is None or number in self._fired or not rule.due(step):
                continue
            begin, last = each.window
            if not begin <= step < last or step >= self._end:
                continue
            standing = [
                other for n, other in enumerate(self._interventions) if other.in_force(step, self._fired.get(n))
            ]
            value = _measured(self._model, rule, standing)
            if rule.holds(value):
                self._fired[number] = step
            if rule.holds(value) or rule.at is not None:
                event = "fired" if rule.holds(value) else "not fired"
                self._write({"step": step, "event": event, "intervention": each.spec, "measured": value})

    def _say(self, step: int) -> None:
        """What begins and what ends with this step."""
        for number, each in enumerate(self._interventions):
            fired = self._fired.get(number)
            before, now = step > 0 and each.in_force(step - 1, fired), each.in_force(step, fired)
            if now and each.kind.once:
                self._write({"step": step, "event": "done", "intervention": each.spec})
            elif before != now and not each.kind.once:
                self._write({"step": step, "event": "begins" if now else "ends", "intervention": each.spec})

    def _write(self, entry: Mapping[str, Any]) -> None:
        with open(self._log, "a") as file:
            file.write(json.dumps(entry) + "\n")

    def _plan(self, active: Sequence[Intervention], step: int, config: TrainingConfig) -> StepPlan:
        factors: dict[str, float] = {}
        for each in active:
            if each.kind.trainer == "factors":
                factors |= {name: float(value or 0) for name, value in each.options}
            if each.kind.trainer == "options":
                config = TrainingConfig.from_dict({**config.to_dict(), **dict(each.options)})
        for number, each in enumerate(self._interventions):
            if each in active and each.kind.trainer == "order":
                window = max(each.start or 0, self._fired.get(number, 0)), self._end if each.end is None else each.end
                data_seed = config.seed if config.data_seed is None else config.data_seed
                given = {"order": each.how, "window": window, "index": step, "data_seed": data_seed, "seed": each.seed}
                if step < window[1]:  # the last state is looked at, not updated
                    rows = ordered_batch(config.sequences, config.batch_size, **given)
                    return StepPlan(config, torch.from_numpy(rows.copy()))
        return StepPlan(config, factors=factors)


def _measured(model: Model, rule: Condition, standing: Sequence[Intervention]) -> float:
    with measured_under(model, standing):
        if rule.measure not in KINDS:
            return float(scores_and_losses(model)[1][rule.measure].value)
        scores = head_scores(model, kinds=(rule.measure,))[rule.measure]
    if rule.component is not None:
        return scores[rule.component]
    return float({"max": scores.values.max, "min": scores.values.min, "mean": scores.values.mean}[rule.over]())


def read_log(place: Path) -> list[dict[str, Any]]:
    """What was written down: step, event (`begins`, `ends`, `done`, `fired`, `not fired`), intervention, measured."""
    return read_interventions(place)
