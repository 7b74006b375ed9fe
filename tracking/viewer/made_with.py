"""Made with: the commands, versions and hashes behind a run, as text that can be copied and run again."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from tracking.history.history import tool_version
from tracking.results.results import RunTimeline

__all__ = ["made_with"]

# Settings of a recording that are options of `formation record`.
OPTIONS = ("method", "n_prompts", "seed", "target", "dtype")
MOST_CHECKPOINTS = 400


def made_with(run: RunTimeline) -> str:
    """Commands, then versions and checkpoints as remarks of the shell."""
    settings, history = run.history.settings, run.history
    folder = shlex.quote(history.name)
    made = [entry for entry in settings.get("made", []) if isinstance(entry, Mapping)]
    lines = list(dict.fromkeys(str(entry["command"]) for entry in made if entry.get("command")))
    source = next((str(entry["source"]) for entry in made if entry.get("source")), "SOURCE")
    if (tasks := settings.get("tasks")) and not lines:
        options = "".join(_option(name, settings.get(name)) for name in OPTIONS)
        task = shlex.quote(",".join(tasks))
        lines.append(f"formation record {shlex.quote(source)} --task {task} --out {folder}{options}")
    lines.append(f"formation report {folder} --out report.html{_analysis(run.analysis)}")
    versions = {"circuit-formation-tracker": tool_version(), **dict(settings.get("versions", {}))}
    lines += [f"# {name} {version}" for name, version in versions.items()]
    lines += list(dict.fromkeys(f"# commit {entry['commit']}" for entry in made if entry.get("commit")))
    lines += _checkpoints(run)
    return "\n".join(lines) + "\n"


def _option(name: str, value: Any) -> str:
    return "" if value is None else f" --{name.replace('_', '-')} {shlex.quote(str(value))}"


def _analysis(analysis: Mapping[str, Any]) -> str:
    every = " --all-events" if analysis.get("least") == 0 else ""
    return _option("task", analysis.get("task")) + _option("max_gap", analysis.get("max_gap")) + every


def _checkpoints(run: RunTimeline) -> list[str]:
    """What is known of each checkpoint: its hash, its place."""
    told: dict[int, str] = {}
    for (step, _), record in sorted(run.history.records.items()):
        if record.provenance and step not in told:
            told[step] = json.dumps(dict(record.provenance), sort_keys=True, default=str)
    lines = [f"# step {step}: {about}" for step, about in told.items()]
    left = len(lines) - MOST_CHECKPOINTS
    return lines[:MOST_CHECKPOINTS] + ([f"# and {left} more checkpoints"] if left > 0 else [])
