"""Data order: in which other order the same sequences can come.

Within a window of steps every sequence of the data comes exactly once, as without reordering: `reversed` and `shuffled`
move whole batches, `repeats-first` and `repeats-last` deal single sequences out anew, by how much of a sequence its own
beginning tells (a curriculum from what repeats to what does not, or the other way round).
"""

from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from tracking.training.sequences import Repeats, batch

__all__ = ["DataOrder", "ordered_batch", "repeated_share"]

DataOrder = Literal["reversed", "shuffled", "repeats-first", "repeats-last"]


def ordered_batch(
    repeats: Repeats, size: int, *, order: DataOrder, window: tuple[int, int], index: int, data_seed: int, seed: int = 0
) -> Int[np.ndarray, "batch pos"]:
    """The batch that stands at `index` of the data when its window [first, last) is put in another order.

    Args:
        data_seed: that of the data (see `tracking.training.sequences.batch`).
        seed: of the shuffle.
    """
    first, last = window
    if not first <= index < last:
        raise ValueError(f"expected a position from {first} to {last - 1}, the window's, got {index}")
    if order == "reversed":
        return batch(repeats, size, seed=data_seed, index=first + last - 1 - index)
    if order == "shuffled":
        moved = np.random.default_rng([seed, first, last]).permutation(last - first)
        return batch(repeats, size, seed=data_seed, index=first + int(moved[index - first]))
    place = (index - first) * size
    return _dealt(repeats, size, order, window, data_seed)[place : place + size]


@lru_cache(maxsize=2)
def _dealt(
    repeats: Repeats, size: int, order: DataOrder, window: tuple[int, int], data_seed: int
) -> Int[np.ndarray, "batch pos"]:
    """Every sequence of the window, in order."""
    rows = np.concatenate([batch(repeats, size, seed=data_seed, index=index) for index in range(*window)])
    share = repeated_share(rows)
    rows = rows[np.argsort(-share if order == "repeats-first" else share, kind="stable")]
    rows.setflags(write=False)
    return rows


def repeated_share(rows: Int[np.ndarray, "batch pos"]) -> Float[np.ndarray, "batch"]:
    """The share of each sequence's pairs of neighbouring tokens that stand earlier in it.

    >>> repeated_share(np.array([[1, 2, 3, 1, 2], [1, 2, 3, 4, 5]])).tolist()
    [0.25, 0.0]
    """
    pairs = rows[:, :-1].astype(np.int64) * (int(rows.max()) + 1) + rows[:, 1:]
    ranked = np.sort(pairs, axis=1)
    return (ranked[:, 1:] == ranked[:, :-1]).sum(axis=1) / pairs.shape[1]
