"""Circuit tests: whether a circuit is equivalent, sufficient, minimal, and alone in what it does.

Is this circuit the model's mechanism, or one of many subgraphs?  Four claims, each with one null hypothesis and one
test, made on prompts that should not be those that chose the circuit:

- **equivalence**: circuit and model are as likely to do better than each other on a prompt, H0: P(m(circuit) >
  m(model)) lies within ε of ½.  Rejected, the circuit is not equivalent.  Exact binomial test at the end of the null;
  ties count half.
- **independence**: what the complement of the circuit (every other edge) does is independent of what the model does.
  Rejected, part of the mechanism lies outside.  Permutation test of the Hilbert-Schmidt criterion with Gaussian
  kernels at the median distance.
- **minimality**, of every edge: taking it away changes more than taking away a random edge that was added to the
  circuit, at least a share `quantile` of the time.  Rejected, the edge is not needed.  Binomial test.
- **sufficiency**: a random circuit of as many edges is at least as faithful.  Rejected, the circuit is better than
  chance.

p-values of the edges are corrected among themselves, and the four claims' among each other, by Holm's method.  A claim
whose smallest possible p-value, times four, is above the level cannot be rejected by itself: it is *not testable* with
so few prompts or random circuits.

References:
    Hypothesis Testing the Circuit Hypothesis in LLMs (Shi et al., 2024), https://arxiv.org/abs/2410.13032
    A Kernel Statistical Test of Independence (Gretton et al., 2007)
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from circuits.circuit import Circuit, prune
from circuits.display import table_html
from circuits.evaluation import Judge
from circuits.graph import Edge, ModelGraph, p_value
from circuits.model import Model
from circuits.tasks.task import Task

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CircuitTests", "Claim", "circuit_tests", "holm", "independence_test", "outperformance_test"]


@dataclass(frozen=True)
class Claim:
    """One claim: its statistic, its p-value, and the smallest one that could have come out."""

    name: str
    statistic: float
    p_value: float
    smallest_p: float


@dataclass(frozen=True)
class CircuitTests:
    """The claims, and (edge, share, p-value) of the edges; `alpha` is the level of each family of tests."""

    claims: tuple[Claim, ...]
    edges: tuple[tuple[Edge, float, float], ...]
    n_prompts: int
    alpha: float

    _repr_html_ = table_html

    def to_frame(self) -> "pd.DataFrame":
        """Columns: claim, statistic, p_value, smallest_p, p_corrected, rejected, reads."""
        import pandas as pd

        corrected = holm([claim.p_value for claim in self.claims])
        rows = []
        for claim, one in zip(self.claims, corrected, strict=True):
            rejected = bool(one <= self.alpha)
            reads = READS[claim.name][rejected]
            if not rejected and len(self.claims) * claim.smallest_p > self.alpha:
                reads = f"not testable with so few {MADE_OF[claim.name]}"
            rows.append((claim.name, claim.statistic, claim.p_value, claim.smallest_p, one, rejected, reads))
        columns = ["claim", "statistic", "p_value", "smallest_p", "p_corrected", "rejected", "reads"]
        return pd.DataFrame(rows, columns=columns)

    def edges_frame(self) -> "pd.DataFrame":
        """Minimality edge by edge. Columns: edge, share (of random edges that it outweighs), p_value, p_corrected,
        needed."""
        import pandas as pd

        corrected = holm([p for _, _, p in self.edges])
        rows = [
            (edge.name, share, p, one, bool(one > self.alpha))
            for (edge, share, p), one in zip(self.edges, corrected, strict=True)
        ]
        return pd.DataFrame(rows, columns=["edge", "share", "p_value", "p_corrected", "needed"])


N_PERMUTATIONS = 999
READS = {
    "equivalence": ("not told from the model", "not equivalent to the model"),
    "independence": ("no mechanism seen outside", "part of the mechanism lies outside"),
    "minimality": ("every edge is needed", "some edge is not needed"),
    "sufficiency": ("not told from random circuits", "better than random circuits"),
}
"""What it means that a claim's null hypothesis stands, and that it falls."""
MADE_OF = {name: "prompts" for name in READS} | {"minimality": "random edges", "sufficiency": "random circuits"}
"""What it takes more of for a smaller p-value."""


def circuit_tests(
    model: Model,
    task: Task,
    circuit: Circuit,
    *,
    epsilon: float = 0.1,
    quantile: float = 0.9,
    n_random: int = 99,
    alpha: float = 0.05,
    seed: int = 0,
) -> CircuitTests:
    """The four tests of a circuit on these prompts, which should be others than those that chose it.

    About 3 · `n_random` + edges patched forward passes.

    Args:
        epsilon: how far from one half the chance of doing better may be in a circuit that counts as equivalent.
        quantile: the share of random edges that an edge of a minimal circuit outweighs.

    Raises:
        ValueError: a circuit of another graph, or one without edges or with all of them.
    """
    if circuit.graph != model.graph:
        raise ValueError(f"expected a circuit of the model's graph, {model.graph}, got one of {circuit.graph}")
    if not 0 < circuit.n_edges < model.graph.n_edges:
        raise ValueError(f"expected a circuit of some edges but not all, got {circuit.n_edges}")
    judge, generator = Judge(model, task), np.random.default_rng(seed)
    own = judge.values(circuit.kept)
    better, p_better = outperformance_test(own - judge.clean, epsilon)
    outside = judge.values(model.graph.edge_mask & ~circuit.kept)
    dependence, p_dependence = independence_test(judge.clean, outside, n_permutations=N_PERMUTATIONS, seed=seed)
    random = [float(judge.values(_random_circuit(circuit, generator)).mean()) for _ in range(n_random)]
    p_random = p_value(float(own.mean()), np.array(random))
    edges = _minimality(judge, circuit, own, quantile, n_random, generator)
    least = min(holm([p for _, _, p in edges]))
    always = outperformance_test(np.ones(len(task)), epsilon)[1]
    claims = (
        Claim("equivalence", better, p_better, always),
        Claim("independence", dependence, p_dependence, 1 / (1 + N_PERMUTATIONS)),
        Claim(
            "minimality", min(share for _, share, _ in edges), least, min(1.0, len(edges) * (1 - quantile) ** n_random)
        ),
        Claim("sufficiency", float(np.mean(np.array(random) < own.mean())), p_random, 1 / (1 + n_random)),
    )
    return CircuitTests(claims, edges, len(task), alpha)


def outperformance_test(above: Float[np.ndarray, "prompt"], epsilon: float) -> tuple[float, float]:
    """(share of prompts above zero, p-value of P(above > 0) within epsilon of ½); ties count half.

    The p-value is the chance of a count at least as far from n / 2 under P = ½ + epsilon, the end of the null where
    that is likeliest.

    >>> outperformance_test(np.array([1.0, -1.0, 2.0, -2.0]), 0.1)
    (0.5, 1.0)
    """
    n = len(above)
    share = float((np.sum(above > 0) + 0.5 * np.sum(above == 0)) / n)
    far = abs(share - 0.5) * n
    counts = np.arange(n + 1)
    extreme = np.abs(counts - n / 2) >= far - 1e-9
    return share, float(min(1.0, stats.binom.pmf(counts, n, 0.5 + epsilon)[extreme].sum()))


def independence_test(
    first: Float[np.ndarray, "prompt"], second: Float[np.ndarray, "prompt"], *, n_permutations: int = 999, seed: int = 0
) -> tuple[float, float]:
    """(Hilbert-Schmidt criterion, permutation p-value) of two measurements of the same prompts."""
    n, generator = len(first), np.random.default_rng(seed)
    one, other = _centred_kernel(first), _centred_kernel(second)
    observed = float((one * other).sum()) / (n - 1) ** 2
    drawn = np.empty(n_permutations)
    for number in range(n_permutations):
        order = generator.permutation(n)
        drawn[number] = float((one * other[np.ix_(order, order)]).sum()) / (n - 1) ** 2
    return observed, p_value(observed, drawn)


def _centred_kernel(values: Float[np.ndarray, "prompt"]) -> Float[np.ndarray, "prompt prompt"]:
    apart = np.abs(values[:, None] - values[None, :])
    width = float(np.median(apart[np.triu_indices(len(values), 1)])) or 1.0
    kernel = np.exp(-(apart**2) / (2 * width**2))
    return kernel - kernel.mean(0) - kernel.mean(1)[:, None] + kernel.mean()


def _random_circuit(circuit: Circuit, generator: np.random.Generator) -> Bool[np.ndarray, "writer reader"]:
    """As many edges, drawn from all; dead ends are pruned, as they are in the circuit."""
    mask = circuit.graph.edge_mask
    chosen = np.zeros(int(mask.sum()), dtype=bool)
    chosen[generator.choice(len(chosen), circuit.n_edges, replace=False)] = True
    kept = np.zeros_like(mask)
    kept[mask] = chosen
    return prune(circuit.graph, kept)


def _minimality(
    judge: Judge,
    circuit: Circuit,
    own: Float[np.ndarray, "prompt"],
    quantile: float,
    n_random: int,
    generator: np.random.Generator,
) -> tuple[tuple[Edge, float, float], ...]:
    """Of every edge, the share of added random edges whose removal changes less, and its p-value."""
    changes = np.empty(n_random)
    for number in range(n_random):
        inflated, added = _inflated(circuit, generator)
        without = inflated.copy()
        without[added] = False
        changes[number] = abs(judge.values(inflated).mean() - judge.values(without).mean())
    found = []
    for writer, reader in np.argwhere(circuit.kept):
        kept = circuit.kept.copy()
        kept[writer, reader] = False
        change = abs(own.mean() - judge.values(kept).mean())
        more = int((change > changes).sum())
        p = stats.binomtest(more, n_random, quantile, alternative="less").pvalue
        found.append((circuit.graph.edge(int(writer), int(reader)), more / n_random, float(p)))
    return tuple(found)


def _inflated(circuit: Circuit, generator: np.random.Generator) -> tuple[np.ndarray, tuple[int, int]]:
    """The circuit with a random path from input to logits added to it, and one of the edges that are new."""
    while True:
        kept = circuit.kept | _random_path(circuit.graph, generator)
        new = np.argwhere(kept & ~circuit.kept)
        if len(new):
            writer, reader = new[generator.integers(len(new))]
            return kept, (int(writer), int(reader))


def _random_path(graph: ModelGraph, generator: np.random.Generator) -> Bool[np.ndarray, "writer reader"]:
    kept, node = np.zeros_like(graph.edge_mask), graph.nodes[-1]
    while node.kind != "input":
        readers = [place for place, reader in enumerate(graph.readers) if reader.node == node]
        reader = int(generator.choice(readers))
        writer = int(generator.choice(np.flatnonzero(graph.edge_mask[:, reader])))
        kept[writer, reader] = True
        node = graph.writers[writer]
    return kept


def holm(values: list[float]) -> list[float]:
    """p-values corrected for their number (Holm, 1979).

    >>> holm([0.01, 0.04])
    [0.02, 0.04]
    """
    order, corrected, most = np.argsort(values, kind="stable"), [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        most = max(most, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = most
    return corrected
