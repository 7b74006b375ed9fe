"""What an installed package names is imported before work begins, and one that cannot be is named."""

import sys
from importlib.metadata import EntryPoint

import pytest

from tracking.execution import plugins


def test_a_plugin_is_imported_and_one_that_cannot_be_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    plugins.load_plugins.cache_clear()
    points = [EntryPoint("good", "json.tool", plugins.GROUP), EntryPoint("bad", "no_such_module", plugins.GROUP)]
    monkeypatch.setattr(plugins, "entry_points", lambda group: [points[0]])
    monkeypatch.delitem(sys.modules, "json.tool", raising=False)
    plugins.load_plugins()
    assert "json.tool" in sys.modules
    plugins.load_plugins.cache_clear()
    monkeypatch.setattr(plugins, "entry_points", lambda group: points)
    with pytest.raises(ImportError, match=r"the plugin bad \(no_such_module\) cannot be imported"):
        plugins.load_plugins()
    plugins.load_plugins.cache_clear()
