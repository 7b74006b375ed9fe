"""Edge series: how edge scores run over the steps, when all of them together are too many to hold.

An `EdgeArray` looks to xarray like an array (step, writer, reader), with `fold` in front where folds are asked for, and
reads from the records' files only what is selected.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
from xarray.backends import BackendArray
from xarray.core import indexing

from circuits.graph import ModelGraph
from tracking.history.records import EdgePart, RecordFile

__all__ = ["EdgeArray", "lazily"]


class EdgeArray(BackendArray):
    """One part of the edge scores of a task; NaN (or False) at steps without a circuit, zero where there is no edge."""

    def __init__(self, files: Sequence[RecordFile | None], graph: ModelGraph, part: EdgePart, n_folds: int) -> None:
        self.files: tuple[RecordFile | None, ...] = tuple(files)
        self.part: EdgePart = part
        self.numbers: Int[np.ndarray, "writer reader"] = np.full(graph.edge_mask.shape, -1)
        self.numbers[graph.edge_mask] = np.arange(graph.n_edges)
        folds = (n_folds,) if part == "folds" else ()
        self.shape: tuple[int, ...] = (*folds, len(self.files), *graph.edge_mask.shape)
        self.dtype: np.dtype[Any] = np.dtype(bool if part == "kept" else np.float64)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        chosen = [np.atleast_1d(np.arange(size)[one]) for size, one in zip(self.shape, key, strict=True)]
        *folds, steps, writers, readers = chosen
        numbers = self.numbers[np.ix_(writers, readers)]
        there = numbers >= 0
        out = np.zeros([len(one) for one in chosen], dtype=self.dtype)
        for place, step in enumerate(steps):
            file = self.files[step]
            if file is None:
                out[..., place, :, :] = False if self.part == "kept" else np.nan
                continue
            found = file.edges(self.part, numbers[there])
            out[..., place, :, :][..., there] = self._with_all_folds(found)[folds[0]] if folds else found
        whole = tuple(0 if isinstance(one, int | np.integer) else slice(None) for one in key)
        return out[whole]

    def _with_all_folds(self, found: np.ndarray) -> np.ndarray:
        short = self.shape[0] - len(found)
        return found if not short else np.concatenate([found, np.full((short, found.shape[1]), np.nan)])


def lazily(array: EdgeArray) -> Any:
    return indexing.LazilyIndexedArray(array)
