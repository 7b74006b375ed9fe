"""Running moments: mean, standard error and fold means of values that arrive a batch of prompts at a time.

Per-prompt values of every edge would fill memory; their first two moments do not.
"""

import numpy as np
from jaxtyping import Float

from circuits.graph import DEFAULT_FOLDS, Estimate

__all__ = ["Moments"]


class Moments:
    """Collects per-prompt values and gives their `Estimate`, the same whatever the batches.

    >>> moments = Moments()
    >>> moments.add(np.array([1.0, 2.0])); moments.add(np.array([6.0]))
    >>> float(moments.estimate().value)
    3.0
    """

    def __init__(self, n_folds: int = DEFAULT_FOLDS) -> None:
        self.n_folds = n_folds
        self.n_prompts: int = 0

    def add(self, values: Float[np.ndarray, "prompt *shape"]) -> None:
        """Values of the next prompts, in order."""
        values = np.asarray(values, dtype=np.float64)
        count, mean = len(values), values.mean(axis=0)
        squares = np.square(values - mean).sum(axis=0)
        if self.n_prompts == 0:
            self._mean, self._squares = mean, squares
            self._folds = np.zeros((self.n_folds, *mean.shape))
        else:  # merging two samples (Chan et al., 1979)
            total, apart = self.n_prompts + count, mean - self._mean
            self._squares = self._squares + squares + apart**2 * (self.n_prompts * count / total)
            self._mean = self._mean + apart * (count / total)
        for row in range(count):
            self._folds[(self.n_prompts + row) % self.n_folds] += values[row]
        self.n_prompts += count

    def estimate(self) -> Estimate:
        """Mean, standard error and fold means (prompt i is in fold i mod n_folds) of what was added."""
        n = self.n_prompts
        if n == 0:
            raise ValueError("expected at least one prompt, got none")
        spread = np.sqrt(self._squares / (n - 1)) if n > 1 else np.full_like(self._mean, np.nan)
        in_fold = np.array([len(range(fold, n, self.n_folds)) for fold in range(min(n, self.n_folds))])
        folds = self._folds[: len(in_fold)] / in_fold.reshape(-1, *[1] * self._mean.ndim)
        return Estimate(np.asarray(self._mean), np.asarray(spread / np.sqrt(n)), folds, n)
