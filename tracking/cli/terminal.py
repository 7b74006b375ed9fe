"""Terminal output: how the command line prints, shows progress, reads NAME=VALUE options, and reports errors.

Everything that is printed goes through here, and names are data: a character in one that a terminal would obey (ESC, a
new line, a change of the direction of writing) is shown by its picture.  Exact names are in JSON and in exports.
"""

import errno
import json
import logging
import os
import shutil
import sys
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracking.results.names import TERMINAL, holdable

if TYPE_CHECKING:
    import pandas as pd
    from rich.progress import Progress

__all__ = [
    "COMMAND",
    "Json",
    "aligned",
    "fail",
    "finish_printing",
    "fitting",
    "for_people",
    "in_the_way",
    "make_printable",
    "number",
    "pairs",
    "print_above",
    "print_json",
    "print_line",
    "print_list",
    "print_plain",
    "print_sentences",
    "print_table",
    "print_wrapped",
    "progress_bars",
    "reporter",
    "sentence_of",
    "stop_printing",
    "telling",
    "terminal_width",
    "text_width",
    "trouble_with_disk",
    "value_of",
]

COMMAND: ContextVar[str | None] = ContextVar("COMMAND", default=None)
"""What was typed: a history keeps it."""
LONGEST = 2000
"""Characters of an error that are printed: names may be of any length."""
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of text.")]
Chance = Annotated[
    list[str] | None,
    typer.Option("--chance", help="METRIC=VALUE (or VALUE for all): what guessing gives, ln(tokens) of a loss."),
]
Ceiling = Annotated[
    list[str] | None,
    typer.Option("--ceiling", help="METRIC=VALUE (or VALUE for all): the best there is; half way counts."),
]


def number(text: str, option: str) -> float:
    """Raises:
    ValueError: it is none; the message names the option.
    """
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"expected a number in {option}, got {text!r}") from error


def numbers(given: list[str] | None, option: str) -> dict[str, float] | float | None:
    """`["30"]` is 30 for every name; `["induction=30"]` is for one.

    Raises:
        ValueError: one is no number; the message names the option.
    """
    if not given:
        return None
    if len(given) == 1 and "=" not in given[0]:
        return number(given[0], option)
    return {name: number(value, option) for name, value in pairs(given, option).items()}


def pairs(given: list[str] | None, option: str) -> dict[str, str]:
    """`["a=1"]` as a dictionary.

    Raises:
        ValueError: one has no `=`; the message names the option.
    """
    found = {}
    for text in given or []:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise ValueError(f"expected {option} NAME=VALUE, got {text!r}")
        found[key.strip()] = value.strip()
    return found


def value_of(text: str) -> Any:
    """A number or a truth value where the text is one, the text itself where not."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """On stdout, for machines; without an indent on one line."""
    typer.echo(json.dumps(value, indent=indent))


def print_line(text: object = "", *, err: bool = False) -> None:
    """One line, on stdout or on stderr."""
    typer.echo(_shown(text), err=err)


def _shown(text: object) -> str:
    return holdable(str(text), TERMINAL)


def for_people() -> bool:
    """Whether stdout is a terminal, or a width was asked for by COLUMNS: else a program reads it."""
    return sys.stdout.isatty() or "COLUMNS" in os.environ


def terminal_width() -> int:
    """Columns of the terminal; at least 40."""
    return max(40, shutil.get_terminal_size().columns)


def text_width() -> int:
    """Columns for prose: those of the terminal, and without end for programs."""
    return terminal_width() if for_people() else 10_000


def print_wrapped(text: str, width: int, first: str = "", rest: str | None = None) -> None:
    """On stdout, wrapped between words: `first` and `rest` are indents; a name longer than the line stays whole."""
    wrapper = textwrap.TextWrapper(width, _shown(first), _shown(first if rest is None else rest))
    wrapper.break_long_words = wrapper.break_on_hyphens = False
    typer.echo(wrapper.fill(_shown(text)))


def print_sentences(sentences: Iterable[str]) -> None:
    """On stdout, each on a line of its own, wrapped where people read it."""
    for sentence in sentences:
        print_wrapped(sentence, text_width())


def print_list(lines: Iterable[str], width: int, most: int | None, more: str) -> None:
    """Up to `most` lines (None: all), and how many more there are."""
    lines = list(lines)
    for line in lines[:most]:
        print_wrapped(line, width, "  ", "    ")
    if most is not None and len(lines) > most:
        print_line(f"  and {len(lines) - most} {more}")


def print_plain(frame: "pd.DataFrame") -> None:
    """On stdout, for programs: tab-separated under a header, NA where nothing is known."""
    shown = frame.replace("", None).map(lambda value: _shown(value) if isinstance(value, str) else value)
    shown.columns = [_shown(name) for name in frame.columns]
    typer.echo(shown.to_csv(sep="\t", index=False, na_rep="NA", lineterminator="\n"), nl=False)


def print_table(title: str, frame: "pd.DataFrame") -> None:
    """On stdout under a title: for people as many columns as fit, from the left, and what is the same in
    all rows once; for programs as `print_plain`."""
    if not for_people():
        print_line(f"# {title}")
        return print_plain(frame)
    width = terminal_width()
    if not len(frame):
        return print_wrapped(f"{title}: none", width)
    cells = {str(name): [_cell(value) for value in frame[name]] for name in frame.columns}
    same = {name: column[0] for name, column in cells.items() if len(column) > 1 and len(set(column)) == 1}
    if same:
        title += f" ({', '.join(f'{name} {value}' for name, value in same.items())})"
        cells = {name: column for name, column in cells.items() if name not in same} or cells
    right = [str(name) for name in frame.columns if frame[name].dtype.kind in "if"]
    kept = fitting(cells, width)
    print_wrapped(title, width)
    for line in aligned({name: cells[name] for name in kept}, right=right):
        print_line(line)
    if left := [name for name in cells if name not in kept]:
        print_wrapped(f"More columns with --json: {', '.join(left)}.", width)


def fitting(cells: Mapping[str, Sequence[str]], width: int) -> list[str]:
    """The columns that have anything in them, without the last ones that do not fit; at least one."""
    kept = [name for name in cells if any(cells[name])]
    while len(kept) > 1 and sum(max(map(len, (name, *cells[name]))) + 2 for name in kept) - 2 > width:
        kept.pop()
    return kept


def aligned(cells: Mapping[str, Sequence[str]], *, right: Iterable[str] = ()) -> list[str]:
    """A header and rows in columns, numbers on the right."""
    padded = []
    for name, column in cells.items():
        size = max(map(len, (name, *column)))
        padded.append([text.rjust(size) if name in right else text.ljust(size) for text in (name, *column)])
    return ["  ".join(parts).rstrip() for parts in zip(*padded, strict=True)]


def _cell(value: Any) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else _shown(value)


@contextmanager
def progress_bars() -> "Iterator[Progress]":
    """Bars on stderr while the work goes on."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<28}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    # What takes minutes a piece has a speed too.
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=1800) as progress:
        yield progress


@contextmanager
def telling(progress: "Progress", *names: str) -> "Iterator[None]":
    """What these loggers tell goes to stderr, above the bars."""
    handler = _AboveBars(progress)
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


class _AboveBars(logging.Handler):
    def __init__(self, progress: "Progress") -> None:
        super().__init__(logging.INFO)
        self.progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        print_above(self.progress, record.getMessage())


def print_above(progress: "Progress", text: str) -> None:
    """One line on stderr, above the bars."""
    progress.console.print(_shown(text), highlight=False, markup=False, soft_wrap=True)


def reporter(progress: "Progress") -> Any:
    """A callback (what, done, total) that keeps one bar a stage."""
    bars: dict[str, Any] = {}

    def show(what: str, done: int, total: int) -> None:
        if what not in bars:
            bars[what] = progress.add_task(_shown(what), total=total)
        progress.update(bars[what], completed=done, total=total)

    return show


def make_printable() -> None:
    """Let any text be printed, whatever the terminal's encoding, and none where there is no terminal at all.

    Warnings are sentences, without the place in the code that they come from.
    """
    warnings.formatwarning = lambda message, *_about, **_more: f"formation: {_shown(message)}\n"
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Sentence("formation: %(message)s"))
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


class _Sentence(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _shown(super().format(record))


def stop_printing() -> None:
    """Nothing more goes to stdout, also not what waits to be printed when the process ends."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    os.dup2(sys.stdout.fileno(), 1)


def finish_printing(code: int) -> int:
    """The exit code when all is printed: 1 where it could not be written."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        stop_printing()
    except OSError as error:
        stop_printing()
        return code or fail(trouble_with_disk(error), 1)
    return code


def fail(sentence: str, code: int) -> int:
    """Say why on stderr; the exit code is passed on."""
    print_line(f"formation: {sentence}", err=True)
    return code


def sentence_of(error: BaseException) -> str:
    """What an error says, on one line."""
    # KeyError shows its message in quotes.
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    said = " ".join(text.split())
    return said if len(said) <= LONGEST else f"{said[: LONGEST // 2]} ... {said[-LONGEST // 2 :]}"


def in_the_way(error: OSError) -> str:
    """What is a file where a folder should be, or the other way round."""
    if isinstance(error, IsADirectoryError):
        return f"{error.filename} is a folder, not a file"
    place = Path(error.filename or ".")
    file = next((path for path in (place, *place.parents) if path.is_file()), place)
    return f"{file} is a file, not a folder"


def trouble_with_disk(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    remedy = {
        errno.ENOSPC: "no space left on the disk; make room, and the same command goes on from where it stopped",
        errno.EDQUOT: "the disk quota is used up; make room, and the same command goes on from where it stopped",
        errno.EFBIG: "the file would be larger than this account may write; choose another folder",
        errno.EROFS: "the disk is read-only; choose another folder",
        errno.EACCES: "permission denied; choose a folder that you may write to",
        errno.EPERM: "permission denied; choose a folder that you may write to",
    }.get(error.errno or 0, sentence_of(error))
    return f"{where}{remedy}"
