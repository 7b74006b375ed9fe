"""Runs whose answers are known beforehand: the demo's model, stepped into in seven ways, with five seeds each.

Each question is asked of branches of the same five parents.  `make` trains and records what is not there yet, about
four minutes a seed; with `FORMATION_BENCHMARKS` set to a folder, what was made stays.

    nothing repeats      no repeats from step 0: nothing to learn induction from
    repeats return       no repeats before step 100, and from then on as usual; at a learning rate of .001, since at the
                         demo's own .003 a hundred steps of noise keep induction from forming for 2,000 steps and more
    no first layer       every head of layer 0 ablated: nothing for induction to be composed of
    given a first layer  one head of layer 0 clamped to previous-token from step 0
    another takes over   the demo makes induction heads of all of layer 1, where one more or less is of no account.  So
                         the parent is a branch in which only one of them, a1.h3, is left from step 300 on: two stay
                         ablated, and a1.h0 comes back at step 450 with new weights.  The question: a1.h3 is ablated
                         from step 450 on.  In the control, where a1.h3 stays, a1.h0 has nothing to gain from induction
    no role yet          a0.h0 gets other random weights at step 0, when no component has learned anything: branch and
                         control are two draws of one kind, so that what there is between them is chance
    looks idle           the head of layer 0 that looks back least in the parent, ablated from step 0.  It looks at its
                         own token, and by patching the task depends on it: in a model this small no head stays idle
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tracking.checkpoints.runs import Run
from tracking.experiments.branching import branch
from tracking.history.history import History
from tracking.recording.recording import record
from tracking.training.training import TrainingConfig, train

SEEDS = range(5)
STEPS = 800
CHECKPOINTS = "0..800:10"
BACK, SLOWER, LONGER = 100, 1e-3, 1000
AWAY, TAKEN = 300, 450
LAST, NEXT = "a1.h3", "a1.h0"
FORMED = 0.3
"""The induction score from which on a head carries the role (`tracking.lifelines.roles`)."""


@dataclass(frozen=True)
class Asked:
    """One question of one seed: the histories of branch and control."""

    branch: History
    control: History
    intervention: str


def make(folder: Path, seed: int) -> Mapping[str, Asked]:
    """The answers of one seed, by question."""
    home = folder / f"seed{seed}"
    parent = parent_of(folder, seed)
    usual = recorded(parent, home / "parent.history")
    slower = replace(
        configured(seed), name=f"slower-seed{seed}", steps=LONGER, learning_rate=SLOWER, checkpoints="0..1000:20"
    )
    slow = train(slower, home / "slower")
    slow_usual = recorded(slow, home / "slower.history")
    back = usual.score("previous-token").value.sel(step=STEPS).to_series()
    idle = back[[name for name in back.index if name.startswith("a0")]].idxmin()
    questions = {
        "nothing repeats": (0, ["set repeat_probability=0"]),
        "no first layer": (0, ["ablate a0"]),
        "given a first layer": (0, ["clamp a0.h0 to previous-token"]),
        "no role yet": (0, ["reinitialise a0.h0"]),
        "looks idle": (0, [f"ablate {idle}"]),
    }
    answers = {name: ask(parent, usual, home / name.replace(" ", "-"), *given) for name, given in questions.items()}
    returning = [f"set repeat_probability=0 until {BACK}"]
    answers["repeats return"] = ask(slow, slow_usual, home / "slowly-return", 0, returning)
    answers["another takes over"] = taking_over(parent, home)
    return answers


def configured(seed: int) -> TrainingConfig:
    return TrainingConfig(name=f"parent-seed{seed}", steps=STEPS, checkpoints=CHECKPOINTS, seed=seed)


def parent_of(folder: Path, seed: int) -> Run:
    return train(configured(seed), folder / f"seed{seed}" / "parent")


def taking_over(parent: Run, home: Path) -> Asked:
    """The one induction head that is left is ablated."""
    alone = [f"ablate {NEXT} until {TAKEN}", f"reinitialise {NEXT} at {TAKEN}", "ablate a1.h1,a1.h2"]
    single = branch(parent, at=AWAY, interventions=alone, out=home / "one-head").run
    usual = recorded(single, home / "one-head.history")
    return ask(single, usual, home / "another-takes-over", TAKEN, [f"ablate {LAST}"])


def ask(parent: Run, usual: History, out: Path, at: int, interventions: Sequence[str]) -> Asked:
    """Branch and record; the control is the parent bit for bit, so the parent's history is the control's."""
    made = branch(parent, at=at, interventions=interventions, out=out)
    assert made.different == ()
    return Asked(recorded(made.run, out / "history"), usual, "; ".join(map(str, made.interventions)))


def recorded(run: Run, folder: Path) -> History:
    record(run, folder, n_prompts=32, method="eap")
    return History.open(folder)
