"""Find the circuit behind a behaviour of one transformer, and judge it."""

from importlib import import_module
from typing import Any

# Names are looked up when first used, so that `import circuits` loads neither torch nor TransformerLens.
_HOMES = {
    "Circuit": "circuits.circuit",
    "Edge": "circuits.graph",
    "EdgeScores": "circuits.graph",
    "Estimate": "circuits.graph",
    "Model": "circuits.transformer",
    "ModelGraph": "circuits.graph",
    "NativeConfig": "circuits.model",
    "Node": "circuits.graph",
    "NodeScores": "circuits.graph",
    "Task": "circuits.tasks.task",
    "activation_patching": "circuits.patching",
    "attribution_patching": "circuits.attribution",
    "checkpoint_hash": "circuits.checkpoint",
    "edge_attribution_patching": "circuits.attribution",
    "edge_patching": "circuits.patching",
    "faithfulness": "circuits.evaluation",
    "find_circuit": "circuits.discovery",
    "head_scores": "circuits.heads",
    "induction_task": "circuits.tasks.induction",
    "jaccard": "circuits.circuit",
    "load_circuit": "circuits.circuit",
    "load_model": "circuits.model",
    "make_task": "circuits.tasks.registry",
    "native_module": "circuits.model",
    "save_checkpoint": "circuits.model",
    "save_circuit": "circuits.circuit",
    "sequence_losses": "circuits.heads",
    "task_values": "circuits.tasks.task",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'circuits' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__]
