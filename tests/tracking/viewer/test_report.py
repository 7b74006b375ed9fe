"""The page holds what the timeline holds, in one file that asks nothing of anybody."""

import base64
import gzip
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.timeline_examples import demo_timeline, published_timeline, two_runs
from tracking.lifelines.alignment import align_runs
from tracking.matching.matching import match
from tracking.results.results import Timeline
from tracking.viewer.page_data import _numbers, main_roles, page_data, page_title
from tracking.viewer.report import MODULES, report, viewer_script, viewer_style

VIEWER = Path(__file__).parents[3] / "tracking" / "viewer" / "static"


@pytest.fixture(scope="module")
def timeline() -> Timeline:
    return demo_timeline()


@pytest.fixture(scope="module")
def page(timeline: Timeline, tmp_path_factory: pytest.TempPathFactory) -> str:
    return report(
        timeline, tmp_path_factory.mktemp("page") / "deep" / "report.html", title="A <circuit> forms"
    ).read_text()


def data_of(page: str) -> dict:
    packed = re.search(r'id="data">([^<]*)<', page)
    assert packed is not None
    return json.loads(gzip.decompress(base64.b64decode(packed[1])), parse_constant=pytest.fail)


def test_the_page_is_one_file_that_names_no_other(page: str) -> None:
    bare = re.sub(r'id="data">[^<]*<', "", page)
    assert re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)([^"']*)""", bare) == []
    # The names of the SVG and XHTML kinds of element are addresses that nobody opens.
    addresses = set(re.findall(r"https?://[\w./]+", bare))
    assert all(address.startswith("http://www.w3.org/") for address in addresses)
    assert "default-src 'none'" in page
    assert "<title>A &lt;circuit&gt; forms</title>" in page


def test_equal_timelines_give_equal_pages(timeline: Timeline, tmp_path: Path) -> None:
    first, second = (report(timeline, tmp_path / name).read_bytes() for name in ("a.html", "b.html"))
    assert first == second


def test_the_page_holds_the_numbers_of_the_tables(timeline: Timeline, page: str) -> None:
    run = timeline.runs[0]
    shown = data_of(page)["runs"][0]
    assert shown["sentences"] == list(run.sentences)
    scores = run.table("scores")
    for entry in shown["scores"]:
        rows = scores[(scores["task"] == entry["task"]) & (scores["measure"] == entry["measure"])]
        for component, values, errors in zip(entry["components"], entry["values"], entry["errors"], strict=True):
            some = rows[rows["component"] == component].sort_values("step")
            assert values == pytest.approx(some["value"].tolist(), rel=1e-3)
            assert errors == pytest.approx(some["std_error"].tolist(), rel=1e-3)
    for table in ("events", "formation"):
        frame = run.table(table)
        assert list(shown[table]) == [name for name in frame.columns if name != "run"]
        assert len(next(iter(shown[table].values()))) == len(frame)
    edges = run.table("edges")
    kept = edges[edges["in_circuit"]]
    circuits = shown["circuits"]["induction"]
    assert sum(len(at["edges"]) for at in circuits["at"] if at) == len(kept)
    last = circuits["at"][-1]
    assert last["status"] == "performed"
    assert last["scores"] == sorted(last["scores"], key=abs, reverse=True)
    assert circuits["at"][0]["status"] == "not_performed"


def test_lanes_hold_every_carrier_at_every_step(timeline: Timeline, page: str) -> None:
    lifelines = timeline.runs[0].table("lifelines")
    for lane in data_of(page)["runs"][0]["lanes"]:
        rows = lifelines[lifelines["lifeline"] == lane["lifeline"]]
        assert sum(len(track["places"]) for track in lane["tracks"]) == len(rows)


def test_published_scores_make_a_page_without_edges_and_errors(tmp_path: Path) -> None:
    data = page_data(published_timeline("olmo_1b"))
    shown = data["runs"][0]
    assert shown["circuits"] == {}
    assert all(entry["errors"] is None for entry in shown["scores"])
    lane = next(lane for lane in shown["lanes"] if lane["lifeline"] == "previous-token")
    assert lane["formation"][0]["censored"] == "left"
    assert shown["scale"]["tokens"]["automatic"] == "log"
    assert report(published_timeline("olmo_1b"), tmp_path / "olmo.html").stat().st_size < 450_000


def test_several_runs_say_what_differs_between_them() -> None:
    data = page_data(two_runs())
    assert data["differing"] == ["learning_rate"]
    assert data["title"] == "demo, demo-slow"


def test_the_page_knows_which_component_of_one_run_is_which_of_another() -> None:
    timeline = two_runs()
    found = page_data(timeline)["counterparts"]
    one, other = (run.history for run in timeline.runs)
    expected = match(one, other, same_run=False)
    (between,) = found["between"]
    assert between["runs"] == ["demo", "demo-slow"]
    for pair, (before, after, *numbers) in zip(expected.pairs, between["pairs"], strict=True):
        assert (pair.before.name, pair.after.name) == (before, after)
        assert numbers == pytest.approx([pair.similarity, pair.confidence, pair.null], rel=1e-3)
    families = align_runs([one, other]).families
    members = [{run: node.name for run, node in family.members.items()} for family in families]
    assert [(family["label"], family["members"]) for family in found["families"]] == [
        (family.label, some) for family, some in zip(families, members, strict=True)
    ]
    assert found["all"]


def test_of_a_large_model_only_components_with_a_role_are_matched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracking.viewer.page_data.FEW_COMPONENTS", 4)
    timeline = two_runs()
    (between,) = page_data(timeline)["counterparts"]["between"]
    roles = [{node.name for node in main_roles(run)} for run in timeline.runs]
    assert between["pairs"]
    assert all(before in roles[0] or after in roles[1] for before, after, *_ in between["pairs"])
    assert {"a0.h0", "a1.h1"} & {before for before, *_ in between["pairs"]} <= roles[0]


def test_of_many_runs_each_is_matched_with_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracking.viewer.page_data.ENOUGH", 0.1)
    demo, slow = two_runs().runs
    third = replace(slow, history=replace(slow.history, name="third"))
    found = page_data(Timeline((demo, slow, third)))["counterparts"]
    assert [between["runs"] for between in found["between"]] == [["demo", "demo-slow"], ["demo", "third"]]
    assert not found["all"]


def test_a_title_names_the_runs_or_what_differs_between_them() -> None:
    demo, slow = two_runs().runs
    assert page_title(Timeline((demo, slow))) == "demo, demo-slow"
    wordy = replace(slow, history=replace(slow.history, name="slow" * 20))
    assert page_title(Timeline((demo, wordy))) == "2 runs, differing in learning rate"
    assert page_title(Timeline((wordy,))) == "slow" * 20


@given(st.lists(st.floats(-1e100, 1e100) | st.sampled_from([None, math.nan, math.inf, -math.inf]), max_size=20))
def test_numbers_of_the_page_have_four_significant_digits(values: list[float | None]) -> None:
    for exact, written in zip(values, _numbers(values), strict=True):
        if exact is None or not math.isfinite(exact):
            assert written is None
        else:
            assert written is not None
            assert math.isclose(written, exact, rel_tol=5.0001e-4, abs_tol=1e-290)
            exactly = 1e-18 < abs(exact) < 1e18
            assert math.isclose(float(f"{written:.4g}"), written, rel_tol=0 if exactly else 1e-12, abs_tol=1e-290)


def test_every_module_of_the_viewer_is_joined_after_what_it_imports() -> None:
    seen: set[str] = set()
    for name in MODULES:
        source = (VIEWER / name).read_text()
        wanted = re.findall(r'^import .* from "\./([^"]*)";$', source, flags=re.MULTILINE)
        assert set(wanted) <= seen, f"{name} comes before {set(wanted) - seen}"
        seen.add(name)
    assert {str(path.relative_to(VIEWER)) for path in VIEWER.rglob("*.js")} <= seen | {"widget.js"}


def test_no_two_modules_of_the_viewer_declare_one_name() -> None:
    script = viewer_script()
    names = re.findall(r"^(?:async )?(?:function|const|let|class) (\w+)", script, flags=re.MULTILINE)
    assert len(names) == len(set(names))
    assert not re.search(r"^(?:import|export) ", script, flags=re.MULTILINE)
    assert "</script" not in script.lower()
    assert "url(" not in viewer_style()


def test_the_vendored_library_comes_with_its_licence() -> None:
    head = (VIEWER / "vendor" / "d3.js").read_text()[:200]
    assert re.search(r"d3-selection 3\.\d+\.\d+", head)
    assert "Mike Bostock" in (VIEWER / "vendor" / "d3.LICENSE").read_text()
    assert (VIEWER / "vendor" / "d3.js").stat().st_size < 150_000
