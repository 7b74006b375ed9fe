"""Tasks: what is asked of a model, and how a right answer looks.

A `Task` holds pairs of prompts of equal length: the **clean** one, which asks for the correct token, and the
**corrupted** one, which differs as little as can be and does not.  Rows are padded on the right, where a causal model
never looks, so padding needs no mask; `positions` says where each answer is read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from circuits.metrics import Answers, Metric, find_metric
from circuits.model import Model

__all__ = ["Task", "task_values"]


@dataclass(frozen=True)
class Task:
    """Paired prompts and the metric that tells them apart.

    `positions` is where the answer of each prompt is read, `lengths` how many tokens of its row are real.
    `reference` holds log probabilities that the metric compares with; without it, a metric that needs some uses the
    clean run's.  `dropped` counts prompts or words that the model's tokenizer could not carry.  `chance` is what
    guessing gives on the clean prompts and `ceiling` what no model exceeds, where they are not the metric's.
    """

    name: str
    clean: Int[Tensor, "prompt pos"]
    corrupted: Int[Tensor, "prompt pos"]
    correct: Int[Tensor, "prompt answer"]
    incorrect: Int[Tensor, "prompt other_answer"]
    positions: Int[Tensor, "prompt"]
    lengths: Int[Tensor, "prompt"]
    metric: Metric
    reference: Tensor | None = None
    dropped: int = 0
    make_control: "Callable[[], Task] | None" = field(default=None, repr=False, compare=False)
    chance: float | None = None
    ceiling: float | None = None

    def __repr__(self) -> str:
        return f"<Task {self.name}: {len(self)} pairs of prompts of {int(self.lengths.max())} tokens or fewer>"

    def __len__(self) -> int:
        return len(self.clean)

    @staticmethod
    def from_tokens(
        clean: Tensor | Sequence[Sequence[int]],
        corrupted: Tensor | Sequence[Sequence[int]],
        correct: Tensor | Sequence[int] | Sequence[Sequence[int]],
        incorrect: Tensor | Sequence[int] | Sequence[Sequence[int]] | None = None,
        *,
        metric: str | Metric | Callable[[Tensor, Answers], Tensor] = "logit_difference",
        positions: Tensor | Sequence[int] | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        padding: Literal["right", "left"] = "right",
        name: str = "custom",
        control: "Callable[[], Task] | None" = None,
        chance: float | None = None,
        ceiling: float | None = None,
    ) -> "Task":
        """A task from tokens.

        Args:
            clean, corrupted: token rows; rows of a list may differ in length, both prompts of a pair may not.
            correct, incorrect: answer tokens of each prompt, one or several (-1 fills shorter rows).
            positions: where each answer is read, counted in the prompt's own tokens; its last token by default.
            lengths: real tokens of each row, where a tensor is padded; `padding` says on which side.
            chance, ceiling: of the metric on the clean prompts, where the metric does not say them (see `levels`).

        Raises:
            ValueError: no prompts, or prompts, answers and positions that do not go together.
        """
        clean_rows, own_lengths = _rows(clean, lengths, padding)
        corrupted_rows, other_lengths = _rows(corrupted, lengths, padding)
        if len(clean_rows) != len(corrupted_rows):
            raise ValueError(
                f"expected as many corrupted prompts as clean ones, {len(clean_rows)}, got {len(corrupted_rows)}"
            )
        if (unequal := (own_lengths != other_lengths).nonzero()).numel():
            row = int(unequal[0])
            raise ValueError(
                f"expected both prompts of a pair to have as many tokens, but in pair {row} the clean one has "
                f"{int(own_lengths[row])} and the corrupted one {int(other_lengths[row])}"
            )
        n_prompts = len(clean_rows)
        read = own_lengths - 1 if positions is None else torch.as_tensor(positions, dtype=torch.int64)
        if read.shape != (n_prompts,):
            raise ValueError(f"expected one position a prompt, {n_prompts}, got shape {tuple(read.shape)}")
        read = torch.where(read < 0, own_lengths + read, read)
        if bool(((read < 0) | (read >= own_lengths)).any()):
            raise ValueError(f"expected positions within the prompts, which have up to {int(own_lengths.max())} tokens")
        right = _answers(correct, n_prompts, "correct")
        wrong = _answers(incorrect if incorrect is not None else torch.full((n_prompts,), -1), n_prompts, "incorrect")
        return Task(
            name, clean_rows, corrupted_rows, right, wrong, read, own_lengths, find_metric(metric),
            make_control=control, chance=chance, ceiling=ceiling,
        )  # fmt: skip

    def rows(self, index: Int[Tensor, "row"] | slice) -> "Task":
        """The task with those prompts only, in that order; an index may come more than once."""
        chosen = {
            key: getattr(self, key)[index]
            for key in ("clean", "corrupted", "correct", "incorrect", "positions", "lengths")
        }
        reference = None if self.reference is None else self.reference[index]
        return replace(self, reference=reference, **chosen)

    def control(self) -> "Task":
        """The same prompts without what makes the task doable.

        Raises:
            ValueError: the task has no control.
        """
        if self.make_control is None:
            raise ValueError(f"task {self.name!r} has no control; give one to Task.from_tokens(control=...)")
        return self.make_control()

    def levels(self, d_vocab: int) -> tuple[float | None, float | None]:
        """(chance, ceiling) of the metric: what guessing among `d_vocab` tokens gives, and what no model exceeds.

        None where there is no such value: a difference of logits has no ceiling.
        """
        chance, metric = self.chance, self.metric
        if chance is None and metric.guessing is not None and not _needs_clean(self):
            answers = Answers(self.correct, self.incorrect, self.reference)
            chance = float(metric.guessing(answers, d_vocab).mean())
        return chance, metric.ceiling if self.ceiling is None else self.ceiling

    def check(self, model: Model) -> None:
        """Raises:
        ValueError: a token or answer is outside the vocabulary, or a prompt is longer than the model's context.
        """
        model.check_tokens(self.clean)
        model.check_tokens(self.corrupted)
        if int(torch.cat([self.correct.flatten(), self.incorrect.flatten()]).max()) >= model.d_vocab:
            raise ValueError(
                f"expected answers from 0 to {model.d_vocab - 1}, the model's vocabulary, in task {self.name!r}"
            )

    def values(self, logits: Tensor, clean_logits: Tensor | None = None) -> Tensor:
        """The metric of each prompt. `logits` and `clean_logits` are read at `positions`: (prompt, d_vocab)."""
        reference = self.reference
        if reference is None and clean_logits is not None:
            reference = clean_logits.log_softmax(-1)
        answers = Answers(
            self.correct.to(logits.device),
            self.incorrect.to(logits.device),
            None if reference is None else reference.to(logits),
        )
        return self.metric(logits, answers)


def task_values(model: Model, task: Task, *, corrupted: bool = False, batch_size: int = 64) -> Tensor:
    """The metric of each prompt as the model stands, on the clean or the corrupted prompts: behaviour alone."""
    task.check(model)
    values = []
    for start in range(0, len(task), batch_size):
        part = task.rows(slice(start, start + batch_size))
        clean_logits = answer_logits(model, part.clean, part.positions) if _needs_clean(part) or not corrupted else None
        logits = answer_logits(model, part.corrupted, part.positions) if corrupted else clean_logits
        assert logits is not None
        values.append(part.values(logits, clean_logits))
    return torch.cat(values)


@torch.no_grad()
def answer_logits(model: Model, tokens: Tensor, positions: Tensor) -> Tensor:
    """Logits at one position of each prompt."""
    final = model.run(model.stream(model.embed(tokens)), answers=positions)
    logits = model.read_out(final[torch.arange(len(final)), positions.to(final.device)])
    model.check_finite(logits)
    return logits


def _needs_clean(task: Task) -> bool:
    return task.metric.needs_clean and task.reference is None


def _rows(
    tokens: Tensor | Sequence[Sequence[int]], lengths: Tensor | Sequence[int] | None, padding: str
) -> tuple[Tensor, Tensor]:
    """Right-padded rows and their lengths."""
    if isinstance(tokens, Tensor):
        rows = tokens.to(torch.int64)
        if rows.ndim != 2 or rows.numel() == 0:
            raise ValueError(f"expected at least one prompt of at least one token, got shape {tuple(rows.shape)}")
        full = torch.full((len(rows),), rows.shape[1])
        counts = full if lengths is None else torch.as_tensor(lengths, dtype=torch.int64)
        if counts.shape != full.shape or bool(((counts < 1) | (counts > full)).any()):
            raise ValueError(f"expected one length a prompt, from 1 to {rows.shape[1]}, got {counts.tolist()[:8]}")
        if padding == "left":
            order = (torch.arange(rows.shape[1]) + (full - counts)[:, None]) % rows.shape[1]
            rows = rows.gather(1, order)
        elif padding != "right":
            raise ValueError(f"expected padding 'right' or 'left', got {padding!r}")
        # What lies in the padding is never read, but must be a token.
        return rows.masked_fill(torch.arange(rows.shape[1]) >= counts[:, None], 0), counts
    if len(tokens) == 0 or any(len(row) == 0 for row in tokens):
        raise ValueError("expected at least one prompt, each of at least one token, got an empty one")
    counts = torch.tensor([len(row) for row in tokens])
    rows = torch.zeros(len(tokens), int(counts.max()), dtype=torch.int64)
    for row, values in enumerate(tokens):
        rows[row, : len(values)] = torch.as_tensor(values)
    return rows, counts


def _answers(tokens: Tensor | Sequence, n_prompts: int, which: str) -> Tensor:
    if not isinstance(tokens, Tensor) and len(tokens) and not isinstance(tokens[0], int):
        width = max(len(row) for row in tokens)
        tokens = torch.tensor([[*row, *[-1] * (width - len(row))] for row in tokens])
    answers = torch.as_tensor(tokens, dtype=torch.int64)
    answers = answers[:, None] if answers.ndim == 1 else answers
    if answers.ndim != 2 or len(answers) != n_prompts:
        raise ValueError(f"expected {which} answers for {n_prompts} prompts, got shape {tuple(answers.shape)}")
    return answers
