"""Report: how a timeline becomes one page that opens anywhere, with nothing to install and no network.

The page is one HTML file that holds its style, its code and its data (gzipped).  The code lies in `viewer/` as ordinary
JavaScript modules; here they are put together into one script, each in the order in which it is needed.
"""

import base64
import gzip
import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from circuits.files import write_beside
from tracking.history.history import History, tool_version
from tracking.results.influence_file import InfluenceFile, read_influence
from tracking.results.results import Timeline
from tracking.results.timeline import as_timeline
from tracking.viewer.page_data import page_data, page_title

__all__ = ["packed", "report", "viewer_script", "viewer_style", "widget_script"]

# Every module after those it imports.
MODULES = (
    "vendor/d3.js",
    "data.js",
    "time.js",
    "state.js",
    "paper.js",
    "tip.js",
    "zoom.js",
    "save.js",
    "interval.js",
    "attention.js",
    "notes.js",
    "curves.js",
    "lanes.js",
    "lineage.js",
    "influence.js",
)
MODULES += (
    "history.js",
    "circuit.js",
    "component.js",
    "compare.js",
    "overlay.js",
    "table.js",
    "head.js",
    "keys.js",
    "main.js",
)

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
script-src 'unsafe-inline'; img-src data:">
<meta name="generator" content="circuit-formation-tracker {version}">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>html, body {{ margin: 0; min-height: 100%; background: #f8f8f6; }}
html[data-theme="dark"], html[data-theme="dark"] body {{ background: #131417; }}
@media (prefers-color-scheme: dark) {{ html:not([data-theme="light"]), html:not([data-theme="light"]) body \
{{ background: #131417; }} }}
@media print {{ html, body, html[data-theme="dark"], html[data-theme="dark"] body, \
html:not([data-theme="light"]), html:not([data-theme="light"]) body {{ background: #fff; }} }}
{style}</style>
</head>
<body>
<main id="page"><p>This page draws itself with JavaScript, which is off or too old here.</p></main>
<script type="application/gzip" id="data">{data}</script>
<script type="module">
{script}
decode(document.getElementById("data").textContent)
  .then((page) => mount(document.getElementById("page"), page))
  .catch((error) => {{
    document.getElementById("page").textContent = `This page could not be drawn: ${{error.message}}`;
    throw error;
  }});
</script>
</body>
</html>
"""


def report(
    timeline: "Timeline | History | Iterable[History]",
    out: "str | Path",
    *,
    title: str | None = None,
    why: "Iterable[str | Path | Mapping[str, Any]]" = (),
    **options: Any,
) -> Path:
    """Write the page of one run or of several.

    Args:
        timeline: what was found; or histories, which are then linked and dated with `options` (see `build_timeline`).
        out: the HTML file; it is written beside its place and moved into it.
        title: of the page; the names of the runs where not given.
        why: which training data moved a date: files of `formation why --json`, or `why(...).to_dict()`.

    Returns:
        The file.
    """
    found = as_timeline(timeline, **options)
    page = PAGE.format(
        version=tool_version(),
        title=html.escape(title or page_title(found)),
        style=viewer_style(),
        data=packed(found, title=title, why=[read_influence(each) for each in why]),
        script=viewer_script(),
    )
    place = Path(out)
    place.parent.mkdir(parents=True, exist_ok=True)
    write_beside(place, page.encode())
    return place


def packed(timeline: Timeline, *, title: str | None = None, why: Sequence[InfluenceFile] = ()) -> str:
    """The page's data: JSON, gzipped, in base64."""
    text = json.dumps(
        page_data(timeline, title=title, why=why), separators=(",", ":"), allow_nan=False, ensure_ascii=False
    )
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


@cache
def viewer_script(*more: str) -> str:
    """The viewer's modules, and some more, as one script that defines `decode` and `mount`.

    A module here imports by name from its neighbours and exports declarations only, so that joining them is leaving
    these two words out.
    """
    parts = []
    for name in (*MODULES, *more):
        source = _read(name)
        source = re.sub(r'^import \{[^}]*\} from "[^"]*";\n', "", source, flags=re.MULTILINE)
        source = re.sub(r"^export (?:default )?\{[^}]*\};\n", "", source, flags=re.MULTILINE)
        parts.append(re.sub(r"^export (?=(?:async )?(?:function|const|let|class))", "", source, flags=re.MULTILINE))
    return "\n".join(parts)


@cache
def widget_script() -> str:
    """The viewer as the module that anywidget loads."""
    return viewer_script("widget.js") + "\nexport default { render };\n"


@cache
def viewer_style() -> str:
    return _read("style.css")


def _read(name: str) -> str:
    return files("tracking.viewer").joinpath("static", *name.split("/")).read_text(encoding="utf-8")
