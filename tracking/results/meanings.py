"""Meanings: what each role and each state is, in few words, for every place that shows them."""

from typing import get_args

from tracking.history.columns import State

__all__ = ["ROLE_MEANINGS", "STATE_WORDS", "meaning_of"]

ROLE_MEANINGS: dict[str, str] = {
    "induction": "attends to the token after an earlier occurrence of the current one",
    "duplicate-token": "attends to an earlier occurrence of the current token",
    "previous-token": "attends to the token before",
    "first-token": "attends to the first token of the sequence",
    "self": "attends to the current token itself",
    "local": "attends to the three tokens before",
}
"""What a head does that carries the role; roles of imported scores are what their makers say."""

STATE_WORDS: dict[str, str] = {state: state for state in get_args(State)} | {
    "formed, still rising": "still rising",
    "formed and lost": "lost again",
    "there from the start": "from the start",
    "there from the start and lost": "from the start, lost",
    "not datable by this definition": "not datable",
    "not told from noise": "within noise",
}
"""Each state in the width of a narrow column."""


def meaning_of(role: str) -> str:
    """What a head of that role does; empty where the role is not one of this tool's.

    >>> meaning_of("previous-token")
    'attends to the token before'
    """
    return ROLE_MEANINGS.get(role, "")
