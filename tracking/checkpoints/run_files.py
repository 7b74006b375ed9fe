"""Run files: what `run.json` and the log of a run say, decoded into types.

Any training code may write them, so every key may be missing; what is there must be of its kind.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from circuits.decoding import as_type, read_json, read_json_lines

__all__ = ["RunFile", "read_log", "read_run_file"]


class RunFile(msgspec.Struct, frozen=True):
    """What `run.json` may say of a run; other keys are its writer's own."""

    name: str | None = None
    hyperparameters: dict[str, Any] = {}
    tokens_per_step: float | None = None
    model: dict[str, Any] = {}
    interventions: list[str] = []
    parent: Any = None
    exact: Any = None


def read_run_file(folder: "str | Path") -> RunFile:
    """What `run.json` of a folder says; nothing where there is none.

    Raises:
        ValueError: it is damaged.
    """
    place = Path(folder) / "run.json"
    if not place.exists():
        return RunFile()
    try:
        found = read_json(place, RunFile, what="JSON with the run's name and settings")
    except ValueError as error:
        raise ValueError(f"{place} is damaged ({error})") from error
    if found.tokens_per_step is not None and not 0 < found.tokens_per_step < math.inf:
        raise ValueError(f"{place}: expected tokens_per_step above 0, got {found.tokens_per_step}")
    return found


class _LogEntry(msgspec.Struct):
    """What is read of an entry of a log; its other values are whatever was logged."""

    step: int | float | None = None


def read_log(place: Path) -> tuple[Mapping[str, Any], ...]:
    """The entries of `log.jsonl` with a step; a last line that a killed run cut short is left out.

    Raises:
        ValueError: a line is no JSON object, or its step no number.
    """
    log = place / "log.jsonl"
    if not log.exists():
        return ()
    entries = list(read_json_lines(log, dict[str, Any], what='one JSON object a line, with its "step"'))
    for number, entry in enumerate(entries, start=1):
        as_type(entry, _LogEntry, where=f"{log}, entry {number}")
    return tuple(entry for entry in entries if isinstance(entry.get("step"), int))
