"""A setting becomes a run, with the interventions it chooses, and is held to losses that no curriculum changes."""

from pathlib import Path
from typing import Any

import pytest

from tracking.checkpoints.run_files import read_run_file
from tracking.experiments.design import design
from tracking.experiments.experiment import TrainAndRecord
from tracking.experiments.planning import read_space

BASE = {
    "steps": 6, "checkpoints": "0..6:3", "n_layers": 1, "n_heads": 2, "d_model": 8, "vocabulary": 12,
    "context_length": 12, "batch_size": 4,
    "sources": {"chain": {"kind": "bigram"}, "noise": {"kind": "random"}},
}  # fmt: skip
FREEZE = "freeze a0.h0 until 3; set weight_decay=0.5 from 3"
SPACE: dict[str, Any] = {
    "tasks": ["source:chain"], "n_prompts": 4, "base": BASE,
    "space": {
        "sources.chain.weight@0..3": {"low": 0.0, "high": 2.0}, "z_loss": [0.0, 0.01], "intervene": ["none", FREEZE],
    },
}  # fmt: skip


def test_sources_objectives_and_interventions_are_searched_together(tmp_path: Path) -> None:
    goal = "minimise source:chain/metric_clean subject to held-out/loss < control"
    found = design(SPACE, goal, budget=4, confirm=1, out=tmp_path, seed=1)
    assert set(found.trials["intervene"]) == {"none", FREEZE}
    assert set(found.best) == set(SPACE["space"])
    for _, row in found.trials.iterrows():
        run = read_run_file(tmp_path / "runs" / f"trial{row['trial']:03d}")
        asked = () if row["intervene"] == "none" else ("freeze a0.h0 from 0 until 3", "set weight_decay=0.5 from 3")
        assert tuple(run.interventions or ()) == asked


def test_held_out_losses_are_those_of_the_base_whatever_the_curriculum(tmp_path: Path) -> None:
    """Before the first step the weights are the same, and so are they, whatever mixture comes."""
    experiment = TrainAndRecord(read_space(SPACE), tmp_path)
    first = {}
    for name, weight in (("much", 2.0), ("none", 0.0)):
        series = experiment({"sources.chain.weight@0..3": weight}, seed=0, name=name, until=6).series
        rows = series[series["name"].str.startswith("held-out/") & (series["step"] == 0)]
        first[name] = dict(zip(rows["name"], rows["value"], strict=True))
    assert first["much"] == first["none"]
    assert set(first["much"]) == {"held-out/loss", "held-out/loss/chain", "held-out/loss/noise"}


def test_a_stopped_run_with_interventions_goes_on_to_the_same_end(tmp_path: Path) -> None:
    ends = []
    for name, stops in (("whole", (6,)), ("stopped", (2, 6))):
        experiment = TrainAndRecord(read_space(SPACE), tmp_path)
        for until in stops:
            found = experiment({"intervene": FREEZE}, seed=0, name=name, until=until)
        ends.append(found.series.set_index(["name", "step"])["value"]["held-out/loss"][6])
    assert ends[0] == ends[1]


@pytest.mark.parametrize(
    ("sentences", "match"),
    [
        (["none", "freze a0.h0"], "cannot read the intervention 'freze a0.h0'"),
        ([3], "expected intervene = .* a list of sentences"),
        ({"low": 0, "high": 1}, "expected intervene = .* a list of sentences"),
    ],
)
def test_interventions_that_cannot_be_read_are_refused_before_anything_is_trained(sentences: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        read_space({**SPACE, "space": {"intervene": sentences}})
