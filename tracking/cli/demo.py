"""Demo: a circuit's formation from nothing to the finished page, on this machine, in two minutes.

The main job from end to end on an ordinary run: train a 2-layer attention-only transformer on repeated random tokens,
record every checkpoint, link and date what was found, and write it out.  Nothing here is special to the demo: each
stage is the function behind the verb of the same name, with its defaults.
"""

from dataclasses import dataclass
from pathlib import Path

from tracking.execution.pool import Progress
from tracking.history.history import History
from tracking.results.exports import export_timeline
from tracking.results.timeline import Timeline, build_timeline

__all__ = ["DemoResult", "run_demo"]

# Dense while the loss falls: the previous-token head leads the induction heads by a few steps only.
FULL = 800, "0..140:20,140..300:4,320..400:20,450..800:50"
QUICK = 400, "0..160:40,160..304:8,350..400:50"


@dataclass(frozen=True)
class DemoResult:
    """Everything the demo made; `sentences` say what formed when."""

    timeline: Timeline
    files: tuple[Path, ...]
    sentences: tuple[str, ...]


def run_demo(
    out: "str | Path",
    *,
    seed: int = 0,
    quick: bool = False,
    progress: Progress | None = None,
) -> DemoResult:
    """Train, record, track and show; a demo that was stopped goes on.

    Args:
        out: folder that receives `run/`, `history/`, `timeline/`, `figure.png` and `report.html`.
        seed: of the model and its data; the prompts are the same for all seeds.
        quick: fewer steps and checkpoints.
        progress: called with (stage, done, total).

    Raises:
        ValueError: the folder holds a demo of another seed or length.
    """
    from tracking.drawing.figures import plot
    from tracking.recording.recording import record
    from tracking.training.hyperparameters import TrainingConfig
    from tracking.training.training import train
    from tracking.viewer.report import report

    out = Path(out)
    steps, checkpoints = QUICK if quick else FULL
    config = TrainingConfig(name=f"demo-seed{seed}", steps=steps, checkpoints=checkpoints, seed=seed)
    show = progress or (lambda what, done, total: None)
    run = train(config, out / "run", progress=show)
    record(out / "run", out / "history", progress=show)
    show("Linking and dating", 0, 4)
    timeline = build_timeline(History.open(out / "history"))
    show("Linking and dating", 1, 4)
    files = export_timeline(timeline, out / "timeline")
    show("Linking and dating", 2, 4)
    plot(timeline).savefig(out / "figure.png", dpi=200)
    show("Linking and dating", 3, 4)
    report(timeline, out / "report.html")
    show("Linking and dating", 4, 4)
    named = (out / "report.html", out / "figure.png", files[0], out / "history", Path(run.source))
    return DemoResult(timeline, named, timeline.runs[0].sentences)
