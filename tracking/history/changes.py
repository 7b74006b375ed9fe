"""Changes from checkpoint to checkpoint: by how much each score moves, and how sure that is.

Every checkpoint is measured on the same prompts, so what one prompt adds at two steps is much the same and cancels in
their difference.  The error of a change is therefore taken prompt fold by prompt fold (**paired**),

    std_error = sd over folds of (fold at the later step − fold at the earlier) / √folds,

and is smaller than that of two measurements on prompts of their own, √(error² + error²).  Folds are recorded anyway,
so that paired errors cost neither time nor room.
"""

from typing import TYPE_CHECKING

import numpy as np

from tracking.history.history import History

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["score_changes"]


def score_changes(history: History, measure: str, *, task: str | None = None) -> "xr.Dataset":
    """Changes of one measure between neighbouring steps (step, component): `value`, `std_error` (paired), `unpaired`.

    `step` is the later of the two and `step_before` the earlier.  Errors are NaN where no folds were kept.

    Raises:
        KeyError: no task, or more than one, has that measure.
    """
    import xarray as xr

    scores = history.score(measure, task=task)
    value, error, folds = (scores[name].values for name in ("value", "std_error", "folds"))
    moved = np.diff(folds, axis=1)
    paired = np.full(np.diff(value, axis=0).shape, np.nan)
    if len(folds) > 1:
        paired = moved.std(axis=0, ddof=1) / np.sqrt(len(folds))
    dims, steps = ("step", "component"), scores.step.values
    parts = {"value": np.diff(value, axis=0), "std_error": paired, "unpaired": np.hypot(error[1:], error[:-1])}
    coords = {"step": steps[1:], "step_before": ("step", steps[:-1]), "component": scores.component.values}
    return xr.Dataset({name: (dims, part) for name, part in parts.items()}, coords, attrs=scores.attrs)
