"""The viewer's own functions, one by one: how a number is written, where a step lies, what an address holds."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from circuits.graph import ModelGraph
from tests.pages import Opened
from tests.timeline_examples import two_runs
from tracking.drawing.drawing import short_number
from tracking.viewer.page_data import page_data
from tracking.viewer.report import viewer_script

VIEWER = Path(__file__).parents[3] / "tracking" / "viewer" / "static"
Call = Callable[..., Any]


@pytest.fixture(scope="module")
def call(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Call]:
    """Call a function of the viewer by name."""
    names = re.findall(r"^(?:async )?(?:function|const) (\w+)", viewer_script(), flags=re.MULTILINE)
    place = tmp_path_factory.mktemp("viewer") / "functions.html"
    script = f'<!doctype html><script type="module">{viewer_script()}\nObject.assign(window, {{ {", ".join(names)} }});'
    place.write_text(script + "</script>")
    opened = Opened(browser.new_context().new_page())
    opened.tab.goto(f"file://{place}")
    opened.tab.wait_for_function("window.mount !== undefined")
    yield lambda name, *values: opened.tab.evaluate(f"values => {name}(...values)", list(values))
    opened.close()


@pytest.mark.parametrize("value", [0, 0.5, 0.04567, 1.5, 256, 999.94, 1000, 2048, 12_345, 1_454_000, 2.1e9, 3e12])
def test_numbers_are_written_as_in_the_figures(call: Call, value: float) -> None:
    exact = short_number(float(f"{value:.3g}") if abs(value) < 1 else value)
    assert call("short", value) == exact
    assert call("short", -value) == ("−" if value else "") + exact


def test_what_is_not_known_is_a_dash(call: Call) -> None:
    assert call("short", None) == "–"
    assert call("withError", None, 0.1) == "–"
    assert call("withError", 0.8612, 0.0246) == "0.861 ± 0.025"


def test_an_edge_has_a_source_a_target_and_a_slot(call: Call) -> None:
    assert call("parseEdge", "a0.h1->a1.h0<k>") == {"source": "a0.h1", "target": "a1.h0", "slot": "k"}
    assert call("parseEdge", "m3->logits") == {"source": "m3", "target": "logits", "slot": None}


@pytest.mark.parametrize("kind", ["auto", "log", "linear", "even"])
@pytest.mark.parametrize("steps", [[7], [0, 1], [0, 1, 2, 4, 8, 1000], [5, 10, 20, 1_000_000]])
def test_checkpoints_lie_in_order_between_the_ends(call: Call, kind: str, steps: list[int]) -> None:
    scale = {"automatic": "log1p", "log": "log1p", "constant": 3}
    run = {"steps": steps, "tokens": None, "scale": {"step": scale, "tokens": None}}
    axis = "(run, kind) => timeAxis(run, 'step', kind, 40, 640)"
    places = call(f"((run, kind) => run.steps.map((_, i) => ({axis})(run, kind).x(i)))", run, kind)
    assert places == sorted(places)
    assert places[0] == 40
    assert places[-1] == pytest.approx(640 if len(steps) > 1 else 40)
    ticks = call(f"((run, kind) => ({axis})(run, kind).ticks.map((tick) => tick.at))", run, kind)
    assert all(39.9 <= at <= 640.1 for at in ticks)
    assert all(abs(b - a) > 40 for a, b in zip(sorted(ticks), sorted(ticks)[1:], strict=False))


def test_an_address_holds_what_differs_and_nothing_else(call: Call) -> None:
    initial = {"run": "a b", "step": 100, "here": False, "filter": "", "open": ""}
    state = {**initial, "step": 5, "here": True, "filter": "x & y=ü"}
    fragment = call("toFragment", state, initial)
    assert call("toFragment", initial, initial) == ""
    assert call("fromFragment", f"#{fragment}", initial) == state
    assert call("fromFragment", "#step=many&stranger=1", initial) == initial


def test_components_of_one_function_stand_together_in_the_lineage(call: Call) -> None:
    nodes = [["a0.h0", 0, 4, ""], ["a1.h0", 1, 9, ""], ["a0.h3", 5, 9, ""], ["a1.h2", 2, 3, ""]]
    edges = [[0, 2, "hand-off", 4, 5, 0.9], [3, 1, "merge", 3, 4, 0.8]]
    assert call("lineageRows", {"nodes": nodes, "edges": edges}) == ["a0.h0", "a0.h3", "a1.h0", "a1.h2"]


def test_rows_are_filtered_by_words_step_and_component(call: Call) -> None:
    table = {
        "columns": ["step", "component", "measure"],
        "rows": [[1, "a0.h1", "induction"], [2, "a0.h1", "self"], [2, "a0.h10", "self"]],
    }
    everything = {"filter": "", "step": None, "component": ""}
    assert call("filtered", table, everything) == table["rows"]
    assert call("filtered", table, {**everything, "filter": "SELF h1"}) == table["rows"][1:]
    assert call("filtered", table, {**everything, "component": "a0.h1"}) == table["rows"][:2]
    assert call("filtered", table, {**everything, "step": 2, "component": "a0.h1"}) == [table["rows"][1]]
    assert call("tabSeparated", ["a", "b"], [[1, None], ["x", 2.5]]) == "a\tb\n1\t\nx\t2.5\n"


def test_what_is_copied_is_not_run_by_a_spreadsheet(call: Call) -> None:
    rows = [["=1+1", -1], ["@a", "a\tb"], ["+", 'a,"\r']]
    assert call("tabSeparated", ["-a", "b"], rows) == '\'-a\tb\n\'=1+1\t-1\n\'@a\t"a\tb"\n\'+\t"a,""\r"\n'
    assert call("commaSeparated", ["a", "b"], rows[:2]) == "a,b\n'=1+1,-1\n'@a,a\tb\n"


def test_a_match_is_the_same_from_both_sides(call: Call) -> None:
    page = page_data(two_runs())
    there = call("matchesIn", page, "demo", "a0.h1", "demo-slow")
    assert there[0]["confidence"] > 0.9
    back = call("matchesIn", page, "demo-slow", there[0]["component"], "demo")
    assert back == [{**there[0], "component": "a0.h1"}]
    assert call("matchesIn", page, "demo", "a0.h1", "elsewhere") is None


def test_dates_are_by_the_definition_asked_for_or_the_first(call: Call) -> None:
    dated = (("half-rise", 1), ("half-rise", 2), ("logistic", 1))
    rows = [{"clock": "form", "definition": name, "rise": rise} for name, rise in dated]
    assert call("dated", rows, "form", "logistic") == rows[2]
    assert call("dated", rows, "form", "threshold") == rows[0]
    assert call("dated", rows, "function", "logistic") is None
    none = {"clock": "function", "rise": 1, "bar_kind": "none"}
    states = (("threshold", "not datable by this definition"), ("change-point", "formed"))
    unbarred = [{**none, "definition": name, "state": state} for name, state in states]
    assert call("dated", unbarred, "function", "threshold") == unbarred[1]
    assert call("dated", unbarred[:1], "function", "threshold") == unbarred[0]


def test_a_list_in_one_text_is_toggled(call: Call) -> None:
    assert call("toggled", "", "a") == "a"
    assert call("toggled", "a|b", "a") == "b"


def test_a_sentence_is_cut_at_roles_and_nowhere_else(call: Call) -> None:
    roles = ["previous-token", "induction"]
    parts = call("pieces", "Induction formed; induction/metric_clean; previous-token.", roles)
    assert parts == ["", "Induction", " formed; induction/metric_clean; ", "previous-token", "."]


def test_types_are_sound() -> None:
    """TypeScript reads the types out of the comments; it is strict."""
    compiler = shutil.which("tsc")
    if compiler is None:
        pytest.skip("needs TypeScript's tsc on the path (npm install --global typescript)")
    assert json.loads((VIEWER / "tsconfig.json").read_text())["compilerOptions"]["strict"] is True
    checked = subprocess.run([compiler, "-p", str(VIEWER)], capture_output=True, text=True, timeout=120)
    assert checked.returncode == 0, checked.stdout


def test_every_module_of_the_viewer_is_checked_and_says_what_it_is_for() -> None:
    for path in VIEWER.glob("*.js"):
        first, second = path.read_text().splitlines()[:2]
        assert first == "// @ts-check", path.name
        assert re.match(r"// [A-Z].*[.?]$", second), path.name
        assert path.name in (VIEWER / "README.md").read_text(), path.name


CROSSINGS = """(run, edges) => {
  const place = layout(run, 560), found = [];
  for (const name of edges) {
    const { source, target, slot } = parseEdge(name);
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", curve(place, source, target, slot));
    const length = path.getTotalLength();
    for (let i = 0; i <= 60; i++) {
      const point = path.getPointAtLength((length * i) / 60);
      for (const [node, [x, y]] of place.at)
        if (node !== source && node !== target && Math.hypot(point.x - x, point.y - y) < place.radius - 0.5)
          found.push(`${name} through ${node}`);
    }
  }
  return [...new Set(found)];
}"""


@pytest.mark.parametrize(("layers", "heads", "mlp"), [(2, 4, False), (4, 4, True), (6, 8, True)])
def test_no_edge_passes_a_node_that_it_does_not_touch(call: Call, layers: int, heads: int, mlp: bool) -> None:
    graph = ModelGraph(n_layers=layers, n_heads=heads, mlp=mlp)
    names = [edge.name for edge in graph.edges()]
    edges = names[:: 1 + len(names) // 150]
    circuits = {"task": {"names": ["m0"] if mlp else [], "at": []}}
    about = {"layers": layers, "heads": heads, "mlp": mlp, "parallel": False}
    run = {"graph": about, "circuits": circuits, "lanes": []}
    assert call(f"({CROSSINGS})", run, edges) == []


def test_the_formation_chart_is_drawn_where_things_happen(call: Call) -> None:
    runs = [{"steps": [0, 100, 1000, 1000_000]}]
    row = {"censored": "no", "interval_before": 100, "interval_after": 200, "low": 120, "high": 180}
    low, high = call("windowOf", [row, {**row, "low": None, "high": None}], runs)
    assert 0 <= low < 100
    assert 200 < high < 1000
    early = {**row, "censored": "left", "interval_before": None}
    assert call("windowOf", [row, early], runs) is None  # what was there at the start would be out of sight
    assert call("windowOf", [{**row, "interval_after": 900_000}], runs) is None  # it fills most of the run
    assert call("windowOf", [], runs) is None
    run = {
        "steps": [0, 100, 200, 300],
        "tokens": [0, 10, 20, 30],
        "scale": {"step": {"automatic": "log1p"}, "tokens": None},
    }
    axis = "(run, unit) => timeAxis(run, unit, 'auto', 0, 200, [50, 250])"
    for unit in ("step", "tokens"):
        assert call(f"((run, unit) => ({axis})(run, unit).x(1))", run, unit) == pytest.approx(50)
        assert call(f"((run, unit) => ({axis})(run, unit).stepAt(50))", run, unit) == pytest.approx(100)


def test_a_part_of_the_run_is_written_as_far_as_the_run_reaches(call: Call) -> None:
    run = {"steps": [0, 100, 1000]}
    assert call("viewOf", run, -5, 2000) == ""
    assert call("viewOf", run, 100.4, 300.2) == "100..300"
    assert call("viewOf", run, 100.426, 110) == "100.43..110"
    assert call("spanOf", {"view": "100..300"}, run) == [100, 300]
    assert call("spanOf", {"view": "900..3000"}, run) == [900, 1000]
    assert call("spanOf", {"view": "nonsense"}, run) is None
    assert call("spanOf", {"view": "2000..3000"}, run) is None


def test_stages_are_marked_and_have_a_clock(call: Call) -> None:
    scale = {"automatic": "linear", "log": "log1p", "constant": 3}
    run = {"steps": [0, 100, 150, 200], "tokens": None, "scale": {"step": scale, "tokens": None}}
    run["stages"] = [["stage1", 0, 0], ["stage2", 100, 100]]
    marks = call("((run) => timeAxis(run, 'step', 'linear', 0, 200).stages)", run)
    assert marks == [{"at": 100, "name": "stage2"}]
    assert [call("stageClock", run, step) for step in (100, 150)] == [" · stage1 step 100", " · stage2 step 50"]
    assert call("stageClock", {**run, "stages": []}, 150) == ""
