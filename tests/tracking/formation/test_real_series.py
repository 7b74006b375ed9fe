"""What is known of two public models is found in their published head scores.

The scores (class mean attention over a baseline, *selectivity*) are somebody else's, without any error, on natural
text and on synthetic repeats; see the README beside them.  They are not part of the project, and the tests skip where
they are absent.
"""

import numpy as np
import pandas as pd
import pytest

from tests.conftest import shared_path
from tracking.formation.formation import formation_table, tokens_at
from tracking.history.history import History
from tracking.lifelines.lifelines import Lifelines, link_lifelines

ROLES = ("induction", "duplicate-token", "previous-token")


def load(model: str, batch: str) -> History:
    table = pd.read_csv(shared_path(f"data/head_roles/{model}.csv.gz"))
    table = table[(table.batch == batch) & table.role.isin([*ROLES, "first-token"])]
    component = [f"a{layer}.h{head}" for layer, head in zip(table.layer, table["head"], strict=True)]
    columns = {"step": table.step, "tokens": table.tokens_B * 1e9, "component": component, "measure": table.role}
    return History.from_frame(pd.DataFrame({**columns, "task": table.batch, "value": table.selectivity}), name=model)


@pytest.fixture(scope="module")
def pythia() -> History:
    return load("pythia_1b", "synthetic")


@pytest.fixture(scope="module")
def olmo() -> History:
    return load("olmo_1b", "synthetic")


@pytest.fixture(scope="module")
def lifelines(pythia: History) -> Lifelines:
    return link_lifelines(pythia, thresholds=30.0)


def first_seen(history: History, role: str, threshold: float = 30.0) -> tuple[str, float, float, int]:
    """(censored, tokens in billions before, with it, heads then) by the threshold definition."""
    linked = link_lifelines(history, thresholds={role: threshold})
    row = formation_table(history, linked, definitions=["threshold"], clocks=["form"])[role, "form", "threshold"]
    before, after = (
        float("nan") if np.isnan(step) else round(tokens_at(history, step) / 1e9, 4)
        for step in (row.interval_before, row.interval_after)
    )
    heads = 0 if np.isnan(row.interval_after) else len(linked[role].carriers(int(row.interval_after)))
    return row.censored, before, after, heads


def test_pythia_previous_token_then_induction_then_duplicate_token(pythia: History) -> None:
    assert first_seen(pythia, "previous-token") == ("no", 0.1342, 0.5369, 10)
    assert first_seen(pythia, "induction") == ("no", 1.0737, 2.0972, 7)  # an eighth is above there alone
    for role in ("duplicate-token", "first-token"):
        linked = link_lifelines(pythia, thresholds={role: 30.0})
        assert next(step for step, nodes in zip(pythia.steps, linked[role].nodes, strict=True) if nodes) == 3000


def test_pythia_induction_heads_turn_over(pythia: History, lifelines: Lifelines) -> None:
    line = lifelines["induction"]
    early, late = set(line.carriers(1000)), set(line.carriers(pythia.steps[-1]))
    assert round(len(early & late) / len(early | late), 2) == 0.5
    table = formation_table(pythia, lifelines, definitions=["threshold"], clocks=["form"])
    dates = {row.component: row for row in table.formations if row.role == "induction"}
    for head in ("a4.h1", "a4.h4", "a5.h6", "a5.h7", "a6.h7", "a7.h1"):
        assert (dates[head].interval_before, dates[head].interval_after) == (512, 1000)
    for head, step in (("a7.h0", 5000), ("a7.h2", 20000), ("a10.h5", 80000)):
        assert dates[head].interval_after == step
    assert dates["a4.h1"].state == "formed and lost"


def test_olmo_previous_token_was_there_before_the_first_checkpoint(olmo: History) -> None:
    censored, before, after, heads = first_seen(olmo, "previous-token")
    assert (censored, after, heads) == ("left", 2.0, 4)
    assert np.isnan(before)
    assert first_seen(olmo, "induction")[:3] == ("no", 4.0, 10.0)


def test_probe_and_threshold_move_the_date(pythia: History, olmo: History) -> None:
    """The definition moves the date more than anything else, so it stands beside it."""
    found = {
        (model, batch, threshold): first_seen(load(model, batch), "induction", threshold)[2]
        for model in ("pythia_1b", "olmo_1b")
        for batch in ("synthetic", "natural")
        for threshold in (30.0, 50.0)
    }
    assert found["pythia_1b", "synthetic", 30.0] == found["pythia_1b", "synthetic", 50.0] == 2.0972
    assert (found["pythia_1b", "natural", 30.0], found["pythia_1b", "natural", 50.0]) == (2.0972, 10.4858)
    assert (found["olmo_1b", "natural", 30.0], found["olmo_1b", "natural", 50.0]) == (10.0, 52.0)


def test_no_error_is_known_and_the_table_says_so(pythia: History, lifelines: Lifelines) -> None:
    table = formation_table(pythia, lifelines, clocks=["form"])
    dated = [row for row in table.formations if row.formed]
    assert not any(row.error_known for row in dated)
    assert all((row.low, row.high) == (row.interval_before, row.interval_after) for row in dated)
    assert np.isnan(table.false_discovery_rate)
