"""Verbs for tables that others made: import makes histories of them, join puts their numbers beside a recording."""

from pathlib import Path
from typing import Annotated

import typer

from tracking.cli.terminal import Ceiling, Chance, numbers, pairs, print_line, value_of

__all__ = ["import_", "join"]

Columns = Annotated[list[str] | None, typer.Option("--column", help="OURS=THEIRS, or OURS=FACTOR*THEIRS.")]


def import_(
    table: Annotated[
        Path, typer.Argument(help="CSV, TSV (gzipped or not) or Parquet: scores of components, or metrics alone.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the history; of many runs, for histories/RUN in it.")],
    edges: Annotated[Path | None, typer.Option(help="A table of edge scores.")] = None,
    metrics: Annotated[Path | None, typer.Option(help="A table of single numbers (loss, accuracy).")] = None,
    column: Columns = None,
    constant: Annotated[list[str] | None, typer.Option(help="OURS=VALUE for every row.")] = None,
    select: Annotated[list[str] | None, typer.Option(help="THEIRS=VALUE: keep only these rows.")] = None,
    hyperparameter: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, of the run.")] = None,
    run_column: Annotated[
        str | None, typer.Option("--run-column", help="Whose values name the runs; what differs by run is a setting.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The run's name.")] = None,
    chance: Chance = None,
    ceiling: Ceiling = None,
) -> None:
    """Make histories from tables of scores or metrics that somebody else computed.

    One row a score (step, component, measure, value) or a number (step, name, value), or a column a number.

    Example: `formation import scores.csv --out mine --column step=training_step --constant measure=induction`
    """
    from circuits.files import name_for_file
    from tracking.history.importing import import_history, import_runs

    options = {
        "columns": pairs(column, "--column"),
        "constants": pairs(constant, "--constant"),
        "select": pairs(select, "--select"),
        "hyperparameters": {key: value_of(text) for key, text in pairs(hyperparameter, "--hyperparameter").items()},
    }
    if run_column is not None:
        if edges is not None or metrics is not None or name is not None:
            raise ValueError("expected one table and no --name with --run-column, which names the runs")
        histories = import_runs(table, run_column=run_column, **options)
    else:
        histories = (import_history(table, edges=edges, metrics=metrics, name=name, **options),)
    for history in histories:
        history = history.with_levels(numbers(chance, "--chance"), numbers(ceiling, "--ceiling"))
        folder = out if run_column is None else out / "histories" / name_for_file(history.name)
        history.save(folder)
        found = [f"{measure} ({task})" for task, measure in history.measures] or list(history.metrics)
        heads = f", {len(history.graph.heads)} heads" if history.measures else ""
        print_line(f"{folder}: {len(history)} steps of {history.name}{heads}; {', '.join(found)}")


def join(
    history: Annotated[Path, typer.Argument(help="A history's folder.")],
    table: Annotated[
        Path, typer.Argument(help="A table by step or tokens, or results of lm-evaluation-harness: a file or a folder.")
    ],
    column: Columns = None,
    task: Annotated[str, typer.Option(help="What numbers are called by whose names have no task.")] = "joined",
    chance: Chance = None,
    ceiling: Ceiling = None,
) -> None:
    """Put the results of other tools beside what was recorded of the same checkpoints, as behaviour to be dated.

    Example: `formation join mine evaluations.csv`
    """
    from tracking.history.joining import join_table

    levels = {"chance": numbers(chance, "--chance"), "ceiling": numbers(ceiling, "--ceiling")}
    names, steps = join_table(history, table, columns=pairs(column, "--column"), task=task, **levels)
    print_line(f"{history}: {', '.join(names)} at {len(steps)} steps, from {steps[0]} to {steps[-1]}")
