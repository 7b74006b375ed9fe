"""Adjustment: what else differs between runs, which runs are blocks, and which effects cannot be told apart.

Of the hyperparameter in question, `x`, every other one that varies is taken out.  Runs that share a seed, a parent or a
data order are a **block**: what they share is taken out as well, and only runs of one block are exchanged.

Two hyperparameters that move together have no effects of their own in these runs: `x` is **confounded** with those that
explain nearly all of it.  They are then not taken out, and what is estimated is the effect of all of them together.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from tracking.comparison.run_set import Hyperparameters, by_size, is_number, plain, varying

__all__ = ["Adjustment", "adjustment", "blocks_of"]

BLOCKED_BY = ("seed", "data_seed", "data_order", "parent")
"""Hyperparameters that make runs alike without being what is asked about."""
MOST = 0.75
"""Share of the differences in a hyperparameter that must lie within blocks for them to be used."""
TOGETHER = 0.95
"""Share of a hyperparameter that others explain, from which on their effects cannot be told apart."""
FEWEST_DEGREES = 2


@dataclass(frozen=True)
class Adjustment:
    """What is taken out of the effect of one hyperparameter.

    Attributes:
        columns: the other hyperparameters, centred and of unit spread; categories are a column for each but the first.
        block: the block of each run; all different where runs share nothing.
        blocked_by: what the runs of a block share, such as "seed"; empty without blocks.
        confounded: the hyperparameters whose effects cannot be told from that of `x`.
        shrunk: whether there are too few runs to take all columns out; then each counts only as far as a normal prior
            lets it.
    """

    columns: Float[np.ndarray, "run column"]
    block: Int[np.ndarray, "run"]
    blocked_by: str = ""
    confounded: tuple[str, ...] = ()
    shrunk: bool = False


def adjustment(
    settings: Hyperparameters, names: Sequence[str], x: Float[np.ndarray, "run"], *, about: Sequence[str] = ()
) -> Adjustment:
    """What is taken out of the effect of `x` on some runs.

    Args:
        settings: hyperparameters by run.
        names: the runs, in the order of `x`.
        about: the hyperparameters that `x` is made of.
    """
    chosen = {name: settings[name] for name in names}
    block, blocked_by = blocks_of(chosen, x)
    by_name = {
        other: columns
        for other in varying(chosen)
        if other not in about and (columns := _columns([plain(one.get(other)) for one in chosen.values()])).shape[1]
    }
    within = {other: _centred(columns, block) for other, columns in by_name.items()}
    confounded = _confounded(_centred(x[:, None], block)[:, 0], within)
    kept = [columns for other, columns in by_name.items() if other not in confounded]
    columns = np.column_stack(kept) if kept else np.empty((len(names), 0))
    taken = len(np.unique(block)) if blocked_by else 1
    rank = int(np.linalg.matrix_rank(columns)) if columns.size else 0
    shrunk = rank > 0 and len(names) - taken - rank - 1 < FEWEST_DEGREES
    return Adjustment(columns, block, blocked_by, confounded, shrunk)


def blocks_of(settings: Hyperparameters, x: Float[np.ndarray, "run"]) -> tuple[Int[np.ndarray, "run"], str]:
    """The block of each run, and what its runs share; every run a block of its own where that tells little of `x`.

    Blocks are used where three quarters of the differences in `x` lie within them: then comparing within them loses
    little, and what the runs of a block share is no longer taken for chance.  That depends on the plan alone.
    """
    alone = np.arange(len(x))
    shared = [key for key in BLOCKED_BY if any(one.get(key) is not None for one in settings.values())]
    if not shared or np.ptp(x) == 0:
        return alone, ""
    places: dict[tuple[Any, ...], int] = {}
    keys = [tuple(plain(one.get(key)) for key in shared) for one in settings.values()]
    block = np.array([places.setdefault(key, len(places)) for key in keys])
    inside = _centred(x[:, None], block)[:, 0]
    if inside @ inside < MOST * float(((x - x.mean()) ** 2).sum()) or not 1 < len(places) < len(x):
        return alone, ""
    differ = [key for key in shared if len({plain(one.get(key)) for one in settings.values()}) > 1]
    return block, " and ".join(key.replace("_", " ") for key in differ)


def _columns(values: Sequence[Any]) -> Float[np.ndarray, "run column"]:
    """One hyperparameter as columns: numbers by their logarithm, a few values or names by one column a value."""
    levels = sorted(set(values), key=by_size)
    if len(levels) > 3 and all(map(is_number, levels)):
        numbers = np.array(values, dtype=float)
        columns = (np.log(numbers) if numbers.min() > 0 else numbers)[:, None]
    else:
        columns = np.array([[float(value == level) for level in levels[1:]] for value in values])
    spread = columns.std(axis=0)
    return (columns - columns.mean(axis=0))[:, spread > 0] / spread[spread > 0]


def _centred(
    columns: Float[np.ndarray, "run column"], block: Int[np.ndarray, "run"]
) -> Float[np.ndarray, "run column"]:
    """Less the mean of each block; less the mean of all where every run is a block of its own."""
    if len(np.unique(block)) == len(block):
        return columns - columns.mean(axis=0)
    members = (block[:, None] == np.unique(block)).astype(float)
    return columns - members @ ((members.T @ columns) / members.sum(axis=0)[:, None])


def _confounded(x: Float[np.ndarray, "run"], others: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """Those that explain nearly all of `x`: one by one, or else the fewest that do so together."""
    total = float(x @ x)
    if total == 0 or not others:
        return ()

    def explained(names: Sequence[str]) -> float:
        table = np.column_stack([others[name] for name in names])
        rank = int(np.linalg.matrix_rank(table))
        if rank > (len(x) - 1) / 2:
            return math.nan  # many columns explain anything
        left = x - table @ np.linalg.lstsq(table, x, rcond=None)[0]
        return 1 - float(left @ left) / total * (len(x) - 1) / (len(x) - 1 - rank)

    if alone := tuple(name for name in others if explained([name]) > TOGETHER):
        return alone
    chosen: list[str] = []
    while len(chosen) < len(others):
        gains = {name: explained([*chosen, name]) for name in others if name not in chosen}
        gains = {name: gain for name, gain in gains.items() if not math.isnan(gain)}
        if not gains:
            return ()
        chosen.append(max(gains, key=lambda name: gains[name]))
        if gains[chosen[-1]] > TOGETHER:
            return tuple(sorted(chosen))
    return ()
