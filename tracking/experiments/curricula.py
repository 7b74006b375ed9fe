"""Curricula: weights of data sources over windows of steps, as options that a search can choose.

What does "more repeats in the first 200 steps" look like as a number?  The option

    sources.NAME.weight@FIRST..LAST

is the weight of a source in the steps FIRST to LAST − 1; outside its windows a source has the weight that the
configuration gives it.  The **response** of a date to the sources, as `formation why --json` prints it, says which way
each such number should go first.
"""

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from tracking.results.influence_file import SourceShift
from tracking.training.hyperparameters import TrainingConfig
from tracking.training.sources import Source

__all__ = ["WINDOW", "going_on", "shift_of", "weights_in_windows", "with_windows"]

WINDOW = re.compile(r"sources\.(.+)\.weight@(\d+)\.\.(\d+)")


def with_windows(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with every weight over a window written into the weight of its source, as pairs of step and weight.

    >>> base = {"sources": {"a": {"kind": "random"}, "b": {"kind": "repeats", "weight": 0.5}}}
    >>> with_windows({**base, "sources.b.weight@10..20": 2.0})["sources.b.weight"]
    '0:0.5, 9:0.5, 10:2, 19:2, 20:0.5'

    Raises:
        ValueError: the window is empty, the source is unknown, or two windows of one source overlap.
    """
    plain = {key: value for key, value in options.items() if "@" not in key}
    windows: dict[str, list[tuple[int, int, float]]] = {}
    for key in options.keys() - plain.keys():
        name, first, last = _window(key)
        windows.setdefault(name, []).append((first, last, float(options[key])))
    if not windows:
        return plain
    known = {source.name: source for source in TrainingConfig.from_dict(plain).sources}
    for name, rows in sorted(windows.items()):
        if name not in known:
            there = ", ".join(known) or "none"
            raise ValueError(f"no source {name!r} whose weight could change over steps; there are {there}")
        rows.sort()
        for (_, end, _), (begin, _, _) in itertools.pairwise(rows):
            if begin < end:
                raise ValueError(f"expected windows of source {name!r} that do not overlap, got two at step {begin}")
        edges = {0, *(int(step) for step, _ in known[name].weight)}
        for first, last, _ in rows:
            edges |= {first, last - 1, last} | ({first - 1} if first else set())
        inside = {step: value for step in edges for first, last, value in rows if first <= step < last}
        pairs = [(step, inside.get(step, known[name].weight_at(step))) for step in sorted(edges)]
        plain[f"sources.{name}.weight"] = ", ".join(f"{step}:{value:g}" for step, value in pairs)
    return plain


def weights_in_windows(sources: Sequence[Source], options: Iterable[str]) -> dict[str, float]:
    """Of those options that are weights over windows: what the source weighs there on average as it is."""
    by_name = {source.name: source for source in sources}
    found = {}
    for option in options:
        if "@" in option:
            name, first, last = _window(option)
            if name in by_name:
                found[option] = float(np.mean([by_name[name].weight_at(step) for step in range(first, last)]))
    return found


def _window(key: str) -> tuple[str, int, int]:
    found = WINDOW.fullmatch(key)
    if found is None or not int(found[2]) < int(found[3]):
        raise ValueError(f"expected a weight over a window such as sources.repeats.weight@0..200, got {key!r}")
    return found[1], int(found[2]), int(found[3])


def going_on(responses: Sequence[SourceShift], until: int) -> list[SourceShift]:
    """The responses, the latest windows stretched to the end: what moves the rise of a curve is taken to move its last
    value alike."""
    last = max((each.window[1] for each in responses), default=0)
    return [
        msgspec.structs.replace(each, window=(each.window[0], max(until, last))) if each.window[1] == last else each
        for each in responses
    ]


def shift_of(option: str, responses: Sequence[SourceShift]) -> float:
    """By how many steps the date moves when this option rises by a tenth; 0 where nothing is told.

    A response over a longer window counts with the share of it that lies within the option's.
    """
    if WINDOW.fullmatch(option):
        name, first, last = _window(option)
    elif match := re.fullmatch(r"sources\.(.+)\.(loss_)?weight", option):
        name, first, last = match[1], 0, 10**12
    else:
        return 0.0
    total = 0.0
    for each in responses:
        begin, end = each.window
        if each.source == name and each.told and math.isfinite(each.shift_steps) and begin < end:
            total += each.shift_steps * max(0, min(last, end) - max(first, begin)) / (end - begin)
    return float(np.round(total, 12))
