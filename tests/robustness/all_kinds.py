"""Every kind of file there is to fuzz, and one valid file of each."""

from pathlib import Path

from tests.robustness import files_of_models, files_of_others, fuzzing
from tests.robustness.fuzzing import Kind

__all__ = ["KINDS", "make"]

KINDS: dict[str, Kind] = fuzzing.KINDS | files_of_others.KINDS | files_of_models.KINDS


def make(folder: Path) -> None:
    for each in (fuzzing, files_of_others, files_of_models):
        each.make(folder)
