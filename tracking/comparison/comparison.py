"""Comparison: how hyperparameters move formation.

A **setting** is one value of a hyperparameter; runs with equal settings are replicates (seeds).  Formation times are
known to an interval, and a run that never forms a role is data too (`tracking.comparison.survival`).  The run is the
unit of every statement: the components of one run rise and fall together.  Runs that share a seed, a parent or a data
order are compared with each other (`tracking.comparison.adjustment`).

`compare` takes histories, `compare_formation` a formation table of many runs and what each run was trained with.  An
effect is the log ratio of formation times between two settings, or for each doubling of a hyperparameter with more
than two; the other hyperparameters that vary are taken out.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from circuits.display import table_html
from tracking.comparison.adjustment import adjustment
from tracking.comparison.answers import VERDICTS, answer, factor, ranking, sentence, verdict, what, where
from tracking.comparison.run_set import (
    QUESTION,
    Rises,
    RunSet,
    Unit,
    by_size,
    check_names,
    formation_times,
    is_number,
    plain,
    questions,
    run_set,
    settings_of,
    unit_of,
)
from tracking.comparison.survival import log_rank, turnbull
from tracking.comparison.time_ratio import TimeRatio, estimate_effect
from tracking.history.forks import parted_at
from tracking.history.history import History
from tracking.history.latex import tabular

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Comparison", "compare", "compare_formation", "curves"]


@dataclass(frozen=True)
class Comparison:
    """What hyperparameters do; `effects` and `formed` are tables.

    `effects`: hyperparameter, role, clock, definition, contrast, unit, estimate (log ratio of formation times), low,
    high, p_value, verdict (one of `tracking.comparison.answers.VERDICTS`), q_value (Benjamini and Hochberg over the
    table), log_rank_p, n_runs, n_formed, n_several (runs that rise more than once), n_blocks, blocked_by, confounded
    (hyperparameters whose effects are not told from this one's), shrunk, method, smallest_p, detectable (the log ratio
    that would have been seen with probability .8), span (of the hyperparameter, in units of the contrast).
    `formed`: the share of runs that form a role in each setting, with its Wilson interval, and the median time.
    `answers`: one line for each effect.  `sentences`: the same in full.
    """

    effects: "pd.DataFrame"
    formed: "pd.DataFrame"
    answers: tuple[str, ...]
    sentences: tuple[str, ...]
    unit: str
    confidence: float

    _repr_html_ = table_html

    def to_frame(self) -> "pd.DataFrame":
        return self.effects

    def to_latex(self) -> str:
        """One row for each hyperparameter, role and clock, with its factor and interval; needs the package booktabs."""
        titles = ("Hyperparameter", "Role", "Clock", f"Factor ({self.confidence:.0%} interval)", "p", "Runs")
        rows = (
            (where(row), row["role"], row["clock"], factor(row["estimate"], row["low"], row["high"]).replace("x", "×"),
             f"{row['p_value']:.2g}", str(row["n_runs"]))
            for row in self.effects.to_dict("records")
        )  # fmt: skip
        return tabular("lllllr", titles, rows)

    def to_dict(self) -> dict[str, Any]:
        import json

        tables = {"effects": self.effects, "formed": self.formed}
        found = {name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}
        said = {"answers": list(self.answers), "sentences": list(self.sentences)}
        return {**found, **said, "unit": self.unit, "confidence": self.confidence}


def compare(
    histories: Sequence[History],
    *,
    by: "str | Sequence[str]",
    definitions: Sequence[str] = ("threshold",),
    **options: Any,
) -> Comparison:
    """Compare the formation of every role between the settings of one or several hyperparameters.

    Args:
        histories: one a run.
        by: a hyperparameter, or several.
        definitions: of a formation time (see `tracking.formation.formation`); each further one is a further set of
            comparisons.
        options: as in `compare_formation`.

    Raises:
        ValueError: fewer than two runs, two histories of one run, or a hyperparameter that none has or that does not
            vary.
    """
    names = (by,) if isinstance(by, str) else tuple(by)
    check_names(settings_of(histories), names)
    found = compare_formation(run_set(histories, definitions=definitions), by=names, **options)
    return replace(found, sentences=(*found.sentences, *_common_history(histories)))


def _common_history(histories: Sequence[History]) -> list[str]:
    """Which runs are one up to a step, so that what formed by then is one observation of them and not two."""
    found = []
    for first, second in combinations(histories, 2):
        if (step := parted_at(first, second)) is not None:
            found.append(f"{first.name!r} and {second.name!r} are one run up to step {step:,}")
    if not found:
        return []
    more = f", and {len(found) - 1} more pairs are" if len(found) > 1 else ""
    return [f"{found[0]}{more}: what formed by then is one observation, and no replication."]


def compare_formation(
    runs: RunSet,
    *,
    by: "str | Sequence[str]",
    unit: Unit = "auto",
    rises: Rises = "lasting",
    confidence: float = 0.9,
    n_permutations: int = 1999,
    seed: int = 0,
) -> Comparison:
    """Compare formation times between the settings of one or several hyperparameters.

    Args:
        runs: formation times and settings.
        by: a hyperparameter, or several; each is judged with the others that vary taken out.
        unit: in which times are compared; `auto` is tokens where runs see different numbers of them in a step.
        rises: which rise of a curve with several is compared: the one that lasts, the first, or that of a number.
        confidence: of the intervals.
        n_permutations, seed: of runs between settings.

    Raises:
        ValueError: as `compare`.
    """
    import pandas as pd

    names = (by,) if isinstance(by, str) else tuple(by)
    check_names(runs.settings, names)
    measured = unit_of(runs, unit)
    rows, formed = [], []
    if not (asked := questions(runs, rises=rises)):
        raise ValueError(f"no role is dated in any of {len(runs.runs)} runs; see `formation track` for one of them")
    several = _several(runs.formation)
    for key, part in asked:
        times = formation_times(runs, part, unit=measured)
        question: dict[str, Any] = {**dict(zip(QUESTION, key, strict=True)), "n_several": several.get(key, 0)}
        for name in names:
            options = {"confidence": confidence, "n_permutations": n_permutations, "seed": seed}
            rows += [question | row for row in _effects(runs, times, name, options)]
            formed += [question | row for row in _formed(runs, times, name, confidence)]
    effects = pd.DataFrame(rows)
    effects["q_value"] = stats.false_discovery_control(effects["p_value"])
    effects["unit"] = measured
    effects["verdict"] = [verdict(row) for row in effects.to_dict("records")]
    first = ["hyperparameter", "role", "clock", "definition", "contrast", "unit", "estimate", "low", "high", "p_value"]
    first += ["verdict", "q_value"]
    effects = effects[first + [column for column in effects if column not in first]]
    shares = pd.DataFrame(formed).drop(columns="n_several")
    order = sorted(effects.to_dict("records"), key=lambda row: (VERDICTS.index(row["verdict"]) > 3,))
    lines = tuple(dict.fromkeys(answer(row) for row in order))
    sentences = tuple(dict.fromkeys(sentence(row, confidence) for row in effects.to_dict("records")))
    sentences += (*ranking(effects), *_notes(effects, shares, rises))
    return Comparison(effects, shares, lines, sentences, measured, confidence)


def _several(table: "pd.DataFrame") -> dict[tuple[str, str, str], int]:
    """In how many runs each role rises more than once."""
    if "n_rises" not in table:
        return {}
    found = table[table["n_rises"].fillna(0) > 1].groupby(list(QUESTION))["run"].nunique()
    return {(str(a), str(b), str(c)): int(count) for (a, b, c), count in found.items()}


def curves(runs: RunSet, *, by: str, unit: Unit = "auto", n_resamples: int = 200, seed: int = 0) -> "pd.DataFrame":
    """The share of runs that have formed each role by each time (Turnbull), a curve a setting, to the end of the runs.

    Columns: hyperparameter, value, role, clock, definition, time, formed, low, high.  The band is, time by time, the
    wider of two 90 % intervals: over resampled runs, and Wilson's for a share of so many runs (where all or none have
    formed it, resampling gives no width at all).
    """
    import pandas as pd

    check_names(runs.settings, (by,))
    measured = unit_of(runs, unit)
    rng = np.random.default_rng(seed)
    found = []
    for key, part in questions(runs):
        times = formation_times(runs, part, unit=measured)
        value = times["run"].map(lambda run: runs.settings[run].get(by))
        for setting in sorted(value.dropna().unique(), key=by_size):
            some = times[value == setting]
            places = np.unique([*some["high"][np.isfinite(some["high"])], some["low"].max()])
            curve = _formed_by(some, places)
            names = some["run"].unique()
            drawn = [_formed_by(_redrawn(some, rng.choice(names, len(names))), places) for _ in range(n_resamples)]
            low, high = np.quantile([curve, *drawn], (0.05, 0.95), axis=0)
            wilson = _wilson(curve, len(names))
            band = {"low": np.minimum(low, wilson[0]), "high": np.maximum(high, wilson[1])}
            labels = {"hyperparameter": by, "value": setting, **dict(zip(QUESTION, key, strict=True))}
            found.append(pd.DataFrame({**labels, "time": places, "formed": curve, **band}))
    columns = ["hyperparameter", "value", *QUESTION, "time", "formed", "low", "high"]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=columns)


def _wilson(share: np.ndarray, n_runs: int) -> np.ndarray:
    """Both ends of the 90 % interval of a share of runs."""
    z = float(stats.norm.ppf(0.95))
    middle = (share + z**2 / (2 * n_runs)) / (1 + z**2 / n_runs)
    away = z / (1 + z**2 / n_runs) * np.sqrt(share * (1 - share) / n_runs + z**2 / (4 * n_runs**2))
    return np.stack([np.maximum(middle - away, 0.0), np.minimum(middle + away, 1.0)])


def _formed_by(times: "pd.DataFrame", places: np.ndarray) -> np.ndarray:
    return turnbull(times["low"].to_numpy(), times["high"].to_numpy(), tolerance=1e-5).formed(places)


def _redrawn(times: "pd.DataFrame", names: np.ndarray) -> "pd.DataFrame":
    by_run = {name: part for name, part in times.groupby("run")}
    import pandas as pd

    return pd.concat([by_run[name] for name in names], ignore_index=True)


# One question -----------------------------------------------------------------------------------------------------


def _contrasts(values: Mapping[str, Any]) -> list[tuple[str, dict[str, float]]]:
    """(what is compared, number by run): one for numbers, one a further setting for names."""
    settings = sorted(set(values.values()), key=by_size)
    if len(settings) == 1:
        return [(f"{settings[0]} alone", dict.fromkeys(values, 0.0))]
    if len(settings) == 2:
        return [(f"{settings[1]} : {settings[0]}", {run: float(v == settings[1]) for run, v in values.items()})]
    if all(map(is_number, settings)) and min(settings) > 0:
        return [("per doubling", {run: math.log2(value) for run, value in values.items()})]
    if all(map(is_number, settings)):
        low, high = float(settings[0]), float(settings[-1])
        scaled = {run: (float(value) - low) / (high - low) for run, value in values.items()}
        return [(f"{high:g} : {low:g}", scaled)]
    return [
        (f"{other} : {settings[0]}", {run: float(v == other) for run, v in values.items() if v in (settings[0], other)})
        for other in settings[1:]
    ]


def _effects(runs: RunSet, times: "pd.DataFrame", name: str, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    present = {run: plain(runs.settings[run].get(name)) for run in times["run"].unique()}
    for label, by_run in _contrasts({run: value for run, value in present.items() if value is not None}):
        part = times[times["run"].isin(by_run)]
        names = list(dict.fromkeys(part["run"]))
        codes = part["run"].map({run: place for place, run in enumerate(names)}).to_numpy(dtype=np.int64)
        x = np.array([by_run[run] for run in names])
        low, high = part["low"].to_numpy(dtype=float), part["high"].to_numpy(dtype=float)
        formed = {run for run, end in zip(part["run"], high, strict=True) if np.isfinite(end)}
        row = {"hyperparameter": name, "contrast": label, "n_runs": len(names), "n_formed": len(formed)}
        row["span"] = float(np.ptp(x))
        if len(names) < 2 or np.ptp(x) == 0 or not formed:
            found.append(row | _nothing_formed())
            continue
        rest = adjustment(runs.settings, names, x, about=(name,))
        adjusted = {"others": rest.columns[codes], "block": rest.block[codes], "shrunk": rest.shrunk}
        effect = estimate_effect(low, high, x[codes], runs=codes, **adjusted, **options)
        groups = np.unique(x, return_inverse=True)[1].ravel()[codes].astype(np.int64)
        draws = {key: options[key] for key in ("n_permutations", "seed")}
        block = rest.block[codes] if rest.blocked_by else None
        row |= {"blocked_by": rest.blocked_by, "confounded": ", ".join(rest.confounded), "shrunk": rest.shrunk}
        row["log_rank_p"] = log_rank(low, high, groups=groups, runs=codes, block=block, **draws)
        found.append(row | _as_row(effect))
    return found


def _as_row(effect: TimeRatio) -> dict[str, Any]:
    needed = float(stats.t.ppf(0.975, effect.freedom) + stats.t.ppf(0.8, effect.freedom))
    return {
        "estimate": effect.estimate,
        "low": effect.low,
        "high": effect.high,
        "p_value": effect.p_value,
        "smallest_p": effect.smallest_p,
        "detectable": needed * effect.std_error if math.isfinite(effect.std_error) else math.inf,
        "n_blocks": effect.n_blocks,
        "method": effect.method,
    }


def _nothing_formed() -> dict[str, Any]:
    unknown = {"estimate": math.nan, "low": -math.inf, "high": math.inf, "n_blocks": 0, "method": ""}
    unknown |= {"blocked_by": "", "confounded": "", "shrunk": False}
    return unknown | {"p_value": 1.0, "smallest_p": 1.0, "detectable": math.inf, "log_rank_p": 1.0}


def _formed(runs: RunSet, times: "pd.DataFrame", name: str, confidence: float) -> list[dict[str, Any]]:
    value = times["run"].map(lambda run: plain(runs.settings[run].get(name)))
    rows = []
    for setting in sorted(value.dropna().unique(), key=by_size):
        part = times[value == setting]
        by_run = part.groupby("run")["high"].min()
        count, total = int(np.isfinite(by_run).sum()), len(by_run)
        ends = stats.binomtest(count, total).proportion_ci(confidence, method="wilson")
        median = turnbull(part["low"].to_numpy(), part["high"].to_numpy()).quantile(0.5)
        row = {"hyperparameter": name, "value": setting, "n_runs": total, "n_formed": count, "share": count / total}
        rows.append(row | {"low": ends.low, "high": ends.high, "median_time": median})
    return rows


def _notes(effects: "pd.DataFrame", formed: "pd.DataFrame", rises: Rises) -> list[str]:
    somewhere = {key for key, part in formed.groupby(list(QUESTION)) if part["n_formed"].any()}
    found = [
        f"{what(row)} forms in none of the {row['n_runs']} runs with {row['hyperparameter']} {row['value']}."
        for row in formed.to_dict("records")
        if row["n_formed"] == 0 and (row["role"], row["clock"], row["definition"]) in somewhere
    ]
    if effects["n_several"].any():
        kind = {"lasting": "the rise that lasts", "first": "the first rise"}.get(str(rises), f"rise {rises}")
        found.append(f"Some curves rise more than once; {kind} is compared.")
    unit = "p-values and intervals come from exchanging whole runs between settings."
    if shared := next(filter(None, effects["blocked_by"]), ""):
        unit = f"whole runs are exchanged between settings, those that share their {shared} with each other."
    corrected = "corrected after Benjamini and Hochberg over all of them. Runs are the unit:"
    return [*found, f"{len(effects)} comparisons; {corrected} {unit}"]
