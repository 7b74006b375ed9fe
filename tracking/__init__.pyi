from .checkpoints.audit import audit as audit
from .checkpoints.runs import Run as Run
from .cli.demo import run_demo as run_demo
from .comparison.comparison import compare as compare
from .comparison.effects import effect_of as effect_of
from .comparison.run_set import run_set as run_set
from .comparison.scaling import scaling_laws as scaling_laws
from .datasets.synthetic import PlantedRise as PlantedRise
from .datasets.synthetic import rising_history as rising_history
from .drawing.figures import plot as plot
from .drawing.figures_comparison import plot_comparison as plot_comparison
from .drawing.figures_forecast import plot_forecast as plot_forecast
from .drawing.figures_influence import plot_influence as plot_influence
from .drawing.timelines import build_timeline as build_timeline
from .experiments.branching import branch as branch
from .forecasting.forecast import forecast as forecast
from .formation.formation import formation_table as formation_table
from .history.history import History as History
from .history.history import open_histories as open_histories
from .history.importing import import_history as import_history
from .influence.influence import why as why
from .interventions.interventions import Intervention as Intervention
from .interventions.weights import frozen as frozen
from .lifelines.alignment import align_runs as align_runs
from .lifelines.lifelines import link_lifelines as link_lifelines
from .matching.matching import match as match
from .recording.live import Recorder as Recorder
from .recording.recording import record as record
from .recording.schedules import Schedule as Schedule
from .results.exports import export_timeline as export_timeline
from .training.hyperparameters import TrainingConfig as TrainingConfig
from .training.training import train as train
from .viewer.report import report as report
from .viewer.widget import view as view

__all__ = [
    "History",
    "Intervention",
    "PlantedRise",
    "Recorder",
    "Run",
    "Schedule",
    "TrainingConfig",
    "align_runs",
    "audit",
    "branch",
    "build_timeline",
    "compare",
    "effect_of",
    "export_timeline",
    "forecast",
    "formation_table",
    "frozen",
    "import_history",
    "link_lifelines",
    "match",
    "open_histories",
    "plot",
    "plot_comparison",
    "plot_forecast",
    "plot_influence",
    "record",
    "report",
    "rising_history",
    "run_demo",
    "run_set",
    "scaling_laws",
    "train",
    "view",
    "why",
]
