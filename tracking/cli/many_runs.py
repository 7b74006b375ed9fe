"""Verbs about many runs: sweep, compare, forecast, design."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracking.cli.terminal import (
    Json,
    for_people,
    print_json,
    print_line,
    print_list,
    print_plain,
    print_sentences,
    print_table,
    print_wrapped,
    progress_bars,
    reporter,
    terminal_width,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Drawing

    from tracking.comparison.comparison import Comparison
    from tracking.comparison.run_set import Rises, RunSet
    from tracking.forecasting.forecast import Forecast
    from tracking.history.history import History

__all__ = ["compare", "design", "forecast", "sweep"]

MOST_LINES = 16
"""Of one list or table on a terminal: --details, --json and pipes give all."""

Folders = Annotated[list[Path], typer.Argument(help="Histories' folders, or that of a sweep.")]
Figure = Annotated[Path | None, typer.Option(help="Also draw it: a .png, .svg or .pdf file.")]


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
    from tracking.experiments.sweep import run_sweep

    with progress_bars() as progress:
        result = run_sweep(plan, out, workers=workers, cluster=cluster, progress=reporter(progress))
    if as_json:
        print_json({"histories": [str(folder) for folder in result.folders], "failed": dict(result.failed)})
    else:
        then = f"; now: formation compare {out} --by ..." if len(result.done) > 1 else ""
        print_sentences([f"{out}: {len(result.done)} runs trained and recorded{then}"])
    for name, reason in result.failed.items():
        print_line(f"not done: {name}: {reason}", err=True)
    if result.failed:
        raise typer.Exit(3 if result.done else 1)


def compare(
    folders: Folders,
    by: Annotated[list[str], typer.Option("--by", help="A hyperparameter; may be given several times.")],
    unit: Annotated[str, typer.Option(help="Compare times in steps or tokens; auto: tokens if steps differ.")] = "auto",
    definition: Annotated[
        list[str] | None,
        typer.Option(help="threshold | half-rise | logistic | change-point; may be given several times."),
    ] = None,
    rise: Annotated[
        str, typer.Option(help="Of a curve that rises more than once: lasting | first | a number.")
    ] = "lasting",
    details: Annotated[bool, typer.Option("--details", help="Also the tables and what each answer rests on.")] = False,
    figure: Figure = None,
    as_json: Json = False,
) -> None:
    """Say how hyperparameters move formation: one line for each and each role, a factor with its interval.

    With --details also what else shifts, how formation scales, and what differs in pairs of runs.

    Example: `formation compare rates --by learning_rate --by repeat_probability --figure rates.png`
    """
    from tracking.comparison.comparison import compare_formation
    from tracking.comparison.run_set import check_names, run_set, settings_of

    if unit not in ("auto", "steps", "tokens"):
        raise ValueError(f"expected --unit auto, steps or tokens, got {unit!r}")
    _check_figure(figure)
    histories = _histories(folders)
    check_names(settings_of(histories), by)
    runs = run_set(histories, definitions=tuple(definition or ("threshold",)))
    found = compare_formation(runs, by=by, unit=unit, rises=_rises(rise))
    if figure is not None:
        from tracking.drawing.figures_comparison import plot_comparison

        _save(plot_comparison(runs, by=by, comparison=found), figure)
    if not details and not as_json:
        return _answers(found)
    tables, said = _further(histories, runs, found, by)
    if as_json:
        return print_json({**found.to_dict(), **_rows(tables), "further_sentences": said})
    _answers(found)
    shown = ["hyperparameter", "contrast", "role", "clock", "definition", "estimate", "low", "high"]
    shown += ["p_value", "q_value", "n_runs", "n_formed"]
    print_table(f"Log ratio of formation times ({found.unit})", found.effects[shown])
    print_table("How many runs form it", found.formed)
    if len(tables["scaling"]):
        print_table("How formation scales, in tokens, with 90% intervals", tables["scaling"])
    if len(tables["pairs"]):
        print_table("Pairs of runs alike in all else: mean difference of what was recorded", _pairs_shown(tables))
    print_sentences((*found.sentences, *said["law"], *said["shifts"], *_told(tables["pairs"])))


def _answers(found: "Comparison") -> None:
    """The answers, what moves a role first; then what was compared.  Into a pipe: the table of effects."""
    from tracking.comparison.answers import at_a_glance

    if not for_people():
        return print_plain(found.effects[PIPED])
    print_sentences([f"Time of formation in {found.unit}, as a factor with its {found.confidence:.0%} interval:"])
    for line in at_a_glance(found.effects):
        indent = line[: len(line) - len(line.lstrip())]
        print_wrapped(line.lstrip(), terminal_width(), indent, f"{indent}    ")
    print_sentences(found.sentences[-1:])


PIPED = ["hyperparameter", "contrast", "role", "clock", "definition", "unit", "estimate", "low", "high", "p_value"]
PIPED += ["q_value", "verdict", "n_runs", "n_formed"]


def _rises(text: str) -> "Rises":
    """Raises:
    ValueError: it is neither lasting, nor first, nor a number.
    """
    if text in ("lasting", "first"):
        return "lasting" if text == "lasting" else "first"
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise ValueError(f"expected --rise lasting, first or a number from 1 on, got {text!r}")


def _further(
    histories: "list[History]", runs: "RunSet", found: "Comparison", by: list[str]
) -> tuple[dict[str, "pd.DataFrame"], dict[str, list[str]]]:
    """What else shifts, how formation scales, and what differs in pairs: tables, and sentences."""
    from tracking.comparison.paired_runs import compare_pairs, describe_pairs
    from tracking.comparison.scaling import BATCH_CONTEXT, describe_scaling, scaling_laws
    from tracking.comparison.traits import describe_shifts, run_traits, trait_shifts

    shifts = trait_shifts(run_traits(histories, runs), runs.settings, by=by)
    scaling = scaling_laws(runs)
    law = scaling[scaling["quantity"].str.contains("law") | scaling["quantity"].str.endswith(BATCH_CONTEXT)]
    clock = "step" if found.unit == "steps" else "tokens"
    pairs = compare_pairs(_metrics(histories), runs.settings, by=by, clock=clock)
    said = {"scaling": describe_scaling(scaling), "pairs": describe_pairs(pairs)}
    said |= {"law": describe_scaling(law), "shifts": describe_shifts(shifts)}
    return {"shifts": shifts, "scaling": scaling, "pairs": pairs}, said


def _pairs_shown(tables: "dict[str, pd.DataFrame]") -> "pd.DataFrame":
    return tables["pairs"][PAIR_COLUMNS]


PAIR_COLUMNS = ["hyperparameter", "contrast", "name", "n_pairs", "n_higher", "difference", "low", "high"]
PAIR_COLUMNS += ["p_value", "q_value"]


def _told(pairs: "pd.DataFrame") -> list[str]:
    """What stands in pairs after correction, and how many comparisons there were."""
    from tracking.comparison.paired_runs import describe_pairs

    if not len(pairs):
        return []
    sure = pairs[pairs["q_value"] <= 0.05]
    count = f"{len(pairs)} recorded numbers were compared in pairs of runs; {len(sure)} differ after correction."
    return [*describe_pairs(sure), count]


def forecast(
    folders: Folders,
    seen: Annotated[float, typer.Option(help="Share of the planned length of the runs that may be looked at.")] = 0.2,
    at: Annotated[
        float | None, typer.Option(help="Step until which runs may be looked at, in place of --seen.")
    ] = None,
    leave: Annotated[str, typer.Option(help="What is left out when a run is forecast: run | setting.")] = "run",
    metric: Annotated[
        list[str] | None, typer.Option(help="Also where this number ends; may be given several times.")
    ] = None,
    unlike: Annotated[str | None, typer.Option(help="Also which runs leave the others behind in this number.")] = None,
    register: Annotated[
        Path | None, typer.Option(help="Write what is predicted of unfinished runs into this new file, with a hash.")
    ] = None,
    settle: Annotated[Path | None, typer.Option(help="Judge the predictions of such a file by these runs.")] = None,
    details: Annotated[bool, typer.Option("--details", help="Also the tables of forecasts and scores.")] = False,
    figure: Figure = None,
    as_json: Json = False,
) -> None:
    """Forecast from the first part of each run when every role forms, and judge that against the median and the law.

    Example: `formation forecast rates --seen 0.3 --metric training/loss`
    """
    from tracking.comparison.run_set import run_set
    from tracking.forecasting.forecast import forecast_metric, forecast_runs
    from tracking.forecasting.outliers import describe_unlike, unlike_the_others

    if leave not in ("run", "setting"):
        raise ValueError(f"expected --leave run or setting, got {leave!r}")
    if not 0 < seen < 1:
        raise ValueError(f"expected --seen between 0 and 1, got {seen}")
    _check_figure(figure)
    known = run_set(_histories(folders))
    if register is not None or settle is not None:
        return _registered(known, register, settle, as_json)
    options: dict[str, Any] = {"seen": seen, "at": at, "leave": leave}
    found = [forecast_runs(known, **options)]
    found += [forecast_metric(known, name, **options) for name in metric or []]
    alarms = None if unlike is None else unlike_the_others(known.series, unlike)
    sentences = [sentence for one in found for sentence in one.sentences]
    sentences += [] if alarms is None or unlike is None else describe_unlike(alarms, unlike)
    if figure is not None:
        from tracking.drawing.figures_forecast import plot_forecast

        _save(plot_forecast(found[0]), figure)
    if as_json:
        tables: dict[str, Any] = {"predictions": found[0].predictions, "scores": found[0].scores, "used": found[0].used}
        tables |= {f"{name}": one.predictions for name, one in zip(metric or [], found[1:], strict=True)}
        tables |= {} if alarms is None else {"alarms": alarms}
        return print_json({**_rows(tables), "sentences": sentences})
    if details:
        print_table("Forecast", found[0].predictions)
        print_table("Judged on what was left out", found[0].scores)
        print_table("What the forecasts rest on", found[0].used)
    if details:
        return print_sentences(sentences)
    if not for_people():
        return print_plain(found[0].predictions)
    _foretold(found[0], leave)
    print_sentences(sentences[len(found[0].sentences) :])
    print_sentences(["More: --details (each forecast, score and signal), --figure, --json."])


def _foretold(found: "Forecast", leave: str) -> None:
    """How good a forecast is, one line for each role and clock; then the dates of what is still to come."""
    import numpy as np

    from tracking.forecasting.scoring import at_a_glance
    from tracking.formation.sentences import span_text

    width, table = terminal_width(), found.predictions[found.predictions["predictor"] == "forecast"]
    if not len(table):
        return print_wrapped(found.sentences[0], width)
    cut, horizon, unit = (table[name].iloc[0] for name in ("cut", "horizon", "unit"))
    print_wrapped(f"Dates foretold from what is known by {cut:,.0f} {unit}, each {leave} left out in turn:", width)
    lines = at_a_glance(found.scores, found.used)
    print_list(lines, width, MOST_LINES, "more")
    open_ended = table[~np.isfinite(table["seen_after"]) & (table["seen_before"] < horizon)]
    if len(open_ended):
        rows = open_ended.head(MOST_LINES)
        span = [span_text(*ends) for ends in rows[["low", "high"]].itertuples(index=False)]
        shown = rows[["run", "role", "clock"]].assign(date=rows["midpoint"].round(), interval=span)
        print_table(f"Still to come, in {unit}", shown.assign(probability=rows["p_forms"]))


def _registered(known: "RunSet", new: Path | None, old: Path | None, as_json: bool) -> None:
    """Write a register, or judge one."""
    from tracking.forecasting.register import describe_settled, register, settle

    if new is not None and old is not None:
        raise ValueError("expected one of --register and --settle, got both; settle the old file first")
    if new is not None:
        table = register(known, new)
        sentences = [f"{len(table)} predictions are written to {new}; judge them with --settle {new}."]
    else:
        table = settle(known, Path(str(old)))
        sentences = describe_settled(table)
    if as_json:
        return print_json({**_rows({"predictions": table}), "sentences": sentences})
    if not for_people():
        return print_plain(table)
    print_sentences(sentences)
    print_table("Predictions", table.head(MOST_LINES))


def design(
    space: Annotated[Path, typer.Argument(help="A TOML file: [base] for all runs, [space] to choose from.")],
    goal: Annotated[str, typer.Option(help="Such as 'induction midpoint < 300' or 'minimise training/loss'.")],
    out: Annotated[Path, typer.Option(help="Folder for the runs; the same command goes on from what is there.")],
    budget: Annotated[int, typer.Option(min=1, help="Settings to try.")] = 40,
    confirm: Annotated[int, typer.Option(min=0, help="Runs of the best setting with fresh seeds.")] = 5,
    prune: Annotated[bool, typer.Option(help="Stop runs that hardly can be the best, by the forecast.")] = True,
    seed: Annotated[int, typer.Option(help="Of the search.")] = 0,
    start: Annotated[
        Path | None, typer.Option(help="What `formation why --json` printed: its response is tried first.")
    ] = None,
    sampler: Annotated[str, typer.Option(help="tpe (learns from what was tried) | random.")] = "tpe",
    as_json: Json = False,
) -> None:
    """Search for the settings that bring a formation forward, hold it back, hit a step, or move a recorded number.

    Example: `formation design space.toml --goal "induction midpoint < 300" --budget 10 --out search`
    """
    from tracking.experiments.design import design as search

    options: dict[str, Any] = {"budget": budget, "confirm": confirm, "prune": prune, "seed": seed, "start": start}
    options["sampler"] = sampler
    with progress_bars() as progress:
        found = search(space, goal, out=out, progress=reporter(progress), **options)
    if as_json:
        rows = _rows({"trials": found.trials, "confirmed": found.confirmed})
        return print_json({"best": dict(found.best), **rows, "saved": found.saved, "sentences": list(found.sentences)})
    if not for_people():
        return print_plain(found.trials)
    print_sentences(found.sentences)
    best = found.trials.sort_values("cost", kind="stable").head(MOST_LINES)
    print_table(f"The {len(best)} best of {len(found.trials)} tried for {found.goal}", best)


def _histories(folders: list[Path]) -> "list[History]":
    from tracking.history.history import open_histories

    return open_histories(*folders)


def _metrics(histories: "list[History]") -> "pd.DataFrame":
    import pandas as pd

    return pd.concat([history.to_frame("metrics") for history in histories], ignore_index=True)


def _rows(tables: "dict[str, pd.DataFrame]") -> dict[str, Any]:
    return {name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}


def _check_figure(place: Path | None) -> None:
    """Raises:
    ValueError: no figure can be written as that kind of file, or there is no such folder.
    """
    if place is not None and place.suffix not in (".png", ".svg", ".pdf"):
        raise ValueError(f"expected --figure with a name that ends in .png, .svg or .pdf, got {place}")
    if place is not None and not place.parent.is_dir():
        raise ValueError(f"no folder {place.parent} to write the figure into; make it first")


def _save(drawing: "Drawing", place: Path) -> None:
    drawing.savefig(place, dpi=200)
    print_line(f"figure: {place}", err=True)
