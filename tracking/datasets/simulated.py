"""Simulated series of circuits, known to the last event, on five levels of trouble and with flicker.

A seeded simulation: functions with a feature vector and wiring live on heads of a small transformer; they form at one
of a few moments, die, are handed on (sharply, after a gap, with an overlap), swap places, split and merge, while
features drift, detections are missed or false, and edges are noisy or spurious.  Some components may flicker: they
are listed now and then and do nothing that counts.  What comes out is what a series of circuit discoveries gives (a
`Series`), and what really happened (each a `SimulatedEvent`).

Written from the description of such runs, not fitted to real ones: a score here says what a method can do when its
picture of the world holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sparse

from circuits.graph import Node
from tracking.lifelines.linking import Linked
from tracking.lifelines.series import Series, profile_of_edges

__all__ = ["LEVELS", "Difficulty", "SimulatedEvent", "SimulatedRun", "count_events", "found_events", "simulate"]

VISIBLE = 0.25
QUIET = 0.02  # standard deviation of edges that are only noise
RATES = (0.08, 0.5)  # between which share of the steps a flickering component is listed
TOLERANCE = {"hand-off": 6, "death": 3}


@dataclass(frozen=True)
class Difficulty:
    """How hard a series is.

    Attributes:
        kinds: kinds of functions; those of one kind have features alike.
        distinct: length of what sets a function apart from its kind, whose own vector has length 1.
        noise: standard deviation of each of the features.
        edge_noise: standard deviation of the logarithm of each edge.
        spurious: false edges for each active component and frame.
        missed: probability that an active component is not detected.
        false: probability that a free head seems active for a frame or two.
        flickering: components that are listed now and then, at a rate of their own.
        freedom: degrees of freedom of the noise of features; few make heavy tails.
    """

    kinds: int = 6
    distinct: float = 0.5
    noise: float = 0.08
    edge_noise: float = 0.3
    spurious: float = 0.3
    missed: float = 0.02
    false: float = 0.002
    flickering: int = 0
    freedom: float = float("inf")


LEVELS: dict[str, Difficulty] = {
    "easy": Difficulty(kinds=10, distinct=0.8, noise=0.04, edge_noise=0.2, missed=0.005, false=0.0005),
    "default": Difficulty(),
    "ambiguous": Difficulty(kinds=3, distinct=0.15, noise=0.06),
    "noisy": Difficulty(noise=0.18, edge_noise=0.6, spurious=1.0, missed=0.05, false=0.006),
    "hard": Difficulty(kinds=3, distinct=0.2, noise=0.15, edge_noise=0.6, spurious=1.0, missed=0.05, false=0.006),
}


@dataclass(frozen=True)
class SimulatedEvent:
    """What happened between two steps, by numbers of steps and components."""

    kind: str
    frame_before: int
    frame: int
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True)
class SimulatedRun:
    """What was seen and what happened."""

    series: Series
    events: tuple[SimulatedEvent, ...]


@dataclass
class _Life:
    """One function, or several merged, on one unit from frame `start` until before frame `end`."""

    unit: int
    functions: dict[int, float]
    vector: np.ndarray
    start: int
    end: int
    rise: tuple[float, float] | None = None  # midpoint, width
    fall: tuple[float, float] | None = None
    seen: list[int] = field(default_factory=list)

    def strength(self, t: int) -> float:
        if not self.start <= t < self.end:
            return 0.0
        up = 1.0 if self.rise is None else 1 / (1 + np.exp(-(t - self.rise[0]) / self.rise[1]))
        down = 1.0 if self.fall is None else 1 / (1 + np.exp((t - self.fall[0]) / self.fall[1]))
        return float(up * down)


@dataclass
class _World:
    rng: np.random.Generator
    n_layers: int
    n_heads: int
    n_steps: int
    lives: list[_Life] = field(default_factory=list)
    wires: list[tuple[int, int, int, float]] = field(default_factory=list)  # function, function, channel, weight
    told: list[tuple[str, list[_Life], list[_Life]]] = field(default_factory=list)

    def layer(self, unit: int) -> int:
        return unit // self.n_heads

    def free_unit(self, near: int, start: int) -> int | None:
        """A head of the same layer (three in five) or the next that nothing lives on from a little before `start`."""
        layer = self.layer(near)
        same = [layer] if self.rng.random() < 0.6 else [layer - 1, layer + 1]
        for layers in (same, [layer - 1, layer, layer + 1]):
            units = [u for u in range(self.n_layers * self.n_heads) if self.layer(u) in layers and u != near]
            units = [u for u in units if all(life.end + 2 <= start - 2 for life in self.lives if life.unit == u)]
            if units:
                return int(self.rng.choice(units))
        return None


def simulate(
    level: Difficulty | str = "default", seed: int = 0, *, n_layers: int = 6, n_heads: int = 8, n_steps: int = 60
) -> SimulatedRun:
    """One run.

    Raises:
        ValueError: there is no such level.
    """
    if isinstance(level, str):
        if level not in LEVELS:
            raise ValueError(f"expected a level among {', '.join(LEVELS)}, got {level!r}")
        level = LEVELS[level]
    world = _World(np.random.default_rng(seed), n_layers, n_heads, n_steps)
    _populate(world, level)
    _happen(world)
    return _observe(world, level)


def _populate(world: _World, level: Difficulty, n_features: int = 12) -> None:
    rng, n_units = world.rng, world.n_layers * world.n_heads
    count = round(0.35 * n_units)
    kinds = _directions(rng, level.kinds, n_features)
    vectors = kinds[rng.integers(level.kinds, size=count)] + level.distinct * _directions(rng, count, n_features)
    units = np.sort(rng.permutation(n_units)[:count])
    moments = rng.uniform(0.12, 0.65, size=3) * world.n_steps
    for number, unit in enumerate(units):
        life = _Life(int(unit), {number: 1.0}, vectors[number], 0, world.n_steps)
        if rng.random() < 0.6:
            middle = float(np.clip(rng.choice(moments) + rng.normal(0, 0.04 * world.n_steps), 3, 0.8 * world.n_steps))
            life.rise = (middle, float(rng.uniform(0.4, 2.0)))
        world.lives.append(life)
    layers = units // world.n_heads
    for number in range(count):
        later = np.flatnonzero(layers > layers[number])
        for other in rng.permutation(later)[: rng.poisson(3.0)]:
            world.wires.append((number, int(other), int(rng.integers(3)), _weight(rng)))


def _directions(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    vectors = rng.normal(size=(count, size))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _weight(rng: np.random.Generator) -> float:
    return float(np.exp(rng.normal(-0.5, 0.6)) * rng.choice([1, 1, 1, -1]))


def _happen(world: _World) -> None:
    """At most one event befalls each function after it has formed."""
    rng, lives = world.rng, list(world.lives)
    pool = [lives[place] for place in rng.permutation(len(lives))]

    def some(share: float) -> list[_Life]:
        return [pool.pop() for _ in range(min(len(pool), round(share * len(lives))))]

    def moment(*those: _Life) -> int | None:
        first = max(int(max(4, life.rise[0] + 5 * life.rise[1] + 3)) if life.rise else 4 for life in those)
        return int(rng.integers(first, world.n_steps - 8)) if first < world.n_steps - 8 else None

    for kind, share in (("sharp", 0.15), ("gap", 0.05), ("overlap", 0.1)):
        for life in some(share):
            _hand_on(world, life, kind, moment(life))
    for one, other in _pairs(some(0.12)):
        _swap(world, one, other, moment(one, other))
    for life in some(0.08):
        _split(world, life, moment(life))
    for one, other in _pairs(some(0.12)):
        _merge(world, one, other, moment(one, other))
    for life in some(0.1):
        if (t := moment(life)) is not None:
            life.fall = (t, float(rng.uniform(0.3, 1.2)))
            world.told.append(("death", [life], []))
    for life in lives:
        if life.rise is not None:
            world.told.append(("birth", [], [life]))


def _pairs(lives: list[_Life]) -> list[tuple[_Life, _Life]]:
    return list(zip(lives[::2], lives[1::2], strict=False))


def _hand_on(world: _World, life: _Life, kind: str, t: int | None) -> None:
    unit = None if t is None else world.free_unit(life.unit, t)
    if t is None or unit is None:
        return
    late = int(world.rng.integers(1, 3)) if kind == "gap" else 0
    new = _Life(unit, dict(life.functions), life.vector, t + late, world.n_steps)
    if kind == "overlap":
        shared = int(world.rng.integers(3, 7))
        life.end, life.fall = t + shared + 3, (t + shared / 2 + 0.5, max(0.4, shared / 6))
        new.rise = (t + shared / 2 - 0.5, max(0.4, shared / 6))
    else:
        life.end = t
    world.lives.append(new)
    world.told.append(("hand-off", [life], [new]))


def _swap(world: _World, one: _Life, other: _Life, t: int | None) -> None:
    if t is None:
        return
    one.end = other.end = t
    for life, unit in ((one, other.unit), (other, one.unit)):
        new = _Life(unit, dict(life.functions), life.vector, t, world.n_steps)
        world.lives.append(new)
        world.told.append(("hand-off", [life], [new]))


def _split(world: _World, life: _Life, t: int | None) -> None:
    unit = None if t is None else world.free_unit(life.unit, t)
    if t is None or unit is None:
        return
    (old,) = life.functions
    new = 1 + max(number for one in world.lives for number in one.functions)
    for a, b, channel, weight in list(world.wires):
        if old in (a, b) and world.rng.random() < 0.65:
            ends = (new if a == old else a, new if b == old else b)
            world.wires.append((*ends, channel, weight * float(world.rng.uniform(0.5, 1.0))))
    copy = life.vector + 0.15 * _directions(world.rng, 1, len(life.vector))[0]
    world.lives.append(_Life(unit, {new: 1.0}, copy, t, world.n_steps))
    world.told.append(("split", [life], [life, world.lives[-1]]))


def _merge(world: _World, one: _Life, other: _Life, t: int | None) -> None:
    if t is None:
        return
    one.end = other.end = t
    functions = {number: 0.8 for life in (one, other) for number in life.functions}
    world.lives.append(_Life(one.unit, functions, 0.75 * (one.vector + other.vector), t, world.n_steps))
    world.told.append(("merge", [one, other], [world.lives[-1]]))


def _observe(world: _World, level: Difficulty) -> SimulatedRun:
    rng = world.rng
    n_units, n_features = world.n_layers * world.n_heads, 12
    shape = (world.n_steps, n_units)
    features, seen, blocks = np.full((*shape, n_features), np.nan), np.zeros(shape, dtype=bool), []
    flicker = _flicker(world, level)
    for t in range(world.n_steps):
        for life in world.lives:
            life.vector = life.vector + 0.01 * rng.normal(size=n_features)
        visible = [life for life in world.lives if life.strength(t) >= VISIBLE]
        here = sorted((life for life in visible if rng.random() >= level.missed), key=lambda life: life.unit)
        for life in here:
            life.seen.append(t)
        taken = {life.unit for life in visible}
        ghosts = [unit for unit in range(n_units) if unit not in taken and rng.random() < level.false]
        weak = [unit for unit, (rate, _) in flicker.items() if unit not in taken and rng.random() < rate]
        units = np.array([life.unit for life in here] + ghosts + [u for u in weak if u not in ghosts], dtype=np.int64)
        vectors = [life.strength(t) * life.vector for life in here]
        vectors += [rng.uniform(0.3, 0.7) * _directions(rng, 1, n_features)[0] for _ in ghosts]
        vectors += [flicker[unit][1] for unit in weak if unit not in ghosts]
        noise = rng.normal(size=(len(units), n_features))
        if np.isfinite(level.freedom):
            noise /= np.sqrt(rng.chisquare(level.freedom, size=(len(units), 1)) / level.freedom)
        features[t, units] = np.array(vectors).reshape(-1, n_features) + level.noise * noise
        seen[t, units] = True
        blocks.append(_matrices(_edges(world, level, here, units, t), units, n_units))
    nodes = tuple(Node.head(unit // world.n_heads, unit % world.n_heads) for unit in range(n_units))
    size = np.sqrt(np.nansum(features**2, axis=2))
    profile = profile_of_edges(blocks, n_units, n_units)
    steps, movable = tuple(range(world.n_steps)), np.ones(n_units, dtype=bool)
    series = Series(steps, nodes, "detection", size, features, profile, seen, movable, grows=True)
    return SimulatedRun(series, _truth(world))


def _flicker(world: _World, level: Difficulty) -> dict[int, tuple[float, np.ndarray]]:
    """Components on which nothing ever lives, with the share of steps at which each is listed, and its features."""
    if not level.flickering:
        return {}
    rng = world.rng
    lived = {life.unit for life in world.lives}
    free = [unit for unit in range(world.n_layers * world.n_heads) if unit not in lived]
    chosen = rng.permutation(free)[: level.flickering].tolist()
    return {unit: (float(rng.uniform(*RATES)), 0.4 * _directions(rng, 1, 12)[0]) for unit in chosen}


def _matrices(edges: np.ndarray, units: np.ndarray, n_units: int) -> tuple[sparse.csr_array, ...]:
    """(component, component) signed roots of the edges above noise, one matrix a channel."""
    found = []
    for channel in edges:
        source, target = np.nonzero(np.abs(channel) > 3 * QUIET)
        value = channel[source, target]
        entries = np.sign(value) * np.sqrt(np.abs(value))
        found.append(sparse.csr_array((entries, (units[source], units[target])), shape=(n_units, n_units)))
    return tuple(found)


def _edges(world: _World, level: Difficulty, seen: list[_Life], units: np.ndarray, t: int) -> np.ndarray:
    rng, size = world.rng, len(units)
    edges = np.zeros((3, size, size))
    who: dict[int, list[tuple[int, float]]] = {}
    for place, life in enumerate(seen):
        for function, share in life.functions.items():
            who.setdefault(function, []).append((place, share * life.strength(t)))
    for a, b, channel, weight in world.wires:
        for i, one in who.get(a, []):
            for j, other in who.get(b, []):
                if world.layer(int(units[i])) < world.layer(int(units[j])):
                    edges[channel, i, j] += weight * one * other
    edges *= np.exp(level.edge_noise * rng.normal(size=edges.shape))
    layer = units // world.n_heads
    for _ in range(rng.poisson(level.spurious * size)):
        i, j = rng.integers(size, size=2)
        if layer[i] < layer[j]:
            edges[int(rng.integers(3)), i, j] += np.exp(rng.normal(-0.9, 0.5))
    return edges + QUIET * rng.normal(size=edges.shape) * (layer[:, None] < layer[None, :])


def _truth(world: _World) -> tuple[SimulatedEvent, ...]:
    """What happened, in frames in which it can be seen."""
    found = []
    for kind, before, after in world.told:
        units = tuple(life.unit for life in before), tuple(life.unit for life in after)
        if kind == "death":
            seen = before[0].seen
            if len(seen) >= 3 and seen[-1] < world.n_steps - 1:
                found.append(SimulatedEvent("death", seen[-1], seen[-1] + 1, *units))
        elif after[-1].seen and not (kind == "birth" and (len(after[-1].seen) < 3 or after[-1].seen[0] == 0)):
            t = after[-1].seen[0]
            found.append(SimulatedEvent(kind, t - 1, t, *units))  # type: ignore[arg-type]
    return tuple(sorted(found, key=lambda change: (change.frame, change.kind, change.after)))


def count_events(found: Sequence[SimulatedEvent], truth: Sequence[SimulatedEvent]) -> dict[str, tuple[int, int, int]]:
    """For each kind of event how many were found, invented and overlooked.

    A found event is a true one of its kind if they share a component after it (before it, for a death) within two
    frames, or three for a death and six for a hand-off; each true one is found once.
    """
    result = {}
    for kind in ("birth", "death", "hand-off", "split", "merge"):
        left = [change for change in found if change.kind == kind]
        hits, wanted = 0, [change for change in truth if change.kind == kind]
        for change in wanted:
            near = [one for one in left if _units(one) & _units(change)]
            near = [one for one in near if abs(one.frame - change.frame) <= TOLERANCE.get(kind, 2)]
            if near:
                left.remove(min(near, key=lambda one: abs(one.frame - change.frame)))
                hits += 1
        result[kind] = (hits, len(left), len(wanted) - hits)
    return result


def _units(change: SimulatedEvent) -> set[int]:
    return set(change.before if change.kind == "death" else change.after)


def found_events(linked: Linked) -> list[SimulatedEvent]:
    """What linking found, in the same form."""
    return [
        SimulatedEvent(
            one.kind,
            one.frame_before,
            one.frame,
            tuple(linked.component(spell) for spell in one.before),
            tuple(linked.component(spell) for spell in one.after),
        )
        for one in linked.events
    ]
