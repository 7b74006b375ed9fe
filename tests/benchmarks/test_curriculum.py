"""Does a curriculum end less biased at equal loss, and does a search from `why` find a better one than one at random?

    pytest -o addopts= -s tests/benchmarks/test_curriculum.py

One source says a pronoun after its class in nine of ten cases, another, rarer one in five of ten; a third is a chain.
The bias is the log odds of the usual pronoun after the class: 1.39 in the data of the control.  A search chooses the
weights of the two over two windows and the label smoothing, so that the bias at the end is small and the loss on fresh
sequences of the control's mixture is no worse than that of the control of the same seed.  `SEARCHES` searches of a kind
(2 by default): from what `why` says of one run of the control, 12 settings, the four less being what `why` costs (one
run, and three times its training); by themselves and at random, 16 settings.  Each best is run on five seeds that no
search has seen, beside the control on the same seeds.  About 140 runs of two to four seconds of one core each.

Measured on a chain on which nothing was chosen (`CHAIN=8`):

| | bias, mean of five fresh seeds | loss beside the control | condition kept |
|---|---|---|---|
| control | 1.36 | | |
| from why, 12 settings | .38 and 1.21 | +.003 and -.003 | 3 and 5 of 5 |
| alone, 16 settings | .38 and 1.72 | +.003 and -.007 | 3 and 4 of 5 |
| at random, 16 settings | .96 and 1.19 | -.004 and -.005 | 4 and 4 of 5 |

A less biased curriculum at about equal loss is there and is found; two searches of a kind cannot tell the kinds apart.
On another chain (`CHAIN=7`), where a search from `why` tried seven settings of its own first and not three, it came to
1.42 and 1.43, and those at random to 1.00 and 1.20, from 1.45: the response is that of the date at which the bias is
half way there and knows nothing of the condition, so that what is tried first may break it.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from tracking.comparison.run_set import RunSet
from tracking.experiments.design import DesignResult, design
from tracking.experiments.experiment import TrainAndRecord
from tracking.experiments.planning import read_space
from tracking.influence.influence import why
from tracking.training.training import train

SEARCHES = range(int(os.environ.get("SEARCHES", "2")))
BUDGET, FOR_WHY = 12, 4
FRESH = range(1_000, 1_005)
BIAS, LOSS = "source:said/metric_clean", "held-out/loss"
GOAL = f"minimise {BIAS} subject to {LOSS} < control"
SPACE: dict[str, Any] = {
    "tasks": ["source:said"],
    "base": {
        "steps": 200, "checkpoints": "0,100,175,200", "n_layers": 1, "n_heads": 2, "d_model": 32, "vocabulary": 24,
        "context_length": 16, "batch_size": 32, "warmup_steps": 20, "attn_only": False,
        "sources": {
            "said": {"kind": "association", "share": 0.9, "longest_gap": 3, "weight": 0.3},
            "even": {"kind": "association", "share": 0.5, "longest_gap": 3, "weight": 0.1},
            "chain": {"kind": "bigram", "seed": int(os.environ.get("CHAIN", "8")), "weight": 0.6},
        },
    },
    "space": {
        "sources.said.weight@0..100": {"low": 0.05, "high": 0.6},
        "sources.said.weight@100..200": {"low": 0.05, "high": 0.6},
        "sources.even.weight@0..100": {"low": 0.0, "high": 0.3},
        "sources.even.weight@100..200": {"low": 0.0, "high": 0.3},
        "label_smoothing": {"low": 0.0, "high": 0.1},
    },
}  # fmt: skip


@dataclass(frozen=True)
class Ends:
    """Bias and loss of one setting on the fresh seeds."""

    bias: np.ndarray
    loss: np.ndarray


@dataclass(frozen=True)
class Remembered:
    """An experiment that trains no setting twice from one seed."""

    made: TrainAndRecord
    known: dict[tuple, RunSet] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        return self.made.steps

    def __call__(self, setting: Mapping[str, Any], *, seed: int, name: str, until: int) -> RunSet:
        key = (*sorted(setting.items()), seed)
        if key not in self.known:
            self.known[key] = self.made(setting, seed=seed, name=f"run{len(self.known):03d}", until=until)
        return self.known[key]


def ends_of(experiment: Remembered, setting: Mapping[str, Any]) -> Ends:
    rows = []
    for seed in FRESH:
        series = experiment(setting, seed=seed, name="", until=experiment.steps).series
        values = series.sort_values("step").groupby("name")["value"]
        rows.append([float(values.get_group(what).tail(2).mean()) for what in (BIAS, LOSS)])
    return Ends(*np.array(rows).T)


def said(what: str, found: DesignResult, ends: Ends, control: Ends) -> None:
    beside = ends.loss - control.loss
    print(
        f"{what}: bias {ends.bias.mean():.2f} ({ends.bias.min():.2f} to {ends.bias.max():.2f}), loss beside the "
        f"control {beside.mean():+.4f} ({beside.min():+.4f} to {beside.max():+.4f}), condition kept in "
        f"{found.confirmed['kept'].sum()} of 5; {dict(found.best)}",
        flush=True,
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ends, dict[str, list[Ends]]]:
    """The control, and what the searches of each kind came to, on the fresh seeds."""
    folder, space = tmp_path_factory.mktemp("curriculum"), read_space(SPACE)
    run = train(space.config({"checkpoints": "0..200:20"}, seed=0), folder / "asked")
    response = why(run, role="task/source:said", by="window", windows=2)
    experiment = Remembered(TrainAndRecord(space, folder))
    for each in response.shifts:
        print(each)
    control = ends_of(experiment, {})
    ends: dict[str, list[Ends]] = {what: [] for what in ("from why", "alone", "at random")}
    print(f"control: bias {control.bias.round(2)}, loss {control.loss.round(4)}", flush=True)
    for seed in SEARCHES:
        kinds: dict[str, dict[str, Any]] = {
            "from why": {"budget": BUDGET, "start": response.to_dict()},
            "alone": {"budget": BUDGET + FOR_WHY},
            "at random": {"budget": BUDGET + FOR_WHY, "sampler": "random"},
        }
        for what, options in kinds.items():
            options |= {"experiment": experiment, "seed": seed, "prune": False, "confirm": len(FRESH)}
            result = design(space, GOAL, **options)
            ends[what].append(ends_of(experiment, result.best))
            said(f"search {seed} {what}", result, ends[what][-1], control)
    return control, ends


def test_a_curriculum_ends_less_biased_at_equal_loss(found: tuple[Ends, dict[str, list[Ends]]]) -> None:
    control, ends = found
    for what in ("from why", "at random"):
        bias, loss = (np.mean([getattr(each, name) for each in ends[what]], axis=0) for name in ("bias", "loss"))
        assert bias.mean() < control.bias.mean() - 0.1, what
        assert (loss - control.loss).mean() <= 0, what
