"""Scores of the hand-set model are those worked out on paper."""

from math import exp
from pathlib import Path

import numpy as np
import pytest

from circuits.heads import KINDS, head_scores, scores_and_losses, sequence_losses
from circuits.loading import load_model
from tests.models import GAIN, SHARPNESS, VOCABULARY, save_induction_model, tiny_model

PERIOD = 6


def test_scores_worked_out_on_paper(tmp_path: Path) -> None:
    model = load_model(save_induction_model(tmp_path))
    scores = head_scores(model, kinds=list(KINDS), n_prompts=4, periods=[PERIOD])
    sharp = exp(SHARPNESS)
    queries = np.arange(1, 2 * PERIOD)
    # a0.h0 looks at the one key before; the query sees that key and `queries` others.
    assert scores["previous-token"]["a0.h0"] == pytest.approx(np.mean(sharp / (sharp + queries)), rel=1e-5)
    assert scores["self"]["a0.h0"] == pytest.approx(np.mean([1, *(1 / (sharp + queries))]), rel=1e-5)
    # A head of zero weights spreads its attention evenly.
    late = np.arange(PERIOD, 2 * PERIOD)
    for head in ("a0.h1", "a1.h0"):
        assert scores["previous-token"][head] == pytest.approx(np.mean(1 / (queries + 1)), rel=1e-5)
        assert scores["first-token"][head] == pytest.approx(np.mean(1 / (queries + 1)), rel=1e-5)
        assert scores["duplicate-token"][head] == pytest.approx(np.mean(1 / (late + 1)), rel=1e-5)
        assert scores["induction"][head] == pytest.approx(np.mean(1 / (late + 1)), rel=1e-5)
        assert scores["local"][head] == pytest.approx(np.mean(3 / (np.arange(3, 2 * PERIOD) + 1)), rel=1e-5)
    assert scores["induction"]["a1.h1"] == pytest.approx(_induction_on_paper(), rel=1e-5)


def _induction_on_paper() -> float:
    """a1.h1's score of a key is SHARPNESS times how much of its token's predecessor a0.h0 wrote there."""
    look = np.zeros((2 * PERIOD, 2 * PERIOD))
    for query in range(2 * PERIOD):
        weights = np.where(np.arange(query + 1) == query - 1, exp(SHARPNESS), 1.0)
        look[query, : query + 1] = weights / weights.sum()
    tokens = np.arange(2 * PERIOD) % PERIOD
    written = look @ np.eye(PERIOD)[tokens]  # how much of each token is "before" each position
    found = []
    for query in range(PERIOD, 2 * PERIOD):
        scores = np.exp(SHARPNESS * written[: query + 1, tokens[query]])
        found.append(scores[query - PERIOD + 1] / scores.sum())
    return float(np.mean(found))


def test_losses_of_the_hand_set_model(tmp_path: Path) -> None:
    losses = sequence_losses(load_model(save_induction_model(tmp_path, sharpness=40.0)), n_prompts=8, periods=[PERIOD])
    told = -np.log(exp(GAIN) / (exp(GAIN) + VOCABULARY - 1))  # all attention on the right answer
    # At position 0, a0.h0 sees its own token alone and takes it for the one before: half the attention goes astray.
    half = -np.log(exp(GAIN / 2) / (2 * exp(GAIN / 2) + VOCABULARY - 2))
    assert losses["loss_second_half"].value == pytest.approx((half + (PERIOD - 2) * told) / (PERIOD - 1), rel=1e-3)
    assert losses["loss_first_half"].value > np.log(VOCABULARY)
    assert losses["in_context_learning_score"].value < -1


@pytest.mark.parametrize("architecture", ["native", "gpt2", "llama"])
def test_one_pass_gives_both(architecture: str) -> None:
    model = tiny_model(architecture)
    options = {"n_prompts": 5, "periods": [3, 4], "batch_size": 2}
    scores, losses = scores_and_losses(model, **options)
    for kind, known in head_scores(model, **options).items():
        np.testing.assert_allclose(scores[kind].estimate.folds, known.estimate.folds)
        np.testing.assert_allclose(scores[kind].std_error, known.std_error, atol=1e-12)
    for name, known in sequence_losses(model, **options).items():
        np.testing.assert_allclose(losses[name].folds, known.folds)


def test_kinds_agree_with_a_plain_reading_of_the_pattern() -> None:
    model = tiny_model("llama")
    from circuits.tasks.induction import repeated_tokens

    (period, tokens), *_ = repeated_tokens(model, n_prompts=1, seed=0, periods=[4])
    pattern = model.attention(tokens)[1, 2, 0].numpy()
    scores = head_scores(model, n_prompts=1, periods=[4])
    expected = {
        "previous-token": np.mean([pattern[i, i - 1] for i in range(1, 8)]),
        "duplicate-token": np.mean([pattern[i, i - period] for i in range(4, 8)]),
        "induction": np.mean([pattern[i, i - period + 1] for i in range(4, 8)]),
        "first-token": np.mean([pattern[i, 0] for i in range(1, 8)]),
        "self": np.mean([pattern[i, i] for i in range(8)]),
    }
    for kind, value in expected.items():
        assert scores[kind]["a1.h2"] == pytest.approx(value)
        assert scores[kind].measure == kind
        assert scores[kind].task == "repeated-tokens"


def test_batches_change_nothing() -> None:
    model = tiny_model("gpt2")
    whole, split = (head_scores(model, n_prompts=9, batch_size=size)["induction"] for size in (64, 2))
    np.testing.assert_allclose(whole.values, split.values)
    np.testing.assert_allclose(whole.folds, split.folds)
    first, second = (sequence_losses(model, n_prompts=9, batch_size=size)["loss_first_half"] for size in (64, 2))
    np.testing.assert_allclose(first.value, second.value)


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected kinds among previous-token, .* got 'inductive'"):
        head_scores(tiny_model("native"), kinds=["inductive"])
