"""The page in a real browser: it draws, answers the pointer and the keys, and asks nothing of the network."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.pages import Opened, open_page
from tests.timeline_examples import demo_history, demo_timeline, large_timeline, published_timeline, two_runs
from tracking.history.patterns import Patterns
from tracking.results.timeline import build_timeline
from tracking.viewer.report import packed, report, viewer_style, widget_script

sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright's Python package")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    report(demo_timeline(), folder / "demo.html")
    report(two_runs(), folder / "two.html")
    return folder


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report(large_timeline(), tmp_path_factory.mktemp("large") / "large.html")


@pytest.fixture
def demo(browser: Any, places: Path) -> Iterator[Opened]:
    opened = open_page(browser, places / "demo.html")
    yield opened
    opened.close()


def test_the_page_draws_lanes_events_and_the_circuit(demo: Opened) -> None:
    assert demo.count(".track") >= 6
    assert demo.count(".events .birth") >= 3
    assert demo.count(".events .handoff") == 1
    assert demo.count(".band") >= 3
    heights = demo.tab.evaluate("[...document.querySelectorAll('.history .band')].map((band) => band.getBBox().height)")
    assert max(heights) <= 61  # each lies within the 60 pixels of its curves
    assert demo.count(".edges .edge") == 11
    assert demo.count(".node.inside") == 5
    assert "faithfulness" in demo.text(".caption")
    assert re.search(r"two halves of the prompts share \d+ % of the edges", demo.text(".caption"))
    told = demo.tab.locator(".edges .edge").last.get_attribute("data-tip")
    assert re.search(r"\nchosen by \d+ % of resampled prompts$", told)
    assert demo.tab.title() == "demo"


def test_the_lineage_shows_who_carried_a_function_after_whom(demo: Opened) -> None:
    assert demo.count("svg.lineage .link") == 1
    assert "hand-off: a1.h0 hands it to a1.h2" in demo.tab.locator("svg.lineage .link").get_attribute("data-tip")
    names = demo.tab.locator("svg.lineage .name").all_text_contents()
    assert names == ["a1.h0", "a1.h2"]
    demo.tab.locator("svg.lineage .name").last.click()
    assert demo.text(".component h2") == "a1.h2"


def test_which_data_moved_a_date_is_shown_where_it_was_asked(browser: Any, tmp_path: Path, demo: Opened) -> None:
    shift = {"source": "repeats", "window": [0, 240], "shift_steps": -9.0, "low": -12.0, "high": -6.0}
    shifts = [{**shift, "source": "noise", "shift_steps": 0.1, "low": -0.5, "high": 0.7}, shift]
    proof = {"source": "repeats", "window": [0, 240], "factor": 1.1, "predicted": -9.0, "actual": -8.5}
    found = {"curve": "induction", "component": "a1.h0", "bar": 0.3, "date": 240.0, "runs": ["demo"]}
    found |= {"method": "unrolled", "confidence": 0.9, "sources": shifts}
    found |= {"proofs": [proof, {**proof, "actual": None}], "sentences": ["It came early."]}
    opened = open_page(browser, report(demo_timeline(), tmp_path / "why.html", why=[found]))
    assert opened.tab.locator(".influences .row").all_text_contents() == ["repeats", "noise"]
    assert opened.count(".influences .shift.told") == 1
    assert opened.count(".influences .proof") == 1
    assert "retrained" in (opened.tab.locator(".influences .proof").get_attribute("data-tip") or "")
    opened.close()
    assert not demo.tab.locator(".influences").is_visible()


def test_moving_through_the_steps_redraws_the_circuit(demo: Opened) -> None:
    widths = demo.tab.eval_on_selector_all(
        ".edges .edge", "edges => edges.map(edge => edge.getAttribute('stroke-width'))"
    )
    demo.tab.locator(".scrub").fill("20")
    assert demo.text(".now").startswith("step 190")
    assert widths != demo.tab.eval_on_selector_all(
        ".edges .edge", "edges => edges.map(edge => edge.getAttribute('stroke-width'))"
    )
    demo.tab.locator(".scrub").fill("0")
    assert demo.count(".edges .edge") == 0
    assert "does not do this task yet" in demo.text(".caption")


def test_a_click_on_the_time_axis_chooses_a_step(demo: Opened) -> None:
    box = demo.tab.locator(".ground").bounding_box()
    demo.tab.mouse.click(box["x"] + 2, box["y"] + 60)
    assert demo.text(".now").startswith("step 0")


def test_edges_into_queries_keys_and_values_differ(demo: Opened) -> None:
    heads = {
        slot: demo.tab.locator(f'.edge[data-edge$="a1.h2<{slot}>"]').first.get_attribute("marker-end") for slot in "qkv"
    }
    assert len(set(heads.values())) == 3
    colours = demo.tab.eval_on_selector_all(".edges .edge", "edges => edges.map(edge => getComputedStyle(edge).stroke)")
    assert len(set(colours)) == 1  # colours are for roles


def test_a_click_shows_a_component_and_its_formation(demo: Opened) -> None:
    demo.tab.locator('.node[data-component="a1.h0"]').click()
    assert demo.text(".component h2") == "a1.h0"
    assert demo.count(".component svg path.line") == 5
    assert demo.count(".component svg .errors") == 5
    clocks = demo.tab.locator(".component .clocks .row").all_text_contents()
    assert clocks[:3] == ["form", "function", "behaviour"]
    assert demo.count(".component .clocks .interval") >= 9
    assert demo.count(".component details tbody tr") >= 9
    assert "hand-off of induction, a1.h0 → a1.h2" in demo.tab.locator(".events-list").inner_text()
    demo.tab.locator(".track[data-component='a0.h1'] .name").first.click()
    assert demo.text(".component h2") == "a0.h1"


def test_the_keyboard_does_all_of_it(demo: Opened) -> None:
    demo.press("Home")
    assert demo.text(".now").startswith("step 0")
    demo.press("ArrowRight")
    assert demo.text(".now").startswith("step 1 ")
    demo.press("Shift+ArrowRight")
    assert demo.text(".now").startswith("step 70")
    demo.press("ArrowDown")
    assert demo.text(".component h2") == "a1.h0"
    demo.press("Escape")
    assert demo.text(".component h2") == "a1.h0 choose another in the graph or among the lifelines"
    label = demo.text(".history .unit")
    demo.press("u")
    assert demo.text(".history .unit") != label
    demo.tab.locator('.node[data-component="a0.h1"]').focus()
    demo.press("Enter")
    assert demo.text(".component h2") == "a0.h1"
    demo.press("/")
    demo.tab.keyboard.type("hand-off")
    demo.tab.locator('[data-table="events"]').click()
    assert demo.count(".numbers tbody tr") == 1


def test_playing_runs_to_the_end(demo: Opened) -> None:
    demo.tab.locator(".scrub").fill("42")
    demo.tab.locator(".play").click()
    sync_api.expect(demo.tab.locator(".play")).to_have_attribute("aria-label", "Play")
    assert demo.text(".now").startswith("step 1,000")


def test_the_view_is_in_the_address_and_survives_a_reload(demo: Opened) -> None:
    demo.tab.locator(".scrub").fill("20")
    demo.tab.locator('.node[data-component="a1.h0"]').click()
    demo.tab.locator('[data-table="edges"]').click()
    demo.tab.locator('[data-value="linear"]').click()
    address = demo.tab.url
    assert "step=190" in address
    assert "scale=linear" in address
    demo.tab.reload()
    demo.tab.wait_for_selector(".formation .history")
    assert demo.tab.url == address
    assert demo.text(".now").startswith("step 190")
    assert demo.text(".component h2") == "a1.h0"
    assert demo.tab.locator('[data-table="edges"]').get_attribute("aria-pressed") == "true"
    assert demo.text(".history .unit") == "step"


def test_an_address_keeps_step_0(demo: Opened) -> None:
    demo.press("Home")
    assert "step=0" in demo.tab.url
    demo.tab.reload()
    demo.tab.wait_for_selector(".formation .history")
    assert demo.text(".now").startswith("step 0")
    demo.press("End")
    assert "step=" not in demo.tab.url


def test_the_page_begins_with_the_story_and_tells_hand_offs_above_the_fold(demo: Opened) -> None:
    assert demo.text(".story").endswith(".")
    assert "form" in demo.text(".story")
    events = demo.tab.locator(".findings li.event")
    assert "handed" in events.first.text_content()
    assert events.first.is_visible()
    assert "attends to the token before" in demo.tab.locator(".findings").inner_text()
    assert demo.tab.locator('[data-value="auto"]').text_content().startswith("auto: ")


@pytest.mark.parametrize(
    ("button", "start"), [(".save-svg", b"<svg"), (".save-png", b"\x89PNG"), (".save", b"lifeline,")]
)
def test_what_is_seen_can_be_saved(demo: Opened, tmp_path: Path, button: str, start: bytes) -> None:
    with demo.tab.expect_download() as waiting:
        demo.tab.locator(button).first.click()
    place = tmp_path / "saved"
    waiting.value.save_as(place)
    content = place.read_bytes()
    assert content.startswith(start)
    assert len(content) > 2000
    if start == b"<svg":
        assert b"var(--" not in content  # it carries its own style


def test_what_was_run_can_be_copied(demo: Opened) -> None:
    demo.tab.locator("footer summary").click()
    text = demo.text(".made")
    assert "formation report" in text
    assert "# circuit-formation-tracker" in text
    demo.tab.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    demo.tab.locator(".copy-made").click()
    sync_api.expect(demo.tab.locator(".copy-made")).to_have_text("Copied")
    assert demo.tab.evaluate("window.copied") == text


def test_the_tables_filter_sort_and_copy(demo: Opened) -> None:
    demo.tab.locator('[data-table="scores"]').click()
    demo.tab.locator(".filter").fill("a1.h0 induction")
    assert demo.text(".copy") == "Copy 45 rows"
    demo.tab.locator("th button", has_text="value").click()
    demo.tab.locator("th button", has_text="value").click()
    first = demo.tab.locator(".numbers tbody tr").first.locator("td").all_text_contents()
    assert float(first[5]) > 0.8
    demo.tab.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    demo.tab.locator(".copy").click()
    rows = demo.tab.evaluate("window.copied").splitlines()
    assert rows[0].split("\t") == ["step", "tokens", "component", "task", "measure", "value", "std_error"]
    assert len(rows) == 46


def test_light_and_dark_follow_the_system_and_the_switch(browser: Any, places: Path) -> None:
    opened = open_page(browser, places / "demo.html", color_scheme="dark")
    ground = "getComputedStyle(document.querySelector('.formation')).backgroundColor"
    dark = opened.tab.evaluate(ground)
    opened.tab.locator(".theme").click()
    assert opened.tab.evaluate(ground) != dark
    opened.close()


def test_a_phone_shows_all_of_it_without_scrolling_sideways(browser: Any, places: Path) -> None:
    opened = open_page(browser, places / "demo.html", "#component=a1.h0", width=390)
    sync_api.expect(opened.tab.locator(".history")).to_have_attribute("width", re.compile("^3[0-7][0-9]$"))
    assert opened.tab.evaluate("document.documentElement.scrollWidth") <= 390
    opened.close()


def test_a_wrong_address_falls_back(browser: Any, places: Path) -> None:
    opened = open_page(browser, places / "demo.html", "#step=nonsense&run=absent&component=a9.h9&task=none&table=none")
    assert opened.text(".now").startswith("step 1,000")
    opened.close()


def test_several_runs_stand_side_by_side(browser: Any, places: Path) -> None:
    opened = open_page(browser, places / "two.html", "#component=a1.h2")
    assert "differ in learning rate" in opened.tab.locator(".comparison").inner_text()
    rows = opened.tab.locator(".comparison .row").all_text_contents()
    assert rows == ["0.001 · demo-slow", "0.003 · demo"] * 4
    assert opened.text(".story").startswith("Of 2 runs, ")
    assert opened.tab.locator(".comparison .effects dt").all_text_contents() == ["learning rate 0.003 : 0.001"]
    assert "×" in opened.text(".comparison .effects")
    assert opened.text(".graph h2") == "Circuit of 0.003 · demo"
    assert opened.count(".comparison .between") == 8
    opened.tab.locator('select[data-key="run"]').select_option("demo-slow")
    assert "demo-slow" in opened.text(".about")
    opened.tab.locator(".comparison .row").nth(1).click()
    assert opened.text(".about").startswith("demo ·")
    opened.close()


def test_the_comparison_is_by_the_definition_and_clock_of_choice(browser: Any, places: Path) -> None:
    opened = open_page(browser, places / "two.html")
    formed = opened.tab.locator(".comparison .interval .tick").all_text_contents
    assert formed()[:2] == ["(280, 300]", "(170, 180]"]
    assert "by threshold" in opened.text(".history .lane .meta")
    opened.tab.locator('select[data-key="definition"]').select_option("change-point")
    assert "by change-point" in opened.text(".history .lane .meta")
    opened.tab.locator('select[data-key="clock"]').select_option("function")
    frame = two_runs().runs[1].table("formation")
    wanted = frame[(frame["lifeline"] == "induction") & (frame["definition"] == "change-point")]
    row = wanted[wanted["clock"] == "function"].iloc[0]
    assert formed()[0] == f"({row['interval_before']:,.0f}, {row['interval_after']:,.0f}]"
    opened.tab.locator('select[data-key="clock"]').select_option("all")
    assert opened.tab.locator(".comparison .row").first.text_content() == "0.001 · demo-slow · form"
    assert {"definition=change-point", "clock=all"} <= set(opened.tab.url.partition("#")[2].split("&"))
    opened.tab.reload()
    opened.tab.wait_for_selector(".formation .history")
    assert opened.tab.locator('select[data-key="definition"]').input_value() == "change-point"
    opened.close()


def test_a_component_shows_its_match_in_the_other_run_and_leads_there(browser: Any, places: Path) -> None:
    opened = open_page(browser, places / "two.html", "#component=a0.h1")
    match = opened.tab.locator('.matches tr[data-run="demo-slow"]')
    cells = match.locator("td").all_text_contents()
    assert cells[1] == "a0.h1"
    assert cells[2].strip() == "previous-token"
    assert float(cells[3]) > 0.9
    assert "previous-token head A" in opened.text(".component h2")
    assert opened.count(".track .letter") >= 4
    match.locator("button").click()
    assert opened.text(".about").startswith("demo-slow")
    assert opened.text(".component h2").startswith("a0.h1")
    assert opened.count('.matches tr[data-run="demo"]') == 1
    opened.close()


@pytest.mark.parametrize("model", ["pythia_1b", "olmo_1b"])
def test_published_models_are_shown_as_clearly(browser: Any, tmp_path: Path, model: str) -> None:
    report(published_timeline(model), tmp_path / "page.html")
    opened = open_page(browser, tmp_path / "page.html", "#unit=tokens&component=a4.h4")
    assert opened.count(".history .lane") >= 4
    assert opened.count(".node.carrier") > 30
    assert "No edges were recorded" in opened.text(".caption")
    assert (opened.count(".history .open") > 0) == (model == "olmo_1b")
    before = opened.count(".track")
    opened.tab.locator(".more").last.click()
    assert opened.count(".track") > before
    opened.close()


HARNESS = """<!doctype html><title>cell</title><style>{style}</style><div id="cell"></div>
<script type="text/plain" id="esm">{script}</script><script type="module">
const values = {{ data: "{data}", run: "demo", step: 1000, component: "" }};
const listeners = {{}};
window.model = {{
  get: (name) => values[name],
  set: (name, value) => {{ values[name] = value; }},
  save_changes: () => {{ window.saved = {{ ...values }}; }},
  on: (name, listener) => {{ listeners[name] = listener; }},
  off: (name) => {{ delete listeners[name]; }},
  python: (name, value) => {{ values[name] = value; listeners[`change:${{name}}`](); }},
}};
window.heard = () => Object.keys(listeners);
const source = new Blob([document.getElementById("esm").textContent], {{ type: "text/javascript" }});
const widget = (await import(URL.createObjectURL(source))).default;
window.cleanUp = await widget.render({{ model: window.model, el: document.getElementById("cell") }});
</script>"""


def test_the_widget_speaks_with_its_model_both_ways(browser: Any, tmp_path: Path) -> None:
    page = HARNESS.format(style=viewer_style(), script=widget_script(), data=packed(demo_timeline()))
    (tmp_path / "cell.html").write_text(page)
    opened = open_page(browser, tmp_path / "cell.html")
    opened.tab.locator('.node[data-component="a1.h0"]').click()
    opened.tab.locator(".scrub").fill("20")
    saved = opened.tab.evaluate("window.saved")
    assert (saved["run"], saved["step"], saved["component"]) == ("demo", 190, "a1.h0")
    opened.tab.evaluate("model.python('step', 0)")
    assert opened.text(".now").startswith("step 0")
    opened.tab.evaluate("model.python('step', 187)")
    assert opened.tab.evaluate("window.saved").get("step") == 190
    opened.tab.evaluate("model.python('component', 'a0.h1')")
    assert opened.text(".component h2") == "a0.h1"
    assert "#" not in opened.tab.url
    opened.tab.evaluate("window.cleanUp()")
    assert opened.tab.evaluate("window.heard()") == []
    opened.close()


def test_a_checkpoint_has_its_place_on_every_kind_of_axis(demo: Opened) -> None:
    ends = []
    for kind in ("log", "linear", "even"):
        demo.tab.locator(f'[data-value="{kind}"]').click()
        demo.tab.locator(".scrub").fill("22")
        ends.append(float(demo.tab.locator(".history .cursor").get_attribute("x1")))
    assert len(set(ends)) == 3
    left, right = (float(demo.tab.locator(".history .rule").first.get_attribute(end)) for end in ("x1", "x2"))
    assert ends[2] == pytest.approx((left + right) / 2)
    assert ends[1] == pytest.approx(left + (right - left) * 0.21)


@pytest.mark.slow
def test_a_long_history_of_a_large_model_is_small_and_opens_fast(browser: Any, large: Path) -> None:
    assert large.stat().st_size < 6_000_000
    opening = []
    for _ in range(3):
        opened = open_page(browser, large, "#edges=300")
        opening.append(opened.tab.evaluate("performance.now()") / 1000)
        if opening[-1] < 2:
            break
        opened.close()
    assert min(opening) < 2
    assert opened.count(".edges .edge") == 300
    assert "300 of 1,204 edges, the largest" in opened.text(".caption")
    opened.tab.locator('select[data-key="edges"]').select_option("30")
    assert opened.count(".edges .edge") == 30
    redraw = """() => {
      const slider = document.querySelector(".scrub"), start = performance.now();
      for (let i = 0; i < 20; i++) { slider.value = 149 - i; slider.dispatchEvent(new Event("input")); }
      return (performance.now() - start) / 20;
    }"""
    assert opened.tab.evaluate(redraw) < 100
    opened.close()


@pytest.mark.slow
def test_what_stands_above_the_lifelines(browser: Any, large: Path) -> None:
    """What the model can do, is biased to, and has from neighbouring tokens, each on an axis of its own."""
    opened = open_page(browser, large)
    shown = opened.tab.locator(".history .family").all_text_contents()
    assert shown == ["task metric", "n-gram statistics (minus divergence, nats)", "bias (logit difference)",
                     "faithfulness", "edges in the circuit"]  # fmt: skip
    assert opened.count(".history path.minor") == 5
    opened.close()


def test_the_trainers_own_numbers_are_folded_away(demo: Opened) -> None:
    assert "learning rate" not in demo.tab.locator(".history .family").all_text_contents()
    demo.tab.locator(".history .more", has_text="Show learning rate").click()
    assert "learning rate" in demo.tab.locator(".history .family").all_text_contents()
    assert "open=more" in demo.tab.url


def test_time_is_zoomed_and_moved_in_every_chart_at_once(demo: Opened) -> None:
    def ticks(of: str) -> list[float]:
        texts = demo.tab.locator(f"{of} .tick").all_text_contents()
        return [float(text.replace(",", "")) for text in texts if re.fullmatch(r"[0-9.,]+", text)]

    demo.tab.locator(".overview").scroll_into_view_if_needed()
    box = demo.tab.locator(".overview").bounding_box()
    demo.tab.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 8)
    demo.tab.mouse.down()
    demo.tab.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 8, steps=3)
    demo.tab.mouse.up()
    view = re.search(r"view=([\d.]+)\.\.([\d.]+)", demo.tab.url)
    assert view is not None
    low, high = float(view[1]), float(view[2])
    assert 0 < low < high < 1000
    for chart in (".history .axis", ".clocks", ".formed"):
        assert max(ticks(chart)[:4]) <= 1000
        assert min(ticks(chart)[:3]) >= low - 1
    assert demo.tab.locator('[data-value="auto"]').text_content() == "auto: linear"
    demo.tab.locator('[data-zoom="0"]').click()
    assert "view=" not in demo.tab.url
    demo.tab.locator(".scrub").fill("20")
    demo.press("+", "+", "]")
    assert "view=" in demo.tab.url
    address = demo.tab.url
    demo.tab.reload()
    demo.tab.wait_for_selector(".formation .history")
    assert demo.tab.url == address
    assert demo.tab.locator(".overview .window").is_visible()
    demo.press("0")
    demo.tab.locator(".all-here").click()
    assert "view=" in demo.tab.url


def test_the_wheel_zooms_about_the_pointer(demo: Opened) -> None:
    demo.tab.locator(".ground").scroll_into_view_if_needed()
    box = demo.tab.locator(".ground").bounding_box()
    demo.tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + 30)
    demo.tab.keyboard.down("Control")
    demo.tab.mouse.wheel(0, -300)
    demo.tab.keyboard.up("Control")
    demo.tab.wait_for_function("location.hash.includes('view=')")
    demo.tab.mouse.dblclick(box["x"] + box["width"] / 2, box["y"] + 30)
    assert "view=" not in demo.tab.url


def test_heads_are_drawn_over_one_another_and_the_pointer_reads_them(demo: Opened) -> None:
    assert demo.text(".overlay h2") == "Heads over one another"
    lines = demo.count(".over path.line")
    assert lines == demo.count(".overlay .chips [aria-pressed=true]")
    demo.tab.locator(".overlay .chips [aria-pressed=false]").first.click()
    assert demo.count(".over path.line") == lines + 1
    demo.tab.locator('.overlay select[data-key="heads"]').select_option("all")
    assert demo.count(".over path.line") == 8
    demo.tab.locator(".reads").hover(position={"x": 250, "y": 60})
    assert re.search(r"a1\.h\d\nstep [\d,]+: 0\.\d+ ± ", demo.text(".tip"))
    assert demo.count(".over path.read") == 1
    demo.tab.locator('.overlay select[data-key="what"]').select_option("curve:training/loss")
    assert demo.count(".over path.line") == 1
    with demo.tab.expect_download() as waiting:
        demo.tab.locator(".overlay .save-csv").click()
    assert Path(waiting.value.path()).read_text().startswith("run,component,step,tokens,value,std_error\ndemo,,0,0,")


def test_runs_are_drawn_over_one_another_and_left_out(browser: Any, places: Path) -> None:
    opened = open_page(browser, places / "two.html")
    assert opened.text(".overlay h2") == "Runs over one another"
    assert opened.count(".over path.line") == 2
    assert opened.tab.locator(".over .end").all_text_contents() == ["0.003 · demo", "0.001 · demo-slow"]
    opened.tab.locator(".overlay .chips button", has_text="demo-slow").click()
    assert opened.count(".over path.line") == 1
    opened.close()


def test_a_head_shows_where_it_looks_at_the_step(browser: Any, tmp_path: Path) -> None:
    shares = np.zeros((1, 2, 4, 3, 3), dtype=np.uint8)
    shares[:, :, :, [0, 1, 2], [0, 0, 1]] = 255
    later = shares.copy()
    later[0, 1, 0, 2] = [255, 0, 0]
    words = (("one", "two", "<b>"),)
    kept = {0: Patterns(shares, np.arange(3)[None], words), 1000: Patterns(later, np.arange(3)[None], words)}
    report(build_timeline(replace(demo_history(), patterns=kept)), tmp_path / "page.html")
    opened = open_page(browser, tmp_path / "page.html", "#component=a1.h0")
    assert "at step 1,000; rows are queries" in opened.tab.locator(".component").inner_text()
    assert "looks most at token 1, one" in str(opened.tab.locator(".pattern").get_attribute("aria-label"))
    opened.tab.locator(".pattern rect").last.hover()
    assert opened.text(".tip") == "“<b>” (3) looks at “one” (1): 1.00"
    opened.tab.locator(".scrub").fill("2")
    assert "at step 0, the nearest that was recorded" in opened.tab.locator(".component").inner_text()
    assert "looks most at token 2, two" in str(opened.tab.locator(".pattern").get_attribute("aria-label"))
    opened.close()


HOLES = """() => {
  const foot = (one) => one.getBoundingClientRect().bottom;
  const panel = (name) => document.querySelector(name);
  const matched = panel(".matched");
  const last = matched.hidden ? panel(".overlay") : matched;
  return [last, panel(".component")].map((one) => foot(one) - Math.max(...[...one.children].map(foot)));
}"""


@pytest.mark.parametrize("page", ["demo.html", "two.html"])
def test_both_columns_end_together(page: str, browser: Any, places: Path) -> None:
    opened = open_page(browser, places / page)
    assert max(opened.tab.evaluate(HOLES)) < 200
    opened.tab.locator('.node[data-component="a0.h1"]').click()
    assert max(opened.tab.evaluate(HOLES)) < 200
    opened.close()


COVERED = """() => [...document.querySelectorAll(".formed .interval")].flatMap((mark) => {
  const text = mark.querySelector("text")?.getBoundingClientRect();
  const bars = [...mark.querySelectorAll("rect.between")].map((bar) => bar.getBoundingClientRect());
  return text ? bars.map((bar) => Math.min(text.right, bar.right) - Math.max(text.left, bar.left)) : [];
})"""


@pytest.mark.parametrize("width", [390, 1280])
def test_the_label_of_an_interval_does_not_cover_it(width: int, browser: Any, places: Path) -> None:
    opened = open_page(browser, places / "demo.html", "#definition=threshold&clock=all", width=width)
    covered = opened.tab.evaluate(COVERED)
    assert len(covered) >= 6
    assert max(covered) <= 1
    opened.close()


def test_notes_travel_in_the_link_and_in_a_saved_page(browser: Any, demo: Opened, tmp_path: Path) -> None:
    demo.tab.locator(".scrub").fill("20")
    demo.tab.locator(".note-button").click()
    demo.tab.locator(".note").fill("here it begins & <ends>")
    demo.press("Enter")
    assert demo.text(".notes-list li span") == "here it begins & <ends>"
    address = demo.tab.url
    demo.press("Escape", "End")
    demo.tab.goto(address)
    demo.tab.reload()
    demo.tab.wait_for_selector(".formation .history")
    assert demo.tab.locator(".notes-list").is_visible()
    demo.tab.locator(".scrub").fill("44")
    demo.tab.locator(".notes-list button", has_text="step 190").click()
    assert demo.text(".now").startswith("step 190")
    with demo.tab.expect_download() as waiting:
        demo.tab.locator(".save-page").click()
    waiting.value.save_as(tmp_path / "saved.html")
    saved = open_page(browser, tmp_path / "saved.html")
    assert saved.text(".now").startswith("step 190")
    assert saved.text(".notes-list li span") == "here it begins & <ends>"
    saved.tab.locator(".notes-list .drop").click()
    assert saved.count(".notes-list li") == 0
    saved.close()


def test_paper_shows_all_of_every_drawing(browser: Any, places: Path) -> None:
    opened = open_page(browser, places / "demo.html", color_scheme="dark")
    opened.tab.emulate_media(media="print", color_scheme="dark")
    opened.tab.set_viewport_size({"width": 700, "height": 900})
    assert opened.tab.evaluate("document.documentElement.scrollWidth") <= 700
    assert (
        opened.tab.evaluate("getComputedStyle(document.querySelector('.over-time')).backgroundColor")
        == "rgb(255, 255, 255)"
    )
    assert not opened.tab.locator(".play").is_visible()
    opened.close()


def test_findings_unfold_and_the_page_explains_its_words(demo: Opened) -> None:
    assert not demo.tab.locator(".findings .rest").first.is_visible()
    demo.tab.locator(".unfold").click()
    assert demo.tab.locator(".findings .rest").first.is_visible()
    assert not demo.tab.locator(".guide").is_visible()
    demo.tab.locator(".help").click()
    assert "never a point" in demo.tab.locator(".guide").inner_text()


def test_a_mark_under_the_pointer_says_what_it_is(demo: Opened) -> None:
    demo.tab.locator('.node[data-component="a1.h2"]').hover()
    assert "a1.h2: induction, score" in demo.text(".tip")
    demo.tab.locator(".comparison .interval").first.hover()
    assert "90% interval: " in demo.text(".tip")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(browser: Any, places: Path, scheme: str, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    opened = open_page(browser, places / "two.html", "#component=a1.h0", color_scheme=scheme, width=width)
    opened.tab.locator(".help").click()
    opened.tab.locator(".unfold").click()
    found = axe.Axe().run(opened.tab).response["violations"]
    assert [(fault["id"], fault["nodes"][0]["target"]) for fault in found] == []
    opened.tab.context.close()
