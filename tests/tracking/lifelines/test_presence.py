"""A stretch of effect is one spell, and has an end only where much becomes nothing."""

from collections.abc import Mapping

import numpy as np
import pytest
import scipy.sparse as sparse

from circuits.graph import Node
from tracking.lifelines.presence import presence_of, spells_of
from tracking.lifelines.series import Basis, Series

Spells = list[tuple[int, int, bool, bool]]


def series_of_effects(
    drawing: str, *, features: Mapping[str, np.ndarray] | None = None, noise: float = 0.0, seed: int = 0
) -> Series:
    """A line reads `component effects`; `.` is nothing, a digit tenths, `#` one, `W` five times that.

    `features` are those of each component while its effect is a tenth or more; heads of equal features are copies.
    """
    levels = {".": 0.0, "#": 1.0, "W": 5.0, **{str(tenth): tenth / 10 for tenth in range(1, 10)}}
    rows = [line.split() for line in drawing.splitlines() if line.strip()]
    effect = np.array([[levels[letter] for letter in drawn] for _, drawn in rows]).T
    rng = np.random.default_rng(seed)
    given = features or {}
    vectors = np.array([given.get(name, np.zeros(3)) for name, _ in rows])
    values = np.where(effect[..., None] >= 0.1, vectors, 0.1) + noise * rng.normal(size=(*effect.shape, 3))
    nodes = tuple(Node.parse(name) for name, _ in rows)
    profile = sparse.csr_array((effect.size, 1))
    seen = np.ones(effect.shape, dtype=bool)
    movable = np.array([node.kind == "head" for node in nodes])
    return Series(tuple(range(len(effect))), nodes, "effect", effect, values, profile, seen, movable)


def spells(drawing: str) -> Spells:
    series = series_of_effects(drawing)
    return [(one.first, one.last, one.begins, one.ends) for one in spells_of(series, presence_of(series))]


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        ("......########", [(6, 13, True, True)]),
        ("########......", [(0, 7, True, True)]),
        ("#####..#######", [(0, 13, True, True)]),  # a dip of two is bridged
        ("#####...######", [(0, 4, True, True), (8, 13, True, True)]),
        ("..............", []),
        ("......#.......", []),  # one step is no spell
    ],
)
def test_spells_are_those_drawn(drawn: str, expected: Spells) -> None:
    assert spells(f"a0.h0 {drawn}") == expected


def test_what_hovers_about_the_bar_has_no_ends() -> None:
    effect = 0.06 + 0.04 * np.sin(np.arange(60))
    series = series_of_effects(f"a0.h0 {'#' * 60}")
    object.__setattr__(series, "effect", effect[:, None])
    assert not any(one.begins and one.first > 0 for one in spells_of(series, presence_of(series)))
    assert not any(one.ends and one.last < 59 for one in spells_of(series, presence_of(series)))


def listed(seen: np.ndarray, basis: Basis = "detection") -> Series:
    nodes = tuple(Node.head(0, index) for index in range(seen.shape[1]))
    profile = sparse.csr_array((seen.size, 1))
    features = np.where(seen[..., None], 1.0, np.nan)
    movable = np.ones(len(nodes), dtype=bool)
    return Series(tuple(range(len(seen))), nodes, basis, seen.astype(float), features, profile, seen, movable)


def test_misses_are_bridged_and_flicker_is_not_there() -> None:
    rng = np.random.default_rng(0)
    seen = np.stack([rng.random(80) > 0.05, rng.random(80) < 0.2, np.arange(80) >= 40], axis=1)
    presence = presence_of(listed(seen))
    assert presence.on[:, 0].all()
    assert presence.on[:, 1].mean() < 0.1
    assert presence.on[:, 2].tolist() == seen[:, 2].tolist()
    assert ((presence.probability >= 0) & (presence.probability <= 1)).all()
