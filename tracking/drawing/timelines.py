"""Timelines that draw themselves: what `build_timeline` gives, with its figure.

What is a timeline to someone at a prompt?  The value is `tracking.results.results.Timeline`, which knows nothing of
figures; here it has the figure as a method.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tracking.drawing.chosen_panels import caption, plot_panels
from tracking.drawing.figures import plot
from tracking.history.history import History
from tracking.lifelines.lifelines import SHOWN
from tracking.results.latex import formation_latex
from tracking.results.results import Timeline
from tracking.results.timeline import build_timeline as timeline_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DrawnTimeline", "build_timeline"]


@dataclass(frozen=True, repr=False)
class DrawnTimeline(Timeline):
    """Everything found in some runs, with its figure."""

    def plot(self, *, panels: Sequence[str] | None = None, **options: Any) -> "Figure":
        """A figure of everything found in a run, or of some panels.

        Args:
            panels: such as `["formation", "lifelines"]`; `tracking.drawing.chosen_panels.panels_of` names all.
            options: of `tracking.drawing.chosen_panels.plot_panels` (`ax`, `figsize`, `width`, `roles`, `components`),
                or without panels of `tracking.drawing.figures.plot`.
        """
        return plot(self, **options) if panels is None else plot_panels(self, panels, **options)

    def caption(self, panels: Sequence[str], *, run: str | None = None) -> str:
        """What stands beneath these panels, as text."""
        return caption(self, panels, run=run)

    def to_latex(self, *, run: str | None = None) -> str:
        """When each role formed, as a LaTeX table with intervals: `tracking.results.latex.formation_latex`."""
        return formation_latex(self.runs[0] if run is None else self[run])


def build_timeline(
    histories: "History | Iterable[History]",
    *,
    task: str | None = None,
    thresholds: Mapping[str, float] | float | None = None,
    max_gap: int = 2,
    definitions: Sequence[str] | None = None,
    confidence: float = 0.9,
    least: float = SHOWN,
    seed: int = 0,
) -> DrawnTimeline:
    """Link, date and put into words what some histories hold.

    Args:
        histories: one history or several, each of another run.
        task: as in `link_lifelines`: whose measures are followed.
        thresholds: as in `link_lifelines`: from which score on a component carries a role.
        max_gap: as in `link_lifelines`: for how many snapshots a component may fall silent.
        definitions: as in `formation_table`; where thresholds are given, the threshold is the first of them.
        confidence: of the intervals.
        least: as in `link_lifelines`: the confidence that an event must have to be told.
        seed: of all resampling.

    Raises:
        ValueError: two runs have one name, or a history holds nothing that could carry a role.
    """
    how = {"task": task, "thresholds": thresholds, "max_gap": max_gap, "definitions": definitions}
    how |= {"confidence": confidence, "least": least, "seed": seed}
    return DrawnTimeline(timeline_of(histories, **how).runs)
