"""Kinds of data sources: the register of all ways in which training sequences are made.

Which kind is meant by this name, and with which options?  `KINDS` has them with their usual options; a new kind is one
entry.
"""

from dataclasses import fields, replace
from typing import Any

from tracking.training.problem_kinds import Association, InContextClassification, ModularArithmetic, PlantedStrings
from tracking.training.source_kind import SourceKind
from tracking.training.statistics_kinds import Blocks, Chain, RandomTokens, Runs, Text

__all__ = ["KINDS", "kind_of"]

KINDS: dict[str, SourceKind] = {
    "random": RandomTokens(),
    "repeats": Blocks(),
    "noisy-repeats": Blocks(corrupted_fraction=0.1),
    "runs": Runs(),
    "bigram": Chain(order=1),
    "trigram": Chain(order=2),
    "modular-arithmetic": ModularArithmetic(),
    "planted-strings": PlantedStrings(),
    "association": Association(),
    "in-context-classification": InContextClassification(),
    "text": Text(),
}
"""Every kind by name, with its usual options."""


def kind_of(name: str, options: dict[str, Any]) -> SourceKind:
    """The kind of that name with these options.

    Raises:
        ValueError: no such kind or option.
    """
    if name not in KINDS:
        raise ValueError(f"no kind of data source {name!r}; there are {', '.join(KINDS)}")
    usual: Any = KINDS[name]
    names = tuple(each.name for each in fields(usual))
    if unknown := sorted(set(options) - set(names)):
        raise ValueError(f"no option {unknown[0]!r} of a source of kind {name!r}; there are {', '.join(names)}")
    return replace(usual, **{key: _like(getattr(usual, key), key, value) for key, value in options.items()})


def _like(usual: Any, key: str, given: Any) -> Any:
    """What was given, which may be text or a list, as the type that the option usually has."""
    wanted = type(usual)
    if isinstance(usual, tuple):
        parts = given.split(",") if isinstance(given, str) else given
        numbers = [float(part) for part in parts] if isinstance(parts, list | tuple) else []
        if numbers and all(number.is_integer() for number in numbers):
            return tuple(int(number) for number in numbers)
    elif isinstance(usual, str) and isinstance(given, str):
        return given
    elif isinstance(usual, int | float) and isinstance(given, int | float | str) and not isinstance(given, bool):
        number = float(given)
        if wanted is float or number.is_integer():
            return wanted(number)
    raise ValueError(f"expected {key} to be like {usual!r}, got {given!r}")
