"""Snapshots far apart are matched by how far components of the run move, and a move to another head still shows.

signatures drift from step to step, all alike in size; at step 600 heads 0 and 1 of layer 1 change places
"""

import numpy as np

from circuits.graph import Estimate, ModelGraph, Node, NodeScores
from tracking.history.history import History
from tracking.history.records import Record
from tracking.matching.matching import match
from tracking.matching.movement import known_moves, usual_move

GRAPH = ModelGraph(2, 6, mlp=False)


def drifting(drift: float, *, n_steps: int = 12) -> History:
    rng = np.random.default_rng(3)
    level = rng.uniform(size=(6, len(GRAPH.components)))
    records = {}
    for place in range(n_steps):
        level = level + drift * rng.normal(size=level.shape)
        folds = level + 0.005 * rng.normal(size=(8, *level.shape))
        scores = {
            f"m{k}": NodeScores(GRAPH.components, Estimate.from_prompts(folds[:, k]), f"m{k}", "task") for k in range(6)
        }
        records[100 * place, "task"] = Record(100 * place, "task", scores=scores)
    return History("drifting", GRAPH, records)


def test_the_usual_move_grows_with_the_time_between_the_steps() -> None:
    history = drifting(0.05)
    near, far = (
        usual_move(known_moves(history, history, steps, same_run=True), np.zeros(6, dtype=bool))
        for steps in ((200, 300), (200, 1000))
    )
    assert (far > 3 * near).all()
    np.testing.assert_allclose(np.sqrt(near), 0.05, rtol=0.6)


def test_snapshots_far_apart_are_paired() -> None:
    history = drifting(0.05)
    whole = match(history, history, step=(100, 1000))
    alone = match(history[100], history[1000], same_run=True)
    assert [pair.before for pair in whole.pairs] == [pair.after for pair in whole.pairs] == list(GRAPH.components)
    assert len(alone.pairs) < len(whole.pairs)


def test_heads_that_changed_places_are_followed_all_the_same() -> None:
    history = drifting(0.02)
    moved = {node: node for node in GRAPH.components}
    one, other = Node.head(1, 0), Node.head(1, 1)
    moved |= {one: other, other: one}
    records = {}
    for (step, task), record in history.records.items():
        nodes = tuple(moved[node] for node in GRAPH.components) if step >= 600 else GRAPH.components
        order = [nodes.index(node) for node in GRAPH.components]
        scores = {}
        for name, own in record.scores.items():
            part = own.estimate
            estimate = Estimate(part.value[order], part.std_error[order], part.folds[:, order], part.n_prompts)
            scores[name] = NodeScores(GRAPH.components, estimate, name, task)
        records[step, task] = Record(step, task, scores=scores)
    matching = match(History("drifting", GRAPH, records), History("drifting", GRAPH, records), step=(400, 800))
    assert (matching.partner(one), matching.partner(other)) == (other, one)
    assert sum(pair.before == pair.after for pair in matching.pairs) == len(GRAPH.components) - 2
