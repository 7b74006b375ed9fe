"""How does a history get filled from a run, and how does it go on after it was stopped?

Recording walks the checkpoints of a run in order of step: one model per architecture, its weights swapped, every unit
(`tracking.measuring`) written as soon as it is there.  What is on disk is not done again, so the same command goes on
where the last one stopped, and ends with the same files.  A checkpoint that cannot be read or measured becomes records
with the status `failed` and the reason, is tried again the next time, and never stops the others.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuits.graph import ModelGraph
from tracking.history import History, create_history, tool_version
from tracking.measuring import PROBE, TRAINING, Settings, failed_record, make_tasks, measure, training_record
from tracking.records import Record, write_record
from tracking.runs import Checkpoint, Run

if TYPE_CHECKING:
    from circuits.tasks.task import Task
    from circuits.transformer import Model

__all__ = ["PROBE", "TRAINING", "RecordingSummary", "record"]

Progress = Callable[[str, int, int], None]
# Keys of config.json that say nothing about what the model computes.
IDLE_KEYS = {"transformers_version", "torch_dtype", "dtype", "_name_or_path", "use_cache", "seed", "init_scale"}
# Parameters under which one thread is faster than several.
SMALL = 20_000_000


@dataclass(frozen=True)
class RecordingSummary:
    """What one call of `record` did, by (step, task).

    `failed` adds the reason.  `changed` names what was recorded earlier from other weights than the checkpoint holds
    now; it is left as it was.
    """

    folder: str
    done: tuple[tuple[int, str], ...] = ()
    skipped: tuple[tuple[int, str], ...] = ()
    failed: tuple[tuple[int, str, str], ...] = ()
    changed: tuple[tuple[int, str], ...] = ()


def record(
    source: "str | Path | Run",
    folder: "str | Path",
    *,
    tasks: Sequence[str] = ("induction",),
    steps: str = "all",
    n_prompts: int = 64,
    seed: int = 0,
    method: str = "eap",
    target: float = 0.85,
    device: str = "cpu",
    dtype: str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> RecordingSummary:
    """Measure the checkpoints of a run into a history, or go on with it.

    Args:
        source: a run, or the folder of one (see `Run.open`).
        folder: of the history; one that holds another run, or other settings, is refused.
        tasks: names of tasks; more may be added to a history later.
        steps: which checkpoints (see `tracking.runs.select_steps`).
        n_prompts, seed: the prompts, the same at every checkpoint.
        method, target, options: how edges are scored and which faithfulness the circuit must reach; what
            `circuits.discovery.find_circuit` takes.
        threads: of torch; one by default for small models, since it is faster there.
        progress: called with ("recording", checkpoints done, checkpoints).

    Raises:
        FileNotFoundError: no such run, or no checkpoints in it.
        ValueError: unknown task, tokens beyond the vocabulary, another history in the folder, or no checkpoint at all
            that can be read.
    """
    run = source.select(steps) if isinstance(source, Run) else Run.open(source, steps=steps)
    settings = Settings(tuple(tasks), n_prompts, seed, method, target, dtype, options)
    return _Recording(run, Path(folder), settings, device, threads).walk(progress or _silent)


def _silent(what: str, done: int, total: int) -> None:
    pass


class _Recording:
    """One walk over a run; the model stays, its weights change."""

    def __init__(self, run: Run, folder: Path, settings: Settings, device: str, threads: int | None) -> None:
        self.run, self.folder, self.settings = run, folder, settings
        self.device, self.threads = device, threads
        self.model: Model | None = None
        self.config: dict[str, Any] = {}
        self.tasks: dict[str, Task] = {}
        self.graph: ModelGraph | None = None
        self.waiting: list[Record] = []
        self.done: list[tuple[int, str]] = []
        self.skipped: list[tuple[int, str]] = []
        self.failed: list[tuple[int, str, str]] = []
        self.changed: list[tuple[int, str]] = []

    def walk(self, progress: Progress) -> RecordingSummary:
        import torch

        known = self._known()
        total, threads = len(self.run.checkpoints), torch.get_num_threads()
        try:
            for number, checkpoint in enumerate(self.run.checkpoints):
                progress("recording", number, total)
                self._checkpoint(checkpoint, known)
            progress("recording", total, total)
        finally:
            torch.set_num_threads(threads)
        if self.graph is None:
            raise ValueError(f"none of the {total} checkpoints of {self.run.name!r} can be read: {self.failed[0][2]}")
        results = (tuple(self.done), tuple(self.skipped), tuple(self.failed), tuple(self.changed))
        return RecordingSummary(str(self.folder), *results)

    def _known(self) -> dict[tuple[int, str], Record]:
        """What is on disk already and stays; a history of something else is refused before anything is read."""
        if not (self.folder / "history.json").is_file():
            return {}
        history = History.open(self.folder)
        self._create(history.graph)
        known = {}
        for key in history.records:
            try:
                kept = history.records[key]
            except ValueError:
                continue
            if kept.status != "failed":
                known[key] = kept
        return known

    def _create(self, graph: ModelGraph) -> None:
        settings = {**self.settings.to_dict(), "versions": _versions()}
        create_history(self.folder, self.run.name, graph, hyperparameters=self.run.hyperparameters, settings=settings)
        self.graph = graph

    def _checkpoint(self, checkpoint: Checkpoint, known: Mapping[tuple[int, str], Record]) -> None:
        if (log := training_record(self.run, checkpoint)) is not None:
            self._keep(log, known)
        missing = [unit for unit in self.settings.units if (checkpoint.step, unit) not in known]
        present = [unit for unit in self.settings.units if unit not in missing]
        self.skipped += [(checkpoint.step, unit) for unit in present]
        provenance: dict[str, Any] = {"checkpoint": checkpoint.name}
        try:
            provenance["hash"] = _hash(checkpoint)
            for unit in present:
                if known[checkpoint.step, unit].provenance.get("hash") != provenance["hash"]:
                    self.changed.append((checkpoint.step, unit))
            if not missing:
                return
            model = self._load(checkpoint)
        except (ValueError, OSError, RuntimeError) as error:
            for unit in missing:
                self._fail(unit, checkpoint, error, provenance)
            return
        if not self.tasks:
            self._begin(model)
        for unit in missing:
            try:
                found = measure(unit, model, self.tasks, self.settings, checkpoint, provenance)
            except (ValueError, RuntimeError, ArithmeticError) as error:
                self._fail(unit, checkpoint, error, provenance)
            else:
                self._keep(found, known)

    def _load(self, checkpoint: Checkpoint) -> "Model":
        """The model with the checkpoint's weights; made anew only where the configuration differs."""
        from circuits.checkpoint import read_config
        from circuits.model import load_model

        config = {key: value for key, value in read_config(Path(checkpoint.source)).items() if key not in IDLE_KEYS}
        if self.model is not None and config == self.config:
            self.model.swap_weights(checkpoint.source)
            return self.model
        model = load_model(checkpoint.source, device=self.device, dtype=self.settings.dtype)
        if self.graph is not None and model.graph != self.graph:
            raise ValueError("its layers or heads are not those of the checkpoints before it")
        self.model, self.config = model, config
        return model

    def _begin(self, model: "Model") -> None:
        """What the first model that can be read decides: the prompts, the graph, the threads."""
        import torch

        n_parameters = sum(weight.numel() for weight in model.module.parameters())
        torch.set_num_threads(self.threads or (1 if n_parameters < SMALL else torch.get_num_threads()))
        self.tasks = make_tasks(self.settings, model)
        if self.graph is None:
            self._create(model.graph)
        for waiting in self.waiting:
            write_record(self.folder, waiting)
        self.waiting.clear()

    def _keep(self, found: Record, known: Mapping[tuple[int, str], Record]) -> None:
        key = (found.step, found.task)
        if key in known:
            self.skipped.append(key)
            return
        self._write(found)
        self.done.append(key)

    def _fail(self, unit: str, checkpoint: Checkpoint, error: Exception, provenance: Mapping[str, Any]) -> None:
        reason = str(error) if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {error}"
        self._write(failed_record(unit, checkpoint, reason, provenance))
        self.failed.append((checkpoint.step, unit, reason))

    def _write(self, found: Record) -> None:
        if self.graph is not None:
            write_record(self.folder, found)
        else:
            self.waiting.append(found)


def _hash(checkpoint: Checkpoint) -> str:
    from circuits.checkpoint import checkpoint_hash

    return checkpoint_hash(checkpoint.source)


def _versions() -> dict[str, str]:
    found = {"circuit-formation-tracker": tool_version()}
    for name in ("torch", "transformer-lens", "transformers", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
