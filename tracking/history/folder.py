"""History folder: how a history lies on disk, and who may add to it.

`history.json` says what was measured and how (name, graph, hyperparameters, settings); `records/` holds one file for
each step and task.  The first recorder makes the folder, and all later ones must ask for the same: making it and adding
a task to it are done by one process at a time, and every record carries a digest of the settings that made it, so that
records of other settings are refused whoever wrote them.
"""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from circuits.circuit import graph_from_dict
from circuits.decoding import as_type, check_whole, read_json, whole_text
from circuits.files import write_beside, write_new
from circuits.graph import ModelGraph
from tracking.checkpoints.names import Fork, Stage
from tracking.execution.locks import claim
from tracking.history.records import SCHEMA_VERSION, settings_digest

__all__ = ["HistoryFile", "commit_of_tool", "create_history", "note_made", "read_history_file", "tool_version"]


class HistoryFile(msgspec.Struct, frozen=True):
    """What `history.json` holds."""

    schema_version: int
    name: str
    graph: dict[str, Any]
    tool_version: str = "unknown"
    hyperparameters: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    stages: tuple[Stage, ...] = ()
    parent: Fork | None = None

    def model_graph(self, place: Path) -> ModelGraph:
        return graph_from_dict(self.graph, where=f"{place}, graph")


def tool_version() -> str:
    try:
        return version("circuit-formation-tracker")
    except PackageNotFoundError:
        return "unknown"


def create_history(
    folder: "str | Path",
    name: str,
    graph: ModelGraph,
    *,
    hyperparameters: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    stages: Sequence[Stage] = (),
    parent: Fork | None = None,
) -> str:
    """Make the folder of a history, or check that it is already there with the same graph and settings.

    `settings["tasks"]` may grow, since a task changes nothing of the others; `settings["versions"]` and
    `settings["made"]` may differ.

    Returns:
        The digest of the settings, which records carry (see `tracking.history.records.write_record`).

    Raises:
        ValueError: the folder holds a history of another run or one recorded otherwise.
    """
    folder = Path(folder)
    about = {
        "schema_version": SCHEMA_VERSION,
        "tool_version": tool_version(),
        "name": name,
        "graph": asdict(graph),
        "hyperparameters": dict(hyperparameters or {}),
        "settings": dict(settings or {}),
    }
    if stages:
        about["stages"] = [asdict(stage) for stage in stages]
    if parent is not None:
        about["parent"] = asdict(parent)
    check_whole(about, where=f"what is to be written of the history {whole_text(name)}")
    (folder / "records").mkdir(parents=True, exist_ok=True)
    (folder / ".locks").mkdir(exist_ok=True)
    place = folder / "history.json"
    with claim(folder / ".locks" / "history", wait=True):
        if not place.exists() and write_new(place, _text(about)):
            return settings_digest(about["settings"])
        known, asked = msgspec.to_builtins(read_history_file(folder)), json.loads(json.dumps(about))
        for key in ("name", "graph", "settings"):
            for part, there, here in _differing(known[key], asked[key]):
                what = f"{key} {part}" if part else key
                go_on = f"{part}={there!r}" if key == "settings" and there is not None else "the same settings"
                raise ValueError(
                    f"{folder} holds a history with {what} {there!r}, and this one has {here!r}; "
                    f"choose another folder, or go on with {go_on}"
                )
        tasks = known["settings"].get("tasks", [])
        if more := [task for task in asked["settings"].get("tasks", []) if task not in tasks]:
            known["settings"]["tasks"] = tasks + more
            write_beside(place, _text(known))
    return settings_digest(about["settings"])


def note_made(folder: "str | Path", **facts: Any) -> None:
    """Add to `settings["made"]` of a history how it was made: one entry for each different way.

    Args:
        facts: such as the command line, the source of the checkpoints and the commit of this tool; None is left out.
    """
    place = Path(folder) / "history.json"
    given = {name: value for name, value in facts.items() if value is not None}
    entry = {name: whole_text(value) if isinstance(value, str) else value for name, value in given.items()}
    with claim(Path(folder) / ".locks" / "history", wait=True):
        known = msgspec.to_builtins(read_history_file(Path(folder)))
        made = known["settings"].setdefault("made", [])
        if entry not in made:
            made.append(entry)
            write_beside(place, _text(known))


def commit_of_tool() -> str | None:
    """The git commit of the checkout that this tool runs from; None where it is installed without one."""
    try:
        where = ["git", "-C", str(Path(__file__).parent)]
        found = subprocess.run([*where, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True)
        changed = subprocess.run(
            [*where, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True, text=True, timeout=5, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() + (" with changes" if changed.stdout.strip() else "")


def _text(about: Mapping[str, Any]) -> bytes:
    return json.dumps(about, indent=2, sort_keys=True).encode()


def _differing(known: Any, asked: Any) -> Iterator[tuple[str, Any, Any]]:
    if not (isinstance(known, dict) and isinstance(asked, dict)):
        known, asked = {"": known}, {"": asked}
    may_differ = {"versions", "made", *({"tasks"} if "tasks" in known and "tasks" in asked else ())}
    for part in sorted({*known, *asked} - may_differ):
        if known.get(part) != asked.get(part):
            yield part, known.get(part), asked.get(part)


def read_history_file(folder: Path) -> HistoryFile:
    """What `history.json` of a folder holds.

    Raises:
        FileNotFoundError: the folder does not exist or holds no history.
        ValueError: the file is damaged, or was written by a later version of this tool.
    """
    place = folder / "history.json"
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder}; expected a history, as `formation record` writes it")
    if not place.is_file():
        raise FileNotFoundError(f"{folder} holds no history (no history.json); make it with `formation record`")
    try:
        about = read_json(place, dict[str, Any], what="a history")
        newer = as_type(about.get("schema_version"), int, where="schema_version") > SCHEMA_VERSION
        if not newer:
            found = as_type(about, HistoryFile, where=str(place))
            as_type(found.settings.get("tasks", []), list[str], where=f"{place}, settings.tasks")
            return found
    except ValueError as error:
        raise ValueError(
            f"{place} is damaged ({error}); delete it, and the same `formation record` as before makes it anew"
        ) from error
    raise ValueError(f"{folder} was written by version {about.get('tool_version')} of this tool; install that or later")
