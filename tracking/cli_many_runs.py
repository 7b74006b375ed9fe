"""What can be asked on the command line about many runs: sweep, compare, forecast, design."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracking.terminal import Json, print_json, print_table, progress_bars, reporter

if TYPE_CHECKING:
    from tracking.history import History

__all__ = ["compare", "design", "forecast", "sweep"]

Folders = Annotated[list[Path], typer.Argument(help="Histories' folders, or that of a sweep.")]


def sweep(
    plan: Annotated[Path, typer.Argument(help="A TOML file: [base], [grid], [[settings]], [random], seeds.")],
    out: Annotated[Path, typer.Option(help="Folder for the runs and histories; what is missing there is done.")],
    workers: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    cluster: Annotated[str | None, typer.Option(help="A Ray cluster: its address, auto, or local.")] = None,
    as_json: Json = False,
) -> None:
    """Train and record many runs: a grid, a list or random draws of settings, with seeds as replicates.

    Example: `formation sweep sweep.toml --out rates --workers 2`
    """
    from tracking.sweep import run_sweep

    with progress_bars() as progress:
        result = run_sweep(plan, out, workers=workers, cluster=cluster, progress=reporter(progress))
    if as_json:
        print_json({"histories": [str(folder) for folder in result.folders], "failed": dict(result.failed)})
    else:
        typer.echo(f"{out}: {len(result.done)} runs trained and recorded; now: formation compare {out} --by ...")
    for name, reason in result.failed.items():
        typer.echo(f"not done: {name}: {reason}", err=True)
    if result.failed:
        raise typer.Exit(3 if result.done else 1)


def compare(
    folders: Folders,
    by: Annotated[list[str], typer.Option("--by", help="A hyperparameter; may be given several times.")],
    unit: Annotated[str, typer.Option(help="Compare times in steps or tokens; auto: tokens if steps differ.")] = "auto",
    definition: Annotated[
        list[str] | None, typer.Option(help="half-rise | logistic | change-point; may be given several times.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say how hyperparameters move formation, run by run, with intervals, and what else shifts.

    Example: `formation compare rates --by learning_rate --by repeat_probability`
    """
    from tracking.comparison import compare as compare_histories
    from tracking.shifts import describe_shifts, run_traits, trait_shifts

    if unit not in ("auto", "steps", "tokens"):
        raise ValueError(f"expected --unit auto, steps or tokens, got {unit!r}")
    histories = _histories(folders)
    found = compare_histories(histories, by=by, unit=unit, definitions=tuple(definition or ("half-rise",)))
    shifts = trait_shifts(run_traits(histories), {h.name: h.hyperparameters for h in histories}, by=by)
    if as_json:
        return print_json({**found.to_dict(), "shifts": json.loads(shifts.to_json(orient="records"))})
    shown = ["hyperparameter", "contrast", "role", "clock", "definition", "estimate", "low", "high"]
    shown += ["p_value", "q_value", "n_runs", "n_formed"]
    print_table(f"Log ratio of formation times ({found.unit})", found.effects[shown])
    print_table("How many runs form it", found.formed)
    for sentence in (*found.sentences, *describe_shifts(shifts)):
        typer.echo(sentence)


def forecast(
    folders: Folders,
    seen: Annotated[float, typer.Option(help="Share of each run that may be looked at.")] = 0.2,
    leave: Annotated[str, typer.Option(help="What is left out when a run is foretold: run | setting.")] = "run",
    metric: Annotated[
        list[str] | None, typer.Option(help="Also where this number ends; may be given several times.")
    ] = None,
    unlike: Annotated[str | None, typer.Option(help="Also which runs leave the others behind in this number.")] = None,
    as_json: Json = False,
) -> None:
    """Foretell from the first part of each run when every role forms, and judge that against the median and the law.

    Example: `formation forecast rates --seen 0.3 --metric training/loss`
    """
    from tracking.evidence import evidence
    from tracking.forecast import forecast_metric, forecast_runs
    from tracking.outliers import describe_unlike, unlike_the_others

    if leave not in ("run", "setting"):
        raise ValueError(f"expected --leave run or setting, got {leave!r}")
    if not 0 < seen < 1:
        raise ValueError(f"expected --seen between 0 and 1, got {seen}")
    known = evidence(_histories(folders))
    found = [forecast_runs(known, seen=seen, leave=leave)]
    found += [forecast_metric(known, name, seen=seen, leave=leave) for name in metric or []]
    alarms = None if unlike is None else unlike_the_others(known.series, unlike)
    sentences = [sentence for one in found for sentence in one.sentences]
    sentences += [] if alarms is None or unlike is None else describe_unlike(alarms, unlike)
    if as_json:
        tables: dict[str, Any] = {"predictions": found[0].predictions, "scores": found[0].scores}
        tables |= {f"{name}": one.predictions for name, one in zip(metric or [], found[1:], strict=True)}
        tables |= {} if alarms is None else {"alarms": alarms}
        rows = {name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}
        return print_json({**rows, "sentences": sentences})
    print_table("Foretold", found[0].predictions)
    print_table("Judged on what was left out", found[0].scores)
    for sentence in sentences:
        typer.echo(sentence)


def design(
    space: Annotated[Path, typer.Argument(help="A TOML file: [base] for all runs, [space] to choose from.")],
    goal: Annotated[str, typer.Option(help="Such as 'induction midpoint < 300' or 'minimise training/loss'.")],
    out: Annotated[Path, typer.Option(help="Folder for the runs; the same command goes on from what is there.")],
    budget: Annotated[int, typer.Option(min=1, help="Settings to try.")] = 40,
    confirm: Annotated[int, typer.Option(min=0, help="Runs of the best setting with fresh seeds.")] = 5,
    prune: Annotated[bool, typer.Option(help="Stop runs that hardly can be the best, by the forecast.")] = True,
    seed: Annotated[int, typer.Option(help="Of the search.")] = 0,
    as_json: Json = False,
) -> None:
    """Search for the settings that bring a formation forward, hold it back, hit a step, or move a recorded number.

    Example: `formation design space.toml --goal "induction midpoint < 300" --budget 40 --out search`
    """
    from tracking.design import design as search

    options = {"budget": budget, "confirm": confirm, "prune": prune, "seed": seed}
    with progress_bars() as progress:
        found = search(space, goal, out=out, progress=reporter(progress), **options)
    if as_json:
        tables = {"trials": found.trials, "confirmed": found.confirmed}
        rows = {name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}
        return print_json({"best": dict(found.best), **rows, "saved": found.saved, "sentences": list(found.sentences)})
    print_table(f"Tried for {found.goal}", found.trials)
    for sentence in found.sentences:
        typer.echo(sentence)


def _histories(folders: list[Path]) -> "list[History]":
    """Those in the folders; the folder of a sweep is all of its histories."""
    from tracking.history import History

    places: list[Path] = []
    for folder in folders:
        inside = sorted(path.parent for path in folder.glob("histories/*/history.json"))
        places += inside or [folder]
    return [History.open(place) for place in places]
