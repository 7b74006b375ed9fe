"""Changes of the lead are as sure as they say, and their intervals hold the step at which the effects really cross.

effect  ──── a ────╲  ╱──── b     three heads carry one role throughout; their true effects are smooth curves, and
                    ╳             what is measured has errors that are partly the same at every checkpoint, as of
        ──── b ────╱  ╲──── a     the same prompts
"""

import numpy as np
from jaxtyping import Float

from circuits.graph import Estimate, ModelGraph, NodeScores
from tracking.history.history import History
from tracking.history.records import Record
from tracking.lifelines.events import Event, Lifeline
from tracking.lifelines.leading_head import lead_events, lead_series

GRAPH = ModelGraph(1, 3, mlp=False)
N_STEPS, N_PROMPTS = 30, 32


def effects(rng: np.random.Generator) -> Float[np.ndarray, "step component"]:
    """Smooth curves; a third of the heads grow or shrink."""
    time = np.linspace(-0.5, 0.5, N_STEPS)[:, None]
    slope = rng.normal(size=3) * rng.choice([0.0, 0.6])
    return rng.uniform(1, 1.6, size=3) * np.exp(slope * time + 0.05 * rng.normal(size=3) * np.sin(6 * time))


def measured(true: Float[np.ndarray, "step component"], noise: float, rng: np.random.Generator) -> list[Event]:
    """The changes of the lead that are told of these effects, measured with a standard error of about `noise`."""
    own = 0.6 * rng.normal(size=(N_PROMPTS, 1, 3)) + 0.32 * rng.normal(size=(N_PROMPTS, N_STEPS, 3))
    prompts = true + noise * np.sqrt(N_PROMPTS) * own + rng.normal(size=(N_PROMPTS, 1, 1))
    records = {}
    for step in range(N_STEPS):
        scores = NodeScores(GRAPH.components, Estimate.from_prompts(prompts[:, step]), "patching", "induction")
        records[step, "induction"] = Record(step, "induction", scores={"patching": scores})
    steps, ones = tuple(range(N_STEPS)), (1.0,) * N_STEPS
    everyone, shares = (GRAPH.components,) * N_STEPS, ((1.0,) * 3,) * N_STEPS
    line = Lifeline(
        "run",
        "induction",
        "role",
        "induction",
        steps,
        everyone,
        ones,
        ones,
        shares,
        task="induction",
        measure="patching",
    )
    leads = lead_series(History("run", GRAPH, records), line)
    assert leads is not None
    return lead_events("run", leads, [])


def test_a_change_of_the_lead_is_right_and_its_interval_holds_it() -> None:
    rng = np.random.default_rng(11)
    right, held = [], []
    for noise in (0.03, 0.1):
        for _ in range(40):
            true = effects(rng)
            for event in measured(true, noise, rng):
                old, new = (nodes[0].index for nodes in (event.components_before, event.components_after))
                ahead = true[:, old] - true[:, new]
                right.append((ahead[: event.step_after] > 0).any() and ahead[event.step_after] < 0)
                held.append(ahead[event.step_before] >= 0 >= ahead[event.step_after])
                assert event.confidence >= 0.9
    assert len(right) > 12
    assert np.mean(right) >= 0.9
    assert np.mean(held) >= 0.9


def test_heads_that_are_equal_change_no_lead() -> None:
    rng = np.random.default_rng(12)
    flat = np.full((N_STEPS, 3), 1.2)
    assert [event for _ in range(20) for event in measured(flat, 0.05, rng)] == []
