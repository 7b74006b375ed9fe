"""Histories: what was measured of every component, at every step, with what error.

A **snapshot** is every record of one step (`tracking.history.records`); a **history** is all snapshots of one run.
Everything to the right of this module works from a history alone and needs no model.  On disk a history is a folder:
`history.json` (the run's name, graph, hyperparameters and how it was recorded) and `records/<step>.<task>.safetensors`.

Axes: `step`, `component`, `writer`, `reader`, `fold` as in `circuits.graph`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from circuits.circuit import Circuit
from circuits.decoding import check_whole
from circuits.graph import Estimate, ModelGraph
from tracking.checkpoints.names import Fork, Stage
from tracking.checkpoints.runs import NoSuchStepError
from tracking.checkpoints.sketches import WeightSketch
from tracking.checkpoints.weight_faults import Finding, trajectory_of, weight_faults
from tracking.history.folder import create_history, read_history_file, tool_version
from tracking.history.patterns import FolderPatterns, Patterns
from tracking.history.record_folders import FolderRecords
from tracking.history.records import (
    EDGE_PARTS,
    MERGED,
    NULL_MEASURES,
    SCHEMA_VERSION,
    SKETCH,
    Levels,
    Record,
    StoredRecord,
    edges_frame,
    metrics_frame,
    scores_frame,
    settings_digest,
    write_record,
)
from tracking.history.tables import check_tables, infer_graph, records_from_tables

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = ["SCHEMA_VERSION", "History", "Snapshot", "create_history", "open_histories", "tool_version"]


UNKNOWN: Levels = (None, None)


@dataclass(frozen=True)
class Snapshot:
    """All records of one step, by task."""

    step: int
    tokens: float | None
    records: Mapping[str, Record]

    def __repr__(self) -> str:
        return f"<Snapshot of step {self.step}: {', '.join(self.records)}>"

    def circuit(self, task: str) -> Circuit | None:
        return self.records[task].circuit if task in self.records else None


@dataclass(frozen=True)
class History:
    """All snapshots of one run.

    `records` maps (step, task) to its record and reads it when it is asked for.  `hyperparameters` are those of the
    run; `settings` are those of the recording (prompts, seed, method, versions).  `stages` are
    the parts of the training in order, empty where it has one; `parent` is the run that it is up to a step.  `levels`
    are chance and ceiling of metrics, by `task/name`, in place of what the records say of them (see `with_levels`).
    `patterns` are attention patterns by step, where some were recorded.
    """

    name: str
    graph: ModelGraph
    records: Mapping[tuple[int, str], Record]
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    stages: tuple[Stage, ...] = ()
    parent: Fork | None = None
    levels: Mapping[str, Levels] = field(default_factory=dict)
    patterns: Mapping[int, Patterns] = field(default_factory=dict, repr=False, compare=False)

    def __repr__(self) -> str:
        graph, steps = self.graph, self.steps
        span = f"{len(steps)} checkpoints from step {steps[0]} to {steps[-1]}" if steps else "no checkpoint"
        tasks = ", ".join(sorted({task for _, task in self.records})) or "nothing measured"
        return f"<History {self.name}: {span}; {graph.n_layers} layers × {graph.n_heads} heads; {tasks}>"

    @staticmethod
    def open(folder: "str | Path") -> "History":
        """A history from disk; records are read when they are asked for.

        Raises:
            FileNotFoundError: the folder does not exist or holds no history.
            ValueError: it was written by a later version of this tool.
        """
        import xarray  # noqa: F401  # a quarter of a second: better here than in the first series that is asked for

        folder = Path(folder)
        about = read_history_file(folder)
        graph = about.model_graph(folder / "history.json")
        records = FolderRecords(folder / "records", settings=settings_digest(about.settings), graph=graph)
        patterns = FolderPatterns(folder / "patterns")
        what = (about.hyperparameters, about.settings, about.stages, about.parent)
        return History(about.name, graph, records, *what, patterns=patterns)

    @staticmethod
    def from_frame(
        scores: "pd.DataFrame | None" = None,
        *,
        edges: "pd.DataFrame | None" = None,
        metrics: "pd.DataFrame | None" = None,
        name: str | None = None,
        graph: ModelGraph | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
    ) -> "History":
        """A history from long tables with the columns of `to_frame`.

        `run`, `tokens`, `task` and `std_error` may be absent.  Edges listed in `edges` are the circuit, unless a
        column `in_circuit` says otherwise.  Without `graph`, the layers and heads are those that the names use.
        Metrics alone are a history too, of no components.  The
        tables do not say whether a task was done, or a checkpoint failed: every status is `unknown` (exported timelines
        keep it, see `tracking.results.timeline`).

        Raises:
            ValueError: a column is missing, a value is not a number, a row stands twice, or there are several runs.
        """
        check_whole((name, hyperparameters), where="the run's name, or a hyperparameter,")
        tables = check_tables({"scores": scores, "edges": edges, "metrics": metrics})
        runs = {str(run) for table in tables.values() if "run" in table for run in table["run"].unique()}
        if len(runs) > 1:
            raise ValueError(f"expected the rows of one run, got {len(runs)}: {', '.join(sorted(runs))}; select one")
        graph = graph or infer_graph(tables)
        records = records_from_tables(tables, graph)
        return History(name or next(iter(runs), "imported"), graph, records, hyperparameters or {})

    def save(self, out: "str | Path") -> None:
        """Write every record into the folder `out`, which must not hold another history."""
        about = {"hyperparameters": self.hyperparameters, "settings": self.settings, "stages": self.stages}
        about["parent"] = self.parent
        digest = create_history(out, self.name, self.graph, **about)
        for record in self.records.values():
            write_record(out, self.with_own_levels(record), settings=digest)

    def with_levels(
        self, chance: "Mapping[str, float] | float | None", ceiling: "Mapping[str, float] | float | None"
    ) -> "History":
        """The same history, with chance and ceiling of metrics; one number is that of every metric.

        Args:
            chance: what guessing gives, by `task/name` or by name alone.
            ceiling: the best that there is.

        Raises:
            ValueError: there is no such metric.
        """
        levels = dict(self.levels)
        for place, given in enumerate((chance, ceiling)):
            if given is None:
                continue
            named = given if isinstance(given, Mapping) else dict.fromkeys(self.metrics, given)
            for name, value in named.items():
                meant = [known for known in self.metrics if name in (known, known.rpartition("/")[2])]
                if not meant:
                    known = ", ".join(self.metrics) or "none"
                    raise ValueError(f"no metric {name!r} in history {self.name!r}; it has {known}")
                for known in meant:
                    pair = list(levels.get(known, self.levels_of(known)))
                    pair[place] = float(value)
                    levels[known] = (pair[0], pair[1])
        return replace(self, levels=levels)

    def with_own_levels(self, record: Record) -> Record:
        """The record with the levels that this history has been given for its metrics."""
        own = {name: self.levels.get(f"{record.task}/{name}") for name in (record.metric_names if self.levels else ())}
        given = {name: levels for name, levels in own.items() if levels is not None}
        if not given:
            return record
        about = {part.name: getattr(record, part.name) for part in fields(Record)}
        return Record(**{**about, "levels": {**record.levels, **given}})

    def levels_of(self, metric: str) -> Levels:
        """(chance, ceiling) of a metric, by `task/name`; None where it is not known."""
        if metric in self.levels:
            return self.levels[metric]
        task, _, short = metric.rpartition("/")
        known = (record.levels for (_, own), record in self.records.items() if own == task)
        return next((levels[short] for levels in known if short in levels), UNKNOWN)

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps with at least one record, failed ones included, in order."""
        return tuple(sorted({step for step, _ in self.records}))

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(sorted({task for _, task in self.records}))

    @property
    def tokens(self) -> dict[int, float | None]:
        """Tokens seen at each step; None where unknown."""
        known: dict[int, float | None] = dict.fromkeys(self.steps)
        for (step, _), record in self.records.items():
            known[step] = record.tokens if record.tokens is not None else known[step]
        return known

    def stage_at(self, step: "float | int") -> Stage | None:
        """The stage that a step, also one between two checkpoints, lies in; None where the run has no stages.

        What lies between the last checkpoint of a stage and the first of the next belongs to the next.
        """
        return next(
            (stage for stage in self.stages if step <= stage.last_step), self.stages[-1] if self.stages else None
        )

    @property
    def failures(self) -> tuple[Record, ...]:
        return tuple(record for record in self.records.values() if record.status == "failed")

    @property
    def damaged(self) -> tuple[Record, ...]:
        """Those among the failures whose file cannot be read; recording again measures them again."""
        return tuple(record for record in self.failures if record.provenance.get("damaged"))

    @property
    def measures(self) -> tuple[tuple[str, str], ...]:
        """(task, measure) of every node score that some record holds, but for what chance would give."""
        known = {(record.task, name) for record in self.records.values() for name in record.measures}
        return tuple(sorted(pair for pair in known if pair[1] not in NULL_MEASURES))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of all single numbers, as `task/name`."""
        return tuple(sorted({f"{r.task}/{name}" for r in self.records.values() for name in r.metric_names}))

    @property
    def faults(self) -> tuple[Finding, ...]:
        """Checkpoints that do not belong where they stand, by the sketches of their weights that recording kept."""
        sketches: dict[int, WeightSketch] = {}
        for (step, _), record in self.records.items():
            if SKETCH in record.provenance:
                sketches[step] = WeightSketch.from_dict(record.provenance[SKETCH])
        return tuple(weight_faults(trajectory_of(sketches)))

    @property
    def merges(self) -> dict[int, tuple[str, ...]]:
        """Of which models a checkpoint was made that no training wrote, by step."""
        told = {step: r.provenance[MERGED] for (step, _), r in self.records.items() if MERGED in r.provenance}
        return {step: tuple(map(str, parents)) for step, parents in sorted(told.items())}

    def __getitem__(self, step: int) -> Snapshot:
        """The snapshot of a step.

        Raises:
            NoSuchStepError: there is none; the message names the nearest.
        """
        if step not in self.steps:
            raise NoSuchStepError("snapshot", step, self.steps, f"history {self.name!r}")
        records = {task: record for (at, task), record in self.records.items() if at == step}
        return Snapshot(step, self.tokens[step], records)

    def __iter__(self) -> Iterator[Snapshot]:
        return (self[step] for step in self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def score(self, measure: str, *, task: str | None = None) -> "xr.Dataset":
        """One measure of all components over all steps: `value`, `std_error` (step, component), `folds`
        (fold, step, component); NaN where it was not measured.  `task` may be left out where only one has it.

        Raises:
            KeyError: no task, or more than one, has that measure.
        """
        task = self._task_of(measure, task)
        names = tuple(node.name for node in self.graph.writers)

        def row(record: Record) -> Estimate | None:
            if measure not in record.scores:
                return None
            found = record.scores[measure]
            places = [self.graph.writer_index[node] for node in found.nodes]
            return _spread(found.estimate, len(names), places)

        data = self._stack(task, row, {"component": names})
        present = data.value.notnull().any("step").values
        return data.isel(component=np.flatnonzero(present)).assign_attrs(task=task, measure=measure)

    def edge_scores(self, task: str) -> "xr.Dataset":
        """Edge scores over all steps: `value`, `std_error`, `kept` (step, writer, reader), `folds` (fold, ...).

        Of a history on disk nothing is read until it is selected: `edge_scores(task).value.sel(writer="a0.h1")` reads
        no more than it gives.
        """
        import xarray as xr

        from tracking.history.edge_series import EdgeArray, lazily

        axes = {
            "writer": tuple(node.name for node in self.graph.writers),
            "reader": tuple(reader.name for reader in self.graph.readers),
        }
        steps = [step for step, known in sorted(self.records) if known == task]
        records = [self.records[step, task] for step in steps]
        files = [record.file if isinstance(record, StoredRecord) else None for record in records]
        if any(file is None and record.circuit is not None for file, record in zip(files, records, strict=True)):
            data = self._stack(task, lambda record: record.circuit.scores.estimate if record.circuit else None, axes)
            empty = np.zeros(self.graph.edge_mask.shape, dtype=bool)
            kept = [record.circuit.kept if record.circuit else empty for record in records]
            return data.assign(kept=xr.DataArray(np.array(kept), dims=("step", *axes))).assign_attrs(task=task)
        files = [file if file is not None and "circuit" in file.header else None for file in files]
        n_folds = max((file.n_folds for file in files if file is not None), default=0)
        data = self._stack(task, lambda record: None, {}).drop_vars(["value", "std_error", "folds"])
        parts = {}
        for part in EDGE_PARTS:
            dims = ("fold", "step", *axes) if part == "folds" else ("step", *axes)
            parts[part] = xr.Variable(dims, lazily(EdgeArray(files, self.graph, part, n_folds)))
        return (
            data.assign(parts)
            .assign_coords({axis: list(names) for axis, names in axes.items()})
            .assign_attrs(task=task)
        )

    def metric(self, name: str) -> "xr.Dataset":
        """One number over all steps, by `task/name`: `value`, `std_error` (step) and `folds` (fold, step).

        Raises:
            KeyError: no record has it; the message names those there are.
        """
        if name not in self.metrics:
            raise KeyError(f"no metric {name!r} in history {self.name!r}; it has {', '.join(self.metrics) or 'none'}")
        task, _, short = name.rpartition("/")
        return self._stack(task, lambda record: record.metrics.get(short), {}).assign_attrs(task=task, name=short)

    def circuit(self, step: int, task: str) -> Circuit:
        """The circuit of a task at a step.

        Raises:
            KeyError: it was not recorded.
        """
        found = self[step].circuit(task)
        if found is None:
            raise KeyError(f"no circuit of task {task!r} at step {step} in history {self.name!r}")
        return found

    def to_frame(self, table: Literal["scores", "edges", "metrics"] = "scores") -> "pd.DataFrame":
        """One of the long tables of this history.

        `scores`: run, step, tokens, component, task, measure, value, std_error;
        `edges`: run, step, task, source, target, slot, score, std_error, in_circuit, inclusion;
        `metrics`: run, step, tokens, name, value, std_error.
        """
        rows = {"scores": scores_frame, "edges": edges_frame, "metrics": metrics_frame}[table]
        frame = rows([self.records[key] for key in sorted(self.records)])
        frame.insert(0, "run", self.name)
        return self.with_stage(frame)

    def with_stage(self, frame: "pd.DataFrame", *, at: str = "step") -> "pd.DataFrame":
        """The table with a column `stage`, by the steps in the column `at`; as it is where the run has no stages."""
        if not self.stages or at not in frame:
            return frame
        known = {step: self.stage_at(step) for step in frame[at].dropna().unique().tolist()}
        names = [None if (stage := known.get(step)) is None else stage.name for step in frame[at]]
        return frame.assign(stage=names)

    def _task_of(self, measure: str, task: str | None) -> str:
        holding = {record.task for record in self.records.values() if measure in record.measures}
        having = sorted(name for name in holding if task in (None, name))
        if len(having) == 1:
            return having[0]
        known = ", ".join(f"{measure} (task {name})" for name, measure in self.measures) or "none"
        if not having:
            asked = measure if task is None else f"{measure} on task {task}"
            raise KeyError(f"no measure {asked!r} in history {self.name!r}; it has {known}")
        raise KeyError(f"measure {measure!r} was taken on several tasks, {', '.join(having)}; say which with task=")

    def _stack(self, task: str, row: Callable[[Record], Estimate | None], axes: dict[str, tuple[str, ...]]):
        """A dataset over the steps of one task from one estimate a record (NaN where there is none)."""
        import xarray as xr

        steps = [step for step, known in sorted(self.records) if known == task]
        rows = [row(self.records[step, task]) for step in steps]
        shape = tuple(len(names) for names in axes.values())
        n_folds = max((len(found.folds) for found in rows if found is not None), default=0)
        value, error = np.full((len(steps), *shape), np.nan), np.full((len(steps), *shape), np.nan)
        folds = np.full((n_folds, len(steps), *shape), np.nan)
        for index, found in enumerate(rows):
            if found is not None:
                value[index], error[index] = found.value, found.std_error
                folds[: len(found.folds), index] = found.folds
        tokens = [self.records[step, task].tokens for step in steps]
        coords = {"step": steps, "tokens": ("step", np.array([np.nan if t is None else t for t in tokens]))}
        dims = ("step", *axes)
        return xr.Dataset(
            {"value": (dims, value), "std_error": (dims, error), "folds": (("fold", *dims), folds)},
            {**coords, **{axis: list(names) for axis, names in axes.items()}},
        )


def _spread(estimate: Estimate, size: int, places: list[int]) -> Estimate:
    """The estimate on a longer axis, NaN where it says nothing."""
    value, error = np.full(size, np.nan), np.full(size, np.nan)
    folds = np.full((len(estimate.folds), size), np.nan)
    value[places], error[places], folds[:, places] = estimate.value, estimate.std_error, estimate.folds
    return Estimate(value, error, folds, estimate.n_prompts)


def open_histories(*folders: "str | Path") -> list[History]:
    """The histories in some folders; the folder of a sweep stands for all of its histories.

    A run is named by its folder, so those of several seeds may share a name; they are then called by as much of their
    path as tells them apart, `seed0/early` and `seed1/early`.

    Raises:
        FileNotFoundError: a folder holds no history.
    """
    places: list[Path] = []
    for folder in map(Path, folders):
        inside = sorted(path.parent for path in folder.glob("histories/*/history.json"))
        places += inside or [folder]
    found = [History.open(place) for place in places]
    full = [place.resolve().parts for place in places]
    return [replace(history, name=_told_apart(index, found, full)) for index, history in enumerate(found)]


def _told_apart(index: int, found: Sequence[History], paths: Sequence[tuple[str, ...]]) -> str:
    own, name = paths[index], found[index].name
    others = {path for path, other in zip(paths, found, strict=True) if other.name == name and path != own}
    if not others:
        return name
    return "/".join(own[-next(n for n in range(1, len(own) + 1) if all(own[-n:] != path[-n:] for path in others)) :])
