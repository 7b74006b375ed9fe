"""Metrics: how well a model answers a prompt, in one number.

A metric takes logits where the answer is read, and gives one value a prompt.  All are turned so that **higher is
better**: a divergence, a cross-entropy or a rank is negated.  Then an effect is positive when a change does harm,
whatever the metric.

Axes: `prompt`; `d_vocab`; `answer` indexes the tokens that count as right or wrong for a prompt, -1 where a prompt has
fewer than others.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["METRICS", "Answers", "Metric", "find_metric"]

Logits = Float[Tensor, "prompt d_vocab"]
Values = Float[Tensor, "prompt"]


@dataclass(frozen=True)
class Answers:
    """What a metric may compare logits with; `reference` holds log probabilities (of the clean run, or of a text)."""

    correct: Int[Tensor, "prompt answer"]
    incorrect: Int[Tensor, "prompt other_answer"]
    reference: Float[Tensor, "prompt d_vocab"] | None = None


@dataclass(frozen=True)
class Metric:
    """How well each prompt is answered.

    Attributes:
        name: in the register.
        values: of each prompt.
        differentiable: whether it can be attributed.
        needs_clean: whether it compares with the clean run where the task brings no reference.
        guessing: what a model gives that has learned nothing, all tokens being alike to it; None where nobody knows.
        ceiling: what no model exceeds; None where there is no such value.
    """

    name: str
    values: Callable[[Logits, Answers], Values]
    differentiable: bool = True
    needs_clean: bool = False
    guessing: Callable[[Answers, int], Values] | None = None
    ceiling: float | None = None

    def __call__(self, logits: Logits, answers: Answers) -> Values:
        """One value a prompt.

        Raises:
            ValueError: the metric gives something else than one number a prompt.
        """
        values = self.values(logits, answers)
        if not isinstance(values, Tensor) or values.shape != logits.shape[:1]:
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(
                f"expected metric {self.name!r} to give one value a prompt, {len(logits)} of them, got {got}"
            )
        return values


def _gather(values: Logits, tokens: Int[Tensor, "prompt answer"], empty: float) -> Float[Tensor, "prompt answer"]:
    return values.gather(1, tokens.clamp(min=0)).masked_fill(tokens < 0, empty)


def _mean(values: Logits, tokens: Int[Tensor, "prompt answer"]) -> Values:
    return _gather(values, tokens, 0.0).sum(1) / (tokens >= 0).sum(1).clamp(min=1)


def logit_difference(logits: Logits, answers: Answers) -> Values:
    """Mean logit of the correct tokens minus mean logit of the incorrect ones."""
    return _mean(logits, answers.correct) - _mean(logits, answers.incorrect)


def probability_difference(logits: Logits, answers: Answers) -> Values:
    """Probability of the correct tokens minus probability of the incorrect ones, each summed."""
    probability = logits.softmax(-1)
    return _gather(probability, answers.correct, 0.0).sum(1) - _gather(probability, answers.incorrect, 0.0).sum(1)


def cross_entropy(logits: Logits, answers: Answers) -> Values:
    """Minus the cross-entropy, nats: the log of the summed probability of the correct tokens."""
    return _gather(logits.log_softmax(-1), answers.correct, -torch.inf).logsumexp(1)


def kl_divergence(logits: Logits, answers: Answers) -> Values:
    """Minus KL(reference ‖ run), nats; the reference is the clean run unless the task brings its own."""
    if answers.reference is None:
        raise ValueError("expected reference log probabilities for the KL divergence, got none")
    reference = answers.reference
    terms = torch.where(torch.isneginf(reference), 0.0, reference.exp() * (reference - logits.log_softmax(-1)))
    return -terms.sum(-1)


def accuracy(logits: Logits, answers: Answers) -> Values:
    """1 where the likeliest token is correct, else 0."""
    return (answers.correct == logits.argmax(-1, keepdim=True)).any(1).to(logits.dtype)


def rank(logits: Logits, answers: Answers) -> Values:
    """Minus the number of tokens likelier than the best correct one: 0 is a right answer."""
    best = _gather(logits, answers.correct, -torch.inf).max(1, keepdim=True).values
    return -(logits > best).sum(1).to(logits.dtype)


def _at_equal_logits(values: Callable[[Logits, Answers], Values]) -> Callable[[Answers, int], Values]:
    return lambda answers, d_vocab: values(torch.zeros(len(answers.correct), d_vocab), answers)


def _n_correct(answers: Answers) -> Values:
    return (answers.correct >= 0).sum(1).float()


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("logit_difference", logit_difference, guessing=_at_equal_logits(logit_difference)),
        Metric(
            "probability_difference",
            probability_difference,
            guessing=_at_equal_logits(probability_difference),
            ceiling=1.0,
        ),
        Metric("cross_entropy", cross_entropy, guessing=_at_equal_logits(cross_entropy), ceiling=0.0),
        Metric("kl_divergence", kl_divergence, needs_clean=True, guessing=_at_equal_logits(kl_divergence), ceiling=0.0),
        Metric(
            "accuracy",
            accuracy,
            differentiable=False,
            guessing=lambda answers, d_vocab: _n_correct(answers) / d_vocab,
            ceiling=1.0,
        ),
        Metric(
            "rank",
            rank,
            differentiable=False,
            guessing=lambda answers, d_vocab: -(d_vocab - _n_correct(answers)) / (_n_correct(answers) + 1),
            ceiling=0.0,
        ),
    )
}


def find_metric(metric: "str | Metric | Callable[[Tensor, Answers], Tensor]") -> Metric:
    """A metric by name, or one of the user's own: a function of logits and `Answers` with one value a prompt.

    Raises:
        ValueError: no metric of that name.
    """
    if isinstance(metric, Metric):
        return metric
    if callable(metric):
        return Metric(getattr(metric, "__name__", "metric"), metric)
    if metric not in METRICS:
        raise ValueError(f"expected a metric among {', '.join(METRICS)}, or a function, got {metric!r}")
    return METRICS[metric]
