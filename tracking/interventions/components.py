"""Named components: which heads and MLPs of a model, or of another checkpoint, a sentence means."""

from dataclasses import dataclass
from pathlib import Path

from circuits.graph import ModelGraph, Node
from circuits.suggestions import suggest
from tracking.checkpoints.runs import Run

__all__ = ["Donor", "head_or_mlp", "named"]


@dataclass(frozen=True)
class Donor:
    """A checkpoint, and one component of it, that weights or patterns are taken from.

    >>> Donor.parse("runs/a@400:a1.h0")
    Donor(folder='runs/a', step=400, component='a1.h0')
    """

    folder: str
    step: int | None = None
    component: str | None = None

    @staticmethod
    def parse(text: str) -> "Donor":
        """`FOLDER`, `RUN@STEP`, and either with `:COMPONENT`.

        Raises:
            ValueError: the step is no whole number, or the component no component.
        """
        place, _, component = text.rpartition(":") if ":" in text else (text, "", "")
        folder, _, step = place.rpartition("@") if "@" in place else (place, "", "")
        if step and not step.isdigit():
            raise ValueError(f"expected a checkpoint such as runs/a@400:a1.h0, got {text!r}")
        if component:
            Node.parse(component)
        return Donor(folder, int(step) if step else None, component or None)

    @property
    def checkpoint(self) -> str:
        """The folder of the checkpoint.

        Raises:
            FileNotFoundError: no such run.
            ValueError: the run has no such step, or several checkpoints and none was named.
        """
        if self.step is None and (Path(self.folder) / "config.json").is_file():
            return self.folder
        run = Run.open(self.folder)
        if self.step is None and len(run) > 1:
            raise ValueError(
                f"{self.folder} has {len(run)} checkpoints; say which, as in {self.folder}@{run.steps[-1]}"
            )
        return (run.checkpoints[0] if self.step is None else run[self.step]).source


def named(name: str, graph: ModelGraph) -> tuple[Node, ...]:
    """The component of that name, or every head of the layer.

    Raises:
        ValueError: the model has no such component; the message names the nearest.
    """
    known = {node.name: (node,) for node in graph.components}
    known |= {
        f"a{layer}": tuple(node for node in graph.heads if node.layer == layer) for layer in range(graph.n_layers)
    }
    if name not in known:
        alike = [other for other in known if other[0] == name[0]]
        near = f"; {suggest(name, alike)} It" if alike else ": it"
        mlps = "each with an MLP" if graph.mlp else "and no MLPs"
        sizes = f"{graph.n_layers} layers of {graph.n_heads} heads, {mlps}"
        raise ValueError(f"the model has no component {name}{near} has {sizes}")
    return known[name]


def head_or_mlp(name: str) -> Node:
    """The head or MLP of that name.

    Raises:
        ValueError: it is neither.
    """
    node = Node.parse(name)
    if node.kind not in ("head", "mlp"):
        raise ValueError(f"expected a head or an MLP, such as a1.h0 or m0, got {name!r}")
    return node
