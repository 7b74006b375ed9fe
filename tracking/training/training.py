"""Embedded trainer: small transformers, trained on repeats, that can be stopped anywhere.

The state after step s is the weights after s updates; the log's entry of step s is the loss of those weights on batch
s.  A checkpoint holds beside the weights everything that the next step depends on (optimiser, random state, position
in the data), so a run that was stopped and resumed, or continued elsewhere as a branch, is bit for bit the run that
went on.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from circuits.architectures import NativeConfig, native_module
from circuits.decoding import as_type, parse_json, read_json_lines, whole_text
from circuits.files import folder_beside, remove_leftovers, write_beside
from circuits.loading import save_checkpoint
from tracking.checkpoints.run_files import read_run_file
from tracking.checkpoints.runs import Run, parse_step
from tracking.execution.locks import held
from tracking.execution.pool import Progress
from tracking.history.history import tool_version
from tracking.history.records import SCHEMA_VERSION
from tracking.training.hyperparameters import TrainingConfig
from tracking.training.objective import dropping_out, sequence_costs
from tracking.training.optimizers import gradient_noise, make_optimizer
from tracking.training.sequences import batch
from tracking.training.sources import Batch, loss_weights, mixed_batch

__all__ = [
    "AroundStep",
    "Losses",
    "StepPlan",
    "TrainingConfig",
    "TrainingState",
    "begin_run",
    "data_batch",
    "load_state",
    "reproducible",
    "save_state",
    "start_state",
    "train",
    "train_held",
    "training_step",
]

STATE = "training_state.safetensors"


@dataclass(frozen=True)
class TrainingState:
    """Everything that the steps after `step` depend on."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0


@dataclass(frozen=True)
class StepPlan:
    """How one step is done: with these options, on these tokens instead of the next ones, with sources reweighted."""

    config: TrainingConfig
    tokens: Int[Tensor, "batch pos"] | None = None
    factors: Mapping[str, float] = field(default_factory=dict)


AroundStep = Callable[[TrainingState, TrainingConfig], AbstractContextManager[StepPlan]]
"""Stands around each step: it may change the state before, and says how the step is done."""


def start_state(config: TrainingConfig, *, device: str = "cpu") -> TrainingState:
    """The state before the first update, drawn from the seed alone; sets torch's random state."""
    torch.manual_seed(config.seed)
    module = native_module(config.model).to(device).requires_grad_(True).train()
    return TrainingState(module, make_optimizer(config, module))


def data_batch(config: TrainingConfig, index: int) -> Batch:
    """The batch at one position of the data of a configuration; without sources all of it is of the first, unnamed."""
    data_seed = config.seed if config.data_seed is None else config.data_seed
    if config.sources:
        return mixed_batch(config.sources, config.batch_size, shape=config.shape, seed=data_seed, index=index)
    tokens = batch(config.sequences, config.batch_size, seed=data_seed, index=index)
    return Batch(tokens, np.zeros(len(tokens), dtype=np.int64), np.ones(tokens.shape, dtype=bool))


def training_step(
    state: TrainingState,
    config: TrainingConfig,
    *,
    tokens: Int[Tensor, "batch pos"] | None = None,
    factors: Mapping[str, float] | None = None,
    update: bool = True,
) -> tuple[TrainingState, "Losses"]:
    """One step: the losses (mean cross-entropy of the next token, in nats) before the update, and the state after it.

    Args:
        tokens: the batch; the one at the state's position in the data unless given.
        factors: by which the losses of sources are reweighted (see `loss_weights`).
    """
    device = next(state.module.parameters()).device
    drawn = data_batch(config, state.step) if tokens is None else None
    tokens = (torch.from_numpy(drawn.tokens) if drawn is not None else tokens).to(device)  # type: ignore[union-attr]
    with dropping_out(state.module, config.dropout if update else 0.0):
        logits = state.module(tokens)
    if drawn is not None and config.sources:
        losses, objective = _by_source(logits, tokens, drawn, config, state.step, factors)
    else:
        losses, objective = _of_all(logits, tokens, config)
    if not update:
        return state, losses
    for group in state.optimizer.param_groups:
        group["lr"], group["weight_decay"] = config.learning_rate_at(state.step), config.weight_decay
    state.optimizer.zero_grad(set_to_none=True)
    objective.backward()
    if config.clip_norm is not None:
        nn.utils.clip_grad_norm_(state.module.parameters(), config.clip_norm)
    state.optimizer.step()
    return TrainingState(state.module, state.optimizer, state.step + 1), losses


@dataclass(frozen=True)
class Losses:
    """The loss of a batch, and its mean over the sequences of each source that has any in it."""

    whole: float
    by_source: Mapping[str, float] = field(default_factory=dict)


def _of_all(logits: Tensor, tokens: Tensor, config: TrainingConfig) -> tuple[Losses, Tensor]:
    loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    if not (config.label_smoothing or config.z_loss):
        return Losses(loss.item()), loss
    _, cost = sequence_costs(logits, tokens, label_smoothing=config.label_smoothing, z_loss=config.z_loss)
    return Losses(loss.item()), cost.mean()


def _by_source(
    logits: Tensor,
    tokens: Tensor,
    drawn: Batch,
    config: TrainingConfig,
    step: int,
    factors: Mapping[str, float] | None,
) -> tuple[Losses, Tensor]:
    nll, cost = sequence_costs(
        logits,
        tokens,
        counted=torch.from_numpy(drawn.counted).to(tokens.device),
        label_smoothing=config.label_smoothing,
        z_loss=config.z_loss,
    )
    weights = torch.from_numpy(loss_weights(config.sources, step, factors)[drawn.source]).to(cost)
    each = nll.detach().double().cpu().numpy()
    rows = {source.name: drawn.source == number for number, source in enumerate(config.sources)}
    return Losses(float(each.mean()), {n: float(each[at].mean()) for n, at in rows.items() if at.any()}), (
        weights * cost
    ).mean()


def save_state(state: TrainingState, config: NativeConfig, folder: Path) -> None:
    """Write a checkpoint from which training goes on exactly; the folder appears whole or not at all."""
    from safetensors.torch import save

    with folder_beside(folder) as beside:
        save_checkpoint(state.module, config, beside)
        names = {id(weight): name for name, weight in state.module.named_parameters()}
        tensors = {"random_state": torch.get_rng_state()}
        for weight, entries in state.optimizer.state.items():
            tensors |= {f"{names[id(weight)]}/{key}": value.cpu().contiguous() for key, value in entries.items()}
        header = {"step": state.step, "data_position": state.step, "optimizer": type(state.optimizer).__name__}
        write_beside(beside / STATE, save(tensors, {"training": json.dumps(header, sort_keys=True)}))


def load_state(config: TrainingConfig, folder: "str | Path", *, device: str = "cpu") -> TrainingState:
    """The state that a checkpoint keeps.

    Raises:
        FileNotFoundError: the checkpoint has no optimiser state, so training cannot go on from it exactly.
        ValueError: a file is damaged or of another model or optimiser.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    place = Path(folder) / STATE
    if not place.is_file():
        raise FileNotFoundError(
            f"{folder} keeps no optimiser state ({STATE}), so training cannot go on from it exactly"
        )
    state = start_state(config, device=device)
    try:
        header, kept = _read_state(place)
        if (random_state := kept.pop("random_state", None)) is None:
            raise ValueError(f"{place} holds no state of the random numbers")
        if header.optimizer != type(state.optimizer).__name__:
            raise ValueError(f"it was trained with {header.optimizer}")
        state.module.load_state_dict(load_file(Path(folder) / "model.safetensors"))
        by_parameter: dict[int, dict[str, torch.Tensor]] = {}
        names = {id(weight): name for name, weight in state.module.named_parameters()}
        weights = [weight for group in state.optimizer.param_groups for weight in group["params"]]
        numbers = {names[id(weight)]: number for number, weight in enumerate(weights)}
        for name, value in kept.items():
            parameter, _, key = name.rpartition("/")
            if parameter not in numbers:
                raise ValueError(f"{place} holds {name!r}, which is of no parameter of this model")
            by_parameter.setdefault(numbers[parameter], {})[key] = value
        groups = state.optimizer.state_dict()["param_groups"]
        state.optimizer.load_state_dict({"state": by_parameter, "param_groups": groups})
        torch.set_rng_state(random_state)
    except (
        SafetensorError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:  # torch says wrong shapes and types so
        raise ValueError(f"cannot go on from {folder}: {error}") from error
    except KeyError as error:  # of an entry that this optimiser keeps of every parameter
        raise ValueError(f"cannot go on from {folder}: its state has no {error} of some parameter") from error
    return TrainingState(state.module, state.optimizer, header.step)


class _StateHeader(msgspec.Struct, frozen=True):
    """What a kept state says of itself; other keys are for people."""

    step: Annotated[int, msgspec.Meta(ge=0)]
    optimizer: str


def _read_state(place: Path) -> tuple[_StateHeader, dict[str, Tensor]]:
    from safetensors import safe_open

    with safe_open(str(place), framework="pt") as file:
        about = parse_json((file.metadata() or {}).get("training", ""), where=f"{place}, training")
        kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return as_type(about, _StateHeader, where=f"{place}, training"), kept


def train(
    config: TrainingConfig,
    out: "str | Path",
    *,
    until: int | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Run:
    """Train, or go on with, the run in `out`; the run is the same however often it was stopped.

    Args:
        until: the last step, where that is before `config.steps`; its state is kept.
        progress: called with ("training", step, steps).

    Raises:
        HeldError: another process trains in the folder.
        ValueError: the folder holds a run with another configuration, or the loss is not finite.
    """
    with held(out, "train"):
        return train_held(config, out, until=until, device=device, progress=progress)


def train_held(
    config: TrainingConfig,
    folder: "str | Path",
    *,
    until: int | None = None,
    around_step: AroundStep | None = None,
    about: Mapping[str, Any] | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Run:
    """What `train` does, in a folder that this process holds already.

    Args:
        around_step: what stands around every step (see `tracking.experiments.branching`).
        about: further entries of `run.json`; its `hyperparameters` come beside the configuration's.
    """
    folder, end = Path(folder), config.steps if until is None else until
    plan = around_step or (lambda state, config: nullcontext(StepPlan(config)))
    with reproducible():
        begin_run(config, folder, about or {})
        kept = {*config.checkpoint_steps, end}
        state = _latest_state(config, folder, device)
        log = _Log(folder / "log.jsonl", state.step, config)
        saved = _place(folder, state.step).is_dir()
        while True:
            if state.step in kept and not saved:
                log.flush()
                save_state(state, config.model, _place(folder, state.step))
            saved, last, step = False, state.step >= end, state.step
            noise = gradient_noise(state.optimizer) if step in kept else None
            with plan(state, config) as planned:
                how = {"tokens": planned.tokens, "factors": planned.factors, "update": not last}
                state, losses = training_step(state, planned.config, **how)
            if not math.isfinite(losses.whole):
                log.flush()
                raise ValueError(
                    f"the loss is {losses.whole} at step {step}; try a smaller learning rate, or set clip_norm"
                )
            log.add(step, losses, planned.config, noise)
            if progress is not None:
                progress("training", step, end)
            if last:
                log.flush()
                return Run.open(folder)


def _place(folder: Path, step: int) -> Path:
    return folder / "checkpoints" / f"step{step:06d}"


def _latest_state(config: TrainingConfig, folder: Path, device: str) -> TrainingState:
    """The state of the last checkpoint that keeps one; what a killed process left half done is removed."""
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder / "checkpoints")
    places = [entry for entry in (folder / "checkpoints").iterdir() if entry.is_dir()]
    for place in sorted(places, key=lambda entry: parse_step(entry.name) or 0, reverse=True):
        try:
            return load_state(config, place, device=device)
        except (ValueError, FileNotFoundError):
            continue
    return start_state(config, device=device)


def begin_run(config: TrainingConfig, folder: Path, more: Mapping[str, Any]) -> None:
    """Write `run.json`, or check that the folder holds this very run.

    Raises:
        ValueError: it holds another.
    """
    place = folder / "run.json"
    about = {
        "schema_version": SCHEMA_VERSION,
        "tool_version": tool_version(),
        "torch_version": torch.__version__,
        "name": config.name or whole_text(folder.resolve().name),
        "hyperparameters": {key: value for key, value in config.to_dict().items() if key != "name"},
        "tokens_per_step": config.tokens_per_step,
        "model": asdict(config.model),
    }
    about |= {**more, "hyperparameters": about["hyperparameters"] | dict(more.get("hyperparameters", {}))}
    if place.is_file():
        try:
            known = read_run_file(folder).hyperparameters
        except ValueError as error:
            raise ValueError(f"{error}; choose another folder") from error
        asked = about["hyperparameters"]
        usual = TrainingConfig().to_dict()  # a run of an earlier version does not name every option
        known = {key: usual[key] for key in asked if key in usual} | known
        if differing := sorted(key for key in {*known, *asked} if known.get(key) != asked.get(key)):
            there = ", ".join(f"{key} {known.get(key)!r} (asked: {asked.get(key)!r})" for key in differing)
            raise ValueError(f"{folder} holds a run with {there}; choose another folder, or the same options")
        return
    if (folder / "checkpoints").is_dir() and any((folder / "checkpoints").iterdir()):
        raise ValueError(f"{folder} holds checkpoints of some other training; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_beside(place, (json.dumps(about, indent=2, sort_keys=True) + "\n").encode())


class _Logged(msgspec.Struct):
    """What a line of our own log may say of the batch of its step."""

    batch_size: int | None = None


class _Log:
    """`log.jsonl` from `step` on: later lines, which a killed process may have left, are dropped."""

    def __init__(self, place: Path, step: int, config: TrainingConfig) -> None:
        self._place, self._waiting = place, []
        lines = place.read_text(errors="replace").splitlines() if place.is_file() else []
        known = [line for line in lines[:step] if line.endswith("}")]
        write_beside(place, "".join(line + "\n" for line in known).encode())
        sizes = [entry.batch_size or config.batch_size for entry in read_json_lines(place, _Logged)]
        self._usual, self._tokens = config, config.context_length * sum(sizes)

    def add(self, step: int, losses: Losses, config: TrainingConfig, noise: float | None) -> None:
        """What the step was done with; `tokens` are those seen before it, `noise` is that of the gradients until it."""
        entry = {"step": step, "tokens": self._tokens, "loss": losses.whole}
        entry |= {f"loss/{name}": loss for name, loss in losses.by_source.items()}
        entry["learning_rate"] = config.learning_rate_at(step)
        if config.batch_size != self._usual.batch_size:
            entry["batch_size"] = config.batch_size
        if noise is not None:
            entry["gradient_noise"] = noise
        self._tokens += config.tokens_per_step
        self._waiting.append(json.dumps(entry) + "\n")
        if len(self._waiting) >= 100:
            self.flush()

    def flush(self) -> None:
        with open(self._place, "a") as file:
            file.write("".join(self._waiting))
        self._waiting.clear()


@contextmanager
def reproducible() -> Iterator[None]:
    """One thread (models this small are slower on two, and their number changes the last digits), and a random state
    of its own: the caller's is put back."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(before)
