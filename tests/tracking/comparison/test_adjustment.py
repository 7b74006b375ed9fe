"""What else varies is taken out, what runs share makes blocks, and what moves together is named."""

from typing import Any

import numpy as np
import pytest

from tests.sweeps import grid
from tracking.comparison.adjustment import Adjustment, adjustment, blocks_of


def adjusted(settings: list[dict[str, Any]], name: str) -> Adjustment:
    known = {f"run{place}": one for place, one in enumerate(settings)}
    x = np.log([one[name] for one in settings])
    return adjustment(known, list(known), x, about=(name,))


def test_runs_of_one_seed_are_a_block_only_where_that_tells_of_x() -> None:
    found = adjusted(grid(4, rate=[1, 2]), "rate")
    assert found.blocked_by == "seed"
    assert found.block.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    apart = [{**one, "seed": place} for place, one in enumerate(grid(4, rate=[1, 2]))]
    assert adjusted(apart, "rate").blocked_by == ""
    few = [{"rate": 1 + (place < 3), "seed": place % 9} for place in range(12)]
    assert adjusted(few, "rate").blocked_by == ""


def test_a_parent_or_a_data_order_is_shared_as_a_seed_is() -> None:
    settings = [{"rate": rate, "parent": f"p{place}"} for rate in (1, 2) for place in range(3)]
    block, what = blocks_of({str(place): one for place, one in enumerate(settings)}, np.repeat([0.0, 1.0], 3))
    assert (what, block.tolist()) == ("parent", [0, 1, 2, 0, 1, 2])


def test_all_others_are_taken_out_and_none_is_dropped() -> None:
    """Eight runs, four hyperparameters: three columns beside the one in question."""
    rng = np.random.default_rng(0)
    settings = [dict(zip("abcd", np.exp(rng.normal(size=4)).tolist(), strict=True)) for _ in range(8)]
    found = adjusted(settings, "a")
    assert found.columns.shape == (8, 3)
    assert not found.confounded
    assert not found.shrunk
    assert found.columns.std(axis=0) == pytest.approx([1, 1, 1])
    more = [dict(zip("abcdefgh", np.exp(rng.normal(size=8)).tolist(), strict=True)) for _ in range(8)]
    assert adjusted(more, "a").shrunk


def test_what_moves_together_is_named_one_by_one_or_together() -> None:
    pairs = [{**one, "decay": 10 * one["rate"]} for one in grid(3, rate=[1.0, 2.0, 4.0, 8.0])]
    assert adjusted(pairs, "rate").confounded == ("decay",)
    both = [{**one, "rate": one["p"] * one["q"]} for one in grid(2, p=[1.0, 2.0, 4.0, 8.0], q=[1.0, 3.0, 9.0, 27.0])]
    assert adjusted(both, "rate").confounded == ("p", "q")
    assert adjusted(both, "p").confounded == ("q", "rate")
