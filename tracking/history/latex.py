"""LaTeX tables: cells in which nothing is a command, between the rules of the package booktabs."""

from collections.abc import Iterable, Sequence

__all__ = ["escaped", "tabular"]

SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "×": r"$\times$"}
SPECIAL |= {letter: f"\\{letter}" for letter in "&%$#_{}"}


def escaped(text: str) -> str:
    """Text in which nothing is a command.

    >>> escaped("previous_token & 50%")
    'previous\\\\_token \\\\& 50\\\\%'
    """
    return "".join(SPECIAL.get(letter, letter) for letter in text)


def tabular(alignment: str, titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose cells are text; `alignment` has one letter a column."""
    lines = [" & ".join(map(escaped, row)) + r" \\" for row in (titles, *rows)]
    parts = [rf"\begin{{tabular}}{{{alignment}}}", r"\toprule", lines[0], r"\midrule", *lines[1:]]
    return "\n".join([*parts, r"\bottomrule", r"\end{tabular}"]) + "\n"
