"""Imports go one way, and only one module opens each big door."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Left to right; a module may import from layers to its left, and from its own layer only where no cycle results.
CIRCUITS = [
    ["graph"],
    ["checkpoint", "parts", "moments"],
    ["layout", "rules", "metrics"],
    ["transformer"],
    ["model"],
    ["tasks"],
    ["writes"],
    ["gradients"],
    ["heads", "composition", "flow", "patching", "attribution", "sites"],
    ["circuit"],
    ["evaluation"],
    ["curves", "controls", "pruning"],
    ["discovery"],
]
TRACKING = [
    ["slices"],
    ["formats", "claims", "hub", "crew"],
    ["runs", "cluster"],
    ["loading", "weighing", "workers"],
    ["records"],
    ["edgeseries"],
    ["tables"],
    ["audit", "history"],
    ["importing", "interventions"],
    ["standins", "surgery"],
    [
        "sequences",
        "hyperparameters",
        "measuring",
        "density",
        "bench",
        "walking",
        "jobs",
        "recording",
        "training",
        "ordering",
        "stepping",
        "schedules",
        "sinks",
        "live",
        "callbacks",
    ],
    ["synthetic"],
    ["signatures", "assignment", "similarity"],
    ["matching"],
    ["stints", "windows", "events"],
    ["tracklets", "roles", "leads"],
    ["recurrence"],
    ["linking"],
    ["chains", "simulated"],
    ["lifelines"],
    ["alignment"],
    ["dating"],
    ["clocks"],
    ["formation"],
    ["precedence"],
    ["survival", "outliers", "ridge"],
    ["exchange", "runset"],
    ["evidence", "judging"],
    ["comparison", "forecast", "branching", "effects"],
    ["shifts", "scaling", "arms"],
    ["planning", "goals"],
    ["sweep"],
    ["design"],
    ["wording"],
    ["exports", "results"],
    ["arrays", "dashboards", "interchange"],
    ["timeline"],
    ["drawing", "canvas"],
    ["timeaxis"],
    ["panels", "pagedata", "captions", "circuit_panel"],
    ["figures"],
    ["figures_comparison", "figures_forecast"],
    ["report", "viewer"],
    ["widget"],
    ["demo", "doctor"],
    ["terminal"],
    ["cli_many_runs", "cli_outputs"],
    ["cli"],
]
LAYERS = {
    f"{package}.{module}": (package, number)
    for package, layers in (("circuits", CIRCUITS), ("tracking", TRACKING))
    for number, layer in enumerate(layers)
    for module in layer
}
MODEL_FREE = [
    "matching",
    "lifelines",
    "formation",
    "survival",
    "exchange",
    "runset",
    "arms",
    "outliers",
    "ridge",
    "evidence",
    "judging",
    "comparison",
    "shifts",
    "scaling",
    "forecast",
    "wording",
    "exports",
    "results",
    "arrays",
    "interchange",
    "timeline",
    "drawing",
    "canvas",
    "timeaxis",
    "captions",
    "panels",
    "circuit_panel",
    "pagedata",
    "figures",
    "figures_comparison",
    "figures_forecast",
    "report",
    "viewer",
    "widget",
]


def modules() -> list[Path]:
    return sorted([*ROOT.glob("circuits/**/*.py"), *ROOT.glob("tracking/**/*.py")])


def name_of(path: Path) -> str:
    """`circuits.tasks` for every file of circuits/tasks, so that a subpackage is one layer."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts[:2])


def imported(path: Path) -> set[str]:
    """Every module that the file names in an import statement, at any depth of the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            found.add(str(node.module))
            if node.module in ("circuits", "tracking"):
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_left(path: Path) -> None:
    package, *_ = parts = path.relative_to(ROOT).parts
    if len(parts) == 2 and parts[1] == "__init__.py":
        return  # the door of the package: it re-exports, and nothing imports from it (below)
    own = name_of(path)
    assert own in LAYERS, f"{own} is not in the layout"
    for name in imported(path):
        top = ".".join(name.split(".")[:2])
        if not top.startswith(("circuits", "tracking")) or top == own:
            continue
        assert top in LAYERS, f"{own} imports {name}; import from the module that defines it"
        assert not (package == "circuits" and top.startswith("tracking")), f"{own} imports {name}"
        if LAYERS[top][0] == LAYERS[own][0]:
            assert LAYERS[top][1] <= LAYERS[own][1], f"{own} imports {name}, which is to its right"


def test_no_import_cycle() -> None:
    import networkx as nx

    graph = nx.DiGraph((name_of(path), ".".join(name.split(".")[:2])) for path in modules() for name in imported(path))
    graph.remove_nodes_from(["circuits", "tracking", "circuits.__init__", "tracking.__init__"])
    graph.remove_edges_from(list(nx.selfloop_edges(graph)))
    assert list(nx.simple_cycles(graph)) == []


def test_only_the_model_imports_transformer_lens() -> None:
    doors = {path.name for path in modules() if any(n.startswith("transformer_lens") for n in imported(path))}
    assert doors <= {"model.py"}


def test_only_graph_is_numpy_only() -> None:
    foreign = {name.split(".")[0] for name in imported(ROOT / "circuits/graph.py")}
    assert foreign <= {
        "re",
        "collections",
        "dataclasses",
        "functools",
        "typing",
        "numpy",
        "jaxtyping",
        "pandas",
    }


@pytest.mark.parametrize("module", MODEL_FREE)
def test_the_right_half_needs_no_model(module: str) -> None:
    paths = [path for path in modules() if name_of(path) == f"tracking.{module}"]
    for path in paths:
        seen = {name for name in imported(path) if name.startswith("circuits")}
        assert seen <= {"circuits.graph", "circuits.circuit"}, f"{path.name} sees {seen}"
        assert not any(name.split(".")[0] == "torch" for name in imported(path)), f"{path.name} imports torch"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_opens_with_a_docstring(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))
