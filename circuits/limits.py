"""Limits: how much a request may ask for before it is asked whether it was meant.

A slip of a digit in a name or a number can ask for more than any machine holds.  What a request will make is therefore
estimated first, and refused with the estimate where it is beyond a limit; each limit can be raised.
"""

from collections.abc import Mapping
from contextvars import ContextVar, Token

__all__ = ["LIMITS", "check_limit", "limit_of", "limits_raised", "raise_limits"]

LIMITS: Mapping[str, tuple[int | float, str]] = {
    "components": (1_000_000, "heads and MLPs of one model"),
    "checkpoints": (1_000_000, "checkpoints of one run"),
    "runs": (10_000, "runs of one sweep"),
    "rows": (100_000_000, "rows of one table"),
    "gigabytes": (4.0, "memory that a training takes, and the size of a file that is read whole"),
}
"""Name to the limit and what it counts."""

_raised: ContextVar[Mapping[str, int | float] | None] = ContextVar("raised", default=None)


def raise_limits(**limits: int | float) -> Token[Mapping[str, int | float] | None]:
    """Other limits from now on in this context.

    Raises:
        ValueError: there is no such limit, or it is not above 0.
    """
    for name, limit in limits.items():
        if name not in LIMITS:
            raise ValueError(f"there is no limit {name!r}; there are {', '.join(LIMITS)}")
        if not limit > 0:
            raise ValueError(f"expected a limit of {name} above 0, got {limit}")
    return _raised.set({**(_raised.get() or {}), **limits})


def limits_raised() -> Mapping[str, int | float]:
    """The limits that are not as usual here, for a process that is to have the same."""
    return dict(_raised.get() or {})


def limit_of(name: str) -> int | float:
    return (_raised.get() or {}).get(name, LIMITS[name][0])


def check_limit(name: str, count: int | float, what: str, *, hint: str = "") -> None:
    """Refuse what is beyond a limit.

    Args:
        what: the beginning of the sentence, such as "steps = 100000000 with checkpoints = 'all' would keep".
        hint: what may have been meant.

    Raises:
        ValueError: the count is beyond the limit; the sentence holds both, and how to raise it.
    """
    limit = limit_of(name)
    if count > limit:
        advice = f"{hint}, or " if hint else ""
        raise ValueError(
            f"{what} {_said(count)} {name}, and the limit is {_said(limit)}; {advice}raise it with "
            f"--limit {name}={_rounded(count)}"
        )


def _said(count: int | float) -> str:
    return f"{count:.3g}" if count < 100 or count > 1e12 else f"{count:,.0f}"


def _rounded(count: int | float) -> str:
    """A little more than the count, in few digits."""
    return f"{float(f'{count * 1.1:.1e}'):g}"
