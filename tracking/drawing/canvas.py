"""Canvas: what a figure is drawn on.

A figure of matplotlib's that belongs to no window and shows itself in a notebook, whether or not pyplot was imported
there: bare figures show as text.
"""

from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["needs_matplotlib", "new_figure"]


def needs_matplotlib() -> None:
    """Raises:
    ImportError: matplotlib is not there; the message says how to install it.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "figures need matplotlib; install it with: pip install 'circuit-formation-tracker[plot]'"
        ) from error


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of so many inches."""
    needs_matplotlib()
    from matplotlib.figure import Figure

    class Drawing(Figure):
        def _repr_png_(self) -> bytes:
            file = BytesIO()
            self.savefig(file, format="png", dpi=110)
            return file.getvalue()

    return Drawing(figsize=(width, height))
