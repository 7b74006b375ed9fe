"""Verbs about what was recorded: track, match, export, report."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tracking.cli.terminal import (
    Ceiling,
    Chance,
    Json,
    for_people,
    numbers,
    print_json,
    print_line,
    print_list,
    print_plain,
    print_sentences,
    print_table,
    terminal_width,
)

if TYPE_CHECKING:
    from tracking.experiments.event_checks import EventCheck
    from tracking.results.results import RunTimeline, Timeline

__all__ = ["export", "match", "report", "track"]

HistoryFolder = Annotated[Path, typer.Argument(help="A history's folder, as `record` or `import` writes it.")]
HistoryFolders = Annotated[list[Path], typer.Argument(help="Histories' folders, or that of a sweep.")]
Thresholds = Annotated[
    list[str] | None,
    typer.Option("--threshold", help="MEASURE=VALUE (or VALUE for all): a component above it plays the role."),
]
Task = Annotated[str | None, typer.Option("--task", help="Use the scores of this task or probe only.")]
AllEvents = Annotated[bool, typer.Option("--all-events", help="Also the events that are less likely right than wrong.")]
MaxGap = Annotated[int, typer.Option("--max-gap", min=0, help="Snapshots that a component may be missing unharmed.")]


def track(
    folder: HistoryFolder,
    threshold: Thresholds = None,
    task: Task = None,
    max_gap: MaxGap = 2,
    chance: Chance = None,
    ceiling: Ceiling = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every definition, component and event, and each finding in full.")
    ] = False,
    all_events: AllEvents = False,
    verify: Annotated[
        Path | None,
        typer.Option(
            "--verify-events", metavar="RUN", help="Check each event by patching, with this run's checkpoints."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Link components from step to step: what happened, and when each role formed, with intervals.

    Into a pipe or a file it writes the dates as one tab-separated table.

    Example: `formation track recorded`
    """
    from tracking.cli.glance import print_run, print_run_plain

    run = _timeline([folder], threshold, task, max_gap, all_events, chance, ceiling).runs[0]
    checks = () if verify is None else _checks(run, verify, threshold, task, max_gap)
    if as_json:
        tables = {"lifelines": run.lifelines, "events": run.events, "formation": run.formation}
        if verify is not None:
            from tracking.experiments.event_checks import checks_frame

            tables["checks"] = checks_frame(checks)
        return print_json({name: json.loads(frame.to_json(orient="records")) for name, frame in tables.items()})
    show = print_run if for_people() else print_run_plain
    show(run, everything=everything)
    if verify is not None and for_people():
        print_line("Checked by patching:")
        print_list(map(str, checks), terminal_width(), None, "")


def match(
    before: Annotated[Path, typer.Argument(help="A history's folder.")],
    after: Annotated[Path, typer.Argument(help="The same history, or another run's.")],
    step: Annotated[
        list[int] | None, typer.Option("--step", help="Steps of the two, given twice; the last ones if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say which component of one snapshot is which of another, how sure that is, and how alike their circuits are.

    Example: `formation match recorded recorded --step 200 --step 240`
    """
    from tracking.history.forks import parted_at
    from tracking.history.history import History
    from tracking.matching.matching import match as match_snapshots
    from tracking.matching.similarity import compared_circuits

    first, second = History.open(before), History.open(after)
    steps = step or [first.steps[-1], second.steps[-1]]
    if len(steps) != 2:
        raise ValueError(f"expected --step twice, one for each history, got {len(steps)}")
    forked = parted_at(first, second)
    same_run = True if before.resolve() == after.resolve() else None if forked is not None else False
    matching = match_snapshots(first, second, step=(steps[0], steps[1]), same_run=same_run)
    frame = matching.to_frame()
    alike = compared_circuits(first[steps[0]], second[steps[1]], matching)
    if as_json:
        pairs = json.loads(frame[["before", "after", "similarity", "confidence"]].to_json(orient="records"))
        gone = {"disappeared": [n.name for n in matching.disappeared], "appeared": [n.name for n in matching.appeared]}
        return print_json({"pairs": pairs, **gone, "circuits": json.loads(alike.to_json(orient="records"))})
    if not for_people():
        return print_plain(frame)
    if forked is not None and same_run is None:
        print_sentences([f"One run up to step {forked:,}: every component is itself; similarity tells what is left."])
    print_table(f"{first.name} at step {steps[0]} and {second.name} at step {steps[1]}", frame)
    alone = [", ".join(node.name for node in some) or "none" for some in (matching.disappeared, matching.appeared)]
    print_sentences([f"without partner: {alone[0]} before, {alone[1]} after"])
    if len(alike):
        print_table("circuits, the components of the first called as their partners", alike)


def export(
    folders: HistoryFolders,
    out: Annotated[Path, typer.Option(help="Folder for the files.")],
    formats: Annotated[str, typer.Option("--format", help="Formats, with commas between them.")] = "json,csv,parquet",
    safe_csv: Annotated[
        bool, typer.Option("--safe-csv", help="Put ' before cells in CSV that a spreadsheet would run.")
    ] = False,
    threshold: Thresholds = None,
    task: Task = None,
    max_gap: MaxGap = 2,
    chance: Chance = None,
    ceiling: Ceiling = None,
    all_events: AllEvents = False,
) -> None:
    """Write everything found as files that other tools read.

    {formats}

    Example: `formation export recorded --format csv,parquet --out tables`
    """
    from tracking.results.exports import check_formats, export_timeline

    wanted = check_formats([part.strip() for part in formats.split(",") if part.strip()])  # before any work
    timeline = _timeline(folders, threshold, task, max_gap, all_events, chance, ceiling)
    for path in export_timeline(timeline, out, formats=wanted, safe_csv=safe_csv):
        print_line(path)


def report(
    folders: HistoryFolders,
    out: Annotated[Path, typer.Option(help="The page, one file that needs no network.")] = Path("report.html"),
    figure: Annotated[Path | None, typer.Option(help="Also a figure: PNG, SVG or PDF, by its ending.")] = None,
    why: Annotated[
        list[Path] | None, typer.Option(help="What `formation why --json` printed, to be shown too.")
    ] = None,
    threshold: Thresholds = None,
    task: Task = None,
    max_gap: MaxGap = 2,
    chance: Chance = None,
    ceiling: Ceiling = None,
    all_events: AllEvents = False,
) -> None:
    """Make one self-contained page to look at.

    Example: `formation report recorded --out report.html`
    """
    from tracking.viewer.report import report as write_report

    timeline = _timeline(folders, threshold, task, max_gap, all_events, chance, ceiling)
    print_line(write_report(timeline, out, why=why or ()))
    if figure is not None:
        from tracking.drawing.figures import plot

        plot(timeline).savefig(figure)
        print_line(figure)


def _timeline(
    folders: list[Path],
    threshold: list[str] | None,
    task: str | None,
    max_gap: int,
    all_events: bool = False,
    chance: list[str] | None = None,
    ceiling: list[str] | None = None,
) -> "Timeline":
    from tracking.history.history import open_histories
    from tracking.lifelines.lifelines import SHOWN
    from tracking.results.timeline import build_timeline

    levels = numbers(chance, "--chance"), numbers(ceiling, "--ceiling")
    histories, bars = open_histories(*folders), numbers(threshold, "--threshold")
    histories = [history.with_levels(*levels) for history in histories]
    least = 0.0 if all_events else SHOWN
    return build_timeline(histories, thresholds=bars, task=task, max_gap=max_gap, least=least)


def _checks(
    run: "RunTimeline", checkpoints: Path, threshold: list[str] | None, task: str | None, max_gap: int
) -> "tuple[EventCheck, ...]":
    """The events of a run as they are told, each checked with the checkpoints around it."""
    from tracking.checkpoints.runs import Run
    from tracking.experiments.event_checks import verify_events
    from tracking.lifelines.lifelines import link_lifelines

    least = run.analysis["least"]
    linked = link_lifelines(
        run.history, thresholds=numbers(threshold, "--threshold"), task=task, max_gap=max_gap, least=least
    )
    tasks = [task] if task else list(run.history.settings.get("tasks", ["induction"]))
    return verify_events(linked.events, Run.open(checkpoints), task=tasks[0])
