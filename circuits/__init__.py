"""Find the circuit behind a behaviour of one transformer, and judge it."""

from importlib import import_module
from typing import Any

# Names are looked up when first used, so that `import circuits` loads neither torch nor TransformerLens.
_HOMES = {
    "Circuit": "circuits.circuit",
    "Edge": "circuits.graph",
    "EdgeScores": "circuits.graph",
    "Estimate": "circuits.graph",
    "GIM": "circuits.rules",
    "Metric": "circuits.metrics",
    "Model": "circuits.transformer",
    "ModelGraph": "circuits.graph",
    "NativeConfig": "circuits.model",
    "Node": "circuits.graph",
    "NodeScores": "circuits.graph",
    "RelP": "circuits.rules",
    "Rules": "circuits.rules",
    "SiteScores": "circuits.sites",
    "Task": "circuits.tasks.task",
    "acdc": "circuits.discovery",
    "activation_patching": "circuits.patching",
    "as_bridge": "circuits.model",
    "attribution_patching": "circuits.attribution",
    "checkpoint_hash": "circuits.checkpoint",
    "compare_with_controls": "circuits.controls",
    "completeness": "circuits.evaluation",
    "composition_scores": "circuits.composition",
    "copying_scores": "circuits.composition",
    "direct_logit_attribution": "circuits.flow",
    "docstring_task": "circuits.tasks.docstring",
    "duplicate_token_task": "circuits.tasks.duplicate_token",
    "edge_attribution_patching": "circuits.attribution",
    "edge_patching": "circuits.patching",
    "edge_pruning": "circuits.pruning",
    "faithfulness": "circuits.evaluation",
    "faithfulness_curve": "circuits.curves",
    "find_circuit": "circuits.discovery",
    "gender_pronoun_task": "circuits.tasks.gender_pronoun",
    "greater_than_task": "circuits.tasks.greater_than",
    "head_scores": "circuits.heads",
    "induction_task": "circuits.tasks.induction",
    "information_flow_routes": "circuits.flow",
    "ioi_task": "circuits.tasks.ioi",
    "jaccard": "circuits.circuit",
    "load_circuit": "circuits.circuit",
    "load_model": "circuits.model",
    "make_task": "circuits.tasks.registry",
    "memorization_task": "circuits.tasks.memorization",
    "minimality": "circuits.evaluation",
    "modular_addition_task": "circuits.tasks.modular_addition",
    "native_module": "circuits.model",
    "ngram_task": "circuits.tasks.ngram",
    "path_patching": "circuits.patching",
    "prune": "circuits.circuit",
    "read_mib_graph": "circuits.curves",
    "roc_auc": "circuits.curves",
    "save_checkpoint": "circuits.model",
    "save_circuit": "circuits.circuit",
    "select_greedy": "circuits.circuit",
    "select_threshold": "circuits.circuit",
    "select_top": "circuits.circuit",
    "sequence_losses": "circuits.heads",
    "site_attribution": "circuits.sites",
    "site_patching": "circuits.sites",
    "subject_verb_agreement_task": "circuits.tasks.subject_verb_agreement",
    "table_task": "circuits.tasks.from_table",
    "task_values": "circuits.tasks.task",
    "write_mib_graph": "circuits.curves",
}
__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'circuits' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__]
