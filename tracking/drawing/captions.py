"""Captions: what one has to say so that its figure can stand alone.

Probe, measure, definition and number of prompts; what bands, bars and marks mean; and nothing about what is not shown.
"""

from collections.abc import Collection

import numpy as np

from circuits.circuit import Circuit
from tracking.drawing.drawing import short_number
from tracking.results.results import RunTimeline

__all__ = ["circuit_caption", "figure_caption", "figure_title"]

MARKS = (
    "Lifelines: darker where the score is higher; circle: a component takes the role up; cross: gives it up; arrow: "
)
MARKS += "hands it over; pale: the role forms."
FLOOR = "Dashed: two halves of the prompts of one checkpoint, so where the lines meet no change can be told from noise."


def figure_title(run: RunTimeline) -> str:
    graph = run.history.graph
    # Imported scores of heads do not say whether there are MLPs as well.
    kind = "" if graph.mlp or not run.history.settings else ", attention only"
    name = run.name if len(run.name) <= 60 else f"{run.name[:59]}…"
    layers, heads = (
        f"{n} {word}{'' if n == 1 else 's'}" for n, word in ((graph.n_layers, "layer"), (graph.n_heads, "head"))
    )
    return f"{name}  ·  {layers} × {heads}{kind}"


def figure_caption(run: RunTimeline, shows: Collection[str]) -> str:
    """What a figure says that shows some of `curves`, `scores`, `formation`, `lifelines`, `similarity`, `circuit`."""
    history = run.history
    estimates = [score.estimate for record in history.records.values() for score in record.scores.values()]
    known = any(np.isfinite(estimate.std_error).any() for estimate in estimates)
    first, last = (short_number(step) for step in (history.steps[0], history.steps[-1]))
    count = len(history.steps)
    parts = [f"{count} checkpoints from step {first} to {last}." if count > 1 else f"One checkpoint, at step {first}."]
    tasks = sorted({task for task, _ in history.measures})
    if tasks and {"scores", "lifelines", "formation"} & set(shows):
        prompts = sorted({estimate.n_prompts for estimate in estimates} - {0})
        number = f" on {' to '.join(str(n) for n in sorted({prompts[0], prompts[-1]}))} prompts" if prompts else ""
        parts.append(f"Head scores measured on {', '.join(tasks)}{number}.")
    if {"scores", "curves"} & set(shows):
        parts.append("Bands: two standard errors." if known else "No standard errors came with these scores.")
    if "scores" in shows:
        parts.append("Grey: components that never carry the role.")
    if "formation" in shows:
        parts += _formation(run, known)
    if "lifelines" in shows:
        bars = _thresholds(run)
        parts.append(MARKS + (f" A role is carried from a score of {bars} on." if bars else ""))
    if "circuit" in shows:
        parts.append(
            "Circuit: edges wide where their score is high, faint where it is uncertain, dashed where negative."
        )
    if "similarity" in shows:
        parts.append(FLOOR)
    return " ".join(parts)


def _formation(run: RunTimeline, known: bool) -> list[str]:
    definitions = list(dict.fromkeys(run.table("formation")["definition"].dropna()))
    if not definitions:
        return []
    bars = (
        f"Formation by {', '.join(definitions)}, in this order from the top: from the last checkpoint without to the "
    )
    bars += "first one with"
    if known:
        bars += f"; dark: {run.analysis.get('confidence', 0.9):.0%} interval; tick: the date; "
        bars += "dots: at two and four thirds of its bar"
    return [f"{bars}; an arrow on the left: there at the first checkpoint."]


def _thresholds(run: RunTimeline) -> str:
    """`0.3`, or role by role where the thresholds differ."""
    roles: dict[str, list[str]] = {}
    for role, bar in run.analysis.get("thresholds", {}).items():
        roles.setdefault(f"{bar:.3g}", []).append(role)
    if len(roles) < 2:
        return "".join(roles)
    return " or ".join(f"{bar} ({', '.join(names)})" for bar, names in roles.items())


def circuit_caption(circuit: Circuit, drawn: int) -> str:
    """What is drawn of a circuit, how it was scored, and how well it does the task."""
    number = f"{drawn:,} of {circuit.n_edges:,} edges, the largest" if drawn < circuit.n_edges else f"{drawn:,} edges"
    about = f"{number}; task {circuit.status.replace('_', ' ')}"
    if circuit.faithfulness is not None:
        value, error = float(circuit.faithfulness.value), float(circuit.faithfulness.std_error)
        about += f", faithfulness {value:.2f} ± {error:.2f} (standard error)"
    prompts = circuit.scores.estimate.n_prompts
    on = f" on {prompts} prompts" if prompts else ""
    return f"{about}. Width: {circuit.scores.measure} score{on}; faint: uncertain; dashed: negative."
