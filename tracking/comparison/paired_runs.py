"""Paired runs: whether a recorded number differs between two groups (another batch size, an intervention, a branch).

A **pair** is two runs that are alike but for the arm (the same model size, or the branch and what it left).  Each pair
gives one number a metric: the mean difference between its arms over the stretch that both cover, at equal tokens (or
steps).  The pair is the unit: checkpoints of one run are no replicates, and one run in each arm leaves the spread
between seeds unknown, however many checkpoints it has.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float
from scipy import stats

from tracking.comparison.run_set import Hyperparameters, by_size, plain
from tracking.formation.sentences import p_text, p_words

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["compare_arms", "compare_pairs", "describe_arms", "describe_pairs", "paired_settings", "sign_flip_p"]

ENOUGH = 0.05
MAY_DIFFER = frozenset({"name", "steps", "checkpoints"})
"""What may differ within a pair beside the arm: how long a run is, and where it was looked at."""


def paired_settings(settings: Hyperparameters, *, by: str) -> list[tuple[str, str, dict[str, str], dict[str, str]]]:
    """(baseline, other arm, arm of each run, pair of each run) for each setting of a hyperparameter beside its first.

    Runs pair up where they are alike in everything else, their seed included; settings without a pair are left out.
    """
    places: dict[str, dict[str, list[str]]] = {}
    values = {run: plain(one[by]) for run, one in settings.items() if one.get(by) is not None}
    for run in values:
        alike = {key: plain(value) for key, value in settings[run].items() if key not in MAY_DIFFER | {by}}
        pair = ", ".join(f"{key} {value}" for key, value in sorted(alike.items()))
        places.setdefault(pair, {}).setdefault(str(values[run]), []).append(run)
    levels = [str(value) for value in sorted(set(values.values()), key=by_size)]
    found = []
    for other in levels[1:]:
        arms, pairs = {}, {}
        for pair, runs in places.items():
            both = [runs.get(level, []) for level in (levels[0], other)]
            if all(len(some) == 1 for some in both):
                for level, (run,) in zip((levels[0], other), both, strict=True):
                    arms[run], pairs[run] = level, pair
        if arms:
            found.append((levels[0], other, arms, pairs))
    return found


def compare_arms(
    metrics: "pd.DataFrame",
    *,
    arms: Mapping[str, str],
    pairs: Mapping[str, str],
    baseline: str,
    clock: Literal["tokens", "step"] = "tokens",
    span: tuple[float, float] | None = None,
    confidence: float = 0.9,
) -> "pd.DataFrame":
    """The difference that an arm makes to every metric, pair by pair and together.

    Args:
        metrics: a table of metrics (run, step, tokens, name, value) of all runs.
        arms: the arm of each run; exactly two arms.
        pairs: the pair of each run.
        baseline: the arm that is subtracted.
        clock: at equal what the arms are compared.
        span: only this stretch of the clock.
        confidence: of the interval (Student's t over pairs; NaN for a single pair).

    Returns:
        One row a metric, with name, n_pairs, n_higher (pairs in which the arm is above the baseline), difference, low,
        high, p_value (signs of the pairs flipped, exact), q_value (Benjamini and Hochberg over metrics), smallest_p,
        detectable (the difference that would have been seen with probability .8).

    Raises:
        ValueError: there are not two arms, or no metric is known in both arms of any pair.
    """
    import pandas as pd

    names = sorted(set(arms.values()))
    if len(names) != 2 or baseline not in names:
        raise ValueError(f"expected two arms, {baseline!r} and another, got {', '.join(map(repr, names)) or 'none'}")
    other = names[1 - names.index(baseline)]
    rows = []
    for metric, part in metrics.groupby("name", sort=True):
        by_pair = _differences(part, arms, pairs, (baseline, other), clock, span)
        if by_pair:
            rows.append({"name": metric, **_summary(np.array(list(by_pair.values())), confidence)})
    if not rows:
        raise ValueError(f"no metric is known in both arms of a pair over the same {clock}; check arms and pairs")
    table = pd.DataFrame(rows)
    table.insert(7, "q_value", stats.false_discovery_control(table["p_value"]))
    return table


def describe_arms(table: "pd.DataFrame", *, arm: str, baseline: str) -> list[str]:
    """The table in whole sentences, each with how little or how much it proves."""
    return [_sentence(row, arm, baseline) for row in table.to_dict("records")]


def compare_pairs(
    metrics: "pd.DataFrame",
    settings: Hyperparameters,
    *,
    by: "str | Sequence[str]",
    clock: Literal["tokens", "step"] = "tokens",
) -> "pd.DataFrame":
    """`compare_arms` for every setting of some hyperparameters beside its first, over `paired_settings`.

    Columns hyperparameter, contrast, baseline, arm, and those of `compare_arms`, q_value over all rows; no rows where
    no runs pair up.  Metrics named as a hyperparameter, such as the learning rate that was logged, are left out.
    """
    import pandas as pd

    chosen = {key for values in settings.values() for key in values}
    metrics = metrics[~metrics["name"].map(lambda name: str(name).rpartition("/")[2] in chosen).astype(bool)]
    tables = []
    for name in (by,) if isinstance(by, str) else tuple(by):
        for baseline, other, arms, pairs in paired_settings(settings, by=name):
            about = {"hyperparameter": name, "contrast": f"{other} : {baseline}", "baseline": baseline, "arm": other}
            try:
                table = compare_arms(metrics, arms=arms, pairs=pairs, baseline=baseline, clock=clock)
            except ValueError:
                continue  # nothing was recorded in both arms at the same tokens
            tables.append(table.assign(**about)[[*about, *table.columns]])
    if not tables:
        return pd.DataFrame(columns=["hyperparameter", "contrast", "baseline", "arm", "name", "n_pairs", "difference"])
    found = pd.concat(tables, ignore_index=True)
    return found.assign(q_value=stats.false_discovery_control(found["p_value"]))


def describe_pairs(table: "pd.DataFrame") -> list[str]:
    """The table of `compare_pairs` in whole sentences."""
    return [
        _sentence(row, f"{row['hyperparameter']} {row['arm']}", f"{row['hyperparameter']} {row['baseline']}")
        for row in table.to_dict("records")
    ]


def _differences(
    part: "pd.DataFrame",
    arms: Mapping[str, str],
    pairs: Mapping[str, str],
    names: tuple[str, str],
    clock: str,
    span: tuple[float, float] | None,
) -> dict[str, float]:
    """Mean over the common stretch of (arm - baseline), by pair; repeated measurements of one place are averaged."""
    found: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}
    for run, rows in part.dropna(subset=[clock, "value"]).groupby("run"):
        if run in arms and run in pairs:
            series = rows.groupby(clock)["value"].mean()
            found[pairs[run], arms[run]] = (series.index.to_numpy(dtype=float), series.to_numpy(dtype=float))
    differences = {}
    for pair in dict.fromkeys(pair for pair, _ in found):
        if all((pair, name) in found for name in names):
            (x0, y0), (x1, y1) = (found[pair, name] for name in names)
            low, high = max(x0[0], x1[0]), min(x0[-1], x1[-1])
            low, high = (low, high) if span is None else (max(low, span[0]), min(high, span[1]))
            places = x1 if len(x1) <= len(x0) else x0
            places = places[(places >= low) & (places <= high)]
            if len(places):
                differences[pair] = float((np.interp(places, x1, y1) - np.interp(places, x0, y0)).mean())
    return differences


def _summary(values: Float[np.ndarray, "pair"], confidence: float) -> dict[str, Any]:
    count, mean = len(values), float(values.mean())
    low = high = detectable = math.nan
    if count > 1:
        error = float(values.std(ddof=1)) / math.sqrt(count)
        low, high = (mean + error * float(stats.t.ppf(side, count - 1)) for side in _sides(confidence))
        detectable = error * float(stats.t.ppf(0.975, count - 1) + stats.t.ppf(0.8, count - 1))
    return {
        "n_pairs": count,
        "n_higher": int((values > 0).sum()),
        "difference": mean,
        "low": low,
        "high": high,
        "p_value": sign_flip_p(values),
        "smallest_p": 2.0 ** (1 - count),
        "detectable": detectable,
    }


def _sides(confidence: float) -> tuple[float, float]:
    return (1 - confidence) / 2, (1 + confidence) / 2


def sign_flip_p(values: Float[np.ndarray, "pair"]) -> float:
    """The share of all choices of signs whose mean is at least as far from 0 (Fisher's sign-flipping test)."""
    if len(values) <= 14:
        signs = np.array(list(product((1.0, -1.0), repeat=len(values))))
    else:
        signs = np.random.default_rng(0).choice((1.0, -1.0), (9999, len(values)))
        signs[0] = 1.0
    means = np.abs(signs @ values)
    return float((means >= means[0] * (1 - 1e-9)).mean())


def _sentence(row: Mapping, arm: str, baseline: str) -> str:
    count, higher, difference = row["n_pairs"], row["n_higher"], row["difference"]
    way = f"{row['name']} is {'higher' if difference > 0 else 'lower'} with {arm} than with {baseline}"
    share = f"in {max(higher, count - higher)} of {count} pairs (mean difference {difference:+.3g})"
    if count == 1:
        return f"{way} by {abs(difference):.3g} in the one pair there is: one run in each arm says nothing of chance."
    if row["smallest_p"] > ENOUGH and higher in (0, count):
        return (
            f"{way} {share}; with one run in each arm of {count} pairs that has {p_words(row['p_value'])}, the least "
            f"possible, and the spread between seeds is not known: a hint, no proof."
        )
    if row["q_value"] <= ENOUGH:
        return f"{way} {share}; {p_words(row['p_value'])}, {p_text(row['q_value'])} after correction."
    return (
        f"No effect of {arm} on {row['name']} seen (mean difference {difference:+.3g}, interval {row['low']:+.3g} to "
        f"{row['high']:+.3g}, {p_words(row['p_value'])}, {count} pairs); a difference of more than "
        f"{row['detectable']:.3g} would have been seen with probability .8."
    )
