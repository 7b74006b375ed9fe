from .checkpoints.runs import Run as Run
from .comparison.comparison import compare as compare
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
from .lifelines.alignment import align_runs as align_runs
from .lifelines.lifelines import link_lifelines as link_lifelines
from .matching.matching import match as match
from .recording.live import Recorder as Recorder
from .recording.recording import record as record
from .results.exports import export_timeline as export_timeline
from .training.hyperparameters import TrainingConfig as TrainingConfig
from .training.training import train as train
from .viewer.report import report as report
from .viewer.widget import view as view

__all__ = [
    "History",
    "Intervention",
    "Recorder",
    "Run",
    "TrainingConfig",
    "align_runs",
    "branch",
    "build_timeline",
    "compare",
    "export_timeline",
    "forecast",
    "formation_table",
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
    "train",
    "view",
    "why",
]
