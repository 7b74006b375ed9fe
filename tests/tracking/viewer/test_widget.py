"""The widget holds the page, and its traits are the view."""

import sys

import pytest

from tests.timeline_examples import demo_history, demo_timeline
from tracking.viewer.report import packed
from tracking.viewer.widget import _widget_class, view


def test_the_widget_holds_the_page_and_knows_what_is_chosen() -> None:
    pytest.importorskip("anywidget")
    widget = view(demo_timeline(), title="A circuit forms")
    assert widget.data == packed(demo_timeline(), title="A circuit forms")
    assert (widget.run, widget.step, widget.component) == ("demo", 1000, "")
    assert {"data", "run", "step", "component"} <= set(widget.keys)
    seen = []
    widget.observe(lambda change: seen.append(change["new"]), "step")
    widget.step = 190
    assert seen == [190]
    assert "export default { render };" in widget._esm


def test_a_history_is_linked_and_dated_first() -> None:
    pytest.importorskip("anywidget")
    assert view(demo_history()).data == view(demo_timeline()).data


def test_without_anywidget_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anywidget", None)
    _widget_class.cache_clear()
    with pytest.raises(ImportError, match=r"circuit-formation-tracker\[widget\]"):
        view(demo_timeline())
