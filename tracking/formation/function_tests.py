"""Function tests: whether the model needs these components, against a control that could have come out otherwise.

A set of carriers has an effect on the task; how large would it be by chance?  Two controls, and which of them is taken
depends on what was recorded and on counts, never on the effects:

- **other sets**: all other sets with as many components of the same kind from the same span of layers, enumerated
  where there are no more than `MOST_SETS` and drawn otherwise.  Taken for the carriers of a role where there are enough
  of them that p could come out at most `LEVEL`.  It tells that these components are *special*.
- **rotations** of what the heads write (`circuits.rotations`): the same difference, turned at random.  Taken for single
  heads, and for the carriers of a role where there are too few other sets.  It tells that the *content* matters.  Where
  only first-order effects were recorded the control is named so: a head whose readers' attention is saturated has
  little effect to first order, and the test then little power.

Where neither can come out at most `LEVEL` the claim is not testable.  There is one test a claim, at one level, and p is
never below what the controls allow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import comb, prod

import numpy as np
from jaxtyping import Float

from circuits.graph import Node, p_value
from tracking.history.columns import Control

__all__ = ["LEVEL", "Controls", "OtherSets", "Rotated", "function_test", "other_sets"]

LEVEL = 0.05
N_CONTROLS = 199
MOST_SETS = 2000


@dataclass(frozen=True)
class Controls:
    """How often `n` controls of a kind have at least the effect of the carriers: `p_value`, NaN where not testable."""

    p_value: float
    n: int
    kind: Control = "other sets"

    @property
    def smallest_p(self) -> float:
        return 1 / (self.n + 1)


@dataclass(frozen=True)
class Rotated:
    """What corrupting each component does, and what its corruption does when turned, draw by draw: exactly, or to first
    order."""

    effects: Float[np.ndarray, "component"]
    draws: Float[np.ndarray, "draw component"]
    exact: bool

    @property
    def kind(self) -> Control:
        return "rotations" if self.exact else "first-order rotations"


def function_test(
    nodes: Sequence[Node],
    names: Sequence[str],
    effects: Float[np.ndarray, "component"],
    *,
    rotated: Rotated | None = None,
    seed: int = 0,
) -> Controls:
    """The test of the nodes' joint effect.

    Args:
        names: the components that `effects` and the arrays of `rotated` follow.
    """
    places, there = [list(names).index(node.name) for node in nodes], np.isfinite(effects)
    # A component without an effect is no control: it would count as one that has less.
    others = other_sets(nodes, [Node.parse(name) for name, known in zip(names, there, strict=True) if known])
    turned, own = _rotation(places, rotated), float(effects[places].sum())
    if (len(nodes) > 1 or turned is None) and np.isfinite(own) and 1 / (1 + others.count) <= LEVEL:
        controls = np.array([effects[there][list(chosen)].sum() for chosen in others.draw(seed)])
        return Controls(p_value(own, controls), len(controls))
    if rotated is not None and turned is not None:
        return Controls(p_value(*turned), len(turned[1]), rotated.kind)
    return Controls(np.nan, others.count, "not testable")


def _rotation(places: list[int], rotated: Rotated | None) -> tuple[float, Float[np.ndarray, "draw"]] | None:
    """The joint effect and its draws; `None` where a component has none or p could not come out small enough."""
    if rotated is None:
        return None
    effect, draws = rotated.effects[places].sum(), rotated.draws[:, places].sum(axis=1)
    testable = np.isfinite(effect) and np.isfinite(draws).all() and 1 / (1 + len(draws)) <= LEVEL
    return (float(effect), draws) if testable else None


@dataclass(frozen=True)
class OtherSets:
    """The sets with as many components of each kind as the set in question, from the same span of layers; the set in
    question is left out."""

    groups: tuple[tuple[tuple[int, ...], int], ...]
    own: frozenset[int]

    @property
    def count(self) -> int:
        return prod(comb(len(pool), size) for pool, size in self.groups) - 1

    def draw(self, seed: int) -> list[tuple[int, ...]]:
        """All of them where they are no more than `MOST_SETS`; else `N_CONTROLS` different ones at random."""
        if self.count <= MOST_SETS:
            parts = product(*(combinations(pool, size) for pool, size in self.groups))
            every = (tuple(sorted(place for part in chosen for place in part)) for chosen in parts)
            return [chosen for chosen in every if set(chosen) != self.own]
        generator, found = np.random.default_rng(seed), set()
        while len(found) < N_CONTROLS:
            parts = (generator.choice(pool, size, replace=False).tolist() for pool, size in self.groups)
            chosen = tuple(sorted(place for part in parts for place in part))
            if set(chosen) != self.own:
                found.add(chosen)
        return sorted(found)


def other_sets(nodes: Sequence[Node], components: Sequence[Node]) -> OtherSets:
    """The sets of components that are like the nodes, by kind, from the nodes' first layer to their last."""
    first, last = min(node.layer for node in nodes), max(node.layer for node in nodes)
    groups = {}
    for node in nodes:
        pool = tuple(
            place for place, one in enumerate(components) if one.kind == node.kind and first <= one.layer <= last
        )
        groups[node.kind] = (pool, groups.get(node.kind, (pool, 0))[1] + 1)
    own = frozenset(place for place, one in enumerate(components) if one in set(nodes))
    return OtherSets(tuple(groups.values()), own)
