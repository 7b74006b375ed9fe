"""A shuffled model is put back exactly, chance is not mistaken for a partner, and known pairs are kept."""

import itertools
import time
from dataclasses import replace

import numpy as np
import pytest

from circuits.circuit import Circuit
from circuits.graph import EdgeScores, Estimate, ModelGraph, Node, NodeScores, Reader
from tests.examples import BY_NAME, EXAMPLES, Example
from tracking.datasets.synthetic import history_from_drawing
from tracking.history.history import Snapshot
from tracking.history.records import Record
from tracking.matching.assignment import assign, match_graphs
from tracking.matching.matching import Matching, Pair, match
from tracking.matching.signatures import channel_matrices, signatures_of
from tracking.matching.similarity import circuit_likeness, compared_circuits

TASK = "task"


def random_snapshot(graph: ModelGraph, seed: int, *, measures: int = 4, degree: int = 5) -> Snapshot:
    """Sparse edges and a few measures of every component, in 8 folds."""
    rng = np.random.default_rng(seed)
    level = rng.gamma(0.3, size=(measures, len(graph.components)))
    folds = level + 0.05 * rng.normal(size=(8, *level.shape))
    places = np.argwhere(graph.edge_mask)
    kept = places[rng.choice(len(places), min(len(places), degree * len(graph.components)), replace=False)]
    edges = np.zeros((8, *graph.edge_mask.shape))
    strength = rng.gamma(0.5, size=len(kept)) * rng.choice([-1, 1], len(kept))
    edges[:, kept[:, 0], kept[:, 1]] = strength + 0.02 * rng.normal(size=(8, len(kept)))
    return snapshot_of(graph, Estimate.from_prompts(folds), Estimate.from_prompts(edges))


def snapshot_of(graph: ModelGraph, measured: Estimate, edges: Estimate) -> Snapshot:
    scores = {}
    for place in range(len(measured.value)):
        own = Estimate(measured.value[place], measured.std_error[place], measured.folds[:, place], measured.n_prompts)
        scores[f"m{place}"] = NodeScores(graph.components, own, f"m{place}", TASK)
    circuit = Circuit(EdgeScores(graph, edges, "eap", TASK), edges.value != 0)
    return Snapshot(0, None, {TASK: Record(0, TASK, scores=scores, circuit=circuit)})


def shuffled(snapshot: Snapshot, seed: int) -> tuple[Snapshot, dict[Node, Node]]:
    """The same model with the heads of each layer in another order, and who is now called what.

    Heads that share a key and value head stay together, in another order too.
    """
    record = snapshot.records[TASK]
    assert record.circuit is not None
    graph, rng = record.circuit.graph, np.random.default_rng(seed)
    new_name = {node: node for node in graph.nodes}
    for layer in range(graph.n_layers):
        heads = np.array([node for node in graph.heads if node.layer == layer], dtype=object)
        groups = heads.reshape(graph.n_key_value_heads or graph.n_heads, -1)
        moved = rng.permuted(groups[rng.permutation(len(groups))], axis=1)
        new_name |= dict(zip(heads, moved.ravel(), strict=True))
    old_name = {new: old for old, new in new_name.items()}
    take = [graph.components.index(old_name[node]) for node in graph.components]
    estimates = [scores.estimate for scores in record.scores.values()]
    value, error = (np.stack([getattr(e, part)[take] for e in estimates]) for part in ("value", "std_error"))
    measured = Estimate(value, error, np.stack([e.folds[:, take] for e in estimates], axis=1), 64)
    writers = [graph.writer_index[old_name[node]] for node in graph.writers]
    readers = [graph.reader_index[Reader(old_name[one.node], one.slot)] for one in graph.readers]
    own = record.circuit.scores.estimate
    value, error, folds = (array[..., writers, :][..., readers] for array in (own.value, own.std_error, own.folds))
    return snapshot_of(graph, measured, Estimate(value, error, folds, own.n_prompts)), new_name


def found(matching: Matching) -> dict[Node, Node]:
    return {pair.before: pair.after for pair in matching.pairs}


@pytest.mark.parametrize(("layers", "heads", "mlp"), [(2, 4, False), (4, 6, True), (12, 12, True)])
def test_a_shuffled_model_is_put_back(layers: int, heads: int, mlp: bool) -> None:
    before = random_snapshot(ModelGraph(layers, heads, mlp=mlp), seed=0)
    after, truth = shuffled(before, seed=1)
    matching = match(before, after, same_run=False)
    assert found(matching) == {node: new for node, new in truth.items() if node.kind in ("head", "mlp")}
    assert matching.appeared == matching.disappeared == ()
    assert all(pair.similarity > 0.99 for pair in matching.pairs)


GROUPED = [ModelGraph(3, 4, 2), ModelGraph(2, 6, 2, mlp=False), ModelGraph(2, 4, 1), ModelGraph(12, 12, 4)]


@pytest.mark.parametrize("graph", GROUPED, ids=lambda graph: f"{graph.n_heads} heads in {graph.n_key_value_heads}")
def test_a_model_whose_groups_and_heads_inside_groups_are_shuffled_is_put_back(graph: ModelGraph) -> None:
    before = random_snapshot(graph, seed=0)
    after, truth = shuffled(before, seed=1)
    matching = match(before, after, same_run=False)
    assert found(matching) == {node: new for node, new in truth.items() if node.kind in ("head", "mlp")}
    assert min(pair.confidence for pair in matching.pairs) > 0.5


def group_of(graph: ModelGraph, node: Node) -> tuple[str, int, int]:
    shared = graph.n_heads // (graph.n_key_value_heads or graph.n_heads)
    return node.kind, node.layer, node.index // shared


def torn(pairs: dict[Node, Node], before: ModelGraph, after: ModelGraph) -> bool:
    """Whether some group's partners are spread over groups, or some group gathers those of several."""
    groups = {(group_of(before, one), group_of(after, other)) for one, other in pairs.items()}
    return any(len({pair[side] for pair in groups}) < len(groups) for side in (0, 1))


def with_groups(snapshot: Snapshot, n_key_value_heads: int) -> Snapshot:
    """The same measurements of a model whose heads share keys and values."""
    record = snapshot.records[TASK]
    assert record.circuit is not None
    graph = replace(record.circuit.graph, n_key_value_heads=n_key_value_heads)
    folds = np.stack([scores.folds for scores in record.scores.values()], axis=1)
    return snapshot_of(graph, Estimate.from_prompts(folds), record.circuit.scores.estimate)


@pytest.mark.parametrize("same_run", [False, True], ids=["two runs", "one run"])
def test_heads_that_share_a_key_head_have_partners_that_share_one(same_run: bool) -> None:
    """Even where heads were shuffled one by one, so that their best partners are torn apart."""
    graph = ModelGraph(3, 6, 3)
    for seed in range(3):
        before = random_snapshot(ModelGraph(3, 6), seed)
        after, truth = shuffled(before, seed)
        assert torn({node: truth[node] for node in graph.heads}, graph, graph)
        pairs = found(match(with_groups(before, 3), with_groups(after, 3), same_run=same_run))
        assert sum(node.kind == "head" for node in pairs) >= 3
        assert not torn(pairs, graph, graph)


def test_groups_of_other_sizes_leave_heads_alone() -> None:
    small, large = ModelGraph(2, 4, 2), ModelGraph(2, 8, 2)
    pairs = found(match(random_snapshot(small, 0), random_snapshot(large, 1), same_run=False))
    assert pairs
    assert not torn(pairs, small, large)


def test_where_one_model_has_no_groups_each_head_goes_alone() -> None:
    """Keys that are shared have no counterpart there, so nothing says that heads belong together."""
    whole = random_snapshot(ModelGraph(3, 6), seed=0)
    after, _ = shuffled(whole, seed=1)
    before = with_groups(whole, 2)
    assert found(match(before, after, same_run=False)) == found(match(whole, after, same_run=False))


def test_anchors_that_tear_a_group_apart_get_a_sentence() -> None:
    before = random_snapshot(ModelGraph(2, 4, 2), seed=0)
    after, _ = shuffled(before, seed=1)
    anchors: dict[Node | str, Node | str] = {"a0.h0": "a0.h3", "a0.h1": "a0.h2"}
    pairs = found(match(before, after, same_run=False, anchors=anchors))
    assert (pairs[Node.head(0, 0)], pairs[Node.head(0, 1)]) == (Node.head(0, 3), Node.head(0, 2))
    with pytest.raises(ValueError, match="anchors tear apart heads that share a key and value head"):
        match(before, after, same_run=False, anchors={"a0.h0": "a0.h3", "a0.h1": "a0.h0"})


def test_wiring_alone_puts_a_shuffled_model_back() -> None:
    """Where all components score alike, only the edges tell them apart."""
    graph = ModelGraph(4, 5)
    before = random_snapshot(graph, seed=3, measures=1)
    record = before.records[TASK]
    assert record.circuit is not None
    flat = Estimate.from_prompts(np.full((8, 1, len(graph.components)), 0.5))
    before = snapshot_of(graph, flat, record.circuit.scores.estimate)
    after, truth = shuffled(before, seed=4)
    matching = match(before, after, same_run=False)
    assert found(matching) == {node: new for node, new in truth.items() if node.kind in ("head", "mlp")}


def test_matching_is_fast_and_the_same_every_time() -> None:
    before = random_snapshot(ModelGraph(12, 12), seed=0)
    after, _ = shuffled(before, seed=1)
    start = time.perf_counter()
    first = match(before, after, same_run=False)
    taken = time.perf_counter() - start
    assert first == match(before, after, same_run=False)
    assert taken < 2.0, "0.3 s where nothing else runs"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_a_snapshot_matches_itself_at_no_cost(example: Example) -> None:
    history = example.history(wiring=True)
    matching = match(history, history, step=(1000, 1000))
    assert all(pair.before == pair.after and pair.similarity == pytest.approx(1) for pair in matching.pairs)
    assert len(matching.pairs) == len(history.graph.components)
    assert matching.cost == pytest.approx(0, abs=1e-9)


def test_within_a_run_a_function_that_moved_is_followed_and_the_rest_stays() -> None:
    history = BY_NAME["swap with an idle head"].history(wiring=True)
    matching = match(history, history, step=(1200, 1300))
    assert matching.partner(Node.head(1, 0)) == Node.head(1, 3)
    assert matching.partner(Node.head(0, 0)) == Node.head(0, 0)
    assert {pair.before for pair in matching.pairs if pair.before != pair.after} == {Node.head(1, 0)} | (
        {Node.head(1, 3)} & {pair.before for pair in matching.pairs}
    )


def test_across_runs_those_with_a_function_are_matched_and_idle_ones_are_not_surely() -> None:
    one = history_from_drawing("a0.h0 previous-token ##\na1.h0 induction ##\na1.h3 induction ..", wiring=BY_INDUCTION)
    drawing = "a0.h2 previous-token ##\na1.h1 induction ##\na1.h3 induction .."
    other = history_from_drawing(drawing, wiring=BY_INDUCTION, seed=7, name="other")
    matching = match(one, other)
    sure = {pair.before: pair.after for pair in matching.pairs if pair.confidence >= 0.6}
    assert sure == {Node.head(0, 0): Node.head(0, 2), Node.head(1, 0): Node.head(1, 1)}


BY_INDUCTION = {"induction": ["previous-token"]}


def test_chance_gives_few_pairs() -> None:
    """Models whose features were drawn independently have few pairs above the null, and hardly any sure one."""
    graph = ModelGraph(4, 8)
    sure = 0
    for seed in range(5):
        matching = match(random_snapshot(graph, seed), random_snapshot(graph, seed + 100), same_run=False)
        assert all(pair.similarity >= pair.null for pair in matching.pairs)
        sure += sum(pair.confidence >= 0.9 for pair in matching.pairs)
    assert sure <= 0.1 * 5 * len(graph.components)


def test_models_of_other_shape_are_matched_by_relative_depth() -> None:
    small = history_from_drawing("a0.h0 previous-token ##\na1.h0 induction ##", wiring=BY_INDUCTION)
    drawing = "a0.h5 previous-token ##\na2.h3 induction ##\na3.h0 duplicate-token .."
    large = history_from_drawing(drawing, wiring=BY_INDUCTION, name="large")
    matching = match(small, large)
    assert matching.partner(Node.head(0, 0)) == Node.head(0, 5)
    assert matching.partner(Node.head(1, 0)) in (Node.head(2, 3), None)


def test_anchors_are_kept() -> None:
    before = random_snapshot(ModelGraph(2, 4), seed=0)
    after, _ = shuffled(before, seed=1)
    matching = match(before, after, same_run=False, anchors={"a0.h0": "a0.h1"})
    assert matching.partner(Node.head(0, 0)) == Node.head(0, 1)
    assert next(pair.confidence for pair in matching.pairs if pair.before == Node.head(0, 0)) == 1
    with pytest.raises(ValueError, match=r"anchor a7\.h0 is not among the components"):
        match(before, after, anchors={"a7.h0": "a0.h0"})


def test_nothing_in_common_gets_a_sentence() -> None:
    one = history_from_drawing("a0.h0 previous-token ##")
    other = history_from_drawing("a0.h0 induction ##\na0.h0 duplicate-token ##", name="other")
    between = r"'drawn' with task repeated-tokens \(previous-token\), and history 'other' with task repeated-tokens \("
    with pytest.raises(ValueError, match=between + r"duplicate-token, induction\); record the same task in both"):
        match(one, other)
    with pytest.raises(ValueError, match=r"the one before at step 0 with .* and the one after at step 100 with"):
        match(one[0], other[100])


def test_different_tasks_get_a_sentence_even_where_measures_have_one_name() -> None:
    one = history_from_drawing("a0.h0 induction ##")
    records = {(step, "ioi"): replace(record, task="ioi") for (step, _), record in one.records.items()}
    other = replace(one, name="other", records=records)
    with pytest.raises(ValueError, match=r"task repeated-tokens \(induction\), and .* task ioi \(induction\)"):
        match(one, other)


def test_assignment_leaves_alone_what_is_not_worth_pairing() -> None:
    gain = np.array([[3.0, 1.5, -1.0], [2.0, -5.0, -1.0], [-1.0, -1.0, -1.0]])
    assert assign(gain).tolist() == [1, 0, -1]
    assert assign(np.zeros((0, 3))).tolist() == []


@pytest.mark.parametrize("seed", range(20))
def test_assignment_of_groups_is_the_best_of_all(seed: int) -> None:
    """Against every way to send groups to groups, with the best assignment inside each."""
    rng = np.random.default_rng(seed)
    before, after = rng.integers(0, 3, size=6), rng.integers(0, 4, size=7)
    gain = rng.normal(size=(6, 7))
    partner = assign(gain, (before, after))
    pairs = {(int(before[row]), int(after[column])) for row, column in enumerate(partner) if column >= 0}
    assert all(len({pair[side] for pair in pairs}) == len(pairs) for side in (0, 1))
    assert len(set(partner[partner >= 0])) == (partner >= 0).sum()
    best = 0.0
    for order in itertools.permutations(range(4), 3):
        allowed = np.array([[order[g] == h for h in after] for g in before])
        best = max(best, worth_of(np.where(allowed, gain, 0.0)))
    assert gain[partner >= 0, partner[partner >= 0]].sum() == pytest.approx(best)


def worth_of(gain: np.ndarray) -> float:
    partner = assign(gain)
    return float(gain[partner >= 0, partner[partner >= 0]].sum())


def test_groups_of_one_are_no_groups() -> None:
    gain = np.random.default_rng(0).normal(size=(9, 8))
    assert assign(gain, (np.arange(9), np.arange(8))).tolist() == assign(gain).tolist()


def test_frank_wolfe_never_ends_below_the_plain_assignment() -> None:
    rng = np.random.default_rng(0)
    for seed in range(5):
        graph = ModelGraph(3, 4)
        circuit = random_snapshot(graph, seed).records[TASK].circuit
        assert circuit is not None
        channels = list(channel_matrices(circuit, graph.nodes).values())
        gain = rng.normal(size=(len(graph.nodes),) * 2)
        partner, _ = match_graphs(gain, channels, channels, weight=1.0)

        def worth(partner: np.ndarray, gain: np.ndarray = gain, channels: list = channels) -> float:
            plan = np.zeros(gain.shape)
            plan[np.flatnonzero(partner >= 0), partner[partner >= 0]] = 1
            return float((gain * plan).sum() + sum(np.trace(c.T @ (plan @ (c @ plan.T))) for c in channels))

        assert worth(partner) >= worth(assign(gain)) - 1e-9


def test_likeness_stands_beside_its_noise_floor() -> None:
    before = random_snapshot(ModelGraph(3, 4), seed=0)
    after, truth = shuffled(before, seed=1)
    one, other = before.records[TASK].circuit, after.records[TASK].circuit
    assert one is not None
    assert other is not None
    same = circuit_likeness(one, other, partners=truth)
    assert (same.node_jaccard, same.edge_jaccard) == (1, 1)
    assert same.weighted_jaccard == pytest.approx(1)
    assert same.floor is not None
    assert 0.5 < same.floor.weighted_jaccard < 1
    assert circuit_likeness(one, other).weighted_jaccard < same.floor.weighted_jaccard
    assert list(same.to_frame().columns) == ["measure", "value", "noise_floor"]


def test_circuits_are_compared_under_the_names_of_their_partners() -> None:
    """What is shuffled shares every edge once its components are called as their partners, and few as it is."""
    before = random_snapshot(ModelGraph(3, 4), seed=0)
    after, truth = shuffled(before, seed=1)
    paired = Matching(tuple(Pair(one, other, 1.0, 1.0) for one, other in truth.items()), (), (), 0.0)
    row = compared_circuits(before, after, paired).iloc[0]
    assert (row.task, row.jaccard, row.told_apart) == (TASK, 1, False)
    assert row.edges_before == row.edges_after
    assert 0 < row.noise_floor <= 1
    alone = compared_circuits(before, after, Matching((), (), (), 0.0)).iloc[0]
    assert alone.jaccard < row.noise_floor
    assert alone.told_apart


def test_scale_does_not_count_as_difference() -> None:
    before = random_snapshot(ModelGraph(3, 4), seed=0)
    circuit = before.records[TASK].circuit
    assert circuit is not None
    own = circuit.scores.estimate
    louder = Estimate(65 * own.value, 65 * own.std_error, 65 * own.folds, own.n_prompts)
    scaled = Circuit(EdgeScores(circuit.graph, louder, "eap", TASK), circuit.kept)
    assert circuit_likeness(circuit, scaled).weighted_jaccard == pytest.approx(1)


def test_signatures_do_not_depend_on_names() -> None:
    before = random_snapshot(ModelGraph(2, 4), seed=0)
    after, truth = shuffled(before, seed=1)
    one, other = signatures_of(before), signatures_of(after)
    order = [other.nodes.index(truth[node]) for node in one.nodes]
    np.testing.assert_allclose(one.value, other.value[order])
