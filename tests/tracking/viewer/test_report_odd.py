"""Whatever a history holds or is called, its page opens and its figures are drawn."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from circuits.graph import Estimate, ModelGraph, NodeScores
from tests.pages import open_page
from tests.timeline_examples import demo_history, demo_timeline
from tracking.history.history import History
from tracking.history.records import Record
from tracking.results.results import RunTimeline, Timeline
from tracking.results.timeline import build_timeline
from tracking.viewer.report import report


def table(steps: list[int], heads: list[str], **columns: Any) -> pd.DataFrame:
    rows = [(step, head, min(1.0, 0.2 + 0.1 * place)) for place, step in enumerate(steps) for head in heads]
    frame = pd.DataFrame(rows, columns=["step", "component", "value"])
    return frame.assign(**{"run": "odd", "measure": "induction", "task": "probe", **columns})


def one_snapshot() -> Timeline:
    history = demo_history()
    last = history.steps[-1]
    return build_timeline(replace(history, records={key: r for key, r in history.records.items() if key[0] == last}))


def no_edges() -> Timeline:
    history = demo_history()
    return build_timeline(replace(history, records={k: replace(r, circuit=None) for k, r in history.records.items()}))


def no_errors() -> Timeline:
    return build_timeline(History.from_frame(table(list(range(0, 1000, 100)), ["a0.h0", "a1.h0"])))


def one_head() -> Timeline:
    return build_timeline(History.from_frame(table([0, 10, 20, 30, 40, 50], ["a0.h0"])))


def not_numbers() -> Timeline:
    frame = table(list(range(0, 1000, 50)), ["a0.h0", "a0.h1", "a1.h0"], std_error=np.nan)
    frame.loc[::3, "value"] = np.nan
    return build_timeline(History.from_frame(frame))


def never_anything() -> Timeline:
    return build_timeline(History.from_frame(table([0, 1, 2], ["a0.h0", "a0.h1"]).assign(value=0.0)), thresholds=0.5)


def nothing_but_metrics() -> Timeline:
    """No task, no score: a log of losses alone, of which not all are numbers."""
    graph = ModelGraph(1, 1)
    losses = [4.0, np.nan, 3.0, np.inf]
    records = {
        (step, "training"): Record(step, "training", None, metrics={"loss": Estimate.exact(np.array(loss))})
        for step, loss in enumerate(losses)
    }
    empty = {name: frame.iloc[:0] for name, frame in {
        "lifelines": demo_timeline().runs[0].lifelines, "events": demo_timeline().runs[0].events,
        "formation": demo_timeline().runs[0].formation}.items()}  # fmt: skip
    return Timeline((RunTimeline(History("log", graph, records), **empty),))


def wide_values() -> Timeline:
    """Scores below zero, of many sizes, and one component that the graph knows as an MLP."""
    graph = ModelGraph(2, 2)
    nodes = graph.components
    records = {}
    for place, step in enumerate((1, 10, 100, 1000, 10**9)):
        value = np.linspace(-1e-9, 1e6 * place, len(nodes))
        scores = {"induction": NodeScores(nodes, Estimate.exact(value, 1e3), "induction", "probe")}
        records[step, "probe"] = Record(step, "probe", 1e12 * step, scores)
    return build_timeline(History("wide", graph, records))


NAMES = [
    "quo\"te's",
    "</script><script>alert(1)</script>",
    "Läufe ☃ 运行",
    "run" * 100,
    "a/b: c|d&e=f#g",
    "<b>${name}`",
]


def strange_names() -> Timeline:
    histories = []
    for number, name in enumerate(NAMES):
        frame = table(list(range(0, 1000, 100)), ["a0.h0", "a1.h0"], run=name, measure=["induction", NAMES[2]] * 10)
        history = History.from_frame(frame, hyperparameters={"name <b>": name, "seed": number})
        histories.append(replace(history, name=name))
    return build_timeline(histories, thresholds=0.5)


ODD: dict[str, Callable[[], Timeline]] = {
    make.__name__: make
    for make in (one_snapshot, no_edges, no_errors, one_head, not_numbers, never_anything, nothing_but_metrics,
                 wide_values, strange_names)
}  # fmt: skip
WALK = [
    "Home",
    "ArrowRight",
    "Shift+ArrowRight",
    "ArrowDown",
    "ArrowDown",
    "u",
    "l",
    "l",
    "l",
    "l",
    "End",
    "ArrowUp",
    "d",
]


@pytest.fixture(scope="module", params=list(ODD))
def odd(request: pytest.FixtureRequest) -> Timeline:
    return ODD[request.param]()


def test_the_page_opens_and_moves(browser: Any, odd: Timeline, tmp_path: Path) -> None:
    opened = open_page(browser, report(odd, tmp_path / "odd.html"), width=900)
    assert opened.tab.evaluate("document.documentElement.scrollWidth") <= 900
    for run in odd.runs:
        if len(odd.runs) > 1:
            opened.tab.locator('select[data-key="run"]').select_option(run.name)
        assert len(odd.runs) == 1 or opened.text(".about").startswith(run.name)
        opened.press(*WALK)
        for name in ("scores", "metrics", "formation", "events"):
            opened.tab.locator(f'[data-table="{name}"]').click()
    opened.tab.locator(".help").click()
    text = opened.tab.locator(".formation").inner_text()
    assert not [word for word in ("NaN", "undefined", "Infinity", "[object") if word in text]
    markup = opened.tab.evaluate("document.querySelector('.formation').outerHTML")
    assert not [word for word in ('"NaN', " NaN", ",NaN", "Infinity") if word in markup]
    before = opened.tab.url
    opened.tab.reload()
    opened.tab.wait_for_selector(".formation .history")
    assert opened.tab.url == before
    opened.close()


@pytest.mark.filterwarnings("ignore:Glyph")
def test_the_figure_is_drawn(odd: Timeline, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from tracking.drawing.figures import plot

    for number, run in enumerate(odd.runs):
        plot(odd, run=run.name).savefig(tmp_path / f"{number}.png", dpi=40)
