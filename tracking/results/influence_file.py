"""Influence files: which training data moved a date, as `formation why --json` prints it and others read it.

What did an earlier question of `why` find?  The page draws it, and a search starts from it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from circuits.decoding import as_type, read_json

__all__ = ["InfluenceFile", "RetrainedShift", "SourceShift", "read_influence"]

WHAT = "what `formation why --json` printed"


class SourceShift(msgspec.Struct, frozen=True):
    """By how many steps the date moves when the weight of `source` rises by a tenth within `window`: [first, last)."""

    source: str
    window: tuple[int, int]
    shift_steps: float
    low: float
    high: float
    verified_shift: float | None = None

    @property
    def told(self) -> bool:
        """Whether its direction is told: the interval leaves out 0."""
        return self.low > 0 or self.high < 0


class RetrainedShift(msgspec.Struct, frozen=True):
    """The shift predicted for a retrained branch and the one found; none where the date never came."""

    source: str
    window: tuple[int, int]
    factor: float
    predicted: float
    actual: float | None


class InfluenceFile(msgspec.Struct, frozen=True):
    """One answer; `sentences` say it in words."""

    curve: str
    component: str
    bar: float
    date: float
    runs: tuple[str, ...]
    method: str
    confidence: float
    sources: tuple[SourceShift, ...]
    proofs: tuple[RetrainedShift, ...] = ()
    sentences: tuple[str, ...] = ()


def read_influence(given: "str | Path | Mapping[str, Any]") -> InfluenceFile:
    """From a file that `formation why --json` printed, or from the same as a dictionary (`why(...).to_dict()`).

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is something else.
    """
    if isinstance(given, Mapping):
        return as_type(dict(given), InfluenceFile, where=WHAT)
    if not Path(given).is_file():
        raise FileNotFoundError(f"no such file: {given}; expected {WHAT}")
    return read_json(given, InfluenceFile, what=WHAT)
