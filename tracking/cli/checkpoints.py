"""Verbs that read checkpoints: audit says whether a series is what it claims to be, record measures it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracking.cli.terminal import (
    COMMAND,
    Json,
    for_people,
    pairs,
    print_above,
    print_json,
    print_line,
    print_list,
    print_plain,
    print_wrapped,
    progress_bars,
    reporter,
    telling,
    terminal_width,
    value_of,
)
from tracking.execution.plugins import add_from_file

if TYPE_CHECKING:
    import pandas as pd

    from tracking.checkpoints.audit import Audit
    from tracking.checkpoints.runs import Run
    from tracking.recording.summary import RecordingSummary

__all__ = ["audit", "record"]

MOST_FINDINGS, MOST_CLAIMS = 12, 4

Steps = Annotated[str, typer.Option(help="all | 0,1000,5000 | log:20 | auto:40 | first:N | FROM..TO.")]
Config = Annotated[Path | None, typer.Option(help="config.json, where none lies with the checkpoints.")]
StepPattern = Annotated[
    str | None, typer.Option("--step-pattern", help="Regular expression; its first group is the step in a name.")
]
StepsPerCheckpoint = Annotated[
    int, typer.Option("--steps-per-checkpoint", min=1, help="Where names count checkpoints, and not steps.")
]
Variant = Annotated[str | None, typer.Option(help="Which of several runs under one name: seed-default, ingredient1.")]
VariantOrAll = Annotated[
    str | None, typer.Option(help="Which of several runs under one name; all: each into OUT/histories.")
]
Patterns = Annotated[
    int, typer.Option(min=0, help="Also keep every head's attention patterns on so many prompts, to look at.")
]
Stage = Annotated[str | None, typer.Option(help="One stage of training alone; by default all, as one run.")]
Method = Annotated[
    str,
    typer.Option(help="How edges are scored: auto (exact where affordable) | eap-ig | eap | exact | contested."),
]
KeepCheckpoints = Annotated[
    int | None, typer.Option("--keep-checkpoints", min=0, help="The hub's checkpoints that stay on disk.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it takes (passes, time, memory, disk), and stop.")]
Parent = Annotated[str | None, typer.Option(help="HISTORY@STEP that this run goes on from (fine-tuning, an adapter).")]
TokensPerStep = Annotated[
    float | None, typer.Option("--tokens-per-step", help="In place of what run.json and the names say.")
]


def audit(
    source: Annotated[str, typer.Argument(help="A run's folder, a folder of checkpoints, or a hub id.")],
    steps: Steps = "all",
    config: Config = None,
    step_pattern: StepPattern = None,
    steps_per_checkpoint: StepsPerCheckpoint = 1,
    tokens_per_step: TokensPerStep = None,
    variant: Variant = None,
    stage: Stage = None,
    loss: Annotated[
        bool, typer.Option("--loss", help="Also run every checkpoint on one batch: does the series run forwards?")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say whether a series is what it claims to be: equal, mislabelled, mixed or damaged checkpoints, missing steps.

    Example: `formation audit demo/run`
    """
    from tracking.checkpoints.audit import audit as audit_run

    naming: dict[str, Any] = {"step_pattern": step_pattern, "steps_per_checkpoint": steps_per_checkpoint}
    run = _open_run(source, **naming, tokens_per_step=tokens_per_step, variant=variant, stage=stage)
    with progress_bars() as progress:
        measured = _own_batch(run) if loss else False
        found = audit_run(run, steps=steps, config=config, loss=measured, progress=reporter(progress))
    if as_json:
        rows = json.loads(found.to_frame().to_json(orient="records"))
        about = {"run": found.run, "steps": list(found.steps), "passed": found.passed, "findings": rows}
        about |= {"losses": {str(step): value for step, value in found.losses.items()}}
        print_json({**about, "checked": list(found.checked), "unchecked": list(found.unchecked)})
    elif for_people():
        _print_audit(found, _extent(run.select(steps)))
    else:
        print_plain(_audit_frame(found))
    if not found.passed:
        raise typer.Exit(1)


def _print_audit(found: "Audit", extent: str) -> None:
    """The verdict, what is wrong, the worst first, and then what could and could not be checked."""
    width = terminal_width()
    verdict = "of what was checked, nothing is wrong" if found.passed else "this series is not what it claims to be"
    print_wrapped(f"{found.run}: {verdict} ({extent} looked at)", width, "", "  ")
    print_list(map(str, found.findings), width, MOST_FINDINGS, "more findings: --json")
    for title, claims in (("checked", found.checked), ("not checked", found.unchecked)):
        print_list([f"{title}: {claim}" for claim in claims], width, MOST_CLAIMS, f"more that are {title}: --json")


def _audit_frame(found: "Audit") -> "pd.DataFrame":
    """The findings, and each claim that was looked at or could not be, as a row of that severity."""
    import pandas as pd

    claims = [*(("checked", claim) for claim in found.checked), *(("not checked", claim) for claim in found.unchecked)]
    rows = pd.DataFrame([{"run": found.run, "severity": kind, "what": claim} for kind, claim in claims])
    return pd.concat([found.to_frame(), rows]) if claims else found.to_frame()


def record(
    source: Annotated[str, typer.Argument(help="A run's folder, a folder of checkpoints, or a hub id.")],
    out: Annotated[Path, typer.Option(help="Folder for the history; an unfinished one there goes on.")],
    task: Annotated[
        str, typer.Option(help="Tasks, with commas between them; one of your own is FILE.py:NAME.")
    ] = "induction",
    score: Annotated[list[str] | None, typer.Option(help="A score of heads of your own, FILE.py:NAME.")] = None,
    steps: Steps = "all",
    method: Method = "auto",
    n_prompts: Annotated[int, typer.Option("--n-prompts", min=2, help="Prompts a task.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the prompts.")] = 0,
    target: Annotated[float, typer.Option(help="Faithfulness that the circuit must reach.")] = 0.85,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps; auto: a GPU where there is one.")] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="float32, float64 or bfloat16; the checkpoint's own.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of each process; 1 for small models.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    cluster: Annotated[str | None, typer.Option(help="A Ray cluster: its address, auto, or local.")] = None,
    shard: Annotated[str | None, typer.Option(help="i/n: the i-th of n parts, for array jobs.")] = None,
    keep_checkpoints: KeepCheckpoints = None,
    patterns: Patterns = 0,
    parent: Parent = None,
    hyperparameter: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, of the run.")] = None,
    dry_run: DryRun = False,
    force: Annotated[bool, typer.Option("--force", help="Also record a series that fails the audit.")] = False,
    config: Config = None,
    step_pattern: StepPattern = None,
    steps_per_checkpoint: StepsPerCheckpoint = 1,
    tokens_per_step: TokensPerStep = None,
    variant: VariantOrAll = None,
    stage: Stage = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a checkpoint, and a summary.")] = False,
) -> None:
    """Measure every checkpoint of a run: head scores, edge attributions, the circuit, losses.

    Example: `formation record demo/run --task induction --out recorded`
    """
    from tracking.recording.recording import record as record_run

    for own in score or []:
        add_from_file("score", own)
    named = [part.strip() for part in task.split(",") if part.strip()]
    tasks = tuple(add_from_file("task", part) if ".py:" in part else part for part in named)
    options: dict[str, Any] = {"method": method, "n_prompts": n_prompts, "seed": seed, "target": target}
    options |= {"device": device, "dtype": dtype, "threads": threads, "workers": workers, "cluster": cluster}
    options |= {"shard": shard, "parent": parent, "patterns": patterns, "command": COMMAND.get()}
    given = {key: value_of(text) for key, text in pairs(hyperparameter, "--hyperparameter").items()}
    options |= {"keep_checkpoints": keep_checkpoints, "force": force, "config": config}
    naming: dict[str, Any] = {"step_pattern": step_pattern, "steps_per_checkpoint": steps_per_checkpoint}
    naming |= {"tokens_per_step": tokens_per_step, "stage": stage}
    codes = []
    for run, folder in _runs_to_record(source, out, variant, naming):
        run = replace(run, hyperparameters={**run.hyperparameters, **given})
        if dry_run:
            _say_cost(run, steps, folder, tasks, options, as_json)
            continue
        with progress_bars() as progress, telling(progress, "tracking.recording.model_slot"):
            said = (lambda event: print_json(dict(event), indent=None)) if as_json else None
            options["events"] = said or (lambda event, bars=progress: print_above(bars, _told(event)))
            summary = record_run(run, folder, tasks=tasks, steps=steps, progress=reporter(progress), **options)
        codes.append(_say_recorded(summary, folder, as_json))
    if any(codes):
        raise typer.Exit(1 if all(code == 1 for code in codes) else 3)


def _say_cost(
    run: "Run", steps: str, folder: Path, tasks: tuple[str, ...], options: Mapping[str, Any], as_json: bool
) -> None:
    """What recording would take, on stdout; of adaptive steps as many as there may be, evenly spread."""
    from tracking.recording.adaptive_steps import budget_of
    from tracking.recording.cost import recording_cost
    from tracking.recording.measuring import Settings
    from tracking.training.source_tasks import data_options

    budget = budget_of(steps)
    run = run.select(steps if budget is None else f"linear:{budget}")
    asked = {name: options[name] for name in ("n_prompts", "seed", "method", "target", "dtype")}
    settings = Settings(tasks, **asked, data=data_options(tasks, run.hyperparameters))
    found = recording_cost(run, folder, settings, **{name: options[name] for name in ("device", "threads", "config")})
    if as_json:
        return print_json({**asdict(found), "seconds_in_all": found.total_seconds})
    print_line(f"{run.name}, into {folder}:")
    for sentence in found.sentences():
        print_line(f"  {sentence}")


def _own_batch(run: "Run") -> Any:
    """A batch of the data that the embedded trainer would draw next in this run; True where another trained it."""
    from tracking.training.hyperparameters import TrainingConfig
    from tracking.training.training import data_batch

    try:
        config = TrainingConfig.from_dict(run.hyperparameters) if run.model and run.hyperparameters else None
    except ValueError:  # the settings of another program
        return True
    return True if config is None else data_batch(config, config.steps + 1).tokens


def _runs_to_record(source: str, out: Path, variant: str | None, naming: dict[str, Any]) -> "list[tuple[Run, Path]]":
    """Each run with the folder of its history; records of checkpoints that several share are taken over."""
    from circuits.files import name_for_file
    from tracking.checkpoints.runs import Run
    from tracking.recording.recording import share_records

    if variant != "all":
        return [(Run.open(source, variant=variant, **naming), out)]
    runs = Run.open_variants(source, **naming)
    found = [(run, out / "histories" / name_for_file(str(run.variant))) for run in runs]
    return list(share_records(found))


def _say_recorded(summary: "RecordingSummary", out: Path, as_json: bool) -> int:
    """What a recording did, on stdout, and what it could not, on stderr; gives the exit code."""
    failed = {f"{step}/{task}": reason for step, task, reason in summary.failed}
    counts = {"done": len(summary.done), "skipped": len(summary.skipped)}
    if as_json:
        faults = [{"steps": list(fault.steps), "kind": fault.kind, "what": fault.what} for fault in summary.faults]
        print_json({"history": str(out), **counts, "failed": failed, "faults": faults}, indent=None)
    else:
        print_line(f"{out}: {counts['done']} records written, {counts['skipped']} were there already")
    for step, unit in summary.changed:
        print_line(f"changed since it was recorded, and left as it was: {step}/{unit}", err=True)
    for fault in summary.faults:
        print_line(f"wrong with this series: {fault}", err=True)
    for what, reason in failed.items():
        print_line(f"not recorded: {what}: {reason}", err=True)
    return (3 if summary.done or summary.skipped else 1) if failed else 0


def _open_run(source: str, **options: Any) -> "Run":
    from tracking.checkpoints.runs import Run

    return Run.open(source, **options)


def _extent(run: "Run") -> str:
    """How many checkpoints there are, and of which steps and tokens, so that wrongly read names are seen."""
    first, last = run.checkpoints[0], run.checkpoints[-1]
    tokens = "" if last.tokens is None else f", {first.tokens or 0:.3g} to {last.tokens:.3g} tokens"
    return f"{len(run)} checkpoints, steps {first.step} to {last.step}{tokens}"


def _told(event: Mapping[str, Any]) -> str:
    """One line a checkpoint, for people."""
    kinds = {"done": "written", "skipped": "there already", "failed": "failed"}
    what = ", ".join(f"{len(event[kind])} {word}" for kind, word in kinds.items() if event[kind])
    rate, left = event["checkpoints_per_second"], timedelta(seconds=round(event["seconds_left"]))
    return f"step {event['step']}: {what}; {event['number']} of {event['total']}, {rate:.3g} a second, {left} left"
