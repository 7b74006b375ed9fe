"""How is the reference made from the docstrings?

    python -m sphinx -W --keep-going -b html .github/docs build/reference

Text in single backquotes is code, and a link too where it names something that is documented.
"""

import re
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import nbformat
from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from sphinx.addnodes import pending_xref
from sphinx.ext.napoleon.docstring import GoogleDocstring
from sphinx.util.nodes import make_refnode

sys.path.insert(0, str(Path(__file__).parents[2]))

from tracking.checkpoints.names import KNOWN_SERIES
from tracking.history.columns import TABLES

project = "Circuit formation tracker"
release = version_of("circuit-formation-tracker")

extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
templates_path = ["templates"]
exclude_patterns = ["templates", "static"]
default_role = "known"
add_module_names = False
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True

# Every name in a signature must be documented here, or be another library's: those are named, not linked, so that the
# build needs no network.
nitpicky = True
LIBRARIES = (
    "collections contextlib contextvars jaxtyping networkx np numpy nx pandas pathlib pd re scipy torch typing types "
    "xarray xr"
)
BARE = "Axes Figure Path Progress Tensor ndarray nn.Module"
nitpick_ignore_regex = [
    ("py:.*", rf"({'|'.join(LIBRARIES.split())})\..*"),
    ("py:.*", "|".join(map(re.escape, BARE.split()))),
    ("py:class", ".*'.*"),  # the axes of a shape
    ("py:class", r"tracking\.results\.timeline_types\.Tables"),  # made from `tracking.history.columns`
]


def _words(docstring: Any, preprocess_types: bool = False) -> list[tuple[str, str, list[str]]]:
    return [("", "", docstring._dedent(docstring._consume_to_next_section()))]


# Types stand in signatures: words before a colon in what is said of a property, a constant or a result are words.
GoogleDocstring._parse_attribute_docstring = GoogleDocstring._consume_to_end  # type: ignore[method-assign]
GoogleDocstring._consume_returns_section = _words  # type: ignore[method-assign]

html_theme = "furo"
html_title = project
html_static_path = ["static"]
html_css_files = ["reference.css"]
html_show_copyright = False
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}


class Columns(Directive):
    """What one row of a table is, and its columns: `.. columns:: formation`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        table = TABLES[self.arguments[0]]
        lines = [table.about, "", ".. list-table::", "   :widths: 22 78", ""]
        for column in table.columns:
            values = ", ".join(f"*{value or 'empty'}*" for value in column.values)
            lines += [f"   * - {column.name}", f"     - {column.about}{values and ': '}{values}"]
        place = nodes.Element()
        self.state.nested_parse(StringList(lines, "tracking.history.columns"), self.content_offset, place)
        return place.children


class KnownSeriesTable(Directive):
    """The published series that are known by their repositories: `.. known-series::`."""

    def run(self) -> list[nodes.Node]:
        lines = [".. list-table::", "   :header-rows: 1", "", "   * - series", "     - repositories"]
        lines += ["     - a step is", "     - tokens a step"]
        for series in KNOWN_SERIES:
            per_step = "" if series.tokens_per_step is None else f"{series.tokens_per_step:,.0f}"
            lines += [f"   * - {series.name}", f"     - ``{series.repositories}``"]
            lines += [f"     - {series.unit.removesuffix('s')}", f"     - {per_step or 'told by the names'}"]
        place = nodes.Element()
        self.state.nested_parse(StringList(lines, "tracking.checkpoints.names"), self.content_offset, place)
        return place.children


class Drawn(Directive):
    """A figure that is drawn when the reference is built: `.. drawn:: name`, then code that makes `figure`."""

    required_arguments = 1
    has_content = True
    names: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        env, name = self.state.document.settings.env, self.arguments[0]
        code = "\n".join(self.content)
        names = self.names  # a later figure goes on where the one before it stopped
        exec(compile(code, f"gallery: {name}", "exec"), names)
        place = Path(env.app.outdir) / "_images" / f"{name}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        names["figure"].savefig(place, dpi=150, bbox_inches="tight")
        about = f'<p><img src="_images/{place.name}" alt="{name.replace("-", " ")}" style="max-width: 100%"></p>'
        return [nodes.literal_block(code, code, language="python"), nodes.raw("", about, format="html")]


class Notebook(Directive):
    """A notebook with its figures, run when the reference is built: `.. notebook:: step_in`.

    All run in one folder, in which the first that needs the demo makes it.
    """

    required_arguments = 1
    folder: ClassVar[Any] = TemporaryDirectory()

    def run(self) -> list[nodes.Node]:
        place = Path(__file__).parents[2] / "notebooks" / f"{self.arguments[0]}.ipynb"
        self.state.document.settings.record_dependencies.add(str(place))
        content = nbformat.read(place, as_version=4)
        content.cells[0].source = content.cells[0].source.partition("\n")[2]  # the title stands above
        NotebookClient(content, timeout=900, resources={"metadata": {"path": self.folder.name}}).execute()
        shown, _ = HTMLExporter(template_name="basic").from_notebook_node(content)
        return [nodes.raw("", f'<div class="notebook">{shown}</div>', format="html")]


def setup(app: Any) -> None:
    app.add_directive("columns", Columns)
    app.add_directive("known-series", KnownSeriesTable)
    app.add_directive("drawn", Drawn)
    app.add_directive("notebook", Notebook)
    app.add_role("known", code_or_link)
    app.connect("missing-reference", find)
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-signature", readable)


def skip(app: Any, what: str, name: str, member: Any, skipped: bool, options: Any) -> "bool | None":
    """A module documents what it defines; what it passes on stands with the module that defines it."""
    at, of = app.env.current_document.autodoc_module, getattr(member, "__module__", None)
    ours = isinstance(of, str) and of.split(".")[0] in ("circuits", "tracking")
    return True if what == "module" and ours and at and of != at else None


def readable(app: Any, what: str, name: str, obj: Any, options: Any, signature: "str | None", returns: Any) -> Any:
    """A signature that can be parsed: dataclasses show a field's factory as `<factory>`."""
    return (signature.replace("<factory>", "..."), returns) if signature and "<factory>" in signature else None


def code_or_link(
    name: str, raw: str, text: str, line: int, inliner: Any, options: Any = None, content: Any = ()
) -> Any:
    """The role of text in single backquotes."""
    code = nodes.literal(raw, text)
    target = text.removesuffix("()")
    if not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", target):
        return [code], []
    env = inliner.document.settings.env
    about = {"refdomain": "py", "reftype": "known", "reftarget": target, "refdoc": env.docname}
    return [pending_xref(raw, code, **about, **{"py:module": env.ref_context.get("py:module")})], []


def find(app: Any, env: Any, node: Any, content: Any) -> Any:
    """What a name means: the whole name of something, else something of this module, else the only one so called.

    A plain word, such as `order`, is more often an argument than another module's function of that name.
    """
    if node.get("refdomain") != "py":
        return None
    target, module = node["reftarget"], node.get("py:module")
    objects = env.domains["py"].objects
    ending = [name for name in objects if name.endswith(f".{target}")]
    here = [name for name in ending if name.startswith(f"{module}.")]
    plain = node["reftype"] == "known" and re.fullmatch("[a-z]+", target)
    for named in ([target] if target in objects else [], here, [] if plain else ending):
        if len(named) == 1:
            place = objects[named[0]]
            return make_refnode(app.builder, node["refdoc"], place.docname, place.node_id, content, named[0])
    return content if node["reftype"] == "known" else None
