"""Record folders: the records of a history on disk, each read when it is asked for.

Question: what does one damaged file cost?  Its own record, which is then a failed one, and not the history.
"""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from tracking.history.records import Record, read_record

__all__ = ["FolderRecords"]

log = logging.getLogger(__name__)


class FolderRecords(Mapping[tuple[int, str], Record]):
    """The records of a folder, each read when it is asked for and then kept."""

    def __init__(self, folder: Path) -> None:
        self._places: dict[tuple[int, str], Path] = {}
        for place in sorted(folder.glob("*.safetensors")):
            step, _, task = place.name.removesuffix(".safetensors").partition(".")
            if step.isdigit():
                self._places[int(step), task] = place
        self._read: dict[tuple[int, str], Record] = {}

    def __getitem__(self, key: tuple[int, str]) -> Record:
        if key not in self._read:
            try:
                self._read[key] = read_record(self._places[key])
            except ValueError as error:  # one damaged file costs that record, not the history
                if not any(record.provenance.get("damaged") for record in self._read.values()):
                    log.warning("%s; it is left out, and so is any other record that is damaged", error)
                self._read[key] = Record(*key, status="failed", reason=str(error), provenance={"damaged": True})
        return self._read[key]

    def __iter__(self) -> Iterator[tuple[int, str]]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
