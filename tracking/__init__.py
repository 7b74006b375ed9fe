"""Follow circuits through training: when each component forms, and what takes over from what."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

# Names are looked up when first used, so that `import tracking` loads neither torch nor TransformerLens.
_HOMES = {
    "History": "tracking.history",
    "Intervention": "tracking.interventions",
    "Recorder": "tracking.live",
    "Run": "tracking.runs",
    "TrainingConfig": "tracking.hyperparameters",
    "align_runs": "tracking.alignment",
    "branch": "tracking.branching",
    "build_timeline": "tracking.timeline",
    "compare": "tracking.comparison",
    "export_timeline": "tracking.timeline",
    "forecast": "tracking.forecast",
    "formation_table": "tracking.formation",
    "import_history": "tracking.importing",
    "link_lifelines": "tracking.lifelines",
    "match": "tracking.matching",
    "open_histories": "tracking.history",
    "plot": "tracking.figures",
    "plot_comparison": "tracking.figures_comparison",
    "plot_forecast": "tracking.figures_forecast",
    "record": "tracking.recording",
    "report": "tracking.report",
    "train": "tracking.training",
    "view": "tracking.widget",
}
__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


class _Package(ModuleType):
    """Keeps `tracking.report` and `tracking.forecast` the functions.

    The modules of the same names would otherwise take their places here as soon as anything imports them.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tracking' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__]
