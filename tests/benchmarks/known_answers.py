"""Runs whose answers are known beforehand: the demo's model, stepped into in seven ways, with five seeds each.

Each question is asked of branches of the same five parents.  `make` trains and records what is not there yet, about
three minutes a seed; with `FORMATION_BENCHMARKS` set to a folder, what was made stays.

    nothing repeats      no repeats from step 0: nothing to learn induction from
    repeats return       no repeats before step 300, and from then on as usual
    no first layer       every head of layer 0 ablated: nothing for induction to be composed of
    given a first layer  one head of layer 0 clamped to previous-token from step 0
    first one gone       the first induction head ablated as soon as it is one and no other head is
    idle head held       the head of layer 0 that looks back least in the parent: its weights frozen from step 0
    idle head gone       the same head ablated from step 0
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tracking.branching import branch
from tracking.history import History
from tracking.recording import record
from tracking.runs import Run
from tracking.training import TrainingConfig, train

SEEDS = range(5)
STEPS = 800
CHECKPOINTS = "0..800:10"
BACK = 300
FORMED = 0.3
"""The induction score from which on a head carries the role (`tracking.roles`)."""


@dataclass(frozen=True)
class Asked:
    """One question of one seed: the histories of branch and control, and the step of the branching."""

    branch: History
    control: History
    intervention: str
    at: int


def make(folder: Path, seed: int) -> Mapping[str, Asked]:
    """The answers of one seed, by question."""
    home = folder / f"seed{seed}"
    config = TrainingConfig(name=f"parent-seed{seed}", steps=STEPS, checkpoints=CHECKPOINTS, seed=seed)
    parent = train(config, home / "parent")
    usual = recorded(parent, home / "parent.history")
    back = usual.score("previous-token").value.sel(step=STEPS).to_series()
    idle = back[[name for name in back.index if name.startswith("a0")]].idxmin()
    at, first = first_induction_head(usual)
    questions = {
        "nothing repeats": (0, "set repeat_probability=0"),
        "repeats return": (0, f"set repeat_probability=0 until {BACK}"),
        "no first layer": (0, "ablate a0"),
        "given a first layer": (0, "clamp a0.h0 to previous-token"),
        "first one gone": (at, f"ablate {first}"),
        "idle head held": (0, f"freeze {idle}"),
        "idle head gone": (0, f"ablate {idle}"),
    }
    return {name: ask(parent, usual, home / name.replace(" ", "-"), *given) for name, given in questions.items()}


def first_induction_head(history: History) -> tuple[int, str]:
    """The first step at which a head is an induction head, and the strongest one there."""
    scores = history.score("induction").value
    at = int(scores.step[(scores.max("component") >= FORMED).values][0])
    return at, str(scores.sel(step=at).to_series().idxmax())


def ask(parent: Run, usual: History, out: Path, at: int, intervention: str) -> Asked:
    """Branch and record; the control is the parent bit for bit, so the parent's history is the control's."""
    made = branch(parent, at=at, interventions=[intervention], out=out)
    assert made.different == ()
    return Asked(recorded(made.run, out / "history"), usual, str(made.interventions[0]), at)


def recorded(run: Run, folder: Path) -> History:
    record(run, folder, n_prompts=32)
    return History.open(folder)
