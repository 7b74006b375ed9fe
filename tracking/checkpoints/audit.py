"""Series audit: whether a series of checkpoints is what it claims to be.

Published series are known to carry equal weights under different steps, a step that is really another, or one shard of
another step.  An audit looks at the files (cheap) and at the weights (a hash, norms and a random projection of every
tensor: `tracking.checkpoints.sketches`) and says for each finding which steps, what, how sure, and what to do.  What
recording could not load is a finding too.  What the weights' places tell is in `tracking.checkpoints.weight_faults`.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from circuits.display import table_html
from circuits.formats import entries, read_index, weight_files
from tracking.checkpoints.direction import LossMeter, check_direction, initial_steps
from tracking.checkpoints.hub import download, weight_digests
from tracking.checkpoints.loading import find_config, why_unloadable, working_config
from tracking.checkpoints.runs import Checkpoint, Run
from tracking.checkpoints.sketches import WeightNote, distance, sampled_hash, similarity, weigh
from tracking.checkpoints.weight_faults import Finding, Trajectory, untold, weight_faults
from tracking.execution.pool import Progress

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Audit", "Finding", "audit", "audit_files", "audit_hub"]

TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "spiece.model")


@dataclass(frozen=True)
class Audit:
    """Every finding on one series; `distances` of the checkpoints of `steps` to each other, where weights were read.

    `checked` and `unchecked` are what the series claims and could or could not be looked at, one sentence each, and
    `losses` those on one fixed batch by step, where they were measured.
    """

    run: str
    steps: tuple[int, ...]
    findings: tuple[Finding, ...]
    distances: Float[np.ndarray, "step step"] | None = None
    checked: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()
    losses: Mapping[int, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return not any(finding.severity == "error" for finding in self.findings)

    _repr_html_ = table_html

    def to_frame(self) -> "pd.DataFrame":
        """Columns: run, kind, severity, steps, what, advice, confidence."""
        import pandas as pd

        columns = ["run", "kind", "severity", "steps", "what", "advice", "confidence"]
        rows = [
            (self.run, f.kind, f.severity, " ".join(map(str, f.steps)), f.what, f.advice, f.confidence)
            for f in self.findings
        ]
        return pd.DataFrame(rows, columns=columns)


def audit(
    source: "str | Path | Run",
    *,
    steps: str = "all",
    config: "str | Path | None" = None,
    loss: "bool | Int[np.ndarray, 'batch pos']" = False,
    progress: Progress | None = None,
) -> Audit:
    """Look at every checkpoint's files and weights.

    Args:
        source: a run, or the folder of one.
        config: the model's configuration, where none lies with the checkpoints.
        loss: also measure the loss of every checkpoint on one batch, which tells whether the series runs forwards; True
            is English text for models with a tokenizer, and repeated random tokens for others (`LossMeter`).
        progress: called with ("auditing", checkpoints done, checkpoints).

    Raises:
        FileNotFoundError: no such run, or no checkpoints in it.
    """
    run = source.select(steps) if isinstance(source, Run) else Run.open(source, steps=steps)
    files, notes, losses = _Files(config), {}, {}
    meter = None if loss is False else LossMeter(None if loss is True else loss, config=config)
    found = [finding for finding in audit_hub(run).findings if finding.kind == "shard"]
    for number, checkpoint in enumerate(run.checkpoints):
        if progress is not None:
            progress("auditing", number, len(run))
        with _brought(checkpoint) as place:
            if not files.look(checkpoint.step, place):
                continue
            files.try_loading(checkpoint.step, place)
            try:
                notes[checkpoint.step] = weigh(place)
                if meter is not None and checkpoint.step not in files.unloadable:
                    losses[checkpoint.step] = meter(place)
            except (ValueError, OSError) as error:
                found.append(_unreadable(checkpoint.step, error))
    if progress is not None:
        progress("auditing", len(run), len(run))
    found += files.findings() + _missing_steps(run.steps)
    found = [finding for finding in found if finding.kind != "equal"] + equal_weights(
        {step: note.digest for step, note in notes.items()}
    )
    found += _not_finite(notes) + _partly_equal(notes)
    path = _trajectory(notes)
    alone = path.only([place for place, step in enumerate(path.steps) if not _repeats(step, found)])
    found += weight_faults(alone)
    named = {step for finding in found for step in finding.steps if finding.severity == "error"}
    sound = alone.only([place for place, step in enumerate(alone.steps) if step not in named])
    way = check_direction(sound, initial=initial_steps(notes), losses=losses, logged=_logged(run))
    found += way.findings
    order = {"error": 0, "warning": 1, "note": 2}
    found.sort(key=lambda finding: (order[finding.severity], finding.steps))
    distances = path.distances if len(notes) > 1 else None
    unchecked = (*way.unchecked, *untold(alone))
    return Audit(run.name, tuple(notes), tuple(found), distances, way.checked, unchecked, losses)


def _logged(run: Run) -> dict[int, float]:
    """The loss that the run's log says, by step."""
    return {
        entry["step"]: float(entry["loss"])
        for entry in run.log
        if isinstance(entry.get("loss"), int | float) and math.isfinite(entry["loss"])
    }


def _trajectory(notes: Mapping[int, WeightNote]) -> Trajectory:
    every = list(notes.values())
    distances = np.array([[distance(a, b) for b in every] for a in every]).reshape(len(every), len(every))
    cosines = np.array([[similarity(a, b) for b in every] for a in every]).reshape(len(every), len(every))
    return Trajectory(tuple(notes), np.array([note.norm for note in every]), distances, cosines)


def audit_files(run: Run, *, config: "str | Path | None" = None) -> Audit:
    """The cheap half: configurations, tokenizers, headers, indexes, and a few bytes of every file."""
    files = _Files(config)
    for checkpoint in run.checkpoints:
        with _brought(checkpoint) as place:
            files.look(checkpoint.step, place)
    return Audit(run.name, run.steps, tuple(files.findings() + _missing_steps(run.steps)))


def audit_hub(run: Run) -> Audit:
    """What the hub tells of its files' hashes before anything is downloaded; nothing of a run that lies elsewhere."""
    digests = {c.step: weight_digests(c.source, c.revision) for c in run.checkpoints if c.revision is not None}
    digests = {step: files for step, files in digests.items() if files}
    whole = {step: " ".join(sorted(files.values())) for step, files in digests.items()}
    return Audit(run.name, tuple(digests), tuple(equal_weights(whole) + _shared_shards(digests)))


@contextmanager
def _brought(checkpoint: Checkpoint) -> Iterator[Path]:
    """The checkpoint's place; the hub's are downloaded for as long as they are looked at."""
    if checkpoint.revision is None:
        yield Path(checkpoint.source)
        return
    with TemporaryDirectory(prefix="formation-") as folder:
        yield download(checkpoint.source, checkpoint.revision, Path(folder))


class _Files:
    """What the files of the checkpoints tell, by step."""

    def __init__(self, config: "str | Path | None") -> None:
        self.given = config
        self.found: list[Finding] = []
        self.configs: dict[int, Any] = {}
        self.tokenizers: dict[int, Any] = {}
        self.headers: dict[int, Any] = {}
        self.sampled_hashes: dict[int, str] = {}
        self.unloadable: dict[int, str] = {}

    def look(self, step: int, place: Path) -> bool:
        """Take notes of one checkpoint; whether it can be read."""
        try:
            self.found += _index(step, place)
            self.headers[step] = {entry.name: (entry.shape, entry.dtype) for entry in entries(place)}
            self.sampled_hashes[step] = sampled_hash(place)
        except (ValueError, OSError) as error:
            self.found.append(_unreadable(step, error))
            return False
        try:
            self.configs[step] = working_config(find_config(place, config=self.given))
        except (ValueError, OSError):
            self.configs[step] = None
        self.tokenizers[step] = _tokenizer(place)
        return True

    def try_loading(self, step: int, place: Path) -> None:
        """Whether the tensors are those of a model that can be laid open."""
        if (why := why_unloadable(place, self.headers[step], config=self.given)) is not None:
            self.unloadable[step] = why

    def findings(self) -> list[Finding]:
        compared = {"configuration": self.configs, "tokenizer": self.tokenizers, "tensors": self.headers}
        changes = [finding for what, values in compared.items() for finding in _changes(what, values)]
        return self.found + equal_weights(self.sampled_hashes) + changes + _unloadable(self.unloadable)


def _unreadable(step: int, error: Exception) -> Finding:
    return Finding(
        "unreadable", "error", (step,), f"step {step} cannot be read: {error}", "fetch that checkpoint again"
    )


def _unloadable(reasons: Mapping[int, str]) -> list[Finding]:
    """What `record` will not load, one finding a reason."""
    steps: dict[str, list[int]] = defaultdict(list)
    for step, reason in reasons.items():
        steps[reason].append(step)
    advice = "name a configuration with config=, or an adapter; scores alone come in by `formation import`"
    return [
        Finding("unloadable", "error", tuple(at), f"steps {_list(at)} cannot be recorded: {reason}", advice)
        for reason, at in steps.items()
    ]


def _index(step: int, place: Path) -> list[Finding]:
    """What an index of shards says that is not so."""
    found = []
    for index in sorted(place.glob("*.index.json")) if place.is_dir() else []:
        told = read_index(index)
        there = {entry.name: path.name for path in weight_files(place) for entry in entries(path)}
        wrong = sorted(name for name in {*told, *there} if told.get(name) != there.get(name))
        if wrong:
            what = f"step {step}: {index.name} and its shards differ on {wrong[0]}"
            what += f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            advice = "fetch that checkpoint again; a shard may be of another save"
            found.append(Finding("index", "error", (step,), what, advice))
    return found


def _tokenizer(place: Path) -> str | None:
    files = [place / name for name in TOKENIZER if (place / name).is_file()]
    return sha256(b"".join(path.read_bytes() for path in files)).hexdigest() if files else None


def _repeats(step: int, findings: Sequence[Finding]) -> bool:
    """Whether the step holds the weights of one before it."""
    return any(f.kind == "equal" and step in f.steps[1:] for f in findings)


def equal_weights(digests: Mapping[int, str]) -> list[Finding]:
    """Steps that share a digest."""
    groups: dict[str, list[int]] = defaultdict(list)
    for step, digest in digests.items():
        groups[digest].append(step)
    return [
        Finding(
            "equal",
            "error",
            tuple(steps),
            f"{len(steps)} steps hold the same weights: {_list(steps)}",
            "at most one of them can be right; fetch them again, or leave them out with steps=",
        )
        for steps in groups.values()
        if len(steps) > 1
    ]


def _shared_shards(digests: Mapping[int, Mapping[str, str]]) -> list[Finding]:
    """Steps that share one file of several, which is not the same at all steps (as that of frozen weights would be)."""
    homes: dict[tuple[str, str], list[int]] = defaultdict(list)
    for step, files in digests.items():
        for name, digest in files.items():
            homes[name, digest].append(step)
    found = []
    for (name, _), steps in homes.items():
        whole = len({tuple(digests[step].items()) for step in steps}) == 1
        if 1 < len(steps) < len(digests) and not whole:
            what = f"{name} is the same file at steps {' and '.join(map(str, steps))}, and the other files are not"
            advice = "a shard of one is of the other; leave these steps out with steps="
            found.append(Finding("shard", "error", tuple(steps), what, advice))
    return found


def _list(steps: Sequence[int]) -> str:
    return ", ".join(map(str, steps)) if len(steps) < 9 else f"{', '.join(map(str, steps[:6]))}, ... {steps[-1]}"


def _changes(what: str, values: Mapping[int, Any]) -> list[Finding]:
    """Steps at which something differs from what most steps have."""
    texts = {step: _text(value) for step, value in values.items()}
    if len(set(texts.values())) < 2:
        return []
    usual = Counter(texts.values()).most_common(1)[0][0]
    odd = [step for step, text in texts.items() if text != usual]
    first = values[odd[0]]
    common = next(values[step] for step, text in texts.items() if text == usual)
    where = ""
    if isinstance(first, Mapping) and isinstance(common, Mapping):
        apart = [key for key in {*first, *common} if _text({key: first.get(key)}) != _text({key: common.get(key)})]
        keys = sorted(map(str, apart or {*first} ^ {*common}))
        where = f" ({keys[0]}: {first.get(keys[0])} in place of {common.get(keys[0])})"
    kind = "config" if what == "configuration" else what
    sentence = (
        f"the {what} at {'step' if len(odd) == 1 else 'steps'} {_list(odd)} differ{'s' if what != 'tensors' else ''}"
    )
    advice = "these are not checkpoints of one model; leave them out, or correct the file"
    return [Finding(kind, "error", tuple(odd), f"{sentence} from the others'{where}", advice)]


def _text(value: Any) -> str:
    return json.dumps(_as_numbers(value), sort_keys=True, default=str)


def _as_numbers(value: Any) -> Any:
    """The same value with every number of one kind, so that 10000 and 10000.0 are one."""
    if isinstance(value, Mapping):
        return {str(key): _as_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_as_numbers(inner) for inner in value]
    whole = isinstance(value, float) and math.isfinite(value) and value.is_integer()
    return int(value) if whole else value


def _missing_steps(steps: Sequence[int]) -> list[Finding]:
    """Gaps in a schedule that is otherwise even."""
    gaps = [b - a for a, b in pairwise(steps)]
    if len(gaps) < 4:
        return []
    usual, count = Counter(gaps).most_common(1)[0]
    if count < 0.6 * len(gaps):
        return []
    places = [place for place, gap in enumerate(gaps) if gap > usual and gap % usual == 0]
    even = [p for p in places if all(gaps[q] == usual for q in (p - 1, p + 1) if 0 <= q < len(gaps))]
    missing = [step for p in even for step in range(steps[p] + usual, steps[p + 1], usual)]
    if not missing:
        return []
    what = f"the steps go by {usual}, and {_list(missing)} {'is' if len(missing) == 1 else 'are'} missing"
    return [Finding("missing", "warning", tuple(missing), what, "intervals of formation times are wider there", 0.9)]


def _not_finite(notes: Mapping[int, WeightNote]) -> list[Finding]:
    found = []
    for step, note in notes.items():
        if note.not_finite:
            name = next(name for name, tensor in note.tensors.items() if tensor.not_finite)
            what = f"step {step} holds {note.not_finite} numbers that are NaN or infinite, first in {name}"
            found.append(Finding("not-finite", "error", (step,), what, "training had diverged, or the file is damaged"))
    return found


def _partly_equal(notes: Mapping[int, WeightNote]) -> list[Finding]:
    """Some tensors of one step, but not all, are exactly those of another step."""
    homes: dict[tuple[str, str], list[int]] = defaultdict(list)
    for step, note in notes.items():
        for name, tensor in note.tensors.items():
            if not tensor.constant:
                homes[name, tensor.digest].append(step)
    frozen = {name for (name, _), steps in homes.items() if len(steps) == len(notes)}
    shared: dict[tuple[int, int], list[str]] = defaultdict(list)
    for (name, _), steps in homes.items():
        if len(steps) > 1 and name not in frozen:
            for first, second in pairwise(steps):
                shared[first, second].append(name)
    found = []
    for (first, second), names in sorted(shared.items()):
        alike = notes[first].tensors.keys() & notes[second].tensors.keys() - frozen
        moving = [name for name in alike if not notes[first].tensors[name].constant]
        if len(names) < len(moving):
            what = f"{len(names)} of {len(moving)} tensors are the same at steps {first} and {second}, {names[0]} first"
            advice = "a shard of one may be of the other (or those weights were frozen); fetch both again"
            found.append(Finding("partly-equal", "error", (first, second), what, advice, 0.95))
    return found
