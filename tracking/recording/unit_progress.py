"""Unit progress: how far one unit of one checkpoint is, in layers that the model has run.

Question: what does a bar show while one checkpoint takes minutes?  The model tells every run of its layers.  How many
there will be is at first reckoned from counts, and from the second checkpoint on it is what the same unit took at the
one before, so that the time left follows the machine.
"""

from typing import TYPE_CHECKING

from tracking.execution.pool import Progress
from tracking.recording.measuring import PROBE, Settings

if TYPE_CHECKING:
    from circuits.model import Model

__all__ = ["UnitProgress", "passes_of"]

JUDGING = 14
"""Passes that choosing and judging a circuit takes at most: two to begin with, twelve patched ones."""
BACK = 2


def passes_of(unit: str, model: "Model", settings: Settings) -> float:
    """Passes over its prompts that a unit of one checkpoint takes."""
    from circuits.scoring import METHODS

    if unit == PROBE:
        return 1.0
    scoring = METHODS[settings.method].forwards(model.graph, int(settings.options.get("steps", 5)))
    components = len(model.graph.components)
    nodes = 0.5 * components if components <= settings.exact_nodes else 0.0
    return scoring + JUDGING + nodes + 1 + BACK


class UnitProgress:
    """The layers of the unit that is being measured.

    Args:
        within: is told of every run.
    """

    def __init__(self, within: Progress) -> None:
        self.within = within
        self.took: dict[str, int] = {}
        self.unit: str = ""
        self.done: int = 0
        self.expected: int = 1

    def begin(self, unit: str, model: "Model", settings: Settings) -> None:
        """A unit is begun with this model."""
        layers = settings.n_prompts * model.graph.n_layers
        self.unit, self.done = unit, 0
        self.expected = self.took.get(unit) or max(1, round(passes_of(unit, model, settings) * layers))
        model.on_layers = self._ran
        self.within(unit, 0, self.expected)

    def end(self, model: "Model") -> None:
        """It is over, measured or not."""
        model.on_layers = None
        self.took[self.unit] = self.done
        self.within(self.unit, self.expected, self.expected)

    def _ran(self, layers: int) -> None:
        self.done += layers
        # More than was reckoned with: nearly done, for as long as it takes.
        self.within(self.unit, min(self.done, self.expected - 1), self.expected)
