"""Table task: prompt pairs of one's own, read from a CSV or JSONL file.

A CSV or JSONL table in the layout of the EAP-IG and MIB repositories: columns `clean` and `corrupted` with text, and
`correct_idx` and `incorrect_idx` with answer tokens (a number, or several as `[1, 2]`); or `correct` and `incorrect`
with answers as text, which must be single tokens.

References:
    Have Faith in Faithfulness (Hanna et al., 2024), https://arxiv.org/abs/2403.17806
"""

import io
from pathlib import Path
from typing import Any

from circuits.decoding import as_type, parse_json, read_bytes, read_json_lines
from circuits.model import Model
from circuits.tasks.task import Task
from circuits.tasks.text import encode, single_tokens

__all__ = ["table_task"]


def table_task(
    model: Model,
    *,
    path: "str | Path | None" = None,
    metric: str = "logit_difference",
    n_prompts: int | None = None,
    seed: int = 0,
    name: str | None = None,
) -> Task:
    """The task in the table at `path`, its first `n_prompts` rows (all by default).

    Raises:
        FileNotFoundError: no such file.
        ValueError: a column is missing, a pair differs in length, or an answer is no single token.
    """
    del seed  # rows are taken in order
    if path is None:
        raise ValueError("task 'table' needs path=..., a CSV or JSONL file of prompt pairs")
    file = Path(path)
    rows = _rows(file)[:n_prompts]
    if not rows:
        raise ValueError(f"expected at least one row in {file}, got none")
    clean, corrupted, correct, incorrect = [], [], [], []
    for number, row in enumerate(rows, start=1):
        if missing := [column for column in ("clean", "corrupted") if column not in row]:
            raise ValueError(f"expected columns clean and corrupted in {file}, row {number} has no {missing[0]}")
        one, other = encode(model.tokenizer, str(row["clean"])), encode(model.tokenizer, str(row["corrupted"]))
        if len(one) != len(other):
            raise ValueError(
                f"expected both prompts of a pair to have as many tokens, but in row {number} of {file} the clean one "
                f"has {len(one)} and the corrupted one {len(other)}"
            )
        clean.append(one)
        corrupted.append(other)
        correct.append(_answers(model, row, "correct", file, number))
        incorrect.append(_answers(model, row, "incorrect", file, number) or [-1])
    return Task.from_tokens(clean, corrupted, correct, incorrect, metric=metric, name=name or file.stem)


def _rows(file: Path) -> list[dict[str, Any]]:
    if file.suffix == ".jsonl":
        return list(read_json_lines(file, dict[str, Any]))
    import pandas as pd

    try:
        frame = pd.read_csv(io.BytesIO(read_bytes(file)), keep_default_na=False)
    except (ValueError, pd.errors.ParserError) as error:
        raise ValueError(f"expected a table of prompt pairs, but {file} cannot be read: {error}") from error
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def _answers(model: Model, row: dict[str, Any], which: str, file: Path, number: int) -> list[int]:
    if f"{which}_idx" in row:
        value, where = row[f"{which}_idx"], f"{file}, row {number}, {which}_idx"
        if value == "":
            return []
        value = parse_json(value, where=where) if isinstance(value, str) else value
        return as_type(value if isinstance(value, list) else [value], list[int], where=where)
    if which not in row:
        if which == "incorrect":
            return []
        raise ValueError(f"expected a column correct_idx or correct in {file}, row {number} has neither")
    words = row[which] if isinstance(row[which], list) else [row[which]]
    found, _ = single_tokens(model.tokenizer, [str(word).strip() for word in words])
    if len(found) < len(set(words)):
        raise ValueError(f"expected answers that are single tokens, but row {number} of {file} has {words}")
    return list(found.values())
