"""Statements about what moves formation, on sweeps whose truth is known: level, coverage, power, confounders, rises.

    pytest -s tests/benchmarks/test_many_runs.py

Every row is 200 sweeps (`FORMATION_SWEEPS` changes that).  The rows of `ASIDE` are of generators that nothing was tuned
on; look at them last.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests.sweeps import one_a_run
from tracking.comparison.comparison import compare_formation
from tracking.comparison.run_set import RunSet

N = int(os.environ.get("FORMATION_SWEEPS", "200"))
Noise = Callable[[np.random.Generator, int], np.ndarray]


def normal(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.normal(size=n)


def skewed(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.exponential(size=n) - 1


def heavy(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.standard_t(3, size=n) / np.sqrt(3)


def lumpy(rng: np.random.Generator, n: int) -> np.ndarray:
    """Two kinds of runs: most early, a quarter much later."""
    return 0.4 * rng.normal(size=n) + 2.0 * (rng.random(n) < 0.25) - 0.5


@dataclass(frozen=True)
class Plan:
    """Two arms of `n` runs; ln T = 5 + effect · arm + spread of the arm · noise + that of the seed, on a log grid."""

    n: tuple[int, int]
    spread: tuple[float, float] = (0.5, 0.5)
    effect: float = 0.0
    noise: Noise = normal
    spacing: float = 0.1
    horizon: float = np.inf
    seeds: float = 0.0

    def draw(self, seed: int) -> RunSet:
        rng = np.random.default_rng([seed, *self.n])
        arm = np.repeat([0, 1], self.n)
        own = np.concatenate([self.noise(rng, n) for n in self.n]) * np.repeat(self.spread, self.n)
        of_seed = np.concatenate([np.arange(n) for n in self.n]) if self.seeds else np.arange(len(arm))
        shared = self.seeds * rng.normal(size=len(arm))[of_seed]
        settings = [{"rate": 0.001 * (1 + a), "seed": int(s)} for a, s in zip(arm, of_seed, strict=True)]
        return table(5 + self.effect * arm + own + shared, settings, self.spacing, self.horizon)


def table(ln_times: np.ndarray, settings: Sequence[dict], spacing: float, horizon: float) -> RunSet:
    """The runs seen through checkpoints evenly spaced in ln step, up to the horizon."""
    last = min(horizon, float(ln_times.max()) + spacing)
    grid = np.exp(np.append(np.arange(1.0, last, spacing), last))
    place = np.searchsorted(grid, np.exp(ln_times))
    low = np.where(place > 0, grid[np.maximum(place - 1, 0)], 0.0)
    high = np.where(place < len(grid), grid[np.minimum(place, len(grid) - 1)], np.inf)
    names = [f"run{run:02d}" for run in range(len(ln_times))]
    ends = dict.fromkeys(names, float(grid[-1]))
    return RunSet(one_a_run(names, low, high), dict(zip(names, settings, strict=True)), ends)


PLANS = {
    "equal, 6 v 6": Plan((6, 6)),
    "spread 1.0 v .2, 3 v 12": Plan((3, 12), (1.0, 0.2)),
    "spread 1.0 v .2, 12 v 3": Plan((12, 3), (1.0, 0.2)),
    "skewed, 8 v 8": Plan((8, 8), noise=skewed),
    "skewed, 3 v 12": Plan((3, 12), noise=skewed),
    "60 % censored, 6 v 6": Plan((6, 6), horizon=5 - 0.127),
    "60 % censored, effect .5": Plan((6, 6), effect=0.5, horizon=5 + 0.123),
    "sparse grid, 8 v 8": Plan((8, 8), (0.3, 0.3), spacing=0.7),
    "pairs, no effect": Plan((8, 8), (0.15, 0.15), seeds=0.5),
}
ASIDE = {
    "heavy tails, 5 v 9": Plan((5, 9), (0.6, 0.3), noise=heavy, spacing=0.25),
    "two kinds of runs, 7 v 7": Plan((7, 7), noise=lumpy, spacing=0.15),
    "two kinds of runs, a third censored": Plan((9, 6), noise=lumpy, horizon=5.4, spacing=0.2),
    "pairs, heavy tails": Plan((7, 7), (0.3, 0.3), noise=heavy, seeds=0.4, spacing=0.3),
    "effect .7, skewed, few": Plan((5, 6), effect=0.7, noise=skewed),
}


def judged(plan: Plan) -> dict[str, float]:
    """The share of sweeps that reject no effect at 5 %, and of 90 % intervals that hold the effect."""
    rows = []
    for seed in range(N):
        row = effect_of(plan.draw(seed))
        rows.append((row["p_value"] <= 0.05, row["low"] <= plan.effect <= row["high"], row["n_blocks"] > 0))
    rejected, held, paired = np.array(rows, dtype=float).mean(axis=0)
    return {"p <= .05": rejected, "coverage": held, "paired": paired}


def effect_of(runs: RunSet, **options: Any) -> dict[str, Any]:
    """The effect of `rate`; its p-value is never below what is possible."""
    row = compare_formation(runs, by="rate", n_permutations=399, **options).effects.to_dict("records")[0]
    assert row["p_value"] >= row["smallest_p"]
    return row


@pytest.mark.parametrize("name", [*PLANS, *ASIDE])
def test_level_and_coverage(name: str) -> None:
    plan = (PLANS | ASIDE)[name]
    found = judged(plan)
    print(f"\n{name:36s} " + "  ".join(f"{key} {value:.3f}" for key, value in found.items()))
    slack = 2 * np.sqrt(0.05 * 0.95 / N)
    assert found["coverage"] >= 0.85 - slack
    if not plan.effect:
        assert 0.03 - slack <= found["p <= .05"] <= 0.07 + slack
    assert found["paired"] == float(plan.seeds > 0)


def test_pairs_have_the_power_of_the_paired_t_test() -> None:
    plan, found = Plan((8, 8), (0.15, 0.15), effect=0.3, seeds=0.5), []
    for seed in range(N):
        runs = plan.draw(seed)
        rows = runs.formation.sort_values("run")
        middle = np.log((rows["interval_before"] + rows["interval_after"]).to_numpy(dtype=float) / 2)
        found.append((effect_of(runs)["p_value"], stats.ttest_1samp(middle[8:] - middle[:8], 0).pvalue))
    own, paired = (np.array(found) <= 0.05).mean(axis=0)
    print(f"\npairs, effect .3: power {own:.3f}, paired t-test {paired:.3f}")
    assert own >= 0.8 * paired


def test_four_hyperparameters_in_eight_runs_are_taken_out_or_named() -> None:
    """`rate` does nothing, but goes along with `decay`, which does."""
    rejected, held, sizes = [], [], []
    for seed in range(N):
        rng = np.random.default_rng([seed, 4])
        z = rng.normal(size=(8, 4))
        z[:, 0] = 0.7 * z[:, 1] + 0.7 * z[:, 0]
        names = ("rate", "decay", "width", "warmup")
        settings = [{**dict(zip(names, np.exp(row).tolist(), strict=True)), "seed": run} for run, row in enumerate(z)]
        runs = table(5 + 1.0 * z[:, 1] + 0.2 * rng.normal(size=8), settings, 0.1, np.inf)
        row = effect_of(runs)
        if not row["confounded"]:
            rejected.append(row["p_value"] <= 0.05)
            held.append(row["low"] <= 0 <= row["high"])
            sizes.append(row["estimate"] / np.log(2))
    print(
        f"\nconfounder: p <= .05 {np.mean(rejected):.3f}, coverage {np.mean(held):.3f}, median estimate "
        f"{np.median(sizes):+.2f}, named as not told apart in {1 - len(held) / N:.0%}"
    )
    assert np.mean(rejected) <= 0.09
    assert abs(np.median(sizes)) < 0.1


def test_effects_that_cannot_be_told_apart_are_named_and_not_ranked() -> None:
    """`decay` is a multiple of `rate` but for a few per cent, and either may be what moves the date."""
    named, ranked = [], []
    for seed in range(N):
        rng = np.random.default_rng([seed, 5])
        rate = np.repeat([0.0, 1.0, 2.0, 3.0], 3)
        decay = rate + 0.05 * rng.normal(size=12)
        settings = [
            {"rate": float(np.exp(a)), "decay": float(np.exp(b)), "seed": run}
            for run, (a, b) in enumerate(zip(rate, decay, strict=True))
        ]
        runs = table(5 - 0.5 * rate + 0.2 * rng.normal(size=12), settings, 0.1, np.inf)
        found = compare_formation(runs, by=["rate", "decay"], n_permutations=399)
        named.append(all(" together with " in line for line in found.answers))
        ranked.append(any("most." in sentence for sentence in found.sentences))
    print(f"\ncollinear: named {np.mean(named):.3f}, ranked {np.mean(ranked):.3f}")
    assert np.mean(named) >= 0.95
    assert not any(ranked)


def test_the_rise_that_lasts_is_compared_and_not_a_wiggle_before_it() -> None:
    """`rate` moves a first rise that is lost again, and not the second, which lasts."""
    found = []
    for seed in range(N):
        first, second = (Plan((8, 8), (0.2, 0.2), effect=e) for e in (0.7, 0.0))
        wiggle, lasting = first.draw(seed).formation, second.draw(10_000 + seed)
        later = lasting.formation.assign(rise=2, n_rises=2)
        for name in ("onset", "midpoint", "plateau", "low", "high", "interval_before", "interval_after"):
            later[name] *= 10
        both = pd.concat([wiggle.assign(rise=1, n_rises=2), later], ignore_index=True)
        runs = RunSet(both, lasting.settings, {run: 10 * end for run, end in lasting.last_step.items()})
        found.append((effect_of(runs)["p_value"], effect_of(runs, rises="first")["p_value"]))
    lasting, wiggle = (np.array(found) <= 0.05).mean(axis=0)
    print(f"\na wiggle that moves: p <= .05 {lasting:.3f} by the rise that lasts, {wiggle:.3f} by the first")
    assert lasting <= 0.07 + 2 * np.sqrt(0.05 * 0.95 / N)
    assert wiggle >= 0.9
