"""Recording: a run's checkpoints become a history.

Question: how does a history get filled, and how does it go on after it was stopped?  There are three layers.  `record`
says which checkpoints are measured by whom, and what came of it.  A loop over checkpoints
(`tracking.recording.checkpoint_loop`) keeps one model per architecture and swaps its weights.  One unit is measured by
`tracking.recording.measuring` and written as soon as it is there.

What is on disk is not done again, so the same command goes on where the last one stopped, and ends with the same files.
A checkpoint that cannot be read or measured becomes records with the status `failed` and the reason, is tried again the
next time, and never stops the others.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from tracking.checkpoints.audit import audit_files, audit_hub
from tracking.checkpoints.hub import Downloads
from tracking.checkpoints.runs import Run
from tracking.execution.pool import Progress, local_device
from tracking.history.folder import commit_of_tool, note_made
from tracking.history.forks import copy_records, going_on, parent_and_step
from tracking.history.history import History
from tracking.history.records import settings_digest
from tracking.recording.adaptive_steps import budget_of, first_steps, next_steps
from tracking.recording.checkpoint_loop import CheckpointLoop
from tracking.recording.measuring import PROBE, TRAINING, Settings, late_steps
from tracking.recording.model_slot import ModelSlot
from tracking.recording.parallel import record_in_parallel
from tracking.recording.patterns import record_patterns
from tracking.recording.summary import Events, Ledger, RecordingSummary
from tracking.training.source_tasks import data_options

__all__ = ["PROBE", "TRAINING", "RecordingSummary", "record", "share_records"]


def record(
    source: "str | Path | Run",
    out: "str | Path",
    *,
    tasks: Sequence[str] = ("induction",),
    steps: str = "all",
    n_prompts: int = 64,
    seed: int = 0,
    method: str = "auto",
    target: float = 0.85,
    device: str = "cpu",
    dtype: str | None = None,
    threads: int | None = None,
    config: "str | Path | None" = None,
    keep_checkpoints: int | None = None,
    force: bool = False,
    shard: str | None = None,
    workers: int = 1,
    cluster: str | None = None,
    parent: str | None = None,
    patterns: int = 0,
    command: str | None = None,
    progress: Progress | None = None,
    events: Events | None = None,
    **options: Any,
) -> RecordingSummary:
    """Measure the checkpoints of a run into a history, or go on with it.

    Args:
        source: a run, or the folder of one (see `Run.open`).
        out: folder of the history; one that holds another run, or other settings, is refused.
        tasks: names of tasks; more may be added to a history later.  `source:NAME` asks what a source of the run's own
            training data teaches.
        steps: which checkpoints (see `tracking.checkpoints.runs.select_steps`); `auto`, or `auto:N`, takes a few at
            first and then more where something changes (see `tracking.recording.adaptive_steps`), up to 40 or N.
        n_prompts, seed: the prompts, the same at every checkpoint.
        method, target, options: how edges are scored and which faithfulness the circuit must reach; what
            `circuits.discovery.find_circuit` takes.
        device: `cpu`, `cuda`, `mps`, or `auto` for a GPU where there is one.
        threads: of torch in each process; by default one for small models, since it is faster there, and for others
            what the machine has (on a cluster four).  Sums over other numbers of threads may differ in the last digit.
        config: the model's configuration, a `config.json` or a folder with one, where none lies with the checkpoints.
        keep_checkpoints: how many of the hub's checkpoints stay on disk after they were measured; 0 keeps the one in
            use and the next alone, None leaves all to the hub's own cache.
        force: record a series whose files fail the audit (see `tracking.checkpoints.audit`), too.
        shard: "i/n" for the i-th of n parts of the checkpoints; n such calls on one folder make the whole history.
        workers: processes on this machine; with several GPUs each process has one.
        cluster: address of a Ray cluster ("auto" for the one this machine belongs to, "local" to start one here); the
            folder and the checkpoints must be seen by all of its machines.  Each checkpoint and task is a unit of its
            own there, as it is with several workers; a unit whose worker dies is done by another.
        parent: `HISTORY@STEP`, where the run goes on from a checkpoint that another history holds: its steps count on
            from there, and that history up to there is taken over without measuring it again.
        patterns: also keep the attention patterns of every head on so many prompts of the first task, to look at.
        command: the command line that asks for this, which the history keeps with the versions and the source.
        progress: called with ("recording", units done, units), a unit being one checkpoint and one task or probe, and
            while one is measured here with its task or probe, how much of it is done, and about how much there is.
        events: called once a checkpoint with what was done, skipped and failed, the rate and the time left.

    Several recorders may work on one folder at once; each takes the checkpoints that no other is at.

    Raises:
        FileNotFoundError: no such run, or no checkpoints in it.
        ValueError: unknown task, tokens beyond the vocabulary, another history in the folder, no checkpoint at all
            that can be read, or a series that is not what it claims to be.
    """
    run, place = source if isinstance(source, Run) else Run.open(source), Path(out)
    data = data_options(tasks, run.hyperparameters)
    settings = Settings(tuple(tasks), n_prompts, seed, method, target, dtype, options, data=data)
    budget, tested = budget_of(steps), late_steps(run.steps)
    if budget is None:
        run = run.select(steps)
    if workers < 1:
        raise ValueError(f"expected at least one worker, got {workers}")
    if parent is not None:
        run = _after_parent(run, parent, place, settings)
    if cluster is None:
        local_device(device)
    total = len(part_of(run, shard)) if budget is None else min(budget, len(run))
    told = {"progress": progress or _silent, "events": events or _silent}
    ledger = Ledger(place, (TRAINING, *settings.units), counted=len(settings.units), total=total, **told)
    slot = ModelSlot(settings, device=device, threads=threads, config=config)
    for chosen in _rounds(run, place, budget):
        if not force:
            _refuse_false_series(chosen, config)
        part = part_of(chosen, shard)
        if not part.checkpoints:  # more shards than checkpoints
            continue
        if workers > 1 or cluster is not None:
            how: Any = {"device": device, "threads": threads, "config": config, "keep": keep_checkpoints}
            record_in_parallel(part, place, settings, ledger, workers=workers, cluster=cluster, tested=tested, **how)
            continue
        with closing(Downloads(place, keep_checkpoints)) as downloads:
            CheckpointLoop(part, place, slot, downloads=downloads, tested=tested).measure_all(
                ledger.checkpoint_over, show=ledger.show, within=ledger.progress
            )
    found = _with_faults(ledger.summary(), place)
    _note_what_was_done(found, run, place, slot, command=command, patterns=patterns)
    return found


def _note_what_was_done(
    found: RecordingSummary, run: Run, place: Path, slot: ModelSlot, *, command: str | None, patterns: int
) -> None:
    """Beside the records: what asked for them, and attention patterns to look at."""
    if (place / "history.json").is_file():
        note_made(place, command=command, source=run.source or None, commit=commit_of_tool())
    if patterns and (found.done or found.skipped):
        recorded = run.select(",".join(map(str, sorted({step for step, _ in (*found.done, *found.skipped)}))))
        record_patterns(recorded, place, slot, n_prompts=patterns)


def _with_faults(summary: RecordingSummary, folder: Path) -> RecordingSummary:
    """With what the whole history says of its checkpoints, where there is one."""
    there = (folder / "history.json").is_file()
    return replace(summary, faults=History.open(folder).faults) if there else summary


def _rounds(run: Run, folder: Path, budget: int | None) -> Iterator[Run]:
    """What is to be measured: all at once, or coarse first and then denser where the scores move, until the budget of
    checkpoints is spent."""
    if budget is None:
        yield run
        return
    steps, taken = first_steps(run.steps, budget), set()
    while steps:
        taken |= {*steps}
        yield run.select(",".join(map(str, steps)))
        steps = next_steps(History.open(folder), run.steps, budget, taken=taken)


def _after_parent(run: Run, parent: str, folder: Path, settings: Settings) -> Run:
    """The run on its parent's path, with what was recorded of that up to the fork in its folder."""
    home, step = parent_and_step(parent)
    trunk = History.open(home)
    if settings_digest(settings.to_dict()) != settings_digest(trunk.settings):
        asked = ("n_prompts", "seed", "method", "target", "dtype", "options")
        differ = [name for name in asked if trunk.settings.get(name) != settings.to_dict().get(name)] or ["settings"]
        raise ValueError(
            f"{home} was recorded with {differ[0]} {trunk.settings.get(differ[0])!r}, and this run is to be with "
            f"{settings.to_dict().get(differ[0])!r}; record both alike"
        )
    found = going_on(run, trunk, step)
    copy_records(home, folder, steps={at for at in trunk.steps if at <= step})
    return found


def share_records(runs: Sequence[tuple[Run, Path]]) -> Iterator[tuple[Run, Path]]:
    """The same runs and folders, one after the other; what a run has in common with one before is not measured again.

    Runs that part from one path have checkpoints in common.  When a run's turn comes, the records of these that an
    earlier one has are linked into its folder, where they are as if it had measured them itself.
    """
    done: list[tuple[Run, Path]] = []
    for run, folder in runs:
        places = {(c.source, c.revision): c.step for c in run.checkpoints}
        for other, home in done:
            shared = [c.step for c in other.checkpoints if places.get((c.source, c.revision)) == c.step]
            copy_records(home, folder, steps=set(shared))
        yield run, folder
        done.append((run, folder))


def _refuse_false_series(run: Run, config: "str | Path | None") -> None:
    """A checkpoint that cannot be read costs itself alone; one that is not of this series makes the others wrong."""
    on_hub = bool(run.checkpoints) and run.checkpoints[0].revision is not None
    findings = (audit_hub(run) if on_hub else audit_files(run, config=config)).findings
    found = [f for f in findings if f.kind in ("equal", "config", "tokenizer", "shard")]
    if found:
        more = f" (and {len(found) - 1} more findings)" if len(found) > 1 else ""
        raise ValueError(
            f"{run.name!r} is not what it claims to be: {found[0].what}{more}; `formation audit` says more, steps= "
            "leaves checkpoints out, and force=True (--force) records it as it is"
        )


def part_of(run: Run, shard: str | None) -> Run:
    """Every n-th checkpoint of a run, from the i-th on, for `shard` = "i/n" with i from 1 to n.

    Raises:
        ValueError: it is not of that form.
    """
    if shard is None:
        return run
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(f"expected a shard such as 1/4 (the first of four) to 4/4, got {shard!r}")
    return replace(run, checkpoints=run.checkpoints[int(match[1]) - 1 :: int(match[2])])


def _silent(*_: object) -> None:
    pass
