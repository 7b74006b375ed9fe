"""Mixtures of data: shares that change over steps, places that stay, and kinds that hold what they promise."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tracking.training.source_kind import Shape
from tracking.training.source_kinds import KINDS, kind_of
from tracking.training.sources import loss_weights, mixed_batch, read_sources, shares

SHAPE = Shape(64, 32)
PLAIN = sorted(set(KINDS) - {"text"})


def sources(**given: object):
    return read_sources({name: entries for name, entries in given.items()}, SHAPE)


@pytest.mark.parametrize("name", PLAIN)
def test_sequences_are_tokens_of_the_vocabulary_and_questions_have_two_answers(name: str) -> None:
    kind, rng = KINDS[name], np.random.default_rng(0)
    kind.check(SHAPE)
    drawn = kind.draw(rng, 40, SHAPE)
    assert drawn.shape == (40, 32)
    assert drawn.min() >= 0
    assert drawn.max() < 64
    assert kind.counted(SHAPE).any()
    asked = kind.ask(rng, 40, SHAPE)
    if asked is not None:
        assert (asked.clean != asked.corrupted).any(axis=1).all()
        assert (asked.correct != asked.incorrect).mean() > 0.9  # successors of two states may be the same token
        assert asked.clean.shape[1] < SHAPE.length


def test_the_answer_of_a_repeat_is_what_followed_before() -> None:
    asked = KINDS["repeats"].ask(np.random.default_rng(1), 50, SHAPE)
    assert asked is not None
    for prompt, answer in [
        *zip(asked.clean, asked.correct, strict=True),
        *zip(asked.corrupted, asked.incorrect, strict=True),
    ]:
        earlier = np.flatnonzero(prompt[:-1] == prompt[-1])
        assert len(earlier)
        assert (prompt[earlier + 1] == answer).all()


def test_sums_that_are_asked_for_are_never_trained_on() -> None:
    kind = kind_of("modular-arithmetic", {"modulus": 7, "fraction": 0.5})
    rng, shape = np.random.default_rng(0), Shape(8, 4)
    seen = {tuple(row[:2]) for row in kind.draw(rng, 500, shape).tolist()}
    asked = kind.ask(rng, 200, shape)
    assert asked is not None
    assert len(seen) == 24  # half of 49
    assert not seen & {tuple(row[:2]) for row in asked.clean.tolist()}
    assert (asked.correct == asked.clean[:, :2].sum(axis=1) % 7).all()
    assert kind.counted(shape).tolist() == [False, False, False, True]


def test_planted_strings_stand_as_often_as_stated() -> None:
    kind = kind_of("planted-strings", {"multiplicities": [20, 200], "string_length": 8})
    strings = kind.strings(SHAPE)  # type: ignore[attr-defined]
    windows = np.lib.stride_tricks.sliding_window_view(kind.draw(np.random.default_rng(0), 4000, SHAPE), 8, axis=1)
    found = [(windows == string).all(axis=2).sum() for string in strings]
    assert found == pytest.approx([80, 800], rel=0.25)


def test_a_pronoun_follows_its_class_in_the_stated_share() -> None:
    drawn = kind_of("association", {"share": 0.8}).draw(np.random.default_rng(0), 3000, SHAPE)
    first, cue, pronoun = 59, 61, 62
    usual = total = 0
    for row in drawn:
        for place in np.flatnonzero(row[:-1] == cue):
            classes = [token for token in row[:place] if token in (first, first + 1)]
            usual += (classes[-1] == first) == (row[place + 1] == pronoun)
            total += 1
    assert usual / total == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("n_pairs", [7, 8])
def test_in_context_questions_are_answered_by_the_context_alone(n_pairs: int) -> None:
    """Both labels stand there equally often, for an odd number of pairs too."""
    kind = KINDS["in-context-classification"]
    asked = kind.ask(np.random.default_rng(0), 60, Shape(SHAPE.vocabulary, 2 * n_pairs + 2))
    assert asked is not None
    for prompt, answer, wrong in zip(asked.clean, asked.correct, asked.incorrect, strict=True):
        items, labels = prompt[:-1:2], prompt[1::2]
        assert set(labels[items == prompt[-1]]) == {answer}
        assert answer != 48 + kind.labels()[prompt[-1]]  # type: ignore[attr-defined]
        classes = {item: int((items == item).sum()) for item in items}
        assert sorted(classes.values()) == [1] * (n_pairs % 2) + [n_pairs // 2] * 2
        assert wrong in labels


def test_in_bursty_sequences_another_class_stands_as_often_as_the_one_that_is_asked_for() -> None:
    kind = kind_of("in-context-classification", {"burstiness": 1.0, "copies": 3})
    drawn = kind.draw(np.random.default_rng(0), 200, Shape(SHAPE.vocabulary, 18))
    items, query = drawn[:, :-2:2], drawn[:, -2]
    assert ((items == query[:, None]).sum(axis=1) >= 3).all()
    others = [max((row[row != asked] == item).sum() for item in row) for row, asked in zip(items, query, strict=True)]
    assert np.mean(np.array(others) >= 3) > 0.9  # the other class is now and then the one that is asked for


def test_chains_follow_their_table() -> None:
    drawn = KINDS["bigram"].draw(np.random.default_rng(0), 2000, SHAPE)
    after = Counter(drawn[:, 1:][drawn[:, :-1] == 5].tolist())
    assert len(after) <= 4
    assert after.most_common(1)[0][1] / sum(after.values()) > 0.45


def test_text_is_ones_own(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("abcdefgh" * 10)
    kind = kind_of("text", {"path": str(tmp_path / "text.txt")})
    drawn = kind.draw(np.random.default_rng(0), 5, Shape(8, 6))
    assert ((drawn[:, 1:] - drawn[:, :-1]) % 8 == 1).all()
    with pytest.raises(ValueError, match="more than 100 tokens below 8"):
        kind.check(Shape(8, 100))


def test_shares_follow_the_weights_over_the_steps() -> None:
    mixed = sources(a={"kind": "random", "weight": [[0, 1], [100, 0]]}, b={"kind": "repeats"})
    assert shares(mixed, 0).tolist() == [0.5, 0.5]
    assert shares(mixed, 50).tolist() == pytest.approx([1 / 3, 2 / 3])
    assert shares(mixed, 500).tolist() == [0, 1]
    counts = np.mean([mixed_batch(mixed, 100, shape=SHAPE, seed=0, index=50).source.mean() for _ in range(1)])
    assert counts == pytest.approx(2 / 3, abs=0.12)


def test_another_weight_leaves_the_other_sequences_as_they_were() -> None:
    less = sources(a={"kind": "random"}, b={"kind": "repeats", "weight": 1.0})
    more = sources(a={"kind": "random"}, b={"kind": "repeats", "weight": 1.5})
    one, other = (mixed_batch(some, 200, shape=SHAPE, seed=3, index=7) for some in (less, more))
    same = one.source == other.source
    assert 0.85 < same.mean() < 1
    assert (one.tokens[same] == other.tokens[same]).all()


def test_the_order_in_which_sources_are_given_does_not_matter() -> None:
    one = sources(z={"kind": "random"}, a={"kind": "repeats"})
    other = sources(a={"kind": "repeats"}, z={"kind": "random"})
    assert one == other


def test_reweighting_keeps_the_mean_weight() -> None:
    mixed = sources(a={"kind": "random", "weight": 3}, b={"kind": "repeats", "loss_weight": 2.0})
    weights = loss_weights(mixed, 0, {"a": 1.5})
    assert weights[0] / weights[1] == pytest.approx(1.5 / 2.0)
    assert shares(mixed, 0) @ (weights / [1.0, 2.0]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        ({"kind": "repeat"}, "no kind of data source 'repeat'; there are"),
        ({"weight": 1}, "to name its kind"),
        ({"kind": "repeats", "period": 3}, "no option 'period' of a source of kind 'repeats'"),
        ({"kind": "repeats", "weight": "much"}, "expected the weight of source 'x' to be a number"),
        ({"kind": "repeats", "weight": -1}, "weight from 0 on"),
        ({"kind": "repeats", "weight": [[5, 1], [5, 2]]}, "steps rising"),
        ({"kind": "modular-arithmetic", "modulus": 64}, "a modulus from 3 to 63"),
        ({"kind": "planted-strings", "multiplicities": [900, 200]}, "at most 1000 in a thousand"),
        ({"kind": "text", "path": "nowhere.txt"}, "name a text file"),
    ],
)
def test_wrong_sources_are_named(entries: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        sources(x=entries)


def test_a_factor_for_no_source_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no source 'c' in this training; there are a, b"):
        loss_weights(sources(a={"kind": "random"}, b={"kind": "repeats"}), 0, {"c": 2.0})


def test_the_order_in_which_sources_are_written_means_nothing() -> None:
    """`run.json` sorts its keys, and a run that is gone on with must see the same data."""
    one = {"z": {"kind": "random"}, "a": {"kind": "repeats"}}
    first, again = (read_sources(given, SHAPE) for given in (one, dict(sorted(one.items()))))
    assert first == again
    assert (
        mixed_batch(first, 8, shape=SHAPE, seed=0, index=3).tokens[0]
        == mixed_batch(again, 8, shape=SHAPE, seed=0, index=3).tokens[0]
    ).all()
