"""Record folders: the records of a history on disk, each read when it is asked for.

Question: what does one damaged file cost?  Its own record, which is then a failed one, and not the history.
"""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from circuits.circuit import graph_from_dict
from circuits.files import name_from_file
from circuits.graph import ModelGraph
from tracking.history.records import Record, StoredRecord, read_record

__all__ = ["FolderRecords"]

log: logging.Logger = logging.getLogger(__name__)


class FolderRecords(Mapping[tuple[int, str], Record]):
    """The records of a folder, each read when it is asked for and then kept.

    Args:
        settings: the digest of the history's settings; a record that carries another is left out.
        graph: the history's; a record of another model is left out.
    """

    def __init__(self, folder: Path, *, settings: str, graph: ModelGraph) -> None:
        self._settings, self._graph = settings, graph
        self._names = {node.name for node in graph.writers}
        self._places: dict[tuple[int, str], Path] = {}
        for place in sorted(folder.glob("*.safetensors")):
            step, _, task = place.name.removesuffix(".safetensors").partition(".")
            if step.isascii() and step.isdigit():
                self._places[int(step), _task(place, task)] = place
        self._read: dict[tuple[int, str], Record] = {}

    def __getitem__(self, key: tuple[int, str]) -> Record:
        if key not in self._read:
            try:
                self._read[key] = self._checked(key, read_record(self._places[key]))
            except ValueError as error:  # one damaged file costs that record, not the history
                if not any(record.provenance.get("damaged") for record in self._read.values()):
                    log.warning("%s; it is left out, and so is any other record that is damaged", error)
                self._read[key] = Record(*key, status="failed", reason=str(error), provenance={"damaged": True})
        return self._read[key]

    def _checked(self, key: tuple[int, str], record: StoredRecord) -> StoredRecord:
        place, made = self._places[key], record.provenance.get("settings", self._settings)
        if (record.step, record.task) != key:
            raise ValueError(f"{place} holds the record of {record.task} at step {record.step}; name it so")
        if made != self._settings:
            raise ValueError(
                f"{place} was recorded with other settings than this history's; the same `formation record` as before "
                "measures it again"
            )
        header = record.file.header
        if strange := {name for about in header["scores"].values() for name in about["nodes"]} - self._names:
            raise ValueError(f"{place} has scores of {min(strange)}, which this history's model does not have")
        circuit = header.get("circuit")
        if circuit is not None and graph_from_dict(circuit["graph"], where=str(place)) != self._graph:
            raise ValueError(f"{place} has a circuit of another model than this history's")
        return record

    def __iter__(self) -> Iterator[tuple[int, str]]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _task(place: Path, name: str) -> str:
    """The task of a record by its file's name; a name that was too long for a file stands in the record alone."""
    task = name_from_file(name)
    if task is not None:
        return task
    try:
        return read_record(place).task
    except ValueError:
        return name
