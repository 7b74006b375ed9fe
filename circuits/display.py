"""Display: what a notebook shows of a value that is a table.

Which rows and sentences stand under a cell whose last line is a result?  A class says `_repr_html_ = table_html`.
"""

from html import escape
from typing import Any

__all__ = ["table_html"]

MOST_ROWS, MOST_SENTENCES = 40, 6


def table_html(value: Any) -> str:
    """The name of the class, its first sentences where it has some, and the rows of `to_frame()`."""
    first: tuple[str, ...] = tuple(getattr(value, "sentences", ()))[:MOST_SENTENCES]
    sentences = f"<ul>{''.join(f'<li>{escape(one)}</li>' for one in first)}</ul>" if first else ""
    rows = value.to_frame().to_html(index=False, max_rows=MOST_ROWS, notebook=True)
    return f"<p>{escape(type(value).__name__)}</p>{sentences}{rows}"
