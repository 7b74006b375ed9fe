"""Decoding: the content of files that people bring, as values of known types, or refused in one sentence.

Every file that is not a checkpoint comes in through here: it must be a regular file of a size that can be held, and
what it says must have the types that its reader names.  A sentence tells the file, the place in it, what was expected
and what came.
"""

import difflib
import errno
import gzip
import io
import json
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, BinaryIO, get_args, get_type_hints

import msgspec

from circuits.limits import check_limit

__all__ = [
    "Unpacked", "as_type", "check_keys", "check_whole", "open_regular", "parse_json", "read_bytes", "read_json",
    "read_json_lines", "read_text", "read_toml", "whole_text",
]  # fmt: skip

KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
NAMES = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "null": "nothing",
    "object": "a table of names and values",
    "array": "a list",
}
SURROGATE = re.compile(r"[\ud800-\udfff]")


def open_regular(place: "str | Path", *, what: str = "a file") -> BinaryIO:
    """A regular file, open for its bytes; pipes and devices are not opened.

    Raises:
        FileNotFoundError: there is none.
        IsADirectoryError: it is a folder.
        ValueError: it is something else.
    """
    try:
        state = os.stat(place)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no such file: {place}; expected {what}") from error
    except ValueError as error:  # a name that no file can have
        raise ValueError(f"{str(place)!r} cannot be read: {error}; expected {what}") from error
    _check_regular(state, place, what)
    file = open(place, "rb", opener=_without_waiting)  # noqa: SIM115
    try:
        _check_regular(os.fstat(file.fileno()), place, what)  # it may have been exchanged meanwhile
    except Exception:
        file.close()
        raise
    return file


def read_bytes(place: "str | Path", *, what: str = "a file") -> bytes:
    """The content of a regular file.

    Raises:
        FileNotFoundError, IsADirectoryError: as `open_regular`.
        ValueError: as `open_regular`, or it is larger than what is read whole.
    """
    with open_regular(place, what=what) as file:
        check_limit("gigabytes", os.fstat(file.fileno()).st_size / 1e9, f"{place} holds")
        return file.read()


class Unpacked(io.RawIOBase):
    """What a file holds, unpacked where it is gzipped, up to the limit of what is read whole.

    A reader that swallows errors of the file it reads from finds the refusal in `trouble`.
    """

    def __init__(self, place: "str | Path", *, what: str = "a file") -> None:
        self.place, self.file, self.held = place, open_regular(place, what=what), 0
        self.trouble: ValueError | None = None
        self.inner: Any = gzip.GzipFile(fileobj=self.file) if str(place).lower().endswith(".gz") else self.file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        read = self.inner.readinto(buffer)
        self.held += read
        try:
            check_limit("gigabytes", self.held / 1e9, f"{self.place} holds at least")
        except ValueError as error:
            self.trouble = error
            raise
        return read

    def close(self) -> None:
        self.file.close()
        super().close()


def _without_waiting(place: str, flags: int) -> int:
    """A pipe that took the file's place meanwhile would be waited for."""
    return os.open(place, flags | getattr(os, "O_NONBLOCK", 0))


def _check_regular(state: os.stat_result, place: "str | Path", what: str) -> None:
    if stat.S_ISDIR(state.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(place))
    if not stat.S_ISREG(state.st_mode):
        kind = KINDS.get(stat.S_IFMT(state.st_mode), "no regular file")
        raise ValueError(f"{place} is {kind}, which is not opened; expected {what}")


def read_text(place: "str | Path", *, what: str = "a file") -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Raises:
        FileNotFoundError, IsADirectoryError: as `read_bytes`.
        ValueError: as `read_bytes`, or it is no such text.
    """
    content = read_bytes(place, what=what)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"{place} is no text in UTF-8 (line {line}); expected {what}") from error


def read_json(place: "str | Path", kind: Any, *, what: str = "JSON") -> Any:
    """A JSON file as a value of a type.

    Raises:
        FileNotFoundError, IsADirectoryError: as `read_bytes`.
        ValueError: it is no JSON, or not of that type; the sentence names the place in the file.
    """
    return as_type(parse_json(read_text(place, what=what), where=str(place), what=what), kind, where=str(place))


def read_toml(place: "str | Path", kind: Any, *, what: str = "TOML") -> Any:
    """A TOML file as a value of a type.

    Raises:
        FileNotFoundError, IsADirectoryError: as `read_bytes`.
        ValueError: it is no TOML, or not of that type; the sentence names the place in the file.
    """
    text = read_text(place, what=what)
    try:
        value = tomllib.loads(text)
    except RecursionError as error:
        raise ValueError(f"{place} is nested too deep; expected {what}") from error
    except ValueError as error:
        raise ValueError(f"{place} is no TOML: {error}; expected {what}") from error
    return as_type(value, kind, where=str(place))


def read_json_lines(place: "str | Path", kind: Any, *, what: str = "one JSON object a line") -> Iterator[Any]:
    """The lines of a file as values of a type; a last line that was cut short, as a killed writer leaves it, is left
    out.

    Raises:
        FileNotFoundError, IsADirectoryError: as `read_bytes`.
        ValueError: a line is no JSON, or not of that type; the sentence names the line.
    """
    content = read_bytes(place, what=what)
    lines = content.splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        where = f"{place}, line {number}"
        if not line.strip():
            continue
        try:
            value = parse_json(line, where=where, what=what)
        except ValueError:
            if number == len(lines) and not line.endswith(b"\n"):
                return
            raise
        yield as_type(value, kind, where=where)


def parse_json(text: "str | bytes", *, where: str, what: str = "JSON") -> Any:
    """The value that a text in JSON holds.

    Raises:
        ValueError: it holds none, or one that no file can hold.
    """
    try:
        text = text.decode() if isinstance(text, bytes) else text
        value = json.loads(text)
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"{where} is no JSON: {error.msg} ({at}); expected {what}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is no text in UTF-8; expected {what}") from error
    except RecursionError as error:
        raise ValueError(f"{where} is nested too deep; expected {what}") from error
    except ValueError as error:
        raise ValueError(f"{where} cannot be read: {error}; expected {what}") from error
    if "\\u" in text:
        check_whole(value, where=where, what=what)
    return value


def check_whole(value: Any, *, where: str, what: str = "text") -> None:
    """Refuse texts, in lists and tables too, that hold half of a character (a surrogate): no file in UTF-8 can hold it.

    Raises:
        ValueError: one does.
    """
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str) and (found := SURROGATE.search(one)):
            bad = one[max(0, found.start() - 10) : found.end()]
            raise ValueError(f"{where} holds {bad!a}, half of a character; expected {what}")
        if isinstance(one, list | tuple):
            waiting += one
        elif isinstance(one, Mapping):
            waiting += [*one, *one.values()]


def whole_text(text: str) -> str:
    """The text with halves of characters written out, as the name of a file has them that is not in UTF-8.

    >>> whole_text("run\\udcff")
    'run\\\\udcff'
    """
    return text.encode(errors="backslashreplace").decode()


def as_type(value: Any, kind: Any, *, where: str) -> Any:
    """A value made of lists, tables, texts and numbers as a value of a type.

    >>> as_type({"a": [1, "x"]}, dict[str, list[int]], where="a.json")
    Traceback (most recent call last):
    ValueError: a.json: expected a whole number at a[1], got text 'x'

    Raises:
        ValueError: it is not of that type; the sentence names the place.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"{where}: {_sentence(str(error), value, kind)}") from error
    except RecursionError as error:
        raise ValueError(f"{where} is nested too deep") from error


def _sentence(text: str, value: Any, kind: Any) -> str:
    """What the library says, in the words of the other messages."""
    said, _, path = text.partition(" - at `")
    place, inside, names = _located(path.rstrip("`").removeprefix("$"), value, kind)
    at = f" at {place}" if place else ""
    if found := re.fullmatch(r"Object contains unknown field `(.*)`", said, re.S):
        near = difflib.get_close_matches(found[1], names, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(names)}" if names else ""
        return f"there is no {found[1]!r}{at}{hint}"
    if found := re.fullmatch(r"Object missing required field `(.*)`", said, re.S):
        return f"{found[1]!r} is missing{at}"
    if found := re.fullmatch(r"Expected `(.*)`, got `(.*)`", said, re.S):
        wanted = " or ".join(NAMES.get(name, name) for name in found[1].split(" | "))
        return f"expected {wanted}{at}, got {NAMES.get(found[2], found[2])}{_shown(inside)}"
    if found := re.fullmatch(r"Invalid enum value '?(.*?)'?", said, re.S):
        words = f"one of {', '.join(map(str, names))}" if names else "one of the known words"
        return f"expected {words}{at}, got {found[1]!r}"
    return f"{said[:1].lower()}{said[1:]}{at}{_shown(inside, before=', got')}"


def _shown(value: Any, *, before: str = "") -> str:
    """A short text or number."""
    plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    return f"{before} {value!r}" if plain and len(str(value)) <= 60 else ""


def _located(path: str, value: Any, kind: Any) -> tuple[str, Any, list[str]]:
    """A path as the library gives it with the keys that it leaves out, what lies there, and the names known there."""
    place = ""
    for part in re.findall(r"\.[^.\[\]]+|\[\d+\]|\[\.\.\.\]", path):
        inner = _inner(kind, part[1:] if part.startswith(".") else None)
        if part == "[...]" and isinstance(value, Mapping):
            key = next((key for key, one in value.items() if not _fits(one, inner)), None)
        else:
            key = part[1:] if part.startswith(".") else int(part[1:-1]) if part != "[...]" else None
        try:
            value, kind = value[key], inner
        except (KeyError, IndexError, TypeError):
            return place + part, None, []
        place += f"[{key}]" if isinstance(key, int) else f".{key}"
    return place.removeprefix("."), value, _names_of(kind)


def _fits(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except (msgspec.ValidationError, TypeError):
        return False
    return True


def _inner(kind: Any, name: str | None) -> Any:
    if name is not None and isinstance(kind, type):
        return get_type_hints(kind).get(name)
    found = [one for one in get_args(kind) if one is not type(None)]
    return found[-1] if found else None


def _names_of(kind: Any) -> list[str]:
    for one in (kind, *get_args(kind)):
        if isinstance(one, type) and issubclass(one, msgspec.Struct):
            return [field.encode_name for field in msgspec.structs.fields(one)]
        if is_dataclass(one):
            return [field.name for field in fields(one)]
    words = [one for one in get_args(kind) if isinstance(one, str)]
    return words


def check_keys(value: Mapping[str, Any], kind: type, *, where: str) -> None:
    """Refuse keys that a dataclass does not have.

    Raises:
        ValueError: there is one; the message names the nearest.
    """
    names = _names_of(kind)
    for key in value:
        if key not in names:
            raise ValueError(f"{where}: {_sentence(f'Object contains unknown field `{key}`', value, kind)}")
