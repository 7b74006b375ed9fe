"""Verbs about what comes first: which curve leads which, and early warnings over a history that grows."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracking.cli.terminal import Json, for_people, print_json, print_plain, print_sentences, print_table

if TYPE_CHECKING:
    from tracking.comparison.run_set import RunSet
    from tracking.forecasting.early_warning import Alarm, Departure, Precursor
    from tracking.history.history import History

__all__ = ["leads", "watch"]

PATIENCE = 20
"""Looks at a history that does not grow any more, after which watching ends."""


def leads(
    folders: Annotated[list[Path], typer.Argument(help="Histories' folders, or that of a sweep.")],
    curve: Annotated[
        list[str] | None, typer.Option(help="A recorded number or 'ROLE by CLOCK'; give two or more.")
    ] = None,
    unit: Annotated[str, typer.Option(help="Leads in steps or tokens; auto: tokens if steps differ.")] = "auto",
    as_json: Json = False,
) -> None:
    """Say which of two curves moves first over all runs, by how much, and in how many of them.

    Example: `formation leads rates --curve "best previous-token" --curve "induction by form"`
    """
    from tracking.comparison.leads import describe_leads
    from tracking.comparison.leads import leads as leads_of
    from tracking.comparison.run_set import run_set
    from tracking.history.history import open_histories

    measured = {"auto": "auto", "steps": "steps", "tokens": "tokens"}.get(unit)
    if measured is None:
        raise ValueError(f"expected --unit auto, steps or tokens, got {unit!r}")
    options: dict[str, Any] = {"unit": measured}
    table = leads_of(run_set(open_histories(*folders)), curves=curve or [], **options)
    sentences = describe_leads(table)
    if as_json:
        import json

        return print_json({"leads": json.loads(table.to_json(orient="records")), "sentences": sentences})
    if not for_people():
        return print_plain(table)
    print_sentences(sentences)
    shown = ["first", "second", "n_runs", "lead", "low", "high", "p_value"]
    print_table(f"Which comes first, and by how many {table['unit'].iloc[0]}", table[shown])


def watch(
    folder: Annotated[Path, typer.Argument(help="The history to watch; it may still grow.")],
    like: Annotated[list[Path], typer.Option(help="Finished histories of the same kind, or the folder of a sweep.")],
    role: Annotated[str, typer.Option(help="The role whose formation is to be warned of.")] = "induction",
    clock: Annotated[str, typer.Option(help="By which clock: form | function | behaviour.")] = "form",
    signal: Annotated[str | None, typer.Option(help="The recorded number to watch; chosen where not given.")] = None,
    false_alarms: Annotated[float, typer.Option(help="Share of runs alike that may be warned wrongly.")] = 0.05,
    follow: Annotated[float | None, typer.Option(help="Look again every so many seconds, while it grows.")] = None,
    as_json: Json = False,
) -> None:
    """Warn when a formation is due or a run leaves what its kind does, with a bounded rate of false alarms.

    Example: `formation watch demo/history --like rates --role induction`
    """
    from tracking.comparison.run_set import run_set
    from tracking.forecasting.early_warning import learn_departure, learn_precursor
    from tracking.history.history import History, open_histories

    if not 0 < false_alarms < 1:
        raise ValueError(f"expected --false-alarms between 0 and 1, got {false_alarms}")
    known = _others(run_set(open_histories(*like)), History.open(folder).name)
    precursor = learn_precursor(known, role=role, clock=clock, signal=signal, false_alarms=false_alarms)
    departure = learn_departure(known, signal=precursor.signal, false_alarms=false_alarms)
    if not as_json:
        print_sentences((precursor.sentence, departure.sentence))
        if precursor.rule:
            print_sentences([f"As a rule for an intervention: when {precursor.rule}"])
    said: list[Alarm] = []
    history, quiet = History.open(folder), 0
    while True:
        fresh = [
            alarm for alarm in _alarms(history, (precursor, departure)) if alarm.about not in {a.about for a in said}
        ]
        said += fresh
        print_sentences(map(str, fresh if not as_json else ()))
        if follow is None or quiet >= PATIENCE or len(said) == 2:
            break
        time.sleep(follow)
        again = History.open(folder)
        quiet, history = (quiet + 1 if again.steps == history.steps else 0), again
    count = {0: "no alarm", 1: "one alarm"}.get(len(said), f"{len(said)} alarms")
    last = f"{history.name} was looked at until step {history.steps[-1]}: {count}."
    if as_json:
        from dataclasses import asdict

        learned = {"precursor": {**asdict(precursor), "found": precursor.found, "rule": precursor.rule}}
        sentences = [precursor.sentence, departure.sentence, *map(str, said), last]
        return print_json({**learned, "alarms": [asdict(alarm) for alarm in said], "sentences": sentences})
    print_sentences([last])


def _others(runs: "RunSet", name: str) -> "RunSet":
    """The runs without that which is watched."""
    from dataclasses import replace

    return replace(
        runs,
        formation=runs.formation[runs.formation["run"] != name],
        settings={run: values for run, values in runs.settings.items() if run != name},
        series=runs.series[runs.series["run"] != name],
    )


def _alarms(history: "History", rules: "tuple[Precursor, Departure]") -> "list[Alarm]":
    from tracking.comparison.run_set import series_of

    series, found = series_of(history), []
    for rule in rules:
        part = series[series["name"] == rule.signal].dropna(subset=["value"]).sort_values("step")
        if len(part):
            steps, values = (part[column].to_numpy(dtype=float) for column in ("step", "value"))
            found += [alarm] if (alarm := rule.alarm(history.name, steps, values)) else []
    return found
