"""Names in exports: what a format cannot hold of a text, and what stands for it there.

Names of runs, tasks and metrics are data, and may hold any character.  Most formats hold every text.  XML holds no
control characters, and arrays of text lose zeros at the end of each; there a character is replaced by its picture
(`␇` for U+0007, `�` for what has none), and a warning says so.  Names of files are made by
`circuits.files.name_for_file`.
"""

import re
import warnings

__all__ = ["ARRAYS", "TERMINAL", "XML", "ReplacedWarning", "holdable", "say_replaced"]

XML: re.Pattern[str] = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")
"""What XML 1.0 cannot hold."""
ARRAYS: re.Pattern[str] = re.compile(r"\x00")
"""What NumPy's texts of a fixed width, and so NetCDF and Zarr, cannot hold at the end."""

TERMINAL: re.Pattern[str] = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal would obey, break a line at, or turn the direction of writing at, and halves of characters."""


class ReplacedWarning(UserWarning):
    """A format cannot hold a character of some name."""


def holdable(text: str, cannot: re.Pattern[str]) -> str:
    """The text with each character that a format cannot hold replaced by its picture.

    >>> holdable("eval\\x07", XML)
    'eval␇'
    """
    return cannot.sub(_picture, text)


def say_replaced(text: str, cannot: re.Pattern[str], where: str) -> None:
    """Warn of what is replaced in a text.

    Args:
        where: the format, as the beginning of a sentence: "XML".
    """
    if found := sorted({*cannot.findall(text)}):
        shown = ", ".join(f"U+{ord(character):04X} by {_picture(character)}" for character in found[:5])
        warnings.warn(f"{where} cannot hold some characters of names; replaced: {shown}", ReplacedWarning, stacklevel=3)


def _picture(character: "str | re.Match[str]") -> str:
    code = ord(character if isinstance(character, str) else character[0])
    return chr(0x2400 + code) if code < 0x20 else "�"
