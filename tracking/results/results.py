"""Results: what was found in one run or in several, as one value, and what its tables hold.

A **timeline** is everything there is to say about some runs: each run's history, the lifelines and events found in it,
its formation table, and the findings in words.  Its six tables have the same columns everywhere: here, in Parquet, in
CSV and in JSON.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING, Any

from tracking.history.columns import COLUMNS, MEASURED, STAGE, TABLES, typed
from tracking.history.history import SCHEMA_VERSION, History, tool_version

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RunTimeline", "Runs", "Timeline", "versions"]

PART = 1 << 18
"""Rows of a table that are made at a time."""


def versions() -> dict[str, Any]:
    """What every file says of the program that wrote it."""
    return {"schema_version": SCHEMA_VERSION, "tool_version": tool_version()}


@dataclass(frozen=True)
class RunTimeline:
    """One run: what was measured, what was found in it, and the findings as sentences.

    `analysis` says how it was found: thresholds by lifeline, what each clock of a lifeline reads, definitions,
    confidence, seed.
    """

    history: History
    lifelines: "pd.DataFrame"
    events: "pd.DataFrame"
    formation: "pd.DataFrame"
    sentences: tuple[str, ...] = ()
    analysis: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("lifelines", "events", "formation"):
            expected, got = list(COLUMNS[name]), list(getattr(self, name).columns)
            if missing := [column for column in expected if column not in got]:
                raise ValueError(
                    f"expected a table of {name} with the columns {', '.join(expected)}; {', '.join(missing)} "
                    f"{'is' if len(missing) == 1 else 'are'} not among {', '.join(map(str, got)) or 'none'}"
                )

    def __repr__(self) -> str:
        return f"<RunTimeline of {self.history!r}: {len(self.lifelines)} lifeline rows, {len(self.events)} events>"

    def _repr_html_(self) -> str:
        rows = self.formation[self.formation["component"].isna() | (self.formation["component"] == "")]
        shown = rows[["lifeline", "clock", "definition", "rise", "midpoint", "low", "high", "state"]]
        return f"<p>{escape(repr(self))}</p>{shown.to_html(index=False, max_rows=40)}"

    @property
    def name(self) -> str:
        return self.history.name

    def parts(self, name: str) -> "Iterator[pd.DataFrame]":
        """The rows of a table, in order, in as many tables as it takes to hold few of them in memory.

        A run of many checkpoints has millions of edges; every other table is one part.
        """
        if name != "edges":
            yield self.table(name)
            return
        history, waiting, size = self.history, {}, 0
        for key in sorted(history.records):
            waiting[key] = record = history.records[key]
            size += 0 if record.circuit is None else int(record.circuit.graph.edge_mask.sum())
            if size >= PART:
                yield replace(self, history=replace(history, records=waiting)).table(name)
                waiting, size = {}, 0
        if waiting:
            yield replace(self, history=replace(history, records=waiting)).table(name)

    def table(self, name: str) -> "pd.DataFrame":
        """One of the six tables of this run, its columns in order and of one type each.

        Raises:
            ValueError: there is no such table.
        """
        if name not in TABLES:
            raise ValueError(f"expected a table among {', '.join(TABLES)}, got {name!r}")
        frame = self.history.to_frame(name) if name in MEASURED else getattr(self, name)
        if name == "scores":
            place = {node.name: index for node, index in self.history.graph.writer_index.items()}
            frame = frame.assign(place=frame["component"].map(place)).sort_values(["step", "task", "measure", "place"])
        if name == "metrics":
            frame = frame.sort_values(["step", "name"], kind="stable")
        return typed(frame, name)


class Runs(tuple[RunTimeline, ...]):
    """Runs in their order, each also by its name: `timeline.runs[0]`, `timeline.runs["small-seed0"]`."""

    __slots__ = ()

    def __getitem__(self, key: Any) -> Any:
        """The run of that name, or at that place.

        Raises:
            KeyError: there is no run of that name; the message names those there are.
        """
        if not isinstance(key, str):
            return super().__getitem__(key)
        for run in self:
            if run.name == key:
                return run
        raise KeyError(f"no run {key!r} in this timeline; it has {', '.join(run.name for run in self)}")


@dataclass(frozen=True)
class Timeline:
    """Everything found in some runs."""

    runs: tuple[RunTimeline, ...]

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("expected at least one run, got none")
        names = [run.name for run in self.runs]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two runs are called {twice[0]!r}; rename one, so that the tables tell them apart")
        object.__setattr__(self, "runs", Runs(self.runs))

    def __repr__(self) -> str:
        return f"<Timeline of {', '.join(run.name for run in self.runs)}>"

    def _repr_html_(self) -> str:
        return "".join(run._repr_html_() for run in self.runs)

    def __getitem__(self, name: str) -> RunTimeline:
        """The run of that name.

        Raises:
            KeyError: there is none; the message names those there are.
        """
        return Runs(self.runs)[name]

    def parts(self, name: str) -> "Iterator[pd.DataFrame]":
        """The rows of a table, run after run, as `RunTimeline.parts` gives them."""
        for run in self.runs:
            for part in run.parts(name):
                yield part.assign(stage=None) if self.staged and STAGE.name not in part else part

    @property
    def staged(self) -> bool:
        """Whether some run has several stages, so that every table says which."""
        return any(run.history.stages for run in self.runs)

    def table(self, name: str, *, hyperparameters: bool = False) -> "pd.DataFrame":
        """One of the six tables, run after run; with `hyperparameters` each of the run's as a further column."""
        import pandas as pd

        tables = [run.table(name) for run in self.runs]
        found = tables[0] if len(tables) == 1 else typed(pd.concat(tables, ignore_index=True), name)
        if not hyperparameters:
            return found
        settings = pd.DataFrame([{**run.history.hyperparameters, "run": run.name} for run in self.runs])
        return found.merge(settings, on="run", how="left", suffixes=("", "_of_run"))
