from .adapters import Adapter as Adapter
from .architectures import NativeConfig as NativeConfig
from .architectures import as_bridge as as_bridge
from .architectures import native_module as native_module
from .attribution import attribution_patching as attribution_patching
from .attribution import edge_attribution_patching as edge_attribution_patching
from .checkpoint import checkpoint_hash as checkpoint_hash
from .circuit import Circuit as Circuit
from .circuit import edge_inclusion as edge_inclusion
from .circuit import jaccard as jaccard
from .circuit import load_circuit as load_circuit
from .circuit import prune as prune
from .circuit import save_circuit as save_circuit
from .circuit import select_greedy as select_greedy
from .circuit import select_threshold as select_threshold
from .circuit import select_top as select_top
from .composition import composition_scores as composition_scores
from .composition import copying_scores as copying_scores
from .controls import compare_with_controls as compare_with_controls
from .curves import faithfulness_curve as faithfulness_curve
from .curves import read_mib_graph as read_mib_graph
from .curves import roc_auc as roc_auc
from .curves import write_mib_graph as write_mib_graph
from .discovery import acdc as acdc
from .discovery import find_circuit as find_circuit
from .evaluation import completeness as completeness
from .evaluation import faithfulness as faithfulness
from .evaluation import minimality as minimality
from .flow import direct_logit_attribution as direct_logit_attribution
from .flow import information_flow_routes as information_flow_routes
from .graph import Edge as Edge
from .graph import EdgeScores as EdgeScores
from .graph import Estimate as Estimate
from .graph import ModelGraph as ModelGraph
from .graph import Node as Node
from .graph import NodeScores as NodeScores
from .heads import head_scores as head_scores
from .heads import sequence_losses as sequence_losses
from .hypotheses import circuit_tests as circuit_tests
from .loading import load_model as load_model
from .loading import open_module as open_module
from .loading import save_checkpoint as save_checkpoint
from .metrics import Metric as Metric
from .model import Model as Model
from .patching import activation_patching as activation_patching
from .patching import edge_patching as edge_patching
from .patching import path_patching as path_patching
from .pruning import edge_pruning as edge_pruning
from .rotations import rotation_test as rotation_test
from .rules import GIM as GIM
from .rules import RelP as RelP
from .rules import Rules as Rules
from .selection import select_optimal as select_optimal
from .selection import select_positive as select_positive
from .sites import SiteScores as SiteScores
from .sites import site_attribution as site_attribution
from .sites import site_patching as site_patching
from .stability import alternative_circuit as alternative_circuit
from .stability import circuit_likeness as circuit_likeness
from .tasks.docstring import docstring_task as docstring_task
from .tasks.duplicate_token import duplicate_token_task as duplicate_token_task
from .tasks.from_table import table_task as table_task
from .tasks.gender_pronoun import gender_pronoun_task as gender_pronoun_task
from .tasks.greater_than import greater_than_task as greater_than_task
from .tasks.induction import induction_task as induction_task
from .tasks.ioi import ioi_task as ioi_task
from .tasks.memorization import memorization_task as memorization_task
from .tasks.modular_addition import modular_addition_task as modular_addition_task
from .tasks.ngram import ngram_task as ngram_task
from .tasks.registry import make_task as make_task
from .tasks.subject_verb_agreement import subject_verb_agreement_task as subject_verb_agreement_task
from .tasks.task import Task as Task
from .tasks.task import task_values as task_values

__all__ = [
    "GIM",
    "Adapter",
    "Circuit",
    "Edge",
    "EdgeScores",
    "Estimate",
    "Metric",
    "Model",
    "ModelGraph",
    "NativeConfig",
    "Node",
    "NodeScores",
    "RelP",
    "Rules",
    "SiteScores",
    "Task",
    "acdc",
    "activation_patching",
    "alternative_circuit",
    "as_bridge",
    "attribution_patching",
    "checkpoint_hash",
    "circuit_likeness",
    "circuit_tests",
    "compare_with_controls",
    "completeness",
    "composition_scores",
    "copying_scores",
    "direct_logit_attribution",
    "docstring_task",
    "duplicate_token_task",
    "edge_attribution_patching",
    "edge_inclusion",
    "edge_patching",
    "edge_pruning",
    "faithfulness",
    "faithfulness_curve",
    "find_circuit",
    "gender_pronoun_task",
    "greater_than_task",
    "head_scores",
    "induction_task",
    "information_flow_routes",
    "ioi_task",
    "jaccard",
    "load_circuit",
    "load_model",
    "make_task",
    "memorization_task",
    "minimality",
    "modular_addition_task",
    "native_module",
    "ngram_task",
    "open_module",
    "path_patching",
    "prune",
    "read_mib_graph",
    "roc_auc",
    "rotation_test",
    "save_checkpoint",
    "save_circuit",
    "select_greedy",
    "select_optimal",
    "select_positive",
    "select_threshold",
    "select_top",
    "sequence_losses",
    "site_attribution",
    "site_patching",
    "subject_verb_agreement_task",
    "table_task",
    "task_values",
    "write_mib_graph",
]
