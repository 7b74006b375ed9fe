"""Suggestions: which known name somebody meant who typed another."""

import difflib
from collections.abc import Iterable

__all__ = ["suggest"]


def suggest(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name.

    >>> suggest("indcution", ["induction", "ioi"]), suggest("x", ["induction", "ioi"])
    ('did you mean induction?', 'there are induction, ioi')
    """
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
