"""Forecast register: predictions written down before the outcome is known, and judged later.

The file holds every prediction with the step at which its run stood, a hash of what was known, the time and the tool's
version, and a hash of all of that.  Judging checks the hash first: a file that was changed is no register.
"""

import hashlib
import json
import math
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from circuits.decoding import as_type, read_json
from circuits.files import write_new
from tracking.comparison.run_set import QUESTION, RunSet, formation_times, questions
from tracking.forecasting.forecast import predict_date
from tracking.forecasting.scoring import coverage

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["describe_settled", "predict_open", "register", "settle"]

COLUMNS = ("run", *QUESTION, "known_until", "midpoint", "low", "high", "others_midpoint")


class Prediction(msgspec.Struct, frozen=True):
    """One row of a register, in steps; nothing stands for a date that is beyond all steps."""

    run: str
    role: str
    clock: str
    definition: str
    known_until: float
    low: float
    midpoint: float | None = None
    high: float | None = None
    others_midpoint: float | None = None


class Register(msgspec.Struct, frozen=True):
    """What is read of a register; its other keys are for people."""

    predictions: tuple[Prediction, ...]
    sha256: str


def predict_open(runs: RunSet, *, confidence: float = 0.9) -> "pd.DataFrame":
    """When each role will form in each run in which it has not yet, from what is known of that run until now.

    Columns run, role, clock, definition, known_until, midpoint, low, high (steps), others_midpoint (the median of the
    other runs that had not formed it by then).

    Raises:
        ValueError: every role has formed in every run, or too few runs are finished to learn from.
    """
    import pandas as pd

    rows = []
    n_open = 0
    for key, part in questions(runs):
        times = formation_times(runs, part).groupby("run").first()
        for run in [str(name) for name in times.index if math.isinf(times["high"][name])]:
            cut, n_open = float(runs.last_step.get(run, times["low"][run])), n_open + 1
            role, clock, definition = key
            said = predict_date(runs, run, role=role, clock=clock, definition=definition, cut=cut)
            if said is None:
                continue
            low, high = said.interval(confidence)
            others = times[(times.index != run) & (times["high"] > cut)]
            middle = float(((others["low"] + others["high"]) / 2).median()) if len(others) else math.inf
            rows.append((run, *key, cut, math.exp(said.middle), math.exp(low), math.exp(high), middle))
    if not n_open:
        raise ValueError("expected a run in which some role has not formed yet, got none: nothing is left to predict")
    if not rows:
        raise ValueError(f"too few finished runs to learn from: {n_open} roles are open, and none can be predicted")
    return pd.DataFrame(rows, columns=list(COLUMNS))


def register(runs: RunSet, path: "str | Path", *, confidence: float = 0.9) -> "pd.DataFrame":
    """Write the predictions of `predict_open` into a new file.

    Raises:
        ValueError: as `predict_open`.
        FileExistsError: there is such a file; a register is never written over.
    """
    table = predict_open(runs, confidence=confidence)
    try:
        tool = version("circuit-formation-tracker")
    except PackageNotFoundError:
        tool = "unknown"
    about = {
        "registered": datetime.now(UTC).isoformat(timespec="seconds"),
        "tool": tool,
        "confidence": confidence,
        "known": _hash_of_tables(runs),
        "predictions": json.loads(table.to_json(orient="records", double_precision=10)),
    }
    if not write_new(path, json.dumps({**about, "sha256": _hash(about)}, indent=1).encode()):
        raise FileExistsError(f"there is a file {path} already; a register is never written over")
    return table


def settle(runs: RunSet, path: "str | Path") -> "pd.DataFrame":
    """What became of each registered prediction, as far as these runs tell.

    Columns run, role, clock, definition, known_until, midpoint, low, high, others_midpoint, seen_before, seen_after,
    outcome: `held`, `missed`, `in part` (the checkpoints do not tell), or `open`.

    Raises:
        ValueError: the file is no register, or was changed after it was written.
    """
    import pandas as pd

    about = _read(Path(path))
    times = {key: formation_times(runs, part).groupby("run").first() for key, part in questions(runs)}
    rows = []
    for one in about.predictions:
        key = one.role, one.clock, one.definition
        seen = times[key].loc[one.run] if key in times and one.run in times[key].index else None
        before, after = (math.nan, math.nan) if seen is None else (float(seen["low"]), float(seen["high"]))
        seen_dates = {"seen_before": before, "seen_after": after, "outcome": _outcome(one, before, after)}
        rows.append(msgspec.structs.asdict(one) | seen_dates)
    return pd.DataFrame(rows, columns=[*COLUMNS, "seen_before", "seen_after", "outcome"])


def describe_settled(table: "pd.DataFrame", *, confidence: float = 0.9) -> list[str]:
    """How many predictions are settled, how many intervals held, and whether they beat the median of the other runs."""
    settled = table[table["outcome"] != "open"]
    if not len(settled):
        return [f"None of the {len(table)} registered predictions is settled yet."]
    dates = (settled[name].to_numpy(dtype=float) for name in ("low", "high", "seen_before", "seen_after"))
    held = coverage(*dates, confidence=confidence)
    found = [
        f"{len(settled)} of {len(table)} registered predictions are settled; their {confidence:.0%} intervals hold "
        f"{held:.0%} of what happened."
    ]
    formed = settled[settled["seen_after"].map(math.isfinite)]
    if len(formed):
        truth = ((formed["seen_before"] + formed["seen_after"]) / 2).clip(lower=0.5).map(math.log)
        own = (formed["midpoint"].clip(lower=0.5).map(math.log) - truth).abs().mean()
        said = f"Mean |log error| {own:.3f}"
        finite = formed["others_midpoint"].fillna(math.inf).map(math.isfinite)
        if finite.any():
            other = (formed["others_midpoint"][finite].clip(lower=0.5).map(math.log) - truth[finite]).abs().mean()
            said += f", where the median of the other runs has {other:.3f}"
        found.append(f"{said}.")
    return found


def _outcome(one: Prediction, before: float, after: float) -> str:
    low, high = one.low, math.inf if one.high is None else one.high
    if math.isnan(before) or (math.isinf(after) and before < high):
        return "open"
    if math.isinf(after) or before >= high or after <= low:
        return "missed"
    return "held" if low <= before and after <= high else "in part"


def _read(path: Path) -> Register:
    try:
        about = read_json(path, dict[str, Any])
        found = as_type(about, Register, where=str(path))
    except ValueError as error:
        raise ValueError(
            f"expected a register written by `formation forecast --register`, got {path}: {error}"
        ) from error
    if found.sha256 != _hash({key: value for key, value in about.items() if key != "sha256"}):
        raise ValueError(f"{path} was changed after it was written: its hash is not that of its contents")
    return found


def _hash(about: dict[str, Any]) -> str:
    text = json.dumps(about, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _hash_of_tables(runs: RunSet) -> str:
    """Of everything that the predictions rest on."""
    parts = [runs.formation.to_csv(index=False), runs.series.to_csv(index=False)]
    parts.append(json.dumps(runs.settings, sort_keys=True, default=repr))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
