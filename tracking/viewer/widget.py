"""Notebook widget: the page shown in a notebook, with what is chosen there known to Python.

The widget is the page of `tracking.viewer.report` in a cell.  Its `run`, `step` and `component` follow what is clicked,
and setting them moves the page.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any

from tracking.history.history import History
from tracking.results.results import Timeline
from tracking.results.timeline import as_timeline
from tracking.viewer.report import packed, viewer_style, widget_script

__all__ = ["view"]


def view(timeline: "Timeline | History | Iterable[History]", *, title: str | None = None, **options: Any) -> Any:
    """A widget that shows a timeline, or one history or several.

    Args:
        timeline: what was found; or histories, which are then linked and dated with `options` (see `build_timeline`).
        title: of the page.

    Returns:
        An `anywidget.AnyWidget` with the traits `run`, `step` and `component`, which can be read, set and observed.

    Raises:
        ImportError: anywidget is not installed.
    """
    found = as_timeline(timeline, **options)
    run = found.runs[0]
    return _widget_class()(data=packed(found, title=title), run=run.name, step=run.history.steps[-1])


@cache
def _widget_class() -> type:
    try:
        import anywidget
        import traitlets
    except ImportError as error:
        raise ImportError(
            "showing a timeline in a notebook needs anywidget; install it with: "
            "pip install 'circuit-formation-tracker[widget]'"
        ) from error

    class TimelineWidget(anywidget.AnyWidget):
        """A timeline in a notebook cell."""

        _esm = widget_script()
        _css = viewer_style()
        data = traitlets.Unicode().tag(sync=True)
        run = traitlets.Unicode().tag(sync=True)
        step = traitlets.Int().tag(sync=True)
        component = traitlets.Unicode().tag(sync=True)

    return TimelineWidget
