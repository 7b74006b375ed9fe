"""Measuring: what is measured of one checkpoint.

One **unit** of recording is one checkpoint and one task or probe, and gives one `Record`:

- the probe `repeated-tokens`: scores of every head, and the losses on the first and the repeated half;
- a task, of the register or of the run's own data (`source:NAME`): node attribution, edge scores with the circuit
  chosen from them, its faithfulness, and how well the model does the task (the metric on clean and on corrupted
  prompts);
- `training`: what the training's own log says at that step.

The prompts depend on `Settings` alone and are the same at every checkpoint.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from circuits.graph import Estimate
from tracking.checkpoints.runs import Checkpoint, Run
from tracking.history.records import Record

if TYPE_CHECKING:
    from circuits.model import Model
    from circuits.tasks.task import Task

__all__ = ["PROBE", "TRAINING", "Settings", "failed_record", "late_steps", "make_tasks", "measure", "training_record"]

PROBE, TRAINING = "repeated-tokens", "training"
DTYPES = ("float32", "float64", "bfloat16")
TURNED, FEWEST_TURNED = 256, 8
"""Prompts times heads whose corruption is turned exactly, and prompts at the least."""


@dataclass(frozen=True)
class Settings:
    """How every checkpoint is measured.

    Node effects are first order (`attribution`) and, in models of up to `exact_nodes` components, exact as well
    (`patching`): to first order a head whose attention is saturated looks as if nothing depended on it.  The
    effects of the heads' corruption turned at random are what the function clock is tested against: to first order
    everywhere (`rotation`, whose folds are the draws), and in models of so few components exactly (`exact-rotation`) at
    the steps that `late_steps` names.  `data` are the options of the training's data, of which tasks named
    `source:NAME` are made.
    """

    tasks: tuple[str, ...] = ("induction",)
    n_prompts: int = 64
    seed: int = 0
    method: str = "auto"
    target: float = 0.85
    dtype: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    exact_nodes: int = 64
    data: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.tasks or len(set(self.tasks)) < len(self.tasks) or {PROBE, TRAINING} & set(self.tasks):
            raise ValueError(f"expected one or more different tasks, got {', '.join(self.tasks) or 'none'}")
        if self.n_prompts < 2:
            raise ValueError(f"expected at least 2 prompts, so that there is a standard error, got {self.n_prompts}")
        if self.dtype not in (None, *DTYPES):
            raise ValueError(f"expected a dtype among {', '.join(DTYPES)}, got {self.dtype!r}")
        if not 0 < self.target <= 1:
            raise ValueError(f"expected a target faithfulness above 0 and up to 1, got {self.target}")

    @property
    def units(self) -> tuple[str, ...]:
        """Everything that is measured of a checkpoint's weights."""
        return (PROBE, *self.tasks)

    def to_dict(self) -> dict[str, Any]:
        kept = {key: value for key, value in asdict(self).items() if key != "data" or value}
        return {**kept, "tasks": list(self.tasks), "options": dict(self.options)}


def make_tasks(settings: Settings, model: "Model") -> "dict[str, Task]":
    """The prompts of every task.

    Raises:
        ValueError: a task or the method is unknown, or a task does not fit the model's vocabulary or context.
    """
    from circuits.scoring import METHODS
    from circuits.tasks.registry import make_task
    from tracking.training.source_tasks import SOURCE_TASK, source_task

    if settings.method not in METHODS:
        raise ValueError(f"expected a method among {', '.join(METHODS)}, got {settings.method!r}")
    made = {}
    for name in settings.tasks:
        how: Any = {"n_prompts": settings.n_prompts, "seed": settings.seed}
        of_source = name.startswith(SOURCE_TASK)
        made[name] = source_task(name, settings.data, **how) if of_source else make_task(name, model, **how)
        made[name].check(model)
    return made


def late_steps(steps: Sequence[int]) -> frozenset[int]:
    """Steps of a run at which the function of heads is tested exactly: the last one, and one an eighth before it.

    They are those of the whole run, so that what is measured at a step does not hang on which others are recorded.
    """
    return frozenset({steps[-1], steps[-1 - len(steps) // 8]} if steps else ())


def measure(
    unit: str,
    model: "Model",
    tasks: "Mapping[str, Task]",
    settings: Settings,
    checkpoint: Checkpoint,
    provenance: Mapping[str, Any],
    *,
    tested: bool = False,
) -> Record:
    """One unit, with the checkpoint's weights in the model, and with what stood in for components in its training.

    Args:
        tested: also test exactly what each head writes (see `late_steps`).
    """
    from tracking.interventions.applying import measured_under, standing_at

    if standing := standing_at(checkpoint):
        provenance = {**provenance, "interventions": [each.spec for each in standing]}
    with measured_under(model, standing):
        if unit == PROBE:
            return _probe(model, settings, checkpoint, provenance)
        return _task(model, tasks[unit], settings, checkpoint, provenance, tested)


def _probe(model: "Model", settings: Settings, checkpoint: Checkpoint, provenance: Mapping[str, Any]) -> Record:
    from circuits.heads import scores_and_losses

    scores, losses = scores_and_losses(model, n_prompts=settings.n_prompts, seed=settings.seed)
    guessing = math.log(model.d_vocab), 0.0  # nats
    return Record(
        checkpoint.step,
        PROBE,
        checkpoint.tokens,
        scores=scores,
        metrics=losses,
        status="unknown",
        provenance=provenance,
        levels=dict.fromkeys(("loss_first_half", "loss_second_half"), guessing),
    )


def _task(
    model: "Model",
    task: "Task",
    settings: Settings,
    checkpoint: Checkpoint,
    provenance: Mapping[str, Any],
    tested: bool,
) -> Record:
    from circuits.attribution import attribution_patching
    from circuits.discovery import examine
    from circuits.patching import activation_patching
    from circuits.rotations import EXACT_ROTATION, ROTATION, RotationSums, rotation_test

    method: Any = settings.method
    found = examine(model, task, method=method, target=settings.target, **settings.options)
    circuit = found.circuit
    metrics = {
        "metric_clean": Estimate.from_prompts(found.clean),
        "metric_corrupted": Estimate.from_prompts(found.corrupted),
        "n_edges": Estimate.exact(float(circuit.n_edges)),
    }
    if circuit.faithfulness is not None:
        metrics["faithfulness"] = circuit.faithfulness
    if circuit.in_sample is not None:
        metrics["faithfulness_in_sample"] = circuit.in_sample
    scores = {}
    if task.metric.differentiable:
        attribution, rotation, content = found.nodes, found.rotation, RotationSums()
        if attribution is None or rotation is None:
            attribution = attribution_patching(model, task, content=content)
            rotation = content.scores(model, task.name)
        scores |= {"attribution": attribution, ROTATION: rotation}
    if len(model.graph.components) <= settings.exact_nodes:
        scores["patching"] = activation_patching(model, task)
        if tested:
            few = task.rows(slice(0, max(FEWEST_TURNED, TURNED // len(model.graph.heads))))
            scores[EXACT_ROTATION] = rotation_test(model, few).scores
    return Record(
        checkpoint.step, task.name, checkpoint.tokens, scores, circuit, metrics, circuit.status, provenance=provenance,
        levels={"metric_clean": task.levels(model.d_vocab)},
    )  # fmt: skip


def training_record(run: Run, checkpoint: Checkpoint) -> Record | None:
    """What the run's log says at the checkpoint's step; None where it says nothing."""
    values: dict[str, float] = {}
    for entry in run.log:
        if entry["step"] == checkpoint.step:
            values |= {str(key): float(value) for key, value in entry.items() if _is_measured(key, value)}
    if not values:
        return None
    metrics = {name: Estimate.exact(value) for name, value in sorted(values.items())}
    return Record(checkpoint.step, TRAINING, checkpoint.tokens, metrics=metrics)


def _is_measured(key: object, value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return number and key not in ("step", "tokens", "epoch")


def failed_record(unit: str, checkpoint: Checkpoint, reason: str, provenance: Mapping[str, Any]) -> Record:
    return Record(checkpoint.step, unit, checkpoint.tokens, status="failed", reason=reason, provenance=provenance)
