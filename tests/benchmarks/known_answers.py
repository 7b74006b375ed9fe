"""Runs whose answers are known beforehand: the demo's model, stepped into in six ways, with five seeds each.

Each question is asked of branches of the same five parents.  `make` trains and records what is not there yet; it takes
about two minutes a seed.

    nothing repeats      no repeats from step 0: nothing to learn induction from
    repeats return       no repeats before step 300, and from then on as usual
    no first layer       every head of layer 0 ablated: nothing for induction to be composed of
    given a first layer  one head of layer 0 clamped to previous-token from step 0
    no induction head    the strongest induction head of step 400 ablated from there on
    no idle head         the head of layer 0 that looks back least in the parent ablated from step 0
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
LATE = 400


@dataclass(frozen=True)
class Asked:
    """One question of one seed: the histories of branch and control."""

    branch: History
    control: History
    intervention: str


def make(folder: Path, seed: int) -> Mapping[str, Asked]:
    """The answers of one seed, by question."""
    home = folder / f"seed{seed}"
    config = TrainingConfig(name=f"parent-seed{seed}", steps=STEPS, checkpoints=CHECKPOINTS, seed=seed)
    parent = train(config, home / "parent")
    usual = recorded(parent, home / "parent.history")
    back = usual.score("previous-token").value.sel(step=STEPS).to_series()
    idle = back[[name for name in back.index if name.startswith("a0")]].idxmin()
    best = usual.score("induction").value.sel(step=LATE).to_series().idxmax()
    questions = {
        "nothing repeats": (0, ["set repeat_probability=0"]),
        "repeats return": (0, [f"set repeat_probability=0 until {BACK}"]),
        "no first layer": (0, ["ablate a0"]),
        "given a first layer": (0, ["clamp a0.h0 to previous-token"]),
        "no induction head": (LATE, [f"ablate {best}"]),
        "no idle head": (0, [f"ablate {idle}"]),
    }
    return {name: ask(parent, usual, home / name.replace(" ", "-"), *given) for name, given in questions.items()}


def ask(parent: Run, usual: History, out: Path, at: int, interventions: list[str]) -> Asked:
    """Branch and record; the control is the parent bit for bit, so the parent's history is the control's."""
    made = branch(parent, at=at, interventions=interventions, out=out)
    assert made.different == ()
    return Asked(recorded(made.run, out / "history"), usual, str(made.interventions[0]))


def recorded(run: Run, folder: Path) -> History:
    record(run, folder, n_prompts=32)
    return History.open(folder)
