"""Runs whose answers are known beforehand: the demo's model, stepped into in seven ways, with five seeds each.

Each question is asked of branches of the same five parents.  `make` trains and records what is not there yet, about
three minutes a seed; with `FORMATION_BENCHMARKS` set to a folder, what was made stays.

    nothing repeats      no repeats from step 0: nothing to learn induction from
    repeats return       no repeats before step 100, and from then on as usual; at a learning rate of .001, since at the
                         demo's own .003 a hundred steps of noise keep induction from forming for 2,000 steps and more
    no first layer       every head of layer 0 ablated: nothing for induction to be composed of
    given a first layer  one head of layer 0 clamped to previous-token from step 0
    a spare takes over   all heads of layer 1 are induction heads; one is put away and made new, then the others ablated
    idle head held       the head of layer 0 that looks back least in the parent: its weights frozen from step 0
    idle head gone       the same head ablated from step 0
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tracking.branching import branch
from tracking.history import History
from tracking.recording import record
from tracking.runs import Run
from tracking.training import TrainingConfig, train

SEEDS = range(5)
STEPS = 800
CHECKPOINTS = "0..800:10"
BACK, SLOWER, LONGER = 100, 1e-3, 1000
AWAY, TAKEN = 300, 450
FORMED = 0.3
"""The induction score from which on a head carries the role (`tracking.roles`)."""


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
    slower = replace(config, name=f"slower-seed{seed}", steps=LONGER, learning_rate=SLOWER, checkpoints="0..1000:20")
    slow = train(slower, home / "slower")
    slow_usual = recorded(slow, home / "slower.history")
    back = usual.score("previous-token").value.sel(step=STEPS).to_series()
    idle = back[[name for name in back.index if name.startswith("a0")]].idxmin()
    spare = [f"ablate a1.h0 until {TAKEN}", f"reinitialise a1.h0 at {TAKEN}", f"ablate a1.h1,a1.h2,a1.h3 from {TAKEN}"]
    questions = {
        "nothing repeats": (0, ["set repeat_probability=0"]),
        "no first layer": (0, ["ablate a0"]),
        "given a first layer": (0, ["clamp a0.h0 to previous-token"]),
        "a spare takes over": (AWAY, spare),
        "idle head held": (0, [f"freeze {idle}"]),
        "idle head gone": (0, [f"ablate {idle}"]),
    }
    answers = {name: ask(parent, usual, home / name.replace(" ", "-"), *given) for name, given in questions.items()}
    returning = [f"set repeat_probability=0 until {BACK}"]
    return {**answers, "repeats return": ask(slow, slow_usual, home / "slowly-return", 0, returning)}


def ask(parent: Run, usual: History, out: Path, at: int, interventions: Sequence[str]) -> Asked:
    """Branch and record; the control is the parent bit for bit, so the parent's history is the control's."""
    made = branch(parent, at=at, interventions=interventions, out=out)
    assert made.different == ()
    return Asked(recorded(made.run, out / "history"), usual, "; ".join(map(str, made.interventions)))


def recorded(run: Run, folder: Path) -> History:
    record(run, folder, n_prompts=32)
    return History.open(folder)
