"""Plugins: what other packages add to the registers, loaded wherever work begins.

A package that adds a task, a format, a verb or another entry names the module that does so in its `pyproject.toml`:

    [project.entry-points."formation"]
    mine = "my_package.additions"

The command line and every worker process import it before they begin.
"""

from functools import cache
from importlib.metadata import entry_points

__all__ = ["GROUP", "load_plugins"]

GROUP = "formation"


@cache
def load_plugins() -> None:
    """Import every module that an installed package names.

    Raises:
        ImportError: one cannot be imported; the message names it.
    """
    for point in entry_points(group=GROUP):
        try:
            point.load()
        except Exception as error:
            raise ImportError(f"the plugin {point.name} ({point.value}) cannot be imported: {error}") from error
