"""Changes: how a valid file becomes one that is a little wrong, place by place.

Most changes stay **within** what stands there: another number nearby, another word that is known, two values of one
kind exchanged, rows in another order, a list that is shorter.  Such files pass the first check of their form, and what
they say is wrong, odd or right further in.  Fewer go **against** it: another type, a key that is missing or misspelt, a
cell that is blank.
"""

import copy
import csv
import io
import json
import random
import re
import tomllib
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["Rows", "bytes_changed", "changed", "json_changed", "lines_changed", "near", "rows_changed", "table_changed"]
__all__ += ["text_changed", "toml_changed", "tree_changed"]

Rows = list[list[str]]
Words = tuple[tuple[str, ...], ...]
AGAINST = 0.2
"""Share of the changes that do not stay within their kind."""
ODD: list[Any] = ["2", "", "..", "a/b", "\x00", "x" * 5000, "=1+1", "a9999999.h0", "logits", "\ud800", "ü", None, True]
ODD += [-1, 0, 1.5, 10**9, 10**30, 1e308, float("nan"), float("inf"), [], {}, [1, "x"], {"a": 1}, [[[]]], "nan"]
LITERALS = ['"2"', "1e400", "nan", "inf", "[]", "{}", "[[1]]", "true", '""', "1979-05-27", "[", "x", "9" * 40]
LITERALS += ['["a", 1]', '{low = 1, high = "x"}', '"\\u0000"', '"0..99999999"', "'''\n\n'''"]
BITS = [": ", "&a [*a]", "!!python/object:os.system x", "!!int x", "- [", "{{", "\t", "*b", "? ", "1" * 400, "~"]
BITS += ["\x00", "=", "/ 0", '"\\ud800"']


def tree_changed(rng: random.Random, value: Any, words: Words = ()) -> Any:
    """A value of lists, tables, texts and numbers, changed in one or two places.

    Args:
        words: that may stand in place of each other, in groups.
    """
    for _ in range(rng.choice([1, 1, 2])):
        value = changed(rng, value, words)
    return value


def changed(rng: random.Random, value: Any, words: Words = ()) -> Any:
    """The value with one place changed; deep places are as likely as shallow ones."""
    value = copy.deepcopy(value)
    places = list(_places(value))
    if not places:
        return value
    inside, key = rng.choice(places)
    if rng.random() < AGAINST:
        _against(rng, inside, key)
    else:
        _within(rng, places, inside, key, words)
    return value


def _within(rng: random.Random, places: list[tuple[Any, Any]], inside: Any, key: Any, words: Words) -> None:
    now = inside[key]
    alike = [(other, at) for other, at in places if type(other[at]) is type(now) and other[at] != now]
    if alike and not isinstance(now, dict | list) and rng.random() < 0.25:
        other, at = rng.choice(alike)
        inside[key], other[at] = other[at], now
    elif isinstance(now, list):
        inside[key] = _reordered(rng, now)
    elif isinstance(now, dict):
        inside[key] = dict(_reordered(rng, list(now.items())))
    elif isinstance(now, str):
        inside[key] = _text_near(rng, now, words)
    else:
        inside[key] = near(rng, now)


def near(rng: random.Random, now: Any) -> Any:
    """Another number of its kind, most often one close by."""
    if isinstance(now, bool) or not isinstance(now, int | float):
        return not now if isinstance(now, bool) else now
    if isinstance(now, int):
        close = [now + 1, now - 1, now + 2, 2 * now, (now + 1) // 2, now + 10]
        return rng.choice(close if rng.random() < 0.7 else [0, 1, -now, 10 * now, now + 10**6])
    close = [now * rng.uniform(0.5, 2), now * 1.01, now / 10]
    return rng.choice(close if rng.random() < 0.7 else [10 * now, 0.0, 1.0, -now, 1e-300, 1e30])


def _text_near(rng: random.Random, now: str, words: Words) -> str:
    how = rng.random()
    known = [word for group in words if now in group for word in group]
    if how < 0.9 and known:
        return rng.choice(known)
    if how < 0.6 and (numbers := list(re.finditer(r"\d+", now))):
        one = rng.choice(numbers)
        return f"{now[: one.start()]}{abs(near(rng, int(one[0][:15])))}{now[one.end() :]}"
    return rng.choice(
        [now + "2", now[:-1], now.upper(), now + " ", now + "/x", now + "ü", "x" * 5000, "..", "=1+1", now * 2]
    )


def _reordered(rng: random.Random, items: list[Any]) -> list[Any]:
    if not items:
        return items
    place, other = rng.randrange(len(items)), rng.randrange(len(items))
    how = rng.randrange(5)
    if how == 0:
        return items[::-1]
    if how == 1:
        items[place], items[other] = items[other], items[place]
        return items
    if how == 2:
        return [*items[:place], *items[place + 1 :]]
    return [*items, copy.deepcopy(items[place])] if how == 3 else rng.sample(items, len(items))


def _against(rng: random.Random, inside: Any, key: Any) -> None:
    how = rng.random()
    alike = [one for one in ODD if type(one) is type(inside[key])]
    if how < 0.4 and alike:  # of its type, so that it is looked at by more than its type
        inside[key] = copy.deepcopy(rng.choice(alike))
    elif how < 0.6:
        inside[key] = copy.deepcopy(rng.choice(ODD))
    elif how < 0.7:
        del inside[key]
    elif isinstance(inside, dict) and how < 0.85:
        inside[f"{key}s"] = inside.pop(key)
    elif isinstance(inside, list):
        inside.append(copy.deepcopy(inside[key]))
    else:
        inside[key] = str(inside[key])


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    for key in keys:
        yield value, key
        yield from _places(value[key])


# -- JSON and TOML ----------------------------------------------------------------------------------------------------


def json_changed(rng: random.Random, content: bytes, words: Words = ()) -> bytes:
    return json.dumps(tree_changed(rng, json.loads(content), words)).encode(errors="surrogatepass")


def lines_changed(rng: random.Random, content: bytes) -> bytes:
    """One line of a log, or the order of the lines."""
    lines = content.splitlines()
    if rng.random() < 0.3:
        lines = _reordered(rng, lines)
    else:
        place = rng.randrange(len(lines))
        lines[place] = json_changed(rng, lines[place])
    return b"\n".join(lines) + b"\n"


def toml_changed(rng: random.Random, content: bytes, words: Words = ()) -> bytes:
    """A value changed; of some files one line is no TOML, or of a kind that JSON has not."""
    if rng.random() < 0.9:
        return toml_text(tree_changed(rng, tomllib.loads(content.decode()), words)).encode(errors="surrogatepass")
    lines = content.decode().splitlines()
    place = rng.choice([number for number, line in enumerate(lines) if " = " in line])
    lines[place] = rng.choice([f"{lines[place].partition(' = ')[0]} = {rng.choice(LITERALS)}", lines[place] * 2])
    return "\n".join(lines).encode() + b"\n"


def toml_text(tree: dict[str, Any]) -> str:
    return "".join(f"{json.dumps(str(key))} = {_toml(value)}\n" for key, value in tree.items())


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if value is None:
        return '""'
    return repr(value) if isinstance(value, float) else json.dumps(value)


# -- tables -----------------------------------------------------------------------------------------------------------


def table_changed(separator: str) -> Callable[[random.Random, bytes], bytes]:
    """Changes of a table in text."""

    def change(rng: random.Random, content: bytes) -> bytes:
        rows = rows_changed(rng, list(csv.reader(io.StringIO(content.decode()), delimiter=separator)))
        out = io.StringIO()
        if rng.random() < 0.05:  # not quoted where it should be
            text = "\n".join(separator.join(row) for row in rows)
            return text.replace("a1", '"a1', 1).encode(errors="replace")
        csv.writer(out, delimiter=separator, lineterminator="\n").writerows(rows)
        return out.getvalue().encode(errors="replace")

    return change


def rows_changed(rng: random.Random, rows: Rows) -> Rows:
    """A header and rows, changed in one or two places."""
    for _ in range(rng.choice([1, 1, 2])):
        rows = _row_changed(rng, [list(row) for row in rows])
    return rows


def _row_changed(rng: random.Random, rows: Rows) -> Rows:
    header, body = rows[0], rows[1:]
    if not (header and body):
        return rows
    row, column, how = rng.randrange(len(body)), rng.randrange(len(header)), rng.random()
    if len(header) != len(body[row]):
        return rows
    if how < AGAINST:
        return _cell_against(rng, rows, row, column)
    if how < 0.45:
        body[row][column] = _cell_near(rng, body[row][column])
    elif how < 0.55:
        body = rng.sample(body, len(body))
    elif how < 0.65:
        del body[row]
    elif how < 0.72:
        body = body[: rng.randrange(len(body)) + 1]
    elif how < 0.8:
        other = rng.randrange(len(body))
        if len(body[other]) == len(header):
            body[row][column], body[other][column] = body[other][column], body[row][column]
    elif how < 0.88:
        order = rng.sample(range(len(header)), len(header))
        return [[each[place] for place in order] if len(each) == len(order) else each for each in rows]
    elif how < 0.94:
        factor = rng.choice([10.0, 0.1, 1e9, -1.0, 1.0])
        body = [[_scaled(cell, factor) if at == column else cell for at, cell in enumerate(each)] for each in body]
    else:
        return [[*header, "note"], *([*each, "x"] for each in body)]
    return [header, *body]


def _cell_near(rng: random.Random, cell: str) -> str:
    if re.fullmatch(r"-?\d+", cell):
        return str(near(rng, int(cell)))
    try:
        return repr(near(rng, float(cell)))
    except ValueError:
        return _text_near(rng, cell, ())


def _scaled(cell: str, factor: float) -> str:
    try:
        return f"{float(cell) * factor:g}"
    except ValueError:
        return cell


def _cell_against(rng: random.Random, rows: Rows, row: int, column: int) -> Rows:
    how = rng.random()
    text = str(rng.choice(ODD))
    if how < 0.7:
        rows[row + 1][column] = text
    elif how < 0.8:
        del rows[row + 1][column]
    elif how < 0.9:
        rows[0][column] = text
    else:
        rows.append(list(rows[row + 1]))
    return rows


# -- texts and bytes --------------------------------------------------------------------------------------------------


def text_changed(rng: random.Random, content: bytes) -> bytes:
    """One line of a text in some language: a number in it, its order, or a piece of it."""
    lines = content.decode().splitlines()
    place = rng.randrange(len(lines))
    how = rng.random()
    if how < 0.5:
        lines[place] = _text_near(rng, lines[place], ()) if re.search(r"\d", lines[place]) else lines[place] + "2"
    elif how < 0.6:
        lines = _reordered(rng, lines)
    else:
        at = rng.randrange(len(lines[place]) + 1)
        lines[place] = lines[place][:at] + rng.choice(BITS) + lines[place][at + rng.choice([0, 1, 5]) :]
    return "\n".join(lines).encode(errors="surrogatepass")


def bytes_changed(rng: random.Random, content: bytes) -> bytes:
    how = rng.randrange(5)
    place = rng.randrange(max(1, len(content)))
    if how == 0:
        return content[:place]
    if how == 1:
        return content[:place] + bytes([rng.randrange(256)]) + content[place + 1 :]
    if how == 2:
        return b"\xef\xbb\xbf" + content
    return content[:place] + rng.choice([b"\xff\xfe", b"\x00", b"[" * 100_000, b"\r", b"9" * 5000]) + content[place:]
